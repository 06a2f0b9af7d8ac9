"""Retention rules of plans and settings, applied to rows.

A session's end of retention is written when its verdict is known, a file's when it is stored. Changed rules
apply to later verdicts; :func:`apply_rules` applies them to existing sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, OuterRef, QuerySet, Subquery

from django_faceprint.clock import now
from django_faceprint.conf import RETENTION_KINDS
from django_faceprint.models import MediaAsset, Plan, VerificationSession

#: Retention of call records: they are useful while a complaint to Baidu is possible.
CALLS_KEPT = timedelta(days=30)

#: Number of sessions that are updated together.
BATCH = 500


def expires_at(session: VerificationSession, kind: str) -> datetime | None:
    """When a file of *kind* expires; None if it expires with its session, or before the verdict."""
    span = session.plan.span_of(kind)
    if span is None or session.decided_at is None:
        return None
    return session.decided_at + span


def apply_rules(plans: QuerySet[Plan] | None = None, *, progress: Callable[[int], None] | None = None) -> int:
    """Apply the current rules to all decided sessions, of *plans* if given; return the number of sessions.

    Ends move both ways. The next run of ``faceprint.retain`` deletes everything that is then overdue,
    including files of a kind that is no longer kept. *progress* receives the number of sessions done.
    """
    done = 0
    for plan in Plan.objects.all() if plans is None else plans:
        for batch in _batches(plan):
            _apply(plan, batch)
            done += len(batch)
            if progress is not None:
                progress(done)
    return done


def _batches(plan: Plan) -> Iterator[list[int]]:
    rows = VerificationSession.objects.filter(plan=plan, decided_at__isnull=False, erased_at__isnull=True)
    last = 0
    while batch := list(rows.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:BATCH]):
        yield batch
        last = batch[-1]


def _apply(plan: Plan, batch: list[int]) -> None:
    span = plan.record_span
    with transaction.atomic():
        sessions = VerificationSession.objects.filter(pk__in=batch, erased_at__isnull=True)
        # End the leases: a worker would write the old ends back.
        sessions.update(
            lease_epoch=F("lease_epoch") + 1,
            retain_until=None if span is None else _later(F("decided_at"), span),
        )
        decided = VerificationSession.objects.filter(pk=OuterRef("session")).values("decided_at")
        files = MediaAsset.objects.stored().filter(session__in=batch)
        for kind in sorted(RETENTION_KINDS):
            end = plan.span_of(kind)
            until = None if end is None else now() if not end else _later(Subquery(decided), end)
            files.filter(kind=kind).update(retain_until=until)


def _later(moment: F | Subquery, span: timedelta) -> ExpressionWrapper:
    return ExpressionWrapper(moment + span, output_field=DateTimeField())
