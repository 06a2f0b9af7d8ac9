"""Folders, programs, ports and processes of a benchmark, which removes them when it ends."""

from __future__ import annotations

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MEMORY = Path("/dev/shm")  # noqa: S108  (the folder is made by tempfile)


class Missing(Exception):
    """The machine lacks something; the text says what, and how to get it."""


def program(*names: str, install: str, folders: Sequence[str] = ()) -> str:
    """The path of the first of these programs that is installed. *folders* may hold wildcards."""
    found = [folder for pattern in folders for folder in sorted(glob.glob(pattern), reverse=True)]
    path = os.pathsep.join([*found, os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    for name in names:
        if place := shutil.which(name, path=path):
            return place
    raise Missing(f"{names[0]} is not installed ({install}).")


@contextmanager
def folder(*, in_memory: bool = False, needed: int = 0) -> Iterator[Path]:
    """A fresh folder that other users can read, removed at the end.

    *in_memory*: in memory if there is room for *needed* bytes, so that the disk is not measured.
    """
    parent = None
    if in_memory and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > needed:
        parent = MEMORY
    else:
        require_space(needed)
    path = Path(tempfile.mkdtemp(prefix="faceprint-benchmark-", dir=parent))
    # A server that gives up root's rights reads in it.
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def require_space(needed: int) -> None:
    """Raise :class:`Missing` unless the temporary folder has room for *needed* bytes."""
    place = tempfile.gettempdir()
    if shutil.disk_usage(place).free < needed:
        raise Missing(f"{place} has less than {needed // 1_000_000} MB free.")


def listens(port: int) -> bool:
    """Whether the local *port* accepts connections."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def server(
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], bool],
    farewell: signal.Signals = signal.SIGTERM,
    patience: float = 30.0,
    **options: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own; *log* takes its output, *farewell* ends it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
    try:
        give_up_at = time.monotonic() + patience
        while not ready():
            if process.poll() is not None or time.monotonic() > give_up_at:
                said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise Missing(f"{command[0]} does not start:\n{said}")
            time.sleep(0.05)
        yield process
    finally:
        stop(process, farewell=farewell)


def stop(
    process: subprocess.Popen[Any], *, farewell: signal.Signals = signal.SIGTERM, patience: float = 20.0
) -> None:
    """End a process: by *farewell*, after *patience* seconds by SIGKILL."""
    if process.poll() is None:
        process.send_signal(farewell)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Worker:
    """A Python process of ours: says "ready", waits for "go", works, answers with one line of JSON.

    Its own part is :func:`wait_for_go`, :func:`measured` and :func:`answer`.
    """

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._name = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_ready(self) -> None:
        """Return when it is imported and connected."""
        self._read("ready")

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Its answer; returns when it has worked."""
        answered: dict[str, Any] = json.loads(self._read(""))
        return answered

    def _read(self, expected: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line or (expected and line != expected):
            self.stop()
            raise RuntimeError(f"{self._name} broke off (exit status {self._process.returncode}).")
        return line

    def stop(self) -> None:
        """End it if it still runs."""
        stop(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def run_worker(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Start one :class:`Worker`, let it work, and return its answer."""
    worker = Worker(module, arguments, environment)
    try:
        worker.wait_ready()
        worker.go()
        return worker.result()
    finally:
        worker.stop()


def wait_for_go() -> None:
    """In a worker: say "ready" and return when the process that started it says "go"."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


def measured(work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """In a worker: the figures that *work* returns, with its seconds, CPU seconds and peak memory (bytes)."""
    started, cpu = time.monotonic(), time.process_time()
    figures = work()
    return {
        **figures,
        "seconds": time.monotonic() - started,
        "cpu": time.process_time() - cpu,
        "memory": peak_memory(),
    }


def answer(result: Mapping[str, Any]) -> None:
    """In a worker: answer with *result*."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def peak_memory() -> int | None:
    """Peak memory of this process in bytes; None where the system does not say.

    Not ``ru_maxrss``, which a process inherits from the one that started it.
    """
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="ascii").splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
