"""As many visits at once as keep one core busy: grown and shrunk by the load, in an injected time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from django_faceprint.engine.concurrency import FIRST, WINDOW, AdaptiveConcurrency


@dataclass
class Process:
    """A process whose time and load are told."""

    most: int
    seconds: float = 0.0
    used: float = 0.0
    concurrency_control: AdaptiveConcurrency = field(init=False)

    def __post_init__(self) -> None:
        self.concurrency_control = AdaptiveConcurrency(self.most, lambda: self.seconds, lambda: self.used)

    def run(self, load: float, *, windows: int = 1, is_full: bool = True) -> list[int]:
        """Go on for *windows* at *load* cores; the widths after each."""
        widths = []
        for _ in range(windows):
            self.seconds += WINDOW * 1.01
            self.used += WINDOW * 1.01 * load
            self.concurrency_control.adapt(is_full=is_full)
            widths.append(self.concurrency_control.width)
        return widths


@pytest.mark.parametrize(("most", "first"), [(1, 1), (3, 3), (4, 4), (64, FIRST)])
def test_it_begins_with_a_few(most: int, first: int) -> None:
    assert Process(most).concurrency_control.width == first


def test_waiting_makes_room_for_more_up_to_the_most() -> None:
    assert Process(20).run(0.2, windows=5) == [8, 16, 20, 20, 20]


@pytest.mark.parametrize("load", [0.95, 1.0, 1.9])
def test_a_busy_core_takes_fewer_down_to_one(load: float) -> None:
    assert Process(8).run(load, windows=5) == [3, 2, 1, 1, 1]


def test_between_the_two_nothing_changes() -> None:
    assert Process(8).run(0.8, windows=3) == [4, 4, 4]


def test_idleness_for_want_of_work_says_nothing() -> None:
    assert Process(8).run(0.0, windows=3, is_full=False) == [4, 4, 4]


def test_a_moment_is_too_short_to_judge_by() -> None:
    process = Process(8)
    for _ in range(9):
        process.seconds += WINDOW / 10
        process.concurrency_control.adapt(is_full=True)
    assert process.concurrency_control.width == 4
    process.seconds += WINDOW / 5
    process.concurrency_control.adapt(is_full=True)
    assert process.concurrency_control.width == 8


def test_it_follows_an_upstream_that_turns_slow_and_quick_again() -> None:
    process = Process(16)
    assert process.run(1.0, windows=2) == [3, 2]
    assert process.run(0.3, windows=3) == [4, 8, 16]
    assert process.run(1.0, windows=3) == [15, 14, 13]
