"""``archive``: whole sessions per second, against the floor, curl and the loop that projects write by hand.

The floor does the engine's work by the shortest path (see :mod:`.floor`): it is the limit. curl and the
loop do less and serve as orientation. Each round runs all contestants one after the other in shuffled order,
and ratios are taken within a round, so that other load on the machine falls on both sides.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from . import plain, rivals, sessions
from .project import CONCURRENCY, Project
from .report import Goal, Report, Spread
from .servers import postgresql, sqlite
from .upstream import Upstream, serving
from .workspace import Worker, folder, run_worker

NETWORKS = {"http": "plain HTTP", "https": "TLS", "delayed": "plain HTTP, 50 ms before each answer"}
SHORT_NAMES = {"http": "HTTP", "https": "TLS", "delayed": "50 ms"}
#: Sessions of one run. The loop is slow where it makes many connections, so that it gets fewer.
SESSIONS = 120
LOOP_SESSIONS = {"http": 40, "https": 8, "delayed": 5}
MANY = 64
#: Threads of the floor's processes: where nobody waits, one is the fastest.
FLOOR_THREADS = {"http": 1, "https": 1, "delayed": 32}

Result = Mapping[str, float]


@dataclass(frozen=True)
class Contestant:
    """A program that fetches sessions over one network, once per round."""

    name: str
    network: str
    run: Callable[[], Result]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--sessions", type=int, default=SESSIONS, help=f"of each run (default: {SESSIONS})")
    parser.add_argument("--rounds", type=int, default=5, help="of all contestants (default: 5)")
    parser.add_argument(
        "--network", choices=list(NETWORKS), action="append", help="only this one (may be repeated)"
    )
    parser.add_argument(
        "--database", choices=["postgresql", "sqlite"], default="postgresql", help="for the rows"
    )
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="instead, profile one thread over HTTP; for pstats"
    )


def run(options: argparse.Namespace) -> Report:
    """Measure."""
    with ExitStack() as stack:
        room = options.sessions * 8_000_000
        home = stack.enter_context(folder(in_memory=True, needed=2 * room))
        upstream = stack.enter_context(serving(home))
        if options.database == "postgresql":
            server = stack.enter_context(postgresql(in_memory=True))
            database, version = server.create(), server.version
        else:
            import sqlite3

            rows = stack.enter_context(folder())
            database, version = sqlite(rows / "database.sqlite3"), f"SQLite {sqlite3.sqlite_version}"
        project = Project(database=database, archive=str(home / "archive"))
        project.set_up()
        sessions.migrate()
        report = Report("Archive: whole sessions per second")
        report.versions = {"nginx": upstream.version.removeprefix("nginx "), version: ""}
        if options.profile:
            _profile(project, upstream, options.sessions, options.profile)
            report.notes.append(f"The profile is in {options.profile}: python -m pstats {options.profile}")
            return report
        networks = options.network or list(NETWORKS)
        contestants = [
            contestant
            for network in networks
            for contestant in _contestants(project, upstream, network, options.sessions, home)
        ]
        for network in networks:
            # Fetches the access_token, which serves for weeks.
            archive(_reaching(project, upstream, network), upstream, 1)
        results = run_rounds(contestants, options.rounds)
    _fill(report, upstream, networks, contestants, results)
    return report


def _contestants(
    project: Project, upstream: Upstream, network: str, count: int, home: Path
) -> list[Contestant]:
    here = _reaching(project, upstream, network)

    def engine(processes: int, concurrency: int) -> Callable[[], Result]:
        there = replace(here, concurrency=concurrency)
        return lambda: archive(there, upstream, count, processes=processes)

    def floor(processes: int) -> Callable[[], Result]:
        there = replace(here, concurrency=FLOOR_THREADS[network])
        return lambda: archive(there, upstream, count, processes=processes, by_floor=True)

    def curl(parallel: int) -> Callable[[], Result]:
        return lambda: _with_folder(
            home, lambda place: rivals.curl(upstream, network, count, place, parallel=parallel)
        )

    def loop() -> Result:
        return _with_folder(home, lambda place: _loop(upstream, network, place))

    found = {
        "requests loop": loop,
        "curl, one after the other": curl(1),
        "curl, 32 at once": curl(32),
        "engine, 1 process": engine(1, CONCURRENCY),
        "engine, 2 processes": engine(2, CONCURRENCY),
    }
    if project.is_on_postgresql:
        found |= {"floor, 1 process": floor(1), "floor, 2 processes": floor(2)}
    if network == "delayed":
        # One after the other is the loop's speed again.
        del found["curl, one after the other"]
        found[f"engine, 1 process, CONCURRENCY {MANY}"] = engine(1, MANY)
    return [Contestant(name, network, action) for name, action in found.items()]


def _reaching(project: Project, upstream: Upstream, network: str) -> Project:
    """The project with Baidu on that network."""
    authorities = upstream.authorities if network == "https" else ""
    return replace(project, api_url=upstream.address(network), authorities=authorities)


def archive(
    project: Project,
    upstream: Upstream,
    count: int,
    *,
    processes: int = 1,
    by_floor: bool = False,
    profile: Path | None = None,
    before: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Let fresh processes of the engine, or of the floor, archive *count* sessions; check and remove them.

    *before* is called when the processes are ready and have not begun.
    """
    sessions.start(count)
    module = "benchmarks.floor" if by_floor else "benchmarks.engine"
    workers = []
    try:
        for number in range(processes):
            arguments = [str(number), str(processes)] if by_floor else [str(profile)] if profile else []
            workers.append(Worker(module, arguments, project.environment()))
        for worker in workers:
            worker.wait_ready()
        if before is not None:
            before()
        started = time.monotonic()
        for worker in workers:
            worker.go()
        results = [worker.result() for worker in workers]
        seconds = time.monotonic() - started
    finally:
        for worker in workers:
            worker.stop()
    with plain.files(encrypted=project.encrypts):
        sessions.verify(count, upstream.hashes, project.archive)
    sessions.remove(project.archive)
    return {
        "sessions": count,
        "seconds": seconds,
        "cpu": sum(result["cpu"] for result in results),
        "memory": max(result["memory"] or 0 for result in results),
    }


