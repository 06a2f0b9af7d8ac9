"""``claims``: the engine's queue at millions of sessions, by the production code.

Each statement of :mod:`django_faceprint.engine.queue` is explained when it is sent; a plan that reads or
sorts the table ends the benchmark with an error.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from . import sessions
from .project import Project, use_database
from .report import Goal, Report, Spread
from .rows import TABLE, State, fill
from .servers import DatabaseServer, mariadb, postgresql, sqlite
from .workspace import require_space

ROWS = 1_000_000
TIMES = 5
BLOCKS = 12
CALLS = 15
#: Sessions of one claim, as the engine claims them.
LIMIT = 8
BYTES_PER_ROW = 700

READY = "faceprint_session_ready"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--rows", type=int, default=ROWS, help=f"sessions (default: {ROWS})")
    parser.add_argument(
        "--times", type=int, default=TIMES, help=f"factor of the larger table (default: {TIMES})"
    )
    parser.add_argument("--server", choices=["postgresql", "mariadb"], action="append", help="only this one")


def run(options: argparse.Namespace) -> Report:
    """Measure."""
    # Any database will do to begin with.
    Project(database=sqlite(Path(":memory:")), archive="").set_up()
    from django.db import connections

    report = Report("Claims: the queue at millions of sessions")
    for name in options.server or ["postgresql", "mariadb"]:
        require_space(options.rows * (options.times + 3) * BYTES_PER_ROW)
        with _SERVERS[name]() as server:
            report.versions[server.version] = ""
            try:
                _measure(server, options.rows, options.times, report)
            finally:
                connections.close_all()
    report.notes.append(
        "The database itself fills the tables; the servers do not wait for the disk. Neighbours in the\n"
        "queue lie far from each other in the table. Ratios are between consecutive blocks of calls."
    )
    return report


_SERVERS: dict[str, Callable[[], Any]] = {
    "postgresql": lambda: postgresql({"fsync": "off"}),
    "mariadb": mariadb,
}


def _measure(server: DatabaseServer, rows: int, times: int, report: Report) -> None:
    from django_faceprint.clock import now
    from django_faceprint.engine import queue

    kind = server.version.partition(" ")[0]
    _make(server, "waiting", rows, State.WAITING)
    with plans() as found:
        tick = _median(lambda: queue.promote(now()))
        queue.claim(now(), limit=LIMIT)
    _check(found)
    _list_plans(report, f"{server.version}: {rows:,} waiting, none due", found)
    with plans() as found:
        # The day after tomorrow all of them have woken up.
        assert queue.promote(now() + timedelta(days=2)) == queue.PROMOTE_BATCH
    _check(found)
    _list_plans(report, f"{server.version}: {rows:,} waiting, all due", found)

    _make(server, "due", rows, State.DUE)
    with plans() as found:
        _claim()
        queue.promote(now())
    _check(found)
    _list_plans(report, f"{server.version}: {rows:,} ready", found)
    with_index, without_index = _without_index()
    report.table(
        f"{server.version}: milliseconds per call, medians",
        ["", "ms"],
        [
            [f"tick, {rows:,} waiting, none due", f"{tick * 1000:.2f}"],
            [f"claim of {LIMIT}, {rows:,} ready", str(Spread.of([value * 1000 for value in with_index]))],
            ["the same without the index", str(Spread.of([value * 1000 for value in without_index]))],
        ],
    )
    gain = [slow / quick for slow, quick in zip(without_index, with_index, strict=True)]
    if kind == "PostgreSQL":
        report.goals.append(Goal(f"{kind}: claim without the index / with it", Spread.of(gain), at_least=8.0))
    report.figures[kind] = {
        "tick": tick,
        "claim": with_index,
        "claim without index": without_index,
        "rows": rows,
    }
    if kind == "PostgreSQL" and times > 1:
        _compare(server, rows, times, report)


def _compare(server: DatabaseServer, rows: int, times: int, report: Report) -> None:
    """The same calls on few and on many rows, half of them waiting and half due."""
    from django_faceprint.clock import now
    from django_faceprint.engine import queue

    sizes = {"few": rows, "many": rows * times}
    calls: dict[str, Callable[[], Any]] = {
        f"claim of {LIMIT}": _claim,
        "due query of a tick": lambda: queue.promote(now()),
    }
    entries = {name: _make(server, name, count, State.MIXED) for name, count in sizes.items()}
    measured: dict[tuple[str, str], list[float]] = {(call, name): [] for call in calls for name in sizes}
    for block in range(BLOCKS + 1):
        for name, entry in entries.items():
            use_database(entry)
            for call, action in calls.items():
                seconds = _median(action)
                # The first block warms the caches.
                if block:
                    measured[call, name].append(seconds)
    rows_of_table = []
    for call in calls:
        few, many = measured[call, "few"], measured[call, "many"]
        ratio = Spread.of([much / little for much, little in zip(many, few, strict=True)])
        rows_of_table.append(
            [
                call,
                str(Spread.of([value * 1000 for value in few])),
                str(Spread.of([value * 1000 for value in many])),
            ]
        )
        report.goals.append(
            Goal(f"{call}: {sizes['many']:,} rows / {sizes['few']:,} rows", ratio, at_most=1.5)
        )
    report.table(
        f"{server.version}: milliseconds per call, half of the rows waiting, half ready",
        ["", *(f"{count:,} rows" for count in sizes.values())],
        rows_of_table,
    )
    report.figures["sizes"] = {f"{call}, {name}": values for (call, name), values in measured.items()}


def _claim() -> None:
    from django_faceprint.clock import now
    from django_faceprint.engine import queue

    assert len(queue.claim(now(), limit=LIMIT)) == LIMIT


def _without_index() -> tuple[list[float], list[float]]:
    """Seconds of claims with the index and without it, alternating."""
    from django.db import connection

    from django_faceprint.models import VerificationSession

    (index,) = (index for index in VerificationSession._meta.indexes if index.name == READY)
    quick, slow = [], []
    for _ in range(3):
        quick.append(_median(_claim))
        with connection.schema_editor() as editor:
            editor.remove_index(VerificationSession, index)
        slow.append(_median(_claim, calls=3))
        with connection.schema_editor() as editor:
            editor.add_index(VerificationSession, index)
    return quick, slow


def _median(call: Callable[[], Any], *, calls: int = CALLS) -> float:
    """The median of the seconds of one call."""
    seconds = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return Spread.of(seconds).median


# --- databases ----------------------------------------------------------------------------------------


def _make(server: DatabaseServer, name: str, count: int, state: State) -> dict[str, Any]:
    """Create a database with *count* sessions and use it from now on; its entry in DATABASES."""
    from django_faceprint.clock import now

    entry = server.create(name)
    use_database(entry)
    sessions.migrate()
    started = time.monotonic()
    fill(count, state, moment=now())
    seconds = time.monotonic() - started
    print(f"{server.version}: {count:,} rows, {state.value}: filled in {seconds:.0f} s", flush=True)
    return entry


# --- plans --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """The plan of one statement: the indexes that it reads, and ``bad`` steps such as sorting."""

    sql: str
    verb: str
    indexes: tuple[str, ...]
    bad: tuple[str, ...] = ()


@dataclass
class _Explainer:
    """An execute wrapper that explains each statement on the sessions before it runs."""

    found: list[Plan] = field(default_factory=list)

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if TABLE in sql and not sql.startswith("EXPLAIN"):
            connection = context["connection"]
            explain = _explained_by_postgresql if connection.vendor == "postgresql" else _explained_by_mariadb
            with connection.cursor() as cursor:
                self.found.append(explain(cursor, sql, params))
        return execute(sql, params, many, context)


@contextmanager
def plans() -> Iterator[list[Plan]]:
    """The plans of the statements on sessions within the block."""
    from django.db import connection

    explainer = _Explainer()
    with connection.execute_wrapper(explainer):
        yield explainer.found


def _explained_by_postgresql(cursor: Any, sql: str, params: Any) -> Plan:
    cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", params)
    (answer,) = cursor.fetchone()
    document = json.loads(answer) if isinstance(answer, str) else answer
    indexes, bad = [], []
    nodes = [document[0]["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", ())
        if "Index Name" in node:
            indexes.append(node["Index Name"])
        if node["Node Type"] in ("Seq Scan", "Sort", "Incremental Sort"):
            bad.append(node["Node Type"])
    return Plan(sql, _verb(sql), tuple(indexes), tuple(bad))


def _explained_by_mariadb(cursor: Any, sql: str, params: Any) -> Plan:
    cursor.execute(f"EXPLAIN {sql}", params)
    names = [column[0] for column in cursor.description]
    indexes, bad = [], []
    for values in cursor.fetchall():
        row = dict(zip(names, values, strict=True))
        if row["table"] is None:
            # Answered without reading the table.
            continue
        if row["key"]:
            indexes.append(row["key"])
        if row["type"] == "ALL" or not row["key"]:
            bad.append("reads the table")
        if "filesort" in (row["Extra"] or "") or "temporary" in (row["Extra"] or ""):
            bad.append(row["Extra"])
    return Plan(sql, _verb(sql), tuple(indexes), tuple(bad))


def _verb(sql: str) -> str:
    return "SELECT … FOR UPDATE" if "FOR UPDATE" in sql else sql.split(maxsplit=1)[0]


def _check(found: Sequence[Plan]) -> None:
    """Raise when a plan reads or sorts the table, or when there is none."""
    assert found, "no statement was explained"
    for plan in found:
        assert not plan.bad, f"{', '.join(plan.bad)}: {plan.sql}"


def _list_plans(report: Report, title: str, found: Sequence[Plan]) -> None:
    seen = dict.fromkeys((plan.verb, ", ".join(plan.indexes) or "no row is read") for plan in found)
    report.table(title, ["statement", "index"], [list(row) for row in seen])
