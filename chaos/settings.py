"""The example project under stress: a storage that fails, a beat that keeps up with the moving clock."""

from __future__ import annotations

from example_project.settings import *  # noqa: F403
from example_project.settings import FACEPRINT_CLOCK_FILE, INSTALLED_APPS, VAR

INSTALLED_APPS = [*INSTALLED_APPS, "chaos.apps.ChaosConfig"]

# Below VAR, as chaos.run expects them.
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "faceprint": {
        "BACKEND": "chaos.storage.FailingStorage",
        "OPTIONS": {"location": str(VAR / "archive"), "faults": str(VAR / "storage-faults")},
    },
}

# Minutes go by in seconds here, and beat must go with them.
CELERY_BEAT_SCHEDULE = {
    "faceprint.tick": {"task": "faceprint.tick", "schedule": 1, "options": {"expires": 2}},
    "faceprint.alerts": {"task": "faceprint.alerts", "schedule": 15, "options": {"expires": 15}},
    "faceprint.retain": {"task": "faceprint.retain", "schedule": 10, "options": {"expires": 10}},
}
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 3600}

if not FACEPRINT_CLOCK_FILE:
    raise RuntimeError("chaos.settings is for python -m chaos, which sets FACEPRINT_CLOCK_FILE.")
