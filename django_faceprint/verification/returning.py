"""The way back from the H5 page: the return view's URL, and the host's own (API reference 5)."""

from __future__ import annotations

from urllib.parse import urlsplit
from uuid import UUID

from django.core import signing
from django.urls import NoReverseMatch, reverse

from django_faceprint.base import events
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.engine import queue
from django_faceprint.exceptions import InvalidInput
from django_faceprint.models import VerificationSession

RETURN_SALT = "faceprint.return"
#: Maximum length of a host's return URL.
MAX_RETURN_URL_LENGTH = 2000


def record_return(session: VerificationSession) -> None:
    """Note that the browser came back from the H5 page, and have Baidu asked soon.

    The browser proves nothing: the verdict comes from Baidu alone. May be repeated.
    """
    first = VerificationSession.objects.filter(pk=session.pk, returned_at__isnull=True).update(
        returned_at=now()
    )
    session.refresh_from_db(fields=["returned_at", "verdict"])
    queue.request_recheck(session.pk)
    if first:
        events.session_returned(session)


def return_token(session: VerificationSession) -> str:
    """The signed id of *session* for the URL of the return view: ids cannot be guessed there."""
    return signing.Signer(salt=RETURN_SALT).sign(session.public_id.hex)


def session_of_return_token(token: str) -> VerificationSession | None:
    """The session that :func:`return_token` made *token* for; None for any other text."""
    try:
        public_id = UUID(signing.Signer(salt=RETURN_SALT).unsign(token))
    except (signing.BadSignature, ValueError):
        return None
    return VerificationSession.objects.select_related("plan").filter(public_id=public_id).first()


def return_view_url(session: VerificationSession) -> str | None:
    """The absolute URL of our return view for *session*; None where the settings or the URLconf have none."""
    if not conf.public_url:
        return None
    try:
        path = reverse("faceprint:return", args=[return_token(session)])
    except NoReverseMatch:
        # The host has not included django_faceprint.urls: only polling finds results then.
        return None
    return conf.public_url + path


def check_return_url(url: str) -> None:
    """Raise :class:`InvalidInput` unless *url* is HTTPS on a host in ``RETURN_URL_HOSTS``.

    With ``DEBUG``, plain HTTP passes too.
    """
    if not _is_allowed(url):
        raise InvalidInput(
            "return_url", "not_allowed", 'Not a URL of a host in FACEPRINT["RETURN_URL_HOSTS"].'
        )


def _is_allowed(url: str) -> bool:
    if len(url) > MAX_RETURN_URL_LENGTH or "\\" in url or any(ord(character) <= 32 for character in url):
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.hostname is None or parts.username is not None:
        return False
    if parts.scheme != "https" and not (conf.debug and parts.scheme == "http"):
        return False
    host = parts.hostname.lower()
    default_port = 443 if parts.scheme == "https" else 80
    names = {f"{host}:{default_port if port is None else port}"} | (
        {host} if port in (None, default_port) else set()
    )
    return not names.isdisjoint(item.lower() for item in conf.return_url_hosts)
