"""Every refusal and failure: one shape, a clear code, no values of the caller's, nothing in the logs."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.storage import Storage
from rest_framework.exceptions import APIException, AuthenticationFailed
from rest_framework.test import APIClient

from django_faceprint.api import problems, views
from django_faceprint.client import MESSAGES
from django_faceprint.exceptions import InvalidInput
from django_faceprint.models import VerificationSession
from tests.factories import NUMBER, image_bytes
from tests.scenario import Scenario

from .conftest import IDENTITY, NAME, ROOT, row

SESSIONS = f"{ROOT}sessions/"


def check_problem(answer: Any, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    """The shape of RFC 9457 and ours; gives the problem."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert "no-store" in answer["Cache-Control"]
    problem: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code", "field"} <= set(problem)
    assert (problem["status"], problem["code"], problem["field"]) == (status, code, field)
    assert problem["detail"]
    for secret in (NAME, NUMBER, "李四", "13800138000", "evil"):
        assert secret not in answer.content.decode()
    return problem


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"plan": None}, "plan", "required"),
        ({"plan": "99999"}, "plan", "unknown_plan"),
        ({"plan": "evil"}, "plan", "plan_id"),
        ({"plan": ["25001"]}, "plan", "invalid"),
        ({"plan": "25005"}, "identity", "not_wanted_by_plan"),
        ({"subject": 1}, "subject", "unknown_field"),
        ({"identity": {**IDENTITY, "phone": "13800138000"}}, "identity.phone", "unknown_field"),
        ({NUMBER: 1}, None, "unknown_field"),
        ({"identity": "evil"}, "identity", "invalid"),
        ({"identity": {"number": NUMBER}}, "identity.name", "required"),
        ({"identity": {"name": "张三1", "number": NUMBER}}, "identity.name", "name_characters"),
        ({"identity": {"name": NAME, "number": NUMBER[:-1] + "1"}}, "identity.number", "number_checksum"),
        ({"identity": {"name": NAME, "number": "1" * 101}}, "identity.number", "max_length"),
        ({"identity": {**IDENTITY, "certificate_type": 5}}, "identity.certificate_type", "max_value"),
        ({"identity": {**IDENTITY, "certificate_type": "evil"}}, "identity.certificate_type", "invalid"),
        (
            {"identity": {"name": "李四", "number": "810000199408230021", "certificate_type": 4}},
            "identity.certificate_type",
            "mainland_only",
        ),
        ({"reference": NUMBER}, "reference", "looks_personal"),
        ({"reference": "x" * 101}, "reference", "max_length"),
        ({"reference": "\ud800"}, "reference", "surrogate_characters_not_allowed"),
        ({"purpose": "call 13800138000"}, "purpose", "looks_personal"),
        ({"return_url": "https://evil.example.com/"}, "return_url", "not_allowed"),
        ({"consent": "evil"}, "consent", "invalid"),
        ({"consent": {}}, "consent.reference", "required"),
        ({"consent": {"reference": {"a": 1}}}, "consent.reference", "invalid"),
        ({"consent": {"reference": "c", "more": 1}}, "consent.more", "unknown_field"),
        ({"consent": {"reference": "x" * 501}}, "consent.reference", "max_length"),
        (
            {"consent": {"reference": "\ud800"}},
            "consent.reference",
            "surrogate_characters_not_allowed",
        ),
        ({"consent": {"reference": "c", "separate": "yes"}}, "consent.separate", "invalid"),
        ({"consent": {"reference": "c", "separate": 1}}, "consent.separate", "invalid"),
        ({"consent": {"reference": "c", "given_at": "yesterday"}}, "consent.given_at", "invalid"),
        ({"consent": {"reference": "c", "given_at": "2026-03-02T08:00:00"}}, "consent.given_at", "naive"),
        ({"consent": {"reference": "c", "given_at": "2099-01-01T00:00:00Z"}}, "consent.given_at", "future"),
        ({"consent": {"reference": "c", "channel": NUMBER}}, "consent.channel", "looks_personal"),
        ({"consent": {"reference": "c", "channel": "x" * 101}}, "consent.channel", "max_length"),
        ({"match_image": {"image": "evil!"}}, "match_image.image", "base64"),
        ({"match_image": {"image": 7}}, "match_image.image", "base64"),
        (
            {"plan": "25004", "identity": None, "match_image": {"image": "aGVsbG8="}},
            "match_image.image",
            "image_format",
        ),
        (
            {
                "plan": "25004",
                "identity": None,
                "match_image": {"image": "aGVsbG8=", "quality_control": "evil"},
            },
            "match_image.quality_control",
            "control",
        ),
    ],
)
def test_a_refused_start_names_the_field_and_the_rule(
    api: APIClient, scenario: Scenario, changes: dict[str, Any], field: str | None, code: str
) -> None:
    body = {"plan": "25001", "identity": IDENTITY} | changes
    given = json.dumps({key: value for key, value in body.items() if value is not None})
    answer = api.generic("POST", SESSIONS, given, content_type="application/json")
    check_problem(answer, 400, code, field)
    assert VerificationSession.objects.count() == 0
    assert scenario.control("GET", "ledger")["sessions"] == []


