"""A face as a few blurred pixels: what stands in the console until somebody asks for the picture.

Made while the picture is archived anyway, of one picture per record. It is personal data like the picture
itself: sealed under the key of its file, shown with the same permission, gone with the same deletion.
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

#: Pixels of the longer side, and bytes at most.
SIDE = 32
MAX_BYTES = 2048
#: Pixels of blur: eyes and mouth of a face that fills the thumbnail run into each other.
BLUR = 1.5
#: Pixels that are decoded at most. A JPEG is decoded at an eighth of its size.
MAX_PIXELS = 4_000_000

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
#: The one picture of a record that has a thumbnail: the first kind that is kept.
_KINDS = (MediaAsset.Kind.FACE, MediaAsset.Kind.ATTEMPT_FACE, MediaAsset.Kind.FRAME)
_KEPT = (MediaAsset.State.WANTED, MediaAsset.State.STORED)


def portrait_of(assets: Iterable[MediaAsset]) -> MediaAsset | None:
    """The asset of a record of which a thumbnail is made, if there is one."""
    faces = [asset for asset in assets if asset.kind in _KINDS and asset.state in _KEPT]
    return min(
        faces,
        key=lambda asset: (_KINDS.index(asset.kind), asset.attempt_order, asset.position),  # type: ignore[arg-type]
        default=None,
    )


def make_thumbnail(picture: bytes) -> bytes | None:
    """A blurred JPEG of at most :data:`SIDE` pixels and :data:`MAX_BYTES` bytes.

    None when the picture is too large or cannot be decoded: no picture is refused for that.
    """
    problem = ""
    try:
        return _make(picture)
    except Exception as error:  # noqa: BLE001  (decoders raise what they like at hostile pictures)
        problem = type(error).__name__
    logger.info("faceprint: no thumbnail could be made (%s)", problem)
    return None


def open_thumbnail_of(asset: MediaAsset) -> bytes | None:
    """The JPEG, or None when there is none or it does not open."""
    if asset.thumbnail is None or asset.wrapped_key is None:
        return None
    try:
        key = unwrap_file_key(bytes(asset.wrapped_key), asset.public_id)
        return open_thumbnail(bytes(asset.thumbnail), key, asset.public_id)
    except SealBroken:
        return None


def _make(picture: bytes) -> bytes | None:
    with Image.open(io.BytesIO(picture), formats=_FORMATS) as image:
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
        if image.width * image.height > MAX_PIXELS:
            return None
        small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=None)
    blurred = small.filter(ImageFilter.GaussianBlur(BLUR))
    # Comments and profiles of the picture are not carried over.
    blurred.info = {}
    content = io.BytesIO()
    blurred.save(content, "JPEG", quality=50)
    thumbnail = content.getvalue()
    return thumbnail if len(thumbnail) <= MAX_BYTES else None
