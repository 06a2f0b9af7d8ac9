"""Withdrawal and erasure through the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from django_faceprint.models import AccessLog, Erasure
from tests.factories import NUMBER
from tests.scenario import Scenario

from .conftest import IDENTITY, ROOT, finish, row


@pytest.fixture
def passed(start: Callable[..., dict[str, Any]], scenario: Scenario) -> dict[str, Any]:
    session = start()
    finish(scenario, session)
    return session


def test_the_creator_may_withdraw_the_consent(api: APIClient, passed: dict[str, Any]) -> None:
    address = f"{ROOT}sessions/{passed['id']}/"
    media = api.get(f"{address}media/").json()
    contents = [item["url"] for item in media if item["url"]]
    assert contents
    answer = api.post(f"{address}withdraw/", {})
    assert answer.status_code == 200
    told = answer.json()
    assert told["sessions"] == [passed["id"]]
    assert told["files"] == len(contents)
    assert told["storage_verified_at"]
    session = api.get(address).json()
    assert session["erased_at"]
    assert session["identity"] is None
    assert session["consent"]["withdrawn_at"]
    assert session["verdict"] == "passed"
    assert {item["state"] for item in api.get(f"{address}media/").json()} <= {"erased", "not_provided"}
    for url in contents:
        assert api.get(url).status_code == 404
    for part, body in (("refresh/", {}), ("identity/", IDENTITY)):
        refused = api.post(address + part, body)
        assert (refused.status_code, refused.json()["code"]) == (410, "erased")
    actions = AccessLog.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions)[-2:] == ["withdraw", "erase"]


def test_a_pending_session_is_over_after_a_withdrawal(
    api: APIClient, start: Callable[..., dict[str, Any]], scenario: Scenario
) -> None:
    session = start()
    address = f"{ROOT}sessions/{session['id']}/"
    assert api.post(f"{address}withdraw/", {"reason": "changed their mind"}).status_code == 200
    told = api.get(address).json()
    assert (told["verdict"], told["h5_url"]) == ("unknown", None)
    calls = len(scenario.control("GET", "ledger")["sessions"])
    scenario.work()
    assert len(scenario.control("GET", "ledger")["sessions"]) == calls


def test_erasing_needs_its_permission_and_a_reason(
    api: APIClient, caller: Callable[..., APIClient], passed: dict[str, Any]
) -> None:
    address = f"{ROOT}sessions/{passed['id']}/erase/"
    assert api.post(address, {"reason": "request"}).status_code == 403
    officer = caller("officer", "view_all_sessions", "erase_person")
    refused = officer.post(address, {})
    assert (refused.status_code, refused.json()["field"], refused.json()["code"]) == (
        400,
        "reason",
        "required",
    )
    assert officer.post(address, {"reason": "x", "force": True}).status_code == 400
    assert not Erasure.objects.exists()
    answer = officer.post(address, {"reason": "request 4711"})
    assert answer.status_code == 200
    assert answer.json()["reason"] == "request 4711"
    assert answer.json()["erased_by"] == "officer"
    assert row(passed).erased_at is not None
    assert NUMBER not in answer.content.decode()


def test_only_visible_sessions_can_be_erased(
    caller: Callable[..., APIClient], passed: dict[str, Any]
) -> None:
    officer = caller("officer", "erase_person")
    assert officer.post(f"{ROOT}sessions/{passed['id']}/erase/", {"reason": "x"}).status_code == 404
    assert row(passed).erased_at is None


def test_a_file_that_storage_keeps_gives_202(
    api: APIClient, passed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.core.files.storage import FileSystemStorage

    def refuse(*args: Any) -> None:
        raise OSError("disk")

    monkeypatch.setattr(FileSystemStorage, "delete", refuse)
    answer = api.post(f"{ROOT}sessions/{passed['id']}/withdraw/", {})
    assert (answer.status_code, answer.json()["storage_verified_at"]) == (202, None)
