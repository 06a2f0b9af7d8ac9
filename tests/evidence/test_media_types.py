from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from django_faceprint.evidence.media_types import (
    MAX_IMAGE_BYTES,
    ImageFacts,
    NotMedia,
    VideoFacts,
    VideoInspector,
    describe_image,
    describe_video,
    sniff,
)

# One second of ffmpeg's test picture: testsrc=d=1:s=64x48:r=5, libx264, +faststart.
CLIP = (Path(__file__).parent.parent / "data" / "clip.mp4").read_bytes()


def picture(
    format_name: str, size: tuple[int, int] = (64, 40), mode: str = "RGB", **options: object
) -> bytes:
    image = Image.effect_noise(size, 64).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


PICTURES = {
    "image/jpeg": picture("JPEG"),
    "image/png": picture("PNG"),
    "image/webp": picture("WEBP"),
    "image/bmp": picture("BMP"),
}


def refused(data: bytes, describe: object = describe_image) -> str:
    with pytest.raises(NotMedia) as caught:
        describe(io.BytesIO(data))  # type: ignore[operator]
    assert caught.value.__context__ is None
    return caught.value.reason


# Signatures


@pytest.mark.parametrize("content_type", PICTURES)
def test_pictures_are_known_by_their_signature(content_type: str) -> None:
    assert sniff(PICTURES[content_type]) == content_type
    assert sniff(PICTURES[content_type][:64]) == content_type


def test_videos_are_known_by_their_signature() -> None:
    assert sniff(CLIP[:64]) == "video/mp4"
    for brand in (b"isom", b"mp42", b"iso5", b"3gp5", b"M4V "):
        assert sniff(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0") == "video/mp4"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"BM",
        b"BM" + b"x" * 30,
        b"RIFF\0\0\0\0WAVE",
        b"GIF89a<script>",
        b"<!DOCTYPE html><html>",
        b'{"success": false}',
        b"%PDF-1.7",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
        b"\0\0\0\x18ftypM4A \0\0\0\0",
        b"ftypisom",
    ],
)
def test_other_content_has_no_media_type(head: bytes) -> None:
    assert sniff(head) is None
    assert refused(head) == "not_an_image"
    assert refused(head, describe_video) == "not_a_video"


# Pictures


@pytest.mark.parametrize("content_type", PICTURES)
def test_pictures_are_described(content_type: str) -> None:
    assert describe_image(io.BytesIO(PICTURES[content_type])) == ImageFacts(content_type, 64, 40)


