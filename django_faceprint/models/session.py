"""Verification sessions (认证记录): one verify_token and all that became of it."""

from __future__ import annotations

import uuid
from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from django_faceprint.clock import now
from django_faceprint.privacy.fields import EncryptedJSONField, EncryptedTextField
from django_faceprint.privacy.masking import mask_name, mask_number

from .identifiers import time_ordered_uuid
from .plan import Plan

#: What only the page of one record needs, or nobody who looks: lists leave it in the database.
NOT_LISTED = ("verify_token", "ocr", "return_url", "stat")

#: As a condition, what :attr:`VerificationSession.is_prepared` says of a row,
IS_PREPARED = Q(adopted_at__isnull=False) | (
    Q(token_answered_at__isnull=False)
    & (Q(identity_accepted_at__isnull=False) | ~Q(plan__identity_entry=Plan.IdentityEntry.SPECIFIED))
    & (Q(match_image_accepted_at__isnull=False) | ~Q(plan__match_source=Plan.MatchSource.MATCH_IMAGE))
)
#: and what :attr:`VerificationSession.has_outstanding_work` says.
HAS_WORK = Q(wake_at__isnull=False) | Q(priority_at__isnull=False)


class VerificationSessionQuerySet(models.QuerySet["VerificationSession"]):
    """Questions about sessions."""

    def visible_to(self, user: object) -> VerificationSessionQuerySet:
        """The sessions that an API caller may see: its own, or all with ``view_all_sessions``."""
        if not getattr(user, "is_authenticated", False):
            return self.none()
        if user.has_perm("faceprint.view_all_sessions"):  # type: ignore[attr-defined]
            return self
        return self.filter(created_by=user)

    def asleep_until(self, moment: datetime) -> VerificationSessionQuerySet:
        """Waiting sessions whose time has come."""
        return self.filter(wake_at__lte=moment)

    def due(self, moment: datetime) -> VerificationSessionQuerySet:
        """Sessions that nobody has to wait for."""
        return self.filter(Q(priority_at__isnull=False) | Q(wake_at__lte=moment))

    def ready(self) -> VerificationSessionQuerySet:
        """Sessions that may be claimed, most urgent first."""
        return self.filter(priority_at__isnull=False).order_by("priority_at", "pk")

    def outstanding(self) -> VerificationSessionQuerySet:
        """Sessions for which the engine still has work."""
        return self.filter(HAS_WORK)

    @staticmethod
    def in_status(status: str) -> Q:
        """The condition that a session's :attr:`~VerificationSession.status` is *status*.

        Raises ``ValueError`` for an unknown one.
        """
        states, verdicts = VerificationSession.Status, VerificationSession.Verdict
        under_way = Q(returned_at__isnull=False) | Q(attempted_at__isnull=False)
        conditions = {
            states.CREATED: Q(verdict=verdicts.PENDING) & ~under_way & ~IS_PREPARED,
            states.AWAITING_USER: Q(verdict=verdicts.PENDING) & ~under_way & IS_PREPARED,
            states.VERIFYING: Q(verdict=verdicts.PENDING) & under_way,
            states.ABANDONED: Q(verdict=verdicts.EXPIRED) & IS_PREPARED,
            states.EXPIRED: Q(verdict=verdicts.EXPIRED) & ~IS_PREPARED,
        }
        return conditions.get(states(status), Q(verdict=status))


