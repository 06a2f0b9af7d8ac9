"""Whose turn it is: due work, earliest deadline first, claimed under a fenced lease.

A session with work left is in one of two states, each a nullable, indexed column: *asleep*
(``wake_at``) or *ready* (``ready_deadline``). A claim turns ready into asleep-until-the-lease-ends,
so that a worker that dies needs no cleaner: its session simply wakes up. Every claim increments
``lease_epoch`` and every later write is conditional on it, so that a worker that wakes after an hour
writes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connections, router, transaction
from django.db.models import BooleanField, Case, DateTimeField, F, Q, Value, When
from django.db.models.functions import Coalesce

from django_faceprint.clock import now
from django_faceprint.models import VerificationSession

from .deadlines import window_closes_at

#: Celery's soft and hard limits of one task, the lease of one session, all in seconds. A task must be
#: dead before its lease ends, and the lease must end before a broker delivers the message again.
SOFT_TIME_LIMIT = 240
HARD_TIME_LIMIT = 300
LEASE_SECONDS = 420
#: Seconds from a run's start after which no further download begins, so that the soft limit finds none.
DOWNLOADS_BEGIN_WITHIN = 120
LEASE = timedelta(seconds=LEASE_SECONDS)

PROMOTE_BATCH = 500
CLAIM_CANDIDATES = 8

FIRST_POLL = timedelta(seconds=30)
LAST_POLL_MARGIN = timedelta(seconds=30)
POLL_INTERVAL_MAX = timedelta(minutes=15)
BACKOFF_FIRST = timedelta(seconds=2)
BACKOFF_MAX = timedelta(minutes=15)

# Jitter needs no cryptographic strength; a generator of our own is not reseeded by host projects.
_jitter = random.Random()  # noqa: S311


class LeaseLost(Exception):
    """Another worker, or an erasure, has taken the session over: stop, nothing more may be written."""


@dataclass(frozen=True)
class Lease:
    """The right to work on one session until ``until``, as long as ``epoch`` is still the row's."""

    session_pk: int
    epoch: int
    until: datetime

    def session(self) -> VerificationSession:
        """The session as it is in the database. Raises :class:`LeaseLost`."""
        session = (
            VerificationSession.objects.select_related("plan")
            .filter(pk=self.session_pk, lease_epoch=self.epoch)
            .first()
        )
        if session is None:
            raise LeaseLost
        return session

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """A transaction that holds the session's row and whose writes count only under this lease.

        Raises :class:`LeaseLost` before anything is written when the lease is no longer ours.
        """
        with transaction.atomic():
            self.update(lease_epoch=F("lease_epoch"))
            yield

    def update(self, **values: Any) -> None:
        """Change columns of the session. Raises :class:`LeaseLost` when the lease is no longer ours."""
        held = VerificationSession.objects.filter(pk=self.session_pk, lease_epoch=self.epoch)
        if held.update(**values) != 1:
            raise LeaseLost

    def release(self, wake_at: datetime | None, *, next_deadline: datetime | None, **values: Any) -> None:
        """Give the session back: asleep until *wake_at*, or done when None.

        Whoever poked the session meanwhile gets it worked on again at once.
        """
        self.update(
            wake_at=Case(
                When(poked=True, then=Value(now(), output_field=DateTimeField())),
                default=Value(wake_at, output_field=DateTimeField(null=True)),
                output_field=DateTimeField(null=True),
            ),
            ready_deadline=None,
            next_deadline=next_deadline,
            lease_until=None,
            poked=Value(False, output_field=BooleanField()),
            **values,
        )


def promote(moment: datetime, *, limit: int = PROMOTE_BATCH) -> int:
    """Make sessions whose time has come ready, at most *limit*, soonest first; returns how many."""
    due = list(
        VerificationSession.objects.asleep_until(moment)
        .order_by("wake_at")
        .values_list("pk", flat=True)[:limit]
    )
    if not due:
        return 0
    return VerificationSession.objects.filter(pk__in=due, wake_at__lte=moment).update(
        ready_deadline=Coalesce("next_deadline", F("wake_at")), wake_at=None
    )


def claim(moment: datetime, *, session_pk: int | None = None) -> Lease | None:
    """Take the most urgent ready session, or the named one when it is ready; None when there is none."""
    ready = VerificationSession.objects.ready()
    if session_pk is not None:
        ready = ready.filter(pk=session_pk)
    connection = connections[router.db_for_write(VerificationSession)]
    if connection.features.has_select_for_update_skip_locked:
        with transaction.atomic():
            row = (
                ready.select_for_update(skip_locked=True, of=("self",) if _supports_of(connection) else ())
                .values_list("pk", "lease_epoch")
                .first()
            )
            return _take(row[0], row[1], moment) if row else None
    # Compare and set: of several workers that read the same candidates each wins a different one.
    for pk, epoch in ready.values_list("pk", "lease_epoch")[:CLAIM_CANDIDATES]:
        if lease := _take(pk, epoch, moment):
            return lease
    return None


def _supports_of(connection: Any) -> bool:
    return bool(connection.features.has_select_for_update_of)


def _take(pk: int, epoch: int, moment: datetime) -> Lease | None:
    until = moment + LEASE
    taken = VerificationSession.objects.filter(pk=pk, lease_epoch=epoch, ready_deadline__isnull=False).update(
        lease_epoch=epoch + 1, lease_until=until, wake_at=until, ready_deadline=None, poked=False
    )
    return Lease(pk, epoch + 1, until) if taken else None


def poke(session_pk: int) -> None:
    """Make a session due now. One that a worker holds is worked on again as soon as it is released."""
    moment = now()
    row = VerificationSession.objects.filter(pk=session_pk)
    row.filter(lease_until__gt=moment).update(poked=True)
    row.filter(Q(lease_until__isnull=True) | Q(lease_until__lte=moment), wake_at__isnull=False).update(
        ready_deadline=Coalesce("next_deadline", F("wake_at")), wake_at=None
    )


def backoff(failures: int) -> timedelta:
    """How long to wait after *failures* failures in a row: doubling from 2 s to 15 min, with jitter."""
    full = min(BACKOFF_FIRST * 2 ** min(max(failures, 1) - 1, 12), BACKOFF_MAX)
    return full * _jitter.uniform(0.5, 1.0)


def retry_at(moment: datetime, failures: int, deadline: datetime | None) -> datetime:
    """When to try again after a failure; sooner when *deadline* is near."""
    wait = backoff(failures)
    if deadline is not None and deadline > moment:
        wait = min(wait, max((deadline - moment) / 10, BACKOFF_FIRST))
    return moment + wait


def next_poll_at(session: VerificationSession, moment: datetime) -> datetime | None:
    """When to ask again about a session whose person has not finished.

    Seconds after the browser returned, then on intervals that widen with the session's age, once
    right after the token's end and, because a person may be in mid-flow there, a last time when the
    window has certainly closed. None when the token was never obtained.
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
    just_after_end = session.expires_at + LAST_POLL_MARGIN
    if moment < just_after_end < candidate:
        return just_after_end
    if moment < closes_at < candidate:
        return closes_at
    return candidate


def first_poll_at(answered_at: datetime) -> datetime:
    """When to ask for the first time about a fresh verify_token."""
    return answered_at + FIRST_POLL
