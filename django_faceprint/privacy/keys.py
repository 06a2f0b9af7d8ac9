"""Authenticated encryption with rotating keys.

A sealed value carries the id of its key, so that keys can be added in front of the ring at any time:
new values use the newest key, older values stay readable until they have been sealed anew.

Format of a sealed value, version 1::

    version (1 byte, 0x01) ‖ key id (4 bytes) ‖ nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes)

AES-256-GCM under an HKDF-SHA256 subkey per purpose; the associated data bind version, key id, purpose
and the caller's own data, so that a value moved to another column or row does not open there.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..conf import conf
from ..exceptions import FaceprintConfigurationError

KEY_BYTES = 32
KEY_ID_BYTES = 4
NONCE_BYTES = 12
TAG_BYTES = 16
VERSION = b"\x01"
#: Bytes that sealing adds to a plaintext.
OVERHEAD = len(VERSION) + KEY_ID_BYTES + NONCE_BYTES + TAG_BYTES

_HEADER_BYTES = len(VERSION) + KEY_ID_BYTES
_LABEL = b"django-faceprint/1/"


class SealBroken(Exception):
    """A sealed value does not open: damaged, cut, moved from elsewhere, or of an unknown format.

    Carries nothing of the value.
    """

    def __init__(self, message: str = "The sealed value is damaged or belongs elsewhere.") -> None:
        super().__init__(message)


class UnknownKey(SealBroken):
    """No key of the ring has the id that the sealed value names. ``key_id`` is its only content."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"No configured key has the id {key_id}.")
        self.key_id = key_id

    def __reduce__(self) -> tuple[type[UnknownKey], tuple[str]]:
        return type(self), (self.key_id,)


