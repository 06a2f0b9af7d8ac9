"""Who looked at what, and why."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_faceprint.clock import now
from django_faceprint.privacy.fields import EncryptedTextField

from .identifiers import time_ordered_uuid


class AccessLog(models.Model):
    """One look at a record or a file. Append-only, without foreign keys: it outlives what it tells of."""

    class Action(models.TextChoices):
        VIEW_RECORD = "view_record", _("viewed record")
        VIEW_MEDIA = "view_media", _("viewed file")
        REFRESH = "refresh", _("asked Baidu again")
        ARCHIVE_AGAIN = "archive_again", _("archived again")
        LOOKUP = "lookup", _("looked up a person")
        REVEAL = "reveal", _("revealed identity")
        DOWNLOAD_MEDIA = "download_media", _("downloaded file")
        EXPORT = "export", _("exported records")
        WITHDRAW = "withdraw", _("withdrew consent")
        ERASE = "erase", _("erased record")

    public_id = models.UUIDField(unique=True, default=time_ordered_uuid, editable=False)
    at = models.DateTimeField(_("time"), default=now, db_index=True)
    actor_id = models.CharField(_("actor ID"), max_length=64)
    actor_name = models.CharField(_("actor"), max_length=150)
    action = models.CharField(_("action"), max_length=30, choices=Action.choices)
    session_id = models.UUIDField(_("session"), null=True, db_index=True)
    asset_id = models.UUIDField(_("file"), null=True)
    channel = models.CharField(_("channel"), max_length=10)
    address = models.GenericIPAddressField(_("address"), null=True)
    reason_code = models.CharField(_("reason"), max_length=30, blank=True, default="")
    #: SHA-256 of the reason's salt and text; what it hides is erased with :class:`AccessReason`.
    reason_digest = models.CharField(max_length=64, blank=True, default="", editable=False)

    class Meta:
        verbose_name = _("access log entry")
        verbose_name_plural = _("access log")
        ordering = ["-at", "-pk"]

    def __str__(self) -> str:
        return f"{self.action} {self.pk}"


class AccessReason(models.Model):
    """Why someone looked, in their own words, which may name a person: apart from the log, and erasable.

    Its ``public_id`` is that of the entry. Without the salt, the digest that the entry keeps tells nothing.
    """

    public_id = models.UUIDField(unique=True, editable=False)
    text = EncryptedTextField(label="access.reason")
    salt = models.CharField(max_length=64, editable=False)

    class Meta:
        verbose_name = _("access reason")
        verbose_name_plural = _("access reasons")

    def __str__(self) -> str:
        return str(self.public_id)
