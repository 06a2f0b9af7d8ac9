"""Opening and resolving incidents; called every minute, by any number of workers."""

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
    """Counts of one evaluation. ``open`` are the incidents that are open afterwards."""

    opened: int = 0
    resolved: int = 0
    open: int = 0
    mails_sent: int = 0
    mails_failed: int = 0


def evaluate() -> EvaluationReport:
    """Check every rule, open and resolve incidents, then send the mails that are due.

    Call it outside of transactions: mails go out after the incident has been committed. The incident of a
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
    incident = Alert.objects.filter(open_key=rule.condition).first()
    if not rule.enabled:
        if incident is not None:
            _resolve(incident, moment, report)
        return
    if incident is not None:
        finding = examine(rule, incident, moment)
        if finding.outcome == Outcome.FIRING:
            _touch(incident, finding, moment)
        if finding.outcome != Outcome.CLEAR:
            return
        _resolve(incident, moment, report)
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


def _touch(incident: Alert, finding: Finding, moment: datetime) -> None:
    # A slower worker must not overwrite newer facts with older ones.
    Alert.objects.filter(pk=incident.pk, resolved_at__isnull=True, last_seen_at__lte=moment).update(
        last_seen_at=moment, facts=finding.facts
    )


def _resolve(incident: Alert, moment: datetime, report: EvaluationReport) -> None:
    with transaction.atomic():
        changed = Alert.objects.filter(pk=incident.pk, resolved_at__isnull=True).update(
            resolved_at=moment, open_key=None
        )
        if changed:
            incident.refresh_from_db()
            events.alert_resolved(incident)
    report.resolved += changed
