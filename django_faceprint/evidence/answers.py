"""Raw answers: kept as evidence, with pictures cut out so that erasing an asset leaves no copy."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django_faceprint.client import DecodePicture, decode_picture
from django_faceprint.clock import now
from django_faceprint.models import UpstreamAnswer, VerificationSession
from django_faceprint.privacy.blind_index import fingerprint

#: Answers that cannot be parsed are kept up to this size (bytes).
MAX_KEPT = 1_000_000
PICTURE_KEYS = frozenset({"front_base64", "back_base64"})
# No text of upstream's is this long; a longer one is a picture under a name we do not know.
MAX_TEXT_LENGTH = 20_000


def make_answer(
    session: VerificationSession,
    endpoint: str,
    raw: bytes | None,
    *,
    document: Any = None,
    log_id: str = "",
    code: str = "",
    parsed: bool = True,
    oddities: tuple[str, ...] = (),
    pictures: Mapping[str, str] | None = None,
    cached: Mapping[str, bytes] | None = None,
    decode: DecodePicture = decode_picture,
) -> UpstreamAnswer:
    """The row that keeps *raw* for *session*; one per distinct content, told by its ``body_index``.

    *document* is *raw* read as JSON, if somebody has read it already. *pictures* maps the SHA-256 of a
    picture's bytes to the id of the asset that holds it; *held* are bytes of pictures by their SHA-256:
    those that *decode* gives as the same objects again are not hashed again.
    """
    text, readable = _without_pictures(
        raw or b"", document, _PictureRedactor(pictures or {}, cached or {}, decode)
    )
    return UpstreamAnswer(
        session=session,
        endpoint=endpoint,
        body_index=content_index(text, log_id[:40]),
        body=text,
        log_id=log_id[:40],
        code=code[:40],
        parsed=parsed and readable,
        oddities=list(oddities)[:100],
        received_at=now(),
    )


def make_refusal(session: VerificationSession, endpoint: str, data: bytes, reason: str) -> UpstreamAnswer:
    """The row that keeps bytes which were sent as a picture or video and are none.

    In base64, so that nothing ever takes them for text, and never shown.
    """
    body = json.dumps({"refused": reason, "base64": base64.b64encode(data).decode("ascii")})
    return UpstreamAnswer(
        session=session,
        endpoint=endpoint,
        body_index=content_index(body),
        body=body,
        parsed=False,
        oddities=[reason],
        received_at=now(),
    )


def content_index(body: str, log_id: str = "") -> str:
    """What tells an answer from others of the same session and interface, under the newest index key.

    The log_id differs with every question and makes no other answer of it.
    """
    content = body.replace(log_id, "") if len(log_id) >= 6 else body
    return fingerprint("answer", content.encode("utf-8", "surrogatepass"))


def _without_pictures(raw: bytes, document: Any, scissors: _PictureRedactor) -> tuple[str, bool]:
    try:
        if document is None:
            document = json.loads(raw)
        return json.dumps(scissors.cut(document), ensure_ascii=False, allow_nan=True), True
    except (ValueError, RecursionError):
        return raw[:MAX_KEPT].decode("utf-8", "backslashreplace").replace("\x00", "\\x00"), False


@dataclass(frozen=True)
class _PictureRedactor:
    """Cut pictures out of a document: ``pictures`` and ``cached`` as of :func:`make_answer`."""

    pictures: Mapping[str, str]
    cached: Mapping[str, bytes]
    decode: DecodePicture

    def cut(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: self.cut(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [self.cut(item, key) for item in value]
        if isinstance(value, str) and value and (key in PICTURE_KEYS or len(value) > MAX_TEXT_LENGTH):
            digest = self._digest(value)
            return {"removed": "picture", "sha256": digest, "asset": self.pictures.get(digest)}
        return value

    def _digest(self, text: str) -> str:
        try:
            data = self.decode(text)
        except ValueError:
            data = text.encode("utf-8", "surrogatepass")
        for digest, cached in self.cached.items():
            if cached is data:
                return digest
        return hashlib.sha256(data).hexdigest()
