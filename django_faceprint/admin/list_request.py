"""Which records an address asks for, in which order, and where in the list; used by the list, the record
page and actions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Coalesce
from django.http import HttpRequest, QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from django_faceprint.models import VerificationSession
from django_faceprint.records.filters import MAX_ROWS, Selection

from .filters import names_of

AFTER, BEFORE, LAST, ORDER = "after", "before", "last", "order"
#: Django's parameter for the list that the user came from: the URL parameters of that list.
IN_LIST = "_changelist_filters"
#: Parameters that name a place in the list; all others are filters.
_PLACE = frozenset({AFTER, BEFORE, LAST, ORDER})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Order:
    """A sort order: by a column, then by primary key, so that no two records share a place."""

    column: str
    descending: bool
    #: Shown above the list when the order leaves out records without a value in the column.
    leaves_out: Promise | None = None
    #: The value of the filter ``has`` that leaves out the same records.
    has: str = ""
    #: Lets the database sort instead of walking the index of the column: faster for few records.
    avoid_index_order: bool = False

    @property
    def condition(self) -> Q:
        """Selects the records that have a place in this order."""
        return Q(**{f"{self.column}__isnull": False}) if self.leaves_out else Q()

    def sort(self, rows: QuerySet, *, backwards: bool = False) -> QuerySet:
        """*rows* in this order, or in the reverse one."""
        # An index does not serve a computed column, even one with the same values.
        column = Coalesce(self.column, self.column) if self.avoid_index_order else F(self.column)
        columns = (column, F("pk"))
        if self.descending != backwards:
            return rows.order_by(*(column.desc() for column in columns))
        return rows.order_by(*(column.asc() for column in columns))

    def beyond(self, cursor: str, *, backwards: bool = False) -> Q:
        """Selects the records after (or before) *cursor*. Raises ``ValueError`` for a malformed one."""
        text, _sep, key = cursor.rpartition("_")
        value, pk = self._value(text), int(key)
        if not 0 < pk < 2**63:
            raise ValueError(cursor)
        side = "lt" if self.descending != backwards else "gt"
        # The first condition is redundant, but lets the database find the place by index.
        return Q(**{f"{self.column}__{side}e": value}) & (
            Q(**{f"{self.column}__{side}": value}) | Q(**{f"pk__{side}": pk})
        )

    def cursor(self, row: Any) -> str:
        """The place of *row* as text."""
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


@dataclass(frozen=True)
class ListRequest:
    """The parameters of a list: filters, order, and place (``side`` of ``cursor``: AFTER, BEFORE, LAST or
    ""). ``problems`` are the names of invalid parameters."""

    selection: Selection
    order_name: str
    side: str
    cursor: str
    problems: list[str]

    @classmethod
    def of(cls, address: QueryDict) -> ListRequest:
        """Parse *address*. Names that begin with ``_`` are Django's own."""
        given = {name: str(address[name]) for name in address if not name.startswith("_")}
        selection = Selection({name: text for name, text in given.items() if name not in _PLACE})
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
        """The order, with the faster of two ways to sort these records."""
        return replace(ORDERS[self.order_name], avoid_index_order=self.selection.prefers_retention_index)

    @property
    def whole(self) -> Selection:
        """All records on all pages of the list, without those that the order leaves out."""
        has = {"has": self.order.has} if self.order.has else {}
        return Selection({**self.selection.parameters, **has})


@dataclass(frozen=True)
class Neighbours:
    """Primary keys of the records before and after one in a list; None at either end."""

    previous: int | None
    next: int | None


def neighbours(
    session: VerificationSession, rows: QuerySet[Any], order: Order = ORDERS[NEWEST_FIRST]
) -> Neighbours:
    """The neighbours of *session* in the list of *rows*, which may have lost it meanwhile. Sends two queries,
    each answered by an index."""
    if getattr(session, order.column) is None:
        return Neighbours(None, None)
    cursor = order.cursor(session)
    listed = rows.filter(order.condition).select_related(None).prefetch_related(None)

    def nearest(*, backwards: bool) -> int | None:
        found = order.sort(listed.filter(order.beyond(cursor, backwards=backwards)), backwards=backwards)
        return found.values_list("pk", flat=True).first()

    return Neighbours(nearest(backwards=True), nearest(backwards=False))


def neighbours_in_list(
    session: VerificationSession, visible: QuerySet[VerificationSession], parameters: str
) -> Neighbours:
    """The neighbours of *session* among the *visible* records of the list with these URL *parameters*
    (``status=failed&order=score``). "" means all records of all time."""
    asked = ListRequest.of(QueryDict(parameters))
    rows = visible.filter(asked.selection.condition) if parameters else visible
    return neighbours(session, rows, asked.order)


def in_list(request: HttpRequest) -> str:
    """The query string that keeps the list that the user came from; "" without one."""
    listed = request.GET.get(IN_LIST, "")
    return f"?{urlencode({IN_LIST: listed})}" if listed else ""


def visible_records(request: HttpRequest, model_admin: admin.ModelAdmin) -> QuerySet:
    """The records that the user may view, with all columns: a host may narrow them in ``get_queryset``."""
    return model_admin.get_queryset(request).defer(None).prefetch_related(None)


def selected_records(
    request: HttpRequest, model_admin: admin.ModelAdmin, queryset: QuerySet
) -> Selection | None:
    """The records that an action was requested for: the ticked rows, or all on all pages of the list.

    Where a host narrows what a user may view, "all" becomes a list of keys, at most :data:`MAX_ROWS`.
    Returns None, and tells the user, when there are more.
    """
    asked = ListRequest.of(request.GET)
    if request.POST.get("select_across") == "1" and not model_admin.get_queryset(request).query.where:
        return asked.whole
    keys = list(queryset.order_by().values_list("pk", flat=True)[: MAX_ROWS + 1])
    if keys and len(keys) <= MAX_ROWS and not asked.problems:
        return Selection({"rows": ",".join(map(str, keys))})
    text = _("Nothing was done: select at most %(count)d records at a time.") % {"count": MAX_ROWS}
    model_admin.message_user(request, text, messages.ERROR)
    return None
