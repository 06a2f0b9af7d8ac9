"""Counts over many sessions, for alerts and summaries. ``live`` and ``sandbox`` never mix."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db.models import Count, F, Max, Min, Q, Sum

from django_faceprint.base.deadlines import RESULTS_LIFE, TOKEN_LIFE
from django_faceprint.client import ErrorClass
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.models import (
    Heartbeat,
    MediaAsset,
    UpstreamCall,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.models.session import VerificationSessionQuerySet

from .at_risk import is_undecided_until, undecided, wanted_files

Verdict = VerificationSession.Verdict
ArchiveState = VerificationSession.ArchiveState

# Signs of an attack: faces that are not alive, not the person's, or synthetic. A face that was compared and
# scored below the threshold counts as well: its code is not published (API reference 4.3).
ATTACK_CODES = frozenset({"223120", "223131", "222351", "222354", "222360"})
# Failures of Baidu, the network or the configuration, not of the caller's input.
UPSTREAM_FAILURES = frozenset(
    {
        UpstreamCall.TRANSPORT,
        ErrorClass.RETRY.value,
        ErrorClass.SLOW_DOWN.value,
        ErrorClass.REAUTHENTICATE.value,
        ErrorClass.CONFIGURATION.value,
        ErrorClass.UNKNOWN.value,
    }
)
#: The newest records, among which repeated ID numbers are counted.
MAX_COMPARED = 10_000


@dataclass(frozen=True)
class Share:
    """A part of a total."""

    count: int
    total: int

    @property
    def percent(self) -> float:
        """0 to 100; 0 when there is nothing to take a share of."""
        return 100.0 * self.count / self.total if self.total else 0.0


@dataclass(frozen=True)
class Summary:
    """The state of all sessions of the present environment."""

    by_verdict: dict[str, int] = field(default_factory=dict)
    by_asset_state: dict[str, int] = field(default_factory=dict)
    bytes_stored: int = 0
    outstanding: int = 0


def summary() -> Summary:
    """Sessions by verdict, assets by state, bytes stored (plaintext) and sessions with work left."""
    sessions = _sessions()
    assets = MediaAsset.objects.filter(session__environment=conf.environment)
    return Summary(
        by_verdict=dict(sessions.order_by().values_list("verdict").annotate(Count("pk"))),
        by_asset_state=dict(assets.order_by().values_list("state").annotate(Count("pk"))),
        bytes_stored=assets.stored().aggregate(total=Sum("size"))["total"] or 0,
        outstanding=sessions.outstanding().count(),
    )


def at_risk(within: timedelta) -> int:
    """Sessions whose deadline is at most *within* away; see :mod:`.at_risk`."""
    horizon = now() + within
    # Two queries with an index each; joined by OR, a database reads the whole table every minute.
    wanted = wanted_files().filter(deadline__lte=horizon).values("session_id")
    undecided = _sessions().filter(is_undecided_until(horizon)).exclude(pk__in=wanted)
    return wanted.distinct().count() + undecided.count()


def earliest_deadline() -> datetime | None:
    """The first deadline of all sessions; None: nothing is outstanding."""
    dates = (rows.aggregate(first=Min("deadline"))["first"] for rows in (wanted_files(), undecided()))
    return min(filter(None, dates), default=None)


def lost_since(moment: datetime | None, *, until: datetime | None = None) -> int:
    """Sessions with evidence that was lost after *moment* (None: ever) and no later than *until* (now).

    Evidence counts as lost from ``give_up_at`` on, also where no worker has noted it yet: that moment never
    changes, so adjoining periods count each loss exactly once.
    """
    period: dict[str, datetime] = {"lte": until or now()}
    if moment is not None:
        period["gt"] = moment
    assets = MediaAsset.objects.filter(
        session__environment=conf.environment,
        state__in=(MediaAsset.State.LOST, MediaAsset.State.WANTED),
        **{f"give_up_at__{lookup}": value for lookup, value in period.items()},
    )
    # Sessions with an attempt and without an answer: their evidence is lost unseen.
    attempted = Q(returned_at__isnull=False) | Q(attempted_at__isnull=False)
    unseen = (
        _sessions()
        .filter(attempted, **{f"results_give_up_at__{lookup}": value for lookup, value in period.items()})
        .filter(
            Q(verdict=Verdict.PENDING)
            | Q(verdict=Verdict.UNKNOWN, archive_state__in=(ArchiveState.LOST, ArchiveState.PARTIAL))
        )
    )
    return assets.values("session_id").distinct().count() + (
        unseen.exclude(pk__in=assets.values("session_id")).count()
    )


def upstream_failures(window: timedelta) -> Share:
    """Calls within *window* that failed for reasons of Baidu, the network or the configuration."""
    calls = UpstreamCall.objects.filter(at__gt=now() - window, environment=conf.environment)
    counts = calls.aggregate(
        count=Count("pk", filter=Q(outcome__in=UPSTREAM_FAILURES)),
        total=Count("pk"),
    )
    return Share(counts["count"], counts["total"])


def suspicious_failures(window: timedelta) -> Share:
    """Attempts that failed for liveness, spoofing or mismatch, of all attempts learnt of within *window*.

    The time at which we learnt of an attempt counts: Baidu gives its own time late or not at all, and by its
    own clock. A session whose attempts Baidu did not list counts as one attempt, and so does one that failed
    and may still try again.
    """
    since = now() - window
    # decided_at has no index, created_at has: no verdict comes later than this after the start.
    longest = TOKEN_LIFE + conf.latest_grace + RESULTS_LIFE + timedelta(days=1)
    recent = _sessions().filter(created_at__gt=since - longest)
    decided = recent.filter(decided_at__gt=since, verdict__in=(Verdict.PASSED, Verdict.FAILED))
    suspicious = Q(code__in=ATTACK_CODES) | Q(score__lt=F("threshold"))
    attempts = VerificationAttempt.objects.filter(session__in=decided.values("pk")).aggregate(
        count=Count("pk", filter=Q(suspicious, passed=False)),
        total=Count("pk"),
    )
    suspicious = Q(error_code__in=ATTACK_CODES) | Q(score__lt=F("threshold"))
    unlisted = decided.filter(attempts__isnull=True).aggregate(
        count=Count("pk", filter=Q(suspicious, verdict=Verdict.FAILED)),
        total=Count("pk"),
    )
    trying = recent.filter(
        verdict=Verdict.PENDING,
        last_polled_at__gt=since,
        error_class=ErrorClass.VERIFICATION_FAILED.value,
    ).aggregate(count=Count("pk", filter=Q(error_code__in=ATTACK_CODES)), total=Count("pk"))
    parts = (attempts, unlisted, trying)
    return Share(sum(part["count"] for part in parts), sum(part["total"] for part in parts))


def record_heartbeat(name: str) -> None:
    """Note that the part *name* of the engine is alive."""
    Heartbeat.objects.update_or_create(name=name, defaults={"at": now()})


def last_heartbeat(name: str) -> datetime | None:
    """When the part *name* of the engine last ran."""
    return Heartbeat.objects.filter(name=name).values_list("at", flat=True).first()


def heartbeats() -> dict[str, datetime]:
    """When each part of the engine last ran, by its name."""
    return dict(Heartbeat.objects.order_by("name").values_list("name", "at"))


@dataclass(frozen=True)
class Repeated:
    """One ID number that ``count`` records share; ``session`` is the newest of them."""

    session: VerificationSession
    count: int


def most_repeated(
    since: datetime, *, plan: int | None = None, limit: int = 10
) -> tuple[list[Repeated], bool]:
    """The ID numbers with the most records since then, and whether all records were compared.

    At most the newest :data:`MAX_COMPARED` are, so that it costs the same however many there are.
    """
    recent = _sessions().filter(created_at__gte=since).exclude(number_index="")
    if plan is not None:
        recent = recent.filter(plan=plan)
    times = recent.order_by("-created_at").values_list("created_at", flat=True)
    beyond = list(times[MAX_COMPARED : MAX_COMPARED + 1])
    if beyond:
        recent = recent.filter(created_at__gt=beyond[0])
    groups = recent.order_by().values_list("number_index").annotate(found=Count("pk"), newest=Max("pk"))
    most = list(groups.filter(found__gt=1).order_by("-found", "-newest")[:limit])
    shown = VerificationSession.objects.only("public_id", "identity_number", "confirmed", "created_at")
    rows = shown.in_bulk([newest for _, _, newest in most])
    repeated = [Repeated(rows[newest], found) for _, found, newest in most if newest in rows]
    return repeated, not beyond


def _sessions() -> VerificationSessionQuerySet:
    return VerificationSession.objects.filter(environment=conf.environment)
