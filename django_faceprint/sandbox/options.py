"""The options of the sandbox: applications, plans, switches and scripts, each with JSON types as values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class App:
    """One application (应用) of a Baidu account."""

    api_key: str
    secret_key: str = field(repr=False)
    account: str
    app_id: str


# The third belongs to another account: it may not use the plans of the first (API reference 4.2, 283400).
APPS = (
    App("sandbox-api-key", "sandbox-secret-key", "100001", "20000001"),
    App("sandbox-other-api-key", "sandbox-other-secret-key", "100001", "20000002"),
    App("sandbox-foreign-api-key", "sandbox-foreign-secret-key", "100002", "20000003"),
)
# A 项目ID, so that mixing it up with a 方案ID gives the documented answer.
PROJECT_IDS = frozenset({"15001"})

MatchSource = Literal["authoritative", "own_library", "liveness_only"]
IdentityEntry = Literal["none", "typed", "ocr", "specified"]
Level = Literal["loose", "normal", "strict"]


@dataclass(frozen=True)
class Plan:
    """A plan (方案) with the options of API reference 6."""

    plan_id: str
    name: str
    account: str = "100001"
    match_source: MatchSource = "authoritative"
    identity_entry: IdentityEntry = "typed"
    ocr_sides: Literal["none", "front", "both"] = "none"
    card_risk_control: bool = False
    non_mainland: bool = False
    liveness: Literal["distance", "colourful", "action", "silent", "image", "digits"] = "action"
    realtime: bool = True
    recording: bool = True
    closes_on_failure: bool = True
    threshold: float = 80.0
    allow_demotion: bool = False
    risk_control: bool = False
    image_quality: Level = "loose"
    liveness_control: Level = "normal"
    spoofing_control: Level = "normal"
    title: str = "人脸实名认证"
    consent_text: str = "为核验您的身份，需要采集您的人脸信息和身份信息，仅用于本次实名认证。"
    show_title: bool = True

    @property
    def uses_ocr(self) -> bool:
        """Whether the user photographs an ID card."""
        return self.identity_entry == "ocr"

    @property
    def types_identity(self) -> bool:
        """Whether the page has a form for name and number."""
        return self.identity_entry in ("typed", "ocr")

    @property
    def card_sides(self) -> tuple[str, ...]:
        """The sides of the ID card that an OCR plan reads; empty for other plans."""
        if not self.uses_ocr:
            return ()
        return ("front", "back") if self.ocr_sides == "both" else ("front",)

    def changed(self, values: Mapping[str, object]) -> Plan:
        """A copy with other options. Raises ``ValueError`` for an unknown option or a wrong value."""
        if "plan_id" in values:
            raise ValueError("the plan_id of a plan cannot be changed")
        _check_fields(Plan, values, minimum=0, maximum=100)
        return dataclasses.replace(self, **values)  # type: ignore[arg-type]


PLANS = (
    Plan("25001", "权威库 · 指定用户 · 动作活体", identity_entry="specified"),
    Plan(
        "25002",
        "权威库 · 手动输入 · 静默活体（可重试）",
        identity_entry="typed",
        liveness="silent",
        closes_on_failure=False,
    ),
    Plan(
        "25003",
        "权威库 · 身份证识别双面 · 炫瞳活体",
        identity_entry="ocr",
        ocr_sides="both",
        liveness="colourful",
    ),
    Plan(
        "25004",
        "自建人脸库 · 数字活体录制",
        match_source="own_library",
        identity_entry="none",
        liveness="digits",
        realtime=False,
    ),
    Plan(
        "25005",
        "仅活体检测 · 动作活体（不录制）",
        match_source="liveness_only",
        identity_entry="none",
        recording=False,
    ),
    Plan(
        "25006",
        "权威库 · 指定用户 · 非大陆数据源 · 静默活体（可降级）",
        identity_entry="specified",
        non_mainland=True,
        liveness="silent",
        allow_demotion=True,
        risk_control=True,
    ),
    Plan(
        "25007",
        "权威库 · 身份证识别人像面 · 动作活体录制（可重试）",
        identity_entry="ocr",
        ocr_sides="front",
        liveness="action",
        realtime=False,
        closes_on_failure=False,
    ),
)


@dataclass(frozen=True)
class Switches:
    """Behaviour where Baidu's documents are silent or contradict each other (API reference 8)."""

    error_envelope: Literal["service", "documented", "mixed"] = "service"
    # Made up: the real code is not published (API reference 8.2, 1). None leaves it out.
    token_gone_code: int | None = 900001
    # Made up as well: no source names a code for a score under the threshold.
    low_score_code: int = 900002
    log_id_number: bool = False
    qps: float = 50.0
    expired_unused: Literal["not_started", "gone"] = "not_started"
    between_attempts: Literal["failure", "not_started"] = "failure"
    before_attempt: Literal["not_started", "empty"] = "not_started"
    unrecorded_media: Literal["empty", "null", "error"] = "empty"
    media_of_failed: bool = True
    both_video_fields: bool = False
    sign_media: bool = True
    simple_image_seconds: float = 3 * 86400.0
    redirect_precedence: Literal["config", "query"] = "config"
    redirect_extra: str = ""
    strict_idcard: bool = False
    demote_place: Literal["result", "verify_result", "top"] = "result"
    getall_ocr_place: Literal["confirm", "sibling"] = "confirm"
    stat_keys: Literal["english", "chinese"] = "english"
    unpadded_verify_time: bool = False
    getall_available: bool = True

    def changed(self, values: Mapping[str, object]) -> Switches:
        """A copy with other values. Raises ``ValueError`` for an unknown switch or a wrong value."""
        _check_fields(Switches, values, minimum=0, maximum=1e9)
        return dataclasses.replace(self, **values)  # type: ignore[arg-type]


