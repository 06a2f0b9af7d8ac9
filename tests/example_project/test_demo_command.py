"""What the demo refuses before it touches anything."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.demo import run_demo


def refusal(folder: Path, database: str) -> str:
    """The demo's words about *database*; what an earlier demo left in its folder is untouched."""
    folder.mkdir()
    (folder / ".faceprint-demo").touch()
    (folder / "key").write_text("of the demo before")
    code, output = run_demo(folder, "--database", database, timeout=60)
    assert code == 1
    assert (folder / "key").read_text() == "of the demo before"
    return output


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
