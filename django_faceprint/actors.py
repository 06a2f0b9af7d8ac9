"""Who makes a request, for the access log: used by the admin and the API."""

from __future__ import annotations

import ipaddress
from typing import Any

from django.http import HttpRequest

from django_faceprint.audit.access import Actor


def actor_of(request: HttpRequest, channel: str) -> Actor:
    """The user of *request* with the peer's address; *channel* is the face, ``admin`` or ``api``."""
    user: Any = request.user
    return Actor(user.get_username(), channel, str(user.pk or ""), _address(request))


def _address(request: HttpRequest) -> str | None:
    """The peer's address as the server sees it; hosts behind a proxy must set ``REMOTE_ADDR`` themselves.

    None for anything else, as servers report it for a Unix socket: PostgreSQL would refuse the row.
    """
    text = str(request.META.get("REMOTE_ADDR", "")).partition("%")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
