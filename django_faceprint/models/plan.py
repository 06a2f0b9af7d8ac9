"""Plans (方案): what a verification asks for and what evidence it yields."""

from __future__ import annotations

from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _


class PlanQuerySet(models.QuerySet["Plan"]):
    """Questions about plans."""

    def active(self) -> PlanQuerySet:
        """Plans with which a new session may be started."""
        return self.filter(is_active=True)


class Plan(models.Model):
    """A plan as it was set up in Baidu's console, repeated here because no interface tells it.

    Which pictures and videos a verification must yield, and when a failed attempt is final, follows
    from these options (API reference 6). ``plan_id`` is the 方案ID, not the 项目ID.
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
        help_text=_("Off at Baidu unless its staff switched it on; then no video can be had."),
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
        validators=[MinValueValidator(1), MaxValueValidator(36_500)],
        help_text=_('Empty: as FACEPRINT["RETENTION"] says.'),
    )
    is_active = models.BooleanField(_("active"), default=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    objects = PlanQuerySet.as_manager()

    class Meta:
        verbose_name = _("plan")
        verbose_name_plural = _("plans")
        ordering = ["plan_id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.plan_id})"

    @property
    def needs_identity(self) -> bool:
        """Name and number must be submitted before the person opens the page (API reference 3.2)."""
        return self.identity_entry == self.IdentityEntry.SPECIFIED

    @property
    def needs_match_image(self) -> bool:
        """A match image must be uploaded before the person opens the page (API reference 3.3)."""
        return self.match_source == self.MatchSource.MATCH_IMAGE

    @property
    def is_real_time(self) -> bool:
        """Real-time liveness: one process video and four frames instead of a recorded video."""
        return self.liveness in self.REAL_TIME

    @property
    def applied_threshold(self) -> float | None:
        """What a similarity score is held against; None where nothing is compared."""
        return None if self.match_source == self.MatchSource.LIVENESS_ONLY else self.threshold

    def clean(self) -> None:
        """Refuse combinations that Baidu's console does not offer."""
        from django.core.exceptions import ValidationError

        errors: dict[str, Any] = {}
        authority = self.match_source == self.MatchSource.AUTHORITY
        if authority and self.identity_entry == self.IdentityEntry.NONE:
            errors["identity_entry"] = _("The authority database needs a name and a number.")
        if not authority and self.identity_entry != self.IdentityEntry.NONE:
            errors["identity_entry"] = _("Only the authority database takes an identity.")
        if errors:
            raise ValidationError(errors)
