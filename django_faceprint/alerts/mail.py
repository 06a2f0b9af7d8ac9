"""Mails about alerts: numbers and advice in the site's language, no personal data, one mail per recipient.

Every recipient gets a message of their own: none sees the others, and a refused address does not keep the
mail from the rest.

Delivery is *at least once*: a worker claims a mail on the alert's row before it sends it, and notes
afterwards which addresses it has reached. If it dies in between, the claim expires and the other addresses
get the mail, perhaps a second time. ``Alert.mailed_at`` is when the last mail about the alert had reached
all recipients; ``Alert.mail_error`` is why it has not, with the state of the delivery in brackets.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from smtplib import SMTPRecipientsRefused
from typing import Any
from urllib.parse import urlsplit

from django.core.mail import EmailMultiAlternatives
from django.db.models import F, Q, QuerySet
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils import timezone, translation
from django.utils.formats import date_format
from django.utils.translation import gettext, ngettext

from django_faceprint.base.hold import is_held
from django_faceprint.base.lease import MAX_LEASE
from django_faceprint.client import ENDPOINTS
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.models import Alert, AlertRule

logger = logging.getLogger(__name__)

Condition = AlertRule.Condition

#: How long a worker may send one mail; longer than any task may run.
CLAIM_LIFE = MAX_LEASE
#: No mail is sent about an alert that ended longer ago.
RECOVERY_NEWS = timedelta(hours=24)

_SENDING = "sending since "
_STATE = re.compile(r"\[(?P<list>[0-9a-f]{8}):(?P<reached>[0-9a-f]+)\]\Z")
_SINCE = re.compile(rf"\A{_SENDING}(?P<moment>\S+) ")


class AlertMailFailed(Exception):
    """A mail could not be sent to everybody; the text is for operators and names no address."""


@dataclass(frozen=True)
class MailContent:
    """A mail before it is rendered; every text is translated already."""

    subject: str
    headline: str
    lines: list[tuple[str, str]]
    causes: list[str] = field(default_factory=list)
    url: str = ""
    thread: str = ""


@dataclass(frozen=True)
class _Delivery:
    """The outcome of one mail.

    ``settled`` has a bit for each address that needs no other try, ``reached`` counts the addresses that were
    reached now, ``problem`` is the last failure.
    """

    settled: int
    reached: int
    problem: str


def send_due_mails() -> tuple[int, int]:
    """Send the mails that are due; returns (mails that reached all recipients, mails to be tried again).

    Call it outside of transactions: mail servers are slow, and the alert must have been committed.
    """
    sent = failed = 0
    for alert in _due().select_related("rule"):
        outcome = _send_claimed(alert)
        sent += outcome is True
        failed += outcome is False
    return sent, failed


def send_test_mail(rule: AlertRule, user: Any) -> int:
    """Send a test mail to the recipients of *rule* now; returns how many they are.

    *user* requested it; for the log. Raises :class:`AlertMailFailed` when there is no recipient
    or when not all of them could be reached.
    """
    addresses = rule.addresses
    if not addresses:
        raise AlertMailFailed(gettext("This rule has no recipients."))
    with site_language():
        content = _test_content(rule)
        delivery = deliver(content, addresses)
    logger.info("faceprint: test mail of %s by user %s: %s sent", rule.condition, user.pk, delivery.reached)
    if delivery.problem:
        raise AlertMailFailed(
            gettext("%(reached)s of %(all)s recipients were reached: %(problem)s")
            % {"reached": delivery.reached, "all": len(addresses), "problem": delivery.problem}
        )
    return delivery.reached


# --- delivery -----------------------------------------------------------------------------------


def _due() -> QuerySet[Alert]:
    """Alerts with a mail to send: about their beginning, then about their end.

    For one that ended before its mail could be sent, one mail is still sent if that had been tried.
    """
    is_tried = Q(resolved_at__isnull=True) | ~Q(mail_error="")
    beginning = Q(is_tried, mailed_at__isnull=True)
    end = Q(mailed_at__lte=F("resolved_at"))
    recent = Q(resolved_at__isnull=True) | Q(resolved_at__gt=now() - RECOVERY_NEWS)
    return Alert.objects.filter(beginning | end, recent, rule__enabled=True).order_by("pk")


def _send_claimed(alert: Alert) -> bool | None:
    """True: the mail has reached all recipients. False: not yet. None: nothing to do."""
    addresses = alert.rule.addresses
    if not addresses or _is_being_sent(alert):
        return None
    # Another list of recipients than last time is another mail.
    listed = f"{zlib.crc32(chr(10).join(addresses).encode()):08x}"
    state = _STATE.search(alert.mail_error)
    settled = int(state["reached"], 16) if state and state["list"] == listed else 0
    claim = f"{_SENDING}{now().isoformat()} {_state(listed, settled)}"
    unchanged = Alert.objects.filter(pk=alert.pk, mailed_at=alert.mailed_at, mail_error=alert.mail_error)
    if not unchanged.update(mail_error=claim):
        return None
    with site_language():
        delivery = deliver(_alert_content(alert), addresses, settled)
    ours = Alert.objects.filter(pk=alert.pk, mail_error=claim)
    if delivery.problem and delivery.settled.bit_count() < len(addresses):
        ours.update(mail_error=f"{delivery.problem[:80]} {_state(listed, delivery.settled)}")
        logger.warning("faceprint: a mail about alert %s could not be sent: %s", alert.pk, delivery.problem)
        return False
    ours.update(mailed_at=_after(alert.resolved_at), mail_error=delivery.problem[:150])
    return True


def _state(listed: str, settled: int) -> str:
    """The state of a delivery for ``mail_error``; from some 400 recipients on, without addresses."""
    digits = f"{settled:x}"
    return f"[{listed}:{digits if len(digits) <= 100 else 0}]"


def _after(resolved_at: datetime | None) -> datetime:
    """Now, or just after the end of the alert if that is later: then the mail was about the end."""
    moment = now()
    return moment if resolved_at is None else max(moment, resolved_at + timedelta(microseconds=1))


def _is_being_sent(alert: Alert) -> bool:
    claim = _SINCE.match(alert.mail_error)
    if claim is None:
        return False
    return is_held(datetime.fromisoformat(claim["moment"]) + CLAIM_LIFE, CLAIM_LIFE)


def deliver(content: MailContent, addresses: Sequence[str], settled: int = 0) -> _Delivery:
    """Send to every address whose bit in *settled* is not set, until the mail server itself fails."""
    text, html = _render(content)
    reached = refused = 0
    problem = ""
    for number, address in enumerate(addresses):
        if settled >> number & 1:
            continue
        message = EmailMultiAlternatives(content.subject, text, to=[address], headers=_headers(content))
        message.attach_alternative(html, "text/html")
        failure: Exception | None = None
        try:
            message.send()
        except Exception as error:  # noqa: BLE001  (mail backends of third parties raise what they like)
            failure = error
        if failure is None:
            settled |= 1 << number
            reached += 1
            continue
        problem = _describe(failure)
        if not isinstance(failure, SMTPRecipientsRefused):
            break
        if _is_final(failure):
            refused |= 1 << number
    if reached or settled:
        settled |= refused
    # If no address was reached, our own mail server is more likely at fault than every address.
    return _Delivery(settled, reached, problem)


def _is_final(error: SMTPRecipientsRefused) -> bool:
    """Whether the server will never take this address (5xx), rather than later (greylisting, 4xx)."""
    return all(500 <= code < 600 for code, _ in error.recipients.values())


def _describe(error: Exception) -> str:
    """Type and SMTP code; the text of such errors quotes addresses, hosts and user names."""
    code = getattr(error, "smtp_code", None)
    if isinstance(error, SMTPRecipientsRefused):
        code = next((code for code, _ in error.recipients.values()), None)
    return f"{type(error).__name__} {code}" if isinstance(code, int) else type(error).__name__


def _headers(content: MailContent) -> dict[str, str]:
    headers = {"Auto-Submitted": "auto-generated"}
    if content.thread:
        headers["References"] = content.thread
    return headers


def _render(content: MailContent) -> tuple[str, str]:
    context = {"content": content, "language": translation.get_language()}
    return (
        render_to_string("faceprint/mail/alert.txt", context),
        render_to_string("faceprint/mail/alert.html", context),
    )


@contextmanager
def site_language() -> Iterator[None]:
    """Use the site's language, whatever the language of the request or task that sends the mail."""
    with translation.override(conf.language):
        yield


