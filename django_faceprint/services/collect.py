"""The work itself: ask Baidu about a claimed session, keep the answers, archive the evidence.

One pass over a session asks for whatever is still unknown, stores whatever is still wanted, and
either finishes the session or says when to look again. A pass can stop anywhere and be repeated:
each step's result is committed under the lease before the next begins, upstream URLs are never
kept, and what has been stored is not fetched twice.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models import F, Q

from django_faceprint.client import (
    AllResult,
    Answer,
    Attempt,
    DetailResult,
    ErrorClass,
    FaceprintClient,
    MediaResult,
    OcrResult,
    UpstreamError,
)
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.exceptions import (
    FaceprintConfigurationError,
    FaceprintError,
    Rejected,
    SessionGone,
    Throttled,
    UnsafeMedia,
    UrlExpired,
)
from django_faceprint.models import MediaAsset, VerificationAttempt, VerificationSession
from django_faceprint.privacy.blind_index import blind_index
from django_faceprint.privacy.fields import column_values

from . import archive, deadlines, events, evidence, schedule, upstream
from .answers import record_answer
from .schedule import Lease, LeaseLost

logger = logging.getLogger(__name__)

Verdict = VerificationSession.Verdict
ArchiveState = VerificationSession.ArchiveState
Kind = MediaAsset.Kind
State = MediaAsset.State
Source = MediaAsset.Source

#: How long a recording may be missing from the answer before it counts as not provided.
RECORDING_LAG = timedelta(minutes=30)


@dataclass
class WorkReport:
    """What one run of the engine did."""

    sessions: int = 0
    archived: int = 0
    lost: int = 0
    failures: int = 0


@dataclass
class _Pass:
    """One pass over one session: the lease, the row as loaded, and what this pass has learnt."""

    lease: Lease
    session: VerificationSession
    client: FaceprintClient
    urls: dict[int, str] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    failed: bool = False
    archived: int = 0
    lost: int = 0

    def update(self, **values: Any) -> None:
        """Change the session's row under the lease, and the instance with it."""
        self.lease.update(**column_values(self.session, values))
        for name, value in values.items():
            setattr(self.session, name, value)

    def mark(self, stage: str) -> None:
        """Note that *stage* needs no more asking."""
        self.update(stages_done={**self.session.stages_done, stage: now().isoformat()})

    def hold(self, asset: MediaAsset, data: bytes) -> None:
        """Keep the bytes of a picture that came inside an answer until it is stored."""
        self.data[asset.pk] = data
        self.pictures[hashlib.sha256(data).hexdigest()] = str(asset.public_id)

    def done(self, stage: str) -> bool:
        """Whether *stage* has been answered for good."""
        return stage in self.session.stages_done


def collect_due(
    *, budget: timedelta, hint: int | None = None, limit: int | None = None, monotonic: Callable[[], float]
) -> WorkReport:
    """Work on due sessions, the most urgent first, until none is left or the time *budget* is used up.

    *hint* is a session that has just become interesting (its browser returned); it is claimed first
    if it is ready. The caller passes a monotonic clock in seconds: the budget is real time even
    where the project's clock is moved.
    """
    report = WorkReport()
    stop_at = monotonic() + budget.total_seconds()
    schedule.promote(now())
    while monotonic() < stop_at and (limit is None or report.sessions < limit):
        lease = schedule.claim(now(), session_pk=hint) if hint is not None else None
        hint = None
        lease = lease or schedule.claim(now())
        if lease is None:
            if not schedule.promote(now()):
                break
            continue
        _collect_claimed(lease, report)
    return report


def _collect_claimed(lease: Lease, report: WorkReport) -> None:
    report.sessions += 1
    try:
        session = lease.session()
        with upstream.client_for(session.application, session_pk=session.pk) as client:
            work = _Pass(lease, session, client)
            try:
                _work_through(work)
            finally:
                report.archived += work.archived
                report.lost += work.lost
                report.failures += work.failed
    except LeaseLost:
        logger.info("faceprint: session was taken over by another worker")
    except FaceprintConfigurationError as error:
        report.failures += 1
        _postpone(lease, error)


