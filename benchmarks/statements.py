"""``statements``: SQL statements per archived session, counted in PostgreSQL's own log.

The server logs every statement of the engine's connection, BEGIN and COMMIT included.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import sessions
from .archive import archive
from .project import Project
from .report import Goal, Report, Spread
from .servers import postgresql
from .upstream import serving
from .workspace import folder

SESSIONS = 120
ALONE = 5
GOAL = 6.0
#: The application name of the engine's connections alone.
NAME = "engine"

_STATEMENT = re.compile(rf"{NAME}\|LOG:  (?:statement|execute [^:]*): (.*)")
_TABLE = re.compile(r'(?:INTO|FROM|UPDATE) "(\w+)"')
_FRAME = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--sessions", type=int, default=SESSIONS, help=f"due at once (default: {SESSIONS})")


def run(options: argparse.Namespace) -> Report:
    """Count."""
    with ExitStack() as stack:
        home = stack.enter_context(folder(in_memory=True, needed=options.sessions * 16_000_000))
        upstream = stack.enter_context(serving(home))
        server = stack.enter_context(
            postgresql({"log_statement": "all", "log_line_prefix": "%a|"}, in_memory=True)
        )
        project = Project(database=server.create(), archive=str(home / "archive"))
        project.set_up()
        sessions.migrate()
        engine = replace(project, database=_named(project.database), api_url=upstream.http)
        start = [0]

        def before() -> None:
            start[0] = server.log.stat().st_size

        # Fetches the access_token, which serves for weeks.
        archive(engine, upstream, 1)
        archive(engine, upstream, options.sessions, before=before)
        together = _kinds(server.log, start[0])
        alone: list[Counter[str]] = []
        for _ in range(ALONE):
            archive(engine, upstream, 1, before=before)
            alone.append(_kinds(server.log, start[0]))
    report = Report("Statements: SQL statements per archived session")
    report.versions = {server.version: ""}
    rows = [
        [kind, f"{count / options.sessions:.2f}", f"{sum(each[kind] for each in alone) / ALONE:.1f}"]
        for kind, count in (together + sum(alone, Counter())).most_common()
        for count in [together[kind]]
    ]
    all_together, all_alone = together.total() / options.sessions, [each.total() for each in alone]
    rows.append(["all", f"{all_together:.2f}", f"{Spread.of(all_alone).median:.1f}"])
    report.table(
        "Statements per session", ["", f"{options.sessions} due at once", "one due, and nothing else"], rows
    )
    report.goals.append(
        Goal(
            f"statements per session, {options.sessions} due at once",
            Spread.of([all_together]),
            at_most=GOAL,
            unit="",
        )
    )
    report.figures = {"together": together, "alone": alone, "sessions": options.sessions}
    report.notes.append(
        "Counted in the server's log, with transaction control. A claim, its prefetches and a commit serve\n"
        "many sessions; a single session needs all of them for itself. Finished sessions are written every\n"
        "0.2 s: the slower the machine, the fewer share a commit."
    )
    return report


def _named(database: dict[str, Any]) -> dict[str, Any]:
    return {**database, "OPTIONS": {"application_name": NAME}}


def _kinds(log: Path, start: int) -> Counter[str]:
    """The engine's statements in the log from byte *start* on, counted by verb and table."""
    with log.open("rb") as lines:
        lines.seek(start)
        text = lines.read().decode("utf-8", errors="replace")
    kinds: Counter[str] = Counter()
    for line in text.splitlines():
        if match := _STATEMENT.match(line):
            kinds[_kind(match[1])] += 1
    return kinds


def _kind(statement: str) -> str:
    verb = statement.split(maxsplit=1)[0].rstrip(";").upper()
    if verb in _FRAME:
        return "BEGIN, COMMIT and the like"
    table = _TABLE.search(statement)
    return f"{verb} {table[1]}" if table else verb