VARIANTS = {
    "progressive": picture("JPEG", progressive=True),
    "restarts": picture("JPEG", restart_marker_blocks=1),
    "fine": picture("JPEG", quality=100, subsampling=0, optimize=True),
    "grey": picture("JPEG", mode="L"),
    "print": picture("JPEG", mode="CMYK"),
    "commented": picture("JPEG", comment=b"\xff\xd9" * 100, icc_profile=b"\xff\xd8\xff\xd9" * 40_000),
    "bits": picture("PNG", mode="1"),
    "palette": picture("PNG", mode="P"),
    "16 bits": picture("PNG", mode="I;16"),
    "alpha": picture("PNG", mode="LA"),
    "many": picture("PNG", (300, 400), mode="RGBA"),
    "animated": picture("PNG", save_all=True, append_images=[Image.new("RGB", (64, 40))]),
    "lossless": picture("WEBP", lossless=True),
    "transparent": picture("WEBP", mode="RGBA", exif=b"Exif\0\0 odd"),
    "video": picture("WEBP", save_all=True, append_images=[Image.effect_noise((64, 40), 9).convert("RGB")]),
    "indexed": picture("BMP", mode="P"),
    "black": picture("BMP", (61, 7), mode="1"),
    "odd": picture("BMP", (61, 7)),
    "masks": picture("BMP", mode="RGBA"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_sizes_are_those_of_a_decoder(name: str) -> None:
    with Image.open(io.BytesIO(VARIANTS[name])) as image:
        facts = describe_image(VARIANTS[name])
        assert (facts.width, facts.height) == image.size
        assert facts.content_type == image.get_format_mimetype().replace("apng", "png")


@pytest.mark.parametrize("name", [*PICTURES, *VARIANTS])
def test_every_truncated_picture_is_refused(name: str) -> None:
    whole = (PICTURES | VARIANTS)[name]
    step = max(1, len(whole) // 4000)
    last = range(max(0, len(whole) - 100), len(whole))
    for kept in {*range(0, len(whole), step), *range(min(200, len(whole))), *last}:
        assert refused(whole[:kept]) in ("truncated", "broken_image", "not_an_image")


@given(st.sampled_from(sorted(PICTURES) + sorted(VARIANTS)), st.data())
@hypothesis_settings(max_examples=300, deadline=None)
def test_damaged_variants_are_described_or_refused(name: str, data: st.DataObject) -> None:
    damaged = bytearray((PICTURES | VARIANTS)[name])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, min(len(damaged) - 1, 400)))
        piece = data.draw(st.binary(max_size=8))
        damaged[start : start + data.draw(st.integers(0, 8))] = piece
    try:
        facts = describe_image(bytes(damaged))
    except NotMedia:
        return
    assert facts.width > 0 < facts.height


@pytest.mark.parametrize("content_type", PICTURES)
def test_content_may_be_bytes_or_a_file(content_type: str) -> None:
    data = PICTURES[content_type]
    assert describe_image(data) == describe_image(io.BytesIO(data))


@pytest.mark.parametrize("name", ["image/jpeg", "image/png", "image/webp", "progressive"])
@pytest.mark.parametrize("padding", [b"\0" * 1000, b"\xff" * 1000, b"<html>", b"\xff\xd8\xff"])
def test_bytes_after_the_end_are_ignored(name: str, padding: bytes) -> None:
    data = (PICTURES | VARIANTS)[name] + padding
    assert describe_image(data).width == 64
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


QUANTIZATION = segment(0xDB, bytes(65))
FRAME = segment(0xC0, struct.pack(">BHHB", 8, 40, 64, 1) + b"\1\x11\0")
SCAN = segment(0xDA, b"\1\1\0\0\x3f\0") + b"data\xff\0\xff\xd0data"
END = b"\xff\xd9"


def test_smallest_jpeg() -> None:
    assert describe_image(b"\xff\xd8" + QUANTIZATION + FRAME + SCAN + END) == ImageFacts("image/jpeg", 64, 40)
    filled = (
        b"\xff\xd8"
        + b"\xff" * 9
        + QUANTIZATION
        + FRAME
        + SCAN
        + segment(0xC4, b"x")
        + SCAN
        + b"\xff\xff"
        + END
    )
    assert describe_image(filled).width == 64


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((QUANTIZATION, FRAME, SCAN), "truncated"),
        ((QUANTIZATION, FRAME, SCAN, b"\xff"), "truncated"),
        ((QUANTIZATION, FRAME, END), "broken_image"),
        ((QUANTIZATION, FRAME, SCAN[:10], END), "broken_image"),
        ((FRAME, SCAN, END), "broken_image"),
        ((QUANTIZATION, SCAN, END), "broken_image"),
        ((QUANTIZATION, FRAME, FRAME, SCAN, END), "broken_image"),
        ((QUANTIZATION, FRAME, b"text", SCAN, END), "broken_image"),
        ((QUANTIZATION, FRAME, b"\xff\0", SCAN, END), "broken_image"),
        ((QUANTIZATION, FRAME, b"\xff\xe0\0\1", SCAN, END), "broken_image"),
        ((QUANTIZATION, FRAME, b"\xff\xd8", SCAN, END), "broken_image"),
        ((QUANTIZATION, FRAME, segment(0xF0, b"x"), SCAN, END), "broken_image"),
        ((QUANTIZATION, FRAME.replace(b"\xff\xc0", b"\xff\xc3"), SCAN, END), "broken_image"),
        ((QUANTIZATION, segment(0xC0, b"\x08\0"), SCAN, END), "broken_image"),
        (
            (QUANTIZATION, segment(0xC0, struct.pack(">BHHB", 12, 40, 64, 1) + b"\1\x11\0"), SCAN, END),
            "broken_image",
        ),
        (
            (QUANTIZATION, segment(0xC0, struct.pack(">BHHB", 8, 0, 64, 1) + b"\1\x11\0"), SCAN, END),
            "broken_image",
        ),
        (
            (QUANTIZATION, segment(0xC0, struct.pack(">BHHB", 8, 7000, 7000, 1) + b"\1\x11\0"), SCAN, END),
            "too_many_pixels",
        ),
        ((QUANTIZATION, FRAME, segment(0xDA, b"\1\2\0\0\x3f\0"), b"data", END), "broken_image"),
        ((QUANTIZATION, FRAME, segment(0xDA, b""), b"data", END), "broken_image"),
        ((QUANTIZATION, FRAME, *[b"\xff\xd0"] * 60_000, SCAN, END), "broken_image"),
        ((b"\xff" * 1_000_000,), "truncated"),
        ((QUANTIZATION, FRAME, SCAN, b"\xff\0" * 1_000_000), "truncated"),
    ],
)
def test_broken_jpegs(parts: tuple[bytes, ...], reason: str) -> None:
    start = b"\xff\xd8" if parts[0].startswith(b"\xff") else b"\xff\xd8\xff"
    assert refused(start + b"".join(parts)) == reason


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def ihdr(width: int = 64, height: int = 40, depth: int = 8, colour: int = 0, rest: bytes = b"\0\0\0") -> Any:
    return b"IHDR", struct.pack(">IIBB", width, height, depth, colour) + rest


