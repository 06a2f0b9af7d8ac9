"""Whether people may be verified through a host.

With ``DEBUG`` off, a loopback or private address or plain http between us and Baidu means a forgotten
variable, and perhaps a sandbox that passes everybody. A system check reports it at start, and
:func:`refuse_unsafe_hosts` prevents new sessions. Only names and literal addresses are checked; nothing is
resolved here.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from .conf import conf
from .exceptions import FaceprintConfigurationError

# Names that never belong to a public host: RFC 6761, 6762, 8375 and what home and office routers use.
_PRIVATE_SUFFIXES = (
    *(".localhost", ".local", ".internal", ".intranet", ".private", ".lan", ".home", ".corp", ".home.arpa"),
    *(".test", ".example", ".invalid", ".onion"),
)


def host_danger(host: str) -> str:
    """Why *host* (a name or literal address, without port) is not public; "" when it may be.

    ``loopback``, ``private`` (also link-local, reserved, single-label names and names of private
    networks) or ``invalid``.
    """
    name = host.strip().strip("[]").rstrip(".").lower()
    if not name or any(character.isspace() for character in name):
        return "invalid"
    if name == "localhost" or name.endswith(".localhost"):
        return "loopback"
    address = _literal_address(name)
    if address is not None:
        if address.is_loopback or address.is_unspecified:
            return "loopback"
        return "" if address.is_global and not address.is_multicast else "private"
    if "." not in name or name.endswith(_PRIVATE_SUFFIXES):
        return "private"
    return ""


def url_danger(url: str) -> str:
    """Why *url* must not be used in production; "" when it may be.

    A reason of :func:`host_danger`, or ``plain_http``.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "invalid"
    if parts.scheme not in ("http", "https") or not host:
        return "invalid"
    return host_danger(host) or ("plain_http" if parts.scheme == "http" else "")


def media_host_danger(entry: str) -> str:
    """:func:`host_danger` for an entry of ``MEDIA_HOSTS``: ``host[:port]``, with ``*.`` in front if wanted.

    An entry has no scheme, so plain http is not checked here.
    """
    pattern = entry.removeprefix("*.")
    if not pattern or "*" in pattern:
        return "invalid"
    try:
        host = urlsplit(f"//{pattern}").hostname or ""
    except ValueError:
        return "invalid"
    return host_danger(host)


def unsafe_settings() -> list[tuple[str, str]]:
    """(setting, danger) of every unsafe host in the settings; empty with ``DEBUG`` on.

    Raises :class:`FaceprintConfigurationError` when a setting has the wrong type.
    """
    if conf.debug:
        return []
    dangers = [("API_URL", url_danger(conf.api_url)), ("H5_URL", url_danger(conf.h5_url))]
    if conf.public_url:
        dangers.append(("PUBLIC_URL", url_danger(conf.public_url)))
    dangers += [("MEDIA_HOSTS", media_host_danger(entry)) for entry in conf.media_hosts]
    return [(setting, danger) for setting, danger in dangers if danger]


def refuse_unsafe_hosts() -> None:
    """Raise :class:`FaceprintConfigurationError` if a host is unsafe. It names settings and no values."""
    if unsafe := unsafe_settings():
        names = ", ".join(sorted({setting for setting, _ in unsafe}))
        raise FaceprintConfigurationError(
            f"No session is started with DEBUG off while {names} of FACEPRINT "
            "is a loopback or private host or plain http."
        )


def _literal_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        try:
            # "127.1", "0x7f000001" and "2130706433" are 127.0.0.1 to the C library, and so to sockets.
            address = ipaddress.IPv4Address(socket.inet_aton(name))
        except (OSError, UnicodeEncodeError):
            return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
    return address
