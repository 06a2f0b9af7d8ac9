"""The access log: who viewed or changed which record or file, and why."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_faceprint.clock import now
from django_faceprint.privacy.fields import EncryptedTextField

from .append_only import AppendOnly, AppendOnlyQuerySet
from .identifiers import time_ordered_uuid


class AccessLogQuerySet(AppendOnlyQuerySet["AccessLog"]):
    """Entries of the access log. They can be read and added."""


class AccessLog(AppendOnly):
    """One access to a record or a file. It has no foreign keys, because it outlives the record."""

    class Action(models.TextChoices):
        VIEW_RECORD = "view_record", _("viewed record")
        VIEW_MEDIA = "view_media", _("viewed file")
        REFRESH = "refresh", _("asked Baidu again")
        ARCHIVE_AGAIN = "archive_again", _("archived again")
        LOOKUP = "lookup", _("looked up a person")
        REVEAL = "reveal", _("revealed identity")
        DOWNLOAD_MEDIA = "download_media", _("downloaded file")
        EXPORT = "export", _("exported records")
        DOWNLOAD_EXPORT = "download_export", _("downloaded an export")
        WITHDRAW = "withdraw", _("withdrew consent")
        ERASE = "erase", _("erased record")

    #: The same as that of the entry's :class:`AccessReason`. Not indexed, because an index slows each access.
    public_id = models.UUIDField(default=time_ordered_uuid, editable=False)
    at = models.DateTimeField(_("time"), default=now, db_index=True)
    actor_id = models.CharField(_("actor ID"), max_length=64)
    actor_name = models.CharField(_("actor"), max_length=150)
    action = models.CharField(_("action"), max_length=30, choices=Action.choices)
    session_id = models.UUIDField(_("session"), null=True, db_index=True)
    asset_id = models.UUIDField(_("file"), null=True)
    channel = models.CharField(_("channel"), max_length=10)
    address = models.GenericIPAddressField(_("address"), null=True)
    reason_code = models.CharField(_("reason"), max_length=30, blank=True, default="")
    #: SHA-256 of the reason's salt and text, which :class:`AccessReason` holds until they are erased.
    reason_digest = models.CharField(max_length=64, blank=True, default="", editable=False)

    objects = AccessLogQuerySet.as_manager()

    class Meta:
        verbose_name = _("access log entry")
        verbose_name_plural = _("access log")
        ordering = ["-at", "-pk"]

    def __str__(self) -> str:
        return f"{self.action} {self.pk}"


class AccessSealQuerySet(AppendOnlyQuerySet["AccessSeal"]):
    """Links of the chain. They can be added; only the MAC can be replaced, by that of another key."""

    def renew_mac(self, link: AccessSeal, mac: str) -> None:
        """Replace the MAC of *link*, unless it has changed since *link* was read."""
        models.QuerySet.update(self.filter(pk=link.pk, mac=link.mac), mac=mac)


class AccessSeal(AppendOnly):
    """One link of the chain that shows whether entries of the access log were changed or removed.

    ``digest`` is the SHA-256 of the entry and the digest before it. ``mac`` is a keyed MAC over ``digest``
    (``keyid:hex``). To change an entry unnoticed, an attacker must replace all later links, and lacks the
    key. A rotation of keys replaces the MACs and leaves the digests.
    """

    sequence = models.BigIntegerField(primary_key=True)
    log_id = models.BigIntegerField(unique=True)
    version = models.PositiveSmallIntegerField(default=1)
    digest = models.CharField(max_length=64)
    mac = models.CharField(max_length=80)
    sealed_at = models.DateTimeField(db_index=True)

    objects = AccessSealQuerySet.as_manager()

    class Meta:
        verbose_name = _("seal of the access log")
        verbose_name_plural = _("seals of the access log")

    def __str__(self) -> str:
        return f"{self.sequence}:{self.digest[:16]}"


class AccessReason(models.Model):
    """The reason for an access as free text. It may name a person, so it can be erased without the entry.

    ``public_id`` is that of the entry. Without the salt, the entry's digest does not reveal the text.
    """

    public_id = models.UUIDField(unique=True, editable=False)
    text = EncryptedTextField(label="access.reason")
    salt = models.CharField(max_length=64, editable=False)

    class Meta:
        verbose_name = _("access reason")
        verbose_name_plural = _("access reasons")

    def __str__(self) -> str:
        return str(self.public_id)
