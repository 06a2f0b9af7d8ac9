"""Every refusal and failure as problem details (RFC 9457), in one shape and without the caller's values.

Texts come from tables here and in the client, never from an exception of a library: those quote.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from django.core import exceptions as django_exceptions
from django.http import Http404, UnreadablePostError
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings

from django_faceprint.base.lease import LeaseLost
from django_faceprint.client import MESSAGES, ErrorClass, UpstreamError, explain
from django_faceprint.client.codes import SUBMIT_ENDPOINTS
from django_faceprint.evidence.files import StorageFailed
from django_faceprint.exceptions import (
    FaceprintConfigurationError,
    FaceprintError,
    InvalidInput,
    RateLimitReached,
    Rejected,
    SessionGone,
    Throttled,
    Unreachable,
    UnsafeMedia,
)
from django_faceprint.models import VerificationSession
from django_faceprint.privacy.keys import SealBroken

from .schema import PROBLEM

logger = logging.getLogger(__name__)

#: ``Retry-After`` in seconds: Baidu or storage is down, Baidu throttles us, a short conflict.
RETRY_DOWN, RETRY_SLOW, RETRY_BUSY = 5, 15, 1

#: Messages of rules; those of the client's inputs are in ``django_faceprint.client.MESSAGES``.
RULES = {
    "already_accepted": _("Another one was accepted for this session before. Start a new session."),
    "closed": _("This session is over. Start a new one."),
    "control_characters": _("Control characters are not allowed."),
    "cursor": _("This is no position in this list."),
    "erased": _("The evidence of this session was erased; nothing is done for it any more."),
    "expired": _("The time to verify is over. Start a new session."),
    "idempotency_key": _("An Idempotency-Key has 1 to 80 visible ASCII characters."),
    "future": _("This time lies in the future."),
    "guardian": _("Under 14 a guardian's consent is required."),
    "looks_personal": _("This looks like an ID or phone number; it would be stored in clear."),
    "mainland_only": _("This plan takes resident identity cards (certificate type 0) only."),
    "must_be_true": _("Without it there is no consent."),
    "naive": _("The time needs a time zone."),
    "no_token": _("This session has no token."),
    "not_allowed": _("This address is not allowed; its host must be in RETURN_URL_HOSTS."),
    "not_wanted_by_plan": _("This plan does not take it from the server."),
    "required": _("This is required."),
    "reused": _("This Idempotency-Key came with another request before."),
    "too_long": _("At most %(limit)d characters."),
    "too_many": _("At most %(limit)d of them per session."),
    "unknown": _("Not one of the known values."),
    "unknown_plan": _("There is no active plan with this ID."),
}
#: Rules that a valid request breaks because it comes too late for its session.
CONFLICTS = frozenset({"already_accepted", "closed", "expired", "no_token", "too_many"})
#: Names of inputs that differ between the Python API and this one.
FIELDS = {"plan_id": "plan", "idempotency_key": "Idempotency-Key", "session": None}


@dataclass(frozen=True)
class Problem:
    """A problem. ``upstream`` is (code, log_id) of Baidu's answer; ``retry_after`` is in seconds."""

    status: int
    code: str
    detail: str
    field: str | None = None
    errors: list[dict[str, Any]] | None = None
    upstream: tuple[str, str] | None = None
    retry_after: int | None = None
    headers: Mapping[str, str] | None = None

    def response(self, session: VerificationSession | None = None) -> Response:
        """The response; *session* is the session of the call, if any."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "field": self.field,
        }
        headers = dict(self.headers or {})
        if session is not None:
            body["session"] = str(session.public_id)
        if self.errors is not None:
            body["errors"] = self.errors
        if self.upstream is not None:
            body["upstream"] = dict(zip(("code", "log_id"), self.upstream, strict=True))
        if self.retry_after is not None:
            body["retry_after"] = self.retry_after
            headers["Retry-After"] = str(self.retry_after)
        return Response(body, self.status, content_type=PROBLEM, headers=headers)


def answer_problem(error: Exception, context: Mapping[str, Any]) -> Response:
    """REST framework's exception handler for the views of this API, and for these only."""
    session: VerificationSession | None = getattr(context.get("view"), "session", None)
    return problem_of(error).response(session)


def problem_of(error: Exception) -> Problem:
    """The problem for an exception; an unexpected one is logged, and its problem contains no details."""
    if isinstance(error, InvalidInput):
        return _of_input(error)
    if isinstance(error, FaceprintError | FaceprintConfigurationError):
        return _of_upstream(error)
    if isinstance(error, exceptions.ValidationError):
        return _of_validation(error)
    if isinstance(error, exceptions.APIException):
        return _of_framework(error)
    if isinstance(error, Http404):
        return Problem(404, "not_found", gettext("There is nothing here for this caller."))
    if isinstance(error, django_exceptions.PermissionDenied):
        return Problem(403, "permission_denied", gettext("This caller may not do that."))
    if isinstance(error, django_exceptions.RequestDataTooBig):
        return Problem(413, "too_large", gettext("The request body is too large."))
    if isinstance(error, django_exceptions.SuspiciousOperation | UnreadablePostError):
        return Problem(400, "malformed", gettext("The request body cannot be read."))
    if isinstance(error, StorageFailed):
        logger.error("faceprint: the storage failed: %s", error)
        return Problem(503, "storage", gettext("The file storage is not available."), retry_after=RETRY_DOWN)
    if isinstance(error, LeaseLost):
        detail = gettext("The session is being worked on. Try again.")
        return Problem(503, "busy", detail, retry_after=RETRY_BUSY)
    return _unforeseen(error)


