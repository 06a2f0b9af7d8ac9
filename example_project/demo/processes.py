"""The processes of the demo: sandbox, web site, Celery worker and beat, each in a group of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

STOP_SECONDS = 6.0
TAIL_LINES = 15


# Settings of a site, by the beginnings of their names.
SITE_SETTINGS = (
    *("ALLOWED_HOSTS", "CACHE_URL", "CELERY_", "DATABASE_URL", "DEBUG", "DJANGO_", "EMAIL_URL"),
    *("FACEPRINT_", "SECRET_KEY"),
)


class DemoFailed(Exception):
    """The demo cannot go on; the text says why and what to do."""


def clean_environment() -> dict[str, str]:
    """This process's environment without the settings of a site, for a process with its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SITE_SETTINGS)}


def free_port() -> int:
    """A free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free_port(port: int, purpose: str, option: str) -> None:
    """Raise :class:`DemoFailed` with a remedy when *port* on loopback is in use."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise DemoFailed(
                f"Port {port} on 127.0.0.1, meant for the {purpose}, is in use.\n"
                f'Stop what is using it, or choose another one: make demo ARGS="{option} {port + 10}"'
            ) from None


class Process:
    """One child process with its log file."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self._command = list(command)
        self.log = log
        self._env = dict(env)
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, its output appended to the log."""
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """The process ID of the child, until it is stopped here."""
        return None if self._child is None else self._child.pid

    def require_alive(self) -> None:
        """Raise :class:`DemoFailed` with the end of the log if the process has ended."""
        if self._child is not None and self._child.poll() is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
            raise DemoFailed(
                f"The {self.name} ended with exit code {self._child.returncode}. Its log, {self.log}, ends:\n"
                + "\n".join(f"  {line}" for line in tail)
            )

    def kill(self) -> None:
        """Kill the whole process group at once, like a power cut."""
        self._signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()
            self._child = None

    def ask_to_stop(self) -> None:
        """Ask the process to end; it ends its children."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def wait_or_kill(self, until: float) -> None:
        """Wait for the end until the monotonic moment *until*, then kill whatever is left of the group."""
        if self._child is None:
            return
        # If it does not end in time, it is killed with its group below.
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=max(until - time.monotonic(), 0.1))
        self._signal(signal.SIGKILL)
        self._child.wait()
        self._child = None

    def _signal(self, number: int) -> None:
        if self._child is None:
            return
        # The group may have ended already.
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)


class Processes:
    """All processes of the demo; leaving the ``with`` block stops them."""

    def __init__(self, *, folder: Path, env: Mapping[str, str], web_port: int, sandbox_port: int) -> None:
        manage = [sys.executable, str(Path(sys.argv[0]).resolve())]
        celery = [sys.executable, "-m", "celery", "--app", "example_project", "--quiet"]
        logs = folder / "logs"
        logs.mkdir(exist_ok=True)

        def process(name: str, command: list[str]) -> Process:
            return Process(name, command, logs / f"{name.replace(' ', '-')}.log", env)

        self.sandbox_url = f"http://127.0.0.1:{sandbox_port}"
        self.web_url = f"http://127.0.0.1:{web_port}"
        self.sandbox = process(
            "sandbox",
            [
                *manage,
                "faceprint_sandbox",
                *("--port", str(sandbox_port), "--clock-file", env["FACEPRINT_CLOCK_FILE"]),
            ],
        )
        self.web = process("web site", [*manage, "runserver", "--noreload", f"127.0.0.1:{web_port}"])
        self.worker = process(
            "worker", [*celery, "worker", "--concurrency", "2", "--loglevel", "INFO", "--without-gossip"]
        )
        self.beat = process("beat", [*celery, "beat", "--loglevel", "INFO", "--pidfile", ""])
        self._all = (self.sandbox, self.web, self.worker, self.beat)

    def __enter__(self) -> Self:
        try:
            for process in self._all:
                process.start()
            self._wait_for(self.sandbox, f"{self.sandbox_url}/_sandbox/health")
            self._wait_for(self.web, f"{self.web_url}/admin/login/")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def require_alive(self) -> None:
        """Raise :class:`DemoFailed` when one of the processes has ended."""
        for process in self._all:
            process.require_alive()

    def _stop(self) -> None:
        for process in self._all:
            process.ask_to_stop()
        until = time.monotonic() + STOP_SECONDS
        for process in self._all:
            process.wait_or_kill(until)

    @staticmethod
    def _wait_for(process: Process, url: str, seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            process.require_alive()
            try:
                if requests.get(url, timeout=5).ok:
                    return
            except requests.RequestException:
                pass  # not listening yet
            time.sleep(0.1)
        raise DemoFailed(f"The {process.name} did not answer within {seconds:.0f} s; see {process.log}.")
