"""Pictures and videos over HTTP: signed URLs, byte ranges and the address of result/simple (API reference 7).

* ``GET|HEAD /v1/sandbox-media/…?authorization=…``: any recording or attempt's face; 403 once the signature is
  a day old, 404 when the asset is over
* ``GET|HEAD /solution/faceprint/image/query?verify_token=…``: the face of a passed session, unsigned
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import datetime, timedelta
from functools import partial
from urllib.parse import quote

from .clock import BEIJING
from .errors import ServiceError
from .media import Picture
from .message import Request, Response
from .sessions import Asset, Session
from .store import Store

SIMPLE_IMAGE_PATH = "/solution/faceprint/image/query"
MEDIA_PATH = "/v1/sandbox-media/"
SIGNED_SECONDS = 86400
ACCESS_KEY_ID = "0123456789abcdef0123456789abcdef"
# The face of result/simple has an address of its own, cards come as base64, match images never come back.
UNSERVED_KINDS = frozenset({"face", "id_front", "id_back", "match_image"})
MEDIA_NAME = re.compile(
    r"\d{6}/(?P<plan>[^/]+)/(?P<token>[A-Za-z0-9]{24})-(?P<kind>[a-z_]+)-(?P<attempt>\d{1,3})-(?P<position>\d{1,2})"
    r"\.(?:jpg|mp4)"
)
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class ObjectStorage:
    """Serves the assets of all sessions and counts each delivery in the ledger."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._signing_key = secrets.token_bytes(32)

    def signed_url(self, session: Session, asset: Asset) -> str:
        """A URL of the asset, valid for a day from now."""
        ending = "mp4" if asset.content_type == "video/mp4" else "jpg"
        month = session.created_at.astimezone(BEIJING).strftime("%Y%m")
        name = f"{session.token}-{asset.kind}-{asset.attempt}-{asset.position:02d}.{ending}"
        path = f"{MEDIA_PATH}{month}/{session.plan.plan_id}/{name}"
        url = self._store.base_url + path
        if not self._store.switches.sign_media:
            return url
        start = f"bce-auth-v1/{ACCESS_KEY_ID}/{self._store.clock.now():%Y-%m-%dT%H:%M:%SZ}/{SIGNED_SECONDS}//"
        return f"{url}?authorization={quote(start + self._signature(start, path), safe='')}"

    def simple_image_url(self, session: Session) -> str:
        """The URL of the face in result/simple."""
        return f"{self._store.base_url}{SIMPLE_IMAGE_PATH}?verify_token={session.token}"

    def serve_media(self, request: Request, *, shift_range: bool = False) -> Response:
        """Answer a request to a signed URL; *shift_range*: announce another range than the one sent."""
        if request.method not in ("GET", "HEAD"):
            return self._method_not_allowed()
        store, now = self._store, self._store.clock.now()
        if store.switches.sign_media:
            problem = self._signature_problem(request.query.get("authorization", ""), request.path, now)
            if problem:
                return storage_error(403, *problem, store.log_id())
        match = MEDIA_NAME.fullmatch(request.path[len(MEDIA_PATH) :])
        with store.lock:
            session = store.sessions.get(match["token"]) if match else None
            asset = None
            if match and session:
                key = (match["kind"], int(match["attempt"]), int(match["position"]))
                asset = session.asset(key, store.switches)
        if session is None or asset is None or asset.kind in UNSERVED_KINDS or now >= asset.available_until:
            return storage_error(404, "NoSuchKey", "The specified key does not exist.", store.log_id())
        return self._serve(request, session, asset, shift_range)

    def serve_simple_image(self, request: Request, *, shift_range: bool = False) -> Response:
        """Answer a request to the URL of result/simple."""
        if request.method not in ("GET", "HEAD"):
            return self._method_not_allowed()
        store, now = self._store, self._store.clock.now()
        with store.lock:
            session = store.sessions.get(request.query.get("verify_token", ""))
            asset = session.asset(("face", 0, 0), store.switches) if session else None
        if session is None or asset is None or now >= min(asset.available_until, session.results_until()):
            response = ServiceError.gone(store).answer(store)
            response.status, response.outcome = 404, "404"
            return response
        return self._serve(request, session, asset, shift_range)

    def _method_not_allowed(self) -> Response:
        message = "The specified method is not allowed."
        return storage_error(405, "MethodNotAllowed", message, self._store.log_id())

    def _signature(self, start: str, path: str) -> str:
        return hmac.new(self._signing_key, f"{start}\n{path}".encode(), hashlib.sha256).hexdigest()

    def _signature_problem(self, authorization: str, path: str, now: datetime) -> tuple[str, str] | None:
        """Code and message of the storage's error, or ``None`` for a valid signature."""
        start, slash, signature = authorization.rpartition("/")
        if not authorization:
            return "AccessDenied", "Access Denied."
        expected = self._signature(start + "/", path)
        if not slash or not hmac.compare_digest(expected.encode(), signature.encode()):
            return "SignatureDoesNotMatch", "The request signature does not match."
        stamp = datetime.strptime(start.split("/")[2], "%Y-%m-%dT%H:%M:%S%z")
        if now >= stamp + timedelta(seconds=SIGNED_SECONDS):
            return "RequestExpired", "Request has expired."
        return None

    def _serve(self, request: Request, session: Session, asset: Asset, shift_range: bool) -> Response:
        seed = session.seed(*asset.key)
        content = self._store.media.content(asset.kind, seed)
        if isinstance(content, Picture):
            # Drawing it again for the ledger would cost far more than hashing it now.
            self._store.learn(session, asset, content)
        etag = f'"{hashlib.sha256(f"{seed}:{content.size}".encode()).hexdigest()[:32]}"'
        headers = [("Content-Type", content.content_type), ("Accept-Ranges", "bytes"), ("ETag", etag)]
        if request.headers.get("if-none-match") == etag:
            return Response(status=304, headers=headers, outcome="304")
        span = None
        if request.headers.get("if-range", etag) == etag:
            span = byte_range(request.headers.get("range"), content.size)
        if span == "unsatisfiable":
            headers[0] = ("Content-Type", "application/xml")
            headers.append(("Content-Range", f"bytes */{content.size}"))
            return Response(status=416, headers=headers, outcome="416")
        start, stop = span if isinstance(span, tuple) else (0, content.size)
        response = Response(headers=headers, body=content.read(start, stop), length=stop - start)
        if isinstance(span, tuple):
            response.status, response.outcome = 206, "206"
            shift = int(shift_range)
            headers.append(("Content-Range", f"bytes {start + shift}-{stop - 1 + shift}/{content.size}"))
        # A download that was resumed is complete when its last part is.
        complete = stop == content.size
        response.on_completed.append(partial(self._store.count_delivery, asset, complete=complete))
        return response


def storage_error(status: int, code: str, message: str, request_id: str) -> Response:
    """An error of the object storage (API reference 7: a 4xx, most likely 403)."""
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
        f"<RequestId>{request_id}</RequestId></Error>"
    )
    return Response.of_bytes(body.encode(), "application/xml", status=status, outcome=f"{status}")


def byte_range(header: str | None, size: int) -> tuple[int, int] | str | None:
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
