"""What retention deletes, told before and done by command."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError

from django_faceprint.clock import now
from django_faceprint.evidence import files
from django_faceprint.models import MediaAsset, Plan, VerificationSession
from tests.commands.conftest import Run
from tests.factories import NAME, make_passed_session, make_plan, make_stored_asset

pytestmark = pytest.mark.django_db

Kind = MediaAsset.Kind
State = MediaAsset.State


@pytest.fixture
def plan(clock: Any) -> Plan:
    return make_plan(plan_id="70800")


@pytest.fixture
def video(plan: Plan) -> MediaAsset:
    """A video whose days end in an hour, of a record that stays for nine days."""
    session = make_passed_session(plan=plan, retain_until=now() + timedelta(days=9))
    make_stored_asset(session, Kind.FACE)
    video = make_stored_asset(session, Kind.VIDEO)
    MediaAsset.objects.filter(pk=video.pk).update(retain_until=now() + timedelta(hours=1))
    return video


def test_a_dry_run_says_what_goes_and_deletes_nothing(run: Run, video: MediaAsset, clock: Any) -> None:
    done = run("faceprint_retain", "--dry-run")
    assert done.status == 0
    assert "this deletes 1 files, " in done.out
    assert "and 0 whole records" in done.out
    assert "70800  recorded video: 1, " in done.out
    report = run("faceprint_retain", "--dry-run", "--days", "10", "--json").json
    assert (report["files"], report["records"]) == (2, 1)
    assert [line["kind"] for line in report["by_plan_and_kind"]] == ["video", "face"]
    assert report["until"] == (now() + timedelta(days=10)).isoformat()
    assert NAME not in str(report)
    clock.advance(hours=2)
    run("faceprint_retain", "--dry-run")
    assert MediaAsset.objects.stored().count() == 2
    assert not files.is_gone(video.stored_name)


def test_what_a_dry_run_said_is_what_is_deleted(run: Run, video: MediaAsset, clock: Any) -> None:
    clock.advance(hours=2)
    said = run("faceprint_retain", "--dry-run", "--days", "0", "--json").json
    assert (said["files"], said["bytes"]) == (1, video.size)
    assert "Deleted: 1 files, and 0 whole records." in run("faceprint_retain").out
    assert files.is_gone(video.stored_name)
    assert "Deleted: 0 files" in run("faceprint_retain").out
    clock.advance(days=9)
    assert "Deleted: 1 files, and 1 whole records." in run("faceprint_retain").out
    assert VerificationSession.objects.get().known_name is None


def test_present_rules_are_put_on_old_records(run: Run, plan: Plan, video: MediaAsset, clock: Any) -> None:
    plan.retention = {"face": 0}
    plan.save()
    clock.advance(seconds=1)
    assert "Deleted: 0 files" in run("faceprint_retain").out
    make_passed_session()
    assert "hold for 1 records" in run("faceprint_retain", "--apply-rules", "--plan", "70800").out
    clock.advance(seconds=1)
    assert "Deleted: 1 files" in run("faceprint_retain").out
    assert dict(MediaAsset.objects.values_list("kind", "state")) == {"face": "erased", "video": "stored"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--dry-run", "--apply-rules"),
        ("--dry-run", "--days", "-1"),
        ("--dry-run", "--days", "36501"),
        ("--apply-rules", "--plan", "4711"),
    ],
)
def test_wrong_arguments_change_nothing(run: Run, video: MediaAsset, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run("faceprint_retain", *arguments)
    assert MediaAsset.objects.stored().count() == 2


def test_a_storage_that_refuses_is_said(
    run: Run, video: MediaAsset, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> bool:
        return False

    clock.advance(hours=2)
    monkeypatch.setattr(files, "delete_file", refuse)
    with pytest.raises(CommandError, match="1 files could not be deleted"):
        run("faceprint_retain")
    video.refresh_from_db()
    assert (video.state, video.wrapped_key) == (State.ERASED, None)
