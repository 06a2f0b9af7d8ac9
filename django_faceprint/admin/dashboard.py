"""The dashboard: how verifications go, drawn from roll-ups.

A page for whoever may read records: it shows counts and, of ID numbers that come up often, the masked form
that the list shows as well. Charts are drawn here, as SVG without a word of text in it, so that they fit any
width; behind each stands a table.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.defaultfilters import filesizeformat
from django.urls import path, reverse
from django.utils.formats import date_format, number_format
from django.utils.functional import Promise
from django.utils.timezone import localtime
from django.utils.translation import gettext, ngettext, pgettext
from django.utils.translation import gettext_lazy as _

from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.models import Alert, Dashboard, Plan, UpstreamCall, VerificationSession
from django_faceprint.records import rollups, statistics

from . import labels, record
from .pages import page
from .readonly import ReadOnlyAdmin

VIEW = "faceprint.view_verificationsession"
Verdict = VerificationSession.Verdict
ArchiveState = VerificationSession.ArchiveState

SPANS: dict[str, Promise] = {"24h": _("24 hours"), "7d": _("7 days"), "30d": _("30 days")}
MAX_FAILURES = 10
#: Thresholds that are drawn into one chart at most.
MAX_THRESHOLDS = 3
#: An interface that fails more often than this, in percent, is shown in red.
MANY_ERRORS = 5

STAGES: dict[str, Promise] = {
    "ocr": _("ID card OCR"),
    "liveness": _("liveness"),
    "comparison": _("comparison with the ID photo"),
    "intention": _("intention"),
    "other": _("not told"),
}
#: Parts of the engine, what they are called, and from which age on they are taken to stand still.
PARTS: dict[str, tuple[Promise, timedelta]] = {
    "tick": (_("engine"), timedelta(minutes=5)),
    "alerts": (_("alerts"), timedelta(minutes=10)),
    "rollup": (_("figures of this page"), rollups.STALE_AFTER),
    "retain": (_("deletion of what is past its retention"), timedelta(hours=2)),
}
_TONES = {
    Verdict.PASSED: "good",
    Verdict.FAILED: "bad",
    Verdict.EXPIRED: "quiet",
    Verdict.UNKNOWN: "warn",
    Verdict.PENDING: "busy",
}


@dataclass(frozen=True)
class Figure:
    """One number in large type; ``url`` leads to the records behind it, "" where there is no such list."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    url: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar that lies; ``share`` is its length, 0 to 100."""

    label: str
    count: int
    share: float
    note: str = ""
    url: str = ""
    tone: str = "busy"


@dataclass(frozen=True)
class Shape:
    """A rectangle of a chart that is 100 high."""

    x: float
    y: float
    width: float
    height: float
    tone: str


@dataclass(frozen=True)
class Chart:
    """Shapes, marks below them, and the same as a table."""

    title: str
    description: str
    width: float
    shapes: list[Shape]
    marks: list[str]
    head: list[str]
    rows: list[list[str]]
    top: str = ""
    lines: list[float] = field(default_factory=list)
    #: What the colours mean, with their tones.
    legend: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Interface:
    """How calls of one interface went."""

    name: str
    calls: int
    failed: int
    percent: float
    reason: str
    median: str
    slowest: str
    url: str

    @property
    def is_bad(self) -> bool:
        return self.percent > MANY_ERRORS


@dataclass(frozen=True)
class Part:
    """One part of the engine and when it last ran."""

    name: str
    at: datetime | None
    stands_still: bool


@dataclass(frozen=True)
class Person:
    """An ID number of several records, masked, and the newest of them."""

    number: str
    count: int
    at: datetime
    url: str


