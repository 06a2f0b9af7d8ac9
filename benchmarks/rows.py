"""Millions of sessions, inserted by the database itself: only the columns that the queue reads are filled."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

TABLE = "faceprint_verificationsession"
#: Between the times of one session and the next.
STEP = timedelta(milliseconds=50)

#: The indexes of the engine's queue.
QUEUE = ("faceprint_session_wake", "faceprint_session_ready", "faceprint_session_next")

_TEXTS = (
    *("request_digest", "purpose", "error_class", "error_code", "error_message", "error_log_id"),
    *("name_index", "number_index"),
)


class State(Enum):
    """The sessions' place in the engine's queue."""

    WAITING = "waiting"
    DUE = "due"
    #: Alternately waiting and due.
    MIXED = "mixed"


def fill(count: int, state: State, *, moment: datetime) -> None:
    """*count* sessions under one plan: ready to be claimed, or asleep until the day after *moment*.

    Their keys follow the order in which they began, their deadlines do not: neighbours in the queue are far
    from each other in the table. The table keeps its unique indexes and those of the queue.
    """
    from django.db import connection

    from .sessions import plan

    on_postgres = connection.vendor == "postgresql"

    def at(start: str, step: str) -> str:
        """The moment *start* plus *step* steps, as SQL."""
        microseconds = f"({step}) * {STEP // timedelta(microseconds=1)}"
        if on_postgres:
            return f"CAST(%({start})s AS timestamptz) + {microseconds} * INTERVAL '1 microsecond'"
        return f"%({start})s + INTERVAL {microseconds} MICROSECOND"

    # A step that shares no divisor with the count: every place once, far from its neighbours'.
    place = f"MOD(seq * 7919, {count})"
    is_due = {State.WAITING: "FALSE", State.DUE: "TRUE", State.MIXED: "MOD(seq, 2) = 0"}[state]
    values: dict[str, str] = dict.fromkeys(_TEXTS, "''") | {
        "id": "seq",
        "public_id": "CAST(LPAD(TO_HEX(seq), 32, '0') AS uuid)" if on_postgres else "UUID()",
        "environment": "'sandbox'",
        "application": "'default'",
        "reference": "CONCAT('order-', seq)",
        "verdict": "'pending'",
        "archive_state": "'waiting'",
        "created_at": at("began", "seq"),
        "token_requested_at": at("began", "seq"),
        "token_answered_at": at("began", "seq"),
        "lease_epoch": "0",
        "recheck_requested": "FALSE",
        "poll_count": "0",
        "failure_count": "0",
        "plan_id": "%(plan)s",
        "results_give_up_at": at("give_up_at", place),
        "next_deadline": at("safe", place),
        "last_deadline": at("last", place),
        "wake_at": f"CASE WHEN {is_due} THEN NULL ELSE {at('wake', place)} END",
        "priority_at": f"CASE WHEN {is_due} THEN {at('safe', place)} END",
    }
    parameters: dict[str, Any] = {
        "plan": plan().pk,
        "began": moment - timedelta(minutes=30) - count * STEP,
        "safe": moment + timedelta(hours=1),
        "last": moment + timedelta(hours=100),
        "give_up_at": moment + timedelta(hours=200),
        "wake": moment + timedelta(hours=24),
    }
    series = (
        f"generate_series(CAST(1 AS bigint), {count}) AS series(seq)" if on_postgres else f"seq_1_to_{count}"
    )
    names, expressions = ", ".join(values), ", ".join(values.values())
    queue = _drop_indexes()
    sql = f"INSERT INTO {TABLE} ({names}) SELECT {expressions} FROM {series}"  # noqa: S608  (all ours)
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        for statement in queue:
            cursor.execute(statement)
        cursor.execute(f"VACUUM ANALYZE {TABLE}" if on_postgres else f"ANALYZE TABLE {TABLE}")


def _drop_indexes() -> list[str]:
    """Drop the indexes, which slow down the filling; returns the statements that restore those of the queue.

    The others serve lists and searches, not the engine.
    """
    from django.db import connection

    restore = []
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s", [TABLE])
            for name, definition in cursor.fetchall():
                if "UNIQUE" in definition:
                    continue
                cursor.execute(f'DROP INDEX "{name}"')
                if name in QUEUE:
                    restore.append(definition)
            return restore
        cursor.execute(f"SHOW CREATE TABLE {TABLE}")
        table = cursor.fetchone()[1]
        keys = dict(re.findall(r"^  KEY `(\w+)` (\(.*\)),?$", table, re.MULTILINE))
        # Foreign keys need the indexes that begin with their column.
        foreign = tuple(f"(`{name}`" for name in re.findall(r"FOREIGN KEY \(`(\w+)`\)", table))
        dropped = [name for name, columns in keys.items() if not columns.startswith(foreign)]
        cursor.execute(f"ALTER TABLE {TABLE} " + ", ".join(f"DROP KEY `{name}`" for name in dropped))
        added = ", ".join(f"ADD KEY `{name}` {keys[name]}" for name in QUEUE)
        return [f"ALTER TABLE {TABLE} {added}"]
