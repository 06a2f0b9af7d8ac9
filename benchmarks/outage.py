"""Who waits for us when an outage ends: sessions, drawn at random but the same each time.

Seconds count from the end of the outage. What is true of a session upstream (:class:`Story`) is kept apart
from its row: the engine learns of it by asking only.
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
class Story:
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


def backlog(count: int, *, seed: int = 1, verify_within: float = 0.0) -> list[Story]:
    """Sessions that started during the outage; each person was done within *verify_within* seconds.

    With 0, evidence goes as early as it can, when the engine's safe deadline is over.
    """
    chance = random.Random(seed)
    starts = sorted(chance.choices(range(20), weights=_outage_hours(), k=count))
    return [
        _story(chance, -OUTAGE + 3600 * (hour + chance.random()), verify_within=verify_within)
        for hour in starts
    ]


def asked_in_vain(
    count: int, *, seed: int = 3, left: tuple[float, float] = (1800.0, DAY - OUTAGE)
) -> list[Story]:
    """Sessions of the last hours before Baidu failed; the engine has been trying again and again since.

    Their media have so many seconds *left*, half an hour to four hours; each session sleeps until its next
    try.
    """
    chance = random.Random(seed)
    stories = []
    # The waits between the tries are drawn by lot: the same each time.
    polling.jitter.seed(seed)
    for start in sorted(chance.uniform(left[0] - DAY, left[1] - DAY) for _ in range(count)):
        story = _story(chance, start, verify_within=0.0)
        deadline = START + timedelta(seconds=min(at for at in story.gone.values() if at > 0))
        moment = START - timedelta(minutes=20)
        while moment < START:
            moment = polling.retry_at(moment, 20, deadline)
        stories.append(replace(story, wakes_at=(moment - START).total_seconds()))
    return stories


def arrivals(
    count: int, *, seed: int = 2, within: float = DAY, never: float = 0.0, verify_within: float = 0.0
) -> list[Story]:
    """Sessions that start in the time *within* after the outage; a share *never* does not finish."""
    chance = random.Random(seed)
    stories = []
    for start in sorted(chance.uniform(0, within) for _ in range(count)):
        if chance.random() < never:
            stories.append(Story(start, None, None, chance.random() < RECORDED))
        else:
            stories.append(_story(chance, start, away=chance.uniform(60, 600), verify_within=verify_within))
    return stories


def _outage_hours() -> list[int]:
    return [HOURS[(OUTAGE_BEGINS_AT + hour) % 24] for hour in range(20)]


def _story(chance: random.Random, start: float, *, away: float = 120.0, verify_within: float) -> Story:
    records = chance.random() < RECORDED
    verified_at = start + chance.uniform(0, verify_within)
    kinds = LIVES if records else [kind for kind in LIVES if kind != "media"]
    back_at = max(start + away, verified_at)
    return Story(start, back_at, back_at, records, {kind: verified_at + LIVES[kind] for kind in kinds})


def enough(stories: Sequence[Story], visit_seconds: float) -> float:
    """The least rate (sessions a second) at which all media of a backlog can be kept."""
    return least_rate(story.gone["media"] - visit_seconds for story in stories if "media" in story.gone)


def most(stories: Sequence[Story], kind: str, *, rate: float, visit_seconds: float) -> int:
    """Of how many sessions evidence of *kind* can be kept at most, by whoever knows all in advance.

    Each session needs one turn, from when the person is done until so long before the evidence is gone. For
    a backlog that is all there from the beginning this is Moore and Hodgson's number.
    """
    jobs = [
        (max(story.finished_at, 0.0), story.gone[kind] - visit_seconds)
        for story in stories
        if story.finished_at is not None and kind in story.gone
    ]
    last = max((job[1] for job in jobs), default=0.0)
    return most_in_turns(jobs, [turn / rate for turn in range(1, int(last * rate) + 1)])


def most_together(
    stories: Sequence[Story], kinds: Sequence[str], *, rate: float, visit_seconds: float
) -> int:
    """No schedule keeps more pieces of these *kinds* in all: one visit yields all that is still there."""
    jobs = [
        (
            max(story.finished_at, 0.0),
            sorted(at - visit_seconds for kind, at in story.gone.items() if kind in kinds),
        )
        for story in stories
        if story.finished_at is not None
    ]
    each = sum(most(stories, kind, rate=rate, visit_seconds=visit_seconds) for kind in kinds)
    return min(each, no_more_than(jobs, rate, levels=len(kinds)))
