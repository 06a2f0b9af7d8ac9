"""The only source of time.

``FACEPRINT["CLOCK"]`` names a callable that returns an aware datetime in UTC. Deadlines decide whether
evidence is saved or lost; tests and demonstrations must be able to move the time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from .conf import conf
from .exceptions import FaceprintConfigurationError

# A jump of more than ten years is a damaged file, not a test.
MAX_OFFSET_SECONDS = 10 * 366 * 24 * 3600


def now() -> datetime:
    """The current time (aware, UTC) of the configured clock."""
    return conf.clock()


def system_clock() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


class FileClock:
    """The machine's clock plus an offset in seconds, read from a file that several processes share.

    The demo and the fault tests write this file (decimal text, replaced atomically) to move the clocks of
    web site, workers and sandbox together. A missing file means no offset. A system check refuses this
    clock when ``DEBUG`` is off: anyone who can write the file could make evidence expire.

    Raises :class:`FaceprintConfigurationError` when the file does not hold a plausible number.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def __call__(self) -> datetime:
        return system_clock() + self.offset()

    def offset(self) -> timedelta:
        """How far this clock is ahead of the machine's clock."""
        try:
            text = self._path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return timedelta(0)
        try:
            seconds = float(text)
        except ValueError:
            seconds = float("nan")
        if not abs(seconds) <= MAX_OFFSET_SECONDS:
            raise FaceprintConfigurationError("The clock file does not hold a plausible number of seconds.")
        return timedelta(seconds=seconds)
