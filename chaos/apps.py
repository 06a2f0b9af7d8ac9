"""Sets the control run's order of work in every process with these settings."""

from __future__ import annotations

import os

from django.apps import AppConfig


class ChaosConfig(AppConfig):
    """No models: only a step before any work begins."""

    name = "chaos"

    def ready(self) -> None:
        """Replace the engine's order if ``CHAOS_ORDER`` is ``arrival``."""
        if os.environ.get("CHAOS_ORDER") == "arrival":
            from .arrival import work_by_arrival

            work_by_arrival()
