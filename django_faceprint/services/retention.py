"""What must not be kept: files nobody refers to, old call records, and evidence past its retention."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import F

from django_faceprint.clock import now
from django_faceprint.models import (
    MediaAsset,
    UploadIntent,
    UpstreamAnswer,
    UpstreamCall,
    VerificationSession,
)

from . import archive, statistics

CALLS_KEPT = timedelta(days=30)
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
    sessions: int = 0
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
    _discard_uncommitted(report)
    _forget_calls(report)
    statistics.beat("retain")
    return report


def _discard_uncommitted(report: RetentionReport) -> None:
    """Files whose upload was never committed: their worker died or lost its lease."""
    old = UploadIntent.objects.filter(created_at__lt=now() - archive.INTENT_LIFE).order_by("created_at")
    for intent in old[:BATCH]:
        if report.storage_is_down:
            return
        if _discard(intent, report):
            report.uncommitted_files += 1


def _discard(intent: UploadIntent, report: RetentionReport) -> bool:
    """Delete the file behind *intent*; on failure it is tried again after ``INTENT_LIFE``.

    The intent is made ours first: an upload that is still under way after all can then no longer be
    committed, and a file that cannot be deleted goes to the end of the queue. Nor is a file deleted that a
    row refers to: its commit may have been repeated after the database had gone away.
    """
    ours = UploadIntent.objects.filter(pk=intent.pk, created_at=intent.created_at)
    if not ours.update(abandoned=True, created_at=now()):
        return False
    if MediaAsset.objects.filter(session=intent.session_id, stored_name=intent.name).exists():
        intent.delete()
        return False
    if archive.delete_file(intent.name):
        intent.delete()
        return True
    report.failures += 1
    return False


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
    with transaction.atomic():
        # The epoch ends every lease: a worker in mid-download can no longer write.
        purged = VerificationSession.objects.filter(pk=session_pk, retain_until__lt=now()).update(
            retain_until=None,
            lease_epoch=F("lease_epoch") + 1,
            lease_until=None,
            poked=False,
            wake_at=None,
            ready_deadline=None,
            next_deadline=None,
            later_deadline=None,
            last_deadline=None,
            verify_token=None,
            verify_token_index=None,
            identity_name=None,
            identity_number=None,
            name_index="",
            number_index="",
            ocr=None,
            confirmed=None,
            consent=None,
            return_url=None,
            # The digest was made from the identity, and a key means nothing without its digest.
            idempotency_key=None,
            request_digest="",
        )
        if not purged:
            return
        UpstreamAnswer.objects.filter(session=session_pk).delete()
        assets = MediaAsset.objects.filter(session=session_pk)
        files = list(assets.stored().values_list("stored_name", flat=True))
        # Without its key a file is noise, whatever becomes of the file itself. What was lost or never
        # provided keeps saying so.
        assets.filter(state__in=(MediaAsset.State.STORED, MediaAsset.State.WANTED)).update(
            state=MediaAsset.State.ERASED, wrapped_key=None, stored_name="", sha256="", reason="retention"
        )
        intents = [
            UploadIntent.objects.create(name=name, session_id=session_pk, created_at=now()) for name in files
        ]
    report.sessions += 1
    report.files += len(files)
    for intent in intents:
        if report.storage_is_down:
            return
        _discard(intent, report)
