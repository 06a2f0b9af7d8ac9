"""Read back the archive as the product itself does: decrypted, checked and hashed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from datetime import datetime
from pathlib import Path

from django_faceprint.evidence.files import StorageFailed, open_stored
from django_faceprint.models import MediaAsset, UpstreamCall, VerificationAttempt, VerificationSession
from django_faceprint.privacy.keys import SealBroken

from .verdict import ArchivedSession, StoredFile


def read_everything() -> dict[str, ArchivedSession]:
    """The archived part of each session, by verify_token. Sessions without one are left out."""
    files: dict[int, list[StoredFile]] = defaultdict(list)
    for asset in MediaAsset.objects.stored().iterator():
        files[asset.session_id].append(
            StoredFile(
                asset.kind,
                asset.attempt_order,
                asset.position,
                asset.stored_name,
                asset.sha256,
                _digest(asset),
            )
        )
    attempts: dict[int, list[int]] = defaultdict(list)
    for pk, order in VerificationAttempt.objects.values_list("session_id", "order"):
        attempts[pk].append(order)
    return {
        session.verify_token: ArchivedSession(
            reference=session.reference,
            verdict=session.verdict,
            archive_state=session.archive_state,
            files=tuple(files[session.pk]),
            attempts=tuple(sorted(attempts[session.pk])),
            outstanding=session.wake_at is not None or session.priority_at is not None,
        )
        for session in VerificationSession.objects.iterator()
        if session.verify_token is not None
    }


def work_history(reference: str) -> str:
    """The engine's work on a session as text, to find out why one of its files was lost."""
    session = VerificationSession.objects.get(reference=reference)
    work = f"{session.lease_epoch} leases, {session.poll_count} visits ended"
    lines = [f"{reference}: plan {session.plan.plan_id}, {session.verdict}, {work}"]
    lines += [
        f"  {_clock(call.at)} {call.endpoint}: {call.outcome} {call.code}".rstrip()
        for call in UpstreamCall.objects.filter(session=session).order_by("at")
    ]
    lines += [
        f"  {asset.kind} {asset.attempt_order}/{asset.position}: {asset.state}, {asset.tries} failures, "
        f"until {_clock(asset.deadline)}, archived {_clock(asset.archived_at)} "
        f"{asset.error_class} {asset.error_detail}".rstrip()
        for asset in session.assets.all()
    ]
    return "\n".join(lines)


def _clock(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment:%d %H:%M:%S}"


def names_on_disk(folder: Path) -> list[str]:
    """The names of the files in a storage, as rows contain them."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _digest(asset: MediaAsset) -> str | None:
    """SHA-256 of the plaintext; None when the file is missing, incomplete or does not decrypt."""
    digest = hashlib.sha256()
    size = 0
    try:
        with open_stored(asset) as reader:
            for chunk in reader.iter_range(0, asset.size or 0):
                digest.update(chunk)
                size += len(chunk)
    except (SealBroken, StorageFailed):
        return None
    return digest.hexdigest() if size == asset.size else None
