from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from django.core.checks import CheckMessage, Warning, run_checks  # noqa: A004
from django.core.files.storage import FileSystemStorage
from django.db import OperationalError

from django_faceprint import checks
from django_faceprint.clock import FileClock, now
from django_faceprint.conf import conf
from django_faceprint.models import Heartbeat
from django_faceprint.privacy.keys import generate_key
from django_faceprint.records import statistics
from django_faceprint.tasks import FACEPRINT_BEAT_SCHEDULE

ROOT = Path(__file__).parent.parent
LIVE = {
    "API_URL": "https://aip.baidubce.com",
    "H5_URL": "https://brain.baidu.com/face/print/",
    "PUBLIC_URL": "https://app.example.com",
    "MEDIA_HOSTS": ["brain.baidu.com", "*.bcebos.com"],
    "ENCRYPTION_KEYS": [generate_key()],
    "INDEX_KEYS": [generate_key()],
}
SECRETS = ("sandbox-secret-key", "top-secret", *LIVE["ENCRYPTION_KEYS"], *LIVE["INDEX_KEYS"])

file_clock = FileClock("/nonexistent/offset")


def other_clock() -> Any:
    raise AssertionError("a check does not ask for the time")


class OwnStorage(FileSystemStorage):
    """A host's own kind of storage."""


def found() -> dict[str, CheckMessage]:
    """Messages of all our checks by id."""
    messages = run_checks(tags=["faceprint"])
    for message in messages:
        assert message.hint
        assert (message.id or "").startswith("faceprint.")
        assert isinstance(message, Warning) == (message.id or "").startswith("faceprint.W")
        for secret in SECRETS:
            assert secret not in str(message)
            assert secret not in message.hint
    return {message.id or "": message for message in messages}


@pytest.fixture
def production(settings: Any) -> Any:
    """Sound settings of a live site."""
    settings.DEBUG = False
    settings.FACEPRINT = settings.FACEPRINT | LIVE
    return settings


def test_the_settings_of_the_tests_pass() -> None:
    assert found() == {}


def test_sound_production_settings_pass(production: Any) -> None:
    assert found() == {}


@pytest.mark.parametrize("value", [None, [], "x"])
def test_settings_missing(settings: Any, value: Any) -> None:
    settings.FACEPRINT = value
    assert set(found()) == {"faceprint.E001"}
    del settings.FACEPRINT
    assert set(found()) == {"faceprint.E001"}


def test_unknown_keys(settings: Any) -> None:
    settings.FACEPRINT = settings.FACEPRINT | {"APLICATIONS": "top-secret", 5: 1}
    messages = [m for m in run_checks(tags=["faceprint"]) if m.id == "faceprint.E002"]
    assert {m.hint for m in messages if "APLICATIONS" in m.msg} == {"Did you mean 'APPLICATIONS'?"}
    assert len(messages) == 2
    assert set(found()) == {"faceprint.E002"}


def test_unknown_keys_of_an_application(settings: Any) -> None:
    application = {"API_KEY": "x", "SECRET_KEY": "y", "api_key": "top-secret"}
    settings.FACEPRINT = settings.FACEPRINT | {"APPLICATIONS": {"default": application}}
    messages = found()
    assert set(messages) == {"faceprint.E002"}
    assert messages["faceprint.E002"].hint == "Did you mean 'API_KEY'?"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("API_URL", "aip.baidubce.com"),
        ("H5_URL", "https://top-secret@brain.baidu.com/"),
        ("PUBLIC_URL", 5),
        ("MEDIA_HOSTS", "*.bcebos.com"),
        ("QPS", -1),
        ("QPS", "10"),
        ("CONCURRENCY", 0),
        ("CONCURRENCY", 8.0),
        ("REQUIRE_CONSENT", "yes"),
        ("RETENTION", 180),
        ("RETENTION", timedelta(hours=23)),
        ("RETENTION", {"default": 0}),
        ("RETENTION", {"audio": timedelta(days=1)}),
        ("RETENTION", {"video": 30}),
        ("RETENTION", {"video": True}),
        ("RETENTION", {"video": timedelta(days=181)}),
        ("RETENTION_BASIS", None),
        ("RETURN_URL_HOSTS", [None]),
        ("LATEST_GRACE", timedelta(days=-1)),
        ("CLOCK", "no.such.clock"),
        ("CLOCK", "tests.test_checks.ROOT"),
        ("PROXIES", {"socks": "top-secret"}),
        ("APPLICATIONS", ["top-secret"]),
        ("APPLICATIONS", {"default": "top-secret"}),
        ("APPLICATIONS", {"default": {"API_KEY": 5, "SECRET_KEY": "top-secret"}}),
        ("APPLICATIONS", {"": {"API_KEY": "x", "SECRET_KEY": "top-secret"}}),
    ],
)
@pytest.mark.parametrize("debug", [True, False])
def test_wrong_values(settings: Any, debug: bool, key: str, value: Any) -> None:
    settings.DEBUG = debug
    settings.FACEPRINT = settings.FACEPRINT | LIVE | {key: value}
    messages = found()
    assert set(messages) == {"faceprint.E003"}
    assert key in messages["faceprint.E003"].msg


