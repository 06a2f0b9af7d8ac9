"""Whose turn it is: due work, earliest deadline first, claimed under a fenced lease.

A session with work left is in one of two states, each a nullable, indexed column: *asleep*
(``wake_at``) or *ready* (``ready_deadline``). A claim turns ready into asleep-until-the-lease-ends,
so that a worker that dies needs no cleaner: its session simply wakes up. Every claim increments
``lease_epoch`` and every later write is conditional on it, so that a worker that wakes after an hour
writes nothing.

``ready_deadline`` is the first of the session's safe deadlines that can still be kept. When none can, the
session goes behind everything that has one: work that can no longer make it yields to work that can. So does
work that perhaps makes it, but only to what has less than a day.
Deadlines go by while sessions wait, those of the first in the queue above all: when there is too little time
for all, a queue that is not put right before each claim spends its turns on what is lost anyway.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connections, router, transaction
from django.db.models import BooleanField, Case, DateTimeField, F, Q, Value, When
from django.db.models.functions import Coalesce

from django_faceprint.clock import now
from django_faceprint.models import VerificationSession
from django_faceprint.models.session import VerificationSessionQuerySet

from .deadlines import MEDIA_LIFE, NO_DEADLINES, Ladder, window_closes_at

#: Celery's soft and hard limits of one task, and how long a session may be held from its claim on, all in
#: seconds. A task must be dead before that is over, and it must be over before a broker delivers the message
#: again.
SOFT_TIME_LIMIT = 240
HARD_TIME_LIMIT = 300
LEASE_SECONDS = 420
#: Seconds from a run's start after which no further download begins, so that the soft limit finds none.
DOWNLOADS_BEGIN_WITHIN = 120
LEASE = timedelta(seconds=LEASE_SECONDS)
#: A run takes its leases for a term and renews them long before it is over: a worker that dies keeps its
#: sessions from the others no longer than that, however little time they have left. One that visits a single
#: session at once renews between downloads only, so that its term is longer than the longest of them.
TERM = timedelta(seconds=60)
TERM_OF_ONE_AT_ONCE = timedelta(seconds=150)
RENEWED_AFTER = timedelta(seconds=15)
LONGEST_VISIT = timedelta(seconds=120)

PROMOTE_BATCH = 500
REAIM_BATCHES = 20
#: A deadline nearer than this is not counted on any more: a visit waits for its turn, for ten seconds at
#: most, and asking and fetching take their time. Too long a reach costs what could be done in it, once; too
#: short a one spends turn after turn on work that comes too late, for as long as there is not enough time.
REACH = timedelta(seconds=12)
#: How far behind everything else work goes whose safe deadlines are all over. Among such work the one that
#: upstream may keep longest comes last.
BEHIND = timedelta(days=36_525)

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
class Release:
    """When to look again (None: never, all is done) and the safe deadlines of what is outstanding."""

    wake_at: datetime | None
    ladder: Ladder = NO_DEADLINES

    def columns(self) -> dict[str, Any]:
        """The columns that give a session back. Whoever poked it meanwhile gets it worked on at once.

        In this order: MySQL sets columns one after the other, and ``wake_at`` reads ``poked``.
        """
        return {
            "wake_at": Case(
                When(poked=True, then=Value(now(), output_field=DateTimeField())),
                default=Value(self.wake_at, output_field=DateTimeField(null=True)),
                output_field=DateTimeField(null=True),
            ),
            "ready_deadline": None,
            "lease_until": None,
            "poked": Value(False, output_field=BooleanField()),
            **self.ladder.columns(),
        }


@dataclass(frozen=True)
class Lease:
    """The right to work on one session, as long as ``epoch`` is still the row's.

    Until when it is good stands in the row. ``row`` is the session as it was claimed, where the claim has
    read it, ``since`` when that was, and ``aimed_at`` what it was ordered by.
    """

    session_pk: int
    epoch: int
    row: VerificationSession | None = field(default=None, compare=False, repr=False)
    since: datetime | None = field(default=None, compare=False, repr=False)
    aimed_at: datetime | None = field(default=None, compare=False, repr=False)

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


def aim(
    moment: datetime,
    *,
    next_deadline: datetime | None,
    later_deadline: datetime | None,
    last_deadline: datetime | None,
    media_deadline: datetime | None,
    media_latest: datetime | None,
    results_latest: datetime | None,
    wake_at: datetime | None,
) -> datetime | None:
    """What a session is ordered by at *moment*, smaller first: the Python twin of :func:`aim_expression`."""
    soon, day = moment + REACH, moment + MEDIA_LIFE
    rungs = (next_deadline, later_deadline, last_deadline)
    ahead = [deadline for deadline in rungs if deadline is not None and deadline > soon]
    for deadline in ahead:
        if deadline <= day:
            return deadline
    if media_deadline is not None and media_latest is not None and media_deadline <= soon < media_latest:
        return day
    if ahead:
        return ahead[0]
    if results_latest is not None:
        return results_latest + BEHIND
    return next_deadline or wake_at


def aim_of(session: VerificationSession, moment: datetime) -> datetime | None:
    """What *session* is ordered by at *moment*."""
    return aim(
        moment,
        next_deadline=session.next_deadline,
        later_deadline=session.later_deadline,
        last_deadline=session.last_deadline,
        media_deadline=session.media_deadline,
        media_latest=session.media_latest,
        results_latest=session.results_latest,
        wake_at=session.wake_at,
    )


def aim_expression(moment: datetime) -> Any:
    """What a session is ordered by at *moment*, as an expression for its ``ready_deadline``.

    Recordings whose safe deadline is over may be there for some hours yet: they yield to what may go within a
    day, and go before what has more time. A session without a verify_token has no deadline; closing it costs
    nothing, so that it comes first.
    """
    soon, day = moment + REACH, moment + MEDIA_LIFE
    return Case(
        When(next_deadline__gt=soon, next_deadline__lte=day, then=F("next_deadline")),
        When(later_deadline__gt=soon, later_deadline__lte=day, then=F("later_deadline")),
        When(last_deadline__gt=soon, last_deadline__lte=day, then=F("last_deadline")),
        When(
            media_deadline__lte=soon,
            media_latest__gt=soon,
            then=Value(day, output_field=DateTimeField()),
        ),
        When(next_deadline__gt=soon, then=F("next_deadline")),
        When(later_deadline__gt=soon, then=F("later_deadline")),
        When(last_deadline__gt=soon, then=F("last_deadline")),
        When(results_latest__isnull=False, then=F("results_latest") + Value(BEHIND)),
        default=Coalesce("next_deadline", "wake_at", Value(moment, output_field=DateTimeField())),
        output_field=DateTimeField(),
    )


def promote(moment: datetime, *, limit: int = PROMOTE_BATCH) -> int:
    """Make sessions whose time has come ready, at most *limit*, soonest first; returns how many."""
    return _change_due(
        VerificationSession.objects.asleep_until(moment).order_by("wake_at"),
        limit,
        ready_deadline=aim_expression(moment),
        wake_at=None,
    )


def _aim_anew(moment: datetime) -> None:
    """Put those ready sessions in their new place whose deadline went by while they waited.

    So many at most that a claim does not take long after an outage; the next claim goes on.
    """
    passed = VerificationSession.objects.filter(
        ready_deadline__lte=moment + REACH, results_latest__isnull=False
    ).order_by("ready_deadline")
    for _ in range(REAIM_BATCHES):
        if _change_due(passed, PROMOTE_BATCH, ready_deadline=aim_expression(moment)) < PROMOTE_BATCH:
            break


def _change_due(due: VerificationSessionQuerySet, limit: int, **values: Any) -> int:
    """Change the first *limit* rows of *due*. Rows that somebody else is changing are left to them.

    MySQL sets columns one after the other: an expression comes before the columns that it reads.
    """
    if not _can_skip_locked():
        # The rows are asked for again while they are changed: those that a worker took stay as they are.
        pks = list(due.values_list("pk", flat=True)[:limit])
        return due.order_by().filter(pk__in=pks).update(**values) if pks else 0
    if not _has_any(due):
        return 0
    with transaction.atomic():
        pks = list(due.select_for_update(skip_locked=True).values_list("pk", flat=True)[:limit])
        return VerificationSession.objects.filter(pk__in=pks).update(**values) if pks else 0


def claim(
    moment: datetime, *, limit: int = 1, session_pk: int | None = None, term: timedelta = LEASE
) -> list[Lease]:
    """Take the most urgent ready sessions, at most *limit*, or the named one if it is ready, for a *term*."""
    ready = VerificationSession.objects.ready()
    if session_pk is None:
        _aim_anew(moment)
    else:
        ready = ready.filter(pk=session_pk)
    until = moment + term
    taken: dict[str, Any] = {"ready_deadline": None, "poked": False, "lease_until": until, "wake_at": until}
    if not _can_skip_locked():
        rows = list(ready[:limit])
        # Compare and set: of several workers that read the same rows each wins a different one.
        rows = [
            row
            for row in rows
            if ready.order_by()
            .filter(pk=row.pk, lease_epoch=row.lease_epoch)
            .update(lease_epoch=F("lease_epoch") + 1, **taken)
        ]
    elif not _has_any(ready):
        # No transaction for nothing.
        rows = []
    else:
        with transaction.atomic():
            rows = list(ready.select_for_update(skip_locked=True)[:limit])
            VerificationSession.objects.filter(pk__in=[row.pk for row in rows]).update(
                lease_epoch=F("lease_epoch") + 1, **taken
            )
    leases = [Lease(row.pk, row.lease_epoch + 1, row, moment, row.ready_deadline) for row in rows]
    for row in rows:
        row.lease_epoch += 1
        for name, value in taken.items():
            setattr(row, name, value)
    return leases


def renew(leases: Sequence[Lease], moment: datetime, term: timedelta) -> set[int]:
    """Hold *leases* for a further *term* from *moment* on, none of them longer than :data:`LEASE` in all.

    Returns the keys of the sessions that are ours for that term. One that has been lost stays lost.
    """
    ours = Q()
    asked: set[int] = set()
    for lease in leases:
        if lease.since is not None and moment + term <= lease.since + LEASE:
            ours |= Q(pk=lease.session_pk, lease_epoch=lease.epoch)
            asked.add(lease.session_pk)
    if not asked:
        return asked
    # Those that are ready again, because they were renewed too late, are anybody's.
    held = VerificationSession.objects.filter(ours, ready_deadline=None, lease_until__isnull=False)
    until = moment + term
    if _change_due(held.order_by("pk"), len(leases), lease_until=until, wake_at=until) == len(asked):
        return asked
    return set(held.filter(lease_until__gte=until).values_list("pk", flat=True))


def is_stale(lease: Lease, moment: datetime) -> bool:
    """Whether a session that nobody has come to yet should be claimed anew.

    Because what it was claimed for went by, so that it is less urgent than it was, or because it may not be
    held long enough for a visit.
    """
    row, aimed_at = lease.row, lease.aimed_at
    if lease.since is not None and lease.since + LEASE - moment < LONGEST_VISIT:
        return True
    if row is None or aimed_at is None or row.results_latest is None:
        return False
    aim_now = aim_of(row, moment) or aimed_at
    # The day that doubtful recordings have begins anew at each moment.
    return aimed_at < aim_now and (aimed_at <= moment + REACH or aim_now != moment + MEDIA_LIFE)


def give_back(leases: Sequence[Lease]) -> None:
    """Make claimed sessions ready again on which nothing was done."""
    for lease in leases:
        VerificationSession.objects.filter(pk=lease.session_pk, lease_epoch=lease.epoch).update(
            ready_deadline=aim_expression(now()), wake_at=None, lease_until=None, poked=False
        )


def is_anything_ready() -> bool:
    """Whether a claim would find a session."""
    return _has_any(VerificationSession.objects.ready())


def _has_any(rows: VerificationSessionQuerySet) -> bool:
    """``exists()`` that keeps the order, and with it the index.

    Asked for any row, a planner that expects many reads the table from its beginning: past all the sessions
    that were finished long ago.
    """
    return bool(rows.values_list("pk", flat=True)[:1])


def _can_skip_locked() -> bool:
    connection = connections[router.db_for_write(VerificationSession)]
    return bool(connection.features.has_select_for_update_skip_locked)


def poke(session_pk: int) -> None:
    """Make a session due now. One that a worker holds is worked on again as soon as it is released."""
    moment = now()
    row = VerificationSession.objects.filter(pk=session_pk)
    row.filter(lease_until__gt=moment).update(poked=True)
    row.filter(Q(lease_until__isnull=True) | Q(lease_until__lte=moment), wake_at__isnull=False).update(
        ready_deadline=aim_expression(moment), wake_at=None
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


def turn_at(moment: datetime, wait: float) -> datetime:
    """When to come back after our own rate limit said to wait for so many seconds; not all at once."""
    return moment + timedelta(seconds=max(wait, 1.0) * _jitter.uniform(1.0, 1.5))


def next_poll_at(session: VerificationSession, moment: datetime) -> datetime | None:
    """When to ask again about a session whose person has not finished.

    Seconds after the browser returned, then on intervals that widen with the session's age, once
    right after the token's end and, because a person may be in mid-flow there, a last time when the
    window has certainly closed: at once if that went by while the last answer was on its way. None when
    the token was never obtained.
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
