"""First come, first served: the order that the counter-run puts in place of the engine's own.

Everything else stays as it is: claims, leases, retries, budgets and the order of files within a visit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import DateTimeField, ExpressionWrapper, F, Value

from django_faceprint.engine import queue
from django_faceprint.models import VerificationSession


def aim(moment: datetime, **_: datetime | None) -> datetime:
    """In place of :func:`schedule.aim`, which is for sessions that are collected anew: they come now."""
    return moment + queue.BEHIND


def aim_of(session: VerificationSession, moment: datetime) -> datetime:
    """In place of :func:`schedule.aim_of`: the twin of the expression below."""
    return session.created_at + queue.BEHIND


def aim_expression(moment: datetime) -> Any:
    """In place of :func:`schedule.aim_expression`: by when the session was started.

    Far in the future, so that no deadline ever seems to have gone by in the queue.
    """
    return ExpressionWrapper(F("created_at") + Value(queue.BEHIND), output_field=DateTimeField())


def work_by_arrival() -> None:
    """From now on, in this process."""
    queue.aim = aim
    queue.aim_of = aim_of
    queue.aim_expression = aim_expression
