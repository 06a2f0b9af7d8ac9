"""The sessions that one run holds: claimed ahead, visited, or visited and not yet written."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from django.db import IntegrityError
from django.db.models import prefetch_related_objects

from django_faceprint.base.lease import Lease
from django_faceprint.clock import now
from django_faceprint.evidence import files
from django_faceprint.models import MediaAsset, VerificationSession

from . import queue
from .retry import DatabaseRetry

State = MediaAsset.State
Source = MediaAsset.Source

#: Upload names that are reserved with the claim of a session that has only returned: the number of files of
#: most passed sessions.
LIKELY_FILES = 8


class Claims:
    """Claims sessions ahead of their visits, renews their leases, and gives back those that are not visited.

    *ttl* is the life of a lease; it is renewed long before it ends. Used by the run's own thread only.
    """

    def __init__(self, *, ttl: timedelta, retry: DatabaseRetry) -> None:
        self._ttl = ttl
        self._retry = retry
        self._waiting: deque[Lease] = deque()
        #: Leases of sessions whose visit has begun and is not written yet, by the session's key.
        self._visited: dict[int, Lease] = {}
        self._names: dict[int, list[str]] = {}
        self._renewed_at = now()

    @property
    def has_waiting(self) -> bool:
        """Whether a session waits for its visit."""
        return bool(self._waiting)

    def promote(self) -> int:
        """Wake sessions whose time has come, one batch of them; returns how many."""
        return self._retry(lambda: queue.promote(now()))

    def claim(self, *, limit: int = 1, session_pk: int | None = None) -> None:
        """Claim the most urgent ready sessions, or the named one if it is ready."""
        leases = self._retry(lambda: queue.claim(now(), limit=limit, session_pk=session_pk, ttl=self._ttl))
        rows = [lease.row for lease in leases if lease.row]
        self._waiting.extend(leases)
        self._retry(lambda: prefetch_related_objects(rows, "plan", "assets"))
        self._retry(lambda: self._reserve_names(rows))

    def next(self) -> tuple[Lease, list[str]]:
        """The next session to be visited, and the upload names that are reserved for it."""
        lease = self._waiting.popleft()
        self._visited[lease.session_pk] = lease
        return lease, self._names.pop(lease.session_pk, [])

    def forget(self, leases: Sequence[Lease]) -> None:
        """Renew *leases* no more: their visits are over."""
        for lease in leases:
            # Not the lease of a later claim.
            if self._visited.get(lease.session_pk) == lease:
                del self._visited[lease.session_pk]

    def renew(self) -> None:
        """Renew all leases, when it is time; give back waiting sessions whose lease cannot be renewed."""
        moment = now()
        if moment - self._renewed_at < queue.RENEW_AFTER:
            return
        leases = [*self._visited.values(), *self._waiting]
        ours = self._retry(lambda: queue.renew(leases, moment, self._ttl), also_connected=True)
        self._renewed_at = moment
        lost = [lease for lease in self._waiting if lease.session_pk not in ours]
        self._waiting = deque(lease for lease in self._waiting if lease.session_pk in ours)
        self._give_back(lost)

    def give_back_stale(self) -> None:
        """Give back sessions whose deadline went by while they waited, or whose lease ends too soon."""
        while self._waiting and queue.is_stale(self._waiting[0], now()):
            self._give_back([self._waiting.popleft()])

    def give_back_all(self) -> None:
        """Give back the sessions that were not visited."""
        leases, self._waiting = list(self._waiting), deque()
        self._give_back(leases)

    def _give_back(self, leases: Sequence[Lease]) -> None:
        self._retry(lambda: queue.give_back(leases))
        if names := [name for lease in leases for name in self._names.pop(lease.session_pk, ())]:
            self._retry(lambda: files.end_reservations(names))

    def _reserve_names(self, rows: Sequence[VerificationSession]) -> None:
        """Names for what is likely to be stored, in one statement; a visit that needs more reserves them."""
        counts = {row.pk: count for row in rows if (count := likely_files(row))}
        if counts:
            # A session may have been deleted since it was claimed: then each visit reserves its own.
            with suppress(IntegrityError):
                self._names |= files.reserve_names_of_many(counts)


def likely_files(session: VerificationSession) -> int:
    """How many files the next visit may store: those wanted, or of a whole session at the first visit after
    the return."""
    if session.verdict != VerificationSession.Verdict.PENDING:
        wanted = (asset for asset in session.assets.all() if asset.state == State.WANTED)
        return sum(asset.source != Source.UPLOAD for asset in wanted)
    returned_at, polled_at = session.returned_at, session.last_polled_at
    return LIKELY_FILES if returned_at is not None and (polled_at is None or polled_at < returned_at) else 0
