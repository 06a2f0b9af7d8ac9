"""Envelopes and bad wires: what Baidu, or whoever stands in between, may answer."""

from __future__ import annotations

import gzip
import json
import logging
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_faceprint.client import Answer, CallRecord, DetailResult, ErrorClass, FaceprintClient
from django_faceprint.client.transport import parse_json
from django_faceprint.exceptions import (
    FaceprintConfigurationError,
    FaceprintError,
    Rejected,
    SessionGone,
    Throttled,
    Unreachable,
)

from .conftest import VERIFY_TOKEN
from .server import (
    ACCESS_TOKEN,
    Respond,
    RunningServer,
    Script,
    answer,
    drip,
    failure,
    gateway,
    hang,
    reset,
    success,
)

DETAIL = "/result/detail"


def detail(client: FaceprintClient) -> Answer[DetailResult]:
    return client.result_detail(VERIFY_TOKEN)


def test_request_has_the_documented_form(server: Script, client: FaceprintClient) -> None:
    server.then(DETAIL, success({}))

    detail(client)

    (request,) = server.asked(DETAIL)
    assert request.method == "POST"
    assert request.path == "/rpc/2.0/brain/solution/faceprint/result/detail"
    assert request.query == {"access_token": ACCESS_TOKEN}
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("django-faceprint ")
    assert request.json == {"verify_token": VERIFY_TOKEN}


@pytest.mark.parametrize(
    ("step", "code", "error_class", "exception"),
    [
        (
            failure(283400, "服务异常,请稍后再试"),
            "283400",
            ErrorClass.CONFIGURATION,
            FaceprintConfigurationError,
        ),
        (failure(283512, "服务异常,请稍后再试"), "283512", ErrorClass.RETRY, Unreachable),
        (failure("283512", ""), "283512", ErrorClass.RETRY, Unreachable),
        (failure(283435, "方案不存在。"), "283435", ErrorClass.CONFIGURATION, FaceprintConfigurationError),
        (failure(216100, "invalid param"), "216100", ErrorClass.CALLER, Rejected),
        (failure(999999, "Token无效或者已过期"), "999999", ErrorClass.GONE, SessionGone),
        (failure(None, " Token 无效或者已过期 "), "unknown", ErrorClass.GONE, SessionGone),
        (failure(424242, "?"), "424242", ErrorClass.UNKNOWN, Rejected),
        (gateway(18, "Open api qps request limit reached"), "18", ErrorClass.SLOW_DOWN, Throttled),
        (gateway("17"), "17", ErrorClass.SLOW_DOWN, Throttled),
        (gateway(2), "2", ErrorClass.RETRY, Unreachable),
        (gateway("SDK108"), "SDK108", ErrorClass.UNKNOWN, Rejected),
        (gateway(6), "6", ErrorClass.CONFIGURATION, FaceprintConfigurationError),
        (answer({"success": False, "error_code": 216100}), "216100", ErrorClass.CALLER, Rejected),
        (answer({"success": True, "result": {}, "error_code": 18}), "18", ErrorClass.SLOW_DOWN, Throttled),
        (answer({"success": False}), "unknown", ErrorClass.UNKNOWN, Rejected),
        (answer({"success": "true", "result": {}}), "unknown", ErrorClass.UNKNOWN, Rejected),
        (answer({"success": 1, "result": {}}), "unknown", ErrorClass.UNKNOWN, Rejected),
        (answer({}), "unknown", ErrorClass.UNKNOWN, Rejected),
        (answer({"error": "odd", "error_description": "x"}), "odd", ErrorClass.UNKNOWN, Rejected),
        (failure(283512, status=1), "283512", ErrorClass.RETRY, Unreachable),
    ],
)
def test_error_envelopes(
    server: Script,
    client: FaceprintClient,
    step: Respond,
    code: str,
    error_class: ErrorClass,
    exception: type[Exception],
) -> None:
    server.then(DETAIL, step)

    with pytest.raises(exception) as caught:
        detail(client)

    error = caught.value.error  # type: ignore[attr-defined]
    assert (error.code, error.error_class, error.endpoint) == (code, error_class, "result_detail")
    assert caught.value.raw == step.body  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "document",
    [
        {"success": True, "result": {}, "error_code": 0},
        {"success": True, "result": {}, "error_code": "0"},
        {"success": True, "result": {}, "error_code": None, "error": None},
        {"success": True, "result": [{}], "error": "", "code": 0},
    ],
)
def test_codes_of_zero_are_no_errors(server: Script, client: FaceprintClient, document: Any) -> None:
    server.then(DETAIL, answer(document))

    assert detail(client).ok


