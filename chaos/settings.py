"""The example project under stress: a storage that fails, a beat that keeps up with the moving clock."""

from __future__ import annotations

from example_project.settings import *  # noqa: F403
from example_project.settings import FACEPRINT_CLOCK_FILE, INSTALLED_APPS, STORAGES, VAR, env

INSTALLED_APPS = [*INSTALLED_APPS, "chaos.apps.ChaosConfig"]

#: ``deadline``, the engine's own order, or ``arrival``: first come, first served (see chaos.arrival).
CHAOS_ORDER = env.str("CHAOS_ORDER", default="deadline")
#: Where the storage finds how often it is to fail and notes what it did.
CHAOS_STORAGE_FAULTS = VAR / "storage-faults"

STORAGES = {
    **STORAGES,
    "faceprint": {
        "BACKEND": "chaos.storage.FailingStorage",
        "OPTIONS": {**STORAGES["faceprint"]["OPTIONS"], "faults": str(CHAOS_STORAGE_FAULTS)},
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