class VerificationSession(models.Model):
    """One verification of one person: identity, H5 page, verdict, evidence and its deadlines.

    Rows are created and changed by the rooms above the models only. Names, numbers, the
    verify_token and OCR texts are encrypted with the row's ``public_id`` as associated data.

    Scheduling: exactly one of ``wake_at`` (asleep or leased until then) and ``priority_at``
    (may be claimed, ordered by it) is set while there is work; both are NULL when all is done.
    ``next_deadline``, ``later_deadline`` and ``last_deadline`` are the safe deadlines of what is
    outstanding, in order; ``priority_at`` is the first of them that can still be kept.
    """

    class Environment(models.TextChoices):
        LIVE = "live", _("live")
        SANDBOX = "sandbox", _("sandbox")

    class Verdict(models.TextChoices):
        PENDING = "pending", _("pending")
        PASSED = "passed", _("passed")
        FAILED = "failed", _("failed")
        EXPIRED = "expired", _("expired")
        UNKNOWN = "unknown", _("unknown")

    class ArchiveState(models.TextChoices):
        WAITING = "waiting", _("waiting")
        COLLECTING = "collecting", _("collecting")
        COMPLETE = "complete", _("complete")
        PARTIAL = "partial", _("partial")
        LOST = "lost", _("lost")
        NOT_APPLICABLE = "not_applicable", _("not applicable")

    class Status(models.TextChoices):
        """Derived for the API and the console; never stored."""

        CREATED = "created", pgettext_lazy("session status", "created")
        AWAITING_USER = "awaiting_user", _("awaiting the person")
        VERIFYING = "verifying", _("verifying")
        PASSED = "passed", _("passed")
        FAILED = "failed", _("failed")
        ABANDONED = "abandoned", _("abandoned")
        EXPIRED = "expired", _("expired")
        UNKNOWN = "unknown", _("unknown")

    public_id = models.UUIDField(_("session ID"), unique=True, default=time_ordered_uuid, editable=False)
    environment = models.CharField(_("environment"), max_length=10, choices=Environment.choices)
    # Its index is that of the plan with the time, below.
    plan = models.ForeignKey(
        Plan, models.PROTECT, verbose_name=_("plan"), related_name="sessions", db_index=False
    )
    application = models.CharField(_("application"), max_length=50)

    verify_token = EncryptedTextField(label="session.verify_token", null=True)
    verify_token_index = models.CharField(max_length=80, null=True, unique=True, editable=False)

    subject = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        verbose_name=_("subject"),
        related_name="+",
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        verbose_name=_("created by"),
        related_name="+",
    )
    # A hash of the caller and the key that it gave.
    idempotency_key = models.CharField(max_length=64, null=True, unique=True, editable=False)
    request_digest = models.CharField(max_length=80, default="", editable=False)
    reference = models.CharField(_("reference"), max_length=100, blank=True, default="")
    purpose = models.CharField(_("purpose"), max_length=100, blank=True, default="")
    return_url = EncryptedTextField(label="session.return_url", null=True)

    verdict = models.CharField(_("verdict"), max_length=10, choices=Verdict.choices, default=Verdict.PENDING)
    archive_state = models.CharField(
        _("archive"),
        max_length=20,
        choices=ArchiveState.choices,
        default=ArchiveState.WAITING,
    )
    score = models.FloatField(_("similarity score"), null=True)
    liveness_score = models.FloatField(_("liveness score"), null=True)
    spoofing_score = models.FloatField(_("spoofing score"), null=True)
    threshold = models.FloatField(_("threshold"), null=True)
    is_demoted = models.BooleanField(_("demoted to recorded video"), null=True)

    error_class = models.CharField(_("error class"), max_length=30, blank=True, default="")
    error_code = models.CharField(_("error code"), max_length=40, blank=True, default="")
    error_message = models.CharField(_("error message"), max_length=200, blank=True, default="")
    error_log_id = models.CharField(_("log_id"), max_length=40, blank=True, default="")

    identity_name = EncryptedTextField(label="session.identity_name", null=True)
    identity_number = EncryptedTextField(label="session.identity_number", null=True)
    certificate_type = models.PositiveSmallIntegerField(_("certificate type"), null=True)
    name_index = models.CharField(max_length=80, blank=True, default="", editable=False)
    number_index = models.CharField(max_length=80, blank=True, default="", editable=False)
    ocr = EncryptedJSONField(label="session.ocr", null=True)
    confirmed = EncryptedJSONField(label="session.confirmed", null=True)
    stat = models.JSONField(_("stage statistics"), null=True)

    created_at = models.DateTimeField(_("created"), default=now)
    adopted_at = models.DateTimeField(_("adopted"), null=True)
    token_requested_at = models.DateTimeField(_("token requested"), null=True)
    token_answered_at = models.DateTimeField(_("token issued"), null=True)
    identity_accepted_at = models.DateTimeField(_("identity accepted"), null=True)
    match_image_accepted_at = models.DateTimeField(_("match image accepted"), null=True)
    expires_at = models.DateTimeField(_("token expires"), null=True)
    returned_at = models.DateTimeField(_("browser returned"), null=True)
    # When a failed try became known while another one was still possible.
    attempted_at = models.DateTimeField(_("attempted"), null=True)
    verified_at = models.DateTimeField(_("verified"), null=True)
    decided_at = models.DateTimeField(_("decided"), null=True)
    archived_at = models.DateTimeField(_("archived"), null=True)
    erased_at = models.DateTimeField(_("erased"), null=True)
    retain_until = models.DateTimeField(_("kept until"), null=True, db_index=True)

    media_deadline = models.DateTimeField(_("media deadline"), null=True)
    results_deadline = models.DateTimeField(_("results deadline"), null=True)
    media_give_up_at = models.DateTimeField(null=True, editable=False)
    results_give_up_at = models.DateTimeField(null=True, editable=False)

    wake_at = models.DateTimeField(_("next work"), null=True, editable=False)
    priority_at = models.DateTimeField(null=True, editable=False)
    next_deadline = models.DateTimeField(_("earliest deadline"), null=True, editable=False)
    later_deadline = models.DateTimeField(null=True, editable=False)
    last_deadline = models.DateTimeField(null=True, editable=False)
    lease_epoch = models.PositiveBigIntegerField(default=0, editable=False)
    lease_until = models.DateTimeField(null=True, editable=False)
    recheck_requested = models.BooleanField(default=False, editable=False)
    poll_count = models.PositiveIntegerField(_("polls"), default=0, editable=False)
    failure_count = models.PositiveIntegerField(_("failures in a row"), default=0, editable=False)
    last_polled_at = models.DateTimeField(_("last asked"), null=True, editable=False)
    # When the interface answered for good, so that it is not asked again.
    getall_answered_at = models.DateTimeField(null=True, editable=False)
    simple_answered_at = models.DateTimeField(null=True, editable=False)
    media_answered_at = models.DateTimeField(null=True, editable=False)
    stat_answered_at = models.DateTimeField(null=True, editable=False)

    objects = VerificationSessionQuerySet.as_manager()

    class Meta:
        verbose_name = _("verification session")
        verbose_name_plural = _("verification sessions")
        ordering = ["-created_at", "-pk"]
        indexes = [
            models.Index(fields=["wake_at"], name="faceprint_session_wake"),
            models.Index(fields=["priority_at", "id"], name="faceprint_session_ready"),
            # What the record console sorts by, and what it filters by over all time: each with the key that
            # its pages continue from.
            models.Index(fields=["created_at", "id"], name="faceprint_session_created"),
            models.Index(fields=["next_deadline", "id"], name="faceprint_session_next"),
            models.Index(fields=["score", "id"], name="faceprint_session_score"),
            models.Index(fields=["created_by", "-created_at"], name="faceprint_session_owner"),
            # Not by db_index: on PostgreSQL that makes a second index, for LIKE, which nothing asks for.
            models.Index(fields=["reference"], name="faceprint_session_reference"),
            models.Index(fields=["plan", "created_at", "id"], name="faceprint_session_plan"),
            models.Index(fields=["verdict", "created_at", "id"], name="faceprint_session_verdict"),
            models.Index(fields=["archive_state", "created_at", "id"], name="faceprint_session_archive"),
            models.Index(fields=["error_code", "created_at", "id"], name="faceprint_session_code"),
            models.Index(fields=["error_log_id"], name="faceprint_session_log_id"),
            models.Index(fields=["name_index"], name="faceprint_session_name"),
            models.Index(fields=["number_index"], name="faceprint_session_number"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(wake_at__isnull=True) | Q(priority_at__isnull=True),
                name="faceprint_session_waits_or_ready",
            ),
        ]
        permissions = [
            ("view_all_sessions", _("Can view sessions of all callers")),
            ("refresh_session", _("Can have Baidu asked again")),
            ("reveal_identity", _("Can reveal names and ID numbers")),
            ("view_media", _("Can view faces and videos")),
            ("download_media", _("Can download faces and videos")),
            ("export_masked", _("Can export masked records")),
            ("export_sensitive", _("Can export records in clear")),
            ("erase_person", _("Can erase a person")),
            ("manage_plans", _("Can manage plans")),
            ("manage_alerts", _("Can manage alerts")),
        ]

    def __str__(self) -> str:
        return str(self.public_id)

    @property
    def status(self) -> Status:
        """Where the session stands, in the API's words. Pending is never shown as a failure."""
        status = self.Status
        if self.verdict == self.Verdict.PENDING:
            if self.returned_at or self.attempted_at:
                return status.VERIFYING
            return status.AWAITING_USER if self.is_prepared else status.CREATED
        if self.verdict == self.Verdict.EXPIRED:
            # The person had been sent to the page and never finished, or never could be sent.
            return status.ABANDONED if self.is_prepared else status.EXPIRED
        return status(self.verdict)

    @property
    def is_prepared(self) -> bool:
        """Upstream accepted all that the plan requires, so that the person may be sent to the page.

        Of an adopted session that is taken for granted: whoever started it has seen to it.
        """
        return bool(self.adopted_at) or bool(
            self.token_answered_at
            and (self.identity_accepted_at or not self.plan.needs_identity)
            and (self.match_image_accepted_at or not self.plan.needs_match_image)
        )

    @property
    def is_leased(self) -> bool:
        """A worker holds this session right now."""
        return self.lease_until is not None and self.lease_until > now()

    @property
    def has_outstanding_work(self) -> bool:
        """The engine will look at this session again."""
        return self.wake_at is not None or self.priority_at is not None

    @property
    def masked_name(self) -> str:
        """The person's name, masked for display; "" when unknown."""
        return mask_name(self.known_name or "")

    @property
    def masked_number(self) -> str:
        """The ID number, masked for display; "" when unknown."""
        return mask_number(self.known_number or "")

    @property
    def known_name(self) -> str | None:
        """The name in clear: as submitted, else as confirmed by the person."""
        return self.identity_name or (self.confirmed or {}).get("name")

    @property
    def known_number(self) -> str | None:
        """The ID number in clear: as submitted, else as confirmed by the person."""
        return self.identity_number or (self.confirmed or {}).get("number")

    @staticmethod
    def parse_public_id(text: str) -> uuid.UUID | None:
        """The session ID in *text*, or None when it is none."""
        try:
            return uuid.UUID(text.strip())
        except ValueError:
            return None
