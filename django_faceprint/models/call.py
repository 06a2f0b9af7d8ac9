"""Calls to Baidu, and the state about Baidu that all workers share."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_faceprint.clock import now
from django_faceprint.privacy.fields import EncryptedTextField

from .identifiers import time_ordered_uuid
from .session import VerificationSession


class UpstreamCall(models.Model):
    """One request to Baidu: interface, outcome and time, without content. Kept for a short time."""

    OK = "ok"
    TRANSPORT = "transport"

    environment = models.CharField(max_length=10, choices=VerificationSession.Environment.choices)
    application = models.CharField(_("application"), max_length=50)
    endpoint = models.CharField(_("interface"), max_length=40)
    outcome = models.CharField(_("outcome"), max_length=30)
    code = models.CharField(_("code"), max_length=40, blank=True, default="")
    log_id = models.CharField(_("log_id"), max_length=40, blank=True, default="")
    http_status = models.PositiveSmallIntegerField(null=True)
    latency = models.FloatField(_("latency (s)"))
    session = models.ForeignKey(
        VerificationSession, models.SET_NULL, null=True, related_name="calls", verbose_name=_("session")
    )
    at = models.DateTimeField(_("time"), default=now, db_index=True)

    class Meta:
        verbose_name = _("upstream call")
        verbose_name_plural = _("upstream calls")
        ordering = ["-at"]
        indexes = [models.Index(fields=["log_id"], name="faceprint_call_log_id")]

    def __str__(self) -> str:
        return f"{self.endpoint}: {self.outcome}"


class AccessToken(models.Model):
    """The OAuth access_token of one application, encrypted and shared by all processes.

    ``key`` is a hash of API host and API key. The worker with the lease fetches a new token; others wait.
    """

    public_id = models.UUIDField(unique=True, default=time_ordered_uuid, editable=False)
    key = models.CharField(max_length=64, unique=True)
    token = EncryptedTextField(label="access_token.token", null=True)
    token_index = models.CharField(max_length=80, blank=True, default="")
    expires_at = models.DateTimeField(null=True)
    renew_at = models.DateTimeField(null=True)
    lease_holder = models.CharField(max_length=40, blank=True, default="")
    lease_until = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("access token")
        verbose_name_plural = _("access tokens")

    def __str__(self) -> str:
        return f"access token {self.pk}"


class RateLimitBucket(models.Model):
    """The earliest time of the next request to one interface with one Baidu account, for all workers.

    ``free_at`` is in microseconds since 1970 by the database's clock. ``throttled`` is the number of
    consecutive rate-limit answers, from ``throttled_since`` to ``throttled_at``.
    """

    account = models.CharField(max_length=50)
    endpoint = models.CharField(max_length=40)
    free_at = models.BigIntegerField(default=0)
    paused_until = models.DateTimeField(null=True)
    throttled = models.PositiveIntegerField(default=0)
    throttled_since = models.DateTimeField(null=True)
    throttled_at = models.DateTimeField(null=True)
    throttled_code = models.CharField(max_length=40, blank=True, default="")

    class Meta:
        verbose_name = _("rate limit bucket")
        verbose_name_plural = _("rate limit buckets")
        constraints = [
            models.UniqueConstraint(fields=["account", "endpoint"], name="faceprint_bucket_interface"),
        ]

    def __str__(self) -> str:
        return f"{self.account} {self.endpoint}"


class Heartbeat(models.Model):
    """The last run of a part of the engine: ``tick`` (beat reaches a worker), ``collect``, ``alerts`` …"""

    name = models.CharField(max_length=40, unique=True)
    at = models.DateTimeField()

    class Meta:
        verbose_name = _("heartbeat")
        verbose_name_plural = _("heartbeats")

    def __str__(self) -> str:
        return self.name
