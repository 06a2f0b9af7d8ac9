"""``manage.py faceprint_demo``: twenty-five verifications on this machine, from start to archive."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import time
from argparse import SUPPRESS, ArgumentParser
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, DatabaseError
from django.db.utils import ConnectionHandler
from environ import Env
from rest_framework.authtoken.models import Token

from django_faceprint.base.lease import MAX_LEASE
from django_faceprint.devtools.sandbox_plans import copy_sandbox_plans
from django_faceprint.exceptions import FaceprintError, replace_exceptions
from django_faceprint.maintenance.retention import retain
from django_faceprint.models import VerificationSession
from django_faceprint.records.rollups import roll_up
from example_project.demo.ledger import Findings, compare, read_ledger
from example_project.demo.people import Browser, Host, Person, people
from example_project.demo.processes import DemoFailed, Processes, clean_environment, require_free_port

#: Past the end of a verify_token and of the grace after it.
PAST_THE_WINDOW = timedelta(hours=3, minutes=5)
SETTLE_SECONDS = 180.0
BAR_WIDTH = 30


class Command(BaseCommand):
    """Runs sandbox, web site, worker and beat, and sends twenty-five people through them."""

    help = "Run 25 face verifications on this machine, from start to archive, without account or network."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="end after the run instead of staying up")
        parser.add_argument("--web-port", type=int, default=8000, help="port of the web site (8000)")
        parser.add_argument("--sandbox-port", type=int, default=8400, help="port of the sandbox (8400)")
        parser.add_argument(
            "--folder", type=Path, default=None, help="working folder (var/demo); emptied first"
        )
        parser.add_argument(
            "--kill-worker",
            action="store_true",
            help="kill -9 the worker during its downloads, and start it again",
        )
        parser.add_argument(
            "--database",
            default="",
            metavar="URL",
            help="an empty database for the demo (postgres://…, mysql://…) instead of a file",
        )
        parser.add_argument(
            "--broker",
            default="",
            metavar="URL",
            help="a Celery broker for the demo (redis://…) instead of a folder",
        )
        # For the second start, with the settings of the demo.
        parser.add_argument("--prepared", action="store_true", help=SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> None:
        folder = (options["folder"] or Path(settings.BASE_DIR) / "var" / "demo").resolve()
        try:
            if not options["prepared"]:
                self._restart(folder, options)
            self._run(folder, options)
        except (DemoFailed, FaceprintError) as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            self.stdout.write("\nStopped.")

    def _restart(self, folder: Path, options: dict[str, Any]) -> None:
        """Replace this process by one with the demo's own folder, ports and keys."""
        require_free_port(options["web_port"], "web site", "--web-port")
        require_free_port(options["sandbox_port"], "sandbox", "--sandbox-port")
        if options["database"]:
            _require_empty(options["database"])
        _empty(folder)
        environment = clean_environment() | {
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "PYTHONUNBUFFERED": "1",
            "FACEPRINT_ENV_FILE": "",
            "FACEPRINT_VAR": str(folder),
            "FACEPRINT_CLOCK_FILE": str(folder / "clock"),
            "FACEPRINT_API_URL": f"http://127.0.0.1:{options['sandbox_port']}",
            "FACEPRINT_PUBLIC_URL": f"http://127.0.0.1:{options['web_port']}",
        }
        for name, option in (("DATABASE_URL", "database"), ("CELERY_BROKER_URL", "broker")):
            if options[option]:
                environment[name] = options[option]
        command = [sys.executable, *sys.argv, "--prepared"]
        sys.stdout.flush()
        os.execve(sys.executable, command, environment)  # noqa: S606  (our own command again)

    def _run(self, folder: Path, options: dict[str, Any]) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        started = time.monotonic()
        self.stdout.write("Setting up the demo …")
        call_command("migrate", verbosity=0)
        password = _create_account("admin", superuser=True)
        _create_account("demo-host", superuser=False)
        token = Token.objects.create(user=get_user_model().objects.get(username="demo-host"))
        with Processes(
            folder=folder,
            env=os.environ,
            web_port=options["web_port"],
            sandbox_port=options["sandbox_port"],
        ) as processes:
            copy_sandbox_plans()
            demo = _Demo(self, processes, Host(processes.web_url, token.key))
            findings = demo.run(kill_worker=options["kill_worker"])
            self._summarise(folder, processes, findings, demo.problems, password, time.monotonic() - started)
            if options["once"]:
                if findings.problems or demo.problems:
                    raise DemoFailed("The demo found the differences listed above.")
                return
            self._stay_up(processes)

    def _stay_up(self, processes: Processes) -> None:
        self.stdout.write("\nEverything stays up until Ctrl-C.")
        try:
            while True:
                processes.require_alive()
                time.sleep(1)
        except KeyboardInterrupt:
            self.stdout.write("\nStopping …")
            raise

    def _summarise(
        self,
        folder: Path,
        processes: Processes,
        findings: Findings,
        problems: list[str],
        password: str,
        seconds: float,
    ) -> None:
        verdicts = Counter(VerificationSession.objects.values_list("verdict", flat=True))
        calls = sum(verdicts.values())
        lines = [
            "",
            f"{calls} verifications: "
            + ", ".join(f"{count} {name}" for name, count in sorted(verdicts.items())),
            f"Files archived      {findings.archived} ({findings.bytes_archived / 1e6:.1f} MB), encrypted",
            f"In Baidu's ledger   {findings.expected}; each read back, decrypted and compared by SHA-256",
            f"Lost                {findings.lost}",
            f"Files lie in        {folder / 'archive'}",
            f"Logs lie in         {folder / 'logs'}",
            f"Admin               {processes.web_url}/admin/  (user admin, password {password})",
            f"API                 {processes.web_url}/api/faceprint/docs/",
            f"Time                {seconds:.0f} s",
        ]
        self.stdout.write("\n".join(lines))
        for problem in [*problems, *findings.problems]:
            self.stderr.write(self.style.ERROR(f"PROBLEM  {problem}"))
        if not problems and not findings.problems:
            self.stdout.write(self.style.SUCCESS("All as it should be."))


