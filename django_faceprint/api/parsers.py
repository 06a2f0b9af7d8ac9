"""Parsers of request bodies: strict JSON, forms in memory, and a size limit for both.

REST framework's own parser reads a body of any length and takes ``1e999``, doubled names and broken
Unicode; Django writes larger form files, here faces, to a temporary folder in clear.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any

from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadhandler import MemoryFileUploadHandler
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from django_faceprint.client.inputs import MAX_IMAGE_BASE64

#: Maximum size in bytes of a body without a picture, and of one that may contain a picture.
SMALL_BODY = 64 * 1024
PICTURE_BODY = MAX_IMAGE_BASE64 + SMALL_BODY


class StrictJSONParser(BaseParser):
    """JSON as RFC 8259 has it, in UTF-8, at most ``view.max_body`` bytes long.

    Raises ``ParseError``, whose text never quotes the body, and ``RequestDataTooBig``.
    """

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """The document."""
        limit = getattr((parser_context or {}).get("view"), "max_body", SMALL_BODY)
        body: bytes = stream.read(limit + 1)
        if len(body) > limit:
            raise RequestDataTooBig("The request body is too large.")
        try:
            return json.loads(
                body.decode("utf-8"),
                parse_constant=_refuse_constant,
                parse_float=_finite,
                object_pairs_hook=_without_doubles,
            )
        except (ValueError, RecursionError):
            # json quotes the invalid text.
            pass
        raise ParseError("The request body is not valid JSON.")


def _refuse_constant(name: str) -> Any:
    raise ValueError("no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("too large")
    return number


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name occurs twice")
    return document


class InMemoryUpload(MemoryFileUploadHandler):
    """Keeps the files of a form in memory, at most ``limit`` bytes in all."""

    limit = PICTURE_BODY

    def __init__(self, request: Any = None) -> None:
        super().__init__(request)
        self._received = 0

    def handle_raw_input(self, *args: Any, **kwargs: Any) -> None:
        """Accept every file; the limit is checked while it is received."""
        self.activated = True

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        """Keep a piece. Raises ``RequestDataTooBig``."""
        self._received += len(raw_data)
        if self._received > self.limit:
            raise RequestDataTooBig("The request body is too large.")
        return super().receive_data_chunk(raw_data, start)
