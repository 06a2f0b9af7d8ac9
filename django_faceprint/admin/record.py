"""What the page of one record shows, prepared for the template: masked, in words, in order."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from django.db.models import QuerySet
from django.http import QueryDict
from django.urls import reverse
from django.utils.translation import gettext
from django.views.decorators.debug import sensitive_variables

from django_faceprint.clock import now
from django_faceprint.evidence.expected import describe_absence
from django_faceprint.evidence.thumbnails import open_thumbnail_of
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
from django_faceprint.privacy.blind_index import normalise
from django_faceprint.privacy.keys import SealBroken
from django_faceprint.privacy.masking import mask_address, mask_name, mask_number
from django_faceprint.privacy.redaction import redacted
from django_faceprint.records.lookup import others_of_person
from django_faceprint.verification.consent import needs_guardian, of_session

from . import labels
from .changelist import NEWEST_FIRST, ORDERS, ListRequest, Order

Kind = MediaAsset.Kind
State = MediaAsset.State

#: The newest calls, answers and looks that one page shows.
MAX_CALLS = 200
MAX_ANSWERS = 50
MAX_LOOKS = 20
#: Other records of the same person that one page lists, the newest; and how many are counted.
MAX_OTHERS = 20
MAX_OTHERS_COUNTED = 1000
#: Polls that said the same thing, or looks of one person, are one line of the timeline from this many on.
COLLAPSE_FROM = 3
#: What is held side by side, in this order.
_COMPARED = (Kind.FACE, Kind.ID_FRONT, Kind.MATCH_IMAGE)

_PICTURE_ORDER = [
    Kind.FACE,
    Kind.ID_FRONT,
    Kind.ID_BACK,
    Kind.MATCH_IMAGE,
    Kind.ATTEMPT_FACE,
    Kind.FRAME,
    Kind.THUMBNAIL,
]


@dataclass(frozen=True)
class Badge:
    """A word on a coloured ground."""

    text: str
    tone: str


@dataclass(frozen=True)
class Score:
    """One score: its value, or why there is none; ``share`` (0–100) and ``mark`` place it on a scale."""

    name: str
    text: str
    share: float | None = None
    mark: float | None = None
    mark_text: str = ""
    tone: str = "quiet"


@dataclass(frozen=True)
class IdentityRow:
    """A name or number from up to three sources, masked, and whether the sources agree in clear."""

    label: str
    submitted: str
    read: str
    confirmed: str
    read_differs: bool
    confirmed_differs: bool

    @property
    def is_known(self) -> bool:
        """From any source."""
        return bool(self.submitted or self.read or self.confirmed)

    @property
    def agrees(self) -> bool:
        """More than one source, and all of them say the same."""
        told = sum(map(bool, (self.submitted, self.read, self.confirmed)))
        return told > 1 and not self.read_differs and not self.confirmed_differs


@dataclass(frozen=True)
class File:
    """A file of the archive as its row tells it."""

    asset: MediaAsset
    name: str
    state: Badge
    explanation: str
    error: str
    dimensions: str
    url: str
    overdue: bool
    thumbnail: str = ""

    @property
    def is_stored(self) -> bool:
        return self.asset.state == State.STORED


@dataclass(frozen=True)
class Other:
    """Another record of the same person."""

    session: VerificationSession
    url: str
    status: Badge
    name: str
    number: str
    sentence: str


@dataclass(frozen=True)
class Event:
    """A line of the timeline. ``kind`` is ``step``, ``call`` or ``look``."""

    at: datetime
    text: str
    tone: str = "quiet"
    details: list[str] = field(default_factory=list)
    times: int = 1
    until: datetime | None = None
    kind: str = "step"


@dataclass(frozen=True)
class Attempt:
    """A try of the person, with its words."""

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
    """Everything the page of *session* shows. Reads a fixed number of queries, however much there is.

    :param media_url: the address of a file's content, or None when the viewer may not see files.
    :param with_looks: whether the viewer may see who looked.
    :param visible: the records that the viewer may see, among which those of the same person are listed.
    :param unmasked: whether the identity is shown unmasked, which the caller has written to the access log.
    :param site_name: of the admin site that the page is in.
    """

    def __init__(
        self,
        session: VerificationSession,
        *,
        media_url: Callable[[MediaAsset], str] | None,
        with_looks: bool,
        visible: QuerySet[VerificationSession],
        unmasked: bool = False,
        site_name: str = "admin",
    ) -> None:
        self.session = session
        self._site_name = site_name
        self.unmasked = unmasked
        self.now = now()
        self.consent = of_session(session)
        self._media_url = media_url
        self.may_see_media = media_url is not None
        self._assets = sorted(session.assets.all(), key=_asset_order)
        calls = list(session.calls.order_by("-at", "-pk")[: MAX_CALLS + 1])
        self.calls_left_out = len(calls) > MAX_CALLS
        self._calls = calls[:MAX_CALLS]
        self.answers = [
            (labels.endpoint_name(answer.endpoint), answer, self._url("answer", session.pk, answer.pk))
            for answer in UpstreamAnswer.objects.filter(session=session)
            .defer("body")
            .order_by("-received_at", "-pk")[:MAX_ANSWERS]
        ]
        self.attempts = [self._attempt(row) for row in session.attempts.order_by("order")]
        self.files = [self._file(asset) for asset in self._assets]
        self.looks = self._looks() if with_looks else None
        self.others, self.others_count = self._others(visible)

    def _url(self, name: str, *arguments: Any) -> str:
        return reverse(
            f"admin:faceprint_verificationsession_{name}", args=arguments, current_app=self._site_name
        )

    def _looks(self) -> list[tuple[AccessLog, str]]:
        """The newest looks, each with its reason in words."""
        newest = list(AccessLog.objects.filter(session_id=self.session.public_id)[: MAX_LOOKS + 1])
        self.looks_left_out = len(newest) > MAX_LOOKS
        return [
            (look, labels.reason_name(look.reason_code) if look.reason_code else "")
            for look in newest[:MAX_LOOKS]
        ]

    @property
    def views_url(self) -> str:
        """Where the access log shows all looks at the record."""
        address = reverse("admin:faceprint_accesslog_changelist", current_app=self._site_name)
        return f"{address}?q={self.session.public_id}"

    def _others(self, visible: QuerySet[VerificationSession]) -> tuple[list[Other], int]:
        """The newest other records with the same ID number, and how many there are."""
        rows = others_of_person(self.session, visible)
        if rows is None:
            return [], 0
        counted = rows.order_by().values("pk")[: MAX_OTHERS_COUNTED + 1].count()
        newest = rows.select_related("plan").defer(*NOT_LISTED)
        return [self._other(row) for row in newest[:MAX_OTHERS]], counted

    def _other(self, row: VerificationSession) -> Other:
        return Other(
            session=row,
            url=self._url("change", row.pk),
            status=status_badge(row),
            name=masked(row, "masked_name"),
            number=masked(row, "masked_number"),
            sentence=labels.status_reason(row),
        )

    @property
    def others_summary(self) -> str:
        """How many other records the person has."""
        if self.others_count > MAX_OTHERS_COUNTED:
            return f"{MAX_OTHERS_COUNTED:,}+"
        return str(self.others_count)

    # --- the verdict ----------------------------------------------------------------------------

    @property
    def status(self) -> Badge:
        return status_badge(self.session)

    @property
    def sentence(self) -> str:
        return labels.status_reason(self.session)

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
    def next_visit_at(self) -> str:
        """When the engine looks at the record again; "" when there is nothing left to do."""
        session = self.session
        if session.is_leased:
            return gettext("A worker is on it right now.")
        if session.priority_at is not None or (session.wake_at and session.wake_at <= self.now):
            return gettext("The next look is due now, as soon as a worker is free.")
        if session.wake_at is not None:
            return gettext("The next look is due in %(time)s.") % {
                "time": labels.duration(session.wake_at - self.now)
            }
        return ""

    # --- the person -----------------------------------------------------------------------------

    @property
    def identity(self) -> list[IdentityRow]:
        ocr, confirmed = _opened(self.session, "ocr"), _opened(self.session, "confirmed")
        name, number = _opened(self.session, "identity_name"), _opened(self.session, "identity_number")
        ocr, confirmed = ocr or {}, confirmed or {}
        masks = (_as_it_is, _as_it_is) if self.unmasked else (mask_name, mask_number)
        return [
            _identity_row(gettext("Name"), "name", masks[0], name, ocr.get("name"), confirmed.get("name")),
            _identity_row(
                gettext("Number"),
                "id_number",
                masks[1],
                number,
                ocr.get("number"),
                confirmed.get("number"),
            ),
        ]

    @property
    def has_identity(self) -> bool:
        """There is something to reveal."""
        return any(row.is_known for row in self.identity) or bool(self.card_facts)

    @property
    def masked_name(self) -> str:
        return masked(self.session, "masked_name")

    @property
    def masked_number(self) -> str:
        return masked(self.session, "masked_number")

    @property
    def card_facts(self) -> list[tuple[str, str]]:
        """What OCR read besides name and number; masked, as far as it does not tell who the person is."""
        ocr = _opened(self.session, "ocr") or {}
        facts = [
            (gettext("Address"), (_as_it_is if self.unmasked else mask_address)(ocr.get("address") or "")),
            (gettext("Valid until"), _day(ocr.get("expire_time") or "")),
        ]
        if self.unmasked:
            facts += [
                (gettext("Gender"), ocr.get("gender") or ""),
                (gettext("Ethnic group"), ocr.get("nation") or ""),
                (gettext("Birthday"), _day(ocr.get("birthday") or "")),
                (gettext("Issued by"), ocr.get("issue_authority") or ""),
                (gettext("Issued on"), _day(ocr.get("issue_time") or "")),
            ]
        return [(name, value) for name, value in facts if value]

    @property
    def certificate(self) -> str:
        return certificate_name(self.session.certificate_type)

    @property
    def lacks_guardian(self) -> bool:
        """A child under 14, as far as the number tells, and no guardian's consent on record."""
        session = self.session
        number = _opened(session, "known_number")
        given = self.consent is not None and _opened(self.consent, "guardian_reference")
        return not given and needs_guardian(number, session.certificate_type)

    @property
    def consent_facts(self) -> list[tuple[str, Any]]:
        """What is on record of the consent."""
        if self.consent is None:
            return []
        found = self.consent
        return [
            (gettext("Given"), found.given_at),
            (gettext("Notice version"), found.notice_version),
            (gettext("Channel"), found.channel),
            (gettext("Separate consent"), _yes_no(found.is_separate)),
            (gettext("Names Baidu as recipient"), _yes_no(found.names_recipient)),
            (gettext("Another way was offered"), _yes_no(found.alternative_offered)),
            (gettext("Consent on record as"), _opened(found, "reference")),
            (gettext("Guardian's consent on record as"), _opened(found, "guardian_reference")),
            (gettext("Withdrawn"), found.withdrawn_at),
        ]

    # --- scores ---------------------------------------------------------------------------------

    @property
    def scores(self) -> list[Score]:
        session = self.session
        return [self._similarity(session), self._liveness(session), self._spoofing(session)]

    def _similarity(self, session: VerificationSession) -> Score:
        name = gettext("Similarity")
        if not session.plan.compares_faces:
            return Score(name, gettext("not applicable"))
        if session.score is None:
            return Score(name, gettext("not known"))
        threshold = session.threshold
        good = threshold is None or session.score >= threshold
        return Score(
            name,
            labels.number(session.score),
            _share(session.score, 100),
            None if threshold is None else _share(threshold, 100),
            "" if threshold is None else labels.number(threshold),
            "good" if good else "bad",
        )

    def _liveness(self, session: VerificationSession) -> Score:
        name, value = gettext("Liveness"), session.liveness_score
        if not value and not session.plan.scores_liveness:
            return Score(name, gettext("not applicable"))
        if value is None:
            return Score(name, gettext("not known"))
        return Score(name, labels.number(value), _share(value, 1), tone="neutral")

    def _spoofing(self, session: VerificationSession) -> Score:
        name, value = gettext("Synthetic picture"), session.spoofing_score
        if not value:
            return Score(name, labels.spoofing(value))
        return Score(name, labels.spoofing(value), _share(value, 1), tone="neutral")

    @property
    def demotion(self) -> str:
        if self.session.is_demoted is None:
            return gettext("not applicable") if not self.session.plan.is_real_time else gettext("not known")
        return gettext("yes, to recorded video") if self.session.is_demoted else gettext("no")

    # --- errors ---------------------------------------------------------------------------------

    @property
    def has_error(self) -> bool:
        return bool(self.session.error_class or self.session.error_code)

    @property
    def error_class(self) -> str:
        return labels.error_class_name(self.session.error_class)

    @property
    def error_explanation(self) -> str:
        return labels.describe_error(self.session.error_class, self.session.error_code)

    # --- files ----------------------------------------------------------------------------------

    @property
    def compared(self) -> list[File]:
        """Face, ID photo and match image, side by side; with those that are not there, to say why."""
        shown = [self._first(kind) for kind in _COMPARED]
        if shown[0] is None or not shown[0].is_stored:
            # Of a failed verification there is only what its attempts have left.
            tried = [file for file in self.files if file.asset.kind == Kind.ATTEMPT_FACE and file.is_stored]
            shown[0] = tried[-1] if tried else shown[0]
        return [file for file in shown if file is not None]

    def _first(self, kind: str) -> File | None:
        return next((file for file in self.files if file.asset.kind == kind), None)

    @property
    def strip(self) -> list[File]:
        """The other pictures."""
        shown = {file.asset.pk for file in self.compared}
        return [
            file
            for file in self.files
            if file.is_stored and not file.asset.is_video and file.asset.pk not in shown
        ]

    @property
    def videos(self) -> list[File]:
        """The videos; where none is there, the one that is missing, to say why."""
        videos = [file for file in self.files if file.asset.is_video]
        return [file for file in videos if file.is_stored] or videos[:1]

    def _file(self, asset: MediaAsset) -> File:
        stored = asset.state == MediaAsset.State.STORED
        explanation = describe_absence(asset)
        overdue = asset.state == MediaAsset.State.WANTED and asset.deadline and asset.deadline <= self.now
        state = explanation if asset.is_not_kept else asset.get_state_display()
        return File(
            asset=asset,
            name=_file_name(asset),
            state=Badge(state, labels.ASSET_TONES[MediaAsset.State(asset.state)]),
            explanation="" if asset.is_not_kept else explanation,
            error="" if stored else labels.describe_asset_error(asset.error_class, asset.error_detail),
            dimensions=_dimensions(asset),
            url=self._media_url(asset) if stored and self._media_url else "",
            overdue=bool(overdue),
            thumbnail=thumbnail_url(asset) if self._media_url else "",
        )

    # --- what happened --------------------------------------------------------------------------

    @property
    def timeline(self) -> list[Event]:
        """Everything that happened, the oldest first."""
        events = [
            *self._milestones(),
            *self._call_events(),
            *self._archived_events(),
            *self._look_events(),
        ]
        return sorted(events, key=lambda event: event.at)

    def _look_events(self) -> Iterable[Event]:
        oldest_first = reversed(self.looks or [])
        for _, same in groupby(oldest_first, key=lambda look: (look[0].actor_id, look[0].action, look[1])):
            run = list(same)
            for looks in [run] if len(run) >= COLLAPSE_FROM else [[look] for look in run]:
                first, reason = looks[0]
                yield Event(
                    at=first.at,
                    text=f"{first.actor_name} · {first.get_action_display()}",
                    details=[reason] if reason else [],
                    times=len(looks),
                    until=looks[-1][0].at if len(looks) > 1 else None,
                    kind="look",
                )

    def _milestones(self) -> Iterable[Event]:
        session = self.session
        moments = [
            (session.created_at, gettext("Created"), "neutral"),
            (session.adopted_at, gettext("Adopted from another system"), "neutral"),
            (
                None if session.adopted_at else session.token_answered_at,
                gettext("Token issued"),
                "neutral",
            ),
            (session.identity_accepted_at, gettext("Identity accepted"), "neutral"),
            (session.match_image_accepted_at, gettext("Match image accepted"), "neutral"),
            (session.returned_at, gettext("Browser returned"), "neutral"),
            (session.verified_at, gettext("Verified by Baidu"), "neutral"),
            (
                session.decided_at,
                gettext("Decided: %(verdict)s") % {"verdict": session.get_verdict_display()},
                labels.STATUS_TONES[session.status],
            ),
            (session.archived_at, gettext("Archive complete"), "good"),
            (session.erased_at, gettext("Identity and evidence erased"), "neutral"),
        ]
        return [Event(at, text, tone) for at, text, tone in moments if at is not None]

    def _archived_events(self) -> Iterable[Event]:
        stored = [asset for asset in self._assets if asset.archived_at is not None]
        return [
            Event(
                asset.archived_at,
                gettext("Archived: %(file)s") % {"file": _file_name(asset)},
                "good",
            )
            for asset in stored
            if asset.archived_at is not None
        ]

    def _call_events(self) -> Iterable[Event]:
        oldest_first = reversed(self._calls)
        for _, same in groupby(oldest_first, key=lambda call: (call.endpoint, call.outcome, call.code)):
            run = list(same)
            if len(run) >= COLLAPSE_FROM:
                yield _call_event(run[0], run)
            else:
                yield from (_call_event(call, [call]) for call in run)

    @property
    def stages(self) -> list[Stage]:
        """Baidu's statistics: stage × code × count."""
        rows = []
        for stage, counts in (self.session.stat or {}).items():
            for item in counts:
                code = str(item.get("error_code", ""))
                rows.append(
                    Stage(
                        name=labels.stage_name(stage),
                        code=code,
                        explanation=labels.describe_code(code),
                        count=item.get("count", 0),
                        is_success=code == "0",
                    )
                )
        return rows

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
        """What Baidu bills the attempts as: "2 × identity verification"; "" when nothing is."""
        told = [attempt.charge for attempt in self.attempts if attempt.row.is_charged]
        counted = {name: told.count(name) for name in dict.fromkeys(told)}
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


