"""What must not be kept: files nobody refers to, old call records, and evidence past its retention."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Count, Sum
from django.db.models.functions import Coalesce

from django_faceprint.audit import chain
from django_faceprint.clock import now
from django_faceprint.evidence import erasure
from django_faceprint.evidence import files as evidence_files
from django_faceprint.evidence.retention_rules import CALLS_KEPT
from django_faceprint.jobs import jobs
from django_faceprint.models import MediaAsset, UploadIntent, UpstreamCall, VerificationSession
from django_faceprint.records import statistics
from django_faceprint.verification import consent

BATCH = 500
#: Call records deleted in one run at most: more per day than any account may make.
CALLS_PER_RUN = 20_000
#: A storage that fails this often in one run is down; the rest waits for the next run.
STORAGE_FAILURES_PER_RUN = 10


@dataclass
class RetentionReport:
    """What one run removed, and how often storage refused."""

    uncommitted_files: int = 0
    calls: int = 0
    log_entries: int = 0
    #: Files of exports and bundles whose time was over.
    exports: int = 0
    sessions: int = 0
    #: Files of those sessions, and of records that stay.
    files: int = 0
    failures: int = 0

    @property
    def storage_is_down(self) -> bool:
        """Storage failed so often that asking it further in this run is a waste of time."""
        return self.failures >= STORAGE_FAILURES_PER_RUN


def retain() -> RetentionReport:
    """Remove one batch of each kind. Safe to run at any time, twice, and beside the engine."""
    report = RetentionReport()
    _purge_sessions(report)
    _purge_files(report)
    _discard_uncommitted(report)
    report.exports = jobs.expire()
    erasure.verify_erasures()
    _forget_calls(report)
    report.log_entries = chain.prune() + consent.prune() + erasure.prune()
    statistics.record_heartbeat("retain")
    return report


def _discard_uncommitted(report: RetentionReport) -> None:
    """Files whose upload was never committed: their worker died or lost its lease."""
    old = UploadIntent.objects.filter(created_at__lt=now() - evidence_files.INTENT_LIFE).order_by(
        "created_at"
    )
    for intent in old[:BATCH]:
        if report.storage_is_down:
            return
        if _discard(intent, report):
            report.uncommitted_files += 1


def _discard(intent: UploadIntent, report: RetentionReport) -> bool:
    gone = erasure.discard(intent)
    report.failures += gone is False
    return bool(gone)


def _forget_calls(report: RetentionReport) -> None:
    old = UpstreamCall.objects.filter(at__lt=now() - CALLS_KEPT).order_by("at").values_list("pk", flat=True)
    while report.calls < CALLS_PER_RUN and (batch := list(old[:BATCH])):
        report.calls += UpstreamCall.objects.filter(pk__in=batch).delete()[0]


def _purge_sessions(report: RetentionReport) -> None:
    """Delete evidence and identity of sessions past ``retain_until``; the skeleton of the record stays."""
    due = VerificationSession.objects.filter(retain_until__lt=now()).order_by("retain_until")
    for session_pk in list(due.values_list("pk", flat=True)[:BATCH]):
        _purge(session_pk, report)


def _purge(session_pk: int, report: RetentionReport) -> None:
    """Purge one session: its rows together, then its files, each with an intent until it is gone."""
    purged = erasure.Purged()
    with transaction.atomic():
        if not erasure.purge_rows(session_pk, "retention", purged, retain_until__lt=now()):
            return
    report.sessions += 1
    report.files += purged.files
    for intent in purged.intents:
        if report.storage_is_down:
            return
        _discard(intent, report)


def _purge_files(report: RetentionReport) -> None:
    """Delete files whose own time is over; their records stay."""
    due = MediaAsset.objects.filter(retain_until__lt=now()).order_by("retain_until")
    batch = list(due.values_list("pk", flat=True)[:BATCH])
    if not batch:
        return
    purged = erasure.Purged()
    with transaction.atomic():
        files = MediaAsset.objects.filter(pk__in=batch, retain_until__lt=now())
        erasure.purge_files("retention", files, purged)
    report.files += purged.files
    for intent in purged.intents:
        if report.storage_is_down:
            return
        _discard(intent, report)


@dataclass(frozen=True)
class Forecast:
    """What goes by ``until``: so many records as a whole, and so many files, theirs included.

    ``lines`` are files by plan and kind, the most bytes first.
    """

    until: datetime
    records: int
    lines: list[ForecastLine]

    @property
    def files(self) -> int:
        return sum(line.files for line in self.lines)

    @property
    def bytes(self) -> int:
        return sum(line.bytes for line in self.lines)


@dataclass(frozen=True)
class ForecastLine:
    """Files of one kind of one plan (plan_id)."""

    plan: str
    kind: str
    files: int
    bytes: int


def forecast(until: datetime) -> Forecast:
    """What ``retain`` will delete by *until* if nothing changes: three queries, which read what goes."""
    sessions = VerificationSession.objects.filter(retain_until__lt=until)
    stored = MediaAsset.objects.stored()
    alone = stored.filter(retain_until__lt=until).exclude(session__retain_until__lt=until)
    found: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for files in (alone, stored.filter(session__retain_until__lt=until)):
        by_kind = files.order_by().values_list("session__plan__plan_id", "kind")
        for plan, kind, count, size in by_kind.annotate(count=Count("pk"), size=Coalesce(Sum("size"), 0)):
            found[plan, kind] += count
            sizes[plan, kind] += size
    lines = [ForecastLine(*key, files=count, bytes=sizes[key]) for key, count in found.items()]
    return Forecast(
        until, sessions.count(), sorted(lines, key=lambda line: (-line.bytes, line.plan, line.kind))
    )
