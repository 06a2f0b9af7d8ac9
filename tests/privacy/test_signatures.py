"""Signatures: made as docs/en/bundle.md says, one purpose and one key each."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from django_faceprint.privacy.signatures import public_keys, sign

from . import reference

KEYS = (bytes(range(32)), bytes(range(32, 64)))


@pytest.fixture(autouse=True)
def ring(settings: Any) -> None:
    keys = [base64.urlsafe_b64encode(key).decode() for key in KEYS]
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": keys}


def test_the_private_key_is_made_as_documented() -> None:
    expected = [
        Ed25519PrivateKey.from_private_bytes(reference.mac(key, "signature/bundle", b"Ed25519"))
        for key in KEYS
    ]
    assert public_keys("bundle") == [pair.public_key().public_bytes_raw().hex() for pair in expected]
    signature = expected[0].sign(b"django-faceprint/1/bundle\x00text").hex()
    assert sign("bundle", b"text") == (public_keys("bundle")[0], signature)


def test_a_signature_is_of_one_text_and_one_purpose() -> None:
    key, signature = sign("bundle", b"text")
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    public.verify(bytes.fromhex(signature), b"django-faceprint/1/bundle\x00text")
    for other in (b"text", b"django-faceprint/1/bundle\x00texts", b"django-faceprint/1/other\x00text"):
        with pytest.raises(InvalidSignature):
            public.verify(bytes.fromhex(signature), other)
    assert sign("other", b"text")[0] != key


def test_no_key_of_ours_is_given_out() -> None:
    assert not {key.hex() for key in KEYS} & set(public_keys("bundle"))