class _Demo:
    """One run: send the people through, let the engine work, move the clocks, compare."""

    def __init__(self, command: BaseCommand, processes: Processes, host: Host) -> None:
        self._command = command
        self._processes = processes
        self._host = host
        self.problems: list[str] = []

    def run(self, *, kill_worker: bool) -> Findings:
        """Send everybody through; return the comparison with the sandbox's ledger."""
        everybody = people()
        progress = _Progress(self._command)
        if kill_worker:
            self._slow_down_media()
        sessions: dict[str, Person] = {}
        for person in everybody:
            session = self._host.start(person)
            sessions[session["id"]] = person
            Browser().verify(person, session["h5_url"])
            progress.show(
                len(sessions),
                len(everybody),
                f"{person.reference}: {person.plan} {' → '.join(person.tries) or 'never opens'}",
            )
            self._processes.require_alive()
        soon = {key: person for key, person in sessions.items() if not person.needs_clock}
        later = {key: person for key, person in sessions.items() if person.needs_clock}
        if kill_worker:
            self._kill_worker(soon)
        self._settle(soon, progress, "archiving")
        if never_returned := [key for key, person in soon.items() if not person.returns]:
            self._check_never_returned(never_returned)
        progress.print(f"Moving all clocks {PAST_THE_WINDOW} ahead, past the end of every verify_token …")
        self._advance(PAST_THE_WINDOW)
        self._settle(later, progress, "closing")
        self._check(sessions)
        # Intents name the uploads that a killed worker did not commit; retain() deletes these.
        retain()
        # So that the dashboard shows everything before beat's next run.
        roll_up()
        progress.print("Comparing storage with the sandbox's ledger …")
        return compare(read_ledger(self._processes.sandbox_url), Path(settings.VAR) / "archive")

    def _settle(self, wanted: dict[str, Person], progress: _Progress, what: str) -> None:
        """Wait until the engine has nothing left to do for these sessions."""
        until = time.monotonic() + SETTLE_SECONDS
        while True:
            self._processes.require_alive()
            open_ones = VerificationSession.objects.filter(public_id__in=wanted).outstanding().count()
            progress.show(len(wanted) - open_ones, len(wanted), what)
            if not open_ones:
                return
            if time.monotonic() > until:
                raise DemoFailed(f"{open_ones} sessions were still open after {SETTLE_SECONDS:.0f} s.")
            time.sleep(0.3)

    def _check(self, sessions: dict[str, Person]) -> None:
        for session_id, person in sessions.items():
            session = self._host.session(session_id)
            if session["verdict"] != person.verdict:
                self.problems.append(
                    f"{person.reference}: verdict {session['verdict']}, expected {person.verdict}"
                )
            for file in self._host.media(session_id)[:1]:
                if file["url"]:
                    self._host.read_range(file["url"])

    def _check_never_returned(self, session_ids: list[str]) -> None:
        returned = VerificationSession.objects.filter(public_id__in=session_ids).exclude(returned_at=None)
        if returned.exists():
            self.problems.append("a browser that should never return came back")

    def _kill_worker(self, wanted: dict[str, Person]) -> None:
        """Kill the worker while some files are stored and others are not; then let its leases expire."""
        rows = VerificationSession.objects.filter(public_id__in=wanted)
        until = time.monotonic() + SETTLE_SECONDS
        while not _in_the_middle(rows):
            if time.monotonic() > until:
                raise DemoFailed("The worker never had a session with some of its files stored.")
            time.sleep(0.05)
        self._processes.worker.kill()
        self._command.stdout.write("\nKilled the worker with SIGKILL in the middle of its downloads.")
        self._control("DELETE", "faults")
        self._advance(MAX_LEASE + timedelta(minutes=1))
        self._processes.worker.start()

    def _slow_down_media(self) -> None:
        self._control("POST", "faults", {"endpoint": "media", "kind": "delay", "seconds": 0.3})

    def _advance(self, by: timedelta) -> None:
        self._control("POST", "clock", {"advance": by.total_seconds()})

    def _control(self, method: str, path: str, body: Any = None) -> None:
        url = f"{self._processes.sandbox_url}/_sandbox/{path}"
        reply = requests.request(method, url, json=body, timeout=30)
        if not reply.ok:
            raise DemoFailed(f"The sandbox's control API answered {path} with HTTP {reply.status_code}.")


