"""Pictures in answers: decoded once within a block, and forgotten at its end."""

from __future__ import annotations

import base64

import pytest

from django_faceprint.client import decode_picture, remembering_pictures
from django_faceprint.client.pictures import MAX_REMEMBERED

PICTURES = [bytes([number]) * 300 for number in range(MAX_REMEMBERED + 1)]


def text_of(picture: bytes) -> str:
    # A text of its own each time, as in another answer.
    return base64.b64encode(picture).decode("ascii")


def test_within_a_block_the_same_text_gives_the_same_object() -> None:
    with remembering_pictures():
        first = decode_picture(text_of(PICTURES[0]))
        assert first == PICTURES[0]
        assert decode_picture(text_of(PICTURES[0])) is first
        assert decode_picture(text_of(PICTURES[1])) == PICTURES[1]


def test_nothing_is_remembered_after_the_block_or_without_one() -> None:
    with remembering_pictures():
        inside = decode_picture(text_of(PICTURES[0]))
    outside = decode_picture(text_of(PICTURES[0]))
    assert outside == inside
    assert outside is not inside
    assert decode_picture(text_of(PICTURES[0])) is not outside


def test_no_more_than_some_are_remembered() -> None:
    with remembering_pictures():
        first = [decode_picture(text_of(picture)) for picture in PICTURES]
        again = [decode_picture(text_of(picture)) for picture in PICTURES]
    assert first == again == PICTURES
    assert [one is other for one, other in zip(first, again, strict=True)] == [True] * MAX_REMEMBERED + [
        False
    ]


@pytest.mark.parametrize("text", ["not base64!", "AAA", "\ud800", "AAAA\x00"])
def test_what_is_no_base64_is_refused_each_time(text: str) -> None:
    with remembering_pictures():
        for _ in range(2):
            with pytest.raises(ValueError, match=r"\Anot base64\Z"):
                decode_picture(text)


def test_line_breaks_are_tolerated() -> None:
    assert decode_picture("AAEC\r\nAwQF") == bytes(range(6))
