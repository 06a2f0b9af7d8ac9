"""The example project's Celery application, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DUMP = """
import json
from example_project import celery_app as app
import django
django.setup()
app.loader.import_default_modules()
app.finalize()
print(json.dumps({
    "schedule": sorted(entry["task"] for entry in app.conf.beat_schedule.values()),
    "tasks": sorted(name for name in app.tasks if name.startswith("faceprint.")),
    "ignored": app.conf.task_ignore_result,
    "late": app.conf.task_acks_late,
    "file": app.conf.beat_schedule_filename,
}))
"""


def test_beat_wakes_tasks_that_exist(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DUMP],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "FACEPRINT_ENV_FILE": "",
            "FACEPRINT_VAR": str(tmp_path / "var"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "faceprint.tick" in found["schedule"]
    assert set(found["schedule"]) <= set(found["tasks"])
    assert found["ignored"] is True
    assert found["late"] is True
    assert found["file"] == str(tmp_path / "var" / "celerybeat-schedule")
