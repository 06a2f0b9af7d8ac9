"""Who looked at what."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_faceprint.clock import now


class AccessLog(models.Model):
    """One look at a record or a file. Append-only, without foreign keys: it outlives what it tells of."""

    class Action(models.TextChoices):
        VIEW_RECORD = "view_record", _("viewed record")
        VIEW_MEDIA = "view_media", _("viewed file")
        REFRESH = "refresh", _("asked Baidu again")
        ARCHIVE_AGAIN = "archive_again", _("archived again")
        ERASE = "erase", _("erased record")

    at = models.DateTimeField(_("time"), default=now, db_index=True)
    actor_id = models.CharField(_("actor ID"), max_length=64)
    actor_name = models.CharField(_("actor"), max_length=150)
    action = models.CharField(_("action"), max_length=30, choices=Action.choices)
    session_id = models.UUIDField(_("session"), null=True, db_index=True)
    asset_id = models.UUIDField(_("file"), null=True)
    channel = models.CharField(_("channel"), max_length=10)
    address = models.GenericIPAddressField(_("address"), null=True)

    class Meta:
        verbose_name = _("access log entry")
        verbose_name_plural = _("access log")
        ordering = ["-at", "-pk"]

    def __str__(self) -> str:
        return f"{self.action} {self.pk}"
