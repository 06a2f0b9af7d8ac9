"""Pictures and videos: decodable, unique per token, and generated for every request.

Only a small cache is kept: the same seed gives the same bytes in one installation. A JPEG is drawn by
Pillow and padded with COM segments; a video is a clip of ``assets/`` followed by a ``free`` box
that holds a digest of the seed and fills it to size, generated while it is sent, so memory stays flat.

Sizes too small for the usual drawing and clip use a smaller one of each, so that one core can serve thousands
of sessions.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from importlib import resources
from threading import Lock
from typing import Protocol

from PIL import Image, ImageDraw, ImageFont

DEFAULT_IMAGE_SIZE = 150_000
DEFAULT_VIDEO_SIZE = 3_000_000
MAX_IMAGE_SIZE = 16 * 1024 * 1024
MAX_VIDEO_SIZE = 2 * 1024**3
CACHE_BYTES = 32 * 1024 * 1024
MARK = b"django-faceprint sandbox "
BLOCK = 64 * 1024
PORTRAIT = (480, 640)
CARD = (856, 540)
# Below this many bytes a picture is drawn at a quarter of its edges: the usual drawing takes about 20 KB.
SMALL_IMAGE_SIZE = 20_000
SMALL_SCALE = 4

# Example number of the national standard GB 11643 (API reference 8.3); belongs to nobody.
SAMPLE_NAME = "张三"
SAMPLE_NUMBER = "11010519491231002X"

RGB = tuple[int, int, int]
SKINS: tuple[RGB, ...] = ((255, 224, 196), (244, 205, 170), (233, 188, 150), (206, 158, 118), (164, 116, 84))
HAIRS: tuple[RGB, ...] = ((38, 32, 34), (66, 46, 38), (96, 66, 48), (120, 112, 108))


class Content(Protocol):
    """Bytes that can be read in part."""

    content_type: str
    size: int

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes ``start`` to ``stop`` (exclusive) in pieces of at most 64 KiB."""


class Picture:
    """A JPEG in memory."""

    content_type = "image/jpeg"

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """See :class:`Content`."""
        for at in range(start, stop, BLOCK):
            yield self.data[at : min(at + BLOCK, stop)]


class Video:
    """A clip of ``assets/``, made unique and filled to ``size`` bytes by a ``free`` box at its end.

    It is the small clip where the usual one does not fit; a ``size`` below that is exceeded.
    """

    content_type = "video/mp4"

    def __init__(self, seed: str, size: int) -> None:
        tag = MARK + hashlib.sha256(seed.encode()).hexdigest().encode()
        clip = _asset("face.mp4")
        if size < len(clip) + 8 + len(tag):
            clip = _asset("face_small.mp4")
        box = max(size - len(clip), 8 + len(tag))
        self._head = clip + struct.pack(">I4s", box, b"free") + tag
        self.size = len(clip) + box
        self._filler = hashlib.shake_256(seed.encode()).digest(min(BLOCK, self.size - len(self._head)))

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """See :class:`Content`."""
        at, stop = start, min(stop, self.size)
        while at < stop:
            if at < len(self._head):
                piece = self._head[at : min(stop, at + BLOCK)]
            else:
                offset = (at - len(self._head)) % BLOCK
                piece = self._filler[offset : offset + min(stop - at, BLOCK)]
            yield piece
            at += len(piece)


def digest(content: Content) -> str:
    """SHA-256 of the whole content, in hex."""
    sha256 = hashlib.sha256()
    for piece in content.read(0, content.size):
        sha256.update(piece)
    return sha256.hexdigest()


