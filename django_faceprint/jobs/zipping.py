"""ZIP files that are given out as they are made: nothing of them is ever held as a whole."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, cast


def zipped(
    members: Iterable[tuple[zipfile.ZipInfo, Iterable[bytes]]], *, force_zip64: bool = False
) -> Iterator[bytes]:
    """A ZIP file of *members*, each described, with its content in chunks; compressed as it is described.

    A member is asked for when the one before it has been written. *force_zip64* for members that may have
    more than 2 GiB without saying so in their ``file_size``.
    """
    sink = _Sink()
    with zipfile.ZipFile(cast(IO[bytes], sink), "w") as archive:
        for info, chunks in members:
            with archive.open(info, "w", force_zip64=force_zip64) as member:
                for chunk in chunks:
                    member.write(chunk)
                    if sink.has_more:
                        yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """Where a ZIP file is written to, to be taken away piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    @property
    def has_more(self) -> bool:
        """Something was written since the last time."""
        return bool(self._pieces)

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, data: Any, /) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
