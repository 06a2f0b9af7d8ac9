"""The daily mail: the events of the last day, and the head of the access log's chain.

The head in a mailbox proves, months later, whether the end of the chain was cut off.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta

from django.db.models import Count
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext

from django_faceprint.audit import chain
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.models import AccessLog, Alert, AlertRule, Heartbeat, VerificationSession
from django_faceprint.records import statistics
from django_faceprint.records.at_risk import RISK_WINDOW

from .mail import MailContent, deliver, local_time, one_line, site_language

#: When the mail goes out, in the site's time zone.
SENT_AT = time(8, 0)
#: The heartbeat of the last mail.
NAME = "daily_mail"
DAY = timedelta(days=1)


def send_daily_mail() -> bool:
    """Send today's mail if it is due; returns whether it was sent now.

    At most one worker sends it, to the recipients of all enabled rules. When no recipient can be reached, the
    next call tries again. Call it outside of transactions.
    """
    moment = now()
    due = _last_due(moment)
    kept, is_new = Heartbeat.objects.get_or_create(name=NAME, defaults={"at": moment})
    if is_new or kept.at >= due:
        return False
    addresses = _recipients()
    if not addresses:
        return False
    claimed = Heartbeat.objects.filter(pk=kept.pk, at=kept.at).update(at=moment)
    if not claimed:
        return False
    with site_language():
        delivery = deliver(_content(due), addresses)
    if not delivery.reached:
        Heartbeat.objects.filter(pk=kept.pk, at=moment).update(at=kept.at)
    return bool(delivery.reached)


def _last_due(moment: datetime) -> datetime:
    """The last time at which a mail was due."""
    zone = timezone.get_default_timezone()
    local = moment.astimezone(zone)
    today = datetime.combine(local.date(), SENT_AT, tzinfo=zone)
    return today if today <= local else datetime.combine(local.date() - DAY, SENT_AT, tzinfo=zone)


def _recipients() -> list[str]:
    rules = AlertRule.objects.filter(enabled=True).order_by("condition")
    return list(dict.fromkeys(address for rule in rules for address in rule.addresses))


def _content(until: datetime) -> MailContent:
    since = until - DAY
    entries = dict(
        AccessLog.objects.filter(at__gte=since, at__lt=until)
        .order_by()
        .values_list("action")
        .annotate(Count("pk"))
    )
    started = VerificationSession.objects.filter(
        created_at__gte=since, created_at__lt=until, environment=conf.environment
    )
    verdicts = dict(started.order_by().values_list("verdict").annotate(Count("pk")))
    day = date_format(since.astimezone(timezone.get_default_timezone()), "Y-m-d")
    headline = gettext("Daily report of %(day)s") % {"day": day}
    lines = [
        (gettext("Period"), f"{local_time(since)} – {local_time(until)}"),
        (gettext("Verification sessions"), str(sum(verdicts.values()))),
        *(
            (str(VerificationSession.Verdict(verdict).label), str(verdicts[verdict]))
            for verdict in VerificationSession.Verdict.values
            if verdict in verdicts
        ),
        (gettext("Not archived in time"), str(statistics.lost_since(since, until=until))),
        (gettext("At risk within six hours"), str(statistics.at_risk(RISK_WINDOW))),
        (gettext("Open alerts"), str(Alert.objects.filter(resolved_at__isnull=True).count())),
        *(
            (gettext("Access log: %(action)s") % {"action": action.label}, str(entries[action]))
            for action in AccessLog.Action
            if action in entries
        ),
        (gettext("Head of the access log"), chain.head() or "–"),
        (gettext("Environment"), conf.environment),
    ]
    return MailContent(subject=one_line(f"[faceprint] {headline}"), headline=headline, lines=lines)
