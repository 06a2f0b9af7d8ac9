"""What workers do with a message: nothing depends on it, and it brings the next one only when time was up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from django_faceprint import tasks
from django_faceprint.engine.runner import WorkReport


@pytest.fixture
def run_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], list[int | None]]:
    """Handle one message with a run that takes so long; the messages that were sent at its end."""

    def handle(duration: timedelta) -> list[int | None]:
        seconds = 1000.0
        sent: list[int | None] = []

        def collect_due(**_: object) -> WorkReport:
            nonlocal seconds
            seconds += duration.total_seconds()
            return WorkReport()

        monkeypatch.setattr(tasks.time, "monotonic", lambda: seconds)
        monkeypatch.setattr(tasks.collecting, "collect_due", collect_due)
        monkeypatch.setattr(tasks, "_send", lambda pk=None: sent.append(pk))
        tasks.collect(5)
        return sent

    return handle


def test_a_run_whose_time_was_up_is_followed_by_another(
    run_for: Callable[[timedelta], list[int | None]],
) -> None:
    assert run_for(tasks.RUN_BUDGET) == [None]


def test_a_run_that_came_to_an_end_is_not(run_for: Callable[[timedelta], list[int | None]]) -> None:
    assert run_for(tasks.RUN_BUDGET - timedelta(seconds=1)) == []
