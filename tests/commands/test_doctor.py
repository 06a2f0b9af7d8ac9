"""The doctor against a real sandbox, real storages and a real database: every illness, in words."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.core.management import ManagementUtility
from django.db.migrations.recorder import MigrationRecorder

from django_faceprint.clock import now
from django_faceprint.exceptions import FaceprintConfigurationError
from django_faceprint.models import AlertRule, MediaAsset, Plan
from django_faceprint.records import statistics
from tests.alerts.conftest import refusing
from tests.alerts.smtp import SmtpServer
from tests.commands.conftest import Run
from tests.factories import NAME, NUMBER, make_passed_session, make_plan, make_stored_asset
from tests.settings import fixed_key

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parents[2]

Change = Callable[..., None]


@pytest.fixture
def change(settings: Any) -> Change:
    """``change(QPS=5)`` changes keys of FACEPRINT."""

    def apply(**values: Any) -> None:
        settings.FACEPRINT = {**settings.FACEPRINT, **values}

    return apply


@pytest.fixture
def healthy(sandbox: Any, db: None, settings: Any, tmp_path: Path) -> Plan:
    """An installation with nothing wrong."""
    settings.STORAGES = {
        **settings.STORAGES,
        "faceprint": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {
                "location": str(tmp_path / "archive"),
                "file_permissions_mode": 0o600,
                "directory_permissions_mode": 0o700,
            },
        },
    }
    AlertRule.objects.update(recipients="ops@example.com")
    statistics.record_heartbeat("tick")
    return make_plan(plan_id="25001")


@pytest.fixture
def examine(healthy: Plan, run: Run) -> Callable[..., dict[str, dict[str, str]]]:
    """Run the doctor; its checks by name. The exit status must agree with them."""

    def look(*arguments: str) -> dict[str, dict[str, str]]:
        done = run("faceprint_doctor", "--json", *arguments)
        found = {check["name"]: check for check in done.json["checks"]}
        wrong = [name for name, check in found.items() if check["state"] == "wrong"]
        assert done.json["ok"] is (not wrong)
        assert done.status == (1 if wrong else 0)
        for check in found.values():
            assert bool(check["remedy"]) is (check["state"] in ("wrong", "warning"))
        return found

    return look


Examine = Callable[..., dict[str, dict[str, str]]]


def states(found: dict[str, dict[str, str]]) -> dict[str, str]:
    """The checks that are not ok."""
    return {name: check["state"] for name, check in found.items() if check["state"] != "ok"}


def test_a_healthy_installation(examine: Examine) -> None:
    found = examine()
    assert states(found) == {}
    assert list(found) == [
        "settings",
        "clock",
        "database",
        "encryption_keys",
        "index_keys",
        "storage",
        "storage_private",
        "application:default",
        "plans",
        "quota",
        "broker",
        "heartbeat",
        "alert_recipients",
        "mail",
        "public_url",
    ]


def test_for_people_it_is_one_line_per_check(healthy: Plan, run: Run) -> None:
    Plan.objects.all().delete()
    done = run("faceprint_doctor")
    lines = done.out.splitlines()
    assert done.status == 0
    assert lines[0] == "[ok] settings: settings.FACEPRINT is valid, environment: sandbox"
    assert any(
        line.startswith("[warning] plans: There is no active plan") and " → " in line for line in lines
    )
    assert lines[-1] == "15 checks, 0 wrong"


def test_no_output_carries_a_secret(
    examine: Examine, change: Change, run: Run, caplog: pytest.LogCaptureFixture, sandbox: Any
) -> None:
    make_stored_asset(make_passed_session(), MediaAsset.Kind.FACE)
    with caplog.at_level(logging.DEBUG):
        output = run("faceprint_doctor", "--plans").out + run("faceprint_doctor", "--json").out
        change(APPLICATIONS={"default": {"API_KEY": "sandbox-api-key", "SECRET_KEY": "wrong-secret"}})
        output += run("faceprint_doctor").out
    output += caplog.text
    tokens = [entry["verify_token"] for entry in sandbox.sandbox.ledger()["sessions"]]
    assert tokens
    for secret in ("sandbox-secret-key", "wrong-secret", fixed_key(1), fixed_key(2), NAME, NUMBER, *tokens):
        assert secret not in output
    assert "access_token=" not in output


class TestSettings:
    def test_a_misspelt_key(self, examine: Examine, change: Change) -> None:
        change(API_ULR="https://aip.baidubce.com")
        found = examine()
        assert states(found) == {"settings": "wrong"}
        assert "API_ULR" in found["settings"]["message"]

    def test_no_settings_at_all(self, run: Run, settings: Any) -> None:
        del settings.FACEPRINT
        done = run("faceprint_doctor")
        assert done.status == 1
        assert "settings.FACEPRINT is missing" in done.out

    def test_what_the_system_checks_say_is_repeated(self, examine: Examine, change: Change) -> None:
        change(RETURN_URL_HOSTS=["https://shop.example.com/"])
        found = examine()
        assert states(found) == {"settings": "wrong"}
        assert "faceprint.E012" in found["settings"]["message"]

    def test_production_refuses_the_sandbox_and_a_movable_clock(
        self, examine: Examine, settings: Any
    ) -> None:
        settings.DEBUG = False
        found = examine()
        assert found["clock"]["state"] == "wrong"
        assert "faceprint.E010" in found["settings"]["message"]

    def test_a_clock_that_fails(self, examine: Examine, change: Change) -> None:
        change(CLOCK=f"{__name__}.broken_clock")
        assert examine()["clock"]["message"] == "The clock does not work: The clock file is damaged."


def broken_clock() -> Any:
    raise FaceprintConfigurationError("The clock file is damaged.")


class TestDatabase:
    def test_a_missing_migration(self, examine: Examine) -> None:
        MigrationRecorder.Migration.objects.filter(app="faceprint").delete()
        found = examine()
        assert states(found) == {"database": "wrong", "other": "skipped"}
        assert found["database"]["message"] == "Migrations are not applied: 0001_initial, 0002_append_only"
        assert "storage" in found

    def test_a_database_that_cannot_be_reached(self, tmp_path: Path) -> None:
        """The example project in a process of its own, as an operator meets it."""
        environment = {
            "PATH": os.environ["PATH"],
            "FACEPRINT_ENV_FILE": "",
            "FACEPRINT_VAR": str(tmp_path),
            "DATABASE_URL": f"sqlite:///{tmp_path}/missing/db.sqlite3",
        }
        done = subprocess.run(
            [sys.executable, "manage.py", "faceprint_doctor", "--json"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        assert done.returncode == 1, done.stderr
        assert found["database"]["state"] == "wrong"
        assert "OperationalError" in found["database"]["message"]
        assert found["other"]["state"] == "skipped"
        assert "Traceback" not in done.stderr


class TestKeys:
    def test_stored_values_are_decrypted_on_trial(self, examine: Examine) -> None:
        make_stored_asset(make_passed_session(), MediaAsset.Kind.FACE)
        message = examine()["encryption_keys"]["message"]
        # The access_token, which this run has not fetched yet, comes later; four columns and one file key.
        assert message.endswith("4 stored values were decrypted on trial")

    @pytest.mark.parametrize("kept", [True, False])
    def test_a_lost_encryption_key(self, examine: Examine, change: Change, kept: bool) -> None:
        make_passed_session()
        change(ENCRYPTION_KEYS=[fixed_key(11), fixed_key(1)] if kept else [fixed_key(11)])
        found = examine()
        assert states(found) == ({} if kept else {"encryption_keys": "wrong"})
        if not kept:
            assert "No configured key has the id" in found["encryption_keys"]["message"]

    def test_a_lost_key_of_a_file(self, examine: Examine) -> None:
        asset = make_stored_asset(make_passed_session(identity_name=None), MediaAsset.Kind.FACE)
        MediaAsset.objects.filter(pk=asset.pk).update(
            wrapped_key=bytes(asset.wrapped_key or b"")[:-1] + b"\x00"
        )
        assert states(examine()) == {"encryption_keys": "wrong"}

    def test_a_lost_index_key(self, examine: Examine, change: Change) -> None:
        make_passed_session()
        change(INDEX_KEYS=[fixed_key(12)])
        found = examine()
        assert states(found) == {"index_keys": "wrong"}
        change(INDEX_KEYS=[fixed_key(12), fixed_key(2)])
        assert states(examine()) == {}

    def test_one_key_for_both(self, examine: Examine, change: Change) -> None:
        change(INDEX_KEYS=[fixed_key(1)])
        found = states(examine())
        assert {"settings", "encryption_keys", "index_keys"} <= set(found)


class Liar(FileSystemStorage):
    """Reports success and keeps nothing of what it was given."""

    def save(self, name: Any, content: Any, max_length: int | None = None) -> str:
        return super().save(name, ContentFile(b"something else"))


class Hoarder(FileSystemStorage):
    """Cannot delete."""

    def delete(self, name: str) -> None:
        raise PermissionError(name)


class TestStorage:
    def configure(self, settings: Any, backend: str, **options: Any) -> None:
        entry = {"BACKEND": backend, "OPTIONS": options}
        settings.STORAGES = {**settings.STORAGES, "faceprint": entry}

    def test_leaves_nothing_behind(self, examine: Examine, tmp_path: Path) -> None:
        examine()
        assert [name for _, _, names in os.walk(tmp_path / "archive") for name in names] == []

    def test_a_folder_that_cannot_be_written(self, examine: Examine, settings: Any, tmp_path: Path) -> None:
        """A file where the folder should be: refused to everybody, root included."""
        (tmp_path / "taken").write_text("")
        backend = "django.core.files.storage.FileSystemStorage"
        self.configure(settings, backend, location=str(tmp_path / "taken"))
        found = examine()
        assert states(found) == {"storage": "wrong"}
        assert "cannot be written" in found["storage"]["message"]
        assert "STORAGES" in found["storage"]["remedy"]
        assert str(tmp_path) not in str(found)

    def test_no_storage_of_its_own(self, examine: Examine, settings: Any) -> None:
        settings.STORAGES = {key: value for key, value in settings.STORAGES.items() if key != "faceprint"}
        found = examine()
        assert states(found) == {"settings": "wrong", "storage": "wrong"}

    @pytest.mark.parametrize(
        ("backend", "words"), [("Liar", "comes back different"), ("Hoarder", "cannot be deleted")]
    )
    def test_one_that_does_not_keep_its_word(
        self, examine: Examine, settings: Any, tmp_path: Path, backend: str, words: str
    ) -> None:
        self.configure(
            settings, f"{__name__}.{backend}", location=str(tmp_path / "other"), file_permissions_mode=0o600
        )
        found = examine()
        assert states(found) == {"storage": "wrong"}
        assert words in found["storage"]["message"]

    def test_files_that_every_user_can_read(self, examine: Examine, settings: Any, tmp_path: Path) -> None:
        self.configure(
            settings,
            "django.core.files.storage.FileSystemStorage",
            location=str(tmp_path / "open"),
            file_permissions_mode=0o644,
        )
        assert states(examine()) == {"storage_private": "warning"}


class TestBaidu:
    def test_a_wrong_api_key(self, examine: Examine, change: Change) -> None:
        change(APPLICATIONS={"default": {"API_KEY": "no-such-key", "SECRET_KEY": "sandbox-secret-key"}})
        found = examine()
        assert states(found) == {"application:default": "wrong"}
        assert found["application:default"]["message"] == "The API key is wrong: Baidu does not know it."

    def test_a_wrong_secret_key_of_the_second_application(self, examine: Examine, change: Change) -> None:
        change(
            APPLICATIONS={
                "default": {"API_KEY": "sandbox-api-key", "SECRET_KEY": "sandbox-secret-key"},
                "other": {"API_KEY": "sandbox-other-api-key", "SECRET_KEY": "no-such-secret"},
            }
        )
        found = examine()
        assert states(found) == {"application:other": "wrong"}
        assert found["application:other"]["message"] == (
            "The Secret Key is wrong: it does not belong to the API key."
        )

    def test_nobody_answers(self, examine: Examine, change: Change) -> None:
        change(API_URL="http://127.0.0.1:9")
        found = examine()
        assert states(found) == {"application:default": "wrong"}
        assert "does not answer" in found["application:default"]["message"]
        assert "PROXIES" in found["application:default"]["remedy"]

    def test_a_baidu_that_is_disturbed(self, examine: Examine, sandbox: Any) -> None:
        sandbox.sandbox.add_faults({"endpoint": "oauth_token", "kind": "html"})
        assert states(examine()) == {"application:default": "wrong"}


class TestPlans:
    def test_are_tried_only_when_asked_for(self, examine: Examine, sandbox: Any) -> None:
        examine()
        assert sandbox.sandbox.ledger()["sessions"] == []
        assert examine("--plans")["plan:25001"]["state"] == "ok"
        assert len(sandbox.sandbox.ledger()["sessions"]) == 1

    def test_an_unknown_plan(self, examine: Examine) -> None:
        make_plan(plan_id="99999")
        found = examine("--plans")
        assert states(found) == {"plan:99999": "wrong"}
        assert "The plan does not exist." in found["plan:99999"]["message"]
        assert "283435" in found["plan:99999"]["message"]

    def test_a_project_id_in_place_of_a_plan_id(self, examine: Examine) -> None:
        found = examine("--plan", "15001")
        assert states(found) == {"plan:15001": "wrong"}
        assert "项目ID" in found["plan:15001"]["message"]

    def test_one_that_this_site_does_not_know(self, examine: Examine) -> None:
        assert states(examine("--plan", "25002", "--plan", "25001")) == {"plan:25002": "warning"}

    def test_what_is_no_plan_id(self, examine: Examine) -> None:
        assert states(examine("--plan", "abc")) == {"plan:abc": "wrong"}

    def test_none_at_all(self, examine: Examine) -> None:
        Plan.objects.all().delete()
        assert states(examine("--plans")) == {"plans": "warning"}

    def test_one_of_an_application_that_is_not_configured(self, examine: Examine) -> None:
        make_plan(plan_id="25003", application="gone")
        found = examine("--plans")
        assert states(found) == {"plans": "wrong", "plan:25003": "wrong"}


class TestEngine:
    def test_a_stale_heartbeat(self, examine: Examine, clock: Any) -> None:
        clock.advance(minutes=5)
        assert states(examine()) == {}
        clock.advance(minutes=1)
        found = examine()
        assert states(found) == {"heartbeat": "wrong"}
        assert found["heartbeat"]["message"] == "The engine last ran 6 minutes ago."
        assert "beat_schedule" in found["heartbeat"]["remedy"]

    def test_an_engine_that_never_ran(self, examine: Examine) -> None:
        from django_faceprint.models import Heartbeat

        Heartbeat.objects.all().delete()
        assert states(examine()) == {"heartbeat": "wrong"}

    def test_a_broker_that_is_down(self, examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(current_app.conf, "broker_write_url", "amqp://user:geheim@127.0.0.1:9//")
        found = examine()
        assert states(found) == {"broker": "wrong"}
        assert "(amqp)" in found["broker"]["message"]
        assert "geheim" not in str(found)


class TestOthers:
    def test_recipients(self, examine: Examine, settings: Any) -> None:
        AlertRule.objects.filter(condition="attack").update(recipients="")
        found = examine()
        assert states(found) == {"alert_recipients": "warning"}
        assert "attack" in found["alert_recipients"]["message"]
        settings.DEBUG = False
        assert examine()["alert_recipients"]["state"] == "wrong"

    def test_all_rules_switched_off(self, examine: Examine) -> None:
        AlertRule.objects.update(enabled=False)
        assert states(examine()) == {"alert_recipients": "warning"}

    def test_public_url(self, examine: Examine, change: Change) -> None:
        change(PUBLIC_URL="")
        assert states(examine()) == {"public_url": "warning"}

    def test_urls_that_were_not_included(self, examine: Examine, settings: Any) -> None:
        settings.ROOT_URLCONF = "tests.commands.no_urls"
        assert states(examine()) == {"public_url": "warning"}

    def test_mail(self, examine: Examine, smtp: SmtpServer) -> None:
        assert states(examine()) == {}
        smtp.__exit__()
        found = examine()
        assert states(found) == {"mail": "wrong"}
        assert "ConnectionRefusedError" in found["mail"]["message"]


def test_a_quota_that_is_used_up(examine: Examine) -> None:
    refusing("result_detail", "18", account="acme")
    found = examine()
    assert states(found) == {"quota": "wrong"}
    assert "result_detail (acme): 18" in found["quota"]["message"]


def test_it_runs_although_the_system_checks_fail(settings: Any, clock: Any) -> None:
    """As from the command line, where checks come before most commands."""
    settings.FACEPRINT = {**settings.FACEPRINT, "API_URL": "ftp://nowhere"}
    with pytest.raises(SystemExit) as exit_:
        ManagementUtility(["manage.py", "faceprint_doctor", "--json"]).execute()
    assert exit_.value.code == 1


def test_the_age_of_the_heartbeat_is_told_in_seconds(examine: Examine, clock: Any) -> None:
    statistics.record_heartbeat("tick")
    clock.advance(timedelta(seconds=42))
    assert "42 seconds" in examine()["heartbeat"]["message"]
    assert now() == clock.moment
