"""Counting by the hour, so that no chart reads the tables of sessions and calls.

A session counts in the hour in which it was created. Its later changes change that hour's counts: an
hour is counted as a whole each time, so that nothing counts twice and counting again changes nothing. Hours
in which the engine still has work are counted again, young ones in every run, older ones the less often the
older they are; an hour without work is settled. Nothing else can change it, save :func:`recount`.

So a run reads the sessions of a few hours by the index on ``created_at``, however many there are, and after a
standstill it finds the same hours due, besides those that went by.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import (
    Case,
    Count,
    F,
    FloatField,
    IntegerField,
    Max,
    Min,
    Q,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Coalesce, Floor, Least

from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.evidence.retention_rules import CALLS_KEPT
from django_faceprint.models import (
    MediaAsset,
    Plan,
    Rollup,
    RollupHour,
    StorageBlock,
    UpstreamCall,
    VerificationSession,
)
from django_faceprint.models.session import HAS_WORK, IS_PREPARED

from . import statistics
from .at_risk import RISK_WINDOW
from .forecast import forecast

Verdict = VerificationSession.Verdict
ArchiveState = VerificationSession.ArchiveState

HOUR = timedelta(hours=1)
#: How often ``faceprint.rollup`` runs; figures older than three times this are called stale.
PERIOD = timedelta(minutes=5)
STALE_AFTER = 3 * PERIOD
#: Hours up to this age are counted in every run: all that a person does falls into them.
YOUNG = timedelta(hours=4)
#: An older hour with work left is counted again after this part of its age.
AGE_PART = 24
#: How long after its end calls of an hour may still be written.
CALLS_LATE = timedelta(minutes=15)
#: How long a worker holds the hour that it counts.
CLAIM = timedelta(minutes=5)
#: Hours older than this are forgotten.
KEPT = timedelta(days=400)
FORGOTTEN_PER_RUN = 48
#: A run that takes longer leaves the rest to the next.
BUDGET = timedelta(seconds=90)

#: Rows of files whose sizes are summed together, and how many such blocks are recounted in one run.
BLOCK = 10_000
BLOCKS_PER_RUN = 20
#: Records that are counted as due at most.
MAX_DUE = 100_000
DUE_WITHIN = timedelta(days=7)

# The metrics. All but the last three follow from the sessions of an hour.
VERDICT, PREPARED, ATTEMPTED, ARCHIVE, DEMOTED = "verdict", "prepared", "attempted", "archive", "demoted"
FAILED, STAGE, SCORE, LATE, TIME_TO_ARCHIVE = "failed", "stage", "score", "late", "time_to_archive"
CALL, OUTLOOK, RETENTION = "call", "forecast", "retention"
SESSION_METRICS = (
    *(VERDICT, PREPARED, ATTEMPTED, ARCHIVE, DEMOTED, FAILED, STAGE, SCORE, LATE, TIME_TO_ARCHIVE),
)
#: Separates the parts of a key.
SEPARATOR = "|"

SCORE_BUCKETS = 20
#: Upper ends of the buckets, in seconds; the last one has none.
LATENCIES = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TIMES_TO_ARCHIVE = (10, 60, 300, 900, 3600, 6 * 3600, 24 * 3600)

#: The stage of a verification that each of Baidu's internal services belongs to (result/stat).
STAGES = {
    "OCR": "ocr",
    "VideoLiveness": "liveness",
    "Livenesscolorful": "liveness",
    "Sessioncode": "liveness",
    "Verify_FIN": "comparison",
    "verify": "comparison",
    "VerifySec": "comparison",
    "will_verify": "intention",
    "multi_will_verify": "intention",
}
_COMPARISON_CODES = frozenset({"222350", "222351", "222354", "222355", "222360"})
_LIVENESS_CODES = frozenset(
    {
        *("216500", "216510", "222202", "222203", "222304", "222356", "223114", "223120"),
        *("223122", "223123", "223124", "223125", "223126", "223127", "223131"),
    }
)
_SUCCESS = frozenset({"", "0"})

#: Environment, plan, metric and key.
Key = tuple[str, int, str, str]
Figures = dict[Key, tuple[int, float]]


@dataclass
class RollupReport:
    """Counts of one run: hours counted and blocks of files summed; ``left`` hours were not reached."""

    hours: int = 0
    blocks: int = 0
    left: int = 0


def roll_up(*, budget: timedelta = BUDGET, monotonic: Callable[[], float] = time.monotonic) -> RollupReport:
    """Count the hours that are due. Safe to run at any time, twice, and at once with another run.

    After a standstill several runs may be needed: hours that a run does not reach in its *budget* stay due.
    The heartbeat ``rollup`` is the last time at which everything was up to date.
    """
    moment = now()
    report = RollupReport()
    _open_hours(moment)
    report.left = _count_due(moment, report, budget, monotonic)
    report.blocks = _sum_storage(moment)
    _take_stock(moment)
    _forget(moment)
    if not report.left:
        statistics.record_heartbeat("rollup")
    return report


def rebuild(progress: Callable[[int, int], None] | None = None) -> int:
    """Count all hours there are anew, one at a time; returns how many. Can be broken off and run again.

    For rows that were written directly, as by an import. The counts of calls that are no longer kept
    stay. *progress* receives the hours done and all hours.
    """
    recount_all()
    moment = now()
    hours = list(RollupHour.objects.order_by("-hour"))
    for done, row in enumerate(hours, start=1):
        _count(row, moment)
        if progress is not None:
            progress(done, len(hours))
    while _sum_storage(moment):
        pass
    return len(hours)


def recount_all() -> None:
    """Let the next runs of :func:`roll_up` count all hours anew, the newest first.

    For rows that were written or deleted directly. :func:`rebuild` does it at once.
    """
    moment = now()
    _make_hours(_first_hour(moment), moment)
    # Also those before the first row that is there now.
    RollupHour.objects.update(due_at=moment, calls_counted=False)
    StorageBlock.objects.all().delete()


def recount(session: VerificationSession) -> None:
    """*session* has changed after its hour was settled: count that hour again."""
    RollupHour.objects.filter(hour=floor_hour(session.created_at)).update(due_at=now())


def floor_hour(moment: datetime) -> datetime:
    """The full hour, UTC, in which *moment* lies."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


