"""The published test vectors: the package and an implementation from the documentation agree on each."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_faceprint.models import VerificationSession
from django_faceprint.privacy import files, keys
from django_faceprint.privacy.blind_index import blind_index, normalise
from django_faceprint.privacy.fields import Sealed, encrypted_fields
from django_faceprint.privacy.files import DecryptingReader, EncryptingStream, unwrap_file_key, wrap_file_key
from django_faceprint.privacy.keys import KeyRing, SealBroken

from . import reference

VECTORS = json.loads(
    (Path(__file__).resolve().parents[2] / "docs" / "format-vectors.json").read_text(encoding="utf-8")
)
FIELDS = {field.label: field for field in encrypted_fields(VerificationSession)}


def each(kind: str) -> Any:
    return pytest.mark.parametrize("vector", VECTORS[kind], ids=lambda vector: "")


@pytest.fixture
def under(settings: Any) -> Callable[..., None]:
    """Makes the keys of a vector those of the settings."""

    def use(**rings: str) -> None:
        listed = {
            name: [base64.urlsafe_b64encode(bytes.fromhex(key)).decode()] for name, key in rings.items()
        }
        settings.FACEPRINT = settings.FACEPRINT | listed

    return use


def fixed(monkeypatch: pytest.MonkeyPatch, module: Any, given: str) -> None:
    """Has *module* draw the random bytes that the vector names."""

    def urandom(length: int) -> bytes:
        assert length == len(given) // 2
        return bytes.fromhex(given)

    monkeypatch.setattr(module.os, "urandom", urandom)


@each("keys")
def test_key_ids(vector: dict[str, str]) -> None:
    key = bytes.fromhex(vector["key"])
    assert vector["key_id"] == KeyRing([key]).primary_id == reference.key_id(key).hex()


@each("fields")
def test_fields(vector: dict[str, str], under: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    under(ENCRYPTION_KEYS=vector["key"])
    key, row, field = bytes.fromhex(vector["key"]), uuid.UUID(vector["row"]), FIELDS[vector["label"]]
    plaintext, sealed = bytes.fromhex(vector["plaintext"]), bytes.fromhex(vector["sealed"])
    purpose, own = f"field/{field.label}", reference.field_binding(field.label, row)
    assert reference.seal(key, purpose, bytes.fromhex(vector["nonce"]), plaintext, own) == sealed
    assert reference.open_sealed(key, purpose, sealed, own) == plaintext
    value = field.unseal(row, Sealed(sealed, field.label))
    fixed(monkeypatch, keys, vector["nonce"])
    assert field.seal(row, value).token == sealed


@each("file_keys")
def test_wrapped_file_keys(vector: dict[str, str], under: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    under(ENCRYPTION_KEYS=vector["key"])
    asset, wrapped = uuid.UUID(vector["asset"]), bytes.fromhex(vector["wrapped"])
    opened = reference.open_sealed(bytes.fromhex(vector["key"]), "file key", wrapped, asset.bytes)
    assert opened.hex() == unwrap_file_key(wrapped, asset).hex() == vector["file_key"]
    fixed(monkeypatch, keys, vector["nonce"])
    assert wrap_file_key(opened, asset) == wrapped


@each("files")
def test_files(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    key, asset = bytes.fromhex(vector["file_key"]), uuid.UUID(vector["asset"])
    plaintext = reference.filler(vector["plaintext_length"])
    stored = reference.encrypt_file(key, asset, bytes.fromhex(vector["salt"]), plaintext)
    assert len(stored) == vector["stored_length"]
    assert hashlib.sha256(stored).hexdigest() == vector["stored_sha256"]
    assert stored.hex() == vector.get("stored", stored.hex())
    assert reference.decrypt_file(key, asset, stored) == plaintext
    assert DecryptingReader(io.BytesIO(stored), key, asset, len(plaintext)).read() == plaintext
    fixed(monkeypatch, files, vector["salt"])
    assert b"".join(EncryptingStream([plaintext], key, asset)) == stored


@each("blind_indexes")
def test_blind_indexes(vector: dict[str, str], under: Any) -> None:
    under(INDEX_KEYS=vector["key"])
    assert normalise(vector["kind"], vector["value"]) == vector["normalised"]
    assert blind_index(vector["kind"], vector["value"]) == vector["index"]
    if vector["normalised"]:
        key = bytes.fromhex(vector["key"])
        assert reference.blind_index(key, vector["kind"], vector["normalised"]) == vector["index"]
    else:
        assert vector["index"] == ""


@each("fields")
def test_a_value_moved_elsewhere_does_not_open(vector: dict[str, str], under: Any) -> None:
    under(ENCRYPTION_KEYS=vector["key"])
    sealed, row = bytes.fromhex(vector["sealed"]), uuid.UUID(vector["row"])
    for field in FIELDS.values():
        for other in (row, uuid.UUID(int=row.int + 1)):
            if (field.label, other) == (vector["label"], row):
                continue
            with pytest.raises(SealBroken):
                field.unseal(other, Sealed(sealed, field.label))


def test_files_of_one_key_cannot_be_cut_joined_or_reordered() -> None:
    vector = next(v for v in VECTORS["files"] if v["plaintext_length"] == 200_000)
    key, asset = bytes.fromhex(vector["file_key"]), uuid.UUID(vector["asset"])
    salt, plaintext = bytes.fromhex(vector["salt"]), reference.filler(200_000)
    stored = reference.encrypt_file(key, asset, salt, plaintext)
    head, sealed = stored[:25], reference.CHUNK + 16
    one, two, three, four = (stored[25 + n * sealed : 25 + (n + 1) * sealed] for n in range(4))
    other = reference.encrypt_file(key, asset, salt[::-1], plaintext)
    forged = {
        "reordered": (head + two + one + three + four, 200_000),
        "cut at a chunk": (head + one + two + three, 3 * reference.CHUNK),
        "cut in a chunk": (stored[:-1], 200_000),
        "chunk dropped": (head + one + three + four, 200_000 - reference.CHUNK),
        "chunk doubled": (head + one + one + two + three + four, 200_000 + reference.CHUNK),
        "chunk of another file": (head + one + other[25 + sealed : 25 + 2 * sealed] + three + four, 200_000),
        "header of another file": (other[:25] + stored[25:], 200_000),
        "longer": (stored + bytes(1), 200_001),
    }
    for data, length in forged.values():
        with pytest.raises(SealBroken):
            DecryptingReader(io.BytesIO(data), key, asset, length).read()
    with pytest.raises(SealBroken):
        DecryptingReader(io.BytesIO(stored), key, uuid.uuid4(), 200_000).read()
