"""Roll-ups: counts by the hour, from which charts are drawn instead of from the tables that they count."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .session import VerificationSession


class Rollup(models.Model):
    """One count of one hour: of *metric*, broken down by *key*.

    Sessions count in the hour in which they were created, whatever comes later; calls in that in which they
    were made. ``plan`` is the key of the plan's row, 0 where there is none. ``total`` is a sum in the unit
    of the metric (seconds for calls), 0 where only the count means something. A new metric needs no
    migration. Written by ``records.rollups`` only, and never a place for anything about a person.
    """

    environment = models.CharField(max_length=10, choices=VerificationSession.Environment.choices)
    hour = models.DateTimeField()
    plan = models.PositiveBigIntegerField(default=0)
    metric = models.CharField(max_length=20)
    key = models.CharField(max_length=100, blank=True, default="")
    count = models.BigIntegerField(default=0)
    total = models.FloatField(default=0.0)

    class Meta:
        verbose_name = _("roll-up")
        verbose_name_plural = _("roll-ups")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "hour", "plan", "metric", "key"], name="faceprint_rollup_identity"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H} {self.metric} {self.key}"


class RollupHour(models.Model):
    """When one hour is counted next: ``due_at`` is NULL when nothing in it can change any more.

    A worker takes an hour by moving ``due_at`` ahead and writes only while it still stands there.
    """

    hour = models.DateTimeField(unique=True)
    due_at = models.DateTimeField(null=True, db_index=True)
    # Calls are over with their hour, sessions are not.
    calls_counted = models.BooleanField(default=False)

    class Meta:
        verbose_name = _("hour of roll-ups")
        verbose_name_plural = _("hours of roll-ups")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}"


class StorageBlock(models.Model):
    """How much the files of one range of rows take: numbers ``number`` × 10,000 and on. Recounted in turn."""

    number = models.PositiveBigIntegerField(unique=True)
    files = models.PositiveBigIntegerField(default=0)
    bytes = models.PositiveBigIntegerField(default=0)
    counted_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = _("block of stored files")
        verbose_name_plural = _("blocks of stored files")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.number}"


class Dashboard(Rollup):
    """The roll-ups as a page of the admin."""

    class Meta:
        proxy = True
        verbose_name = _("dashboard")
        verbose_name_plural = _("dashboard")
        default_permissions = ()
