"""The Celery application of ``celery``: the product's tasks and beat, with each task's CPU time.

``python -m celery --app benchmarks.application worker``; the environment variable ``FACEPRINT_TASK_LOG``
names the file, which gets a line for every task: its name and the CPU seconds of its body.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import task_postrun, task_prerun

TASK_LOG = "FACEPRINT_TASK_LOG"

app = Celery("benchmarks")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

_begun: dict[str, float] = {}


@app.on_after_finalize.connect
def add_faceprint_schedule(sender: Celery, **_: Any) -> None:
    """Let beat wake the engine."""
    from django_faceprint.tasks import FACEPRINT_BEAT_SCHEDULE

    sender.conf.beat_schedule = FACEPRINT_BEAT_SCHEDULE


@task_prerun.connect
def note_begin(task_id: str, **_: Any) -> None:
    """A task's body begins."""
    _begun[task_id] = time.process_time()


@task_postrun.connect
def note_end(task_id: str, task: Any, **_: Any) -> None:
    """A task's body has ended. Writing the line counts as Celery's time."""
    seconds = time.process_time() - _begun.pop(task_id)
    with Path(os.environ[TASK_LOG]).open("a", encoding="ascii") as log:
        log.write(f"{task.name} {seconds:.6f}\n")
