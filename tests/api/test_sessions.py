"""Starting, preparing, listing and reading sessions over the API."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from django_faceprint.models import AccessLog, AccessReason, Plan, VerificationSession
from django_faceprint.privacy.keys import generate_key
from django_faceprint.verification import match_image
from tests.factories import NUMBER, image_bytes, make_asset, make_passed_session, make_plan, make_session
from tests.scenario import Scenario

from .conftest import IDENTITY, NAME, ROOT, finish, row

WORDS = {
    "id", "status", "verdict", "archive_state", "plan", "reference", "purpose", "environment", "h5_url",
    "created_at", "expires_at", "verified_at", "deadlines", "scores", "threshold", "is_demote", "error",
    "can_retry", "retry_after", "identity",
}  # fmt: skip


def picture() -> str:
    return base64.b64encode(image_bytes()).decode()


def test_one_call_starts_a_session_that_the_person_can_be_sent_to(api: APIClient, clock: Any) -> None:
    answer = api.post(
        f"{ROOT}sessions/",
        {"plan": "25001", "reference": "order-1", "purpose": "open account", "identity": IDENTITY},
    )
    session = answer.json()
    assert answer.status_code == 201
    assert answer["Location"] == f"http://testserver{ROOT}sessions/{session['id']}/"
    assert answer["Cache-Control"] == "private, no-store"
    assert set(session) >= WORDS
    assert session["h5_url"].endswith(f"token={row(session).verify_token}")
    assert (session["status"], session["verdict"], session["archive_state"]) == (
        "awaiting_user",
        "pending",
        "waiting",
    )
    assert (session["plan"], session["reference"], session["purpose"]) == ("25001", "order-1", "open account")
    assert session["environment"] == "sandbox"
    assert session["identity"] == {"name": "张*", "number": "110***********002X", "certificate_type": 0}
    assert datetime.fromisoformat(session["expires_at"]) == clock() + timedelta(hours=2)
    assert set(session["deadlines"]) == {"results", "media"}
    assert session["scores"] == {"score": None, "liveness_score": None, "spoofing": None}
    assert (session["error"], session["can_retry"], session["retry_after"]) == (None, False, 30)
    assert NAME not in answer.content.decode()
    assert NUMBER not in answer.content.decode()
    assert row(session).created_by is not None
    assert row(session).subject is None


def test_the_h5_url_is_withheld_until_the_identity_is_accepted(
    api: APIClient, start: Callable[..., dict[str, Any]]
) -> None:
    session = start(identity=None)
    assert (session["status"], session["h5_url"], session["identity"]) == ("created", None, None)
    answer = api.post(f"{ROOT}sessions/{session['id']}/identity/", IDENTITY)
    assert answer.status_code == 200
    assert answer.json()["status"] == "awaiting_user"
    assert answer.json()["h5_url"]
    assert NUMBER not in answer.content.decode()


@pytest.mark.parametrize("form", ["json", "multipart"])
def test_the_match_image_comes_as_base64_or_as_a_file(
    api: APIClient, start: Callable[..., dict[str, Any]], form: str
) -> None:
    session = start("25004", identity=None)
    assert session["h5_url"] is None
    given: Any = picture() if form == "json" else SimpleUploadedFile("me.jpg", image_bytes(), "image/jpeg")
    answer = api.post(
        f"{ROOT}sessions/{session['id']}/match-image/",
        {"image": given, "quality_control": "LOW"},
        format=form,
    )
    assert answer.status_code == 200, answer.content
    assert answer.json()["h5_url"]
    assert row(session).assets.stored().get().kind == "match_image"


def test_a_large_file_of_a_form_never_touches_the_disk(
    api: APIClient, start: Callable[..., dict[str, Any]], settings: Any, tmp_path: Any
) -> None:
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 10
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "missing")
    session = start("25004", identity=None)
    given = SimpleUploadedFile("me.jpg", image_bytes(), "image/jpeg")
    answer = api.post(f"{ROOT}sessions/{session['id']}/match-image/", {"image": given}, format="multipart")
    assert answer.status_code == 200, answer.content


def test_the_match_image_may_come_with_the_start(start: Callable[..., dict[str, Any]]) -> None:
    session = start("25004", identity=None, match_image={"image": picture()})
    assert session["h5_url"]


def test_what_was_accepted_cannot_be_replaced(
    api: APIClient, start: Callable[..., dict[str, Any]], scenario: Scenario
) -> None:
    session = start()
    address = f"{ROOT}sessions/{session['id']}/identity/"
    calls = scenario.control("GET", "ledger")["calls"]["idcard_submit"]
    assert api.post(address, IDENTITY).status_code == 200
    assert scenario.control("GET", "ledger")["calls"]["idcard_submit"] == calls
    answer = api.post(address, {"name": "李四", "number": NUMBER})
    assert (answer.status_code, answer.json()["code"]) == (409, "already_accepted")
    assert row(session).identity_name == NAME

    compared = start("25004", identity=None, match_image={"image": picture()})
    address = f"{ROOT}sessions/{compared['id']}/match-image/"
    assert api.post(address, {"image": picture()}).status_code == 200
    other = base64.b64encode(image_bytes(colour="#112233")).decode()
    assert api.post(address, {"image": other}).json()["code"] == "already_accepted"
    assert row(compared).assets.count() == 1


def test_the_number_of_refused_pictures_is_limited(
    api: APIClient, start: Callable[..., dict[str, Any]], scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(match_image, "MAX_MATCH_IMAGES", 2)
    session = start("25004", identity=None)
    address = f"{ROOT}sessions/{session['id']}/match-image/"
    scenario.fault("upload_match_image", "service", code=222202)
    pictures = [base64.b64encode(image_bytes(colour=colour)).decode() for colour in ("#111", "#222", "#333")]
    answers = [api.post(address, {"image": pictures[number]}) for number in (0, 0, 1, 2)]
    assert [answer.json()["code"] for answer in answers] == ["refused", "refused", "refused", "too_many"]
    assert answers[0].json()["upstream"]["code"] == "222202"
    assert sorted(row(session).assets.stored().values_list("position", flat=True)) == [0, 1]


def test_an_interrupted_upload_does_not_block_the_next(
    start: Callable[..., dict[str, Any]], scenario: Scenario
) -> None:
    session = start("25004", identity=None, match_image={"image": picture()})
    cut_off = make_asset(row(session), "match_image", position=1)
    finish(scenario, session)
    assert (row(session).archive_state, row(session).has_outstanding_work) == ("complete", False)
    cut_off.refresh_from_db()
    assert (cut_off.state, cut_off.reason) == ("not_provided", "upload_cut_off")


def test_the_same_key_and_body_give_the_same_session(
    api: APIClient, caller: Callable[..., APIClient]
) -> None:
    body = {"plan": "25001", "reference": "order-1", "identity": IDENTITY}
    key = {"HTTP_IDEMPOTENCY_KEY": "order-1/try-1"}
    first = api.post(f"{ROOT}sessions/", body, **key)
    again = api.post(f"{ROOT}sessions/", body, **key)
    assert first.status_code == again.status_code == 201
    assert again.json() == first.json()
    other = api.post(f"{ROOT}sessions/", body | {"reference": "order-2"}, **key)
    assert (other.status_code, other.json()["code"], other.json()["field"]) == (
        422,
        "reused",
        "Idempotency-Key",
    )
    assert "session" not in other.json()
    of_another = caller("another").post(f"{ROOT}sessions/", body, **key)
    assert of_another.status_code == 201
    assert of_another.json()["id"] != first.json()["id"]
    assert VerificationSession.objects.count() == 2


def test_a_repeated_start_is_answered_also_after_the_plan_was_switched_off(api: APIClient) -> None:
    body = {"plan": "25001", "identity": IDENTITY}
    first = api.post(f"{ROOT}sessions/", body, HTTP_IDEMPOTENCY_KEY="k")
    Plan.objects.filter(plan_id="25001").update(is_active=False)
    again = api.post(f"{ROOT}sessions/", body, HTTP_IDEMPOTENCY_KEY="k")
    assert again.json()["id"] == first.json()["id"]
    assert api.post(f"{ROOT}sessions/", body).json()["code"] == "unknown_plan"


@pytest.mark.parametrize("key", ["", "x" * 81, "with space", "schlüssel", "tab\t"])
def test_a_bad_idempotency_key_is_refused(api: APIClient, key: str) -> None:
    answer = api.post(f"{ROOT}sessions/", {"plan": "25001", "identity": IDENTITY}, HTTP_IDEMPOTENCY_KEY=key)
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key")
    assert VerificationSession.objects.count() == 0


def test_under_atomic_requests_no_transaction_is_open_and_failures_stay_recorded(
    api: APIClient, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    scenario.fault("verify_token_generate", "http_500", count=1)
    failed = api.post(f"{ROOT}sessions/", {"plan": "25001", "identity": IDENTITY})
    assert failed.status_code == 503
    session = VerificationSession.objects.get()
    assert (str(session.public_id), session.error_class) == (failed.json()["session"], "retry")
    answer = api.post(f"{ROOT}sessions/{session.public_id}/identity/", IDENTITY)
    assert answer.status_code == 200, answer.content
    assert answer.json()["h5_url"]
    assert not connection.in_atomic_block


def test_a_session_from_start_to_result(
    api: APIClient, start: Callable[..., dict[str, Any]], scenario: Scenario
) -> None:
    session = start()
    address = f"{ROOT}sessions/{session['id']}/"
    scenario.finish(row(session))
    asked = api.post(f"{address}refresh/")
    assert (asked.status_code, asked.json()["status"], asked.json()["retry_after"]) == (
        202,
        "awaiting_user",
        2,
    )
    scenario.work()
    passed = api.get(address).json()
    assert (passed["status"], passed["verdict"], passed["archive_state"]) == ("passed", "passed", "complete")
    assert (passed["h5_url"], passed["retry_after"], passed["can_retry"]) == (None, None, False)
    assert passed["scores"]["score"] > passed["threshold"]
    assert AccessLog.objects.filter(action="refresh", channel="api").count() == 1


def test_a_failed_session_has_its_error_and_can_be_retried(
    api: APIClient, start: Callable[..., dict[str, Any]], scenario: Scenario
) -> None:
    session = start()
    finish(scenario, session, "fail", code="223120")
    failed = api.get(f"{ROOT}sessions/{session['id']}/").json()
    assert (failed["status"], failed["can_retry"]) == ("failed", True)
    assert (failed["error"]["class"], failed["error"]["code"]) == ("verification_failed", "223120")
    assert failed["error"]["log_id"]


def test_an_abandoned_session_is_no_failure(
    api: APIClient, start: Callable[..., dict[str, Any]], scenario: Scenario, clock: Any
) -> None:
    session = start()
    clock.advance(hours=3, seconds=1)
    scenario.work()
    ended = api.get(f"{ROOT}sessions/{session['id']}/").json()
    assert (ended["status"], ended["verdict"], ended["can_retry"]) == ("abandoned", "expired", True)


def test_configuration_errors_are_described_to_operators_only(
    api: APIClient, settings: Any, start: Callable[..., dict[str, Any]]
) -> None:
    settings.FACEPRINT = {
        **settings.FACEPRINT,
        "APPLICATIONS": {"default": {"API_KEY": "wrong", "SECRET_KEY": "sandbox-secret-key"}},
    }
    answer = api.post(f"{ROOT}sessions/", {"plan": "25001", "identity": IDENTITY})
    assert (answer.status_code, answer.json()["code"]) == (503, "configuration")
    told = api.get(f"{ROOT}sessions/{answer.json()['session']}/").json()["error"]
    assert told["class"] == "configuration"
    assert told["message"] != row({"id": answer.json()["session"]}).error_message


# --- lists --------------------------------------------------------------------------------------


def test_a_list_shows_own_sessions_newest_first_and_no_h5_url(
    api: APIClient, start: Callable[..., dict[str, Any]], clock: Any
) -> None:
    started = []
    for number in range(3):
        started.append(start(reference=f"order-{number}")["id"])
        clock.advance(seconds=1)
    make_session()
    page = api.get(f"{ROOT}sessions/?page_size=2").json()
    assert [item["id"] for item in page["results"]] == [started[2], started[1]]
    assert page["previous"] is None
    assert all("h5_url" not in item for item in page["results"])
    assert page["results"][0]["identity"]["name"] == "张*"
    rest = api.get(page["next"]).json()
    assert [item["id"] for item in rest["results"]] == [started[0]]
    assert rest["next"] is None


def test_the_queries_of_a_list_do_not_grow_with_it(api: APIClient, transactional_db: None) -> None:
    owner = api.get(f"{ROOT}sessions/").wsgi_request.user
    make_session(created_by=owner)
    with CaptureQueriesContext(connection) as one:
        api.get(f"{ROOT}sessions/")
    for _ in range(5):
        make_passed_session(created_by=owner)
    with CaptureQueriesContext(connection) as many:
        assert len(api.get(f"{ROOT}sessions/").json()["results"]) == 6
    assert len(many) == len(one)


def test_users_with_view_all_sessions_list_all(
    caller: Callable[..., APIClient], start: Callable[..., dict[str, Any]]
) -> None:
    session = start()
    listed = caller("auditor", "view_all_sessions").get(f"{ROOT}sessions/").json()["results"]
    assert [item["id"] for item in listed] == [session["id"]]


def test_filters_find_what_the_status_says(api: APIClient, clock: Any) -> None:
    owner = api.get(f"{ROOT}sessions/").wsgi_request.user
    plan, compared = make_plan(), make_plan(match_source="match_image", identity_entry="none")
    moment = clock()
    common = {"created_by": owner, "plan": plan}
    unprepared = {"identity_accepted_at": None}
    pending = VerificationSession.Verdict.PENDING
    expired = {"verdict": VerificationSession.Verdict.EXPIRED, "decided_at": moment}
    made = {
        "created": [
            make_session(**common | unprepared),
            make_session(**common | {"plan": compared, "reference": "the one"}),
        ],
        "awaiting_user": [make_session(**common)],
        "verifying": [
            make_session(**common, returned_at=moment),
            make_session(**common, attempted_at=moment, verdict=pending),
        ],
        "passed": [make_passed_session(**common)],
        "failed": [make_session(**common, verdict="failed")],
        "abandoned": [make_session(**common, **expired)],
        "expired": [make_session(**common | unprepared, **expired)],
        "unknown": [make_session(**common, verdict="unknown")],
    }

    def found(query: str) -> set[str]:
        answer = api.get(f"{ROOT}sessions/?{query}")
        assert answer.status_code == 200, answer.content
        return {item["id"] for item in answer.json()["results"]}

    for status, rows in made.items():
        assert {item.status for item in rows} == {status}
        assert found(f"status={status}") == {str(item.public_id) for item in rows}
    assert len(found("verdict=expired")) == 2
    assert found("reference=the+one") == {str(made["created"][1].public_id)}
    assert found(f"plan={compared.plan_id}") == {str(made["created"][1].public_id)}
    assert found("archive_state=complete") == {str(made["passed"][0].public_id)}


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("status=fine", "status", "invalid_choice"),
        ("name=%E5%BC%A0", "name", "unknown_field"),
        ("page_size=0", "page_size", "min_value"),
        ("page_size=100000", "page_size", "max_value"),
        ("cursor=rubbish", "cursor", "cursor"),
        ("cursor=cD0xMTAxMDUxOTQ5MTIzMTAwMlg%3D", "cursor", "cursor"),
        ("cursor=cD0yMDI2LTAzLTAy", "cursor", "cursor"),  # a day, without a zone
        ("cursor=cD05OTk5LTEyLTMxVDIzOjU5OjU5LTE0OjAw", "cursor", "cursor"),  # after the last hour of all
        ("reference=%00", "reference", "null_characters_not_allowed"),
    ],
)
def test_bad_filters_are_refused(api: APIClient, query: str, field: str, code: str) -> None:
    answer = api.get(f"{ROOT}sessions/?{query}")
    assert (answer.status_code, answer.json()["field"], answer.json()["code"]) == (400, field, code)
    assert "11010519491231002" not in answer.content.decode()


def test_a_row_that_cannot_be_decrypted_does_not_hide_the_others(
    api: APIClient, start: Callable[..., dict[str, Any]], settings: Any
) -> None:
    started = start()
    settings.FACEPRINT = {**settings.FACEPRINT, "ENCRYPTION_KEYS": [generate_key()]}
    readable = start()
    listed = {item["id"]: item["identity"] for item in api.get(f"{ROOT}sessions/").json()["results"]}
    assert listed[started["id"]]["name"] == listed[started["id"]]["number"] == "****"
    assert listed[readable["id"]] == readable["identity"]
    assert api.get(f"{ROOT}sessions/{started['id']}/").json()["code"] == "unreadable"


# --- who may what -------------------------------------------------------------------------------

READS = ["", "result/", "stat/", "media/"]
WRITES = ["identity/", "match-image/"]


def test_foreign_sessions_do_not_exist(
    caller: Callable[..., APIClient], start: Callable[..., dict[str, Any]]
) -> None:
    address = f"{ROOT}sessions/{start()['id']}/"
    nothing = f"{ROOT}sessions/00000000-0000-7000-8000-000000000000/"
    stranger = caller("stranger", "view_media", "reveal_identity")
    for part in READS:
        foreign, missing = stranger.get(address + part), stranger.get(nothing + part)
        assert (foreign.status_code, foreign.json()) == (404, missing.json())
    for part in [*WRITES, "refresh/"]:
        foreign, missing = stranger.post(address + part, IDENTITY), stranger.post(nothing + part, IDENTITY)
        assert (foreign.status_code, foreign.json()) == (404, missing.json())
    assert stranger.get(f"{ROOT}sessions/").json()["results"] == []
    assert stranger.get(f"{ROOT}sessions/not-an-id/").status_code == 404
    assert AccessLog.objects.count() == 0


def test_seeing_all_sessions_is_not_acting_for_their_owners(
    caller: Callable[..., APIClient], start: Callable[..., dict[str, Any]]
) -> None:
    session = start(identity=None)
    address = f"{ROOT}sessions/{session['id']}/"
    auditor = caller("auditor", "view_all_sessions")
    for part in READS:
        assert auditor.get(address + part).status_code == 200
    for part in WRITES:
        answer = auditor.post(address + part, IDENTITY)
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert row(session).identity_name is None


def test_the_h5_url_is_for_the_creator_alone(
    caller: Callable[..., APIClient], start: Callable[..., dict[str, Any]]
) -> None:
    session = start()
    auditor = caller("auditor", "view_all_sessions")
    for part in ("", "result/"):
        answer = auditor.get(f"{ROOT}sessions/{session['id']}/{part}")
        assert answer.json()["h5_url"] is None
        assert row(session).verify_token not in answer.content.decode()


@pytest.mark.parametrize("settings_classes", [None, ["rest_framework.permissions.AllowAny"]])
def test_every_view_needs_authentication(
    start: Callable[..., dict[str, Any]], settings: Any, settings_classes: list[str] | None
) -> None:
    session = start()
    if settings_classes is not None:
        settings.REST_FRAMEWORK = {
            **settings.REST_FRAMEWORK,
            "DEFAULT_PERMISSION_CLASSES": settings_classes,
        }
    nobody = APIClient()
    gets = ["sessions/", "plans/", "schema/", "docs/", f"media/{session['id']}/content/"]
    gets += [f"sessions/{session['id']}/{part}" for part in READS]
    posts = ["sessions/", *(f"sessions/{session['id']}/{part}" for part in [*WRITES, "refresh/"])]
    for answer in [nobody.get(ROOT + part) for part in gets] + [
        nobody.post(ROOT + part, IDENTITY) for part in posts
    ]:
        assert answer.status_code in (401, 403), answer.wsgi_request.path


def test_a_browser_session_needs_its_csrf_token(api: APIClient) -> None:
    user = api.get(f"{ROOT}sessions/").wsgi_request.user
    browser = APIClient(enforce_csrf_checks=True)
    browser.force_login(user)
    answer = browser.post(f"{ROOT}sessions/", {"plan": "25001", "identity": IDENTITY})
    assert answer.status_code == 403
    assert VerificationSession.objects.count() == 0


# --- results ------------------------------------------------------------------------------------


def test_a_result_is_masked_and_reading_it_is_logged(
    api: APIClient, start: Callable[..., dict[str, Any]], scenario: Scenario
) -> None:
    session = start()
    finish(scenario, session)
    answer = api.get(f"{ROOT}sessions/{session['id']}/result/")
    result = answer.json()
    assert set(result) >= WORDS | {"ocr", "confirmed", "attempts", "stat"}
    assert result["confirmed"] == {"name": "张*", "number": "110***********002X"}
    assert [item["passed"] for item in result["attempts"]] == [True]
    assert result["attempts"][0]["score"] == result["scores"]["score"]
    assert result["stat"]
    assert NAME not in answer.content.decode()
    assert NUMBER not in answer.content.decode()
    look = AccessLog.objects.get(action="view_record")
    assert (str(look.session_id), look.channel, look.actor_name) == (session["id"], "api", "owner")
    assert api.get(f"{ROOT}sessions/{session['id']}/stat/").json()["stat"] == result["stat"]


def test_ocr_is_masked_field_by_field_and_revealed_for_a_reason(
    api: APIClient, caller: Callable[..., APIClient]
) -> None:
    owner = api.get(f"{ROOT}sessions/").wsgi_request.user
    card = {
        "name": "张三丰",
        "gender": "男",
        "nation": "汉",
        "birthday": "19491231",
        "address": "浙江省杭州市西湖区文三路1号",
        "number": NUMBER,
        "issue_authority": "杭州市公安局",
        "issue_time": "20200101",
        "expire_time": "长期",
    }
    session = make_passed_session(created_by=owner, ocr=card, confirmed={"name": "张三丰", "number": NUMBER})
    address = f"{ROOT}sessions/{session.public_id}/result/"
    assert api.get(address).json()["ocr"] == {
        "name": "张**",
        "gender": "****",
        "nation": "****",
        "birthday": "****",
        "address": "浙江省****",
        "number": "110***********002X",
        "issue_authority": "****",
        "issue_time": "20200101",
        "expire_time": "长期",
    }
    reveal = f"{ROOT}sessions/{session.public_id}/reveal/"
    body = {"reason": "audit", "reason_text": "ticket 4711"}
    assert api.post(reveal, body).status_code == 403
    looked = AccessLog.objects.count()
    revealing = caller("owner", "reveal_identity")
    revealed = revealing.post(reveal, body).json()
    assert revealed["ocr"] == card
    assert revealed["confirmed"] == {"name": "张三丰", "number": NUMBER}
    assert revealed["identity"] == {"name": "张三丰", "number": NUMBER, "certificate_type": 0}
    entry = AccessLog.objects.latest("pk")
    assert (AccessLog.objects.count(), entry.action, entry.reason_code) == (looked + 1, "reveal", "audit")
    assert AccessReason.objects.get(public_id=entry.public_id).text == "ticket 4711"
    # Everywhere else it stays masked, for whoever asks.
    assert revealing.get(address).json()["ocr"]["name"] == "张**"
    assert revealing.get(f"{ROOT}sessions/{session.public_id}/").json()["identity"]["name"] == "张**"


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, "reason", "required"),
        ({"reason": ""}, "reason", "blank"),
        ({"reason": "curiosity"}, "reason", "unknown"),
        ({"reason": "other"}, "reason_text", "required"),
        ({"reason": "audit", "reason_text": "x" * 201}, "reason_text", "max_length"),
        ({"reason": "audit", "why": "x"}, "why", "unknown_field"),
    ],
)
def test_nothing_is_revealed_without_a_valid_reason(
    caller: Callable[..., APIClient], body: dict[str, str], field: str, code: str
) -> None:
    api = caller("owner", "reveal_identity")
    owner = api.get(f"{ROOT}sessions/").wsgi_request.user
    session = make_passed_session(created_by=owner)
    answer = api.post(f"{ROOT}sessions/{session.public_id}/reveal/", body)
    assert answer.status_code == 400
    assert (answer.json()["field"], answer.json()["code"]) == (field, code)
    assert NUMBER not in answer.content.decode()
    assert not AccessLog.objects.exists()


def test_plans_say_what_they_require(api: APIClient, scenario: Scenario) -> None:
    Plan.objects.filter(plan_id="25007").update(is_active=False)
    plans = {item["plan_id"]: item for item in api.get(f"{ROOT}plans/").json()}
    assert "25007" not in plans
    assert plans["25001"]["requires"] == {"identity": True, "match_image": False}
    assert plans["25004"]["requires"] == {"identity": False, "match_image": True}
