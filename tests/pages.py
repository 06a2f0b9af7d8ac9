"""The pages that there are, for tests that look at every one of them."""

from __future__ import annotations

from collections.abc import Iterator

from django.apps import apps
from django.contrib import admin
from django.urls import reverse

from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.verification import return_token


def admin_pages() -> Iterator[str]:
    """The list and every row of every table that the admin shows."""
    for model in apps.get_app_config("faceprint").get_models():
        if not admin.site.is_registered(model):
            continue
        name = f"admin:faceprint_{model._meta.model_name}"
        yield reverse(f"{name}_changelist")
        if model._meta.proxy:
            # The dashboard: its rows have no page.
            continue
        for pk in model._base_manager.values_list("pk", flat=True):
            yield reverse(f"{name}_change", args=[pk])
            yield reverse(f"{name}_history", args=[pk])


def api_addresses() -> Iterator[str]:
    """What the REST API says of every session; files are not among them."""
    root = reverse("faceprint-api:sessions")
    yield root
    yield reverse("faceprint-api:plans")
    for public_id in VerificationSession.objects.values_list("public_id", flat=True):
        for part in ("", "result/", "stat/", "media/"):
            yield f"{root}{public_id}/{part}"


def return_pages() -> Iterator[str]:
    """Where Baidu sends the browsers of every session."""
    for session in VerificationSession.objects.all():
        for view in ("return", "return-status"):
            yield reverse(f"faceprint:{view}", args=[return_token(session)])


def file_addresses() -> Iterator[str]:
    """Every stored picture and video."""
    for asset in MediaAsset.objects.stored():
        yield reverse("faceprint-api:media-content", args=[asset.public_id])
