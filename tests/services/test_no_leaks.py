"""Identity, tokens and keys in clear are nowhere: not in logs, exceptions, messages, mails, nor at rest."""

from __future__ import annotations

import base64
import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from django.core import mail
from django.db import connection

from django_faceprint import tasks
from django_faceprint.alerts.evaluation import evaluate
from django_faceprint.client import Identity
from django_faceprint.exceptions import FaceprintConfigurationError, FaceprintError
from django_faceprint.models import AccessToken, AlertRule, VerificationSession
from django_faceprint.services import retention, sessions

from .conftest import Story

# A name and a number that occur nowhere else, so that a hit is a leak.
NAME = "欧阳朔月"
NUMBER = "440308199901015331"
FAULTS: list[dict[str, Any]] = [
    {"endpoint": "verify_token_generate", "kind": "gateway", "code": 110},
    {"endpoint": "idcard_submit", "kind": "html"},
    {"endpoint": "idcard_submit", "kind": "reset"},
    {"endpoint": "result_detail", "kind": "service", "code": 987654, "message": "新的错误"},
    {"endpoint": "result_detail", "kind": "malformed_json"},
    {"endpoint": "result_getall", "kind": "truncate"},
    {"endpoint": "result_simple", "kind": "http_500"},
    {"endpoint": "simple_image", "kind": "expired_url"},
    {"endpoint": "media", "kind": "reset", "after_bytes": 1000},
    {"endpoint": "media", "kind": "not_image"},
    {"endpoint": "result_media_query", "kind": "foreign_url", "url": "https://evil.example.com"},
]


def test_the_number_is_valid() -> None:
    assert Identity.checked(NAME, NUMBER, 0).number == NUMBER


def test_nothing_personal_is_left_in_clear(
    story: Story,
    clock: Any,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    AlertRule.objects.update(recipients="ops@example.com", minimum_count=1, share_percent=1)
    said: list[str] = []
    for fault in FAULTS:
        story.fault(count=1, **fault)
    for number, outcome in enumerate(("pass", "fail", "pass", "giveup")):
        request = sessions.StartRequest(
            plan_id="25001",
            reference=f"leak-{number}",
            identity=Identity.checked(NAME, NUMBER, 0),
            consent={"reference": "c-1"},
            idempotency_key=f"key-{number}",
        )
        for _ in range(4):
            try:
                session = sessions.start_session(request)
                break
            except (FaceprintError, FaceprintConfigurationError) as error:
                said += traceback.format_exception(error)
                said.append(repr(error) + repr(error.error))
        story.finish(session, outcome)
        sessions.record_return(session)
        tasks.wake_up(session)
    for _ in range(6):
        tasks.tick()
        evaluate()
        clock.advance(minutes=2)
    retention.retain()
    rows = VerificationSession.objects.all()
    assert rows.filter(archive_state="complete").count() == 3
    assert mail.outbox

    secrets = {
        NAME,
        NUMBER,
        *(session.verify_token for session in rows),
        *(row.token for row in AccessToken.objects.all()),
        "sandbox-secret-key",
        *settings.FACEPRINT["ENCRYPTION_KEYS"],
        *settings.FACEPRINT["INDEX_KEYS"],
    }
    assert len(secrets) >= 10
    output = capsys.readouterr()
    places = {
        "logs": caplog.text,
        "exceptions": "".join(said),
        "output": output.out + output.err,
        "mails": "".join(str(message.message()) + message.body for message in mail.outbox),
        "messages": "".join(broker_messages()),
        "rows": "".join(repr(list(model.objects.values())) for model in all_models()),
    }
    assert places["exceptions"]
    assert places["messages"]
    for place, text in places.items():
        for secret in secrets:
            assert secret not in text, place
    for path in files_at_rest():
        content = path.read_bytes()
        for secret in secrets:
            for form in (secret.encode(), base64.b64encode(secret.encode()).rstrip(b"=")[:-1]):
                assert form not in content, path.name


def broker_messages() -> list[str]:
    """What lies in the broker, as a worker would get it."""
    messages = []
    with tasks.collect.app.connection_for_read() as broker:
        queue = broker.SimpleQueue("celery")
        while len(queue):
            message = queue.get(block=False)
            messages.append(f"{json.dumps(message.decode(), ensure_ascii=False)} {message.headers}")
            message.ack()
        queue.close()
    return messages


def all_models() -> list[Any]:
    from django.apps import apps

    return list(apps.get_app_config("faceprint").get_models())


def files_at_rest() -> list[Path]:
    """The database, where it is a file, and the evidence storage."""
    files = [
        path
        for path in Path(project.STORAGES["faceprint"]["OPTIONS"]["location"]).rglob("*")
        if path.is_file()
    ]
    assert files
    if connection.vendor == "sqlite":
        name = Path(connection.settings_dict["NAME"])
        databases = list(name.parent.glob(f"{name.name}*"))
        assert databases
        files += databases
    return files
