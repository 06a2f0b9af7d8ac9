"""When an alert opens and when it is over: one question per condition, answered with numbers only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from django.db.models import QuerySet

from django_faceprint.models import Alert, AlertRule
from django_faceprint.records import statistics
from django_faceprint.records.at_risk import RISK_WINDOW
from django_faceprint.records.statistics import Share
from django_faceprint.upstream.rate_limit import persistent_quota_problems

Condition = AlertRule.Condition

#: A share must fall below this part of its threshold before its alert is over, or it would flutter.
HYSTERESIS = 0.9


class Outcome(StrEnum):
    """The state of a condition."""

    FIRING = "firing"
    CLEAR = "clear"
    #: Neither: an open alert stays open, and none is opened. Missing data is no recovery.
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Finding:
    """The outcome and the numbers behind it, which go into ``Alert.facts`` and into the mail."""

    outcome: Outcome
    facts: dict[str, float] = field(default_factory=dict)


def examine(rule: AlertRule, alert: Alert | None, moment: datetime) -> Finding:
    """Check the condition of *rule* at *moment*; *alert* is its open alert, or None."""
    return _EXAMINERS[Condition(rule.condition)](rule, alert, moment)


def unacknowledged_loss(moment: datetime) -> int:
    """Sessions that lost evidence which no operator has acknowledged, whether or not the rule is enabled."""
    seen = _losses().filter(acknowledged_at__isnull=False).order_by("-last_seen_at").first()
    return statistics.lost_since(seen.last_seen_at if seen else None, until=moment)


def risk_window() -> timedelta:
    """How near a deadline counts as at risk: the window of the alert rule."""
    rule = AlertRule.objects.filter(condition=Condition.EVIDENCE_AT_RISK).first()
    return timedelta(minutes=rule.window_minutes) if rule else RISK_WINDOW


def _evidence_at_risk(rule: AlertRule, alert: Alert | None, moment: datetime) -> Finding:
    sessions = statistics.at_risk(timedelta(minutes=rule.window_minutes))
    facts: dict[str, float] = {"sessions": sessions, "window_minutes": rule.window_minutes}
    deadline = statistics.earliest_deadline()
    if deadline is not None:
        facts["minutes_left"] = int((deadline - moment).total_seconds() // 60)
    return Finding(Outcome.FIRING if sessions else Outcome.CLEAR, facts)


def _evidence_lost(rule: AlertRule, alert: Alert | None, moment: datetime) -> Finding:
    """Each loss belongs to one alert: the first whose ``last_seen_at`` is not before the loss."""
    if alert is not None and alert.acknowledged_at is not None:
        return Finding(Outcome.CLEAR, dict(alert.facts))
    earlier = _losses().exclude(pk=alert.pk) if alert else _losses()
    last = earlier.order_by("-last_seen_at").first()
    sessions = statistics.lost_since(last.last_seen_at if last else None, until=moment)
    # Evidence that was archived after all still has to be acknowledged.
    return Finding(Outcome.FIRING if sessions else Outcome.UNDECIDED, {"sessions": sessions})


def _upstream_errors(rule: AlertRule, alert: Alert | None, moment: datetime) -> Finding:
    return _judge(rule, statistics.upstream_failures(timedelta(minutes=rule.window_minutes)))


def _quota(rule: AlertRule, alert: Alert | None, moment: datetime) -> Finding:
    """Each interface with the code that it answers, and since when, in minutes."""
    problems = persistent_quota_problems()
    if not problems:
        return Finding(Outcome.CLEAR, {"interfaces": 0})
    facts: dict[str, float] = {problem.endpoint: int(problem.code) for problem in problems}
    since = min(problem.since for problem in problems)
    facts |= {"interfaces": len(problems), "minutes": int((moment - since).total_seconds() // 60)}
    return Finding(Outcome.FIRING, facts)


def _attack(rule: AlertRule, alert: Alert | None, moment: datetime) -> Finding:
    return _judge(rule, statistics.suspicious_failures(timedelta(minutes=rule.window_minutes)))


def _judge(rule: AlertRule, share: Share) -> Finding:
    facts: dict[str, float] = {
        "count": share.count,
        "total": share.total,
        "percent": round(share.percent, 1),
        "threshold_percent": rule.share_percent,
        "minimum_count": rule.minimum_count,
        "window_minutes": rule.window_minutes,
    }
    enough = share.total >= rule.minimum_count
    if enough and share.count and share.percent >= rule.share_percent:
        return Finding(Outcome.FIRING, facts)
    if share.total and not share.count:
        # Nothing failed in a whole window with events. Without events nothing is known.
        return Finding(Outcome.CLEAR, facts)
    if enough and share.percent < rule.share_percent * HYSTERESIS:
        return Finding(Outcome.CLEAR, facts)
    return Finding(Outcome.UNDECIDED, facts)


def _losses() -> QuerySet[Alert]:
    return Alert.objects.filter(rule__condition=Condition.EVIDENCE_LOST)


_EXAMINERS: dict[str, Callable[[AlertRule, Alert | None, datetime], Finding]] = {
    Condition.EVIDENCE_AT_RISK: _evidence_at_risk,
    Condition.EVIDENCE_LOST: _evidence_lost,
    Condition.UPSTREAM_ERRORS: _upstream_errors,
    Condition.QUOTA: _quota,
    Condition.ATTACK: _attack,
}
