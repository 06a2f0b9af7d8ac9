"""The client works where there is no Django."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import django_faceprint

PROGRAM = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("django", "rest_framework", "celery"):
            raise ImportError(name + " is not here")

sys.meta_path.insert(0, Refuse())
import django_faceprint.client as client
from django_faceprint.exceptions import FaceprintError

with client.FaceprintClient(api_key="key", secret_key="secret") as faceprint:
    print(faceprint.h5_url("Ab3dEf6hIj9kLm2nOp5qRs8t"))
assert all(hasattr(client, name) for name in client.__all__)
assert not [name for name in sys.modules if name.partition(".")[0] == "django"]
"""


def test_client_imports_no_django() -> None:
    root = Path(django_faceprint.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "https://brain.baidu.com/face/print/?token=Ab3dEf6hIj9kLm2nOp5qRs8t\n"
