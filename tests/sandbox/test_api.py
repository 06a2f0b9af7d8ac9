"""The nine interfaces: envelopes, results, errors, binding, and every validity period."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import pytest
import requests
from PIL import Image

from django_faceprint.sandbox.server import SandboxServer

from .conftest import NAME, NUMBER, Caller, jpeg_base64

RESULTS = ("result/simple", "result/detail", "result/stat", "result/media/query", "result/getall")
PLANS = ("25001", "25002", "25003", "25004", "25005", "25006", "25007")
GONE = "Token无效或者已过期"


# -- OAuth


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_oauth_gives_a_token_by_get_and_post(
    server: SandboxServer, http: requests.Session, method: str
) -> None:
    parameters = {
        "grant_type": "client_credentials",
        "client_id": "sandbox-api-key",
        "client_secret": "sandbox-secret-key",
    }
    answer = http.request(method, f"{server.url}/oauth/2.0/token", params=parameters, timeout=10)
    data = answer.json()
    assert answer.status_code == 200
    assert re.fullmatch(r"24\.[0-9a-f]{32}\.2592000\.\d+\.\d+-\d+", data["access_token"])
    assert data["expires_in"] == 2592000
    assert "brain_all_scope" in data["scope"].split()
    assert {"refresh_token", "session_key", "session_secret"} <= set(data)


@pytest.mark.parametrize(
    ("changes", "error", "description"),
    [
        ({"client_id": "x"}, "invalid_client", "unknown client id"),
        ({"client_secret": "x"}, "invalid_client", "Client authentication failed"),
        ({"client_id": ""}, "invalid_request", "Missing required parameter: client_id"),
        ({"grant_type": "password"}, "unsupported_grant_type", None),
    ],
)
def test_oauth_refuses_with_401_and_its_own_envelope(
    server: SandboxServer,
    http: requests.Session,
    changes: dict[str, str],
    error: str,
    description: str | None,
) -> None:
    parameters = {
        "grant_type": "client_credentials",
        "client_id": "sandbox-api-key",
        "client_secret": "sandbox-secret-key",
    }
    answer = http.post(f"{server.url}/oauth/2.0/token", params=parameters | changes, timeout=10)
    assert answer.status_code == 401
    assert answer.content.endswith(b"\n")
    data = answer.json()
    assert set(data) == {"error", "error_description"}
    assert data["error"] == error
    assert description is None or data["error_description"] == description


def test_a_new_access_token_leaves_the_older_valid(caller: Caller) -> None:
    first = caller.token
    second = caller.access_token()
    assert first != second
    for token in (first, second):
        assert caller.call("verifyToken/generate", plan_id=25001, token=token)["success"] is True


def test_access_token_ends_after_thirty_days(caller: Caller) -> None:
    caller.advance(days=30, seconds=-1)
    assert caller.call("verifyToken/generate", plan_id=25001)["success"] is True
    caller.advance(seconds=1)
    assert caller.call("verifyToken/generate", plan_id=25001) == {
        "error_code": 111,
        "error_msg": "Access token expired",
    }


def test_missing_and_invalid_access_tokens_are_gateway_errors(caller: Caller) -> None:
    assert caller.call("result/detail", token="", verify_token="x") == {
        "error_code": 100,
        "error_msg": "Invalid parameter",
    }
    unknown = caller.call("result/detail", token="24.00.1.1.1-1", verify_token="x")
    assert unknown == {"error_code": 110, "error_msg": "Access token invalid or no longer valid"}
    caller.control("POST", "revoke")
    assert caller.error("verifyToken/generate", plan_id=25001) == 110


def test_generate_takes_the_access_token_from_the_body_too(caller: Caller) -> None:
    payload = caller.call("verifyToken/generate", token="", access_token=caller.token, plan_id=25001)
    assert payload["success"] is True


def test_other_methods_and_paths_are_refused_by_the_gateway(caller: Caller) -> None:
    assert caller.call("no/such/method")["error_code"] == 3
    path = f"{caller.url}/rpc/2.0/brain/solution/faceprint/result/detail"
    assert caller.get(f"{path}?access_token={caller.token}").json()["error_code"] == 3
    assert caller.get(f"{caller.url}/elsewhere").status_code == 404


# -- generate


@pytest.mark.parametrize("plan", PLANS)
def test_generate_accepts_a_plan_id_as_number_and_as_text(caller: Caller, plan: str) -> None:
    tokens = {caller.generate(plan), caller.generate(int(plan))}
    assert len(tokens) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9]{24}", token) for token in tokens)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({}, 216100),
        ({"plan_id": True}, 216100),
        ({"plan_id": None}, 216100),
        ({"plan_id": 1.5}, 216100),
        ({"plan_id": 99999}, 283435),
        ({"plan_id": 15001}, 283400),
        ({"plan_id": 25001, "redirect_config": "x"}, 216100),
        ({"plan_id": 25001, "redirect_config": {"success_url": "javascript:alert(1)"}}, 216100),
        ({"plan_id": 25001, "redirect_config": {"failed_url": "http://a.example/\r\nX: y"}}, 216100),
        ({"plan_id": 25001, "redirect_config": {"failed_url": "http://a.example/\ud800"}}, 216100),
        ({"plan_id": 25001, "redirect_config": {"success_url": 5}}, 216100),
    ],
)
def test_generate_refuses_invalid_requests(caller: Caller, data: dict[str, Any], code: int) -> None:
    assert caller.error("verifyToken/generate", **data) == code


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"plan_id=25001", b"[" * 100_000, b"\xff\xfe"])
def test_a_body_that_is_not_a_json_object_is_refused(caller: Caller, body: bytes) -> None:
    url = f"{caller.url}/rpc/2.0/brain/solution/faceprint/verifyToken/generate"
    answer = caller.http.post(url, params={"access_token": caller.token}, data=body, timeout=10)
    payload = answer.json()
    assert (answer.status_code, payload["code"], payload["message"]) == (200, 283513, "请求参数错误")


def test_a_plan_of_another_account_is_a_configuration_error(caller: Caller) -> None:
    foreign = caller.access_token("sandbox-foreign")
    payload = caller.call("verifyToken/generate", plan_id=25001, token=foreign)
    assert (payload["code"], payload["message"]) == (283400, "服务异常,请稍后再试")


# -- preparation


def test_submit_answers_one_and_the_last_submission_wins(caller: Caller) -> None:
    verify_token = caller.generate(25001)
    for name in ("李四", NAME):
        assert caller.result("idcard/submit", verify_token=verify_token, id_name=name, id_no=NUMBER) == 1
    caller.go_through(verify_token)
    detail = caller.result("result/detail", verify_token=verify_token)
    assert detail["idcard_confirm"] == {"name": NAME, "idcard_number": NUMBER}


@pytest.mark.parametrize(
    ("plan", "data", "code"),
    [
        (25001, {"id_name": "", "id_no": NUMBER}, 216100),
        (25001, {"id_name": NAME}, 216100),
        (25001, {"id_name": NAME, "id_no": 1}, 216100),
        (25001, {"id_name": NAME, "id_no": NUMBER, "certificate_type": 1}, 216100),
        (25006, {"id_name": NAME, "id_no": "C12345678", "certificate_type": 5}, 216100),
        (25006, {"id_name": NAME, "id_no": "C12345678", "certificate_type": True}, 216100),
    ],
)
def test_submit_refuses_invalid_identities(
    caller: Caller, plan: int, data: dict[str, Any], code: int
) -> None:
    assert caller.error("idcard/submit", verify_token=caller.generate(plan), **data) == code


def test_other_certificates_need_the_plan_option(caller: Caller) -> None:
    verify_token = caller.generate(25006)
    data = {
        "verify_token": verify_token,
        "id_name": "CHAN TAI MAN",
        "id_no": "H1234567800",
        "certificate_type": 1,
    }
    assert caller.result("idcard/submit", **data) == 1
    caller.go_through(verify_token)
    confirmed = caller.result("result/getall", verify_token=verify_token)["verify_result"][0][
        "idcard_confirm"
    ]
    assert confirmed["idcard_type"] == "1"
    assert caller.error("idcard/submit", **data)


def test_strict_id_numbers_are_a_switch(caller: Caller) -> None:
    verify_token = caller.generate(25001)
    data = {"verify_token": verify_token, "id_name": NAME, "id_no": "123"}
    assert caller.result("idcard/submit", **data) == 1
    caller.control("PUT", "switches", {"strict_idcard": True})
    assert caller.error("idcard/submit", **data) == 222022


def test_names_that_are_half_a_surrogate_pair_do_not_break_the_answer(caller: Caller) -> None:
    verify_token = caller.generate(25001)
    caller.result("idcard/submit", verify_token=verify_token, id_name="\ud800", id_no=NUMBER)
    caller.go_through(verify_token)
    assert caller.result("result/detail", verify_token=verify_token)["idcard_confirm"]["name"] == "\ud800"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_match_image_answers_null(caller: Caller, kind: str) -> None:
    data = {"verify_token": caller.generate(25004), "image": jpeg_base64(kind=kind)}
    payload = caller.call("uploadMatchImage", quality_control="LOW", liveness_control="HIGH", **data)
    assert payload["success"] is True
    assert payload["result"] is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({}, 222001),
        ({"image": ""}, 222001),
        ({"image": "data:image/jpeg;base64,AAAA"}, 222203),
        ({"image": base64.b64encode(b"no picture").decode()}, 222203),
        ({"image": jpeg_base64(kind="GIF")}, 222203),
        ({"image": jpeg_base64()[:400]}, 222203),
        ({"image": jpeg_base64((1921, 100))}, 222304),
        ({"image": jpeg_base64((1100, 1200))}, 222304),
        ({"image": "A" * (10 * 1024 * 1024 + 4)}, 222304),
        ({"image": jpeg_base64(), "quality_control": "low"}, 222019),
        ({"image": jpeg_base64(), "liveness_control": 1}, 222020),
    ],
)
def test_match_image_refuses_invalid_images(caller: Caller, data: dict[str, Any], code: int) -> None:
    assert caller.error("uploadMatchImage", verify_token=caller.generate(25004), **data) == code


# -- results


def test_before_the_page_every_result_is_not_started(caller: Caller) -> None:
    verify_token = caller.prepared(25001)
    for opened in (False, True):
        if opened:
            caller.page(verify_token)
        for path in RESULTS:
            payload = caller.call(path, verify_token=verify_token)
            assert (payload["code"], payload["message"]) == (283450, "认证尚未开始")
    caller.control("PUT", "switches", {"before_attempt": "empty"})
    assert caller.result("result/stat", verify_token=verify_token) == {}
    assert caller.result("result/getall", verify_token=verify_token)["verify_count"] == 0


@pytest.mark.parametrize("plan", PLANS)
def test_a_pass_has_all_results_of_its_plan(caller: Caller, plan: str) -> None:
    options = caller.server.sandbox.store.plans[plan]
    verify_token = caller.finished(plan)

    simple = caller.result("result/simple", verify_token=verify_token)["image"]
    assert simple == f"{caller.url}/solution/faceprint/image/query?verify_token={verify_token}"

    payload = caller.call("result/detail", verify_token=verify_token)
    detail = payload["result"]
    scores = detail["verify_result"]
    if options.match_source == "liveness_only":
        assert scores["score"] is None
    else:
        assert 80 <= scores["score"] <= 100
    assert (scores["liveness_score"] == 0) is (options.liveness == "colourful")
    assert isinstance(scores["spoofing"], float)
    assert ("is_demote" in detail) is options.realtime
    assert ("idcard_ocr_result" in detail) is options.uses_ocr
    if options.uses_ocr:
        sides = {"both": {"front_base64", "back_base64"}, "front": {"front_base64"}}[options.ocr_sides]
        assert set(detail["idcard_images"]) == sides
        assert ("expire_time" in detail["idcard_ocr_result"]) is (options.ocr_sides == "both")
        for text in detail["idcard_images"].values():
            with Image.open(io.BytesIO(base64.b64decode(text))) as card:
                card.load()
                assert card.format == "JPEG"
    if options.match_source == "authoritative":
        assert detail["idcard_confirm"] == {"name": NAME, "idcard_number": NUMBER}
    else:
        assert detail["idcard_confirm"] is None

    stat = caller.result("result/stat", verify_token=verify_token)
    assert ("OCR" in stat) is options.uses_ocr
    assert ("verify" in stat) is (options.match_source == "authoritative")
    assert all(item["error_code"] == 0 for items in stat.values() for item in items)

    media = caller.result("result/media/query", verify_token=verify_token)
    counts = {name: len(media[name] or []) for name in ("processVideo", "video", "images")}
    if not options.recording:
        assert media == {"processVideo": [], "video": [], "images": [], "extInfo": None}
    elif options.realtime:
        assert counts == {"processVideo": 1, "video": 0, "images": 4}
    else:
        assert counts == {"processVideo": 0, "video": 1, "images": 0}

    result = caller.result("result/getall", verify_token=verify_token)
    (attempt,) = result["verify_result"]
    charges = {"authoritative": "verify", "own_library": "match", "liveness_only": "live"}
    charge = charges[options.match_source]
    assert result["verify_count"] == 1
    assert result[f"{charge}_charge_count"] == 1
    assert (attempt["order"], attempt["code"], attempt["is_verify_passed"]) == (1, "0", True)
    assert (attempt["message"], attempt["charge_type"]) == ("核验成功", charge)
    assert attempt["verify_time"] == "2026-03-02 16:20:00"
    assert attempt["verify_detail"]["threshold"] == 80.0
    assert attempt["verify_detail"]["verify_log_id"].isdigit()
    assert (attempt["verify_detail"]["risk_level"] is not None) is options.risk_control
    assert caller.get(attempt["verify_detail"]["face_image"]).status_code == 200


def test_a_failure_that_closes_answers_its_code_and_stays_closed(caller: Caller) -> None:
    verify_token = caller.finished(25001, "fail", code="222351")
    for path in ("result/simple", "result/detail"):
        payload = caller.call(path, verify_token=verify_token)
        assert (payload["code"], payload["message"]) == (222351, "身份证姓名不匹配")
    assert GONE in caller.page(verify_token).text
    result = caller.result("result/getall", verify_token=verify_token)
    (attempt,) = result["verify_result"]
    assert (attempt["code"], attempt["is_verify_passed"], attempt["is_charged"]) == ("222351", False, False)
    assert attempt["verify_detail"]["score"] is None
    assert caller.result("result/stat", verify_token=verify_token)["verify"] == [
        {"error_code": 222351, "count": 1}
    ]
    assert caller.ledger(verify_token)["state"] == "failed"


def test_a_failure_can_leave_the_page_open_for_more_attempts(caller: Caller) -> None:
    verify_token = caller.finished(25002, "fail", code="223120")
    assert caller.ledger(verify_token)["state"] == "failed_open"
    assert caller.error("result/detail", verify_token=verify_token) == 223120
    caller.control("PUT", "switches", {"between_attempts": "not_started"})
    assert caller.error("result/detail", verify_token=verify_token) == 283450

    caller.advance(minutes=5)
    caller.go_through(verify_token, "fail", code="low_score")
    caller.advance(minutes=5)
    caller.go_through(verify_token, "pass")
    result = caller.result("result/getall", verify_token=verify_token)
    attempts = result["verify_result"]
    assert [(a["order"], a["code"]) for a in attempts] == [(1, "223120"), (2, "900002"), (3, "0")]
    assert [a["verify_time"][11:] for a in attempts] == ["16:20:00", "16:25:00", "16:30:00"]
    assert attempts[1]["verify_detail"]["score"] < 80 <= attempts[2]["verify_detail"]["score"]
    assert (result["verify_count"], result["verify_charge_count"]) == (3, 2)
    assert len({a["verify_detail"]["face_image"] for a in attempts}) == 3
    assert caller.ledger(verify_token)["state"] == "passed"
    assert GONE in caller.page(verify_token).text


def test_demotion_needs_the_plan_s_permission(caller: Caller) -> None:
    allowed = caller.finished(25006, "pass", demote="1")
    assert caller.result("result/detail", verify_token=allowed)["is_demote"] is True
    media = caller.result("result/media/query", verify_token=allowed)
    assert (media["processVideo"], media["images"], len(media["video"])) == (None, None, 1)

    refused = caller.finished(25001, "pass", demote="1")
    (attempt,) = caller.result("result/getall", verify_token=refused)["verify_result"]
    assert (attempt["is_verify_passed"], attempt["verify_detail"]["verify_log_id"]) == (False, "")
    assert attempt["verify_detail"]["face_image"] is None
    assert caller.result("result/media/query", verify_token=refused)["processVideo"] == []


# -- binding


@pytest.mark.parametrize("path", [*RESULTS, "idcard/submit", "uploadMatchImage"])
def test_a_verify_token_belongs_to_its_application(caller: Caller, path: str) -> None:
    verify_token = caller.finished(25001) if path in RESULTS else caller.generate(25001)
    data = {"verify_token": verify_token, "id_name": NAME, "id_no": NUMBER, "image": jpeg_base64()}
    same_app = caller.access_token()
    assert caller.call(path, token=same_app, **data)["success"] is True
    other = caller.call(path, token=caller.access_token("sandbox-other"), **data)
    unknown = caller.call(path, **{**data, "verify_token": "x" * 24})
    for payload in (other, unknown):
        assert (payload["success"], payload["message"], payload["code"]) == (False, GONE, 900001)
    assert caller.error(path, **{**data, "verify_token": 5}) == 216100


# -- periods


def test_the_page_closes_after_two_hours(caller: Caller) -> None:
    verify_token = caller.prepared(25001)
    caller.advance(hours=2, seconds=-1)
    assert GONE not in caller.page(verify_token).text
    caller.advance(seconds=1)
    assert GONE in caller.page(verify_token).text
    assert GONE in caller.step("finish", verify_token, outcome="pass").text
    assert caller.error("idcard/submit", verify_token=verify_token, id_name=NAME, id_no=NUMBER) == 900001
    assert caller.ledger(verify_token)["state"] == "expired"
    assert caller.error("result/detail", verify_token=verify_token) == 283450
    caller.control("PUT", "switches", {"expired_unused": "gone"})
    assert caller.error("result/detail", verify_token=verify_token) == 900001


def test_results_end_three_days_after_the_last_attempt(caller: Caller) -> None:
    verify_token = caller.prepared(25001)
    caller.advance(hours=1)
    caller.go_through(verify_token)
    caller.advance(days=3, seconds=-1)
    caller.token = caller.access_token()
    for path in RESULTS:
        assert caller.call(path, verify_token=verify_token)["success"] is True
    caller.advance(seconds=1)
    for path in RESULTS:
        payload = caller.call(path, verify_token=verify_token)
        assert (payload["message"], payload["code"]) == (GONE, 900001)
    assert caller.ledger(verify_token)["state"] == "purged"


def test_an_unused_token_is_purged_too(caller: Caller) -> None:
    verify_token = caller.prepared(25001)
    caller.advance(days=3, hours=2)
    assert caller.error("result/detail", verify_token=verify_token) == 900001


def test_media_end_after_a_day(caller: Caller) -> None:
    verify_token = caller.finished(25001)
    caller.advance(days=1, seconds=-1)
    urls = caller.result("result/media/query", verify_token=verify_token)["processVideo"]
    assert caller.get(urls[0]).status_code == 200
    caller.advance(seconds=1)
    assert caller.get(urls[0]).status_code == 404
    assert caller.result("result/media/query", verify_token=verify_token)["processVideo"] == []


# -- switches


def test_the_envelope_of_service_errors_can_be_switched(caller: Caller) -> None:
    caller.control("PUT", "switches", {"error_envelope": "documented"})
    payload = caller.call("result/detail", verify_token="x")
    assert set(payload) == {"error_code", "error_msg", "log_id"}
    assert (payload["error_code"], payload["error_msg"]) == (900001, GONE)
    caller.control("PUT", "switches", {"error_envelope": "mixed"})
    assert set(caller.call("result/detail", verify_token="x")) == {
        "success",
        "error_code",
        "error_msg",
        "log_id",
    }
    caller.control("PUT", "switches", {"error_envelope": "service", "token_gone_code": None})
    assert set(caller.call("result/detail", verify_token="x")) == {"success", "result", "message", "log_id"}
    caller.control("PUT", "switches", {"token_gone_code": 283501})
    assert caller.error("result/detail", verify_token="x") == 283501


def test_variants_of_the_documents_can_be_switched(caller: Caller) -> None:
    verify_token = caller.finished(25003)
    changes = {
        "demote_place": "top",
        "getall_ocr_place": "sibling",
        "stat_keys": "chinese",
        "unpadded_verify_time": True,
        "log_id_number": True,
        "both_video_fields": True,
    }
    caller.control("PUT", "switches", changes)
    detail = caller.call("result/detail", verify_token=verify_token)
    assert detail["is_demote"] is False
    assert isinstance(detail["log_id"], int)
    attempt = caller.call("result/getall", verify_token=verify_token)["result"]["verify_result"][0]
    assert attempt["verify_time"] == "2026-3-2 16:20:00"
    assert attempt["idcard_images"]["front_base64"]
    assert set(attempt["idcard_confirm"]) == {"name", "idcard_number", "idcard_type"}
    assert "身份证识别" in caller.call("result/stat", verify_token=verify_token)["result"]
    media = caller.call("result/media/query", verify_token=verify_token)["result"]
    assert media["video"] == media["processVideo"]
    caller.control("PUT", "switches", {"demote_place": "verify_result", "getall_available": False})
    assert (
        caller.call("result/detail", verify_token=verify_token)["result"]["verify_result"]["is_demote"]
        is False
    )
    assert caller.call("result/getall", verify_token=verify_token)["error_code"] == 3


def test_log_ids_are_decimal_text_and_some_exceed_doubles(caller: Caller) -> None:
    log_ids = [caller.call("result/detail", verify_token="x")["log_id"] for _ in range(40)]
    assert all(isinstance(text, str) and 10 <= len(text) <= 19 and text.isdigit() for text in log_ids)
    assert any(int(text) > 2**53 for text in log_ids)
    assert len(set(log_ids)) == len(log_ids)