@pytest.mark.parametrize("log_id", ["1800000000000000007", 9223372036854775807, 1800000000000000007])
def test_log_id_is_text(server: Script, client: FaceprintClient, log_id: Any) -> None:
    server.then(DETAIL, answer({"success": True, "result": {}, "log_id": log_id}))

    assert detail(client).log_id == str(log_id)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>502 Bad Gateway</body></html>",
        b'"ok"',
        b"[]",
        b"null",
        b'{"success": true, "result": {"verify_result": {"score": NaN}}}',
        b'{"success": true, "result": Infinity}',
        b'{"success": true, "result": ' + b"9" * 5000 + b"}",
        b'{"success": true, "result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"success": true, "result": {"x": "\xff\xfe"}}',
        b'{"success": true, "result": {},}',
    ],
    ids=["empty", "html", "string", "list", "null", "nan", "infinity", "long", "deep", "latin", "comma"],
)
def test_an_answer_that_is_not_json_is_retried_and_kept(
    server: Script, client: FaceprintClient, body: bytes
) -> None:
    server.then(DETAIL, Respond(body))

    with pytest.raises(Unreachable) as caught:
        detail(client)

    assert caught.value.raw == body
    assert caught.value.error is not None
    assert caught.value.error.code == "not_json"


def test_byte_order_mark_is_tolerated(server: Script, client: FaceprintClient) -> None:
    server.then(DETAIL, Respond(b'\xef\xbb\xbf{"success": true, "result": {}}\n'))

    assert detail(client).ok


def test_http_5xx_is_retried_even_with_success_in_its_body(
    server: Script, client: FaceprintClient, records: list[CallRecord]
) -> None:
    server.then(DETAIL, answer({"success": True, "result": {}}, status=503))

    with pytest.raises(Unreachable) as caught:
        detail(client)

    assert caught.value.error is not None
    assert (caught.value.error.code, caught.value.error.http_status) == ("http_error", 503)
    assert (records[-1].outcome, records[-1].http_status) == ("transport", 503)


def test_http_4xx_is_read_from_its_body(server: Script, client: FaceprintClient) -> None:
    server.then(DETAIL, answer({"error_code": 6, "error_msg": "no permission"}, status=403))

    with pytest.raises(FaceprintConfigurationError):
        detail(client)


def test_redirects_are_not_followed(server: Script, client: FaceprintClient) -> None:
    server.then(DETAIL, Respond(b"", 307, {"Location": f"{server.url}/elsewhere"}))

    with pytest.raises(Unreachable):
        detail(client)

    assert not server.asked("/elsewhere")


def test_cookies_are_not_kept(server: Script, client: FaceprintClient) -> None:
    server.then(DETAIL, answer({"success": True, "result": {}}, Set_Cookie="BAIDUID=1; Path=/"), success({}))

    detail(client)
    detail(client)

    assert "cookie" not in server.asked(DETAIL)[1].headers


def test_environment_is_not_consulted(
    server: Script, client: FaceprintClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    server.then(DETAIL, success({}))

    assert detail(client).ok


def test_proxy_is_used_when_named(new_client: Callable[..., FaceprintClient]) -> None:
    with RunningServer() as proxy:
        proxy.always("/oauth/2.0/token", answer({"access_token": "via-proxy", "expires_in": 60}))
        proxy.always(DETAIL, success({}))
        client = new_client(api_url="http://upstream.invalid", proxies={"http": proxy.url})

        assert detail(client).ok
        assert proxy.requests[0].target.startswith("http://upstream.invalid/oauth/2.0/token?")


@pytest.mark.parametrize(
    "step",
    [
        reset,
        drip(b""),
        drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\nffff\r\n"),
        drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 3),
        Respond(b'{"success": true', length=1000),
        Respond(b"zz\r\n", headers={"Transfer-Encoding": "chunked"}),
    ],
    ids=["reset", "status", "header", "body", "chunk", "continue", "cut", "bad-chunk"],
)
def test_broken_and_dripping_answers_end(
    server: Script, new_client: Callable[..., FaceprintClient], records: list[CallRecord], step: Any
) -> None:
    client = new_client(total_timeout=0.4)
    client.check_credentials()
    server.then(DETAIL, step)
    started = time.monotonic()

    with pytest.raises(Unreachable) as caught:
        detail(client)

    assert time.monotonic() - started < 2
    assert caught.value.raw is None
    assert records[-1].outcome == "transport"


def test_silence_ends(server: Script, new_client: Callable[..., FaceprintClient]) -> None:
    client = new_client(timeout=(0.3, 0.3))
    server.then(DETAIL, hang)
    client.check_credentials()

    with pytest.raises(Unreachable, match="time-out"):
        detail(client)


def test_a_closed_port_is_unreachable(new_client: Callable[..., FaceprintClient]) -> None:
    with RunningServer() as gone:
        url = gone.url

    with pytest.raises(Unreachable, match="connection failed"):
        detail(new_client(api_url=url))


def test_tls_to_a_plain_server(server: Script, new_client: Callable[..., FaceprintClient]) -> None:
    client = new_client(api_url=server.url.replace("http://", "https://"))

    with pytest.raises(Unreachable, match="TLS failure"):
        detail(client)


