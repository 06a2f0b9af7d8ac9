"""Fetching pictures and videos from the hosts that Baidu names (API reference 7).

A URL in an answer is hostile until checked: host against a list, every address it resolves to, every
redirect, length and time. No access token, cookie or environment variable takes part, and no URL
(they are signed: whoever has one can fetch the face) reaches an exception or a log.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import urllib3
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout, make_headers

from ..exceptions import FaceprintConfigurationError, Unreachable, UnsafeMedia, UrlExpired
from .connections import Limits, Resolver, bound, exchange, is_public_address, is_unicast_address, tls_context
from .transport import FAILURES, POOL_SIZE, USER_AGENT, failure_words

CHUNK = 64 * 1024
MAX_REDIRECTS = 3
MAX_URL = 4096
#: How long a host is believed to offer no https, in seconds.
NO_HTTPS_MEMORY = 3600.0
_PORTS: Mapping[str, int] = {"http": 80, "https": 443}
#: Failures that say that a host offers no https; others are accidents.
_NO_HTTPS = frozenset({"connection failed", "TLS failure", "time-out"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# 403 is what storage answers to an expired signature; Baidu's also knows RequestExpired as 400.
_EXPIRED = frozenset({400, 401, 403, 404, 410})


@dataclass(frozen=True)
class _Target:
    """A checked address of one request. Never printed."""

    scheme: str
    host: str
    port: int
    path: str
    explicit_port: bool

    def __repr__(self) -> str:
        return "_Target(…)"

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        netloc = host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"
        return f"{self.scheme}://{netloc}{self.path}"


class MediaBody:
    """An open download; a context manager. Leaving it early closes the connection."""

    def __init__(
        self,
        response: BaseHTTPResponse,
        *,
        limits: Limits,
        max_bytes: int,
        offset: int,
        plain_http: bool,
    ) -> None:
        self._response = response
        self._limits = limits
        self._max_bytes = max_bytes
        self._offset = offset
        self._started = False
        #: Media type without parameters in lower case, "" when missing or malformed. A claim, not a proof.
        self.content_type = _media_type(response.headers.get("Content-Type", ""))
        #: Bytes that :meth:`chunks` will yield; None when the server does not say.
        self.content_length = _length(response)
        #: Whether the bytes begin at ``resume_from`` instead of 0.
        self.resumed = offset > 0
        #: Whether they came over plain http because the host offers nothing better.
        self.plain_http = plain_http
        if self.content_length is not None and offset + self.content_length > max_bytes:
            raise UnsafeMedia("too_large")

    def __repr__(self) -> str:
        return f"MediaBody(content_type={self.content_type!r}, content_length={self.content_length})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back if the body was read whole, else close it."""
        _discard(self._response)

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces of 64 KiB; the last may be shorter. Can be read once.

        Raises :class:`Unreachable` when the body ends early, stalls or takes longer than the total
        time-out, and :class:`UnsafeMedia` (``too_large``) beyond the limit.
        """
        if self._started:
            raise RuntimeError("A download can be read once.")
        self._started = True
        received = 0
        while chunk := self._read():
            received += len(chunk)
            if self._offset + received > self._max_bytes:
                self._response.close()
                raise UnsafeMedia("too_large")
            yield chunk
        if self.content_length is not None and received != self.content_length:
            raise Unreachable("Media download: body cut short.")

    def _read(self) -> bytes:
        failure = ""
        chunk = b""
        with exchange(self._limits):
            try:
                chunk = self._response.read(CHUNK, decode_content=False)
            except FAILURES as error:
                failure = failure_words(error)
        if failure:
            self._response.close()
            raise Unreachable(f"Media download: {failure}.")
        return chunk


class Downloader:
    """Fetches media. Safe to share between threads and across a fork.

    ``allowed_hosts`` are ``host`` (default ports), ``host:port`` or ``*.domain`` (any depth of sub-domains,
    not the domain itself); anything else raises ``FaceprintConfigurationError``. ``timeout`` is (connect,
    read) and ``total_timeout`` bounds a whole download, from the first byte sent to the last received, in
    seconds; ``max_bytes`` bounds its size.

    Addresses that are not of the public Internet are refused unless ``allow_private``. The address
    connected to is one of those checked; a name with a single forbidden address is refused. With a proxy
    for the scheme in ``proxies`` the proxy resolves names, so it must do that checking itself.

    A plain http URL is tried over https first, except with a port of its own or at a loopback address.
    """

    def __init__(
        self,
        *,
        allowed_hosts: Sequence[str],
        allow_private: bool = False,
        timeout: tuple[float, float] = (5.0, 20.0),
        total_timeout: float = 300.0,
        max_bytes: int = 512 * 1024 * 1024,
        proxies: Mapping[str, str] | None = None,
        ca_bundle: str | None = None,
        resolver: Resolver = socket.getaddrinfo,
    ) -> None:
        self._allowed = tuple(_pattern(host) for host in allowed_hosts)
        self._allow_private = allow_private
        self._timeout = timeout
        self._total_timeout = total_timeout
        self._max_bytes = max_bytes
        self._proxies = dict(proxies or {})
        self._ca_bundle = ca_bundle
        self._resolver = resolver
        self._guard = threading.Lock()
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._managers_pid = 0
        self._without_https: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections. A later download opens new ones."""
        with self._guard:
            if self._managers_pid == os.getpid():
                for manager in self._managers.values():
                    manager.clear()
            self._managers = {}

    def check_url(self, url: str) -> None:
        """Whether the URL may be fetched at all, without any network. Raises :class:`UnsafeMedia`."""
        self._checked(url)

    def fetch(self, url: str, *, resume_from: int = 0) -> MediaBody:
        """Begin a download; use the answer as a context manager.

        ``resume_from`` asks for the bytes from there on; whether they begin there says ``body.resumed``,
        since a server may ignore the wish.

        Raises :class:`UrlExpired` (ask Baidu for a new URL), :class:`Unreachable` (try again) and
        :class:`UnsafeMedia` (never fetch this).
        """
        if resume_from < 0:
            raise ValueError("resume_from must not be negative.")
        target = self._checked(url)
        deadline = time.monotonic() + self._total_timeout
        for _ in range(MAX_REDIRECTS + 1):
            response, limits, plain_http = self._open(target, resume_from, deadline)
            if resume_from and response.status == 416:
                # The file is shorter than what we have: not the file we began with.
                _discard(response)
                resume_from = 0
                response, limits, plain_http = self._open(target, 0, deadline)
            if response.status in _REDIRECTS:
                location = response.headers.get("Location", "")
                _discard(response)
                target = self._checked(_joined(target.url, location))
                continue
            return self._body(response, limits, resume_from, plain_http=plain_http)
        raise UnsafeMedia("redirects")

    def _body(
        self, response: BaseHTTPResponse, limits: Limits, resume_from: int, *, plain_http: bool
    ) -> MediaBody:
        problem = _problem(response, resume_from)
        if problem is None:
            try:
                return MediaBody(
                    response,
                    limits=limits,
                    max_bytes=self._max_bytes,
                    offset=resume_from if response.status == 206 else 0,
                    plain_http=plain_http,
                )
            except UnsafeMedia as refusal:
                problem = refusal
        _discard(response)
        raise problem

    def _open(
        self, target: _Target, resume_from: int, deadline: float
    ) -> tuple[BaseHTTPResponse, Limits, bool]:
        """Send the request, over https first if there is hope, and read the headers of the answer."""
        failure = ""
        if target.scheme == "http" and self._may_offer_https(target):
            secure = _Target("https", target.host, _PORTS["https"], target.path, explicit_port=False)
            response, limits, failure = self._send(secure, resume_from, deadline)
            if response is not None:
                return response, limits, False
            if failure in _NO_HTTPS:
                with self._guard:
                    self._without_https[target.host] = time.monotonic() + NO_HTTPS_MEMORY
        response, limits, failure = self._send(target, resume_from, deadline)
        if response is None:
            raise Unreachable(f"Media download: {failure}.")
        return response, limits, target.scheme == "http"

    def _may_offer_https(self, target: _Target) -> bool:
        if target.explicit_port or _is_loopback(target.host):
            return False
        if not any(pattern.matches(target.host, _PORTS["https"]) for pattern in self._allowed):
            return False
        with self._guard:
            return time.monotonic() >= self._without_https.get(target.host, 0.0)

    def _send(
        self, target: _Target, resume_from: int, deadline: float
    ) -> tuple[BaseHTTPResponse | None, Limits, str]:
        proxied = target.scheme in self._proxies
        limits = Limits(
            deadline=deadline,
            check_address=None if proxied else self._check_address(),
            resolver=socket.getaddrinfo if proxied else self._resolver,
        )
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        if resume_from:
            headers["Range"] = f"bytes={resume_from}-"
        connect, read = self._timeout
        with exchange(limits):
            try:
                limits.remaining()
                response = self._manager(target.scheme).urlopen(
                    "GET",
                    target.url,
                    headers=headers,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    timeout=Timeout(connect=connect, read=read),
                )
            except FAILURES as error:
                return None, limits, failure_words(error)
        return response, limits, ""

    def _check_address(self) -> Callable[[str], bool]:
        return is_unicast_address if self._allow_private else is_public_address

    def _manager(self, scheme: str) -> urllib3.PoolManager:
        with self._guard:
            # A forked child must not share its parent's sockets.
            if self._managers_pid != os.getpid():
                self._managers = {}
                self._managers_pid = os.getpid()
            manager = self._managers.get(scheme)
            if manager is None:
                manager = self._managers[scheme] = self._new_manager(scheme)
            return manager

    def _new_manager(self, scheme: str) -> urllib3.PoolManager:
        options: dict[str, Any] = {"num_pools": 16, "maxsize": POOL_SIZE}
        if scheme == "https":
            options["ssl_context"] = tls_context(self._ca_bundle)
        proxy = self._proxies.get(scheme)
        if proxy is None:
            return bound(urllib3.PoolManager(**options))
        parts = urlsplit(proxy)
        if parts.username is not None:
            userinfo = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            options["proxy_headers"] = make_headers(proxy_basic_auth=userinfo)
        return bound(urllib3.ProxyManager(proxy, **options))

    def _checked(self, url: str) -> _Target:
        """The URL as a target, if it may be fetched. Raises :class:`UnsafeMedia`."""
        parts = _split(url)
        if parts is None:
            raise UnsafeMedia("url")
        if parts.scheme not in _PORTS:
            raise UnsafeMedia("scheme")
        if parts.username is not None or parts.password is not None:
            raise UnsafeMedia("userinfo")
        if "#" in url:
            raise UnsafeMedia("fragment")
        host = (parts.hostname or "").lower()
        if not host or not _HOST.fullmatch(host):
            raise UnsafeMedia("host")
        port = parts.port if parts.port is not None else _PORTS[parts.scheme]
        if not any(pattern.matches(host, port) for pattern in self._allowed):
            raise UnsafeMedia("host")
        path = parts.path or "/"
        if parts.query:
            path += f"?{parts.query}"
        return _Target(parts.scheme, host, port, path, port not in _PORTS.values())


