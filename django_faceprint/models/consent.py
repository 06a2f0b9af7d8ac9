"""Evidence of consent. It is kept longer than the faces to which it refers."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_faceprint.clock import now
from django_faceprint.privacy.fields import EncryptedTextField

from .identifiers import time_ordered_uuid


class ConsentRecord(models.Model):
    """The consent to one verification. It has no foreign keys, and is kept for ``LOG_RETENTION``."""

    public_id = models.UUIDField(unique=True, default=time_ordered_uuid, editable=False)
    session_id = models.UUIDField(_("session"), unique=True)
    recorded_at = models.DateTimeField(_("recorded"), default=now, db_index=True)
    given_at = models.DateTimeField(_("given"), null=True)
    purpose = models.CharField(_("purpose"), max_length=100, blank=True, default="")
    notice_version = models.CharField(_("notice version"), max_length=100, blank=True, default="")
    channel = models.CharField(_("channel"), max_length=100, blank=True, default="")
    is_separate = models.BooleanField(_("separate consent (单独同意)"), default=False)
    names_recipient = models.BooleanField(_("names Baidu as recipient"), default=False)
    alternative_offered = models.BooleanField(_("alternative offered"), default=False)
    # Where the host keeps the consent, e.g. the number of a document or a contract.
    reference = EncryptedTextField(label="consent.reference", null=True)
    guardian_reference = EncryptedTextField(label="consent.guardian_reference", null=True)
    withdrawn_at = models.DateTimeField(_("withdrawn"), null=True)
    withdrawn_by = models.CharField(_("withdrawn by"), max_length=150, blank=True, default="")

    class Meta:
        verbose_name = _("consent record")
        verbose_name_plural = _("consent records")

    def __str__(self) -> str:
        return str(self.public_id)
