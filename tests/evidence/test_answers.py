"""Answers as evidence: pictures are removed from them."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any
from unittest.mock import Mock

import pytest

from django_faceprint.client import PictureCache
from django_faceprint.evidence import answers
from django_faceprint.models import VerificationSession

PICTURE = b"\xff\xd8 a picture \xff\xd9"
DIGEST = hashlib.sha256(PICTURE).hexdigest()


def answer_with(text: str) -> bytes:
    return json.dumps({"success": True, "result": {"idcard_images": {"front_base64": text}}}).encode()


def removed_from(text: str, **more: Any) -> Any:
    row = answers.make_answer(VerificationSession(), "result_detail", answer_with(text), **more)
    assert row.parsed
    return json.loads(row.body)["result"]["idcard_images"]["front_base64"]


def test_a_cached_picture_is_neither_decoded_nor_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    text = base64.b64encode(PICTURE).decode("ascii")
    cache = PictureCache()
    picture = cache.decode(text)
    cached = {"00": b"another", DIGEST: picture}
    decode, digest = Mock(wraps=base64.b64decode), Mock(wraps=hashlib.sha256)
    monkeypatch.setattr(base64, "b64decode", decode)
    monkeypatch.setattr(hashlib, "sha256", digest)
    removed = removed_from(text, pictures={DIGEST: "the asset"}, cached=cached, decode=cache.decode)
    assert removed == {"removed": "picture", "sha256": DIGEST, "asset": "the asset"}
    assert not [call for call in decode.mock_calls if text in call.args]
    assert not [call for call in digest.mock_calls if picture in call.args]


@pytest.mark.parametrize("cached", [{}, {DIGEST: PICTURE}])
def test_another_picture_has_its_own_hash(cached: dict[str, bytes]) -> None:
    other = bytes(reversed(PICTURE))
    assert len(other) == len(PICTURE)
    text = base64.b64encode(other).decode("ascii")
    removed = removed_from(text, pictures={DIGEST: "the asset"}, cached=cached)
    assert removed == {"removed": "picture", "sha256": hashlib.sha256(other).hexdigest(), "asset": None}


@pytest.mark.parametrize("text", ["not base64!", base64.b64encode(PICTURE).decode("ascii")[:-1], "\ud800"])
def test_a_picture_in_broken_base64_is_removed_as_well(text: str) -> None:
    removed = removed_from(text, cached={DIGEST: PICTURE})
    assert removed["sha256"] == hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