def test_body_is_bounded(server: Script, new_client: Callable[..., FaceprintClient]) -> None:
    client = new_client(max_body=10_000)
    server.then(DETAIL, Respond(b" " * 10_001), Respond(gzip.compress(b" " * 10_000_000), headers=GZIP))

    for _ in range(2):
        with pytest.raises(Unreachable, match="too large"):
            detail(client)


GZIP = {"Content-Encoding": "gzip"}


def test_gzip_is_understood_though_not_requested(server: Script, client: FaceprintClient) -> None:
    body = gzip.compress(b'{"success": true, "result": {}}')
    server.then(
        DETAIL,
        Respond(body, headers=GZIP),
        Respond(body[:-9], headers=GZIP),
        Respond(b"no gzip", headers=GZIP),
        Respond(body, headers={"Content-Encoding": "br"}),
    )

    assert detail(client).raw == b'{"success": true, "result": {}}'
    for _ in range(3):
        with pytest.raises(Unreachable):
            detail(client)
    assert server.asked(DETAIL)[0].headers["accept-encoding"] == "identity"


def test_every_call_is_recorded(server: Script, client: FaceprintClient, records: list[CallRecord]) -> None:
    server.then(DETAIL, success({}), failure(283450, "认证尚未开始"), gateway(18))

    detail(client)
    detail(client)
    with pytest.raises(Throttled):
        detail(client)

    assert [(record.endpoint, record.outcome, record.code) for record in records] == [
        ("oauth_token", "ok", ""),
        ("result_detail", "ok", ""),
        ("result_detail", "not_started", "283450"),
        ("result_detail", "slow_down", "18"),
    ]
    assert records[1].log_id == "1800000001"
    assert all(record.latency > 0 and record.http_status == 200 for record in records)


def test_a_call_can_be_held_back(server: Script, new_client: Callable[..., FaceprintClient]) -> None:
    def refuse(endpoint: str) -> None:
        if endpoint == "result_detail":
            raise Throttled("budget")

    client = new_client(before_call=refuse)

    with pytest.raises(Throttled):
        detail(client)

    assert not server.asked(DETAIL)


def test_connections_are_kept(server: Script, client: FaceprintClient) -> None:
    ports: list[int] = []

    def step(handler: Any) -> None:
        ports.append(handler.client_address[1])
        success({})(handler)

    server.always(DETAIL, step)
    for _ in range(3):
        detail(client)

    assert len(set(ports)) == 1


def test_no_log_record_holds_a_url(
    server: Script, client: FaceprintClient, caplog: pytest.LogCaptureFixture
) -> None:
    server.then(DETAIL, success({}), reset)
    with caplog.at_level(logging.DEBUG):
        detail(client)
        with pytest.raises(FaceprintError):
            detail(client)

    assert "access_token" not in caplog.text
    assert "client_secret" not in caplog.text


@pytest.mark.parametrize(
    "url", ["ftp://example.com", "aip.baidubce.com", "https://x/?a=1", "https://x/#a", ""]
)
def test_api_url_must_be_one(url: str) -> None:
    with pytest.raises(FaceprintConfigurationError):
        FaceprintClient(api_key="a", secret_key="b", api_url=url)


@pytest.mark.parametrize(
    "body",
    [
        b'{"success": false, "success": true, "result": {}}',
        b'{"success": true, "result": {"a": {}}, "result": {"a": 1}}',
    ],
)
def test_an_answer_with_a_key_twice_at_the_top_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        parse_json(body)


@pytest.mark.parametrize("body", [b'{"name": "person', b"[" * 100_000, b'{"a": NaN}', b"\xff"])
def test_the_refusal_of_a_text_does_not_hold_the_text(body: bytes) -> None:
    with pytest.raises(ValueError, match="not JSON") as caught:
        parse_json(body)
    # json's own exception has the whole document as an attribute.
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_of_a_key_twice_inside_the_last_one_counts() -> None:
    assert parse_json(b'{"success": true, "result": {"a": 1, "a": 2}}')["result"] == {"a": 2}


def test_json_of_forty_digits_is_a_number() -> None:
    assert parse_json(b'{"a": ' + b"1" * 40 + b"}") == {"a": int("1" * 40)}
    with pytest.raises(ValueError, match="not JSON"):
        parse_json(json.dumps({"a": 10**41}).encode())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_forked_child_opens_connections_of_its_own(server: Script, client: FaceprintClient) -> None:
    ports: list[int] = []

    def step(handler: Any) -> None:
        ports.append(handler.client_address[1])
        success({})(handler)

    server.always(DETAIL, step)
    detail(client)
    with ThreadPoolExecutor(1) as pool:
        child = pool.submit(_fork_and_run, lambda: detail(client).ok)
        assert child.result(10) == 0
    detail(client)

    assert len(ports) == 3
    assert ports[0] == ports[2] != ports[1]


def _fork_and_run(work: Callable[[], bool]) -> int:
    """Run in a forked child; the exit status is 0 if it worked."""
    with warnings.catch_warnings():
        # Python warns of forking beside threads: the server's thread is not used by the child.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
