"""Upstream problems as columns of a session, for operators to read."""

from __future__ import annotations

from django_faceprint.client import ErrorClass, UpstreamError
from django_faceprint.exceptions import (
    FaceprintConfigurationError,
    FaceprintError,
    Rejected,
    SessionGone,
    Throttled,
    Unreachable,
    UnsafeMedia,
)

#: A problem that is not Baidu's: a picture or video that must not be kept.
UNSAFE_MEDIA = "unsafe_media"

NO_ERROR = {"error_class": "", "error_code": "", "error_message": "", "error_log_id": ""}


def error_columns(problem: FaceprintError | FaceprintConfigurationError) -> dict[str, str]:
    """The columns of *problem*. They hold Baidu's text, and no personal data of ours."""
    error: UpstreamError | None = getattr(problem, "error", None)
    if error is not None and not isinstance(problem, FaceprintConfigurationError):
        return columns_of(error)
    kinds = {
        UnsafeMedia: UNSAFE_MEDIA,
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


def columns_of(error: UpstreamError) -> dict[str, str]:
    """The columns of an error that is a result: not started, or the person failed."""
    return {
        "error_class": error.error_class.value,
        "error_code": error.code[:40],
        "error_message": error.message[:200],
        "error_log_id": error.log_id[:40],
    }


def is_evidence(problem: FaceprintError | FaceprintConfigurationError) -> bool:
    """Whether to keep the answer behind *problem*, because its meaning is unknown.

    What a gateway answers while it is down is not kept.
    """
    if isinstance(problem, Unreachable):
        return problem.error is not None and problem.error.code == "not_json"
    return isinstance(problem, Rejected)
