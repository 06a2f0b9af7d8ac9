"""Plans (方案): the settings of Baidu's console, repeated here."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminIntegerFieldWidget
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_faceprint.conf import MAX_RETENTION, RETENTION_KINDS, conf
from django_faceprint.models import MediaAsset, Plan

from .readonly import ManagedAdmin

MANAGE = "faceprint.manage_plans"

Kind = MediaAsset.Kind

#: Fields of the form, and the kinds whose days they hold.
KEEP_FIELDS = {f"keep_{kind}": kind for kind in Kind if kind in RETENTION_KINDS}

_KINDS_HELP = _(
    'Days after the verdict. Empty: as long as the record, or as FACEPRINT["RETENTION"] says. '
    "0: not kept, so never fetched. A change holds for verdicts from then on; "
    "faceprint_retain --apply-rules puts it on older records, too."
)


def _days(kind: Kind) -> forms.IntegerField:
    return forms.IntegerField(
        label=kind.label,
        required=False,
        min_value=0,
        max_value=MAX_RETENTION.days,
        widget=AdminIntegerFieldWidget,
    )


class PlanForm(forms.ModelForm):
    """A plan of a configured application, with the days to keep each kind of file."""

    keep_face = _days(Kind.FACE)
    keep_attempt_face = _days(Kind.ATTEMPT_FACE)
    keep_id_front = _days(Kind.ID_FRONT)
    keep_id_back = _days(Kind.ID_BACK)
    keep_match_image = _days(Kind.MATCH_IMAGE)
    keep_process_video = _days(Kind.PROCESS_VIDEO)
    keep_video = _days(Kind.VIDEO)
    keep_frame = _days(Kind.FRAME)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, kind in KEEP_FIELDS.items():
            if name in self.fields:
                self.fields[name].initial = self.instance.retention.get(kind)

    def clean(self) -> dict[str, Any]:
        """Collect the days in the plan, which validates them."""
        values: dict[str, Any] = super().clean() or self.cleaned_data
        self.instance.retention = {
            kind: values[name] for name, kind in KEEP_FIELDS.items() if values.get(name) is not None
        }
        return values

    def clean_application(self) -> str:
        """Refuse an alias without credentials."""
        alias: str = self.cleaned_data["application"]
        if alias not in conf.applications:
            raise forms.ValidationError(
                _('FACEPRINT["APPLICATIONS"] has no such alias. There are: %(aliases)s.'),
                code="unknown_application",
                params={"aliases": ", ".join(sorted(conf.applications))},
            )
        return alias


@admin.register(Plan)
class PlanAdmin(ManagedAdmin):
    """Users with ``manage_plans`` change plans; Django's view permission suffices to view them.

    A change applies to verifications that are decided afterwards. Plan ID and application are fixed once the
    plan is used, since past records refer to them.
    """

    manage_permission = MANAGE
    form = PlanForm
    list_display = (
        *("plan_id", "name", "application", "match_source", "identity_entry", "liveness"),
        *("records_video", "closes_on_failure", "threshold", "is_active"),
    )
    list_filter = ("is_active", "match_source", "liveness")
    search_fields = ("=plan_id", "name")
    list_per_page = 50
    readonly_fields = ("created_at",)
    fieldsets = (
        (None, {"fields": ("plan_id", "name", "application", "is_active")}),
        (
            _("Verification"),
            {
                "description": _("Copy these settings from Baidu's console; no interface returns them."),
                "fields": (
                    *("match_source", "identity_entry", "card_sides", "accepts_non_mainland"),
                    *("liveness", "threshold", "closes_on_failure"),
                ),
            },
        ),
        (_("Evidence"), {"fields": ("records_video", "created_at")}),
        (_("Retention"), {"fields": ("retention_days", "retain_indefinitely", "retention_basis")}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Plan | None = None) -> Any:
        """The days for each kind of file: fields for users who may change them, a text for others."""
        may_change = self.has_change_permission(request, obj)
        fields = tuple(KEEP_FIELDS) if may_change else ("kept_kinds",)
        return (
            *self.fieldsets,
            (_("Retention by kind of file"), {"description": _KINDS_HELP, "fields": fields}),
        )

    @admin.display(description=_("retention by kind of file"))
    def kept_kinds(self, plan: Plan) -> str:
        """The plan's own days for each kind of file."""
        return ", ".join(
            f"{kind.label}: {_('not kept') if not plan.retention[kind] else plan.retention[kind]}"
            for kind in KEEP_FIELDS.values()
            if kind in plan.retention
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Plan | None = None) -> tuple[str, ...]:
        if obj is not None and obj.sessions.exists():
            return ("plan_id", "application", *self.readonly_fields)
        return tuple(self.readonly_fields)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(MANAGE)
