"""Faults and scripts, as the client under test would meet them."""

from __future__ import annotations

import io
import json
import socket
from typing import Any

import pytest
import requests
from PIL import Image

from .conftest import Caller


def fault(caller: Caller, **rule: Any) -> None:
    caller.control("POST", "faults", rule)


def test_a_counted_fault_ends_by_itself_and_is_in_the_ledger(caller: Caller) -> None:
    fault(caller, endpoint="verify_token_generate", kind="http_502", count=2, skip=1)
    statuses = [caller.post("verifyToken/generate", {"plan_id": 25001}).status_code for _ in range(5)]
    assert statuses == [200, 502, 502, 200, 200]
    calls = caller.control("GET", "ledger")["calls"]["verify_token_generate"]
    assert calls == {"ok": 3, "fault:http": 2}
    assert len(caller.control("GET", "ledger")["sessions"]) == 3
    assert caller.control("GET", "faults")[0]["hits"] == 2
    assert caller.control("DELETE", "faults") == []


def test_a_probable_fault_is_repeatable(caller: Caller) -> None:
    fault(caller, endpoint="*", kind="http_500", probability=0.5)
    statuses = [caller.post("result/detail", {}).status_code for _ in range(40)]
    assert 10 < statuses.count(500) < 30
    from random import Random

    chance = Random(0)
    assert statuses == [500 if chance.random() < 0.5 else 200 for _ in range(40)]


def test_a_fault_can_match_a_token_an_application_or_a_plan(caller: Caller) -> None:
    first, second = caller.finished(25001), caller.finished(25002)
    fault(caller, endpoint="*", kind="service", code=283512, match={"verify_token": first})
    assert caller.error("result/detail", verify_token=first) == 283512
    assert caller.result("result/detail", verify_token=second)
    caller.control("DELETE", "faults")
    fault(caller, endpoint="result_detail", kind="gateway", code=17, match={"plan_id": "25002"})
    assert caller.result("result/detail", verify_token=first)
    assert caller.error("result/detail", verify_token=second) == 17
    caller.control("DELETE", "faults")
    fault(
        caller,
        endpoint="verify_token_generate",
        kind="gateway",
        code=6,
        match={"app": "sandbox-other-api-key"},
    )
    assert caller.result("verifyToken/generate", plan_id=25001)
    other = caller.access_token("sandbox-other")
    assert caller.call("verifyToken/generate", token=other, plan_id=25001)["error_code"] == 6


@pytest.mark.parametrize("code", [2, 4, 6, 17, 18, 19, 100, 110, 111])
def test_gateway_faults_have_their_code_and_message(caller: Caller, code: int) -> None:
    fault(caller, endpoint="result_simple", kind="gateway", code=code)
    payload = caller.call("result/simple", verify_token="x")
    assert set(payload) == {"error_code", "error_msg"}
    assert payload["error_code"] == code
    assert payload["error_msg"] != "Unknown error"


def test_the_quota_error_of_an_unpaid_account_has_a_log_id(caller: Caller) -> None:
    fault(caller, endpoint="result_simple", kind="gateway", code=18, log_id=True)
    assert caller.call("result/simple", verify_token="x")["log_id"].isdigit()


@pytest.mark.parametrize("code", [283400, 283435, 283450, 283512, 283513, 283520, 216100, 123456])
def test_service_faults_have_their_code(caller: Caller, code: int) -> None:
    fault(caller, endpoint="result_simple", kind="service", code=code)
    assert caller.error("result/simple", verify_token="x") == code


def test_bodies_can_be_broken(caller: Caller) -> None:
    expected = {
        "html": b"<!DOCTYPE html>",
        "malformed_json": b'{"success": true',
        "nan_json": b'{"success": true',
        "deep_json": b'{"result":[[[[',
        "empty": b"",
    }
    for kind, start in expected.items():
        fault(caller, endpoint="result_detail", kind=kind, count=1)
        answer = caller.post("result/detail", {"verify_token": "x"})
        assert answer.status_code == 200
        assert answer.content.startswith(start)
        assert kind not in ("html", "malformed_json", "empty") or not is_json(answer.content)


