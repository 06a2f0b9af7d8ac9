"""One export in a process of its own, for ``console``: ``python -m benchmarks.console_export KIND KEY``.

Exports every record up to that key, masked, reads the whole file back, and reports the peak memory.
"""

from __future__ import annotations

import sys
import time

from .project import set_up
from .workspace import answer, measured, peak_memory, wait_for_go


def main() -> None:
    """Wait for "go", export, answer."""
    kind, last = sys.argv[1], int(sys.argv[2])
    set_up()
    from django.db import connection

    from django_faceprint.audit.access import Actor
    from django_faceprint.jobs import jobs
    from django_faceprint.models import Job
    from django_faceprint.records.filters import Selection

    def work() -> dict[str, int]:
        who = Actor("operator", "admin", "1")
        job = jobs.create(kind, Selection({"created": "all"}, up_to=last), actor=who)
        jobs.work_on(job, until=float("inf"), monotonic=time.monotonic)
        if job.state != Job.State.DONE or job.done != job.total:
            raise AssertionError(f"The export came to {job.done} of {job.total} records ({job.state}).")
        return {"records": job.done, "key": job.pk}

    connection.ensure_connection()
    wait_for_go()
    before = peak_memory()
    result = measured(work)
    _, _, chunks = jobs.open_file(Job.objects.get(pk=result["key"]))
    size = sum(map(len, chunks))
    answer({**result, "bytes": size, "before": before, "memory": peak_memory()})


if __name__ == "__main__":
    main()