IDAT, IEND = (b"IDAT", b"pixels"), (b"IEND", b"")


def test_smallest_png() -> None:
    assert describe_image(png(ihdr(), IDAT, IEND)) == ImageFacts("image/png", 64, 40)
    assert (
        describe_image(png(ihdr(colour=3), (b"PLTE", b"rgb"), (b"tEXt", b""), IDAT, IDAT, IEND)).width == 64
    )


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ((IDAT, ihdr(), IEND), "broken_image"),
        ((ihdr(), ihdr(), IDAT, IEND), "broken_image"),
        ((ihdr(), IEND), "broken_image"),
        ((ihdr(), (b"IDAT", b""), IEND), "broken_image"),
        ((ihdr(), IDAT, (b"tEXt", b""), IDAT, IEND), "broken_image"),
        ((ihdr(colour=3), IDAT, IEND), "broken_image"),
        ((ihdr(colour=1), IDAT, IEND), "broken_image"),
        ((ihdr(depth=3), IDAT, IEND), "broken_image"),
        ((ihdr(rest=b"\0\0\2"), IDAT, IEND), "broken_image"),
        ((ihdr(rest=b"\0\0"), IDAT, IEND), "broken_image"),
        ((ihdr(), (b"ID\0T", b"x"), IEND), "broken_image"),
        ((ihdr(width=0), IDAT, IEND), "broken_image"),
        ((ihdr(width=2**31 - 1, height=2**31 - 1), IDAT, IEND), "too_many_pixels"),
        ((ihdr(), *[(b"tEXt", b"")] * 60_000, IDAT, IEND), "broken_image"),
    ],
)
def test_broken_pngs(chunks: tuple[tuple[bytes, bytes], ...], reason: str) -> None:
    assert refused(png(*chunks)) == reason


def webp(*chunks: bytes, size: int | None = None) -> bytes:
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content) if size is None else size) + content


def riff(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def vp8(width: int = 64, height: int = 40, tag: bytes = b"\0\0\0", code: bytes = b"\x9d\x01\x2a") -> bytes:
    return riff(b"VP8 ", tag + code + struct.pack("<HH", width, height) + b"xyz")


def vp8x(width: int = 64, height: int = 40, flags: int = 0) -> bytes:
    content = bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff(b"VP8X", content)


def vp8l(width: int = 64, height: int = 40, first: int = 0x2F) -> bytes:
    return riff(b"VP8L", bytes([first]) + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + b"xy")


def test_smallest_webps() -> None:
    expected = ImageFacts("image/webp", 64, 40)
    animation = riff(b"ANMF", bytes(16) + vp8(8, 8))
    for chunks in (
        (vp8(),),
        (vp8l(),),
        (vp8x(), vp8()),
        (vp8x(), riff(b"ICCP", b"x"), vp8l()),
        (vp8x(), animation),
    ):
        assert describe_image(webp(*chunks)) == expected
    unpadded = webp(vp8())[:-1]
    assert describe_image(unpadded[:4] + struct.pack("<I", len(unpadded) - 8) + unpadded[8:]) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (webp(), "broken_image"),
        (webp(size=0), "broken_image"),
        (webp(vp8(), size=2**32 - 1), "truncated"),
        (webp(vp8(), size=20), "broken_image"),
        (webp(riff(b"EXIF", b"x"), vp8()), "broken_image"),
        (webp(vp8(0)), "broken_image"),
        (webp(vp8(tag=b"\1\0\0")), "broken_image"),
        (webp(vp8(tag=b"\xe0\xff\xff")), "broken_image"),
        (webp(vp8(code=b"xyz")), "broken_image"),
        (webp(vp8l(first=0)), "broken_image"),
        (webp(vp8x()), "broken_image"),
        (webp(riff(b"VP8X", b"x"), vp8()), "broken_image"),
        (webp(vp8x(65), vp8()), "broken_image"),
        (webp(vp8x(), riff(b"ANMF", bytes(16))), "broken_image"),
        (webp(vp8x(), riff(b"ANMF", b"")), "broken_image"),
        (webp(vp8(16_000, 16_000)), "too_many_pixels"),
        (webp(vp8x(2**24, 2**24), riff(b"ANMF", bytes(16) + vp8(8, 8))), "too_many_pixels"),
        (webp(vp8x(), *[riff(b"ICCP", b"")] * 60_000, vp8()), "broken_image"),
    ],
)
def test_broken_webps(data: bytes, reason: str) -> None:
    assert refused(data) == reason


