"""Fetching pictures and videos from the hosts that Baidu names (API reference 7).

A URL in an answer is hostile until checked: host against a list, every address it resolves to, every
redirect, length and time. No access token, cookie or environment variable takes part, and no URL
(they are signed: with one, anybody can fetch the face) reaches an exception or a log.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import urllib3
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout, make_headers

from ..exceptions import FaceprintConfigurationError, HostDown, Unreachable, UnsafeMedia, UrlExpired
from .breaker import Breakers
from .connections import (
    POOL_CLASSES,
    BoundedResponse,
    ClosedOnLeaving,
    Limits,
    Resolver,
    bound,
    exchange,
    is_public_address,
    is_unicast_address,
    tls_context,
)
from .transport import FAILURES, POOL_SIZE, USER_AGENT, classify_failure

CHUNK = 256 * 1024
MAX_REDIRECTS = 3
#: How often one download resumes after a failure, and how often it requests a fresh URL.
MAX_RESUMES = 8
MAX_RENEWALS = 2
#: Seconds to wait after a failure, by how many came in a row without a byte between them.
RESUME_PAUSES = (0.0, 0.5, 1.0, 2.0)
MAX_URL = 4096
#: How long a host is believed to offer no https, in seconds.
NO_HTTPS_MEMORY = 3600.0
#: Hosts whose connections are kept; more are forgotten all at once.
_MAX_ORIGINS = 64
_PORTS: Mapping[str, int] = {"http": 80, "https": 443}
#: Failures that mean that a host offers no https; others may pass.
_NO_HTTPS = frozenset({"connection failed", "TLS failure", "time-out"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Storage answers 403 to an expired signature; Baidu's also answers 400 (RequestExpired).
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
    def written_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def url(self) -> str:
        host = self.written_host
        netloc = host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"
        return f"{self.scheme}://{netloc}{self.path}"


@dataclass(frozen=True, repr=False)
class _Answer:
    """An answer whose body has not been read: urllib3's, and the response that it reads from."""

    response: BaseHTTPResponse
    raw: BoundedResponse
    limits: Limits
    plain_http: bool


@dataclass(frozen=True)
class _Identity:
    """The headers of an answer that identify the whole file; None where they are missing."""

    length: int | None
    etag: str | None
    last_modified: str | None

    @property
    def strong_etag(self) -> str | None:
        return self.etag if self.etag is not None and _STRONG_ETAG.fullmatch(self.etag) else None

    def differs(self, other: _Identity) -> bool:
        """Whether the two are certainly not of the same file."""
        if self.strong_etag is not None and other.strong_etag != self.strong_etag:
            return True
        pairs = (
            (self.length, other.length),
            (self.etag, other.etag),
            (self.last_modified, other.last_modified),
        )
        return any(mine is not None and theirs is not None and mine != theirs for mine, theirs in pairs)