@pytest.mark.parametrize(
    ("retention", "basis", "is_refused"),
    [
        (None, "", True),
        (None, "  ", True),
        ({"default": None, "video": timedelta(days=30)}, "", True),
        (None, "反洗钱法第三十四条", False),
        ({"default": timedelta(days=90), "video": timedelta(days=30), "frame": 0, "face": None}, "", False),
        (timedelta(days=90), "", False),
    ],
)
def test_without_end_needs_a_legal_basis_to_be_deployed(
    deployed: Any, retention: Any, basis: str, is_refused: bool
) -> None:
    deployed.FACEPRINT = deployed.FACEPRINT | {"RETENTION": retention, "RETENTION_BASIS": basis}
    assert found() == {}
    assert set(found_for_deployment()) == ({"faceprint.E020"} if is_refused else set())


@pytest.mark.parametrize(
    "applications",
    [
        {},
        None,
        {"default": {"API_KEY": "x"}},
        {"default": {"SECRET_KEY": "top-secret"}},
        {"default": {"API_KEY": "", "SECRET_KEY": "top-secret"}},
        {"default": {"API_KEY": "x", "SECRET_KEY": "y"}, "other": {}},
    ],
)
def test_credentials_missing(settings: Any, applications: Any) -> None:
    settings.FACEPRINT = settings.FACEPRINT | {"APPLICATIONS": applications}
    assert set(found()) == {"faceprint.E004"}
    del settings.FACEPRINT["APPLICATIONS"]
    assert set(found()) == {"faceprint.E004"}


@pytest.mark.parametrize(
    ("key", "check_id"), [("ENCRYPTION_KEYS", "faceprint.E005"), ("INDEX_KEYS", "faceprint.E006")]
)
@pytest.mark.parametrize(
    "value",
    [None, [], [""], "top-secret", ["top-secret"], ["AAAA"], [generate_key()[:-4]], [generate_key(), 5]],
)
def test_keys_missing_or_malformed(settings: Any, key: str, check_id: str, value: Any) -> None:
    settings.FACEPRINT = settings.FACEPRINT | {key: value}
    assert set(found()) == {check_id}


def test_keys_used_twice(settings: Any) -> None:
    one, two = generate_key(), generate_key()
    for encryption, index in (([one], [one]), ([one, one], [two]), ([one], [two, two]), ([two, one], [one])):
        settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": encryption, "INDEX_KEYS": index}
        messages = found()
        assert set(messages) == {"faceprint.E007"}
        assert one not in messages["faceprint.E007"].msg
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [one], "INDEX_KEYS": [two]}
    assert found() == {}


def test_keys_that_are_not_random(production: Any) -> None:
    production.FACEPRINT = production.FACEPRINT | {"INDEX_KEYS": ["A" * 43 + "="]}
    assert set(found()) == {"faceprint.W005"}
    production.DEBUG = True
    assert found() == {}


def test_storage_missing(settings: Any) -> None:
    storages = settings.STORAGES
    entries: tuple[Any, ...] = (None, {}, "django.core.files.storage.FileSystemStorage")
    for entry in entries:
        settings.STORAGES = storages | {"faceprint": entry}
        assert set(found()) == {"faceprint.E008"}
    settings.STORAGES = {alias: entry for alias, entry in storages.items() if alias != "faceprint"}
    assert set(found()) == {"faceprint.E008"}


def test_storage_that_cannot_be_imported(settings: Any) -> None:
    settings.STORAGES = settings.STORAGES | {"faceprint": {"BACKEND": "no.such.Storage"}}
    assert set(found()) == {"faceprint.E009"}


def test_storage_where_web_servers_serve(settings: Any, tmp_path: Path) -> None:
    media, static = tmp_path / "media", tmp_path / "static"
    settings.MEDIA_ROOT, settings.STATIC_ROOT = str(media), static
    default = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(tmp_path / "default")},
    }

    def of(**options: Any) -> set[str]:
        backend = "tests.test_checks.OwnStorage"
        entry: dict[str, Any] = {"BACKEND": backend, "OPTIONS": options} if options else {"BACKEND": backend}
        settings.STORAGES = settings.STORAGES | {"default": default, "faceprint": entry}
        return set(found())

    assert of(location=str(tmp_path / "archive")) == set()
    assert of(location=str(tmp_path / "media-private")) == set()
    for location in (media, media / "faces", static / "x", tmp_path / "default", media / "x" / ".." / "y"):
        assert of(location=str(location)) == {"faceprint.W001"}
    assert of() == {"faceprint.W001"}
    (tmp_path / "link").symlink_to(media)
    assert of(location=str(tmp_path / "link" / "faces")) == {"faceprint.W001"}


