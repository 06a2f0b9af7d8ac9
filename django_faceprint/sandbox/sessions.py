"""A verify_token's session: its attempts, states, validity periods and assets (API reference 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .options import App, Plan, Script, Switches

PAGE_LIFE = timedelta(hours=2)
RESULT_LIFE = timedelta(days=3)
MEDIA_LIFE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity that the user typed or confirmed, or that the caller submitted."""

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
    """A file of a session. Its bytes are generated from the seed; hash and size are computed once."""

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
    """A verify_token with its preparation, attempts and files."""

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
        """Whether the caller has submitted everything that the plan requires before the page."""
        if self.plan.identity_entry == "specified" and self.identity is None:
            return False
        return self.plan.match_source != "own_library" or self.match_image is not None

    def usable_on_page(self, now: datetime) -> bool:
        """Whether the page still accepts the token: open, and not older than 2 h."""
        return self.closed_at is None and now < self.created_at + PAGE_LIFE

    def results_until(self) -> datetime:
        """When queries end: 3 d after the last attempt; without an attempt, 3 d after the page's 2 h."""
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
        """The text from which the bytes of an asset are generated."""
        return f"{self.token}:{kind}:{attempt}:{position}"

    @property
    def recorded(self) -> bool:
        """Whether the last attempt left a video."""
        return bool(self.plan.recording and self.last and self.last.verify_log_id)

    def assets(self, switches: Switches) -> list[Asset]:
        """The files that this session has at present, in a fixed order."""
        current = [*self._uploads(), *self._pictures(switches), *self._recordings(switches)]
        assets = []
        for fresh in current:
            asset = self.known_assets.setdefault(fresh.key, fresh)
            asset.available_from, asset.available_until = fresh.available_from, fresh.available_until
            assets.append(asset)
        return assets

    def _uploads(self) -> Iterator[Asset]:
        image = self.match_image
        if image is not None:
            until = self.results_until()
            yield Asset("match_image", 0, 0, image.content_type, (), until, image.sha256, image.size)

    def _pictures(self, switches: Switches) -> Iterator[Asset]:
        last = self.last
        if last is None:
            return
        until = last.at + RESULT_LIFE
        if last.passed:
            life = min(timedelta(seconds=switches.simple_image_seconds), RESULT_LIFE)
            yield Asset("face", 0, 0, "image/jpeg", ("result_simple",), last.at + life)
        for attempt in self.attempts:
            if attempt.verify_log_id:
                yield Asset("attempt_face", attempt.order, 0, "image/jpeg", ("result_getall",), until)
        if self.plan.uses_ocr and (self.script is None or self.script.card_images == "normal"):
            sources = ("result_detail", "result_getall") if last.passed else ("result_getall",)
            for side in self.plan.card_sides:
                yield Asset(f"id_{side}", 0, 0, "image/jpeg", sources, until)

    def _recordings(self, switches: Switches) -> Iterator[Asset]:
        last = self.last
        has_error = self.script is not None and self.script.ext_info is not None
        if last is None or not self.recorded or has_error or not (last.passed or switches.media_of_failed):
            return
        until = last.at + MEDIA_LIFE
        source = ("result_media_query",)
        # A demoted session fell back to recorded video (API reference 6).
        if self.plan.realtime and not last.is_demote:
            yield Asset("process_video", 0, 0, "video/mp4", source, until)
            for position in range(4):
                yield Asset("frame", 0, position, "image/jpeg", source, until)
        else:
            yield Asset("video", 0, 0, "video/mp4", source, until)

    def asset(self, key: tuple[str, int, int], switches: Switches) -> Asset | None:
        """One file, or ``None`` if the session does not have it at present."""
        return next((asset for asset in self.assets(switches) if asset.key == key), None)
