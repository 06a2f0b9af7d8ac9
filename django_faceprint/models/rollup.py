"""Roll-ups: hourly counts. Charts read them instead of the tables that they count."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .session import VerificationSession


class Rollup(models.Model):
    """One count of one hour: *metric*, broken down by *key*.

    A session counts in the hour of its creation, also when it changes later; a call in the hour in which it
    was made. ``plan`` is the primary key of the plan, 0 without one. ``total`` is a sum in the unit of the
    metric (seconds for calls), 0 where there is only a count. A new metric needs no migration. Only
    ``records.rollups`` writes this table, and it must never hold personal data.
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
    """When one hour is counted next. ``due_at`` is NULL when its counts can no longer change.

    A worker claims an hour by moving ``due_at`` ahead, and writes only if ``due_at`` is unchanged since then.
    """

    hour = models.DateTimeField(unique=True)
    due_at = models.DateTimeField(null=True, db_index=True)
    # Calls never change after their hour; sessions do.
    calls_counted = models.BooleanField(default=False)

    class Meta:
        verbose_name = _("hour of roll-ups")
        verbose_name_plural = _("hours of roll-ups")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}"


class StorageBlock(models.Model):
    """Size of the files of 10,000 rows, from ``number`` × 10,000 on. The blocks are recounted in turn."""

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
    """The admin's dashboard page, drawn from the roll-ups."""

    class Meta:
        proxy = True
        verbose_name = _("dashboard")
        verbose_name_plural = _("dashboard")
        default_permissions = ()