def is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def test_oauth_and_page_can_fail_too(caller: Caller) -> None:
    fault(caller, endpoint="oauth_token", kind="http_503", count=1)
    fault(caller, endpoint="h5", kind="http_500", count=1)
    answer = caller.http.get(f"{caller.url}/oauth/2.0/token", timeout=10)
    assert answer.status_code == 503
    assert caller.page("x").status_code == 500


def test_hang_ends_without_an_answer(caller: Caller) -> None:
    fault(caller, endpoint="result_detail", kind="hang", seconds=30, count=1)
    with pytest.raises(requests.ReadTimeout):
        caller.http.post(
            f"{caller.url}/rpc/2.0/brain/solution/faceprint/result/detail", json={}, timeout=(5, 0.1)
        )
    fault(caller, endpoint="result_detail", kind="hang", seconds=0, count=1)
    with pytest.raises(requests.ConnectionError):
        caller.post("result/detail", {})
    assert caller.error("result/detail", verify_token="x") == 900001


def test_delay_answers_late(caller: Caller) -> None:
    fault(caller, endpoint="result_detail", kind="delay", seconds=0.05, count=1)
    answer = caller.post("result/detail", {"verify_token": "x"})
    assert answer.elapsed.total_seconds() >= 0.05
    assert answer.json()["code"] == 900001


def test_reset_and_truncation_break_the_connection(caller: Caller) -> None:
    for rule in ({"kind": "reset"}, {"kind": "reset", "after_bytes": 10}, {"kind": "truncate"}):
        fault(caller, endpoint="result_detail", count=1, **rule)
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            caller.post("result/detail", {"verify_token": "x"})
    assert caller.error("result/detail", verify_token="x") == 900001


