"""The work itself: ask Baidu about a claimed session, keep the answers, archive the evidence.

One visit to a session asks for whatever is still unknown, stores whatever is still wanted, and
either finishes the session or says when to look again. A visit can stop anywhere and be repeated:
each step's result is committed under the lease before the next begins, upstream URLs are never
kept, and what has been stored is not fetched twice.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q

from django_faceprint.clock import now
from django_faceprint.exceptions import FaceprintConfigurationError, FaceprintError, UnsafeMedia, UrlExpired
from django_faceprint.models import MediaAsset, VerificationSession

from . import archive, deadlines, events, evidence, results, schedule, upstream
from .problems import NO_ERROR, error_columns
from .schedule import Lease, LeaseLost
from .verdict import ask_verdict, decide
from .visit import Visit

logger = logging.getLogger(__name__)

Verdict = VerificationSession.Verdict
ArchiveState = VerificationSession.ArchiveState
State = MediaAsset.State
Source = MediaAsset.Source

#: What to ask about a decided session, in this order; each marks itself done on the session.
STEPS = {
    "getall": results.ask_all,
    "simple": results.ask_simple,
    "media": results.ask_media,
    "stat": results.ask_stat,
}


@dataclass
class WorkReport:
    """What one run of the engine did."""

    sessions: int = 0
    archived: int = 0
    lost: int = 0
    failures: int = 0


def collect_due(
    *, budget: timedelta, hint: int | None = None, limit: int | None = None, monotonic: Callable[[], float]
) -> WorkReport:
    """Work on due sessions, the most urgent first, until none is left or the time *budget* is used up.

    *hint* is a session that has just become interesting (its browser returned); it is claimed first
    if it is ready. The caller passes a monotonic clock in seconds: the budget is real time even
    where the project's clock is moved.
    """
    report = WorkReport()
    started = monotonic()
    stop_at = started + budget.total_seconds()

    def in_time() -> bool:
        return monotonic() < started + schedule.DOWNLOADS_BEGIN_WITHIN

    schedule.promote(now())
    while monotonic() < stop_at and (limit is None or report.sessions < limit):
        lease = schedule.claim(now(), session_pk=hint) if hint is not None else None
        hint = None
        lease = lease or schedule.claim(now())
        if lease is None:
            if not schedule.promote(now()):
                break
            continue
        _collect_claimed(lease, report, in_time)
    return report


def _collect_claimed(lease: Lease, report: WorkReport, in_time: Callable[[], bool]) -> None:
    report.sessions += 1
    problem: dict[str, str] = {}
    try:
        _visit(lease, report, in_time)
    except LeaseLost:
        logger.info("faceprint: session was taken over by another worker")
    except FaceprintConfigurationError as error:
        problem = error_columns(error)
    except Exception as error:  # noqa: BLE001  (reported below, with its place)
        # One session that trips over a mistake of ours must not keep the others from their turn.
        _log_unexpected(f"session pk {lease.session_pk}", error)
        problem = {**NO_ERROR, "error_class": "internal", "error_message": type(error).__name__}
    if problem:
        # Outside the except block: should this fail too, its traceback must not quote the first failure.
        report.failures += 1
        _postpone(lease, problem, report)


def _visit(lease: Lease, report: WorkReport, in_time: Callable[[], bool]) -> None:
    session = lease.session()
    with upstream.client_for(session.application, session=session) as client:
        visit = Visit(lease, session, client, in_time)
        try:
            _work_through(visit)
        finally:
            report.archived += visit.archived
            report.lost += visit.lost
            report.failures += visit.failed


def _log_unexpected(where: str, error: Exception) -> None:
    """Only the place is logged: the exception's own text could quote what upstream sent."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    logger.error(
        "faceprint: %s: unexpected %s at %s:%s", where, type(error).__name__, frame.filename, frame.lineno
    )


