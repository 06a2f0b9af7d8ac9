"""One run of the engine: claims the most urgent sessions, has them visited, writes what was learnt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from django.views.decorators.debug import sensitive_variables

from django_faceprint.base.db_thread import Database, Interrupts
from django_faceprint.base.lease import Lease
from django_faceprint.upstream import clients
from django_faceprint.upstream.clients import Upstream

from . import queue, steps
from .claims import Claims
from .concurrency import AdaptiveConcurrency
from .retry import DatabaseRetry
from .threads import VisitThreads
from .visit import Visit, VisitContext
from .writer import COMMIT_WITHIN, Writer

#: Sessions that are claimed together; those that a run does not come to are given back.
CLAIM_BATCH = 8
#: Seconds after which a queue that was empty is checked again while visits are under way.
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
    interrupts: Interrupts = (),
    upstream: Upstream | None = None,
    retry: DatabaseRetry | None = None,
) -> WorkReport:
    """Work on due sessions, the most urgent first, until none is left or the time *budget* is used up.

    *hint* is a session that has just become interesting (its browser returned); it is claimed first if it is
    ready. *limit* ends the run after n sessions. *concurrency* is the maximum number of visits at once; see
    :mod:`.concurrency`. *progress* is called now and then, *stop* before each session. *interrupts* are
    exceptions that end the run wherever they strike, such as a task's time limit. *upstream* and
    *retry* replace this process's connections to Baidu and its patience with the database.

    The caller passes a monotonic clock in seconds: the budget is real time even where the project's clock is
    moved.
    """
    run = Run(
        stop_at=monotonic() + budget.total_seconds(),
        monotonic=monotonic,
        hint=hint,
        limit=limit,
        concurrency=concurrency,
        progress=progress or (lambda report: None),
        stop=stop or (lambda: False),
        interrupts=interrupts,
        upstream=upstream if upstream is not None else clients.upstream,
        retry=retry if retry is not None else DatabaseRetry(),
    )
    return run.work()


@dataclass(kw_only=True)
class Run:
    """Decides what happens next; only its own thread uses the database.

    :meth:`work` is all of it; the steps are public for who drives a run by hand, as a simulation does. The
    arguments are those of :func:`collect_due`; ``stop_at`` is when the run's time is up, by *monotonic*.
    """

    stop_at: float
    monotonic: Callable[[], float]
    hint: int | None
    limit: int | None
    concurrency: int
    progress: Callable[[WorkReport], None]
    stop: Callable[[], bool]
    interrupts: Interrupts
    upstream: Upstream
    retry: DatabaseRetry

    def __post_init__(self) -> None:
        ttl = queue.SERIAL_LEASE_TTL if self.concurrency == 1 else queue.LEASE_TTL
        self._report = WorkReport()
        self._claims = Claims(ttl=ttl, retry=self.retry)
        self._writer = Writer(monotonic=self.monotonic, retry=self.retry)
        self._adaptive = AdaptiveConcurrency(self.concurrency, self.monotonic)
        self._downloads_until = self.monotonic() + queue.DOWNLOADS_BEGIN_WITHIN
        self._recheck_at = 0.0

    def work(self) -> WorkReport:
        """Work until nothing is due or the time is up."""
        self.begin()
        try:
            if self.concurrency == 1:
                self._work_serially()
            else:
                self._work_in_threads()
        finally:
            self.end()
        return self._report

    def begin(self) -> None:
        """Wake what is due."""
        self._promote()

    def end(self) -> None:
        """However it ended: write what visits have brought, give back what was not visited."""
        self._write()
        self._claims.give_back_all()

    def _work_serially(self) -> None:
        context = self._context(database=self.retry, checkpoint=self.checkpoint)
        while (visit := self._next(context, active=0)) is not None:
            self.finish(steps.visit_session(visit))

    def _work_in_threads(self) -> None:
        adaptive = self._adaptive
        threads = VisitThreads(self.concurrency, database=self.retry, interrupts=self.interrupts)
        context = self._context(database=threads.run_in_run_thread)
        try:
            while True:
                while threads.active < adaptive.width and (visit := self._next(context, threads.active)):
                    threads.submit(steps.visit_session, visit)
                if not threads.active:
                    break
                adaptive.adapt(is_full=threads.active >= adaptive.width)
                visit = threads.wait(COMMIT_WITHIN)
                if visit is not None:
                    self.finish(visit)
                self.checkpoint()
        finally:
            threads.close()

    def _context(self, *, database: Database, checkpoint: Callable[[], None] = lambda: None) -> VisitContext:
        return VisitContext(
            upstream=self.upstream,
            database=database,
            retry=self.retry,
            monotonic=self.monotonic,
            may_download=lambda: self.monotonic() < self._downloads_until,
            checkpoint=checkpoint,
            interrupts=self.interrupts,
        )

    def _next(self, context: VisitContext, active: int) -> Visit | None:
        claimed = self.next_lease(active)
        if claimed is None:
            return None
        lease, names = claimed
        session = lease.row
        assert session is not None  # noqa: S101  (narrowing only; claims read the row)
        return Visit(lease, session, context, assets=session.assets.all(), names=names)

    def next_lease(self, active: int) -> tuple[Lease, list[str]] | None:
        """The next session to be visited and its upload names, if there is one and time for it.

        *active* visits are under way.
        """
        if self.monotonic() >= self.stop_at or self.stop():
            return None
        if self.limit is not None and self._report.sessions >= self.limit:
            return None
        retry_after = self.upstream.api_retry_after()
        self._report.baidu_down = retry_after is not None
        if retry_after is not None and (retry_after or active):
            # Nothing can be learnt about any session; the visit under way tells when Baidu is back.
            return None
        self._claims.renew()
        self._claims.give_back_stale()
        if not self._claims.has_waiting and (not active or self.monotonic() >= self._recheck_at):
            self._claim()
            if not self._claims.has_waiting:
                self._recheck_at = self.monotonic() + RECHECK_AFTER
        if not self._claims.has_waiting:
            # No session is left, so that nothing is left undone.
            self._report.baidu_down = False
            return None
        self._report.sessions += 1
        return self._claims.next()

    def _claim(self) -> None:
        hint, self.hint = self.hint, None
        if hint is not None:
            self._claims.claim(session_pk=hint)
        if self._claims.has_waiting:
            return
        most = 1 if self._report.baidu_down else max(CLAIM_BATCH, self._adaptive.width)
        if self.limit is not None:
            most = min(most, self.limit - self._report.sessions)
        # What has woken meanwhile may be more urgent than all that is ready.
        woken = self._claims.promote()
        self._claims.claim(limit=most)
        if not self._claims.has_waiting and (woken or self._writer):
            # Others may have taken what was woken, and a session for which a recheck was requested during its
            # visit is due again.
            self._write()
            if self._promote():
                self._claims.claim(limit=most)

    def _promote(self) -> int:
        """Wake what is due, all of it if that does not take long: only then is the most urgent known."""
        until = self.monotonic() + PROMOTE_SECONDS
        promoted = 0
        while woken := self._claims.promote():
            promoted += woken
            if woken < queue.PROMOTE_BATCH or self.monotonic() >= until:
                break
        return promoted

    def finish(self, visit: Visit) -> None:
        """Take a visit that has ended."""
        outcome = visit.outcome
        self._report.archived += outcome.archived
        self._report.lost += outcome.lost
        self._report.failures += outcome.failed
        self._writer.add(visit)
        self._write_if_due()

    def checkpoint(self) -> None:
        """Between slow steps: renew leases, and commit finished visits that have waited long enough."""
        self._claims.renew()
        self._write_if_due()

    def _write_if_due(self) -> None:
        if self._writer.is_due():
            self._write()

    def _write(self) -> None:
        if not self._writer:
            return
        self._claims.forget(self._writer.write())
        # Receivers of signals may have taken their time.
        self._claims.renew()
        self.progress(self._report)
