from __future__ import annotations

import base64
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_faceprint.exceptions import FaceprintConfigurationError
from django_faceprint.privacy.keys import (
    OVERHEAD,
    KeyRing,
    SealBroken,
    UnknownKey,
    encryption_ring,
    generate_key,
    index_ring,
)

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
RING = KeyRing([NEW, OLD])
SECRET = "11010519491231002X 张三".encode()


@given(st.text(max_size=20), st.binary(max_size=300), st.binary(max_size=40))
def test_opens_what_it_sealed(purpose: str, plaintext: bytes, aad: bytes) -> None:
    purpose = purpose.encode("utf-8", "ignore").decode()
    sealed = RING.seal(purpose, plaintext, aad)
    assert len(sealed) == len(plaintext) + OVERHEAD
    assert sealed[:1] == b"\x01"
    assert sealed[1:5].hex() == RING.primary_id
    assert RING.open(purpose, sealed, aad) == plaintext


@given(st.data())
def test_any_flipped_bit_breaks_the_seal(data: st.DataObject) -> None:
    sealed = bytearray(RING.seal("p", SECRET, b"row"))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealBroken) as caught:
        RING.open("p", bytes(sealed), b"row")
    assert_says_nothing(caught.value)


@given(st.data())
def test_cut_or_extended_values_break(data: st.DataObject) -> None:
    sealed = RING.seal("p", SECRET, b"row")
    cut = data.draw(st.integers(0, len(sealed) - 1))
    with pytest.raises(SealBroken):
        RING.open("p", sealed[:cut], b"row")
    with pytest.raises(SealBroken):
        RING.open("p", sealed + data.draw(st.binary(min_size=1, max_size=20)), b"row")


def test_garbage_breaks() -> None:
    for garbage in (b"", b"\x01", b"\x00" * 60, b"\x02" + RING.seal("p", b"x", b"")[1:]):
        with pytest.raises(SealBroken):
            RING.open("p", garbage, b"")


def test_bound_to_purpose_and_associated_data() -> None:
    sealed = RING.seal("ab", SECRET, b"c")
    for purpose, aad in (("a", b"bc"), ("abc", b""), ("ab", b"d"), ("ab", b""), ("", b"abc")):
        with pytest.raises(SealBroken) as caught:
            RING.open(purpose, sealed, aad)
        assert type(caught.value) is SealBroken


def test_sealing_twice_gives_different_values() -> None:
    assert len({RING.seal("p", SECRET, b"") for _ in range(100)}) == 100


def test_rotation() -> None:
    before = KeyRing([OLD])
    sealed = before.seal("p", SECRET, b"row")
    assert RING.open("p", sealed, b"row") == SECRET
    assert not RING.is_current(sealed)
    again = RING.reseal("p", sealed, b"row")
    assert RING.is_current(again)
    assert KeyRing([NEW]).open("p", again, b"row") == SECRET
    assert RING.reseal("p", again, b"row") is again


def test_unknown_key_contains_only_the_key_id() -> None:
    sealed = KeyRing([OLD]).seal("p", SECRET, b"row")
    with pytest.raises(UnknownKey) as caught:
        KeyRing([NEW]).open("p", sealed, b"row")
    error = caught.value
    assert error.key_id == KeyRing([OLD]).primary_id
    assert error.key_id in str(error)
    assert_says_nothing(error)
    assert pickle.loads(pickle.dumps(error)).key_id == error.key_id  # noqa: S301


def test_key_ids_and_subkeys_are_stable() -> None:
    # Frozen: a change here makes every stored value unreadable.
    ring = KeyRing([OLD])
    assert ring.primary_id == "30568e7f"
    assert (
        ring.mac("index/name", b"x").hex()
        == "9ee50ab8d11cda8557f8d8188aa893818c592720d03a96f971bc557e4179bcd6"
    )
    stored = bytes.fromhex(
        "0130568e7f9064ef71b52cdd52332e97f36433ca53f18736c9205f2d652fd2ff84b339c913aa481c9da7"
    )
    assert ring.open("field/session.verify_token", stored, b"row") == b"synthetic"


def test_macs_differ_by_key_and_purpose() -> None:
    macs = {RING.mac(p, b"x", key_id=key) for p in ("a", "b") for key in RING.key_ids}
    assert len(macs) == 4
    assert RING.mac("a", b"x") == RING.mac("a", b"x", key_id=RING.primary_id)
    with pytest.raises(UnknownKey):
        RING.mac("a", b"x", key_id="00000000")


@pytest.mark.parametrize("keys", [[], [b"short"], [OLD, OLD], [b"x" * 33]])
def test_unusable_keys_are_refused(keys: list[bytes]) -> None:
    with pytest.raises(FaceprintConfigurationError):
        KeyRing(keys)


def test_a_ring_hides_its_keys_and_cannot_be_pickled() -> None:
    assert repr(RING) == f"<KeyRing {RING.primary_id}, {RING.key_ids[1]}>"
    with pytest.raises(TypeError):
        pickle.dumps(RING)
    with pytest.raises(TypeError):
        copy.deepcopy(RING)


def test_generated_keys_fit_the_settings() -> None:
    assert len(base64.urlsafe_b64decode(generate_key())) == 32
    assert generate_key() != generate_key()


def test_rings_follow_the_settings(settings) -> None:
    first, second = generate_key(), generate_key()
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [first]}
    sealed = encryption_ring().seal("p", SECRET, b"")
    assert encryption_ring() is encryption_ring()
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [second, first]}
    assert encryption_ring().open("p", sealed, b"") == SECRET
    assert not encryption_ring().is_current(sealed)
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [second]}
    with pytest.raises(UnknownKey):
        encryption_ring().open("p", sealed, b"")


def test_missing_or_shared_keys_are_refused(settings) -> None:
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": []}
    with pytest.raises(FaceprintConfigurationError, match="ENCRYPTION_KEYS"):
        encryption_ring()
    shared = generate_key()
    settings.FACEPRINT = settings.FACEPRINT | {
        "ENCRYPTION_KEYS": [generate_key(), shared],
        "INDEX_KEYS": [shared],
    }
    for ring in (encryption_ring, index_ring):
        with pytest.raises(FaceprintConfigurationError) as caught:
            ring()
        assert shared not in str(caught.value)


def test_threads_share_a_ring() -> None:
    ring = KeyRing([NEW, OLD])

    def work(number: int) -> bool:
        plaintext = b"%d" % number * 500
        return ring.open(f"p{number % 7}", ring.seal(f"p{number % 7}", plaintext, b"r"), b"r") == plaintext

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(2000)))


def assert_says_nothing(error: BaseException) -> None:
    assert error.__cause__ is None
    assert error.__context__ is None
    for text in (str(error), repr(error), repr(error.args)):
        assert "110105" not in text
        assert "张三" not in text
