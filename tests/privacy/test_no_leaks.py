"""No plain identity, token or key in logs, exceptions, messages, mails and stored data."""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core import mail
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils.crypto import get_random_string

from django_faceprint import tasks
from django_faceprint.alerts.evaluation import evaluate
from django_faceprint.client import Identity
from django_faceprint.exceptions import FaceprintConfigurationError, FaceprintError
from django_faceprint.maintenance import retention
from django_faceprint.models import AccessToken, AlertRule, VerificationSession
from django_faceprint.verification import Consent, StartRequest, record_return, start_session
from tests.pages import admin_pages, api_addresses, file_addresses, return_pages
from tests.scenario import Scenario

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


def test_nothing_personal_is_left_unencrypted(
    scenario: Scenario,
    clock: Any,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    AlertRule.objects.update(recipients="ops@example.com", minimum_count=1, share_percent=1)
    said: list[str] = []
    for fault in FAULTS:
        scenario.fault(count=1, **fault)
    for number, outcome in enumerate(("pass", "fail", "pass", "giveup")):
        request = StartRequest(
            plan_id="25001",
            reference=f"leak-{number}",
            identity=Identity.checked(NAME, NUMBER, 0),
            consent=Consent("c-1"),
            idempotency_key=f"key-{number}",
        )
        for _ in range(4):
            try:
                session = start_session(request)
                break
            except (FaceprintError, FaceprintConfigurationError) as error:
                said += traceback.format_exception(error)
                said.append(repr(error) + repr(error.error))
        scenario.finish(session, outcome)
        record_return(session)
        tasks.notify_worker(session)
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
    for name in ("faceprint_status", "faceprint_doctor"):
        with suppress(SystemExit, CommandError):
            call_command(name, json=True)
    output = capsys.readouterr()
    assert '"public_url"' in output.out
    places = {
        "logs": caplog.text,
        "exceptions": "".join(said),
        "output": output.out + output.err,
        "mails": "".join(str(message.message()) + message.body for message in mail.outbox),
        "messages": "".join(broker_messages()),
        "pages": "".join(masked_pages()),
        "headers": "".join(headers_of_files()),
        "cache": repr(getattr(cache, "_cache", {})),
        "rows": "".join(repr(list(model.objects.values())) for model in all_models()),
    }
    assert places["exceptions"]
    assert places["messages"]
    # The record is on the pages, masked.
    assert "440***********5331" in places["pages"]
    for place, text in places.items():
        for secret in secrets:
            assert secret not in text, place
    for path in files_at_rest():
        content = path.read_bytes()
        for secret in secrets:
            for form in (secret.encode(), base64.b64encode(secret.encode()).rstrip(b"=")[:-1]):
                assert form not in content, path.name


def onlooker() -> Client:
    """A user with all permissions but that to reveal identities."""
    user = get_user_model().objects.create_user(get_random_string(8), "", "x", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="faceprint").exclude(codename="reveal_identity")
    )
    browser = Client()
    browser.force_login(user)
    return browser


def masked_pages() -> Iterator[str]:
    """Every page and answer without a reveal, in both languages. Only the person gets an H5 URL."""
    browser = onlooker()
    pages = [*admin_pages(), *api_addresses(), *return_pages()]
    assert len(pages) > 40
    for language in ("zh-hans", "en"):
        for page in pages:
            answer = browser.get(page, headers={"accept-language": language})
            assert answer.status_code == 200, page
            text = answer.content.decode()
            assert "faceprint/print" not in text
            yield f"{page} {answer.headers} {text}"


def headers_of_files() -> Iterator[str]:
    """The URLs and headers of pictures and videos."""
    browser = onlooker()
    for address in file_addresses():
        answer = browser.get(address)
        assert answer.status_code == 200
        answer.close()
        yield f"{address} {answer.headers}"


def broker_messages() -> list[str]:
    """The messages in the broker, as a worker would get them."""
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