class MediaBody(ClosedOnLeaving):
    """An open download; a context manager. Leaving it early closes the connection."""

    def __init__(
        self,
        response: BaseHTTPResponse,
        raw: BoundedResponse,
        limits: Limits,
        *,
        max_bytes: int,
        offset: int,
        plain_http: bool,
    ) -> None:
        headers = response.headers
        self._response = response
        self._raw = raw
        self._limits = limits
        self._max_bytes = max_bytes
        self._offset = offset
        self._started = False
        self._whole = False
        #: Media type without parameters in lower case, "" when missing or malformed. A claim, not a proof.
        self.content_type = _media_type(headers.get("Content-Type", ""))
        #: Bytes that :meth:`chunks` will yield; None when unknown.
        self.content_length = _length(response)
        #: Whether the bytes begin at ``resume_from`` instead of 0.
        self.resumed = offset > 0
        #: Whether they came over plain http because the host offers nothing better.
        self.plain_http = plain_http
        if self.content_length is None and offset and (match := _content_range(response)):
            self.content_length = int(match[2]) + 1 - offset
        whole = None if self.content_length is None else offset + self.content_length
        self._identity = _Identity(whole, headers.get("ETag"), headers.get("Last-Modified"))
        if whole is not None and whole > max_bytes:
            raise UnsafeMedia("too_large")

    def __repr__(self) -> str:
        return f"MediaBody(content_type={self.content_type!r}, content_length={self.content_length})"

    @property
    def identity(self) -> _Identity:
        """The headers that identify the whole file."""
        return self._identity

    def close(self) -> None:
        """Give the connection back if the body was read whole, else close it."""
        if self._whole:
            with exchange(self._limits):  # for its silence
                self._response.release_conn()
        else:
            _discard(self._response, self._limits)

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces of up to 256 KiB, empty ones excepted. Can be read once.

        Raises :class:`Unreachable` when the body ends early, stalls or takes longer than the total
        time-out, and :class:`UnsafeMedia` (``too_large``) beyond the limit. Bytes that had arrived
        before the failure are yielded first.
        """
        if self._started:
            raise RuntimeError("A download can be read once.")
        self._started = True
        # Past urllib3, whose bookkeeping per piece costs as much as the reading.
        reader = self._raw.reader
        reader.keep_partial = True
        # A chunked body is read as it comes: http.client drops what it has of a chunk that breaks off.
        read = self._raw.read1 if self._raw.chunked else self._raw.read
        limit = self._max_bytes - self._offset
        received = 0
        while received != self.content_length:
            failure = ""
            chunk = b""
            try:
                chunk = read(CHUNK)
            except FAILURES as error:
                failure = classify_failure(reader.failure or error)
            if not chunk and reader.failure is not None:
                failure = classify_failure(reader.failure)
            if failure:
                self._response.close()
                raise Unreachable(f"Media download: {failure}.")
            if not chunk:
                break
            received += len(chunk)
            if received > limit:
                self._response.close()
                raise UnsafeMedia("too_large")
            yield chunk
        if self.content_length is not None and received != self.content_length:
            raise Unreachable("Media download: body cut short.")
        # http.client takes an answer of no bytes for unread, and its connection for busy.
        self._whole = received > 0


@dataclass(frozen=True)
class _TimeLimit:
    """The time that one download has; all in seconds."""

    deadline: float
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]

    def wait(self, seconds: float) -> bool:
        """Wait, unless the time is over by then: False."""
        if self.deadline - self.monotonic() <= seconds:
            return False
        if seconds:
            self.sleep(seconds)
        return True


class Download(ClosedOnLeaving):
    """A file that is fetched whole, over as many answers as needed; a context manager.

    After a failure in mid-body the rest is requested by Range where the server identifies the file (by a
    strong ETag, or its length and date); else the whole is read again and its beginning compared. No byte is
    skipped or yielded twice.
    """

    def __init__(
        self,
        begin: Callable[[str, int, str | None], MediaBody],
        url: str,
        renew: Callable[[], str | None] | None,
        time_limit: _TimeLimit,
    ) -> None:
        self._begin = begin
        self._url = url
        self._renew = renew
        self._renewals = 0
        self._time_limit = time_limit
        self._started = False
        self._received = 0
        self._resumes = 0
        self._failures_in_a_row = 0
        self._rest: Iterator[bytes] = iter(())
        self._body = self._open(0, None)
        self._identity = self._body.identity
        # With a strong ETag nothing needs to be compared.
        self._digest = hashlib.sha256() if self._identity.strong_etag is None else None
        #: As of :class:`MediaBody`; the bytes and the length are those of the whole file.
        self.content_type = self._body.content_type
        self.content_length = self._body.content_length
        self.plain_http = self._body.plain_http

    def __repr__(self) -> str:
        return f"Download(content_type={self.content_type!r}, content_length={self.content_length})"

    def close(self) -> None:
        """Give the connection back if the body was read whole, else close it."""
        self._body.close()

    def chunks(self) -> Iterator[bytes]:
        """The file in pieces of up to 256 KiB. Can be read once.

        Raises :class:`Unreachable` when failures outlast :data:`MAX_RESUMES` or the total time-out, or when
        the file has changed on the server, :class:`UrlExpired` when there is no
        fresh URL, :class:`UnsafeMedia`, and whatever ``renew`` raises.
        """
        if self._started:
            raise RuntimeError("A download can be read once.")
        self._started = True
        self._rest = self._body.chunks()
        while True:
            failure: Unreachable | None = None
            try:
                for chunk in self._rest:
                    self._received += len(chunk)
                    self._failures_in_a_row = 0
                    if self._digest is not None:
                        self._digest.update(chunk)
                    yield chunk
            except Unreachable as error:
                failure = error
            if failure is None:
                return
            self._resume(failure)

    def _resume(self, failure: Unreachable) -> None:
        """Make ``_rest`` the bytes that are missing; raises the last failure without tries or time left."""
        while True:
            self._body.close()
            pause = RESUME_PAUSES[min(self._failures_in_a_row, len(RESUME_PAUSES) - 1)]
            if self._resumes >= MAX_RESUMES or not self._time_limit.wait(pause):
                raise failure
            self._resumes += 1
            self._failures_in_a_row += 1
            problem = self._reopen()
            if problem is None:
                return
            failure = problem

    def _reopen(self) -> Unreachable | None:
        """Go on from the next byte; returns the failure that prevented it."""
        identity = self._identity
        by_range = self._received > 0 and (
            identity.strong_etag is not None
            or (identity.last_modified is not None and identity.length is not None)
        )
        problem: Unreachable | None = None
        try:
            self._body = self._open(self._received if by_range else 0, identity.strong_etag)
        except (UrlExpired, HostDown):
            raise
        except Unreachable as error:
            problem = error
        if problem is not None:
            return problem
        body = self._body
        if self._received and identity.differs(body.identity):
            raise Unreachable("Media download: the file has changed.")
        if body.plain_http and not self.plain_http:
            # ``plain_http`` has said that the file came over TLS.
            return Unreachable("Media download: https is not offered any more.")
        chunks = body.chunks()
        if body.resumed or not self._received:
            self._rest = chunks
            return None
        return self._pass_over(chunks)

    def _pass_over(self, chunks: Iterator[bytes]) -> Unreachable | None:
        """Read the yielded bytes once more and compare them."""
        left = self._received
        digest = None if self._digest is None else hashlib.sha256()
        problem: Unreachable | None = None
        rest = b""
        try:
            while left and (chunk := next(chunks, b"")):
                if digest is not None:
                    digest.update(memoryview(chunk)[:left])
                rest = chunk[left:]
                left = max(left - len(chunk), 0)
        except Unreachable as error:
            problem = error
        if problem is not None:
            return problem
        if left or (
            digest is not None and self._digest is not None and digest.digest() != self._digest.digest()
        ):
            raise Unreachable("Media download: the file has changed.")
        self._rest = chain((rest,), chunks) if rest else chunks
        return None

    def _open(self, resume_from: int, etag: str | None) -> MediaBody:
        while True:
            expired: UrlExpired | None = None
            try:
                return self._begin(self._url, resume_from, etag)
            except UrlExpired as error:
                expired = error
            fresh = None
            if self._renew is not None and self._renewals < MAX_RENEWALS:
                self._renewals += 1
                fresh = self._renew()
            if fresh is None:
                raise expired
            self._url = fresh


class Downloader(ClosedOnLeaving):
    """Fetches media. Safe to share between threads and across a fork.

    ``allowed_hosts`` are ``host`` (default ports), ``host:port`` or ``*.domain`` (any depth of sub-domains,
    not the domain itself); anything else raises ``FaceprintConfigurationError``. ``timeout`` is (connect,
    read) and ``total_timeout`` bounds a whole download, from the first byte sent to the last received, in
    seconds; ``max_bytes`` bounds its size.

    Addresses that are not of the public Internet are refused unless ``allow_private``. The address
    connected to is one of those checked; a name with a single forbidden address is refused. With a proxy
    for the scheme in ``proxies`` the proxy resolves names, so it must do that checking itself.

    A plain http URL is tried over https first, except with a port of its own or at a loopback address.

    ``breakers`` knows which hosts are down; without it every request is sent. ``monotonic`` and ``sleep``
    are the clock of the time-outs and the pause between two tries.
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
        breakers: Breakers | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._allowed = tuple(_pattern(host) for host in allowed_hosts)
        self._timeout = Timeout(connect=timeout[0], read=timeout[1])
        self._total_timeout = total_timeout
        self._max_bytes = max_bytes
        self._proxies = dict(proxies or {})
        self._ca_bundle = ca_bundle
        self._resolver = resolver
        self._breakers = breakers
        self._monotonic = monotonic
        self._sleep = sleep
        self._check_address = is_unicast_address if allow_private else is_public_address
        self._guard = threading.Lock()
        self._pools: dict[tuple[str, str, int], HTTPConnectionPool] = {}
        self._proxy_managers: dict[str, urllib3.PoolManager] = {}
        self._connections_pid = 0
        self._tls_context: Any = None
        self._permitted: set[tuple[str, int]] = set()
        self._without_https: dict[str, float] = {}

    def close(self) -> None:
        """Close idle connections. A later download opens new ones."""
        with self._guard:
            pools, managers, pid = self._pools, self._proxy_managers, self._connections_pid
            self._pools, self._proxy_managers = {}, {}
        if pid == os.getpid():
            for pool in pools.values():
                pool.close()
            for manager in managers.values():
                manager.clear()

    def check_url(self, url: str) -> None:
        """Whether the URL may be fetched at all, without any network. Raises :class:`UnsafeMedia`."""
        self._checked(url)

    def download(self, url: str, *, renew: Callable[[], str | None] | None = None) -> Download:
        """Begin a download that resumes after failures; use the answer as a context manager.

        ``renew`` returns a fresh URL of the same file, or None. It is called when the URL is no longer
        served, at the start or later, at most twice. The total time-out and the limit of
        bytes hold for all attempts together.

        Raises as :meth:`fetch`, and whatever ``renew`` raises. After a failure before the first byte it does
        not try again.
        """
        deadline = self._monotonic() + self._total_timeout
        time_limit = _TimeLimit(deadline, self._monotonic, self._sleep)
        return Download(partial(self._begin, deadline), url, renew, time_limit)

    def fetch(self, url: str, *, resume_from: int = 0) -> MediaBody:
        """Begin a download of a single answer; use it as a context manager.

        ``resume_from`` requests the bytes from there on. A server may ignore it: ``body.resumed`` says
        whether they begin there.

        Raises :class:`UrlExpired` (ask Baidu for a new URL), :class:`Unreachable` (try again) and
        :class:`UnsafeMedia` (never fetch this).
        """
        if resume_from < 0:
            raise ValueError("resume_from must not be negative.")
        return self._begin(self._monotonic() + self._total_timeout, url, resume_from, None)

    def _begin(self, deadline: float, url: str, resume_from: int, etag: str | None) -> MediaBody:
        """Follow the URL to an answer that brings the file, from there on if ``etag`` still fits it."""
        target = self._checked(url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._ask(target, resume_from, etag, deadline)
            if resume_from and answer.response.status == 416:
                # The file is shorter than what we have: not the file we began with.
                _discard(answer.response, answer.limits)
                resume_from = 0
                answer = self._ask(target, 0, None, deadline)
            if answer.response.status in _REDIRECTS:
                location = answer.response.headers.get("Location", "")
                _discard(answer.response, answer.limits)
                target = self._checked(_joined(target.url, location))
                continue
            return self._body(answer, resume_from)
        raise UnsafeMedia("redirects")

    def _body(self, answer: _Answer, resume_from: int) -> MediaBody:
        response = answer.response
        problem = _problem(response, resume_from)
        if problem is None:
            try:
                return MediaBody(
                    response,
                    answer.raw,
                    answer.limits,
                    max_bytes=self._max_bytes,
                    offset=resume_from if response.status == 206 else 0,
                    plain_http=answer.plain_http,
                )
            except UnsafeMedia as refusal:
                problem = refusal
        _discard(response, answer.limits)
        raise problem

    def _ask(self, target: _Target, resume_from: int, etag: str | None, deadline: float) -> _Answer:
        """As :meth:`_open`, unless the host is down. Raises :class:`HostDown` then."""
        if self._breakers is None:
            return self._open(target, resume_from, etag, deadline)
        with self._breakers.of(target.host, target.port).attempt() as attempt:
            try:
                answer = self._open(target, resume_from, etag, deadline)
            except Unreachable:
                attempt.failed()
                raise
            if answer.response.status != 500:
                # Storage that cannot read one file may serve the others.
                attempt.answered(answer.response.status)
            return answer

    def _open(self, target: _Target, resume_from: int, etag: str | None, deadline: float) -> _Answer:
        """Send the request, over https first if the host may offer it, and read the headers of the answer."""
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        if resume_from:
            headers["Range"] = f"bytes={resume_from}-"
            if etag is not None:
                headers["If-Range"] = etag
        if target.scheme == "http" and self._may_offer_https(target):
            secure = _Target("https", target.host, _PORTS["https"], target.path, explicit_port=False)
            answer, failure = self._send(secure, headers, deadline)
            if answer is not None:
                return answer
            if failure in _NO_HTTPS:
                with self._guard:
                    self._without_https[target.host] = self._monotonic() + NO_HTTPS_MEMORY
        answer, failure = self._send(target, headers, deadline)
        if answer is None:
            raise Unreachable(f"Media download: {failure}.")
        return answer

    def _may_offer_https(self, target: _Target) -> bool:
        if target.explicit_port or _is_loopback(target.host):
            return False
        if not self._is_permitted(target.host, _PORTS["https"]):
            return False
        with self._guard:
            return self._monotonic() >= self._without_https.get(target.host, 0.0)

    def _send(
        self, target: _Target, headers: Mapping[str, str], deadline: float
    ) -> tuple[_Answer | None, str]:
        """One request: its answer with the headers read, or None and the kind of failure in fixed words."""
        proxied = target.scheme in self._proxies
        limits = Limits(
            deadline=deadline,
            check_address=None if proxied else self._check_address,
            resolver=socket.getaddrinfo if proxied else self._resolver,
            monotonic=self._monotonic,
        )
        with exchange(limits) as current:
            try:
                limits.remaining()
                # A proxy receives the whole URL. Without one, urllib3 need not split it again.
                opened = self._proxy_manager(target.scheme) if proxied else self._pool(target)
                response = opened.urlopen(
                    "GET",
                    target.url if proxied else target.path,
                    headers=headers,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    timeout=self._timeout,
                )
            except FAILURES as error:
                return None, classify_failure(error)
        assert current.response is not None  # noqa: S101  (urllib3 has just answered)
        return _Answer(response, current.response, limits, target.scheme == "http"), ""

    def _pool(self, target: _Target) -> HTTPConnectionPool:
        origin = (target.scheme, target.host, target.port)
        with self._guard:
            self._forget_connections_of_parent()
            pool = self._pools.get(origin)
            if pool is None:
                if len(self._pools) >= _MAX_ORIGINS:
                    # Those in use live on until their last connection is given back.
                    self._pools.clear()
                pool = self._pools[origin] = POOL_CLASSES[target.scheme](
                    target.written_host, target.port, maxsize=POOL_SIZE, **self._tls_options(target.scheme)
                )
            return pool

    def _proxy_manager(self, scheme: str) -> urllib3.PoolManager:
        with self._guard:
            self._forget_connections_of_parent()
            manager = self._proxy_managers.get(scheme)
            if manager is None:
                proxy = self._proxies[scheme]
                parts = urlsplit(proxy)
                proxy_headers = None
                if parts.username is not None:
                    userinfo = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                    proxy_headers = make_headers(proxy_basic_auth=userinfo)
                manager = self._proxy_managers[scheme] = bound(
                    urllib3.ProxyManager(
                        proxy,
                        num_pools=16,
                        maxsize=POOL_SIZE,
                        proxy_headers=proxy_headers,
                        **self._tls_options(scheme),
                    )
                )
            return manager

    def _forget_connections_of_parent(self) -> None:
        # A forked child must not share its parent's sockets.
        if self._connections_pid != os.getpid():
            self._pools, self._proxy_managers = {}, {}
            self._connections_pid = os.getpid()

    def _tls_options(self, scheme: str) -> dict[str, Any]:
        if scheme != "https":
            return {}
        if self._tls_context is None:
            self._tls_context = tls_context(self._ca_bundle)
        return {"ssl_context": self._tls_context}

    def _checked(self, url: str) -> _Target:
        """The URL as a target, if it may be fetched. Raises :class:`UnsafeMedia`."""
        target = _split_target(url)
        if not self._is_permitted(target.host, target.port):
            raise UnsafeMedia("host")
        return target

    def _is_permitted(self, host: str, port: int) -> bool:
        if (host, port) in self._permitted:
            return True
        if not any(pattern.matches(host, port) for pattern in self._allowed):
            return False
        if len(self._permitted) < _MAX_ORIGINS:
            self._permitted.add((host, port))
        return True


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


_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,256}"')


