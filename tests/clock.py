"""The clock of the tests: stands still until a test moves it, for the app and the sandbox alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


class FrozenClock:
    """Time that only a test moves."""

    def __init__(self) -> None:
        self.moment = START

    def __call__(self) -> datetime:
        return self.moment

    def set(self, moment: datetime) -> None:
        """Put the clock to *moment* (aware)."""
        self.moment = moment

    def advance(self, by: timedelta | None = None, **parts: float) -> None:
        """Move on by a timedelta or by its parts: ``clock.advance(hours=2)``."""
        self.moment += by if by is not None else timedelta(**parts)


clock = FrozenClock()


def now() -> datetime:
    """What ``FACEPRINT["CLOCK"]`` names in tests that use the ``clock`` fixture."""
    return clock()
