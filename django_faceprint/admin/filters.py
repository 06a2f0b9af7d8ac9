"""Filters of the record list."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_faceprint.clock import now

from . import words


class CreatedFilter(admin.SimpleListFilter):
    """When the record was made. By the project's clock, which tests and the demo move."""

    title = _("created")
    parameter_name = "created"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("today", _("today")),
            ("24h", _("last 24 hours")),
            ("7d", _("last 7 days")),
            ("30d", _("last 30 days")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        since = self._since()
        return queryset if since is None else queryset.filter(created_at__gte=since)

    def _since(self) -> datetime | None:
        moment = now()
        spans = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
        value = self.value()
        if value == "today":
            return timezone.localtime(moment).replace(hour=0, minute=0, second=0, microsecond=0)
        return moment - spans[value] if value in spans else None


class ErrorClassFilter(admin.SimpleListFilter):
    """The kind of error. A fixed list, so that no query looks for the values in use."""

    title = _("error")
    parameter_name = "error_class"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("none", _("no error")), *words.ERROR_CLASSES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        value = self.value()
        if value is None:
            return queryset
        return queryset.filter(error_class="" if value == "none" else value)


class DemotedFilter(admin.SimpleListFilter):
    """Whether the person's browser fell back from real-time liveness to recorded video (降级)."""

    title = _("demoted")
    parameter_name = "is_demote"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterator[tuple[str, Any]]:
        yield "1", _("demoted")
        yield "0", _("not demoted")

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        value = self.value()
        return queryset.filter(is_demote=value == "1") if value in ("0", "1") else queryset
