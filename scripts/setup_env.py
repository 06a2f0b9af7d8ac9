"""Make ``.venv`` and install the project into it, or explain why that is not possible.

``make demo`` and ``make test`` call this with whatever Python the machine has, so the file must parse
on Python 3.6 and uses the standard library only. It finds a Python that is new enough, makes the
virtual environment and installs with pip, whose own configuration (files and ``PIP_*`` variables) is
honoured. A second call with nothing changed returns at once.

Exit code: 0 ready, 1 with a problem and its remedy on stderr.
"""

import argparse
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

OLDEST = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "faceprint-setup.json")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
# The files that determine the installed packages.
INPUTS = ("setup.cfg", "pyproject.toml", os.path.join("scripts", "setup_env.py"))
PROBE = "import sys; print('%d.%d.%d' % sys.version_info[:3]); print(sys.executable)"

Version = Tuple[int, int, int]


class Problem(Exception):
    """A problem that only the user can solve, with remedies."""

    def __init__(self, problem: str, *remedies: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedies = remedies


class Interpreter:
    """A working Python with its version."""

    def __init__(self, path: str, version: Version) -> None:
        self.path = path
        self.version = version

    @property
    def good(self) -> bool:
        return self.version[:2] >= OLDEST

    def __str__(self) -> str:
        return "%s is Python %s" % (self.path, self.number)

    @property
    def number(self) -> str:
        return "%d.%d.%d" % self.version


def probe(command: str) -> Optional[Interpreter]:
    """The Python behind a command; None when it is missing or does not work."""
    try:
        answer = subprocess.run(
            [command, "-c", PROBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            universal_newlines=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(r"(\d+)\.(\d+)\.(\d+)\n(.+)\n", answer.stdout)
    if answer.returncode != 0 or match is None:
        return None
    version = (int(match.group(1)), int(match.group(2)), int(match.group(3)))
    return Interpreter(match.group(4), version)


def find_interpreter(wanted: str) -> Interpreter:
    """The wanted Python; otherwise ``python3`` of PATH if it is new enough, or the newest one found."""
    if wanted:
        found = probe(wanted)
        if found is None:
            raise Problem(
                "PYTHON=%s is no Python that runs." % wanted,
                "Give the path of a Python %d.%d or newer, or leave PYTHON out." % OLDEST,
            )
        if not found.good:
            raise Problem(
                "PYTHON=%s is too old: %s; %d.%d is needed." % (wanted, found, OLDEST[0], OLDEST[1]),
                *_get_python(),
            )
        return found
    default = probe("python3")
    if default is not None and default.good:
        return default
    names = ["python3.%d" % minor for minor in range(20, OLDEST[1] - 1, -1)] + ["python"]
    names += glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python"))
    names += glob.glob("/opt/homebrew/bin/python3.*") + glob.glob("/usr/local/bin/python3.*")
    seen = [] if default is None else [default]
    for name in names:
        if name.endswith("-config"):
            continue
        found = probe(name) if os.path.sep in name or shutil.which(name) else None
        if found is not None:
            seen.append(found)
    good = [one for one in seen if one.good]
    if not good:
        raise Problem(
            "Python %d.%d or newer is needed. Found: %s."
            % (OLDEST[0], OLDEST[1], "; ".join(sorted({str(one) for one in seen})) or "none"),
            *_get_python(),
        )
    return max(good, key=lambda one: one.version)


def _get_python() -> List[str]:
    return [
        "Debian 12, Ubuntu 24.04 and newer: apt install python3 python3-venv. macOS: brew install python.",
        "If you have one elsewhere, name it: make demo PYTHON=/path/to/python3.12",
    ]


def fingerprint(extras: Sequence[str]) -> Dict[str, Any]:
    """The inputs of the environment. The folder is one of them: an editable install refers to it."""
    digest = hashlib.sha256()
    for name in INPUTS:
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read() + b"\0")
    return {"root": ROOT, "inputs": digest.hexdigest(), "extras": sorted(extras)}


def read_stamp() -> Dict[str, Any]:
    """The stamp of the last setup; empty when there is none."""
    try:
        with open(STAMP) as file:
            stamp = json.load(file)
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(stamp: Dict[str, Any]) -> None:
    """Record the inputs of ``.venv``, so that the next call can compare them."""
    with open(STAMP, "w") as file:
        json.dump(stamp, file)


def check_writable() -> None:
    """Raise :class:`Problem` when the project's folder is not writable."""
    try:
        with tempfile.NamedTemporaryFile(dir=ROOT, prefix=".faceprint-"):
            pass
    except OSError as error:
        raise Problem(
            "The folder %s cannot be written (%s)." % (ROOT, error.strerror),
            "Clone the project into a folder of your own,",
            "or make this one yours: chown -R $(id -un) %s" % ROOT,
        ) from None


def probe_venv() -> Optional[Interpreter]:
    """The Python of ``.venv``; None when it does not work or has no pip."""
    found = probe(VENV_PYTHON)
    if found is None or not run([VENV_PYTHON, "-m", "pip", "--version"], "looking at .venv")[0]:
        return None
    return found


def make_venv(wanted: str) -> None:
    """Make a working ``.venv`` with a good Python, or keep the one that is there.

    Replaces an environment that belongs to another folder (a copied project), but never through a link:
    the other folder still uses it.
    """
    owner = read_stamp().get("root", ROOT)
    if os.path.islink(VENV) and owner != ROOT:
        raise Problem(
            "%s is a link to the environment of %s." % (VENV, owner),
            "Remove the link (rm .venv) to get an environment for this folder, then try again.",
        )
    present = probe_venv()
    if present is not None and present.good and owner == ROOT:
        asked = find_interpreter(wanted) if wanted else present
        if asked.version == present.version:
            return
    made_by_venv = os.path.exists(os.path.join(VENV, "pyvenv.cfg"))
    if made_by_venv and not read_stamp():
        detail = "is broken" if present is None else "has Python %s" % present.number
        raise Problem(
            "%s was not made by this script and %s." % (VENV, detail),
            "Move it away or remove it (rm -r .venv), then try again.",
        )
    if os.path.lexists(VENV) and not made_by_venv and not (os.path.isdir(VENV) and not os.listdir(VENV)):
        raise Problem("%s is no virtual environment." % VENV, "Move it away, then try again.")
    python = find_interpreter(wanted)
    print("Making .venv with Python %s (%s)" % (python.number, python.path), flush=True)
    check_venv_module(python)
    done, lines = run([python.path, "-m", "venv", "--clear", VENV], "making .venv")
    if not done:
        raise Problem(
            "The virtual environment could not be made:\n" + "\n".join(lines[-8:]),
            *(_no_space(lines) or ["Try another Python: make demo PYTHON=/path/to/python3.12"]),
        )
    write_stamp({"root": ROOT})


def check_venv_module(python: Interpreter) -> None:
    """Raise :class:`Problem` where Python lacks venv or ensurepip, as on Debian and Ubuntu."""
    answer = subprocess.run(
        [python.path, "-c", "import venv, ensurepip"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    if answer.returncode != 0:
        name = "python%d.%d" % python.version[:2]
        raise Problem(
            "%s (%s) has no venv or no ensurepip module, so it cannot make a virtual environment."
            % (name, python.path),
            "Debian, Ubuntu: apt install %s-venv (or python3-venv)." % name,
            "Otherwise name a Python that has them: make demo PYTHON=/path/to/python3.12",
        )


def install(extras: Sequence[str]) -> None:
    """Install the project in editable mode, with these extras."""
    print("Installing django-faceprint[%s] and what it needs with pip" % ",".join(extras), flush=True)
    command = [VENV_PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["--editable", "%s[%s]" % (ROOT, ",".join(extras))]
    done, lines = run(command, "installing")
    if not done:
        raise diagnose(lines)


def run(command: List[str], what: str) -> Tuple[bool, List[str]]:
    """Run a command; on a terminal show its last line meanwhile. Returns success and all lines."""
    environment = dict(os.environ)
    # A configured "install for the user" has no meaning in a virtual environment; pip would refuse.
    environment["PIP_USER"] = "0"
    started = time.time()
    lines = []  # type: List[str]
    try:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            universal_newlines=True,
            errors="replace",
            env=environment,
            cwd=ROOT,
        )
    except OSError as error:
        return False, [str(error)]
    on_terminal = sys.stdout.isatty()
    for line in process.stdout or ():
        lines.append(line.rstrip())
        if on_terminal:
            width = shutil.get_terminal_size().columns - 1
            status = "  %s, %d s: %s" % (what, time.time() - started, line.strip())
            sys.stdout.write("\r" + status[:width].ljust(width))
            sys.stdout.flush()
    if on_terminal and lines:
        sys.stdout.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
        sys.stdout.flush()
    return process.wait() == 0, lines


def diagnose(lines: List[str]) -> Problem:
    """Turn pip's output into the problem and its remedy. pip hides passwords in what it prints."""
    text = "\n".join(lines)
    errors = [line for line in lines if "ERROR" in line or "error:" in line] or lines
    end = "pip said:\n    " + "\n    ".join(errors[-6:])
    if _no_space(lines):
        return Problem("The disk is full. " + end, *_no_space(lines))
    if re.search(r"CERTIFICATE_VERIFY_FAILED|SSLError|certificate verify failed", text):
        return Problem(
            "The package index was reached, but its certificate is not trusted. " + end,
            "Behind a company's proxy, tell pip its certificate: export PIP_CERT=/path/to/ca.pem",
        )
    if re.search(
        r"NewConnectionError|ConnectTimeout|Failed to establish|[Nn]ame resolution|Name or service not known|"
        r"Connection refused|Connection reset|Connection aborted|Network is unreachable|No route to host|"
        r"ProxyError|[Rr]ead timed out|Connection to \S+ timed out",
        text,
    ):
        return Problem("No package index could be reached. " + end, *_get_index())
    missing = re.search(r"No matching distribution found for (\S+)", text)
    if missing and "(from versions: none)" in text:
        # Without retries pip does not say that it could not connect.
        return Problem(
            "No package index could be reached, or it does not have %s. " % missing.group(1) + end,
            *_get_index(),
        )
    if missing:
        return Problem(
            "The package index has no fitting %s for this Python. " % missing.group(1) + end,
            "If pip is set to a mirror (pip config list), it may be behind: use another (PIP_INDEX_URL).",
            "Or try another Python: make demo PYTHON=/path/to/python3.12",
        )
    if re.search(r"Permission denied|Errno 13|Read-only file system", text):
        return Problem("No permission to write. " + end, "Make the folder and pip's cache yours: chown.")
    if re.search(r"Failed building|Failed to build|error: command '|subprocess-exited-with-error", text):
        return Problem(
            "A package has no ready build for this Python or system, and building it failed. " + end,
            "Try a Python that is a year old rather than the newest: make demo PYTHON=/path/to/python3.12",
        )
    return Problem("Installing failed. " + end, "By hand: .venv/bin/python -m pip install -e '.[example]'")


def _get_index() -> List[str]:
    return [
        "Check the network; behind a proxy: export HTTPS_PROXY=http://proxy:port",
        "Or use a mirror (pip's own settings are honoured): export PIP_INDEX_URL=<address of the mirror>",
    ]


def _no_space(lines: List[str]) -> List[str]:
    if re.search(r"No space left on device|Errno 28|Disk quota exceeded", "\n".join(lines)):
        return ["Make room (about 500 MB for .venv and pip's cache), then try again."]
    return []


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Set up, or explain why not."""
    parser = argparse.ArgumentParser(description="Make .venv and install django-faceprint into it.")
    parser.add_argument("--python", default="", help="the Python to use (default: python3 or the newest)")
    parser.add_argument("--extras", nargs="+", default=["example"], help="extras of setup.cfg to install")
    options = parser.parse_args(arguments)
    try:
        stamp = read_stamp()
        extras = sorted(set(options.extras) | set(stamp.get("extras", [])))
        same = stamp == fingerprint(extras) and not options.python
        if same and probe(VENV_PYTHON) is not None:
            return 0
        check_writable()
        make_venv(options.python)
        if read_stamp() == fingerprint(extras):
            return 0
        started = time.time()
        install(extras)
        write_stamp(fingerprint(extras))
        print("Ready after %d s." % (time.time() - started), flush=True)
    except Problem as problem:
        return explain(problem)
    except OSError as error:
        remedies = _no_space([str(error)]) or ["Look at the rights of %s and of the disk." % ROOT]
        return explain(Problem("A file could not be read or written: %s" % error, *remedies))
    return 0


def explain(problem: Problem) -> int:
    """Print a problem with its remedies; return the exit code."""
    sys.stdout.flush()
    sys.stderr.write("\nCannot set up the environment.\n  Problem: %s\n" % problem.problem)
    for remedy in problem.remedies:
        sys.stderr.write("  Remedy:  %s\n" % remedy)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
