"""Where database work is done.

The engine visits many sessions at once in threads that have no database connection: they hand what
must be asked or written to the engine's own thread. Everywhere else it is done on the spot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")


class RunEnded(Exception):
    """The run for which something was to be done has ended."""


_run: ContextVar[Callable[[Callable[[], Any]], Any] | None] = ContextVar("faceprint_desk", default=None)


def run_in_db_thread(work: Callable[[], T]) -> T:
    """Do *work* where the database may be used; returns or raises what it does."""
    run = _run.get()
    return work() if run is None else run(work)


@contextmanager
def desk(run: Callable[[Callable[[], Any]], Any]) -> Iterator[None]:
    """Within this block, and in threads that copy its context, database work goes through *run*."""
    token = _run.set(run)
    try:
        yield
    finally:
        _run.reset(token)
