"""The rules that every installation starts with. Operators edit them; nothing here overwrites an edit."""

from __future__ import annotations

from typing import Any

from django.apps import apps as global_apps
from django.apps.registry import Apps
from django.db import DEFAULT_DB_ALIAS, router

DEFAULTS: dict[str, dict[str, Any]] = {
    "evidence_at_risk": {"severity": "warning", "window_minutes": 360},
    "evidence_lost": {"severity": "critical"},
    "upstream_errors": {"severity": "warning", "window_minutes": 5, "share_percent": 20, "minimum_count": 20},
    "quota": {"severity": "critical"},
    "attack": {"severity": "critical", "window_minutes": 30, "share_percent": 20, "minimum_count": 20},
}


def create_default_rules(using: str = DEFAULT_DB_ALIAS, apps: Apps = global_apps, **kwargs: Any) -> None:
    """Create the rules that are missing; a receiver of ``post_migrate``, also after migrating backwards."""
    try:
        rule = apps.get_model("faceprint", "AlertRule")
    except LookupError:
        return
    if not router.allow_migrate_model(using, rule):
        return
    for condition, values in DEFAULTS.items():
        rule._default_manager.using(using).get_or_create(condition=condition, defaults=values)
