"""Addresses of the example project. A host project needs the two ``faceprint`` lines."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("api/faceprint/", include("django_faceprint.api.urls")),
    path("faceprint/", include("django_faceprint.urls")),
    path("i18n/", include("django.conf.urls.i18n")),
]
