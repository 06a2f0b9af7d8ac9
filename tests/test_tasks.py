"""Messages to workers: a run that used up its time sends the next one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from django_faceprint import tasks
from django_faceprint.engine.runner import WorkReport


@pytest.fixture
def run_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], list[int | None]]:
    """Handle one message with a run of the given duration; returns the messages sent at its end."""

    def handle(duration: timedelta) -> list[int | None]:
        seconds = 1000.0
        sent: list[int | None] = []

        def collect_due(**_: object) -> WorkReport:
            nonlocal seconds
            seconds += duration.total_seconds()
            return WorkReport()

        monkeypatch.setattr(tasks.time, "monotonic", lambda: seconds)
        monkeypatch.setattr(tasks.collecting, "collect_due", collect_due)
        monkeypatch.setattr(tasks.collect, "apply_async", lambda args, **_: sent.append(*args))
        tasks.collect(5)
        return sent

    return handle


def test_a_run_that_used_up_its_time_sends_the_next_message(
    run_for: Callable[[timedelta], list[int | None]],
) -> None:
    assert run_for(tasks.RUN_BUDGET) == [None]


def test_a_run_that_ended_early_sends_none(run_for: Callable[[timedelta], list[int | None]]) -> None:
    assert run_for(tasks.RUN_BUDGET - timedelta(seconds=1)) == []
