"""The most that any schedule can keep: the yardstick for an order of work.

Times are numbers on one scale; only their order matters and, for durations, their sums.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence


def moore_hodgson(jobs: Iterable[tuple[float, float]]) -> int:
    """The most of *jobs* (duration, deadline), all ready at 0, that one machine can finish in time.

    Moore, "An n job, one machine sequencing algorithm for minimizing the number of late jobs" (1968), in
    Hodgson's form: take the jobs by their deadlines, and whenever one would be late, give up the longest of
    those taken so far.
    """
    end = 0.0
    taken: list[float] = []
    for duration, deadline in sorted(jobs, key=lambda job: job[1]):
        heapq.heappush(taken, -duration)
        end += duration
        if end > deadline:
            end += heapq.heappop(taken)
    return len(taken)


def most_in_turns(jobs: Iterable[tuple[float, float]], turns: Sequence[float]) -> int:
    """The most of *jobs* (first moment, last moment) that can each have one of *turns* (ascending).

    Glover, "Maximum matching in a convex bipartite graph" (1967): each turn goes to the ready job whose last
    moment comes first. This is Moore's problem for jobs of one length, not all ready at the beginning.
    """
    coming = sorted(jobs, reverse=True)
    waiting: list[float] = []
    done = 0
    for turn in turns:
        while coming and coming[-1][0] <= turn:
            heapq.heappush(waiting, coming.pop()[1])
        while waiting and waiting[0] < turn:
            heapq.heappop(waiting)
        if waiting:
            heapq.heappop(waiting)
            done += 1
    return done


def no_more_than(jobs: Sequence[tuple[float, Sequence[float]]], rate: float, levels: int = 3) -> int:
    """A bound for jobs that yield several pieces: no schedule of evenly spaced turns keeps more of them.

    A job is (first moment, the last moment of each of its pieces). Weak duality: let every turn have a price
    that falls in steps of one; in every schedule each job gains at most the yield of its best turn above that
    turn's price, and all turns together cost at most the sum of their prices. Any steps give a bound; this
    searches for steps that give about the lowest.
    """
    steps = [0.0] * levels
    # Steps that are good for some of the jobs are good for all.
    sample = [*jobs[:: max(1, len(jobs) // 2000)]]
    sample_rate = rate * len(sample) / max(1, len(jobs))
    end = max((lasts[-1] for _, lasts in jobs if lasts), default=0.0)
    least = _bound(sample, sample_rate, steps)
    for width in (end / 8, end / 32, end / 128, end / 512, end / 2048):
        improved = True
        while improved:
            improved = False
            for number, change in itertools.product(range(levels), (-width, width)):
                moved = max(0.0, steps[number] + change)
                tried = sorted([*steps[:number], moved, *steps[number + 1 :]])
                bound = _bound(sample, sample_rate, tried)
                if bound < least:
                    least, steps, improved = bound, tried, True
    return min(_bound(jobs, rate, [0.0] * levels), _bound(jobs, rate, steps))


def _bound(jobs: Sequence[tuple[float, Sequence[float]]], rate: float, steps: Sequence[float]) -> int:
    """The bound for prices that fall by one after each of *steps* (ascending), to 0 after the last."""
    prices = sum(int(step * rate) for step in steps)
    starts = [0.0, *steps]
    gains = 0
    for first, lasts in jobs:
        gain = 0
        for number, start in enumerate(starts):
            if number < len(steps) and first > steps[number]:
                continue
            moment = max(first, start)
            there = sum(last >= moment for last in lasts)
            gain = max(gain, there - (len(steps) - number))
        gains += gain
    return prices + gains


def least_rate(deadlines: Iterable[float]) -> float:
    """The lowest rate (jobs in a unit of time, from 0 on) at which jobs of one length meet *deadlines*."""
    return max(place / deadline for place, deadline in enumerate(sorted(deadlines), start=1))
