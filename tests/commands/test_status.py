"""How things stand, for people and for monitoring."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.core.management import CommandError, call_command

from django_faceprint.alerts.evaluation import evaluate
from django_faceprint.clock import now
from django_faceprint.models import Alert, AlertRule, MediaAsset, Plan
from django_faceprint.records import statistics
from tests.alerts.conftest import refusing
from tests.commands.conftest import Run
from tests.factories import (
    NAME,
    NUMBER,
    make_asset,
    make_passed_session,
    make_plan,
    make_session,
    make_stored_asset,
)

pytestmark = pytest.mark.django_db

Kind = MediaAsset.Kind


@pytest.fixture
def plan(clock: Any) -> Plan:
    return make_plan()


def test_an_empty_installation_is_fine(run: Run, clock: Any) -> None:
    done = run("faceprint_status", "--json")
    assert done.status == 0
    assert done.json == {
        "status": 0,
        "environment": "sandbox",
        "sessions": {},
        "files": {},
        "bytes_stored": 0,
        "outstanding": 0,
        "earliest_deadline": None,
        "backlog": {"due": 0, "asleep": 0, "files": 0},
        "sessions_per_minute": None,
        "may_be_down_hours": 24.0,
        "at_risk_sessions": [],
        "at_risk_sessions_total": 0,
        "quota_problems": [],
        "risk_window_minutes": 360,
        "at_risk": 0,
        "lost": 0,
        "lost_unacknowledged": 0,
        "deletes_within_a_day": {"files": 0, "bytes": 0, "records": 0},
        "open_alerts": 0,
        "heartbeats": {},
    }


def test_what_retention_deletes_within_a_day(run: Run, plan: Plan, clock: Any) -> None:
    session = make_passed_session(plan=plan, retain_until=now() + timedelta(hours=3))
    file = make_stored_asset(session, Kind.FACE)
    make_stored_asset(make_passed_session(plan=plan, retain_until=now() + timedelta(hours=25)), Kind.FACE)
    report = run("faceprint_status", "--json").json
    assert report["deletes_within_a_day"] == {"files": 1, "bytes": file.size, "records": 1}
    assert "Retention deletes within a day: 1 files, " in run("faceprint_status").out


def test_what_is_at_risk_and_for_how_long_workers_may_be_down(run: Run, plan: Plan, clock: Any) -> None:
    session = make_passed_session(plan=plan, wake_at=now(), archived_at=None, reference="order-7")
    make_asset(session, Kind.VIDEO, deadline=now() + timedelta(minutes=90))
    refusing("result_detail", "18")
    report = run("faceprint_status", "--json").json
    assert report["backlog"] == {"due": 1, "asleep": 0, "files": 1}
    assert report["may_be_down_hours"] == 1.5
    (risk,) = report["at_risk_sessions"]
    assert (risk["id"], risk["reference"], risk["missing"]) == (str(session.public_id), "order-7", "video")
    (problem,) = report["quota_problems"]
    assert (problem["interface"], problem["code"]) == ("result_detail", "18")
    text = run("faceprint_status").out
    assert str(session.public_id) in text
    assert "1.5" in text
    assert "result_detail (default), 18" in text


def test_counts(run: Run, plan: Plan) -> None:
    passed = make_passed_session(plan=plan)
    stored = make_stored_asset(passed, Kind.FACE)
    make_asset(passed, Kind.VIDEO)
    waiting = make_session(plan=plan, wake_at=now())
    make_session(plan=plan, environment="live")
    statistics.record_heartbeat("tick")
    report = run("faceprint_status", "--json").json
    assert report["sessions"] == {"passed": 1, "pending": 1}
    assert report["files"] == {"stored": 1, "wanted": 1}
    assert report["bytes_stored"] == stored.size
    assert report["outstanding"] == 1
    assert report["earliest_deadline"] == waiting.media_deadline.isoformat()  # type: ignore[union-attr]
    assert report["heartbeats"] == {"tick": now().isoformat()}


def test_for_people(run: Run, plan: Plan) -> None:
    make_passed_session(plan=plan)
    statistics.record_heartbeat("tick")
    done = run("faceprint_status")
    assert done.status == 0
    assert "Verification sessions: passed 1" in done.out
    assert "Not archived in time: 0 / 0" in done.out
    assert "Heartbeat tick: 2026-03-02T16:00:00+08:00" in done.out
    assert done.out.splitlines()[-1] == "Everything is in time."
    assert NAME not in done.out
    assert NUMBER not in done.out


def test_evidence_near_its_deadline(run: Run, plan: Plan, clock: Any) -> None:
    asset = make_asset(make_passed_session(plan=plan), Kind.VIDEO)
    assert asset.deadline is not None
    clock.set(asset.deadline - timedelta(minutes=361))
    assert run("faceprint_status").status == 0
    clock.advance(minutes=1)
    done = run("faceprint_status")
    assert done.status == 1
    assert "near its deadline" in done.out
    AlertRule.objects.filter(condition="evidence_at_risk").update(window_minutes=60)
    assert run("faceprint_status").status == 0, "how near is what the rule says"


def test_a_loss_until_it_is_acknowledged(run: Run, plan: Plan, clock: Any) -> None:
    session = make_passed_session(plan=plan)
    make_asset(session, Kind.VIDEO, state=MediaAsset.State.LOST)
    clock.set(session.media_give_up_at)
    done = run("faceprint_status", "--json")
    assert (done.status, done.json["lost"], done.json["lost_unacknowledged"]) == (2, 1, 1)
    evaluate()
    assert run("faceprint_status").status == 2
    clock.advance(minutes=1)
    Alert.objects.update(acknowledged_at=now())
    done = run("faceprint_status", "--json")
    assert (done.status, done.json["lost"], done.json["lost_unacknowledged"]) == (0, 1, 0)
    assert mail.outbox == []


def test_what_cannot_be_read_is_neither_fine_nor_at_risk(tmp_path: Path) -> None:
    """In a process of its own: only there can the database be another one."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "FACEPRINT_TEST_DATABASE": f"sqlite:///{tmp_path}/missing/db.sqlite3",
    }
    done = subprocess.run(
        [sys.executable, "-m", "django", "faceprint_status", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "OperationalError" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_settings_are_neither_fine_nor_at_risk(settings: Any) -> None:
    settings.FACEPRINT = {**settings.FACEPRINT, "API_URL": "nonsense"}
    with pytest.raises(CommandError, match="API_URL") as raised:
        call_command("faceprint_status")
    assert raised.value.returncode == 3
