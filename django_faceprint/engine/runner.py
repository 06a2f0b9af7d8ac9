"""The work itself: ask Baidu about a claimed session, keep the answers, archive the evidence.

One visit to a session asks for whatever is still unknown, stores whatever is still wanted, and
either finishes the session or says when to look again. A visit can stop anywhere and be repeated:
each step's result is committed under the lease before the next begins, upstream URLs are never
kept, and what has been stored is not fetched twice.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.db import IntegrityError
from django.db.models import prefetch_related_objects
from django.views.decorators.debug import sensitive_variables

from django_faceprint.base.lease import Lease, LeaseLost
from django_faceprint.clock import now
from django_faceprint.evidence import files
from django_faceprint.exceptions import FaceprintConfigurationError
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.upstream import clients
from django_faceprint.upstream.db_thread import RunEnded, desk
from django_faceprint.upstream.errors import NO_ERROR, error_columns

from . import queue
from .commit import Changes, commit, retry_on_disconnect
from .concurrency import AdaptiveConcurrency
from .settle import postpone
from .steps import log_unexpected, perform_visit
from .visit import Visit

logger = logging.getLogger(__name__)
Verdict = VerificationSession.Verdict
State = MediaAsset.State
Source = MediaAsset.Source

#: Sessions that are claimed together; those that a run does not come to are given back.
CLAIM_BATCH = 8
#: Names that are reserved with the claim for a session of which nothing is known but the return: as many as
#: most that passed have files.
LIKELY_FILES = 8
#: Finished visits are written together: so many, and none later than so many seconds.
COMMIT_BATCH = 16
COMMIT_WITHIN = 0.2
#: Seconds after which a queue that was empty is looked at again while visits are under way.
RECHECK_AFTER = 0.2
#: Seconds for waking sessions before the first is claimed.
PROMOTE_SECONDS = 1.0


@dataclass
class WorkReport:
    """What one run of the engine did."""

    sessions: int = 0
    archived: int = 0
    lost: int = 0
    failures: int = 0
    #: The run ended with work left because Baidu does not answer.
    baidu_down: bool = False

    def add(self, run: WorkReport) -> None:
        """Count what a further run did."""
        self.sessions += run.sessions
        self.archived += run.archived
        self.lost += run.lost
        self.failures += run.failures
        self.baidu_down = run.baidu_down


@sensitive_variables()
def collect_due(
    *,
    budget: timedelta,
    monotonic: Callable[[], float],
    hint: int | None = None,
    limit: int | None = None,
    concurrency: int = 1,
    progress: Callable[[WorkReport], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> WorkReport:
    """Work on due sessions, the most urgent first, until none is left or the time *budget* is used up.

    *hint* is a session that has just become interesting (its browser returned); it is claimed first
    if it is ready. *limit* ends the run after so many sessions, *concurrency* is how many are visited at
    once at most; see :mod:`.concurrency`. *progress* is told now and then, *stop* is asked before each
    session.

    The caller passes a monotonic clock in seconds: the budget is real time even where the project's clock
    is moved.
    """
    started = monotonic()
    return _Run(
        stop_at=started + budget.total_seconds(),
        downloads_until=started + queue.DOWNLOADS_BEGIN_WITHIN,
        monotonic=monotonic,
        hint=hint,
        limit=limit,
        concurrency=concurrency,
        progress=progress,
        stop=stop,
    ).work()


@dataclass
class _Run:
    """One run: claims, hands out, commits. Only its own thread uses the database."""

    stop_at: float
    downloads_until: float
    monotonic: Callable[[], float]
    hint: int | None
    limit: int | None
    concurrency: int
    progress: Callable[[WorkReport], None] | None
    stop: Callable[[], bool] | None
    report: WorkReport = field(default_factory=WorkReport)
    claimed: deque[Lease] = field(default_factory=deque)
    #: Names of uploads that are reserved for claimed sessions, by the session's key.
    names: dict[int, list[str]] = field(default_factory=dict)
    #: Leases of the sessions that are visited or whose visit has not been written yet, by the session's key.
    held: dict[int, Lease] = field(default_factory=dict)
    renewed_at: datetime = field(default_factory=now)
    finished: list[Changes] = field(default_factory=list)
    finished_since: float = 0.0
    events: SimpleQueue[_Request | Visit | BaseException] = field(default_factory=SimpleQueue)
    active: int = 0
    recheck_at: float = 0.0
    over: bool = False
    concurrency_control: AdaptiveConcurrency = field(init=False)

    def __post_init__(self) -> None:
        self.concurrency_control = AdaptiveConcurrency(self.concurrency, self.monotonic)

    def work(self) -> WorkReport:
        self._promote()
        try:
            if self.concurrency == 1:
                self._work_alone()
            else:
                self._work_together()
        finally:
            # However it ended: what visits have brought is written, what nobody came to is given back.
            self._commit()
            self._give_back(self.claimed)
        return self.report

    def _work_alone(self) -> None:
        with desk(retry_on_disconnect):
            while lease := self._next():
                visit = self._start(lease)
                visit.on_checkpoint = self._between
                self._take(self._look(visit))

    def _between(self) -> None:
        """Whatever takes long: nothing that is finished waits for it, and no lease ends."""
        self._hold()
        self._commit_if_due()

    def _work_together(self) -> None:
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="faceprint")
        try:
            with desk(self._ask):
                context = copy_context()
            while True:
                while self.active < self.concurrency_control.width and (lease := self._next()):
                    visit = self._start(lease)
                    pool.submit(self._visit_in_thread, context.copy(), visit)
                    self.active += 1
                if not self.active:
                    break
                self.concurrency_control.adapt(is_full=self.active >= self.concurrency_control.width)
                self.active -= self._handle_event()
                self._between()
        finally:
            # Reached early only by an error: the visits that are under way write nothing any more.
            self.over = True
            while not self.events.empty():
                event = self.events.get()
                if isinstance(event, _Request):
                    event.refuse()
            pool.shutdown(wait=not self.active, cancel_futures=True)

    def _visit_in_thread(self, context: Context, visit: Visit) -> None:
        try:
            self.events.put(context.run(self._look, visit))
        except BaseException as error:  # noqa: BLE001  (raised again in the run's own thread)
            self.events.put(error)

    def _handle_event(self) -> int:
        """Wait for one visit to ask or to end; how many have ended."""
        try:
            event = self.events.get(timeout=COMMIT_WITHIN)
        except Empty:
            return 0
        if isinstance(event, _Request):
            event.answer()
            return 0
        if isinstance(event, BaseException):
            raise event
        self._take(event)
        return 1

    def _ask(self, work: Callable[[], Any]) -> Any:
        """Called by a visit's thread: have *work* done by the run's own."""
        request = _Request(work)
        if self.over:
            raise RunEnded
        self.events.put(request)
        while True:
            try:
                return request.result.result(timeout=1.0)
            except TimeoutError:
                if self.over:
                    raise RunEnded from None

    # --- claiming -----------------------------------------------------------------------------------

    def _next(self) -> Lease | None:
        """The next session to visit, if there is one and time for it."""
        if self.monotonic() >= self.stop_at or (self.stop is not None and self.stop()):
            return None
        if self.limit is not None and self.report.sessions >= self.limit:
            return None
        retry_after = clients.api_retry_after()
        self.report.baidu_down = retry_after is not None
        if retry_after is not None and (retry_after or self.active):
            # Nothing can be learnt about any session; the one that is visited now tells when Baidu is back.
            return None
        self._hold()
        self._give_back_stale()
        if not self.claimed and (not self.active or self.monotonic() >= self.recheck_at):
            self._claim()
            if not self.claimed:
                self.recheck_at = self.monotonic() + RECHECK_AFTER
        if not self.claimed:
            # There is nothing to be asked, so that nothing is left undone.
            self.report.baidu_down = False
            return None
        self.report.sessions += 1
        lease = self.claimed.popleft()
        self.held[lease.session_pk] = lease
        return lease

    def _give_back_stale(self) -> None:
        """What was claimed for a deadline that went by meanwhile yields to work that can keep its own, and
        what would be another's again before its visit is over is claimed anew."""
        while self.claimed and queue.is_stale(self.claimed[0], now()):
            self._give_back([self.claimed.popleft()])

    def _give_back(self, leases: Sequence[Lease]) -> None:
        retry_on_disconnect(lambda: queue.give_back(leases))
        if names := [name for lease in leases for name in self.names.pop(lease.session_pk, ())]:
            retry_on_disconnect(lambda: files.settle_names(names))

    def _claim(self) -> None:
        hint, self.hint = self.hint, None
        if hint is not None:
            self._take_ready(session_pk=hint)
        if not self.claimed:
            most = 1 if self.report.baidu_down else max(CLAIM_BATCH, self.concurrency_control.width)
            if self.limit is not None:
                most = min(most, self.limit - self.report.sessions)
            # What has woken meanwhile may be more urgent than all that is ready.
            woken = retry_on_disconnect(lambda: queue.promote(now()))
            self._take_ready(limit=most)
            if not self.claimed and (woken or self.finished):
                # Others may have taken what was woken, and a session for which a recheck was requested during
                # its visit is due again.
                self._commit()
                if self._promote():
                    self._take_ready(limit=most)
        rows = [lease.row for lease in self.claimed if lease.row]
        retry_on_disconnect(lambda: prefetch_related_objects(rows, "plan", "assets"))
        retry_on_disconnect(lambda: self._reserve_names(rows))

    def _take_ready(self, **which: int) -> None:
        self.claimed.extend(retry_on_disconnect(lambda: queue.claim(now(), ttl=self._ttl, **which)))

    @property
    def _ttl(self) -> timedelta:
        return queue.SERIAL_LEASE_TTL if self.concurrency == 1 else queue.LEASE_TTL

    def _hold(self) -> None:
        """Renew the leases of all that this run has in hand, when it is time for that.

        What others have taken meanwhile, because this process stood still for long, is not begun.
        """
        moment = now()
        if moment - self.renewed_at < queue.RENEW_AFTER:
            return
        leases = [*self.held.values(), *self.claimed]
        ours = retry_on_disconnect(lambda: queue.renew(leases, moment, self._ttl), also_alive=True)
        self.renewed_at = moment
        lost = [lease for lease in self.claimed if lease.session_pk not in ours]
        self.claimed = deque(lease for lease in self.claimed if lease.session_pk in ours)
        self._give_back(lost)

    def _reserve_names(self, rows: Sequence[VerificationSession]) -> None:
        """Names for what is likely to be stored, in one statement; a visit that needs more asks for them."""
        counts = {row.pk: count for row in rows if (count := _likely_files(row))}
        if counts:
            # A session may have been deleted since it was claimed: then each visit asks for its own.
            with suppress(IntegrityError):
                self.names |= files.reserve_names_of_many(counts)

    def _promote(self) -> int:
        """Wake what is due, all of it if that does not take long: only then is the most urgent known."""
        until = self.monotonic() + PROMOTE_SECONDS
        promoted = 0
        while woken := retry_on_disconnect(lambda: queue.promote(now())):
            promoted += woken
            if woken < queue.PROMOTE_BATCH or self.monotonic() >= until:
                break
        return promoted

    def _start(self, lease: Lease) -> Visit:
        session = lease.row
        assert session is not None  # noqa: S101  (narrowing only; claims read the row)
        visit = Visit(lease, session, None, self._in_time, self.monotonic)
        visit.take_assets(session.assets.all())
        visit.take_names(self.names.pop(session.pk, ()))
        return visit

    def _in_time(self) -> bool:
        return self.monotonic() < self.downloads_until

    # --- visiting -----------------------------------------------------------------------------------

    @sensitive_variables()
    def _look(self, visit: Visit) -> Visit:
        """Make the visit; what the one that is returned has learnt may not have been written yet."""
        problem: dict[str, str] = {}
        try:
            perform_visit(visit)
        except LeaseLost:
            logger.info("faceprint: session was taken over by another worker")
            visit.abandon()
        except FaceprintConfigurationError as error:
            problem = error_columns(error)
        except (SoftTimeLimitExceeded, RunEnded):
            raise
        except Exception as error:  # noqa: BLE001  (reported below, with its place)
            # One session that trips over a mistake of ours must not keep the others from their turn.
            log_unexpected(f"session pk {visit.lease.session_pk}", error)
            problem = {**NO_ERROR, "error_class": "internal", "error_message": type(error).__name__}
        if problem:
            # Outside the except block: should this fail too, its traceback must not quote the first failure.
            visit.abandon()
            return postpone(visit, problem)
        return visit

    # --- writing ------------------------------------------------------------------------------------

    def _take(self, visit: Visit) -> None:
        self.report.archived += visit.archived
        self.report.lost += visit.lost
        self.report.failures += visit.failed
        if not self.finished:
            self.finished_since = self.monotonic()
        visit.changes.calls = visit.calls
        self.finished.append(visit.changes)
        self._commit_if_due()

    def _commit_if_due(self) -> None:
        if self.finished and (
            len(self.finished) >= COMMIT_BATCH or self.monotonic() - self.finished_since >= COMMIT_WITHIN
        ):
            self._commit()

    def _commit(self) -> None:
        finished, self.finished = self.finished, []
        if finished:
            for _ in commit(finished):
                logger.info("faceprint: session was taken over by another worker")
            for changes in finished:
                # Not the lease of a later claim.
                if self.held.get(changes.lease.session_pk) == changes.lease:
                    del self.held[changes.lease.session_pk]
            # Receivers of signals may have taken their time.
            self._hold()
            if self.progress is not None:
                self.progress(self.report)


@dataclass
class _Request:
    """Database work that a visit's thread waits for."""

    work: Callable[[], Any]
    result: Future[Any] = field(default_factory=Future)

    def answer(self) -> None:
        try:
            outcome = retry_on_disconnect(self.work)
        except SoftTimeLimitExceeded:
            self.refuse()
            raise
        except Exception as error:  # noqa: BLE001  (raised where it was asked for)
            self.result.set_exception(error)
        else:
            self.result.set_result(outcome)

    def refuse(self) -> None:
        self.result.set_exception(RunEnded())


def _likely_files(session: VerificationSession) -> int:
    """How many files the next visit may store: those wanted, or of a whole session at the first look after
    the return."""
    if session.verdict != Verdict.PENDING:
        wanted = (asset for asset in session.assets.all() if asset.state == State.WANTED)
        return sum(asset.source != Source.UPLOAD for asset in wanted)
    returned_at, polled_at = session.returned_at, session.last_polled_at
    return LIKELY_FILES if returned_at is not None and (polled_at is None or polled_at < returned_at) else 0
