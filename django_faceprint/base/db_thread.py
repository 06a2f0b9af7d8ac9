"""Where database work is done.

The engine visits many sessions at once in threads that must not open database connections of their own:
they hand what must be asked or written to the one thread that has a connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Protocol, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections, router

from django_faceprint.models import VerificationSession

T = TypeVar("T")

#: Exceptions that end a run, such as a task's time limit, wherever they strike.
Interrupts = tuple[type[BaseException], ...]


class RunEnded(Exception):
    """The run for which something was to be done has ended."""


class NoDatabaseHere(RuntimeError):
    """A thread of the engine's visits tried to open a database connection."""


class Database(Protocol):
    """Does *work* where the database may be used; returns or raises what it does."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


def in_this_thread(work: Callable[[], T], /) -> T:
    """The :class:`Database` of a thread that has a connection of its own."""
    return work()


def refuse_connections() -> None:
    """From now on, opening a connection to the databases of this app in this thread raises
    :class:`NoDatabaseHere`."""

    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise NoDatabaseHere(
            "A visit's thread has no database connection: hand the work to the run's thread."
        )

    model = VerificationSession
    for alias in {DEFAULT_DB_ALIAS, router.db_for_read(model), router.db_for_write(model)}:
        connections[alias].connect = refuse  # type: ignore[method-assign]