def _loop(upstream: Upstream, network: str, place: Path) -> Result:
    arguments = [upstream.address(network), upstream.authorities if network == "https" else ""]
    arguments += [str(LOOP_SESSIONS[network]), str(place)]
    return run_worker("benchmarks.rivals", arguments, os.environ)


def _with_folder(home: Path, action: Callable[[Path], Result]) -> Result:
    place = home / "fetched"
    place.mkdir()
    try:
        return action(place)
    finally:
        shutil.rmtree(place)


def run_rounds(contestants: Sequence[Contestant], rounds: int) -> dict[Contestant, list[Result]]:
    """Let all *contestants* run in each round, in shuffled order."""
    results: dict[Contestant, list[Result]] = {contestant: [] for contestant in contestants}
    order = random.Random(1)
    for number in range(rounds):
        shuffled = list(contestants)
        order.shuffle(shuffled)
        for contestant in shuffled:
            result = contestant.run()
            results[contestant].append(result)
            speed = result["sessions"] / result["seconds"]
            print(
                f"round {number + 1}/{rounds}  {contestant.network:8}{contestant.name:36}{speed:8.1f}/s",
                flush=True,
            )
    return results


def sessions_per_second(results: Iterable[Result]) -> list[float]:
    """Of each round."""
    return [result["sessions"] / result["seconds"] for result in results]


def cpu_milliseconds(results: Iterable[Result]) -> list[float]:
    """CPU time of each session, round by round."""
    return [1000 * result["cpu"] / result["sessions"] for result in results]


def _profile(project: Project, upstream: Upstream, count: int, path: Path) -> None:
    archive(replace(project, api_url=upstream.http, concurrency=1), upstream, count, profile=path.resolve())


