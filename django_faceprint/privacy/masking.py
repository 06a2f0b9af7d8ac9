"""Masks for personal data: people who know the data recognise them, others learn nothing useful."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

MASK = "*"
# A masked number shows 7 characters; at least 7 more must stay hidden.
_SHORTEST_PARTLY_SHOWN_NUMBER = 14
_HIDDEN = MASK * 4

_PROVINCES = (
    ("北京", "市"), ("天津", "市"), ("上海", "市"), ("重庆", "市"),
    ("河北", "省"), ("山西", "省"), ("辽宁", "省"), ("吉林", "省"), ("黑龙江", "省"), ("江苏", "省"),
    ("浙江", "省"), ("安徽", "省"), ("福建", "省"), ("江西", "省"), ("山东", "省"), ("河南", "省"),
    ("湖北", "省"), ("湖南", "省"), ("广东", "省"), ("海南", "省"), ("四川", "省"), ("贵州", "省"),
    ("云南", "省"), ("陕西", "省"), ("甘肃", "省"), ("青海", "省"), ("台湾", "省"),
    ("内蒙古", "自治区"), ("广西", "壮族自治区"), ("西藏", "自治区"), ("宁夏", "回族自治区"),
    ("新疆", "维吾尔自治区"),
    ("香港", "特别行政区"), ("澳门", "特别行政区"),
)  # fmt: skip


def mask_name(value: str) -> str:
    """``柴某`` → ``柴*``: only the first character is shown; a name of one character is hidden."""
    name = _visible(value)
    return MASK if len(name) == 1 else name[:1] + MASK * (len(name) - 1)


def mask_number(value: str) -> str:
    """``11010519491231002X`` → ``110***********002X``: the first 3 and the last 4 characters are shown.

    A number of fewer than 14 characters is hidden.
    """
    number = _visible(value)
    if len(number) < _SHORTEST_PARTLY_SHOWN_NUMBER:
        return MASK * len(number)
    return number[:3] + MASK * (len(number) - 7) + number[-4:]


def mask_address(value: str) -> str:
    """``浙江省杭州市…`` → ``浙江省****``: only the province is shown, if it is recognised."""
    address = _visible(value)
    if not address:
        return ""
    for name, suffix in _PROVINCES:
        if address.startswith(name):
            return name + suffix + _HIDDEN
    return _HIDDEN


def mask_card(texts: Mapping[str, str] | None) -> dict[str, str] | None:
    """The *texts* of an ID card or a confirmation, masked. Dates of issue and expiry stay as they are."""
    if texts is None:
        return None
    return {
        name: value if name in _SHOWN else _MASKS.get(name, _hidden)(value) for name, value in texts.items()
    }


def is_masked(value: str) -> bool:
    """Whether *value* contains a mask character (``*``, also fullwidth)."""
    return MASK in value or "\N{FULLWIDTH ASTERISK}" in value


def _hidden(value: str) -> str:
    return _HIDDEN if value else ""


# All other texts of a card are hidden.
_MASKS = {"name": mask_name, "number": mask_number, "address": mask_address}
# These do not identify the person.
_SHOWN = frozenset({"issue_time", "expire_time"})


def _visible(value: str) -> str:
    # In a decomposed name, an accent would count as a character.
    return unicodedata.normalize("NFC", value).strip()
