from __future__ import annotations

import io
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from django_faceprint.media_types import (
    MAX_IMAGE_BYTES,
    FilmInspector,
    ImageFacts,
    NotMedia,
    VideoFacts,
    describe_image,
    describe_video,
    sniff,
)

# One second of ffmpeg's test picture: testsrc=d=1:s=64x48:r=5, libx264, +faststart.
CLIP = (Path(__file__).parent / "data" / "clip.mp4").read_bytes()


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
def test_anything_else_is_not(head: bytes) -> None:
    assert sniff(head) is None
    assert refused(head) == "not_an_image"
    assert refused(head, describe_video) == "not_a_video"


# Pictures


@pytest.mark.parametrize("content_type", PICTURES)
def test_pictures_are_described(content_type: str) -> None:
    assert describe_image(io.BytesIO(PICTURES[content_type])) == ImageFacts(content_type, 64, 40)


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("JPEG", {"mode": "L"}),
        ("JPEG", {"mode": "CMYK"}),
        ("PNG", {"mode": "RGBA"}),
        ("PNG", {"mode": "P"}),
        ("WEBP", {"lossless": True}),
        ("BMP", {"mode": "L"}),
    ],
)
def test_variants(format_name: str, options: dict) -> None:
    assert describe_image(io.BytesIO(picture(format_name, **options))).width == 64


@pytest.mark.parametrize("content_type", PICTURES)
def test_truncated_pictures_are_refused(content_type: str) -> None:
    whole = PICTURES[content_type]
    for kept in (len(whole) - 1, len(whole) - 2, len(whole) - 20, len(whole) // 2, len(whole) // 4, 70):
        assert refused(whole[:kept]) in ("truncated", "broken_image")


def test_truncated_pictures_are_refused_whatever_the_host_told_pillow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for content_type in ("image/jpeg", "image/png", "image/webp"):
        whole = PICTURES[content_type]
        assert refused(whole[: len(whole) // 2]) in ("truncated", "broken_image")


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


def test_fragmented_videos_need_not_say_how_long_they_are() -> None:
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


@given(st.data())
@hypothesis_settings(max_examples=200, deadline=None)
def test_the_verdict_on_a_film_does_not_depend_on_its_pieces(data: st.DataObject) -> None:
    film = bytearray(CLIP)
    for _ in range(data.draw(st.integers(0, 3))):
        film[data.draw(st.integers(0, 1500))] = data.draw(st.integers(0, 255))
    whole = bytes(film[: data.draw(st.integers(1, len(film)))])

    def verdict(pieces: list[bytes]) -> VideoFacts | str:
        inspector = FilmInspector()
        try:
            for piece in pieces:
                inspector.feed(piece)
            return inspector.facts()
        except NotMedia as error:
            return error.reason

    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=30)))
    pieces = [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]
    assert verdict(pieces) == verdict([whole])


@pytest.mark.parametrize("variant", [*PICTURES, "progressive", "lossless", "alpha", "palette"])
def test_every_proper_beginning_of_a_picture_is_refused(variant: str) -> None:
    whole = (
        PICTURES.get(variant)
        or {
            "progressive": lambda: picture("JPEG", progressive=True),
            "lossless": lambda: picture("WEBP", lossless=True),
            "alpha": lambda: picture("WEBP", mode="RGBA"),
            "palette": lambda: picture("BMP", mode="L"),
        }[variant]()
    )
    assert describe_image(io.BytesIO(whole)).width == 64
    for kept in range(len(whole)):
        assert refused(whole[:kept]) in ("truncated", "broken_image", "not_an_image")


def test_a_bomb_is_refused_by_what_its_header_says() -> None:
    jpeg = bytearray(PICTURES["image/jpeg"])
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    assert refused(bytes(jpeg)) == "too_many_pixels"
    bmp = bytearray(PICTURES["image/bmp"])
    bmp[18:26] = struct.pack("<ii", 65_000, 65_000)
    assert refused(bytes(bmp)) == "too_many_pixels"


def test_a_quicktime_film_of_a_phone_is_a_video() -> None:
    film = CLIP[:8] + b"qt  " + CLIP[12:]
    assert sniff(film) == "video/quicktime"
    facts = describe_video(io.BytesIO(film))
    assert facts.content_type == "video/quicktime"
    assert facts.duration == describe_video(io.BytesIO(CLIP)).duration