def _fill(
    report: Report,
    upstream: Upstream,
    networks: Sequence[str],
    contestants: Sequence[Contestant],
    results: Mapping[Contestant, Sequence[Result]],
) -> None:
    speeds = {(one.network, one.name): sessions_per_second(results[one]) for one in contestants}
    cpu = {(one.network, one.name): cpu_milliseconds(results[one]) for one in contestants}
    to_floor: list[list[str]] = []
    for network in networks:
        rows = []
        for one in contestants:
            if one.network != network:
                continue
            speed = Spread.of(speeds[network, one.name])
            megabytes = f"{speed.median * upstream.session_bytes / 1e6:.0f}"
            rows.append([one.name, str(speed), megabytes, str(Spread.of(cpu[network, one.name]))])
        report.table(
            f"{NETWORKS[network]}: medians of {len(results[contestants[0]])} rounds (least–most)",
            ["", "sessions/s", "MB/s", "client CPU, ms/session"],
            rows,
        )
        both = [
            {name: values for (at, name), values in figures.items() if at == network}
            for figures in (speeds, cpu)
        ]
        to_floor += [
            [f"{SHORT_NAMES[network]}: {name}", *(str(_ratio(figures, name, floor)) for figures in both)]
            for name, floor in _floors(both[0]).items()
        ]
        report.goals += _goals(network, both[0])
    if to_floor:
        report.table("Engine / floor with as many processes", ["", "sessions/s", "client CPU"], to_floor)
    report.figures = {
        f"{one.network}: {one.name}": [dict(item) for item in results[one]] for one in contestants
    }
    mb = upstream.session_bytes / 1e6
    report.notes.append(
        f"A session: 2 answers with card pictures, 3 small ones, a video of 3 MB, 5 pictures; {mb:.2f} MB.\n"
        "The floor does the engine's work by the shortest path, without leases, upload intents, retries\n"
        "and thumbnails. curl only GETs the large answers and the files; the loop asks what it must to find\n"
        "them. Every run of the engine and of the floor is checked: each file decrypts and has the hash of\n"
        "what was served, and each session has its rows. Files and rows are kept in memory where there is\n"
        "room: the disk is not measured."
    )


def _floors(names: Iterable[str]) -> dict[str, str]:
    """For each engine among *names* the floor with as many processes."""
    floors = {
        name: name.replace("engine", "floor").partition(", CONCURRENCY")[0]
        for name in names
        if name.startswith("engine")
    }
    return {name: floor for name, floor in floors.items() if floor in names}


def _ratio(figures: Mapping[str, Sequence[float]], one: str, other: str) -> Spread:
    """Taken within each round."""
    return Spread.of([mine / theirs for mine, theirs in zip(figures[one], figures[other], strict=True)])


def _goals(network: str, speeds: Mapping[str, Sequence[float]]) -> list[Goal]:
    best = max(
        (name for name in speeds if name.startswith("curl")), key=lambda name: Spread.of(speeds[name]).median
    )
    goals: list[tuple[str, str, str, float]] = {
        "http": [
            ("engine, 1 process", best, "best curl", 0.25),
            ("engine, 2 processes", best, "best curl", 0.45),
            ("engine, 1 process", "requests loop", "requests loop", 1.6),
        ],
        "https": [
            ("engine, 1 process", best, "best curl", 0.40),
            ("engine, 1 process", "requests loop", "requests loop", 12.0),
        ],
        "delayed": [
            ("engine, 1 process", "requests loop", "requests loop", 25.0),
            (f"engine, 1 process, CONCURRENCY {MANY}", "requests loop", "requests loop", 25.0),
        ],
    }[network]
    return [
        Goal(
            f"{SHORT_NAMES[network]}: {one} / {name}",
            _ratio(speeds, one, other),
            at_least=least,
        )
        for one, other, name, least in goals
    ]
