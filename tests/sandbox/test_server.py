"""The socket around the core, and the management command around the socket."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from django.core.management import CommandError, call_command

from django_faceprint.sandbox.control import is_loopback
from django_faceprint.sandbox.server import SandboxServer

from .conftest import Caller

ROOT = Path(__file__).resolve().parents[2]


def talk(server: SandboxServer, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(data)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


def test_one_connection_serves_many_requests(server: SandboxServer) -> None:
    data = (b"GET /_sandbox/health HTTP/1.1\r\nHost: x\r\n\r\n" * 3)[:-2] + b"Connection: close\r\n\r\n"
    assert talk(server, data).count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Transfer-Encoding: chunked", b"411"),
        (b"Content-Length: -1", b"400"),
        (b"Content-Length: x", b"400"),
        (b"Content-Length: 99999999999", b"413"),
    ],
)
def test_bodies_that_are_not_read_are_refused(server: SandboxServer, head: bytes, status: bytes) -> None:
    answer = talk(server, b"POST /oauth/2.0/token HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close" in answer


def test_the_server_survives_broken_requests(server: SandboxServer, caller: Caller) -> None:
    assert b"400" in talk(server, b"nonsense\r\n\r\n")
    assert b"404" in talk(server, b"GET /\xff\xfe%ff%00 HTTP/1.1\r\nConnection: close\r\n\r\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"POST /oauth/2.0/token HTTP/1.1\r\nContent-Length: 100\r\n\r\nshort")
    assert caller.control("GET", "health")["status"] == "ok"


def test_many_callers_are_answered_at_once(server: SandboxServer) -> None:
    def session(number: int) -> str:
        with requests.Session() as http:
            http.trust_env = False
            caller = Caller(server, http)
            verify_token = caller.finished(25001 + number % 7)
            caller.result("result/detail", verify_token=verify_token)
            return verify_token

    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(session, range(28)))
    assert len(set(tokens)) == 28
    ledger = server.sandbox.ledger(hashes=False)
    assert [entry["state"] for entry in ledger["sessions"]] == ["passed"] * 28
    assert ledger["calls"]["result_detail"] == {"ok": 28}


def test_closing_ends_hanging_requests() -> None:
    server = SandboxServer()
    server.start()
    server.sandbox.add_faults({"endpoint": "oauth_token", "kind": "hang", "seconds": 3000})
    reached = threading.Event()

    def hang() -> None:
        with requests.Session() as http:
            http.trust_env = False
            reached.set()
            with pytest.raises(requests.ConnectionError):
                http.get(f"{server.url}/oauth/2.0/token", timeout=60)

    thread = threading.Thread(target=hang)
    thread.start()
    assert reached.wait(10)
    while not server.sandbox.faults.as_json()[0]["hits"]:
        pass
    server.close()
    server.close()
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), timeout=10).close()


def test_the_log_has_no_query_and_no_token(http: requests.Session) -> None:
    lines: list[str] = []
    with SandboxServer(log=lines.append, qps=0) as server:
        caller = Caller(server, http)
        verify_token = caller.finished(25001)
        caller.get(caller.result("result/media/query", verify_token=verify_token)["images"][0])
        caller.get(caller.result("result/simple", verify_token=verify_token)["image"])
        caller.get(f"{server.url}/%0Aforged?a=1")
    assert "GET /%0Aforged 404" in lines
    assert "POST /rpc/2.0/brain/solution/faceprint/result/media/query 200" in lines
    assert "GET /v1/… 200" in lines
    assert not any(verify_token in line or caller.token in line or "?" in line for line in lines)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "sandbox.example", "::", ""])
def test_other_hosts_than_loopback_need_allow_remote(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ValueError, match="loopback"):
        SandboxServer(host)
    with pytest.raises(CommandError, match="--allow-remote"):
        call_command("faceprint_sandbox", host=host)


def test_loopback_hosts_are_recognised() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "localhost", "::1")))
    with SandboxServer("0.0.0.0", allow_remote=True, public_url="http://sandbox.example/") as server:
        assert server.sandbox.base_url == "http://sandbox.example"


def test_a_port_in_use_names_the_remedy(server: SandboxServer) -> None:
    with pytest.raises(CommandError, match=rf"{server.port}.*--port"):
        call_command("faceprint_sandbox", port=server.port)
    with pytest.raises(CommandError):
        call_command("faceprint_sandbox", port=99999)
    with pytest.raises(CommandError, match="video_size"):
        call_command("faceprint_sandbox", port=0, video_size=-1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal(
    tmp_path: Path, number: signal.Signals, http: requests.Session
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("3600")
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        "faceprint_sandbox",
        "--port=0",
        f"--clock-file={clock}",
        "--qps=0",
    ]
    process = subprocess.Popen(
        [*command, "--video-size=50000", "--no-color"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        banner = "".join(lines)
        url = re.search(r"API +(http://127\.0\.0\.1:\d+)", banner)
        assert url is not None
        assert "sandbox-api-key / sandbox-secret-key" in banner
        assert all(plan in banner for plan in ("25001", "25007"))
        health = http.get(f"{url[1]}/_sandbox/health", timeout=10).json()
        assert health["offset"] == 3600
        http.post(f"{url[1]}/_sandbox/clock", json={"advance": 1}, timeout=10)
        assert clock.read_text() == "3601.0"
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "stopped" in out


# A host without any database: the command must not want one.
SCRIPT = """
import sys
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_faceprint"],
                   SECRET_KEY="x", DATABASES={}, LANGUAGE_CODE="en", DEBUG=True)
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""
