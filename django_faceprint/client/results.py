"""Typed answers, read tolerantly (API reference 3.5–3.8 and 8.1).

Documents and reality differ: numbers come as strings, objects are documented as arrays, fields are
missing, ``null`` or nested elsewhere. All readable fields are read; an optional field of a wrong type
becomes None and its path is listed in ``oddities`` (paths only, never values). All floats are finite.
Personal data and URLs stay out of every ``repr``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from .codes import NO_CODE, clean_code, clean_log_id, clean_message
from .pictures import DecodePicture, decode_picture

#: Times come without zone and mean Beijing's (API reference 3.8), which has had no summer time since 1991.
BEIJING: Final = timezone(timedelta(hours=8), "Asia/Shanghai")

MAX_TEXT = 1000
MAX_URL = 4096
MAX_BASE64 = 14 * 1024 * 1024
MAX_ATTEMPTS = 1000
MAX_ITEMS = 100


class UnreadableResult(Exception):
    """Success was reported, but ``result`` has none of the documented shapes."""


@dataclass(frozen=True)
class SimpleResult:
    """Where the face of the verification can be fetched (API reference 3.4). None: Baidu named no URL."""

    face_url: str | None = field(repr=False)
    oddities: tuple[str, ...] = ()


@dataclass(frozen=True)
class OcrResult:
    """The identity card as read by OCR. Dates are text: ``yyyyMMdd`` or 「长期」."""

    name: str | None = field(default=None, repr=False)
    gender: str | None = field(default=None, repr=False)
    nation: str | None = field(default=None, repr=False)
    birthday: str | None = field(default=None, repr=False)
    address: str | None = field(default=None, repr=False)
    number: str | None = field(default=None, repr=False)
    issue_authority: str | None = field(default=None, repr=False)
    issue_time: str | None = field(default=None, repr=False)
    expire_time: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class DetailResult:
    """A passed verification (API reference 3.5): that this answer exists is the pass.

    ``score`` 0–100, ``liveness_score`` and ``spoofing`` 0–1; the pictures are decoded bytes.
    """

    score: float | None = None
    liveness_score: float | None = None
    spoofing: float | None = None
    is_demote: bool | None = None
    ocr: OcrResult | None = field(default=None, repr=False)
    front_image: bytes | None = field(default=None, repr=False)
    back_image: bytes | None = field(default=None, repr=False)
    confirmed_name: str | None = field(default=None, repr=False)
    confirmed_number: str | None = field(default=None, repr=False)
    oddities: tuple[str, ...] = ()


@dataclass(frozen=True)
class StatCount:
    """How often an internal service answered this code; "0" is success."""

    error_code: str
    count: int


@dataclass(frozen=True)
class StatResult:
    """Calls of internal services by stage (API reference 3.6). Keys as Baidu writes them, in any language."""

    stages: Mapping[str, tuple[StatCount, ...]]
    oddities: tuple[str, ...] = ()


@dataclass(frozen=True)
class MediaResult:
    """URLs of recordings and face pictures (API reference 3.7), all empty when recording is off."""

    process_videos: tuple[str, ...] = field(default=(), repr=False)
    videos: tuple[str, ...] = field(default=(), repr=False)
    images: tuple[str, ...] = field(default=(), repr=False)
    ext_info: str | None = None
    oddities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """One try on the H5 page (API reference 3.8).

    ``order`` counts from 1 and is unique within an answer. ``passed`` is None when Baidu did not say.
    ``code`` is "0" on success. Times are aware.
    """

    order: int
    passed: bool | None = None
    code: str = NO_CODE
    message: str = field(default="", repr=False)
    verify_time: datetime | None = None
    face_url: str | None = field(default=None, repr=False)
    verify_log_id: str = ""
    score: float | None = None
    threshold: float | None = None
    liveness_score: float | None = None
    spoofing_score: float | None = None
    risk_level: str | None = None
    risk_tag: str | None = None
    is_demote: bool | None = None
    is_charged: bool | None = None
    charge_type: str | None = None
    charge_time: datetime | None = None
    is_ocr_charged: bool | None = None
    ocr_charge_time: datetime | None = None
    ocr_count: int | None = None
    confirmed_name: str | None = field(default=None, repr=False)
    confirmed_number: str | None = field(default=None, repr=False)
    certificate_type: int | None = None
    ocr: OcrResult | None = field(default=None, repr=False)
    front_image: bytes | None = field(default=None, repr=False)
    back_image: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class AllResult:
    """Every attempt under one token, failed ones included, and the billed counts (API reference 3.8)."""

    verify_count: int | None = None
    ocr_charge_count: int | None = None
    match_charge_count: int | None = None
    verify_charge_count: int | None = None
    live_charge_count: int | None = None
    attempts: tuple[Attempt, ...] = ()
    oddities: tuple[str, ...] = ()


def parse_verify_token(document: Mapping[str, Any]) -> str:
    """``result.verify_token`` (API reference 3.1). Raises :class:`UnreadableResult`."""
    token = _result(document, []).value("verify_token")
    if not isinstance(token, str) or not is_verify_token(token):
        raise UnreadableResult("verify_token")
    return token


def parse_simple(document: Mapping[str, Any]) -> SimpleResult:
    """Read ``result/simple``. Raises :class:`UnreadableResult`."""
    oddities: list[str] = []
    face_url = _result(document, oddities).url("image")
    return SimpleResult(face_url, oddities=tuple(oddities))


def parse_detail(document: Mapping[str, Any], decode: DecodePicture = decode_picture) -> DetailResult:
    """Read ``result/detail``. Raises :class:`UnreadableResult`."""
    oddities: list[str] = []
    result = _result(document, oddities)
    verdict = result.object("verify_result")
    confirm = result.object("idcard_confirm")
    # The document leaves open where is_demote belongs (API reference 3.5).
    is_demote = result.boolean("is_demote")
    if is_demote is None:
        is_demote = verdict.boolean("is_demote")
    if is_demote is None:
        is_demote = _Fields(document, "", oddities).boolean("is_demote")
    front, back = _card_images(result, confirm, decode)
    return DetailResult(
        score=verdict.number("score"),
        liveness_score=verdict.number("liveness_score"),
        spoofing=verdict.number("spoofing"),
        is_demote=is_demote,
        ocr=_ocr(result, confirm),
        front_image=front,
        back_image=back,
        confirmed_name=confirm.text("name"),
        confirmed_number=confirm.text("idcard_number"),
        oddities=tuple(oddities),
    )


def parse_stat(document: Mapping[str, Any]) -> StatResult:
    """Read ``result/stat``; no result at all is an empty one. Raises :class:`UnreadableResult`."""
    oddities: list[str] = []
    result = _result(document, oddities, empty_allowed=True)
    stages: dict[str, tuple[StatCount, ...]] = {}
    for position, (key, entries) in enumerate(result.items()):
        path = f"{result.path}[{position}]"
        name = _clean_text(key)
        if not name or len(name) > 64 or position >= MAX_ITEMS:
            oddities.append(path)
            continue
        counts = []
        for index, entry in enumerate(_as_list(entries)):
            fields = _entry(entry, f"{path}[{index}]", oddities)
            if fields is None:
                continue
            count = fields.integer("count")
            if count is None or index >= MAX_ITEMS:
                oddities.append(fields.path)
                continue
            counts.append(StatCount(clean_code(fields.value("error_code")), count))
        stages[name] = tuple(counts)
    return StatResult(stages, oddities=tuple(oddities))


def parse_media(document: Mapping[str, Any]) -> MediaResult:
    """Read ``result/media/query``; no result at all is an empty one. Raises :class:`UnreadableResult`."""
    oddities: list[str] = []
    result = _result(document, oddities, empty_allowed=True)
    return MediaResult(
        process_videos=result.urls("processVideo"),
        videos=result.urls("video"),
        images=result.urls("images"),
        ext_info=result.text("extInfo"),
        oddities=tuple(oddities),
    )


def parse_all(document: Mapping[str, Any], decode: DecodePicture = decode_picture) -> AllResult:
    """Read ``result/getall``. Raises :class:`UnreadableResult`."""
    oddities: list[str] = []
    result = _result(document, oddities)
    entries = _as_list(result.value("verify_result"))
    if len(entries) > MAX_ATTEMPTS:
        oddities.append(f"{result.path}.verify_result")
    attempts = []
    for position, entry in enumerate(entries[:MAX_ATTEMPTS], start=1):
        fields = _entry(entry, f"{result.path}.verify_result[{position - 1}]", oddities)
        if fields is not None:
            attempts.append(_attempt(fields, position, decode))
    orders = [attempt.order for attempt in attempts]
    if len(set(orders)) != len(orders):
        # Evidence is filed under the order: two attempts under one would hide each other.
        oddities.append(f"{result.path}.verify_result")
        attempts = [replace(attempt, order=position) for position, attempt in enumerate(attempts, start=1)]
    return AllResult(
        verify_count=result.integer("verify_count"),
        ocr_charge_count=result.integer("ocr_charge_count"),
        match_charge_count=result.integer("match_charge_count"),
        verify_charge_count=result.integer("verify_charge_count"),
        live_charge_count=result.integer("live_charge_count"),
        attempts=tuple(sorted(attempts, key=lambda attempt: attempt.order)),
        oddities=tuple(oddities),
    )


def is_verify_token(value: str) -> bool:
    """Whether a text can be a verify_token: 24 letters and digits in every sample, some latitude allowed."""
    return re.fullmatch(r"[A-Za-z0-9_\-]{8,128}", value) is not None


def parse_time(value: object) -> datetime | None:
    """``2023-6-20 18:00:00``, padded or not, Beijing time unless a zone is given; None: no time."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    match = _TIME.fullmatch(value.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    zone = match["zone"]
    offset = BEIJING
    if zone == "Z":
        offset = timezone.utc  # noqa: UP017
    elif zone:
        minutes = int(zone[1:3]) * 60 + int(zone[-2:])
        if minutes >= 24 * 60:
            return None
        offset = timezone(timedelta(minutes=-minutes if zone[0] == "-" else minutes))
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=offset)
    except ValueError:
        return None


