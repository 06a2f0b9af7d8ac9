from __future__ import annotations

from django.apps import AppConfig


class SealedTestsConfig(AppConfig):
    """An app around the models of these tests, installed by their fixture only."""

    name = "tests.privacy"
    label = "sealed_tests"
    default_auto_field = "django.db.models.BigAutoField"