# --- which hours ----------------------------------------------------------------------------------


def _open_hours(moment: datetime) -> None:
    newest = RollupHour.objects.order_by("-hour").values_list("hour", flat=True).first()
    _make_hours(_first_hour(moment) if newest is None else newest + HOUR, moment)


def _first_hour(moment: datetime) -> datetime:
    """The hour of the first session or call, as far back as hours are kept."""
    firsts = (
        VerificationSession.objects.order_by("created_at").values_list("created_at", flat=True).first(),
        UpstreamCall.objects.order_by("at").values_list("at", flat=True).first(),
    )
    return floor_hour(max(min((first for first in firsts if first), default=moment), moment - KEPT))


def _make_hours(first: datetime, moment: datetime) -> None:
    first = max(first, floor_hour(moment - KEPT))
    count = int((floor_hour(moment) - first) / HOUR) + 1
    rows = (RollupHour(hour=first + number * HOUR, due_at=moment) for number in range(count))
    RollupHour.objects.bulk_create(rows, batch_size=1_000, ignore_conflicts=True)


def _count_due(
    moment: datetime, report: RollupReport, budget: timedelta, monotonic: Callable[[], float]
) -> int:
    """Count the hours that are due, the newest first; returns how many were left for want of time."""
    until = monotonic() + budget.total_seconds()
    due = list(RollupHour.objects.filter(due_at__lte=moment).order_by("-hour"))
    for done, row in enumerate(due):
        if monotonic() >= until:
            return len(due) - done
        report.hours += _count(row, moment)
    return 0


def _next_time(row: RollupHour, moment: datetime, outstanding: int) -> datetime | None:
    age = moment - row.hour
    # A little less than the period, so that each run finds what is due by then.
    soon = moment + PERIOD * 0.8
    if age < YOUNG:
        return soon
    return max(soon, moment + age / AGE_PART) if outstanding else None


def _count(row: RollupHour, moment: datetime) -> bool:
    """Count one hour, unless another worker does; returns whether it was counted."""
    claimed = moment + CLAIM
    ours = RollupHour.objects.filter(pk=row.pk)
    if not ours.filter(due_at=row.due_at).update(due_at=claimed):
        return False
    figures, outstanding = _sessions_of(row.hour)
    metrics = [*SESSION_METRICS]
    # An hour that retention has begun to take away would seem to have had fewer calls.
    if not row.calls_counted and row.hour >= moment - CALLS_KEPT:
        metrics.append(CALL)
        figures |= _calls_of(row.hour)
    with transaction.atomic():
        is_ours = ours.filter(due_at=claimed).update(
            due_at=_next_time(row, moment, outstanding),
            calls_counted=row.calls_counted or moment >= row.hour + HOUR + CALLS_LATE,
        )
        if is_ours:
            _write(row.hour, metrics, figures)
    return bool(is_ours)


