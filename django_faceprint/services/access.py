"""The record of who looked at what."""

from __future__ import annotations

import ipaddress
from typing import Any

from django.http import HttpRequest

from django_faceprint.models import AccessLog, MediaAsset, VerificationSession


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
    user: Any = request.user
    AccessLog.objects.create(
        actor_id=str(user.pk or ""),
        actor_name=user.get_username()[:150],
        action=action,
        session_id=session.public_id if session else asset.session.public_id if asset else None,
        asset_id=asset.public_id if asset else None,
        channel=channel,
        address=_address(request),
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
