"""How personal data look where they are not revealed: recognisable to who knows them, useless to others."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

MASK = "*"
# A number shows 7 characters; at least as many must stay hidden.
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
    """``柴某`` → ``柴*``: all but the first character hidden; a name of one character altogether."""
    name = _visible(value)
    return MASK if len(name) == 1 else name[:1] + MASK * (len(name) - 1)


def mask_number(value: str) -> str:
    """First 3 and last 4 characters of an ID number; all hidden when it has fewer than 14.

    ``11010519491231002X`` → ``110***********002X``.
    """
    number = _visible(value)
    if len(number) < _SHORTEST_PARTLY_SHOWN_NUMBER:
        return MASK * len(number)
    return number[:3] + MASK * (len(number) - 7) + number[-4:]


def mask_address(value: str) -> str:
    """``浙江省杭州市…`` → ``浙江省****``: the province is shown, or nothing when none is recognised."""
    address = _visible(value)
    if not address:
        return ""
    for name, suffix in _PROVINCES:
        if address.startswith(name):
            return name + suffix + _HIDDEN
    return _HIDDEN


def mask_card(texts: Mapping[str, str] | None) -> dict[str, str] | None:
    """*texts* of a card or a confirmation, masked; what identifies nobody stays as it is."""
    if texts is None:
        return None
    return {
        name: value if name in _SHOWN else _MASKS.get(name, _hidden)(value) for name, value in texts.items()
    }


def is_masked(value: str) -> bool:
    """Whether ``value`` carries a mask (``*``, also fullwidth) and so is not the real thing."""
    return MASK in value or "\N{FULLWIDTH ASTERISK}" in value


def _hidden(value: str) -> str:
    return _HIDDEN if value else ""


# How a text of a card is shown; what is not named is hidden altogether.
_MASKS = {"name": mask_name, "number": mask_number, "address": mask_address}
# These tell nothing about who the person is.
_SHOWN = frozenset({"issue_time", "expire_time"})


def _visible(value: str) -> str:
    # Composed first: the first "character" of a decomposed name would show a bare letter and count accents.
    return unicodedata.normalize("NFC", value).strip()