def _write(hour: datetime, metrics: Iterable[str], figures: Figures) -> None:
    """Write *figures* to the rows of *hour* and *metrics*; most of them hold them already."""
    stored = Rollup.objects.filter(
        environment__in=VerificationSession.Environment.values, hour=hour, metric__in=metrics
    )
    gone, changed = [], []
    fresh = dict(figures)
    for row in stored:
        figure = fresh.pop((row.environment, row.plan, row.metric, row.key), None)
        if figure is None:
            gone.append(row.pk)
        elif (row.count, row.total) != figure:
            row.count, row.total = figure
            changed.append(row)
    Rollup.objects.filter(pk__in=gone).delete()
    Rollup.objects.bulk_update(changed, ["count", "total"], batch_size=200)
    Rollup.objects.bulk_create(
        (
            Rollup(
                hour=hour,
                environment=environment,
                plan=plan,
                metric=metric,
                key=key,
                count=count,
                total=total,
            )
            for (environment, plan, metric, key), (count, total) in fresh.items()
        ),
        batch_size=200,
    )


def _forget(moment: datetime) -> None:
    old = RollupHour.objects.filter(hour__lt=floor_hour(moment - KEPT)).order_by("hour")
    hours = list(old.values_list("hour", flat=True)[:FORGOTTEN_PER_RUN])
    if hours:
        every = VerificationSession.Environment.values
        Rollup.objects.filter(environment__in=every, hour__in=hours).delete()
        RollupHour.objects.filter(hour__in=hours).delete()


# --- what is counted ------------------------------------------------------------------------------


def _if(condition: Q) -> Case:
    return Case(When(condition, then=Value(1)), default=Value(0), output_field=IntegerField())


#: The person was on the page. A browser that comes back long after the verdict proves nothing.
_ATTEMPTED = (
    Q(verdict__in=(Verdict.PASSED, Verdict.FAILED))
    | Q(returned_at__isnull=False, decided_at__isnull=True)
    | Q(returned_at__lte=F("decided_at"))
    | Q(attempted_at__isnull=False)
)


def _sessions_of(hour: datetime) -> tuple[Figures, int]:
    """The figures of the sessions that were created in *hour*, and for how many there is work left."""
    counts: Counter[Key] = Counter()
    sessions = VerificationSession.objects.filter(created_at__gte=hour, created_at__lt=hour + HOUR).order_by()
    groups = (
        sessions.annotate(prepared=_if(IS_PREPARED), attempted=_if(_ATTEMPTED))
        .values_list(
            *("environment", "plan_id", "verdict", "archive_state", "is_demoted", "prepared", "attempted")
        )
        .annotate(found=Count("pk"), outstanding=Count("pk", filter=HAS_WORK))
    )
    outstanding = 0
    for environment, plan, verdict, archive, demoted, prepared, attempted, found, work in groups:
        outstanding += work
        counts[environment, plan, VERDICT, verdict] += found
        counts[environment, plan, ARCHIVE, archive] += found
        for metric, holds in (
            (PREPARED, prepared or attempted),
            (ATTEMPTED, attempted),
            (DEMOTED, demoted),
        ):
            if holds:
                counts[environment, plan, metric, ""] += found
    if counts:
        _count_failures(sessions, counts)
        _count_scores(sessions, counts)
        _count_archiving(sessions, counts)
    return {key: (count, 0.0) for key, count in counts.items()}, outstanding


def _count_failures(sessions: Any, counts: Counter[Key]) -> None:
    columns = ("environment", "plan_id", "error_class", "error_code", "stat", "score", "threshold")
    for environment, plan, error_class, code, stat, score, threshold in (
        sessions.filter(verdict=Verdict.FAILED).values_list(*columns).iterator(chunk_size=2_000)
    ):
        counts[environment, plan, FAILED, f"{error_class}{SEPARATOR}{code}"] += 1
        for stage in _stages(stat, code, below=None not in (score, threshold) and score < threshold):
            counts[environment, plan, STAGE, stage] += 1


def _stages(stat: object, code: str, *, below: bool) -> set[str]:
    """The stages in which a session failed: by Baidu's statistics, else by its error code."""
    found = set()
    for name, entries in stat.items() if isinstance(stat, dict) else ():
        codes = {str(entry.get("error_code", "")) for entry in entries if isinstance(entry, dict)}
        if codes - _SUCCESS:
            found.add(STAGES.get(name, "other"))
    if found:
        return found
    if code in _LIVENESS_CODES:
        return {"liveness"}
    return {"comparison"} if code in _COMPARISON_CODES or below else {"other"}