_TIME = re.compile(
    r"(20[0-9]{2})[-/]([0-9]{1,2})[-/]([0-9]{1,2})[ T]([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?:\.[0-9]{1,9})?"
    r"(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?",
)
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{0,30})?(?:[eE][+-]?[0-9]{1,3})?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,15}")
_URL = re.compile(r"https?://[\x21-\x7e]+", re.IGNORECASE)
_BOOLEANS: Final[Mapping[str, bool]] = {"true": True, "false": False, "1": True, "0": False}
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class _Fields:
    """One JSON object being read: typed access by key, oddities noted by path.

    Missing, ``null`` and ``""`` are simply absent; any other wrong type is absent and odd.
    """

    def __init__(self, values: Mapping[str, Any], path: str, oddities: list[str]) -> None:
        self._values = values
        self._oddities = oddities
        self.path = path

    def value(self, key: str) -> Any:
        value = self._values.get(key)
        return None if value == "" else value

    def items(self) -> list[tuple[str, Any]]:
        return list(self._values.items())

    def odd(self, key: str) -> None:
        self._oddities.append(f"{self.path}.{key}" if self.path else key)

    def object(self, key: str) -> _Fields:
        """The object under the key, also as only element of an array; empty when there is none."""
        value = self.value(key)
        unwrapped = _unwrap(value)
        if unwrapped is None:
            if value is not None and value != []:
                self.odd(key)
            unwrapped = {}
        return _Fields(unwrapped, f"{self.path}.{key}" if self.path else key, self._oddities)

    def text(self, key: str, limit: int = MAX_TEXT) -> str | None:
        value = self.value(key)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or len(value) > limit:
            self.odd(key)
            return None
        cleaned = _clean_text(value)
        if cleaned != value.strip():
            self.odd(key)
        return cleaned or None

    def number(self, key: str) -> float | None:
        value = self.value(key)
        if value is None:
            return None
        if isinstance(value, str) and len(value) < 60 and _NUMBER.fullmatch(value.strip()):
            value = float(value)
        # NaN fails the comparison too.
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
            self.odd(key)
            return None
        return float(value)

    def integer(self, key: str) -> int | None:
        value = self.value(key)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            self.odd(key)
            return None
        return value

    def boolean(self, key: str) -> bool | None:
        value = self.value(key)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | str):
            known = _BOOLEANS.get(str(value).strip().lower() if isinstance(value, str) else repr(value))
            if known is not None:
                return known
        self.odd(key)
        return None

    def time(self, key: str) -> datetime | None:
        value = self.value(key)
        time = parse_time(value)
        if value is not None and time is None:
            self.odd(key)
        return time

    def url(self, key: str) -> str | None:
        value = self.value(key)
        if value is None:
            return None
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if _is_url(value):
            return str(value)
        self.odd(key)
        return None

    def urls(self, key: str) -> tuple[str, ...]:
        entries = [entry for entry in _as_list(self.value(key)) if entry is not None and entry != ""]
        found = tuple(entry for entry in entries[:MAX_ITEMS] if _is_url(entry))
        if len(found) != len(entries):
            self.odd(key)
        return found

    def picture(self, key: str, decode: DecodePicture) -> bytes | None:
        """Strict base64, at most 14 MiB of it; line breaks are tolerated."""
        value = self.value(key)
        if value is None:
            return None
        picture = b""
        if isinstance(value, str) and len(value) <= MAX_BASE64:
            try:
                picture = decode(value)
            except ValueError:
                picture = b""
        if not picture:
            self.odd(key)
        return picture or None


