"""Erasures: the proof that evidence was erased."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_faceprint.clock import now
from django_faceprint.privacy.fields import EncryptedTextField

from .identifiers import time_ordered_uuid


class Erasure(models.Model):
    """One erasure, at a person's request or for another reason. Without foreign keys: it outlives records.

    ``verified_at`` is the time when storage had none of its files any more; NULL until then.
    """

    public_id = models.UUIDField(unique=True, default=time_ordered_uuid, editable=False)
    at = models.DateTimeField(_("time"), default=now, db_index=True)
    actor_id = models.CharField(_("actor ID"), max_length=64, blank=True, default="")
    actor_name = models.CharField(_("actor"), max_length=150)
    channel = models.CharField(_("channel"), max_length=10)
    reason = EncryptedTextField(label="erasure.reason")
    sessions = models.JSONField(_("sessions"), default=list)
    files = models.PositiveIntegerField(_("files"), default=0)
    bytes = models.PositiveBigIntegerField(_("bytes"), default=0)
    answers = models.PositiveIntegerField(_("answers"), default=0)
    verified_at = models.DateTimeField(_("verified"), null=True, db_index=True)

    class Meta:
        verbose_name = _("erasure")
        verbose_name_plural = _("erasures")
        ordering = ["-at", "-pk"]

    def __str__(self) -> str:
        return str(self.public_id)
