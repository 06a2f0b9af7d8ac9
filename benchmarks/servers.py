"""Database servers and a broker for one benchmark: private, in a temporary folder, on free ports."""

from __future__ import annotations

import importlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from example_project.demo.processes import free_port

from .workspace import Missing, folder, listens, program, server

_POSTGRES_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")


@dataclass(frozen=True)
class DatabaseServer:
    """A running server: its entry in DATABASES without a name, version, log, and SQL as superuser."""

    entry: dict[str, Any]
    version: str
    log: Path
    execute: Callable[[str], None]

    def create(self, name: str = "faceprint") -> dict[str, Any]:
        """A new, empty database: its entry in Django's DATABASES."""
        character_set = " CHARACTER SET utf8mb4" if self.entry["ENGINE"].endswith("mysql") else ""
        self.execute(f"CREATE DATABASE {name}{character_set}")
        return {**self.entry, "NAME": name}


@contextmanager
def postgresql(
    settings: Mapping[str, str] | None = None, *, in_memory: bool = False
) -> Iterator[DatabaseServer]:
    """PostgreSQL as it is installed, without a database. *settings* are its parameters.

    ``in_memory``: for few rows, where the disk must not be measured.
    """
    install = "Debian, Ubuntu: apt install postgresql"
    postgres = program("postgres", install=install, folders=_POSTGRES_FOLDERS)
    psycopg = _driver("psycopg", "postgres")
    initdb = program("initdb", install=install, folders=_POSTGRES_FOLDERS)
    with folder(in_memory=in_memory, needed=1_000_000_000) as home:
        data, port = home / "data", free_port()
        as_user = _unprivileged("postgres", home)
        _run([initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"], as_user)
        parameters = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(home),
            "shared_buffers": "256MB",
            "max_wal_size": "4GB",
            **(settings or {}),
        }
        command = [postgres, "-D", str(data)]
        for name, value in parameters.items():
            command += ["-c", f"{name}={value}"]
        log = home / "log"
        address = f"host=127.0.0.1 port={port} user=postgres dbname=postgres"

        def answers() -> bool:
            try:
                with psycopg.connect(address, autocommit=True):
                    return True
            except psycopg.OperationalError:
                return False

        # SIGTERM would wait for all clients to disconnect.
        with server(command, log=log, ready=answers, farewell=signal.SIGINT, **as_user):

            def execute(sql: str) -> None:
                with psycopg.connect(address, autocommit=True) as admin:
                    admin.execute(sql.encode())

            with psycopg.connect(address, autocommit=True) as admin:
                row = admin.execute("SHOW server_version").fetchone()
            version = f"PostgreSQL {str(row[0]).split()[0]}" if row else "PostgreSQL"
            entry = {
                "ENGINE": "django.db.backends.postgresql",
                "USER": "postgres",
                "HOST": "127.0.0.1",
                "PORT": port,
            }
            yield DatabaseServer(entry, version, log, execute)


@contextmanager
def mariadb() -> Iterator[DatabaseServer]:
    """MariaDB as it is installed, without a database."""
    install = "Debian, Ubuntu: apt install mariadb-server"
    daemon = program("mariadbd", "mysqld", install=install)
    mysql = _driver("MySQLdb", "mysql")
    installer = program("mariadb-install-db", "mysql_install_db", install=install)
    with folder() as home:
        data, port, socket = home / "data", free_port(), home / "socket"
        as_user = _unprivileged("mysql", home)
        _run(
            [
                *(installer, "--no-defaults", f"--datadir={data}", "--skip-test-db"),
                "--auth-root-authentication-method=normal",
            ],
            as_user,
        )
        command = [
            *(daemon, "--no-defaults", f"--datadir={data}", f"--socket={socket}", f"--port={port}"),
            *("--bind-address=127.0.0.1", f"--pid-file={home / 'pid'}", "--innodb-buffer-pool-size=512M"),
            *("--innodb-log-file-size=512M", "--character-set-server=utf8mb4"),
            # The disk is not measured.
            *("--innodb-flush-log-at-trx-commit=2", "--skip-innodb-doublewrite"),
        ]
        log = home / "log"
        with (
            ExitStack() as stack,
            server(command, log=log, ready=lambda: socket.exists() and listens(port), **as_user),
        ):
            admin = mysql.connect(unix_socket=str(socket), user="root")
            stack.callback(admin.close)
            version = f"MariaDB {admin.get_server_info().partition('-')[0]}"
            entry = {
                "ENGINE": "django.db.backends.mysql",
                "USER": "root",
                "HOST": str(socket),
                "OPTIONS": {"charset": "utf8mb4", "isolation_level": "read committed"},
            }
            yield DatabaseServer(entry, version, log, admin.query)


@contextmanager
def redis() -> Iterator[str]:
    """A Redis without persistence; its URL."""
    daemon = program("redis-server", "valkey-server", install="Debian, Ubuntu: apt install redis-server")
    with folder() as home:
        port = free_port()
        command = [daemon, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(home)]
        with server(command, log=home / "log", ready=lambda: listens(port)):
            yield f"redis://127.0.0.1:{port}/0"


def sqlite(path: Path) -> dict[str, Any]:
    """An entry of DATABASES: a file with the options that the documentation recommends."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    }


def _driver(module: str, extra: str) -> Any:
    """The database's driver. Raises :class:`Missing`, naming the extra that installs it."""
    with suppress(ImportError):
        return importlib.import_module(module)
    raise Missing(f"The Python package {module} is not installed (pip install 'django-faceprint[{extra}]').")


def _unprivileged(name: str, home: Path) -> dict[str, Any]:
    """Options that start a process as the user *name*, where we are root and the server refuses to be."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise Missing(f"There is no user {name}, and as root the server does not start.") from None
    shutil.chown(home, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": home}


def _run(command: Sequence[str], options: Mapping[str, Any]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)
    if done.returncode:
        raise Missing(f"{command[0]} fails:\n{done.stderr[-2000:]}")