def _of_input(error: InvalidInput) -> Problem:
    if error.code in RULES:
        text = str(RULES[error.code])
    else:
        text = gettext(MESSAGES[error.code]) if error.code in MESSAGES else gettext("This is not accepted.")
    status = 400
    if error.code in CONFLICTS:
        status = 409
    elif error.code == "reused":
        status = 422
    elif error.code == "erased":
        status = 410
    if error.params:
        text %= error.params
    return Problem(status, error.code, text, FIELDS.get(error.field, error.field))


def _of_upstream(error: FaceprintError | FaceprintConfigurationError) -> Problem:
    answered: UpstreamError | None = error.error
    upstream = (answered.code, answered.log_id) if answered else None
    logger.warning(
        "faceprint: an API call could not be carried out: %s (code %s, log_id %s)",
        type(error).__name__,
        answered.code if answered else "-",
        (answered.log_id if answered else "") or "-",
    )
    if isinstance(error, FaceprintConfigurationError):
        detail = gettext("The service is not set up correctly; its operators have to act.")
        return Problem(503, "configuration", detail, upstream=upstream)
    if isinstance(error, Throttled):
        detail = gettext("Baidu asks to slow down. Try again later.")
        return Problem(503, "throttled", detail, upstream=upstream, retry_after=_turn_after(error))
    if isinstance(error, Unreachable):
        detail = gettext("Baidu cannot be reached at the moment. Try again.")
        return Problem(503, "unreachable", detail, upstream=upstream, retry_after=RETRY_DOWN)
    if isinstance(error, SessionGone):
        detail = gettext("Baidu no longer knows this session. Start a new one.")
        return Problem(410, "gone", detail, upstream=upstream)
    if isinstance(error, UnsafeMedia):
        return Problem(400, "image_damaged", gettext(MESSAGES["image_damaged"]), "match_image")
    if isinstance(error, Rejected) and answered is not None:
        # Callers can correct their own inputs; everything else is between Baidu and us.
        refused = answered.error_class == ErrorClass.CALLER and answered.endpoint in SUBMIT_ENDPOINTS
        detail = gettext(explain(answered.code, answered.error_class))
        return Problem(
            422 if refused else 502, "refused" if refused else "rejected", detail, upstream=upstream
        )
    return Problem(502, "rejected", gettext("Baidu gave an answer that cannot be used."), upstream=upstream)


def _of_validation(error: exceptions.ValidationError) -> Problem:
    errors = list(_flattened(error.detail, ""))
    if len(errors) == 1:
        only = errors[0]
        return Problem(400, only["code"], only["detail"], only["field"], errors=errors)
    return Problem(400, "invalid", gettext("Some values are not accepted; see errors."), errors=errors)


def _flattened(detail: Any, path: str) -> Any:
    if isinstance(detail, dict):
        for name, inner in detail.items():
            here = path if name == api_settings.NON_FIELD_ERRORS_KEY else f"{path}.{name}".lstrip(".")
            yield from _flattened(inner, here)
    elif isinstance(detail, list):
        for inner in detail:
            yield from _flattened(inner, path)
    else:
        yield {
            "field": path or None,
            "code": getattr(detail, "code", None) or "invalid",
            "detail": str(detail),
        }


_FRAMEWORK = {
    exceptions.ParseError: ("malformed", _("The request body cannot be read.")),
    exceptions.NotAuthenticated: ("not_authenticated", _("Say who is calling.")),
    exceptions.AuthenticationFailed: ("authentication_failed", _("The credentials are not accepted.")),
    exceptions.PermissionDenied: ("permission_denied", _("This caller may not do that.")),
    exceptions.NotFound: ("not_found", _("There is nothing here for this caller.")),
    exceptions.MethodNotAllowed: ("method_not_allowed", _("This method is not allowed here.")),
    exceptions.UnsupportedMediaType: ("unsupported_media_type", _("This type of body is not read here.")),
    exceptions.Throttled: ("too_many_requests", _("Too many requests.")),
}


def _of_framework(error: exceptions.APIException) -> Problem:
    """Also of a host's own authentication, permission and throttle classes, whose texts may quote."""
    code, text = next(
        (entry for kind, entry in _FRAMEWORK.items() if isinstance(error, kind)),
        ("refused_here", _("The request is refused.")),
    )
    challenge = getattr(error, "auth_header", None)
    wait = getattr(error, "wait", None)
    return Problem(
        error.status_code,
        code,
        str(text),
        retry_after=math.ceil(wait) if wait is not None else None,
        headers={"WWW-Authenticate": challenge} if challenge else None,
    )


def _unforeseen(error: Exception) -> Problem:
    # Only the place is logged: texts of database and other errors quote values, and so do tracebacks
    # with variables, as error mails hold them.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    logger.error("faceprint: unexpected %s at %s:%s", type(error).__name__, frame.filename, frame.lineno)
    if isinstance(error, SealBroken):
        return Problem(500, "unreadable", gettext("A stored value cannot be decrypted."))
    return Problem(500, "internal", gettext("A mistake on our side. It has been logged."))


def _turn_after(error: Throttled) -> int:
    """Seconds until our own rate limit allows another request, else the usual number."""
    return max(1, math.ceil(error.retry_after)) if isinstance(error, RateLimitReached) else RETRY_SLOW
