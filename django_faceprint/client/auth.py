"""How requests are authenticated (API reference 2): one replaceable object."""

from __future__ import annotations

import copy
import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from ..exceptions import (
    AuthenticationFailed,
    ErrorClass,
    FaceprintConfigurationError,
    FaceprintError,
    Rejected,
    UpstreamError,
)
from .codes import OAUTH_TOKEN

if TYPE_CHECKING:
    from .transport import Transport

OAUTH_PATH = "/oauth/2.0/token"
#: The documented lifetime; a longer one is cut to it.
MAX_LIFETIME = timedelta(days=30)
#: Assumed when Baidu names no lifetime: too short costs one request, too long costs a refused call.
ASSUMED_LIFETIME = timedelta(days=1)
#: A token is renewed this long before its end, or in the last tenth of its life if that is less.
RENEWAL_MARGIN = timedelta(days=3)
#: After a renewal failed, the old token serves this long before the next try.
RENEWAL_PAUSE = timedelta(minutes=2)

_VALUE = re.compile(r"[\x21-\x7e]{1,1024}")


@dataclass(frozen=True)
class AccessToken:
    """An access_token (kept out of ``repr``) and its times, aware UTC.

    ``renew_at`` is when to fetch a new one, well before ``expires_at``. A store keeps all three.
    """

    value: str = field(repr=False)
    expires_at: datetime
    renew_at: datetime


class TokenStore(Protocol):
    """Where access tokens are kept, shared by all users of an application.

    Keys are opaque digests; values are secrets, to be encrypted at rest.
    """

    def get(self, key: str) -> AccessToken | None:
        """The token kept under the key, even when expired."""

    def put(self, key: str, token: AccessToken) -> None:
        """Keep the token in place of any other."""

    def discard(self, key: str, token: AccessToken) -> None:
        """Forget this token; do nothing when another one is kept by now."""

    def single_flight(self, key: str) -> AbstractContextManager[object]:
        """Enter when this worker may fetch a token. Others wait and read the store again on entering.

        Must enter within a bounded time even if the holder died: two tokens are harmless.
        """


