"""The sessions that are outstanding when an outage ends, drawn at random with fixed seeds.

Seconds count from the end of the outage. What is true of a session upstream (:class:`Scenario`) is kept apart
from its row: the engine learns it only by asking.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from django_faceprint.base.deadlines import FACE_LIFE_WORST_CASE, MEDIA_LIFE, RESULTS_LIFE
from django_faceprint.engine import polling
from tests.clock import START

from .optimum import least_rate, most_in_turns, no_more_than

OUTAGE = timedelta(hours=20).total_seconds()
DAY = timedelta(days=1).total_seconds()
LIVES = {
    "media": MEDIA_LIFE.total_seconds(),
    "results": RESULTS_LIFE.total_seconds(),
    "face": FACE_LIFE_WORST_CASE.total_seconds(),
}
#: Kinds that are surely there until the end of their lives. The face may go after two hours: a precaution.
SURE = ("media", "results")

#: Share of the sessions whose plan records videos.
RECORDED = 0.6
#: Sessions in each hour of the day, in relation to one another. The outage begins at 8 o'clock.
HOURS = (1, 1, 1, 1, 1, 1, 2, 4, 8, 10, 10, 9, 8, 9, 10, 10, 9, 8, 8, 9, 8, 5, 3, 2)
OUTAGE_BEGINS_AT = 8


@dataclass(frozen=True, slots=True)
class Scenario:
    """One person: when the token was issued, the person was done and the browser came back (None: never).

    ``gone`` says when each piece of evidence is gone upstream. ``wakes_at`` is set where the engine has been
    asking in vain: when it will do so again.
    """

    started_at: float
    finished_at: float | None
    returned_at: float | None
    records: bool
    gone: dict[str, float] = field(default_factory=dict)
    wakes_at: float | None = None


def backlog(count: int, *, seed: int = 1, verify_within: float = 0.0) -> list[Scenario]:
    """Sessions that started during the outage; each person was done within *verify_within* seconds.

    With 0, evidence goes as early as it can, when the engine's safe deadline is over.
    """
    chance = random.Random(seed)
    starts = sorted(chance.choices(range(20), weights=_outage_hours(), k=count))
    return [
        _scenario(chance, -OUTAGE + 3600 * (hour + chance.random()), verify_within=verify_within)
        for hour in starts
    ]


def asked_in_vain(
    count: int, *, seed: int = 3, left: tuple[float, float] = (1800.0, DAY - OUTAGE)
) -> list[Scenario]:
    """Sessions of the last hours before Baidu failed; the engine has been trying again and again since.

    Their media have *left* (least, most) seconds left, half an hour to four hours by default; each session
    sleeps until its next try.
    """
    chance = random.Random(seed)
    scenarios = []
    # The waits between the tries are random: the same each time.
    polling.jitter.seed(seed)
    for start in sorted(chance.uniform(left[0] - DAY, left[1] - DAY) for _ in range(count)):
        scenario = _scenario(chance, start, verify_within=0.0)
        deadline = START + timedelta(seconds=min(at for at in scenario.gone.values() if at > 0))
        moment = START - timedelta(minutes=20)
        while moment < START:
            moment = polling.retry_at(moment, 20, deadline)
        scenarios.append(replace(scenario, wakes_at=(moment - START).total_seconds()))
    return scenarios


def arrivals(
    count: int, *, seed: int = 2, within: float = DAY, never: float = 0.0, verify_within: float = 0.0
) -> list[Scenario]:
    """Sessions that start in the time *within* after the outage; a share *never* does not finish."""
    chance = random.Random(seed)
    scenarios = []
    for start in sorted(chance.uniform(0, within) for _ in range(count)):
        if chance.random() < never:
            scenarios.append(Scenario(start, None, None, chance.random() < RECORDED))
        else:
            scenarios.append(
                _scenario(chance, start, away=chance.uniform(60, 600), verify_within=verify_within)
            )
    return scenarios


def _outage_hours() -> list[int]:
    return [HOURS[(OUTAGE_BEGINS_AT + hour) % 24] for hour in range(20)]


def _scenario(chance: random.Random, start: float, *, away: float = 120.0, verify_within: float) -> Scenario:
    records = chance.random() < RECORDED
    verified_at = start + chance.uniform(0, verify_within)
    kinds = LIVES if records else [kind for kind in LIVES if kind != "media"]
    back_at = max(start + away, verified_at)
    return Scenario(start, back_at, back_at, records, {kind: verified_at + LIVES[kind] for kind in kinds})


def enough(scenarios: Sequence[Scenario], visit_seconds: float) -> float:
    """The least rate (sessions a second) at which all media of a backlog can be kept."""
    return least_rate(
        scenario.gone["media"] - visit_seconds for scenario in scenarios if "media" in scenario.gone
    )


def most(scenarios: Sequence[Scenario], kind: str, *, rate: float, visit_seconds: float) -> int:
    """The most sessions whose evidence of *kind* a schedule can keep that knows everything in advance.

    Each session needs one slot after its person is done and *visit_seconds* before the evidence is gone. For
    a backlog that is all there from the beginning this is Moore and Hodgson's number.
    """
    jobs = [
        (max(scenario.finished_at, 0.0), scenario.gone[kind] - visit_seconds)
        for scenario in scenarios
        if scenario.finished_at is not None and kind in scenario.gone
    ]
    last = max((job[1] for job in jobs), default=0.0)
    return most_in_turns(jobs, [turn / rate for turn in range(1, int(last * rate) + 1)])


def most_together(
    scenarios: Sequence[Scenario], kinds: Sequence[str], *, rate: float, visit_seconds: float
) -> int:
    """A bound on the pieces of these *kinds* together: one visit yields all that is still there."""
    jobs = [
        (
            max(scenario.finished_at, 0.0),
            sorted(at - visit_seconds for kind, at in scenario.gone.items() if kind in kinds),
        )
        for scenario in scenarios
        if scenario.finished_at is not None
    ]
    each = sum(most(scenarios, kind, rate=rate, visit_seconds=visit_seconds) for kind in kinds)
    return min(each, no_more_than(jobs, rate, levels=len(kinds)))
