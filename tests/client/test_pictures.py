"""Pictures in answers: decoded once by a cache, and anew without one."""

from __future__ import annotations

import base64

import pytest

from django_faceprint.client import PictureCache, decode_picture
from django_faceprint.client.pictures import MAX_CACHED

PICTURES = [bytes([number]) * 300 for number in range(MAX_CACHED + 1)]


def text_of(picture: bytes) -> str:
    # A text of its own each time, as in another answer.
    return base64.b64encode(picture).decode("ascii")


def test_the_same_text_gives_the_same_object() -> None:
    cache = PictureCache()
    first = cache.decode(text_of(PICTURES[0]))
    assert first == PICTURES[0]
    assert cache.decode(text_of(PICTURES[0])) is first
    assert cache.decode(text_of(PICTURES[1])) == PICTURES[1]


def test_nothing_is_kept_without_a_cache() -> None:
    first = decode_picture(text_of(PICTURES[0]))
    again = decode_picture(text_of(PICTURES[0]))
    assert again == first
    assert again is not first


def test_a_cache_keeps_the_first_pictures_only() -> None:
    cache = PictureCache()
    first = [cache.decode(text_of(picture)) for picture in PICTURES]
    again = [cache.decode(text_of(picture)) for picture in PICTURES]
    assert first == again == PICTURES
    assert [one is other for one, other in zip(first, again, strict=True)] == [True] * MAX_CACHED + [False]


@pytest.mark.parametrize("text", ["not base64!", "AAA", "\ud800", "AAAA\x00"])
def test_a_text_that_is_not_base64_is_refused_each_time(text: str) -> None:
    cache = PictureCache()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"\Anot base64\Z"):
            cache.decode(text)


def test_line_breaks_are_tolerated() -> None:
    assert decode_picture("AAEC\r\nAwQF") == bytes(range(6))
