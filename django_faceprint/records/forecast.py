"""How long workers may be down before the first loss, by the outstanding work and our speed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections
from django.db.models import Count
from django.db.models.functions import TruncMinute

from django_faceprint.base.deadlines import MEDIA_LIFE
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.models import MediaAsset, VerificationSession

from .at_risk import undecided, wanted_files

#: Sessions that are read, those with the earliest deadlines: what comes later is not the first loss.
HORIZON = 100_000
#: Sessions at risk that the forecast lists.
NAMED = 50
MEASURED_OVER = timedelta(hours=1)
#: No session that was started longer ago has work left.
MAX_LIFE = timedelta(days=5)


@dataclass(frozen=True)
class AtRisk:
    """One session whose evidence may not be archived in time."""

    public_id: UUID
    reference: str
    deadline: datetime
    missing: str
    error: str


@dataclass(frozen=True)
class Forecast:
    """The outstanding work of the present environment, and the outage that it tolerates.

    ``per_minute`` is the best minute of the last hour, in sessions; None when none was finished: then the
    backlog is taken to need no time. ``tolerable_outage`` is how long workers may be down and still archive
    everything by its deadline afterwards, at that speed and earliest deadline first; zero when some of it
    would be late even now. Sessions that start meanwhile have a day of their own.
    """

    due: int
    asleep: int
    files: int
    per_minute: float | None
    tolerable_outage: timedelta
    at_risk: list[AtRisk] = field(default_factory=list)
    at_risk_total: int = 0


def forecast(window: timedelta) -> Forecast:
    """The forecast; sessions with a deadline nearer than *window* count as at risk."""
    moment = now()
    sessions = VerificationSession.objects.filter(environment=conf.environment)
    per_minute = _best_minute(moment)
    deadlines = _deadlines()
    spare = MEDIA_LIFE
    risky: list[tuple[int, datetime]] = []
    for place, (deadline, pk) in enumerate(deadlines, start=1):
        done_after = timedelta(minutes=place / per_minute) if per_minute else timedelta(0)
        left = deadline - moment - done_after
        spare = min(spare, left)
        if left < timedelta(0) or deadline - moment < window:
            risky.append((pk, deadline))
    return Forecast(
        due=sessions.due(moment).count(),
        asleep=sessions.filter(wake_at__gt=moment).count(),
        files=wanted_files().count(),
        per_minute=per_minute,
        tolerable_outage=max(spare, timedelta(0)),
        at_risk=_named(risky[:NAMED]),
        at_risk_total=len(risky),
    )


def _deadlines() -> list[tuple[datetime, int]]:
    """The deadline of each session that has one, and the session's key; the earliest come first."""
    files = wanted_files().filter(deadline__isnull=False).order_by("deadline")
    # By the deadline of the engine's next visit: that has an index.
    possible = undecided().filter(next_deadline__isnull=False).order_by("next_deadline")
    first: dict[int, datetime] = {}
    for pk, deadline in (
        *files.values_list("session_id", "deadline")[:HORIZON],
        *possible.values_list("pk", "deadline")[:HORIZON],
    ):
        if deadline is not None:
            first[pk] = min(deadline, first.get(pk, deadline))
    return sorted((deadline, pk) for pk, deadline in first.items())


def _best_minute(moment: datetime) -> float | None:
    finished = VerificationSession.objects.filter(
        environment=conf.environment,
        created_at__gt=moment - MAX_LIFE,
        archived_at__gt=moment - MEASURED_OVER,
    )
    # In the connection's own time zone. In another one MariaDB without its table of zones makes NULL of every
    # minute, so that a whole hour's work would count as one minute's.
    minute = TruncMinute("archived_at", tzinfo=connections[finished.db].timezone)
    by_minute = finished.annotate(minute=minute).order_by().values("minute")
    counts = by_minute.annotate(count=Count("pk")).values_list("count", flat=True)
    return float(max(counts, default=0)) or None


def _named(risky: list[tuple[int, datetime]]) -> list[AtRisk]:
    rows = VerificationSession.objects.in_bulk([pk for pk, _ in risky])
    missing: dict[int, list[str]] = {}
    for pk, kind in MediaAsset.objects.wanted().filter(session__in=rows).values_list("session_id", "kind"):
        missing.setdefault(pk, []).append(kind)
    return [
        AtRisk(
            public_id=rows[pk].public_id,
            reference=rows[pk].reference,
            deadline=deadline,
            missing=", ".join(sorted(set(missing.get(pk, ["verdict"])))),
            error=rows[pk].error_class,
        )
        for pk, deadline in risky
        if pk in rows
    ]
