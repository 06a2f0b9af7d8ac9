"""One POST to Baidu and the reading of its answer (API reference 3.0)."""

from __future__ import annotations

import copy
import http.client
import json
import os
import platform
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NoReturn
from urllib.parse import urlencode, urlsplit

import requests
import requests.adapters
import urllib3
from urllib3.exceptions import HTTPError

from ..exceptions import (
    AuthenticationFailed,
    ErrorClass,
    FaceprintConfigurationError,
    Rejected,
    SessionGone,
    Throttled,
    Unreachable,
    UpstreamError,
    replace_exceptions,
)
from .breaker import Breakers
from .codes import NO_CODE, OAUTH_TOKEN, classify, clean_code, clean_log_id, clean_message
from .connections import BUFFER, Limits, bound, exchange

USER_AGENT = f"django-faceprint (Python {platform.python_version()})"
POOL_SIZE = 32
#: The longest integer that is read as a number: any log_id and more.
MAX_DIGITS = 40

#: Everything that an exchange can fail with.
FAILURES = (requests.RequestException, HTTPError, http.client.HTTPException, OSError, ValueError)

BeforeCall = Callable[[str], None]
OnCall = Callable[["CallRecord"], None]


@dataclass(frozen=True)
class CallRecord:
    """One request, for statistics: no token, no identity, no URL.

    ``outcome`` is ``"ok"``, ``"transport"`` (no readable answer) or the value of an :class:`ErrorClass`;
    ``latency`` is in seconds; ``http_status`` is 0 and ``code`` "" where there is none.
    """

    endpoint: str
    outcome: str
    code: str
    log_id: str
    latency: float
    http_status: int


@dataclass(frozen=True)
class Envelope:
    """An answer read by the rule of API reference 3.0; ``document`` is the whole JSON object."""

    document: Mapping[str, Any] = field(repr=False)
    error: UpstreamError | None
    log_id: str


@dataclass(frozen=True)
class Reply:
    """The answer to one request: an envelope, the raw bytes and the latency in seconds."""

    endpoint: str
    http_status: int
    raw: bytes = field(repr=False)
    envelope: Envelope
    latency: float

    def raise_error(self) -> NoReturn:
        """Raise the exception that fits the error of the envelope."""
        if self.envelope.error is None:
            raise ValueError("There is no error to raise.")
        raise exception_for(self.envelope.error, self.raw)


_EXCEPTIONS: Mapping[
    ErrorClass, Callable[..., Unreachable | Throttled | Rejected | SessionGone | FaceprintConfigurationError]
] = {
    ErrorClass.RETRY: Unreachable,
    ErrorClass.SLOW_DOWN: Throttled,
    ErrorClass.REAUTHENTICATE: AuthenticationFailed,
    ErrorClass.GONE: SessionGone,
    ErrorClass.CONFIGURATION: FaceprintConfigurationError,
}


def exception_for(error: UpstreamError, raw: bytes | None) -> Exception:
    """The exception for an error: its text names interface, code, class and log_id and nothing else."""
    text = f"{error.endpoint}: code {error.code} ({error.error_class.value})"
    if error.log_id:
        text += f", log_id {error.log_id}"
    return _EXCEPTIONS.get(error.error_class, Rejected)(text, error=error, raw=raw)


