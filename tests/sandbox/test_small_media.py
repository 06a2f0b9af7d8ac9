"""Media small enough for thousands of sessions: real pictures and videos all the same."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from django_faceprint.evidence.media_types import VideoInspector
from django_faceprint.sandbox.media import MediaGenerator, Video, digest


@pytest.mark.parametrize("size", [0, 4_000, 12_000])
def test_a_small_video_plays_and_keeps_its_size(size: int) -> None:
    video = Video("seed", size)
    assert size <= video.size <= max(size, 5_000)
    inspector = VideoInspector()
    for piece in video.read(0, video.size):
        inspector.feed(piece)
    facts = inspector.facts()
    assert (facts.content_type, facts.width, facts.height, facts.duration) == ("video/mp4", 96, 96, 1.0)
    assert digest(video) != digest(Video("other", size))


def test_the_usual_clip_is_used_when_it_fits() -> None:
    sizes = {size: Video("seed", size).size for size in (30_000, 37_000, 38_000, 300_000)}
    assert sizes == {size: size for size in sizes}


def test_a_read_beyond_the_end_returns_the_whole_video() -> None:
    video = Video("seed", 0)
    assert b"".join(video.read(0, 10**6)) == b"".join(video.read(0, video.size))


@pytest.mark.parametrize(
    ("kind", "pixels"), [("face", (120, 160)), ("frame", (120, 160)), ("id_front", (214, 135))]
)
def test_a_small_picture_decodes_and_is_unique(kind: str, pixels: tuple[int, int]) -> None:
    pictures = {MediaGenerator(image_size=8_000).picture(kind, seed) for seed in ("a:x", "b:x")}
    assert [len(data) for data in pictures] == [8_000, 8_000]
    for data in pictures:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.size == pixels
