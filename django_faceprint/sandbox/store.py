"""What the sandbox remembers: applications, plans, access tokens, sessions, scripts, and its ledger.

Everything lives in memory and ends with the process. Media bytes are never kept: an asset is its seed, and
its hash once somebody asked for it.
"""

from __future__ import annotations

import dataclasses
import secrets
import string
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import RLock
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .media import Content, Studio, digest

ACCESS_TOKEN_LIFE = timedelta(days=30)
PAGE_LIFE = timedelta(hours=2)
RESULT_LIFE = timedelta(days=3)
MEDIA_LIFE = timedelta(days=1)
# The oldest are forgotten first.
MAX_SESSIONS = 50_000
MAX_ACCESS_TOKENS = 20_000
ALPHABET = string.ascii_letters + string.digits


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

    def changed(self, values: Mapping[str, object]) -> Plan:
        """A copy with other options. Raises ``ValueError`` for an unknown option or a wrong type."""
        hints = get_type_hints(Plan)
        for name, value in values.items():
            kind = hints.get(name)
            if kind is None or name == "plan_id":
                raise ValueError(f"unknown option {name}")
            if get_origin(kind) is Literal:
                if value not in get_args(kind):
                    raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}")
            elif kind is float:
                if type(value) not in (int, float) or not 0 <= value <= 100:  # type: ignore[operator]
                    raise ValueError(f"{name} must be a number from 0 to 100")
            elif type(value) is not kind:
                raise ValueError(f"{name} must be of type {kind.__name__}")
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
    """How the sandbox behaves where the documents are silent or contradict themselves (API reference 8)."""

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
        """A copy with other settings. Raises ``ValueError`` for an unknown one or a wrong type."""
        hints = get_type_hints(Switches)
        for name, value in values.items():
            kind = hints.get(name)
            if kind is None:
                raise ValueError(f"unknown switch {name}")
            if get_origin(kind) is Literal:
                if value not in get_args(kind):
                    raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}")
            elif kind is float:
                if type(value) not in (int, float) or not 0 <= value <= 1e9:  # type: ignore[operator]
                    raise ValueError(f"{name} must be a number, not negative")
            elif name == "token_gone_code":
                if value is not None and type(value) is not int:
                    raise ValueError(f"{name} must be a whole number or null")
            elif type(value) is not kind:
                raise ValueError(f"{name} must be of type {kind.__name__}")
        return dataclasses.replace(self, **values)  # type: ignore[arg-type]


@dataclass
class Script:
    """What happens to the next sessions, or to a named one, whatever the user clicks."""

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
        hints = get_type_hints(cls)
        for name, item in value.items():
            kind = hints.get(name)
            if kind is None:
                raise ValueError(f"unknown field {name}")
            allowed: list[Any] = []
            types: list[type] = []
            for part in get_args(kind) or (kind,):
                if get_origin(part) is Literal:
                    allowed += get_args(part)
                elif isinstance(part, type):
                    types += [int, float] if part is float else [part]
                else:
                    allowed.append(part)
            if item not in allowed and type(item) not in types:
                raise ValueError(f"{name} is not understood")
        if any(type(item) is int and abs(item) > 1_000_000 for item in value.values()):
            raise ValueError("a number is too large")
        script = cls(**value)
        if script.count < 0:
            raise ValueError("count must not be negative")
        return script

    def as_json(self) -> dict[str, Any]:
        """For the control API."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Identity:
    """What the user typed or confirmed, or the caller submitted."""

    name: str = field(repr=False)
    number: str = field(repr=False)
    certificate_type: int = 0


@dataclass(frozen=True, slots=True)
class MatchImage:
    """An uploaded match image: its hash and size, never its bytes."""

    sha256: str
    size: int
    content_type: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try on the page."""

    order: int
    at: datetime
    code: str
    message: str
    passed: bool
    score: float | None
    liveness_score: float
    spoofing: float | None
    is_demote: bool | None
    charged: bool
    # Empty when no backend call happened (API reference 3.8): then there is neither picture nor video.
    verify_log_id: str
    risk_level: str | None = None
    risk_tag: str | None = None
    identity: Identity | None = None


