"""Signatures: made as docs/en/bundle.md describes, with keys of their own for each purpose."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from django_faceprint.privacy.signatures import public_keys, sign

from . import reference

KEYS = (bytes(range(32)), bytes(range(32, 64)))


@pytest.fixture(autouse=True)
def ring(settings: Any) -> None:
    keys = [base64.urlsafe_b64encode(key).decode() for key in KEYS]
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": keys}


def own_key(purpose: str) -> Ed25519PublicKey:
    """The newest public key of a purpose."""
    key = load_pem_public_key(public_keys(purpose)[0].encode())
    assert isinstance(key, Ed25519PublicKey)
    return key


def test_the_private_key_is_derived_as_documented() -> None:
    expected = [
        Ed25519PrivateKey.from_private_bytes(reference.mac(key, "signature/bundle", b"Ed25519"))
        for key in KEYS
    ]
    found = [load_pem_public_key(pem.encode()) for pem in public_keys("bundle")]
    assert found == [pair.public_key() for pair in expected]
    assert sign("bundle", b"text") == expected[0].sign(b"text")


def test_a_signature_is_of_one_text_and_one_purpose() -> None:
    signature = sign("bundle", b"text")
    own_key("bundle").verify(signature, b"text")
    with pytest.raises(InvalidSignature):
        own_key("bundle").verify(signature, b"texts")
    with pytest.raises(InvalidSignature):
        own_key("other").verify(signature, b"text")


def test_no_encryption_key_is_given_out() -> None:
    assert not set(KEYS) & {own_key(purpose).public_bytes_raw() for purpose in ("bundle", "other")}