def bmp(
    width: int = 4, height: int = 2, depth: int = 24, compression: int = 0, packed: int = 0, **more: Any
) -> bytes:
    pixels = more.get("pixels", bytes(24))
    start = more.get("start", 54)
    length = more.get("length", 54 + len(pixels))
    header = struct.pack(
        "<IiiHHIIIIII", 40, width, height, more.get("planes", 1), depth, compression, packed, 0, 0, 0, 0
    )
    return struct.pack("<2sIII", b"BM", length, 0, start) + header + pixels


def test_smallest_bmps() -> None:
    assert describe_image(bmp()) == describe_image(bmp(height=-2)) == ImageFacts("image/bmp", 4, 2)
    old = struct.pack("<2sIIIIHHHH", b"BM", 50, 0, 26, 12, 4, 2, 1, 24) + bytes(24)
    assert describe_image(old) == ImageFacts("image/bmp", 4, 2)
    packed = bmp(depth=8, compression=1, packed=6, pixels=b"\4\0\4\0\0\1")
    assert describe_image(packed).width == 4


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bmp(pixels=bytes(23), length=0), "truncated"),
        (bmp(length=1000), "truncated"),
        (bmp()[:40], "truncated"),
        (bmp(width=0), "broken_image"),
        (bmp(height=0), "broken_image"),
        (bmp(width=-4), "broken_image"),
        (bmp(planes=2), "broken_image"),
        (bmp(depth=5), "broken_image"),
        (bmp(compression=4), "broken_image"),
        (bmp(start=10), "broken_image"),
        (bmp(width=2**31 - 1, height=-(2**31)), "too_many_pixels"),
        (bmp(depth=8, compression=1, packed=6, pixels=b"\4\0\4\0\0"), "truncated"),
        (bmp(depth=8, compression=1, pixels=b"\4\0\4\0\0\1"), "truncated"),
    ],
)
def test_broken_bmps(data: bytes, reason: str) -> None:
    assert refused(data) == reason


def test_an_end_inside_a_thumbnail_is_not_the_end_of_the_picture() -> None:
    whole = PICTURES["image/jpeg"]
    segment = b"Exif\0\0" + whole
    with_thumbnail = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + whole[2:]
    assert describe_image(io.BytesIO(with_thumbnail)).width == 64
    assert refused(with_thumbnail[:-2]) == "truncated"


@given(st.sampled_from(sorted(PICTURES)), st.data())
@hypothesis_settings(max_examples=200, deadline=None)
def test_damaged_pictures_are_described_or_refused(content_type: str, data: st.DataObject) -> None:
    damaged = bytearray(PICTURES[content_type])
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        facts = describe_image(io.BytesIO(bytes(damaged)))
    except NotMedia:
        return
    assert facts.width > 0


