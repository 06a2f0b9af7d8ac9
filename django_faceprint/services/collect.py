"""The work itself: ask Baidu about a claimed session, keep the answers, archive the evidence.

One visit to a session asks for whatever is still unknown, stores whatever is still wanted, and
either finishes the session or says when to look again. A visit can stop anywhere and be repeated:
each step's result is committed under the lease before the next begins, upstream URLs are never
kept, and what has been stored is not fetched twice.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.db import IntegrityError, transaction
from django.db.models import F, Q, prefetch_related_objects
from django.views.decorators.debug import sensitive_variables

from django_faceprint.client import remembering_pictures
from django_faceprint.clock import now
from django_faceprint.conf import RETENTION_KINDS
from django_faceprint.exceptions import FaceprintConfigurationError, FaceprintError, UnsafeMedia, UrlExpired
from django_faceprint.models import MediaAsset, VerificationSession

from . import archive, deadlines, events, evidence, results, rollups, schedule, thumbnails, upstream
from .commit import Changes, commit, patiently
from .desk import RunOver, desk, on_desk
from .parallelism import Parallelism
from .problems import NO_ERROR, error_columns
from .schedule import Lease, LeaseLost
from .verdict import ask_verdict, decide
from .visit import Visit

logger = logging.getLogger(__name__)

Verdict = VerificationSession.Verdict
ArchiveState = VerificationSession.ArchiveState
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
LOOK_AGAIN = 0.2
#: Work whose deadline is nearer than this goes first where our rate limit makes others wait, as does that
#: of a person who came back so recently as to be looking at the page.
URGENT_WITHIN = timedelta(minutes=30)
PERSON_WAITS = timedelta(minutes=1)
#: Seconds for waking sessions before the first is claimed.
PROMOTE_SECONDS = 1.0
#: Bytes from which a download takes long enough for what is known to be written first.
LONG_DOWNLOAD = 8 * 1024 * 1024

#: What to ask about a decided session, in this order; each marks itself done on the session.
STEPS = {
    "getall": results.ask_all,
    "simple": results.ask_simple,
    "media": results.ask_media,
    "stat": results.ask_stat,
}

#: Which interface names the URL of a file.
NAMED_BY = {
    Source.GETALL: results.ask_all,
    Source.SIMPLE: results.ask_simple,
    Source.MEDIA: results.ask_media,
}


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
    once at most; see :mod:`.parallelism`. *progress* is told now and then, *stop* is asked before each
    session.

    The caller passes a monotonic clock in seconds: the budget is real time even where the project's clock
    is moved.
    """
    started = monotonic()
    return _Run(
        stop_at=started + budget.total_seconds(),
        downloads_until=started + schedule.DOWNLOADS_BEGIN_WITHIN,
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
    look_again_at: float = 0.0
    over: bool = False
    parallelism: Parallelism = field(init=False)

    def __post_init__(self) -> None:
        self.parallelism = Parallelism(self.concurrency, self.monotonic)

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
        with desk(patiently):
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
                while self.active < self.parallelism.width and (lease := self._next()):
                    visit = self._start(lease)
                    pool.submit(self._visit_in_thread, context.copy(), visit)
                    self.active += 1
                if not self.active:
                    break
                self.parallelism.adjust(is_full=self.active >= self.parallelism.width)
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
            raise RunOver
        self.events.put(request)
        while True:
            try:
                return request.result.result(timeout=1.0)
            except TimeoutError:
                if self.over:
                    raise RunOver from None

    # --- claiming -----------------------------------------------------------------------------------

    def _next(self) -> Lease | None:
        """The next session to visit, if there is one and time for it."""
        if self.monotonic() >= self.stop_at or (self.stop is not None and self.stop()):
            return None
        if self.limit is not None and self.report.sessions >= self.limit:
            return None
        rests = upstream.api_rests()
        self.report.baidu_down = rests is not None
        if rests is not None and (rests or self.active):
            # Nothing can be learnt about any session; the one that is visited now tells when Baidu is back.
            return None
        self._hold()
        self._give_back_stale()
        if not self.claimed and (not self.active or self.monotonic() >= self.look_again_at):
            self._claim()
            if not self.claimed:
                self.look_again_at = self.monotonic() + LOOK_AGAIN
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
        while self.claimed and schedule.is_stale(self.claimed[0], now()):
            self._give_back([self.claimed.popleft()])

    def _give_back(self, leases: Sequence[Lease]) -> None:
        patiently(lambda: schedule.give_back(leases))
        if names := [name for lease in leases for name in self.names.pop(lease.session_pk, ())]:
            patiently(lambda: archive.settle_names(names))

    def _claim(self) -> None:
        hint, self.hint = self.hint, None
        if hint is not None:
            self._take_ready(session_pk=hint)
        if not self.claimed:
            most = 1 if self.report.baidu_down else max(CLAIM_BATCH, self.parallelism.width)
            if self.limit is not None:
                most = min(most, self.limit - self.report.sessions)
            # What has woken meanwhile may be more urgent than all that is ready.
            woken = patiently(lambda: schedule.promote(now()))
            self._take_ready(limit=most)
            if not self.claimed and (woken or self.finished):
                # Others may have taken what was woken, and whoever poked a session during its visit finds it
                # due again.
                self._commit()
                if self._promote():
                    self._take_ready(limit=most)
        rows = [lease.row for lease in self.claimed if lease.row]
        patiently(lambda: prefetch_related_objects(rows, "plan", "assets"))
        patiently(lambda: self._reserve_names(rows))

    def _take_ready(self, **which: int) -> None:
        self.claimed.extend(patiently(lambda: schedule.claim(now(), term=self._term, **which)))

    @property
    def _term(self) -> timedelta:
        return schedule.TERM_OF_ONE_AT_ONCE if self.concurrency == 1 else schedule.TERM

    def _hold(self) -> None:
        """Renew the leases of all that this run has in hand, when it is time for that.

        What others have taken meanwhile, because this process stood still for long, is not begun.
        """
        moment = now()
        if moment - self.renewed_at < schedule.RENEWED_AFTER:
            return
        leases = [*self.held.values(), *self.claimed]
        ours = patiently(lambda: schedule.renew(leases, moment, self._term), also_alive=True)
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
                self.names |= archive.reserve_names_of_many(counts)

    def _promote(self) -> int:
        """Wake what is due, all of it if that does not take long: only then is the most urgent known."""
        until = self.monotonic() + PROMOTE_SECONDS
        promoted = 0
        while woken := patiently(lambda: schedule.promote(now())):
            promoted += woken
            if woken < schedule.PROMOTE_BATCH or self.monotonic() >= until:
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
            _visit(visit)
        except LeaseLost:
            logger.info("faceprint: session was taken over by another worker")
            visit.abandon()
        except FaceprintConfigurationError as error:
            problem = error_columns(error)
        except (SoftTimeLimitExceeded, RunOver):
            raise
        except Exception as error:  # noqa: BLE001  (reported below, with its place)
            # One session that trips over a mistake of ours must not keep the others from their turn.
            _log_unexpected(f"session pk {visit.lease.session_pk}", error)
            problem = {**NO_ERROR, "error_class": "internal", "error_message": type(error).__name__}
        if problem:
            # Outside the except block: should this fail too, its traceback must not quote the first failure.
            visit.abandon()
            return _postpone(visit, problem)
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
            outcome = patiently(self.work)
        except SoftTimeLimitExceeded:
            self.refuse()
            raise
        except Exception as error:  # noqa: BLE001  (raised where it was asked for)
            self.result.set_exception(error)
        else:
            self.result.set_result(outcome)

    def refuse(self) -> None:
        self.result.set_exception(RunOver())


def _visit(visit: Visit) -> None:
    session = visit.session
    client_of_session = upstream.client_for(
        session.application, session=session, records=visit.calls, urgent=_is_urgent(session)
    )
    with client_of_session as client, remembering_pictures():
        visit.connection = client
        _work_through(visit)


def _log_unexpected(where: str, error: Exception) -> None:
    """Only the place is logged: the exception's own text could quote what upstream sent."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    logger.error(
        "faceprint: %s: unexpected %s at %s:%s", where, type(error).__name__, frame.filename, frame.lineno
    )


def _is_urgent(session: VerificationSession) -> bool:
    """A deadline that can be kept is near, or a person waits for the result."""
    moment = now()
    deadline, returned_at = schedule.aim_of(session, moment), session.returned_at
    return (deadline is not None and deadline - moment < URGENT_WITHIN) or (
        returned_at is not None and moment - returned_at < PERSON_WAITS
    )


def _likely_files(session: VerificationSession) -> int:
    """How many files the next visit may store: those wanted, or of a whole session at the first look after
    the return."""
    if session.verdict != Verdict.PENDING:
        wanted = (asset for asset in session.assets.all() if asset.state == State.WANTED)
        return sum(asset.source != Source.UPLOAD for asset in wanted)
    returned_at, polled_at = session.returned_at, session.last_polled_at
    return LIKELY_FILES if returned_at is not None and (polled_at is None or polled_at < returned_at) else 0


def _work_through(visit: Visit) -> None:
    session = visit.session
    visit.update(last_polled_at=now(), poll_count=session.poll_count + 1)
    visit.drop_what_is_not_kept()
    if session.token_answered_at is None:
        _finish_unstarted(visit)
        return
    if session.verdict == Verdict.PENDING:
        visit.attempt(ask_verdict)
    if session.verdict in (Verdict.PASSED, Verdict.FAILED):
        for step in STEPS.values():
            visit.attempt(step)
        visit.attempt(results.ask_detail_again)
        _archive_wanted(visit)
    _settle(visit)


def _finish_unstarted(visit: Visit) -> None:
    """A session for which no verify_token could be obtained: nobody could use it, nothing exists upstream."""
    moment = now()
    over_at = visit.session.created_at + deadlines.TOKEN_LIFE
    if moment < over_at:
        visit.release(over_at)
        return
    decide(visit, Verdict.EXPIRED)
    _settle(visit)


def _archive_wanted(visit: Visit) -> None:
    """Store every wanted asset whose bytes or URL this visit has, the earliest deadline first.

    Stops, after one at least, when the run has no time for another download: a worker that is killed in
    mid-download has downloaded for nothing.
    """
    far = datetime.max.replace(tzinfo=now().tzinfo)
    within_reach = sorted(
        (asset for asset in visit.wanted() if visit.is_within_reach(asset)),
        key=lambda asset: deadlines.ordering_deadline(visit.session, asset) or far,
    )
    visit.reserve_names(len(within_reach))
    for done, asset in enumerate(within_reach):
        if done and not visit.in_time():
            visit.cut_short = True
            return
        _archive_one(visit, asset)
        visit.checkpoint()


def _fetch_and_store(visit: Visit, asset: MediaAsset, name: str) -> dict[str, Any]:
    if asset.public_id in visit.data:
        return archive.save(asset, name, [visit.data[asset.public_id]])
    own_thread = threading.get_ident()

    def renew() -> str | None:
        # Some storages read in threads of their own, where nobody may ask Baidu or a database.
        return _fresh_url(visit, asset) if threading.get_ident() == own_thread else None

    with upstream.downloader().download(visit.urls[asset.public_id], renew=renew) as body:
        if (body.content_length or LONG_DOWNLOAD) >= LONG_DOWNLOAD:
            # What is known so far must not wait for it.
            visit.checkpoint()
        return archive.save(
            asset,
            name,
            body.chunks(),
            plain_http=body.plain_http,
            with_thumbnail=asset is thumbnails.portrait_of(visit.assets.values()),
        )


def _fresh_url(visit: Visit, asset: MediaAsset) -> str | None:
    """Another URL of *asset*, whose present one is not served any more; None if upstream names none.

    Each interface is asked anew once in a visit: what is not served then either is a matter for the next.
    """
    source = Source(asset.source)
    if source in visit.asked_anew:
        return None
    visit.asked_anew.add(source)
    del visit.urls[asset.public_id]
    visit.attempt(NAMED_BY[source])
    return visit.urls.get(asset.public_id)


def _archive_one(visit: Visit, asset: MediaAsset) -> None:
    problem = ""
    name = visit.next_name()
    try:
        columns = _fetch_and_store(visit, asset, name)
    except UrlExpired:
        problem = "url_expired"
    except UnsafeMedia as error:
        problem = f"unsafe_media: {error.reason}"
        visit.write_problem(error_columns(error))
        if error.raw:
            visit.record_refused(asset, error.raw, error.reason)
    except FaceprintError as error:
        problem = str(error)
    except archive.StorageFailed as error:
        problem = f"storage: {error}"
    except (LeaseLost, SoftTimeLimitExceeded, RunOver):
        visit.drop_upload(name)
        raise
    except Exception as error:  # noqa: BLE001  (reported, with its place)
        # One file that trips over a mistake of ours must not keep the others from being archived.
        _log_unexpected(f"session {visit.session.public_id}", error)
        problem = f"internal: {type(error).__name__}"
    if not problem:
        visit.keep_upload(asset, columns)
        return
    visit.failed = True
    visit.drop_upload(name)
    visit.change(asset, tries=asset.tries + 1, error=problem[:200])
    logger.warning("faceprint: session %s: %s not archived: %s", visit.session.public_id, asset.kind, problem)


def _settle(visit: Visit) -> None:
    """Give the session back: done, or with the moment of the next look."""
    session = visit.session
    moment = now()
    if session.verdict == Verdict.PENDING:
        _settle_pending(visit, moment)
        return
    over = session.results_latest is not None and moment >= session.results_latest
    decided = session.verdict in (Verdict.PASSED, Verdict.FAILED)
    if decided and over:
        _want_what_was_never_named(visit)
    if not visit.cut_short:
        _mark_lost(visit, moment)
    _give_up_broken_uploads(visit)
    wanted = visit.wanted()
    unasked = [stage for stage in STEPS if not visit.done(stage)] if decided and not over else []
    if wanted or unasked:
        # What has not been asked about may bring assets of which nothing is known yet.
        unknown = [session.results_deadline] if unasked else []
        if "media" in unasked and session.plan.records_video:
            unknown.append(session.media_deadline)
        ladder = deadlines.asset_ladder(session, wanted, moment, unknown=unknown)
        failures = 0 if visit.cut_short else session.failure_count + 1
        retry_at = schedule.retry_at(moment, failures, ladder.next_deadline)
        if visit.held_back is not None and not visit.failed:
            failures = session.failure_count
            retry_at = schedule.turn_at(moment, visit.held_back)
        visit.update(failure_count=failures)
        visit.release(retry_at, ladder)
        return
    _finish(visit, moment)


def _settle_pending(visit: Visit, moment: datetime) -> None:
    session = visit.session
    if session.results_latest is not None and moment >= session.results_latest:
        logger.error("faceprint: session %s: the verdict was never learnt", session.public_id)
        decide(visit, Verdict.UNKNOWN)
        _give_up_broken_uploads(visit)
        _finish(visit, moment)
        return
    failures = session.failure_count + 1 if visit.failed else 0
    poll_at = schedule.next_poll_at(session, moment)
    if visit.failed:
        retry = schedule.retry_at(moment, failures, session.media_deadline)
        poll_at = min(poll_at, retry) if poll_at else retry
    elif visit.held_back is not None:
        failures = session.failure_count
        poll_at = schedule.turn_at(moment, visit.held_back)
    ladder = deadlines.pending_ladder(
        requested_at=session.token_requested_at,
        media_deadline=session.media_deadline,
        results_deadline=session.results_deadline,
        records_video=session.plan.records_video,
        moment=moment,
    )
    visit.update(failure_count=failures)
    visit.release(poll_at, ladder)


def _want_what_was_never_named(visit: Visit) -> None:
    """Baidu's time is over, and it never told what there was: that is a loss like any other."""
    items = evidence.never_named(
        visit.session.plan, attempts=visit.done("getall"), recordings=visit.done("media")
    )
    known = {(asset.kind, asset.attempt_order) for asset in visit.assets.values()}
    for item in items:
        if (item.kind, item.attempt_order) not in known:
            visit.want(item)


def _mark_lost(visit: Visit, moment: datetime) -> None:
    """An asset is lost only here: its latest deadline is over, and this visit could not get it either."""
    for asset in visit.wanted():
        if asset.latest is None or asset.latest > moment:
            continue
        # A download that failed has said why; else it is what kept us from beginning one.
        why = asset.error or visit.trouble or evidence.UPSTREAM_GAVE_NONE
        visit.change(asset, state=State.LOST, error=why[:200])
        visit.after_commit(partial(events.evidence_lost, asset))
        visit.lost += 1
        logger.error(
            "faceprint: session %s: %s was not archived in time", visit.session.public_id, asset.kind
        )


def _give_up_broken_uploads(visit: Visit) -> None:
    """A match image whose upload to us was cut off: nobody can be asked for it, and nothing waits for it."""
    for asset in visit.wanted(Source.UPLOAD):
        visit.change(asset, state=State.NOT_PROVIDED, reason=evidence.UPLOAD_CUT_OFF)


def _finish(visit: Visit, moment: datetime) -> None:
    session = visit.session
    state = archive_state(session, visit.assets.values())
    visit.update(archive_state=state, failure_count=0)
    if state == ArchiveState.COMPLETE:
        if session.verdict == Verdict.PASSED:
            visit.update(**NO_ERROR)
        if session.archived_at is None:
            visit.update(archived_at=moment)
            visit.after_commit(partial(events.session_archived, session))
    visit.release(None)


def archive_state(session: VerificationSession, assets: Iterable[MediaAsset]) -> str:
    """How complete a decided session's evidence is, when nothing is outstanding any more.

    What was stored and had its time, and what is not kept by rule, is as it should be.
    """
    ours = [asset for asset in assets if asset.source != Source.UPLOAD]
    lost = sum(asset.state == State.LOST for asset in ours)
    stored = sum(asset.state in (State.STORED, State.ERASED) or asset.is_not_kept for asset in ours)
    if session.verdict == Verdict.UNKNOWN and (session.returned_at or session.stages_done.get("attempted")):
        # There was an attempt and we never learnt of its evidence.
        return ArchiveState.PARTIAL if stored else ArchiveState.LOST
    if lost:
        return ArchiveState.PARTIAL if stored else ArchiveState.LOST
    return ArchiveState.COMPLETE if stored else ArchiveState.NOT_APPLICABLE


def _postpone(visit: Visit, problem: dict[str, str]) -> Visit:
    """The visit could not be made, or broke off: say why on the session and look again later.

    Not for ever: what could not be fetched until its latest deadline is lost for this reason, too.
    Begins again with the session as it is in the database. Raises what the database does.
    """
    second = Visit(visit.lease, visit.session, None, failed=True, calls=visit.calls)
    try:
        session = on_desk(visit.lease.session)
        second = Visit(visit.lease, session, None, failed=True, calls=visit.calls)
        second.take_assets(on_desk(lambda: list(session.assets.all())))
        second.write_problem(problem)
        if session.token_answered_at is None:
            _finish_unstarted(second)
        else:
            _settle(second)
    except LeaseLost:
        logger.info("faceprint: session was taken over by another worker")
    return second


def make_due(session: VerificationSession) -> None:
    """Look at *session* again as soon as a worker is free, if anything is left to do for it."""
    schedule.poke(session.pk)


def collect_anew(session: VerificationSession) -> bool:
    """Ask upstream for everything again that is not stored.

    False while a worker holds the session, before it is decided and after its verify_token was erased.

    Assets that were lost become wanted again for one more visit at least; those that were not
    provided do when upstream names them now, and those of a kind that was switched off and is kept now
    while there is time.
    """
    moment = now()
    kept_now = Q(
        reason=MediaAsset.NOT_KEPT,
        state=State.NOT_PROVIDED,
        kind__in=[kind for kind in RETENTION_KINDS if session.plan.keeps(kind)],
        latest__gt=moment,
    ) & ~Q(source=Source.UPLOAD)
    again = session.assets.filter(Q(state__in=(State.WANTED, State.LOST)) | kept_now)
    ladder = deadlines.asset_ladder(
        session, again, moment, unknown=[session.media_deadline, session.results_deadline]
    )
    idle = Q(lease_until__isnull=True) | Q(lease_until__lte=moment)
    with transaction.atomic():
        changed = VerificationSession.objects.filter(
            idle, pk=session.pk, verdict__in=(Verdict.PASSED, Verdict.FAILED), verify_token__isnull=False
        ).update(
            stages_done={
                key: value
                for key, value in session.stages_done.items()
                if key in ("attempted", results.NAMED)
            },
            archive_state=ArchiveState.COLLECTING,
            lease_epoch=F("lease_epoch") + 1,
            ready_deadline=schedule.aim(
                moment,
                **ladder.columns(),
                media_deadline=session.media_deadline,
                media_latest=session.media_latest,
                results_latest=session.results_latest,
                wake_at=moment,
            ),
            **ladder.columns(),
            wake_at=None,
            failure_count=0,
        )
        if changed:
            session.assets.filter(Q(state=State.LOST) | kept_now).update(
                state=State.WANTED, error="", reason=""
            )
            rollups.recount(session)
    return bool(changed)
