"""Where database work is done.

The engine visits many sessions at once in threads that must not open database connections of their own:
they hand what must be asked or written to the one thread that has a connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Protocol, TypeVar

from django.db import connections

T = TypeVar("T")


class RunEnded(Exception):
    """The run for which something was to be done has ended."""


class Database(Protocol):
    """Does *work* where the database may be used; returns or raises what it does."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


def in_this_thread(work: Callable[[], T], /) -> T:
    """The :class:`Database` of a thread that has a connection of its own."""
    return work()


def refuse_connections() -> None:
    """From now on, opening a database connection in this thread raises ``RuntimeError``."""

    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise RuntimeError("A visit's thread has no database connection: hand the work to the run's thread.")

    for connection in connections.all():
        connection.connect = refuse  # type: ignore[method-assign]
