"""``faceprint_verify_bundle`` and the same without Django: sentences, JSON, exit status."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_faceprint import bundle_check
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


@pytest.fixture
def published(tmp_path: Path) -> str:
    """The file with the maker's public keys."""
    path = tmp_path / "published.pem"
    path.write_text(run("--public-keys")[1])
    return str(path)


def damage(path: Path) -> None:
    data = path.read_bytes()
    position = data.index(b"\xff\xd8\xff") + 20
    path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])


def alone(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program of an auditor, who has no project."""
    command = [sys.executable, "-m", "django_faceprint.bundle_check", *arguments]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def key_line(pem: str) -> str:
    return pem.splitlines()[1]


def test_a_bundle_of_this_installation(path: Path) -> None:
    with CaptureQueriesContext(connection) as queries:
        status, out = run(str(path))
    assert (status, len(queries)) == (0, 0)
    assert "by root" in out
    assert "0 findings" in out
    assert f"Signed with the public key {key_line(public_keys('bundle')[0])}" in out


def test_a_changed_bundle(path: Path) -> None:
    damage(path)
    status, out = run(str(path))
    assert status == 1
    assert "media/face.jpg: changed." in out
    assert "1 findings" in out


def test_a_bundle_of_another_installation(path: Path, published: str, tmp_path: Path, settings: Any) -> None:
    before = settings.FACEPRINT["ENCRYPTION_KEYS"]
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [generate_key()]}
    status, out = run(str(path))
    assert status == 2
    assert "You do not trust this key yet" in out
    assert run(str(path), "--key", published)[0] == 0
    other = tmp_path / "other.pem"
    other.write_text(public_keys("bundle")[0])
    assert run(str(path), "--key", str(other))[0] == 2
    assert run(str(path), "--key", str(other), "--key", published)[0] == 0
    # After a rotation, while the old key is still configured.
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [generate_key(), *before]}
    assert run(str(path))[0] == 0
    assert run("--public-keys")[1].count("BEGIN PUBLIC KEY") == 2


def test_json(path: Path) -> None:
    damage(path)
    status, out = run(str(path), "--json")
    report = json.loads(out)
    assert (status, report["status"], report["identity"]) == (1, 1, "masked")
    assert report["findings"] == [{"kind": "changed", "path": "media/face.jpg", "line": 0}]


def test_public_keys_are_printed_as_pem() -> None:
    assert run("--public-keys") == (0, public_keys("bundle")[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Which file"),
        (("{path}", "--key", __file__), "a PEM file"),
        (("{path}", "--key", "{folder}/missing"), "No such file"),
        (("{folder}",), "directory"),
        (("{folder}/missing",), "No such file"),
        ((__file__,), "not a ZIP file"),
    ],
)
def test_a_file_that_cannot_be_verified(path: Path, arguments: tuple[str, ...], message: str) -> None:
    given = [text.format(path=path, folder=path.parent) for text in arguments]
    with pytest.raises(CommandError, match=message) as caught:
        run(*given)
    assert caught.value.returncode == 3


def test_without_django(path: Path, published: str) -> None:
    done = alone(str(path), "--key", published)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 findings" in done.stdout
    assert alone(str(path)).returncode == 2
    damage(path)
    assert alone(str(path), "--key", published).returncode == 1
    done = alone(__file__)
    assert (done.returncode, done.stderr) == (
        3,
        "This is not a ZIP file as bundles are, or it is incomplete.\n",
    )
    assert alone(str(path), "--key", __file__).returncode == 3
    assert alone(str(path.parent)).returncode == 3


def test_the_program_works_without_the_package(path: Path, published: str, tmp_path: Path) -> None:
    program = tmp_path / "check.py"
    shutil.copy(bundle_check.__file__, program)
    command = [sys.executable, "-I", str(program), str(path), "--key", published]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_django_is_not_imported() -> None:
    code = (
        "import sys, django_faceprint.bundle_check; print([name for name in sys.modules if name == 'django'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_chinese(path: Path, settings: Any) -> None:
    settings.LANGUAGE_CODE = "zh-hans"
    damage(path)
    assert "media/face.jpg：内容已被更改。" in run(str(path))[1]
