"""Deciding: passed, failed or expired, and when nothing that upstream says may decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from django_faceprint.base import deadlines, events
from django_faceprint.client import AllResult, Answer, DetailResult, ErrorClass, OcrResult
from django_faceprint.clock import now
from django_faceprint.evidence import expected as expected_evidence
from django_faceprint.evidence import retention_rules
from django_faceprint.exceptions import (
    AuthenticationFailed,
    FaceprintConfigurationError,
    Rejected,
    SessionGone,
)
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.privacy.blind_index import blind_index
from django_faceprint.upstream.errors import NO_ERROR, columns_of

from .results import REFUSALS_BEFORE_GIVING_UP, record_detail, take_attempts, without_none
from .visit import Visit

Verdict = VerificationSession.Verdict
ArchiveState = VerificationSession.ArchiveState
Kind = MediaAsset.Kind
Source = MediaAsset.Source


def ask_verdict(visit: Visit) -> None:
    """result/detail decides a pass; a failure or an expiry needs the token to be closed as well.

    An unknown code and 「Token无效或者已过期」 say nothing about the person; where upstream lists the
    attempts (result/getall), those may.
    """
    session = visit.session
    closes_at = deadlines.window_closes_at(session)
    window_over = closes_at is not None and now() >= closes_at
    token_closes = session.plan.closes_on_failure or window_over
    detail: Answer[DetailResult] | None = None
    problem: Rejected | SessionGone | None = None
    try:
        detail = visit.client.result_detail(visit.token)
    except (Rejected, SessionGone) as error:
        problem = error
    if detail is not None and detail.result is not None:
        _take_pass(visit, detail)
        return
    if detail is not None and detail.error is not None:
        error_class = detail.error.error_class
        if error_class == ErrorClass.VERIFICATION_FAILED:
            _take_failure(visit, detail, final=token_closes)
            return
    if problem is not None or window_over:
        _decide_by_attempts(visit, problem, token_closes=token_closes)


def _take_failure(visit: Visit, detail: Answer[DetailResult], *, final: bool) -> None:
    error = detail.error
    assert error is not None  # noqa: S101  (narrowing only; the caller has checked)
    visit.add_answer(detail, code=error.code)
    if final:
        record_verdict(visit, Verdict.FAILED, columns=columns_of(error))
    else:
        visit.update(**columns_of(error), attempted_at=visit.session.attempted_at or now())


def _decide_by_attempts(visit: Visit, said: Rejected | SessionGone | None, *, token_closes: bool) -> None:
    """Where result/detail did not decide. *said* is why not, None when it was 「认证尚未开始」."""
    problem: Rejected | SessionGone | FaceprintConfigurationError | None = said
    everything: Answer[AllResult] | None = None
    try:
        everything = visit.client.result_all(visit.token)
    except (Rejected, FaceprintConfigurationError) as error:
        problem = problem or (None if _is_not_offered(visit, error) else error)
    attempts = everything.result.attempts if everything is not None and everything.result is not None else ()
    if (
        everything is not None
        and attempts
        and token_closes
        and all(item.passed is False for item in attempts)
    ):
        record_verdict(visit, Verdict.FAILED)
        take_attempts(visit, everything)
    elif problem is not None:
        raise problem
    elif not attempts:
        record_verdict(visit, Verdict.EXPIRED)
    else:
        # Passed between our two questions: the next visit reads result/detail again.
        visit.outcome.failed = True


def _is_not_offered(visit: Visit, refusal: Rejected | FaceprintConfigurationError) -> bool:
    """result/getall is optional: without it, or the right to it, sessions expire all the same."""
    if isinstance(refusal, AuthenticationFailed):
        return False
    if refusal.error is not None and refusal.error.error_class == ErrorClass.CALLER:
        return True
    return visit.session.failure_count >= REFUSALS_BEFORE_GIVING_UP


def _take_pass(visit: Visit, detail: Answer[DetailResult]) -> None:
    session = visit.session
    result = detail.result
    assert result is not None  # noqa: S101  (narrowing only; the caller has checked)
    confirmed = without_none({"name": result.confirmed_name, "number": result.confirmed_number})
    record_verdict(
        visit,
        Verdict.PASSED,
        columns={
            "score": result.score,
            "liveness_score": result.liveness_score,
            "spoofing_score": result.spoofing,
            "is_demoted": result.is_demote,
            "confirmed": confirmed or None,
            "ocr": _ocr(result.ocr),
            "name_index": session.name_index or blind_index("name", result.confirmed_name or ""),
            "number_index": session.number_index or blind_index("id_number", result.confirmed_number or ""),
            **NO_ERROR,
        },
        expected=expected_evidence.expected_assets(
            session.plan,
            Verdict.PASSED,
            with_id_front=result.front_image is not None
            or expected_evidence.is_card_unread(result.oddities, "front"),
            with_id_back=result.back_image is not None
            or expected_evidence.is_card_unread(result.oddities, "back"),
        ),
    )
    record_detail(visit, detail)


def record_verdict(
    visit: Visit,
    verdict: str,
    *,
    columns: Mapping[str, Any] | None = None,
    expected: Iterable[expected_evidence.ExpectedAsset] | None = None,
) -> None:
    """The verdict, what came with it (*columns*) and every promised asset: they are written together."""
    session = visit.session
    moment = now()
    span = session.plan.record_span
    visit.update(
        verdict=verdict,
        decided_at=moment,
        retain_until=None if span is None else moment + span,
        archive_state=ArchiveState.COLLECTING,
        failure_count=0,
        **(columns or {}),
    )
    if expected is None:
        expected = expected_evidence.expected_assets(
            session.plan, verdict, with_id_front=False, with_id_back=False
        )
    for item in expected:
        visit.want(item)
    for asset in visit.assets.values():
        if asset.state == MediaAsset.State.STORED:
            visit.change(asset, retain_until=retention_rules.expires_at(session, asset.kind))
    visit.after_commit(lambda: events.verdict_reached(session))


def _ocr(ocr: OcrResult | None) -> dict[str, str] | None:
    if ocr is None:
        return None
    return without_none(asdict(ocr)) or None