@pytest.mark.parametrize(
    "options",
    [{"base_url": "/faces/"}, {"default_acl": "public-read"}, {"querystring_auth": False}],
)
def test_storage_with_public_addresses(settings: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    entry = {
        "BACKEND": "tests.test_checks.OwnStorage",
        "OPTIONS": {"location": str(tmp_path / "archive"), **options},
    }
    settings.STORAGES = settings.STORAGES | {"faceprint": entry}
    assert set(found()) == {"faceprint.W002"}


def test_storage_elsewhere_passes(settings: Any) -> None:
    entry = {
        "BACKEND": "django.core.files.storage.InMemoryStorage",
        "OPTIONS": {"location": "prefix", "default_acl": "private", "querystring_auth": True},
    }
    settings.STORAGES = settings.STORAGES | {"faceprint": entry}
    assert found() == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("API_URL", "http://127.0.0.1:8400"),
        ("API_URL", "http://aip.baidubce.com"),
        ("H5_URL", "https://sandbox/face/print/"),
        ("PUBLIC_URL", "https://192.168.0.4"),
        ("MEDIA_HOSTS", ["*.bcebos.com", "localhost:8400"]),
        ("MEDIA_HOSTS", ["*"]),
    ],
)
def test_hosts_of_a_laptop_in_production(production: Any, key: str, value: Any) -> None:
    production.FACEPRINT = production.FACEPRINT | {key: value}
    messages = found()
    assert set(messages) == {"faceprint.E010"}
    assert key in messages["faceprint.E010"].msg
    production.DEBUG = True
    assert found() == {}


def test_a_clock_that_a_file_moves(production: Any) -> None:
    production.FACEPRINT = production.FACEPRINT | {"CLOCK": "tests.test_checks.file_clock"}
    assert set(found()) == {"faceprint.E011"}
    production.DEBUG = True
    assert found() == {}


def test_another_clock(production: Any) -> None:
    production.FACEPRINT = production.FACEPRINT | {"CLOCK": "tests.test_checks.other_clock"}
    assert set(found()) == {"faceprint.W003"}


def test_another_api_host(production: Any) -> None:
    production.FACEPRINT = production.FACEPRINT | {"API_URL": "https://faceprint.example.com"}
    assert set(found()) == {"faceprint.W004"}


@pytest.mark.parametrize(
    "entry", ["*", "*.example.com", "https://shop.example.com", "shop.example.com/x", "a@b.com", "a b"]
)
def test_open_redirects(settings: Any, entry: str) -> None:
    settings.FACEPRINT = settings.FACEPRINT | {"RETURN_URL_HOSTS": ["shop.example.com:8443", entry]}
    assert set(found()) == {"faceprint.E012"}


@pytest.mark.parametrize(
    ("soft", "hard", "lease", "visibility", "ids"),
    [
        (240, 300, 420, 3600, []),
        (240, 300, 420, None, []),
        (300, 300, 420, None, ["faceprint.E013"]),
        (240, 420, 420, None, ["faceprint.E013"]),
        (240, 300, 420, 420, ["faceprint.E014"]),
        (500, 300, 420, 60, ["faceprint.E013", "faceprint.E014"]),
    ],
)
def test_time_limits(soft: int, hard: int, lease: int, visibility: int | None, ids: list[str]) -> None:
    messages = checks.time_limit_messages(soft, hard, lease, visibility)
    assert [message.id for message in messages] == ids
    assert all(message.hint for message in messages)


@pytest.mark.parametrize(
    ("url", "options", "ids"),
    [
        ("redis://127.0.0.1/0", {}, set()),
        ("redis://127.0.0.1/0", None, set()),
        ("redis://127.0.0.1/0", {"visibility_timeout": 300}, {"faceprint.E014"}),
        ("rediss://127.0.0.1/0", {"visibility_timeout": 300}, {"faceprint.E014"}),
        ("redis+socket:///tmp/x", {"visibility_timeout": 300}, {"faceprint.E014"}),
        ("amqp://127.0.0.1//", {"visibility_timeout": 300}, set()),
        ("filesystem://", {}, set()),
        (None, {}, set()),
    ],
)
def test_the_visibility_timeout_of_the_broker(
    monkeypatch: pytest.MonkeyPatch, url: str | None, options: Any, ids: set[str]
) -> None:
    app = Celery(set_as_current=False)
    app.conf.update(broker_url=url, broker_transport_options=options)
    monkeypatch.setattr(checks, "current_app", app)
    assert set(found()) == ids