def _work_through(work: _Pass) -> None:
    session = work.session
    work.update(last_polled_at=now(), poll_count=session.poll_count + 1)
    if session.token_answered_at is None:
        _finish_unstarted(work)
        return
    if session.verdict == Verdict.PENDING:
        _attempt(work, _ask_verdict)
    if session.verdict in (Verdict.PASSED, Verdict.FAILED):
        for step in (_ask_all, _ask_simple, _ask_media, _ask_stat, _ask_detail_again):
            _attempt(work, step)
        _archive_wanted(work)
    _settle(work)


def _attempt(work: _Pass, step: Callable[[_Pass], None]) -> None:
    """Run one step; a failure is written on the session and does not keep the other steps from trying."""
    problem: FaceprintError | FaceprintConfigurationError | None = None
    try:
        step(work)
    except (FaceprintError, FaceprintConfigurationError) as error:
        problem = error
    if problem is not None:
        _note_problem(work, problem)


def _note_problem(work: _Pass, problem: FaceprintError | FaceprintConfigurationError) -> None:
    work.failed = True
    values = error_columns(problem)
    work.update(**values)
    raw = getattr(problem, "raw", None)
    upstream_error: UpstreamError | None = getattr(problem, "error", None)
    if raw and upstream_error is not None and isinstance(problem, Rejected):
        with work.lease.fenced():
            record_answer(
                work.session,
                upstream_error.endpoint,
                raw,
                log_id=upstream_error.log_id,
                code=upstream_error.code,
                parsed=False,
            )
    logger.warning(
        "faceprint: session %s: %s (code %s, log_id %s)",
        work.session.public_id,
        values["error_class"],
        values["error_code"] or "-",
        values["error_log_id"] or "-",
    )


def error_columns(problem: FaceprintError | FaceprintConfigurationError) -> dict[str, str]:
    """The columns that tell an operator what went wrong. Upstream's text, no personal data of ours."""
    error: UpstreamError | None = getattr(problem, "error", None)
    if error is not None and not isinstance(problem, FaceprintConfigurationError):
        return _error_columns(error)
    kinds = {
        UnsafeMedia: "unsafe_media",
        SessionGone: ErrorClass.GONE.value,
        Throttled: ErrorClass.SLOW_DOWN.value,
        Rejected: ErrorClass.UNKNOWN.value,
        FaceprintConfigurationError: ErrorClass.CONFIGURATION.value,
    }
    kind = next((name for cls, name in kinds.items() if isinstance(problem, cls)), ErrorClass.RETRY.value)
    return {
        "error_class": kind,
        "error_code": (error.code if error else str(getattr(problem, "reason", "")))[:40],
        "error_message": str(problem)[:200],
        "error_log_id": (error.log_id if error else "")[:40],
    }


def _error_columns(error: UpstreamError) -> dict[str, str]:
    return {
        "error_class": error.error_class.value,
        "error_code": error.code[:40],
        "error_message": error.message[:200],
        "error_log_id": error.log_id[:40],
    }


NO_ERROR = {"error_class": "", "error_code": "", "error_message": "", "error_log_id": ""}


def _finish_unstarted(work: _Pass) -> None:
    """A session for which no verify_token could be obtained: nobody could use it, nothing exists upstream."""
    moment = now()
    over_at = work.session.created_at + deadlines.TOKEN_LIFE
    if moment < over_at:
        work.lease.release(over_at, next_deadline=None)
        return
    _decide(work, Verdict.EXPIRED)
    _settle(work)


# --- the verdict --------------------------------------------------------------------------------


