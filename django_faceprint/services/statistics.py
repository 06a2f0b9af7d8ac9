"""Counts over many sessions: what alerts compare and summaries print. ``live`` and ``sandbox`` never mix."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db.models import Count, Q, Sum

from django_faceprint.client import ErrorClass
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.models import Heartbeat, MediaAsset, UpstreamCall, VerificationAttempt, VerificationSession
from django_faceprint.models.session import VerificationSessionQuerySet

# What tells an attack from a bad day: faces that are not alive, not the person, or made up.
ATTACK_CODES = frozenset({"223120", "223131", "222351", "222360", "222354"})
# Failures that Baidu or the network answers for, not the caller's input.
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


@dataclass(frozen=True)
class Share:
    """So many of so many."""

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
    """Sessions with evidence that is not archived and whose safe deadline is less than *within* away.

    A person who is sent to the page may have finished without us knowing, so sessions without a
    verdict count as well.
    """
    horizon = now() + within
    wanted = MediaAsset.objects.wanted().filter(deadline__lte=horizon).values("session_id")
    unanswered = Q(verdict=VerificationSession.Verdict.PENDING, media_deadline__lte=horizon)
    return _sessions().filter(Q(pk__in=wanted) | unanswered).count()


def lost_since(moment: datetime | None) -> int:
    """Sessions that lost evidence and were decided after *moment* (None: ever)."""
    lost = MediaAsset.objects.filter(state=MediaAsset.State.LOST)
    sessions = _sessions().filter(
        Q(pk__in=lost.values("session_id")) | Q(archive_state=VerificationSession.ArchiveState.LOST)
    )
    if moment is not None:
        sessions = sessions.filter(decided_at__gt=moment)
    return sessions.count()


def upstream_failures(window: timedelta) -> Share:
    """Calls within *window* that failed for reasons of Baidu, the network or the configuration."""
    calls = UpstreamCall.objects.filter(at__gt=now() - window, environment=conf.environment)
    return Share(calls.filter(outcome__in=UPSTREAM_FAILURES).count(), calls.count())


def suspicious_failures(window: timedelta) -> Share:
    """Attempts within *window* that failed for liveness, spoofing or mismatch, of all attempts.

    A failed session whose attempts upstream did not list counts as one attempt.
    """
    since = now() - window
    attempts = VerificationAttempt.objects.filter(
        session__environment=conf.environment, verified_at__gt=since
    )
    unlisted = _sessions().filter(
        decided_at__gt=since, verdict=VerificationSession.Verdict.FAILED, attempts__isnull=True
    )
    passed_unlisted = _sessions().filter(
        decided_at__gt=since, verdict=VerificationSession.Verdict.PASSED, attempts__isnull=True
    )
    return Share(
        attempts.filter(passed=False, code__in=ATTACK_CODES).count()
        + unlisted.filter(error_code__in=ATTACK_CODES).count(),
        attempts.count() + unlisted.count() + passed_unlisted.count(),
    )


def beat(name: str) -> None:
    """Note that the part *name* of the engine is alive."""
    Heartbeat.objects.update_or_create(name=name, defaults={"at": now()})


def last_beat(name: str) -> datetime | None:
    """When the part *name* of the engine last ran."""
    return Heartbeat.objects.filter(name=name).values_list("at", flat=True).first()


def _sessions() -> VerificationSessionQuerySet:
    return VerificationSession.objects.filter(environment=conf.environment)