def test_a_changed_byte_of_a_png_is_found() -> None:
    damaged = bytearray(PICTURES["image/png"])
    damaged[len(damaged) // 2] ^= 1
    assert refused(bytes(damaged)) == "broken_image"


@pytest.mark.parametrize("side", [6_400, 10_000, 60_000])
def test_pictures_with_too_many_pixels_are_not_decoded(side: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
    assert refused(bomb + chunk(b"IEND", b"")) == "too_many_pixels"


def test_pictures_with_too_many_bytes_are_not_decoded() -> None:
    assert refused(PICTURES["image/jpeg"].ljust(MAX_IMAGE_BYTES + 1, b"\0")) == "too_large"


def test_a_picture_is_not_a_video_and_the_other_way_round() -> None:
    assert refused(CLIP) == "not_an_image"
    assert refused(PICTURES["image/png"], describe_video) == "not_a_video"


class Failing(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 100:
            raise ConnectionError("storage went away")
        return super().read(min(size or 0, 64) if size != -1 else 64)


def test_errors_of_the_file_pass_through() -> None:
    for describe, data in ((describe_image, PICTURES["image/png"]), (describe_video, CLIP)):
        with pytest.raises(ConnectionError, match="went away"):
            describe(Failing(data))


# Videos


def box(kind: bytes, *content: bytes) -> bytes:
    joined = b"".join(content)
    return struct.pack(">I4s", len(joined) + 8, kind) + joined


def mvhd(duration: int, timescale: int = 1000, version: int = 0) -> bytes:
    times = struct.pack(">IIII", 0, 0, timescale, duration)
    if version:
        times = struct.pack(">QQIQ", 0, 0, timescale, duration)
    return box(b"mvhd", bytes([version, 0, 0, 0]), times, bytes(80))


def tkhd(width: int, height: int, *, turned: bool = False, version: int = 0) -> bytes:
    one = 1 << 16
    matrix = struct.pack(
        ">9i", *((0, one, 0, -one, 0, 0, 0, 0, 1 << 30) if turned else (one, 0, 0, 0, one, 0, 0, 0, 1 << 30))
    )
    times = bytes(32) if version else bytes(20)
    return box(
        b"tkhd",
        bytes([version, 0, 0, 7]),
        times,
        bytes(16),
        matrix,
        struct.pack(">II", width << 16, height << 16),
    )


def track(handler: bytes = b"vide", offsets: tuple[int, ...] = (), header: bytes = b"") -> bytes:
    table = box(b"stco", bytes(4), struct.pack(f">I{len(offsets)}I", len(offsets), *offsets))
    media = box(b"mdia", box(b"hdlr", bytes(8), handler, bytes(12)), box(b"minf", box(b"stbl", table)))
    return box(b"trak", header or tkhd(320, 240), media)


FTYP = box(b"ftyp", b"isom", bytes(4), b"isom")
MOOV = box(b"moov", mvhd(2500), track())
MDAT = box(b"mdat", bytes(1000))


def describe(*boxes: bytes) -> VideoFacts:
    return describe_video(io.BytesIO(b"".join(boxes)))


def test_a_real_clip() -> None:
    assert describe(CLIP) == VideoFacts("video/mp4", 1.0, 64, 48)


def test_boxes_in_any_order_after_the_first() -> None:
    expected = VideoFacts("video/mp4", 2.5, 320, 240)
    assert describe(FTYP, MOOV, MDAT) == expected
    assert describe(FTYP, MDAT, MOOV) == expected
    assert describe(FTYP, box(b"free", bytes(5000)), MOOV, MDAT, MDAT, box(b"\xa9xyz")) == expected
    large = struct.pack(">I4sQ", 1, b"mdat", 16 + 100) + bytes(100)
    assert describe(FTYP, large, MOOV) == expected
    assert describe(FTYP, MOOV, struct.pack(">I4s", 0, b"mdat") + bytes(100)) == expected


def test_versions_and_turned_pictures() -> None:
    long_form = box(b"moov", mvhd(2500, version=1), track(header=tkhd(320, 240, version=1)))
    assert describe(FTYP, long_form, MDAT) == VideoFacts("video/mp4", 2.5, 320, 240)
    turned = box(b"moov", mvhd(2500), track(b"soun"), track(header=tkhd(320, 240, turned=True)))
    assert describe(FTYP, turned, MDAT) == VideoFacts("video/mp4", 2.5, 240, 320)
    unsized = box(b"moov", mvhd(2500), track(header=tkhd(0, 0)))
    assert describe(FTYP, unsized, MDAT) == VideoFacts("video/mp4", 2.5, None, None)


def test_fragmented_videos_may_have_no_duration() -> None:
    mehd = box(b"mehd", bytes(4), struct.pack(">I", 4000))
    fragments = (box(b"moof", bytes(20)), MDAT)
    assert describe(FTYP, box(b"moov", mvhd(0), track(), box(b"mvex", mehd)), *fragments).duration == 4.0
    assert (
        describe(FTYP, box(b"moov", mvhd(0), track(), box(b"mvex", box(b"trex"))), *fragments).duration
        is None
    )


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ((FTYP,), "truncated"),
        ((FTYP, MOOV), "truncated"),
        ((FTYP, MDAT), "truncated"),
        ((FTYP, MOOV, MDAT[:-1]), "truncated"),
        ((FTYP, MDAT, MOOV[:-1]), "truncated"),
        ((FTYP, MOOV, MDAT, b"\0\0\0"), "truncated"),
        ((FTYP, MOOV, MDAT, bytes(16)), "broken_video"),
        ((FTYP, MOOV, MDAT, b"<html>not a box</html>"), "truncated"),
        ((FTYP, MOOV, MOOV, MDAT), "broken_video"),
        ((FTYP, FTYP, MOOV, MDAT), "broken_video"),
        ((FTYP, MOOV, b"\0\0\0\x07free", MDAT), "broken_video"),
        ((FTYP, box(b"moov", track()), MDAT), "broken_video"),
        ((FTYP, box(b"moov", mvhd(2500)), MDAT), "no_video_track"),
        ((FTYP, box(b"moov", mvhd(2500), track(b"soun")), MDAT), "no_video_track"),
        ((FTYP, box(b"moov", mvhd(0), track()), MDAT), "no_duration"),
        ((FTYP, box(b"moov", mvhd(2**32 - 1), track()), MDAT), "no_duration"),
        ((FTYP, box(b"moov", mvhd(1000, timescale=0), track()), MDAT), "no_duration"),
        ((FTYP, box(b"moov", mvhd(2**32 - 2, timescale=1), track()), MDAT), "broken_video"),
        ((FTYP, box(b"moov", mvhd(2500), track(offsets=(50, 100_000))), MDAT), "truncated"),
        ((FTYP, box(b"moov", mvhd(2500), track(header=box(b"tkhd", bytes(4)))), MDAT), "broken_video"),
        ((FTYP, box(b"moov", mvhd(2500), struct.pack(">I4s", 500, b"trak")), MDAT), "broken_video"),
        ((FTYP, *[box(b"free")] * 20_001, MOOV, MDAT), "broken_video"),
    ],
)
def test_broken_videos_are_refused(boxes: tuple[bytes, ...], reason: str) -> None:
    assert refused(b"".join(boxes), describe_video) == reason


def test_a_huge_index_is_not_read() -> None:
    moov = box(b"moov", bytes(17 * 1024 * 1024))
    assert refused(FTYP + moov + MDAT, describe_video) == "broken_video"


@given(st.integers(1, len(CLIP) - 1))
@hypothesis_settings(deadline=None)
def test_every_truncation_of_a_clip_is_refused(kept: int) -> None:
    assert refused(CLIP[:kept], describe_video) in ("truncated", "not_a_video", "broken_video")


@given(st.data())
@hypothesis_settings(max_examples=200, deadline=None)
def test_damaged_videos_are_described_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(CLIP)
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, 1500))] = data.draw(st.integers(0, 255))
    try:
        facts = describe_video(io.BytesIO(bytes(damaged)))
    except NotMedia:
        return
    assert facts.duration is None or facts.duration > 0