class MediaGenerator:
    """Generates the content of an asset from its seed. ``image_size`` and ``video_size`` are bytes.

    Below 20 KB pictures are drawn smaller; a drawing that is larger than ``image_size`` by itself (then
    about 3 KB) stays larger. The same holds for ``video_size`` and the smaller clip (4 KB).
    """

    def __init__(self, *, image_size: int = DEFAULT_IMAGE_SIZE, video_size: int = DEFAULT_VIDEO_SIZE) -> None:
        if not 0 <= image_size <= MAX_IMAGE_SIZE:
            raise ValueError(f"image_size must be between 0 and {MAX_IMAGE_SIZE} bytes")
        if not 0 <= video_size <= MAX_VIDEO_SIZE:
            raise ValueError(f"video_size must be between 0 and {MAX_VIDEO_SIZE} bytes")
        self.image_size = image_size
        self.video_size = video_size
        self._cache: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._cached = 0
        self._lock = Lock()

    def content(self, kind: str, seed: str) -> Content:
        """The content of an asset of that kind; the same for the same seed."""
        if kind in ("video", "process_video"):
            return Video(f"{seed}:{kind}", self.video_size)
        return Picture(self.picture(kind, seed))

    def picture(self, kind: str, seed: str) -> bytes:
        """A JPEG: a drawn face, or for ``id_front`` and ``id_back`` a mock card marked as sample."""
        key = (kind, seed)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        data = pad_jpeg(self._draw(kind, seed), self.image_size, f"{seed}:{kind}")
        with self._lock:
            if key not in self._cache and len(data) <= CACHE_BYTES // 4:
                self._cache[key] = data
                self._cached += len(data)
                while self._cached > CACHE_BYTES:
                    self._cached -= len(self._cache.popitem(last=False)[1])
        return data

    def _draw(self, kind: str, seed: str) -> bytes:
        return _draw(kind, seed, SMALL_SCALE if self.image_size < SMALL_IMAGE_SIZE else 1)


def pad_jpeg(jpeg: bytes, size: int, seed: str) -> bytes:
    """Fill a JPEG to ``size`` bytes with COM segments, the first of which holds the seed's digest."""
    after_app0 = 4 + struct.unpack(">H", jpeg[4:6])[0]
    tag = MARK + hashlib.sha256(seed.encode()).hexdigest().encode()
    missing = size - len(jpeg) - 4 - len(tag)
    if 0 < missing < 4:
        tag, missing = tag + b" " * missing, 0
    segments = [struct.pack(">2sH", b"\xff\xfe", 2 + len(tag)), tag]
    filler = hashlib.shake_256(seed.encode()).digest(min(max(missing, 0), 65533))
    while missing > 0:
        segment = min(missing, 65537)
        if 0 < missing - segment < 4:
            segment -= 4
        segments += [struct.pack(">2sH", b"\xff\xfe", segment - 2), filler[: segment - 4]]
        missing -= segment
    return jpeg[:after_app0] + b"".join(segments) + jpeg[after_app0:]


def card_background(side: str) -> bytes:
    """The mock card as PNG (``front`` or ``back``), marked 样本/SAMPLE."""
    return _asset(f"card_{side}.png")


