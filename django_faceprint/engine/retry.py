"""Patience with a database that is away, as while it restarts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connections

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class DatabaseRetry:
    """Does database work, and again when the database is away: after ``pauses`` (seconds), 15.7 s in all.

    Also a :class:`~django_faceprint.base.db_thread.Database`, for work that may be repeated.
    """

    pauses: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic

    def __call__(
        self,
        work: Callable[[], T],
        /,
        *,
        interrupted: Callable[[], None] | None = None,
        also_connected: bool = False,
    ) -> T:
        """Do *work*, which may be repeated. Raises its error when the last try fails, and any other at once.

        *interrupted* is called before each further try. *also_connected*: try again after a deadlock or a
        lock time-out too, which leave the connection usable. Where *work* retries inside, both together take
        no longer than one of them.
        """
        give_up_at = self.monotonic() + sum(self.pauses)
        for pause in self.pauses:
            try:
                return work()
            except (OperationalError, InterfaceError):
                connection = connections[DEFAULT_DB_ALIAS]
                if self.monotonic() >= give_up_at or connection.in_atomic_block:
                    raise
                if not also_connected and is_connected():
                    raise
            if interrupted is not None:
                interrupted()
            logger.warning("faceprint: the database is away or busy; trying again in %s s", pause)
            connection.close()
            self.sleep(pause)
        return work()


def is_connected() -> bool:
    """Whether the connection is usable; after a deadlock or a lock time-out it is."""
    connection = connections[DEFAULT_DB_ALIAS]
    return connection.connection is not None and connection.is_usable()
