"""Encrypted files: written as a stream, read in any part, and refused when they are not whole.

Format, version 1::

    header:  "DFPF" ‖ version (1 byte, 0x01) ‖ chunk size (4 bytes) ‖ salt (16 bytes)
    body:    chunks of 65,536 plaintext bytes (the last one 0–65,536), each followed by its 16-byte tag

Integers are big-endian. Every chunk is AES-256-GCM under HKDF-SHA256(file key, salt), with nonce = chunk
number (11 bytes) ‖ last flag (1 byte) and associated data = version ‖ asset id ‖ chunk size (STREAM
construction). Chunks cannot be changed, moved, dropped, added, or taken from another file, and the
flagged last chunk authenticates the total length. An empty file has one empty chunk.

Each file has its own random key, which its row holds wrapped. Deleting the row's key destroys the file, and
a rotation of the key ring only rewraps the keys in the rows. A second upload with the same key is safe: the
salt differs, so no nonce is used for two contents.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Iterable, Iterator
from typing import IO, Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..conf import KEY_BYTES
from ..exceptions import replace_exceptions
from .keys import NONCE_BYTES, TAG_BYTES, SealBroken, encryption_ring

CHUNK_BYTES = 64 * 1024
MAGIC = b"DFPF"
VERSION = 1
SALT_BYTES = 16

_HEADER = struct.Struct(f">4sBI{SALT_BYTES}s")
HEADER_BYTES = _HEADER.size
_SEALED_CHUNK_BYTES = CHUNK_BYTES + TAG_BYTES
_WRAP_PURPOSE = "file key"


def new_file_key() -> bytes:
    """A random 256-bit key for one file."""
    return os.urandom(KEY_BYTES)


def wrap_file_key(key: bytes, asset_id: UUID) -> bytes:
    """*key* sealed by the encryption ring for its asset, as the asset's row holds it."""
    return encryption_ring().seal(_WRAP_PURPOSE, key, asset_id.bytes)


def unwrap_file_key(wrapped: bytes, asset_id: UUID) -> bytes:
    """The key of an asset's file. Raises :class:`SealBroken`, or its subclass ``UnknownKey``."""
    return encryption_ring().open(_WRAP_PURPOSE, wrapped, asset_id.bytes)


def rewrap_file_key(wrapped: bytes, asset_id: UUID) -> bytes:
    """*wrapped* under the newest key of the ring. Raises as :func:`unwrap_file_key`."""
    return encryption_ring().reseal(_WRAP_PURPOSE, wrapped, asset_id.bytes)


def seal_thumbnail(thumbnail: bytes, key: bytes, asset_id: UUID) -> bytes:
    """A picture's thumbnail, sealed under a subkey of the file's own key: both are destroyed with that key.

    Format: version (0x01) ‖ nonce (12) ‖ ciphertext ‖ tag (16), AES-256-GCM with version ‖ asset id as
    associated data. A rotation changes neither file nor thumbnail.
    """
    nonce = os.urandom(NONCE_BYTES)
    version = bytes([VERSION])
    sealed = _thumbnail_cipher(key).encrypt(nonce, thumbnail, version + asset_id.bytes)
    return version + nonce + sealed


def open_thumbnail(sealed: bytes, key: bytes, asset_id: UUID) -> bytes:
    """The thumbnail that :func:`seal_thumbnail` sealed. Raises :class:`SealBroken`."""
    version, nonce, rest = sealed[:1], sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    broken = SealBroken("The thumbnail was changed or does not belong to this file.")
    if version != bytes([VERSION]) or len(rest) < TAG_BYTES:
        raise broken
    with replace_exceptions(InvalidTag, by=lambda error: broken):
        return _thumbnail_cipher(key).decrypt(nonce, rest, version + asset_id.bytes)


def sealed_size(plain_size: int) -> int:
    """Size of the encrypted file for *plain_size* bytes of plaintext."""
    return HEADER_BYTES + plain_size + _chunk_count(plain_size) * TAG_BYTES