def _count_scores(sessions: Any, counts: Counter[Key]) -> None:
    """Similarity, in steps of five, where faces are compared at all."""
    compared = sessions.filter(score__isnull=False, verdict__in=(Verdict.PASSED, Verdict.FAILED)).exclude(
        plan__match_source=Plan.MatchSource.LIVENESS_ONLY
    )
    step = 100 / SCORE_BUCKETS
    bucket = Floor(F("score") / Value(step, FloatField()), output_field=FloatField())
    groups = compared.annotate(bucket=bucket).values_list("environment", "plan_id", "verdict", "bucket")
    for environment, plan, verdict, number, found in groups.annotate(found=Count("pk")):
        place = min(max(int(number), 0), SCORE_BUCKETS - 1)
        counts[environment, plan, SCORE, f"{verdict}{SEPARATOR}{place:02d}"] += found


def _count_archiving(sessions: Any, counts: Counter[Key]) -> None:
    """Complete archives of which a file came after its safe deadline, and how long completing took."""
    complete = sessions.filter(archive_state=ArchiveState.COMPLETE, archived_at__isnull=False)
    late = MediaAsset.objects.filter(session__in=complete.values("pk"), archived_at__gt=F("deadline"))
    groups = late.order_by().values_list("session__environment", "session__plan_id")
    for environment, plan, found in groups.annotate(found=Count("session", distinct=True)):
        counts[environment, plan, LATE, ""] += found
    # From the verdict at the latest: Baidu's word on when a person finished may be missing.
    known = Coalesce(Least("verified_at", "decided_at"), "verified_at", "decided_at")
    slots = Case(
        *(
            When(archived_at__lte=known + timedelta(seconds=seconds), then=Value(place))
            for place, seconds in enumerate(TIMES_TO_ARCHIVE)
        ),
        default=Value(len(TIMES_TO_ARCHIVE)),
        output_field=IntegerField(),
    )
    groups = complete.annotate(slot=slots).values_list("environment", "plan_id", "slot")
    for environment, plan, slot, found in groups.annotate(found=Count("pk")):
        counts[environment, plan, TIME_TO_ARCHIVE, str(slot)] += found


def _calls_of(hour: datetime) -> Figures:
    slots = Case(
        *(When(latency__lte=seconds, then=Value(place)) for place, seconds in enumerate(LATENCIES)),
        default=Value(len(LATENCIES)),
        output_field=IntegerField(),
    )
    calls = UpstreamCall.objects.filter(at__gte=hour, at__lt=hour + HOUR).order_by()
    groups = calls.annotate(slot=slots).values_list("environment", "endpoint", "outcome", "slot")
    figures: Figures = {}
    for environment, endpoint, outcome, slot, found, seconds in groups.annotate(
        found=Count("pk"), seconds=Sum("latency")
    ):
        key = SEPARATOR.join((endpoint, outcome, str(slot)))
        figures[environment, 0, CALL, key] = (found, round(seconds, 3))
    return figures


# --- what is there now ----------------------------------------------------------------------------


def _sum_storage(moment: datetime) -> int:
    """Sum the newest blocks of files and those summed the longest ago; returns how many are new."""
    ends = MediaAsset.objects.aggregate(oldest=Min("pk"), newest=Max("pk"))
    if ends["newest"] is None:
        StorageBlock.objects.all().delete()
        return 0
    last = ends["newest"] // BLOCK
    known = StorageBlock.objects.order_by("-number").values_list("number", flat=True).first()
    first = ends["oldest"] // BLOCK if known is None else max(known - 1, 0)
    numbers = list(range(first, min(last, first + BLOCKS_PER_RUN) + 1))
    older = StorageBlock.objects.filter(counted_at__lt=moment).exclude(number__in=numbers)
    numbers += older.order_by("counted_at", "number").values_list("number", flat=True)[:BLOCKS_PER_RUN]
    summed = 0
    for number in numbers:
        files = MediaAsset.objects.stored().filter(pk__gte=number * BLOCK, pk__lt=(number + 1) * BLOCK)
        found = files.aggregate(files=Count("pk"), bytes=Coalesce(Sum("size"), 0))
        _, is_new = StorageBlock.objects.update_or_create(
            number=number, defaults={**found, "counted_at": moment}
        )
        summed += is_new
    return summed


