"""The counter-run's order, the failing storage and the clock that follows the answers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile

from chaos import arrival
from chaos.clock import PacedClock
from chaos.storage import KINDS, FailingStorage, StorageFault, happened, set_share
from django_faceprint.engine import queue
from tests.factories import make_session


@pytest.fixture
def by_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set and set back by monkeypatch, whatever work_by_arrival() does to them.
    monkeypatch.setattr(queue, "priority", queue.priority)
    monkeypatch.setattr(queue, "priority_expression", queue.priority_expression)
    arrival.work_by_arrival()


@pytest.mark.django_db(transaction=True)
def test_first_come_first_served(clock: Any, by_arrival: None) -> None:
    last = make_session(wake_at=clock(), next_deadline=clock() + timedelta(minutes=5), created_at=clock())
    first = make_session(
        wake_at=clock(), next_deadline=clock() + timedelta(hours=50), created_at=clock() - timedelta(hours=1)
    )
    assert queue.promote(clock()) == 2
    leases = queue.claim(clock(), limit=2)
    assert [lease.session_pk for lease in leases] == [first.pk, last.pk]
    # They keep their places as time goes by.
    assert not any(queue.is_stale(lease, clock() + timedelta(minutes=2)) for lease in leases)


@pytest.mark.django_db(transaction=True)
def test_the_engines_own_order_is_the_other_one(clock: Any) -> None:
    urgent = make_session(wake_at=clock(), next_deadline=clock() + timedelta(minutes=5), created_at=clock())
    first = make_session(
        wake_at=clock(), next_deadline=clock() + timedelta(hours=50), created_at=clock() - timedelta(hours=1)
    )
    assert queue.promote(clock()) == 2
    assert [lease.session_pk for lease in queue.claim(clock(), limit=2)] == [urgent.pk, first.pk]


def test_the_storage_fails_in_every_way_and_counts(tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    storage = FailingStorage(location=str(tmp_path / "files"), faults=str(faults))
    assert storage.save("safe", ContentFile(b"0123456789")) == "safe"
    set_share(faults, 1.0)
    sizes = set()
    for number in range(60):
        with pytest.raises(StorageFault):
            storage.save(f"file-{number}", ContentFile(b"0123456789"))
        path = tmp_path / "files" / f"file-{number}"
        sizes.add(path.stat().st_size if path.exists() else None)
    assert sizes == {None, 5, 10}
    with pytest.raises(StorageFault):
        storage.delete("safe")
    assert storage.exists("safe")
    assert set(happened(faults)) == set(KINDS)
    assert happened(faults).total() == 61
    set_share(faults, 0)
    storage.delete("safe")
    assert not storage.exists("safe")


class Steps:
    """Stands for the event that ends the clock's thread: says when a step is over, and stops at last."""

    def __init__(self, count: int) -> None:
        self.left = count

    def wait(self, seconds: float) -> bool:
        self.left -= 1
        return self.left < 0


def follow(clock: PacedClock, steps: int) -> float:
    """How many seconds the clock gets ahead in so many steps."""
    clock._stopping = Steps(steps)  # type: ignore[assignment]
    before = clock._clock.offset
    clock._follow()
    assert clock.failure is None
    return clock._clock.offset - before


def test_time_goes_by_with_the_answers(tmp_path: Path) -> None:
    answers = iter([100, 110, 110, 115])
    clock = PacedClock(tmp_path / "clock", answers=lambda: next(answers), until_due=lambda moment: 1e9)
    clock.per_answer = 2.0
    assert follow(clock, 3) == 30.0


def test_without_work_time_goes_by_until_something_is_due(tmp_path: Path) -> None:
    clock = PacedClock(tmp_path / "clock", answers=lambda: 7, until_due=lambda moment: 1e9)
    clock.when_idle = 20.0
    assert follow(clock, 5) == 6 + 12 + 20 + 20 + 20
    clock = PacedClock(tmp_path / "clock", answers=lambda: 7, until_due=lambda moment: 3.0)
    clock.when_idle = 20.0
    assert follow(clock, 2) == 3 + 3
    busy = iter(range(9))
    clock = PacedClock(tmp_path / "clock", answers=lambda: next(busy), until_due=lambda moment: 1e9)
    clock.when_idle = 20.0
    assert follow(clock, 3) == 3 + 3 + 3
