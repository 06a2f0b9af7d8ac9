"""What upstream knows of a decided session: attempts, faces, recordings, card pictures, statistics."""

from __future__ import annotations

from collections.abc import Mapping
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

from .visit import Visit

Verdict = VerificationSession.Verdict
Kind = MediaAsset.Kind
State = MediaAsset.State
Source = MediaAsset.Source

#: How long a recording may be missing from the answer before it counts as not provided.
RECORDING_LAG = timedelta(minutes=30)
#: Visits in a row that may fail before a result/getall that refuses counts as one that Baidu does not offer,
#: and a result/media/query that refuses as one that has nothing to name.
REFUSALS_BEFORE_GIVING_UP = 5
#: The query parameter that upstream's storage signs a URL with, anew for every answer (API reference 7).
SIGNATURE = "authorization"
#: Where a session notes which recordings upstream has named so far; survives a new collection.
NAMED = "media_named"


def ask_all(visit: Visit) -> None:
    """result/getall: attempts, their faces, thresholds and risk. Absent in the older document."""
    if visit.done("getall") and not visit.out_of_reach(Source.GETALL):
        return
    # A verdict from result/detail stands without it: nothing waits for ever for an optional interface.
    give_up = not visit.done("getall") and visit.session.failure_count >= REFUSALS_BEFORE_GIVING_UP
    everything: Answer[AllResult] | None = None
    try:
        everything = visit.client.result_all(visit.token)
    except Rejected:
        if not give_up:
            raise
    if everything is not None and everything.result is not None:
        take_attempts(visit, everything)
    elif give_up:
        visit.mark("getall")
    else:
        visit.failed = True


def take_attempts(visit: Visit, everything: Answer[AllResult]) -> None:
    """Keep what result/getall answered: the answer, the attempts and what is to be archived of them."""
    result = everything.result
    assert result is not None  # noqa: S101  (narrowing only; the callers have checked)
    visit.pictures |= _pictures_of(visit)
    for attempt in result.attempts:
        visit.take_attempt(attempt.order, _attempt_columns(attempt))
        _want_of_attempt(visit, attempt)
    visit.record(everything, oddities=result.oddities)
    if result.attempts:
        _take_last_attempt(visit, result.attempts[-1])
    # Whoever passed has an attempt that did.
    contradicts = visit.session.verdict == Verdict.PASSED and not any(item.passed for item in result.attempts)
    if expected.is_unread(result.oddities) or (
        contradicts and visit.session.failure_count < REFUSALS_BEFORE_GIVING_UP
    ):
        visit.note_unreadable(everything)
    else:
        visit.mark("getall")


def _want_of_attempt(visit: Visit, attempt: Attempt) -> None:
    """The face and, where result/detail did not bring them, the card pictures."""
    if attempt.face_url:
        item = expected.ExpectedAsset(Kind.ATTEMPT_FACE, Source.GETALL, attempt_order=attempt.order)
        asset = visit.want(item, attempt.verify_time)
        visit.urls[asset.public_id] = attempt.face_url
    for kind, data in ((Kind.ID_FRONT, attempt.front_image), (Kind.ID_BACK, attempt.back_image)):
        if data is None:
            continue
        digest = visit.digest(data)
        for known in visit.out_of_reach(Source.DETAIL):
            unread = attempt.passed and known.kind == kind and not known.sha256
            if unread or known.sha256 == digest:
                # result/detail brought it before, and it could not be stored or read then.
                visit.cache_picture(known, data)
                break
        if digest in visit.pictures:
            continue
        item = expected.ExpectedAsset(kind, Source.GETALL, attempt_order=attempt.order)
        asset = visit.want(item, attempt.verify_time)
        visit.cache_picture(asset, data)


def _pictures_of(visit: Visit) -> dict[str, str]:
    """SHA-256 → asset id of the card pictures that result/detail brought, stored or not."""
    return {
        asset.sha256: str(asset.public_id)
        for asset in visit.assets.values()
        if asset.source == Source.DETAIL and asset.sha256
    }


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
    if visit.done("simple") and not wanted:
        return
    if failed and not wanted:
        _ask_face_of_failure(visit)
        return
    answer = visit.client.result_simple(visit.token)
    if answer.result is None:
        visit.failed = True
        visit.say(answer.error)
        return
    if not answer.result.face_url:
        visit.record(answer, oddities=answer.result.oddities)
        visit.note_unreadable(answer)
        return
    if not visit.done("simple"):
        visit.record(answer)
        visit.mark("simple")
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
        visit.record(answer)
        asset = visit.want(expected.ExpectedAsset(Kind.FACE, Source.SIMPLE))
        visit.urls[asset.public_id] = answer.result.face_url
    visit.mark("simple")