@dataclass
class Script:
    """A fixed course for one session; it overrides the user's choice on the page.

    Applies to the session ``verify_token``, or without one to the next ``count`` sessions (of ``plan_id``, if
    given). ``ext_info``: an error in place of the recordings.
    """

    verify_token: str | None = None
    plan_id: str | None = None
    count: int = 1
    outcome: Literal["pass", "fail", "giveup"] | None = None
    code: str | None = None
    message: str | None = None
    score: float | None = None
    liveness_score: float | None = None
    spoofing: float | None = None
    scores_as_text: bool = False
    is_demote: bool | None = None
    risk_level: str | None = None
    risk_tag: str | None = None
    ext_info: str | None = None
    card_images: Literal["normal", "missing", "not_image"] = "normal"

    @classmethod
    def of_json(cls, value: object) -> Script:
        """Read a script of the control API. Raises ``ValueError``."""
        if not isinstance(value, dict):
            raise ValueError("a script is an object")
        _check_fields(cls, value, minimum=-1e6, maximum=1e6)
        script = cls(**value)
        if script.count < 0:
            raise ValueError("count must not be negative")
        return script

    def as_json(self) -> dict[str, Any]:
        """For the control API."""
        return dataclasses.asdict(self)


def _check_fields(cls: type, values: Mapping[str, object], *, minimum: float, maximum: float) -> None:
    """Raise ``ValueError`` for names and values that the annotations of *cls* do not allow.

    Numbers must lie between *minimum* and *maximum*; a ``float`` field accepts whole numbers too.
    """
    hints = get_type_hints(cls)
    for name, value in values.items():
        if name not in hints:
            raise ValueError(f"unknown field {name}")
        choices: list[Any] = []
        types: set[type] = set()
        for part in get_args(hints[name]) or (hints[name],):
            if get_origin(part) is Literal:
                choices += get_args(part)
            elif not isinstance(part, type):
                choices.append(part)
            else:
                types |= {int, float} if part is float else {part}
        if type(value) not in types and value not in choices:
            allowed = ", ".join([*map(str, choices), *sorted(kind.__name__ for kind in types)])
            raise ValueError(f"{name} must be one of: {allowed}")
        if isinstance(value, (int, float)) and not minimum <= value <= maximum:
            raise ValueError(f"{name} must be a number from {minimum:g} to {maximum:g}")
