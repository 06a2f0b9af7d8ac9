"""Raw answers without personal data: the whole structure is shown, and only harmless values.

Fields that are shown are listed here; all others are hidden, also those that Baidu may add. In listed fields,
text that looks like a person's number, a token or an address is hidden, and so are values that the caller
knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from django.views.decorators.debug import sensitive_variables

from .masking import MASK, mask_address, mask_name, mask_number

#: Maximum number of characters shown.
MAX_SHOWN = 100_000
MAX_DEPTH = 40
#: Names of fields. A name that does not match may have been made of personal data.
_FIELD = re.compile(r"[A-Za-z][A-Za-z_]{0,39}|(?!.*[0-9]{8})[A-Za-z][A-Za-z0-9_]{0,22}")

_HIDDEN = MASK * 4

#: Codes, times and numbers: shown when the value matches ``_CODE``.
_CODES = frozenset(
    {
        *("code", "error_code", "order", "status", "plan_id", "verify_time", "charge_time"),
        *("ocr_charge_time", "charge_type", "issue_time", "expire_time", "risk_level", "idcard_type"),
        *("certificate_type", "score", "liveness_score", "spoofing", "spoofing_score", "threshold"),
    }
)
_CODE = re.compile(r"[\x20-\x7e]{0,40}|长期")
#: Messages of Baidu: shown without the personal data found in them.
_MESSAGES = frozenset(
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
#: A number of this many digits may identify a person, unless it is a log_id.
_LONG_NUMBER = 9
_LOG_IDS = frozenset({"log_id", "logid", "verify_log_id"})
_PERSONAL = re.compile(
    r"https?://\S+"  # media URLs are signed
    r"|\d(?:[ -]?\d){13,16}[ -]?[\dXxＸｘ]"  # ID numbers, also in groups
    r"|(?<!\d)[1１][3-9３-９]\d{9}(?!\d)"  # mobile phones
    r"|[^\s@]+@[^\s@]+\.[^\s@]+"
    r"|[A-Za-z0-9+/_=.-]{24,}"  # tokens and base64
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@sensitive_variables()
def redacted(text: str, *, known: Iterable[str] = ()) -> str | None:
    """The JSON document *text*, indented, with all personal data hidden; None when it is not valid JSON.

    :param known: plain values that must not appear, such as the person's name and the token.

    The result has at most :data:`MAX_SHOWN` characters. If it was cut, a line with ``…`` follows.
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
        # The longest first: a value may contain another one.
        self._known = sorted(known, key=len, reverse=True)

    def of(self, value: Any, key: str = "", depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            return _HIDDEN
        if isinstance(value, dict):
            return value if _is_removed_picture(value) else self._object(value, depth)
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
            name = self._without_known(key) if _FIELD.fullmatch(key) else _HIDDEN
            # Two hidden names must stay two fields.
            while name in shown:
                name += MASK
            shown[name] = self.of(item, key, depth + 1)
        return shown

    def _text(self, value: str, key: str) -> str:
        if not value:
            return value
        if key in _LOG_IDS and value.isascii() and value.isdigit() and len(value) <= 40:
            return value
        if key in _MESSAGES or (key in _CODES and _CODE.fullmatch(value)):
            return _PERSONAL.sub(_HIDDEN, self._without_known(value))
        mask = _MASKS.get(key)
        if mask is not None:
            return mask(value)
        if value.startswith(("http://", "https://")):
            return _origin(value)
        return f"{_HIDDEN} ({len(value)})"

    def _without_known(self, value: str) -> str:
        for known in self._known:
            value = value.replace(known, _HIDDEN)
        return value


def _is_removed_picture(value: dict[str, Any]) -> bool:
    """Whether *value* replaces a picture that was moved to the archive (see ``evidence.answers``)."""
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
    """Scheme and host of *url*, without path and signature."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    # The host may be a person's name or number.
    if not re.fullmatch(r"[a-z0-9.-]{1,100}", host) or re.search(r"[0-9]{9}", host):
        return _HIDDEN
    return f"{parts.scheme}://{host}/{_HIDDEN}"
