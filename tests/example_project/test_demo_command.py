"""What the demo refuses before it touches anything."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from example_project.demo.processes import free_port

ROOT = Path(__file__).resolve().parents[2]


def refusal(folder: Path, database: str) -> str:
    """The demo's words about *database*; what an earlier demo left in its folder is untouched."""
    folder.mkdir()
    (folder / ".faceprint-demo").touch()
    (folder / "key").write_text("of the demo before")
    done = subprocess.run(
        [
            *(sys.executable, "manage.py", "faceprint_demo", "--once", "--folder", str(folder)),
            *("--database", database),
            *("--web-port", str(free_port()), "--sandbox-port", str(free_port())),
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert (folder / "key").read_text() == "of the demo before"
    return done.stdout + done.stderr


def test_a_database_that_is_not_empty(tmp_path: Path) -> None:
    file = tmp_path / "rows.sqlite3"
    with sqlite3.connect(file) as rows:
        rows.execute("CREATE TABLE somebody (name text)")
    rows.close()
    assert "holds tables already" in refusal(tmp_path / "demo", f"sqlite:///{file}")


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot be reached" in refusal(tmp_path / "demo", f"sqlite:///{tmp_path}/no/such/folder/rows")


def test_a_url_that_is_none(tmp_path: Path) -> None:
    said = refusal(tmp_path / "demo", "postgres://demo:s3cret@127.0.0.1:port/demo")
    assert "is not understood" in said
    assert "s3cret" not in said