class _Progress:
    """A progress bar on a terminal; elsewhere one line per step."""

    def __init__(self, command: BaseCommand) -> None:
        self._command = command
        self._tty = sys.stdout.isatty()
        self._last = ""

    def show(self, done: int, total: int, text: str) -> None:
        full = BAR_WIDTH * done // max(total, 1)
        self._line(f"[{'█' * full}{'·' * (BAR_WIDTH - full)}] {done:2}/{total}  {text}")

    def print(self, text: str) -> None:
        if self._tty and self._last:
            self._command.stdout.write("")
        self._last = ""
        self._command.stdout.write(text)

    def _line(self, line: str) -> None:
        if line == self._last:
            return
        self._last = line
        if self._tty:
            self._command.stdout.write(f"\r\x1b[2K{line}", ending="")
            self._command.stdout.flush()
        else:
            self._command.stdout.write(line)


_MARK = ".faceprint-demo"


def _require_empty(url: str) -> None:
    """Raise :class:`DemoFailed` unless *url* is a database without tables."""
    with replace_exceptions(Exception, by=_unusable_database):
        database = ConnectionHandler({DEFAULT_DB_ALIAS: Env.db_url_config(url)})[DEFAULT_DB_ALIAS]
        try:
            tables = database.introspection.table_names()
        finally:
            database.close()
    if tables:
        raise DemoFailed("The database already has tables: the demo needs an empty one.")


def _unusable_database(error: Exception) -> DemoFailed:
    if isinstance(error, DatabaseError):
        return DemoFailed(f"The database cannot be reached: {str(error).strip()}")
    # Other texts may quote the URL, which may hold a password.
    return DemoFailed(f"The database's URL is not understood ({type(error).__name__}).")


def _in_the_middle(rows: Any) -> bool:
    """Whether the engine works on a session with some of its files stored."""
    for session in rows.filter(lease_until__isnull=False):
        states = Counter(session.assets.values_list("state", flat=True))
        if states["stored"] and states["wanted"]:
            return True
    return False


def _empty(folder: Path) -> None:
    """Empty *folder*. Raises :class:`DemoFailed` unless it is empty or an earlier demo's."""
    mark = folder / _MARK
    try:
        if folder.exists() and any(folder.iterdir()) and not mark.exists():
            raise DemoFailed(f"{folder} has other files than a demo's; choose another with --folder.")
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, mode=0o700)
        mark.touch()
    except OSError as error:
        problem = error.strerror or "it cannot be written"
        raise DemoFailed(
            f"The demo cannot work in {folder}: {problem}.\n"
            'Choose a writable folder: make demo ARGS="--folder /path/to/folder"'
        ) from None


def _create_account(name: str, *, superuser: bool) -> str:
    """Create a user; return its random password (unused without *superuser*)."""
    password = secrets.token_urlsafe(9)
    users = get_user_model().objects
    if superuser:
        users.create_superuser(username=name, password=password)
    else:
        users.create_user(username=name, password=None)
    return password


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