def _ask_verdict(work: _Pass) -> None:
    """result/detail decides a pass; a failure or an expiry needs the token to be closed as well.

    An unknown code and 「Token无效或者已过期」 say nothing about the person; where upstream lists the
    attempts (result/getall), those may.
    """
    session = work.session
    closes_at = deadlines.window_closes_at(session)
    window_over = closes_at is not None and now() >= closes_at
    token_closes = session.plan.closes_on_failure or window_over
    detail: Answer[DetailResult] | None = None
    problem: Rejected | SessionGone | None = None
    try:
        detail = work.client.result_detail(_token(session))
    except (Rejected, SessionGone) as error:
        problem = error
    if detail is not None and detail.result is not None:
        _take_pass(work, detail)
        return
    if detail is not None and detail.error is not None:
        error_class = detail.error.error_class
        if error_class == ErrorClass.VERIFICATION_FAILED:
            _take_failure(work, detail, decide=token_closes)
            return
    if problem is not None or window_over:
        _decide_by_attempts(work, problem, token_closes=token_closes)


def _take_failure(work: _Pass, detail: Answer[DetailResult], *, decide: bool) -> None:
    error = detail.error
    assert error is not None  # noqa: S101  (narrowing only; the caller has checked)
    with work.lease.fenced():
        record_answer(work.session, detail.endpoint, detail.raw, log_id=detail.log_id, code=error.code)
        if decide:
            _decide(work, Verdict.FAILED, **_error_columns(error))
        else:
            work.update(**_error_columns(error))
            work.mark("attempted")


def _decide_by_attempts(
    work: _Pass, problem: Rejected | SessionGone | None, *, token_closes: bool
) -> None:
    everything: Answer[AllResult] | None = None
    try:
        everything = work.client.result_all(_token(work.session))
    except Rejected as error:
        problem = problem or (None if error.error and error.error.error_class == ErrorClass.CALLER else error)
    attempts = everything.result.attempts if everything is not None and everything.result is not None else ()
    if everything is not None and attempts and token_closes and all(item.passed is False for item in attempts):
        _decide(work, Verdict.FAILED)
        _take_attempts(work, everything)
    elif problem is not None:
        raise problem
    elif not attempts:
        _decide(work, Verdict.EXPIRED)
    else:
        # Passed between our two questions: the next pass reads result/detail again.
        work.failed = True


def _take_pass(work: _Pass, detail: Answer[DetailResult]) -> None:
    result = detail.result
    assert result is not None  # noqa: S101  (narrowing only; the caller has checked)
    confirmed = _without_none({"name": result.confirmed_name, "number": result.confirmed_number})
    with work.lease.fenced():
        _decide(
            work,
            Verdict.PASSED,
            score=result.score,
            liveness_score=result.liveness_score,
            spoofing=result.spoofing,
            is_demote=result.is_demote,
            threshold=work.session.plan.threshold if work.session.threshold is None else work.session.threshold,
            confirmed=confirmed or None,
            ocr=_ocr(result.ocr),
            name_index=work.session.name_index or blind_index("name", result.confirmed_name or ""),
            number_index=work.session.number_index or blind_index("id_number", result.confirmed_number or ""),
            expected=evidence.expected_assets(
                work.session.plan,
                Verdict.PASSED,
                with_id_front=result.front_image is not None,
                with_id_back=result.back_image is not None,
            ),
            **NO_ERROR,
        )
        _record_detail(work, detail)


def _record_detail(work: _Pass, detail: Answer[DetailResult]) -> None:
    result = detail.result
    assert result is not None  # noqa: S101  (narrowing only; the callers have checked)
    assets = {asset.kind: asset for asset in work.session.assets.filter(source=Source.DETAIL)}
    for kind, data in ((Kind.ID_FRONT, result.front_image), (Kind.ID_BACK, result.back_image)):
        if data is not None and kind in assets:
            work.hold(assets[kind], data)
    record_answer(
        work.session,
        detail.endpoint,
        detail.raw,
        log_id=detail.log_id,
        oddities=result.oddities,
        pictures=work.pictures,
    )


