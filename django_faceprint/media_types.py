"""What an archived picture or video really is, whatever upstream called it.

A signature is not a proof, so pictures are walked segment by segment and videos box by box; what is
truncated or something else is refused. No pixel is decoded: a hostile picture of a few kilobytes may
unpack to gigabytes, and decoding costs more than fetching. Plain Python, no Django.

Errors of the file object itself (a storage that fails, a broken seal) pass through unchanged: they say
nothing about the medium.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

JPEG = "image/jpeg"
PNG = "image/png"
WEBP = "image/webp"
BMP = "image/bmp"
MP4 = "video/mp4"
# What an iPhone's camera hands to a page that asks for a recorded video.
QUICKTIME = "video/quicktime"

#: Bytes that :func:`sniff` needs to tell every type it knows.
SNIFF_BYTES = 64
#: A picture of more bytes or pixels is refused.
MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_IMAGE_PIXELS = 40_000_000
#: A video that claims to be longer is broken.
MAX_VIDEO_SECONDS = 24 * 3600.0

_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})
# HEIF pictures and audio start with "ftyp" too: only brands of video count.
_MP4_BRANDS = frozenset(
    b"isom iso2 iso3 iso4 iso5 iso6 iso7 iso8 iso9 isoa isob isoc mp41 mp42 mp71 avc1 dash cmfc MSNV mmp4 "
    b"M4VH M4VP 3gp4 3gp5 3gp6 3gp7 3gp8 3gp9 3g2a 3g2b 3g2c".split()
) | {b"M4V "}
_MAX_BOXES = 20_000
_MAX_MOOV_BYTES = 16 * 1024 * 1024
_READ_BYTES = 64 * 1024
#: Bytes of a film's beginning that tell its type.
_TYPE_BYTES = 12


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
    """Type and size in pixels of a picture whose structure is whole."""

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
    """Walk a JPEG, PNG, WEBP or BMP from the file's position to its end.

    Its structure must be whole and its end there; of an animation the whole canvas counts. Limits: 32 MiB,
    40 megapixels. Raises :class:`NotMedia`.
    """
    data = _read(fileobj, MAX_IMAGE_BYTES + 1)
    if len(data) > MAX_IMAGE_BYTES:
        raise NotMedia("too_large")
    content_type = sniff(data[:SNIFF_BYTES])
    if content_type not in _IMAGES:
        raise NotMedia("not_an_image")
    size: tuple[int, int] | None = None
    with suppress(struct.error, IndexError):  # a segment shorter than its fields
        size = _IMAGES[content_type](data)
    if size is None or 0 in size:
        raise NotMedia("broken_image")
    if size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise NotMedia("too_many_pixels")
    return ImageFacts(content_type, *size)


class FilmInspector:
    """Walks the boxes of an MP4 or QuickTime film while its bytes go by, in pieces of any size.

    ``ftyp`` comes first, then one ``moov``, ``mdat`` and others in any order, all of them whole. Box headers
    and ``moov`` (up to 16 MiB) are kept, the rest only goes by; frames are not decoded.
    """

    def __init__(self) -> None:
        self._length = 0
        self._head = b""
        self._header = bytearray()
        self._kind = b""
        self._passing = 0
        self._to_the_end = False
        self._movie: bytearray | None = None
        self._has_data = False
        self._boxes = 0

    def feed(self, chunk: bytes) -> None:
        """The next bytes. Raises :class:`NotMedia` as soon as they cannot be those of a film."""
        if self._length < _TYPE_BYTES:
            # What it is must be known before its first box is believed.
            self._head += chunk
            chunk = self._head
            self._length = len(chunk)
            if self._length < _TYPE_BYTES:
                return
            self._head = chunk[:SNIFF_BYTES]
            self._checked_type()
        else:
            self._length += len(chunk)
        position = 0
        while position < len(chunk):
            if self._passing or self._to_the_end:
                taken = len(chunk) - position
                if not self._to_the_end:
                    taken = min(taken, self._passing)
                    self._passing -= taken
                if self._kind == b"moov" and self._movie is not None:
                    if len(self._movie) + taken > _MAX_MOOV_BYTES:
                        raise NotMedia("broken_video")
                    self._movie += chunk[position : position + taken]
                position += taken
                continue
            wanted = 16 if self._header[:4] == b"\0\0\0\1" and len(self._header) >= 8 else 8
            taken = min(wanted - len(self._header), len(chunk) - position)
            self._header += chunk[position : position + taken]
            position += taken
            if len(self._header) == wanted and (wanted == 16 or self._header[:4] != b"\0\0\0\1"):
                self._begin_box()

    def facts(self) -> VideoFacts:
        """What the film is, once all of it went by. Raises :class:`NotMedia`."""
        content_type = self._checked_type()
        if self._header or self._passing:
            raise NotMedia("truncated")
        if self._movie is None or not self._has_data:
            # A film whose index comes last and was cut off just before it.
            raise NotMedia("truncated")
        facts: VideoFacts | None = None
        with suppress(struct.error):  # a box shorter than its fields
            facts = _movie_facts(bytes(self._movie), self._length, content_type)
        if facts is None:
            raise NotMedia("broken_video")
        return facts

    def _begin_box(self) -> None:
        first = self._boxes == 0
        self._boxes += 1
        kind, size, start = _box_header(bytes(self._header), 0)
        self._header.clear()
        if self._boxes > _MAX_BOXES or (kind == b"ftyp") != first:
            raise NotMedia("broken_video")
        self._to_the_end = size == 0
        if not self._to_the_end and size < start:
            raise NotMedia("broken_video")
        self._kind, self._passing = kind, max(size - start, 0)
        if kind == b"mdat":
            self._has_data = True
        elif kind == b"moov":
            if self._movie is not None or self._passing > _MAX_MOOV_BYTES:
                raise NotMedia("broken_video")
            self._movie = bytearray()

    def _checked_type(self) -> str:
        content_type = sniff(self._head)
        if content_type not in (MP4, QUICKTIME):
            raise NotMedia("not_a_video")
        return content_type


def describe_video(fileobj: IO[bytes]) -> VideoFacts:
    """Walk the boxes of an MP4 or QuickTime film from the file's position to its end.

    See :class:`FilmInspector`. Raises :class:`NotMedia`.
    """
    inspector = FilmInspector()
    while chunk := fileobj.read(_READ_BYTES):
        inspector.feed(chunk)
    return inspector.facts()


# Pictures

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# A marker that ends entropy-coded data: neither a stuffed byte nor a restart.
_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """ITU-T T.81, annex B: segments with a length each, and behind each scan's header its coded data."""
    size: tuple[int, int] | None = None
    scans = 0
    position = 2
    while position < len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1] if position + 1 < len(data) else 0
        if position + 1 >= len(data):
            break
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xD9:
            return size if scans else None
        if marker == 0x01:
            position += 2
            continue
        if position + 4 > len(data):
            break
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if length < 2:
            return None
        end = position + 2 + length
        if end > len(data):
            break
        if marker in _START_OF_FRAME:
            if size is not None:
                return None
            height, width = struct.unpack_from(">HH", data, position + 5)
            size = (width, height)
        position = end
        if marker == 0xDA:
            following = _JPEG_MARKER.search(data, end)
            if size is None:
                return None
            if following is None:
                break
            if following.start() == end:
                return None
            scans += 1
            position = following.end() - 2
    raise NotMedia("truncated")


