"""``encryption``: the whole archive with the cipher of its files against the same without.

Both run in each round, in shuffled order, and ratios are taken within a round. Without the cipher everything
else stays: hashes, checks, names, keys and encrypted columns. Every run is checked.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from . import sessions
from .archive import Contestant, archive, cpu_milliseconds, run_rounds, sessions_per_second
from .project import Project
from .report import Goal, Report, Spread
from .servers import postgresql
from .upstream import serving
from .workspace import folder

SESSIONS = 120
ROUNDS = 7
GOAL = 0.80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--sessions", type=int, default=SESSIONS, help=f"of each run (default: {SESSIONS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"with and without (default: {ROUNDS})")


def run(options: argparse.Namespace) -> Report:
    """Measure."""
    report = Report("Encryption: the whole archive with and without the cipher of its files")
    with ExitStack() as stack:
        home = stack.enter_context(folder(in_memory=True, needed=options.sessions * 16_000_000))
        upstream = stack.enter_context(serving(home))
        server = stack.enter_context(postgresql(in_memory=True))
        project = Project(database=server.create(), archive=str(home / "archive"), api_url=upstream.http)
        project.set_up()
        sessions.migrate()
        report.versions = {server.version: "", "nginx": upstream.version.removeprefix("nginx ")}
        # Fetches the access_token, which serves for weeks.
        archive(project, upstream, 1)
        contestants = [
            Contestant(name, "http", partial(archive, there, upstream, options.sessions))
            for name, there in (("encrypted", project), ("plain", replace(project, encrypts=False)))
        ]
        encrypted, plain = run_rounds(contestants, options.rounds).values()
    speeds = [sessions_per_second(results) for results in (encrypted, plain)]
    cpu = [cpu_milliseconds(results) for results in (encrypted, plain)]
    report.table(
        f"Medians of {options.rounds} rounds (least–most), one process",
        ["files", "sessions/s", "CPU, ms/session"],
        [
            [name, str(Spread.of(speed)), str(Spread.of(time))]
            for name, speed, time in zip(("encrypted", "plain"), speeds, cpu, strict=True)
        ],
    )
    report.goals += [
        Goal(
            "sessions per second, encrypted / plain",
            Spread.of([one / other for one, other in zip(*speeds, strict=True)]),
            at_least=GOAL,
        ),
        Goal(
            "the same by CPU time",
            Spread.of([other / one for one, other in zip(*cpu, strict=True)]),
            at_least=GOAL,
        ),
    ]
    report.figures = {"encrypted": encrypted, "plain": plain}
    return report