def expected_count(assets: Iterable[MediaAsset]) -> int:
    """Files that there are or should be. Those that Baidu never gives do not count, nor those whose days have
    ended: an archive of which the video went after 30 days is no incomplete one."""
    return sum(asset.state not in (State.NOT_PROVIDED, State.ERASED) for asset in assets)


def status_badge(session: VerificationSession) -> Badge:
    """Where the session stands."""
    return Badge(str(session.status.label), labels.STATUS_TONES[session.status])


def archive_badge(session: VerificationSession) -> Badge:
    """How far the archive is."""
    state = VerificationSession.ArchiveState(session.archive_state)
    return Badge(str(state.label), labels.ARCHIVE_TONES[state])


def masked(session: VerificationSession, attribute: str) -> str:
    """``masked_name`` or ``masked_number``; says so when the row cannot be decrypted, instead of failing."""
    try:
        return str(getattr(session, attribute))
    except SealBroken:
        return gettext("cannot be decrypted")


def _yes_no(value: bool) -> str:
    return gettext("yes") if value else gettext("no")


def _opened(row: Any, attribute: str) -> Any:
    """An encrypted value, or None when it does not open; the page must work without it."""
    try:
        return getattr(row, attribute)
    except SealBroken:
        return None


def _as_it_is(value: str) -> str:
    return value


