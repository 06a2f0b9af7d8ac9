"""What an archived picture or video really is, whatever upstream called it.

A signature is not a proof, so pictures are decoded and videos are walked box by box; what is truncated
or something else is refused. Plain Python, no Django.

Errors of the file object itself (a storage that fails, a broken seal) pass through unchanged: they say
nothing about the medium.
"""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from PIL import Image

JPEG = "image/jpeg"
PNG = "image/png"
WEBP = "image/webp"
BMP = "image/bmp"
MP4 = "video/mp4"
# What an iPhone's camera hands to a page that asks for a recorded video.
QUICKTIME = "video/quicktime"

#: Bytes that :func:`sniff` needs to tell every type it knows.
SNIFF_BYTES = 64
#: A picture of more bytes or pixels is refused before it is decoded.
MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_IMAGE_PIXELS = 40_000_000
#: A video that claims to be longer is broken.
MAX_VIDEO_SECONDS = 24 * 3600.0

_PILLOW_FORMATS = {JPEG: "JPEG", PNG: "PNG", WEBP: "WEBP", BMP: "BMP"}
_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})
# HEIF pictures and audio start with "ftyp" too: only brands of video count.
_MP4_BRANDS = frozenset(
    b"isom iso2 iso3 iso4 iso5 iso6 iso7 iso8 iso9 isoa isob isoc mp41 mp42 mp71 avc1 dash cmfc MSNV mmp4 "
    b"M4VH M4VP 3gp4 3gp5 3gp6 3gp7 3gp8 3gp9 3g2a 3g2b 3g2c".split()
) | {b"M4V "}
_MAX_BOXES = 20_000
_MAX_MOOV_BYTES = 16 * 1024 * 1024


class NotMedia(Exception):
    """The content is not what it should be. ``reason`` is a short code, and the only content:

    ``not_an_image``, ``not_a_video`` (the signature), ``too_large`` (bytes), ``too_many_pixels``,
    ``truncated``, ``broken_image``, ``broken_video``, ``no_video_track``, ``no_duration``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class ImageFacts:
    """Type and size in pixels of a picture that was decoded completely."""

    content_type: str
    width: int
    height: int


@dataclass(frozen=True)
class VideoFacts:
    """Type, length in seconds, and size in pixels as shown (turned upright) of a whole video.

    None where the file does not say; a fragmented file need not say how long it is.
    """

    content_type: str
    duration: float | None
    width: int | None
    height: int | None


def sniff(head: bytes) -> str | None:
    """Content type by signature of what starts with ``head``: JPEG, PNG, WEBP, BMP, MP4, QuickTime or None.

    Give it :data:`SNIFF_BYTES` bytes or the whole file. A match is a hint, not a proof.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if head[:2] == b"BM" and len(head) >= 18 and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return BMP
    if head[4:8] == b"ftyp" and head[8:12] in _MP4_BRANDS:
        return MP4
    if head[4:12] == b"ftypqt  ":
        return QUICKTIME
    return None


def describe_image(fileobj: IO[bytes]) -> ImageFacts:
    """Decode a JPEG, PNG, WEBP or BMP from the file's position to its end.

    Limits: 32 MiB, 40 megapixels; of an animation the first frame counts. Raises :class:`NotMedia`.
    """
    data = _read(fileobj, MAX_IMAGE_BYTES + 1)
    if len(data) > MAX_IMAGE_BYTES:
        raise NotMedia("too_large")
    content_type = sniff(data[:SNIFF_BYTES])
    if content_type not in _PILLOW_FORMATS:
        raise NotMedia("not_an_image")
    facts: ImageFacts | None = None
    reason = "broken_image"
    try:
        facts = _decode(data, content_type)
    except NotMedia as error:
        reason = error.reason
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = "too_many_pixels"
    except Exception as error:  # noqa: BLE001  (decoders of hostile bytes raise whatever they like)
        if "truncated" in str(error):
            reason = "truncated"
    if facts is None:
        raise NotMedia(reason)
    return facts


def describe_video(fileobj: IO[bytes]) -> VideoFacts:
    """Walk the boxes of an MP4 or QuickTime film: ``ftyp`` first, one ``moov``, ``mdat``, all of them whole.

    The file must be seekable; only box headers and ``moov`` (up to 16 MiB) are read. Frames are not
    decoded. Raises :class:`NotMedia`.
    """
    length = fileobj.seek(0, io.SEEK_END)
    fileobj.seek(0)
    content_type = sniff(_read(fileobj, SNIFF_BYTES))
    if content_type not in (MP4, QUICKTIME):
        raise NotMedia("not_a_video")
    movie = _read_moov(fileobj, length)
    facts: VideoFacts | None = None
    with suppress(struct.error):  # a box shorter than its fields
        facts = _movie_facts(movie, length, content_type)
    if facts is None:
        raise NotMedia("broken_video")
    return facts


# Pictures


def _decode(data: bytes, content_type: str) -> ImageFacts:
    if not _has_end(data, content_type):
        raise NotMedia("truncated")
    formats = [_PILLOW_FORMATS[content_type]]
    with Image.open(io.BytesIO(data), formats=formats) as image:
        width, height = image.size
        if width * height > MAX_IMAGE_PIXELS:
            raise NotMedia("too_many_pixels")
        image.verify()  # checksums, where the format has them; the image is unusable afterwards
    with Image.open(io.BytesIO(data), formats=formats) as image:
        image.load()
    return ImageFacts(content_type, width, height)


