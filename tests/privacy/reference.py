"""The formats once more, from ``docs/en/formats.md`` alone: nothing of the package is used here."""

from __future__ import annotations

import hashlib
import hmac
import struct
import uuid

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHUNK = 65_536


def hkdf(key: bytes, info: str, length: int, salt: bytes = b"") -> bytes:
    """RFC 5869 with SHA-256, for at most 32 bytes."""
    extracted = hmac.digest(salt or bytes(32), key, "sha256")
    return hmac.digest(extracted, info.encode() + b"\x01", "sha256")[:length]


def key_id(key: bytes) -> bytes:
    return hkdf(key, "django-faceprint/1/key id", 4)


def seal(key: bytes, purpose: str, nonce: bytes, plaintext: bytes, own: bytes) -> bytes:
    cipher, data = _sealing(key, purpose, own)
    return b"\x01" + key_id(key) + nonce + cipher.encrypt(nonce, plaintext, data)


def open_sealed(key: bytes, purpose: str, sealed: bytes, own: bytes) -> bytes:
    assert sealed[:5] == b"\x01" + key_id(key)
    cipher, data = _sealing(key, purpose, own)
    return cipher.decrypt(sealed[5:17], sealed[17:], data)


def field_binding(label: str, row: uuid.UUID) -> bytes:
    return label.encode() + b"\x00" + row.bytes


def mac(key: bytes, purpose: str, data: bytes) -> bytes:
    return hmac.digest(hkdf(key, f"django-faceprint/1/mac/{purpose}", 32), data, "sha256")


def blind_index(key: bytes, kind: str, normalised: str) -> str:
    return f"{key_id(key).hex()}:{mac(key, f'index/{kind}', normalised.encode()).hex()}"


def encrypt_file(key: bytes, asset: uuid.UUID, salt: bytes, plaintext: bytes) -> bytes:
    cipher, data = _file(key, asset, salt)
    chunks = [plaintext[at : at + CHUNK] for at in range(0, len(plaintext), CHUNK)] or [b""]
    body = [cipher.encrypt(_nonce(number, len(chunks)), chunk, data) for number, chunk in enumerate(chunks)]
    return struct.pack(">4sBI16s", b"DFPF", 1, CHUNK, salt) + b"".join(body)


def decrypt_file(key: bytes, asset: uuid.UUID, stored: bytes) -> bytes:
    magic, version, size, salt = struct.unpack(">4sBI16s", stored[:25])
    assert (magic, version, size) == (b"DFPF", 1, CHUNK)
    cipher, data = _file(key, asset, salt)
    body = stored[25:]
    chunks = [body[at : at + CHUNK + 16] for at in range(0, len(body), CHUNK + 16)]
    return b"".join(
        cipher.decrypt(_nonce(number, len(chunks)), chunk, data) for number, chunk in enumerate(chunks)
    )


def filler(length: int) -> bytes:
    """The plaintext of the files among the vectors: SHA-256 of a counter, again and again."""
    blocks = (hashlib.sha256(struct.pack(">Q", number)).digest() for number in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def _sealing(key: bytes, purpose: str, own: bytes) -> tuple[AESGCM, bytes]:
    name = purpose.encode()
    data = b"\x01" + key_id(key) + struct.pack(">H", len(name)) + name + own
    return AESGCM(hkdf(key, f"django-faceprint/1/seal/{purpose}", 32)), data


def _file(key: bytes, asset: uuid.UUID, salt: bytes) -> tuple[AESGCM, bytes]:
    cipher = AESGCM(hkdf(key, "django-faceprint/1/file", 32, salt))
    return cipher, b"\x01" + asset.bytes + struct.pack(">I", CHUNK)


def _nonce(number: int, count: int) -> bytes:
    return number.to_bytes(11, "big") + bytes([number == count - 1])
