"""The demo as a test: real processes, a worker killed in mid-download, and a search for anything in clear."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import subprocess
import uuid
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.demo import run_demo
from tests.privacy import reference


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a demo whose worker was killed in the middle of its downloads."""
    folder = tmp_path_factory.mktemp("demo") / "work"
    code, output = run_demo(folder, "--kill-worker", timeout=400)
    assert code == 0, output[-5000:]
    return folder, output


def test_a_killed_worker_costs_nothing_but_time(demo: tuple[Path, str]) -> None:
    _, output = demo
    assert "Killed the worker with SIGKILL in the middle of its downloads." in output
    assert "25 verifications: 3 expired, 6 failed, 16 passed" in output
    assert re.search(r"^Lost\s+0$", output, re.MULTILINE)
    assert "All as it should be." in output


def test_nothing_of_the_demo_is_left_in_clear(demo: tuple[Path, str]) -> None:
    folder, output = demo
    keys = [path.read_text().strip() for path in (folder / "keys").iterdir() if path.name != "django.key"]
    assert len(keys) == 2
    tokens = tokens_of(folder)
    assert len(tokens) > 20
    secrets = [
        "张三",
        "李四",
        "11010519491231002X",
        "810000199408230021",
        "sandbox-secret-key",
        *keys,
        *tokens,
    ]
    searched = 0
    for path in folder.rglob("*"):
        if not path.is_file() or path.parent.name == "keys":
            continue
        content = path.read_bytes()
        searched += 1
        # The sandbox prints the credentials that it accepts; they are no secret of anybody's.
        public = {"sandbox-secret-key"} if path.name == "sandbox.log" else set()
        for secret in set(secrets) - public:
            for form in forms(secret):
                assert form not in content, path.relative_to(folder)
        # A verify_token or an access_token inside a URL, wherever it may have been written.
        assert not re.search(rb"(?:access_token|verify_token|token)=[A-Za-z0-9.\-]{20,}", content), path.name
    assert searched > 100
    for secret in secrets:
        assert secret not in output


def tokens_of(folder: Path) -> list[str]:
    """The tokens that the demo's database holds, opened with its key and the published format alone."""
    key = base64.urlsafe_b64decode((folder / "keys" / "encryption.key").read_text())
    (database,) = folder.glob("*.sqlite3")
    tokens = []
    with sqlite3.connect(database) as rows:
        for table, column, label in (
            ("verificationsession", "verify_token", "session.verify_token"),
            ("accesstoken", "token", "access_token.token"),
        ):
            query = f"SELECT public_id, {column} FROM faceprint_{table} WHERE {column} IS NOT NULL"  # noqa: S608
            for row, sealed in rows.execute(query):
                binding = reference.field_binding(label, uuid.UUID(row))
                tokens.append(reference.open_sealed(key, f"field/{label}", bytes(sealed), binding).decode())
    rows.close()
    return tokens


def forms(secret: str) -> set[bytes]:
    """How a text may lie in a file: as it is, in JSON, in a URL, in base64, in UTF-16."""
    plain = secret.encode()
    found = {
        plain,
        json.dumps(secret).strip('"').encode(),
        quote(secret).encode(),
        base64.b64encode(plain).rstrip(b"=")[:-1],
        secret.encode("utf-16-le"),
    }
    # A few bytes occur in encrypted files by chance.
    return {form for form in found if len(form) >= 6}


def test_all_processes_are_gone(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    left = subprocess.run(
        ["pgrep", "--full", "--list-full", str(folder)], capture_output=True, text=True, check=False
    )
    assert left.stdout == ""
