"""Media types of archived pictures and videos, by their content instead of the upstream headers.

A signature proves little, so the whole structure is checked: segments, chunks or boxes, with their lengths,
checksums and order. Truncated and unknown files are refused. Neither pixels nor frames are decoded, so a
decompression bomb does no harm here. Plain Python, no Django.

Errors of the file object itself (a storage that fails, a broken seal) pass through unchanged.
"""

from __future__ import annotations

import io
import re
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

JPEG = "image/jpeg"
PNG = "image/png"
WEBP = "image/webp"
BMP = "image/bmp"
MP4 = "video/mp4"
# An iPhone's camera records this type.
QUICKTIME = "video/quicktime"

#: File name extension of each type.
EXTENSIONS = {JPEG: "jpg", PNG: "png", WEBP: "webp", BMP: "bmp", MP4: "mp4", QUICKTIME: "mov"}

#: Bytes that :func:`sniff` needs to recognise every type.
SNIFF_BYTES = 64
#: Larger pictures are refused.
MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_IMAGE_PIXELS = 40_000_000
#: A video with a longer duration is broken.
MAX_VIDEO_SECONDS = 24 * 3600.0

_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})
# HEIF pictures and audio start with "ftyp" too; these are the brands of videos.
_MP4_BRANDS = frozenset(
    b"isom iso2 iso3 iso4 iso5 iso6 iso7 iso8 iso9 isoa isob isoc mp41 mp42 mp71 avc1 dash cmfc MSNV mmp4 "
    b"M4VH M4VP 3gp4 3gp5 3gp6 3gp7 3gp8 3gp9 3g2a 3g2b 3g2c".split()
) | {b"M4V "}
_MAX_BOXES = 20_000
_MAX_MOOV_BYTES = 16 * 1024 * 1024
#: The first box's header and brand.
_FIRST_BYTES = 12
_ENDLESS = 2**80
_NOTHING = memoryview(b"")


class NotMedia(Exception):
    """The content is no valid picture or video. ``reason`` is a short code:

    ``not_an_image``, ``not_a_video`` (the signature), ``too_large`` (bytes), ``too_many_pixels``,
    ``truncated``, ``broken_image``, ``broken_video``, ``no_video_track``, ``no_duration``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class ImageFacts:
    """Content type and size in pixels of a picture."""

    content_type: str
    width: int
    height: int


@dataclass(frozen=True)
class VideoFacts:
    """Content type, duration in seconds, and size in pixels (upright, as players show it) of a video.

    None where the file does not contain it; a fragmented file may have no duration.
    """

    content_type: str
    duration: float | None
    width: int | None
    height: int | None


def sniff(head: bytes) -> str | None:
    """Content type by signature: JPEG, PNG, WEBP, BMP, MP4, QuickTime or None. A match is no proof.

    :param head: the first :data:`SNIFF_BYTES` bytes, or the whole file.
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


def describe_image(content: bytes | IO[bytes]) -> ImageFacts:
    """Check that a JPEG, PNG, WEBP or BMP is whole, and read its size. A file is read from its position on.

    Limits: 32 MiB, 40 megapixels. Bytes after the end of a JPEG, PNG or WEBP are ignored, as viewers do.
    Compressed pixels are not decoded, so they may still be damaged. Raises :class:`NotMedia`.
    """
    data = content if isinstance(content, bytes) else _read(content, MAX_IMAGE_BYTES + 1)
    if len(data) > MAX_IMAGE_BYTES:
        raise NotMedia("too_large")
    content_type = sniff(data[:SNIFF_BYTES])
    walk = _WALKS.get(content_type or "")
    if content_type is None or walk is None:
        raise NotMedia("not_an_image")
    width, height = walk(data)
    if not width or not height:
        raise NotMedia("broken_image")
    if width * height > MAX_IMAGE_PIXELS:
        raise NotMedia("too_many_pixels")
    return ImageFacts(content_type, width, height)