def _identity_row(
    label: str,
    kind: str,
    mask: Callable[[str], str],
    submitted: str | None,
    read: str | None,
    confirmed: str | None,
) -> IdentityRow:
    first = submitted or read
    return IdentityRow(
        label=label,
        submitted=mask(submitted or ""),
        read=mask(read or ""),
        confirmed=mask(confirmed or ""),
        read_differs=_differs(kind, submitted, read),
        confirmed_differs=_differs(kind, first, confirmed),
    )


def _differs(kind: str, one: str | None, other: str | None) -> bool:
    first, second = normalise(kind, one or ""), normalise(kind, other or "")
    # A value that upstream masked, like one that is missing, can be compared with nothing.
    return bool(first and second and first != second)


def _day(text: str) -> str:
    if len(text) == 8 and text.isascii() and text.isdigit():
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text


def _number(value: float | None) -> str:
    return "" if value is None else labels.number(value)


def _share(value: float, full: float) -> float:
    return round(min(max(value / full, 0.0), 1.0) * 100, 2)


def _asset_order(asset: MediaAsset) -> tuple[int, int, int]:
    kinds: list[str] = [*_PICTURE_ORDER, Kind.PROCESS_VIDEO, Kind.VIDEO]
    return kinds.index(asset.kind), asset.attempt_order, asset.position


