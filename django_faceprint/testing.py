"""A pytest plugin for host projects: the sandbox inside the test's process, and the engine called directly.

In the host's top-level ``conftest.py``: ``pytest_plugins = ["django_faceprint.testing"]``. Needs
pytest-django. No worker, no broker, no network beyond loopback.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from django_faceprint.engine.runner import WorkReport

    from .models import VerificationSession
    from .sandbox.core import Sandbox

# Credentials of an application in the sandbox.
API_KEY = "sandbox-api-key"
SECRET_KEY = "sandbox-secret-key"  # noqa: S105  (public)
WORK_BUDGET = timedelta(seconds=60)


@pytest.fixture(autouse=True, scope="session")
def _faceprint_log_may_be_emptied() -> Iterator[None]:
    """Allow DELETE on the access log, with which tests on MySQL empty their tables."""
    from django.db.backends.signals import connection_created

    def allow(connection: Any, **kwargs: Any) -> None:
        if connection.vendor == "mysql":
            with connection.cursor() as cursor:
                cursor.execute("SET @faceprint_emptying = 1")

    connection_created.connect(allow)
    yield
    connection_created.disconnect(allow)


@dataclass(frozen=True)
class FaceprintSandbox:
    """Plays the person in a verification that the host's code has started."""

    #: For faults, scripts, the clock and the ledger.
    sandbox: Sandbox

    def verify(self, session: VerificationSession, outcome: str = "pass", *, code: str | None = None) -> None:
        """Send the person through the H5 page and back, and run the engine; *session* is refreshed.

        *outcome* is ``pass``, ``fail`` (with a *code* of API reference 4.3) or ``giveup``.
        """
        from django_faceprint.verification import record_return

        self.sandbox.finish(session.verify_token or "", outcome, code)
        if outcome != "giveup":
            record_return(session)
        self.work()
        session.refresh_from_db()

    @staticmethod
    def work() -> WorkReport:
        """Do all work that is due, as a Celery worker would."""
        from django_faceprint.engine.runner import collect_due

        return collect_due(budget=WORK_BUDGET, monotonic=time.monotonic)


@pytest.fixture
def faceprint_sandbox(settings: Any, db: None, tmp_path: Path) -> Iterator[FaceprintSandbox]:
    """A running sandbox, with settings, plans and an evidence storage for this test alone."""
    from django_faceprint.devtools.sandbox_plans import copy_sandbox_plans

    from .sandbox.server import SandboxServer

    # A sandbox on loopback is refused in production, and pytest-django turns DEBUG off.
    settings.DEBUG = True
    settings.STORAGES = {
        **settings.STORAGES,
        "faceprint": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path / "faceprint")},
        },
    }
    with SandboxServer(qps=0) as server:
        settings.FACEPRINT = {
            **settings.FACEPRINT,
            "APPLICATIONS": {"default": {"API_KEY": API_KEY, "SECRET_KEY": SECRET_KEY}},
            "API_URL": server.url,
            "H5_URL": server.h5_url,
            "MEDIA_HOSTS": [f"127.0.0.1:{server.port}"],
        }
        copy_sandbox_plans()
        yield FaceprintSandbox(server.sandbox)
