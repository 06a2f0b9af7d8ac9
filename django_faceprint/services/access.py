"""The record of who looked at what."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Self

from django.http import HttpRequest

from django_faceprint.models import AccessLog, MediaAsset, VerificationSession


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

    def columns(self) -> dict[str, str]:
        """The columns of a row that tells of it."""
        return {"actor_id": self.id, "actor_name": self.name[:150], "channel": self.channel}


def record_access(
    request: HttpRequest,
    action: AccessLog.Action,
    *,
    session: VerificationSession | None = None,
    asset: MediaAsset | None = None,
    channel: str,
) -> None:
    """Write down that the request's user did *action*. One insert; raises when it cannot be written,
    so that nobody sees a face without it being known."""
    actor = Actor.of(request, channel)
    AccessLog.objects.create(
        **actor.columns(),
        address=actor.address,
        action=action,
        session_id=session.public_id if session else asset.session.public_id if asset else None,
        asset_id=asset.public_id if asset else None,
    )


def _address(request: HttpRequest) -> str | None:
    """The peer's address as the server saw it; a proxy's header is trusted only when the host maps it.

    None for what is no address, as servers write it for a Unix socket: PostgreSQL would refuse the row.
    """
    text = str(request.META.get("REMOTE_ADDR", "")).partition("%")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
