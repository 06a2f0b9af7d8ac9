"""Base classes: lists that take only their own filters, models for managers, and models that nobody edits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import get_fields_from_path
from django.db import models
from django.http import HttpRequest


class OnlyListedFilters(admin.ModelAdmin):
    """A list whose address accepts only the filters that it shows.

    Django's own lists accept lookups on any column, even hidden ones, and regular expressions that can keep
    a database busy.
    """

    # The lookups that Django's field filters use, and those that its date filter uses.
    _OPERATIONS = frozenset({"exact", "isnull", "isempty"})
    _OPERATIONS_OF_TIMES = frozenset({"gte", "lt"})

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_module_permission(self, request: HttpRequest) -> bool:
        """As for viewing: some models are open to users without Django's view permission."""
        return self.has_view_permission(request)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Whether a filter of the list uses *lookup*; Django answers others with status 400."""
        fields = set()
        filters: Iterable[Any] = self.list_filter
        for item in filters:
            if isinstance(item, type):
                if lookup == getattr(item, "parameter_name", None):
                    return True
                continue
            fields.add(item if isinstance(item, str) else item[0])
        path, _, operation = lookup.rpartition("__")
        if operation in self._OPERATIONS or (
            operation in self._OPERATIONS_OF_TIMES and path in self._times_filtered()
        ):
            lookup = path
        return not fields.isdisjoint({lookup, lookup.removesuffix("__id")})

    def _times_filtered(self) -> set[str]:
        """Date fields in ``list_filter`` that use Django's date filter."""
        names = [item for item in self.list_filter if isinstance(item, str)]
        return {
            name for name in names if isinstance(get_fields_from_path(self.model, name)[-1], models.DateField)
        }


class ManagedAdmin(OnlyListedFilters):
    """Users with ``manage_permission`` view, add and change rows."""

    manage_permission: str

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(self.manage_permission) or super().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(self.manage_permission)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(self.manage_permission)


class ReadOnlyAdmin(OnlyListedFilters):
    """Users with the view permission view rows; nobody adds, changes or deletes them."""

    show_full_result_count = False
    list_per_page = 50
    list_max_show_all = 200

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
