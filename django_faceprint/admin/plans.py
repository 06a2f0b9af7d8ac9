"""Plans (方案): what was set up in Baidu's console, repeated here."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_faceprint.conf import conf
from django_faceprint.models import Plan

from .readonly import OnlyListedFilters

MANAGE = "faceprint.manage_plans"


class PlanForm(forms.ModelForm):
    """A plan whose application is one that the settings name."""

    def clean_application(self) -> str:
        """Refuse an alias for which there are no credentials."""
        alias: str = self.cleaned_data["application"]
        if alias not in conf.applications:
            raise forms.ValidationError(
                _('FACEPRINT["APPLICATIONS"] has no such alias. There are: %(aliases)s.'),
                code="unknown_application",
                params={"aliases": ", ".join(sorted(conf.applications))},
            )
        return alias


@admin.register(Plan)
class PlanAdmin(OnlyListedFilters):
    """Changed with the permission ``manage_plans`` only; seen with it or with Django's view permission.

    A change applies to verifications that are decided from then on. What would give a past record
    another meaning, the plan ID and the application that owns its tokens, is fixed once the plan is used.
    """

    form = PlanForm
    list_display = (
        "plan_id",
        "name",
        "application",
        "match_source",
        "identity_entry",
        "liveness",
        "records_video",
        "closes_on_failure",
        "threshold",
        "is_active",
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
                "description": _("Set these as they are in Baidu's console: no interface tells them."),
                "fields": (
                    "match_source",
                    "identity_entry",
                    "card_sides",
                    "accepts_non_mainland",
                    "liveness",
                    "threshold",
                    "closes_on_failure",
                ),
            },
        ),
        (_("Evidence"), {"fields": ("records_video", "retention_days", "created_at")}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Plan | None = None) -> tuple[str, ...]:
        if obj is not None and obj.sessions.exists():
            return ("plan_id", "application", *self.readonly_fields)
        return tuple(self.readonly_fields)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(MANAGE) or super().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(MANAGE)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(MANAGE)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(MANAGE)
