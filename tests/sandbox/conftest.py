"""A sandbox on a real socket, with a clock that stands still until a test moves it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from PIL import Image

from django_faceprint.sandbox.clock import SandboxClock
from django_faceprint.sandbox.server import SandboxServer

START = datetime(2026, 3, 2, 8, 20, tzinfo=UTC)
RPC = "/rpc/2.0/brain/solution/faceprint/"
NAME, NUMBER = "张三", "11010519491231002X"


class Caller:
    """Speaks to a sandbox as a server and as a browser would, with nothing of the client package."""

    def __init__(self, server: SandboxServer, http: requests.Session) -> None:
        self.server = server
        self.url = server.url
        self.http = http
        self.token = self.access_token()

    def access_token(self, app: str = "sandbox") -> str:
        parameters = {
            "grant_type": "client_credentials",
            "client_id": f"{app}-api-key",
            "client_secret": f"{app}-secret-key",
        }
        answer = self.http.post(f"{self.url}/oauth/2.0/token", params=parameters, timeout=10)
        assert answer.status_code == 200
        return str(answer.json()["access_token"])

    def post(self, path: str, data: Any, *, token: str | None = None) -> requests.Response:
        parameters = {"access_token": self.token if token is None else token, "aipVersion": "tolerated"}
        return self.http.post(f"{self.url}{RPC}{path}", params=parameters, json=data, timeout=10)

    def call(self, path: str, *, token: str | None = None, **data: Any) -> dict[str, Any]:
        answer = self.post(path, data, token=token)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("application/json")
        payload = answer.json()
        assert isinstance(payload, dict)
        return payload

    def result(self, path: str, **data: Any) -> Any:
        payload = self.call(path, **data)
        assert payload["success"] is True, payload
        assert isinstance(payload["log_id"], str)
        assert payload["log_id"].isdigit()
        return payload["result"]

    def error(self, path: str, **data: Any) -> int:
        payload = self.call(path, **data)
        if "error_code" in payload:
            assert "success" not in payload
            return int(payload["error_code"])
        assert payload["success"] is False
        assert payload["result"] is None
        return int(payload["code"])

    def generate(self, plan: int | str = 25002, **data: Any) -> str:
        return str(self.result("verifyToken/generate", plan_id=plan, **data)["verify_token"])

    def prepared(self, plan: int | str = 25002, **data: Any) -> str:
        """A token for which everything that its plan requires was submitted."""
        verify_token = self.generate(plan, **data)
        options = self.server.sandbox.store.plans[str(plan)]
        if options.identity_entry == "specified":
            self.result("idcard/submit", verify_token=verify_token, id_name=NAME, id_no=NUMBER)
        if options.match_source == "own_library":
            assert self.result("uploadMatchImage", verify_token=verify_token, image=jpeg_base64()) is None
        return verify_token

    def page(self, verify_token: str, **parameters: str) -> requests.Response:
        return self.http.get(
            f"{self.url}/face/print/", params={"token": verify_token, **parameters}, timeout=10
        )

    def step(self, step: str, verify_token: str, **fields: str) -> requests.Response:
        data = {"token": verify_token, **fields}
        return self.http.post(f"{self.url}/face/print/{step}", data=data, allow_redirects=False, timeout=10)

    def finished(self, plan: int | str = 25002, outcome: str = "pass", **fields: str) -> str:
        """A token that went through the page."""
        verify_token = self.prepared(plan)
        self.go_through(verify_token, outcome, **fields)
        return verify_token

    def go_through(self, verify_token: str, outcome: str = "pass", **fields: str) -> requests.Response:
        assert self.page(verify_token).status_code == 200
        plan = self.server.sandbox.store.sessions[verify_token].plan
        if plan.identity_entry in ("typed", "ocr"):
            assert self.step("identity", verify_token, name=NAME, number=NUMBER).status_code == 303
        answer = self.step("finish", verify_token, outcome=outcome, **fields)
        assert answer.status_code in (200, 302)
        return answer

    def get(self, url: str, **headers: str) -> requests.Response:
        return self.http.get(url, headers=headers, timeout=10)

    def control(self, method: str, path: str, data: Any = None) -> Any:
        answer = self.http.request(method, f"{self.url}/_sandbox/{path}", json=data, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def advance(self, **period: float) -> None:
        units = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
        self.control("POST", "clock", {"advance": sum(units[name] * value for name, value in period.items())})

    def ledger(self, verify_token: str) -> dict[str, Any]:
        (entry,) = self.control("GET", f"ledger?verify_token={verify_token}")["sessions"]
        assert isinstance(entry, dict)
        return entry


def jpeg_base64(size: tuple[int, int] = (320, 400), kind: str = "JPEG") -> str:
    out = io.BytesIO()
    Image.new("RGB", size, (200, 180, 160)).save(out, kind)
    return base64.b64encode(out.getvalue()).decode()


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    with SandboxServer(
        clock=SandboxClock(base=lambda: START), qps=0, image_size=40_000, video_size=300_000
    ) as server:
        yield server


@pytest.fixture
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def caller(server: SandboxServer, http: requests.Session) -> Caller:
    return Caller(server, http)
