"""Sessions for the engine to archive, and the check afterwards that it did."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django_faceprint.models import Plan

AGE = timedelta(minutes=5)
#: Of the person whom upstream names.
ID_NUMBER = "11010519491231002X"


def migrate() -> None:
    """Make the tables."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def start(count: int) -> None:
    """Insert *count* sessions whose person has just passed and returned; nothing of them is archived."""
    from django_faceprint.base.deadlines import session_deadlines, undecided_deadlines
    from django_faceprint.clock import now
    from django_faceprint.models import VerificationSession
    from django_faceprint.privacy.blind_index import blind_index

    moment = now()
    issued_at = moment - AGE
    until = session_deadlines(issued_at, issued_at)
    pending = undecided_deadlines(
        requested_at=issued_at,
        media_deadline=until.media_deadline,
        results_deadline=until.results_deadline,
        records_video=True,
        moment=moment,
    )
    kind = plan()
    first = VerificationSession.objects.count()
    rows = []
    for number in range(first, first + count):
        token = f"benchmarkToken{number:010d}"
        rows.append(
            VerificationSession(
                environment=VerificationSession.Environment.SANDBOX,
                plan=kind,
                application="default",
                verify_token=token,
                verify_token_index=blind_index("verify_token", token),
                reference=f"benchmark-{number}",
                created_at=issued_at,
                token_requested_at=issued_at,
                token_answered_at=issued_at,
                returned_at=moment,
                **until.columns(),
                priority_at=pending.next_deadline,
                **pending.columns(),
            )
        )
    VerificationSession.objects.bulk_create(rows, batch_size=500)


def plan() -> Plan:
    from django_faceprint.models import Plan

    return Plan.objects.get_or_create(
        plan_id="25001",
        defaults={
            "name": "Benchmark",
            "identity_entry": Plan.IdentityEntry.OCR,
            "card_sides": Plan.CardSides.BOTH,
            "liveness": Plan.Liveness.ACTION,
            "records_video": True,
        },
    )[0]


def verify(count: int, hashes: Sequence[str], archive: str) -> None:
    """Raise unless exactly *count* sessions are complete and each has exactly these files, which decrypt.

    Every file is read back, and so is what each session and its answers hold encrypted. Nothing else may lie
    in the folder of the archive.
    """
    from django_faceprint.evidence.files import open_stored
    from django_faceprint.models import MediaAsset, UploadIntent, VerificationSession

    complete = VerificationSession.objects.filter(archive_state=VerificationSession.ArchiveState.COMPLETE)
    _require(complete.count() == count, f"{complete.count()} of {count} sessions are complete")
    per_session: dict[int, list[str]] = {}
    for asset in MediaAsset.objects.filter(state=MediaAsset.State.STORED).iterator():
        digest = hashlib.sha256()
        with open_stored(asset) as reader:
            while chunk := reader.read(1 << 20):
                digest.update(chunk)
        _require(digest.hexdigest() == asset.sha256, "a file has another hash than its row")
        per_session.setdefault(asset.session_id, []).append(asset.sha256)
    expected = Counter(hashes)
    _require(len(per_session) == count, "a session has no files")
    _require(
        all(Counter(found) == expected for found in per_session.values()),
        "a session has other files than sent",
    )
    files = sum(1 for path in Path(archive).rglob("*") if path.is_file())
    _require(files == count * len(hashes), f"{files} files instead of {count * len(hashes)}")
    _require(not UploadIntent.objects.exists(), "an upload was not settled")
    _verify_rows(count)


def _verify_rows(count: int) -> None:
    """Raise unless each session has an outcome, an attempt, and an answer and a call of each interface."""
    from django_faceprint.models import (
        UpstreamAnswer,
        UpstreamCall,
        VerificationAttempt,
        VerificationSession,
    )

    for session in VerificationSession.objects.iterator():
        confirmed = session.confirmed or {}
        _require(confirmed.get("number") == ID_NUMBER, "a session names another person")
        _require(
            session.verdict == "passed" and session.score is not None and session.wake_at is None,
            "a session has no outcome",
        )
    _require(VerificationAttempt.objects.filter(passed=True).count() == count, "an attempt is missing")
    for endpoint in ("result_detail", "result_getall", "result_simple", "result_media_query", "result_stat"):
        answers = UpstreamAnswer.objects.filter(endpoint=endpoint, parsed=True)
        _require(
            answers.values("session").distinct().count() == answers.count() == count,
            f"an answer of {endpoint} is missing",
        )
        bodies = [json.loads(answer.body or "{}") for answer in answers.iterator()]
        _require(all(body.get("success") for body in bodies), "an answer has another content")
        calls = UpstreamCall.objects.filter(endpoint=endpoint, outcome="ok")
        _require(calls.count() == count, f"a call of {endpoint} is missing")


def remove(archive: str) -> None:
    """Forget all sessions and their files."""
    import shutil

    from django_faceprint.models import (
        MediaAsset,
        UploadIntent,
        UpstreamAnswer,
        UpstreamCall,
        VerificationAttempt,
        VerificationSession,
    )

    for model in (
        *(UploadIntent, UpstreamCall, UpstreamAnswer, VerificationAttempt, MediaAsset, VerificationSession),
    ):
        rows = model._default_manager.all()
        rows._raw_delete(rows.db)
    shutil.rmtree(archive, ignore_errors=True)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise AssertionError(f"The archive is not what was served: {problem}.")