@dataclass(slots=True)
class Asset:
    """Something that belongs to a session. Its bytes follow from the seed; hash and size are learned once."""

    kind: str
    attempt: int
    position: int
    content_type: str
    available_from: tuple[str, ...]
    available_until: datetime
    sha256: str | None = None
    size: int | None = None
    served: int = 0
    partly_served: int = 0

    @property
    def key(self) -> tuple[str, int, int]:
        """Kind, attempt order (0: the whole session), position."""
        return self.kind, self.attempt, self.position


@dataclass(slots=True)
class Session:
    """One verify_token and everything that happened to it."""

    token: str
    app: App
    plan: Plan
    created_at: datetime
    success_url: str | None = None
    failed_url: str | None = None
    opened_at: datetime | None = None
    consented: bool = False
    identity: Identity | None = None
    match_image: MatchImage | None = None
    attempts: list[Attempt] = field(default_factory=list)
    closed_at: datetime | None = None
    gave_up: bool = False
    script: Script | None = None
    known_assets: dict[tuple[str, int, int], Asset] = field(default_factory=dict)

    @property
    def last(self) -> Attempt | None:
        """The latest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def passed(self) -> bool:
        """Whether an attempt passed."""
        return self.last is not None and self.last.passed

    @property
    def prepared(self) -> bool:
        """Whether everything that the plan requires before the page was accepted."""
        if self.plan.identity_entry == "specified" and self.identity is None:
            return False
        return self.plan.match_source != "own_library" or self.match_image is not None

    def usable_on_page(self, now: datetime) -> bool:
        """Whether the page still accepts the token: open, and not older than 2 h."""
        return self.closed_at is None and now < self.created_at + PAGE_LIFE

    def results_until(self) -> datetime:
        """When queries end: 3 d after the last attempt, or after the 2 h when there was none."""
        return (self.last.at if self.last else self.created_at + PAGE_LIFE) + RESULT_LIFE

    def state(self, now: datetime) -> str:
        """The state of API reference 1.3."""
        if now >= self.results_until():
            return "purged"
        if self.passed:
            return "passed"
        if self.closed_at is not None:
            return "failed"
        if now >= self.created_at + PAGE_LIFE:
            return "failed" if self.attempts else "expired"
        if self.attempts:
            return "failed_open"
        if self.opened_at is not None:
            return "in_progress"
        needs = self.plan.identity_entry == "specified" or self.plan.match_source == "own_library"
        return "prepared" if needs and self.prepared else "issued"

    def seed(self, kind: str, attempt: int, position: int) -> str:
        """What the bytes of an asset are made from."""
        return f"{self.token}:{kind}:{attempt}:{position}"

    @property
    def recorded(self) -> bool:
        """Whether the last attempt left a video."""
        return bool(self.plan.recording and self.last and self.last.verify_log_id)

    def assets(self, switches: Switches) -> list[Asset]:
        """Everything that this session owns at present, in a fixed order."""
        found: list[Asset] = []
        last = self.last
        if self.match_image is not None:
            kind, until = self.match_image.content_type, self.results_until()
            uploaded = Asset(
                "match_image", 0, 0, kind, (), until, self.match_image.sha256, self.match_image.size
            )
            found.append(uploaded)
        if last is None:
            return self._known(found)
        until = last.at + RESULT_LIFE
        if last.passed:
            seconds = timedelta(seconds=min(switches.simple_image_seconds, RESULT_LIFE.total_seconds()))
            found.append(Asset("face", 0, 0, "image/jpeg", ("result_simple",), last.at + seconds))
        found += [
            Asset("attempt_face", attempt.order, 0, "image/jpeg", ("result_getall",), until)
            for attempt in self.attempts
            if attempt.verify_log_id
        ]
        cards = self.script.card_images if self.script else "normal"
        if self.plan.uses_ocr and cards == "normal":
            sources = ("result_detail", "result_getall") if last.passed else ("result_getall",)
            found.append(Asset("id_front", 0, 0, "image/jpeg", sources, until))
            if self.plan.ocr_sides == "both":
                found.append(Asset("id_back", 0, 0, "image/jpeg", sources, until))
        broken = self.script is not None and self.script.ext_info is not None
        if self.recorded and not broken and (last.passed or switches.media_of_failed):
            media_until = last.at + MEDIA_LIFE
            source = ("result_media_query",)
            # A demoted session fell back to recorded video (API reference 6).
            if self.plan.realtime and not last.is_demote:
                found.append(Asset("process_video", 0, 0, "video/mp4", source, media_until))
                found += [Asset("frame", 0, at, "image/jpeg", source, media_until) for at in range(4)]
            else:
                found.append(Asset("video", 0, 0, "video/mp4", source, media_until))
        return self._known(found)

    def asset(self, key: tuple[str, int, int], switches: Switches) -> Asset | None:
        """One asset, if the session owns it at present."""
        return next((asset for asset in self.assets(switches) if asset.key == key), None)

    def _known(self, found: list[Asset]) -> list[Asset]:
        assets = []
        for fresh in found:
            asset = self.known_assets.setdefault(fresh.key, fresh)
            asset.available_from, asset.available_until = fresh.available_from, fresh.available_until
            assets.append(asset)
        return assets


class Store:
    """The sandbox's memory. Every method is safe to call from several threads."""

    def __init__(self, studio: Studio, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.lock = RLock()
        self.studio = studio
        self._monotonic = monotonic
        self.apps = {app.api_key: app for app in APPS}
        self.switches = Switches()
        self.clear()

    def clear(self) -> None:
        """Forget everything but the switches; plans return to their fixtures."""
        with self.lock:
            self.plans: dict[str, Plan] = {plan.plan_id: plan for plan in PLANS}
            self.sessions: OrderedDict[str, Session] = OrderedDict()
            self.scripts: list[Script] = []
            self.calls: dict[str, Counter[str]] = {}
            self.oauth_tokens = 0
            self._access_tokens: OrderedDict[str, tuple[App, datetime]] = OrderedDict()
            self._recent: dict[tuple[str, str], deque[float]] = {}

    def issue_access_token(self, app: App, now: datetime) -> tuple[str, datetime]:
        """A new access token; older ones stay valid (API reference 1.2)."""
        expiry = now + ACCESS_TOKEN_LIFE
        seconds = int(ACCESS_TOKEN_LIFE.total_seconds())
        token = f"24.{secrets.token_hex(16)}.{seconds}.{int(expiry.timestamp())}.{app.account}-{app.app_id}"
        with self.lock:
            self.oauth_tokens += 1
            self._access_tokens[token] = (app, expiry)
            while len(self._access_tokens) > MAX_ACCESS_TOKENS:
                self._access_tokens.popitem(last=False)
        return token, expiry

    def access_token(self, token: str) -> tuple[App, datetime] | None:
        """The application of an access token and when it ends."""
        with self.lock:
            return self._access_tokens.get(token)

    def revoke_access_tokens(self) -> None:
        """Make every access token invalid (110)."""
        with self.lock:
            self._access_tokens.clear()

    def within_qps(self, account: str, endpoint: str) -> bool:
        """Count a call; whether it is within the limit per account and interface (API reference 4.5)."""
        with self.lock:
            limit = self.switches.qps
            if limit <= 0:
                return True
            now = self._monotonic()
            recent = self._recent.setdefault((account, endpoint), deque())
            # Below one call per second the window grows instead.
            window, most = (1.0, int(limit)) if limit >= 1 else (1.0 / limit, 1)
            while recent and recent[0] <= now - window:
                recent.popleft()
            if len(recent) >= most:
                return False
            recent.append(now)
            return True

    def new_session(
        self, app: App, plan: Plan, now: datetime, urls: tuple[str | None, str | None]
    ) -> Session:
        """Issue a verify_token of 24 characters."""
        token = "".join(secrets.choice(ALPHABET) for _ in range(24))
        session = Session(token, app, plan, now, success_url=urls[0], failed_url=urls[1])
        with self.lock:
            for script in self.scripts:
                if (
                    script.verify_token is None
                    and script.count > 0
                    and script.plan_id in (None, plan.plan_id)
                ):
                    script.count -= 1
                    session.script = script
                    break
            self.sessions[token] = session
            while len(self.sessions) > MAX_SESSIONS:
                self.sessions.popitem(last=False)
        return session

    def add_script(self, script: Script) -> None:
        """Bind a script to its token, or keep it for the next sessions.

        Raises ``ValueError`` for an unknown token.
        """
        with self.lock:
            if script.verify_token is None:
                self.scripts.append(script)
                return
            session = self.sessions.get(script.verify_token)
            if session is None:
                raise ValueError("no such verify_token")
            session.script = script

    def count_call(self, endpoint: str, outcome: str) -> None:
        """Enter a call in the ledger."""
        with self.lock:
            self.calls.setdefault(endpoint, Counter())[outcome] += 1

    def learn(self, session: Session, asset: Asset, content: Content | None = None) -> None:
        """Compute hash and size of an asset, once; from ``content`` where that is at hand."""
        if asset.sha256 is None or asset.size is None:
            content = content or self.studio.content(asset.kind, session.seed(*asset.key))
            asset.size = content.size
            asset.sha256 = digest(content)

    def ledger(
        self, now: datetime, *, verify_token: str | None = None, hashes: bool = True
    ) -> dict[str, Any]:
        """Everything issued and served. Without ``hashes``, those never asked for are ``None``."""
        with self.lock:
            chosen = [s for s in self.sessions.values() if verify_token in (None, s.token)]
            calls = {endpoint: dict(counts) for endpoint, counts in sorted(self.calls.items())}
            tokens, switches = self.oauth_tokens, self.switches
        return {
            "now": now.isoformat(),
            "oauth_tokens": tokens,
            "calls": calls,
            "sessions": [self._entry(session, now, switches, hashes) for session in chosen],
        }

    def _entry(self, session: Session, now: datetime, switches: Switches, hashes: bool) -> dict[str, Any]:
        with self.lock:
            owned = session.assets(switches)
            attempts = list(session.attempts)
            entry: dict[str, Any] = {
                "verify_token": session.token,
                "app": session.app.api_key,
                "plan_id": session.plan.plan_id,
                "state": session.state(now),
                "created_at": session.created_at.isoformat(),
                "opened_at": session.opened_at.isoformat() if session.opened_at else None,
                "finished_at": attempts[-1].at.isoformat() if attempts else None,
                "closed_at": session.closed_at.isoformat() if session.closed_at else None,
                "gave_up": session.gave_up,
                "page_until": (session.created_at + PAGE_LIFE).isoformat(),
                "results_until": session.results_until().isoformat(),
            }
        if hashes:
            for asset in owned:
                self.learn(session, asset)
        entry["attempts"] = [
            {"order": a.order, "code": a.code, "passed": a.passed, "at": a.at.isoformat()} for a in attempts
        ]
        entry["assets"] = [
            {
                "kind": asset.kind,
                "attempt": asset.attempt,
                "position": asset.position,
                "sha256": asset.sha256,
                "size": asset.size,
                "content_type": asset.content_type,
                "available_from": list(asset.available_from),
                "available_until": asset.available_until.isoformat(),
                "served": asset.served,
                "partly_served": asset.partly_served,
            }
            for asset in owned
        ]
        return entry
