"""Settings of the tests. They stand alone: only FACEPRINT_TEST_DATABASE is read from outside.

DEBUG is on, and pytest is told to keep it (``django_debug_mode = "keep"``): a sandbox on loopback,
which nearly every test talks to, is refused in production. What production refuses is tested with
``settings.DEBUG = False`` in the test itself.
"""

from __future__ import annotations

import atexit
import base64
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import django
import environ

env = environ.Env()

# A folder for each process, so that several runs on one machine never meet.
WORK = Path(tempfile.mkdtemp(prefix="faceprint-tests-"))


def remove_work(owner: int = os.getpid()) -> None:
    """Clean up, but not from a forked child."""
    if os.getpid() == owner:
        shutil.rmtree(WORK, ignore_errors=True)


atexit.register(remove_work)

DEBUG = True
SECRET_KEY = "key of the tests, no secret"
ALLOWED_HOSTS = ["testserver", "127.0.0.1", "localhost"]
ROOT_URLCONF = "tests.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_faceprint",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

LANGUAGE_CODE = "zh-hans"
LANGUAGES = [("zh-hans", "简体中文"), ("en", "English")]
TIME_ZONE = "Asia/Shanghai"
USE_TZ = True
STATIC_URL = "/static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 15 * 1024 * 1024


def database() -> dict[str, Any]:
    """SQLite in a file, with the example project's options, or the server that is named.

    A file, not memory: threads and processes of one test then meet as they do in production.
    """
    if url := env.str("FACEPRINT_TEST_DATABASE", default=""):
        config: dict[str, Any] = env.db_url_config(url)
        if config["ENGINE"] == "django.db.backends.mysql":
            needed = {"charset": "utf8mb4", "isolation_level": "read committed"}
            config["OPTIONS"] = needed | config.get("OPTIONS", {})
            # Whatever the server makes databases with by itself.
            config["TEST"] = {"CHARSET": "utf8mb4"}
        elif config["ENGINE"] == "django.db.backends.postgresql":
            # A server that was installed without a locale counts bytes, not characters.
            config["TEST"] = {"CHARSET": "UTF8", "TEMPLATE": "template0"}
        return config
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(WORK / "unused.sqlite3"),
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
        "TEST": {"NAME": str(WORK / "test.sqlite3")},
    }


DATABASES = {"default": database()}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "faceprint": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {
            "location": str(WORK / "archive"),
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    },
}

if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
DEFAULT_FROM_EMAIL = "faceprint@example.com"

CELERY_BROKER_URL = "memory://"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ALWAYS_EAGER = False
CELERY_TIMEZONE = TIME_ZONE

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        "rest_framework.authentication.TokenAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "django-faceprint",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}


def fixed_key(number: int) -> str:
    """A fixed key in the form that settings take."""
    return base64.urlsafe_b64encode(bytes([number]) * 32).decode("ascii")


# Nothing listens at the discard port: a test that forgets to point at its own sandbox fails fast.
NOWHERE = "127.0.0.1:9"
FACEPRINT: dict[str, Any] = {
    "APPLICATIONS": {
        "default": {"API_KEY": "sandbox-api-key", "SECRET_KEY": "sandbox-secret-key"},
        "other": {"API_KEY": "sandbox-other-api-key", "SECRET_KEY": "sandbox-other-secret-key"},
    },
    "API_URL": f"http://{NOWHERE}",
    "H5_URL": f"http://{NOWHERE}/face/print/",
    "PUBLIC_URL": "http://testserver",
    "MEDIA_HOSTS": [NOWHERE],
    # Tests of the rate limit set it; the others must not wait in real time.
    "QPS": None,
    "ENCRYPTION_KEYS": [fixed_key(1)],
    "INDEX_KEYS": [fixed_key(2)],
    "RETURN_URL_HOSTS": ["shop.example.com"],
}