def test_a_bomb_is_refused_by_the_size_in_its_header() -> None:
    jpeg = bytearray(PICTURES["image/jpeg"])
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    assert refused(bytes(jpeg)) == "too_many_pixels"
    bmp = bytearray(PICTURES["image/bmp"])
    bmp[18:26] = struct.pack("<ii", 65_000, 65_000)
    assert refused(bytes(bmp)) == "too_many_pixels"


def test_a_quicktime_video_of_a_phone_is_a_video() -> None:
    video = CLIP[:8] + b"qt  " + CLIP[12:]
    assert sniff(video) == "video/quicktime"
    facts = describe_video(io.BytesIO(video))
    assert facts.content_type == "video/quicktime"
    assert facts.duration == describe_video(io.BytesIO(CLIP)).duration


# Streamed videos


def streamed(data: bytes, cuts: list[int]) -> VideoFacts | str:
    video = VideoInspector()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    try:
        for start, end in pairwise(edges):
            video.feed(data[start:end])
        assert video.position == len(data)
    except NotMedia as error:
        # The refusal is final.
        for again in (lambda: video.feed(b"more"), video.facts):
            with pytest.raises(NotMedia, match=error.reason):
                again()
        return error.reason
    try:
        return video.facts()
    except NotMedia as error:
        return error.reason


