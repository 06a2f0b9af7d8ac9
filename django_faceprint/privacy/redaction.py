"""A raw answer as it may be shown: its whole structure, and of its values only what tells of nobody.

What is shown is listed; everything else is hidden, so that a field which upstream adds tomorrow, or names
otherwise, is hidden too. Listed fields are looked through once more for what looks like a person's number, a
token or an address, and for values that the caller knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from django.views.decorators.debug import sensitive_variables

from .masking import MASK, mask_address, mask_name, mask_number

#: Characters that are shown at most, and how deep documents may be nested.
MAX_SHOWN = 100_000
DEEPEST = 40
#: What names of fields look like; one that was made of data does not, and is data.
_FIELD = re.compile(r"[A-Za-z][A-Za-z_]{0,39}|(?!.*[0-9]{8})[A-Za-z][A-Za-z0-9_]{0,22}")

_HIDDEN = MASK * 4

#: Codes, times and numbers: shown when they look like one.
_CODES = frozenset(
    {
        *("code", "error_code", "order", "status", "plan_id", "verify_time", "charge_time"),
        *("ocr_charge_time", "charge_type", "issue_time", "expire_time", "risk_level", "idcard_type"),
        *("certificate_type", "score", "liveness_score", "spoofing", "spoofing_score", "threshold"),
    }
)
_CODE = re.compile(r"[\x20-\x7e]{0,40}|长期")
#: Baidu's words: shown without what is found to be personal in them.
_WORDS = frozenset(
    {"message", "msg", "error_msg", "error_description", "risk_tag", "refused", "extInfo", "ext_info"}
)
_MASKS: dict[str, Callable[[str], str]] = {
    "name": mask_name,
    "id_name": mask_name,
    "idcard_name": mask_name,
    "id_card_name": mask_name,
    "idcard_number": mask_number,
    "id_card_number": mask_number,
    "id_no": mask_number,
    "number": mask_number,
    "address": mask_address,
}
#: Numbers of this many digits may be somebody's; log_ids are not.
_LONG_NUMBER = 9
_LOG_IDS = frozenset({"log_id", "logid", "verify_log_id"})
_PERSONAL = re.compile(
    r"https?://\S+"  # addresses of media are signed
    r"|\d(?:[ -]?\d){13,16}[ -]?[\dXxＸｘ]"  # ID numbers, also in groups
    r"|(?<!\d)[1１][3-9３-９]\d{9}(?!\d)"  # mobile phones
    r"|[^\s@]+@[^\s@]+\.[^\s@]+"
    r"|[A-Za-z0-9+/_=.-]{24,}"  # tokens and base64
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@sensitive_variables()
def redacted(text: str, *, known: Iterable[str] = ()) -> str | None:
    """The JSON document *text*, indented, with everything personal hidden; None when it is not readable JSON:
    what cannot be understood cannot be hidden either.

    *known* are values in clear that must not appear, such as the person's name and the token. The result has
    at most :data:`MAX_SHOWN` characters and one line that says so when it was cut.
    """
    try:
        document = json.loads(text)
        hidden = _Redaction([value for value in known if value]).of(document)
        shown = json.dumps(hidden, ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return None
    # A lone surrogate cannot be sent to a browser.
    shown = shown.encode("utf-8", "backslashreplace").decode("utf-8")
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}\n…"


class _Redaction:
    def __init__(self, known: list[str]) -> None:
        # The longest first, so that a value which holds another one goes as a whole.
        self._known = sorted(known, key=len, reverse=True)

    def of(self, value: Any, key: str = "", depth: int = 0) -> Any:
        if depth > DEEPEST:
            return _HIDDEN
        if isinstance(value, dict):
            if _is_cut_picture(value):
                return value
            return self._object(value, depth)
        if isinstance(value, list):
            return [self.of(item, key, depth + 1) for item in value]
        if isinstance(value, str):
            return self._text(value, key)
        if isinstance(value, bool) or value is None:
            return value
        return value if key in _LOG_IDS or abs(value) < 10**_LONG_NUMBER else _HIDDEN

    def _object(self, value: dict[str, Any], depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for key, item in value.items():
            name = self._known_hidden(key) if _FIELD.fullmatch(key) else _HIDDEN
            # Two hidden names must not become one.
            while name in shown:
                name += MASK
            shown[name] = self.of(item, key, depth + 1)
        return shown

    def _text(self, value: str, key: str) -> str:
        if not value:
            return value
        if key in _LOG_IDS and value.isascii() and value.isdigit() and len(value) <= 40:
            return value
        if key in _WORDS or (key in _CODES and _CODE.fullmatch(value)):
            return self._plain(value)
        mask = _MASKS.get(key)
        if mask is not None:
            return mask(value)
        if value.startswith(("http://", "https://")):
            return _origin(value)
        return f"{_HIDDEN} ({len(value)})"

    def _plain(self, value: str) -> str:
        """*value* without what is known or looks personal."""
        return _PERSONAL.sub(_HIDDEN, self._known_hidden(value))

    def _known_hidden(self, value: str) -> str:
        for known in self._known:
            value = value.replace(known, _HIDDEN)
        return value


def _is_cut_picture(value: dict[str, Any]) -> bool:
    """What stands in the place of a picture that was put into the archive."""
    return (
        value.keys() == {"removed", "sha256", "asset"}
        and value["removed"] == "picture"
        and isinstance(value["sha256"], str)
        and _SHA256.fullmatch(value["sha256"]) is not None
        and (
            value["asset"] is None
            or (isinstance(value["asset"], str) and _UUID.fullmatch(value["asset"]) is not None)
        )
    )


def _origin(url: str) -> str:
    """Where *url* leads, without the path and the signature."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    # A name or a number may stand in the place of a host.
    if not re.fullmatch(r"[a-z0-9.-]{1,100}", host) or re.search(r"[0-9]{9}", host):
        return _HIDDEN
    return f"{parts.scheme}://{host}/{_HIDDEN}"
