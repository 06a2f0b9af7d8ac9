from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_faceprint.privacy.blind_index import (
    Kind,
    blind_index,
    blind_index_candidates,
    fingerprint,
    has_fingerprint,
    is_current,
    normalise,
)
from django_faceprint.privacy.keys import UnknownKey, generate_key, index_ring
from django_faceprint.privacy.masking import mask_name, mask_number

NUMBER = "11010519491231002X"


def test_an_index_is_a_key_id_and_a_hash() -> None:
    index = blind_index("id_number", NUMBER)
    assert re.fullmatch(r"[0-9a-f]{8}:[0-9a-f]{64}", index)
    assert len(index) == 73
    assert index.startswith(index_ring().primary_id)
    assert blind_index("id_number", NUMBER) == index


@pytest.mark.parametrize(
    "same",
    [
        "11010519491231002x",
        " 110105 19491231 002X\n",
        "110105-19491231-002X",
        "110105–19491231—002X",
        "110105\N{MINUS SIGN}19491231002X",
        "１１０１０５１９４９１２３１００２Ｘ",
        "110105\u3000194912\u00a031002X",
        "\ufeff110105\u200b19491231002X",
    ],
)
def test_numbers_are_found_in_every_notation(same: str) -> None:
    assert normalise("id_number", same) == NUMBER
    assert blind_index("id_number", same) == blind_index("id_number", NUMBER)


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("张三", "张三"),
        (" 张 三 ", "张三"),
        ("张\u3000三", "张三"),
        ("买买提·艾力", "买买提·艾力"),
        ("买买提 • 艾力", "买买提·艾力"),
        ("买买提・艾力", "买买提·艾力"),
        ("买买提･艾力", "买买提·艾力"),
        ("van der  Berg", "VAN DER BERG"),
        ("Ｊohn\tSmith", "JOHN SMITH"),
        ("José", "JOSÉ"),
        ("Jose\u0301", "JOSÉ"),
        ("", ""),
        (" \u200b", ""),
    ],
)
def test_names(written: str, normalised: str) -> None:
    assert normalise("name", written) == normalised


def test_tokens_keep_their_case() -> None:
    assert normalise("verify_token", " Ab3dEf6h\n") == "Ab3dEf6h"
    assert blind_index("verify_token", "Ab3d") != blind_index("verify_token", "ab3D")
    assert normalise("access_token", "24.aB") == "24.aB"
    assert normalise("log_id", " 1800000001 ") == "1800000001"


def test_masked_and_empty_values_are_not_indexed() -> None:
    for kind, value in (
        ("id_number", mask_number(NUMBER)),
        ("name", mask_name("张三")),
        ("name", "张＊"),
        ("verify_token", "****Rs8t"),
        ("verify_token", "＊Rs8t"),
        ("id_number", ""),
        ("id_number", " - "),
        ("verify_token", "  "),
    ):
        assert normalise(kind, value) == ""
        assert blind_index(kind, value) == ""
        assert blind_index_candidates(kind, value) == []
    assert is_current("")


def test_kinds_never_share_an_index() -> None:
    assert len({blind_index(kind, "SAME") for kind in Kind}) == len(Kind)
    with pytest.raises(ValueError, match="no_such_kind"):
        blind_index("no_such_kind", "x")


def test_lookups_try_every_key(settings: Any) -> None:
    old, new = settings.FACEPRINT["INDEX_KEYS"], [generate_key()]
    before = blind_index("id_number", NUMBER)
    settings.FACEPRINT = settings.FACEPRINT | {"INDEX_KEYS": new + old}
    after = blind_index("id_number", NUMBER)
    assert after != before
    assert blind_index_candidates("id_number", NUMBER) == [after, before]
    assert is_current(after)
    assert not is_current(before)


@given(st.sampled_from(list(Kind)), st.text())
def test_any_text_can_be_looked_up(kind: Kind, value: str) -> None:
    once = normalise(kind, value)
    assert normalise(kind, once) == once
    index = blind_index(kind, value)
    assert index in ("", *blind_index_candidates(kind, value))
    assert bool(index) == bool(once)


def test_fingerprints_recognise_equal_content(settings: Any) -> None:
    known = fingerprint("request", b"content")
    assert re.fullmatch(r"[0-9a-f]{8}:[0-9a-f]{64}", known)
    settings.FACEPRINT = settings.FACEPRINT | {
        "INDEX_KEYS": [generate_key(), *settings.FACEPRINT["INDEX_KEYS"]]
    }
    assert fingerprint("request", b"content") != known
    assert has_fingerprint("request", b"content", known)
    assert not has_fingerprint("request", b"other", known)
    assert not has_fingerprint("answer", b"content", known)
    settings.FACEPRINT = settings.FACEPRINT | {"INDEX_KEYS": [generate_key()]}
    with pytest.raises(UnknownKey):
        has_fingerprint("request", b"content", known)


def test_the_format_is_frozen() -> None:
    # Stored indexes must be found again by later releases.
    assert (
        blind_index("id_number", NUMBER)
        == "51983f48:4890fcc5e2939808d63147b754531445cadc55de813f3d607a05c5389d661395"
    )
    assert (
        blind_index("name", "张三")
        == "51983f48:bd494760590db103194a03385e1bb12a598a8def1781eaa06312b133a4b061cf"
    )


@pytest.fixture(autouse=True)
def _fixed_index_key(settings: Any) -> None:
    settings.FACEPRINT = settings.FACEPRINT | {"INDEX_KEYS": ["AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="]}
