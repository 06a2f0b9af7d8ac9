"""What upstream knows of a decided session: attempts, faces, recordings, card pictures, statistics."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django_faceprint.base import deadlines
from django_faceprint.client import (
    AllResult,
    Answer,
    Attempt,
    DetailResult,
    ErrorClass,
    MediaResult,
)
from django_faceprint.client.codes import clean_message
from django_faceprint.clock import now
from django_faceprint.evidence import expected
from django_faceprint.exceptions import (
    Rejected,
    SessionGone,
)
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.privacy.blind_index import blind_index

from .problems import report_error, report_unreadable
from .visit import Visit

Verdict = VerificationSession.Verdict
Kind = MediaAsset.Kind
State = MediaAsset.State
Source = MediaAsset.Source

#: Time for which a recording may be missing from the answer before it counts as not provided.
RECORDING_LAG = timedelta(minutes=30)
#: Failed visits in a row after which a refusal of result/getall means that Baidu does not offer it, and a
#: refusal of result/media/query that there is nothing to name.
REFUSALS_BEFORE_GIVING_UP = 5
#: The query parameter that upstream's storage signs a URL with, anew for every answer (API reference 7).
SIGNATURE = "authorization"


def ask_all(visit: Visit) -> None:
    """result/getall: attempts, their faces, thresholds and risk. Absent in the older document."""
    if visit.is_answered("getall") and not visit.unavailable(Source.GETALL):
        return
    # The verdict of result/detail stands without it: an optional interface is not waited for without end.
    give_up = not visit.is_answered("getall") and visit.session.failure_count >= REFUSALS_BEFORE_GIVING_UP
    everything: Answer[AllResult] | None = None
    try:
        everything = visit.client.result_all(visit.token)
    except Rejected:
        if not give_up:
            raise
    if everything is not None and everything.result is not None:
        take_attempts(visit, everything)
    elif give_up:
        visit.mark_answered("getall")
    else:
        visit.outcome.failed = True


def take_attempts(visit: Visit, everything: Answer[AllResult]) -> None:
    """Keep what result/getall answered: the answer, the attempts and what is to be archived of them."""
    result = everything.result
    assert result is not None  # noqa: S101  (narrowing only; the callers have checked)
    # Card pictures that result/detail brought, stored or not.
    visit.pictures.note_stored(
        asset for asset in visit.assets.values() if asset.source == Source.DETAIL and asset.sha256
    )
    for attempt in result.attempts:
        visit.add_attempt(attempt.order, _attempt_columns(attempt))
        _want_of_attempt(visit, attempt)
    visit.add_answer(everything, oddities=result.oddities)
    if result.attempts:
        _take_last_attempt(visit, result.attempts[-1])
    # A person who passed has a passed attempt.
    contradicts = visit.session.verdict == Verdict.PASSED and not any(item.passed for item in result.attempts)
    if expected.is_unread(result.oddities) or (
        contradicts and visit.session.failure_count < REFUSALS_BEFORE_GIVING_UP
    ):
        report_unreadable(visit, everything)
    else:
        visit.mark_answered("getall")


def _want_of_attempt(visit: Visit, attempt: Attempt) -> None:
    """The face and, where result/detail did not bring them, the card pictures."""
    if attempt.face_url:
        item = expected.ExpectedAsset(Kind.ATTEMPT_FACE, Source.GETALL, attempt_order=attempt.order)
        asset = visit.want(item, attempt.verify_time)
        visit.urls[asset.public_id] = attempt.face_url
    for kind, data in ((Kind.ID_FRONT, attempt.front_image), (Kind.ID_BACK, attempt.back_image)):
        if data is None:
            continue
        digest = visit.pictures.digest(data)
        for known in visit.unavailable(Source.DETAIL):
            unread = attempt.passed and known.kind == kind and not known.sha256
            if unread or known.sha256 == digest:
                # result/detail brought it before, and it could not be stored or read then.
                visit.keep_picture(known, data)
                break
        if digest in visit.pictures.asset_ids:
            continue
        item = expected.ExpectedAsset(kind, Source.GETALL, attempt_order=attempt.order)
        asset = visit.want(item, attempt.verify_time)
        visit.keep_picture(asset, data)


def _take_last_attempt(visit: Visit, last: Attempt) -> None:
    session = visit.session
    verified_at = deadlines.plausible_verify_time(session, last.verify_time)
    values: dict[str, Any] = {}
    if verified_at is not None and session.verified_at is None:
        values["verified_at"] = verified_at
    if last.threshold is not None:
        values["threshold"] = last.threshold
    if session.is_demoted is None and last.is_demote is not None:
        values["is_demoted"] = last.is_demote
    if session.verdict == Verdict.FAILED:
        values |= {
            "score": last.score,
            "liveness_score": last.liveness_score,
            "spoofing_score": last.spoofing_score,
            "error_class": ErrorClass.VERIFICATION_FAILED.value,
            "error_code": last.code[:40],
            "error_message": last.message[:200],
        }
        confirmed = without_none({"name": last.confirmed_name, "number": last.confirmed_number})
        if confirmed:
            values["confirmed"] = confirmed
            values["name_index"] = session.name_index or blind_index("name", last.confirmed_name or "")
            values["number_index"] = session.number_index or blind_index(
                "id_number", last.confirmed_number or ""
            )
    if values:
        visit.update(**values)
    if "verified_at" in values:
        for asset in visit.assets.values():
            if asset.attempt_order == 0 and asset.deadline is not None:
                safe, give_up_at = deadlines.asset_deadlines(session, asset.kind)
                visit.change(asset, deadline=safe, give_up_at=give_up_at)


def _attempt_columns(attempt: Attempt) -> dict[str, Any]:
    return {
        "passed": attempt.passed,
        "code": attempt.code[:40],
        "message": attempt.message[:200],
        "verified_at": attempt.verify_time,
        "score": attempt.score,
        "threshold": attempt.threshold,
        "liveness_score": attempt.liveness_score,
        "spoofing_score": attempt.spoofing_score,
        "risk_level": (attempt.risk_level or "")[:20],
        "risk_tag": (attempt.risk_tag or "")[:200],
        "is_demoted": attempt.is_demote,
        "is_charged": attempt.is_charged,
        "charge_type": (attempt.charge_type or "")[:20],
        "verify_log_id": attempt.verify_log_id[:40],
    }


def ask_simple(visit: Visit) -> None:
    """result/simple: where the best face is. For a failed session upstream may or may not know one."""
    session = visit.session
    failed = session.verdict == Verdict.FAILED
    wanted = visit.wanted(Source.SIMPLE)
    if visit.is_answered("simple") and not wanted:
        return
    if failed and not wanted:
        _ask_face_of_failure(visit)
        return
    answer = visit.client.result_simple(visit.token)
    if answer.result is None:
        visit.outcome.failed = True
        report_error(visit, answer.error)
        return
    if not answer.result.face_url:
        visit.add_answer(answer, oddities=answer.result.oddities)
        report_unreadable(visit, answer)
        return
    if not visit.is_answered("simple"):
        visit.add_answer(answer)
        visit.mark_answered("simple")
    for asset in wanted:
        visit.urls[asset.public_id] = answer.result.face_url


def _ask_face_of_failure(visit: Visit) -> None:
    """Documents disagree on whether a failed session has a face (API reference 8.1, 13): ask once."""
    refused = False
    answer = None
    try:
        answer = visit.client.result_simple(visit.token)
    except (Rejected, SessionGone):
        refused = True
    if not refused and answer is not None and answer.result is not None and answer.result.face_url:
        visit.add_answer(answer)
        asset = visit.want(expected.ExpectedAsset(Kind.FACE, Source.SIMPLE))
        visit.urls[asset.public_id] = answer.result.face_url
    visit.mark_answered("simple")


def ask_media(visit: Visit) -> None:
    """result/media/query: videos and frames. Asked once even where the plan says that nothing is recorded."""
    wanted = visit.wanted(Source.MEDIA)
    if visit.is_answered("media") and not wanted:
        return
    media: Answer[MediaResult] | None = None
    try:
        media = visit.client.result_media(visit.token)
    except (Rejected, SessionGone) as refusal:
        if wanted or _may_be_a_mistake(visit, refusal):
            raise
    if media is None or media.result is None:
        if not wanted:
            visit.mark_answered("media")
        else:
            visit.outcome.failed = True
        return
    result = media.result
    unread = expected.is_unread(result.oddities)
    if unread:
        visit.add_answer(media, oddities=result.oddities)
        report_unreadable(visit, media)
    elif not visit.is_answered("media"):
        visit.add_answer(media, oddities=result.oddities)
        visit.mark_answered("media")
    given = given_media(result)
    for (kind, position), url in given.items():
        asset = visit.want(expected.ExpectedAsset(kind, Source.MEDIA, position=position))
        if asset.named_at is None and not unread:
            visit.change(asset, named_at=now())
        if asset.state == State.WANTED:
            visit.urls[asset.public_id] = url
    if not unread:
        _explain_missing_media(visit, result, {kind for kind, _ in given})


def _may_be_a_mistake(visit: Visit, refusal: Rejected | SessionGone) -> bool:
    """Where the plan records, a video may exist although upstream refuses to name it: ask some times more.

    An answer that blames the request is clear: there is none for such a session.
    """
    clear = refusal.error is not None and refusal.error.error_class == ErrorClass.CALLER
    return (
        not clear
        and visit.session.plan.records_video
        and visit.session.failure_count < REFUSALS_BEFORE_GIVING_UP
    )


def given_media(result: MediaResult) -> dict[tuple[str, int], str]:
    """The URL of each recording that upstream names, by kind and position; each file once."""
    given: dict[tuple[str, int], str] = {}
    seen: set[tuple[object, ...]] = set()
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


def _same_file(url: str) -> tuple[object, ...]:
    """What two URLs of one file have in common: all but the signature."""
    try:
        parts = urlsplit(url)
        query = [item for item in parse_qsl(parts.query, keep_blank_values=True) if item[0] != SIGNATURE]
    except ValueError:
        return (url,)
    return parts.netloc, parts.path, tuple(query)


def _explain_missing_media(visit: Visit, result: MediaResult, given: set[str]) -> None:
    """Wanted recordings that the answer does not name: give upstream time to process, then say why not.

    What was named once and is not any more has expired upstream; it was not withheld.
    """
    session = visit.session
    missing = [asset for asset in visit.wanted(Source.MEDIA) if asset.named_at is None]
    if not missing:
        return
    finished_at = session.verified_at or session.decided_at
    processing = finished_at is not None and now() < finished_at + RECORDING_LAG
    expired = session.media_deadline is not None and now() >= session.media_deadline
    ext_info = ""
    if given & MediaAsset.VIDEO_KINDS and any(asset.is_video for asset in missing):
        # The person's browser fell back from the plan's kind of recording to the other one.
        reason = "demoted" if session.is_demoted else expected.UPSTREAM_GAVE_NONE
    elif result.ext_info:
        reason, ext_info = expected.UPSTREAM_EXPLAINED, clean_message(result.ext_info)
    elif processing or (expired and not _is_any_named(visit)):
        # Too early to say that there is none, or too late.
        visit.outcome.failed = True
        return
    else:
        reason = expected.UPSTREAM_GAVE_NONE
    for asset in missing:
        visit.change(asset, state=State.NOT_PROVIDED, reason=reason, ext_info=ext_info[:200])


def _is_any_named(visit: Visit) -> bool:
    return any(asset.named_at is not None for asset in visit.assets.values())


def ask_stat(visit: Visit) -> None:
    """result/stat: how often each internal service was called, by error code. Nice to have, asked once."""
    if visit.is_answered("stat"):
        return
    stat = None
    try:
        stat = visit.client.result_stat(visit.token)
    except (Rejected, SessionGone):
        visit.mark_answered("stat")
        return
    if stat.result is None:
        visit.mark_answered("stat")
        return
    stages = {
        stage: [{"error_code": item.error_code, "count": item.count} for item in counts]
        for stage, counts in stat.result.stages.items()
    }
    visit.add_answer(stat)
    visit.update(stat=stages)
    visit.mark_answered("stat")


def record_detail(visit: Visit, detail: Answer[DetailResult]) -> None:
    """Keep the answer and, until they are stored, the card pictures inside it."""
    result = detail.result
    assert result is not None  # noqa: S101  (narrowing only; the callers have checked)
    assets = {asset.kind: asset for asset in visit.assets.values() if asset.source == Source.DETAIL}
    for kind, data in ((Kind.ID_FRONT, result.front_image), (Kind.ID_BACK, result.back_image)):
        if data is not None and kind in assets:
            visit.keep_picture(assets[kind], data)
    visit.add_answer(detail, oddities=result.oddities)


def ask_detail_again(visit: Visit) -> None:
    """ID card pictures travel inside result/detail; ask again while one is wanted and not at hand."""
    if not visit.unavailable(Source.DETAIL):
        return
    detail = visit.client.result_detail(visit.token)
    if detail.result is not None:
        record_detail(visit, detail)
        if visit.unavailable(Source.DETAIL):
            report_unreadable(visit, detail)
    else:
        visit.outcome.failed = True
        report_error(visit, detail.error)


def without_none(values: dict[str, str | None]) -> dict[str, str]:
    """Only what upstream said."""
    return {name: value for name, value in values.items() if value is not None}


#: What to ask about a decided session, in this order; each marks itself done on the session.
QUESTIONS = {
    "getall": ask_all,
    "simple": ask_simple,
    "media": ask_media,
    "stat": ask_stat,
}

#: Which interface names the URL of a file.
NAMED_BY = {
    Source.GETALL: ask_all,
    Source.SIMPLE: ask_simple,
    Source.MEDIA: ask_media,
}
