"""One export in a process of its own, for ``console``: ``python -m benchmarks.console_export KIND KEY``.

Exports every record up to that key, masked, reads the whole file back, and says how much memory that took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from .engine import peak_memory
from .project import set_up


def main() -> None:
    """Wait for "go", export, say what was done."""
    kind, last = sys.argv[1], int(sys.argv[2])
    set_up()
    from django.db import connection

    from django_faceprint.audit.access import Actor
    from django_faceprint.jobs import jobs
    from django_faceprint.models import Job
    from django_faceprint.records.filters import Selection

    connection.ensure_connection()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    before = peak_memory()
    began = time.monotonic()
    job = jobs.start(kind, Selection({"created": "all"}, up_to=last), actor=Actor("operator", "admin", "1"))
    jobs.work_on(job, until=float("inf"), monotonic=time.monotonic)
    if job.state != Job.State.DONE or job.done != job.total:
        raise AssertionError(f"The export came to {job.done} of {job.total} records ({job.state}).")
    seconds = time.monotonic() - began
    _, _, chunks = jobs.open_file(job)
    size = sum(map(len, chunks))
    result: dict[str, Any] = {
        "records": job.done,
        "seconds": seconds,
        "bytes": size,
        "before": before,
        "memory": peak_memory(),
    }
    sys.stdout.write(json.dumps(result) + os.linesep)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
