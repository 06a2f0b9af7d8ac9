"""Addresses of the API: ``path("api/faceprint/", include("django_faceprint.api.urls"))``."""

from __future__ import annotations

from django.apps import apps
from django.urls import URLPattern, path

from . import views

app_name = "faceprint-api"

urlpatterns: list[URLPattern] = [
    path("sessions/", views.SessionsView.as_view(), name="sessions"),
    path("sessions/<str:id>/", views.SessionView.as_view(), name="session"),
    path("sessions/<str:id>/identity/", views.IdentityView.as_view(), name="session-identity"),
    path("sessions/<str:id>/match-image/", views.MatchImageView.as_view(), name="session-match-image"),
    path("sessions/<str:id>/refresh/", views.RefreshView.as_view(), name="session-refresh"),
    path("sessions/<str:id>/result/", views.ResultView.as_view(), name="session-result"),
    path("sessions/<str:id>/reveal/", views.RevealView.as_view(), name="session-reveal"),
    path("sessions/<str:id>/stat/", views.StatView.as_view(), name="session-stat"),
    path("sessions/<str:id>/media/", views.SessionMediaView.as_view(), name="session-media"),
    path("sessions/<str:id>/withdraw/", views.WithdrawView.as_view(), name="session-withdraw"),
    path("sessions/<str:id>/erase/", views.EraseView.as_view(), name="session-erase"),
    path("media/<str:id>/content/", views.MediaContentView.as_view(), name="media-content"),
    path("plans/", views.PlansView.as_view(), name="plans"),
]

if apps.is_installed("drf_spectacular"):
    from .docs import DocsView, SchemaView

    urlpatterns.append(path("schema/", SchemaView.as_view(), name="schema"))
    if apps.is_installed("drf_spectacular_sidecar"):
        urlpatterns.append(path("docs/", DocsView.as_view(), name="docs"))
