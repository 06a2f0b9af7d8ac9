"""Baidu's error codes and the reaction to each of them (API reference 4).

The table is closed: a code that is not listed for the kind of call that answered it is ``UNKNOWN``,
which is neither retried nor taken for a verdict.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..exceptions import ErrorClass

OAUTH_TOKEN: Final = "oauth_token"  # noqa: S105
VERIFY_TOKEN_GENERATE: Final = "verify_token_generate"  # noqa: S105
IDCARD_SUBMIT: Final = "idcard_submit"
UPLOAD_MATCH_IMAGE: Final = "upload_match_image"
RESULT_SIMPLE: Final = "result_simple"
RESULT_DETAIL: Final = "result_detail"
RESULT_STAT: Final = "result_stat"
RESULT_MEDIA_QUERY: Final = "result_media_query"
RESULT_GETALL: Final = "result_getall"

#: Interface names as used in records, statistics and exceptions.
ENDPOINTS: Final = (
    OAUTH_TOKEN,
    VERIFY_TOKEN_GENERATE,
    IDCARD_SUBMIT,
    UPLOAD_MATCH_IMAGE,
    RESULT_SIMPLE,
    RESULT_DETAIL,
    RESULT_STAT,
    RESULT_MEDIA_QUERY,
    RESULT_GETALL,
)
#: Interfaces that report on a verification: only they can answer "not started" or a verdict.
RESULT_ENDPOINTS: Final = frozenset(
    {RESULT_SIMPLE, RESULT_DETAIL, RESULT_STAT, RESULT_MEDIA_QUERY, RESULT_GETALL}
)
#: Interfaces that hand in data about the person before the H5 page is opened.
SUBMIT_ENDPOINTS: Final = frozenset({IDCARD_SUBMIT, UPLOAD_MATCH_IMAGE})

#: The code of an answer that carries none, or none that can be shown.
NO_CODE: Final = "unknown"

MAX_MESSAGE = 200


def gettext_noop(message: str) -> str:
    """Mark a text for the translation catalogue; it is translated where it is shown."""
    return message


@dataclass(frozen=True)
class ErrorRow:
    """One row of the table: a code, its class per kind of interface, the reason, and an explanation."""

    code: str
    #: Class on interfaces that report a result, on those that submit data, and on all others.
    on_result: ErrorClass
    on_submit: ErrorClass
    elsewhere: ErrorClass
    #: The reason for the class, with the tag of its source.
    reason: str
    #: English text for operators; translate with gettext.
    explanation: str


def _anywhere(code: str, error_class: ErrorClass, reason: str, explanation: str) -> ErrorRow:
    return ErrorRow(code, error_class, error_class, error_class, reason, explanation)


def _with_token(code: str, error_class: ErrorClass, reason: str, explanation: str) -> ErrorRow:
    """A row for the interfaces that report results; elsewhere the code makes no sense and stays unknown."""
    return ErrorRow(code, error_class, ErrorClass.UNKNOWN, ErrorClass.UNKNOWN, reason, explanation)


def _verdict(code: str, reason: str, explanation: str) -> ErrorRow:
    """A verdict about the person; from a submitting interface the same code is the caller's mistake."""
    return ErrorRow(
        code,
        ErrorClass.VERIFICATION_FAILED,
        ErrorClass.CALLER,
        ErrorClass.UNKNOWN,
        reason,
        explanation,
    )


def _request(code: str, reason: str, explanation: str) -> ErrorRow:
    """A parameter of the underlying Face API; generate has none of these."""
    return ErrorRow(code, ErrorClass.CALLER, ErrorClass.CALLER, ErrorClass.UNKNOWN, reason, explanation)


