"""Puts the counter-run's order in place, in every process that has these settings."""

from __future__ import annotations

import os

from django.apps import AppConfig


class ChaosConfig(AppConfig):
    """No models: only what must happen before any work begins."""

    name = "chaos"

    def ready(self) -> None:
        """Replace the engine's order where the run asks for it."""
        if os.environ.get("CHAOS_ORDER") == "arrival":
            from .arrival import work_by_arrival

            work_by_arrival()
