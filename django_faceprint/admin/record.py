"""The page of one record, prepared for its template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext

from django_faceprint.clock import now
from django_faceprint.models import (
    AccessLog,
    MediaAsset,
    UpstreamAnswer,
    UpstreamCall,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.models.certificates import certificate_name
from django_faceprint.models.session import NOT_LISTED
from django_faceprint.records.lookup import others_of_person
from django_faceprint.verification.consent import needs_guardian, of_session

from . import labels
from .files import File, file_order
from .identity import IdentityRow, card_facts, consent_facts, identity_rows, opened
from .presentation import Badge, RecordSummary, archive_badge, expected_count
from .timeline import Event, timeline

Kind = MediaAsset.Kind

#: Most calls, answers and views on the page, newest first.
MAX_CALLS = 200
MAX_ANSWERS = 50
MAX_VIEWS = 20
#: Most other records of the same person that the page lists, newest first, and that it counts.
MAX_OTHERS = 20
MAX_OTHERS_COUNTED = 1000
#: The pictures to compare, from left to right.
_COMPARED = (Kind.FACE, Kind.ID_FRONT, Kind.MATCH_IMAGE)


@dataclass(frozen=True)
class Score:
    """A score, or the reason why there is none. ``share`` and ``mark`` are positions on its scale, 0–100."""

    name: str
    text: str
    share: float | None = None
    mark: float | None = None
    mark_text: str = ""
    tone: str = "quiet"


@dataclass(frozen=True)
class Attempt:
    """A try of the person, with texts for its codes."""

    row: VerificationAttempt
    result: Badge
    explanation: str
    charge: str
    score: str
    threshold: str
    liveness: str
    spoofing: str


@dataclass(frozen=True)
class Stage:
    """A line of Baidu's statistics."""

    name: str
    code: str
    explanation: str
    count: int
    is_success: bool


