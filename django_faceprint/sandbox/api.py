"""The access token and the eight interfaces that a server calls (API reference 2 and 3).

* ``GET|POST /oauth/2.0/token``
* ``POST /rpc/2.0/brain/solution/faceprint/…``
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import io
import json
import re
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from PIL import Image

from .errors import GatewayError, ServiceError, shown_log_id
from .message import Request, Response
from .options import PROJECT_IDS, App
from .pages import safe_redirect
from .results import Answer, Results
from .sessions import Identity, MatchImage, Session
from .store import ACCESS_TOKEN_LIFE, Store

OAUTH_PATH = "/oauth/2.0/token"
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

MAX_IMAGE_BASE64 = 10 * 1024 * 1024
MAX_PIXELS = (1920, 1080)
CONTROLS = ("NONE", "LOW", "NORMAL", "HIGH")


class Api:
    """Answers the calls of a server."""

    def __init__(self, store: Store, results: Results) -> None:
        self._store = store
        self._interfaces: dict[str, Callable[[Session, dict[str, Any]], Answer]] = {
            "idcard_submit": self._submit_identity,
            "upload_match_image": self._upload_match_image,
            "result_simple": lambda session, data: results.simple(session),
            "result_detail": lambda session, data: results.detail(session),
            "result_stat": lambda session, data: results.stat(session),
            "result_media_query": lambda session, data: results.media_query(session),
            "result_getall": lambda session, data: results.getall(session),
        }

    def issue_access_token(self, request: Request) -> Response:
        """An access token for an application's keys (API reference 2.1)."""
        if request.method not in ("GET", "POST"):
            return _oauth_error("invalid_request", "method not supported")
        parameters = request.form | request.query
        missing = [n for n in ("grant_type", "client_id", "client_secret") if not parameters.get(n)]
        if missing:
            return _oauth_error("invalid_request", f"Missing required parameter: {missing[0]}")
        if parameters["grant_type"] != "client_credentials":
            return _oauth_error("unsupported_grant_type", "The authorization grant type is not supported")
        app = self._store.apps.get(parameters["client_id"])
        if app is None:
            return _oauth_error("invalid_client", "unknown client id")
        if not hmac.compare_digest(app.secret_key.encode(), parameters["client_secret"].encode()):
            return _oauth_error("invalid_client", "Client authentication failed")
        token, expiry = self._store.issue_access_token(app)
        later = int((expiry + timedelta(days=3620)).timestamp())
        return Response.of_json(
            {
                "refresh_token": f"25.{secrets.token_hex(16)}.315360000.{later}.{app.account}-{app.app_id}",
                "expires_in": int(ACCESS_TOKEN_LIFE.total_seconds()),
                "scope": "public brain_all_scope wise_adapt",
                "session_key": secrets.token_urlsafe(24),
                "access_token": token,
                "session_secret": secrets.token_hex(16),
            }
        )

    def call(self, endpoint: str, request: Request) -> Response:
        """Answer one of the eight interfaces."""
        try:
            answer = self._answer(endpoint, request)
        except GatewayError as error:
            return error.answer()
        except ServiceError as error:
            return error.answer(self._store)
        response = Response.of_json(
            {
                "success": True,
                "result": answer.result,
                **answer.beside,
                "log_id": shown_log_id(self._store),
            }
        )
        response.on_completed = answer.on_completed
        return response

    def _answer(self, endpoint: str, request: Request) -> Answer:
        if request.method != "POST":
            raise GatewayError(3)
        data = json_object(request.body)
        generates = endpoint == "verify_token_generate"
        app = self._authenticate(request, data if generates else None)
        if not self._store.within_qps(app.account, endpoint):
            raise GatewayError(18)
        if data is None:
            raise ServiceError(283513)
        if endpoint == "result_getall" and not self._store.switches.getall_available:
            raise GatewayError(3)
        if generates:
            return self._generate(app, data)
        with self._store.lock:
            session = self._session(app, data, for_result=endpoint.startswith("result_"))
            return self._interfaces[endpoint](session, data)

    def _authenticate(self, request: Request, data: dict[str, Any] | None) -> App:
        """The application of the access token in the query, or in *data* where the interface allows that."""
        token = request.query.get("access_token", "")
        if not token and data:
            inner = data.get("access_token")
            token = inner if isinstance(inner, str) else ""
        if not token:
            raise GatewayError(100)
        known = self._store.access_token(token)
        if known is None:
            raise GatewayError(110)
        app, expiry = known
        if self._store.clock.now() >= expiry:
            raise GatewayError(111)
        return app

    def _session(self, app: App, data: dict[str, Any], *, for_result: bool) -> Session:
        token = data.get("verify_token")
        if not isinstance(token, str) or not token:
            raise ServiceError(216100)
        session = self._store.sessions.get(token)
        now = self._store.clock.now()
        # Bound to the application, not to the access token's text (API reference 1.3).
        if session is None or session.app.api_key != app.api_key or now >= session.results_until():
            raise ServiceError.gone(self._store)
        if not for_result and not session.usable_on_page(now):
            raise ServiceError.gone(self._store)
        return session

    def _generate(self, app: App, data: dict[str, Any]) -> Answer:
        plan_id = data.get("plan_id")
        if type(plan_id) not in (int, str) or plan_id == "":
            raise ServiceError(216100)
        plan = self._store.plans.get(str(plan_id))
        if plan is None:
            # 项目ID instead of 方案ID, FAQ (API reference 4.2).
            raise ServiceError(283400 if str(plan_id) in PROJECT_IDS else 283435)
        if plan.account != app.account:
            raise ServiceError(283400)
        config = data.get("redirect_config")
        if config is None:
            config = {}
        if not isinstance(config, dict):
            raise ServiceError(216100)
        session = self._store.new_session(
            app,
            plan,
            success_url=_redirect_url(config, "success_url"),
            failed_url=_redirect_url(config, "failed_url"),
        )
        return Answer({"verify_token": session.token})

    def _submit_identity(self, session: Session, data: dict[str, Any]) -> Answer:
        name, number, kind = data.get("id_name"), data.get("id_no"), data.get("certificate_type", 0)
        if not isinstance(name, str) or not isinstance(number, str) or not name.strip() or not number.strip():
            raise ServiceError(216100)
        if type(kind) is str and kind.isascii() and kind.isdigit() and len(kind) == 1:
            kind = int(kind)
        if type(kind) is not int or not 0 <= kind <= 4:
            raise ServiceError(216100)
        if kind != 0 and not session.plan.non_mainland:
            raise ServiceError(216100)
        strict = self._store.switches.strict_idcard and kind in (0, 4)
        if strict and not re.fullmatch(r"\d{17}[\dX]", number):
            raise ServiceError(222022)
        # The last one wins (API reference 3.2). A plan that does not ask for it has no use for it.
        if session.plan.identity_entry == "specified":
            session.identity = Identity(name[:200], number[:100], kind)
        return Answer(1)

    def _upload_match_image(self, session: Session, data: dict[str, Any]) -> Answer:
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
        if session.plan.match_source == "own_library":
            session.match_image = MatchImage(hashlib.sha256(raw).hexdigest(), len(raw), kind)
            session.known_assets.pop(("match_image", 0, 0), None)
        return Answer()


def json_object(body: bytes) -> dict[str, Any] | None:
    """The body if it is a JSON object, else ``None``."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _oauth_error(error: str, description: str) -> Response:
    # Seen with a newline at the end (API reference 2.1).
    body = json.dumps({"error_description": description, "error": error}).encode() + b"\n"
    return Response.of_bytes(body, "application/json", status=401, outcome="401")


def _redirect_url(config: dict[str, Any], name: str) -> str | None:
    url = config.get(name)
    if url is None or url == "":
        return None
    if not isinstance(url, str) or safe_redirect(url) is None:
        raise ServiceError(216100)
    return url


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
    # Outside of the handler, so that no error carries Pillow's message about the picture.
    raise ServiceError(222304 if size else 222203)
