"""The pages of the record list: by key, so that the last of a million costs as much as the first."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin.utils import label_for_field
from django.contrib.admin.views.main import ChangeList
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Coalesce
from django.http import HttpRequest, QueryDict
from django.utils.functional import Promise
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from django_faceprint.records.filters import Selection

from .filters import FilterBar, names_of

#: Rows that are counted; beyond, a count says "10,000+".
MAX_COUNTED = 10_000
AFTER, BEFORE, LAST, ORDER = "after", "before", "last", "order"
#: Parameters of the address that say where in the list one is, not which records are meant.
_OF_THE_PAGE = frozenset({AFTER, BEFORE, LAST, ORDER})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Order:
    """A way to sort: a column, always with the key behind it, so that no two records stand at one place."""

    column: str
    descending: bool
    #: Said when records without a value are left out, which have no place in such a list.
    leaves_out: Promise | None = None
    #: The filter that says the same.
    has: str = ""
    #: Sorted by the database itself, not by walking the index of the column.
    avoid_index_order: bool = False

    @property
    def condition(self) -> Q:
        """What a record needs to be listed at all."""
        return Q(**{f"{self.column}__isnull": False}) if self.leaves_out else Q()

    def sort(self, rows: QuerySet, *, backwards: bool = False) -> QuerySet:
        """*rows* in this order, or in the opposite one."""
        # An index does not serve for what is computed, be it the same.
        column = Coalesce(self.column, self.column) if self.avoid_index_order else F(self.column)
        columns = (column, F("pk"))
        if self.descending != backwards:
            return rows.order_by(*(column.desc() for column in columns))
        return rows.order_by(*(column.asc() for column in columns))

    def beyond(self, cursor: str, *, backwards: bool = False) -> Q:
        """The records on the far side of *cursor*. Raises ``ValueError`` for what is none of this order."""
        text, _sep, key = cursor.rpartition("_")
        value, pk = self._value(text), int(key)
        if not 0 < pk < 2**63:
            raise ValueError(cursor)
        side = "lt" if self.descending != backwards else "gt"
        # The first condition says nothing new: it is what lets an index find the place.
        return Q(**{f"{self.column}__{side}e": value}) & (
            Q(**{f"{self.column}__{side}": value}) | Q(**{f"pk__{side}": pk})
        )

    def cursor(self, row: Any) -> str:
        """Where *row* stands."""
        value = getattr(row, self.column)
        if isinstance(value, datetime):
            value = (value - _EPOCH) // timedelta(microseconds=1)
        return f"{value!r}_{row.pk}"

    def _value(self, text: str) -> datetime | float:
        if self.column == "score":
            score = float(text)
            if not math.isfinite(score):
                raise ValueError(text)
            return score
        try:
            return _EPOCH + timedelta(microseconds=int(text))
        except OverflowError:
            raise ValueError(text) from None


NEWEST_FIRST = "-created"
ORDERS: dict[str, Order] = {
    NEWEST_FIRST: Order("created_at", True),
    "created": Order("created_at", False),
    "deadline": Order(
        "next_deadline", False, _("Only records for which something is outstanding."), "deadline"
    ),
    "score": Order("score", False, _("Only records with a score."), "score"),
    "-score": Order("score", True, _("Only records with a score."), "score"),
}
#: Column of the list → the orders that clicks on its head switch between.
_ORDERS_OF_COLUMNS = {
    "created_column": (NEWEST_FIRST, "created"),
    "score_column": ("score", "-score"),
    "archive_column": ("deadline",),
}


class CappedCount(int):
    """A count that says ``10,000+`` beyond :data:`MAX_COUNTED`."""

    @property
    def is_capped(self) -> bool:
        """Whether there are more than were counted."""
        return self > MAX_COUNTED

    def __str__(self) -> str:
        return f"{MAX_COUNTED:,}+" if self.is_capped else int.__repr__(self)


@dataclass(frozen=True)
class Header:
    """The head of a column: its text, and where a click sorts to; ``aria_sort`` as in ARIA, or ""."""

    text: str
    name: str
    url: str
    aria_sort: str


@dataclass(frozen=True)
class ListRequest:
    """What the address of a list asks for: which records, in which order, and where in it (``side`` of
    ``cursor``: AFTER, BEFORE, LAST or ""). ``problems`` names what was not understood."""

    selection: Selection
    order_name: str
    side: str
    cursor: str
    problems: list[str]

    @classmethod
    def of(cls, address: QueryDict) -> ListRequest:
        """What *address* asks for. Names that begin with ``_`` are Django's own."""
        given = {name: str(address[name]) for name in address if not name.startswith("_")}
        selection = Selection({name: text for name, text in given.items() if name not in _OF_THE_PAGE})
        problems = names_of(selection.problems)
        order_name = given.get(ORDER) or NEWEST_FIRST
        if order_name not in ORDERS:
            problems.append(ORDER)
            order_name = NEWEST_FIRST
        side = next((name for name in (LAST, BEFORE, AFTER) if given.get(name)), "")
        if side in (BEFORE, AFTER):
            try:
                ORDERS[order_name].beyond(given[side])
            except ValueError:
                problems.append(AFTER)
        return cls(selection, order_name, side, given.get(side, ""), problems)

    @property
    def order(self) -> Order:
        """The order itself, as it suits these records."""
        return replace(ORDERS[self.order_name], avoid_index_order=self.selection.is_sparse)

    @property
    def whole(self) -> Selection:
        """All that the list shows on all of its pages."""
        has = {"has": self.order.has} if self.order.has else {}
        return Selection({**self.selection.parameters, **has})


