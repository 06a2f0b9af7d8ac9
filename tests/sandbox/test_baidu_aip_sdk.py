"""Baidu's own Python SDK against the sandbox: an outside witness for tokens, envelopes and errors."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from django_faceprint.sandbox.server import SandboxServer

with warnings.catch_warnings():
    # The SDK is old and warns on import.
    warnings.simplefilter("ignore")
    aip_base = pytest.importorskip("aip.base", reason="baidu-aip is not installed")

RPC = "/rpc/2.0/brain/solution/faceprint/"


def sdk(server: SandboxServer, monkeypatch: pytest.MonkeyPatch, secret: str = "sandbox-secret-key") -> Any:
    # Name-mangled and without a setter: the SDK knows only Baidu's host.
    monkeypatch.setattr(aip_base.AipBase, "_AipBase__accessTokenUrl", f"{server.url}/oauth/2.0/token")
    return aip_base.AipBase("20000001", "sandbox-api-key", secret)


def post(client: Any, server: SandboxServer, path: str, **data: Any) -> dict[str, Any]:
    answer = client.post(f"{server.url}{RPC}{path}", json.dumps(data), {"Content-Type": "application/json"})
    assert isinstance(answer, dict)
    return answer


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def client(server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    client = sdk(server, monkeypatch)
    yield client
    client.s.close()


def test_the_sdk_gets_its_token_and_calls_with_it(server: SandboxServer, client: Any) -> None:
    result = post(client, server, "verifyToken/generate", plan_id=25001)["result"]
    assert len(result["verify_token"]) == 24
    assert client._isCloudUser is False
    assert client._authObj["expires_in"] == 2592000
    ledger = server.sandbox.ledger()
    assert ledger["oauth_tokens"] == 1
    assert ledger["calls"]["verify_token_generate"] == {"ok": 1}


def test_the_sdk_understands_110_and_authenticates_again(server: SandboxServer, client: Any) -> None:
    post(client, server, "verifyToken/generate", plan_id=25001)
    server.sandbox.store.revoke_access_tokens()
    assert post(client, server, "verifyToken/generate", plan_id=25001)["success"] is True
    ledger = server.sandbox.ledger()
    assert ledger["oauth_tokens"] == 2
    assert ledger["calls"]["verify_token_generate"] == {"ok": 2, "110": 1}


@pytest.mark.parametrize("code", [100, 111])
def test_the_sdk_passes_other_authentication_errors_on(server: SandboxServer, client: Any, code: int) -> None:
    server.sandbox.add_faults({"endpoint": "result_detail", "kind": "gateway", "code": code})
    assert post(client, server, "result/detail", verify_token="x")["error_code"] == code
    assert server.sandbox.ledger()["oauth_tokens"] == 1


def test_the_sdk_reads_a_service_error(server: SandboxServer, client: Any) -> None:
    answer = post(client, server, "verifyToken/generate", plan_id=99999)
    assert (answer["success"], answer["code"]) == (False, 283435)


def test_the_sdk_takes_a_wrong_secret_for_an_account_that_signs(
    server: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = sdk(server, monkeypatch, secret="wrong")
    with client.s:
        answer = client._auth()
    assert answer["error"] == "invalid_client"
    assert answer["error_description"] == "Client authentication failed"
    # An error body has no brain_all_scope: the SDK now believes in AK/SK signatures (API reference 2.3).
    assert client._isCloudUser is True
