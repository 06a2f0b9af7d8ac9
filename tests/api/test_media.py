"""Pictures and videos over the API: who may, in which parts, and that each look is known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import storages
from rest_framework.test import APIClient

from django_faceprint.models import AccessLog, MediaAsset, Plan
from tests.factories import make_asset, make_passed_session
from tests.scenario import Scenario

from .conftest import ROOT, finish, row

WORDS = {
    "id", "kind", "position", "attempt", "state", "reason", "reason_text", "content_type", "size", "sha256",
    "width", "height", "duration", "archived_at", "deadline", "url",
}  # fmt: skip


@pytest.fixture
def passed(start: Callable[..., dict[str, Any]], scenario: Scenario) -> dict[str, Any]:
    session = start()
    finish(scenario, session)
    return session


def media(client: APIClient, session: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.get(f"{ROOT}sessions/{session['id']}/media/")
    assert answer.status_code == 200
    return list(answer.json())


def test_a_file_not_kept_by_rule_has_a_reason_and_its_text(
    api: APIClient, start: Callable[..., dict[str, Any]], scenario: Scenario
) -> None:
    session = start()
    Plan.objects.update(retention={"face": 0})
    finish(scenario, session)
    (face,) = (item for item in media(api, session) if item["kind"] == "face")
    assert (face["state"], face["reason"], face["url"]) == ("not_provided", "not_kept", None)
    answer = api.get(f"{ROOT}sessions/{session['id']}/media/", headers={"Accept-Language": "zh-hans"})
    assert "按规则不保存" in {item["reason_text"] for item in answer.json()}
    assert api.get(f"{ROOT}sessions/{session['id']}/").json()["archive_state"] == "complete"


def body(answer: Any) -> bytes:
    return b"".join(answer.streaming_content)


def test_every_file_is_listed_and_comes_as_it_was_made(
    api: APIClient, passed: dict[str, Any], scenario: Scenario
) -> None:
    listed = media(api, passed)
    assert all(set(item) >= WORDS for item in listed)
    made = {item["sha256"] for item in scenario.ledger(row(passed))["assets"] if item["available_from"]}
    assert {item["sha256"] for item in listed if item["state"] == "stored"} == made
    for item in listed:
        answer = api.get(item["url"])
        content = body(answer)
        assert (answer.status_code, answer["Content-Type"]) == (200, item["content_type"])
        assert len(content) == item["size"]
        assert hashlib.sha256(content).hexdigest() == item["sha256"]
        assert "no-store" in answer["Cache-Control"]
    looks = AccessLog.objects.filter(action="view_media", channel="api")
    assert {str(look.asset_id) for look in looks} == {item["id"] for item in listed}


def test_a_part_of_a_video(api: APIClient, passed: dict[str, Any]) -> None:
    video = next(item for item in media(api, passed) if item["kind"] == "process_video")
    whole = body(api.get(video["url"]))
    answer = api.get(video["url"], headers={"Range": "bytes=70000-70009"})
    assert (answer.status_code, body(answer)) == (206, whole[70000:70010])
    assert answer["Content-Range"] == f"bytes 70000-70009/{len(whole)}"
    beyond = api.get(video["url"], headers={"Range": f"bytes={len(whole)}-"})
    assert (beyond.status_code, beyond["Content-Type"]) == (416, "application/problem+json")
    assert beyond["Content-Range"] == f"bytes */{len(whole)}"
    assert beyond.json()["code"] == "range_not_satisfiable"
    other = api.get(video["url"], headers={"If-Match": '"another"'})
    assert (other.status_code, other.json()["code"]) == (412, "precondition_failed")
    head = api.head(video["url"])
    assert (head.status_code, head["Content-Length"]) == (200, str(len(whole)))
    assert body(api.get(video["url"], headers={"Accept": "video/mp4"})) == whole


@pytest.mark.parametrize(
    ("permissions", "listed", "status"),
    [
        ((), None, 404),
        (("view_media",), None, 404),
        (("view_all_sessions",), False, 403),
        (("view_all_sessions", "view_media"), True, 200),
    ],
)
def test_reading_a_file_needs_its_permissions(
    api: APIClient,
    caller: Callable[..., APIClient],
    passed: dict[str, Any],
    permissions: tuple[str, ...],
    listed: bool | None,
    status: int,
) -> None:
    url = media(api, passed)[0]["url"]
    other = caller("other", *permissions)
    answer = other.get(url)
    assert answer.status_code == status
    assert AccessLog.objects.filter(action="view_media").count() == (1 if status == 200 else 0)
    if listed is None:
        assert other.get(f"{ROOT}sessions/{passed['id']}/media/").status_code == 404
    else:
        assert bool(media(other, passed)[0]["url"]) is listed
    if status == 200:
        body(answer)


def test_a_missing_file_has_a_reason_and_no_url(api: APIClient) -> None:
    owner = api.get(f"{ROOT}sessions/").wsgi_request.user
    session = make_passed_session(created_by=owner)
    gone = make_asset(session, "video", state=MediaAsset.State.NOT_PROVIDED, reason="recording_off")
    (item,) = media(api, {"id": session.public_id})
    assert (item["state"], item["reason"], item["url"]) == ("not_provided", "recording_off", None)
    for name in (gone.public_id, "no-id", session.public_id):
        assert api.get(f"{ROOT}media/{name}/content/").json()["code"] == "not_found"


def test_a_damaged_file_gives_502_and_a_missing_one_503(api: APIClient, passed: dict[str, Any]) -> None:
    first, second, *_ = media(api, passed)
    damaged = MediaAsset.objects.get(public_id=first["id"])
    path = Path(storages["faceprint"].path(damaged.stored_name))
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    storages["faceprint"].delete(MediaAsset.objects.get(public_id=second["id"]).stored_name)
    for item, status, code in ((first, 502, "unreadable"), (second, 503, "storage")):
        answer = api.get(item["url"])
        assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
        assert (answer.json()["code"], answer.json()["session"]) == (code, passed["id"])
