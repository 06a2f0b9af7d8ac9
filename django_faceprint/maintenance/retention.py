"""Deleting uncommitted files, old call records, and evidence whose retention has ended."""

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
#: Maximum number of call records deleted in one run; per day, more than an account can make.
CALLS_PER_RUN = 20_000
#: After this number of failures storage counts as down and the run stops deleting.
STORAGE_FAILURES_PER_RUN = 10


@dataclass
class RetentionReport:
    """Counts of what one run deleted, and of failures of storage."""

    uncommitted_files: int = 0
    calls: int = 0
    log_entries: int = 0
    #: Expired files of exports and bundles.
    exports: int = 0
    sessions: int = 0
    #: Files of those sessions, and expired files of other sessions.
    files: int = 0
    failures: int = 0

    @property
    def storage_is_down(self) -> bool:
        """Whether storage failed :data:`STORAGE_FAILURES_PER_RUN` times."""
        return self.failures >= STORAGE_FAILURES_PER_RUN


def retain() -> RetentionReport:
    """Delete one batch of each kind. Safe to run at any time, twice at once, and beside the engine."""
    report = RetentionReport()
    _purge_sessions(report)
    _purge_files(report)
    _discard_uncommitted(report)
    report.exports = jobs.delete_expired()
    erasure.verify_erasures()
    _forget_calls(report)
    report.log_entries = chain.prune_log() + consent.prune() + erasure.prune()
    statistics.record_heartbeat("retain")
    return report


def _discard_uncommitted(report: RetentionReport) -> None:
    """Delete files whose upload was never committed: the worker died or lost its lease."""
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
    """Delete evidence and identity of sessions past ``retain_until``; the records stay."""
    due = VerificationSession.objects.filter(retain_until__lt=now()).order_by("retain_until")
    for session_pk in list(due.values_list("pk", flat=True)[:BATCH]):
        _purge(session_pk, report)


def _purge(session_pk: int, report: RetentionReport) -> None:
    """Purge the rows of one session together, then its files; each has an intent until it is gone."""
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
    """Delete files past their own ``retain_until``; their records stay."""
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
    """What ``retain`` deletes by ``until``: number of whole records, and files including theirs.

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
    """What ``retain`` will delete by *until* if nothing changes. Costs three queries over these rows."""
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