def _decide(
    work: _Pass, verdict: str, *, expected: Iterable[evidence.ExpectedAsset] | None = None, **values: Any
) -> None:
    """Store the verdict and, in the same transaction, every asset that it promises."""
    session = work.session
    moment = now()
    keep = session.plan.retention_days
    retention = timedelta(days=keep) if keep else conf.retention
    with work.lease.fenced():
        work.update(
            verdict=verdict,
            decided_at=moment,
            retain_until=moment + retention if retention else None,
            archive_state=ArchiveState.COLLECTING,
            failure_count=0,
            **values,
        )
        if expected is None:
            expected = evidence.expected_assets(
                session.plan, verdict, with_id_front=False, with_id_back=False
            )
        for item in expected:
            _want(session, item)
        transaction.on_commit(lambda: events.verdict_reached(session))


def _want(
    session: VerificationSession, item: evidence.ExpectedAsset, attempt_time: datetime | None = None
) -> MediaAsset:
    safe, latest = deadlines.asset_deadlines(session, item.kind, attempt_time)
    asset, created = MediaAsset.objects.get_or_create(
        session=session,
        attempt_order=item.attempt_order,
        kind=item.kind,
        position=item.position,
        defaults={
            "source": item.source,
            "state": item.state,
            "reason": item.reason,
            "deadline": safe,
            "latest": latest,
        },
    )
    if not created and item.state == State.WANTED and asset.state == State.NOT_PROVIDED:
        # Upstream gives now what it did not give before, or what the plan did not promise.
        MediaAsset.objects.filter(pk=asset.pk, state=State.NOT_PROVIDED).update(
            state=State.WANTED, reason="", deadline=safe, latest=latest
        )
        asset.refresh_from_db()
    return asset


# --- what else upstream knows -------------------------------------------------------------------


def _ask_all(work: _Pass) -> None:
    """result/getall: attempts, their faces, thresholds and risk. Absent in the older document."""
    if work.done("getall") and not _out_of_reach(work, Source.GETALL):
        return
    unsupported = False
    everything: Answer[AllResult] | None = None
    try:
        everything = work.client.result_all(_token(work.session))
    except Rejected:
        if work.done("getall"):
            raise
        unsupported = True
    if unsupported or everything is None or everything.result is None:
        # A verdict from result/detail stands without it: nothing waits for an optional interface.
        work.mark("getall")
        return
    _take_attempts(work, everything)


def _take_attempts(work: _Pass, everything: Answer[AllResult]) -> None:
    session = work.session
    result = everything.result
    assert result is not None  # noqa: S101  (narrowing only; the callers have checked)
    work.pictures |= _pictures_of(session)
    with work.lease.fenced():
        for attempt in result.attempts:
            VerificationAttempt.objects.update_or_create(
                session=session, order=attempt.order, defaults=_attempt_columns(attempt)
            )
            _want_of_attempt(work, attempt)
        record_answer(
            session,
            everything.endpoint,
            everything.raw,
            log_id=everything.log_id,
            oddities=result.oddities,
            pictures=work.pictures,
        )
        if result.attempts:
            _take_last_attempt(work, result.attempts[-1])
        work.mark("getall")


def _want_of_attempt(work: _Pass, attempt: Attempt) -> None:
    """The face and, where result/detail did not bring them, the card pictures."""
    if attempt.face_url:
        item = evidence.ExpectedAsset(Kind.ATTEMPT_FACE, Source.GETALL, attempt_order=attempt.order)
        asset = _want(work.session, item, attempt.verify_time)
        work.urls[asset.pk] = attempt.face_url
    for kind, data in ((Kind.ID_FRONT, attempt.front_image), (Kind.ID_BACK, attempt.back_image)):
        if data is None or hashlib.sha256(data).hexdigest() in work.pictures:
            continue
        item = evidence.ExpectedAsset(kind, Source.GETALL, attempt_order=attempt.order)
        asset = _want(work.session, item, attempt.verify_time)
        work.hold(asset, data)


