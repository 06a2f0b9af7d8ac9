"""Authenticated encryption with rotating keys.

A sealed value contains the id of its key. A new key can be put in front of the ring at any time: new
values use it, and older values stay readable with the older keys until they are sealed again.

Format of a sealed value, version 1::

    version (1 byte, 0x01) ‖ key id (4 bytes) ‖ nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes)

AES-256-GCM under an HKDF-SHA256 subkey per purpose. The associated data are version, key id, purpose and
the caller's own data: a value that was moved to another column or row does not open there.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..conf import KEY_BYTES, conf
from ..exceptions import FaceprintConfigurationError, replace_exceptions

KEY_ID_BYTES = 4
NONCE_BYTES = 12
TAG_BYTES = 16
VERSION = b"\x01"
#: Bytes that sealing adds to a plaintext.
OVERHEAD = len(VERSION) + KEY_ID_BYTES + NONCE_BYTES + TAG_BYTES

_HEADER_BYTES = len(VERSION) + KEY_ID_BYTES
_LABEL = b"django-faceprint/1/"


class SealBroken(Exception):
    """A sealed value does not open: it is damaged, cut, moved from elsewhere, or has an unknown format.

    Contains nothing of the value.
    """

    def __init__(self, message: str = "The sealed value is damaged or belongs elsewhere.") -> None:
        super().__init__(message)


class UnknownKey(SealBroken):
    """No key of the ring has the id ``key_id`` that the sealed value contains."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"No configured key has the id {key_id}.")
        self.key_id = key_id

    def __reduce__(self) -> tuple[type[UnknownKey], tuple[str]]:
        return type(self), (self.key_id,)


def generate_key() -> str:
    """A new random key as the settings take it: 32 bytes in urlsafe base64."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode("ascii")


class KeyRing:
    """Keys of one kind, newest first. The first one seals, all of them open. Safe to share by threads.

    :param keys: raw keys of 32 bytes.

    Raises :class:`FaceprintConfigurationError` when there is no key, or a key has another length or appears
    twice.
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
        """*plaintext* encrypted with the newest key for *purpose*, bound to *aad*.

        The result is :data:`OVERHEAD` bytes longer. Nonces are random, so one key should seal at most 2**32
        values of one purpose.
        """
        header = VERSION + bytes.fromhex(self.primary_id)
        nonce = os.urandom(NONCE_BYTES)
        cipher = self._cipher(self.primary_id, purpose)
        return header + nonce + cipher.encrypt(nonce, plaintext, _associated_data(header, purpose, aad))

    def open(self, purpose: str, sealed: bytes, aad: bytes) -> bytes:
        """The plaintext of a value that :meth:`seal` returned for the same *purpose* and *aad*.

        Raises :class:`UnknownKey` when the key is not in the ring, and :class:`SealBroken` on any mismatch.
        Neither has a cause or a context.
        """
        header, nonce = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES : _HEADER_BYTES + NONCE_BYTES]
        cipher = self._cipher(self.key_id_of(sealed), purpose)
        body = sealed[_HEADER_BYTES + NONCE_BYTES :]
        with replace_exceptions(InvalidTag, by=lambda error: SealBroken()):
            return cipher.decrypt(nonce, body, _associated_data(header, purpose, aad))

    def key_id_of(self, sealed: bytes) -> str:
        """Id of the key that sealed *sealed*.

        Raises :class:`SealBroken` when it is no sealed value, and :class:`UnknownKey` when the key is not in
        the ring.
        """
        if len(sealed) < OVERHEAD or sealed[: len(VERSION)] != VERSION:
            raise SealBroken
        key_id = sealed[len(VERSION) : _HEADER_BYTES].hex()
        if key_id not in self._keys:
            raise UnknownKey(key_id)
        return key_id

    def is_current(self, sealed: bytes) -> bool:
        """Whether *sealed* was made with the newest key. Raises as :meth:`key_id_of`."""
        return self.key_id_of(sealed) == self.primary_id

    def reseal(self, purpose: str, sealed: bytes, aad: bytes) -> bytes:
        """*sealed* under the newest key; the same object if it already is. Raises as :meth:`open`."""
        plaintext = self.open(purpose, sealed, aad)
        return sealed if self.is_current(sealed) else self.seal(purpose, plaintext, aad)

    def mac(self, purpose: str, data: bytes, *, key_id: str | None = None) -> bytes:
        """HMAC-SHA256 (32 bytes) of *data* under a key's subkey for *purpose*; the newest key by default.

        Raises :class:`UnknownKey` when the key is not in the ring.
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
    """The ring of ``FACEPRINT["ENCRYPTION_KEYS"]``, a new one when the setting changes.

    Raises :class:`FaceprintConfigurationError` when there are no keys, or a key is malformed or is an index
    key as well.
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
        # The holder of an index key can test guesses. It must not decrypt as well.
        raise FaceprintConfigurationError("ENCRYPTION_KEYS and INDEX_KEYS of FACEPRINT share a key.")
    return KeyRing(keys)


def _derive(key: bytes, label: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=_LABEL + label).derive(key)


def _associated_data(header: bytes, purpose: str, aad: bytes) -> bytes:
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    encoded = purpose.encode()
    return header + len(encoded).to_bytes(2, "big") + encoded + aad
