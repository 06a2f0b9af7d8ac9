"""The example project's settings, loaded in a process of their own for each environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import django
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
OTHER_KEY = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI="
SERVER = {
    "DEBUG": "False",
    "SECRET_KEY": "x" * 50,
    "ALLOWED_HOSTS": "faceprint.example.com, www.example.com",
    "FACEPRINT_ENCRYPTION_KEYS": f"{KEY},{OTHER_KEY}",
    "FACEPRINT_INDEX_KEYS": OTHER_KEY,
    "FACEPRINT_PUBLIC_URL": "https://faceprint.example.com",
    "FACEPRINT_API_URL": "https://aip.baidubce.com",
    "FACEPRINT_API_KEY": "a",
    "FACEPRINT_SECRET_KEY": "b",
    "FACEPRINT_PLAN_ID": "12345",
}
DUMP = """
import json
from example_project import settings
names = [name for name in dir(settings) if name.isupper() and name != "LIVE"]
print(json.dumps({name: getattr(settings, name) for name in names}, default=str))
"""


def run(var: Path, code: str = DUMP, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(var),
            "FACEPRINT_VAR": str(var),
            "FACEPRINT_ENV_FILE": "",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def load(var: Path, **environment: str) -> dict[str, Any]:
    done = run(var, **environment)
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def refused(var: Path, **environment: str) -> str:
    done = run(var, **environment)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("django.core.exceptions.ImproperlyConfigured: "), done.stderr
    return last


def test_a_laptop_needs_nothing(tmp_path: Path) -> None:
    settings = load(tmp_path / "var")
    assert settings["DEBUG"] is True
    assert settings["ALLOWED_HOSTS"] == ["127.0.0.1", "localhost", "[::1]"]
    assert settings["LANGUAGE_CODE"] == "zh-hans"
    assert settings["TIME_ZONE"] == "Asia/Shanghai"
    faceprint = settings["FACEPRINT"]
    assert faceprint["API_URL"] == "http://127.0.0.1:8400"
    assert faceprint["H5_URL"] == "http://127.0.0.1:8400/face/print/"
    assert faceprint["MEDIA_HOSTS"] == ["127.0.0.1:8400"]
    assert faceprint["PUBLIC_URL"] == "http://127.0.0.1:8000"
    assert faceprint["APPLICATIONS"]["default"]["API_KEY"] == "sandbox-api-key"
    assert "CLOCK" not in faceprint
    assert settings["DATABASES"]["default"]["NAME"] == str(tmp_path / "var" / "db.sqlite3")
    assert settings["STORAGES"]["faceprint"]["OPTIONS"]["location"] == str(tmp_path / "var" / "archive")
    assert "base_url" not in settings["STORAGES"]["faceprint"]["OPTIONS"]


def test_keys_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    var = tmp_path / "var"
    first, second = load(var), load(var)
    for name in ("ENCRYPTION_KEYS", "INDEX_KEYS"):
        assert first["FACEPRINT"][name] == second["FACEPRINT"][name]
    assert first["SECRET_KEY"] == second["SECRET_KEY"]
    assert first["FACEPRINT"]["ENCRYPTION_KEYS"] != first["FACEPRINT"]["INDEX_KEYS"]
    assert {path.name for path in (var / "keys").iterdir()} == {"django.key", "encryption.key", "index.key"}
    assert {path.stat().st_mode & 0o777 for path in (var / "keys").iterdir()} == {0o600}
    assert var.stat().st_mode & 0o777 == 0o700


def test_processes_that_start_together_get_the_same_keys(tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "FACEPRINT_VAR": str(tmp_path / "var"),
        "FACEPRINT_ENV_FILE": "",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", DUMP], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    keys = {json.loads(process.communicate(timeout=60)[0])["SECRET_KEY"] for process in started}
    assert len(keys) == 1


@pytest.mark.parametrize(
    "missing", ["SECRET_KEY", "FACEPRINT_ENCRYPTION_KEYS", "FACEPRINT_INDEX_KEYS", "FACEPRINT_PUBLIC_URL"]
)
def test_a_server_must_be_given_its_keys(tmp_path: Path, missing: str) -> None:
    message = refused(tmp_path / "var", **{name: SERVER[name] for name in SERVER if name != missing})
    assert f"Set {missing}: " in message
    assert not (tmp_path / "var" / "keys").exists()


@pytest.mark.parametrize("missing", ["FACEPRINT_API_KEY", "FACEPRINT_SECRET_KEY", "FACEPRINT_PLAN_ID"])
def test_the_real_baidu_is_never_asked_with_the_sandboxs_credentials(tmp_path: Path, missing: str) -> None:
    given = {"FACEPRINT_API_URL": "https://aip.baidubce.com"} | {
        name: "given"
        for name in ("FACEPRINT_API_KEY", "FACEPRINT_SECRET_KEY", "FACEPRINT_PLAN_ID")
        if name != missing
    }
    assert f"Set {missing}: " in refused(tmp_path / "var", **given)


def test_a_server(tmp_path: Path) -> None:
    settings = load(tmp_path / "var", **SERVER)
    faceprint = settings["FACEPRINT"]
    assert faceprint["H5_URL"] == "https://brain.baidu.com/face/print/"
    assert faceprint["MEDIA_HOSTS"] == ["brain.baidu.com", "*.bcebos.com"]
    assert faceprint["ENCRYPTION_KEYS"] == [KEY, OTHER_KEY]
    assert settings["ALLOWED_HOSTS"] == ["faceprint.example.com", "www.example.com"]
    for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT"):
        assert settings[name] is True
    assert settings["SECURE_HSTS_SECONDS"] > 0
    assert "SECURE_PROXY_SSL_HEADER" not in settings
    behind = load(tmp_path / "var", BEHIND_TLS_PROXY="True", **SERVER)
    assert behind["SECURE_PROXY_SSL_HEADER"] == ["HTTP_X_FORWARDED_PROTO", "https"]


def test_the_movable_clock_is_for_the_laptop(tmp_path: Path) -> None:
    clock = str(tmp_path / "clock")
    assert (
        load(tmp_path / "var", FACEPRINT_CLOCK_FILE=clock)["FACEPRINT"]["CLOCK"]
        == "example_project.clock.now"
    )
    assert "FACEPRINT_CLOCK_FILE" in refused(tmp_path / "var", FACEPRINT_CLOCK_FILE=clock, **SERVER)


def test_the_clock_moves(tmp_path: Path) -> None:
    (tmp_path / "clock").write_text("86400", encoding="ascii")
    code = """
