"""Files without a cipher, for comparison: no setting of the product does this."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from unittest import mock
from uuid import UUID

from django_faceprint.privacy.files import CHUNK_BYTES, DecryptingReader, EncryptingStream


class PlainStream(EncryptingStream):
    """Hashes and counts what passes, as the product does, and writes it as it is."""

    def _encrypt(
        self, chunks: Iterable[bytes | bytearray | memoryview], key: bytes, asset_id: UUID
    ) -> Iterator[bytes]:
        for chunk in chunks:
            self._digest.update(chunk)
            self._plain_size += len(chunk)
            yield bytes(chunk)
        self._finished = True


class PlainReader(DecryptingReader):
    """Reads such files, in pieces of the same size."""

    def _open(self) -> None:
        pass

    def _chunk(self, number: int) -> bytes:
        self._file.seek(number * CHUNK_BYTES)
        return self._file.read(CHUNK_BYTES)


def files(*, encrypted: bool) -> AbstractContextManager[None]:
    """The archive with its cipher, or without."""
    return nullcontext() if encrypted else _plain()


@contextmanager
def _plain() -> Iterator[None]:
    from django_faceprint.evidence import files as evidence_files

    with mock.patch.multiple(evidence_files, EncryptingStream=PlainStream, DecryptingReader=PlainReader):
        yield
