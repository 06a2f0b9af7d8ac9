"""Configuration of the app."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class FaceprintConfig(AppConfig):
    """The app in ``INSTALLED_APPS``; its label is ``faceprint``."""

    name = "django_faceprint"
    label = "faceprint"
    verbose_name = _("Face real-name verification")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401  (registers the system checks)
        from .alerts.rules import create_default_rules

        post_migrate.connect(create_default_rules, sender=self, dispatch_uid="faceprint.alert_rules")
