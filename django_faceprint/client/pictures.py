"""Pictures in base64 inside answers: the same one comes in several, and is decoded once."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: So many pictures are remembered: both sides of a card, and those of another attempt.
MAX_REMEMBERED = 4

_remembered: ContextVar[list[tuple[str, bytes]] | None] = ContextVar("faceprint_pictures", default=None)


@contextmanager
def remembering_pictures() -> Iterator[None]:
    """Within this block, in this thread, the same text is decoded once and gives the same object."""
    token = _remembered.set([])
    try:
        yield
    finally:
        _remembered.reset(token)


def decode_picture(text: str) -> bytes:
    """Strict base64; line breaks are tolerated. Raises :class:`ValueError` without particulars."""
    remembered = _remembered.get()
    # Comparing takes a hundredth of the time of decoding, which checks every letter.
    for known, data in remembered or ():
        if known == text:
            return data
    picture: bytes | None = None
    try:
        picture = base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        picture = None
    if picture is None:
        raise ValueError("not base64")
    if remembered is not None and len(remembered) < MAX_REMEMBERED:
        remembered.append((text, picture))
    return picture