class EncryptingStream:
    """Encrypts *chunks* in one pass and constant memory.

    Iterate it, call :meth:`read`, or pass ``File(stream)`` to ``Storage.save()``. It can be consumed once.
    Exceptions of *chunks* pass through. The last chunk is missing then, so the part that was written does
    not decrypt as a file.

    :param chunks: bytes-like objects of any length.
    :param key: 32 bytes from :func:`new_file_key`.
    """

    mode = "rb"
    #: For storages: unknown.
    size = None

    def __init__(self, chunks: Iterable[bytes | bytearray | memoryview], key: bytes, asset_id: UUID) -> None:
        #: For storages: no real name.
        self.name = "encrypted"
        self.closed = False
        self._digest = hashlib.sha256()
        self._plain_size = 0
        self._finished = False
        self._iterated = False
        self._parts = self._encrypt(chunks, key, asset_id)
        self._rest = memoryview(b"")

    def __repr__(self) -> str:
        return f"<EncryptingStream{' finished' if self._finished else ''}>"

    @property
    def plain_size(self) -> int:
        """Size of the plaintext in bytes. Raises ``RuntimeError`` before the stream is exhausted."""
        self._require_finished()
        return self._plain_size

    @property
    def sha256(self) -> str:
        """SHA-256 of the plaintext in hex. Raises ``RuntimeError`` before the stream is exhausted."""
        self._require_finished()
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        return self.chunks()

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The ciphertext in pieces. Storages may pass *chunk_size*; it is ignored.

        Raises ``RuntimeError`` on a second call and after :meth:`read`.
        """
        if self._iterated:
            raise RuntimeError("An encrypting stream can be consumed only once.")
        self._iterated = True
        return self._parts

    def multiple_chunks(self, chunk_size: int | None = None) -> bool:
        """Always true: the size is unknown."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to *size* bytes of ciphertext, fewer only at the end; without a size, all of it."""
        if self.closed:
            raise ValueError("The stream is closed.")
        self._iterated = True
        wanted = None if size is None or size < 0 else size
        pieces: list[bytes | memoryview] = []
        have = 0
        while wanted is None or have < wanted:
            if not self._rest:
                part = next(self._parts, None)
                if part is None:
                    break
                self._rest = memoryview(part)
            piece = self._rest if wanted is None else self._rest[: wanted - have]
            self._rest = self._rest[len(piece) :]
            pieces.append(piece)
            have += len(piece)
        return b"".join(pieces)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    def _require_finished(self) -> None:
        if not self._finished:
            raise RuntimeError("Size and hash are unknown until the stream has been read to its end.")

    def _encrypt(
        self, chunks: Iterable[bytes | bytearray | memoryview], key: bytes, asset_id: UUID
    ) -> Iterator[bytes]:
        salt = os.urandom(SALT_BYTES)
        cipher = _cipher(key, salt)
        aad = _associated_data(asset_id)
        yield _HEADER.pack(MAGIC, VERSION, CHUNK_BYTES, salt)
        number = 0
        # A chunk is encrypted when the next one begins, or at the end as the last one.
        pending: bytes | memoryview = b""
        for chunk in _rechunked(self._counted(chunks)):
            if pending:
                yield cipher.encrypt(_nonce(number, last=False), pending, aad)
                number += 1
            pending = chunk
        yield cipher.encrypt(_nonce(number, last=True), pending, aad)
        self._finished = True

    def _counted(self, chunks: Iterable[bytes | bytearray | memoryview]) -> Iterator[memoryview]:
        for chunk in chunks:
            # The producer may reuse its buffer before we encrypt the content.
            view = memoryview(chunk if isinstance(chunk, bytes) else bytes(chunk))
            self._digest.update(view)
            self._plain_size += len(view)
            yield view


