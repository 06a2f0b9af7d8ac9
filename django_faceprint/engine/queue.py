"""Whose turn it is: due work, earliest deadline first, claimed under a fenced lease.

A session with work left is in one of two states, each a nullable, indexed column: *asleep*
(``wake_at``) or *ready* (``priority_at``). A claim turns ready into asleep-until-the-lease-ends,
so that a worker that dies needs no cleaner: its session simply wakes up. Every claim increments
``lease_epoch`` and every later write is conditional on it, so that a worker that wakes after an hour
writes nothing.

``priority_at`` is the first of the session's safe deadlines that can still be kept. When none can, the
session goes behind everything that has one: work that can no longer make it yields to work that can. So does
work that perhaps makes it, but only to what has less than a day.
Deadlines go by while sessions wait, those of the first in the queue above all: when there is too little time
for all, a queue that is not put right before each claim spends its turns on what is lost anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import connections, router, transaction
from django.db.models import Case, DateTimeField, F, Q, Value, When
from django.db.models.functions import Coalesce

from django_faceprint.base.deadlines import MEDIA_LIFE
from django_faceprint.base.lease import MAX_LEASE, Lease
from django_faceprint.clock import now
from django_faceprint.models import VerificationSession
from django_faceprint.models.session import VerificationSessionQuerySet

#: Seconds from a run's start after which no further download begins, so that the soft limit finds none.
DOWNLOADS_BEGIN_WITHIN = 120
#: A run takes its leases for a term and renews them long before it is over: a worker that dies keeps its
#: sessions from the others no longer than that, however little time they have left. One that visits a single
#: session at once renews between downloads only, so that its term is longer than the longest of them.
LEASE_TTL = timedelta(seconds=60)
SERIAL_LEASE_TTL = timedelta(seconds=150)
RENEW_AFTER = timedelta(seconds=15)
MAX_VISIT = timedelta(seconds=120)
PROMOTE_BATCH = 500
REORDER_BATCHES = 20
#: A deadline nearer than this is not counted on any more: a visit waits for its turn, for ten seconds at
#: most, and asking and fetching take their time. Too long a reach costs what could be done in it, once; too
#: short a one spends turn after turn on work that comes too late, for as long as there is not enough time.
MIN_LEAD_TIME = timedelta(seconds=12)
#: How far behind everything else work goes whose safe deadlines are all over. Among such work the one that
#: upstream may keep longest comes last.
OVERDUE_PENALTY = timedelta(days=36_525)


def priority(session: VerificationSession, moment: datetime) -> datetime | None:
    """Place in the queue at *moment*, smaller first: the twin of :func:`priority_expression`."""
    soon, day = moment + MIN_LEAD_TIME, moment + MEDIA_LIFE
    pending = (session.next_deadline, session.later_deadline, session.last_deadline)
    ahead = [deadline for deadline in pending if deadline is not None and deadline > soon]
    if within_a_day := [deadline for deadline in ahead if deadline <= day]:
        return within_a_day[0]
    media_deadline, media_give_up_at = session.media_deadline, session.media_give_up_at
    if media_deadline and media_give_up_at and media_deadline <= soon < media_give_up_at:
        return day
    if ahead:
        return ahead[0]
    if session.results_give_up_at is not None:
        return session.results_give_up_at + OVERDUE_PENALTY
    return session.next_deadline or session.wake_at


def priority_expression(moment: datetime) -> Any:
    """What a session is ordered by at *moment*, as an expression for its ``priority_at``.

    Recordings whose safe deadline is over may be there for some hours yet: they yield to what may go within a
    day, and go before what has more time. A session without a verify_token has no deadline; closing it costs
    nothing, so that it comes first.
    """
    soon, day = moment + MIN_LEAD_TIME, moment + MEDIA_LIFE
    return Case(
        When(next_deadline__gt=soon, next_deadline__lte=day, then=F("next_deadline")),
        When(later_deadline__gt=soon, later_deadline__lte=day, then=F("later_deadline")),
        When(last_deadline__gt=soon, last_deadline__lte=day, then=F("last_deadline")),
        When(
            media_deadline__lte=soon,
            media_give_up_at__gt=soon,
            then=Value(day, output_field=DateTimeField()),
        ),
        When(next_deadline__gt=soon, then=F("next_deadline")),
        When(later_deadline__gt=soon, then=F("later_deadline")),
        When(last_deadline__gt=soon, then=F("last_deadline")),
        When(results_give_up_at__isnull=False, then=F("results_give_up_at") + Value(OVERDUE_PENALTY)),
        default=Coalesce("next_deadline", "wake_at", Value(moment, output_field=DateTimeField())),
        output_field=DateTimeField(),
    )


def promote(moment: datetime, *, limit: int = PROMOTE_BATCH) -> int:
    """Make sessions whose time has come ready, at most *limit*, soonest first; returns how many."""
    return _change_due(
        VerificationSession.objects.asleep_until(moment).order_by("wake_at"),
        limit,
        priority_at=priority_expression(moment),
        wake_at=None,
    )


def _reorder(moment: datetime) -> None:
    """Put those ready sessions in their new place whose deadline went by while they waited.

    So many at most that a claim does not take long after an outage; the next claim goes on.
    """
    passed = VerificationSession.objects.filter(
        priority_at__lte=moment + MIN_LEAD_TIME, results_give_up_at__isnull=False
    ).order_by("priority_at")
    for _ in range(REORDER_BATCHES):
        if _change_due(passed, PROMOTE_BATCH, priority_at=priority_expression(moment)) < PROMOTE_BATCH:
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
    moment: datetime, *, limit: int = 1, session_pk: int | None = None, ttl: timedelta = MAX_LEASE
) -> list[Lease]:
    """Take the most urgent ready sessions, at most *limit*, or the named one if it is ready, for a *term*."""
    ready = VerificationSession.objects.ready()
    if session_pk is None:
        _reorder(moment)
    else:
        ready = ready.filter(pk=session_pk)
    until = moment + ttl
    taken: dict[str, Any] = {
        "priority_at": None,
        "recheck_requested": False,
        "lease_until": until,
        "wake_at": until,
    }
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
    leases = [Lease(row.pk, row.lease_epoch + 1, row, moment, row.priority_at) for row in rows]
    for row in rows:
        row.lease_epoch += 1
        for name, value in taken.items():
            setattr(row, name, value)
    return leases


def renew(leases: Sequence[Lease], moment: datetime, ttl: timedelta) -> set[int]:
    """Hold *leases* for a further *term* from *moment* on, none of them longer than :data:`MAX_LEASE` in all.

    Returns the keys of the sessions that are ours for that term. One that has been lost stays lost.
    """
    ours = Q()
    asked: set[int] = set()
    for lease in leases:
        if lease.since is not None and moment + ttl <= lease.since + MAX_LEASE:
            ours |= Q(pk=lease.session_pk, lease_epoch=lease.epoch)
            asked.add(lease.session_pk)
    if not asked:
        return asked
    # Those that are ready again, because they were renewed too late, are anybody's.
    held = VerificationSession.objects.filter(ours, priority_at=None, lease_until__isnull=False)
    until = moment + ttl
    if _change_due(held.order_by("pk"), len(leases), lease_until=until, wake_at=until) == len(asked):
        return asked
    return set(held.filter(lease_until__gte=until).values_list("pk", flat=True))


def is_stale(lease: Lease, moment: datetime) -> bool:
    """Whether a session that nobody has come to yet should be claimed anew.

    Because what it was claimed for went by, so that it is less urgent than it was, or because it may not be
    held long enough for a visit.
    """
    row, priority_at = lease.row, lease.priority_at
    if lease.since is not None and lease.since + MAX_LEASE - moment < MAX_VISIT:
        return True
    if row is None or priority_at is None or row.results_give_up_at is None:
        return False
    priority_now = priority(row, moment) or priority_at
    # The day that doubtful recordings have begins anew at each moment.
    return priority_at < priority_now and (
        priority_at <= moment + MIN_LEAD_TIME or priority_now != moment + MEDIA_LIFE
    )


def give_back(leases: Sequence[Lease]) -> None:
    """Make claimed sessions ready again on which nothing was done."""
    for lease in leases:
        VerificationSession.objects.filter(pk=lease.session_pk, lease_epoch=lease.epoch).update(
            priority_at=priority_expression(now()), wake_at=None, lease_until=None, recheck_requested=False
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


def request_recheck(session_pk: int) -> None:
    """Make a session due now. One that a worker holds is worked on again as soon as it is released."""
    moment = now()
    row = VerificationSession.objects.filter(pk=session_pk)
    row.filter(lease_until__gt=moment).update(recheck_requested=True)
    row.filter(Q(lease_until__isnull=True) | Q(lease_until__lte=moment), wake_at__isnull=False).update(
        priority_at=priority_expression(moment), wake_at=None
    )