def draw_face(
    picture: Image.Image,
    centre: tuple[float, float],
    radius: float,
    tint: bytes,
    *,
    turn: float = 0.0,
    blink: bool = False,
) -> None:
    """Draw a cartoon face. ``tint`` (four bytes) picks the colours, ``turn`` (-1 to 1) turns it aside."""
    draw = ImageDraw.Draw(picture)
    skin, hair = SKINS[tint[0] % len(SKINS)], HAIRS[tint[1] % len(HAIRS)]
    shirt: RGB = (60 + tint[2] // 2, 60 + tint[3] // 2, 120 + (tint[2] ^ tint[3]) // 3)
    x, y = centre

    def oval(dx: float, dy: float, rx: float, ry: float, fill: RGB) -> None:
        box = (x + (dx - rx) * radius, y + (dy - ry) * radius, x + (dx + rx) * radius, y + (dy + ry) * radius)
        draw.ellipse(box, fill=fill)

    shade: RGB = (skin[0] * 9 // 10, skin[1] * 9 // 10, skin[2] * 9 // 10)
    oval(0, 2.35, 1.55, 1.05, shirt)
    draw.rectangle((x - 0.3 * radius, y + 0.8 * radius, x + 0.3 * radius, y + 1.45 * radius), fill=shade)
    oval(0, -0.25, 1.0, 1.12, hair)
    oval(-0.92, 0.1, 0.16, 0.24, shade)
    oval(0.92, 0.1, 0.16, 0.24, shade)
    oval(0, 0.12, 0.88, 1.06, skin)
    shift = 0.16 * turn
    fringe = 0.35 + (tint[1] % 3) * 0.12
    draw.chord(
        (x - 0.9 * radius, y - 1.1 * radius, x + 0.9 * radius, y + fringe * radius),
        190 + 10 * turn,
        350 + 10 * turn,
        fill=hair,
    )
    for side in (-1, 1):
        eye = side * 0.36 + shift
        if blink:
            oval(eye, 0.1, 0.15, 0.025, hair)
        else:
            oval(eye, 0.1, 0.15, 0.11, (250, 250, 250))
            oval(eye + shift * 0.4, 0.1, 0.08, 0.1, (48, 38, 34))
        oval(eye, -0.13, 0.2, 0.035, hair)
        oval(eye * 1.35, 0.5, 0.16, 0.09, (skin[0], skin[1] * 17 // 20, skin[2] * 17 // 20))
    oval(shift * 1.2, 0.38, 0.09, 0.07, shade)
    mouth = 0.28 + (tint[2] % 3) * 0.05
    draw.arc(
        (x + (shift - mouth) * radius, y + 0.5 * radius, x + (shift + mouth) * radius, y + 0.85 * radius),
        15,
        165,
        fill=(176, 72, 72),
        width=max(2, round(radius * 0.05)),
    )
    if tint[3] % 3 == 0:
        for side in (-1, 1):
            eye = side * 0.36 + shift
            box = (x + (eye - 0.27) * radius, y - 0.12 * radius, x + (eye + 0.27) * radius, y + 0.34 * radius)
            draw.ellipse(box, outline=(50, 50, 60), width=max(2, round(radius * 0.03)))


def draw_card_photo(card: Image.Image, tint: bytes, scale: int = 1) -> None:
    """Put a drawn face where an ID card, made smaller by ``scale``, has its photograph."""
    photo = Image.new("RGB", (210 // scale, 262 // scale), (226, 232, 238))
    draw_face(photo, (105 / scale, 112 / scale), 66 / scale, tint)
    card.paste(photo, (592 // scale, 92 // scale))


def _draw(kind: str, seed: str, scale: int) -> bytes:
    tint = hashlib.sha256(seed.partition(":")[0].encode()).digest()
    scene = hashlib.sha256(f"{seed}:{kind}".encode()).digest()
    if kind in ("id_front", "id_back"):
        picture = _card_picture(kind, tint, scale)
    else:
        # A gradient keeps the thumbnails of one session apart, although they show one person.
        light: RGB = (150 + scene[0] * 90 // 255, 150 + scene[1] * 90 // 255, 150 + scene[2] * 90 // 255)
        strip = Image.new("RGB", (1, 2))
        strip.putpixel((0, 0), light)
        strip.putpixel((0, 1), (light[0] * 2 // 3, light[1] * 2 // 3, light[2] * 2 // 3))
        picture = strip.resize((PORTRAIT[0] // scale, PORTRAIT[1] // scale), Image.Resampling.BILINEAR)
        turn = (scene[3] / 127.5 - 1) * (0.9 if kind == "frame" else 0.25)
        centre = ((240 + math.sin(scene[4]) * 14) / scale, (270 + math.sin(scene[5]) * 12) / scale)
        draw_face(
            picture,
            centre,
            (150 + scene[6] % 20) / scale,
            tint,
            turn=turn,
            blink=kind == "frame" and scene[7] % 3 == 0,
        )
        if scale == 1:
            # Too small to be read elsewhere.
            ImageDraw.Draw(picture).text(
                (12, 610), f"SANDBOX  {kind}  {scene.hex()[:10]}", fill=(40, 40, 40), font=_font(18)
            )
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=82)
    return out.getvalue()


def _card_picture(kind: str, tint: bytes, scale: int) -> Image.Image:
    picture = _card("front" if kind == "id_front" else "back", scale).copy()
    if kind == "id_front":
        draw_card_photo(picture, tint, scale)
    if scale == 1:
        draw = ImageDraw.Draw(picture)
        draw.text((12, 512), f"SANDBOX {tint.hex()[:16]}", fill=(90, 90, 110), font=_font(16))
    return picture


@cache
def _asset(name: str) -> bytes:
    return (resources.files(__package__) / "assets" / name).read_bytes()


@cache
def _card(side: str, scale: int) -> Image.Image:
    with Image.open(io.BytesIO(card_background(side))) as image:
        return image.convert("RGB").resize((CARD[0] // scale, CARD[1] // scale))


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
