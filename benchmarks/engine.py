"""The product in a process of its own: one run of the engine over whatever is due, measured.

``python -m benchmarks.engine``; see :class:`.workspace.Worker`.
"""

from __future__ import annotations

import cProfile
import json
import sys
import time
from datetime import timedelta
from pathlib import Path

from . import plain
from .project import Project, set_up

#: Below the time after which a run begins no further download.
RUN_SECONDS = 100


def peak_memory() -> int | None:
    """The most memory that this process has had so far, in bytes; None where the system does not tell.

    Not ``ru_maxrss``, which a process inherits from the one that started it.
    """
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="ascii").splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def main() -> None:
    """Wait for "go", work, say what was done. An argument is the file for a profile (of one thread)."""
    set_up()
    from django.db import connection

    from django_faceprint.conf import conf
    from django_faceprint.engine.runner import collect_due

    connection.ensure_connection()
    profile = cProfile.Profile() if len(sys.argv) > 1 else None
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    started, cpu = time.monotonic(), time.process_time()
    if profile is not None:
        profile.enable()
    with plain.files(encrypted=Project.from_environment().encrypts):
        report = collect_due(
            budget=timedelta(seconds=RUN_SECONDS), monotonic=time.monotonic, concurrency=conf.concurrency
        )
    result = {
        "sessions": report.sessions,
        "failures": report.failures,
        "seconds": time.monotonic() - started,
        "cpu": time.process_time() - cpu,
        "memory": peak_memory(),
    }
    if profile is not None:
        profile.disable()
        profile.dump_stats(sys.argv[1])
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
