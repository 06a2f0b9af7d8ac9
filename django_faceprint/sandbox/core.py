"""The sandbox's core: one function from request to answer, :meth:`Sandbox.handle`.

What it answers follows the API reference (sections 1-8); where that is silent, section 8.3 and
:class:`~django_faceprint.sandbox.store.Switches`.

Keys: ``sandbox-api-key`` / ``sandbox-secret-key``; a second application of the same account
``sandbox-other-api-key`` / ``sandbox-other-secret-key``; one of another account ``sandbox-foreign-api-key``
/ ``sandbox-foreign-secret-key``. Plans ``25001`` … ``25007``, see ``store.PLANS``; ``15001`` is a 项目ID.

Addresses
---------
* ``GET|POST /oauth/2.0/token`` and ``POST /rpc/2.0/brain/solution/faceprint/…`` (eight interfaces)
* ``GET /face/print/?token=…[&successUrl=…&failedUrl=…]``: the H5 page, see below
* ``GET|HEAD /solution/faceprint/image/query?verify_token=…``: the picture of result/simple
* ``GET|HEAD /v1/sandbox-media/…?authorization=…``: signed media (Range, ETag)
* ``/_sandbox/…``: the control API, answered by :class:`~django_faceprint.sandbox.control.ControlApi`

The H5 page, for a script
-------------------------
Forms are ``application/x-www-form-urlencoded``; every one carries ``token`` and, where present,
``successUrl`` and ``failedUrl``. A script may leave out the consent form.

1. ``GET /face/print/?token=T`` opens the page (200; 「Token无效或者已过期」 is also 200).
2. ``POST /face/print/consent``: ``token``, ``agree=1`` → 303 to the page. Optional.
3. ``POST /face/print/identity`` (plans with typed or OCR identity only): ``token``, ``name``, ``number``,
   ``certificate_type`` (0–4, optional) → 303 to the page; 400 with the form when something is missing.
4. ``POST /face/print/finish``: ``token``, ``outcome`` = ``pass`` | ``fail`` | ``giveup``, for ``fail`` also
   ``code`` (a number of API reference 4.3, or ``low_score``; default ``223120``), ``demote=1`` when the
   browser cannot do real-time liveness → 302 to the success or failed URL when there is one, else 200 with
   a result page (``giveup`` never redirects). 400 when the identity is missing.

Control API (JSON; loopback peers only; no browser ``Origin``)
--------------------------------------------------------------
* ``GET /_sandbox/health`` → ``{"status": "ok", "now", "offset", "public_url"}``
* ``GET|POST /_sandbox/clock``: ``{"offset": s}`` or ``{"advance": s}`` → ``{"now", "offset"}``
* ``POST /_sandbox/reset``: forget everything but the clock (``{"clock": true}``: that too) → ``{"status":
  "ok"}``
* ``GET /_sandbox/ledger[?verify_token=…][&hashes=0]`` → ``{"now", "offset", "oauth_tokens": n, "calls":
  {endpoint: {outcome: n}}, "sessions": [{"verify_token", "app", "plan_id", "state", "created_at",
  "opened_at", "finished_at", "closed_at", "gave_up", "page_until", "results_until", "attempts": [{"order",
  "code", "passed", "at"}], "assets": [{"kind", "attempt", "position", "sha256", "size", "content_type",
  "available_from": [endpoint], "available_until", "served", "partly_served"}]}]}``. States: ``issued
  prepared in_progress passed failed failed_open expired purged``. Outcomes: ``ok``, an error code, an HTTP
  status, ``fault:<kind>``. Asset kinds: ``face attempt_face id_front id_back process_video video frame
  match_image``; ``attempt`` is 0 except for ``attempt_face``; a ``match_image`` is never served.
* ``GET|POST|DELETE /_sandbox/faults``: POST one rule or a list, appended; the first matching rule is
  committed. ``{"endpoint": "oauth_token" | "verify_token_generate" | "idcard_submit" | "upload_match_image"
  | "result_simple" | "result_detail" | "result_stat" | "result_media_query" | "result_getall" |
  "simple_image" | "media" | "h5" | "*", "kind": …, "count": n, "probability": 0–1, "skip": n, "match":
  {"verify_token", "app", "plan_id"}}``; without count and probability: always. Kinds and their fields:
  ``http_500`` … (or ``http`` + ``status``), ``html``, ``malformed_json``, ``nan_json``, ``deep_json``,
  ``empty``, ``gateway`` (``code``, ``message``, ``log_id``: true), ``service`` (``code``, ``message``),
  ``hang`` (``seconds``, then closed without an answer), ``delay`` (``seconds``), ``drip`` (``seconds`` per
  ``chunk`` bytes), ``reset`` (at once, or after ``after_bytes``), ``truncate`` (full Content-Length,
  ``after_bytes`` or half), ``wrong_content_type`` (``content_type``), ``foreign_url`` and ``internal_url``
  (``url``: replaces scheme and host of every URL in the answer), ``redirect`` (``url``), ``huge``
  (``size``), and for pictures and videos ``not_image``, ``truncated_image``, ``wrong_range``,
  ``ignore_range``, ``expired_url``. ``after: true``: ``http``, ``hang``, ``reset`` and the like strike
  after the request was carried out.
* ``GET|POST|DELETE /_sandbox/script``: POST one or a list of ``{"verify_token": …}`` (a named session) or
  ``{"count": n, "plan_id": …}`` (the next sessions), with any of ``outcome`` (``pass fail giveup``;
  overrides the form), ``code``, ``message``, ``score``, ``liveness_score``, ``spoofing``,
  ``scores_as_text``, ``is_demote``, ``risk_level``, ``risk_tag``, ``ext_info`` (no video, this error
  instead), ``card_images`` (``normal missing not_image``).
* ``POST /_sandbox/finish``: ``{"verify_token", "outcome", "code", "demote", "name", "number"}`` goes
  through the page in one step (sample identity unless given) → ``{"passed", "order", "redirect"}``; 409 when
  the page would refuse.
* ``GET|PUT /_sandbox/switches``: any field of ``store.Switches``, among them ``qps`` (0: off),
  ``error_envelope``, ``token_gone_code``.
* ``GET /_sandbox/plans``, ``PUT /_sandbox/plans/{id}``: options of ``store.Plan`` to change, or a new plan.
* ``POST /_sandbox/revoke``: every access token becomes invalid (110).

Errors of the control API: 400 ``{"error": text}``, 403, 404, 405.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import io
import json
import random
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from PIL import Image

from . import faults, pages
from .clock import BEIJING, ClockFileError, SandboxClock
from .faults import FaultBook, Rule
from .media import (
    DEFAULT_IMAGE_SIZE,
    DEFAULT_VIDEO_SIZE,
    SAMPLE_NAME,
    SAMPLE_NUMBER,
    Picture,
    Studio,
    card_background,
)
from .message import Request, Response
from .pages import PageRefused
from .store import PROJECT_IDS, App, Asset, Attempt, Identity, MatchImage, Plan, Script, Session, Store

RPC = "/rpc/2.0/brain/solution/faceprint/"
RPC_ENDPOINTS = {
    "verifyToken/generate": "verify_token_generate",
    "idcard/submit": "idcard_submit",
    "uploadMatchImage": "upload_match_image",
    "result/simple": "result_simple",
    "result/detail": "result_detail",
    "result/stat": "result_stat",
    "result/media/query": "result_media_query",
    "result/getall": "result_getall",
}
OAUTH_PATH = "/oauth/2.0/token"
PAGE_PATHS = ("/face/print", "/face/print/")
SIMPLE_IMAGE_PATH = "/solution/faceprint/image/query"
MEDIA_PATH = "/v1/sandbox-media/"

GONE_MESSAGE = "Token无效或者已过期"
SIGNED_SECONDS = 86400
ACCESS_KEY_ID = "0123456789abcdef0123456789abcdef"
MAX_IMAGE_BASE64 = 10 * 1024 * 1024
MAX_PIXELS = (1920, 1080)
CONTROLS = ("NONE", "LOW", "NORMAL", "HIGH")
PLAIN_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,60}")
CHINESE_STAT_KEYS = {
    "OCR": "身份证识别",
    "Sessioncode": "随机校验码",
    "verify": "人脸实名认证",
    "VideoLiveness": "h5活体视频分析",
    "Livenesscolorful": "炫瞳活体检测",
}
MEDIA_NAME = re.compile(
    r"\d{6}/(?P<plan>[^/]+)/(?P<token>[A-Za-z0-9]{24})-(?P<kind>[a-z_]+)-(?P<attempt>\d{1,3})-(?P<position>\d{1,2})"
    r"\.(?:jpg|mp4)"
)
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class ServiceError(Exception):
    """An error of the service layer (API reference 4.2). ``code`` None: an answer without code."""

    def __init__(self, code: int | None, message: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.message = message or faults.SERVICE_MESSAGES.get(code or 0, "unknown error")


class GatewayError(Exception):
    """An error of the gateway layer (API reference 4.1)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Finished:
    """What the page does at its end."""

    attempt: Attempt | None
    redirect: str | None


