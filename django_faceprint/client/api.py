"""One method per interface of Baidu's H5 face verification (API reference 3)."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlsplit

from ..exceptions import AuthenticationFailed, ErrorClass, Rejected, UpstreamError
from . import codes, results
from .auth import AccessTokenAuth, Authentication, Authorization, TokenStore
from .breaker import Breakers
from .connections import ClosedOnLeaving
from .inputs import Identity, MatchImage, checked_plan_id, invalid
from .pictures import DecodePicture, decode_picture
from .results import AllResult, DetailResult, MediaResult, SimpleResult, StatResult
from .transport import BeforeCall, OnCall, Reply, Transport

API_URL = "https://aip.baidubce.com"
H5_URL = "https://brain.baidu.com/face/print/"
_BASE = "/rpc/2.0/brain/solution/faceprint"
MAX_RETURN_URL = 2000

T = TypeVar("T")


class VerifyToken(str):
    """A verify_token: a ``str`` that ``repr`` does not show. It is all that is needed to use it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "VerifyToken(…)"


@dataclass(frozen=True)
class Answer(Generic[T]):
    """The answer of an interface.

    ``error`` is set, and ``result`` None, when the class is NOT_STARTED or VERIFICATION_FAILED: those are
    results of a verification. Every other failure is raised. ``raw`` is the body as received,
    ``document`` the same read as JSON, ``latency`` in seconds.
    """

    endpoint: str
    result: T | None = field(repr=False)
    error: UpstreamError | None
    raw: bytes = field(repr=False)
    log_id: str
    latency: float
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Whether Baidu reported success."""
        return self.error is None


class FaceprintClient(ClosedOnLeaving):
    """Baidu's face verification for one application. Safe to share between threads.

    ``timeout`` is (connect, read) and ``total_timeout`` bounds each exchange, in seconds; ``max_body``
    bounds each answer in bytes. ``token_store`` shares the access token with other workers (default:
    this object's memory). ``before_call(endpoint)`` may raise to hold a request back,
    ``on_call(record)`` receives each finished one, token requests included. ``clock`` gives the time (aware
    UTC) for the life of access tokens. ``ca_bundle`` replaces certifi's list of authorities.
    ``authentication`` replaces the access token by another scheme. ``breakers`` shares with other clients
    and downloaders which hosts are down; without it every request is sent.

    All methods that call Baidu raise, besides what they name themselves:
    ``Unreachable`` (retry later), ``Throttled`` (slow down), ``SessionGone``, ``Rejected`` (caller's mistake
    or unknown code), ``FaceprintConfigurationError`` and its ``AuthenticationFailed`` (an operator must
    act), and ``InvalidInput`` before anything is sent; see :mod:`django_faceprint.exceptions`.
    """

    def __init__(
        self,
        *,
        api_key: str,
        secret_key: str,
        api_url: str = API_URL,
        h5_url: str = H5_URL,
        token_store: TokenStore | None = None,
        timeout: tuple[float, float] = (5.0, 20.0),
        total_timeout: float = 60.0,
        max_body: int = 32 * 1024 * 1024,
        proxies: Mapping[str, str] | None = None,
        before_call: BeforeCall | None = None,
        on_call: OnCall | None = None,
        clock: Callable[[], datetime] | None = None,
        ca_bundle: str | None = None,
        authentication: Authentication | None = None,
        breakers: Breakers | None = None,
    ) -> None:
        self._h5_url = h5_url
        self._decode: DecodePicture = decode_picture
        self._transport = Transport(
            api_url=api_url,
            timeout=timeout,
            total_timeout=total_timeout,
            max_body=max_body,
            proxies=proxies,
            ca_bundle=ca_bundle,
            before_call=before_call,
            on_call=on_call,
            breakers=breakers,
        )
        self._authentication: Authentication = (
            authentication
            if authentication is not None
            else AccessTokenAuth(
                self._transport, api_key=api_key, secret_key=secret_key, token_store=token_store, clock=clock
            )
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._transport.api_url!r})"

    def with_hooks(
        self,
        *,
        before_call: BeforeCall | None = None,
        on_call: OnCall | None = None,
        token_store: TokenStore | None = None,
        decode: DecodePicture = decode_picture,
    ) -> FaceprintClient:
        """This client for one caller: other hooks over the same credentials, connections and breakers.

        ``token_store`` replaces the store if given; ``decode`` reads the pictures inside answers, see
        :class:`PictureCache`. Cheap: nothing is opened. Must not be closed: the connections are shared.
        """
        other = copy.copy(self)
        other._decode = decode
        other._transport = self._transport.with_hooks(before_call, on_call)
        if isinstance(self._authentication, AccessTokenAuth):
            other._authentication = self._authentication.over(other._transport, token_store)
        return other

    def close(self) -> None:
        """Close all connections. A later call opens new ones."""
        self._transport.close()

    def check_credentials(self) -> None:
        """Fetch a new access token now (API reference 2.1): returns if Baidu accepts the keys.

        Raises ``AuthenticationFailed`` saying whether the API key or the Secret Key is wrong.
        """
        self._authentication.check()

    def generate_verify_token(
        self, plan_id: str | int, *, success_url: str | None = None, failed_url: str | None = None
    ) -> Answer[VerifyToken]:
        """Begin a verification under a plan (方案ID): a token to be used within 2 h (API reference 3.1).

        The URLs, absolute http(s) of at most 2000 characters, are where Baidu sends the browser
        afterwards. Not idempotent: every call makes a new token.
        """
        # A string by the documents, a number in their samples; both are accepted (API reference 8.1).
        payload: dict[str, Any] = {"plan_id": _plan_id_on_the_wire(checked_plan_id(plan_id))}
        redirects = _return_urls(success_url, failed_url)
        if redirects:
            payload["redirect_config"] = redirects
        return self._call(
            codes.VERIFY_TOKEN_GENERATE,
            "/verifyToken/generate",
            payload,
            lambda document: VerifyToken(results.parse_verify_token(document)),
        )

    def submit_identity(self, verify_token: str, identity: Identity) -> Answer[None]:
        """Name the person to verify, before the page is opened (指定用户身份核验, API reference 3.2)."""
        # The shape is checked again: an Identity can also be made without ``checked``.
        checked = Identity.checked(identity.name, identity.number, identity.certificate_type, strict=False)
        payload = {
            "id_name": checked.name,
            "id_no": checked.number,
            "certificate_type": checked.certificate_type,
        }
        return self._call_with_token(codes.IDCARD_SUBMIT, "/idcard/submit", verify_token, _nothing, payload)

    def upload_match_image(self, verify_token: str, image: MatchImage) -> Answer[None]:
        """Hand in the picture to compare with, for plans with 自建人脸库比对 (API reference 3.3)."""
        payload = {
            "image": base64.b64encode(image.data).decode("ascii"),
            "quality_control": image.quality_control,
            "liveness_control": image.liveness_control,
        }
        return self._call_with_token(
            codes.UPLOAD_MATCH_IMAGE, "/uploadMatchImage", verify_token, _nothing, payload
        )

    def result_simple(self, verify_token: str) -> Answer[SimpleResult]:
        """The URL of the face picture (API reference 3.4): a secret, to be fetched at once."""
        return self._call_with_token(
            codes.RESULT_SIMPLE, "/result/simple", verify_token, results.parse_simple
        )

    def result_detail(self, verify_token: str) -> Answer[DetailResult]:
        """The result of a passed verification (API reference 3.5); otherwise ``error`` says why not."""
        return self._call_with_token(
            codes.RESULT_DETAIL,
            "/result/detail",
            verify_token,
            lambda document: results.parse_detail(document, self._decode),
        )

    def result_stat(self, verify_token: str) -> Answer[StatResult]:
        """Calls of internal services by error code (API reference 3.6)."""
        return self._call_with_token(codes.RESULT_STAT, "/result/stat", verify_token, results.parse_stat)

    def result_media(self, verify_token: str) -> Answer[MediaResult]:
        """URLs of videos and face pictures, kept by Baidu for one day (API reference 3.7)."""
        return self._call_with_token(
            codes.RESULT_MEDIA_QUERY, "/result/media/query", verify_token, results.parse_media
        )

    def result_all(self, verify_token: str) -> Answer[AllResult]:
        """Every attempt under the token, failed ones included (API reference 3.8)."""
        return self._call_with_token(
            codes.RESULT_GETALL,
            "/result/getall",
            verify_token,
            lambda document: results.parse_all(document, self._decode),
        )

    def h5_url(
        self, verify_token: str, *, success_url: str | None = None, failed_url: str | None = None
    ) -> str:
        """The address to send the browser to (API reference 5): a secret until it has been used.

        Name return URLs here or in :meth:`generate_verify_token`; which wins is not known.
        Raises ``InvalidInput``.
        """
        urls = _return_urls(success_url, failed_url)
        parameters = {"token": _checked_token(verify_token)}
        if "success_url" in urls:
            parameters["successUrl"] = urls["success_url"]
        if "failed_url" in urls:
            parameters["failedUrl"] = urls["failed_url"]
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in parameters.items())
        return f"{self._h5_url}{'&' if '?' in self._h5_url else '?'}{query}"

    def _call_with_token(
        self,
        endpoint: str,
        path: str,
        verify_token: str,
        parse: Callable[[Mapping[str, Any]], T | None],
        payload: Mapping[str, Any] | None = None,
    ) -> Answer[T]:
        return self._call(
            endpoint, path, {"verify_token": _checked_token(verify_token), **(payload or {})}, parse
        )

    def _call(
        self,
        endpoint: str,
        path: str,
        payload: Mapping[str, Any],
        parse: Callable[[Mapping[str, Any]], T | None],
    ) -> Answer[T]:
        reply = self._send(endpoint, _BASE + path, payload)
        error = reply.envelope.error
        result: T | None = None
        if error is None:
            result, error = _parsed(reply, parse)
        elif error.error_class not in (ErrorClass.NOT_STARTED, ErrorClass.VERIFICATION_FAILED):
            reply.raise_error()
        if error is not None and error.error_class is ErrorClass.UNKNOWN:
            raise Rejected(
                f"{endpoint}: success in an unknown form, log_id {error.log_id}", error=error, raw=reply.raw
            )
        return Answer(
            endpoint,
            result,
            error,
            reply.raw,
            reply.envelope.log_id,
            reply.latency,
            reply.envelope.document,
        )

    def _send(self, endpoint: str, path: str, payload: Mapping[str, Any]) -> Reply:
        """Send; when Baidu refuses the authentication, renew it and send once more (API reference 2.3)."""
        authorization, reply = self._send_once(endpoint, path, payload)
        error = reply.envelope.error
        if error is not None and error.error_class is ErrorClass.REAUTHENTICATE:
            if self._authentication.refused(authorization):
                _, reply = self._send_once(endpoint, path, payload)
                error = reply.envelope.error
            if error is not None and error.error_class is ErrorClass.REAUTHENTICATE:
                raise AuthenticationFailed(
                    f"{endpoint}: Baidu refuses the authentication, code {error.code}.",
                    error=error,
                    raw=reply.raw,
                )
        return reply

    def _send_once(self, endpoint: str, path: str, payload: Mapping[str, Any]) -> tuple[Authorization, Reply]:
        authorization = self._authentication.authorize("POST", path)
        reply = self._transport.post(
            endpoint, path, query=authorization.query, payload=payload, headers=authorization.headers
        )
        return authorization, reply


def _parsed(
    reply: Reply, parse: Callable[[Mapping[str, Any]], T | None]
) -> tuple[T | None, UpstreamError | None]:
    try:
        return parse(reply.envelope.document), None
    except results.UnreadableResult:
        return None, UpstreamError(
            endpoint=reply.endpoint,
            code="unreadable_result",
            message="",
            log_id=reply.envelope.log_id,
            error_class=ErrorClass.UNKNOWN,
            http_status=reply.http_status,
        )


def _nothing(document: Mapping[str, Any]) -> None:
    """The result of idcard/submit is a fixed 1, that of uploadMatchImage null: nothing to read."""


def _plan_id_on_the_wire(plan_id: str) -> int | str:
    return int(plan_id) if plan_id == str(int(plan_id)) else plan_id


def _checked_token(verify_token: str) -> str:
    if not isinstance(verify_token, str) or not results.is_verify_token(verify_token):
        raise invalid("verify_token", "token_format")
    return str(verify_token)


def _return_urls(success_url: str | None, failed_url: str | None) -> dict[str, str]:
    urls = {}
    for name, url in (("success_url", success_url), ("failed_url", failed_url)):
        if url is None:
            continue
        if not _is_return_url(url):
            raise invalid(name, "url")
        urls[name] = url
    return urls


def _is_return_url(url: object) -> bool:
    if not isinstance(url, str) or not 1 <= len(url) <= MAX_RETURN_URL:
        return False
    if any(not char.isprintable() or char.isspace() for char in url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        return False
