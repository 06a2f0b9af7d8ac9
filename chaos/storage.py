"""A storage that fails before, during and after writing, and when deleting."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.files import File
from django.core.files.storage import FileSystemStorage

KINDS = ("refused", "half", "unsure", "kept")


class StorageFault(OSError):
    """A failure made on purpose."""


class FailingStorage(FileSystemStorage):
    """Files on disk, with failures.

    ``faults`` is a folder: its file ``share`` holds the share of operations that fail (no file: none), and
    ``happened`` gets one line for each failure. A write fails before anything is there (``refused``), with
    half of the file written (``half``) or with all of it (``unsure``); a deletion leaves the file (``kept``).
    """

    def __init__(self, *args: Any, faults: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self._faults = Path(faults)
        # Seeded by the system, so that two workers do not fail at the same operations.
        self._random = random.SystemRandom()

    def _save(self, name: str, content: File[Any]) -> str:
        fault = self._random.choice(KINDS[:3]) if self._strikes() else ""
        if fault == "refused":
            self._fail(fault)
        if fault == "half":
            whole = b"".join(content.chunks())
            path = Path(self.path(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(whole[: len(whole) // 2])
            self._fail(fault)
        written = super()._save(name, content)  # type: ignore[misc]
        if fault == "unsure":
            self._fail(fault)
        return str(written)

    def delete(self, name: str) -> None:
        if self._strikes():
            self._fail("kept")
        super().delete(name)

    def _strikes(self) -> bool:
        try:
            share = float((self._faults / "share").read_text(encoding="ascii"))
        except FileNotFoundError:
            return False
        return self._random.random() < share

    def _fail(self, kind: str) -> None:
        handle = os.open(self._faults / "happened", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, f"{kind}\n".encode())
        finally:
            os.close(handle)
        raise StorageFault(kind)


def set_share(folder: Path, share: float) -> None:
    """From now on, let this share of all operations fail."""
    folder.mkdir(exist_ok=True)
    if share:
        aside = folder / "share.new"
        aside.write_text(repr(share), encoding="ascii")
        aside.replace(folder / "share")
    else:
        (folder / "share").unlink(missing_ok=True)


def failures(folder: Path) -> Counter[str]:
    """The number of failures so far, by kind."""
    try:
        return Counter((folder / "happened").read_text(encoding="ascii").split())
    except FileNotFoundError:
        return Counter()