def _pictures_of(session: VerificationSession) -> dict[str, str]:
    """SHA-256 → asset id of the card pictures that result/detail brought."""
    stored = session.assets.filter(source=Source.DETAIL).exclude(sha256="")
    return {asset.sha256: str(asset.public_id) for asset in stored}


def _take_last_attempt(work: _Pass, last: Attempt) -> None:
    session = work.session
    verified_at = deadlines.plausible_verify_time(session, last.verify_time)
    values: dict[str, Any] = {}
    if verified_at is not None and session.verified_at is None:
        values["verified_at"] = verified_at
    if last.threshold is not None:
        values["threshold"] = last.threshold
    if session.is_demote is None and last.is_demote is not None:
        values["is_demote"] = last.is_demote
    if session.verdict == Verdict.FAILED:
        values |= {
            "score": last.score,
            "liveness_score": last.liveness_score,
            "spoofing": last.spoofing_score,
            "error_class": ErrorClass.VERIFICATION_FAILED.value,
            "error_code": last.code[:40],
            "error_message": last.message[:200],
        }
        confirmed = _without_none({"name": last.confirmed_name, "number": last.confirmed_number})
        if confirmed:
            values["confirmed"] = confirmed
            values["name_index"] = session.name_index or blind_index("name", last.confirmed_name or "")
            values["number_index"] = session.number_index or blind_index(
                "id_number", last.confirmed_number or ""
            )
    if values:
        work.update(**values)
    if "verified_at" in values:
        for asset in session.assets.filter(attempt_order=0).exclude(deadline=None):
            safe, latest = deadlines.asset_deadlines(session, asset.kind)
            MediaAsset.objects.filter(pk=asset.pk).update(deadline=safe, latest=latest)


def _attempt_columns(attempt: Attempt) -> dict[str, Any]:
    return {
        "passed": attempt.passed,
        "code": attempt.code[:40],
        "message": attempt.message[:200],
        "verified_at": attempt.verify_time,
        "score": attempt.score,
        "threshold": attempt.threshold,
        "liveness_score": attempt.liveness_score,
        "spoofing": attempt.spoofing_score,
        "risk_level": (attempt.risk_level or "")[:20],
        "risk_tag": (attempt.risk_tag or "")[:200],
        "is_demote": attempt.is_demote,
        "is_charged": attempt.is_charged,
        "charge_type": (attempt.charge_type or "")[:20],
        "verify_log_id": attempt.verify_log_id[:40],
    }


def _ask_simple(work: _Pass) -> None:
    """result/simple: where the best face is. For a failed session upstream may or may not know one."""
    session = work.session
    failed = session.verdict == Verdict.FAILED
    wanted = _wanted(work, Source.SIMPLE)
    if work.done("simple") and not wanted:
        return
    if failed and not wanted:
        _ask_face_of_failure(work)
        return
    answer = work.client.result_simple(_token(session))
    if answer.result is None or not answer.result.face_url:
        work.failed = True
        if answer.error is not None:
            work.update(**_error_columns(answer.error))
        return
    if not work.done("simple"):
        with work.lease.fenced():
            record_answer(session, answer.endpoint, answer.raw, log_id=answer.log_id)
            work.mark("simple")
    for asset in wanted:
        work.urls[asset.pk] = answer.result.face_url


def _ask_face_of_failure(work: _Pass) -> None:
    """Documents disagree on whether a failed session has a face (API reference 8.1, 13): ask once."""
    refused = False
    answer = None
    try:
        answer = work.client.result_simple(_token(work.session))
    except (Rejected, SessionGone):
        refused = True
    if not refused and answer is not None and answer.result is not None and answer.result.face_url:
        with work.lease.fenced():
            record_answer(work.session, answer.endpoint, answer.raw, log_id=answer.log_id)
            asset = _want(work.session, evidence.ExpectedAsset(Kind.FACE, Source.SIMPLE))
        work.urls[asset.pk] = answer.result.face_url
    work.mark("simple")


