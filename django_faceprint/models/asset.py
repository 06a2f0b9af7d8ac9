"""Archived files (归档文件): pictures and videos of a session."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_faceprint.clock import now

from .identifiers import time_ordered_uuid
from .session import VerificationSession


class MediaAssetQuerySet(models.QuerySet["MediaAsset"]):
    """Questions about assets."""

    def wanted(self) -> MediaAssetQuerySet:
        """Assets that are still to be fetched."""
        return self.filter(state=MediaAsset.State.WANTED)

    def stored(self) -> MediaAssetQuerySet:
        """Assets that lie encrypted in storage."""
        return self.filter(state=MediaAsset.State.STORED)


class MediaAsset(models.Model):
    """One picture or video that a verification yields, wanted from the moment we know of it.

    Identity is (session, attempt order or 0, kind, position): upstream URLs change with every query.
    ``sha256`` and ``size`` (bytes) are those of the plaintext. The key of the encrypted file is
    wrapped in ``wrapped_key``: deleting it destroys the file, backups included.
    """

    class Kind(models.TextChoices):
        FACE = "face", _("face")
        ATTEMPT_FACE = "attempt_face", _("face of an attempt")
        ID_FRONT = "id_front", _("ID card, portrait side")
        ID_BACK = "id_back", _("ID card, emblem side")
        MATCH_IMAGE = "match_image", _("match image")
        PROCESS_VIDEO = "process_video", _("process video")
        VIDEO = "video", _("recorded video")
        FRAME = "frame", _("video frame")
        THUMBNAIL = "thumbnail", _("thumbnail")

    VIDEO_KINDS = frozenset({Kind.PROCESS_VIDEO, Kind.VIDEO})
    MEDIA_KINDS = frozenset({Kind.PROCESS_VIDEO, Kind.VIDEO, Kind.FRAME})

    #: ``reason`` of a kind that is switched off in the retention of the plan or the settings.
    NOT_KEPT = "not_kept"

    class State(models.TextChoices):
        WANTED = "wanted", _("to be archived")
        STORED = "stored", _("archived")
        NOT_PROVIDED = "not_provided", _("not provided by Baidu")
        LOST = "lost", _("not archived in time")
        ERASED = "erased", _("erased")

    class Source(models.TextChoices):
        SIMPLE = "result_simple", "result/simple"
        DETAIL = "result_detail", "result/detail"
        MEDIA = "result_media_query", "result/media/query"
        GETALL = "result_getall", "result/getall"
        UPLOAD = "upload", _("upload by the host")

    public_id = models.UUIDField(_("file ID"), unique=True, default=time_ordered_uuid, editable=False)
    session = models.ForeignKey(
        VerificationSession, models.CASCADE, related_name="assets", verbose_name=_("session")
    )
    attempt_order = models.PositiveIntegerField(_("attempt"), default=0)
    kind = models.CharField(_("kind"), max_length=20, choices=Kind.choices)
    position = models.PositiveSmallIntegerField(_("position"), default=0)
    state = models.CharField(_("state"), max_length=20, choices=State.choices, default=State.WANTED)
    reason = models.CharField(_("reason"), max_length=200, blank=True, default="")
    source = models.CharField(_("source"), max_length=20, choices=Source.choices)
    deadline = models.DateTimeField(_("deadline"), null=True)
    give_up_at = models.DateTimeField(null=True, editable=False)
    sha256 = models.CharField("SHA-256", max_length=64, blank=True, default="")
    size = models.PositiveBigIntegerField(_("size (bytes)"), null=True)
    content_type = models.CharField(_("content type"), max_length=50, blank=True, default="")
    width = models.PositiveIntegerField(_("width"), null=True)
    height = models.PositiveIntegerField(_("height"), null=True)
    duration = models.FloatField(_("duration (s)"), null=True)
    plain_http = models.BooleanField(_("fetched over plain HTTP"), default=False)
    stored_name = models.CharField(max_length=200, blank=True, default="", editable=False)
    wrapped_key = models.BinaryField(null=True, editable=False)
    # Of one picture per record, sealed under the file's key.
    thumbnail = models.BinaryField(null=True, editable=False)
    # When upstream first named its URL: from then on its absence means that it has expired.
    named_at = models.DateTimeField(null=True, editable=False)
    # What upstream said instead of naming a recording (``extInfo``).
    ext_info = models.CharField(_("upstream's explanation"), max_length=200, blank=True, default="")
    tries = models.PositiveIntegerField(_("tries"), default=0)
    error_class = models.CharField(_("error class"), max_length=30, blank=True, default="")
    error_detail = models.CharField(_("error detail"), max_length=200, blank=True, default="")
    created_at = models.DateTimeField(_("created"), default=now)
    archived_at = models.DateTimeField(_("archived"), null=True)
    # Of a stored file that goes before its record; NULL: it goes with it.
    retain_until = models.DateTimeField(_("kept until"), null=True, db_index=True)

    objects = MediaAssetQuerySet.as_manager()

    class Meta:
        verbose_name = _("archived file")
        verbose_name_plural = _("archived files")
        ordering = ["session", "attempt_order", "kind", "position"]
        constraints = [
            models.UniqueConstraint(
                fields=["session", "attempt_order", "kind", "position"], name="faceprint_asset_identity"
            ),
        ]
        indexes = [
            models.Index(fields=["state", "deadline"], name="faceprint_asset_deadline"),
        ]

    def __str__(self) -> str:
        return str(self.public_id)

    @property
    def is_not_kept(self) -> bool:
        """Not there because the rules of retention say so, not because Baidu made none."""
        return self.state == self.State.NOT_PROVIDED and self.reason == self.NOT_KEPT

    @property
    def is_video(self) -> bool:
        """A video rather than a picture."""
        return self.kind in self.VIDEO_KINDS


class UploadIntent(models.Model):
    """A name under which a file is about to be written to storage.

    Recorded before the upload, deleted in the transaction that commits the asset. What remains
    after a crash names a file that no row refers to; ``faceprint.retain`` deletes both.
    """

    name = models.CharField(max_length=200, unique=True)
    # Outlives its session: the file must still be found and deleted.
    session = models.ForeignKey(VerificationSession, models.SET_NULL, null=True, related_name="+")
    # Set by whoever is about to delete the file: from then on it can no longer be committed.
    abandoned = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=now, db_index=True)

    class Meta:
        verbose_name = _("upload intent")
        verbose_name_plural = _("upload intents")

    def __str__(self) -> str:
        return f"upload intent {self.pk}"