class Page:
    """What the page shows of one range, of one plan or of all."""

    def __init__(
        self, span_name: str, plan: Plan | None, plans: list[Plan], *, url: Callable[..., str], user: Any
    ) -> None:
        self.span_name = span_name
        self.span = rollups.SPANS[span_name]
        self.plan = plan
        self._plans = plans
        self._url = url
        self._user = user
        self._moment = now()
        self._counts = rollups.read(self.span, plan.pk if plan else None)
        self._storage = rollups.storage()
        self._beats = statistics.heartbeats()
        self.behind = rollups.hours_behind()
        alerts = Alert.objects.filter(resolved_at__isnull=True).order_by("-opened_at").select_related("rule")
        self.alerts = list(alerts[:6])
        self.repeated, self.compared_all = self._repeated()
        self.most_compared = statistics.MAX_COMPARED

    # --- state --------------------------------------------------------------------------------

    @property
    def counted_at(self) -> datetime | None:
        """When all was last up to date."""
        return self._beats.get("rollup")

    @property
    def age(self) -> str:
        """How long that is ago, in words; "" if it never was."""
        return labels.duration(self._moment - self.counted_at) if self.counted_at else ""

    @property
    def was_never_counted(self) -> bool:
        return self.counted_at is None and not self._counts.counts

    @property
    def is_stale(self) -> bool:
        """The figures are older than they should be, or not all of them are counted yet."""
        at = self.counted_at
        return self.behind > 0 or at is None or self._moment - at > rollups.STALE_AFTER

    @property
    def is_empty(self) -> bool:
        """No verification was started in this time."""
        return not self._started

    # --- sums ---------------------------------------------------------------------------------

    @cached_property
    def _started(self) -> int:
        return self._counts.all_of(rollups.VERDICT)

    @cached_property
    def _passed(self) -> int:
        return self._counts.of(rollups.VERDICT, Verdict.PASSED)

    @cached_property
    def _failed(self) -> int:
        return self._counts.of(rollups.VERDICT, Verdict.FAILED)

    def _archived(self, state: str) -> int:
        return self._counts.of(rollups.ARCHIVE, state)

    @property
    def _lost(self) -> int:
        return self._archived(ArchiveState.LOST) + self._archived(ArchiveState.PARTIAL)

    def _stock(self, metric: str, key: str) -> int:
        return self._counts.stock.get(metric, {}).get(key, 0)

    # --- figures ------------------------------------------------------------------------------

    @property
    def figures(self) -> list[Figure]:
        """The row of large numbers."""
        finished = self._passed + self._failed
        rate = _percent(self._passed, finished)
        return [
            Figure(gettext("Started"), _number(self._started), self._pending_note(), url=self.records()),
            Figure(
                gettext("Pass rate"),
                rate or "–",
                gettext("%(passed)s of %(finished)s who finished")
                % {"passed": _number(self._passed), "finished": _number(finished)},
                url=self.records(verdict=Verdict.PASSED),
            ),
            Figure(
                gettext("Demoted to recorded video"),
                _number(self._counts.of(rollups.DEMOTED)),
                _percent(self._counts.of(rollups.DEMOTED), finished),
                url=self.records(is_demoted="1"),
            ),
            *self._archive_figures(),
            self._storage_figure(),
            self._retention_figure(),
            self._alerts_figure(),
        ]

    def _pending_note(self) -> str:
        pending = self._counts.of(rollups.VERDICT, Verdict.PENDING)
        text = ngettext("%(count)s is pending", "%(count)s are pending", pending)
        return text % {"count": _number(pending)}

    def _archive_figures(self) -> list[Figure]:
        complete, late = self._archived(ArchiveState.COMPLETE), self._counts.of(rollups.LATE)
        known = complete + self._lost
        spare = timedelta(seconds=self._stock(rollups.OUTLOOK, "tolerable_outage"))
        files = self._stock(rollups.OUTLOOK, "files")
        risky = self._stock(rollups.OUTLOOK, "at_risk")
        has_stock = self._counts.stock_hour is not None
        on_time = complete - late
        return [
            Figure(
                gettext("Backlog"),
                _number(files) if has_stock else "–",
                ngettext(
                    "file to archive; %(risky)s records near their deadline",
                    "files to archive; %(risky)s records near their deadline",
                    files,
                )
                % {"risky": _number(risky)},
                tone="bad" if risky else "",
                url=self._list(created="all", archive_state=ArchiveState.COLLECTING),
            ),
            Figure(
                gettext("Until the first loss"),
                labels.duration(spare) if has_stock else "–",
                gettext("if all workers stopped now"),
                tone="bad" if has_stock and spare < labels.URGENT else "",
                url=self._list(created="all", left="6h"),
            ),
            Figure(
                gettext("Archived in time"),
                _percent(on_time, known) or "–",
                gettext("%(count)s of %(total)s") % {"count": _number(on_time), "total": _number(known)},
                tone="warn" if late or self._lost else "",
                url=self.records(archive_state=ArchiveState.COMPLETE),
            ),
            Figure(
                gettext("Not archived in time"),
                _number(self._lost),
                gettext("%(count)s of them in part")
                % {"count": _number(self._archived(ArchiveState.PARTIAL))},
                tone="bad" if self._lost else "good",
                url=self.records(
                    archive_state=ArchiveState.LOST
                    if self._archived(ArchiveState.LOST) or not self._lost
                    else ArchiveState.PARTIAL
                ),
            ),
        ]

    def _storage_figure(self) -> Figure:
        files = self._storage.files
        text = ngettext("%(count)s file", "%(count)s files", files) % {"count": _number(files)}
        return Figure(gettext("Storage used"), filesizeformat(self._storage.bytes), text)

    def _retention_figure(self) -> Figure:
        due, overdue = (self._stock(rollups.RETENTION, key) for key in ("due", "overdue"))
        more = "+" if due > rollups.MAX_DUE else ""
        return Figure(
            gettext("Deleted in the next 7 days"),
            f"{_number(min(due, rollups.MAX_DUE))}{more}",
            gettext("overdue: %(count)s") % {"count": _number(overdue)},
            tone="bad" if overdue else "",
        )

    def _alerts_figure(self) -> Figure:
        count = len(self.alerts)
        shown = f"{count - 1}+" if count > 5 else str(count)
        may = self._user.has_perm("faceprint.view_alert")
        url = f"{self._url('alert')}?resolved_at__isempty=1" if may else ""
        rules = ", ".join(dict.fromkeys(str(alert.rule) for alert in self.alerts[:2]))
        return Figure(gettext("Open alerts"), shown, rules, tone="bad" if count else "good", url=url)

    # --- bars ---------------------------------------------------------------------------------

    @property
    def funnel(self) -> list[Bar]:
        """From start to pass, all of the records that were created in this time."""
        steps = [
            (gettext("started"), self._started, "busy", self.records()),
            (gettext("could be sent to the page"), self._counts.of(rollups.PREPARED), "busy", ""),
            (gettext("were on the page"), self._counts.of(rollups.ATTEMPTED), "busy", ""),
            (gettext("passed or failed"), self._passed + self._failed, "busy", ""),
            (
                pgettext("step of the funnel", "passed"),
                self._passed,
                "good",
                self.records(verdict=Verdict.PASSED),
            ),
        ]
        return [
            Bar(name, count, _share(count, self._started), _percent(count, self._started), url, tone)
            for name, count, tone, url in steps
        ]

    @property
    def verdicts(self) -> list[Bar]:
        """How many of each verdict."""
        return [
            Bar(
                str(verdict.label),
                count,
                _share(count, self._started),
                _percent(count, self._started),
                self.records(verdict=verdict),
                _TONES[verdict],
            )
            for verdict in Verdict
            if (count := self._counts.of(rollups.VERDICT, verdict))
        ]

    @property
    def failures(self) -> list[Bar]:
        """The most frequent reasons of failed verifications, in words."""
        found = Counter(self._counts.counts.get(rollups.FAILED, {})).most_common(MAX_FAILURES)
        return [
            Bar(
                label=labels.describe_error(*parts) or gettext("No code of Baidu's: below the threshold"),
                count=count,
                share=_share(count, found[0][1]),
                note=parts[1],
                url=self.records(
                    verdict=Verdict.FAILED,
                    **({"error_code": parts[1]} if parts[1] else {"error_class": "none"}),
                ),
                tone="bad",
            )
            for key, count in found
            for parts in [_pair(key)]
        ]

    @property
    def stages(self) -> list[Bar]:
        """In which stage failed verifications failed; one may fail in several."""
        found = Counter(self._counts.counts.get(rollups.STAGE, {})).most_common()
        return [
            Bar(
                str(STAGES.get(stage, stage)),
                count,
                _share(count, self._failed),
                _percent(count, self._failed),
                tone="bad",
            )
            for stage, count in found
        ]

    @property
    def archive(self) -> list[Bar]:
        """How many records are in each state of archiving."""
        return [
            Bar(
                str(state.label),
                count,
                _share(count, self._started),
                _percent(count, self._started),
                self.records(archive_state=state),
                labels.ARCHIVE_TONES[state],
            )
            for state in ArchiveState
            if (count := self._archived(state))
        ]

    @property
    def time_to_archive(self) -> str:
        """How long half and 95 % of all complete archives took, in words; "" without any."""
        found = self._counts.counts.get(rollups.TIME_TO_ARCHIVE, {})
        slots = {int(key): count for key, count in found.items()}
        ends = tuple(map(float, rollups.TIMES_TO_ARCHIVE))
        half, most = (rollups.percentile(slots, ends, share) for share in (0.5, 0.95))
        if half is None or most is None:
            return ""
        return gettext("Half of them were complete %(half)s after the verification, 95%% %(most)s.") % {
            "half": _within(half, ends),
            "most": _within(most, ends),
        }

    # --- charts -------------------------------------------------------------------------------

    @cached_property
    def _steps(self) -> list[tuple[datetime, Counter[str]]]:
        """The verdicts of each step of the range, by its beginning in the reader's time zone."""
        found: dict[datetime, Counter[str]] = {}
        for number in range(self.span.hours):
            hour = self._counts.since + number * rollups.HOUR
            begin = localtime(hour)
            if self.span.step > 1:
                begin = begin.replace(hour=begin.hour // self.span.step * self.span.step, minute=0)
            found.setdefault(begin, Counter()).update(self._counts.verdicts.get(hour, {}))
        return list(found.items())

    @property
    def rate_chart(self) -> Chart:
        """Passed of passed and failed, step by step; a step in which nobody finished has no mark."""
        shapes, rows = [], []
        for place, (begin, found) in enumerate(self._steps):
            passed, failed = found[Verdict.PASSED], found[Verdict.FAILED]
            if passed + failed:
                height = _share(passed, passed + failed)
                shapes.append(Shape(place + 0.1, 98 - 0.96 * height, 0.8, 2.6, "mark"))
                shapes.append(Shape(place + 0.1, 100 - 0.96 * height, 0.8, 0.96 * height, "area"))
            rows.append(
                [
                    self._time(begin),
                    _percent(passed, passed + failed) or "–",
                    _number(passed),
                    _number(failed),
                ]
            )
        return Chart(
            title=gettext("Pass rate"),
            description=gettext("Of those who finished, by the time at which the verification was started."),
            width=len(self._steps),
            shapes=shapes,
            marks=self._marks(),
            top="100 %",
            head=[
                gettext("Time"),
                gettext("Pass rate"),
                str(Verdict.PASSED.label),
                str(Verdict.FAILED.label),
            ],
            rows=rows,
        )

    @property
    def volume_chart(self) -> Chart:
        """Started verifications by verdict, step by step."""
        most = max((sum(found.values()) for _begin, found in self._steps), default=0)
        shapes, rows = [], []
        for place, (begin, found) in enumerate(self._steps):
            shapes += _stack(place, [(found[verdict], _TONES[verdict]) for verdict in _STACKED], most)
            rows.append([self._time(begin), *(_number(found[verdict]) for verdict in _STACKED)])
        return Chart(
            title=gettext("Verifications"),
            description=gettext("Started verifications by what became of them."),
            width=len(self._steps),
            shapes=shapes,
            marks=self._marks(),
            top=_number(most),
            head=[gettext("Time"), *(str(verdict.label) for verdict in _STACKED)],
            rows=rows,
            legend=[(str(verdict.label), _TONES[verdict]) for verdict in _STACKED],
        )

    @property
    def score_chart(self) -> Chart | None:
        """Similarity in steps of five, with the thresholds; None where nothing was compared."""
        found = self._counts.counts.get(rollups.SCORE, {})
        if not found:
            return None
        columns = [Counter[str]() for _ in range(rollups.SCORE_BUCKETS)]
        for key, count in found.items():
            verdict, place = _pair(key)
            columns[int(place)][verdict] += count
        most = max(column.total() for column in columns)
        shapes, rows = [], []
        step = 100 // rollups.SCORE_BUCKETS
        for number, column in enumerate(columns):
            parts = [(column[verdict], _TONES[verdict]) for verdict in (Verdict.PASSED, Verdict.FAILED)]
            shapes += _stack(number, parts, most)
            rows.append(
                [f"{number * step}–{(number + 1) * step}", *(_number(count) for count, _tone in parts)]
            )
        return Chart(
            title=gettext("Similarity scores"),
            description=gettext("Scores in steps of five; the line is the threshold of the plan."),
            width=len(columns),
            shapes=shapes,
            marks=["0", "20", "40", "60", "80", "100"],
            top=_number(most),
            head=[gettext("Score"), str(Verdict.PASSED.label), str(Verdict.FAILED.label)],
            rows=rows,
            lines=[threshold / step for threshold in self._thresholds],
            legend=[(str(verdict.label), _TONES[verdict]) for verdict in (Verdict.PASSED, Verdict.FAILED)],
        )

    @property
    def threshold_list(self) -> str:
        """The thresholds that are drawn."""
        return ", ".join(labels.number(threshold) for threshold in self._thresholds)

    @cached_property
    def _thresholds(self) -> list[float]:
        plans = [self.plan] if self.plan else [plan for plan in self._plans if plan.is_active]
        found = {plan.applied_threshold for plan in plans} - {None}
        return sorted(threshold for threshold in found if threshold is not None)[:MAX_THRESHOLDS]

    def _time(self, begin: datetime) -> str:
        return date_format(begin, "Y-m-d" if self.span.step == 24 else "m-d H:i")

    def _marks(self) -> list[str]:
        """Some times to write below a chart, evenly spread."""
        begins = [begin for begin, _found in self._steps]
        last = len(begins) - 1
        shown = [begins[round(place * last / 4)] for place in range(5)]
        return [date_format(begin, "H:i" if self.span.step == 1 else "m-d") for begin in shown]

    # --- tables -------------------------------------------------------------------------------

    @property
    def interfaces(self) -> list[Interface]:
        """Calls to Baidu by interface, those that fail most first."""
        calls: dict[str, Counter[str]] = {}
        slots: dict[str, Counter[int]] = {}
        for key, count in self._counts.counts.get(rollups.CALL, {}).items():
            endpoint, outcome, slot = key.split(rollups.SEPARATOR)
            calls.setdefault(endpoint, Counter())[outcome] += count
            slots.setdefault(endpoint, Counter())[int(slot)] += count
        may = self._user.has_perm("faceprint.view_upstreamcall")
        found = []
        for endpoint, outcomes in calls.items():
            bad = Counter(
                {name: count for name, count in outcomes.items() if name in statistics.UPSTREAM_FAILURES}
            )
            half, most = (
                rollups.percentile(slots[endpoint], rollups.LATENCIES, share) for share in (0.5, 0.95)
            )
            query = urlencode({"endpoint__exact": endpoint})
            found.append(
                Interface(
                    name=labels.endpoint_name(endpoint),
                    calls=outcomes.total(),
                    failed=bad.total(),
                    percent=_share(bad.total(), outcomes.total()),
                    reason=labels.outcome_name(bad.most_common(1)[0][0]) if bad else "",
                    median=_seconds(half),
                    slowest=_seconds(most),
                    url=f"{self._url(UpstreamCall._meta.model_name)}?{query}" if may else "",
                )
            )
        return sorted(found, key=lambda item: (-item.percent, -item.calls, item.name))

    @property
    def parts(self) -> list[Part]:
        """The parts of the engine that should have run a short time ago."""
        return [
            Part(
                str(name),
                self._beats.get(key),
                key not in self._beats or self._moment - self._beats[key] > age,
            )
            for key, (name, age) in PARTS.items()
        ]

    def _repeated(self) -> tuple[list[Person], bool]:
        plan = self.plan.pk if self.plan else None
        found, compared_all = statistics.most_repeated(self._counts.since, plan=plan)
        persons = [
            Person(
                number=record.masked(item.session, "masked_number"),
                count=item.count,
                at=item.session.created_at,
                url=self._url("verificationsession", "change", item.session.pk),
            )
            for item in found
        ]
        return persons, compared_all

    # --- links --------------------------------------------------------------------------------

    def records(self, **filters: Any) -> str:
        """The list of the records of this range, and of this plan, for which *filters* hold."""
        return self._list(created=self.span_name, **filters)

    def _list(self, **filters: Any) -> str:
        if self.plan:
            filters["plan"] = self.plan.pk
        return f"{self._url('verificationsession')}?{urlencode(filters)}"


_STACKED = (Verdict.PASSED, Verdict.FAILED, Verdict.EXPIRED, Verdict.UNKNOWN, Verdict.PENDING)


@admin.register(Dashboard)
class DashboardAdmin(ReadOnlyAdmin):
    """One page in the place of a list."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Who may read records."""
        return request.user.has_perm(VIEW)

    def get_urls(self) -> list[Any]:
        wrap = self.admin_site.admin_view
        return [path("", wrap(self.dashboard_view), name="faceprint_dashboard_changelist")]

    def dashboard_view(self, request: HttpRequest) -> HttpResponse:
        """The page; what the database does not give is said, not guessed."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        context: dict[str, Any] = {
            "title": _("Dashboard"),
            "subtitle": None,
            "records_opts": VerificationSession._meta,
            "is_sandbox": conf.environment == "sandbox",
            "spans": SPANS,
        }
        status = 200
        try:
            # Of its own, so that a failure spoils no transaction of the host's.
            with transaction.atomic():
                context |= self._contents(request)
        except DatabaseError:
            status = 503
        return page(request, self, "dashboard/page.html", context, status=status)

    def _contents(self, request: HttpRequest) -> dict[str, Any]:
        plans = list(Plan.objects.order_by("plan_id"))
        wanted = request.GET.get("plan", "")
        plan = next((plan for plan in plans if str(plan.pk) == wanted), None)
        name = request.GET.get("range", "")
        span_name = name if name in SPANS else next(iter(SPANS))
        page = Page(span_name, plan, plans, url=self._address_of, user=request.user)
        return {"page": page, "plans": plans}

    def _address_of(self, model: str, view: str = "changelist", *arguments: Any) -> str:
        name = f"admin:faceprint_{model}_{view}"
        return reverse(name, args=arguments, current_app=self.admin_site.name)


# --- drawing and writing --------------------------------------------------------------------------


def _stack(place: int, parts: Iterable[tuple[int, str]], most: int) -> list[Shape]:
    """A column of parts that stand on each other, the first at the bottom."""
    shapes: list[Shape] = []
    top = 100.0
    for count, tone in parts:
        if count:
            height = 96 * count / most
            top -= height
            shapes.append(Shape(place + 0.12, round(top, 3), 0.76, round(height, 3), tone))
    return shapes


def _pair(key: str) -> tuple[str, str]:
    first, _separator, second = key.partition(rollups.SEPARATOR)
    return first, second


def _share(count: int, total: int) -> float:
    return round(100 * count / total, 2) if total else 0.0


def _percent(count: int, total: int) -> str:
    """A share in words, "" of nothing; 100 % is all of them and 0 % none."""
    if not total:
        return ""
    percent = 100 * count / total
    if 0 < count < total:
        percent = min(max(percent, 0.1), 99.9)
    return f"{labels.number(round(percent, 1))} %"


def _number(value: int) -> str:
    return number_format(value, use_l10n=True, force_grouping=True)


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if math.isinf(value):
        return f"> {labels.format_seconds(rollups.LATENCIES[-1])}"
    return f"≤ {labels.format_seconds(value)}"


def _within(value: float, ends: tuple[float, ...]) -> str:
    if math.isinf(value):
        return gettext("more than %(time)s") % {"time": labels.duration(timedelta(seconds=ends[-1]))}
    return gettext("at most %(time)s") % {"time": labels.duration(timedelta(seconds=value))}
