"""Ending a visit: the session is done, or gets the time of its next one; what is too late is lost."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from functools import partial

from django_faceprint.base import deadlines, events
from django_faceprint.base.lease import LeaseLost
from django_faceprint.clock import now
from django_faceprint.evidence import expected
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.upstream.errors import NO_ERROR

from . import polling
from .problems import report
from .results import QUESTIONS
from .verdict import record_verdict
from .visit import Visit

logger = logging.getLogger(__name__)
Verdict = VerificationSession.Verdict
ArchiveState = VerificationSession.ArchiveState
State = MediaAsset.State
Source = MediaAsset.Source


def settle_without_token(visit: Visit) -> None:
    """A session for which no verify_token could be obtained: nobody could use it, nothing exists upstream."""
    moment = now()
    over_at = visit.session.created_at + deadlines.TOKEN_LIFE
    if moment < over_at:
        visit.release(over_at)
        return
    record_verdict(visit, Verdict.EXPIRED)
    settle(visit)


def settle(visit: Visit) -> None:
    """Give the session back: done, or with the time of its next visit."""
    session = visit.session
    moment = now()
    if session.verdict == Verdict.PENDING:
        _settle_pending(visit, moment)
        return
    over = session.results_give_up_at is not None and moment >= session.results_give_up_at
    decided = session.verdict in (Verdict.PASSED, Verdict.FAILED)
    if decided and over:
        _want_what_was_never_named(visit)
    if not visit.outcome.cut_short:
        _mark_lost(visit, moment)
    _give_up_broken_uploads(visit)
    wanted = visit.wanted()
    unasked = [step for step in QUESTIONS if not visit.is_answered(step)] if decided and not over else []
    if wanted or unasked:
        # What has not been asked about may bring assets of which nothing is known yet.
        unknown = [session.results_deadline] if unasked else []
        if "media" in unasked and session.plan.records_video:
            unknown.append(session.media_deadline)
        pending = deadlines.outstanding_deadlines(session, wanted, moment, unknown=unknown)
        failures = 0 if visit.outcome.cut_short else session.failure_count + 1
        retry_at = polling.retry_at(moment, failures, pending.next_deadline)
        if visit.outcome.retry_after is not None and not visit.outcome.failed:
            failures = session.failure_count
            retry_at = polling.turn_at(moment, visit.outcome.retry_after)
        visit.update(failure_count=failures)
        visit.release(retry_at, pending)
        return
    _finish(visit, moment)


def _settle_pending(visit: Visit, moment: datetime) -> None:
    session = visit.session
    if session.results_give_up_at is not None and moment >= session.results_give_up_at:
        logger.error("faceprint: session %s: the verdict was never learnt", session.public_id)
        record_verdict(visit, Verdict.UNKNOWN)
        _give_up_broken_uploads(visit)
        _finish(visit, moment)
        return
    failures = session.failure_count + 1 if visit.outcome.failed else 0
    poll_at = polling.next_poll_at(session, moment)
    if visit.outcome.failed:
        retry = polling.retry_at(moment, failures, session.media_deadline)
        poll_at = min(poll_at, retry) if poll_at else retry
    elif visit.outcome.retry_after is not None:
        failures = session.failure_count
        poll_at = polling.turn_at(moment, visit.outcome.retry_after)
    pending = deadlines.undecided_deadlines(
        requested_at=session.token_requested_at,
        media_deadline=session.media_deadline,
        results_deadline=session.results_deadline,
        records_video=session.plan.records_video,
        moment=moment,
    )
    visit.update(failure_count=failures)
    visit.release(poll_at, pending)


def _want_what_was_never_named(visit: Visit) -> None:
    """Baidu's time is over, and it never told what there was: that is a loss like any other."""
    items = expected.never_named(
        visit.session.plan, attempts=visit.is_answered("getall"), recordings=visit.is_answered("media")
    )
    known = {(asset.kind, asset.attempt_order) for asset in visit.assets.values()}
    for item in items:
        if (item.kind, item.attempt_order) not in known:
            visit.want(item)


def _mark_lost(visit: Visit, moment: datetime) -> None:
    """An asset is lost only here: its latest deadline is over, and this visit could not get it either."""
    for asset in visit.wanted():
        if asset.give_up_at is None or asset.give_up_at > moment:
            continue
        # A download that failed has said why; else it is what kept us from beginning one.
        why = (asset.error_class, asset.error_detail)
        if not asset.error_class:
            outcome = visit.outcome
            why = (outcome.error_class or expected.UPSTREAM_GAVE_NONE, outcome.error_detail)
        visit.change(asset, state=State.LOST, error_class=why[0][:30], error_detail=why[1][:200])
        visit.after_commit(partial(events.evidence_lost, asset))
        visit.outcome.lost += 1
        logger.error(
            "faceprint: session %s: %s was not archived in time", visit.session.public_id, asset.kind
        )


def _give_up_broken_uploads(visit: Visit) -> None:
    """A match image whose upload to us was cut off: nobody can be asked for it, and nothing waits for it."""
    for asset in visit.wanted(Source.UPLOAD):
        visit.change(asset, state=State.NOT_PROVIDED, reason=expected.UPLOAD_CUT_OFF)


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
    if session.verdict == Verdict.UNKNOWN and (session.returned_at or session.attempted_at):
        # There was an attempt and we never learnt of its evidence.
        return ArchiveState.PARTIAL if stored else ArchiveState.LOST
    if lost:
        return ArchiveState.PARTIAL if stored else ArchiveState.LOST
    return ArchiveState.COMPLETE if stored else ArchiveState.NOT_APPLICABLE


def replace_broken_visit(visit: Visit, problem: dict[str, str]) -> Visit:
    """Replace a visit that broke off by one that says why on the session, and settles it.

    The new visit begins with the session as it is in the database. Evidence whose give-up time has come is
    lost for this reason, too. Raises what the database raises.
    """
    database = visit.context.database
    second = Visit(visit.lease, visit.session, visit.context)
    try:
        session = database(visit.lease.session)
        assets = database(lambda: list(session.assets.all()))
        second = Visit(visit.lease, session, visit.context, assets=assets)
        second.outcome.failed = True
        report(second, problem)
        if session.token_answered_at is None:
            settle_without_token(second)
        else:
            settle(second)
    except LeaseLost:
        logger.info("faceprint: session was taken over by another worker")
        second.outcome.failed = True
    second.calls = visit.calls
    return second