class DecryptingReader(io.RawIOBase):
    """The plaintext of an encrypted file, seekable and read-only; decrypts only the chunks it needs.

    The constructor reads nothing. The first read checks the header, the length of the file and its last
    chunk: a truncated or extended file is refused before it returns a byte. Not safe to share by threads.
    Parsers that read a few bytes at a time should wrap it in ``io.BufferedReader``.

    :param fileobj: seekable binary file with the ciphertext; closed together with the reader.
    :param key: 32 bytes from :func:`unwrap_file_key`.
    :param plain_size: size of the plaintext in bytes, from its row.

    Every read raises :class:`SealBroken` when the file was damaged, cut, extended or reordered, belongs to
    another asset, or has another size.
    """

    def __init__(self, fileobj: IO[bytes], key: bytes, asset_id: UUID, plain_size: int) -> None:
        super().__init__()
        self._file = fileobj
        if plain_size < 0:
            raise ValueError("plain_size is negative.")
        self._key = key
        self._aad = _associated_data(asset_id)
        self.plain_size = plain_size
        self._last = _chunk_count(plain_size) - 1
        self._cipher: AESGCM | None = None
        self._cached: tuple[int, bytes] = (-1, b"")
        self._position = 0

    def __repr__(self) -> str:
        return f"<DecryptingReader of {self.plain_size} bytes>"

    def iter_range(self, start: int, end_exclusive: int) -> Iterator[bytes]:
        """The plaintext from *start* to before *end_exclusive*, in pieces of at most 64 KiB.

        The call itself raises ``ValueError`` when the range is not within the file.
        """
        if not 0 <= start <= end_exclusive <= self.plain_size:
            raise ValueError("The range is not within the file.")
        return self._iter_range(start, end_exclusive)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.plain_size}[whence]
        if base + offset < 0:
            raise ValueError("Cannot seek before the start of the file.")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        self._open()
        if self._position >= self.plain_size:
            return 0
        number, offset = divmod(self._position, CHUNK_BYTES)
        piece = memoryview(self._chunk(number))[offset : offset + len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._cached = (-1, b"")
            try:
                self._file.close()
            finally:
                super().close()

    def _iter_range(self, start: int, end: int) -> Iterator[bytes]:
        self._open()
        for number in range(start // CHUNK_BYTES, _chunk_count(end) if end > start else 0):
            chunk = self._chunk(number)
            offset = number * CHUNK_BYTES
            first, last = max(start - offset, 0), min(end - offset, len(chunk))
            yield chunk if last - first == len(chunk) else chunk[first:last]

    def _open(self) -> None:
        if self._cipher is not None:
            return
        if self._file.seek(0, io.SEEK_END) != sealed_size(self.plain_size):
            raise SealBroken
        self._file.seek(0)
        magic, version, chunk_size, salt = _HEADER.unpack(self._read_exactly(HEADER_BYTES))
        if (magic, version, chunk_size) != (MAGIC, VERSION, CHUNK_BYTES):
            raise SealBroken
        cipher = _cipher(self._key, salt)
        self._cached = (self._last, self._decrypted(cipher, self._last))
        self._cipher = cipher

    def _chunk(self, number: int) -> bytes:
        if self._cached[0] != number:
            assert self._cipher is not None  # noqa: S101  (_open() was called)
            self._cached = (number, self._decrypted(self._cipher, number))
        return self._cached[1]

    def _decrypted(self, cipher: AESGCM, number: int) -> bytes:
        is_last = number == self._last
        length = self.plain_size - number * CHUNK_BYTES if is_last else CHUNK_BYTES
        position = HEADER_BYTES + number * _SEALED_CHUNK_BYTES
        if self._file.tell() != position:
            self._file.seek(position)
        sealed = self._read_exactly(length + TAG_BYTES)
        with replace_exceptions(InvalidTag, by=lambda error: SealBroken()):
            return cipher.decrypt(_nonce(number, last=is_last), sealed, self._aad)

    def _read_exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        while len(data) < size:
            more = self._file.read(size - len(data))
            if not more:
                raise SealBroken
            data += more
        return data


def _rechunked(views: Iterable[memoryview]) -> Iterator[bytes | memoryview]:
    """The content of *views* in chunks of ``CHUNK_BYTES``; the last one may be shorter, and none is empty."""
    partial = bytearray()
    for view in views:
        position = 0
        while position < len(view):
            if not partial and len(view) - position >= CHUNK_BYTES:
                yield view[position : position + CHUNK_BYTES]
                position += CHUNK_BYTES
                continue
            taken = min(CHUNK_BYTES - len(partial), len(view) - position)
            partial += view[position : position + taken]
            position += taken
            if len(partial) == CHUNK_BYTES:
                yield bytes(partial)
                partial.clear()
    if partial:
        yield bytes(partial)


def _chunk_count(plain_size: int) -> int:
    return max(1, -(-plain_size // CHUNK_BYTES))


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    if len(key) != KEY_BYTES:
        raise ValueError(f"A file key has {KEY_BYTES} bytes.")
    derivation = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=b"django-faceprint/1/file")
    return AESGCM(derivation.derive(key))


def _thumbnail_cipher(key: bytes) -> AESGCM:
    derivation = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"django-faceprint/1/thumbnail")
    return AESGCM(derivation.derive(key))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _associated_data(asset_id: UUID) -> bytes:
    return bytes([VERSION]) + asset_id.bytes + CHUNK_BYTES.to_bytes(4, "big")
