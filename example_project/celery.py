"""The Celery application: ``celery --app example_project worker --beat``."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

app = Celery("example_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@app.on_after_finalize.connect
def add_faceprint_schedule(sender: Celery, **_: Any) -> None:
    """Schedule the engine's tasks. Late, because tasks can be imported only after Django's setup."""
    from django_faceprint.tasks import FACEPRINT_BEAT_SCHEDULE

    sender.conf.beat_schedule = {**FACEPRINT_BEAT_SCHEDULE, **sender.conf.beat_schedule}
