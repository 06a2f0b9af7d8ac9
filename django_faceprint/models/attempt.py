"""Attempts: each try of a person with one verify_token, as result/getall lists them."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .session import VerificationSession


class VerificationAttempt(models.Model):
    """One try (API reference 3.8). The person's name and number are only in the encrypted answer."""

    session = models.ForeignKey(
        VerificationSession, models.CASCADE, related_name="attempts", verbose_name=_("session")
    )
    order = models.PositiveIntegerField(_("order"))
    passed = models.BooleanField(_("passed"), null=True)
    code = models.CharField(_("code"), max_length=40, blank=True, default="")
    message = models.CharField(_("message"), max_length=200, blank=True, default="")
    verified_at = models.DateTimeField(_("time"), null=True)
    score = models.FloatField(_("similarity score"), null=True)
    threshold = models.FloatField(_("threshold"), null=True)
    liveness_score = models.FloatField(_("liveness score"), null=True)
    spoofing_score = models.FloatField(_("spoofing score"), null=True)
    risk_level = models.CharField(_("risk level"), max_length=20, blank=True, default="")
    risk_tag = models.CharField(_("risk tag"), max_length=200, blank=True, default="")
    is_demoted = models.BooleanField(_("demoted to recorded video"), null=True)
    is_charged = models.BooleanField(_("charged"), null=True)
    charge_type = models.CharField(_("charge type"), max_length=20, blank=True, default="")
    verify_log_id = models.CharField(_("backend log_id"), max_length=40, blank=True, default="")

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        ordering = ["session", "order"]
        constraints = [
            models.UniqueConstraint(fields=["session", "order"], name="faceprint_attempt_order"),
        ]

    def __str__(self) -> str:
        return f"{self.session_id}/{self.order}"