def _png_size(data: bytes) -> tuple[int, int] | None:
    """ISO/IEC 15948: chunks, each with its checksum."""
    size: tuple[int, int] | None = None
    has_data = False
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != checksum:
            return None
        if (kind == b"IHDR") != (position == 8):
            return None
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", data, position + 8)
            size = (width, height)
        elif kind == b"IDAT":
            has_data = True
        elif kind == b"IEND":
            return size if has_data else None
        position = end
    raise NotMedia("truncated")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """RFC 9649: chunks in a RIFF container; the first tells the size."""
    end = int.from_bytes(data[4:8], "little") + 8
    if end > len(data):
        raise NotMedia("truncated")
    size: tuple[int, int] | None = None
    has_picture = False
    position = 12
    while position + 8 <= end:
        kind = data[position : position + 4]
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        start = position + 8
        if start + length > end:
            return None
        found: tuple[int, int] | None = None
        if kind == b"VP8 ":
            if data[start + 3 : start + 6] != b"\x9d\x01\x2a":
                return None
            width, height = struct.unpack_from("<HH", data, start + 6)
            found = (width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L":
            if data[start] != 0x2F:
                return None
            (bits,) = struct.unpack_from("<I", data, start + 1)
            found = ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        elif kind == b"VP8X":
            canvas = data[start + 4 : start + 10]
            size = (
                int.from_bytes(canvas[:3], "little") + 1,
                int.from_bytes(canvas[3:6], "little") + 1,
            )
        has_picture = has_picture or found is not None or kind == b"ANMF"
        size = size or found
        position = start + length + length % 2
    return size if has_picture else None


def _bmp_size(data: bytes) -> tuple[int, int] | None:
    (offset, header) = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _planes, depth = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _planes, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)
    if width <= 0 or depth not in (1, 2, 4, 8, 16, 24, 32):
        return None
    needed = (width * depth + 31) // 32 * 4 * height if compression in (0, 3, 6) else 2
    if offset + needed > len(data):
        if width * height > MAX_IMAGE_PIXELS:
            return (width, height)
        raise NotMedia("truncated")
    return (width, height)


_IMAGES: dict[str, Callable[[bytes], tuple[int, int] | None]] = {
    JPEG: _jpeg_size,
    PNG: _png_size,
    WEBP: _webp_size,
    BMP: _bmp_size,
}


# Videos (ISO/IEC 14496-12)


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
    """Type of a box, its size with header (*rest* where it says "to the end"), and its header's length."""
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
