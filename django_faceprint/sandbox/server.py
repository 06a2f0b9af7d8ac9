"""The sandbox behind a real socket: HTTP/1.1 with keep-alive, one thread per connection."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Event, Thread
from types import TracebackType
from typing import Any, Self

from .control import ControlApi, is_loopback
from .core import Sandbox
from .message import Request, Response

MAX_BODY = 32 * 1024 * 1024
IDLE_SECONDS = 60.0
MAX_LOGGED_PATH_LENGTH = 100
PHRASES = {status.value: status.phrase for status in HTTPStatus}


class SandboxServer:
    """Serves a :class:`~django_faceprint.sandbox.core.Sandbox` on ``host:port`` (0: any free port).

    A context manager: inside, the server answers on :attr:`url`. ``options`` go to :class:`Sandbox` unless
    one is given. ``log`` gets one line per request (method, path without query, status), never a token.

    Raises ``OSError`` when the port is in use and ``ValueError`` for a host that is not loopback,
    unless ``allow_remote``.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        sandbox: Sandbox | None = None,
        allow_remote: bool = False,
        log: Callable[[str], None] | None = None,
        **options: Any,
    ) -> None:
        if not allow_remote and not is_loopback(host):
            raise ValueError("The sandbox serves loopback addresses only.")
        if sandbox is not None and options:
            raise TypeError("options are for a new sandbox, not for a given one")
        public_url = options.pop("public_url", None)
        self._http = _HTTPServer(
            (host, port), _Handler, family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._http.server_address[1]}"
        try:
            self.sandbox = (
                sandbox if sandbox is not None else Sandbox(public_url=public_url or self.url, **options)
            )
        except BaseException:
            self._http.server_close()
            raise
        if sandbox is not None and sandbox.store.public_url is None:
            sandbox.store.public_url = self.url
        self._http.control = ControlApi(self.sandbox)
        self._http.log = log
        self._thread: Thread | None = None

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._http.server_address[1])

    @property
    def h5_url(self) -> str:
        """The address of the H5 page, without parameters."""
        return f"{self.url}/face/print/"

    def start(self) -> None:
        """Begin to answer, in a thread of its own."""
        self._thread = Thread(
            target=self._http.serve_forever,
            kwargs={"poll_interval": 0.2},
            name="faceprint-sandbox",
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering, close all connections and free the port. May be called twice."""
        self._http.stopping.set()
        if self._thread is not None:
            # Wakes the selector at once where the system allows; elsewhere it wakes by itself.
            with suppress(OSError):
                self._http.socket.shutdown(socket.SHUT_RDWR)
            self._http.shutdown()
            self._thread.join()
            self._thread = None
        self._http.close_connections()
        self._http.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _loggable(request: Request) -> str:
    """The path without its query. Paths of media contain a token and are left out."""
    path = request.target.partition("?")[0]
    if path.startswith("/v1/"):
        return "/v1/…"
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in path[:MAX_LOGGED_PATH_LENGTH])


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True
    request_queue_size = 256
    control: ControlApi
    log: Callable[[str], None] | None

    def __init__(self, address: tuple[str, int], handler: type[_Handler], *, family: int) -> None:
        self.address_family = family
        self.stopping = Event()
        self._connections: set[socket.socket] = set()
        self._change = Condition()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # The base class would look up the host's name, which can take seconds without a resolver.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._change:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._change:
            self._connections.discard(request)
            self._change.notify_all()

    def close_connections(self) -> None:
        with self._change:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._change.wait_for(lambda: not self._connections, timeout=5)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away is no error; anything else is a bug of the sandbox and must be visible.
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "django-faceprint-sandbox"
    sys_version = ""
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    server: _HTTPServer

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- as in the base class
        """Silent: the base class would print the query, and with it tokens."""

    def _serve(self) -> None:
        body = self._body()
        if body is None:
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body, self.client_address[0])
        response = self.server.control.handle(request)
        if self.server.log is not None:
            self.server.log(f"{self.command} {_loggable(request)} {response.status}")
        try:
            self._send(response)
        except (ConnectionError, TimeoutError):
            # The client went away, often because a test wants it to.
            self.close_connection = True

    def _body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding"):
            self._refuse(HTTPStatus.LENGTH_REQUIRED)
            return None
        text = self.headers.get("Content-Length", "0")
        if not text.isascii() or not text.isdigit():
            self._refuse(HTTPStatus.BAD_REQUEST)
            return None
        if len(text) > 12 or int(text) > MAX_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return None
        try:
            body = self.rfile.read(int(text))
        except (ConnectionError, TimeoutError):
            body = b""
        if len(body) != int(text):
            self.close_connection = True
            return None
        return body

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True
        with suppress(ConnectionError, TimeoutError):
            self._send(Response.of_bytes(status.phrase.encode(), "text/plain", status=status))

    def _send(self, response: Response) -> None:
        fault = response.fault
        kind = fault.kind if fault else None
        if fault and fault.kind in ("hang", "delay") and self._wait(fault.seconds):
            return
        if kind == "hang":
            self.close_connection = True
            return
        if fault and kind == "reset" and fault.after_bytes is None:
            self._reset()
            return
        no_body = self.command == "HEAD" or response.status in (204, 304)
        length = response.length
        limit = length
        if fault and kind in ("truncate", "reset") and not no_body:
            limit = min(length, length // 2 if fault.after_bytes is None else fault.after_bytes)
        if kind in ("truncate", "reset"):
            self.close_connection = True
        head = self._head(response)
        if no_body:
            self.wfile.write(head)
            response.completed()
            return
        sent = 0
        for piece in response.chunks():
            piece = piece[: limit - sent]
            if fault and kind == "drip":
                self.wfile.write(head)
                head = b""
                for at in range(0, len(piece), fault.chunk):
                    self.wfile.write(piece[at : at + fault.chunk])
                    if self._wait(fault.seconds):
                        return
            else:
                self.wfile.write(head + piece)
                head = b""
            sent += len(piece)
            if sent >= limit:
                break
        if head:
            self.wfile.write(head)
        if kind == "reset":
            self._reset()
        elif sent == length:
            response.completed()

    def _head(self, response: Response) -> bytes:
        # Written by hand, so that head and first piece of the body leave in one segment.
        phrase = PHRASES.get(response.status, "")
        fields = [
            *response.headers,
            ("Content-Length", str(response.length)),
            ("Server", self.server_version),
            ("Date", self.date_time_string()),
        ]
        if self.close_connection:
            fields.append(("Connection", "close"))
        lines = [
            f"{self.protocol_version} {response.status} {phrase}",
            *(f"{name}: {text}" for name, text in fields),
        ]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"

    def _wait(self, seconds: float) -> bool:
        """Sleep. True if the server is stopping."""
        if self.server.stopping.wait(seconds):
            self.close_connection = True
            return True
        return False

    def _reset(self) -> None:
        # Lingering for no time makes the close send RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
