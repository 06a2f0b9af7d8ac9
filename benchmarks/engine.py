"""The product in a process of its own: one measured run of the engine over all due sessions.

``python -m benchmarks.engine``; see :class:`.workspace.Worker`.
"""

from __future__ import annotations

import cProfile
import sys
import time
from datetime import timedelta
from functools import partial

from . import plain
from .project import Project, set_up
from .workspace import answer, measured, wait_for_go

#: Below the time after which a run begins no further download.
RUN_SECONDS = 100


def main() -> None:
    """Wait for "go", work, answer. The optional argument is the file for a profile (of one thread)."""
    set_up()
    from django.db import connection

    from django_faceprint.conf import conf
    from django_faceprint.engine.runner import collect_due

    profile = cProfile.Profile() if len(sys.argv) > 1 else None

    def work() -> dict[str, int]:
        report = collect_due(
            budget=timedelta(seconds=RUN_SECONDS), monotonic=time.monotonic, concurrency=conf.concurrency
        )
        return {"sessions": report.sessions, "failures": report.failures}

    connection.ensure_connection()
    wait_for_go()
    with plain.files(encrypted=Project.from_environment().encrypts):
        result = measured(work if profile is None else partial(profile.runcall, work))
    if profile is not None:
        profile.dump_stats(sys.argv[1])
    answer(result)


if __name__ == "__main__":
    main()
