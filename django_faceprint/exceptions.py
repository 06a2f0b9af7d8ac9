"""What can go wrong, sorted by what the caller does about it.

No text of these exceptions, no argument, no cause and no context carries a name, an ID number, a token,
a key or a URL: only the interface, a code and Baidu's ``log_id``. The raw answer travels in ``raw``,
which is neither printed nor pickled.

This module imports no Django.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = [
    "AuthenticationFailed",
    "ErrorClass",
    "FaceprintConfigurationError",
    "FaceprintError",
    "HostDown",
    "InvalidInput",
    "RateLimitReached",
    "Rejected",
    "SessionGone",
    "Throttled",
    "Unreachable",
    "UnsafeMedia",
    "UpstreamError",
    "UrlExpired",
    "replace_exceptions",
]


class ErrorClass(StrEnum):
    """What to do about an error."""

    RETRY = "retry"
    SLOW_DOWN = "slow_down"
    REAUTHENTICATE = "reauthenticate"
    NOT_STARTED = "not_started"
    GONE = "gone"
    CALLER = "caller"
    VERIFICATION_FAILED = "verification_failed"
    CONFIGURATION = "configuration"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class UpstreamError:
    """An error that Baidu answered.

    ``message`` is Baidu's own text without control characters, long numbers, tokens and URLs, at most
    200 characters; it is left out of ``repr``. ``log_id`` is "" when Baidu gave none.
    """

    endpoint: str
    code: str
    message: str = field(repr=False)
    log_id: str
    error_class: ErrorClass
    http_status: int


def _rebuild(kind: type[BaseException], args: tuple[object, ...], state: dict[str, Any]) -> BaseException:
    """Unpickle one of our exceptions, whatever its constructor asks for."""
    exception = kind.__new__(kind, *args)
    exception.args = args
    exception.__dict__.update(state)
    return exception


class _CarriesAnswer(Exception):
    """Base of both families: an exception that may carry what Baidu answered.

    ``error`` is the answer read as an error, ``raw`` its bytes. Both are None when nothing was answered.
    """

    error: UpstreamError | None
    raw: bytes | None

    def __init__(
        self, message: str = "", *, error: UpstreamError | None = None, raw: bytes | None = None
    ) -> None:
        super().__init__(message)
        self.error = error
        self.raw = raw

    def __reduce__(self) -> tuple[Any, ...]:
        # Task queues and process pools pickle exceptions: the raw answer stays here.
        return _rebuild, (type(self), self.args, {**self.__dict__, "raw": None})


class FaceprintError(_CarriesAnswer):
    """A request failed. Not "the person failed": that is a result."""


class Unreachable(FaceprintError):
    """Retry later: network, HTTP 5xx, an answer that is not JSON, or a code that Baidu calls temporary."""


class HostDown(Unreachable):
    """The host has not answered lately: nothing was sent. ``retry_after`` is in seconds."""

    def __init__(self, message: str = "", *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UrlExpired(Unreachable):
    """A media URL is no longer served (HTTP 400, 401, 403, 404, 410): ask Baidu for a new one."""


class Throttled(FaceprintError):
    """Slow down: a rate limit or a quota (codes 4, 17, 18, 19; API reference 4.1)."""


class RateLimitReached(Throttled):
    """Our own rate limit held the request back: nothing was sent. ``retry_after`` is in seconds."""

    def __init__(self, message: str = "", *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Rejected(FaceprintError):
    """Give up: a mistake in the request, or an unpublished code; ``error.error_class`` says which."""


class SessionGone(FaceprintError):
    """「Token无效或者已过期」: used, expired, never issued, or another application's (API reference 1.3)."""


class UnsafeMedia(FaceprintError):
    """A media URL or body that must not be fetched or kept.

    ``reason`` is a short code: ``scheme host port userinfo fragment url address redirects encoding
    too_large`` from the downloader; whoever checks the content adds codes of its own.
    """

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or f"Media refused: {reason}.")
        self.reason = reason


class InvalidInput(FaceprintError):
    """Our own check refused an input before anything was sent.

    ``field`` names the input and ``code`` the rule; ``params`` fill the placeholders of the message
    and never hold the refused value. The text is English; faces translate
    ``django_faceprint.client.inputs.MESSAGES[code]`` and fill in ``params``.
    """

    def __init__(
        self, field: str, code: str, message: str = "", params: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message or f"{field}: {code}")
        self.field = field
        self.code = code
        self.params: dict[str, Any] = dict(params or {})


class FaceprintConfigurationError(_CarriesAnswer):
    """An operator must act: keys, plan, permission, settings. Retrying does not help."""


class AuthenticationFailed(FaceprintConfigurationError):
    """Baidu refuses our credentials; the text says which of them, where Baidu says so."""


class replace_exceptions:  # noqa: N801  (reads as a statement)
    """``with replace_exceptions(OSError, by=lambda error: StorageFailed("…")):`` raises the new one alone.

    The new exception has neither the old one nor its traceback as cause, context or local variable: what a
    library puts into its exceptions (URLs, tokens, bodies) reaches no log and no error report. Where *by*
    returns None, the old exception passes.
    """

    def __init__(self, *kinds: type[Exception], by: Callable[[Any], BaseException | None]) -> None:
        self._kinds = kinds
        self._by = by

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        new = self._by(error) if isinstance(error, self._kinds) else None
        if new is None:
            return
        try:
            raise new
        finally:
            # Python has set the context while the old exception is being handled. The frames of the new one
            # must not hold it either.
            new.__context__ = None
            del kind, error, traceback
