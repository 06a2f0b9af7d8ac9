"""Erasing all personal data of sessions; records without it stay.

The rows change in one transaction, which also ends every lease, so a worker in mid-download can no longer
write. The keys of the files go with the rows: the files are noise from then on and are deleted next. An
erasure is verified when storage confirms that none of them exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db import transaction
from django.db.models import Count, F, Sum
from django.db.models.functions import Coalesce
from django.views.decorators.debug import sensitive_variables

from django_faceprint.audit.access import Actor
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.exceptions import InvalidInput
from django_faceprint.models import (
    AccessLog,
    AccessReason,
    Erasure,
    JobPart,
    MediaAsset,
    UploadIntent,
    UpstreamAnswer,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.models.append_only import KEPT_AT_LEAST
from django_faceprint.models.asset import MediaAssetQuerySet
from django_faceprint.models.session import VerificationSessionQuerySet
from django_faceprint.privacy.blind_index import blind_index_candidates
from django_faceprint.upstream.errors import NO_ERROR

from . import files as evidence_files
from . import job_files

Verdict = VerificationSession.Verdict
ArchiveState = VerificationSession.ArchiveState
State = MediaAsset.State

#: Maximum length of the reason.
MAX_REASON_LENGTH = 500
#: Number of unverified erasures that one call checks, and of records that one call prunes.
BATCH = 100

#: Columns of a purged session.
_GONE: dict[str, Any] = {
    "retain_until": None,
    "lease_until": None,
    "recheck_requested": False,
    "wake_at": None,
    "priority_at": None,
    "next_deadline": None,
    "later_deadline": None,
    "last_deadline": None,
    "verify_token": None,
    "verify_token_index": None,
    "identity_name": None,
    "identity_number": None,
    "name_index": "",
    "number_index": "",
    "ocr": None,
    "confirmed": None,
    # The user whom the session was about, if the host gave one.
    "subject": None,
    # Baidu's message may contain a name.
    "error_message": "",
    "return_url": None,
    # The digest was made from the identity, and the key is useless without its digest.
    "idempotency_key": None,
    "request_digest": "",
}


@dataclass
class Purged:
    """Counts of what one purge removed. ``intents`` name the files that must still be deleted."""

    files: int = 0
    bytes: int = 0
    answers: int = 0
    intents: list[UploadIntent] = field(default_factory=list)


@dataclass(frozen=True)
class Preview:
    """Counts of what an erasure would remove."""

    sessions: int
    files: int
    bytes: int
    answers: int


@sensitive_variables()
def sessions_of_person(number: str) -> VerificationSessionQuerySet:
    """The sessions in which this ID number, in any notation, was submitted or confirmed."""
    found = VerificationSession.objects.filter(
        number_index__in=blind_index_candidates("id_number", number)
    ).exclude(number_index="")
    return found.order_by("pk")


def preview(sessions: VerificationSessionQuerySet) -> Preview:
    """Count what erasing *sessions* now would remove."""
    files = MediaAsset.objects.stored().filter(session__in=sessions.order_by().values("pk"))
    counted = files.aggregate(count=Count("pk"), bytes=Coalesce(Sum("size"), 0))
    return Preview(
        sessions=sessions.count(),
        files=counted["count"],
        bytes=counted["bytes"],
        answers=UpstreamAnswer.objects.filter(session__in=sessions.order_by().values("pk")).count(),
    )


def erase(
    sessions: VerificationSessionQuerySet,
    *,
    reason: str,
    actor: Actor,
    also: Callable[[], object] | None = None,
) -> Erasure:
    """Erase *sessions* now, regardless of their retention, and stop collecting their evidence.

    All rows change in one transaction, with an entry in the access log for each session. Files are deleted
    next; ``faceprint.retain`` retries those that storage does not delete. ``verified_at`` of the result is
    set when no file is left.

    *also* is called in that transaction, for changes that must happen together with the erasure or not at
    all.

    Raises :class:`InvalidInput` for ``reason``. Call it outside of transactions.
    """
    check_reason(reason)
    purged = Purged()
    with transaction.atomic():
        if also is not None:
            also()
        rows = list(sessions.order_by("pk").values_list("pk", "public_id"))
        erased = [public_id for pk, public_id in rows if purge_rows(pk, "erased", purged)]
        purged.intents += job_files.destroy(job_files.that_may_hold([pk for pk, _ in rows]))
        erasure = Erasure.objects.create(
            **actor.columns(),
            reason=reason.strip(),
            sessions=[str(public_id) for public_id in erased],
            files=purged.files,
            bytes=purged.bytes,
            answers=purged.answers,
        )
        # Free-text reasons may name the person; the entries keep their digests.
        entries = AccessLog.objects.filter(session_id__in=erased).exclude(reason_digest="")
        AccessReason.objects.filter(public_id__in=entries.values("public_id")).delete()
        _forget_history([pk for pk, _ in rows])
        AccessLog.objects.bulk_create(
            actor.entry(AccessLog.Action.ERASE, session_id=public_id) for public_id in erased
        )
    for intent in purged.intents:
        discard(intent)
    verify_erasures([erasure])
    return erasure


def purge_rows(session_pk: int, why: str, purged: Purged, **condition: Any) -> bool:
    """Remove the personal data of one session if *condition* still holds; call it in a transaction.

    Returns whether the session was purged. Assets that were lost or never provided keep that state. A pending
    verdict becomes unknown.
    """
    moment = now()
    row = VerificationSession.objects.filter(pk=session_pk, **condition)
    if not row.update(lease_epoch=F("lease_epoch") + 1, erased_at=moment, **_GONE):
        return False
    row.filter(verdict=Verdict.PENDING).update(
        verdict=Verdict.UNKNOWN, decided_at=moment, archive_state=ArchiveState.NOT_APPLICABLE, **NO_ERROR
    )
    purged.answers += UpstreamAnswer.objects.filter(session=session_pk).delete()[0]
    VerificationAttempt.objects.filter(session=session_pk).exclude(message="").update(message="")
    assets = MediaAsset.objects.filter(session=session_pk)
    files = list(assets.stored().values_list("stored_name", "size"))
    assets.filter(state__in=(State.STORED, State.WANTED)).update(**file_gone(why))
    # Also the hash of a picture that was never archived.
    assets.exclude(sha256="").update(sha256="")
    purged.files += len(files)
    purged.bytes += sum(size or 0 for _, size in files)
    purged.intents += [
        UploadIntent.objects.create(name=name, session_id=session_pk, created_at=moment) for name, _ in files
    ]
    return True


def purge_files(why: str, assets: MediaAssetQuerySet, purged: Purged) -> None:
    """Mark stored files of sessions that stay as erased; call it in a transaction.

    Ends the leases of the sessions: a worker would write the old rows back.
    """
    rows = list(assets.stored().order_by().values_list("pk", "session_id"))
    VerificationSession.objects.filter(pk__in={session_pk for _, session_pk in rows}).update(
        lease_epoch=F("lease_epoch") + 1
    )
    # Read again: only now can no worker change the rows any more.
    files = list(
        assets.stored()
        .filter(pk__in=[pk for pk, _ in rows])
        .order_by()
        .values_list("pk", "session_id", "stored_name", "size")
    )
    MediaAsset.objects.filter(pk__in=[pk for pk, *_ in files]).update(**file_gone(why))
    purged.files += len(files)
    purged.bytes += sum(size or 0 for *_, size in files)
    moment = now()
    purged.intents += [
        UploadIntent.objects.create(name=name, session_id=session_pk, created_at=moment)
        for _, session_pk, name, _ in files
    ]


def file_gone(why: str) -> dict[str, Any]:
    """Columns of an asset whose file will be deleted; without its key the file is noise at once."""
    return {
        "state": State.ERASED,
        "wrapped_key": None,
        "thumbnail": None,
        "stored_name": "",
        "sha256": "",
        "reason": why,
        "retain_until": None,
    }


def discard(intent: UploadIntent) -> bool | None:
    """Delete the file of *intent*; after a failure it is retried after ``INTENT_LIFE``.

    The intent is marked first: an upload that is still under way can then no longer be committed, and a file
    that cannot be deleted goes to the end of the queue. A file that a row refers to is not deleted: its
    commit may have been repeated after the database had gone away.

    Returns True when the file is gone, None when there was nothing to do, and False when storage refused or
    still has the file.
    """
    ours = UploadIntent.objects.filter(pk=intent.pk, created_at=intent.created_at)
    if not ours.update(abandoned=True, created_at=now()):
        return None
    if (
        MediaAsset.objects.filter(session=intent.session_id, stored_name=intent.name).exists()
        or JobPart.objects.filter(stored_name=intent.name).exists()
    ):
        intent.delete()
        return None
    if not evidence_files.delete_file(intent.name) or not evidence_files.is_gone(intent.name):
        return False
    intent.delete()
    return True


def verify_erasures(erasures: Iterable[Erasure] | None = None) -> None:
    """Set ``verified_at`` of erasures without remaining files; by default of the oldest unverified ones."""
    if erasures is None:
        erasures = Erasure.objects.filter(verified_at__isnull=True).order_by("at")[:BATCH]
    for erasure in erasures:
        left = UploadIntent.objects.filter(session__public_id__in=erasure.sessions)
        if not left.exists():
            erasure.verified_at = now()
            Erasure.objects.filter(pk=erasure.pk, verified_at=None).update(verified_at=erasure.verified_at)


def certificate(erasure: Erasure) -> dict[str, Any]:
    """The certificate of an erasure as JSON values, without personal data except in the reason."""
    return {
        "erasure": str(erasure.public_id),
        "erased_at": erasure.at.isoformat(),
        "erased_by": erasure.actor_name,
        "reason": erasure.reason,
        "sessions": erasure.sessions,
        "files": erasure.files,
        "bytes": erasure.bytes,
        "answers": erasure.answers,
        "storage_verified_at": erasure.verified_at.isoformat() if erasure.verified_at else None,
    }


def check_reason(reason: str) -> None:
    """Raise :class:`InvalidInput` for ``reason`` when *reason* is empty or too long."""
    if not reason.strip():
        raise InvalidInput("reason", "required", "A reason is required.")
    if len(reason.strip()) > MAX_REASON_LENGTH:
        raise InvalidInput(
            "reason", "too_long", f"At most {MAX_REASON_LENGTH} characters.", {"limit": MAX_REASON_LENGTH}
        )


def _forget_history(session_pks: list[int]) -> None:
    """Delete the admin's history of the sessions."""
    if not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import LogEntry
    from django.contrib.contenttypes.models import ContentType

    kind = ContentType.objects.get_for_model(VerificationSession)
    LogEntry.objects.filter(content_type=kind, object_id__in=[str(pk) for pk in session_pks]).delete()


def prune() -> int:
    """Delete one batch of verified erasures older than ``LOG_RETENTION``; return the number."""
    cutoff = now() - max(conf.log_retention, KEPT_AT_LEAST)
    old = Erasure.objects.filter(at__lt=cutoff, verified_at__isnull=False).order_by("at")
    return Erasure.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:BATCH])).delete()[0]
