"""Alerts (数据报警): the rules that operators set, and the alerts that they open."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, validate_email
from django.db import models
from django.utils.translation import gettext_lazy as _

from django_faceprint.clock import now


class AlertRule(models.Model):
    """When to alert whom. ``migrate`` creates one rule per condition, which operators edit in the admin."""

    class Condition(models.TextChoices):
        EVIDENCE_AT_RISK = "evidence_at_risk", _("evidence nears its deadline unarchived")
        EVIDENCE_LOST = "evidence_lost", _("evidence was not archived in time")
        UPSTREAM_ERRORS = "upstream_errors", _("calls to Baidu fail")
        QUOTA = "quota", _("a quota is used up or a backend interface is not billed")
        ATTACK = "attack", _("many verifications fail (attack)")

    class Severity(models.TextChoices):
        NOTICE = "notice", _("notice")
        WARNING = "warning", _("warning")
        CRITICAL = "critical", _("critical")

    condition = models.CharField(_("condition"), max_length=30, choices=Condition.choices, unique=True)
    enabled = models.BooleanField(_("enabled"), default=True)
    severity = models.CharField(
        _("severity"), max_length=10, choices=Severity.choices, default=Severity.WARNING
    )
    window_minutes = models.PositiveIntegerField(
        _("window (minutes)"),
        default=30,
        validators=[MinValueValidator(1), MaxValueValidator(7 * 24 * 60)],
        help_text=_(
            "For shares: the period that is counted. For evidence at risk: the time left until the deadline."
        ),
    )
    share_percent = models.FloatField(
        _("share (percent)"), default=20, validators=[MinValueValidator(0), MaxValueValidator(100)]
    )
    minimum_count = models.PositiveIntegerField(
        _("minimum count"),
        default=20,
        validators=[MinValueValidator(1)],
        help_text=_("Fewer events than this in the window never alert."),
    )
    recipients = models.TextField(
        _("recipients"), blank=True, default="", help_text=_("E-mail addresses, one per line.")
    )

    class Meta:
        verbose_name = _("alert rule")
        verbose_name_plural = _("alert rules")
        ordering = ["condition"]

    def __str__(self) -> str:
        return self.get_condition_display()

    @property
    def addresses(self) -> list[str]:
        """The recipients without duplicates, in the order of the lines."""
        return list(dict.fromkeys(line.strip() for line in self.recipients.splitlines() if line.strip()))

    def clean(self) -> None:
        """Refuse lines that are no e-mail address. The error contains the line's number."""
        for number, address in enumerate(self.addresses, start=1):
            try:
                validate_email(address)
            except ValidationError:
                raise ValidationError(
                    {"recipients": _("Line %(number)s is not an e-mail address.") % {"number": number}}
                ) from None


class Alert(models.Model):
    """An alert: from the first evaluation at which the condition holds until it no longer holds.

    ``open_key`` names the condition while the alert is open and is NULL afterwards. It is unique, so two
    workers cannot open two alerts for one condition.
    """

    rule = models.ForeignKey(AlertRule, models.CASCADE, related_name="alerts", verbose_name=_("rule"))
    open_key = models.CharField(max_length=80, null=True, unique=True, editable=False)
    severity = models.CharField(_("severity"), max_length=10, choices=AlertRule.Severity.choices)
    opened_at = models.DateTimeField(_("opened"), default=now, db_index=True)
    last_seen_at = models.DateTimeField(_("last seen"), default=now)
    resolved_at = models.DateTimeField(_("resolved"), null=True)
    facts = models.JSONField(_("facts"), default=dict)
    mailed_at = models.DateTimeField(_("mailed"), null=True)
    mail_error = models.CharField(_("mail error"), max_length=200, blank=True, default="")
    acknowledged_at = models.DateTimeField(_("acknowledged"), null=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("acknowledged by"),
    )

    class Meta:
        verbose_name = _("alert")
        verbose_name_plural = _("alerts")
        ordering = ["-opened_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.rule} {self.opened_at:%Y-%m-%d %H:%M}"