# --- content ------------------------------------------------------------------------------------


def _alert_content(alert: Alert) -> MailContent:
    rule, facts = alert.rule, alert.facts
    headline = _headline(rule.condition, facts)
    severity = alert.get_severity_display()
    over = alert.resolved_at is not None
    lines = [(gettext("Since"), local_time(alert.opened_at))]
    if alert.resolved_at is not None:
        lines.append((gettext("Until"), local_time(alert.resolved_at)))
    else:
        lines.append((gettext("Last seen"), local_time(alert.last_seen_at)))
    lines += _numbers(rule.condition, facts)
    lines.append((gettext("Environment"), conf.environment))
    if over and alert.mailed_at is not None:
        is_loss = rule.condition == Condition.EVIDENCE_LOST
        severity = gettext("Acknowledged") if is_loss else gettext("Recovered")
    return MailContent(
        subject=one_line(f"[{severity}][faceprint] {headline}"),
        headline=headline,
        lines=lines,
        causes=[] if over else _causes(rule.condition),
        url=_admin_url("alert", alert.pk),
        thread=f"<faceprint-alert-{alert.pk}@{_mail_domain()}>",
    )


def _test_content(rule: AlertRule) -> MailContent:
    headline = gettext("This is a test of the rule: %(rule)s") % {"rule": rule.get_condition_display()}
    mark = gettext("Test")
    return MailContent(
        subject=one_line(f"[{mark}][faceprint] {rule.get_condition_display()}"),
        headline=headline,
        lines=[
            (gettext("Severity"), rule.get_severity_display()),
            (gettext("Environment"), conf.environment),
            (gettext("Sent"), local_time(now())),
        ],
        causes=[gettext("Nothing has happened. Mails about this rule will reach you here.")],
        url=_admin_url("alertrule", rule.pk),
    )


