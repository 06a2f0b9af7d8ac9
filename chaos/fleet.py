"""Sandbox, Celery workers and beat as processes, and two ways to kill workers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import requests

from example_project.demo.processes import Process

from .servers import START_SECONDS

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
STOP_SECONDS = 5.0
#: Bytes of each file: few, so that one core can serve thousands of sessions.
VIDEO_BYTES = 9_000
IMAGE_BYTES = 4_000
UPSTREAM_QPS = 1000

_KILLED_AT_WORK = "Task handler raised error: WorkerLostError"
# A database that does not answer is not a bug of the engine.
_ENGINE_BUG = re.compile(r"faceprint: .*: unexpected (?!OperationalError|InterfaceError)\w+ at ")


class Worker:
    """One ``celery worker`` with one pool process: a supervisor and the child that does the work."""

    def __init__(self, number: int, folder: Path, env: Mapping[str, str]) -> None:
        self.name = f"worker {number}"
        self.log = folder / f"worker-{number}.log"
        self._process = Process(
            self.name,
            [
                *(sys.executable, "-m", "celery", "--app", "example_project", "--quiet", "worker"),
                *("--concurrency", "1", "--loglevel", "WARNING", "--hostname", f"chaos{number}@localhost"),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            ],
            self.log,
            env,
        )

    def start(self) -> None:
        self._process.start()

    def kill_all(self) -> None:
        """``kill -9`` supervisor and child at once, like a power cut."""
        self._process.kill()

    def kill_child(self) -> bool:
        """``kill -9`` the child alone, as the kernel does when memory runs out. False: there was none.

        The supervisor starts another one.
        """
        pid = self._process.pid
        if pid is None:
            return False
        found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
        children = [int(text) for text in found.stdout.split()]
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return bool(children)

    def require_alive(self) -> None:
        self._process.require_alive()

    def ask_to_stop(self) -> None:
        self._process.ask_to_stop()

    def wait_or_kill(self, until: float) -> None:
        self._process.wait_or_kill(until)


class Fleet:
    """The processes of one run, without the servers."""

    def __init__(self, folder: Path, env: Mapping[str, str], sandbox_port: int) -> None:
        logs = folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.url = f"http://127.0.0.1:{sandbox_port}"
        self.workers = [Worker(number, logs, env) for number in range(1, WORKERS + 1)]
        self._sandbox = Process(
            "sandbox",
            [
                *(sys.executable, str(ROOT / "manage.py"), "faceprint_sandbox", "--port", str(sandbox_port)),
                *("--clock-file", env["FACEPRINT_CLOCK_FILE"], "--qps", str(UPSTREAM_QPS)),
                *("--video-size", str(VIDEO_BYTES), "--image-size", str(IMAGE_BYTES)),
            ],
            logs / "sandbox.log",
            env,
        )
        self._beat = Process(
            "beat",
            [
                *(sys.executable, "-m", "celery", "--app", "example_project", "--quiet", "beat"),
                *("--loglevel", "WARNING", "--pidfile", "", "--max-interval", "1"),
            ],
            logs / "beat.log",
            env,
        )

    def start_sandbox(self) -> None:
        """Start the sandbox and wait until it answers."""
        self._sandbox.start()
        until = time.monotonic() + START_SECONDS
        while True:
            self._sandbox.require_alive()
            try:
                requests.get(f"{self.url}/_sandbox/health", timeout=5).raise_for_status()
            except requests.RequestException:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                return

    def start_beat(self) -> None:
        self._beat.start()

    def start_workers(self) -> None:
        for worker in self.workers:
            worker.start()

    def kill_workers(self) -> None:
        """Kill all workers at once."""
        for worker in self.workers:
            worker.kill_all()

    def require_alive(self) -> None:
        """Raise when sandbox or beat have ended; nothing kills these."""
        self._sandbox.require_alive()
        self._beat.require_alive()

    def children_killed_at_work(self) -> int:
        """The number of children that were killed during a task, by the supervisors' logs."""
        return sum(_KILLED_AT_WORK in line for line in self._log_lines())

    def engine_bugs(self) -> list[str]:
        """The bugs that the engine logged about itself, without dates."""
        found = {
            line.partition("faceprint: ")[2].strip() for line in self._log_lines() if _ENGINE_BUG.search(line)
        }
        return sorted(found)

    def _log_lines(self) -> Iterator[str]:
        for worker in self.workers:
            if worker.log.exists():
                with worker.log.open(encoding="utf-8", errors="replace") as lines:
                    yield from lines

    def stop(self) -> None:
        """Stop all processes."""
        processes: list[Worker | Process] = [*self.workers, self._beat, self._sandbox]
        for process in processes:
            process.ask_to_stop()
        until = time.monotonic() + STOP_SECONDS
        for process in processes:
            process.wait_or_kill(until)