class Transport:
    """Posts JSON to one host. Safe to share between threads and across a fork.

    ``timeout`` is (connect, read) and ``total_timeout`` bounds the whole exchange, in seconds;
    ``max_body`` bounds the answer in bytes. Neither environment variables nor ``.netrc`` nor cookies
    are consulted, redirects are not followed, TLS is always verified (``ca_bundle`` replaces certifi's
    list). ``proxies`` maps ``http``/``https`` to a proxy URL.

    ``before_call(endpoint)`` runs before each request and may raise to prevent it;
    ``on_call(record)`` runs after each. Exceptions of both reach the caller. ``breakers`` knows which
    hosts are down; without it every request is sent.
    """

    def __init__(
        self,
        *,
        api_url: str,
        timeout: tuple[float, float] = (5.0, 20.0),
        total_timeout: float = 60.0,
        max_body: int = 32 * 1024 * 1024,
        proxies: Mapping[str, str] | None = None,
        ca_bundle: str | None = None,
        before_call: BeforeCall | None = None,
        on_call: OnCall | None = None,
        breakers: Breakers | None = None,
    ) -> None:
        parts = urlsplit(api_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise FaceprintConfigurationError("api_url must be an http(s) URL without query and fragment.")
        self.api_url = api_url.rstrip("/")
        self._timeout = timeout
        self._total_timeout = total_timeout
        self._max_body = max_body
        self._proxies = dict(proxies or {})
        self._ca_bundle = ca_bundle
        self._breakers = breakers
        self._before_call = before_call
        self._on_call = on_call
        self._connections = _Connections()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.api_url!r})"

    def with_hooks(self, before_call: BeforeCall | None, on_call: OnCall | None) -> Transport:
        """The same transport, over the same connections, with other hooks."""
        other = copy.copy(self)
        other._before_call, other._on_call = before_call, on_call
        return other

    def close(self) -> None:
        """Close all connections. A later request opens new ones."""
        self._connections.close()

    def post(
        self,
        endpoint: str,
        path: str,
        *,
        query: Mapping[str, str],
        payload: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request and read its answer; no retries.

        An error that Baidu answered is in the reply's envelope. Raises :class:`Unreachable` when there is
        no readable answer (``raw`` holds the bytes, if any came whole), as :class:`HostDown` when nothing
        was sent.
        """
        body = b"" if payload is None else json.dumps(payload, allow_nan=False).encode("ascii")
        url = f"{self.api_url}{path}?{urlencode(query)}"
        breaker = None if self._breakers is None else self._breakers.of_url(self.api_url)
        with nullcontext() if breaker is None else breaker.attempt() as attempt:
            if self._before_call is not None:
                self._before_call(endpoint)
            started = time.monotonic()
            received = self._exchange(url, body, headers or {}, started)
            latency = time.monotonic() - started
            if attempt is not None and received.broken:
                attempt.failed()
            elif attempt is not None:
                attempt.answered(received.status)
        if received.failure:
            self._record(endpoint, "transport", received.failure, "", latency, received.status)
            raise Unreachable(f"{endpoint}: {received.failure}")
        envelope, problem = _read(endpoint, received.status, received.body)
        if problem is not None:
            self._record(endpoint, "transport", problem.code, problem.log_id, latency, received.status)
            raise Unreachable(
                f"{endpoint}: {problem.code}, HTTP status {received.status}", error=problem, raw=received.body
            )
        error = envelope.error
        self._record(
            endpoint,
            "ok" if error is None else error.error_class.value,
            "" if error is None else error.code,
            envelope.log_id,
            latency,
            received.status,
        )
        return Reply(endpoint, received.status, received.body, envelope, latency)

    def _record(
        self, endpoint: str, outcome: str, code: str, log_id: str, latency: float, http_status: int
    ) -> None:
        if self._on_call is not None:
            self._on_call(CallRecord(endpoint, outcome, code, log_id, latency, http_status))

    def _exchange(self, url: str, body: bytes, headers: Mapping[str, str], started: float) -> _Received:
        """The HTTP exchange itself. Its exceptions hold the URL, so none leaves this method."""
        limits = Limits(deadline=started + self._total_timeout)
        status = 0
        with exchange(limits):
            try:
                # "Content-Type" and a body are sent with the token request too: some gateways want both.
                response = self._connections.open().post(
                    url,
                    data=body,
                    headers={"Content-Type": "application/json", **headers},
                    timeout=self._timeout,
                    proxies=self._proxies,
                    verify=self._ca_bundle or True,
                    allow_redirects=False,
                    stream=True,
                )
                status = response.status_code
                with response:
                    return self._receive(response)
            except FAILURES as error:
                return _Received(status, b"", classify_failure(error), broken=True)

    def _receive(self, response: requests.Response) -> _Received:
        chunks: list[bytes] = []
        size = 0
        while chunk := response.raw.read(BUFFER, decode_content=False):
            size += len(chunk)
            if size > self._max_body:
                return _Received(response.status_code, b"", "answer too large")
            chunks.append(chunk)
        body = b"".join(chunks)
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding in ("gzip", "x-gzip"):
            unpacker = zlib.decompressobj(wbits=31)
            try:
                body = unpacker.decompress(body, self._max_body + 1)
            except zlib.error:
                return _Received(response.status_code, b"", "answer damaged")
            if len(body) > self._max_body:
                return _Received(response.status_code, b"", "answer too large")
            if not unpacker.eof:
                return _Received(response.status_code, b"", "answer cut short")
        elif encoding not in ("identity", ""):
            return _Received(response.status_code, b"", "answer in an unknown encoding")
        return _Received(response.status_code, body, "")


class _Connections:
    """The session that keeps connections alive, one for each process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._session: requests.Session | None = None
        self._pid = 0

    def open(self) -> requests.Session:
        with self._guard:
            # A forked child must not share its parent's sockets.
            if self._session is None or self._pid != os.getpid():
                self._session = _new_session()
                self._pid = os.getpid()
            return self._session

    def close(self) -> None:
        with self._guard:
            if self._session is not None and self._pid == os.getpid():
                self._session.close()
            self._session = None


@dataclass(frozen=True)
class _Received:
    """HTTP status and body, or why there is none (in fixed words, without particulars).

    ``broken``: the exchange itself failed.
    """

    status: int
    body: bytes = field(repr=False)
    failure: str
    broken: bool = False


class _BoundedAdapter(requests.adapters.HTTPAdapter):
    """requests' adapter with bounded connections; see :mod:`.connections`."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        bound(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> urllib3.ProxyManager:
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **kwargs)
        bound(manager)
        return manager


def _new_session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers.clear()
    session.headers.update(
        {"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"}
    )
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = _BoundedAdapter(pool_connections=4, pool_maxsize=POOL_SIZE, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def classify_failure(error: BaseException) -> str:
    """The kind of failure, in fixed words. Follows the causes, reads no text of theirs."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        current = pending.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        # urllib3 counts these two among its time-outs.
        if isinstance(current, urllib3.exceptions.NameResolutionError):
            return "name resolution failed"
        if isinstance(current, urllib3.exceptions.NewConnectionError):
            return "connection failed"
        if isinstance(current, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
            return "time-out"
        if isinstance(current, requests.exceptions.SSLError | urllib3.exceptions.SSLError | ssl.SSLError):
            return "TLS failure"
        if isinstance(current, requests.exceptions.ProxyError | urllib3.exceptions.ProxyError):
            return "proxy failure"
        pending += [*current.args, current.__cause__, current.__context__]
        pending.append(getattr(current, "reason", None))
    return "connection broken"


class _Unreadable(ValueError):
    """The body is not the JSON that we read."""


def _refuse_constant(name: str) -> NoReturn:
    raise _Unreadable("NaN and Infinity are not JSON")


def _bounded_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Unreadable("integer too long")
    return int(digits)


def parse_json(raw: bytes) -> Any:
    """Strict JSON: UTF-8 (a BOM is tolerated), no NaN or Infinity, no endless integers or nesting.

    Nor a key that stands twice in the outermost object: of two verdicts neither could be believed.
    Raises :class:`ValueError` without particulars of the text.
    """
    has_duplicates = False

    def take(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # Called for the outermost object last.
        nonlocal has_duplicates
        document = dict(pairs)
        has_duplicates = len(document) != len(pairs)
        return document

    with replace_exceptions(ValueError, RecursionError, by=lambda error: ValueError("not JSON")):
        document = json.loads(
            raw.decode("utf-8-sig"),
            parse_constant=_refuse_constant,
            parse_int=_bounded_int,
            object_pairs_hook=take,
        )
        if has_duplicates:
            raise _Unreadable("a key stands twice at the top")
        return document


def _read(endpoint: str, status: int, raw: bytes) -> tuple[Envelope, UpstreamError | None]:
    """The envelope, and the problem that makes the answer unreadable (rule 1), if any."""
    document: Any = None
    try:
        document = parse_json(raw)
        readable = isinstance(document, dict)
    except ValueError:
        readable = False
    if not readable:
        document = {}
    envelope = Envelope(
        document, _read_error(endpoint, status, document), clean_log_id(document.get("log_id"))
    )
    if status < 500 and readable:
        return envelope, None
    error = envelope.error
    problem = UpstreamError(
        endpoint=endpoint,
        code="http_error" if status >= 500 else "not_json",
        message=error.message if error is not None else "",
        log_id=envelope.log_id,
        error_class=ErrorClass.RETRY,
        http_status=status,
    )
    return envelope, problem


def _read_error(endpoint: str, status: int, document: Mapping[str, Any]) -> UpstreamError | None:
    """Rules 2–5 of API reference 3.0; None means success."""
    oauth_error = document.get("error")
    gateway_code = document.get("error_code")
    code: object
    message: object
    if isinstance(oauth_error, str) and oauth_error:
        code, message = oauth_error, document.get("error_description")
    elif gateway_code is not None and clean_code(gateway_code) != "0" and gateway_code != "":
        code, message = gateway_code, document.get("error_msg")
    elif document.get("success") is True:
        return None
    elif endpoint == OAUTH_TOKEN and "access_token" in document:
        # The OAuth answer has no "success" (API reference 2.1).
        return None
    else:
        code, message = document.get("code", NO_CODE), document.get("message")
    text = clean_message(message)
    shown = clean_code(code)
    return UpstreamError(
        endpoint=endpoint,
        code=shown,
        message=text,
        log_id=clean_log_id(document.get("log_id")),
        error_class=classify(shown, text, endpoint),
        http_status=status,
    )
