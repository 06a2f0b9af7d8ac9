"""The dashboard: how verifications go, drawn from roll-ups.

It shows counts and, of ID numbers that come up often, the masked form that the list shows as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import path
from django.utils.functional import Promise
from django.utils.translation import gettext, pgettext
from django.utils.translation import gettext_lazy as _

from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.models import Alert, Dashboard, Plan, VerificationSession
from django_faceprint.records import rollups, statistics

from . import labels, presentation
from .charts import VERDICT_TONES, Chart, VerdictsByTime, percent, score_chart, share
from .figures import Figure, archive_figures, storage_figures, verification_figures
from .pages import admin_url, page
from .readonly import ReadOnlyAdmin

VIEW = "faceprint.view_verificationsession"
Verdict = VerificationSession.Verdict

SPANS: dict[str, Promise] = {"24h": _("24 hours"), "7d": _("7 days"), "30d": _("30 days")}
MAX_FAILURES = 10
#: Most thresholds that are drawn into one chart.
MAX_THRESHOLDS = 3
#: Most open alerts that are counted; for more, the count reads "5+".
MAX_ALERTS = 5
#: An interface that fails more often than this, in percent, is shown in red.
MANY_ERRORS = 5

STAGES: dict[str, Promise] = {
    "ocr": _("ID card OCR"),
    "liveness": _("liveness"),
    "comparison": _("comparison with the ID photo"),
    "intention": _("intention"),
    "other": _("not specified"),
}
#: Parts of the engine: name, and the age of the last run from which on the part counts as stopped.
PARTS: dict[str, tuple[Promise, timedelta]] = {
    "tick": (_("engine"), timedelta(minutes=5)),
    "alerts": (_("alerts"), timedelta(minutes=10)),
    "rollup": (_("dashboard figures"), rollups.STALE_AFTER),
    "retain": (_("deletion of expired data"), timedelta(hours=2)),
}


@dataclass(frozen=True)
class Bar:
    """A horizontal bar; ``share`` is its length, 0 to 100."""

    label: str
    count: int
    share: float
    note: str = ""
    url: str = ""
    tone: str = "busy"


@dataclass(frozen=True)
class Interface:
    """Calls of one interface: how many, how many failed and why, and how long they took."""

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
    """What the page shows of one range, of one plan or of all.

    :param url: makes addresses: ``url(view, *arguments, model=None)``.
    :param may: whether the user has a permission of this app.
    """

    def __init__(
        self,
        span_name: str,
        plan: Plan | None,
        plans: list[Plan],
        *,
        url: Callable[..., str],
        may: Callable[[str], bool],
    ) -> None:
        self.span_name = span_name
        self.plan = plan
        self._url = url
        self._may = may
        self._moment = now()
        span = rollups.SPANS[span_name]
        self._counts = rollups.read(span, plan.pk if plan else None)
        by_time = VerdictsByTime(self._counts, span)
        self.rate_chart, self.volume_chart = by_time.rate_chart, by_time.volume_chart
        self._started = self._counts.all_of(rollups.VERDICT)
        self._failed = self._counts.of(rollups.VERDICT, Verdict.FAILED)
        self._storage = rollups.storage()
        self._beats = statistics.heartbeats()
        self.behind = rollups.hours_behind()
        alerts = Alert.objects.filter(resolved_at__isnull=True).order_by("-opened_at").select_related("rule")
        self._alerts = list(alerts[: MAX_ALERTS + 1])
        self.repeated, self.compared_all = self._repeated()
        self.most_compared = statistics.MAX_COMPARED
        drawn = {shown.applied_threshold for shown in ([plan] if plan else plans) if plan or shown.is_active}
        self._thresholds = sorted(value for value in drawn if value is not None)[:MAX_THRESHOLDS]

    # --- state --------------------------------------------------------------------------------

    @property
    def counted_at(self) -> datetime | None:
        """When all was last up to date."""
        return self._beats.get("rollup")

    @property
    def age(self) -> str:
        """The time since then, as text; "" if it never was."""
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

    # --- figures and charts -------------------------------------------------------------------

    @property
    def figures(self) -> list[Figure]:
        """The row of large numbers."""
        return [
            *verification_figures(self._counts, self.records),
            *archive_figures(self._counts, self.records),
            *storage_figures(self._counts, self._storage),
            self._alerts_figure(),
        ]

    def _alerts_figure(self) -> Figure:
        count = len(self._alerts)
        shown = f"{MAX_ALERTS}+" if count > MAX_ALERTS else str(count)
        url = self._url("changelist", model="alert") + "?resolved_at__isempty=1"
        rules = ", ".join(dict.fromkeys(str(alert.rule) for alert in self._alerts[:2]))
        tone = "bad" if count else "good"
        return Figure(gettext("Open alerts"), shown, rules, tone, url if self._may("view_alert") else "")

    @cached_property
    def score_chart(self) -> Chart | None:
        return score_chart(self._counts.counts.get(rollups.SCORE, {}), self._thresholds)

    @property
    def threshold_list(self) -> str:
        """The thresholds that are drawn."""
        return ", ".join(map(labels.number, self._thresholds))

    # --- bars ---------------------------------------------------------------------------------

    @property
    def funnel(self) -> list[Bar]:
        """From start to pass, all of the records that were created in this time."""
        passed = self._counts.of(rollups.VERDICT, Verdict.PASSED)
        passed_url = self.records(verdict=Verdict.PASSED)
        return [
            self._bar(gettext("started"), self._started, url=self.records()),
            self._bar(gettext("could be sent to the page"), self._counts.of(rollups.PREPARED)),
            self._bar(gettext("were on the page"), self._counts.of(rollups.ATTEMPTED)),
            self._bar(gettext("passed or failed"), passed + self._failed),
            self._bar(pgettext("step of the funnel", "passed"), passed, url=passed_url, tone="good"),
        ]

    @property
    def verdicts(self) -> list[Bar]:
        """The verdicts that occur."""
        return [
            self._bar(
                str(verdict.label), count, url=self.records(verdict=verdict), tone=VERDICT_TONES[verdict]
            )
            for verdict in Verdict
            if (count := self._counts.of(rollups.VERDICT, verdict))
        ]

    @property
    def failures(self) -> list[Bar]:
        """The most frequent reasons of failed verifications, explained."""
        found = self._most_common(rollups.FAILED)[:MAX_FAILURES]
        bars = []
        for key, count in found:
            error_class, _separator, code = key.partition(rollups.SEPARATOR)
            filters = {"error_code": code} if code else {"error_class": "none"}
            bars.append(
                Bar(
                    labels.describe_error(error_class, code) or gettext("No error code: below the threshold"),
                    count,
                    share(count, found[0][1]),
                    note=code,
                    url=self.records(verdict=Verdict.FAILED, **filters),
                    tone="bad",
                )
            )
        return bars

    @property
    def stages(self) -> list[Bar]:
        """In which stage failed verifications failed; one may fail in several."""
        return [
            self._bar(str(STAGES.get(stage, stage)), count, tone="bad", total=self._failed)
            for stage, count in self._most_common(rollups.STAGE)
        ]

    @property
    def archive(self) -> list[Bar]:
        """The archive states that occur."""
        return [
            self._bar(
                str(state.label),
                count,
                url=self.records(archive_state=state),
                tone=labels.ARCHIVE_TONES[state],
            )
            for state in VerificationSession.ArchiveState
            if (count := self._counts.of(rollups.ARCHIVE, state))
        ]

    @property
    def time_to_archive(self) -> str:
        """The median and 95th percentile of complete archives as a sentence; "" without any."""
        found = self._counts.counts.get(rollups.TIME_TO_ARCHIVE, {})
        slots = {int(key): count for key, count in found.items()}
        half, most = _median_and_slowest(slots, tuple(map(float, rollups.TIMES_TO_ARCHIVE)))
        if half is None or most is None:
            return ""
        return gettext("Half of them were complete %(half)s after the verification, 95%% %(most)s.") % {
            "half": _within(half),
            "most": _within(most),
        }

    def _bar(
        self, label: str, count: int, *, url: str = "", tone: str = "busy", total: int | None = None
    ) -> Bar:
        """A bar for *count* of *total* (default: all that were started)."""
        total = self._started if total is None else total
        return Bar(label, count, share(count, total), percent(count, total), url, tone)

    def _most_common(self, metric: str) -> list[tuple[str, int]]:
        return Counter(self._counts.counts.get(metric, {})).most_common()

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
        url = self._url("changelist", model="upstreamcall") if self._may("view_upstreamcall") else ""
        found = []
        for endpoint, outcomes in calls.items():
            bad = Counter({name: outcomes[name] for name in outcomes if name in statistics.UPSTREAM_FAILURES})
            half, most = _median_and_slowest(slots[endpoint], rollups.LATENCIES)
            found.append(
                Interface(
                    name=labels.endpoint_name(endpoint),
                    calls=outcomes.total(),
                    failed=bad.total(),
                    percent=share(bad.total(), outcomes.total()),
                    reason=labels.outcome_name(bad.most_common(1)[0][0]) if bad else "",
                    median=_seconds(half),
                    slowest=_seconds(most),
                    url=url and f"{url}?{urlencode({'endpoint__exact': endpoint})}",
                )
            )
        return sorted(found, key=lambda item: (-item.percent, -item.calls, item.name))

    @property
    def parts(self) -> list[Part]:
        """The parts of the engine that should have run a short time ago."""
        found = [(str(name), self._beats.get(key), age) for key, (name, age) in PARTS.items()]
        return [Part(name, at, at is None or self._moment - at > age) for name, at, age in found]

    def _repeated(self) -> tuple[list[Person], bool]:
        """ID numbers of several records, and whether all records were compared."""
        plan = self.plan.pk if self.plan else None
        found, compared_all = statistics.most_repeated(self._counts.since, plan=plan)
        persons = [
            Person(
                number=presentation.masked(item.session, "masked_number"),
                count=item.count,
                at=item.session.created_at,
                url=self._url("change", item.session.pk, model="verificationsession"),
            )
            for item in found
        ]
        return persons, compared_all

    def records(self, **filters: Any) -> str:
        """The address of the list with *filters*; by default, of this range and this plan."""
        plan = {"plan": self.plan.pk} if self.plan else {}
        parameters = urlencode({"created": self.span_name, **filters, **plan})
        return f"{self._url('changelist', model='verificationsession')}?{parameters}"


@admin.register(Dashboard)
class DashboardAdmin(ReadOnlyAdmin):
    """One page in the place of a list, for users who may view records."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(VIEW)

    def get_urls(self) -> list[Any]:
        wrap = self.admin_site.admin_view
        return [path("", wrap(self.dashboard_view), name="faceprint_dashboard_changelist")]

    def dashboard_view(self, request: HttpRequest) -> HttpResponse:
        """The page; with status 503 and without figures when the database fails."""
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
            # In a transaction of its own, so that a failure spoils none of the host's.
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

        def may(permission: str) -> bool:
            return request.user.has_perm(f"faceprint.{permission}")

        return {"page": Page(span_name, plan, plans, url=partial(admin_url, self), may=may), "plans": plans}


def _median_and_slowest(slots: dict[int, int], ends: tuple[float, ...]) -> list[float | None]:
    """The median and the 95th percentile."""
    return [rollups.percentile(slots, ends, rank) for rank in (0.5, 0.95)]


def _seconds(value: float | None) -> str:
    if value is None:
        return labels.EMPTY
    if math.isinf(value):
        return f"> {labels.format_seconds(rollups.LATENCIES[-1])}"
    return f"≤ {labels.format_seconds(value)}"


def _within(seconds: float) -> str:
    if math.isinf(seconds):
        longest = timedelta(seconds=rollups.TIMES_TO_ARCHIVE[-1])
        return gettext("more than %(time)s") % {"time": labels.duration(longest)}
    return gettext("at most %(time)s") % {"time": labels.duration(timedelta(seconds=seconds))}