_ROWS: Final[tuple[ErrorRow, ...]] = (
    # Gateway (API reference 4.1).
    _anywhere(
        "2",
        ErrorClass.RETRY,
        "Service temporarily unavailable [doc]",
        gettext_noop("Baidu's service is temporarily unavailable. It is tried again."),
    ),
    _anywhere(
        "4",
        ErrorClass.SLOW_DOWN,
        "limit of the whole cluster reached [doc]",
        gettext_noop("Baidu's cluster limit was reached. Requests are slowed down."),
    ),
    _anywhere(
        "6",
        ErrorClass.CONFIGURATION,
        "interface not granted, enterprise certification missing, or a foreign plan ID [doc, FAQ]",
        gettext_noop(
            "No permission. Grant the application the face verification interfaces, complete the "
            "enterprise certification (it takes effect about an hour later) and use a plan ID (方案ID) "
            "of the same account."
        ),
    ),
    _anywhere(
        "17",
        ErrorClass.SLOW_DOWN,
        "daily quota used up [doc]",
        gettext_noop("The daily quota of the Baidu account is used up."),
    ),
    _anywhere(
        "18",
        ErrorClass.SLOW_DOWN,
        "QPS exceeded; when it persists, a paid backend interface has no quota [doc, FAQ]",
        gettext_noop(
            "Too many requests per second. If this persists, a paid backend interface "
            "(人脸实名认证, 人脸对比, 在线图片活体) has no quota or is not billed: check the Baidu account."
        ),
    ),
    _anywhere(
        "19",
        ErrorClass.SLOW_DOWN,
        "total quota used up [doc]",
        gettext_noop("The total quota of the Baidu account is used up."),
    ),
    _anywhere(
        "100",
        ErrorClass.REAUTHENTICATE,
        "access_token missing or malformed [doc]",
        gettext_noop("Baidu did not accept the access token as such."),
    ),
    _anywhere(
        "110",
        ErrorClass.REAUTHENTICATE,
        "access_token invalid [doc]",
        gettext_noop("The access token is invalid or no longer valid."),
    ),
    _anywhere(
        "111",
        ErrorClass.REAUTHENTICATE,
        "access_token expired [doc]",
        gettext_noop("The access token has expired."),
    ),
    # Faceprint service (API reference 4.2). 283400 and 283512 carry the same message.
    _anywhere(
        "283400",
        ErrorClass.CONFIGURATION,
        "no H5 plan, foreign plan, missing permission, or the project ID used as plan ID [seen, FAQ]",
        gettext_noop(
            "Baidu reports a service error that usually means configuration: no H5 plan exists, the plan "
            "belongs to another account, permissions are missing, or the project ID (项目ID) was used as "
            "plan ID (方案ID)."
        ),
    ),
    _anywhere(
        "283435",
        ErrorClass.CONFIGURATION,
        "no such plan [doc]",
        gettext_noop("The plan does not exist. Use the plan ID (方案ID), not the project ID (项目ID)."),
    ),
    _with_token(
        "283450",
        ErrorClass.NOT_STARTED,
        "the liveness step has not been done yet, or the account is in arrears [FAQ]",
        gettext_noop(
            "The verification has not been started or finished yet. If everybody gets this, the Baidu "
            "account may be in arrears."
        ),
    ),
    _anywhere(
        "283512",
        ErrorClass.RETRY,
        "backend store unreachable [doc]",
        gettext_noop("Baidu's backend is temporarily unavailable. It is tried again."),
    ),
    _anywhere(
        "283513",
        ErrorClass.CALLER,
        "request body is not JSON [doc]",
        gettext_noop("Baidu could not read the request."),
    ),
    _anywhere(
        "283520",
        ErrorClass.CALLER,
        "an APP plan used for H5: match_source missing [doc]",
        gettext_noop("This is a plan for apps, not for H5. Use the ID of an H5 plan."),
    ),
    _anywhere(
        "216100",
        ErrorClass.CALLER,
        "wrong parameter format [doc]",
        gettext_noop("Baidu refused a parameter of the request."),
    ),
    # Underlying Face APIs (API reference 4.3).
    _request("222001", "required parameter missing [doc]", gettext_noop("A required parameter is missing.")),
    _request(
        "222013", "image parameter format [doc]", gettext_noop("The picture was not sent in a valid form.")
    ),
    _request(
        "222019", "quality_control value [doc]", gettext_noop("The quality control level is not allowed.")
    ),
    _request(
        "222020", "liveness_control value [doc]", gettext_noop("The liveness control level is not allowed.")
    ),
    _request("222022", "ID number format [seen]", gettext_noop("Baidu refused the format of the ID number.")),
    _verdict("222202", "no face found [doc]", gettext_noop("No face was found in the picture.")),
    _verdict(
        "222203", "face not parseable [assumed]", gettext_noop("The face in the picture could not be read.")
    ),
    _verdict("222304", "image too large [assumed]", gettext_noop("The picture is too large.")),
    _verdict(
        "222350",
        "no or poor picture in the database [assumed]",
        gettext_noop("The authoritative database has no usable picture of this person."),
    ),
    _verdict(
        "222351",
        "name and number do not match [assumed]",
        gettext_noop("Name and ID number do not match, or the ID number does not exist."),
    ),
    _verdict(
        "222354",
        "number not in the database [assumed]",
        gettext_noop("The ID number is not in the authoritative database."),
    ),
    _verdict(
        "222355",
        "no picture in the database [assumed]",
        gettext_noop("The authoritative database has no picture for this ID number."),
    ),
    _verdict(
        "222356",
        "captured picture too poor [assumed]",
        gettext_noop("The captured picture is too poor to be compared."),
    ),
    _verdict(
        "222360", "invalid name or number [assumed]", gettext_noop("The name or the ID number is invalid.")
    ),
    ErrorRow(
        "222361",
        ErrorClass.RETRY,
        ErrorClass.RETRY,
        ErrorClass.UNKNOWN,
        "authoritative database busy or timed out: says nothing of the person [assumed]",
        gettext_noop("The authoritative database did not answer in time. It is tried again."),
    ),
    _verdict("223114", "blurred [doc]", gettext_noop("The face is blurred.")),
    _verdict("223120", "liveness check failed [doc]", gettext_noop("The liveness check failed.")),
    _verdict("223122", "right eye covered [doc]", gettext_noop("The right eye is covered.")),
    _verdict("223123", "left cheek covered [doc]", gettext_noop("The left cheek is covered.")),
    _verdict("223124", "right cheek covered [doc]", gettext_noop("The right cheek is covered.")),
    _verdict("223125", "chin covered [doc]", gettext_noop("The chin is covered.")),
    _verdict("223126", "nose covered [doc]", gettext_noop("The nose is covered.")),
    _verdict("223127", "mouth covered [doc]", gettext_noop("The mouth is covered.")),
    _verdict(
        "223131",
        "synthetic picture [assumed]",
        gettext_noop("The picture was judged to be synthetic (spoofing)."),
    ),
    _with_token(
        "216500",
        ErrorClass.VERIFICATION_FAILED,
        "billed failure of video liveness [doc, price page]",
        gettext_noop("The video liveness check failed."),
    ),
    _with_token(
        "216510",
        ErrorClass.VERIFICATION_FAILED,
        "action video longer than 10 s [doc]",
        gettext_noop("The liveness video is longer than 10 seconds."),
    ),
    # OAuth (API reference 2.1 and RFC 6749 5.2): text codes.
    _anywhere(
        "invalid_client",
        ErrorClass.CONFIGURATION,
        "API key or Secret Key wrong [doc]",
        gettext_noop("Baidu refuses the API key or the Secret Key of the application."),
    ),
    _anywhere(
        "invalid_request",
        ErrorClass.CONFIGURATION,
        "a credential was empty or malformed [assumed]",
        gettext_noop("The API key or the Secret Key is empty or malformed."),
    ),
    _anywhere(
        "unauthorized_client",
        ErrorClass.CONFIGURATION,
        "application not allowed to use client_credentials (RFC 6749)",
        gettext_noop("The application may not fetch an access token."),
    ),
    # Made by the transport, never by Baidu.
    _anywhere(
        "http_error",
        ErrorClass.RETRY,
        "HTTP status 500 or above (API reference 3.0, rule 1)",
        gettext_noop("Baidu answered with an HTTP error. It is tried again."),
    ),
    _anywhere(
        "not_json",
        ErrorClass.RETRY,
        "the body is no JSON object (API reference 3.0, rule 1)",
        gettext_noop("Baidu's answer could not be read. It is tried again."),
    ),
    _anywhere(
        "unreadable_result",
        ErrorClass.UNKNOWN,
        "success, but the result has none of the documented shapes",
        gettext_noop("Baidu reported success, but the result has an unknown form. The raw answer is kept."),
    ),
)