class RecordChangeList(ChangeList):
    """A list whose address holds a selection, an order and a place in it."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet:
        """The selected records, in order: what actions on all rows get as well."""
        self.asked = ListRequest.of(request.GET)
        self.selection, self.order = self.asked.selection, self.asked.order
        self.problems = self.asked.problems
        rows = self.root_queryset.filter(self.selection.condition).filter(self.order.condition)
        return self.order.sort(rows)

    def get_results(self, request: HttpRequest) -> None:
        """Reads one page, and whether there is one on either side of it."""
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
        """Rows, and whether there are some on either side."""
        size, order, side = self.list_per_page, self.order, self.asked.side
        if side == LAST:
            rows = list(order.sort(self.queryset, backwards=True)[: size + 1])
            return rows[:size][::-1], len(rows) > size, False
        if side == BEFORE:
            nearer = self.queryset.filter(order.beyond(self.asked.cursor, backwards=True))
            rows = list(order.sort(nearer, backwards=True)[: size + 1])
            if len(rows) > size:
                return rows[:size][::-1], True, True
            # Less than a page is left: show the first one whole.
        elif side == AFTER:
            rows = list(self.queryset.filter(order.beyond(self.asked.cursor))[: size + 1])
            return rows[:size], True, len(rows) > size
        rows = list(self.queryset[: size + 1])
        return rows[:size], False, len(rows) > size

    def _count(self) -> int:
        """How many there are on all pages, as far as is counted."""
        return self.queryset.order_by().values("pk")[: MAX_COUNTED + 1].count()

    def url(self, changes: dict[str, str | None]) -> str:
        """The address of the list with other parameters (None: without), from its first page."""
        order = {} if self.asked.order_name == NEWEST_FIRST else {ORDER: self.asked.order_name}
        parameters: dict[str, str | None] = {**self.selection.parameters, **order, **changes}
        return f"?{urlencode({name: text for name, text in parameters.items() if text})}"

    def _at(self, side: str, row: Any) -> str:
        return self.url({side: self.order.cursor(row)})

    @property
    def headers(self) -> list[Header]:
        """The heads of the columns, in order."""
        return [self._header(column) for column in self.list_display if column != "action_checkbox"]

    def _header(self, column: Any) -> Header:
        name = getattr(column, "__name__", column)
        text = capfirst(str(label_for_field(column, self.model, self.model_admin)))
        orders = _ORDERS_OF_COLUMNS.get(name, ())
        if self.asked.order_name not in orders:
            url = self.url({ORDER: orders[0] if orders[0] != NEWEST_FIRST else None}) if orders else ""
            return Header(text, name, url, "")
        following = orders[(orders.index(self.asked.order_name) + 1) % len(orders)]
        back_to_default = following in (NEWEST_FIRST, self.asked.order_name)
        return Header(
            text,
            name,
            self.url({ORDER: None if back_to_default else following}),
            "descending" if self.order.descending else "ascending",
        )

    @property
    def is_sorted(self) -> bool:
        """In another order than the usual one."""
        return self.asked.order_name != NEWEST_FIRST
