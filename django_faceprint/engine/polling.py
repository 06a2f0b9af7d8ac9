"""When to ask Baidu again: polling intervals, and retries with jitter."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from django_faceprint.base.deadlines import window_closes_at
from django_faceprint.models import VerificationSession

FIRST_POLL = timedelta(seconds=30)
LAST_POLL_MARGIN = timedelta(seconds=30)
POLL_INTERVAL_MAX = timedelta(minutes=15)
BACKOFF_FIRST = timedelta(seconds=2)
BACKOFF_MAX = timedelta(minutes=15)

#: Needs no cryptographic strength; a generator of our own is not reseeded by host projects.
jitter = random.Random()  # noqa: S311


def backoff(failures: int) -> timedelta:
    """How long to wait after *failures* failures in a row: doubling from 2 s to 15 min, with jitter."""
    full = min(BACKOFF_FIRST * 2 ** min(max(failures, 1) - 1, 12), BACKOFF_MAX)
    return full * jitter.uniform(0.5, 1.0)


def retry_at(moment: datetime, failures: int, deadline: datetime | None) -> datetime:
    """When to try again after a failure; sooner when *deadline* is near."""
    wait = backoff(failures)
    if deadline is not None and deadline > moment:
        wait = min(wait, max((deadline - moment) / 10, BACKOFF_FIRST))
    return moment + wait


def turn_at(moment: datetime, wait: float) -> datetime:
    """When to try again after our own rate limit asked for *wait* seconds; with jitter."""
    return moment + timedelta(seconds=max(wait, 1.0) * jitter.uniform(1.0, 1.5))


def next_poll_at(session: VerificationSession, moment: datetime) -> datetime | None:
    """When to ask again about a session whose person has not finished.

    Seconds after the browser returned, then at intervals that widen with the session's age; once right
    after the token's end, and a last time when the window has certainly closed, because a person may be in
    the middle of the flow: at once if it closed while the last answer was on its way. None when the token
    was never obtained.
    """
    closes_at = window_closes_at(session)
    if closes_at is None or session.token_answered_at is None or session.expires_at is None:
        return None
    age = max(moment - session.token_answered_at, timedelta(0))
    wait = min(max(FIRST_POLL, age / 4), POLL_INTERVAL_MAX)
    if session.returned_at is not None:
        since = max(moment - session.returned_at, timedelta(0))
        wait = min(wait, max(BACKOFF_FIRST, since / 2))
    candidate = moment + wait
    asked_at = min(session.last_polled_at or moment, moment)
    for milestone in (session.expires_at + LAST_POLL_MARGIN, closes_at):
        if asked_at < milestone < candidate:
            return max(milestone, moment)
    return candidate


def first_poll_at(answered_at: datetime) -> datetime:
    """When to ask for the first time about a fresh verify_token."""
    return answered_at + FIRST_POLL
