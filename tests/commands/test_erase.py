"""Erasing from the command line."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError
from django.utils import translation

from django_faceprint.models import AccessLog, Erasure, MediaAsset
from tests.commands.conftest import Run
from tests.factories import NAME, NUMBER, make_passed_session, make_session, make_stored_asset

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def frozen(clock: Any) -> None:
    """Time stands still."""


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Any:
    def on_stdin(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return on_stdin


def test_a_person_by_number(run: Run, typed: Any, tmp_path: Path) -> None:
    session = make_passed_session()
    make_stored_asset(session, MediaAsset.Kind.FACE)
    typed(f"{NUMBER}\n")
    path = tmp_path / "certificate.json"
    done = run(
        "faceprint_erase", "--reason", "request 17", "--actor", "dpo", "--yes", "--certificate", str(path)
    )
    assert done.status == 0
    assert "1 records with 1 files" in done.out
    assert f"Erased: 1 records, 1 files. Erasure {Erasure.objects.get().public_id}." in done.out
    for secret in (NAME, NUMBER):
        assert secret not in done.out
    shown = json.loads(path.read_text(encoding="utf-8"))
    assert (shown["erased_by"], shown["reason"], shown["files"]) == ("dpo", "request 17", 1)
    assert shown["storage_verified_at"]
    assert AccessLog.objects.get().actor_name == "dpo"
    typed(NUMBER)
    assert run("faceprint_erase", "--reason", "again", "--yes").status == 1


def test_single_records(run: Run) -> None:
    first, second = make_session(), make_session()
    done = run("faceprint_erase", "--session", str(first.public_id), "--reason", "r", "--yes")
    assert done.status == 0
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.identity_number, second.identity_number) == (None, NUMBER)
    assert run("faceprint_erase", "--session", str(uuid4()), "--reason", "r", "--yes").status == 1


def test_a_dry_run_erases_nothing(run: Run, typed: Any) -> None:
    session = make_session()
    typed(NUMBER)
    done = run("faceprint_erase", "--dry-run")
    assert done.status == 0
    assert str(session.public_id) in done.out
    assert not Erasure.objects.exists()


def test_nothing_goes_without_a_reason_or_a_confirmation(run: Run, typed: Any) -> None:
    make_session()
    with translation.override("en"):
        for arguments, words in (
            (("--yes",), "--reason is required"),
            (("--reason", "r"), "--yes is needed"),
            (("--reason", "x" * 501, "--yes"), "at most 500"),
            (("--session", "x", "--reason", "r"), "is a UUID"),
        ):
            typed(NUMBER)
            with pytest.raises(CommandError, match=words):
                run("faceprint_erase", *arguments)
        typed("")
        with pytest.raises(CommandError, match="standard input"):
            run("faceprint_erase", "--reason", "r")
    assert not Erasure.objects.exists()


@pytest.mark.parametrize(("answer", "status"), [("2", 0), ("1", 3), ("y", 3), ("", 3)])
def test_on_a_terminal_the_count_confirms(
    run: Run, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    make_session()
    make_session()

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
    monkeypatch.setattr("getpass.getpass", lambda prompt: NUMBER)
    assert run("faceprint_erase", "--reason", "r").status == status
    assert Erasure.objects.exists() is (status == 0)