def generate_key() -> str:
    """A new random key as it is written in the settings: 32 bytes, urlsafe base64."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode("ascii")


class KeyRing:
    """Keys of one kind, newest first. The first one seals, all of them open. Safe to share by threads.

    :param keys: raw keys of 32 bytes.

    Raises :class:`FaceprintConfigurationError` when there is no key, one has another length or is
    there twice.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise FaceprintConfigurationError("A key ring needs at least one key.")
        if any(len(key) != KEY_BYTES for key in keys):
            raise FaceprintConfigurationError(f"Every key must have {KEY_BYTES} bytes.")
        self._keys: dict[str, bytes] = {_derive(key, b"key id", KEY_ID_BYTES).hex(): key for key in keys}
        if len(self._keys) != len(keys):
            raise FaceprintConfigurationError("The same key appears twice in a key ring.")
        #: Ids of all keys (8 hex digits each), newest first.
        self.key_ids: tuple[str, ...] = tuple(self._keys)
        #: Id of the key that seals.
        self.primary_id: str = self.key_ids[0]
        self._ciphers: dict[tuple[str, str], AESGCM] = {}
        self._mac_keys: dict[tuple[str, str], hmac.HMAC] = {}

    def __repr__(self) -> str:
        return f"<KeyRing {', '.join(self.key_ids)}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("A key ring cannot be pickled or copied.")

    def seal(self, purpose: str, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt ``plaintext`` with the newest key for ``purpose``, bound to ``aad``.

        The result is :data:`OVERHEAD` bytes longer. Nonces are random: one purpose and key may seal
        2**32 values.
        """
        header = VERSION + bytes.fromhex(self.primary_id)
        nonce = os.urandom(NONCE_BYTES)
        cipher = self._cipher(self.primary_id, purpose)
        return header + nonce + cipher.encrypt(nonce, plaintext, _associated_data(header, purpose, aad))

    def open(self, purpose: str, sealed: bytes, aad: bytes) -> bytes:
        """The plaintext of what :meth:`seal` made with the same purpose and ``aad``.

        Raises :class:`UnknownKey` when its key is not in the ring, else :class:`SealBroken` on any
        mismatch. Neither has a cause or a context.
        """
        header, nonce = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES : _HEADER_BYTES + NONCE_BYTES]
        cipher = self._cipher(self.key_id_of(sealed), purpose)
        body = sealed[_HEADER_BYTES + NONCE_BYTES :]
        plaintext = None
        with suppress(InvalidTag):  # ours is raised outside of this block, so that nothing is chained to it
            plaintext = cipher.decrypt(nonce, body, _associated_data(header, purpose, aad))
        if plaintext is None:
            raise SealBroken
        return plaintext

    def key_id_of(self, sealed: bytes) -> str:
        """Id of the key that made ``sealed``.

        Raises :class:`SealBroken` when it is not a sealed value, :class:`UnknownKey` when the ring has no
        such key.
        """
        if len(sealed) < OVERHEAD or sealed[: len(VERSION)] != VERSION:
            raise SealBroken
        key_id = sealed[len(VERSION) : _HEADER_BYTES].hex()
        if key_id not in self._keys:
            raise UnknownKey(key_id)
        return key_id

    def is_current(self, sealed: bytes) -> bool:
        """Whether ``sealed`` was made with the newest key. Raises as :meth:`key_id_of`."""
        return self.key_id_of(sealed) == self.primary_id

    def reseal(self, purpose: str, sealed: bytes, aad: bytes) -> bytes:
        """``sealed`` under the newest key; the same bytes if it is there already. Raises as :meth:`open`."""
        plaintext = self.open(purpose, sealed, aad)
        return sealed if self.is_current(sealed) else self.seal(purpose, plaintext, aad)

    def mac(self, purpose: str, data: bytes, *, key_id: str | None = None) -> bytes:
        """HMAC-SHA256 (32 bytes) of ``data`` under a key's subkey for ``purpose``; the newest key by default.

        Raises :class:`UnknownKey` when the ring has no such key.
        """
        if key_id is None:
            key_id = self.primary_id
        prepared = self._mac_keys.get((key_id, purpose))
        if prepared is None:
            subkey = _derive(self._key(key_id), b"mac/" + purpose.encode(), KEY_BYTES)
            prepared = self._mac_keys[key_id, purpose] = hmac.new(subkey, digestmod="sha256")
        mac = prepared.copy()
        mac.update(data)
        return mac.digest()

    def _cipher(self, key_id: str, purpose: str) -> AESGCM:
        cipher = self._ciphers.get((key_id, purpose))
        if cipher is None:
            subkey = _derive(self._key(key_id), b"seal/" + purpose.encode(), KEY_BYTES)
            cipher = self._ciphers[key_id, purpose] = AESGCM(subkey)
        return cipher

    def _key(self, key_id: str) -> bytes:
        if key_id not in self._keys:
            raise UnknownKey(key_id)
        return self._keys[key_id]


def encryption_ring() -> KeyRing:
    """The ring of ``FACEPRINT["ENCRYPTION_KEYS"]``, read anew when the setting changes.

    Raises :class:`FaceprintConfigurationError` when keys are missing, malformed, or also index keys.
    """
    return _ring("ENCRYPTION_KEYS", conf.encryption_keys, conf.index_keys)


def index_ring() -> KeyRing:
    """The ring of ``FACEPRINT["INDEX_KEYS"]``; raises as :func:`encryption_ring`."""
    return _ring("INDEX_KEYS", conf.index_keys, conf.encryption_keys)


@lru_cache(maxsize=8)
def _ring(setting: str, keys: tuple[bytes, ...], others: tuple[bytes, ...]) -> KeyRing:
    if not keys:
        raise FaceprintConfigurationError(f'FACEPRINT["{setting}"] is empty.')
    if set(keys) & set(others):
        # Whoever holds an index key can test guesses; that must never be a key that decrypts.
        raise FaceprintConfigurationError("ENCRYPTION_KEYS and INDEX_KEYS of FACEPRINT share a key.")
    return KeyRing(keys)


def _derive(key: bytes, label: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=_LABEL + label).derive(key)


def _associated_data(header: bytes, purpose: str, aad: bytes) -> bytes:
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    encoded = purpose.encode()
    return header + len(encoded).to_bytes(2, "big") + encoded + aad