def _split_target(url: str) -> _Target:
    """Any URL as a target. Raises :class:`UnsafeMedia`."""
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
    path = parts.path or "/"
    if parts.query:
        path += f"?{parts.query}"
    return _Target(parts.scheme, host, port, path, port not in _PORTS.values())


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
    """The exception for an answer that is not the file; None: it is."""
    status = response.status
    if status in _EXPIRED:
        return UrlExpired(f"Media download: HTTP status {status}.")
    if status not in (200, 206):
        # Other 4xx too: nothing is given up while its deadline has not passed.
        return Unreachable(f"Media download: HTTP status {status}.")
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
        return UnsafeMedia("encoding")
    if status == 206 and not _is_rest(response, resume_from):
        return Unreachable("Media download: not the requested range.")
    return None


def _is_rest(response: BaseHTTPResponse, resume_from: int) -> bool:
    """Whether a 206 brings exactly the bytes from ``resume_from`` to the end."""
    match = _content_range(response)
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


def _content_range(response: BaseHTTPResponse) -> re.Match[str] | None:
    return _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip().lower())


def _length(response: BaseHTTPResponse) -> int | None:
    if "Transfer-Encoding" in response.headers:
        return None
    text = response.headers.get("Content-Length", "").strip()
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _media_type(text: str) -> str:
    kind = text.split(";", 1)[0].strip().lower()
    return kind if _MEDIA_TYPE.fullmatch(kind) else ""


def _discard(response: BaseHTTPResponse, limits: Limits) -> None:
    """Close the connection of an answer that is not read to its end."""
    with exchange(limits):  # for its silence
        response.close()
        response.release_conn()
