"""The product's admin at ``/admin/``, and at ``/rival/`` the one that Django gives for the same table.

The rival has the same columns, the same indexes, a page of the same size, and the product's own care for
related rows, without which it would send a query for each of them. What it lists, counts and filters by is
Django's own: its paginator, its counts, and, where a filter of ours has a field, Django's for that field.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from django.urls import include, path

from django_faceprint.admin import columns
from django_faceprint.admin.sessions import VerificationSessionAdmin
from django_faceprint.models import MediaAsset, VerificationSession

rival_site = admin.AdminSite(name="rival")


@admin.register(VerificationSession, site=rival_site)
class RivalAdmin(admin.ModelAdmin):
    """The record list as a host project would register it."""

    list_display = (columns.face_column, *VerificationSessionAdmin.list_display)
    list_filter = (
        *("created_at", "verdict", "archive_state", "plan", "plan__liveness", "application", "environment"),
        *("certificate_type", "error_class", "error_code", "purpose", "is_demoted"),
        ("erased_at", admin.EmptyFieldListFilter),
        "retain_until",
    )
    list_select_related = ("plan",)
    list_per_page = VerificationSessionAdmin.list_per_page
    search_fields = ("reference", "error_log_id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        files = MediaAsset.objects.only(
            *("session_id", "state", "deadline", "public_id", "wrapped_key", "thumbnail")
        )
        return (
            super().get_queryset(request).prefetch_related(Prefetch("assets", files, to_attr="listed_assets"))
        )


urlpatterns = [
    path("admin/", admin.site.urls),
    path("rival/", rival_site.urls),
    path("faceprint/", include("django_faceprint.urls")),
]
