"""The control run's order, the failing storage and the clock that follows the answers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from itertools import count, repeat
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile

from chaos import arrival
from chaos.clock import PacedClock
from chaos.storage import KINDS, FailingStorage, StorageFault, failures, set_share
from django_faceprint.engine import queue
from django_faceprint.sandbox.clock import SandboxClock
from tests.factories import make_session


@pytest.fixture
def by_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that monkeypatch restores what work_by_arrival() replaces.
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
    # They keep their order as time goes by.
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
    assert set(failures(faults)) == set(KINDS)
    assert failures(faults).total() == 61
    set_share(faults, 0)
    storage.delete("safe")
    assert not storage.exists("safe")


FOREVER = 1e9


def followed(file: Path, steps: int, *, answers: Iterable[int], until_due: float, **rules: float) -> float:
    """The seconds that a clock with these rules goes ahead in a number of steps."""
    counts = iter(answers)
    clock = PacedClock(file, answers=lambda: next(counts), until_due=lambda moment: until_due)
    for name, value in rules.items():
        setattr(clock, name, value)
    before = SandboxClock(file).offset
    for _ in range(1 + steps):
        clock.step()
    return SandboxClock(file).offset - before


def test_time_goes_by_with_the_answers(tmp_path: Path) -> None:
    answers = [100, 110, 110, 115]
    assert followed(tmp_path / "clock", 3, answers=answers, until_due=FOREVER, per_answer=2.0) == 30.0


def test_without_work_time_goes_by_until_something_is_due(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    ahead = followed(file, 5, answers=repeat(7), until_due=FOREVER, when_idle=20.0)
    assert ahead == 6 + 12 + 20 + 20 + 20
    assert followed(file, 2, answers=repeat(7), until_due=3.0, when_idle=20.0) == 3 + 3
    assert followed(file, 3, answers=count(), until_due=FOREVER, when_idle=20.0) == 3 + 3 + 3


def test_the_clock_keeps_a_failure_of_its_thread(tmp_path: Path) -> None:
    problem = RuntimeError("no ledger")

    def answers() -> int:
        raise problem

    clock = PacedClock(tmp_path / "clock", answers=answers, until_due=lambda moment: FOREVER)
    clock.start()
    clock.stop()
    assert clock.failure is problem
