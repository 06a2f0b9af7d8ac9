"""A project that includes none of our addresses."""

from __future__ import annotations

from typing import Any

urlpatterns: list[Any] = []
