"""Raw answers of Baidu. They are stored as evidence before they are parsed."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_faceprint.clock import now
from django_faceprint.privacy.fields import EncryptedTextField

from .identifiers import time_ordered_uuid
from .session import VerificationSession


class UpstreamAnswer(models.Model):
    """An answer of one interface about a session, encrypted.

    Base64 pictures are moved to assets and replaced by asset id and hash, so that erasing an asset leaves no
    copy. Of an answer that cannot be parsed, up to 1 MB is kept. Equal answers share one row: ``body_index``
    is a keyed hash of the stored text.
    """

    public_id = models.UUIDField(unique=True, default=time_ordered_uuid, editable=False)
    session = models.ForeignKey(
        VerificationSession, models.CASCADE, related_name="answers", verbose_name=_("session")
    )
    endpoint = models.CharField(_("interface"), max_length=40)
    body = EncryptedTextField(label="answer.body", null=True)
    body_index = models.CharField(max_length=80, editable=False)
    log_id = models.CharField(_("log_id"), max_length=40, blank=True, default="")
    code = models.CharField(_("code"), max_length=40, blank=True, default="")
    parsed = models.BooleanField(_("understood"), default=True)
    oddities = models.JSONField(_("oddities"), default=list)
    received_at = models.DateTimeField(_("received"), default=now)

    class Meta:
        verbose_name = _("upstream answer")
        verbose_name_plural = _("upstream answers")
        ordering = ["session", "received_at"]
        indexes = [models.Index(fields=["log_id"], name="faceprint_answer_log_id")]
        constraints = [
            models.UniqueConstraint(
                fields=["session", "endpoint", "body_index"], name="faceprint_answer_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.endpoint} {self.log_id}"
