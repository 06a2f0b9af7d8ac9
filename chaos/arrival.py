"""First come, first served: the order of work in the control run, in place of the engine's own.

Claims, leases, retries, rate limits and the order of files within a visit stay the same.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import DateTimeField, ExpressionWrapper, F, Value

from django_faceprint.engine import queue
from django_faceprint.models import VerificationSession


def priority(session: VerificationSession, moment: datetime) -> datetime:
    """In place of :func:`queue.priority`: the twin of the expression below."""
    return session.created_at + queue.OVERDUE_PENALTY


def priority_expression(moment: datetime) -> Any:
    """In place of :func:`queue.priority_expression`: by when the session was started.

    Shifted far into the future, so that no deadline in the queue is ever over.
    """
    return ExpressionWrapper(F("created_at") + Value(queue.OVERDUE_PENALTY), output_field=DateTimeField())


def work_by_arrival() -> None:
    """Replace the engine's order in this process."""
    queue.priority = priority
    queue.priority_expression = priority_expression
