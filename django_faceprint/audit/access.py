"""The access log: who saw or did what, when and why."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from django_faceprint.conf import conf
from django_faceprint.exceptions import InvalidInput
from django_faceprint.models import AccessLog, AccessReason, VerificationSession


@dataclass(frozen=True)
class Actor:
    """Who does something with a record.

    ``name`` is a username, or the name of a command or task; ``channel`` says where it is done (``admin``,
    ``api``, ``command`` …). ``id`` is the user's primary key, "" without a user; ``address`` an IP address.
    """

    name: str
    channel: str
    id: str = ""
    address: str | None = None

    def entry(self, action: AccessLog.Action, **columns: Any) -> AccessLog:
        """An unsaved entry of the access log for *action*."""
        return AccessLog(**self.columns(), address=self.address, action=action, **columns)

    def columns(self) -> dict[str, str]:
        """The columns that name the actor, in the access log and in erasures."""
        return {"actor_id": self.id, "actor_name": self.name[:150], "channel": self.channel}


@dataclass(frozen=True)
class Reason:
    """A code of ``REVEAL_REASONS`` and a free text; only the text may hold personal data."""

    code: str = ""
    text: str = ""


#: Maximum length of a free-text reason, e.g. a ticket number.
MAX_REASON_LENGTH = 200
#: Time until a revealed identity is masked again.
REVEALED_FOR = timedelta(seconds=60)


def checked_reason(code: str, text: str = "") -> Reason:
    """The reason to reveal an identity, with a code of ``FACEPRINT["REVEAL_REASONS"]``.

    Raises :class:`InvalidInput` for ``reason`` (``required``, ``unknown``) and ``reason_text``
    (``required`` with ``other``, ``too_long``).
    """
    code, text = code.strip(), text.strip()
    if not code:
        raise InvalidInput("reason", "required", "A reason is required.")
    if code not in conf.reveal_reasons:
        raise InvalidInput("reason", "unknown", "Not one of the known reasons.")
    if code == "other" and not text:
        raise InvalidInput("reason_text", "required", "Please add a short explanation.")
    if len(text) > MAX_REASON_LENGTH or "\x00" in text:
        raise InvalidInput(
            "reason_text",
            "too_long",
            f"At most {MAX_REASON_LENGTH} characters.",
            {"limit": MAX_REASON_LENGTH},
        )
    return Reason(code, text)


def earlier_reason(actor: Actor, entry_id: UUID, session: VerificationSession) -> Reason | None:
    """The reason of *actor*'s entry *entry_id* for *session*; None when there is none any more."""
    entry = AccessLog.objects.filter(
        public_id=entry_id,
        action=AccessLog.Action.REVEAL,
        actor_id=actor.id,
        session_id=session.public_id,
    ).first()
    if entry is None or entry.reason_code not in conf.reveal_reasons:
        return None
    if not entry.reason_digest:
        return Reason(entry.reason_code)
    row = AccessReason.objects.filter(public_id=entry.public_id).first()
    return Reason(entry.reason_code, row.text) if row is not None else None


def record_access(
    actor: Actor,
    action: AccessLog.Action,
    *,
    session_id: UUID | None = None,
    asset_id: UUID | None = None,
    reason: Reason | None = None,
) -> AccessLog:
    """Write to the access log that *actor* did *action*: one insert, two with a free-text reason.

    Raises what the database raises; the caller must then not show anything.
    """
    entry = actor.entry(action, session_id=session_id, asset_id=asset_id)
    if reason is None:
        entry.save(force_insert=True)
        return entry
    entry.reason_code = reason.code
    row = _reason_row(entry, reason.text)
    with transaction.atomic():
        entry.save(force_insert=True)
        if row is not None:
            row.save(force_insert=True)
    return entry


def _reason_row(entry: AccessLog, text: str) -> AccessReason | None:
    """The unsaved row of the free text, whose digest is put on *entry*; None without a text."""
    if not text:
        return None
    salt = secrets.token_hex(32)
    entry.reason_digest = reason_digest(salt, text)
    return AccessReason(public_id=entry.public_id, text=text, salt=salt)


def reason_digest(salt: str, text: str) -> str:
    """The digest of a free-text reason that stays on the entry (64 hexadecimal digits)."""
    return hashlib.sha256(salt.encode() + text.encode()).hexdigest()