def describe_video(fileobj: IO[bytes]) -> VideoFacts:
    """Check the boxes of an MP4 or QuickTime video: ``ftyp`` first, one ``moov``, ``mdat``, all whole.

    The file must be seekable. Only box headers and ``moov`` (up to 16 MiB) are read; frames are not decoded.
    Raises :class:`NotMedia`.
    """
    length = fileobj.seek(0, io.SEEK_END)
    fileobj.seek(0)
    video = VideoInspector()
    while chunk := _read(fileobj, video.wanted):
        video.feed(chunk)
        video.pass_over(length)
        fileobj.seek(video.position)
    return video.facts()


class VideoInspector:
    """:func:`describe_video` for a stream: :meth:`feed` it every chunk, of any size, then call :meth:`facts`.

    It keeps only the video's index (``moov``, up to 16 MiB).
    """

    def __init__(self) -> None:
        #: Number of bytes fed or passed over.
        self.position = 0
        self._content_type = ""
        self._boxes = 0
        self._has_data = False
        self._movie: bytearray | None = None
        self._refusal = ""
        # The header of a box or the index, until it has the length that is needed.
        self._kept = bytearray()
        self._needed = _FIRST_BYTES
        self._in_movie = False
        # Bytes to skip before that, and whether the current box goes to the end of the file.
        self._skipped = 0
        self._to_end = False

    def __repr__(self) -> str:
        return f"<VideoInspector at {self.position}>"

    @property
    def wanted(self) -> int:
        """Number of bytes still needed for the next decision, after those to skip."""
        return self._needed - len(self._kept)

    def feed(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the video. Raises :class:`NotMedia` as soon as it cannot be valid."""
        if self._refusal:
            raise NotMedia(self._refusal)
        size = len(chunk)
        self.position += size
        if size <= self._skipped:
            self._skipped -= size
            return
        view = memoryview(chunk)
        try:
            while size > self._skipped:
                view = view[self._skipped :]
                self._skipped = 0
                taken = view[: self.wanted]
                self._kept += taken
                view = view[len(taken) :]
                size = len(view)
                if not self.wanted:
                    self._decide()
            self._skipped -= size
        except NotMedia as error:
            self._refusal = error.reason
            raise

    def pass_over(self, length: int) -> None:
        """Move ``position`` to the next byte that is needed, in a video of *length* bytes."""
        step = min(self._skipped, length - self.position)
        self.position += step
        self._skipped -= step

    def facts(self) -> VideoFacts:
        """The facts of the video, after its last byte. Raises :class:`NotMedia`."""
        if self._refusal:
            raise NotMedia(self._refusal)
        if not self._content_type and sniff(bytes(self._kept)) not in (MP4, QUICKTIME):
            raise NotMedia("not_a_video")
        movie = self._movie
        if self._in_movie and self._to_end:
            movie = self._kept
        elif self._kept or (self._skipped and not self._to_end) or self._in_movie:
            raise NotMedia("truncated")
        if movie is None or not self._has_data:
            # The index comes last, and the file was cut off just before it.
            raise NotMedia("truncated")
        facts: VideoFacts | None = None
        with suppress(struct.error):  # a box shorter than its fields
            facts = _movie_facts(memoryview(movie), self.position, self._content_type)
        if facts is None:
            raise NotMedia("broken_video")
        return facts

    def _decide(self) -> None:
        """Read the bytes that are kept: they are complete now."""
        if not self._in_movie:
            self._read_header()
            return
        if self._to_end:
            raise NotMedia("broken_video")  # too large
        self._movie = self._kept
        self._in_movie = False
        self._expect_header()

    def _read_header(self) -> None:
        if not self._content_type:
            content_type = sniff(bytes(self._kept))
            if content_type not in (MP4, QUICKTIME):
                raise NotMedia("not_a_video")
            self._content_type = content_type
        if self._kept[:4] == b"\0\0\0\1" and len(self._kept) < 16:
            self._needed = 16
            return
        kind, size, start = _box_header(bytes(self._kept), 0)
        seen = len(self._kept)
        self._boxes += 1
        self._to_end = not size
        # A size of 0 means "to the end", unless it is written in the long form.
        if (
            (size < max(start, seen) and not (size == 0 and start == 8))
            or (kind == b"ftyp") != (self._boxes == 1)
            or self._boxes >= _MAX_BOXES
        ):
            raise NotMedia("broken_video")
        if kind == b"moov":
            self._expect_movie(size, start)
            return
        self._has_data = self._has_data or kind == b"mdat"
        self._expect_header()
        self._skipped = size - seen if size else _ENDLESS

    def _expect_movie(self, size: int, start: int) -> None:
        if self._movie is not None or size - start > _MAX_MOOV_BYTES:
            raise NotMedia("broken_video")
        self._kept = bytearray()
        self._in_movie = True
        self._needed = size - start if size else _MAX_MOOV_BYTES + 1
        if not self._needed:
            self._decide()

    def _expect_header(self) -> None:
        self._kept = bytearray()
        self._needed = 8


# Pictures

_JPEG_FILL = re.compile(rb"\xff+([^\xff])", re.DOTALL)
# In compressed data, 0xFF is followed by a zero or by a restart marker.
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
#: Baseline, extended and progressive pictures, in Huffman or arithmetic coding.
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_JPEG_SEGMENTS = _JPEG_FRAMES | {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}
#: Maximum number of segments or chunks of a picture. Real pictures have hundreds, some PNGs thousands.
_MAX_PARTS = 50_000
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def _walk_jpeg(data: bytes) -> tuple[int, int]:
    """Walk all segments: an embedded thumbnail has an end marker of its own."""
    size: tuple[int, int] | None = None
    components = b""
    has_quantization = has_scan = False
    position = 2
    for _ in range(_MAX_PARTS):
        marker, position = _jpeg_marker(data, position)
        if marker == 0xD9:
            if not has_scan or size is None:
                raise NotMedia("broken_image")
            return size
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            continue
        if marker not in _JPEG_SEGMENTS:
            raise NotMedia("broken_image")
        segment = _jpeg_segment(data, position)
        position += 2 + len(segment)
        if marker == 0xDA:
            if size is None or not has_quantization or not _is_scan(segment, components):
                raise NotMedia("broken_image")
            has_scan = True
            position = _jpeg_scan_end(data, position)
        elif marker in _JPEG_FRAMES:
            if size is not None:
                raise NotMedia("broken_image")
            size, components = _jpeg_frame(segment)
        elif marker == 0xDB:
            has_quantization = True
    raise NotMedia("broken_image")


def _jpeg_marker(data: bytes, position: int) -> tuple[int, int]:
    """The marker at *position*, and the position after it."""
    found = _JPEG_FILL.match(data, position)
    if found is None:
        rest = data[position : position + 1]
        raise NotMedia("truncated" if rest in (b"", b"\xff") else "broken_image")
    return found[1][0], found.end()


def _jpeg_scan_end(data: bytes, position: int) -> int:
    """The position of the marker after the compressed data."""
    found = _JPEG_MARKER.search(data, position)
    if found is None:
        raise NotMedia("truncated")
    if found.start() == position:
        raise NotMedia("broken_image")
    return found.start()


def _jpeg_segment(data: bytes, position: int) -> bytes:
    length = int.from_bytes(data[position : position + 2], "big")
    if position + 2 > len(data) or position + length > len(data):
        raise NotMedia("truncated")
    if length < 2:
        raise NotMedia("broken_image")
    return data[position + 2 : position + length]


def _jpeg_frame(segment: bytes) -> tuple[tuple[int, int], bytes]:
    """(width, height), and the numbers of the colour components."""
    if len(segment) < 6:
        raise NotMedia("broken_image")
    precision, height, width, count = struct.unpack_from(">BHHB", segment)
    if precision != 8 or not 1 <= count <= 4 or len(segment) != 6 + 3 * count:
        raise NotMedia("broken_image")
    return (width, height), segment[6::3]


def _is_scan(segment: bytes, components: bytes) -> bool:
    count = segment[0] if segment else 0
    return (
        1 <= count <= len(components)
        and len(segment) == 4 + 2 * count
        and all(number in components for number in segment[1 : 1 + 2 * count : 2])
    )


def _walk_png(data: bytes) -> tuple[int, int]:
    view = memoryview(data)
    size: tuple[int, int] | None = None
    pixels = 0
    needs_palette = False
    before = b""
    position = 8
    for _ in range(_MAX_PARTS):
        if position + 8 > len(data):
            raise NotMedia("truncated")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if not kind.isalpha() or length >= 2**31 or (size is None) != (kind == b"IHDR"):
            raise NotMedia("broken_image")
        if end > len(data):
            raise NotMedia("truncated")
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise NotMedia("broken_image")
        if kind == b"IHDR":
            size, needs_palette = _png_header(data[position + 8 : end - 4])
        elif kind == b"PLTE":
            needs_palette = False
        elif kind == b"IDAT":
            if needs_palette or (pixels and before != b"IDAT"):
                raise NotMedia("broken_image")
            pixels += length
        elif kind == b"IEND":
            if not pixels or size is None:
                raise NotMedia("broken_image")
            return size
        before = kind
        position = end
    raise NotMedia("broken_image")


def _png_header(content: bytes) -> tuple[tuple[int, int], bool]:
    """(width, height), and whether a palette must follow."""
    if len(content) != 13:
        raise NotMedia("broken_image")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", content)
    if depth not in _PNG_DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise NotMedia("broken_image")
    return (width, height), colour == 3


def _walk_webp(data: bytes) -> tuple[int, int]:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise NotMedia("truncated")
    chunks = list(_riff_chunks(data, 12, end))
    if not chunks:
        raise NotMedia("broken_image")
    kind, start, stop = chunks[0]
    if kind != b"VP8X":
        return _webp_frame(data, *chunks[0])
    if stop - start < 10:
        raise NotMedia("broken_image")
    canvas = (
        1 + int.from_bytes(data[start + 4 : start + 7], "little"),
        1 + int.from_bytes(data[start + 7 : start + 10], "little"),
    )
    frames = 0
    for kind, start, stop in chunks:
        if kind in _WEBP_FRAMES:
            if _webp_frame(data, kind, start, stop) != canvas:
                raise NotMedia("broken_image")
            frames += 1
        elif kind == b"ANMF":
            inner = [chunk for chunk in _riff_chunks(data, start + 16, stop) if chunk[0] in _WEBP_FRAMES]
            if len(inner) != 1:
                raise NotMedia("broken_image")
            _webp_frame(data, *inner[0])
            frames += 1
    if not frames:
        raise NotMedia("broken_image")
    return canvas


def _riff_chunks(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, and start and end of the content, of each chunk between two positions."""
    for _ in range(_MAX_PARTS):
        if position >= end:
            return
        start = position + 8
        stop = start + int.from_bytes(data[position + 4 : start], "little")
        if stop > end:
            raise NotMedia("broken_image")
        yield data[position : position + 4], start, stop
        position = stop + (stop - start) % 2
    raise NotMedia("broken_image")


def _webp_frame(data: bytes, kind: bytes, start: int, stop: int) -> tuple[int, int]:
    head = data[start : min(stop, start + 10)]
    if kind == b"VP8L" and len(head) >= 5 and head[0] == 0x2F and not head[4] >> 5:
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    first_partition = int.from_bytes(head[:3], "little") >> 5
    if (
        kind == b"VP8 "
        and len(head) == 10
        and not head[0] & 1  # a key frame
        and head[3:6] == b"\x9d\x01\x2a"
        and first_partition <= stop - start - 10
    ):
        width, height = struct.unpack_from("<HH", head, 6)
        return width & 0x3FFF, height & 0x3FFF
    raise NotMedia("broken_image")


def _walk_bmp(data: bytes) -> tuple[int, int]:
    if len(data) < 26:
        raise NotMedia("truncated")
    length, _, start, header = struct.unpack_from("<IIII", data, 2)
    if header == 12:
        width, height, planes, depth = struct.unpack_from("<HHHH", data, 18)
        compression = packed = 0
    else:
        if len(data) < 14 + header:
            raise NotMedia("truncated")
        width, height, planes, depth, compression, packed = struct.unpack_from("<iiHHII", data, 18)
        height = abs(height)  # negative: from the top down
    if width <= 0 or planes != 1 or depth not in (1, 4, 8, 16, 24, 32) or start < 14 + header:
        raise NotMedia("broken_image")
    if (compression, depth) in ((1, 8), (2, 4)):
        if data[start + packed - 2 : start + packed] != b"\0\1" or packed < 2:
            raise NotMedia("truncated")
    elif compression in (0, 3):
        packed = (width * depth + 31) // 32 * 4 * height
    else:
        raise NotMedia("broken_image")
    if start + packed > len(data) or length > len(data):
        raise NotMedia("truncated" if width * height <= MAX_IMAGE_PIXELS else "too_many_pixels")
    return width, height


_WEBP_FRAMES = frozenset({b"VP8 ", b"VP8L"})
_WALKS: Mapping[str, Callable[[bytes], tuple[int, int]]] = {
    JPEG: _walk_jpeg,
    PNG: _walk_png,
    WEBP: _walk_webp,
    BMP: _walk_bmp,
}


# Videos (ISO/IEC 14496-12)


def _movie_facts(movie: memoryview, length: int, content_type: str) -> VideoFacts:
    boxes = _children(movie)
    duration = _duration(boxes)
    tracks = [content for kind, content in boxes if kind == b"trak"]
    for track in tracks:
        _check_offsets(track, length)
    for track in tracks:
        if _first(track, b"mdia", b"hdlr")[8:12].tobytes() == b"vide":
            width, height = _dimensions(_first(track, b"tkhd"))
            return VideoFacts(content_type, duration, width, height)
    raise NotMedia("no_video_track")


def _duration(boxes: list[tuple[bytes, memoryview]]) -> float | None:
    content = dict(boxes)
    mvhd = content.get(b"mvhd", _NOTHING)
    if mvhd[:1].tobytes() == b"\x01":
        timescale, duration = struct.unpack_from(">IQ", mvhd, 20)
        unknown = 2**64 - 1
    else:
        timescale, duration = struct.unpack_from(">II", mvhd, 12)
        unknown = 2**32 - 1
    if duration in (0, unknown) and b"mvex" in content:
        mehd = _first(content[b"mvex"], b"mehd")
        if not mehd:
            return None
        (duration,) = struct.unpack_from(">Q" if mehd[:1].tobytes() == b"\x01" else ">I", mehd, 4)
    if not timescale or duration in (0, unknown):
        raise NotMedia("no_duration")
    if duration > MAX_VIDEO_SECONDS * timescale:
        raise NotMedia("broken_video")
    return float(duration / timescale)


def _dimensions(tkhd: memoryview) -> tuple[int | None, int | None]:
    matrix = 52 if tkhd[:1].tobytes() == b"\x01" else 40
    a, _, _, _, d = struct.unpack_from(">5i", tkhd, matrix)
    width, height = (value >> 16 for value in struct.unpack_from(">II", tkhd, matrix + 36))
    if a == d == 0:  # turned by 90 degrees, as phones record
        width, height = height, width
    return width or None, height or None


def _check_offsets(track: memoryview, length: int) -> None:
    """Check that the media data to which the track's index points are within the file."""
    tables = _children(_first(track, b"mdia", b"minf", b"stbl"))
    for kind, form, width in ((b"stco", "I", 4), (b"co64", "Q", 8)):
        table = next((content for name, content in tables if name == kind), _NOTHING)
        if not table:
            continue
        (count,) = struct.unpack_from(">I", table, 4)
        if count * width > len(table) - 8:
            raise NotMedia("broken_video")
        offsets = array(form, table[8 : 8 + count * width].tobytes())
        if sys.byteorder == "little":
            offsets.byteswap()
        if max(offsets, default=0) >= length:
            raise NotMedia("truncated")


def _first(content: memoryview, *path: bytes) -> memoryview:
    """The content of the first box at *path*; empty when there is none."""
    for step in path:
        content = next((child for kind, child in _children(content) if kind == step), _NOTHING)
    return content


def _children(content: memoryview) -> list[tuple[bytes, memoryview]]:
    children: list[tuple[bytes, memoryview]] = []
    position = 0
    while position + 8 <= len(content):
        rest = len(content) - position
        kind, size, start = _box_header(content[position : position + 16], rest)
        if not start <= size <= rest or len(children) >= _MAX_BOXES:
            raise NotMedia("broken_video")
        children.append((kind, content[position + start : position + size]))
        position += size
    return children


def _box_header(header: bytes | memoryview, rest: int) -> tuple[bytes, int, int]:
    """Type of a box, its size including the header, and the length of the header; size 0: to the end."""
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