def from_file(data: bytes) -> VideoFacts | str:
    try:
        return describe_video(io.BytesIO(data))
    except NotMedia as error:
        return error.reason


VIDEOS = [
    CLIP,
    FTYP + MOOV + MDAT,
    FTYP + MDAT + MOOV,
    FTYP + MDAT + struct.pack(">I4s", 0, b"moov") + MOOV[8:],
    FTYP + MOOV + struct.pack(">I4s", 0, b"mdat") + bytes(100),
    FTYP + MOOV + struct.pack(">I4sQ", 1, b"mdat", 16 + 100) + bytes(100),
    FTYP + MOOV + struct.pack(">I4sQ", 1, b"mdat", 0) + bytes(100),
    FTYP + MDAT + struct.pack(">I4s", 8, b"moov"),
    FTYP + box(b"moov", mvhd(2500), track(offsets=(50, 100_000))) + MDAT,
    struct.pack(">I4s4sI", 1, b"ftyp", b"isom", 0) + struct.pack(">I", 20) + MOOV + MDAT,
    struct.pack(">I4s4s", 8, b"ftyp", b"isom") + MOOV + MDAT,
]


@given(st.sampled_from(VIDEOS), st.data())
@hypothesis_settings(max_examples=400, deadline=None)
def test_a_streamed_video_has_the_facts_of_the_file(video: bytes, data: st.DataObject) -> None:
    damaged = bytearray(video[: data.draw(st.integers(0, len(video)) | st.just(len(video)))])
    for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
        damaged[data.draw(st.integers(0, min(len(damaged) - 1, 1500)))] = data.draw(st.integers(0, 255))
    cuts = data.draw(st.lists(st.integers(0, 2**20), max_size=12))
    assert streamed(bytes(damaged), cuts) == from_file(bytes(damaged))


@pytest.mark.parametrize("video", VIDEOS)
def test_a_video_fed_byte_by_byte_has_the_facts_of_the_file(video: bytes) -> None:
    assert streamed(video, list(range(len(video)))) == from_file(video)


def test_index_that_reaches_to_the_end() -> None:
    assert from_file(VIDEOS[3]) == VideoFacts("video/mp4", 2.5, 320, 240)
    endless = FTYP + MDAT + struct.pack(">I4s", 0, b"moov") + bytes(17 * 1024 * 1024)
    assert streamed(endless, []) == from_file(endless) == "broken_video"


def test_a_streamed_video_is_not_kept_in_memory() -> None:
    video = VideoInspector()
    video.feed(FTYP + MOOV + struct.pack(">I4sQ", 1, b"mdat", 16 + 2**40))
    piece = bytes(1024 * 1024)
    tracemalloc.start()
    for _ in range(64):
        video.feed(piece)
    assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    tracemalloc.stop()
    with pytest.raises(NotMedia, match="truncated"):
        video.facts()


def test_only_headers_and_index_of_a_stored_video_are_read() -> None:
    class Counting(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.count += len(data)
            return data

    file = Counting(FTYP + box(b"mdat", bytes(5_000_000)) + MOOV)
    assert describe_video(file).width == 320
    assert file.count < len(FTYP + MOOV) + 100


@pytest.mark.parametrize(("offset", "reason"), [(10, None), (2**33, "truncated")])
def test_long_offsets(offset: int, reason: str | None) -> None:
    table = box(b"co64", bytes(4), struct.pack(">IQQ", 2, 9, offset))
    media = box(b"mdia", box(b"hdlr", bytes(8), b"vide", bytes(12)), box(b"minf", box(b"stbl", table)))
    video = FTYP + box(b"moov", mvhd(2500), box(b"trak", tkhd(320, 240), media)) + MDAT
    assert from_file(video) == (reason or VideoFacts("video/mp4", 2.5, 320, 240))
    short = video.replace(struct.pack(">IQQ", 2, 9, offset), struct.pack(">IQQ", 3, 9, offset))
    assert from_file(short) == "broken_video"