def test_checks_ask_neither_network_nor_database(production: Any, django_db_blocker: Any) -> None:
    # Without the db mark, pytest-django refuses every query; tests/conftest.py every foreign connection.
    assert found() == {}


def test_every_id_is_unique_documented_and_tested() -> None:
    def ids(paths: Any, pattern: str = r"faceprint\.[EW]\d{3}") -> list[str]:
        return [name for path in paths for name in re.findall(pattern, path.read_text(encoding="utf-8"))]

    sources = sorted((ROOT / "django_faceprint").rglob("*.py"))
    # Reported from two places with one meaning: a wrong value, and missing credentials.
    made = ids(sources, r'(?:id=|_id=|, )"(faceprint\.[EW]\d{3})"')
    assert {name for name in made if made.count(name) > 1} <= {"faceprint.E003", "faceprint.E004"}
    documented = re.findall(
        r"^\| `(faceprint\.[EW]\d{3})` \|",
        (ROOT / "docs" / "checks.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(documented) == len(set(documented))
    assert set(documented) == set(made)
    tests = [Path(__file__), Path(__file__).parent / "privacy" / "test_fields.py"]
    assert set(ids(tests)) >= set(made)


def test_credentials_are_in_no_representation(settings: Any) -> None:
    credentials = {"API_KEY": "canary-api-key", "SECRET_KEY": "canary-secret-key"}
    settings.FACEPRINT = {**settings.FACEPRINT, "APPLICATIONS": {"default": credentials}}
    shown = repr(conf.applications)
    assert "account='default'" in shown
    assert "canary" not in shown


# --- check --deploy -----------------------------------------------------------------------------


def found_for_deployment() -> dict[str, list[str]]:
    """What our checks say beyond those of every start: id → texts."""
    said: dict[str, list[str]] = {}
    for message in run_checks(tags=["faceprint"], include_deployment_checks=True):
        assert message.hint
        said.setdefault(message.id or "", []).append(message.msg)
    return said


@pytest.fixture
def deployed(production: Any, db: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Settings of a live site whose engine has just run."""
    production.FACEPRINT = production.FACEPRINT | {"REQUIRE_CONSENT": True}
    app = Celery("host", set_as_current=False)
    app.conf.beat_schedule = {**FACEPRINT_BEAT_SCHEDULE, "mine": {"task": "host.mine", "schedule": 60}}
    monkeypatch.setattr(checks, "current_app", app)
    for name in ("tick", "retain"):
        statistics.record_heartbeat(name)
    return production


def test_a_sound_deployment_passes(deployed: Any) -> None:
    assert found_for_deployment() == {}


def test_debug_in_a_deployment(deployed: Any) -> None:
    deployed.DEBUG = True
    assert set(found_for_deployment()) == {"faceprint.W009"}


def test_a_task_that_beat_does_not_start(deployed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery("other", set_as_current=False)
    app.conf.beat_schedule = {"mine": FACEPRINT_BEAT_SCHEDULE["faceprint.tick"]}
    monkeypatch.setattr(checks, "current_app", app)
    (text,) = found_for_deployment()["faceprint.W010"]
    assert "faceprint.retain" in text
    assert "faceprint.tick" not in text


def test_an_engine_that_stands_still(deployed: Any) -> None:
    Heartbeat.objects.filter(name="tick").update(at=now() - timedelta(minutes=6))
    Heartbeat.objects.filter(name="retain").delete()
    engine, deletion = found_for_deployment()["faceprint.W011"]
    assert "last ran at" in engine
    assert "has never run" in deletion


def test_consent_that_nobody_asks_for(deployed: Any) -> None:
    deployed.FACEPRINT = deployed.FACEPRINT | {"REQUIRE_CONSENT": False}
    assert set(found_for_deployment()) == {"faceprint.W006"}


def test_a_log_that_is_kept_too_short(deployed: Any) -> None:
    deployed.FACEPRINT = deployed.FACEPRINT | {"LOG_RETENTION": timedelta(days=1_094)}
    assert set(found_for_deployment()) == {"faceprint.E015"}
    deployed.FACEPRINT = deployed.FACEPRINT | {"LOG_RETENTION": timedelta(days=1_095)}
    assert found_for_deployment() == {}


def test_a_database_that_cannot_be_asked(production: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise OperationalError("password=top-secret")

    monkeypatch.setattr(checks.statistics, "heartbeats", fail)
    assert found_for_deployment()["faceprint.W011"] == [
        "The engine's heartbeat cannot be read (OperationalError)."
    ]