def _unwrap(value: object) -> Mapping[str, Any] | None:
    """The object itself, or the only element of an array: the documents call objects arrays."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, dict) else None


def _result(document: Mapping[str, Any], oddities: list[str], *, empty_allowed: bool = False) -> _Fields:
    result = document.get("result")
    unwrapped = _unwrap(result)
    if unwrapped is None and empty_allowed and (result is None or result == [] or result == ""):
        unwrapped = {}
    if unwrapped is None:
        raise UnreadableResult("result")
    return _Fields(unwrapped, "result", oddities)


def _as_list(value: object) -> list[Any]:
    """Arrays as they are, nothing as none, a single thing as the only one."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _entry(value: object, path: str, oddities: list[str]) -> _Fields | None:
    if isinstance(value, dict):
        return _Fields(value, path, oddities)
    oddities.append(path)
    return None


def _clean_text(value: str) -> str:
    """Without characters that databases and terminals choke on: controls, lone surrogates."""
    return _UNPRINTABLE.sub("", value).strip()


def _is_url(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_URL and _URL.fullmatch(value) is not None


def _ocr(outer: _Fields, confirm: _Fields) -> OcrResult | None:
    """The OCR block beside ``idcard_confirm`` or inside it (API reference 3.8)."""
    for parent in (outer, confirm):
        fields = parent.object("idcard_ocr_result")
        ocr = OcrResult(
            name=fields.text("name"),
            gender=fields.text("gender"),
            nation=fields.text("nation"),
            birthday=fields.text("birthday"),
            address=fields.text("address"),
            number=fields.text("id_card_number"),
            issue_authority=fields.text("issue_authority"),
            issue_time=fields.text("issue_time"),
            expire_time=fields.text("expire_time"),
        )
        if ocr != OcrResult():
            return ocr
    return None


def _card_images(
    outer: _Fields, confirm: _Fields, decode: DecodePicture
) -> tuple[bytes | None, bytes | None]:
    """Front and back of the card, beside ``idcard_confirm`` or inside it."""
    front: bytes | None = None
    back: bytes | None = None
    for parent in (outer, confirm):
        fields = parent.object("idcard_images")
        front = front if front is not None else fields.picture("front_base64", decode)
        back = back if back is not None else fields.picture("back_base64", decode)
    return front, back


def _attempt(fields: _Fields, position: int, decode: DecodePicture) -> Attempt:
    detail = fields.object("verify_detail")
    confirm = fields.object("idcard_confirm")
    order = fields.integer("order")
    if order is None or not 1 <= order <= 10_000:
        fields.odd("order")
        order = position
    passed = fields.boolean("is_verify_passed")
    if passed is None:
        fields.odd("is_verify_passed")
    certificate_type = confirm.integer("idcard_type")
    if certificate_type is not None and certificate_type > 99:
        confirm.odd("idcard_type")
        certificate_type = None
    front, back = _card_images(fields, confirm, decode)
    return Attempt(
        order=order,
        passed=passed,
        code=clean_code(fields.value("code")),
        message=clean_message(fields.value("message")),
        verify_time=fields.time("verify_time"),
        face_url=detail.url("face_image"),
        verify_log_id=clean_log_id(detail.value("verify_log_id")),
        score=detail.number("score"),
        threshold=detail.number("threshold"),
        liveness_score=detail.number("liveness_score"),
        spoofing_score=detail.number("spoofing_score"),
        risk_level=detail.text("risk_level", 64),
        risk_tag=detail.text("risk_tag"),
        is_demote=detail.boolean("is_demote"),
        is_charged=fields.boolean("is_charged"),
        charge_type=fields.text("charge_type", 64),
        charge_time=fields.time("charge_time"),
        is_ocr_charged=fields.boolean("is_ocr_charge"),
        ocr_charge_time=fields.time("ocr_charge_time"),
        ocr_count=fields.integer("ocr_count"),
        confirmed_name=confirm.text("name"),
        confirmed_number=confirm.text("idcard_number"),
        certificate_type=certificate_type,
        ocr=_ocr(fields, confirm),
        front_image=front,
        back_image=back,
    )
