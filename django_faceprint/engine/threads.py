"""Visits in threads. Their database work is done by the thread that waits for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

from django_faceprint.base.db_thread import Database, Interrupts, RunEnded, refuse_connections

from .visit import Visit

T = TypeVar("T")


@dataclass
class _Request:
    """Database work that a visit's thread waits for."""

    work: Callable[[], Any]
    result: Future[Any] = field(default_factory=Future)


class VisitThreads:
    """Makes up to *size* visits at once; :meth:`wait` serves them and returns what has finished.

    *database* does the visits' database work in the thread that calls :meth:`wait`; *interrupts* are raised
    there. A visit's thread cannot open a database connection.
    """

    def __init__(self, size: int, *, database: Database, interrupts: Interrupts) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="faceprint")
        self._database = database
        self._interrupts = interrupts
        self._events: SimpleQueue[_Request | Visit | BaseException] = SimpleQueue()
        self._closed = False
        self.active = 0

    def submit(self, make: Callable[[Visit], Visit], visit: Visit) -> None:
        """Begin a visit in a thread."""
        # A host's context, such as that of its logging, goes along.
        self._pool.submit(copy_context().run, self._make, make, visit)
        self.active += 1

    def wait(self, timeout: float) -> Visit | None:
        """Serve one request of a visit, or return a visit that has finished; None after *timeout* seconds.

        Raises what ended a thread.
        """
        try:
            event = self._events.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(event, _Request):
            self._answer(event)
            return None
        if isinstance(event, BaseException):
            raise event
        self.active -= 1
        return event

    def run_in_run_thread(self, work: Callable[[], T], /) -> T:
        """The :class:`Database` of the visits: has *work* done by the thread that waits for them.

        Raises :class:`RunEnded` when nobody waits any more.
        """
        request = _Request(work)
        if self._closed:
            raise RunEnded
        self._events.put(request)
        while True:
            try:
                return cast(T, request.result.result(timeout=1.0))
            except TimeoutError:
                if request.result.done():
                    # The work's own.
                    raise
                if self._closed:
                    raise RunEnded from None

    def close(self) -> None:
        """End. Visits under way, after an error, do not write any more."""
        self._closed = True
        while not self._events.empty():
            event = self._events.get()
            if isinstance(event, _Request):
                event.result.set_exception(RunEnded())
        self._pool.shutdown(wait=not self.active, cancel_futures=True)

    def _make(self, make: Callable[[Visit], Visit], visit: Visit) -> None:
        try:
            refuse_connections()
            self._events.put(make(visit))
        except BaseException as error:  # noqa: BLE001  (raised again in the run's own thread)
            self._events.put(error)

    def _answer(self, request: _Request) -> None:
        try:
            outcome = self._database(request.work)
        except self._interrupts:
            request.result.set_exception(RunEnded())
            raise
        except Exception as error:  # noqa: BLE001  (raised where the work was handed in)
            request.result.set_exception(error)
        else:
            request.result.set_result(outcome)
