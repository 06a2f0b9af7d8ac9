"""What goes wrong in a step of a visit: written on the session, and no reason to skip the other steps."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

from django_faceprint.client import Answer, ErrorClass, UpstreamError
from django_faceprint.evidence.answers import make_answer
from django_faceprint.exceptions import (
    FaceprintConfigurationError,
    FaceprintError,
    HostDown,
    RateLimitReached,
)
from django_faceprint.models import VerificationSession
from django_faceprint.upstream.errors import columns_of, error_columns, is_evidence

from .visit import Visit

logger = logging.getLogger(__name__)

Problem = FaceprintError | FaceprintConfigurationError


def run_step(visit: Visit, step: Callable[[Visit], None]) -> None:
    """Run one step; a failure is written on the session and does not keep the other steps from trying."""
    problem: Problem | None = None
    try:
        step(visit)
    except (FaceprintError, FaceprintConfigurationError) as error:
        problem = error
    if problem is not None:
        _report_failure(visit, problem)
    visit.checkpoint()


def report_error(visit: Visit, error: UpstreamError | None) -> None:
    """Write on the session what upstream answered instead of a result, if it answered anything."""
    if error is not None:
        report(visit, columns_of(error))


def report_unreadable(visit: Visit, answer: Answer[Any]) -> None:
    """Upstream reports success, but what it says of evidence cannot be read: it is requested again."""
    visit.outcome.failed = True
    columns = {"error_code": "unreadable_result", "error_message": "", "error_log_id": answer.log_id[:40]}
    report(visit, {"error_class": ErrorClass.UNKNOWN.value, **columns})


def report(visit: Visit, columns: dict[str, str]) -> None:
    """Write a problem on the session, unless the session's columns say why the person failed."""
    visit.outcome.error_class, visit.outcome.error_detail = columns["error_class"], columns["error_code"]
    if visit.session.verdict != VerificationSession.Verdict.FAILED:
        visit.update(**columns)


def log_unexpected(where: str, error: Exception) -> None:
    """Only the place is logged: the exception's own text could quote what upstream sent."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    logger.error(
        "faceprint: %s: unexpected %s at %s:%s", where, type(error).__name__, frame.filename, frame.lineno
    )


def _report_failure(visit: Visit, problem: Problem) -> None:
    outcome = visit.outcome
    if isinstance(problem, RateLimitReached | HostDown):
        # Not the session's fault, and nothing was sent: it keeps its place.
        outcome.retry_after = max(outcome.retry_after or 0.0, problem.retry_after)
        outcome.error_class = outcome.error_class or ErrorClass.SLOW_DOWN.value
        return
    outcome.failed = True
    columns = error_columns(problem)
    report(visit, columns)
    error, raw = problem.error, problem.raw
    if raw and error is not None and is_evidence(problem):
        visit.add_answer_row(
            make_answer(
                visit.session, error.endpoint, raw, log_id=error.log_id, code=error.code, parsed=False
            )
        )
    logger.warning(
        "faceprint: session %s: %s (code %s, log_id %s)",
        visit.session.public_id,
        columns["error_class"],
        columns["error_code"] or "-",
        columns["error_log_id"] or "-",
    )
