"""ZIP files as streams: no file is ever in memory as a whole."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, cast


def zipped(
    members: Iterable[tuple[zipfile.ZipInfo, Iterable[bytes]]], *, force_zip64: bool = False
) -> Iterator[bytes]:
    """The bytes of a ZIP file of *members*: pairs of a description and its content in chunks.

    The next member is requested when the one before it has been written. *force_zip64* allows members of more
    than 2 GiB.
    """
    sink = _Sink()
    with zipfile.ZipFile(cast(IO[bytes], sink), "w") as archive:
        for info, chunks in members:
            with archive.open(info, "w", force_zip64=force_zip64) as member:
                for chunk in chunks:
                    member.write(chunk)
                    if sink.pieces:
                        yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """A file that cannot be sought in; what was written is taken from it piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, data: Any, /) -> int:
        self.pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """What was written since the last call."""
        taken = b"".join(self.pieces)
        self.pieces.clear()
        return taken