def _take_stock(moment: datetime) -> None:
    """Write the present state as this hour's figures; those of the last run of an hour stay."""
    environment = conf.environment
    seen = forecast(RISK_WINDOW)
    sessions = VerificationSession.objects.all()
    due = sessions.filter(retain_until__gte=moment, retain_until__lt=moment + DUE_WITHIN)
    overdue = sessions.filter(retain_until__lt=moment - HOUR)
    stock = {
        (OUTLOOK, "due"): seen.due,
        (OUTLOOK, "asleep"): seen.asleep,
        (OUTLOOK, "files"): seen.files,
        (OUTLOOK, "at_risk"): seen.at_risk_total,
        (OUTLOOK, "tolerable_outage"): int(seen.tolerable_outage.total_seconds()),
        (RETENTION, "due"): due.order_by()[: MAX_DUE + 1].count(),
        (RETENTION, "overdue"): overdue.order_by()[: MAX_DUE + 1].count(),
    }
    with transaction.atomic():
        # Two runs at once: the row of the hour is there and makes them wait for each other.
        RollupHour.objects.select_for_update().filter(hour=floor_hour(moment)).first()
        _write(
            floor_hour(moment),
            (OUTLOOK, RETENTION),
            {(environment, 0, *names): (count, 0.0) for names, count in stock.items()},
        )


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """A time range of ``hours``, drawn in steps of ``step`` hours."""

    hours: int
    step: int


SPANS = {"24h": Span(24, 1), "7d": Span(7 * 24, 6), "30d": Span(30 * 24, 24)}


@dataclass(frozen=True)
class Counts:
    """The roll-ups of the present environment from *since* to now, of one plan or of all."""

    since: datetime
    #: By metric and key.
    counts: dict[str, dict[str, int]]
    totals: dict[str, dict[str, float]]
    #: By hour and verdict.
    verdicts: dict[datetime, dict[str, int]]
    #: The state at the last run, by metric and key, and the hour of that run; empty before the first.
    stock: dict[str, dict[str, int]]
    stock_hour: datetime | None

    def of(self, metric: str, key: str = "") -> int:
        """One count."""
        return self.counts.get(metric, {}).get(key, 0)

    def all_of(self, metric: str) -> int:
        """The sum over all keys."""
        return sum(self.counts.get(metric, {}).values())


def read(span: Span, plan: int | None = None) -> Counts:
    """The figures of the dashboard, in three queries that read roll-ups only. Calls belong to no plan."""
    since = floor_hour(now()) - (span.hours - 1) * HOUR
    rows = Rollup.objects.filter(environment=conf.environment, hour__gte=since).order_by()
    taken = rows.exclude(metric__in=(OUTLOOK, RETENTION))
    by_hour = rows.filter(metric=VERDICT)
    if plan is not None:
        taken = taken.filter(Q(plan=plan) | Q(metric=CALL))
        by_hour = by_hour.filter(plan=plan)
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    totals: dict[str, dict[str, float]] = defaultdict(dict)
    for metric, key, count, total in taken.values_list("metric", "key").annotate(Sum("count"), Sum("total")):
        counts[metric][key] = count
        totals[metric][key] = total
    verdicts: dict[datetime, dict[str, int]] = defaultdict(dict)
    for hour, key, count in by_hour.values_list("hour", "key").annotate(Sum("count")):
        verdicts[hour][key] = count
    stock: dict[str, dict[str, int]] = defaultdict(dict)
    stock_hour = None
    # Those of the newest hour: there are seven.
    newest = rows.filter(plan=0, metric__in=(OUTLOOK, RETENTION)).order_by("-hour")
    for hour, metric, key, count in newest.values_list("hour", "metric", "key", "count")[:14]:
        stock_hour = stock_hour or hour
        if hour == stock_hour:
            stock[metric][key] = count
    return Counts(since, counts, totals, verdicts, stock, stock_hour)


@dataclass(frozen=True)
class Storage:
    """Files in the archive and their bytes (plaintext), summed between *since* and now."""

    files: int
    bytes: int
    since: datetime | None


def storage() -> Storage:
    """From the sums by block, of which there are few."""
    files = size = 0
    since = None
    for count, total, counted_at in StorageBlock.objects.values_list("files", "bytes", "counted_at"):
        files, size = files + count, size + total
        since = counted_at if since is None else min(since, counted_at)
    return Storage(files, size, since)


def hours_behind() -> int:
    """Hours that should have been counted and were not; 0 while ``faceprint.rollup`` keeps up."""
    return RollupHour.objects.filter(due_at__lte=now() - STALE_AFTER).count()


def percentile(buckets: dict[int, int], ends: tuple[float, ...], share: float) -> float | None:
    """The upper end of the bucket in which the given *share* (0 to 1) of all is reached.

    None without any, and where it lies in the last bucket, which has no end: ``math.inf``.
    """
    total = sum(buckets.values())
    reached = 0
    for place in sorted(buckets):
        reached += buckets[place]
        if total and reached >= share * total:
            return ends[place] if place < len(ends) else float("inf")
    return None
