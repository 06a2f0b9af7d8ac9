"""The rules of tests/conftest.py for all tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(__file__).resolve().parent.parent


def test_no_other_machine_is_reached() -> None:
    with pytest.raises(OSError, match=r"may only connect to this machine, not to 192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_debug_is_kept_on() -> None:
    assert settings.DEBUG is True


@pytest.mark.parametrize(
    ("source", "plain", "strict"),
    [
        ("import pytest\ndef test_it(): pytest.skip('no browser')", "1 skipped", "1 failed"),
        (
            "import pytest\n@pytest.mark.skipif(True, reason='no browser')\ndef test_it(): pass",
            "1 skipped",
            "1 error",
        ),
        ("import pytest\npytest.skip('no browser', allow_module_level=True)", "1 skipped", "1 error"),
        (
            "import pytest\n@pytest.mark.live\ndef test_it(): pytest.skip('no account')",
            "1 skipped",
            "1 skipped",
        ),
        ("import pytest\n@pytest.mark.xfail\ndef test_it(): assert False", "1 xfailed", "1 xfailed"),
        ("def test_it(): pass", "1 passed", "1 passed"),
    ],
)
def test_where_no_skip_is_allowed_a_skip_fails(tmp_path: Path, source: str, plain: str, strict: str) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *", encoding="utf-8")
    (tmp_path / "test_it.py").write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += ["-c", str(ROOT / "pyproject.toml"), str(tmp_path / "test_it.py")]
    for flag, expected in (("", plain), ("1", strict)):
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FACEPRINT_NO_SKIPS": flag},
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert f"{expected} in " in done.stdout.splitlines()[-1]
        assert (done.returncode in (0, 5)) == (" failed" not in expected and " error" not in expected)
        if expected != plain:
            assert "No skip is allowed here" in done.stdout
            assert "no browser" in done.stdout