import django; django.setup = lambda: None
from django.conf import settings
from datetime import UTC, datetime, timedelta
from example_project.clock import now
print((now() - datetime.now(UTC)) > timedelta(hours=23))
"""
    done = run(
        tmp_path / "var",
        code,
        FACEPRINT_CLOCK_FILE=str(tmp_path / "clock"),
        DJANGO_SETTINGS_MODULE="example_project.settings",
    )
    assert done.stdout.strip() == "True", done.stderr


def test_storage_in_a_bucket(tmp_path: Path) -> None:
    settings = load(
        tmp_path / "var",
        FACEPRINT_STORAGE="s3://id:se%2Fcret@evidence/2026?endpoint_url=http%3A%2F%2F127.0.0.1%3A9000&region_name=bj",
    )
    storage = settings["STORAGES"]["faceprint"]
    assert storage["BACKEND"] == "storages.backends.s3.S3Storage"
    assert storage["OPTIONS"] == {
        "access_key": "id",
        "secret_key": "se/cret",
        "bucket_name": "evidence",
        "location": "2026",
        "endpoint_url": "http://127.0.0.1:9000",
        "region_name": "bj",
        "default_acl": "private",
        "file_overwrite": False,
        "querystring_auth": True,
    }


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/secret-word",
        "file://secret-word/folder",
        "file:///",
        "s3:///secret-word",
        "s3://bucket?secret-word=1",
        "s3://bucket?secret-word",
        "s3://[secret-word/x",
    ],
)
def test_a_wrong_storage_is_refused_without_repeating_it(tmp_path: Path, address: str) -> None:
    message = refused(tmp_path / "var", FACEPRINT_STORAGE=address)
    assert "FACEPRINT_STORAGE" in message
    assert "unknown options" in message or "secret-word" not in message


def test_a_database_server(tmp_path: Path) -> None:
    postgres = load(tmp_path / "var", DATABASE_URL="postgres://u:p%40ss@db:5433/name")["DATABASES"]["default"]
    assert (postgres["HOST"], postgres["PORT"], postgres["PASSWORD"]) == ("db", 5433, "p@ss")
    assert postgres["CONN_HEALTH_CHECKS"] is True
    mysql = load(tmp_path / "var", DATABASE_URL="mysql://u:p@db/name")["DATABASES"]["default"]
    assert mysql["OPTIONS"]["isolation_level"] == "read committed"


def test_sqlite_waits_instead_of_failing(tmp_path: Path) -> None:
    sqlite = load(tmp_path / "var")["DATABASES"]["default"]
    assert sqlite["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert sqlite["OPTIONS"]["timeout"] == 20
    assert "journal_mode=WAL" in sqlite["OPTIONS"]["init_command"]


def test_the_broker(tmp_path: Path) -> None:
    local = load(tmp_path / "var")
    options = local["CELERY_BROKER_TRANSPORT_OPTIONS"]
    assert (
        options["data_folder_in"]
        == options["data_folder_out"]
        == str(tmp_path / "var" / "broker" / "messages")
    )
    assert Path(options["control_folder"]).is_dir()
    redis = load(tmp_path / "var", CELERY_BROKER_URL="redis://127.0.0.1:6379/0")
    assert redis["CELERY_TASK_SOFT_TIME_LIMIT"] < redis["CELERY_TASK_TIME_LIMIT"]
    assert redis["CELERY_TASK_TIME_LIMIT"] < redis["CELERY_BROKER_TRANSPORT_OPTIONS"]["visibility_timeout"]


SEND = """
import django
django.setup()
from django.core.mail import send_mail
send_mail("subject of a test", "body", None, ["someone@example.com"])
"""


def test_mail_is_written_to_files(tmp_path: Path) -> None:
    done = run(
        tmp_path / "var",
        SEND.replace("django.setup()", "from django.conf import settings"),
        DJANGO_SETTINGS_MODULE="example_project.settings",
    )
    assert done.returncode == 0, done.stderr
    (mail,) = (tmp_path / "var" / "mail").iterdir()
    assert "subject of a test" in mail.read_text(encoding="utf-8")


def test_mail_by_smtp(tmp_path: Path) -> None:
    settings = load(tmp_path / "var", EMAIL_URL="smtp+tls://me%40x:pw@mail.example.com:587")
    if django.VERSION >= (6, 1):
        assert settings["MAILERS"]["default"] == {
            "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "OPTIONS": {
                "host": "mail.example.com",
                "port": 587,
                "username": "me@x",
                "password": "pw",
                "use_tls": True,
                "timeout": 20,
            },
        }
    else:
        assert settings["EMAIL_HOST"] == "mail.example.com"
        assert settings["EMAIL_HOST_USER"] == "me@x"
        assert settings["EMAIL_USE_TLS"] is True
        assert settings["EMAIL_TIMEOUT"] == 20


def test_the_env_file_gives_way_to_the_environment(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("FACEPRINT_QPS=3\nDEFAULT_FROM_EMAIL=file@example.com\n", encoding="utf-8")
    settings = load(tmp_path / "var", FACEPRINT_ENV_FILE=str(tmp_path / "env"), FACEPRINT_QPS="5")
    assert settings["FACEPRINT"]["QPS"] == 5.0
    assert settings["DEFAULT_FROM_EMAIL"] == "file@example.com"


def test_every_variable_is_in_the_example_file() -> None:
    import re

    read = set(re.findall(r'"([A-Z][A-Z_]+)"', (ROOT / "example_project" / "settings.py").read_text("utf-8")))
    described = set(
        re.findall(r"^#([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)
    )
    assert described <= read


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    message = refused(tmp_path / "file" / "var")
    assert "Set FACEPRINT_VAR" in message