def _work_through(visit: Visit) -> None:
    session = visit.session
    visit.update(last_polled_at=now(), poll_count=session.poll_count + 1)
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
        visit.lease.release(over_at, next_deadline=None)
        return
    decide(visit, Verdict.EXPIRED)
    _settle(visit)


def _archive_wanted(visit: Visit) -> None:
    """Store every wanted asset whose bytes or URL this visit has, the earliest deadline first.

    Stops, after one at least, when the run has no time for another download: a worker that is killed in
    mid-download has downloaded for nothing.
    """
    wanted = list(visit.session.assets.wanted())
    far = datetime.max.replace(tzinfo=now().tzinfo)
    wanted.sort(key=lambda asset: deadlines.ordering_deadline(visit.session, asset) or far)
    within_reach = [asset for asset in wanted if asset.pk in visit.data or asset.pk in visit.urls]
    for done, asset in enumerate(within_reach):
        if done and not visit.in_time():
            visit.cut_short = True
            return
        _archive_one(visit, asset)


def _fetch_and_store(visit: Visit, asset: MediaAsset) -> None:
    if asset.pk in visit.data:
        archive.store(visit.lease, asset, [visit.data[asset.pk]])
        return
    with upstream.downloader().fetch(visit.urls[asset.pk]) as body:
        archive.store(visit.lease, asset, body.chunks(), plain_http=body.plain_http)


def _archive_one(visit: Visit, asset: MediaAsset) -> None:
    problem = ""
    try:
        _fetch_and_store(visit, asset)
    except UrlExpired:
        problem = "url_expired"
    except UnsafeMedia as error:
        problem = f"unsafe_media: {error.reason}"
    except FaceprintError as error:
        problem = str(error)
    except archive.StorageFailed as error:
        problem = f"storage: {error}"
    except LeaseLost:
        raise
    except Exception as error:  # noqa: BLE001  (reported, with its place)
        # One file that trips over a mistake of ours must not keep the others from being archived.
        _log_unexpected(f"session {visit.session.public_id}", error)
        problem = f"internal: {type(error).__name__}"
    if not problem:
        visit.archived += 1
        return
    visit.failed = True
    with visit.lease.fenced():
        MediaAsset.objects.filter(pk=asset.pk).update(tries=asset.tries + 1, error=problem[:200])
    logger.warning("faceprint: session %s: %s not archived: %s", visit.session.public_id, asset.kind, problem)


def _settle(visit: Visit) -> None:
    """Give the session back: done, or with the moment of the next look."""
    session = visit.session
    moment = now()
    if session.verdict == Verdict.PENDING:
        _settle_pending(visit, moment)
        return
    if not visit.cut_short:
        _mark_lost(visit, moment)
    _give_up_broken_uploads(visit)
    wanted = list(session.assets.wanted())
    over = session.results_latest is not None and moment >= session.results_latest
    decided = session.verdict in (Verdict.PASSED, Verdict.FAILED)
    unasked = [stage for stage in STEPS if not visit.done(stage)] if decided and not over else []
    if wanted or unasked:
        next_deadline = min(
            filter(None, (deadlines.ordering_deadline(session, asset) for asset in wanted)),
            default=session.results_deadline,
        )
        failures = 0 if visit.cut_short else session.failure_count + 1
        visit.lease.release(
            schedule.retry_at(moment, failures, next_deadline),
            next_deadline=next_deadline,
            failure_count=failures,
        )
        return
    _finish(visit, moment)


def _settle_pending(visit: Visit, moment: datetime) -> None:
    session = visit.session
    if session.results_latest is not None and moment >= session.results_latest:
        logger.error("faceprint: session %s: the verdict was never learnt", session.public_id)
        decide(visit, Verdict.UNKNOWN)
        _finish(visit, moment)
        return
    failures = session.failure_count + 1 if visit.failed else 0
    next_deadline = deadlines.pending_deadline(session)
    poll_at = schedule.next_poll_at(session, moment)
    if visit.failed:
        retry = schedule.retry_at(moment, failures, session.media_deadline)
        poll_at = min(poll_at, retry) if poll_at else retry
    visit.lease.release(poll_at, next_deadline=next_deadline, failure_count=failures)


