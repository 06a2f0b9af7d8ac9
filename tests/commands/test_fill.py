"""``faceprint_fill``: its options, its output, and the records in the console."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management.base import CommandError
from django.test import Client
from django.urls import reverse

from django_faceprint.devtools import sample_data
from django_faceprint.models import MediaAsset, VerificationSession

from .conftest import Run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]

COMMAND = "faceprint_fill"
LIST = "/admin/faceprint/verificationsession/"


def test_the_command_reports_its_records_and_that_no_file_was_stored(run: Run) -> None:
    done = run(COMMAND, "40", "--years", "0.5", "--seed", "3", "--batch", "15", "--files", "all")
    files = MediaAsset.objects.count()
    assert f"Made up: 40 records, {files} rows of files" in done.out
    assert "No file was stored" in done.out
    assert sample_data.sample_records().filter(reference__startswith="fill-3-").count() == 40
    removed = run(COMMAND, "--remove")
    assert f"Removed: 40 records, {files} rows of files" in removed.out
    assert not VerificationSession.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "how many"),
        (("5", "--remove"), "how many"),
        (("0",), "From 1"),
        (("5", "--years", "0"), "--years"),
        (("5", "--years", "21"), "--years"),
        (("5", "--batch", "0"), "--batch"),
        (("5", "--thumbnails", "-1"), "--thumbnails"),
    ],
)
def test_invalid_options_are_refused(run: Run, arguments: tuple[str, ...], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        run(COMMAND, *arguments)
    assert not VerificationSession.objects.exists()


@pytest.mark.parametrize("arguments", [("5",), ("--remove",)])
def test_the_command_works_in_a_sandbox_only(run: Run, settings: Any, arguments: tuple[str, ...]) -> None:
    settings.DEBUG = False
    with pytest.raises(CommandError, match="DEBUG"):
        run(COMMAND, *arguments)


def test_the_console_shows_every_kind_of_record(run: Run, admin_client: Client) -> None:
    """The list and the page of one record of each kind decrypt without errors."""
    run(COMMAND, "800", "--files", "all")
    admin_client.defaults["HTTP_ACCEPT_LANGUAGE"] = "en"
    listed = admin_client.get(LIST, {"created": "all"})
    assert listed.status_code == 200
    page = listed.content.decode()
    assert "cannot be decrypted" not in page
    assert "data:image/jpeg" in page
    newest = sample_data.sample_records().order_by("-created_at", "-pk")[:20]
    assert all(row.reference in page for row in newest)
    assert any(row.masked_number and row.masked_number in page for row in newest)
    kinds = {
        (row.plan_id, row.verdict, row.archive_state, row.erased_at is None): row
        for row in sample_data.sample_records().order_by("pk")
    }
    assert len(kinds) > 30
    for row in kinds.values():
        opened = admin_client.get(reverse("admin:faceprint_verificationsession_change", args=[row.pk]))
        assert opened.status_code == 200
        text = opened.content.decode()
        assert row.reference in text
        assert "cannot be decrypted" not in text
        assert row.known_number is None or row.known_number not in text