class MemoryTokenStore:
    """Tokens in this process's memory, shared by its threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._tokens: dict[str, AccessToken] = {}
        self._flights: dict[str, threading.Lock] = {}

    def get(self, key: str) -> AccessToken | None:
        """The token kept under the key, even when expired."""
        with self._guard:
            return self._tokens.get(key)

    def put(self, key: str, token: AccessToken) -> None:
        """Keep the token in place of any other."""
        with self._guard:
            self._tokens[key] = token

    def discard(self, key: str, token: AccessToken) -> None:
        """Forget this token; do nothing when another one is kept by now."""
        with self._guard:
            if self._tokens.get(key) == token:
                del self._tokens[key]

    @contextmanager
    def single_flight(self, key: str) -> Iterator[None]:
        """Enter when this thread may fetch a token; see :class:`TokenStore`."""
        with self._guard:
            flight = self._flights.setdefault(key, threading.Lock())
        with flight:
            yield


@dataclass(frozen=True)
class Authorization:
    """Query parameters and headers for one request, both secret."""

    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Authentication(Protocol):
    """The replaceable object: today an access_token in the query, one day a signature in a header."""

    def authorize(self, method: str, path: str) -> Authorization:
        """The authorization of this request."""

    def refused(self, authorization: Authorization) -> bool:
        """Baidu refused it (codes 100, 110, 111). Returns whether to try again with a new one."""

    def check(self) -> None:
        """Prove the credentials against Baidu now."""


@dataclass
class _Renewal:
    """Until when a token that could not be renewed serves on unasked."""

    paused_until: datetime | None = None


class AccessTokenAuth:
    """OAuth 2.0 client credentials: one access_token for all calls of an application (API reference 2.1).

    The token is read from the store, fetched under single flight when there is none, and renewed
    when it nears its end; if that fails, the old one serves on while it is valid.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        api_key: str,
        secret_key: str,
        token_store: TokenStore | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._transport = transport
        self._api_key = api_key
        self._secret_key = secret_key
        self._store: TokenStore = token_store if token_store is not None else MemoryTokenStore()
        self._clock = clock if clock is not None else _system_clock
        self._renewal = _Renewal()
        #: The key in the store: differs by application and host, reveals neither.
        self.key = hashlib.sha256(f"{transport.api_url}\n{api_key}".encode()).hexdigest()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key={self.key[:8]!r})"

    def over(self, transport: Transport, token_store: TokenStore | None) -> AccessTokenAuth:
        """The same credentials over another transport and, unless None, another store."""
        other = copy.copy(self)
        other._transport = transport
        other._store = token_store if token_store is not None else self._store
        return other

    def authorize(self, method: str, path: str) -> Authorization:
        """The access_token as query parameter.

        Raises :class:`AuthenticationFailed` when Baidu refuses the keys, and
        :class:`FaceprintError` (Unreachable, Throttled, Rejected) when no token can be had.
        """
        return Authorization(query={"access_token": self._token().value})

    def refused(self, authorization: Authorization) -> bool:
        """Forget the refused token, unless another worker has replaced it already."""
        token = self._store.get(self.key)
        if token is not None and token.value == authorization.query.get("access_token"):
            self._store.discard(self.key, token)
        return True

    def check(self) -> None:
        """Fetch a new token whatever is kept: wrong keys show at once. Raises as :meth:`authorize`."""
        self._store.put(self.key, self._fetch())

    def _token(self) -> AccessToken:
        now = self._clock()
        token = self._store.get(self.key)
        if (
            token is not None
            and now < token.expires_at
            and (now < token.renew_at or self._renewal_paused(now))
        ):
            return token
        with self._store.single_flight(self.key):
            return self._token_in_flight()

    def _token_in_flight(self) -> AccessToken:
        now = self._clock()
        # Another worker may have stored a token while this one waited.
        kept = self._store.get(self.key)
        valid = kept is not None and now < kept.expires_at
        if kept is not None and valid and (now < kept.renew_at or self._renewal_paused(now)):
            return kept
        try:
            token = self._fetch()
        except (FaceprintError, FaceprintConfigurationError):
            if kept is None or not valid:
                raise
            self._renewal.paused_until = now + RENEWAL_PAUSE
            return kept
        self._renewal.paused_until = None
        self._store.put(self.key, token)
        return token

    def _renewal_paused(self, now: datetime) -> bool:
        until = self._renewal.paused_until
        return until is not None and now < until

    def _fetch(self) -> AccessToken:
        asked_at = self._clock()
        reply = self._transport.post(
            OAUTH_TOKEN,
            OAUTH_PATH,
            query={
                "grant_type": "client_credentials",
                "client_id": self._api_key,
                "client_secret": self._secret_key,
            },
        )
        error = reply.envelope.error
        if error is not None and error.code in OAUTH_EXPLANATIONS:
            raise AuthenticationFailed(_describe(error), error=error, raw=reply.raw)
        if error is not None:
            reply.raise_error()
        value = reply.envelope.document.get("access_token")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            # Without ``raw``: the body may hold other secrets of the application.
            unreadable = UpstreamError(
                endpoint=OAUTH_TOKEN,
                code="unreadable_result",
                message="",
                log_id="",
                error_class=ErrorClass.UNKNOWN,
                http_status=reply.http_status,
            )
            raise Rejected("oauth_token: Baidu's answer holds no usable access token.", error=unreadable)
        lifetime = _lifetime(reply.envelope.document.get("expires_in"))
        expires_at = asked_at + lifetime
        return AccessToken(value, expires_at, expires_at - min(RENEWAL_MARGIN, lifetime / 10))


OAUTH_EXPLANATIONS: Mapping[str, str] = {
    "invalid_client": "Baidu refuses the API key or the Secret Key.",
    "invalid_request": "The API key or the Secret Key is empty or malformed.",
    "unauthorized_client": "Baidu does not let this application fetch an access token.",
}


def _describe(error: UpstreamError) -> str:
    if error.code == "invalid_client":
        text = error.message.casefold()
        if "unknown client id" in text:
            return "The API key is wrong: Baidu does not know it."
        if "client authentication failed" in text:
            return "The Secret Key is wrong: it does not belong to the API key."
    return OAUTH_EXPLANATIONS[error.code]


def _lifetime(value: Any) -> timedelta:
    """The lifetime from ``expires_in`` (seconds, number or numeric string), at most 30 days."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return ASSUMED_LIFETIME
    return timedelta(seconds=min(float(min(value, 10**9)), MAX_LIFETIME.total_seconds()))


def _system_clock() -> datetime:
    return datetime.now(UTC)
