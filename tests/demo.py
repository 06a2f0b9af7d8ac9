"""The demo as its users start it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from example_project.demo.processes import free_port

ROOT = Path(__file__).resolve().parents[1]


def run_demo(folder: Path, *options: str, timeout: float) -> tuple[int, str]:
    """Exit code and output of ``faceprint_demo --once`` in *folder*, killed after *timeout* seconds."""
    done = subprocess.run(
        [
            *(sys.executable, "manage.py", "faceprint_demo", "--once", *options, "--folder", str(folder)),
            *("--web-port", str(free_port()), "--sandbox-port", str(free_port())),
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
