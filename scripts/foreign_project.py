"""Check that the README's lines are enough for a new project to archive a session with the built wheel.

Builds the wheel, installs it alone into a new environment, runs ``django-admin startproject mysite``, adds
exactly the blocks between the README's ``begin``/``end`` comments and runs its commands. One person goes
through the sandbox with a browser that never returns; Celery beat must then archive everything. The admin
must show the record, and each file must have its hash in the sandbox's ledger.

    .venv/bin/python scripts/foreign_project.py

Needs the ports 8000 and 8400. Exit code 0: all of that holds.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parent.parent
WEB = "http://127.0.0.1:8000"
SANDBOX = "http://127.0.0.1:8400"
BLOCK = re.compile(r"<!-- begin: (\S+) -->\n```\w+\n(.*?)```\n<!-- end -->", re.DOTALL)
PYTHON_BLOCKS = ("settings.py", "urls.py", "celery.py", "__init__.py")
ARCHIVE_SECONDS = 150


class Failed(Exception):
    """A check failed, or a step on the way to it."""


def main() -> None:
    blocks = dict(BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    lines = sum(1 for name in PYTHON_BLOCKS for line in blocks[name].splitlines() if line.strip())
    for port in (8000, 8400):
        require_free(port)
    with tempfile.TemporaryDirectory(prefix="faceprint-foreign-") as folder:
        project = Path(folder) / "project"
        environment = make_environment(Path(folder), project)
        for name in PYTHON_BLOCKS:
            with (project / "mysite" / name).open("a", encoding="utf-8") as file:
                file.write("\n" + blocks[name])
        run(["bash", "-euc", blocks["setup.sh"]], project, environment)
        password = secrets.token_urlsafe(12)
        run(
            ["python", "manage.py", "createsuperuser", "--noinput", "--username", "admin", "--email", ""],
            project,
            {**environment, "DJANGO_SUPERUSER_PASSWORD": password},
        )
        with processes(blocks["processes.sh"].splitlines(), project, environment):
            wait_for(f"{SANDBOX}/_sandbox/health")
            wait_for(f"{WEB}/admin/login/")
            run(["bash", "-uc", blocks["plans.sh"]], project, environment, check=False)
            session, token = verify(("admin", password))
            wait_until_archived(session, ("admin", password))
            compare_files(session, token, ("admin", password))
            see_in_admin(session, password)
    print(f"The README's {lines} lines are enough: one session passed, archived by beat, seen in the admin.")


def make_environment(folder: Path, project: Path) -> dict[str, str]:
    """Install the wheel in a new environment and start a project; returns the environment variables."""
    wheels = folder / "wheels"
    run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)],
        ROOT,
    )
    run([sys.executable, "-m", "venv", str(folder / "venv")], folder)
    binaries = folder / "venv" / "bin"
    (wheel,) = wheels.glob("*.whl")
    run([str(binaries / "python"), "-m", "pip", "install", "--quiet", str(wheel)], folder)
    project.mkdir()
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DJANGO_", "PYTHON", "FACEPRINT_"))
    }
    environment["PATH"] = f"{binaries}{os.pathsep}{environment.get('PATH', '')}"
    environment["PYTHONUNBUFFERED"] = "1"
    run(["django-admin", "startproject", "mysite", "."], project, environment)
    return environment


def verify(login: tuple[str, str]) -> tuple[str, str]:
    """Pass on the H5 page without returning to the site; returns session ID and verify_token."""
    started = requests.post(
        f"{WEB}/api/faceprint/sessions/",
        json={
            "plan": "25001",
            "reference": "foreign-1",
            "identity": {"name": "张三", "number": "11010519491231002X", "certificate_type": 0},
        },
        auth=login,
        timeout=30,
    )
    if started.status_code != 201:
        raise Failed(f"POST sessions/ answered HTTP {started.status_code}: {started.text[:300]}")
    session = started.json()
    if session["status"] != "awaiting_user":
        raise Failed(f"The session is {session['status']}.")
    page = requests.get(session["h5_url"], timeout=30)
    match = re.search(r'name="token" value="([^"]+)"', page.text)
    if match is None:
        raise Failed("The H5 page has no form.")
    done = requests.post(
        f"{SANDBOX}/face/print/finish",
        data={"token": match.group(1), "outcome": "pass"},
        timeout=30,
        allow_redirects=False,
    )
    if done.status_code != 302:
        raise Failed(f"The H5 page ended with HTTP {done.status_code}.")
    return session["id"], match.group(1)


def wait_until_archived(session: str, login: tuple[str, str]) -> None:
    """Wait until beat has archived the session; nothing else triggers the engine."""
    until = time.monotonic() + ARCHIVE_SECONDS
    state: Any = None
    while time.monotonic() < until:
        state = requests.get(f"{WEB}/api/faceprint/sessions/{session}/", auth=login, timeout=30).json()
        if state["archive_state"] == "complete":
            if state["verdict"] != "passed":
                raise Failed(f"The verdict is {state['verdict']}.")
            return
        time.sleep(1)
    raise Failed(f"Not archived after {ARCHIVE_SECONDS} s: {state['verdict']}, {state['archive_state']}.")


def compare_files(session: str, token: str, login: tuple[str, str]) -> None:
    """Compare the files from the API with the hashes in the sandbox's ledger."""
    (entry,) = requests.get(f"{SANDBOX}/_sandbox/ledger", params={"verify_token": token}, timeout=60).json()[
        "sessions"
    ]
    expected = sorted(item["sha256"] for item in entry["assets"] if item["available_from"])
    files = requests.get(f"{WEB}/api/faceprint/sessions/{session}/media/", auth=login, timeout=30).json()
    found = []
    for item in files:
        if item["state"] != "stored":
            continue
        content = requests.get(item["url"], auth=login, timeout=60)
        if content.status_code != 200:
            raise Failed(f"A file answered HTTP {content.status_code}.")
        found.append(hashlib.sha256(content.content).hexdigest())
    if not expected or sorted(found) != expected:
        raise Failed(f"{len(found)} files came back, {len(expected)} are in the ledger; their hashes differ.")