def _ask_media(work: _Pass) -> None:
    """result/media/query: videos and frames. Asked once even where the plan says that nothing is recorded."""
    session = work.session
    wanted = _wanted(work, Source.MEDIA)
    if work.done("media") and not wanted:
        return
    media: Answer[MediaResult] | None = None
    try:
        media = work.client.result_media(_token(session))
    except (Rejected, SessionGone):
        if wanted:
            raise
    if media is None or media.result is None:
        if not wanted:
            work.mark("media")
        else:
            work.failed = True
        return
    result = media.result
    if not work.done("media"):
        with work.lease.fenced():
            record_answer(
                session, media.endpoint, media.raw, log_id=media.log_id, oddities=result.oddities
            )
            work.mark("media")
    given = _given_media(result)
    with work.lease.fenced():
        for (kind, position), url in given.items():
            asset = _want(session, evidence.ExpectedAsset(kind, Source.MEDIA, position=position))
            if asset.state == State.WANTED:
                work.urls[asset.pk] = url
    _explain_missing_media(work, result, {key: url for key, url in given.items() if url})


def _given_media(result: MediaResult) -> dict[tuple[str, int], str]:
    given: dict[tuple[str, int], str] = {}
    seen: set[tuple[str, str]] = set()
    for kind, urls in (
        (Kind.PROCESS_VIDEO, result.process_videos),
        (Kind.VIDEO, result.videos),
        (Kind.FRAME, result.images),
    ):
        for position, url in enumerate(urls):
            identity = _same_file(url)
            if identity in seen:
                # `video` and `processVideo` may name the same bytes (API reference 8.1, 8).
                continue
            seen.add(identity)
            given[kind, position] = url
    return given