def _has_end(data: bytes, content_type: str) -> bool:
    # Pillow pads a picture that lacks only its end, and any, if the host set LOAD_TRUNCATED_IMAGES.
    if content_type == JPEG:
        scan = _jpeg_scan(data)
        return scan >= 0 and data.find(b"\xff\xd9", scan) >= 0
    if content_type == PNG:
        return b"IEND\xaeB`\x82" in data
    if content_type == WEBP:
        return int.from_bytes(data[4:8], "little") + 8 <= len(data)
    return True


def _jpeg_scan(data: bytes) -> int:
    """Where the first scan starts, or -1. Segments before it may hold a thumbnail with an end of its own."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:
            return position
        if marker == 0xFF:
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return -1


# Videos (ISO/IEC 14496-12)


def _read_moov(fileobj: IO[bytes], length: int) -> bytes:
    """The content of ``moov``, after checking that all boxes of the file are whole."""
    movie: bytes | None = None
    has_data = False
    position = 0
    for _ in range(_MAX_BOXES):
        if position == length:
            break
        fileobj.seek(position)
        header = _read(fileobj, 16)
        if len(header) < 8:
            raise NotMedia("truncated")
        kind, size, start = _box_header(header, length - position)
        if size < start:
            raise NotMedia("broken_video")
        if size > length - position:
            raise NotMedia("truncated")
        if (kind == b"ftyp") != (position == 0):
            raise NotMedia("broken_video")
        if kind == b"mdat":
            has_data = True
        elif kind == b"moov":
            if movie is not None or size - start > _MAX_MOOV_BYTES:
                raise NotMedia("broken_video")
            fileobj.seek(position + start)
            movie = _read(fileobj, size - start)
            if len(movie) != size - start:
                raise NotMedia("truncated")
        position += size
    else:
        raise NotMedia("broken_video")
    if movie is None or not has_data:
        # A file whose index comes last and was cut off just before it.
        raise NotMedia("truncated")
    return movie


def _movie_facts(movie: bytes, length: int, content_type: str) -> VideoFacts:
    boxes = _children(movie)
    duration = _duration(boxes)
    for kind, track in boxes:
        if kind != b"trak":
            continue
        _check_offsets(track, length)
    for kind, track in boxes:
        if kind == b"trak" and _first(track, b"mdia", b"hdlr")[8:12] == b"vide":
            width, height = _dimensions(_first(track, b"tkhd"))
            return VideoFacts(content_type, duration, width, height)
    raise NotMedia("no_video_track")


def _duration(boxes: list[tuple[bytes, bytes]]) -> float | None:
    content = dict(boxes)
    mvhd = content.get(b"mvhd", b"")
    if mvhd[:1] == b"\x01":
        timescale, duration = struct.unpack_from(">IQ", mvhd, 20)
        unknown = 2**64 - 1
    else:
        timescale, duration = struct.unpack_from(">II", mvhd, 12)
        unknown = 2**32 - 1
    if duration in (0, unknown) and b"mvex" in content:
        mehd = _first(content[b"mvex"], b"mehd")
        if not mehd:
            return None
        (duration,) = struct.unpack_from(">Q" if mehd[:1] == b"\x01" else ">I", mehd, 4)
    if not timescale or duration in (0, unknown):
        raise NotMedia("no_duration")
    if duration > MAX_VIDEO_SECONDS * timescale:
        raise NotMedia("broken_video")
    return float(duration / timescale)


def _dimensions(tkhd: bytes) -> tuple[int | None, int | None]:
    matrix = 52 if tkhd[:1] == b"\x01" else 40
    a, _, _, _, d = struct.unpack_from(">5i", tkhd, matrix)
    width, height = (value >> 16 for value in struct.unpack_from(">II", tkhd, matrix + 36))
    if a == d == 0:  # shown turned by 90 degrees, as telephones record
        width, height = height, width
    return width or None, height or None


def _check_offsets(track: bytes, length: int) -> None:
    """The media data that the track's index points at must be there, also when ``mdat`` has no length."""
    for kind, form, width in ((b"stco", "I", 4), (b"co64", "Q", 8)):
        table = _first(track, b"mdia", b"minf", b"stbl", kind)
        if not table:
            continue
        (count,) = struct.unpack_from(">I", table, 4)
        if count * width > len(table) - 8:
            raise NotMedia("broken_video")
        if max(struct.unpack_from(f">{count}{form}", table, 8), default=0) >= length:
            raise NotMedia("truncated")


def _first(content: bytes, *path: bytes) -> bytes:
    """The content of the first box at ``path``; empty when there is none."""
    for step in path:
        content = next((child for kind, child in _children(content) if kind == step), b"")
    return content


def _children(content: bytes) -> list[tuple[bytes, bytes]]:
    children: list[tuple[bytes, bytes]] = []
    position = 0
    while position + 8 <= len(content):
        rest = len(content) - position
        kind, size, start = _box_header(content[position : position + 16], rest)
        if not start <= size <= rest or len(children) >= _MAX_BOXES:
            raise NotMedia("broken_video")
        children.append((kind, content[position + start : position + size]))
        position += size
    return children


def _box_header(header: bytes, rest: int) -> tuple[bytes, int, int]:
    """Type of a box, its size with header, and the length of its header; size 0 means "to the end"."""
    size, kind = struct.unpack_from(">I4s", header)
    if not all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in kind):
        raise NotMedia("broken_video")
    if size == 1:
        if len(header) < 16:
            raise NotMedia("truncated")
        return kind, int.from_bytes(header[8:16], "big"), 16
    return kind, size or rest, 8


def _read(fileobj: IO[bytes], size: int) -> bytes:
    data = fileobj.read(size)
    while data and len(data) < size and (more := fileobj.read(size - len(data))):
        data += more
    return data
