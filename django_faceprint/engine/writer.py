"""Writes finished visits, many in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django_faceprint.base.lease import Lease

from .commit import Changes, commit
from .retry import DatabaseRetry
from .visit import Visit

logger = logging.getLogger(__name__)

#: Finished visits are written together: at most this many, and none later than these seconds.
COMMIT_BATCH = 16
COMMIT_WITHIN = 0.2


class Writer:
    """Collects finished visits and commits them in batches. Used by the run's own thread only.

    *monotonic* tells the time in seconds.
    """

    def __init__(self, *, monotonic: Callable[[], float], retry: DatabaseRetry) -> None:
        self._monotonic = monotonic
        self._retry = retry
        self._finished: list[Changes] = []
        self._waiting_since = 0.0

    def __bool__(self) -> bool:
        """Whether a visit waits to be written."""
        return bool(self._finished)

    def add(self, visit: Visit) -> None:
        """Take a finished visit."""
        if not self._finished:
            self._waiting_since = self._monotonic()
        visit.changes.calls = visit.calls
        self._finished.append(visit.changes)

    def is_due(self) -> bool:
        """Whether the batch is full or has waited long enough."""
        return bool(self._finished) and (
            len(self._finished) >= COMMIT_BATCH or self._monotonic() - self._waiting_since >= COMMIT_WITHIN
        )

    def write(self) -> list[Lease]:
        """Commit the batch; returns the leases that are done with it."""
        finished, self._finished = self._finished, []
        if finished:
            for _ in commit(finished, self._retry):
                logger.info("faceprint: session was taken over by another worker")
        return [changes.lease for changes in finished]