def _same_file(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        return parts.netloc, parts.path
    except ValueError:
        return "", url


def _explain_missing_media(
    work: _Pass, result: MediaResult, given: Mapping[tuple[str, int], str]
) -> None:
    """Wanted recordings that the answer does not name: give upstream time to process, then say why not."""
    session = work.session
    missing = [asset for asset in _wanted(work, Source.MEDIA) if (asset.kind, asset.position) not in given]
    first_naming = bool(given) and not work.done("media_named")
    if first_naming:
        work.mark("media_named")
    if not missing or (work.done("media_named") and not first_naming):
        # What was named once and is not any more has expired upstream; it was not withheld.
        return
    finished_at = session.verified_at or session.decided_at
    processing = finished_at is not None and now() < finished_at + RECORDING_LAG
    expired = session.media_deadline is not None and now() >= session.media_deadline
    if given and any(asset.is_video for asset in missing):
        # The person's browser fell back from the plan's kind of recording to the other one.
        reason = "demoted" if session.is_demote else evidence.UPSTREAM_GAVE_NONE
    elif result.ext_info:
        reason = f"extInfo: {result.ext_info}"
    elif not given and (processing or expired):
        # Too early to say that there is none, or too late.
        work.failed = True
        return
    else:
        reason = evidence.UPSTREAM_GAVE_NONE
    with work.lease.fenced():
        MediaAsset.objects.wanted().filter(pk__in=[asset.pk for asset in missing]).update(
            state=State.NOT_PROVIDED, reason=reason[:200]
        )


def _ask_stat(work: _Pass) -> None:
    """result/stat: how often each internal service was called, by error code. Nice to have, asked once."""
    if work.done("stat"):
        return
    stat = None
    try:
        stat = work.client.result_stat(_token(work.session))
    except (Rejected, SessionGone):
        work.mark("stat")
        return
    if stat.result is None:
        work.mark("stat")
        return
    stages = {
        stage: [{"error_code": item.error_code, "count": item.count} for item in counts]
        for stage, counts in stat.result.stages.items()
    }
    with work.lease.fenced():
        record_answer(work.session, stat.endpoint, stat.raw, log_id=stat.log_id)
        work.update(stat=stages)
        work.mark("stat")


def _ask_detail_again(work: _Pass) -> None:
    """ID card pictures travel inside result/detail; ask again while one is wanted and not at hand."""
    if not _out_of_reach(work, Source.DETAIL):
        return
    detail = work.client.result_detail(_token(work.session))
    if detail.result is not None:
        with work.lease.fenced():
            _record_detail(work, detail)
    elif detail.error is not None:
        work.failed = True
        work.update(**_error_columns(detail.error))


# --- files --------------------------------------------------------------------------------------


def _archive_wanted(work: _Pass) -> None:
    """Store every wanted asset whose bytes or URL this pass has, the earliest deadline first."""
    wanted = list(work.session.assets.wanted())
    far = datetime.max.replace(tzinfo=now().tzinfo)
    wanted.sort(key=lambda asset: deadlines.ordering_deadline(work.session, asset) or far)
    for asset in wanted:
        if asset.pk in work.data:
            _archive_one(work, asset, lambda asset=asset: archive.store(  # type: ignore[misc]
                work.lease, asset, [work.data[asset.pk]]
            ))
        elif asset.pk in work.urls:
            _archive_one(work, asset, lambda asset=asset: _download(work, asset))  # type: ignore[misc]


def _download(work: _Pass, asset: MediaAsset) -> None:
    with upstream.downloader().fetch(work.urls[asset.pk]) as body:
        archive.store(work.lease, asset, body.chunks(), plain_http=body.plain_http)


def _archive_one(work: _Pass, asset: MediaAsset, store: Callable[[], None]) -> None:
    problem = ""
    try:
        store()
    except UrlExpired:
        problem = "url_expired"
    except UnsafeMedia as error:
        problem = f"unsafe_media: {error.reason}"
    except FaceprintError as error:
        problem = str(error)
    except archive.StorageFailed as error:
        problem = f"storage: {error}"
    if not problem:
        work.archived += 1
        return
    work.failed = True
    with work.lease.fenced():
        MediaAsset.objects.filter(pk=asset.pk).update(tries=asset.tries + 1, error=problem[:200])
    logger.warning("faceprint: session %s: %s not archived: %s", work.session.public_id, asset.kind, problem)


# --- when to look again -------------------------------------------------------------------------


def _settle(work: _Pass) -> None:
    """Give the session back: done, or with the moment of the next look."""
    session = work.session
    moment = now()
    if session.verdict == Verdict.PENDING:
        _settle_pending(work, moment)
        return
    _mark_lost(work, moment)
    wanted = list(session.assets.wanted())
    unasked = [stage for stage in _stages(session) if not work.done(stage)]
    if unasked and session.results_latest is not None and moment >= session.results_latest:
        unasked = []
    if wanted or unasked:
        next_deadline = min(
            filter(None, (deadlines.ordering_deadline(session, asset) for asset in wanted)),
            default=session.results_deadline,
        )
        failures = session.failure_count + 1
        work.lease.release(
            schedule.retry_at(moment, failures, next_deadline),
            next_deadline=next_deadline,
            failure_count=failures,
        )
        return
    _finish(work, moment)


def _settle_pending(work: _Pass, moment: datetime) -> None:
    session = work.session
    if session.results_latest is not None and moment >= session.results_latest:
        logger.error("faceprint: session %s: the verdict was never learnt", session.public_id)
        _decide(work, Verdict.UNKNOWN)
        _finish(work, moment)
        return
    failures = session.failure_count + 1 if work.failed else 0
    next_deadline = deadlines.pending_deadline(session)
    poll_at = schedule.next_poll_at(session, moment)
    if work.failed:
        retry = schedule.retry_at(moment, failures, session.media_deadline)
        poll_at = min(poll_at, retry) if poll_at else retry
    work.lease.release(poll_at, next_deadline=next_deadline, failure_count=failures)


def _stages(session: VerificationSession) -> tuple[str, ...]:
    if session.verdict in (Verdict.PASSED, Verdict.FAILED):
        return ("getall", "simple", "media", "stat")
    return ()


def _mark_lost(work: _Pass, moment: datetime) -> None:
    """An asset is lost only here: its latest deadline is over, and this very pass could not get it either."""
    overdue = list(work.session.assets.wanted().filter(latest__lte=moment))
    for asset in overdue:
        with work.lease.fenced():
            changed = MediaAsset.objects.wanted().filter(pk=asset.pk).update(state=State.LOST)
            if not changed:
                continue
            asset.state = State.LOST
            transaction.on_commit(lambda asset=asset: events.evidence_lost(asset))  # type: ignore[misc]
        work.lost += 1
        logger.error(
            "faceprint: session %s: %s was not archived in time", work.session.public_id, asset.kind
        )


def _finish(work: _Pass, moment: datetime) -> None:
    session = work.session
    state = archive_state(session)
    with work.lease.fenced():
        work.update(
            archive_state=state,
            archived_at=moment if state == ArchiveState.COMPLETE else session.archived_at,
        )
        if state == ArchiveState.COMPLETE:
            if session.verdict == Verdict.PASSED:
                work.update(**NO_ERROR)
            transaction.on_commit(lambda: events.session_archived(session))
        work.lease.release(None, next_deadline=None, failure_count=0)


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


def _postpone(lease: Lease, problem: FaceprintConfigurationError) -> None:
    """Nothing can be asked at all (no credentials): say so on the session and look again later."""
    try:
        session = lease.session()
        failures = session.failure_count + 1
        lease.release(
            schedule.retry_at(now(), failures, session.next_deadline),
            next_deadline=session.next_deadline,
            failure_count=failures,
            **error_columns(problem),
        )
    except LeaseLost:
        logger.info("faceprint: session was taken over by another worker")


def _out_of_reach(work: _Pass, source: str) -> list[MediaAsset]:
    """Wanted assets for which this pass has neither bytes nor a URL yet."""
    return [item for item in _wanted(work, source) if item.pk not in work.urls and item.pk not in work.data]


def _wanted(work: _Pass, source: str) -> list[MediaAsset]:
    return list(work.session.assets.wanted().filter(source=source))


def _token(session: VerificationSession) -> str:
    token = session.verify_token
    if not token:
        raise FaceprintConfigurationError("The session's verify_token is gone.")
    return token


def _ocr(ocr: OcrResult | None) -> dict[str, str] | None:
    if ocr is None:
        return None
    return _without_none(asdict(ocr)) or None


def _without_none(values: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def make_due(session: VerificationSession) -> None:
    """Look at *session* again as soon as a worker is free, if anything is left to do for it."""
    schedule.poke(session.pk)


def collect_anew(session: VerificationSession) -> bool:
    """Ask upstream for everything again that is not stored; False while a worker holds the session.

    Assets that were lost become wanted again for one more pass at least; those that were not
    provided do when upstream names them now.
    """
    moment = now()
    idle = Q(lease_until__isnull=True) | Q(lease_until__lte=moment)
    with transaction.atomic():
        changed = VerificationSession.objects.filter(
            idle, pk=session.pk, verdict__in=(Verdict.PASSED, Verdict.FAILED)
        ).update(
            stages_done={key: value for key, value in session.stages_done.items() if key == "attempted"},
            archive_state=ArchiveState.COLLECTING,
            lease_epoch=F("lease_epoch") + 1,
            ready_deadline=session.media_deadline or moment,
            wake_at=None,
            failure_count=0,
        )
        if changed:
            session.assets.filter(state=State.LOST).update(state=State.WANTED, error="")
    return bool(changed)