def _file_name(asset: MediaAsset) -> str:
    name = asset.get_kind_display()
    if asset.kind == Kind.FRAME or asset.position:
        name = f"{name} {asset.position + 1}"
    if asset.attempt_order:
        name = gettext("%(file)s, attempt %(order)s") % {"file": name, "order": asset.attempt_order}
    return name


def _dimensions(asset: MediaAsset) -> str:
    parts = []
    if asset.width and asset.height:
        parts.append(f"{asset.width} × {asset.height}")
    if asset.duration:
        parts.append(labels.format_seconds(asset.duration))
    return " · ".join(parts)


def _call_event(first: UpstreamCall, run: list[UpstreamCall]) -> Event:
    last = run[-1]
    details = [labels.outcome_name(first.outcome)]
    if first.code:
        details.append(gettext("code %(code)s") % {"code": first.code})
    details.append(labels.format_seconds(sum(call.latency for call in run) / len(run)))
    if last.log_id:
        details.append(f"log_id {last.log_id}")
    quiet = first.outcome in (UpstreamCall.OK, "not_started")
    return Event(
        at=first.at,
        text=labels.endpoint_name(first.endpoint),
        tone="quiet" if quiet else "warn",
        details=details,
        times=len(run),
        until=last.at if len(run) > 1 else None,
        kind="call",
    )


