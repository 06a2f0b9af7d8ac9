"""Raw answers, kept as evidence. Pictures are removed from them, so that erasing an asset leaves no copy."""

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

#: Maximum size (bytes) kept of an answer that cannot be parsed.
MAX_UNPARSED_BYTES = 1_000_000
PICTURE_KEYS = frozenset({"front_base64", "back_base64"})
# Baidu's texts are shorter. A longer one is a picture under a name that we do not know.
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
    """An unsaved row that keeps *raw* for *session*. Equal content has an equal ``body_index``.

    :param document: *raw* as JSON, if it has been parsed already.
    :param pictures: SHA-256 of a picture → id of the asset that holds it.
    :param cached: SHA-256 of a picture → its bytes. If *decode* returns the same object again, it is
        not hashed again.
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
    """An unsaved row that keeps *data*: bytes that Baidu sent as a picture or video and that are none.

    They are stored in base64 and never shown.
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
    """The ``body_index`` of an answer, under the newest index key.

    Each call has another log_id, so the index leaves it out.
    """
    content = body.replace(log_id, "") if len(log_id) >= 6 else body
    return fingerprint("answer", content.encode("utf-8", "surrogatepass"))


def _without_pictures(raw: bytes, document: Any, redactor: _PictureRedactor) -> tuple[str, bool]:
    """The text to keep, and whether *raw* is JSON."""
    try:
        if document is None:
            document = json.loads(raw)
        return json.dumps(redactor.redact(document), ensure_ascii=False, allow_nan=True), True
    except (ValueError, RecursionError):
        return raw[:MAX_UNPARSED_BYTES].decode("utf-8", "backslashreplace").replace("\x00", "\\x00"), False


@dataclass(frozen=True)
class _PictureRedactor:
    """Removes pictures from a document; ``pictures`` and ``cached`` as in :func:`make_answer`."""

    pictures: Mapping[str, str]
    cached: Mapping[str, bytes]
    decode: DecodePicture

    def redact(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: self.redact(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [self.redact(item, key) for item in value]
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
