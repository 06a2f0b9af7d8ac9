"""Texts for stored codes, states and scores, in the user's language."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils.functional import Promise
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from django_faceprint.client.codes import TABLE, explain
from django_faceprint.conf import conf
from django_faceprint.evidence.expected import REASONS
from django_faceprint.exceptions import ErrorClass, InvalidInput
from django_faceprint.models import MediaAsset, UpstreamCall, VerificationSession
from django_faceprint.records.at_risk import RISK_WINDOW, deadline_of
from django_faceprint.upstream.errors import UNSAFE_MEDIA

#: With less time to an archive deadline, the time left is red.
URGENT = RISK_WINDOW

#: Where there is nothing to show.
EMPTY = "–"

ERROR_CLASSES: dict[str, Promise] = {
    ErrorClass.VERIFICATION_FAILED.value: _("verification failed"),
    ErrorClass.RETRY.value: _("temporary failure"),
    ErrorClass.SLOW_DOWN.value: _("quota or rate limit"),
    ErrorClass.REAUTHENTICATE.value: _("access token refused"),
    ErrorClass.NOT_STARTED.value: _("not started or finished"),
    ErrorClass.GONE.value: _("token unknown, used or expired"),
    ErrorClass.CALLER.value: _("request refused"),
    ErrorClass.CONFIGURATION.value: _("configuration"),
    UNSAFE_MEDIA: _("unsafe file"),
    ErrorClass.UNKNOWN.value: _("unknown code"),
}

_WITHOUT_CODE: dict[str, Promise] = {
    ErrorClass.RETRY.value: _("Baidu could not be reached. The request is retried."),
    ErrorClass.SLOW_DOWN.value: _("Baidu limits the request rate. Requests are retried more slowly."),
    ErrorClass.CONFIGURATION.value: _(
        "The configuration prevents requests to Baidu. An operator must fix it."
    ),
    UNSAFE_MEDIA: _("A picture or video that Baidu named was refused as unsafe or broken."),
}

OUTCOMES: dict[str, Promise] = {
    **ERROR_CLASSES,
    UpstreamCall.OK: pgettext_lazy("outcome of a call", "OK"),
    UpstreamCall.TRANSPORT: _("not reached"),
}

ENDPOINTS = {
    "oauth_token": "oauth/2.0/token",
    "verify_token_generate": "verifyToken/generate",
    "idcard_submit": "idcard/submit",
    "upload_match_image": "uploadMatchImage",
    "result_simple": "result/simple",
    "result_detail": "result/detail",
    "result_stat": "result/stat",
    "result_media_query": "result/media/query",
    "result_getall": "result/getall",
}

ASSET_ERRORS: dict[str, Promise] = {
    "url_expired": _("the download link had expired"),
    "upstream_gave_none": REASONS["upstream_gave_none"],
    "storage": _("the storage failed"),
    "internal": _("an internal error"),
}

STAGES: dict[str, Promise] = {
    "Verify_FIN": _("identity verification"),
    "verify": _("identity verification"),
    "VerifySec": _("identity verification"),
    "Sessioncode": _("random check code"),
    "OCR": _("ID card OCR"),
    "VideoLiveness": _("video liveness"),
    "Livenesscolorful": _("colourful light liveness"),
}

CHARGES: dict[str, Promise] = {
    "verify": _("identity verification"),
    "match": _("face comparison"),
    "live": _("picture liveness"),
}

#: A badge's colour for each state: good, bad, busy, warn or quiet.
STATUS_TONES = {
    VerificationSession.Status.PASSED: "good",
    VerificationSession.Status.FAILED: "bad",
    VerificationSession.Status.UNKNOWN: "bad",
    VerificationSession.Status.VERIFYING: "busy",
    VerificationSession.Status.AWAITING_USER: "busy",
    VerificationSession.Status.CREATED: "quiet",
    VerificationSession.Status.ABANDONED: "quiet",
    VerificationSession.Status.EXPIRED: "quiet",
}
ARCHIVE_TONES = {
    VerificationSession.ArchiveState.COMPLETE: "good",
    VerificationSession.ArchiveState.PARTIAL: "bad",
    VerificationSession.ArchiveState.LOST: "bad",
    VerificationSession.ArchiveState.COLLECTING: "busy",
    VerificationSession.ArchiveState.WAITING: "quiet",
    VerificationSession.ArchiveState.NOT_APPLICABLE: "quiet",
}
ASSET_TONES = {
    MediaAsset.State.STORED: "good",
    MediaAsset.State.WANTED: "busy",
    MediaAsset.State.LOST: "bad",
    MediaAsset.State.NOT_PROVIDED: "quiet",
    MediaAsset.State.ERASED: "quiet",
}


def number(value: float) -> str:
    """A number without trailing zeros: 84.4, 80, 79.996."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def similarity(session: VerificationSession) -> str:
    """The similarity with two decimals, but never rounded across the threshold; or why there is none."""
    if not session.plan.compares_faces:
        return gettext("not applicable")
    if session.score is None:
        return EMPTY
    short, threshold = round(session.score, 2), session.threshold
    if threshold is not None and (short < threshold) != (session.score < threshold):
        return number(session.score)
    return number(short)


def liveness(session: VerificationSession) -> str:
    """The liveness score, or why there is none."""
    if not session.liveness_score and not session.plan.scores_liveness:
        return gettext("not applicable")
    return EMPTY if session.liveness_score is None else number(round(session.liveness_score, 2))


def spoofing(value: float | None) -> str:
    """The score for a synthetic picture, or "not checked"."""
    # Baidu returns 0 when it did not check (API reference 3.5).
    if not value:
        return gettext("not checked")
    return "< 0.0001" if value < 0.0001 else number(value)


