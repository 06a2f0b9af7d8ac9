"""Opening and resolving alerts; called every minute, by any number of workers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction

from django_faceprint.base import events
from django_faceprint.clock import now
from django_faceprint.models import Alert, AlertRule
from django_faceprint.records import statistics

from .conditions import Finding, Outcome, examine
from .mail import send_due_mails


@dataclass
class EvaluationReport:
    """Counts of one evaluation. ``open`` are the alerts that are open afterwards."""

    opened: int = 0
    resolved: int = 0
    open: int = 0
    mails_sent: int = 0
    mails_failed: int = 0


def evaluate() -> EvaluationReport:
    """Check every rule, open and resolve alerts, then send the mails that are due.

    Call it outside of transactions: mails go out after the alert has been committed. The alert of a
    rule that was switched off is resolved without a mail.
    """
    report = EvaluationReport()
    moment = now()
    for rule in AlertRule.objects.order_by("condition"):
        _evaluate(rule, moment, report)
    report.mails_sent, report.mails_failed = send_due_mails()
    report.open = Alert.objects.filter(resolved_at__isnull=True).count()
    statistics.record_heartbeat("alerts")
    return report


def _evaluate(rule: AlertRule, moment: datetime, report: EvaluationReport) -> None:
    alert = Alert.objects.filter(open_key=rule.condition).first()
    if not rule.enabled:
        if alert is not None:
            _resolve(alert, moment, report)
        return
    if alert is not None:
        finding = examine(rule, alert, moment)
        if finding.outcome == Outcome.FIRING:
            _touch(alert, finding, moment)
        if finding.outcome != Outcome.CLEAR:
            return
        _resolve(alert, moment, report)
    finding = examine(rule, None, moment)
    if finding.outcome == Outcome.FIRING:
        _open(rule, finding, moment, report)


def _open(rule: AlertRule, finding: Finding, moment: datetime, report: EvaluationReport) -> None:
    try:
        with transaction.atomic():
            alert = Alert.objects.create(
                rule=rule,
                open_key=rule.condition,
                severity=rule.severity,
                opened_at=moment,
                last_seen_at=moment,
                facts=finding.facts,
            )
            events.alert_opened(alert)
    except IntegrityError:
        # Another worker has just opened it: open_key is unique.
        return
    report.opened += 1


def _touch(alert: Alert, finding: Finding, moment: datetime) -> None:
    # A slower worker must not overwrite newer facts with older ones.
    Alert.objects.filter(pk=alert.pk, resolved_at__isnull=True, last_seen_at__lte=moment).update(
        last_seen_at=moment, facts=finding.facts
    )


def _resolve(alert: Alert, moment: datetime, report: EvaluationReport) -> None:
    with transaction.atomic():
        changed = Alert.objects.filter(pk=alert.pk, resolved_at__isnull=True).update(
            resolved_at=moment, open_key=None
        )
        if changed:
            alert.refresh_from_db()
            events.alert_resolved(alert)
    report.resolved += changed