def ask_media(visit: Visit) -> None:
    """result/media/query: videos and frames. Asked once even where the plan says that nothing is recorded."""
    wanted = visit.wanted(Source.MEDIA)
    if visit.done("media") and not wanted:
        return
    media: Answer[MediaResult] | None = None
    try:
        media = visit.client.result_media(visit.token)
    except (Rejected, SessionGone) as refusal:
        if wanted or _may_be_a_mistake(visit, refusal):
            raise
    if media is None or media.result is None:
        if not wanted:
            visit.mark("media")
        else:
            visit.failed = True
        return
    result = media.result
    unread = expected.is_unread(result.oddities)
    if unread:
        visit.record(media, oddities=result.oddities)
        visit.note_unreadable(media)
    elif not visit.done("media"):
        visit.record(media, oddities=result.oddities)
        visit.mark("media")
    given = _given_media(result)
    for (kind, position), url in given.items():
        asset = visit.want(expected.ExpectedAsset(kind, Source.MEDIA, position=position))
        if asset.state == State.WANTED:
            visit.urls[asset.public_id] = url
    if not unread:
        _explain_missing_media(visit, result, {key: url for key, url in given.items() if url})


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


def _given_media(result: MediaResult) -> dict[tuple[str, int], str]:
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


def _explain_missing_media(visit: Visit, result: MediaResult, given: Mapping[tuple[str, int], str]) -> None:
    """Wanted recordings that the answer does not name: give upstream time to process, then say why not.

    What was named once and is not any more has expired upstream; it was not withheld.
    """
    session = visit.session
    named = {*session.stages_done.get(NAMED, ()), *(_name(*key) for key in given)}
    if given:
        visit.update(stages_done={**session.stages_done, NAMED: sorted(named)})
    missing = [
        asset for asset in visit.wanted(Source.MEDIA) if _name(asset.kind, asset.position) not in named
    ]
    if not missing:
        return
    finished_at = session.verified_at or session.decided_at
    processing = finished_at is not None and now() < finished_at + RECORDING_LAG
    expired = session.media_deadline is not None and now() >= session.media_deadline
    if any(kind in MediaAsset.VIDEO_KINDS for kind, _ in given) and any(asset.is_video for asset in missing):
        # The person's browser fell back from the plan's kind of recording to the other one.
        reason = "demoted" if session.is_demoted else expected.UPSTREAM_GAVE_NONE
    elif result.ext_info:
        reason = f"extInfo: {clean_message(result.ext_info)}"
    elif processing or (expired and not named):
        # Too early to say that there is none, or too late.
        visit.failed = True
        return
    else:
        reason = expected.UPSTREAM_GAVE_NONE
    for asset in missing:
        visit.change(asset, state=State.NOT_PROVIDED, reason=reason[:200])


def _name(kind: str, position: int) -> str:
    return f"{kind}/{position}"


def ask_stat(visit: Visit) -> None:
    """result/stat: how often each internal service was called, by error code. Nice to have, asked once."""
    if visit.done("stat"):
        return
    stat = None
    try:
        stat = visit.client.result_stat(visit.token)
    except (Rejected, SessionGone):
        visit.mark("stat")
        return
    if stat.result is None:
        visit.mark("stat")
        return
    stages = {
        stage: [{"error_code": item.error_code, "count": item.count} for item in counts]
        for stage, counts in stat.result.stages.items()
    }
    visit.record(stat)
    visit.update(stat=stages)
    visit.mark("stat")


def record_detail(visit: Visit, detail: Answer[DetailResult]) -> None:
    """Keep the answer and, until they are stored, the card pictures inside it."""
    result = detail.result
    assert result is not None  # noqa: S101  (narrowing only; the callers have checked)
    assets = {asset.kind: asset for asset in visit.assets.values() if asset.source == Source.DETAIL}
    for kind, data in ((Kind.ID_FRONT, result.front_image), (Kind.ID_BACK, result.back_image)):
        if data is not None and kind in assets:
            visit.cache_picture(assets[kind], data)
    visit.record(detail, oddities=result.oddities)


def ask_detail_again(visit: Visit) -> None:
    """ID card pictures travel inside result/detail; ask again while one is wanted and not at hand."""
    if not visit.out_of_reach(Source.DETAIL):
        return
    detail = visit.client.result_detail(visit.token)
    if detail.result is not None:
        record_detail(visit, detail)
        if visit.out_of_reach(Source.DETAIL):
            visit.note_unreadable(detail)
    else:
        visit.failed = True
        visit.say(detail.error)


def without_none(values: dict[str, str | None]) -> dict[str, str]:
    """Only what upstream said."""
    return {name: value for name, value in values.items() if value is not None}


#: What to ask about a decided session, in this order; each marks itself done on the session.
STEPS = {
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
