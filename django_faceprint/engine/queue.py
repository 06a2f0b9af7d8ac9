"""The work queue: due sessions, earliest deadline first, claimed under a fenced lease.

A session with work left is in one of two states, each a nullable, indexed column: *asleep* (``wake_at``) or
*ready* (``priority_at``). A claim makes a ready session sleep until its lease ends, so a dead worker needs no
cleaner: its sessions wake up. Every claim increments ``lease_epoch`` and every later write is conditional on
it, so a worker that wakes after an hour writes nothing.

``priority_at`` is the first of the session's safe deadlines that can still be kept. A session that can keep
none goes behind all that can. One whose recordings may still exist goes behind those with less than a day.
Deadlines pass while sessions wait in the queue, so each claim first reorders those whose deadline has passed:
without that, a queue with too little time for all would spend itself on what is lost anyway.
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
#: Leases are short and renewed early: what a dead worker held is free when its lease ends. A run that visits
#: one session at a time renews between downloads only, so its lease outlives the longest download.
LEASE_TTL = timedelta(seconds=60)
SERIAL_LEASE_TTL = timedelta(seconds=150)
RENEW_AFTER = timedelta(seconds=15)
#: Longest time of one visit.
MAX_VISIT = timedelta(seconds=120)
#: Rows that one statement changes, and statements that one claim spends on reordering.
PROMOTE_BATCH = 500
REORDER_BATCHES = 20
#: A deadline nearer than this cannot be kept: a request waits up to ten seconds for its slot, and asking and
#: fetching take time. A longer lead time gives up work that could be done; a shorter one spends visit after
#: visit on work that comes too late.
MIN_LEAD_TIME = timedelta(seconds=12)
#: How far behind everything else a session goes whose safe deadlines have all passed. Among such sessions the
#: one that upstream may keep longest comes last.
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
    """Place in the queue at *moment* as an expression for ``priority_at``: the twin of :func:`priority`.

    Recordings whose safe deadline has passed may exist for some hours yet: they go behind what may expire
    within a day, and before what has more time. A session without a verify_token has no deadline; closing it
    costs nothing, so it comes first.
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
    """Make up to *limit* sessions ready whose ``wake_at`` has come, soonest first; returns how many."""
    return _change_due(
        VerificationSession.objects.asleep_until(moment).order_by("wake_at"),
        limit,
        priority_at=priority_expression(moment),
        wake_at=None,
    )


def _reorder(moment: datetime) -> None:
    """Give ready sessions whose deadline passed while they waited their new place.

    A bounded number, so that a claim stays short after an outage; the next claim goes on.
    """
    passed = VerificationSession.objects.filter(
        priority_at__lte=moment + MIN_LEAD_TIME, results_give_up_at__isnull=False
    ).order_by("priority_at")
    for _ in range(REORDER_BATCHES):
        if _change_due(passed, PROMOTE_BATCH, priority_at=priority_expression(moment)) < PROMOTE_BATCH:
            break


def _change_due(due: VerificationSessionQuerySet, limit: int, **values: Any) -> int:
    """Change the first *limit* rows of *due*, except rows that another worker is changing; returns how many.

    MySQL sets columns one after the other: an expression must come before the columns that it reads.
    """
    if not _can_skip_locked():
        # The condition is repeated in the update: rows that another worker took stay as they are.
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
    """Lease the most urgent ready sessions, up to *limit*, or the named one if it is ready, for *ttl*."""
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
        # Compare and set: workers that read the same rows win different ones.
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
    """Extend *leases* to *ttl* from *moment*, none beyond :data:`MAX_LEASE` in all.

    Returns the keys of the sessions whose lease is extended. A lost lease stays lost.
    """
    ours = Q()
    asked: set[int] = set()
    for lease in leases:
        if lease.since is not None and moment + ttl <= lease.since + MAX_LEASE:
            ours |= Q(pk=lease.session_pk, lease_epoch=lease.epoch)
            asked.add(lease.session_pk)
    if not asked:
        return asked
    # A session whose lease has ended and that is ready again belongs to nobody.
    held = VerificationSession.objects.filter(ours, priority_at=None, lease_until__isnull=False)
    until = moment + ttl
    if _change_due(held.order_by("pk"), len(leases), lease_until=until, wake_at=until) == len(asked):
        return asked
    return set(held.filter(lease_until__gte=until).values_list("pk", flat=True))


def is_stale(lease: Lease, moment: datetime) -> bool:
    """Whether a claimed session that waits for its visit should be given back.

    Because the deadline that it was claimed for has passed, so that others are more urgent now, or because
    its lease can no longer be extended for a whole visit.
    """
    row, priority_at = lease.row, lease.priority_at
    if lease.since is not None and lease.since + MAX_LEASE - moment < MAX_VISIT:
        return True
    if row is None or priority_at is None or row.results_give_up_at is None:
        return False
    priority_now = priority(row, moment) or priority_at
    # The place of recordings in doubt moves with the moment.
    return priority_at < priority_now and (
        priority_at <= moment + MIN_LEAD_TIME or priority_now != moment + MEDIA_LIFE
    )


def give_back(leases: Sequence[Lease]) -> None:
    """Make claimed sessions ready again that were not visited."""
    for lease in leases:
        VerificationSession.objects.filter(pk=lease.session_pk, lease_epoch=lease.epoch).update(
            priority_at=priority_expression(now()), wake_at=None, lease_until=None, recheck_requested=False
        )


def is_anything_ready() -> bool:
    """Whether a claim would find a session."""
    return _has_any(VerificationSession.objects.ready())


def _has_any(rows: VerificationSessionQuerySet) -> bool:
    """``exists()`` that keeps the order, and with it the index.

    Without an order, a planner that expects many rows scans the table from its beginning, past all finished
    sessions.
    """
    return bool(rows.values_list("pk", flat=True)[:1])


def _can_skip_locked() -> bool:
    connection = connections[router.db_for_write(VerificationSession)]
    return bool(connection.features.has_select_for_update_skip_locked)


def request_recheck(session_pk: int) -> None:
    """Make a session with work left due now; one that is leased becomes due when it is released."""
    moment = now()
    row = VerificationSession.objects.filter(pk=session_pk)
    row.filter(lease_until__gt=moment).update(recheck_requested=True)
    row.filter(Q(lease_until__isnull=True) | Q(lease_until__lte=moment), wake_at__isnull=False).update(
        priority_at=priority_expression(moment), wake_at=None
    )
