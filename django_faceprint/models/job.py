"""Jobs: actions and exports that an operator starts for many records, done in steps."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from django_faceprint.clock import now
from django_faceprint.privacy.fields import EncryptedTextField

from .identifiers import time_ordered_uuid


class Job(models.Model):
    """One action on a frozen selection of records, in the order of their keys, in steps that survive a crash.

    ``first_key`` is the key of the first record, ``cursor`` that of the last one done. Each claim increments
    ``lease_epoch``, and every later write requires that epoch. Workers may claim the job from ``wake_at``
    on; NULL: it is finished. The actor is stored as text, because a job outlives its user. :class:`JobPart`
    holds the files of an export or a bundle.
    """

    class Kind(models.TextChoices):
        EXPORT_CSV = "export_csv", _("export (CSV)")
        EXPORT_XLSX = "export_xlsx", _("export (Excel)")
        BUNDLE = "bundle", _("evidence bundle")
        QUERY_NOW = "query_now", _("query now")
        ARCHIVE_AGAIN = "archive_again", _("archive again")
        ERASE = "erase", _("erase")

    class State(models.TextChoices):
        WAITING = "waiting", pgettext_lazy("job", "waiting")
        RUNNING = "running", pgettext_lazy("job", "running")
        DONE = "done", pgettext_lazy("job", "done")
        FAILED = "failed", pgettext_lazy("job", "failed")
        CANCELLED = "cancelled", pgettext_lazy("job", "cancelled")
        EXPIRED = "expired", pgettext_lazy("job", "expired")

    FILE_KINDS = frozenset({Kind.EXPORT_CSV, Kind.EXPORT_XLSX, Kind.BUNDLE})
    UNFINISHED = frozenset({State.WAITING, State.RUNNING})

    public_id = models.UUIDField(_("job ID"), unique=True, default=time_ordered_uuid, editable=False)
    kind = models.CharField(_("kind"), max_length=20, choices=Kind.choices)
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.WAITING)
    actor_id = models.CharField(_("actor ID"), max_length=64)
    actor_name = models.CharField(_("actor"), max_length=150)
    channel = models.CharField(_("channel"), max_length=10)
    address = models.GenericIPAddressField(_("address"), null=True)
    reason_code = models.CharField(_("reason"), max_length=30, blank=True, default="")
    # Free text, which may name a person.
    reason = EncryptedTextField(label="job.reason", null=True)
    unmasked = models.BooleanField(_("in clear"), default=False)
    # For a bundle: include the access log, which names colleagues.
    with_log = models.BooleanField(default=False, editable=False)
    selection = models.JSONField(_("selection"))
    language = models.CharField(_("language"), max_length=20)
    time_zone = models.CharField(_("time zone"), max_length=50)

    total = models.PositiveBigIntegerField(_("records"), null=True)
    done = models.PositiveBigIntegerField(_("done"), default=0)
    skipped = models.PositiveBigIntegerField(_("skipped"), default=0)
    first_key = models.PositiveBigIntegerField(null=True, editable=False)
    cursor = models.PositiveBigIntegerField(default=0, editable=False)
    failures = models.PositiveIntegerField(default=0, editable=False)
    problem = models.CharField(_("problem"), max_length=30, blank=True, default="")
    created_at = models.DateTimeField(_("created"), default=now)
    started_at = models.DateTimeField(_("work began"), null=True)
    finished_at = models.DateTimeField(_("finished"), null=True)
    expires_at = models.DateTimeField(_("expires"), null=True, db_index=True)
    wake_at = models.DateTimeField(null=True, editable=False)
    lease_epoch = models.PositiveBigIntegerField(default=0, editable=False)

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        ordering = ["-created_at", "-pk"]
        indexes = [
            models.Index(fields=["wake_at"], name="faceprint_job_wake"),
            models.Index(fields=["actor_id", "created_at"], name="faceprint_job_actor"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.public_id}"

    @property
    def has_file(self) -> bool:
        """Whether there is a file to download."""
        return self.state == self.State.DONE and self.kind in self.FILE_KINDS

    @property
    def is_unfinished(self) -> bool:
        """Whether the job waits or runs."""
        return self.state in self.UNFINISHED


class JobPart(models.Model):
    """One file of a job's result, encrypted like an archived file. ``rows`` is its number of records."""

    public_id = models.UUIDField(unique=True, default=time_ordered_uuid, editable=False)
    job = models.ForeignKey(Job, models.CASCADE, related_name="parts")
    order = models.PositiveIntegerField()
    rows = models.PositiveIntegerField(default=0)
    stored_name = models.CharField(max_length=200)
    wrapped_key = models.BinaryField()
    size = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)

    class Meta:
        verbose_name = _("part of a job")
        verbose_name_plural = _("parts of jobs")
        ordering = ["job", "order"]
        constraints = [
            models.UniqueConstraint(fields=["job", "order"], name="faceprint_job_part_order"),
        ]

    def __str__(self) -> str:
        return f"{self.job_id}/{self.order}"