def see_in_admin(session: str, password: str) -> None:
    """Log in to the admin, find the record in the list and open it."""
    browser = requests.Session()
    login = browser.get(f"{WEB}/admin/login/", timeout=30)
    form = {"username": "admin", "password": password, "next": "/admin/"}
    form["csrfmiddlewaretoken"] = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', login.text)[0]
    browser.post(f"{WEB}/admin/login/", data=form, timeout=30)
    records = browser.get(
        f"{WEB}/admin/faceprint/verificationsession/", params={"reference": "foreign-1"}, timeout=30
    )
    link = re.search(r'href="(/admin/faceprint/verificationsession/[^"]+/change/[^"]*)"', records.text)
    if link is None:
        raise Failed("The admin's list does not show the record.")
    record = browser.get(WEB + link.group(1), timeout=30)
    if record.status_code != 200 or session not in record.text:
        raise Failed(f"The record's page answered HTTP {record.status_code} or is another one.")
    for personal in ("11010519491231002X", "张三"):
        if personal in record.text + records.text:
            raise Failed("The admin shows unmasked personal data.")


@contextmanager
def processes(commands: list[str], project: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run each command in the background; stop all of them at the end."""
    children = []
    logs = []
    try:
        for number, command in enumerate(commands):
            log = project / f"process-{number}.log"
            logs.append((command, log))
            with log.open("wb") as output:
                children.append(
                    subprocess.Popen(
                        shlex.split(command),
                        cwd=project,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        yield
    except BaseException:
        for command, log in logs:
            print(f"--- {command}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
        raise
    finally:
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                print("a process did not stop and was killed", file=sys.stderr)
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def wait_for(url: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    raise Failed(f"{url} did not answer within {seconds:.0f} s.")


def require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise Failed(f"Port {port} is in use; the README's lines need it.") from None


def run(
    command: list[str], folder: Path, environment: dict[str, str] | None = None, *, check: bool = True
) -> None:
    """Run *command*. Raises :class:`Failed` with its output when it fails or prints a traceback."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    if (check and done.returncode != 0) or "Traceback (most recent call last)" in output:
        raise Failed(f"{shlex.join(command)[:200]} ended with {done.returncode}:\n{output[-3000:]}")
    if not check:
        print(output)


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"FAILED: {error}")
