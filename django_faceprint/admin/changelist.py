"""The pages of the record list, found by key: the last page of a million records is as fast as the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin.utils import label_for_field
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.text import capfirst

from .filters import FilterBar
from .list_request import AFTER, BEFORE, LAST, NEWEST_FIRST, ORDER, ListRequest

#: Most rows that are counted; for more, the count reads "10,000+".
MAX_COUNTED = 10_000
#: Column of the list → the orders that clicks on its header switch between.
_ORDERS_OF_COLUMNS = {
    "created_column": (NEWEST_FIRST, "created"),
    "score_column": ("score", "-score"),
    "archive_column": ("deadline",),
}


class CappedCount(int):
    """A count that reads ``10,000+`` beyond :data:`MAX_COUNTED`."""

    @property
    def is_capped(self) -> bool:
        """Whether counting stopped early."""
        return self > MAX_COUNTED

    def __str__(self) -> str:
        return f"{MAX_COUNTED:,}+" if self.is_capped else int.__repr__(self)


@dataclass(frozen=True)
class Header:
    """The header of a column; ``url`` sorts by it, ``aria_sort`` is as in ARIA; both may be ""."""

    text: str
    name: str
    url: str
    aria_sort: str


class RecordChangeList(ChangeList):
    """A list whose address holds filters, an order and a place."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet:
        """The filtered records, in order; actions on all rows receive the same."""
        self.list_request = ListRequest.of(request.GET)
        self.selection, self.order = self.list_request.selection, self.list_request.order
        self.problems = self.list_request.problems
        rows = self.root_queryset.filter(self.selection.condition).filter(self.order.condition)
        return self.order.sort(rows)

    def get_results(self, request: HttpRequest) -> None:
        """Read one page, and whether there are pages before and after it."""
        self.filter_specs: list[Any] = []
        self.has_filters = False
        self.filter_bar = FilterBar(self.selection, self.url)
        self.has_active_filters = not self.filter_bar.is_default
        self.show_all = self.can_show_all = False
        rows, earlier, later = ([], False, False) if self.problems else self._page()
        self.result_list = rows
        self.result_count = CappedCount(self._count() if earlier or later else len(rows))
        self.full_result_count = None
        self.show_full_result_count = False
        self.show_admin_actions = bool(rows)
        self.multi_page = earlier or later
        self.first_url = self.url({}) if earlier else ""
        self.previous_url = self._at(BEFORE, rows[0]) if earlier and rows else ""
        self.next_url = self._at(AFTER, rows[-1]) if later and rows else ""
        self.last_url = self.url({LAST: "1"}) if later else ""

    def _page(self) -> tuple[list[Any], bool, bool]:
        """Rows, and whether there are more before and after them."""
        size, order, side = self.list_per_page, self.order, self.list_request.side
        if side == LAST:
            rows = list(order.sort(self.queryset, backwards=True)[: size + 1])
            return rows[:size][::-1], len(rows) > size, False
        if side == BEFORE:
            nearer = self.queryset.filter(order.beyond(self.list_request.cursor, backwards=True))
            rows = list(order.sort(nearer, backwards=True)[: size + 1])
            if len(rows) > size:
                return rows[:size][::-1], True, True
            # Less than a page is left: show the whole first page.
        elif side == AFTER:
            rows = list(self.queryset.filter(order.beyond(self.list_request.cursor))[: size + 1])
            return rows[:size], True, len(rows) > size
        rows = list(self.queryset[: size + 1])
        return rows[:size], False, len(rows) > size

    def _count(self) -> int:
        """The number of rows on all pages, capped."""
        return self.queryset.order_by().values("pk")[: MAX_COUNTED + 1].count()

    def url(self, changes: dict[str, str | None]) -> str:
        """The address of the first page, with *changes* to the parameters (None removes one)."""
        order = {} if self.list_request.order_name == NEWEST_FIRST else {ORDER: self.list_request.order_name}
        parameters: dict[str, str | None] = {**self.selection.parameters, **order, **changes}
        return f"?{urlencode({name: text for name, text in parameters.items() if text})}"

    def _at(self, side: str, row: Any) -> str:
        return self.url({side: self.order.cursor(row)})

    @property
    def headers(self) -> list[Header]:
        """The headers of the columns, in order."""
        return [self._header(column) for column in self.list_display if column != "action_checkbox"]

    def _header(self, column: Any) -> Header:
        name = getattr(column, "__name__", column)
        text = capfirst(str(label_for_field(column, self.model, self.model_admin)))
        orders = _ORDERS_OF_COLUMNS.get(name, ())
        if self.list_request.order_name not in orders:
            url = self.url({ORDER: orders[0] if orders[0] != NEWEST_FIRST else None}) if orders else ""
            return Header(text, name, url, "")
        following = orders[(orders.index(self.list_request.order_name) + 1) % len(orders)]
        back_to_default = following in (NEWEST_FIRST, self.list_request.order_name)
        return Header(
            text,
            name,
            self.url({ORDER: None if back_to_default else following}),
            "descending" if self.order.descending else "ascending",
        )

    @property
    def is_sorted(self) -> bool:
        """Whether the order is not the default."""
        return self.list_request.order_name != NEWEST_FIRST