class Sandbox:
    """A local Baidu without a socket.

    ``public_url`` is the base of the URLs in answers (a server fills it in when it is ``None``); ``clock``
    moves every validity period; ``qps`` is the limit per account and interface (0: none); sizes are bytes;
    ``seed`` makes faults and scores repeatable; ``monotonic`` measures the QPS windows.
    """

    def __init__(
        self,
        *,
        public_url: str | None = None,
        clock: SandboxClock | None = None,
        qps: float | None = None,
        image_size: int = DEFAULT_IMAGE_SIZE,
        video_size: int = DEFAULT_VIDEO_SIZE,
        seed: int = 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.public_url = public_url.rstrip("/") if public_url else None
        self.clock = clock or SandboxClock()
        self.store = Store(Studio(image_size=image_size, video_size=video_size), monotonic=monotonic)
        if qps is not None:
            self.store.switches = self.store.switches.changed({"qps": float(qps)})
        self._initial_switches = self.store.switches
        self.faults = FaultBook(seed)
        self._random = random.Random(seed)  # noqa: S311 -- scores and log ids, no secrets
        self._signing_key = secrets.token_bytes(32)

    def reset(self) -> None:
        """Forget sessions, tokens, faults, scripts, switches and changes of plans. The clock stays."""
        self.faults.clear()
        with self.store.lock:
            self.store.clear()
            self.store.switches = self._initial_switches

    def add_faults(self, *rules: Mapping[str, Any]) -> None:
        """Like ``POST /_sandbox/faults``. Raises :class:`~django_faceprint.sandbox.faults.InvalidRule`."""
        self.faults.add([Rule.of_json(dict(rule)) for rule in rules])

    def add_script(self, **fields: Any) -> None:
        """Like ``POST /_sandbox/script``. Raises ``ValueError``."""
        self.store.add_script(Script.of_json(fields))

    def set_switches(self, **fields: Any) -> None:
        """Like ``PUT /_sandbox/switches``. Raises ``ValueError``."""
        with self.store.lock:
            self.store.switches = self.store.switches.changed(fields)

    def change_plan(self, plan_id: str, /, **options: Any) -> Plan:
        """Like ``PUT /_sandbox/plans/{id}``; sessions keep the plan they began with."""
        with self.store.lock:
            plan = (self.store.plans.get(plan_id) or Plan(plan_id, plan_id)).changed(options)
            self.store.plans[plan_id] = plan
            return plan

    def ledger(self, verify_token: str | None = None, *, hashes: bool = True) -> dict[str, Any]:
        """Like ``GET /_sandbox/ledger``."""
        ledger = self.store.ledger(self.clock.now(), verify_token=verify_token, hashes=hashes)
        return {"offset": self.clock.offset, **ledger}

    def handle(self, request: Request) -> Response:
        """Answer a request. Never raises for anything that came over the wire."""
        endpoint = self._endpoint(request)
        rule = None
        if endpoint and not self.faults.empty:
            rule = self.faults.draw(endpoint, self._facts(endpoint, request))
        try:
            response = self._faulty(endpoint, request, rule) if rule else self._honest(endpoint, request)
        except ClockFileError:
            response = Response.of_bytes(b"clock file damaged", "text/plain", status=500, outcome="500")
        if endpoint:
            self.store.count_call(endpoint, response.outcome)
        if request.method == "HEAD":
            response.body = b""
            response.on_completed.clear()
        return response

    # -- faults ------------------------------------------------------------------------------------

    def _faulty(self, endpoint: str | None, request: Request, rule: Rule) -> Response:
        if rule.kind in faults.REPLACING and not (rule.kind == "reset" and rule.after_bytes is not None):
            if rule.after:
                self._honest(endpoint, request)
            return faults.replacement(rule, self.log_id())
        if rule.kind == "ignore_range":
            request = faults.without_range(request)
        response = self._honest(endpoint, request, shift_range=rule.kind == "wrong_range")
        return faults.spoil(rule, response, self.base_url)

    def _facts(self, endpoint: str, request: Request) -> dict[str, str | None]:
        """What a fault rule can match."""
        token: str | None = None
        if endpoint in faults.API_ENDPOINTS:
            data = _json_object(request.body)
            found = data.get("verify_token") if data else None
            token = found if isinstance(found, str) else None
        elif endpoint == "simple_image":
            token = request.query.get("verify_token")
        elif endpoint == "h5":
            token = request.query.get("token") or request.form.get("token")
        elif endpoint == "media" and (match := MEDIA_NAME.fullmatch(request.path[len(MEDIA_PATH) :])):
            token = match["token"]
        session = self.store.sessions.get(token) if token else None
        access = self.store.access_token(request.query.get("access_token", ""))
        app = (
            session.app.api_key
            if session
            else access[0].api_key
            if access
            else request.query.get("client_id")
        )
        plan = session.plan.plan_id if session else None
        if plan is None and endpoint == "verify_token_generate" and (data := _json_object(request.body)):
            plan = str(data.get("plan_id"))
        return {"verify_token": token, "app": app, "plan_id": plan}

    # -- routing -----------------------------------------------------------------------------------

    def _endpoint(self, request: Request) -> str | None:
        path = request.path
        if path == OAUTH_PATH:
            return "oauth_token"
        if path.startswith(RPC):
            return RPC_ENDPOINTS.get(path[len(RPC) :])
        if path in PAGE_PATHS or path.startswith("/face/print/"):
            return "h5"
        if path == SIMPLE_IMAGE_PATH:
            return "simple_image"
        return "media" if path.startswith(MEDIA_PATH) else None

    def _honest(self, endpoint: str | None, request: Request, *, shift_range: bool = False) -> Response:
        if endpoint is None:
            if request.path == "/favicon.ico":
                return Response(status=204)
            if request.path.startswith("/rpc/"):
                return self._gateway_answer(GatewayError(3))
            return Response.of_html(
                pages.problem("404", "沙箱没有这个地址。"), status=404, headers=pages.HEADERS
            )
        if endpoint == "oauth_token":
            return self._oauth(request)
        if endpoint == "h5":
            return self._page(request)
        if endpoint == "simple_image":
            return self._simple_image(request, shift_range)
        if endpoint == "media":
            return self._media(request, shift_range)
        return self._api(endpoint, request)

    @property
    def base_url(self) -> str:
        """The base of the URLs in answers."""
        return self.public_url or "http://127.0.0.1:8400"

    def log_id(self) -> str:
        """A decimal text of 10 to 19 digits; every other one is beyond 2^53 (API reference 3.0)."""
        with self.store.lock:
            digits = self._random.choice((10, 15, 18, 19))
            return str(self._random.randrange(10 ** (digits - 1), min(10**digits, 2**63)))

    # -- OAuth (API reference 2.1) -----------------------------------------------------------------

    def _oauth(self, request: Request) -> Response:
        if request.method not in ("GET", "POST"):
            return _oauth_error("invalid_request", "method not supported")
        parameters = request.form | request.query
        missing = [n for n in ("grant_type", "client_id", "client_secret") if not parameters.get(n)]
        if missing:
            return _oauth_error("invalid_request", f"Missing required parameter: {missing[0]}")
        if parameters["grant_type"] != "client_credentials":
            return _oauth_error("unsupported_grant_type", "The authorization grant type is not supported")
        app = self.store.apps.get(parameters["client_id"])
        if app is None:
            return _oauth_error("invalid_client", "unknown client id")
        if not hmac.compare_digest(app.secret_key.encode(), parameters["client_secret"].encode()):
            return _oauth_error("invalid_client", "Client authentication failed")
        now = self.clock.now()
        token, expiry = self.store.issue_access_token(app, now)
        later = int((expiry + timedelta(days=3620)).timestamp())
        return Response.of_json(
            {
                "refresh_token": f"25.{secrets.token_hex(16)}.315360000.{later}.{app.account}-{app.app_id}",
                "expires_in": int((expiry - now).total_seconds()),
                "scope": "public brain_all_scope wise_adapt",
                "session_key": secrets.token_urlsafe(24),
                "access_token": token,
                "session_secret": secrets.token_hex(16),
            }
        )

    # -- the eight interfaces ----------------------------------------------------------------------

    def _api(self, endpoint: str, request: Request) -> Response:
        try:
            if request.method != "POST":
                raise GatewayError(3)
            data = _json_object(request.body)
            app = self._authenticate(request, data if endpoint == "verify_token_generate" else None)
            if not self.store.within_qps(app.account, endpoint):
                raise GatewayError(18)
            if data is None:
                raise ServiceError(283513)
            if endpoint == "result_getall" and not self.store.switches.getall_available:
                raise GatewayError(3)
            callbacks: list[Callable[[], None]] = []
            if endpoint == "verify_token_generate":
                result: object = self._generate(app, data)
                extra: dict[str, Any] = {}
            else:
                with self.store.lock:
                    session = self._session(app, data, for_result=endpoint.startswith("result_"))
                    result, extra = self._session_call(endpoint, session, data, callbacks)
        except GatewayError as error:
            return self._gateway_answer(error)
        except ServiceError as error:
            return self._service_answer(error)
        response = Response.of_json(
            {"success": True, "result": result, **extra, "log_id": self._shown_log_id()}
        )
        response.on_completed = callbacks
        return response

    def _session_call(
        self, endpoint: str, session: Session, data: dict[str, Any], callbacks: list[Callable[[], None]]
    ) -> tuple[object, dict[str, Any]]:
        if endpoint == "idcard_submit":
            return self._submit(session, data), {}
        if endpoint == "upload_match_image":
            self._upload(session, data)
            return None, {}
        if endpoint == "result_simple":
            return self._simple(session), {}
        if endpoint == "result_detail":
            return self._detail(session, callbacks)
        if endpoint == "result_stat":
            return self._stat(session), {}
        if endpoint == "result_media_query":
            return self._media_query(session), {}
        return self._getall(session, callbacks), {}

    def _authenticate(self, request: Request, data: dict[str, Any] | None) -> App:
        token = request.query.get("access_token", "")
        if not token and data:
            inner = data.get("access_token")
            token = inner if isinstance(inner, str) else ""
        if not token:
            raise GatewayError(100)
        known = self.store.access_token(token)
        if known is None:
            raise GatewayError(110)
        if self.clock.now() >= known[1]:
            raise GatewayError(111)
        return known[0]

    def _generate(self, app: App, data: dict[str, Any]) -> dict[str, str]:
        plan_id = data.get("plan_id")
        if type(plan_id) not in (int, str) or plan_id == "":
            raise ServiceError(216100)
        plan = self.store.plans.get(str(plan_id))
        if plan is None:
            # 项目ID instead of 方案ID, FAQ (API reference 4.2).
            raise ServiceError(283400 if str(plan_id) in PROJECT_IDS else 283435)
        if plan.account != app.account:
            raise ServiceError(283400)
        config = data.get("redirect_config")
        urls: list[str | None] = [None, None]
        if config is not None:
            if not isinstance(config, dict):
                raise ServiceError(216100)
            for at, name in enumerate(("success_url", "failed_url")):
                url = config.get(name)
                if url is None or url == "":
                    continue
                if not isinstance(url, str) or pages.safe_redirect(url) is None:
                    raise ServiceError(216100)
                urls[at] = url
        session = self.store.new_session(app, plan, self.clock.now(), (urls[0], urls[1]))
        return {"verify_token": session.token}

    def _session(self, app: App, data: dict[str, Any], *, for_result: bool) -> Session:
        token = data.get("verify_token")
        if not isinstance(token, str) or not token:
            raise ServiceError(216100)
        session = self.store.sessions.get(token)
        now = self.clock.now()
        # Bound to the application, not to the access token's text (API reference 1.3).
        if session is None or session.app.api_key != app.api_key or now >= session.results_until():
            raise self._gone()
        if not for_result and not session.usable_on_page(now):
            raise self._gone()
        return session

    def _gone(self) -> ServiceError:
        return ServiceError(self.store.switches.token_gone_code, GONE_MESSAGE)

    def _submit(self, session: Session, data: dict[str, Any]) -> int:
        name, number, kind = data.get("id_name"), data.get("id_no"), data.get("certificate_type", 0)
        if not isinstance(name, str) or not isinstance(number, str) or not name.strip() or not number.strip():
            raise ServiceError(216100)
        if type(kind) is str and kind.isascii() and kind.isdigit() and len(kind) == 1:
            kind = int(kind)
        if type(kind) is not int or not 0 <= kind <= 4:
            raise ServiceError(216100)
        if kind != 0 and not session.plan.non_mainland:
            raise ServiceError(216100)
        if self.store.switches.strict_idcard and kind in (0, 4) and not re.fullmatch(r"\d{17}[\dX]", number):
            raise ServiceError(222022)
        # The last one wins (API reference 3.2). A plan that does not ask for it has no use for it.
        if session.plan.identity_entry == "specified":
            session.identity = Identity(name[:200], number[:100], kind)
        return 1

    def _upload(self, session: Session, data: dict[str, Any]) -> None:
        image = data.get("image")
        if not isinstance(image, str) or not image:
            raise ServiceError(222001, "param[image] is null")
        if data.get("quality_control", "NONE") not in CONTROLS:
            raise ServiceError(222019)
        if data.get("liveness_control", "NONE") not in CONTROLS:
            raise ServiceError(222020)
        if len(image) > MAX_IMAGE_BASE64:
            raise ServiceError(222304)
        try:
            raw = base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        kind = _image_type(raw)
        if session.plan.match_source != "own_library":
            return
        session.match_image = MatchImage(hashlib.sha256(raw).hexdigest(), len(raw), kind)
        session.known_assets.pop(("match_image", 0, 0), None)

    def _require_attempt(self, session: Session) -> Attempt:
        """The last attempt, or 283450 (API reference 3.5)."""
        if session.last is not None:
            return session.last
        expired = session.state(self.clock.now()) == "expired"
        if expired and self.store.switches.expired_unused == "gone":
            raise self._gone()
        raise ServiceError(283450)

    def _require_pass(self, session: Session) -> Attempt:
        attempt = self._require_attempt(session)
        if attempt.passed:
            return attempt
        now = self.clock.now()
        if self.store.switches.between_attempts == "not_started" and session.state(now) == "failed_open":
            raise ServiceError(283450)
        # The code and message of the last attempt (API reference 8.2, 3).
        raise ServiceError(int(attempt.code), attempt.message)

    def _simple(self, session: Session) -> dict[str, str]:
        self._require_pass(session)
        return {"image": f"{self.base_url}{SIMPLE_IMAGE_PATH}?verify_token={session.token}"}

    def _detail(
        self, session: Session, callbacks: list[Callable[[], None]]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        attempt = self._require_pass(session)
        switches = self.store.switches
        show = _score_writer(session)
        verify = {
            "score": show(attempt.score),
            "liveness_score": show(attempt.liveness_score),
            "spoofing": show(attempt.spoofing or 0.0),
        }
        result: dict[str, Any] = {"verify_result": verify}
        if session.plan.uses_ocr:
            result["idcard_ocr_result"] = _ocr_result(session)
            result["idcard_images"] = self._cards(session, callbacks)
        result["idcard_confirm"] = _confirmed(attempt.identity)
        extra: dict[str, Any] = {}
        if attempt.is_demote is not None:
            places = {"result": result, "verify_result": verify, "top": extra}
            places[switches.demote_place]["is_demote"] = attempt.is_demote
        return result, extra

    def _cards(self, session: Session, callbacks: list[Callable[[], None]]) -> dict[str, str] | None:
        cards = session.script.card_images if session.script else "normal"
        if cards == "missing":
            return None
        found: dict[str, str] = {}
        for side in ("front", "back") if session.plan.ocr_sides == "both" else ("front",):
            if cards == "not_image":
                found[f"{side}_base64"] = base64.b64encode(b"this is not a picture").decode()
                continue
            key = (f"id_{side}", 0, 0)
            picture = Picture(self.store.studio.picture(key[0], session.seed(*key)))
            asset = session.asset(key, self.store.switches)
            if asset is not None:
                self.store.learn(session, asset, picture)
                callbacks.append(self._served(asset))
            found[f"{side}_base64"] = base64.b64encode(picture.data).decode()
        return found

    def _stat(self, session: Session) -> dict[str, list[dict[str, int]]]:
        if not session.attempts:
            if self.store.switches.before_attempt == "empty":
                return {}
            self._require_attempt(session)
        counts: dict[str, dict[int, int]] = {}

        def count(key: str, code: int) -> None:
            if self.store.switches.stat_keys == "chinese":
                key = CHINESE_STAT_KEYS.get(key, key)
            codes = counts.setdefault(key, {})
            codes[code] = codes.get(code, 0) + 1

        plan = session.plan
        for attempt in session.attempts:
            code = int(attempt.code)
            if plan.uses_ocr:
                for _ in range(2 if plan.ocr_sides == "both" else 1):
                    count("OCR", 0)
            if plan.liveness in ("action", "digits"):
                count("Sessioncode", 0)
            in_liveness = code in LIVENESS_CODES
            liveness = "Livenesscolorful" if plan.liveness == "colourful" else "VideoLiveness"
            count(liveness, code if in_liveness else 0)
            if not in_liveness and plan.match_source == "authoritative":
                count("verify", code)
        return {
            key: [{"error_code": c, "count": n} for c, n in codes.items()] for key, codes in counts.items()
        }

    def _media_query(self, session: Session) -> dict[str, Any]:
        attempt = self._require_attempt(session)
        switches = self.store.switches
        if not attempt.passed and not switches.media_of_failed:
            self._require_pass(session)
        if not session.plan.recording and switches.unrecorded_media == "error":
            raise ServiceError(216100)
        now = self.clock.now()
        unused: list[str] | None = [] if switches.unrecorded_media == "empty" else None
        videos: dict[str, list[str]] = {"process_video": [], "video": [], "frame": []}
        for asset in session.assets(switches):
            if asset.kind in videos and now < asset.available_until:
                videos[asset.kind].append(self._signed(session, asset, now))
        if switches.both_video_fields and videos["process_video"]:
            videos["video"] = list(videos["process_video"])
        broken = session.script.ext_info if session.script else None
        if any(videos.values()):
            unused = None
        return {
            "processVideo": videos["process_video"] or unused,
            "video": videos["video"] or unused,
            "images": videos["frame"] or unused,
            "extInfo": broken if session.recorded else None,
        }

    def _getall(self, session: Session, callbacks: list[Callable[[], None]]) -> dict[str, Any]:
        if not session.attempts and self.store.switches.before_attempt != "empty":
            self._require_attempt(session)
        now = self.clock.now()
        plan = session.plan
        attempts = [self._attempt_entry(session, attempt, now, callbacks) for attempt in session.attempts]
        charged = [attempt for attempt in session.attempts if attempt.charged]
        result: dict[str, Any] = {
            "verify_count": len(attempts),
            "ocr_charge_count": sum(entry["ocr_count"] for entry in attempts),
            "match_charge_count": len(charged) if plan.match_source == "own_library" else 0,
            "verify_charge_count": len(charged) if plan.match_source == "authoritative" else 0,
            "verify_result": attempts,
        }
        if plan.match_source == "liveness_only":
            result["live_charge_count"] = len(charged)
        return result

    def _attempt_entry(
        self, session: Session, attempt: Attempt, now: datetime, callbacks: list[Callable[[], None]]
    ) -> dict[str, Any]:
        plan, switches = session.plan, self.store.switches
        stamp = self._beijing(attempt.at)
        show = _score_writer(session)
        asset = session.asset(("attempt_face", attempt.order, 0), switches)
        ocr: dict[str, Any] = {"idcard_ocr_result": None, "idcard_images": None}
        if plan.uses_ocr:
            ocr = {
                "idcard_ocr_result": _ocr_result(session),
                "idcard_images": self._cards(session, callbacks),
            }
        confirm: dict[str, Any] | None = None
        if attempt.identity is not None:
            kind = str(attempt.identity.certificate_type)
            confirm = {
                "name": attempt.identity.name,
                "idcard_number": attempt.identity.number,
                "idcard_type": kind,
            }
        entry: dict[str, Any] = {
            "order": attempt.order,
            "code": attempt.code,
            "message": attempt.message,
            "is_verify_passed": attempt.passed,
            "verify_time": stamp,
            "is_charged": attempt.charged,
            "charge_type": CHARGE_TYPES[plan.match_source],
            "charge_time": stamp if attempt.charged else None,
            "is_ocr_charge": plan.uses_ocr,
            "ocr_count": (2 if plan.ocr_sides == "both" else 1) if plan.uses_ocr else 0,
            "ocr_charge_time": stamp if plan.uses_ocr else None,
            "verify_detail": {
                "score": show(attempt.score),
                "threshold": plan.threshold,
                "app": False,
                "face_image": self._signed(session, asset, now) if asset else None,
                "verify_log_id": attempt.verify_log_id,
                "liveness_score": show(attempt.liveness_score),
                "spoofing_score": show(attempt.spoofing),
                "risk_level": attempt.risk_level,
                "risk_tag": attempt.risk_tag,
                "is_demote": attempt.is_demote,
            },
        }
        if switches.getall_ocr_place == "confirm" and (confirm is not None or plan.uses_ocr):
            entry["idcard_confirm"] = (confirm or {}) | ocr
        else:
            entry |= {"idcard_confirm": confirm} | ocr
        return entry

    def _beijing(self, moment: datetime) -> str:
        local = moment.astimezone(BEIJING)
        if self.store.switches.unpadded_verify_time:
            return f"{local.year}-{local.month}-{local.day} {local:%H:%M:%S}"
        return f"{local:%Y-%m-%d %H:%M:%S}"

    # -- errors ------------------------------------------------------------------------------------

    def _gateway_answer(self, error: GatewayError) -> Response:
        payload = {"error_code": error.code, "error_msg": faults.GATEWAY_MESSAGES[error.code]}
        return Response.of_json(payload, outcome=str(error.code))

    def _service_answer(self, error: ServiceError) -> Response:
        envelope = self.store.switches.error_envelope
        payload: dict[str, Any]
        if envelope == "service":
            payload = {"success": False, "result": None, "code": error.code, "message": error.message}
            if error.code is None:
                del payload["code"]
        else:
            payload = {"error_code": error.code, "error_msg": error.message}
            if error.code is None:
                del payload["error_code"]
            if envelope == "mixed":
                payload = {"success": False, **payload}
        payload["log_id"] = self._shown_log_id()
        return Response.of_json(payload, outcome=str(error.code) if error.code is not None else "gone")

    def _shown_log_id(self) -> str | int:
        log_id = self.log_id()
        return int(log_id) if self.store.switches.log_id_number else log_id

    # -- media (API reference 7) -------------------------------------------------------------------

    def _signed(self, session: Session, asset: Asset, now: datetime) -> str:
        ending = "mp4" if asset.content_type == "video/mp4" else "jpg"
        month = session.created_at.astimezone(BEIJING).strftime("%Y%m")
        name = f"{session.token}-{asset.kind}-{asset.attempt}-{asset.position:02d}.{ending}"
        path = f"{MEDIA_PATH}{month}/{session.plan.plan_id}/{name}"
        if not self.store.switches.sign_media:
            return self.base_url + path
        start = f"bce-auth-v1/{ACCESS_KEY_ID}/{now:%Y-%m-%dT%H:%M:%SZ}/{SIGNED_SECONDS}//"
        return f"{self.base_url}{path}?authorization={quote(start + self._signature(start, path), safe='')}"

    def _signature(self, start: str, path: str) -> str:
        return hmac.new(self._signing_key, f"{start}\n{path}".encode(), hashlib.sha256).hexdigest()

    def _media(self, request: Request, shift_range: bool) -> Response:
        if request.method not in ("GET", "HEAD"):
            return self._storage_error(405, "MethodNotAllowed", "The specified method is not allowed.")
        path, now = request.path, self.clock.now()
        if self.store.switches.sign_media:
            problem = self._signature_problem(request.query.get("authorization", ""), path, now)
            if problem:
                return self._storage_error(403, *problem)
        match = MEDIA_NAME.fullmatch(path[len(MEDIA_PATH) :])
        with self.store.lock:
            session = self.store.sessions.get(match["token"]) if match else None
            asset = None
            if match and session:
                key = (match["kind"], int(match["attempt"]), int(match["position"]))
                asset = session.asset(key, self.store.switches)
        if session is None or asset is None or asset.kind in UNSERVED_KINDS or now >= asset.available_until:
            return self._storage_error(404, "NoSuchKey", "The specified key does not exist.")
        return self._asset_answer(request, session, asset, shift_range)

    def _signature_problem(self, authorization: str, path: str, now: datetime) -> tuple[str, str] | None:
        start, slash, signature = authorization.rpartition("/")
        if not authorization:
            return "AccessDenied", "Access Denied."
        if not slash or not hmac.compare_digest(
            self._signature(start + "/", path).encode(), signature.encode()
        ):
            return (
                "SignatureDoesNotMatch",
                "The request signature does not match.",
            )
        stamp = datetime.strptime(start.split("/")[2], "%Y-%m-%dT%H:%M:%S%z")
        if now >= stamp + timedelta(seconds=SIGNED_SECONDS):
            return "RequestExpired", "Request has expired."
        return None

    def _simple_image(self, request: Request, shift_range: bool) -> Response:
        if request.method not in ("GET", "HEAD"):
            return self._storage_error(405, "MethodNotAllowed", "The specified method is not allowed.")
        now = self.clock.now()
        with self.store.lock:
            session = self.store.sessions.get(request.query.get("verify_token", ""))
            asset = session.asset(("face", 0, 0), self.store.switches) if session else None
        if session is None or asset is None or now >= min(asset.available_until, session.results_until()):
            response = self._service_answer(self._gone())
            response.status, response.outcome = 404, "404"
            return response
        return self._asset_answer(request, session, asset, shift_range)

    def _asset_answer(self, request: Request, session: Session, asset: Asset, shift_range: bool) -> Response:
        seed = session.seed(*asset.key)
        content = self.store.studio.content(asset.kind, seed)
        if isinstance(content, Picture):
            # Drawing it again for the ledger would cost far more than hashing it now.
            self.store.learn(session, asset, content)
        etag = f'"{hashlib.sha256(f"{seed}:{content.size}".encode()).hexdigest()[:32]}"'
        headers = [("Content-Type", content.content_type), ("Accept-Ranges", "bytes"), ("ETag", etag)]
        if request.headers.get("if-none-match") == etag:
            return Response(status=304, headers=headers, outcome="304")
        span = _range(request.headers.get("range"), content.size)
        if request.headers.get("if-range", etag) != etag:
            span = None
        if span == "unsatisfiable":
            headers[0] = ("Content-Type", "application/xml")
            response = Response(status=416, headers=[*headers, ("Content-Range", f"bytes */{content.size}")])
            response.outcome = "416"
            return response
        start, stop = span if isinstance(span, tuple) else (0, content.size)
        response = Response(headers=headers, length=stop - start)
        response.body = content.read(start, stop)
        if isinstance(span, tuple):
            response.status, response.outcome = 206, "206"
            first, last = start, stop - 1
            if shift_range:
                first, last = first + 1, last + 1
            response.headers.append(("Content-Range", f"bytes {first}-{last}/{content.size}"))
        whole = stop == content.size
        response.on_completed.append(self._served(asset) if whole else self._partly_served(asset))
        return response

    def _served(self, asset: Asset) -> Callable[[], None]:
        """To be called when the last byte was delivered (a resumed download ends so too)."""

        def count() -> None:
            with self.store.lock:
                asset.served += 1

        return count

    def _partly_served(self, asset: Asset) -> Callable[[], None]:
        def count() -> None:
            with self.store.lock:
                asset.partly_served += 1

        return count

    def _storage_error(self, status: int, code: str, message: str) -> Response:
        return faults.storage_error(status, code, message, self.log_id())

    # -- the H5 page (API reference 5) -------------------------------------------------------------

    def _page(self, request: Request) -> Response:
        path = request.path
        if path == "/face/print/card.png":
            side = "back" if request.query.get("side") == "back" else "front"
            return Response.of_bytes(
                card_background(side), "image/png", headers={"Cache-Control": "max-age=3600"}
            )
        try:
            if path in PAGE_PATHS and request.method in ("GET", "HEAD"):
                return self._show_page(request)
            if request.method == "POST" and path.startswith("/face/print/"):
                return self._page_step(path.removeprefix("/face/print/"), request.form)
        except PageRefused as refused:
            return _html(refused.html, status=refused.status, outcome=refused.outcome)
        status = 405 if path in PAGE_PATHS else 404
        return _html(pages.problem(str(status), "沙箱没有这个地址。"), status=status, outcome=str(status))

    def _open(self, token: str, urls: tuple[str, str]) -> tuple[Session, pages.Page]:
        """The session with its page, marked as opened. The caller holds the lock."""
        session = self.store.sessions.get(token)
        now = self.clock.now()
        if session is None or not session.usable_on_page(now):
            raise PageRefused(pages.gone(), "gone")
        page = pages.Page(session, urls)
        if not session.prepared:
            raise PageRefused(page.unprepared(), "unprepared")
        if session.opened_at is None:
            session.opened_at = now
        return session, page

    def _show_page(self, request: Request) -> Response:
        query = request.query
        with self.store.lock:
            session, page = self._open(query.get("token", ""), _urls(query))
            if not session.consented:
                return _html(page.consent())
            if session.plan.identity_entry in ("typed", "ocr") and session.identity is None:
                return _html(page.identity())
            return _html(page.liveness())

    def _page_step(self, step: str, form: dict[str, str]) -> Response:
        with self.store.lock:
            session, page = self._open(form.get("token", ""), _urls(form))
            if step == "consent":
                session.consented = session.consented or form.get("agree") == "1"
                return Response(status=303, headers=[("Location", page.link)])
            if step == "identity":
                if session.plan.identity_entry not in ("typed", "ocr"):
                    raise PageRefused(
                        pages.problem("无需填写", "该方案不需要填写身份信息。"), "400", status=400
                    )
                session.identity = self._typed_identity(session, page, form)
                session.consented = True
                return Response(status=303, headers=[("Location", page.link)])
            if step != "finish":
                raise PageRefused(pages.problem("404", "沙箱没有这个地址。"), "404", status=404)
            outcome = form.get("outcome", "")
            if outcome not in ("pass", "fail", "giveup"):
                raise PageRefused(page.liveness(error="请选择结果。"), "400", status=400)
            done = self._finish(
                session, page, outcome, form.get("code") or None, form.get("demote") == "1", _urls(form)
            )
            attempt = done.attempt
            if attempt is None:
                return _html(page.left(), outcome="giveup")
            label = "pass" if attempt.passed else "fail"
            if done.redirect:
                return Response(status=302, headers=[("Location", done.redirect)], outcome=label)
            may_retry = session.usable_on_page(self.clock.now())
            reason = f"{attempt.message}（{attempt.code}）"
            return _html(page.result(attempt.passed, reason, may_retry=may_retry), outcome=label)

    def _typed_identity(self, session: Session, page: pages.Page, form: dict[str, str]) -> Identity:
        name, number = form.get("name", "").strip(), form.get("number", "").strip()
        kind = form.get("certificate_type", "0")
        if not PLAIN_NAME.fullmatch(name):
            raise PageRefused(page.identity(error="请填写姓名。", values=form), "400", status=400)
        if not PLAIN_NAME.fullmatch(number):
            raise PageRefused(page.identity(error="请填写证件号码。", values=form), "400", status=400)
        if kind not in ("0", "1", "2", "3", "4") or (kind != "0" and not session.plan.non_mainland):
            raise PageRefused(page.identity(error="该方案不支持这种证件。", values=form), "400", status=400)
        return Identity(name, number, int(kind))

    def finish(
        self,
        verify_token: str,
        outcome: str = "pass",
        code: str | None = None,
        *,
        demote: bool = False,
        name: str = SAMPLE_NAME,
        number: str = SAMPLE_NUMBER,
    ) -> Finished:
        """Go through the page in one step, with the sample identity where the user would type one.

        ``outcome``: ``pass``, ``fail`` (with ``code``) or ``giveup``. Raises :class:`PageRefused` when the
        page would.
        """
        if outcome not in ("pass", "fail", "giveup"):
            raise ValueError("outcome must be pass, fail or giveup")
        with self.store.lock:
            session, page = self._open(verify_token, ("", ""))
            if session.plan.identity_entry in ("typed", "ocr"):
                session.identity = Identity(name, number)
            return self._finish(session, page, outcome, code, demote, ("", ""))

    def _finish(
        self,
        session: Session,
        page: pages.Page,
        outcome: str,
        code: str | None,
        demote: bool,
        urls: tuple[str, str],
    ) -> Finished:
        script = session.script
        if script and script.outcome:
            outcome = script.outcome
        if outcome == "giveup":
            session.gave_up = True
            return Finished(None, None)
        if session.plan.identity_entry != "none" and session.identity is None:
            raise PageRefused(page.identity(error="请先填写身份信息。"), "400", status=400)
        code = (script.code if script and script.code else code) or "223120"
        if code == "low_score":
            code = str(self.store.switches.low_score_code)
        if not re.fullmatch(r"[1-9]\d{0,9}", code):
            raise PageRefused(page.liveness(error="原因代码无效。"), "400", status=400)
        session.consented = True
        attempt = self._attempt(session, outcome == "pass", code, demote)
        session.attempts.append(attempt)
        if attempt.passed or session.plan.closes_on_failure:
            session.closed_at = attempt.at
        elif session.plan.identity_entry in ("typed", "ocr"):
            # Whoever mistyped a name has to be able to type it again.
            session.identity = None
        config = session.success_url if attempt.passed else session.failed_url
        query = urls[0] if attempt.passed else urls[1]
        if self.store.switches.redirect_precedence == "query":
            config, query = query, config or ""
        target = pages.safe_redirect(config or query)
        if target and self.store.switches.redirect_extra:
            front, mark, fragment = target.partition("#")
            joint = "&" if "?" in front else "?"
            target = f"{front}{joint}{quote(self.store.switches.redirect_extra, safe='=&')}{mark}{fragment}"
        return Finished(attempt, target)

    def _attempt(self, session: Session, passed: bool, code: str, demote: bool) -> Attempt:
        plan, script = session.plan, session.script
        if script and script.is_demote is not None:
            demote = script.is_demote
        demote = demote and plan.realtime
        refused = demote and not plan.allow_demotion
        if refused:
            # No backend call happened at all (API reference 3.8, verify_log_id).
            passed, code = False, "216500"
        number = int(code)
        low_score = not passed and number == self.store.switches.low_score_code
        compared = plan.match_source != "liveness_only" and (passed or low_score)
        if passed:
            code, message = "0", "核验成功"
        elif refused:
            message = "浏览器不支持实时活体，方案不允许降级"
        elif low_score:
            message = "相似度低于阈值"
        else:
            message = faults.SERVICE_MESSAGES.get(number, "认证未通过")
        score = self._score(plan.threshold, passed) if compared else None
        liveness = round(0.9 + self._random.random() / 10.1, 8)
        if plan.liveness == "colourful" or (not passed and number in LIVENESS_CODES):
            liveness = 0.0
        spoofing: float | None = None if refused else round(self._random.random() / 2000, 10)
        if not passed and number == 223131:
            spoofing = round(0.9 + self._random.random() / 10.1, 8)
        risk: tuple[str | None, str | None] = ("4", "") if plan.risk_control else (None, None)
        if script:
            message = script.message or message
            score = float(script.score) if script.score is not None else score
            liveness = float(script.liveness_score) if script.liveness_score is not None else liveness
            spoofing = float(script.spoofing) if script.spoofing is not None else spoofing
            risk = (script.risk_level or risk[0], script.risk_tag if script.risk_tag is not None else risk[1])
        return Attempt(
            order=len(session.attempts) + 1,
            at=self.clock.now(),
            code=code,
            message=message,
            passed=passed,
            score=score,
            liveness_score=liveness,
            spoofing=spoofing,
            is_demote=demote if plan.realtime else None,
            charged=passed or low_score or (plan.match_source == "liveness_only" and number == 223120),
            verify_log_id="" if refused else self.log_id(),
            risk_level=risk[0],
            risk_tag=risk[1],
            identity=session.identity,
        )

    def _score(self, threshold: float, passed: bool) -> float:
        share = self._random.random()
        low, high = (threshold, 100.0) if passed else (threshold / 2, threshold)
        return round(low + (high - low) * (0.05 + 0.9 * share), 6)


LIVENESS_CODES = frozenset({223120, 223131, 216500, 216510, *range(223114, 223128)})
UNSERVED_KINDS = frozenset({"face", "id_front", "id_back", "match_image"})
CHARGE_TYPES = {"authoritative": "verify", "own_library": "match", "liveness_only": "live"}


def _html(html: str, *, status: int = 200, outcome: str = "ok") -> Response:
    return Response.of_html(html, status=status, outcome=outcome, headers=pages.HEADERS)


def _oauth_error(error: str, description: str) -> Response:
    # Seen with a newline at the end (API reference 2.1).
    body = json.dumps({"error_description": description, "error": error}).encode() + b"\n"
    return Response.of_bytes(body, "application/json", status=401, outcome="401")


def _urls(fields: dict[str, str]) -> tuple[str, str]:
    return fields.get("successUrl", ""), fields.get("failedUrl", "")


def _json_object(body: bytes) -> dict[str, Any] | None:
    """The body if it is a JSON object, else ``None``."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _image_type(raw: bytes) -> str:
    """The content type of an uploaded match image. Raises :class:`ServiceError` (API reference 3.3)."""
    try:
        with Image.open(io.BytesIO(raw), formats=("PNG", "JPEG", "BMP")) as image:
            size, kind = image.size, image.format or ""
            if max(size) <= max(MAX_PIXELS) and min(size) <= min(MAX_PIXELS):
                image.load()
                return f"image/{kind.lower()}"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        size = None
    # Outside of the handler: what Pillow says about a stranger's picture is nobody's business.
    raise ServiceError(222304 if size else 222203)


def _score_writer(session: Session) -> Callable[[float | None], float | str | None]:
    as_text = session.script is not None and session.script.scores_as_text
    return lambda score: str(score) if as_text and score is not None else score


def _confirmed(identity: Identity | None) -> dict[str, str] | None:
    if identity is None:
        return None
    return {"name": identity.name, "idcard_number": identity.number}


def _ocr_result(session: Session) -> dict[str, str]:
    """What was read from the sample card, whatever the user made of it."""
    result = {
        "name": SAMPLE_NAME,
        "gender": "男",
        "nation": "汉",
        "birthday": "19491231",
        "address": "北京市朝阳区示例路1号",
        "id_card_number": SAMPLE_NUMBER,
    }
    if session.plan.ocr_sides == "both":
        result |= {"issue_authority": "北京市公安局朝阳分局", "issue_time": "20120101", "expire_time": "长期"}
    return result


def _range(header: str | None, size: int) -> tuple[int, int] | str | None:
    """A single byte range as start and stop, ``unsatisfiable``, or ``None`` for the whole."""
    match = RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        return (size - length, size) if length else "unsatisfiable"
    start = int(first)
    if start >= size:
        return "unsatisfiable"
    stop = min(int(last) + 1, size) if last else size
    return (start, stop) if stop > start else None
