"""Plans (方案): how a person is verified and which evidence that yields."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from django_faceprint.conf import MAX_RETENTION, RETENTION_KINDS, conf


class PlanQuerySet(models.QuerySet["Plan"]):
    """Filters for plans."""

    def active(self) -> PlanQuerySet:
        """Plans for which new sessions may start."""
        return self.filter(is_active=True)


class Plan(models.Model):
    """A plan of Baidu's console. Its options are entered here again, because no interface returns them.

    They determine which pictures and videos a verification yields, and whether a failed attempt is final
    (API reference 6). ``plan_id`` is the 方案ID, not the 项目ID.
    """

    class MatchSource(models.TextChoices):
        AUTHORITY = "authority", _("Authority database")
        MATCH_IMAGE = "match_image", _("Own face library (match image)")
        LIVENESS_ONLY = "liveness_only", _("Liveness only")

    class IdentityEntry(models.TextChoices):
        OCR = "ocr", _("ID card OCR")
        TYPED = "typed", _("Typed by the person")
        SPECIFIED = "specified", _("Specified by the server")
        NONE = "none", _("No identity")

    class CardSides(models.TextChoices):
        FRONT = "front", _("Portrait side")
        BOTH = "both", _("Both sides")

    class Liveness(models.TextChoices):
        COLORFUL = "colorful", _("Colourful light (real time)")
        ACTION = "action", _("Action (real time)")
        SILENT = "silent", _("Silent (real time)")
        DISTANCE = "distance", _("Near and far (real time)")
        RECORDED_ACTION = "recorded_action", _("Action (recorded video)")
        RECORDED_SILENT = "recorded_silent", _("Silent (recorded video)")
        RECORDED_DIGITS = "recorded_digits", _("Spoken digits (recorded video)")
        IMAGE = "image", _("Picture")

    REAL_TIME = frozenset({Liveness.COLORFUL, Liveness.ACTION, Liveness.SILENT, Liveness.DISTANCE})

    plan_id = models.CharField(
        _("plan ID"),
        max_length=20,
        unique=True,
        validators=[RegexValidator(r"\A[0-9]{1,20}\Z", _("The plan ID consists of 1 to 20 digits."))],
        help_text=_("方案ID in Baidu's console, not 项目ID."),
    )
    name = models.CharField(_("name"), max_length=100)
    application = models.CharField(
        _("application"),
        max_length=50,
        default="default",
        help_text=_('Alias in FACEPRINT["APPLICATIONS"]; it must own the plan.'),
    )
    match_source = models.CharField(
        _("match source"), max_length=20, choices=MatchSource.choices, default=MatchSource.AUTHORITY
    )
    identity_entry = models.CharField(
        _("identity entry"), max_length=20, choices=IdentityEntry.choices, default=IdentityEntry.SPECIFIED
    )
    card_sides = models.CharField(
        _("card sides"), max_length=10, choices=CardSides.choices, default=CardSides.FRONT
    )
    accepts_non_mainland = models.BooleanField(_("non-mainland documents (非大陆数据源)"), default=False)
    liveness = models.CharField(
        _("liveness"), max_length=20, choices=Liveness.choices, default=Liveness.ACTION
    )
    records_video = models.BooleanField(
        _("video recording"),
        default=False,
        help_text=_("Off by default: Baidu's staff must switch it on, otherwise there is no video."),
    )
    closes_on_failure = models.BooleanField(
        _("failed attempt closes the URL"),
        default=True,
        help_text=_("认证未通过时URL是否失效. Off: the person may try again within two hours."),
    )
    threshold = models.FloatField(
        _("similarity threshold"),
        default=80.0,
        validators=[MinValueValidator(0), MaxValueValidator(100)],
    )
    retention_days = models.PositiveIntegerField(
        _("retention (days)"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_RETENTION.days)],
        help_text=_('Identity, answers and files. Empty: as FACEPRINT["RETENTION"] says.'),
    )
    retention = models.JSONField(_("retention by kind of file"), default=dict, blank=True)
    retain_indefinitely = models.BooleanField(
        _("kept without end"),
        default=False,
        help_text=_("Requires a legal basis."),
    )
    retention_basis = models.CharField(
        _("legal basis"),
        max_length=500,
        blank=True,
        default="",
        help_text=_("The rule that obliges you to keep faces and ID numbers without end."),
    )
    is_active = models.BooleanField(_("active"), default=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    objects = PlanQuerySet.as_manager()

    class Meta:
        verbose_name = _("plan")
        verbose_name_plural = _("plans")
        ordering = ["plan_id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(retain_indefinitely=False) | ~Q(retention_basis=""),
                name="faceprint_plan_endless_has_basis",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.plan_id})"

    @property
    def needs_identity(self) -> bool:
        """Whether name and number must be submitted before the person opens the page (API reference 3.2)."""
        return self.identity_entry == self.IdentityEntry.SPECIFIED

    @property
    def needs_match_image(self) -> bool:
        """Whether a match image must be uploaded before the person opens the page (API reference 3.3)."""
        return self.match_source == self.MatchSource.MATCH_IMAGE

    @property
    def is_real_time(self) -> bool:
        """Whether liveness is real-time: a process video and four frames instead of a recorded video."""
        return self.liveness in self.REAL_TIME

    @property
    def compares_faces(self) -> bool:
        """Whether the face is compared with another one. If not, Baidu's similarity of 0 has no meaning."""
        return self.match_source != self.MatchSource.LIVENESS_ONLY

    @property
    def scores_liveness(self) -> bool:
        """Whether there is a liveness score: not with colourful light; Baidu says 0 (API reference 3.5)."""
        return self.liveness != self.Liveness.COLORFUL

    @property
    def applied_threshold(self) -> float | None:
        """The threshold for the similarity score; None where no faces are compared."""
        return self.threshold if self.compares_faces else None

    @property
    def record_span(self) -> timedelta | None:
        """How long the records of this plan are kept after the verdict; None: without end."""
        if self.retain_indefinitely:
            return None
        return timedelta(days=self.retention_days) if self.retention_days else conf.retention.default

    def span_of(self, kind: str) -> timedelta | None:
        """How long files of *kind* are kept after the verdict; zero: not at all, None: as long as the record.

        The plan's days for the kind, otherwise those of the settings. No file outlives its record.
        """
        days = self.retention.get(kind)
        span = conf.retention.kinds.get(kind) if days is None else timedelta(days=days)
        record = self.record_span
        return None if span is None or (record is not None and span >= record) else span

    def keeps(self, kind: str) -> bool:
        """Whether files of *kind* are kept. Others are not downloaded either."""
        return self.span_of(kind) != timedelta(0)

    def clean(self) -> None:
        """Refuse combinations that Baidu's console does not offer, and contradictory retention."""
        errors: dict[str, Any] = {}
        authority = self.match_source == self.MatchSource.AUTHORITY
        if authority and self.identity_entry == self.IdentityEntry.NONE:
            errors["identity_entry"] = _("The authority database needs a name and a number.")
        if not authority and self.identity_entry != self.IdentityEntry.NONE:
            errors["identity_entry"] = _("Only the authority database takes an identity.")
        errors |= self._retention_errors()
        if errors:
            raise ValidationError(errors)

    def _retention_errors(self) -> dict[str, Any]:
        errors: dict[str, Any] = {}
        if self.retain_indefinitely and not self.retention_basis.strip():
            errors["retention_basis"] = _("To keep evidence without end, enter the legal basis.")
        if self.retain_indefinitely and self.retention_days:
            errors["retention_days"] = _("Choose either a number of days or no end.")
        record = self.record_span
        known = isinstance(self.retention, dict) and set(self.retention) <= RETENTION_KINDS
        if not known or not all(
            type(days) is int and 0 <= days <= MAX_RETENTION.days for days in self.retention.values()
        ):
            errors[NON_FIELD_ERRORS] = _("Days by kind of file: whole numbers from 0 to 36500.")
        elif record is not None and any(timedelta(days=days) > record for days in self.retention.values()):
            errors[NON_FIELD_ERRORS] = _("No file is kept longer than its record: %(days)s days.") % {
                "days": record.days
            }
        return errors
