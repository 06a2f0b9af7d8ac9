"""How much any schedule could keep: the yardstick for an order of work.

Times are numbers on one scale, of which only the order and, for durations, the sums count.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence


def moore_hodgson(jobs: Iterable[tuple[float, float]]) -> int:
    """How many of *jobs* (duration, deadline), all ready at 0, one machine can finish in time at most.

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
    """How many of *jobs* (first moment, last moment) can be given one of *turns* (ascending) each at most.

    Glover, "Maximum matching in a convex bipartite graph" (1967): each turn goes to the job that may be done
    and whose last moment comes first. This is Moore's problem for jobs of one length that are not all ready
    at the beginning.
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


def least_rate(deadlines: Iterable[float]) -> float:
    """The lowest rate (jobs in a unit of time, from 0 on) at which jobs of one length meet *deadlines*."""
    return max(place / deadline for place, deadline in enumerate(sorted(deadlines), start=1))