def _mark_lost(visit: Visit, moment: datetime) -> None:
    """An asset is lost only here: its latest deadline is over, and this visit could not get it either."""
    overdue = list(visit.session.assets.wanted().filter(latest__lte=moment))
    for asset in overdue:
        with visit.lease.fenced():
            changed = MediaAsset.objects.wanted().filter(pk=asset.pk).update(state=State.LOST)
            if not changed:
                continue
            asset.state = State.LOST
            transaction.on_commit(lambda asset=asset: events.evidence_lost(asset))  # type: ignore[misc]
        visit.lost += 1
        logger.error(
            "faceprint: session %s: %s was not archived in time", visit.session.public_id, asset.kind
        )


def _give_up_broken_uploads(visit: Visit) -> None:
    """A match image whose upload to us was cut off: nobody can be asked for it, and nothing waits for it."""
    broken = visit.session.assets.wanted().filter(source=Source.UPLOAD)
    if broken.exists():
        with visit.lease.fenced():
            broken.update(state=State.NOT_PROVIDED, reason=evidence.UPLOAD_CUT_OFF)


def _finish(visit: Visit, moment: datetime) -> None:
    session = visit.session
    with visit.lease.fenced():
        state = archive_state(session)
        visit.update(archive_state=state)
        if state == ArchiveState.COMPLETE:
            if session.verdict == Verdict.PASSED:
                visit.update(**NO_ERROR)
            if session.archived_at is None:
                visit.update(archived_at=moment)
                transaction.on_commit(lambda: events.session_archived(session))
        visit.lease.release(None, next_deadline=None, failure_count=0)


def archive_state(session: VerificationSession) -> str:
    """How complete a decided session's evidence is, when nothing is outstanding any more."""
    states = list(session.assets.exclude(source=Source.UPLOAD).values_list("state", flat=True))
    lost, stored = states.count(State.LOST), states.count(State.STORED)
    if session.verdict == Verdict.UNKNOWN and (session.returned_at or session.stages_done.get("attempted")):
        # There was an attempt and we never learnt of its evidence.
        return ArchiveState.PARTIAL if stored else ArchiveState.LOST
    if lost:
        return ArchiveState.PARTIAL if stored else ArchiveState.LOST
    return ArchiveState.COMPLETE if stored else ArchiveState.NOT_APPLICABLE


def _postpone(lease: Lease, problem: dict[str, str], report: WorkReport) -> None:
    """The visit could not be made, or broke off: say why on the session and look again later.

    Not for ever: what could not be fetched until its latest deadline is lost for this reason, too.
    """
    try:
        session = lease.session()
        visit = Visit(lease, session, None, failed=True)
        visit.write_problem(problem)
        if session.token_answered_at is None:
            _finish_unstarted(visit)
        else:
            _settle(visit)
        report.lost += visit.lost
    except LeaseLost:
        logger.info("faceprint: session was taken over by another worker")


def make_due(session: VerificationSession) -> None:
    """Look at *session* again as soon as a worker is free, if anything is left to do for it."""
    schedule.poke(session.pk)


def collect_anew(session: VerificationSession) -> bool:
    """Ask upstream for everything again that is not stored.

    False while a worker holds the session, before it is decided and after its verify_token was erased.

    Assets that were lost become wanted again for one more visit at least; those that were not
    provided do when upstream names them now.
    """
    moment = now()
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
            ready_deadline=session.media_deadline or moment,
            wake_at=None,
            failure_count=0,
        )
        if changed:
            session.assets.filter(state=State.LOST).update(state=State.WANTED, error="")
    return bool(changed)