def thumbnail_url(asset: MediaAsset) -> str:
    """The thumbnail of *asset* as a ``data:`` URL; "" when there is none. For who may see the picture."""
    content = open_thumbnail_of(asset)
    return "" if content is None else f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"


def media_url(asset: MediaAsset, *, site_name: str) -> str:
    """Where the admin gives out the content of *asset*."""
    return reverse("admin:faceprint_verificationsession_media", args=[asset.public_id], current_app=site_name)


@dataclass(frozen=True)
class Neighbours:
    """The keys of the records before and after one in its list; None at either end."""

    previous: int | None
    next: int | None


def neighbours(
    session: VerificationSession, rows: QuerySet[Any], order: Order = ORDERS[NEWEST_FIRST]
) -> Neighbours:
    """Where one gets from *session* in the list of *rows*, which need not hold it (any more).

    Two queries, each answered by an index, however long the list is.
    """
    if getattr(session, order.column) is None:
        return Neighbours(None, None)
    here = order.cursor(session)
    listed = rows.filter(order.condition).select_related(None).prefetch_related(None)

    def nearest(*, backwards: bool) -> int | None:
        found = order.sort(listed.filter(order.beyond(here, backwards=backwards)), backwards=backwards)
        return found.values_list("pk", flat=True).first()

    return Neighbours(nearest(backwards=True), nearest(backwards=False))


def neighbours_in_list(
    session: VerificationSession, visible: QuerySet[VerificationSession], address: str
) -> Neighbours:
    """The same in the list whose address had the parameters *address* (``status=failed&order=score``), as far
    as it consists of *visible* records. "" is the list of all, over all time."""
    asked = ListRequest.of(QueryDict(address))
    rows = visible.filter(asked.selection.condition) if address else visible
    return neighbours(session, rows, asked.order)


@sensitive_variables()
def answer_text(answer: UpstreamAnswer) -> str:
    """What Baidu answered, with everything personal hidden; "" when it is erased or cannot be shown so."""
    session, body = answer.session, _opened(answer, "body")
    read = {**(_opened(session, "ocr") or {}), **(_opened(session, "confirmed") or {})}
    # Dates of the card and single characters, such as the gender, stand in other words as well.
    told = [text for name, text in read.items() if not name.endswith("_time")]
    told += [_opened(session, name) for name in ("identity_name", "identity_number", "verify_token")]
    return redacted(body or "", known=[text for text in told if text and len(text) > 1]) or ""
