"""The demo refuses an unusable database before it changes anything."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.demo import run_demo


def refusal(folder: Path, database: str) -> str:
    """The demo's output for *database*, which leaves the files of an earlier demo as they are."""
    folder.mkdir()
    (folder / ".faceprint-demo").touch()
    (folder / "key").write_text("of the demo before")
    code, output = run_demo(folder, "--database", database, timeout=60)
    assert code == 1
    assert (folder / "key").read_text() == "of the demo before"
    return output


def test_a_database_with_tables_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.sqlite3"
    with sqlite3.connect(file) as rows:
        rows.execute("CREATE TABLE somebody (name text)")
    rows.close()
    assert "already has tables" in refusal(tmp_path / "demo", f"sqlite:///{file}")


def test_a_missing_database_is_refused(tmp_path: Path) -> None:
    assert "cannot be reached" in refusal(tmp_path / "demo", f"sqlite:///{tmp_path}/no/such/folder/rows")


def test_an_invalid_url_is_refused_without_its_password(tmp_path: Path) -> None:
    output = refusal(tmp_path / "demo", "postgres://demo:s3cret@127.0.0.1:port/demo")
    assert "is not understood" in output
    assert "s3cret" not in output
