"""``memory``: peak memory of a process that archives sessions with a long video.

Each run is a process of its own. Videos are streamed: their size must not matter.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import replace

from . import sessions
from .archive import archive
from .project import Project
from .report import Goal, Report, Spread
from .servers import sqlite
from .upstream import VIDEO_BYTES, serving
from .workspace import Missing, folder, peak_memory

LARGE = 126_000_000
#: As many as the engine visits concurrently.
SESSIONS = 8
GOAL = 1.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--sessions", type=int, default=SESSIONS, help=f"of each run (default: {SESSIONS})")
    parser.add_argument("--rounds", type=int, default=3, help="of both sizes (default: 3)")


def run(options: argparse.Namespace) -> Report:
    """Measure."""
    if peak_memory() is None:
        raise Missing("The peak memory of a process can be read on Linux only.")
    import sqlite3

    report = Report("Memory: the peak of a process that archives videos")
    found: dict[int, list[float]] = {VIDEO_BYTES: [], LARGE: []}
    with ExitStack() as stack:
        rows = stack.enter_context(folder())
        home = stack.enter_context(folder(in_memory=True, needed=2 * (options.sessions + 1) * LARGE))
        places = {size: home / str(size) for size in found}
        for place in places.values():
            place.mkdir()
        upstreams = {
            size: stack.enter_context(serving(place, video_bytes=size)) for size, place in places.items()
        }
        project = Project(database=sqlite(rows / "database.sqlite3"), archive=str(home / "archive"))
        project.set_up()
        sessions.migrate()
        report.versions = {
            "nginx": upstreams[LARGE].version.removeprefix("nginx "),
            "SQLite": sqlite3.sqlite_version,
        }
        for _ in range(options.rounds):
            for size, upstream in upstreams.items():
                result = archive(replace(project, api_url=upstream.http), upstream, options.sessions)
                found[size].append(result["memory"] / 1e6)
    report.table(
        f"Peak memory in MB, {options.sessions} sessions at once",
        ["video", "MB"],
        [[f"{size / 1e6:.0f} MB", str(Spread.of(values))] for size, values in found.items()],
    )
    ratios = [large / small for small, large in zip(found[VIDEO_BYTES], found[LARGE], strict=True)]
    report.goals.append(Goal("memory with 126 MB / with 3 MB", Spread.of(ratios), at_most=GOAL))
    report.figures = {f"{size} bytes": values for size, values in found.items()}
    return report