def test_several_errors_are_listed_together(api: APIClient) -> None:
    answer = api.post(SESSIONS, {"identity": {"name": NAME}, "reference": "x" * 101})
    problem = check_problem(answer, 400, "invalid")
    assert {(item["field"], item["code"]) for item in problem["errors"]} == {
        ("plan", "required"),
        ("identity.number", "required"),
        ("reference", "max_length"),
    }


def test_consent_is_required_if_the_settings_require_it(api: APIClient, settings: Any) -> None:
    settings.FACEPRINT = {**settings.FACEPRINT, "REQUIRE_CONSENT": True}
    body: dict[str, Any] = {"plan": "25001", "identity": IDENTITY, "purpose": "account opening"}
    check_problem(api.post(SESSIONS, body), 400, "required", "consent")
    given = {
        "reference": "c-1",
        "notice_version": "3",
        "given_at": "2026-03-02T07:59:00+00:00",
        "channel": "app",
        "separate": True,
        "names_recipient": True,
        "alternative_offered": True,
    }
    check_problem(api.post(SESSIONS, body | {"consent": given, "purpose": ""}), 400, "required", "purpose")
    for name in ("notice_version", "given_at", "channel"):
        partial = {key: value for key, value in given.items() if key != name}
        check_problem(api.post(SESSIONS, body | {"consent": partial}), 400, "required", f"consent.{name}")
    for name in ("separate", "names_recipient", "alternative_offered"):
        denied = given | {name: False}
        check_problem(api.post(SESSIONS, body | {"consent": denied}), 400, "must_be_true", f"consent.{name}")
    assert not VerificationSession.objects.exists()
    answer = api.post(SESSIONS, body | {"consent": given})
    assert answer.status_code == 201
    told = answer.json()["consent"]
    assert told.pop("recorded_at")
    assert told == {key: value for key, value in given.items() if key != "reference"} | {
        "given_at": "2026-03-02T07:59:00Z",
        "withdrawn_at": None,
    }


