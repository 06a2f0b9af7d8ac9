"""Addresses of the test site, the same as in the example project."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/faceprint/", include("django_faceprint.api.urls")),
    path("faceprint/", include("django_faceprint.urls")),
    path("i18n/", include("django.conf.urls.i18n")),
]