@dataclass(frozen=True)
class _Pattern:
    """One entry of the list of allowed hosts. ``port`` None: the default ports of http and https."""

    host: str
    wildcard: bool
    port: int | None

    def matches(self, host: str, port: int) -> bool:
        if port not in (_PORTS.values() if self.port is None else (self.port,)):
            return False
        return host.endswith(f".{self.host}") if self.wildcard else host == self.host


def _pattern(entry: str) -> _Pattern:
    text = entry.strip().lower()
    wildcard = text.startswith("*.")
    parts = _split(f"//{text[2:] if wildcard else text}")
    host = (parts.hostname or "") if parts is not None else ""
    if parts is None or not _HOST.fullmatch(host) or parts.path or parts.query or parts.username is not None:
        raise FaceprintConfigurationError("Media hosts must be written host, host:port or *.domain.")
    if wildcard and "." not in host:
        raise FaceprintConfigurationError("A media host must not cover a whole top-level domain.")
    return _Pattern(host, wildcard, parts.port)


_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._\-]{0,252})|[0-9a-f:.]{2,45}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+\-]{0,63}/[a-z0-9][a-z0-9.+\-]{0,63}")


def _split(url: str) -> SplitResult | None:
    """The parts of a URL made of visible ASCII with a possible port, else None."""
    if (
        not isinstance(url, str)
        or len(url) > MAX_URL
        or not re.fullmatch(r"[\x21-\x7e]+", url)
        or "\\" in url
    ):
        return None
    try:
        parts = urlsplit(url)
        if parts.port == 0 or parts.hostname is None:
            return None
    except ValueError:
        return None
    return parts


