"""The yardstick itself, against every schedule of a few jobs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.optimum import least_rate, moore_hodgson, most_in_turns, no_more_than

times = st.integers(0, 12)


def most_by_trying(jobs: Sequence[tuple[int, int]]) -> int:
    """Every order of all jobs: how many are in time in the best of them."""
    best = 0
    for order in itertools.permutations(jobs):
        end = kept = 0
        for duration, deadline in order:
            # A job that would be late is left for the end: it delays nobody.
            if end + duration <= deadline:
                end += duration
                kept += 1
        best = max(best, kept)
    return best


def most_turns_by_trying(jobs: Sequence[tuple[int, int]], turns: Sequence[int]) -> int:
    """Every choice of a job, or none, for every turn."""
    if not turns:
        return 0
    best = most_turns_by_trying(jobs, turns[1:])
    for number, (first, last) in enumerate(jobs):
        if first <= turns[0] <= last:
            rest = [*jobs[:number], *jobs[number + 1 :]]
            best = max(best, 1 + most_turns_by_trying(rest, turns[1:]))
    return best


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 20)), max_size=6))
def test_moore_and_hodgson_give_the_optimum(jobs: list[tuple[int, int]]) -> None:
    assert moore_hodgson(jobs) == most_by_trying(jobs)


@given(st.lists(st.tuples(times, times), max_size=5), st.lists(times, max_size=5, unique=True).map(sorted))
def test_turns_are_assigned_optimally(jobs: list[tuple[int, int]], turns: list[int]) -> None:
    assert most_in_turns(jobs, turns) == most_turns_by_trying(jobs, turns)


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 3))
def test_both_agree_where_both_apply(deadlines: list[int], length: int) -> None:
    turns = [length * number for number in range(1, len(deadlines) + 1)]
    assert moore_hodgson((length, deadline) for deadline in deadlines) == most_in_turns(
        [(0, deadline) for deadline in deadlines], turns
    )


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_at_the_least_rate_all_is_kept_and_below_it_something_is_lost(deadlines: list[int]) -> None:
    # In steps that are exact: so many jobs done by each deadline as there must be.
    rate = least_rate(deadlines)
    done = [rate * deadline for deadline in sorted(deadlines)]
    needed = range(1, len(deadlines) + 1)
    assert all(count >= least - 1e-9 for count, least in zip(done, needed, strict=True))
    assert any(0.999 * count < least for count, least in zip(done, needed, strict=True))


def most_pieces_by_trying(jobs: Sequence[tuple[int, list[int]]], turns: Sequence[int]) -> int:
    """Every choice of a job, or none, for every turn, where a job yields what is still there."""
    if not turns:
        return 0
    best = most_pieces_by_trying(jobs, turns[1:])
    for number, (first, lasts) in enumerate(jobs):
        if first <= turns[0]:
            there = sum(last >= turns[0] for last in lasts)
            rest = [*jobs[:number], *jobs[number + 1 :]]
            best = max(best, there + most_pieces_by_trying(rest, turns[1:]))
    return best


pieces = st.lists(times, min_size=1, max_size=3).map(sorted)


@given(st.lists(st.tuples(times, pieces), max_size=4))
def test_no_schedule_beats_the_bound(jobs: list[tuple[int, list[int]]]) -> None:
    assert no_more_than(jobs, 0.5) >= most_pieces_by_trying(jobs, range(2, 13, 2))


def test_the_bound_is_close_where_time_is_short() -> None:
    """Forty sessions with two pieces each, one turn a second, the first pieces all gone after ten."""
    assert no_more_than([(0.0, [10.0, 100.0])] * 40, 1.0) == 40 + 10
    # One session in two comes too late for the first piece.
    assert no_more_than([(0.0, [10.0, 100.0]), (11.0, [100.0])] * 20, 1.0) == 40 + 10