def describe_error(error_class: str, code: str) -> str:
    """An explanation of an error; "" without error."""
    if not error_class and not code:
        return ""
    if code not in TABLE and error_class in _WITHOUT_CODE:
        return str(_WITHOUT_CODE[error_class])
    return gettext(explain(code, error_class))


def describe_code(code: str) -> str:
    """An explanation of the code of an attempt or stage; "" for success and unpublished codes."""
    return gettext(explain(code)) if code in TABLE else ""


def error_class_name(value: str) -> str:
    """The name of an error class."""
    return str(ERROR_CLASSES.get(value, value))


def outcome_name(value: str) -> str:
    """The name of a call's outcome."""
    return str(OUTCOMES.get(value, value))


def endpoint_name(value: str) -> str:
    """The name of an interface in Baidu's documents."""
    return ENDPOINTS.get(value, value)


def describe_asset_error(error_class: str, detail: str) -> str:
    """Why a file could not be archived the last time."""
    known = ASSET_ERRORS if error_class in ASSET_ERRORS else ERROR_CLASSES
    name = str(known.get(error_class, error_class))
    return f"{name} ({detail})" if detail else name


def stage_name(value: str) -> str:
    """The name of a stage of Baidu's statistics."""
    return str(STAGES.get(value, value))


def charge_name(value: str) -> str:
    """The name of the service that Baidu charges for an attempt."""
    return str(CHARGES.get(value, value))


def duration(span: timedelta) -> str:
    """A duration: 2 d 3 h, 5 h 12 min, 12 min, 40 s."""
    seconds = max(int(span.total_seconds()), 0)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return gettext("%(days)s d %(hours)s h") % {"days": days, "hours": hours}
    if hours:
        return gettext("%(hours)s h %(minutes)s min") % {"hours": hours, "minutes": minutes}
    if minutes:
        return gettext("%(minutes)s min") % {"minutes": minutes}
    return gettext("%(seconds)s s") % {"seconds": seconds}


def format_seconds(seconds: float) -> str:
    """A latency or the length of a video."""
    return gettext("%(seconds)s s") % {"seconds": number(round(seconds, 2))}


def time_left(session: VerificationSession, wanted: list[MediaAsset], moment: datetime) -> timedelta | None:
    """Time until the deadline of *session*: negative when it is over, None when nothing is outstanding.

    *wanted* are its files that are still to be archived.
    """
    deadline = deadline_of(session, wanted)
    return deadline - moment if deadline else None


def status_reason(session: VerificationSession) -> str:
    """A sentence that explains the status: "84.4 ≥ 80 of plan 25001: passed"."""
    verdict = VerificationSession.Verdict
    plan = session.plan.plan_id
    if session.verdict in (verdict.PASSED, verdict.FAILED):
        return _decided(session, plan)
    if session.verdict == verdict.UNKNOWN:
        return gettext("Baidu did not return a result in time.")
    return str(_UNDECIDED[session.status]) % {"plan": plan}


_UNDECIDED = {
    VerificationSession.Status.CREATED: _("Baidu has not yet accepted all that plan %(plan)s requires."),
    VerificationSession.Status.AWAITING_USER: _("The person has not finished the verification page yet."),
    VerificationSession.Status.VERIFYING: _(
        "The person was on the verification page; no answer of Baidu yet."
    ),
    VerificationSession.Status.ABANDONED: _("The person did not finish the verification page in time."),
    VerificationSession.Status.EXPIRED: _("The token expired before the person could be sent to the page."),
}


def _decided(session: VerificationSession, plan: str) -> str:
    passed = session.verdict == VerificationSession.Verdict.PASSED
    values = {"plan": plan}
    if session.plan.compares_faces and session.score is not None and session.threshold is not None:
        values |= {"score": number(session.score), "threshold": number(session.threshold)}
        if passed and session.score >= session.threshold:
            return gettext("%(score)s ≥ %(threshold)s of plan %(plan)s: passed") % values
        if passed:
            return gettext("Passed with %(score)s, though plan %(plan)s says %(threshold)s here") % values
        if 0 < session.score < session.threshold:
            return gettext("%(score)s < %(threshold)s of plan %(plan)s: failed") % values
    if passed:
        return gettext("Passed by plan %(plan)s") % values
    explanation = describe_error(session.error_class, session.error_code)
    return explanation or gettext("Failed by plan %(plan)s") % values


REVEAL_REASONS: dict[str, Promise] = {
    "complaint": _("complaint of the person"),
    "review": _("manual review"),
    "audit": _("audit"),
    "legal": _("request of an authority"),
    "other": _("other (please explain)"),
}


def reveal_reasons() -> list[tuple[str, str]]:
    """Code and name of each reason to view an identity in clear."""
    return [(code, name or reason_name(code)) for code, name in conf.reveal_reasons.items()]


def reason_name(code: str) -> str:
    """The name of a reason of the access log; the code itself for a reason that no longer exists."""
    return str(conf.reveal_reasons.get(code) or REVEAL_REASONS.get(code, code))


_REASON_PROBLEMS = {
    ("reason", "required"): _("Choose a reason."),
    ("reason", "unknown"): _("Choose a reason."),
    ("reason_text", "required"): _("Please add a short explanation, e.g. a ticket number."),
    ("reason_text", "too_long"): _("The explanation is too long."),
}


def reason_problem(error: InvalidInput) -> str:
    """A message that says what is wrong with a posted reason."""
    return str(_REASON_PROBLEMS.get((error.field, error.code), _("Choose a reason.")))
