"""The record of who looked at what, and why."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self
from uuid import UUID

from django.db import transaction
from django.http import HttpRequest

from django_faceprint.conf import conf
from django_faceprint.exceptions import InvalidInput
from django_faceprint.models import AccessLog, AccessReason, MediaAsset, VerificationSession


@dataclass(frozen=True)
class Actor:
    """Who does something with a record: a user, or a name that says what did it."""

    name: str
    channel: str
    id: str = ""
    address: str | None = None

    @classmethod
    def of(cls, request: HttpRequest, channel: str) -> Self:
        """The user of *request*."""
        user: Any = request.user
        return cls(user.get_username(), channel, str(user.pk or ""), _address(request))

    def entry(self, action: AccessLog.Action, **columns: Any) -> AccessLog:
        """An entry of the access log that says what the actor did; not saved yet."""
        return AccessLog(**self.columns(), address=self.address, action=action, **columns)

    def columns(self) -> dict[str, str]:
        """The columns of a row that tells of it."""
        return {"actor_id": self.id, "actor_name": self.name[:150], "channel": self.channel}


@dataclass(frozen=True)
class Reason:
    """Why: a code of a known list, which names nobody, and a free text, which may."""

    code: str = ""
    text: str = ""


#: Maximum length of a free-text reason, e.g. a ticket number.
MAX_REASON_LENGTH = 200
#: How long a revealed identity is shown.
REVEALED_FOR = timedelta(seconds=60)


def checked_reason(code: str, text: str = "") -> Reason:
    """A reason to see an identity, from ``FACEPRINT["REVEAL_REASONS"]``.

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


def earlier_reason(request: HttpRequest, entry_id: UUID, session: VerificationSession) -> Reason | None:
    """The reason of an entry that the same user made for the same record; None when it is gone."""
    entry = AccessLog.objects.filter(
        public_id=entry_id,
        action=AccessLog.Action.REVEAL,
        actor_id=str(request.user.pk or ""),
        session_id=session.public_id,
    ).first()
    if entry is None or entry.reason_code not in conf.reveal_reasons:
        return None
    if not entry.reason_digest:
        return Reason(entry.reason_code)
    row = AccessReason.objects.filter(public_id=entry.public_id).first()
    return Reason(entry.reason_code, row.text) if row is not None else None


def record_access(
    request: HttpRequest,
    action: AccessLog.Action,
    *,
    session: VerificationSession | None = None,
    asset: MediaAsset | None = None,
    channel: str,
    reason: Reason | None = None,
) -> AccessLog:
    """Write down that the request's user did *action*. One insert, and one more for a free-text reason.

    Raises when it cannot be written, so that nobody sees a face without it being known.
    """
    if session is None and asset is not None:
        session = asset.session
    return add_entry(
        Actor.of(request, channel),
        action,
        session_id=session.public_id if session else None,
        asset_id=asset.public_id if asset else None,
        reason=reason,
    )


def add_entry(
    actor: Actor,
    action: AccessLog.Action,
    *,
    session_id: UUID | None = None,
    asset_id: UUID | None = None,
    reason: Reason | None = None,
) -> AccessLog:
    """The same where there is no request: in a job, say."""
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
    """The reason of *entry*, to be saved with it, whose digest the entry takes; None without a text."""
    if not text:
        return None
    salt = secrets.token_hex(32)
    entry.reason_digest = reason_digest(salt, text)
    return AccessReason(public_id=entry.public_id, text=text, salt=salt)


def reason_digest(salt: str, text: str) -> str:
    """What an entry keeps of its reason (64 hexadecimal digits)."""
    return hashlib.sha256(salt.encode() + text.encode()).hexdigest()


def _address(request: HttpRequest) -> str | None:
    """The peer's address as the server saw it; a proxy's header is trusted only when the host maps it.

    None for what is no address, as servers write it for a Unix socket: PostgreSQL would refuse the row.
    """
    text = str(request.META.get("REMOTE_ADDR", "")).partition("%")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
