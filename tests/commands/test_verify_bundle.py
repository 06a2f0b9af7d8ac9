"""``faceprint_verify_bundle`` and the same without Django: words, JSON, exit status."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_faceprint.jobs.bundle import write_bundle
from django_faceprint.privacy.keys import generate_key
from django_faceprint.privacy.signatures import public_keys
from tests import factories

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path, settings: Any) -> Path:
    """A bundle with a picture."""
    settings.LANGUAGE_CODE = "en"
    session = factories.make_passed_session()
    factories.make_stored_asset(session, "face")
    path = tmp_path / "bundle.zip"
    with path.open("wb") as out:
        write_bundle(session, out, unmasked=False, language="en", made_by="root")
    return path


def run(*arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    try:
        call_command("faceprint_verify_bundle", *arguments, stdout=out, no_color=True)
    except SystemExit as stop:
        return int(stop.code or 0), out.getvalue()
    return 0, out.getvalue()


def damage(path: Path) -> None:
    data = path.read_bytes()
    position = data.index(b"\xff\xd8\xff") + 20
    path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])


def alone(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program of an auditor, who has no project."""
    command = [sys.executable, "-m", "django_faceprint.bundle_check", *arguments]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_bundle_of_ours(path: Path) -> None:
    with CaptureQueriesContext(connection) as queries:
        status, out = run(str(path))
    assert (status, len(queries)) == (0, 0)
    assert "by root" in out
    assert "0 findings" in out
    assert f"Signed with the public key {public_keys('bundle')[0]}" in out


def test_a_changed_bundle(path: Path) -> None:
    damage(path)
    status, out = run(str(path))
    assert status == 1
    assert "media/face.jpg: cannot be unpacked." in out
    assert "1 findings" in out


def test_a_bundle_of_somebody_else(path: Path, settings: Any) -> None:
    key = public_keys("bundle")[0]
    before = settings.FACEPRINT["ENCRYPTION_KEYS"]
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [generate_key()]}
    status, out = run(str(path))
    assert status == 2
    assert "You do not know this key yet" in out
    assert run(str(path), "--key", key.upper())[0] == 0
    assert run(str(path), "--key", "0" * 64)[0] == 2
    # After a rotation, as long as the old key is configured.
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [generate_key(), *before]}
    assert run(str(path))[0] == 0


def test_json(path: Path) -> None:
    damage(path)
    status, out = run(str(path), "--json")
    told = json.loads(out)
    assert (status, told["status"], told["count"]) == (1, 1, 1)
    assert told["findings"] == [{"kind": "unreadable", "path": "media/face.jpg", "line": 0}]


def test_public_keys_are_told() -> None:
    assert run("--public-keys") == (0, public_keys("bundle")[0] + "\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Which file"),
        (("{path}", "--key", "12"), "64 hexadecimal digits"),
        (("{folder}",), "directory"),
        (("{folder}/missing",), "No such file"),
        ((__file__,), "no ZIP file"),
    ],
)
def test_what_cannot_be_verified(path: Path, arguments: tuple[str, ...], message: str) -> None:
    given = [text.format(path=path, folder=path.parent) for text in arguments]
    with pytest.raises(CommandError, match=message) as caught:
        run(*given)
    assert caught.value.returncode == 3


def test_without_django(path: Path) -> None:
    key = public_keys("bundle")[0]
    done = alone(str(path), "--key", key)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 findings" in done.stdout
    assert alone(str(path)).returncode == 2
    damage(path)
    assert alone(str(path), "--key", key).returncode == 1
    done = alone(__file__)
    assert (done.returncode, done.stderr) == (3, "This is no ZIP file, or its end is missing.\n")
    assert alone(str(path), "--key", "12").returncode == 3
    assert alone(str(path.parent)).returncode == 3


def test_django_is_not_imported() -> None:
    code = (
        "import sys, django_faceprint.bundle_check; print([name for name in sys.modules if name == 'django'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_chinese(path: Path, settings: Any) -> None:
    settings.LANGUAGE_CODE = "zh-hans"
    damage(path)
    assert "media/face.jpg：无法解压。" in run(str(path))[1]
