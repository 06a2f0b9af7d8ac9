"""The example project with a failing storage, and a beat schedule for the fast clock."""

from __future__ import annotations

from example_project.settings import *  # noqa: F403
from example_project.settings import FACEPRINT_CLOCK_FILE, INSTALLED_APPS, VAR

INSTALLED_APPS = [*INSTALLED_APPS, "chaos.apps.ChaosConfig"]

# Below VAR, where chaos.run reads them.
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "faceprint": {
        "BACKEND": "chaos.storage.FailingStorage",
        "OPTIONS": {"location": str(VAR / "archive"), "faults": str(VAR / "storage-faults")},
    },
}

# Minutes of the run go by in seconds.
CELERY_BEAT_SCHEDULE = {
    "faceprint.tick": {"task": "faceprint.tick", "schedule": 1, "options": {"expires": 2}},
    "faceprint.alerts": {"task": "faceprint.alerts", "schedule": 15, "options": {"expires": 15}},
    "faceprint.retain": {"task": "faceprint.retain", "schedule": 10, "options": {"expires": 10}},
}
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 3600}

if not FACEPRINT_CLOCK_FILE:
    raise RuntimeError("chaos.settings is only for python -m chaos, which sets FACEPRINT_CLOCK_FILE.")
