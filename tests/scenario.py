"""The engine against the sandbox: real HTTP, real transactions, real files, frozen time."""

from __future__ import annotations

import hashlib
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests
from django.core.files.storage import FileSystemStorage

from django_faceprint.client import Identity, MatchImage
from django_faceprint.engine.runner import WorkReport, collect_due
from django_faceprint.evidence import files
from django_faceprint.evidence.files import open_stored
from django_faceprint.models import Plan, VerificationSession
from django_faceprint.verification import StartRequest, record_return, start_session
from tests.factories import NUMBER, image_bytes


class Scenario:
    """What people, Baidu and our engine do, in sentences."""

    def __init__(self, sandbox: Any, plans: dict[str, Plan]) -> None:
        self.sandbox = sandbox
        self.plans = plans
        self._number = 0

    def start(self, plan_id: str = "25001", **more: Any) -> VerificationSession:
        """A host starts a session with all that the plan requires."""
        plan = self.plans[plan_id]
        self._number += 1
        request = StartRequest(
            plan_id=plan_id,
            reference=more.pop("reference", f"order-{self._number}"),
            identity=Identity.checked("张三", NUMBER, 0) if plan.needs_identity else None,
            match_image=MatchImage.checked(image_bytes()) if plan.needs_match_image else None,
            **more,
        )
        return start_session(request)

    def finish(self, session: VerificationSession, outcome: str = "pass", **more: Any) -> None:
        """The person goes through the H5 page."""
        self.control("POST", "finish", {"verify_token": session.verify_token, "outcome": outcome, **more})

    def fault(self, endpoint: str, kind: str, **more: Any) -> None:
        """Baidu misbehaves from now on (or ``count`` times)."""
        self.control("POST", "faults", {"endpoint": endpoint, "kind": kind, **more})

    def heal(self) -> None:
        """Baidu is well again."""
        self.control("DELETE", "faults")

    def script(self, session: VerificationSession, **what: Any) -> None:
        """Decide what Baidu will say of *session*."""
        self.control("POST", "script", {"verify_token": session.verify_token, **what})

    def control(self, method: str, what: str, body: Any = None) -> Any:
        reply = requests.request(method, f"{self.sandbox.url}/_sandbox/{what}", json=body, timeout=30)
        assert reply.ok, reply.text
        return reply.json()

    def ledger(self, session: VerificationSession) -> dict[str, Any]:
        """What Baidu holds of *session*."""
        entries = self.control("GET", f"ledger?verify_token={session.verify_token}")["sessions"]
        assert len(entries) == 1
        return dict(entries[0])

    def work(self, *, limit: int | None = None) -> WorkReport:
        """Let the engine do all that is due."""
        report = collect_due(budget=timedelta(seconds=60), limit=limit, monotonic=time.monotonic)
        assert not VerificationSession.objects.filter(error_class="internal").exists()
        return report

    def back(self, session: VerificationSession) -> VerificationSession:
        """The browser returns and the engine looks; the session as it is then."""
        record_return(session)
        self.work()
        return self.fresh(session)

    @staticmethod
    def fresh(session: VerificationSession) -> VerificationSession:
        return VerificationSession.objects.select_related("plan").get(pk=session.pk)


def assert_archived(scenario: Scenario, session: VerificationSession) -> None:
    """All that Baidu holds of *session* lies in our storage, decrypts, and nothing is there twice."""
    expected = sorted(
        item["sha256"]
        for item in scenario.ledger(session)["assets"]
        if item["kind"] != "match_image" and item["available_from"]
    )
    stored = []
    for asset in session.assets.stored().exclude(source="upload"):
        with open_stored(asset) as reader:
            content = reader.read()
        assert hashlib.sha256(content).hexdigest() == asset.sha256
        assert len(content) == asset.size
        stored.append(asset.sha256)
    assert sorted(stored) == expected


def store_in(settings: Any, folder: Path, storage: type[FileSystemStorage]) -> None:
    """Archive in *folder* through *storage*."""
    backend = f"{storage.__module__}.{storage.__qualname__}"
    options = {"location": str(folder / "archive")}
    settings.STORAGES = {**settings.STORAGES, "faceprint": {"BACKEND": backend, "OPTIONS": options}}


class FailingStorage(FileSystemStorage):
    """A storage that cannot delete while ``broken`` says so."""

    broken = False
    asked: list[str] = []

    def delete(self, name: str) -> None:
        type(self).asked.append(name)
        if self.broken:
            raise PermissionError(f"no: {name}")
        super().delete(name)


def stored_files() -> list[str]:
    """The names of all files in the archive's storage."""
    root = files.storage().path("")
    return sorted(
        os.path.relpath(os.path.join(folder, name), root)
        for folder, _, names in os.walk(root)
        for name in names
    )
