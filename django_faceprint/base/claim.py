"""Claims that end by themselves: a column says until when a worker holds a row.

A claim that ends later than any we hand out was written under a clock that has since moved back: it does not
count, or the row would wait until that clock's time comes again. Clocks of workers differ a little, so this
takes twice the length of a claim.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet

from django_faceprint.clock import now


def is_held(until: datetime | None, length: timedelta) -> bool:
    """Whether a claim that ends at *until* counts now; *length* is the longest that we hand out."""
    moment = now()
    return until is not None and moment < until <= moment + 2 * length


def is_free(column: str, length: timedelta) -> Q:
    """The same in a query: rows that nobody holds, with the end of their claim, or NULL, in *column*."""
    moment = now()
    over = Q(**{f"{column}__isnull": True}) | Q(**{f"{column}__lte": moment})
    return over | Q(**{f"{column}__gt": moment + 2 * length})


def claim(rows: QuerySet[Any], column: str, length: timedelta, **values: Any) -> bool:
    """Claim the only row of *rows* for *length*, if it is free; returns whether it is ours.

    Sets *column* to the end of the claim, and also *values*: the holder, or a new epoch.
    """
    values[column] = now() + length
    return rows.filter(is_free(column, length)).update(**values) == 1