class Record:
    """Everything that the page of *session* shows. Sends a fixed number of queries.

    :param url: makes addresses: ``url(view, *arguments, model=None)``.
    :param may_view_media: whether the user may view pictures and videos.
    :param with_views: whether the user may see who viewed the record.
    :param visible: the records that the user may view; those of the same person are listed.
    :param unmasked: whether the identity is shown in clear; the caller has logged that.
    """

    def __init__(
        self,
        session: VerificationSession,
        *,
        url: Callable[..., str],
        may_view_media: bool,
        with_views: bool,
        visible: QuerySet[VerificationSession],
        unmasked: bool = False,
    ) -> None:
        self.session = session
        self.summary = RecordSummary.of(session, url("change", session.pk))
        self._url = url
        self.may_view_media = may_view_media
        self.unmasked = unmasked
        self.now = now()
        self.consent = of_session(session)
        self._assets = sorted(session.assets.all(), key=file_order)
        calls = list(session.calls.order_by("-at", "-pk")[: MAX_CALLS + 1])
        self.calls_left_out = len(calls) > MAX_CALLS
        self._calls: list[UpstreamCall] = calls[:MAX_CALLS]
        self.answers = [
            (labels.endpoint_name(answer.endpoint), answer, url("answer", session.pk, answer.pk))
            for answer in UpstreamAnswer.objects.filter(session=session)
            .defer("body")
            .order_by("-received_at", "-pk")[:MAX_ANSWERS]
        ]
        self.attempts = [self._attempt(row) for row in session.attempts.order_by("order")]
        media_url = self._media_url if may_view_media else None
        self.files = [File.of(asset, self.now, media_url) for asset in self._assets]
        self.views = self._views() if with_views else None
        self.others, self.others_count = self._others(visible)

    def _media_url(self, asset: MediaAsset) -> str:
        return self._url("media", asset.public_id)

    def _views(self) -> list[tuple[AccessLog, str]]:
        """The newest entries of the access log, each with the name of its reason or ""."""
        newest = list(AccessLog.objects.filter(session_id=self.session.public_id)[: MAX_VIEWS + 1])
        self.views_left_out = len(newest) > MAX_VIEWS
        return [
            (entry, labels.reason_name(entry.reason_code) if entry.reason_code else "")
            for entry in newest[:MAX_VIEWS]
        ]

    @property
    def views_url(self) -> str:
        """The access log of this record."""
        return f"{self._url('changelist', model='accesslog')}?q={self.session.public_id}"

    def _others(self, visible: QuerySet[VerificationSession]) -> tuple[list[RecordSummary], int]:
        """The newest other records with the same ID number, and how many there are."""
        rows = others_of_person(self.session, visible)
        if rows is None:
            return [], 0
        counted = rows.order_by().values("pk")[: MAX_OTHERS_COUNTED + 1].count()
        newest = rows.select_related("plan").defer(*NOT_LISTED)[:MAX_OTHERS]
        return [RecordSummary.of(row, self._url("change", row.pk)) for row in newest], counted

    @property
    def others_summary(self) -> str:
        """The number of other records of the same person, as text."""
        if self.others_count > MAX_OTHERS_COUNTED:
            return f"{MAX_OTHERS_COUNTED:,}+"
        return str(self.others_count)

    # --- the verdict ----------------------------------------------------------------------------

    @property
    def environment(self) -> Badge:
        live = self.session.environment == VerificationSession.Environment.LIVE
        return Badge(self.session.get_environment_display(), "quiet" if live else "warn")

    @property
    def archive(self) -> Badge:
        return archive_badge(self.session)

    @property
    def stored_count(self) -> int:
        return sum(asset.state == MediaAsset.State.STORED for asset in self._assets)

    @property
    def expected_count(self) -> int:
        return expected_count(self._assets)

    @property
    def stored_bytes(self) -> int:
        return sum(asset.size or 0 for asset in self._assets if asset.state == MediaAsset.State.STORED)

    @property
    def time_left(self) -> TimeLeft | None:
        return time_left(self.session, self._assets, self.now)

    @property
    def next_visit(self) -> str:
        """When the engine works on the record again; "" when nothing is left to do."""
        session = self.session
        if session.is_leased:
            return gettext("A worker is on it right now.")
        if session.priority_at is not None or (session.wake_at and session.wake_at <= self.now):
            return gettext("The next query is due now; it starts as soon as a worker is free.")
        if session.wake_at is not None:
            return gettext("The next query is due in %(time)s.") % {
                "time": labels.duration(session.wake_at - self.now)
            }
        return ""

    # --- the person -----------------------------------------------------------------------------

    @property
    def identity(self) -> list[IdentityRow]:
        return identity_rows(self.session, unmasked=self.unmasked)

    @property
    def card_facts(self) -> list[tuple[str, str]]:
        return card_facts(self.session, unmasked=self.unmasked)

    @property
    def has_identity(self) -> bool:
        """Whether there is something to reveal."""
        return any(row.is_known for row in self.identity) or bool(self.card_facts)

    @property
    def certificate(self) -> str:
        return certificate_name(self.session.certificate_type)

    @property
    def lacks_guardian(self) -> bool:
        """Whether the person is under 14 by the ID number, and no guardian's consent is on record."""
        session = self.session
        number = opened(session, "known_number")
        given = self.consent is not None and opened(self.consent, "guardian_reference")
        return not given and needs_guardian(number, session.certificate_type)

    @property
    def consent_facts(self) -> list[tuple[str, Any]]:
        return consent_facts(self.consent)

    # --- scores ---------------------------------------------------------------------------------

    @property
    def scores(self) -> list[Score]:
        session = self.session
        return [self._similarity(session), self._liveness(session), self._spoofing(session)]

    def _similarity(self, session: VerificationSession) -> Score:
        score, threshold = session.score, session.threshold
        shown = _score(gettext("Similarity"), score, 100, applies=session.plan.compares_faces)
        if score is None or shown.share is None:
            return shown
        if threshold is None:
            return replace(shown, tone="good")
        tone = "good" if score >= threshold else "bad"
        return replace(shown, mark=_share(threshold, 100), mark_text=labels.number(threshold), tone=tone)

    def _liveness(self, session: VerificationSession) -> Score:
        value = session.liveness_score
        return _score(gettext("Liveness"), value, 1, applies=bool(value) or session.plan.scores_liveness)

    def _spoofing(self, session: VerificationSession) -> Score:
        name, value = gettext("Synthetic picture"), session.spoofing_score
        share, tone = (_share(value, 1), "neutral") if value else (None, "quiet")
        return Score(name, labels.spoofing(value), share, tone=tone)

    @property
    def demotion(self) -> str:
        if self.session.is_demoted is None:
            return gettext("not applicable") if not self.session.plan.is_real_time else gettext("not known")
        return gettext("yes, to recorded video") if self.session.is_demoted else gettext("no")

    # --- errors ---------------------------------------------------------------------------------

    @property
    def error_class(self) -> str:
        return labels.error_class_name(self.session.error_class)

    @property
    def error_explanation(self) -> str:
        return labels.describe_error(self.session.error_class, self.session.error_code)

    # --- files ----------------------------------------------------------------------------------

    @property
    def compared(self) -> list[File]:
        """Face, ID photo and match image to compare. Missing ones are included, with the reason."""
        by_kind = {file.asset.kind: file for file in reversed(self.files)}
        shown = [by_kind.get(kind) for kind in _COMPARED]
        if shown[0] is None or not shown[0].is_stored:
            # A failed verification has no face, only those of its attempts.
            tried = [file for file in self.files if file.asset.kind == Kind.ATTEMPT_FACE and file.is_stored]
            shown[0] = tried[-1] if tried else shown[0]
        return [file for file in shown if file is not None]

    @property
    def strip(self) -> list[File]:
        """The other pictures."""
        compared = self.compared
        pictures = [file for file in self.files if file.is_stored and not file.asset.is_video]
        return [file for file in pictures if file not in compared]

    @property
    def videos(self) -> list[File]:
        """The stored videos, or a missing one with the reason."""
        videos = [file for file in self.files if file.asset.is_video]
        return [file for file in videos if file.is_stored] or videos[:1]

    # --- what happened --------------------------------------------------------------------------

    @property
    def timeline(self) -> list[Event]:
        return timeline(self.session, self._assets, self._calls, self.views or [])

    @property
    def stages(self) -> list[Stage]:
        """Baidu's statistics: stage × code × count."""
        found = [
            (labels.stage_name(stage), str(item.get("error_code", "")), item.get("count", 0))
            for stage, counts in (self.session.stat or {}).items()
            for item in counts
        ]
        return [
            Stage(name, code, labels.describe_code(code), count, code == "0") for name, code, count in found
        ]

    def _attempt(self, row: VerificationAttempt) -> Attempt:
        result = Badge(gettext("passed"), "good") if row.passed else Badge(gettext("failed"), "bad")
        return Attempt(
            row=row,
            result=result,
            explanation="" if row.passed else labels.describe_code(row.code),
            charge=(labels.charge_name(row.charge_type) or gettext("yes")) if row.is_charged else "",
            score=_number(row.score),
            threshold=_number(row.threshold),
            liveness=_number(row.liveness_score),
            spoofing=labels.spoofing(row.spoofing_score),
        )

    @property
    def charges(self) -> str:
        """What Baidu charges the attempts as, e.g. "2 × identity verification"; "" if nothing."""
        names = [attempt.charge for attempt in self.attempts if attempt.row.is_charged]
        counted = {name: names.count(name) for name in dict.fromkeys(names)}
        return ", ".join(f"{count} × {name}" for name, count in counted.items())

    @property
    def plan_facts(self) -> list[tuple[str, str]]:
        plan = self.session.plan
        return [
            (gettext("Match source"), plan.get_match_source_display()),
            (gettext("Identity entry"), plan.get_identity_entry_display()),
            (gettext("Liveness"), plan.get_liveness_display()),
        ]


