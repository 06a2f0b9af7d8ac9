"""Signatures that others can verify without our keys: Ed25519 (RFC 8032) under the encryption keys.

The private key of a purpose is derived from an encryption key and stored nowhere; the public key reveals
neither. After a rotation there is another pair: what was signed before is verified with the old public key.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .keys import encryption_ring


def sign(purpose: str, data: bytes) -> bytes:
    """The signature (64 bytes) of *data* under the newest key. Each purpose has keys of its own."""
    return _key_pair(purpose, encryption_ring().primary_id).sign(data)


def public_keys(purpose: str) -> list[str]:
    """The public keys of a purpose for all configured encryption keys, newest first, each as a PEM file."""
    pairs = (_key_pair(purpose, key_id) for key_id in encryption_ring().key_ids)
    form = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    return [pair.public_key().public_bytes(*form).decode("ascii") for pair in pairs]


def _key_pair(purpose: str, key_id: str) -> Ed25519PrivateKey:
    seed = encryption_ring().mac(f"signature/{purpose}", b"Ed25519", key_id=key_id)
    return Ed25519PrivateKey.from_private_bytes(seed)
