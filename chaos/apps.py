"""Puts the counter-run's order in place, in every process that has these settings."""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings


class ChaosConfig(AppConfig):
    """No models: only what must happen before any work begins."""

    name = "chaos"

    def ready(self) -> None:
        """Replace the engine's order where the run asks for it."""
        if settings.CHAOS_ORDER == "arrival":
            from .arrival import work_by_arrival

            work_by_arrival()