def test_a_reset_is_a_tcp_reset(caller: Caller) -> None:
    fault(caller, endpoint="oauth_token", kind="reset")
    with socket.create_connection(("127.0.0.1", caller.server.port), timeout=10) as connection:
        connection.sendall(b"GET /oauth/2.0/token HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_fault_can_strike_after_the_request_was_carried_out(caller: Caller) -> None:
    fault(caller, endpoint="verify_token_generate", kind="reset", after=True, count=1)
    with pytest.raises(requests.ConnectionError):
        caller.post("verifyToken/generate", {"plan_id": 25001})
    assert len(caller.control("GET", "ledger")["sessions"]) == 1


def media_urls(caller: Caller, verify_token: str) -> dict[str, Any]:
    result = caller.result("result/media/query", verify_token=verify_token)
    assert isinstance(result, dict)
    return result


def test_an_interrupted_download_can_be_resumed(caller: Caller) -> None:
    verify_token = caller.finished(25001)
    url = media_urls(caller, verify_token)["processVideo"][0]
    whole = caller.get(url).content
    for kind in ("truncate", "reset"):
        fault(caller, endpoint="media", kind=kind, after_bytes=100_000, count=1)
        received: list[bytes] = []
        with caller.http.get(url, stream=True, timeout=10) as answer:
            assert answer.headers["Content-Length"] == "300000"
            with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
                received.extend(answer.iter_content(1000))
        start = b"".join(received)
        assert whole.startswith(start)
        rest = caller.get(url, Range=f"bytes={len(start)}-")
        assert start + rest.content == whole
    video = next(a for a in caller.ledger(verify_token)["assets"] if a["kind"] == "process_video")
    assert video["served"] == 3


def test_a_drip_arrives_in_small_pieces(caller: Caller) -> None:
    url = media_urls(caller, caller.finished(25001))["images"][0]
    fault(caller, endpoint="media", kind="drip", seconds=0.001, chunk=4000, count=1)
    answer = caller.get(url)
    assert len(answer.content) == 40_000
    fault(caller, endpoint="media", kind="drip", seconds=30, chunk=1, count=1)
    with caller.http.get(url, stream=True, timeout=(5, 0.2)) as slow, pytest.raises(requests.ConnectionError):
        list(slow.iter_content(1))


@pytest.mark.parametrize(
    ("kind", "host"),
    [("foreign_url", "https://media.example.net/"), ("internal_url", "http://169.254.169.254/")],
)
@pytest.mark.parametrize("path", ["result/simple", "result/media/query", "result/getall"])
def test_media_urls_can_point_to_other_hosts(caller: Caller, kind: str, host: str, path: str) -> None:
    verify_token = caller.finished(25001)
    endpoint = path.replace("result/", "result_").replace("/", "_")
    fault(caller, endpoint=endpoint, kind=kind, count=1)
    text = caller.post(path, {"verify_token": verify_token}).text
    assert host in text
    assert caller.url not in text
    fault(caller, endpoint=endpoint, kind=kind, url="http://10.0.0.1:81", count=1)
    assert "http://10.0.0.1:81/" in caller.post(path, {"verify_token": verify_token}).text


def test_pictures_can_be_damaged(caller: Caller) -> None:
    urls = media_urls(caller, caller.finished(25001))
    picture, video = urls["images"][0], urls["processVideo"][0]
    fault(caller, endpoint="media", kind="not_image", count=2)
    for url, kind in ((picture, "image/jpeg"), (video, "video/mp4")):
        answer = caller.get(url)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
        assert answer.content.startswith(b"<!DOCTYPE")
    fault(caller, endpoint="media", kind="truncated_image", count=1)
    answer = caller.get(picture)
    assert answer.headers["Content-Length"] == str(len(answer.content)) == "20000"
    with (
        pytest.raises(OSError, match=r"(?i)truncated"),
        Image.open(io.BytesIO(answer.content)) as image,
    ):
        image.load()
    fault(caller, endpoint="media", kind="wrong_content_type", count=1)
    answer = caller.get(picture)
    assert answer.headers["Content-Type"] == "text/html"
    assert answer.content.startswith(b"\xff\xd8")


def test_ranges_can_be_wrong_or_ignored(caller: Caller) -> None:
    url = media_urls(caller, caller.finished(25001))["processVideo"][0]
    fault(caller, endpoint="media", kind="wrong_range", count=1)
    answer = caller.get(url, Range="bytes=100-199")
    assert (answer.status_code, answer.headers["Content-Range"]) == (206, "bytes 101-200/300000")
    fault(caller, endpoint="media", kind="ignore_range", count=1)
    answer = caller.get(url, Range="bytes=100-199")
    assert (answer.status_code, len(answer.content)) == (200, 300_000)


def test_fields_of_a_result_are_replaced(caller: Caller) -> None:
    verify_token = caller.finished(25001)
    fields = {"processVideo": None, "extInfo": "later"}
    fault(caller, endpoint="result_media_query", kind="patch_result", fields=fields, count=1)
    patched, regular = (media_urls(caller, verify_token) for _ in range(2))
    assert (len(regular["processVideo"]), regular["extInfo"]) == (1, None)
    assert (patched["processVideo"], patched["extInfo"], len(patched["images"])) == (None, "later", 4)


def test_an_answer_without_a_result_is_not_patched(caller: Caller) -> None:
    fault(caller, endpoint="result_detail", kind="patch_result", fields={"x": 1})
    assert caller.error("result/detail", verify_token="x") == 900001


def test_media_can_be_expired_redirected_or_huge(caller: Caller) -> None:
    verify_token = caller.finished(25001)
    urls = media_urls(caller, verify_token)
    url, simple = urls["images"][0], caller.result("result/simple", verify_token=verify_token)["image"]
    fault(caller, endpoint="media", kind="expired_url", count=1)
    assert caller.get(url).status_code == 403
    fault(caller, endpoint="simple_image", kind="redirect", count=1)
    answer = caller.http.get(simple, allow_redirects=False, timeout=10)
    assert (answer.status_code, answer.headers["Location"]) == (302, "http://169.254.169.254/")
    fault(
        caller, endpoint="media", kind="huge", size=5_000_000, count=1, match={"verify_token": verify_token}
    )
    assert len(caller.get(url).content) == 5_000_000
    assert caller.get(url).status_code == 200


@pytest.mark.parametrize(
    "rule",
    [
        {},
        [],
        "x",
        {"endpoint": "media"},
        {"endpoint": "nowhere", "kind": "html"},
        {"endpoint": "media", "kind": "nonsense"},
        {"endpoint": "media", "kind": "html", "count": -1},
        {"endpoint": "media", "kind": "html", "count": True},
        {"endpoint": "media", "kind": "html", "probability": 2},
        {"endpoint": "media", "kind": "html", "match": {"name": "x"}},
        {"endpoint": "media", "kind": "html", "match": {"plan_id": 1}},
        {"endpoint": "media", "kind": "html", "surprise": 1},
        {"endpoint": "media", "kind": "http", "status": 99},
        {"endpoint": "media", "kind": "wrong_content_type", "content_type": "a\r\nb: c"},
        {"endpoint": "media", "kind": "gateway", "code": "18"},
        {"endpoint": "result_detail", "kind": "patch_result", "fields": []},
    ],
)
def test_wrong_rules_are_refused(caller: Caller, rule: Any) -> None:
    answer = caller.http.post(f"{caller.url}/_sandbox/faults", json=rule, timeout=10)
    if rule == []:
        assert answer.json() == []
    else:
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("rule 0: ")


# -- scripts


def test_a_script_for_the_next_sessions_overrides_the_page(caller: Caller) -> None:
    caller.control("POST", "script", {"count": 2, "plan_id": "25001", "outcome": "fail", "code": "223131"})
    other = caller.finished(25002)
    first, second, third = caller.finished(25001), caller.finished(25001), caller.finished(25001)
    assert caller.result("result/detail", verify_token=other)
    for verify_token in (first, second):
        assert caller.error("result/detail", verify_token=verify_token) == 223131
    assert caller.result("result/detail", verify_token=third)


def test_a_script_for_a_token_sets_every_detail(caller: Caller) -> None:
    verify_token = caller.prepared(25006)
    script = {
        "verify_token": verify_token,
        "outcome": "pass",
        "score": 81.5,
        "liveness_score": 1,
        "spoofing": 0.25,
        "scores_as_text": True,
        "is_demote": True,
        "risk_level": "1",
        "risk_tag": "模拟器",
        "ext_info": "video process failed",
    }
    caller.control("POST", "script", [script])
    caller.go_through(verify_token, "fail")
    detail = caller.result("result/detail", verify_token=verify_token)
    assert detail["verify_result"] == {"score": "81.5", "liveness_score": "1.0", "spoofing": "0.25"}
    assert detail["is_demote"] is True
    (attempt,) = caller.result("result/getall", verify_token=verify_token)["verify_result"]
    assert (attempt["verify_detail"]["risk_level"], attempt["verify_detail"]["risk_tag"]) == ("1", "模拟器")
    media = caller.result("result/media/query", verify_token=verify_token)
    assert media == {"processVideo": [], "video": [], "images": [], "extInfo": "video process failed"}
    kinds = {asset["kind"] for asset in caller.ledger(verify_token)["assets"]}
    assert kinds == {"face", "attempt_face"}


def test_a_script_can_give_up_and_change_card_images(caller: Caller) -> None:
    caller.control(
        "POST", "script", [{"outcome": "giveup"}, {"card_images": "not_image"}, {"card_images": "missing"}]
    )
    given_up, garbage, missing = caller.finished(25003), caller.finished(25003), caller.finished(25003)
    assert caller.error("result/detail", verify_token=given_up) == 283450
    images = caller.result("result/detail", verify_token=garbage)["idcard_images"]
    assert set(images) == {"front_base64", "back_base64"}
    assert not images["front_base64"].startswith("/9j/")
    assert caller.result("result/detail", verify_token=missing)["idcard_images"] is None
    assert "id_front" not in {asset["kind"] for asset in caller.ledger(missing)["assets"]}


@pytest.mark.parametrize(
    "script",
    [
        "x",
        {"outcome": "perhaps"},
        {"score": "high"},
        {"score": 10**400},
        {"count": -1},
        {"count": True},
        {"surprise": 1},
        {"verify_token": "unknown"},
        {"card_images": None},
    ],
)
def test_wrong_scripts_are_refused(caller: Caller, script: Any) -> None:
    answer = caller.http.post(f"{caller.url}/_sandbox/script", json=script, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]
