"""One export in a process of its own, whose memory and time are told: the worker of ``console``.

    python -m benchmarks.exporting export_csv 10000

exports the first 10,000 records of the database that the environment names, and reads the file as a download
does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta
from typing import Any

from .engine import peak_memory
from .project import set_up


def main() -> None:
    """Wait for "go", export, download, say what it took."""
    kind, count = sys.argv[1], int(sys.argv[2])
    set_up()
    from django.db import connection

    from django_faceprint.models import VerificationSession
    from django_faceprint.services import jobs
    from django_faceprint.services.access import Actor
    from django_faceprint.services.selection import Selection

    connection.ensure_connection()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    last = VerificationSession.objects.order_by("pk").values_list("pk", flat=True)[count - 1]
    before, started = peak_memory(), time.monotonic()
    job = jobs.start(kind, Selection({"created": "all"}, up_to=last), actor=Actor("operator", "benchmark"))
    jobs.work_on_jobs(budget=timedelta(hours=1), monotonic=time.monotonic)
    job.refresh_from_db()
    written = time.monotonic()
    size = sum(len(chunk) for chunk in jobs.open_file(job)[2])
    result: dict[str, Any] = {
        "before": before,
        "memory": peak_memory(),
        "seconds": written - started,
        "reading": time.monotonic() - written,
        "rows": job.done,
        "bytes": size,
    }
    sys.stdout.write(json.dumps(result) + os.linesep)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
