"""Rows for tests: synthetic people, real ciphers, real files in the test storage."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import Any

from PIL import Image

from django_faceprint.audit.access import Actor
from django_faceprint.base import deadlines
from django_faceprint.base.lease import Lease
from django_faceprint.clock import now
from django_faceprint.engine import queue
from django_faceprint.evidence import erasure
from django_faceprint.evidence import files as evidence_files
from django_faceprint.models import MediaAsset, Plan, UpstreamCall, VerificationSession
from django_faceprint.privacy.blind_index import blind_index

NAME = "张三丰"
NUMBER = "11010519491231002X"
TOKEN = "faceprintTokenOfTheTests0123456789"

_plan_ids = itertools.count(70001)
_tokens = itertools.count(1)


def make_plan(**values: Any) -> Plan:
    """A saved plan: authority database, identity specified by the server, real-time action, recorded."""
    plan_id = values.pop("plan_id", None) or str(next(_plan_ids))
    return Plan.objects.create(
        plan_id=plan_id,
        **{"name": f"Plan {plan_id}", "records_video": True, "threshold": 80.0} | values,
    )


def make_session(*, age: timedelta = timedelta(minutes=5), **values: Any) -> VerificationSession:
    """A saved sandbox session whose token was issued and whose identity was accepted *age* ago.

    Any column can be given. Deadlines follow from the token's time as the services compute them, and
    the blind indexes from name and number. ``identity_name=None`` leaves the identity out. By default
    nothing is outstanding for the engine: give ``wake_at`` or ``priority_at`` for that.
    """
    issued_at: datetime = values.pop("token_answered_at", None) or now() - age
    until = deadlines.session_deadlines(issued_at, issued_at)
    token = f"{TOKEN}{next(_tokens)}"
    defaults: dict[str, Any] = {
        "environment": VerificationSession.Environment.SANDBOX,
        "application": "default",
        "verify_token": token,
        "created_at": issued_at,
        "token_requested_at": issued_at,
        "token_answered_at": issued_at,
        "identity_accepted_at": issued_at,
        "identity_name": NAME,
        "identity_number": NUMBER,
        "certificate_type": 0,
        **until.columns(),
    }
    values = defaults | values
    if "plan" not in values:
        values["plan"] = make_plan()
    if values["verify_token"]:
        values.setdefault("verify_token_index", blind_index("verify_token", values["verify_token"]))
    if values["identity_name"]:
        values.setdefault("name_index", blind_index("name", values["identity_name"]))
    if values["identity_number"]:
        values.setdefault("number_index", blind_index("id_number", values["identity_number"]))
    return VerificationSession.objects.create(**values)


def make_passed_session(**values: Any) -> VerificationSession:
    """A session that passed with 84.4 of 80."""
    moment = now()
    passed: dict[str, Any] = {
        "verdict": VerificationSession.Verdict.PASSED,
        "archive_state": VerificationSession.ArchiveState.COMPLETE,
        "score": 84.4,
        "liveness_score": 0.93,
        "threshold": 80.0,
        "is_demoted": False,
        "returned_at": moment,
        "verified_at": moment,
        "decided_at": moment,
    }
    return make_session(**passed | values)


def make_awaiting_session(wait: timedelta = timedelta(hours=1), **values: Any) -> VerificationSession:
    """A session that the engine visits again in *wait*."""
    return make_session(wake_at=now() + wait, **values)


def make_due_session(**values: Any) -> VerificationSession:
    """A session that can be claimed now; its safe deadline is *now* unless given."""
    moment = now()
    return make_session(**{"priority_at": moment, "next_deadline": moment} | values)


def make_leased_session(**values: Any) -> tuple[VerificationSession, Lease]:
    """A session that a worker holds, and its lease."""
    session = make_due_session(**values)
    (lease,) = queue.claim(now(), session_pk=session.pk)
    session.refresh_from_db()
    return session, lease


def make_erased_session(**values: Any) -> VerificationSession:
    """A passed session whose person was erased."""
    session = make_passed_session(**values)
    actor = Actor("eraser", "test")
    erasure.erase(VerificationSession.objects.filter(pk=session.pk), reason="on request", actor=actor)
    session.refresh_from_db()
    return session


def make_many_passed(count: int, *kinds: str, **values: Any) -> list[VerificationSession]:
    """*count* sessions that passed, a second apart, with a row of a wanted file of each of *kinds*.

    Copies of one, each with ciphers of its own: in seconds, however many.
    """
    one = make_passed_session(**values)
    columns = {
        field.attname: getattr(one, field.attname)
        for field in VerificationSession._meta.concrete_fields
        if field.name not in ("id", "public_id", "verify_token_index", "created_at")
    }
    copies = [
        VerificationSession(**columns, created_at=one.created_at - timedelta(seconds=number))
        for number in range(1, count)
    ]
    rows = [one, *VerificationSession.objects.bulk_create(copies, batch_size=500)]
    MediaAsset.objects.bulk_create(
        (MediaAsset(session=row, kind=kind, source=_source(kind)) for row in rows for kind in kinds),
        batch_size=500,
    )
    return rows


def make_asset(session: VerificationSession, kind: str, **values: Any) -> MediaAsset:
    """A row of the archive without a file; ``state`` says why there is none (default: wanted)."""
    safe, give_up_at = deadlines.asset_deadlines(session, kind)
    return MediaAsset.objects.create(
        session=session,
        kind=kind,
        **{"source": _source(kind), "deadline": safe, "give_up_at": give_up_at} | values,
    )


def _source(kind: str) -> str:
    return {
        MediaAsset.Kind.FACE: MediaAsset.Source.SIMPLE,
        MediaAsset.Kind.ATTEMPT_FACE: MediaAsset.Source.GETALL,
        MediaAsset.Kind.ID_FRONT: MediaAsset.Source.DETAIL,
        MediaAsset.Kind.ID_BACK: MediaAsset.Source.DETAIL,
        MediaAsset.Kind.MATCH_IMAGE: MediaAsset.Source.UPLOAD,
    }.get(MediaAsset.Kind(kind), MediaAsset.Source.MEDIA)


def make_stored_asset(
    session: VerificationSession, kind: str, data: bytes | Iterable[bytes] | None = None, **values: Any
) -> MediaAsset:
    """An archived file: *data* (default: a real picture or video of that kind) checked, encrypted and
    stored by the archive service itself."""
    asset = make_asset(session, kind, **values)
    if data is None:
        data = video_bytes() if asset.is_video else image_bytes()
    session.refresh_from_db(fields=["lease_epoch"])
    lease = Lease(session.pk, session.lease_epoch)
    evidence_files.write_and_commit(lease, asset, [data] if isinstance(data, bytes) else data)
    return asset


def make_call(session: VerificationSession | None = None, **values: Any) -> UpstreamCall:
    """A recorded call to Baidu that succeeded."""
    defaults: dict[str, Any] = {
        "environment": VerificationSession.Environment.SANDBOX,
        "application": "default",
        "endpoint": "result_detail",
        "outcome": UpstreamCall.OK,
        "log_id": "1390123456789012345",
        "http_status": 200,
        "latency": 0.123,
    }
    return UpstreamCall.objects.create(session=session, **defaults | values)


@lru_cache
def image_bytes(width: int = 48, height: int = 64, colour: str = "#7799bb") -> bytes:
    """A JPEG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "JPEG")
    return buffer.getvalue()


@lru_cache
def video_bytes(padding: int = 0) -> bytes:
    """A playable MP4 of some 50 kB, with *padding* bytes in a box that players skip."""
    clip = files("django_faceprint.sandbox").joinpath("assets/face.mp4").read_bytes()
    if not padding:
        return clip
    return clip + (padding + 8).to_bytes(4, "big") + b"free" + bytes(padding)
