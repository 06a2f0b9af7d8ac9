"""``encryption``: the whole archive with the cipher of its files against the same without.

Both take turns within each round, and ratios are taken within a round. Without the cipher everything else
stays: hashes, checks, names, keys and encrypted columns. Every run is checked.
"""

from __future__ import annotations

import argparse
import random
from contextlib import ExitStack
from dataclasses import replace

from . import sessions
from .archive import archive
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
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
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
        order = random.Random(1)
        for number in range(options.rounds):
            for encrypted in order.sample([True, False], 2):
                result = archive(replace(project, encrypts=encrypted), upstream, options.sessions)
                found[encrypted].append(result)
                print(
                    f"round {number + 1}/{options.rounds}  {'encrypted' if encrypted else 'plain':10}"
                    f"{result['sessions'] / result['seconds']:8.1f}/s",
                    flush=True,
                )
    speeds = {
        encrypted: [item["sessions"] / item["seconds"] for item in results]
        for encrypted, results in found.items()
    }
    report.table(
        f"Medians of {options.rounds} rounds (least–most), one process",
        ["files", "sessions/s", "CPU, ms/session"],
        [
            [
                "encrypted" if encrypted else "plain",
                str(Spread.of(speeds[encrypted])),
                str(Spread.of([1000 * item["cpu"] / item["sessions"] for item in results])),
            ]
            for encrypted, results in found.items()
        ],
    )
    ratios = [with_it / without for with_it, without in zip(speeds[True], speeds[False], strict=True)]
    cpu = [one["cpu"] / other["cpu"] for one, other in zip(found[False], found[True], strict=True)]
    report.goals += [
        Goal("sessions per second, encrypted / plain", Spread.of(ratios), at_least=GOAL),
        Goal("the same by CPU time", Spread.of(cpu), at_least=GOAL),
    ]
    report.figures = {"encrypted": found[True], "plain": found[False]}
    return report
