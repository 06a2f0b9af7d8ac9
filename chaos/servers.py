"""A PostgreSQL and a Redis for one run: on free ports, in temporary folders that are removed afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

from example_project.demo.processes import free_port

#: Where Debian and Ubuntu put the servers' programs, which are not on the PATH there.
POSTGRES_FOLDERS = "/usr/lib/postgresql"
START_SECONDS = 60


class ProgramMissing(Exception):
    """A program that the suite needs is not installed; the text names the package."""


class Postgres:
    """A database server with a database ``chaos``."""

    def __init__(self) -> None:
        self.port = free_port()
        self.restarts = 0
        #: Of all its processes, where ``/proc`` exists (Linux); they are not children of this process.
        self.cpu_seconds = 0.0
        self._programs = _postgres_programs()
        self._folder: Path | None = None
        # The server refuses to run as root.
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._user = {"user": _ordinary_user(), "group": None, "extra_groups": []}

    @property
    def url(self) -> str:
        """For ``DATABASE_URL``."""
        return f"postgres://postgres@127.0.0.1:{self.port}/chaos"

    def start(self) -> None:
        """Create the cluster and start it."""
        self._folder = Path(tempfile.mkdtemp(prefix="faceprint-chaos-pg-"))
        if name := self._user.get("user"):
            shutil.chown(self._folder, name)
        self._run(
            "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"
        )
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._folder,
            "max_connections": 60,
            "shared_buffers": "256MB",
            # The machine does not crash here, and commits survive a crash of the server without fsync: the
            # kernel has its writes.
            "fsync": "off",
            "full_page_writes": "off",
        }
        with (Path(self._data) / "postgresql.conf").open("a", encoding="ascii") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in options.items())
        self._control("start")
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "chaos")

    def restart(self, mode: str) -> None:
        """Restart in ``fast`` mode (connections are ended first) or ``immediate`` mode (like a crash)."""
        self._note_cpu()
        self._control("restart", "-m", mode)
        self.restarts += 1

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        if self._folder is None:
            return
        self._note_cpu()
        with suppress(subprocess.SubprocessError):
            self._control("stop", "-m", "immediate")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None

    def _note_cpu(self) -> None:
        with suppress(OSError, ValueError, IndexError):
            pid = int((Path(self._data) / "postmaster.pid").read_text(encoding="ascii").split()[0])
            children = [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]
            for name in children:
                self.cpu_seconds += _cpu_seconds(name, pid)

    @property
    def _data(self) -> str:
        return str(self._folder / "data") if self._folder else ""

    def _control(self, *arguments: str) -> None:
        log = str(Path(self._data).parent / "log")
        self._run("pg_ctl", "-D", self._data, "-l", log, "-w", "-t", str(START_SECONDS), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        # Not into a pipe: the server would inherit it and keep it open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [self._programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                check=False,
                **self._user,
            )
            output.seek(0)
            if done.returncode:
                text = output.read().decode(errors="replace")[-2000:]
                raise subprocess.SubprocessError(f"{program} failed: {text}")


class Broker:
    """A Redis that keeps nothing on disk."""

    def __init__(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise ProgramMissing("redis-server was not found (Debian, Ubuntu: apt install redis-server).")
        self._program = program
        self.port = free_port()
        self.wipes = 0
        self.messages_wiped = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._client = redis.Redis(port=self.port)

    @property
    def url(self) -> str:
        """For ``CELERY_BROKER_URL``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._child = subprocess.Popen(
            [
                *(self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
                *("--appendonly", "no", "--dir", tempfile.gettempdir(), "--loglevel", "warning"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self._client.ping()
            except redis.ConnectionError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return

    def wipe(self) -> None:
        """Delete all messages, as with a new and empty server."""
        self.messages_wiped += int(self._client.llen("celery"))
        self._client.flushall()
        self.wipes += 1

    def stop(self) -> None:
        """Stop the server."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


def _cpu_seconds(name: str, postmaster: int) -> float:
    """CPU time of the process *name* and its ended children, if it is the postmaster or one of its own."""
    try:
        text = Path("/proc", name, "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    # After the command in brackets: state, parent, … and from the 12th on the times in ticks.
    fields = text.rpartition(")")[2].split()
    if postmaster not in (int(name), int(fields[1])):
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _postgres_programs() -> Path:
    """The folder with initdb, pg_ctl and createdb."""
    folders = sorted(Path(POSTGRES_FOLDERS).glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    if found := shutil.which("pg_ctl"):
        folders.insert(0, Path(found).resolve().parent)
    for folder in folders:
        if all((folder / name).exists() for name in ("initdb", "pg_ctl", "createdb")):
            return folder
    raise ProgramMissing(
        "PostgreSQL's initdb and pg_ctl were not found (Debian, Ubuntu: apt install postgresql)."
    )


def _ordinary_user() -> str:
    import pwd

    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ProgramMissing("PostgreSQL does not run as root; the users postgres and nobody do not exist.")
