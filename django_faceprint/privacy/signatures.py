"""Signatures that others can verify who hold no key of ours: Ed25519 (RFC 8032) under the encryption keys.

The private key of a purpose is made of an encryption key and kept nowhere; the public key tells nothing of
either. A rotation gives another pair, so what was signed before is verified with the public key of its time.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .keys import encryption_ring

_PREFIX = b"django-faceprint/1/"


def sign(purpose: str, data: bytes) -> tuple[str, str]:
    """The public key (64 hexadecimal digits) and the signature (128) of *data*, under the newest key.

    What is signed is ``django-faceprint/1/`` ‖ purpose ‖ 0x00 ‖ data: a signature serves one purpose.
    """
    pair = _pair(purpose, encryption_ring().primary_id)
    signature = pair.sign(_PREFIX + purpose.encode() + b"\x00" + data)
    return pair.public_key().public_bytes_raw().hex(), signature.hex()


def public_keys(purpose: str) -> list[str]:
    """The public keys of a purpose for all configured encryption keys, newest first."""
    return [
        _pair(purpose, key_id).public_key().public_bytes_raw().hex() for key_id in encryption_ring().key_ids
    ]


def _pair(purpose: str, key_id: str) -> Ed25519PrivateKey:
    seed = encryption_ring().mac(f"signature/{purpose}", b"Ed25519", key_id=key_id)
    return Ed25519PrivateKey.from_private_bytes(seed)
