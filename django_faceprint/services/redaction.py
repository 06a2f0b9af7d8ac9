"""Answers of Baidu as they may be read on: their shape and codes, without whoever they are about."""

from __future__ import annotations

import json
import re
from typing import Any

from django.views.decorators.debug import sensitive_variables

from django_faceprint.models import UpstreamAnswer

#: Texts under these names say what happened, not to whom, if they look as such texts do.
_SAID: dict[str, re.Pattern[str]] = {
    **dict.fromkeys(("log_id", "verify_log_id"), re.compile(r"[0-9A-Za-z]{1,40}")),
    **dict.fromkeys(
        ("status", "verify_status", "risk_level", "risk_tag", "liveness_type", "charge_type"),
        re.compile(r"[A-Za-z_,]{1,40}|[0-9]{1,6}"),
    ),
    "error_msg": re.compile(r"(?!.*[0-9]{6})[A-Za-z0-9 _.,:()-]{1,100}"),
}
#: Such a text is a code, a score or a time, wherever it stands.
_CODE = re.compile(r"-?[0-9]{1,6}(\.[0-9]{1,8})?|20[0-9]{2}-[0-9]{2}-[0-9]{2}[ T][0-9:.]{5,15}")
_NAME = re.compile(r"[A-Za-z][A-Za-z_]{0,39}")


@sensitive_variables()
def redacted(answer: UpstreamAnswer) -> str:
    """The body of *answer*, indented; every text in it that is no code, time or log_id is told by its length.

    What cannot be read as JSON is told by its length as a whole. Raises ``SealBroken``.
    """
    body = answer.body or ""
    try:
        document = json.loads(body)
    except ValueError:
        return _length(body)
    return json.dumps(_redacted(document, ""), ensure_ascii=False, indent=2)


def _redacted(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {_redacted_name(key): _redacted(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item, name) for item in value]
    if not isinstance(value, str):
        # A number of many digits may be an ID or phone number.
        is_short = not isinstance(value, int) or abs(value) < 10**7
        return value if is_short or name in ("log_id", "verify_log_id") else _length(str(value))
    if not value or _CODE.fullmatch(value) or (name in _SAID and _SAID[name].fullmatch(value)):
        return value
    return _length(value)


def _redacted_name(name: str) -> str:
    """Names of Baidu's are words; one that was made of data is data."""
    return name if _NAME.fullmatch(name) else _length(name)


def _length(text: str) -> str:
    return f"… ({len(text)})"
