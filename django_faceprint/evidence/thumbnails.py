"""Blurred thumbnails: the console shows one instead of the face until a user opens the picture.

Each record has one, made while its picture is archived. It is personal data like the picture itself: sealed
under the key of the file, shown to users with the same permission, and deleted with the file.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable

from PIL import Image, ImageFilter

from django_faceprint.models import MediaAsset
from django_faceprint.privacy.files import open_thumbnail, unwrap_file_key
from django_faceprint.privacy.keys import SealBroken

logger = logging.getLogger(__name__)

#: Pixels of the longer side.
SIDE = 32
#: Maximum size of the JPEG.
MAX_BYTES = 2048
#: Radius of the blur in pixels: the eyes and the mouth of a face are not recognisable.
BLUR = 1.5
#: Maximum number of pixels to decode. A JPEG is decoded at an eighth of its size.
MAX_PIXELS = 4_000_000

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
#: The thumbnail is made of the first of these kinds that the record has.
_KINDS = (MediaAsset.Kind.FACE, MediaAsset.Kind.ATTEMPT_FACE, MediaAsset.Kind.FRAME)
_KEPT = (MediaAsset.State.WANTED, MediaAsset.State.STORED)


def portrait_of(assets: Iterable[MediaAsset]) -> MediaAsset | None:
    """The asset from which the thumbnail of a record is made, if there is one."""
    faces = [asset for asset in assets if asset.kind in _KINDS and asset.state in _KEPT]
    return min(
        faces,
        key=lambda asset: (_KINDS.index(asset.kind), asset.attempt_order, asset.position),  # type: ignore[arg-type]
        default=None,
    )


def make_thumbnail(picture: bytes) -> bytes | None:
    """A blurred JPEG of at most :data:`SIDE` × :data:`SIDE` pixels and :data:`MAX_BYTES` bytes.

    None when the picture is too large or cannot be decoded.
    """
    try:
        return _blurred(picture)
    except Exception as error:  # noqa: BLE001  (hostile pictures make decoders raise anything)
        logger.info("faceprint: no thumbnail could be made (%s)", type(error).__name__)
        return None


def open_thumbnail_of(asset: MediaAsset) -> bytes | None:
    """The thumbnail of *asset* as a JPEG; None when there is none or it does not open."""
    if asset.thumbnail is None or asset.wrapped_key is None:
        return None
    try:
        key = unwrap_file_key(bytes(asset.wrapped_key), asset.public_id)
        return open_thumbnail(bytes(asset.thumbnail), key, asset.public_id)
    except SealBroken:
        return None


def _blurred(picture: bytes) -> bytes | None:
    with Image.open(io.BytesIO(picture), formats=_FORMATS) as image:
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
        if image.width * image.height > MAX_PIXELS:
            return None
        small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=None)
    blurred = small.filter(ImageFilter.GaussianBlur(BLUR))
    # Drop comments and profiles of the picture.
    blurred.info = {}
    content = io.BytesIO()
    blurred.save(content, "JPEG", quality=50)
    thumbnail = content.getvalue()
    return thumbnail if len(thumbnail) <= MAX_BYTES else None
