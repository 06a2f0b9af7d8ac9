"""How long what is stored may stay: the rules of plan and settings, put on rows.

The end is written on the rows when the verdict is known, and on a file when it is stored. A change of the
rules holds for verdicts from then on; :func:`apply_rules` puts it on the records that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, OuterRef, QuerySet, Subquery

from django_faceprint.clock import now
from django_faceprint.conf import RETENTION_KINDS
from django_faceprint.models import MediaAsset, Plan, VerificationSession

#: Records of calls are of use while a complaint to Baidu is.
CALLS_KEPT = timedelta(days=30)

#: Sessions whose ends are written together.
BATCH = 500


def expires_at(session: VerificationSession, kind: str) -> datetime | None:
    """When a file of *kind* goes; None: with its record, or before the verdict."""
    span = session.plan.span_of(kind)
    if span is None or session.decided_at is None:
        return None
    return session.decided_at + span


def apply_rules(plans: QuerySet[Plan] | None = None, *, progress: Callable[[int], None] | None = None) -> int:
    """Put the present rules on all decided records, of *plans* if given; returns how many records.

    Ends move both ways. What is then overdue, files of a kind that was switched off among it, goes with the
    next run of ``faceprint.retain``. *progress* is told how many records are done.
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
        # Whoever visits one of them meanwhile would write the old ends back.
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
