"""The sandbox answers every request and never raises."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from hypothesis import given, settings
from hypothesis import strategies as st

from django_faceprint.sandbox.api import RPC, RPC_ENDPOINTS
from django_faceprint.sandbox.clock import SandboxClock
from django_faceprint.sandbox.control import ControlApi
from django_faceprint.sandbox.core import Sandbox
from django_faceprint.sandbox.h5 import PAGE_PATHS
from django_faceprint.sandbox.message import Request

from .conftest import START

CONTROL = ("clock", "reset", "faults", "script", "finish", "switches", "plans/25001", "plans/x", "ledger")
FIELDS = (
    "plan_id",
    "verify_token",
    "redirect_config",
    "success_url",
    "id_name",
    "id_no",
    "certificate_type",
    "image",
    "quality_control",
    "endpoint",
    "kind",
    "count",
    "match",
    "outcome",
    "code",
    "offset",
    "advance",
    "score",
    "threshold",
    "qps",
)
TOKEN = st.sampled_from(["ISSUED", "PASSED", "FAILED"])
TEXTS = st.one_of(
    TOKEN, st.text(max_size=20), st.sampled_from(["25001", "25004", "pass", "fail", "media", "html", "*"])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3)
    ),
    max_leaves=6,
)
DATA = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6)
FORM_FIELDS = (
    "token",
    "outcome",
    "code",
    "demote",
    "name",
    "number",
    "certificate_type",
    "successUrl",
    "agree",
)


def prepared() -> tuple[Sandbox, str, dict[str, str]]:
    """A sandbox with an access token and a session in each of three states."""
    sandbox = Sandbox(clock=SandboxClock(base=lambda: START), qps=0, image_size=0, video_size=0)
    query = "grant_type=client_credentials&client_id=sandbox-api-key&client_secret=sandbox-secret-key"
    access = json.loads(sandbox.handle(Request("POST", f"/oauth/2.0/token?{query}")).read())["access_token"]
    tokens = {}
    for state in ("ISSUED", "PASSED", "FAILED"):
        body = json.dumps({"plan_id": 25005}).encode()
        target = f"{RPC}verifyToken/generate?access_token={access}"
        tokens[state] = json.loads(sandbox.handle(Request("POST", target, body=body)).read())["result"][
            "verify_token"
        ]
    sandbox.finish(tokens["PASSED"])
    sandbox.finish(tokens["FAILED"], "fail")
    return sandbox, access, tokens


def with_tokens(text: str, tokens: dict[str, str]) -> str:
    for state, token in tokens.items():
        text = text.replace(state, token)
    return text


def answered(sandbox: Sandbox, request: Request) -> bytes:
    response = ControlApi(sandbox).handle(request)
    assert 200 <= response.status < 600
    assert all("\r" not in text and "\n" not in text for field in response.headers for text in field)
    body = response.read()
    assert request.method == "HEAD" or response.fault or len(body) == response.length
    return body


@settings(max_examples=300, deadline=None, derandomize=True)
@given(path=st.sampled_from(sorted(RPC_ENDPOINTS)), data=DATA)
def test_any_json_gets_an_answer_from_any_interface(path: str, data: dict[str, Any]) -> None:
    sandbox, access, tokens = prepared()
    body = with_tokens(json.dumps(data), tokens).encode()
    answer = json.loads(answered(sandbox, Request("POST", f"{RPC}{path}?access_token={access}", body=body)))
    assert answer.get("success") is True or "code" in answer or "error_code" in answer


@settings(max_examples=150, deadline=None, derandomize=True)
@given(path=st.sampled_from(CONTROL), method=st.sampled_from(["POST", "PUT"]), data=st.one_of(DATA, VALUES))
def test_any_json_gets_an_answer_from_the_control_api(path: str, method: str, data: Any) -> None:
    sandbox, _, tokens = prepared()
    body = with_tokens(json.dumps(data), tokens).encode()
    json.loads(answered(sandbox, Request(method, f"/_sandbox/{path}", body=body)))
    answered(sandbox, Request("GET", "/_sandbox/ledger"))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    step=st.sampled_from(["consent", "identity", "finish", "x", ""]),
    fields=st.dictionaries(st.sampled_from(FORM_FIELDS), TEXTS, max_size=6),
)
def test_any_form_gets_an_answer(step: str, fields: dict[str, str]) -> None:
    sandbox, _, tokens = prepared()
    form = urlencode({k: v.encode("utf-8", "replace") for k, v in fields.items()})
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = with_tokens(form, tokens).encode()
    answered(sandbox, Request("POST", f"/face/print/{step}", headers, body))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "BREW"]),
    start=st.sampled_from(
        ["/", *PAGE_PATHS, "/v1/sandbox-media/", "/solution/faceprint/image/query", "/oauth/2.0/token"]
    ),
    rest=st.text(max_size=40),
    headers=st.dictionaries(
        st.sampled_from(["range", "if-range", "content-type", "origin"]), st.text(max_size=20), max_size=3
    ),
    body=st.binary(max_size=60),
)
def test_any_request_gets_an_answer(
    method: str, start: str, rest: str, headers: dict[str, str], body: bytes
) -> None:
    sandbox, _, _ = prepared()
    answered(sandbox, Request(method, start + rest, headers, body))
