"""The sandbox's movable clock.

Tests of validity periods (API reference 1.2: 2 h, 1 d, 3 d, 30 d) move this clock instead of waiting. Several
processes can share one offset through a file: decimal seconds as ASCII text, replaced atomically; a missing
file means no offset.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from threading import Lock

BEIJING = timezone(timedelta(hours=8), "Asia/Shanghai")
MAX_OFFSET_SECONDS = 10 * 366 * 24 * 3600


class ClockFileError(Exception):
    """The clock file does not hold a plausible number of seconds."""


def system_now() -> datetime:
    """The machine's clock (aware, UTC)."""
    return datetime.now(UTC)


class SandboxClock:
    """A base clock plus an offset in seconds, kept in memory or in a file shared by processes.

    ``base`` is any callable that returns an aware datetime; tests pass a fixed one.
    """

    def __init__(self, file: str | Path | None = None, *, base: Callable[[], datetime] = system_now) -> None:
        self._file = Path(file) if file is not None else None
        self._base = base
        self._offset = 0.0
        self._lock = Lock()

    def now(self) -> datetime:
        """The present time of the sandbox (aware, UTC).

        Raises :class:`ClockFileError` when the shared file is damaged.
        """
        return self._base().astimezone(UTC) + timedelta(seconds=self.offset)

    @property
    def offset(self) -> float:
        """Seconds that this clock is ahead of its base."""
        if self._file is None:
            return self._offset
        try:
            text = self._file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return 0.0
        except UnicodeDecodeError:
            text = ""
        try:
            return _plausible(float(text))
        except ValueError:
            pass
        raise ClockFileError("The clock file does not hold a plausible number of seconds.")

    def set_offset(self, seconds: float) -> None:
        """Put the clock ``seconds`` ahead of its base. Raises ``ValueError`` beyond ten years."""
        with self._lock:
            self._write(_plausible(seconds))

    def advance(self, seconds: float) -> None:
        """Move the clock by ``seconds``. Raises ``ValueError`` beyond ten years."""
        with self._lock:
            self._write(_plausible(self.offset + seconds))

    def _write(self, seconds: float) -> None:
        if self._file is None:
            self._offset = seconds
            return
        # Readers in other processes must never see half a number: write aside, then replace.
        handle, name = tempfile.mkstemp(dir=self._file.parent, prefix=f".{self._file.name}.")
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(repr(seconds))
            os.replace(name, self._file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _plausible(seconds: float) -> float:
    seconds = float(seconds)
    if not math.isfinite(seconds) or abs(seconds) > MAX_OFFSET_SECONDS:
        raise ValueError("an offset must be a number of seconds within ten years")
    return seconds