TABLE: Final = {row.code: row for row in _ROWS}

_GONE_EXPLANATION = gettext_noop(
    "The verification token is unknown, used, expired, or belongs to another application."
)
_UNKNOWN_EXPLANATION = gettext_noop(
    "Baidu answered with a code that is not published. Ask Baidu with the code and the log ID."
)

# The numeric code of this text is not published (API reference 4.2), so the text itself is matched:
# whole, with spaces tolerated, so that a sentence that merely mentions it does not count.
_GONE_TEXT = re.compile(r"token无效或者已过期[.。!]?", re.IGNORECASE)
_SPACES = re.compile(r"\s+")

_CODE = re.compile(r"-?[0-9]{1,10}|[A-Za-z][A-Za-z_]{0,31}[0-9]{0,6}")
_LOG_ID = re.compile(r"[A-Za-z0-9_\-]{1,64}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,15}://\S*")
# ID numbers, passports, verify_tokens and access_tokens: runs that hold a digit and are longer than any word.
_OPAQUE = re.compile(r"(?=[A-Za-z.\-]*[0-9])[0-9A-Za-z][0-9A-Za-z.\-]{7,}")


def classify(code: str, message: str, endpoint: str) -> ErrorClass:
    """The class of an error that ``endpoint`` answered (API reference 4).

    By code, never by message (283400 and 283512 share theirs), with one exception:
    「Token无效或者已过期」 has no published code. Also usable for the codes of attempts and statistics, with
    ``endpoint="result_getall"``. Raises nothing; what is not listed is ``UNKNOWN``.
    """
    if endpoint in RESULT_ENDPOINTS | SUBMIT_ENDPOINTS and is_gone_message(message):
        return ErrorClass.GONE
    row = TABLE.get(code)
    if row is None:
        return ErrorClass.UNKNOWN
    if endpoint in RESULT_ENDPOINTS:
        return row.on_result
    return row.on_submit if endpoint in SUBMIT_ENDPOINTS else row.elsewhere


