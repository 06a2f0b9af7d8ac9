"""Pictures in base64 inside answers: the same one comes in several answers, and is decoded once."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

#: Pictures that one cache keeps: both sides of a card, and those of another attempt.
MAX_CACHED = 4

#: Strict base64 to bytes. Raises :class:`ValueError`.
DecodePicture = Callable[[str], bytes]


def decode_picture(text: str) -> bytes:
    """Strict base64; line breaks are tolerated. Raises :class:`ValueError` without particulars."""
    picture: bytes | None = None
    try:
        picture = base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        picture = None
    if picture is None:
        raise ValueError("not base64")
    return picture


class PictureCache:
    """Decodes each picture once: the same text gives the same object. Keeps the first four."""

    def __init__(self) -> None:
        self._known: list[tuple[str, bytes]] = []

    def decode(self, text: str) -> bytes:
        """As :func:`decode_picture`."""
        # Comparing takes a hundredth of the time of decoding, which checks every letter.
        for known, data in self._known:
            if known == text:
                return data
        picture = decode_picture(text)
        if len(self._known) < MAX_CACHED:
            self._known.append((text, picture))
        return picture
