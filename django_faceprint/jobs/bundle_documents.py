"""The JSON documents of an evidence bundle: record, consent, calls to Baidu and its answers.

Unmasked they hold names, numbers, what was read from the card and references of consents; otherwise these are
masked. docs/en/bundle.md describes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.utils.translation import override

from django_faceprint.models import UpstreamCall, VerificationAttempt, VerificationSession
from django_faceprint.privacy.keys import SealBroken
from django_faceprint.privacy.masking import mask_card, mask_name, mask_number
from django_faceprint.verification import consent

#: Rows read at a time.
BATCH = 500
#: The same for answers: one may have a megabyte.
ANSWER_BATCH = 5

_TIMES = (
    *("created_at", "adopted_at", "token_requested_at", "token_answered_at", "identity_accepted_at"),
    *("match_image_accepted_at", "expires_at", "returned_at", "verified_at", "decided_at", "archived_at"),
    "erased_at",
)
_CALL_COLUMNS = ("endpoint", "outcome", "code", "log_id", "http_status", "latency")


def iso(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC."""
    return moment.astimezone(UTC).isoformat() if moment is not None else None


def json_document(value: Any) -> bytes:
    """An indented JSON document."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "backslashreplace")


def json_line(value: Any) -> bytes:
    """A line of a ``.jsonl`` file."""
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


class _Decrypted:
    """Encrypted values of a row. ``unreadable`` names those that do not open: a key is missing, or they were
    changed."""

    def __init__(self, row: Any) -> None:
        self._row = row
        self.unreadable: list[str] = []

    def get(self, name: str) -> Any:
        """The value, or None."""
        try:
            return getattr(self._row, name)
        except SealBroken:
            self.unreadable.append(name)
            return None


def record(session: VerificationSession, *, unmasked: bool, language: str) -> dict[str, Any]:
    """``record.json``. *language* is that of ``verdict_text``."""
    plan = session.plan
    with override(language):
        verdict_text = str(session.get_verdict_display())
    return {
        "id": str(session.public_id),
        "environment": session.environment,
        "application": session.application,
        "plan": {
            "plan_id": plan.plan_id,
            "name": plan.name,
            "match_source": plan.match_source,
            "liveness": plan.liveness,
        },
        "reference": session.reference,
        "purpose": session.purpose,
        "status": session.status,
        "verdict": session.verdict,
        "verdict_text": verdict_text,
        "archive_state": session.archive_state,
        "scores": {
            "score": session.score,
            "liveness_score": session.liveness_score,
            "spoofing": session.spoofing_score,
        },
        "threshold": session.threshold,
        "is_demote": session.is_demoted,
        "error": _error(session),
        **_identity(session, unmasked=unmasked),
        "attempts": [_attempt(row) for row in session.attempts.order_by("order")],
        "stat": session.stat,
        "times": {name: iso(getattr(session, name)) for name in _TIMES},
        "deadlines": {"results": iso(session.results_deadline), "media": iso(session.media_deadline)},
        "retain_until": iso(session.retain_until),
    }


def _error(session: VerificationSession) -> dict[str, Any] | None:
    if not session.error_class:
        return None
    return {
        "class": session.error_class,
        "code": session.error_code,
        "message": session.error_message,
        "log_id": session.error_log_id,
    }


def _identity(session: VerificationSession, *, unmasked: bool) -> dict[str, Any]:
    values = _Decrypted(session)
    name, number = values.get("identity_name"), values.get("identity_number")
    ocr, confirmed = values.get("ocr"), values.get("confirmed")
    if not unmasked:
        name, number = mask_name(name or "") or None, mask_number(number or "") or None
        ocr, confirmed = mask_card(ocr), mask_card(confirmed)
    return {
        "identity": {"name": name, "number": number, "certificate_type": session.certificate_type},
        "ocr": ocr,
        "confirmed": confirmed,
        "unreadable": values.unreadable,
    }


def _attempt(row: VerificationAttempt) -> dict[str, Any]:
    return {
        "order": row.order,
        "passed": row.passed,
        "code": row.code,
        "message": row.message,
        "verified_at": iso(row.verified_at),
        "score": row.score,
        "threshold": row.threshold,
        "liveness_score": row.liveness_score,
        "spoofing": row.spoofing_score,
        "risk_level": row.risk_level,
        "risk_tag": row.risk_tag,
        "is_demote": row.is_demoted,
        "is_charged": row.is_charged,
        "charge_type": row.charge_type,
        "log_id": row.verify_log_id,
    }


def consent_on_record(session: VerificationSession, *, unmasked: bool) -> dict[str, Any] | None:
    """``consent.json``."""
    found = consent.of_session(session)
    if found is None:
        return None
    values = _Decrypted(found)
    references = {name: values.get(name) for name in ("reference", "guardian_reference")}
    if not unmasked:
        # A reference may be the number of a contract.
        references = {f"has_{name}": bool(value) for name, value in references.items()}
    return {
        "recorded_at": iso(found.recorded_at),
        "given_at": iso(found.given_at),
        "purpose": found.purpose,
        "notice_version": found.notice_version,
        "channel": found.channel,
        "separate": found.is_separate,
        "names_recipient": found.names_recipient,
        "alternative_offered": found.alternative_offered,
        **references,
        "withdrawn_at": iso(found.withdrawn_at),
        "unreadable": values.unreadable,
    }


def calls(session: VerificationSession) -> Iterator[bytes]:
    """The lines of ``calls.jsonl``."""
    rows = UpstreamCall.objects.filter(session=session).order_by("at", "pk")
    for row in rows.iterator(chunk_size=BATCH):
        yield json_line({"at": iso(row.at), **{name: getattr(row, name) for name in _CALL_COLUMNS}})


def answers(session: VerificationSession) -> Iterator[bytes]:
    """The lines of ``answers.jsonl``, for unmasked bundles alone."""
    token = _Decrypted(session).get("verify_token")
    for row in session.answers.order_by("received_at", "pk").iterator(chunk_size=ANSWER_BATCH):
        values = _Decrypted(row)
        body = values.get("body")
        yield json_line(
            {
                "received_at": iso(row.received_at),
                "endpoint": row.endpoint,
                "code": row.code,
                "log_id": row.log_id,
                "understood": row.parsed,
                # With the token anybody could request the evidence from Baidu.
                "body": body.replace(token, "[verify_token]") if body and token else body,
                "unreadable": values.unreadable,
            }
        )