def is_gone_message(message: str) -> bool:
    """Whether the text is 「Token无效或者已过期」, whatever the spacing."""
    return _GONE_TEXT.fullmatch(_SPACES.sub("", unicodedata.normalize("NFKC", message))) is not None


def explain(code: str, error_class: ErrorClass | str = ErrorClass.UNKNOWN) -> str:
    """An explanation of a code for operators, in English: a msgid of the translation catalogue.

    Pass the error's class where it is known: GONE has no code of its own.
    """
    row = TABLE.get(code)
    if row is not None:
        return row.explanation
    return _GONE_EXPLANATION if error_class == ErrorClass.GONE else _UNKNOWN_EXPLANATION


def explanations() -> Iterable[str]:
    """Every text that :func:`explain` can return, so that a test can demand their translations."""
    return [*(row.explanation for row in _ROWS), _GONE_EXPLANATION, _UNKNOWN_EXPLANATION]


def clean_code(value: object) -> str:
    """A code as text: ``283400``, ``"283400"`` and ``"SDK108"`` alike; :data:`NO_CODE` for anything else."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return NO_CODE
    if isinstance(value, int) and abs(value) >= 10**10:
        return NO_CODE
    text = str(value).strip()
    return text if _CODE.fullmatch(text) else NO_CODE


def clean_log_id(value: object) -> str:
    """A log_id as text ("" when there is none). It can exceed 2^53, so it is never a float."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**40:
        return str(value)
    if isinstance(value, str) and _LOG_ID.fullmatch(value.strip()):
        return value.strip()
    return ""


def clean_message(value: object) -> str:
    """Baidu's text for display: one line, at most 200 characters, no URLs, long numbers or tokens."""
    if not isinstance(value, str):
        return ""
    # Twice the limit is enough to fill it after cleaning; the rest is not worth the work.
    visible = (" " if unicodedata.category(char)[0] in "CZ" else char for char in value[: MAX_MESSAGE * 4])
    text = _URL.sub("***", " ".join("".join(visible).split()))
    return _OPAQUE.sub("***", text)[:MAX_MESSAGE]