def _joined(base: str, location: str) -> str:
    try:
        return urljoin(base, location)
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _problem(response: BaseHTTPResponse, resume_from: int) -> Unreachable | UnsafeMedia | None:
    """Why this answer is not the file, if so."""
    status = response.status
    if status in _EXPIRED:
        return UrlExpired(f"Media download: HTTP status {status}.")
    if status not in (200, 206):
        # Other 4xx too: nothing is given up while its deadline has not passed.
        return Unreachable(f"Media download: HTTP status {status}.")
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
        return UnsafeMedia("encoding")
    if status == 206 and not _is_rest(response, resume_from):
        return Unreachable("Media download: not the range that was asked for.")
    return None


def _is_rest(response: BaseHTTPResponse, resume_from: int) -> bool:
    """Whether a 206 brings exactly the bytes from ``resume_from`` to the end."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip().lower())
    if match is None or resume_from == 0:
        return False
    first, last = int(match[1]), int(match[2])
    length = _length(response)
    return (
        first == resume_from
        and last >= first
        and (match[3] is None or last == int(match[3]) - 1)
        and length in (None, last - first + 1)
    )


def _length(response: BaseHTTPResponse) -> int | None:
    if "Transfer-Encoding" in response.headers:
        return None
    text = response.headers.get("Content-Length", "").strip()
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _media_type(text: str) -> str:
    kind = text.split(";", 1)[0].strip().lower()
    return kind if _MEDIA_TYPE.fullmatch(kind) else ""


def _discard(response: BaseHTTPResponse) -> None:
    """Close unless the body was read whole, in which case the connection is back in its pool already."""
    response.close()
    response.release_conn()