def test_a_refused_input_has_no_other_error_behind_it(
    api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fields are renamed for the call, and the first error does not travel along."""
    errors_seen: list[BaseException] = []

    def answer(error: Exception, context: Any) -> Any:
        errors_seen.append(error)
        return problems.answer_problem(error, context)

    monkeypatch.setattr(views, "answer_problem", answer)
    identity = IDENTITY | {"number": "110105194912310021"}
    check_problem(
        api.post(SESSIONS, {"plan": "25001", "identity": identity}), 400, "number_checksum", "identity.number"
    )
    assert [(error.__cause__, error.__context__) for error in errors_seen] == [(None, None)]


def test_details_are_translated(api: APIClient, settings: Any) -> None:
    """Every rule of the services and of the client has words, and their placeholders are filled."""
    for code in (*problems.RULES, *MESSAGES):
        params = {"limit": 1, "long": 1, "short": 1}
        problem = problems.problem_of(InvalidInput("x", code, "", params))
        assert "%(" not in problem.detail
        assert problem.detail != "This is not accepted."


# --- bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b'{"plan": NaN}',
        b'{"plan": Infinity}',
        b'{"plan": 1e999}',
        b'{"plan": "25001", "plan": "25002"}',
        b'{"plan": ' + b"9" * 5000 + b"}",
        b"[" * 20_000,
        b'{"plan": "\xff"}',
        b'\xef\xbb\xbf{"plan": "25001"}',
        NUMBER.encode(),
    ],
    ids=repr,
)
def test_only_json_objects_are_accepted(api: APIClient, body: bytes) -> None:
    answer = api.generic("POST", SESSIONS, body[:30_000], content_type="application/json")
    problem = answer.json()
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert problem["code"] in ("malformed", "invalid", "required", "null")
    assert NUMBER not in answer.content.decode()


def test_too_large_bodies_are_refused(api: APIClient, start: Callable[..., dict[str, Any]]) -> None:
    session = start(identity=None)
    large = {"name": "x" * 70_000, "number": NUMBER}
    check_problem(api.post(f"{SESSIONS}{session['id']}/identity/", large), 413, "too_large")
    image = base64.b64encode(b"x" * 7_600_000).decode()
    check_problem(api.post(f"{SESSIONS}{session['id']}/match-image/", {"image": image}), 413, "too_large")
    near = base64.b64encode(b"x" * 7_520_000).decode()
    answer = api.post(f"{SESSIONS}{session['id']}/match-image/", {"image": near})
    check_problem(answer, 400, "image_size", "image")
    for length in ("9" * 18, "9" * 5000, "-1"):
        announced = api.post(SESSIONS, {"plan": "25001"}, CONTENT_LENGTH=length)
        check_problem(announced, 413, "too_large")


def test_a_body_that_lies_about_its_length_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from io import BytesIO

    from django.core.exceptions import RequestDataTooBig

    from django_faceprint.api.parsers import SMALL_BODY, InMemoryUpload, StrictJSONParser

    with pytest.raises(RequestDataTooBig):
        StrictJSONParser().parse(BytesIO(b" " * (SMALL_BODY + 1)))
    handler = InMemoryUpload()
    monkeypatch.setattr(InMemoryUpload, "limit", 10)
    handler.handle_raw_input(None, {}, 0, b"")
    with pytest.raises(RequestDataTooBig):
        handler.receive_data_chunk(b"x" * 11, 0)


def test_other_refusals_have_the_same_shape(api: APIClient, start: Callable[..., dict[str, Any]]) -> None:
    session = start(identity=None)
    check_problem(
        api.generic("POST", SESSIONS, b"<a/>", content_type="application/xml"), 415, "unsupported_media_type"
    )
    check_problem(
        api.post(f"{SESSIONS}{session['id']}/identity/", IDENTITY, format="multipart"),
        415,
        "unsupported_media_type",
    )
    refused = api.delete(f"{SESSIONS}{session['id']}/")
    check_problem(refused, 405, "method_not_allowed")
    assert "GET" in refused["Allow"]
    check_problem(api.get(f"{SESSIONS}evil/"), 404, "not_found")
    unknown = APIClient().get(SESSIONS)
    check_problem(unknown, 403, "not_authenticated")
    wrong = APIClient(headers={"Authorization": "Token evil"}).get(SESSIONS)
    check_problem(wrong, 403, "authentication_failed")
    assert api.get(SESSIONS, headers={"Accept": "text/html"}).status_code == 200


def test_a_challenge_is_given_where_the_host_authenticates_with_one(
    api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rest_framework.authentication import TokenAuthentication

    monkeypatch.setattr(views.FaceprintView, "authentication_classes", [TokenAuthentication])
    answer = APIClient().get(SESSIONS)
    check_problem(answer, 401, "not_authenticated")
    assert answer["WWW-Authenticate"] == "Token"


def test_texts_of_a_hosts_own_classes_are_not_passed_on() -> None:
    for error in (AuthenticationFailed(f"no such {NUMBER}"), APIException(f"no {NUMBER}")):
        assert NUMBER not in problems.problem_of(error).detail


def test_a_throttle_of_the_host_gives_retry_after(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from rest_framework.throttling import UserRateThrottle

    class OnePerMinute(UserRateThrottle):
        rate = "1/min"

    monkeypatch.setattr(views.FaceprintView, "throttle_classes", [OnePerMinute])
    assert api.get(SESSIONS).status_code == 200
    answer = api.get(SESSIONS)
    check_problem(answer, 429, "too_many_requests")
    assert int(answer["Retry-After"]) == answer.json()["retry_after"] <= 60


# --- upstream -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "fault", "status", "code"),
    [
        ("verify_token_generate", {"kind": "http_500"}, 503, "unreachable"),
        ("verify_token_generate", {"kind": "html"}, 503, "unreachable"),
        ("verify_token_generate", {"kind": "malformed_json"}, 503, "unreachable"),
        ("verify_token_generate", {"kind": "reset"}, 503, "unreachable"),
        ("verify_token_generate", {"kind": "gateway", "code": 18}, 503, "throttled"),
        ("verify_token_generate", {"kind": "gateway", "code": 17}, 503, "throttled"),
        ("verify_token_generate", {"kind": "gateway", "code": 6}, 503, "configuration"),
        ("verify_token_generate", {"kind": "service", "code": 283435}, 503, "configuration"),
        ("verify_token_generate", {"kind": "service", "code": 999999}, 502, "rejected"),
        ("idcard_submit", {"kind": "http_500"}, 503, "unreachable"),
        ("idcard_submit", {"kind": "service", "code": 222022, "message": NUMBER}, 422, "refused"),
        (
            "idcard_submit",
            {"kind": "service", "code": 283501, "message": "Token无效或者已过期"},
            410,
            "gone",
        ),
        ("oauth_token", {"kind": "http_500"}, 503, "unreachable"),
    ],
)
def test_a_start_that_fails_upstream_leaves_a_record_that_the_same_call_continues(
    api: APIClient,
    scenario: Scenario,
    clock: Any,
    caplog: pytest.LogCaptureFixture,
    endpoint: str,
    fault: dict[str, Any],
    status: int,
    code: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    scenario.control("POST", "revoke")
    scenario.fault(endpoint, **fault)
    body = {"plan": "25001", "identity": IDENTITY}
    answer = api.post(SESSIONS, body, HTTP_IDEMPOTENCY_KEY="order-1")
    problem = check_problem(answer, status, code)
    if status == 503 and code != "configuration":
        assert int(answer["Retry-After"]) == problem["retry_after"] > 0
    if "code" in fault:
        assert problem["upstream"]["code"] == str(fault["code"])
        assert bool(problem["upstream"]["log_id"]) == (fault["kind"] == "service")
    session = VerificationSession.objects.get()
    assert problem["session"] == str(session.public_id)
    assert session.error_class
    told = api.get(f"{SESSIONS}{session.public_id}/").json()
    assert told["error"]["class"] == session.error_class
    assert told["h5_url"] is None
    scenario.heal()
    if code == "throttled":
        # The interface pauses for everybody; until then the caller is told when to come back.
        early = check_problem(api.post(SESSIONS, body, HTTP_IDEMPOTENCY_KEY="order-1"), status, code)
        assert early["retry_after"] == 1
        clock.advance(seconds=1)
    repeated = api.post(SESSIONS, body, HTTP_IDEMPOTENCY_KEY="order-1")
    assert (repeated.status_code, repeated.json()["id"]) == (201, problem["session"])
    assert (repeated.json()["error"], bool(repeated.json()["h5_url"])) == (None, True)
    token = row(repeated.json()).verify_token
    for secret in (NAME, NUMBER, str(token), "sandbox-secret-key"):
        assert secret not in caplog.text


def test_a_start_without_a_key_is_continued_by_submitting_the_identity(
    api: APIClient, scenario: Scenario
) -> None:
    scenario.fault("verify_token_generate", "http_500", count=1)
    answer = api.post(SESSIONS, {"plan": "25001"})
    problem = check_problem(answer, 503, "unreachable")
    prepared = api.post(f"{SESSIONS}{problem['session']}/identity/", IDENTITY)
    assert prepared.status_code == 200, prepared.content
    assert prepared.json()["h5_url"]


def test_a_start_that_came_to_nothing_is_over_after_its_time(
    api: APIClient, scenario: Scenario, clock: Any
) -> None:
    scenario.fault("verify_token_generate", "http_500", count=1)
    body = {"plan": "25001", "identity": IDENTITY}
    problem = check_problem(api.post(SESSIONS, body, HTTP_IDEMPOTENCY_KEY="k"), 503, "unreachable")
    clock.advance(hours=2, seconds=1)
    scenario.work()
    again = check_problem(api.post(SESSIONS, body, HTTP_IDEMPOTENCY_KEY="k"), 409, "closed")
    assert again["session"] == problem["session"]
    assert VerificationSession.objects.get().token_answered_at is None


@pytest.mark.parametrize(("hours", "code"), [(2.01, "expired"), (3.01, "closed")])
def test_a_late_input_is_a_conflict(
    api: APIClient,
    start: Callable[..., dict[str, Any]],
    scenario: Scenario,
    clock: Any,
    hours: float,
    code: str,
) -> None:
    session = start(identity=None)
    clock.advance(hours=hours)
    scenario.work()
    answer = api.post(f"{SESSIONS}{session['id']}/identity/", IDENTITY)
    assert check_problem(answer, 409, code)["session"] == session["id"]
    assert row(session).error_class in ("", "not_started")


def test_fields_are_named_as_in_the_call(api: APIClient, start: Callable[..., dict[str, Any]]) -> None:
    session = start(identity=None)
    identity, image = f"{SESSIONS}{session['id']}/identity/", f"{SESSIONS}{session['id']}/match-image/"
    wrong = {"name": NAME, "number": NUMBER[:-1] + "1"}
    assert "session" in check_problem(api.post(identity, wrong), 400, "number_checksum", "number")
    permit = {"name": "李四", "number": "810000199408230021", "certificate_type": 4}
    check_problem(api.post(identity, permit), 400, "mainland_only", "certificate_type")
    given = {"image": base64.b64encode(image_bytes()).decode()}
    check_problem(api.post(image, given), 400, "not_wanted_by_plan", None)
    check_problem(api.post(image, {"image": "aGVsbG8="}), 400, "image_format", "image")


class BrokenStorage(Storage):
    """A storage that is away; its error carries an address."""

    def _save(self, name: str, content: Any) -> str:
        raise OSError(f"https://evil.example.com/{name}")


def test_a_failing_storage_gives_503_and_nothing_is_sent(
    api: APIClient, start: Callable[..., dict[str, Any]], settings: Any, scenario: Scenario
) -> None:
    session = start("25004", identity=None)
    settings.STORAGES = {
        **settings.STORAGES,
        "faceprint": {"BACKEND": "tests.api.test_problems.BrokenStorage"},
    }
    given = {"image": base64.b64encode(image_bytes()).decode()}
    answer = api.post(f"{SESSIONS}{session['id']}/match-image/", given)
    check_problem(answer, 503, "storage")
    assert answer["Retry-After"]
    assert row(session).assets.count() == 0
    assert "upload_match_image" not in scenario.control("GET", "ledger")["calls"]


def test_a_missing_setting_says_nothing_to_the_caller(api: APIClient, settings: Any) -> None:
    settings.FACEPRINT = {**settings.FACEPRINT, "ENCRYPTION_KEYS": []}
    answer = api.post(SESSIONS, {"plan": "25001", "identity": IDENTITY})
    assert "ENCRYPTION_KEYS" not in answer.content.decode()
    check_problem(answer, 503, "configuration")


def test_an_unexpected_error_is_logged_without_its_text(
    api: APIClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise KeyError(NUMBER)

    monkeypatch.setattr(views, "register_session", fail)
    check_problem(api.post(SESSIONS, {"plan": "25001", "identity": IDENTITY}), 500, "internal")
    assert "unexpected KeyError" in caplog.text
    assert NUMBER not in caplog.text