@dataclass(frozen=True)
class TimeLeft:
    """How long evidence can safely be fetched still."""

    text: str
    is_urgent: bool
    is_over: bool

    @property
    def sentence(self) -> str:
        """The text where no label says what it is."""
        return self.text if self.is_over else gettext("%(time)s left") % {"time": self.text}


def time_left(session: VerificationSession, assets: list[MediaAsset], moment: datetime) -> TimeLeft | None:
    """The time left to the deadline of *session*, with its unit; None when nothing is outstanding."""
    wanted = [asset for asset in assets if asset.state == MediaAsset.State.WANTED]
    left = labels.time_left(session, wanted, moment)
    if left is None:
        return None
    if left <= timedelta(0):
        return TimeLeft(gettext("overdue by %(time)s") % {"time": labels.duration(-left)}, True, True)
    return TimeLeft(labels.duration(left), left < labels.URGENT, False)


def _number(value: float | None) -> str:
    return "" if value is None else labels.number(value)


def _score(name: str, value: float | None, full: float, *, applies: bool) -> Score:
    if not applies:
        return Score(name, gettext("not applicable"))
    if value is None:
        return Score(name, gettext("not known"))
    return Score(name, labels.number(value), _share(value, full), tone="neutral")


def _share(value: float, full: float) -> float:
    return round(min(max(value / full, 0.0), 1.0) * 100, 2)
