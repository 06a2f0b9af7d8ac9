"""Lists that answer what they offer to be asked, and records that nobody edits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import get_fields_from_path
from django.db import models
from django.http import HttpRequest


class OnlyListedFilters(admin.ModelAdmin):
    """A list whose address can ask no more than the filters beside it.

    Django lets an address ask anything of any column of the row: of those that no page shows, and with
    regular expressions that keep a database busy for as long as their author likes.
    """

    # Exactly these are what the filters of a field put into addresses; Django's own of a time puts others.
    _OPERATIONS = frozenset({"exact", "isnull", "isempty"})
    _OPERATIONS_OF_TIMES = frozenset({"gte", "lt"})

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Whether a filter of the list asks so; anything else is answered with 400."""
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
        """Moments in the list's filters, but for those that have a filter of another kind."""
        names = [item for item in self.list_filter if isinstance(item, str)]
        return {
            name for name in names if isinstance(get_fields_from_path(self.model, name)[-1], models.DateField)
        }


class ReadOnlyAdmin(OnlyListedFilters):
    """Rows can be looked at with the model's view permission, and neither added, changed nor deleted."""

    show_full_result_count = False
    list_per_page = 50
    list_max_show_all = 200

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
