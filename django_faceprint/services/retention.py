"""What must not be kept: files nobody refers to, old call records, and evidence past its retention."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import F

from django_faceprint.clock import now
from django_faceprint.models import MediaAsset, UploadIntent, UpstreamAnswer, UpstreamCall, VerificationSession

from . import archive

logger = logging.getLogger(__name__)

CALLS_KEPT = timedelta(days=30)
BATCH = 500


@dataclass
class RetentionReport:
    """What one run removed."""

    uncommitted_files: int = 0
    calls: int = 0
    sessions: int = 0
    files: int = 0
    failures: int = 0


def retain() -> RetentionReport:
    """Remove one batch of each kind. Safe to run at any time, twice, and beside the engine."""
    report = RetentionReport()
    _discard_uncommitted(report)
    _forget_calls(report)
    _purge_sessions(report)
    return report


def _discard_uncommitted(report: RetentionReport) -> None:
    """Files whose upload was never committed: their worker died or lost its lease."""
    old = UploadIntent.objects.filter(created_at__lt=now() - archive.INTENT_LIFE).order_by("created_at")
    for intent in old[:BATCH]:
        if archive.discard_upload(intent):
            report.uncommitted_files += 1
        else:
            report.failures += 1


def _forget_calls(report: RetentionReport) -> None:
    old = UpstreamCall.objects.filter(at__lt=now() - CALLS_KEPT).order_by("at").values_list("pk", flat=True)
    report.calls = UpstreamCall.objects.filter(pk__in=list(old[:BATCH])).delete()[0]


def _purge_sessions(report: RetentionReport) -> None:
    """Delete evidence and identity of sessions past ``retain_until``; the skeleton of the record stays."""
    due = VerificationSession.objects.filter(retain_until__lt=now()).order_by("retain_until")
    for session in due[:BATCH]:
        if _purge(session, report):
            report.sessions += 1
        else:
            report.failures += 1


def _purge(session: VerificationSession, report: RetentionReport) -> bool:
    with transaction.atomic():
        # The epoch ends every lease: a worker in mid-download can no longer write.
        VerificationSession.objects.filter(pk=session.pk).update(
            lease_epoch=F("lease_epoch") + 1,
            lease_until=None,
            wake_at=None,
            ready_deadline=None,
            next_deadline=None,
            verify_token=None,
            identity_name=None,
            identity_number=None,
            name_index="",
            number_index="",
            ocr=None,
            confirmed=None,
            consent=None,
            return_url=None,
        )
        UpstreamAnswer.objects.filter(session=session).delete()
        files = list(
            MediaAsset.objects.filter(session=session, state=MediaAsset.State.STORED).values_list(
                "pk", "stored_name"
            )
        )
        # Without its key a file is noise, whatever becomes of the file itself.
        MediaAsset.objects.filter(session=session).exclude(state=MediaAsset.State.ERASED).update(
            state=MediaAsset.State.ERASED, wrapped_key=None, stored_name="", sha256="", reason="retention"
        )
        UploadIntent.objects.bulk_create(UploadIntent(name=name, asset_id=pk) for pk, name in files)
    complete = all(
        archive.discard_upload(intent)
        for intent in UploadIntent.objects.filter(name__in=[name for _, name in files])
    )
    report.files += len(files)
    VerificationSession.objects.filter(pk=session.pk).update(retain_until=None)
    return complete
