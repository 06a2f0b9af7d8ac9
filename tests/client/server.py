"""A small HTTP server on 127.0.0.1 that answers what a test has scripted, well-behaved or not."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

ACCESS_TOKEN = "24.0123456789abcdef0123456789abcdef.2592000.1797600000.100001-20000002"


@dataclass(frozen=True)
class Request:
    """One request as received."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    target: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Respond:
    """A complete answer. ``length`` overrides the Content-Length that is claimed; None leaves it out."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | bool | None = True

    def __call__(self, handler: Handler) -> None:
        handler.send_response(self.status)
        length = len(self.body) if self.length is True else self.length
        headers: dict[str, str] = {"Content-Type": "application/json", **self.headers}
        if isinstance(length, int) and "Transfer-Encoding" not in headers:
            headers.setdefault("Content-Length", str(length))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(self.body)
        if length != len(self.body):
            handler.close_connection = True


Step = Callable[["Handler"], None]


def answer(document: Any, status: int = 200, **headers: str) -> Respond:
    """A JSON answer."""
    return Respond(
        json.dumps(document, ensure_ascii=False).encode(),
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
    )


def success(result: Any, **more: Any) -> Respond:
    """The success envelope of API reference 3.0."""
    return answer({"success": True, "result": result, "log_id": "1800000001", **more})


def failure(code: Any, message: str = "", **more: Any) -> Respond:
    """The service-layer error of API reference 3.0."""
    return answer(
        {"success": False, "result": None, "code": code, "message": message, "log_id": "1800000009", **more}
    )


def gateway(code: Any, message: str = "") -> Respond:
    """The gateway-layer error of API reference 3.0."""
    return answer({"error_code": code, "error_msg": message})


def token(value: str = ACCESS_TOKEN, expires_in: Any = 2592000) -> Respond:
    """The OAuth success of API reference 2.1."""
    return answer(
        {
            "refresh_token": "25.refresh",
            "expires_in": expires_in,
            "scope": "public brain_all_scope",
            "session_key": "session-key",
            "access_token": value,
            "session_secret": "session-secret",
        }
    )


def hang(handler: Handler) -> None:
    """Never answer, until the test is over."""
    handler.script.over.wait(10)
    handler.close_connection = True


def reset(handler: Handler) -> None:
    """Break the connection with a TCP reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def drip(prefix: bytes, filler: bytes = b" ") -> Step:
    """Send ``prefix``, then one byte after the other for as long as somebody listens."""

    def step(handler: Handler) -> None:
        handler.close_connection = True
        try:
            handler.wfile.write(prefix)
            while not handler.script.over.wait(0.02):
                handler.wfile.write(filler)
        except OSError:
            return

    return step


class Script:
    """What the server answers, by path, in order; and what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.over = threading.Event()
        self._steps: dict[str, deque[Step]] = defaultdict(deque)
        self._always: dict[str, Step] = {}
        self._guard = threading.Lock()
        self.url = ""
        self.port = 0

    def then(self, path: str, *steps: Step) -> None:
        """Answer the next requests for paths ending so, one by one."""
        with self._guard:
            self._steps[path].extend(steps)

    def always(self, path: str, step: Step) -> None:
        """Answer every other request for paths ending so."""
        self._always[path] = step

    def asked(self, path: str) -> list[Request]:
        """The requests for paths ending so."""
        return [request for request in self.requests if request.path.endswith(path)]

    def step_for(self, request: Request) -> Step:
        with self._guard:
            self.requests.append(request)
            for path, steps in self._steps.items():
                if request.path.endswith(path) and steps:
                    return steps.popleft()
        for path, step in self._always.items():
            if request.path.endswith(path):
                return step
        return Respond(b"nothing scripted", 599)


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the script."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    script: Script

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(
            method=self.command,
            path=parts.path,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            target=self.path,
        )
        self.script.step_for(request)(self)

    do_GET = do_POST = _serve

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away early are what these tests are about."""


class RunningServer:
    """The server in a thread of its own; ``with RunningServer() as script``."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.script = Script()
        handler = type("ScriptedHandler", (Handler,), {"script": self.script})
        self._server = _Server(("127.0.0.1", 0), handler)
        if context is not None:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.script.port = self._server.server_address[1]
        scheme = "http" if context is None else "https"
        self.script.url = f"{scheme}://127.0.0.1:{self.script.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Script:
        self._thread.start()
        return self.script

    def __exit__(self, *exception: object) -> None:
        self.script.over.set()
        self._server.shutdown()
        self._thread.join(5)
        self._server.socket.close()
