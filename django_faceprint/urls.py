"""Addresses for browsers: ``path("faceprint/", include("django_faceprint.urls"))``."""

from __future__ import annotations

from django.urls import path

from . import views

app_name = "faceprint"

urlpatterns = [
    path("return/<str:token>/", views.returned, name="return"),
    path("return/<str:token>/status/", views.return_status, name="return-status"),
]
