"""Adopting sessions from a CSV file, as an operator does."""

from __future__ import annotations

import io
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import translation

from django_faceprint.clock import now
from django_faceprint.models import VerificationSession
from django_faceprint.verification.consent import of_session
from tests.commands.conftest import Run
from tests.factories import NAME, NUMBER, make_plan

pytestmark = pytest.mark.django_db

TOKEN = "Ab3dEf6hIj9kLm2nOp5qRs8"


@pytest.fixture
def write(tmp_path: Path, sandbox: Any) -> Any:
    make_plan(plan_id="25001")

    def to_file(*lines: str, encoding: str = "utf-8") -> str:
        path = tmp_path / "sessions.csv"
        path.write_bytes("\r\n".join(lines).encode(encoding))
        return str(path)

    return to_file


def tokens() -> set[str]:
    return {str(session.verify_token) for session in VerificationSession.objects.all()}


def test_every_column(write: Any, run: Run) -> None:
    path = write(
        "verify_token,plan,issued_at,reference,purpose,name,number,certificate_type,consent_reference",
        f"{TOKEN}1,25001,2026-03-02T15:30:00+08:00,order-1,开户,{NAME},{NUMBER},0,c-1",
    )
    done = run("faceprint_adopt", path)
    assert (done.status, done.out) == (0, "1 adopted, 0 known already, 0 refused\n")
    session = VerificationSession.objects.get()
    assert (session.reference, session.purpose, session.identity_name) == ("order-1", "开户", NAME)
    found = of_session(session)
    assert found is not None
    assert found.reference == "c-1"
    assert session.media_deadline == now() - timedelta(minutes=31) + timedelta(hours=24)
    again = run("faceprint_adopt", path)
    assert again.out == "0 adopted, 1 known already, 0 refused\n"


@pytest.mark.parametrize(
    "text",
    ["2026-03-02 15:30:00", "2026/3/2 15:30", "1772436600", "1772436600000", "2026-03-02T07:30:00Z"],
)
def test_times(write: Any, run: Run, text: str) -> None:
    """The site is in Shanghai: 15:30 there is 07:30 UTC."""
    assert (
        run("faceprint_adopt", write("verify_token,issued_at", f"{TOKEN}1,{text}"), "--plan", "25001").status
        == 0
    )
    session = VerificationSession.objects.get()
    assert session.media_deadline == now() - timedelta(minutes=31) + timedelta(hours=24)


def test_a_file_of_excel_in_china(write: Any, run: Run) -> None:
    lines = "verify_token,plan,purpose", f"{TOKEN}1,25001,贷款", ",,"
    path = write(*lines, encoding="gb18030")
    assert run("faceprint_adopt", path, "--encoding", "gb18030").status == 0
    assert VerificationSession.objects.get().purpose == "贷款"
    with translation.override("en"), pytest.raises(CommandError, match="not in the encoding utf-8"):
        call_command("faceprint_adopt", path)
    assert run("faceprint_adopt", write(*lines, encoding="utf-8-sig")).out.startswith("0 adopted, 1 known")


def test_refused_lines_are_named_and_the_others_adopted(write: Any, run: Run) -> None:
    path = write(
        "verify_token,plan,issued_at,reference,name,number,certificate_type",
        f"{TOKEN}1,25001,,,,,",
        "short,25001,,,,,",
        f"{TOKEN}2,99999,,,,,",
        f"{TOKEN}3,25001,yesterday,,,,",
        f"{TOKEN}4,25001,2026-02-01T00:00:00Z,,,,",
        f"{TOKEN}5,25001,,{NUMBER},,,",
        f"{TOKEN}6,25001,,,{NAME},1.10105E+17,",
        f"{TOKEN}7,25001,,,{NAME},{NUMBER},12",
        f"{TOKEN}8,,,,,,",
        f"{TOKEN}9,25001,,,,,,more",
        f"{TOKEN}0,25001",
    )
    done = run("faceprint_adopt", path)
    assert done.status == 1
    assert done.out.splitlines() == [
        "line 3, verify_token: This is no verification token.",
        "line 4, plan: There is no plan with this ID.",
        "line 5, issued_at: Not a time: use 2026-03-02T16:00:00+08:00 or seconds since 1970.",
        "line 6, issued_at: Too old: Baidu has deleted everything of it by now.",
        "line 7, reference: This looks like an ID or phone number; it would be stored in clear.",
        "line 8, number: The number does not have the form of this certificate type.",
        "line 9, certificate_type: The certificate type must be one of 0, 1, 2, 3 and 4.",
        "line 10, plan: This value is required.",
        "line 11, verify_token: The line has more cells than the head of the table.",
        "2 adopted, 0 known already, 9 refused",
    ]
    assert tokens() == {f"{TOKEN}1", f"{TOKEN}0"}
    for secret in (TOKEN, NUMBER, NAME):
        assert secret not in done.out


def test_a_dry_run_checks_and_writes_nothing(write: Any, run: Run) -> None:
    done = run("faceprint_adopt", write("verify_token", f"{TOKEN}1", "short"), "--plan", "25001", "--dry-run")
    assert done.status == 1
    assert "Dry run: nothing was adopted.\n1 adopted, 0 known already, 1 refused\n" in done.out
    assert not VerificationSession.objects.exists()


@pytest.mark.parametrize(
    "head", ["", f"{TOKEN}1,25001", "plan,reference", "verify_token,verify_token", "verify_token,colour"]
)
def test_a_wrong_head_is_not_quoted(write: Any, run: Run, head: str) -> None:
    with translation.override("en"), pytest.raises(CommandError, match="first line must name") as refused:
        run("faceprint_adopt", write(head, f"{TOKEN}2,25001"))
    assert TOKEN not in str(refused.value)
    assert not VerificationSession.objects.exists()


@pytest.mark.parametrize("line", ['"unclosed', f'{TOKEN}2,"a"b', "x" * 200_000])
def test_what_is_no_csv_says_how_far_it_came(write: Any, run: Run, line: str) -> None:
    with pytest.raises(CommandError) as refused:
        run("faceprint_adopt", write("verify_token,plan", f"{TOKEN}1,25001", line))
    assert str(refused.value).startswith("1 adopted, ")
    assert tokens() == {f"{TOKEN}1"}


def test_a_file_that_is_not_there(run: Run, tmp_path: Path, sandbox: Any) -> None:
    with pytest.raises(CommandError, match="No such file"):
        run("faceprint_adopt", str(tmp_path / "missing.csv"))


def test_standard_input(write: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(f"verify_token,plan\r\n{TOKEN}1,25001\r\n".encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    assert run("faceprint_adopt", "-").status == 0
    assert tokens() == {f"{TOKEN}1"}


def test_the_help_names_the_columns() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "faceprint_adopt", "--help"], capture_output=True, text=True, check=True
    )
    assert "consent_reference" in done.stdout