def _headline(condition: str, facts: dict[str, Any]) -> str:
    sessions = int(facts.get("sessions", 0))
    if condition == Condition.EVIDENCE_AT_RISK:
        text = ngettext(
            "Evidence of %(count)s session nears its deadline unarchived",
            "Evidence of %(count)s sessions nears its deadline unarchived",
            sessions,
        )
        return text % {"count": sessions}
    if condition == Condition.EVIDENCE_LOST:
        text = ngettext(
            "Evidence of %(count)s session was not archived in time",
            "Evidence of %(count)s sessions was not archived in time",
            sessions,
        )
        return text % {"count": sessions}
    if condition == Condition.UPSTREAM_ERRORS:
        text = gettext("%(percent)s%% of the calls to Baidu fail")
    elif condition == Condition.QUOTA:
        interfaces = int(facts.get("interfaces", 0))
        text = ngettext(
            "A quota is used up or not billed: %(count)s interface of Baidu refuses everything",
            "A quota is used up or not billed: %(count)s interfaces of Baidu refuse everything",
            interfaces,
        )
        return text % {"count": interfaces}
    else:
        text = gettext("%(percent)s%% of the verifications fail as under attack")
    return text % {"percent": _number(facts.get("percent", 0))}


def _numbers(condition: str, facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Value, threshold, window and sample size, with labels."""
    window = gettext("%(minutes)s minutes") % {"minutes": _number(facts.get("window_minutes", 0))}
    if condition == Condition.EVIDENCE_LOST:
        return [(gettext("Verification sessions"), _number(facts.get("sessions", 0)))]
    if condition == Condition.EVIDENCE_AT_RISK:
        lines = [
            (gettext("Verification sessions"), _number(facts.get("sessions", 0))),
            (gettext("Threshold"), gettext("less than %(window)s to the deadline") % {"window": window}),
        ]
        if "minutes_left" in facts:
            left = gettext("%(minutes)s minutes") % {"minutes": max(int(facts["minutes_left"]), 0)}
            lines.append((gettext("Left until the first deadline"), left))
        return lines
    if condition == Condition.QUOTA:
        minutes = gettext("%(minutes)s minutes") % {"minutes": _number(facts.get("minutes", 0))}
        refusing = sorted(f"{name} ({_number(facts[name])})" for name in ENDPOINTS if name in facts)
        return [
            (gettext("Interfaces (code)"), ", ".join(refusing)),
            (gettext("Nothing but refusals for"), minutes),
        ]
    return [
        (gettext("Value"), f"{_number(facts.get('percent', 0))}%"),
        (gettext("Threshold"), f"{_number(facts.get('threshold_percent', 0))}%"),
        (
            gettext("Sample"),
            gettext("%(count)s of %(total)s, at least %(minimum)s are needed")
            % {
                "count": _number(facts.get("count", 0)),
                "total": _number(facts.get("total", 0)),
                "minimum": _number(facts.get("minimum_count", 0)),
            },
        ),
        (gettext("Window"), window),
    ]


def _causes(condition: str) -> list[str]:
    """The most frequent causes, and the first thing to do."""
    if condition == Condition.EVIDENCE_AT_RISK:
        return [
            gettext("No worker is running, or beat does not reach it: run faceprint_doctor."),
            gettext("Baidu or the storage fails: see the last errors on the sessions."),
            gettext("The workers are too few or the QPS limit too low for the load."),
        ]
    if condition == Condition.EVIDENCE_LOST:
        return [
            gettext("Workers, storage or the network were down until Baidu had deleted the evidence."),
            gettext("The verify_token belongs to another application, so that nothing could be asked."),
            gettext("Acknowledge the alert in the admin once the sessions have been seen to."),
        ]
    if condition == Condition.UPSTREAM_ERRORS:
        return [
            gettext("Baidu is disturbed or the network is: the work is repeated by itself."),
            gettext("The keys or permissions were changed, or a quota is used up: run faceprint_doctor."),
            gettext("The QPS limit of the account is too low for the load."),
        ]
    if condition == Condition.QUOTA:
        return [
            gettext("Code 17 or 19: the daily or total quota is used up. Buy more in Baidu's console."),
            gettext(
                "Code 18: a paid backend interface has no quota or is not billed (人脸实名认证, 人脸对比, "
                "在线图片活体). Open its billing in Baidu's console."
            ),
            gettext("Codes 4 and 18 also when another system uses the same account: lower QPS in settings."),
        ]
    return [
        gettext("Somebody tries photos, videos or masks, or other people's names and numbers."),
        gettext("Stolen identity data is being tried out in bulk."),
        gettext("A change of the plan or of the page makes honest people fail: try a verification yourself."),
    ]


def _admin_url(model: str, pk: int) -> str:
    if not conf.public_url:
        return ""
    try:
        return conf.public_url + reverse(f"admin:faceprint_{model}_change", args=[pk])
    except NoReverseMatch:
        # The host runs no admin, or one under another name.
        return ""


def _mail_domain() -> str:
    return urlsplit(conf.public_url).hostname or "faceprint.invalid"


def local_time(moment: datetime) -> str:
    zone = timezone.get_default_timezone()
    return f"{date_format(moment.astimezone(zone), 'Y-m-d H:i')} ({timezone.get_default_timezone_name()})"


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def one_line(text: str) -> str:
    return " ".join(text.split())
