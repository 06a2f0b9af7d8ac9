"""Holds that end by themselves: a column says until when a worker holds a row.

For jobs, tokens, mails and pauses; sessions are claimed in ``engine/queue.py``. A hold that ends later than
any worker sets was written under a clock that has since moved back. It does not count: otherwise the row
would wait until that clock's time comes again. Clocks of workers differ a little, so the limit is twice the
length.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet

from django_faceprint.clock import now


def is_held(until: datetime | None, length: timedelta) -> bool:
    """Whether a hold that ends at *until* counts now; *length* is the longest one that workers set."""
    moment = now()
    return until is not None and moment < until <= moment + 2 * length


def is_free(column: str, length: timedelta) -> Q:
    """A condition: rows that nobody holds. *column* has the end of the hold, or NULL."""
    moment = now()
    over = Q(**{f"{column}__isnull": True}) | Q(**{f"{column}__lte": moment})
    return over | Q(**{f"{column}__gt": moment + 2 * length})


def hold(rows: QuerySet[Any], column: str, length: timedelta, **values: Any) -> bool:
    """Hold the only row of *rows* for *length*, if it is free; returns whether it is ours.

    Sets *column* to the end of the hold, and *values*: the holder, or a new epoch.
    """
    values[column] = now() + length
    return rows.filter(is_free(column, length)).update(**values) == 1
