"""The control API: clock, plans, switches, reset, finish, its access rules; and the QPS limit."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from django_faceprint.sandbox.clock import ClockFileError, SandboxClock
from django_faceprint.sandbox.control import ControlApi
from django_faceprint.sandbox.core import Sandbox
from django_faceprint.sandbox.message import Request
from django_faceprint.sandbox.server import SandboxServer

from .conftest import START, Caller


def test_health_shows_the_clock_and_the_clock_moves(caller: Caller) -> None:
    health = caller.control("GET", "health")
    assert health == {
        "status": "ok",
        "now": "2026-03-02T08:20:00+00:00",
        "offset": 0.0,
        "public_url": caller.url,
    }
    assert caller.control("POST", "clock", {"advance": 60})["offset"] == 60
    assert caller.control("POST", "clock", {"advance": 60.5})["now"] == "2026-03-02T08:22:00.500000+00:00"
    assert caller.control("POST", "clock", {"offset": -5})["offset"] == -5
    assert caller.control("GET", "clock")["offset"] == -5


@pytest.mark.parametrize(
    "data", [{}, {"offset": "1"}, {"offset": True}, {"advance": 1e12}, {"x": 1}, [], "x"]
)
def test_wrong_clock_requests_are_refused(caller: Caller, data: Any) -> None:
    answer = caller.http.post(f"{caller.url}/_sandbox/clock", json=data, timeout=10)
    assert answer.status_code == 400
    assert caller.control("GET", "clock")["offset"] == 0


def test_a_clock_file_is_shared(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    first, second = (SandboxClock(file, base=lambda: START) for _ in range(2))
    assert first.now() == START
    first.advance(3600)
    assert second.now() == START + timedelta(hours=1)
    second.set_offset(0.25)
    assert (first.offset, float(file.read_text())) == (0.25, 0.25)
    assert list(tmp_path.iterdir()) == [file]
    file.write_text("12\n")
    assert first.now() == START + timedelta(seconds=12)
    assert first.now().tzinfo is UTC


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "1e300", "\u5341"])
def test_a_damaged_clock_file_is_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "clock"
    file.write_text(text, encoding="utf-8")
    clock = SandboxClock(file)
    with pytest.raises(ClockFileError):
        clock.now()
    sandbox = Sandbox(clock=clock)
    api = ControlApi(sandbox)
    for path in ("clock", "health", "ledger"):
        assert api.handle(Request("GET", f"/_sandbox/{path}")).status == 500
    assert api.handle(Request("POST", "/_sandbox/clock", body=b'{"advance": 5}')).status == 500
    assert ControlApi(sandbox).handle(Request("GET", "/face/print/?token=x")).status == 500
    assert ControlApi(sandbox).handle(Request("POST", "/_sandbox/clock", body=b'{"offset": 5}')).status == 200
    assert clock.offset == 5


def test_reset_forgets_everything_except_the_clock(caller: Caller) -> None:
    caller.advance(hours=1)
    caller.finished(25001)
    caller.control("PUT", "switches", {"error_envelope": "mixed"})
    caller.control("PUT", "plans/25001", {"threshold": 50})
    caller.control("POST", "script", {"outcome": "fail"})
    caller.control("POST", "faults", {"endpoint": "*", "kind": "html", "count": 0})
    caller.control("POST", "reset")
    ledger = caller.control("GET", "ledger")
    assert (ledger["sessions"], ledger["calls"], ledger["oauth_tokens"], ledger["offset"]) == (
        [],
        {},
        0,
        3600,
    )
    assert caller.control("GET", "switches")["error_envelope"] == "service"
    assert caller.control("GET", "faults") == caller.control("GET", "script") == []
    assert caller.control("GET", "plans")[0]["threshold"] == 80
    assert caller.error("verifyToken/generate", plan_id=25001) == 110
    caller.control("POST", "reset", {"clock": True})
    assert caller.control("GET", "clock")["offset"] == 0


def test_plans_can_be_read_changed_and_added(caller: Caller) -> None:
    plans = caller.control("GET", "plans")
    assert [plan["plan_id"] for plan in plans] == [str(number) for number in range(25001, 25008)]
    before = caller.prepared(25001)
    changed = caller.control("PUT", "plans/25001", {"closes_on_failure": False, "threshold": 95})
    assert (changed["closes_on_failure"], changed["threshold"]) == (False, 95)
    after = caller.prepared(25001)
    for verify_token, state in ((before, "failed"), (after, "failed_open")):
        caller.go_through(verify_token, "fail")
        assert caller.ledger(verify_token)["state"] == state
    added = caller.control("PUT", "plans/66001", {"match_source": "liveness_only", "identity_entry": "none"})
    assert added["plan_id"] == "66001"
    assert caller.finished(66001)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("plans/25001", {"surprise": 1}),
        ("plans/25001", {"liveness": "telepathy"}),
        ("plans/25001", {"threshold": 101}),
        ("plans/25001", {"threshold": True}),
        ("plans/25001", {"recording": "yes"}),
        ("plans/25001", {"identity_entry": []}),
        ("plans/a-b", {}),
        ("plans/25001", []),
        ("switches", {"surprise": 1}),
        ("switches", {"error_envelope": "x"}),
        ("switches", {"qps": -1}),
        ("switches", {"token_gone_code": "1"}),
        ("switches", {"low_score_code": None}),
        ("switches", {"sign_media": 1}),
    ],
)
def test_wrong_options_are_refused(caller: Caller, path: str, data: Any) -> None:
    answer = caller.http.put(f"{caller.url}/_sandbox/{path}", json=data, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_the_page_can_be_finished_in_one_step(caller: Caller) -> None:
    config = {"success_url": "https://a.example/ok"}
    verify_token = caller.prepared(25003, redirect_config=config)
    done = caller.control("POST", "finish", {"verify_token": verify_token, "outcome": "pass"})
    assert done == {"redirect": "https://a.example/ok", "passed": True, "order": 1}
    again = caller.http.post(f"{caller.url}/_sandbox/finish", json={"verify_token": verify_token}, timeout=10)
    assert (again.status_code, again.json()) == (409, {"error": "gone"})
    unprepared = {"verify_token": caller.generate(25001)}
    refused = caller.http.post(f"{caller.url}/_sandbox/finish", json=unprepared, timeout=10)
    assert (refused.status_code, refused.json()) == (409, {"error": "unprepared"})
    for wrong in (
        {},
        {"verify_token": 1},
        {"verify_token": "x", "y": 1},
        {"verify_token": "x", "outcome": "y"},
    ):
        assert caller.http.post(f"{caller.url}/_sandbox/finish", json=wrong, timeout=10).status_code == 400
    left = caller.control("POST", "finish", {"verify_token": caller.prepared(25001), "outcome": "giveup"})
    assert left == {"redirect": None, "passed": None, "order": None}


def test_the_control_api_refuses_unknown_requests(caller: Caller) -> None:
    assert caller.get(f"{caller.url}/_sandbox/nowhere").status_code == 404
    assert caller.http.delete(f"{caller.url}/_sandbox/ledger", timeout=10).status_code == 405
    assert caller.http.post(f"{caller.url}/_sandbox/reset", data=b"{", timeout=10).status_code == 400
    assert caller.get(f"{caller.url}/_sandbox/health", Origin="https://evil.example").status_code == 403


@pytest.mark.parametrize(
    ("peer", "status"), [("127.0.0.9", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("10.0.0.1", 403)]
)
def test_only_loopback_peers_reach_the_control_api(peer: str, status: int) -> None:
    assert ControlApi(Sandbox()).handle(Request("GET", "/_sandbox/health", peer=peer)).status == status


def test_the_sandbox_answers_without_a_socket() -> None:
    sandbox = Sandbox(clock=SandboxClock(base=lambda: datetime(2026, 1, 1, tzinfo=UTC)), image_size=0)
    query = "grant_type=client_credentials&client_id=sandbox-api-key&client_secret=sandbox-secret-key"
    token = json.loads(sandbox.handle(Request("GET", f"/oauth/2.0/token?{query}")).read())["access_token"]

    def call(path: str, **data: Any) -> Any:
        target = f"/rpc/2.0/brain/solution/faceprint/{path}?access_token={token}"
        return json.loads(sandbox.handle(Request("POST", target, body=json.dumps(data).encode())).read())[
            "result"
        ]

    verify_token = call("verifyToken/generate", plan_id=25005)["verify_token"]
    done = sandbox.finish(verify_token)
    assert done.attempt is not None
    assert done.attempt.passed
    url = call("result/simple", verify_token=verify_token)["image"]
    picture = sandbox.handle(Request("GET", url.removeprefix(sandbox.base_url)))
    assert picture.read().startswith(b"\xff\xd8")
    (entry,) = sandbox.ledger(verify_token)["sessions"]
    assert [(a["kind"], a["served"]) for a in entry["assets"]] == [("face", 1), ("attempt_face", 0)]
    sandbox.add_faults({"endpoint": "media", "kind": "html"})
    sandbox.add_script(outcome="fail")
    sandbox.set_switches(qps=1)
    sandbox.reset()
    assert sandbox.faults.as_json() == []
    assert sandbox.store.scripts == []


# -- QPS


def test_the_qps_limit_counts_per_account_and_interface(http: requests.Session) -> None:
    now = [100.0]
    with SandboxServer(qps=3, monotonic=lambda: now[0]) as server:
        caller = Caller(server, http)
        other, foreign = caller.access_token("sandbox-other"), caller.access_token("sandbox-foreign")

        def call(token: str, path: str = "result/detail") -> int:
            payload = caller.call(path, token=token, verify_token="x")
            return int(payload.get("error_code") or payload["code"])

        assert [call(caller.token), call(other), call(caller.token)] == [900001] * 3
        assert call(caller.token) == call(other) == 18
        assert call(caller.token, "result/stat") == call(foreign) == 900001
        now[0] += 0.99
        assert call(other) == 18
        now[0] += 0.01
        assert call(other) == 900001
        caller.control("PUT", "switches", {"qps": 0.5})
        now[0] += 1
        assert [call(other), call(other)] == [18, 18]
        now[0] += 1
        assert [call(other), call(other)] == [900001, 18]
        caller.control("PUT", "switches", {"qps": 0})
        assert [call(other) for _ in range(10)] == [900001] * 10
