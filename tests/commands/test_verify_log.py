"""``faceprint_verify_log``: words, JSON, exit status."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_faceprint.audit.chain import add_links, head
from django_faceprint.clock import now
from django_faceprint.models import AccessLog

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    status = 0
    try:
        call_command("faceprint_verify_log", *arguments, stdout=out, stderr=err, no_color=True)
    except SystemExit as stop:
        status = int(stop.code or 0)
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(autouse=True)
def log(settings: Any) -> None:
    """Three entries, chained."""
    settings.LANGUAGE_CODE = "en"
    for _ in range(3):
        AccessLog.objects.create(actor_id="1", actor_name="x", action="view_record", channel="admin")
    add_links()


def test_a_sound_log() -> None:
    status, out, err = run("--head", head())
    assert (status, err) == (0, "")
    assert "3 links and 3 entries looked at, 0 findings" in out
    assert f"Head: {head()}" in out


def test_findings_are_told_and_counted() -> None:
    AccessLog.objects.create(
        at=now() - timedelta(hours=2), actor_id="1", actor_name="x", action="view_media", channel="admin"
    )
    status, out, err = run("--head", "3:00000000", "--head", "9:00000000")
    assert status == 1
    assert "Link 3: this is not the link that was made." in err
    assert "Link 9 was there before, and is not any more." in err
    assert "was never chained" in err
    assert "3 findings" in out


def test_json() -> None:
    status, out, _ = run("--json", "--head", "9:00000000")
    told = json.loads(out)
    assert (status, told["links"], told["head"], told["stopped"]) == (1, 3, head(), False)
    assert told["counts"] == {"truncated": 1}
    assert told["findings"] == [{"kind": "truncated", "sequence": 9, "log_id": None}]


@pytest.mark.parametrize(
    "text", ["", "3", "3:", "3:123", "x:00000000", "3:zzzzzzzz", "-1:00000000", "9" * 30]
)
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="--head"):
        run("--head", text)


def test_an_empty_log_is_sound(transactional_db: None) -> None:
    assert run()[0] == 0
