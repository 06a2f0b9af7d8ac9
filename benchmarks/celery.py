"""``celery``: Celery's overhead beside the engine: messages per session, and its share of the CPU.

A real worker with beat, on Redis and PostgreSQL. Every session's person returns, which sends the product's
messages. The CPU time of the worker's processes is read from the system, that of task bodies is measured in
the tasks. The rest is Celery's: receiving, decoding, handing over to the pool, acknowledging, beat. The same
sessions are archived without Celery for comparison.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from . import sessions
from .application import TASK_LOG
from .archive import archive
from .project import Project
from .report import Goal, Report, Spread
from .servers import postgresql, redis
from .upstream import Upstream, serving
from .workspace import ROOT, Missing, folder, server

SESSIONS = 120
PATIENCE = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--sessions", type=int, default=SESSIONS, help=f"of each run (default: {SESSIONS})")
    parser.add_argument("--rounds", type=int, default=3, help="with and without Celery (default: 3)")


def run(options: argparse.Namespace) -> Report:
    """Measure."""
    if not Path("/proc/self/stat").exists():
        raise Missing("The CPU time of other processes can be read on Linux only.")
    import celery

    report = Report("Celery: overhead beside the engine")
    messages: list[float] = []
    ticks: list[float] = []
    shares: list[float] = []
    with_celery: list[float] = []
    without: list[float] = []
    with ExitStack() as stack:
        home = stack.enter_context(folder(in_memory=True, needed=options.sessions * 16_000_000))
        upstream = stack.enter_context(serving(home))
        database = stack.enter_context(postgresql(in_memory=True))
        broker = stack.enter_context(redis())
        project = Project(
            database=database.create(), archive=str(home / "archive"), api_url=upstream.http, broker=broker
        )
        project.set_up()
        sessions.migrate()
        report.versions = {"Celery": celery.__version__, database.version: ""}
        for number in range(options.rounds):
            log = home / f"tasks{number}"
            with _worker(project, home, log) as pid:
                _drive(project, upstream, 1, log)
                before, known = _cpu(pid), _tasks(log)
                _drive(project, upstream, options.sessions, log)
                used, done = _cpu(pid) - before, _tasks(log)
            counts = {name: len(done[name]) - len(known[name]) for name in done}
            bodies = sum(sum(done[name][len(known[name]) :]) for name in done)
            messages.append(counts["faceprint.collect"] / options.sessions)
            ticks.append(counts.get("faceprint.tick", 0))
            shares.append(100 * (used - bodies) / used)
            with_celery.append(1000 * used / options.sessions)
            result = archive(replace(project, broker="memory://"), upstream, options.sessions)
            without.append(1000 * result["cpu"] / options.sessions)
    report.table(
        f"{options.sessions} sessions, {options.rounds} rounds",
        ["", "measured"],
        [
            ["CPU with Celery, ms/session", str(Spread.of(with_celery))],
            ["CPU without, ms/session", str(Spread.of(without))],
            ["ticks of beat in the same time", str(Spread.of(ticks))],
        ],
    )
    report.goals += [
        Goal("messages per session", Spread.of(messages), at_most=1.0, unit=""),
        Goal("Celery's share of the CPU", Spread.of(shares), at_most=15.0, unit=" %"),
    ]
    report.figures = {
        "messages per session": messages,
        "ticks": ticks,
        "share": shares,
        "CPU with Celery": with_celery,
        "CPU without": without,
    }
    return report


@contextmanager
def _worker(project: Project, home: Path, log: Path) -> Iterator[int]:
    """A worker with one process for tasks, and beat; its process id."""
    log.touch()
    command = [sys.executable, "-m", "celery", "--app", "benchmarks.application", "worker", "--beat"]
    command += ["--concurrency", "1", "--schedule", str(home / "beat"), "--loglevel", "INFO"]
    environment = {**project.environment(), TASK_LOG: str(log)}
    said = home / "worker.log"
    with server(
        command,
        log=said,
        ready=lambda: " ready." in said.read_text(encoding="utf-8", errors="replace"),
        cwd=ROOT,
        env=environment,
    ) as process:
        yield process.pid


def _drive(project: Project, upstream: Upstream, count: int, log: Path) -> None:
    """Let *count* people return; wait until the worker has archived all and is idle."""
    from django_faceprint.models import VerificationSession
    from django_faceprint.tasks import notify_worker

    sent = len(_tasks(log)["faceprint.collect"]) + count
    sessions.start(count)
    for session in VerificationSession.objects.filter(archived_at=None):
        notify_worker(session)
    give_up_at = time.monotonic() + PATIENCE
    while len(_tasks(log)["faceprint.collect"]) < sent or VerificationSession.objects.outstanding().exists():
        if time.monotonic() > give_up_at:
            raise RuntimeError("The worker does not finish.")
        time.sleep(0.1)
    sessions.verify(count, upstream.hashes, project.archive)
    sessions.remove(project.archive)


def _tasks(log: Path) -> defaultdict[str, list[float]]:
    """The CPU seconds of every task that has ended, by its name."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for line in log.read_text(encoding="ascii").splitlines():
        name, seconds = line.split()
        found[name].append(float(seconds))
    return found


def _cpu(pid: int) -> float:
    """CPU seconds of a process and its living children."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return own + sum(_cpu(int(child)) for child in children)
