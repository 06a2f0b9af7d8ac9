"""Settings of a benchmark's processes: production but for ``DEBUG``, without which loopback is refused.

The environment variable ``FACEPRINT_BENCHMARK`` holds the differences between runs; see :mod:`.project`.
"""

from __future__ import annotations

import base64
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from .project import Project

PROJECT = Project.from_environment()

DEBUG = True
# Only for the hosts: a production host does not keep the text of its statements.
BaseDatabaseWrapper.queries_logged = property(  # type: ignore[method-assign,assignment]
    lambda connection: connection.force_debug_cursor
)

SECRET_KEY = "key of the benchmarks, no secret"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "Asia/Shanghai"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_faceprint"]

DATABASES = {"default": PROJECT.database}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "faceprint": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {
            "location": PROJECT.archive,
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    },
}

CELERY_BROKER_URL = PROJECT.broker
CELERY_TASK_IGNORE_RESULT = True
CELERY_TIMEZONE = TIME_ZONE


def fixed_key(number: int) -> str:
    """A fixed key in the form of the settings."""
    return base64.urlsafe_b64encode(bytes([number]) * 32).decode("ascii")


FACEPRINT: dict[str, Any] = {
    "APPLICATIONS": {"default": {"API_KEY": "benchmark-api-key", "SECRET_KEY": "benchmark-secret-key"}},
    "API_URL": PROJECT.api_url,
    "H5_URL": f"{PROJECT.api_url}/face/print/",
    "PUBLIC_URL": "http://127.0.0.1",
    "MEDIA_HOSTS": [PROJECT.api_url.partition("://")[2]],
    # The engine is measured, not Baidu's limit.
    "QPS": None,
    "CONCURRENCY": PROJECT.concurrency,
    "ENCRYPTION_KEYS": [fixed_key(number) for number in PROJECT.encryption_keys],
    "INDEX_KEYS": [fixed_key(number) for number in PROJECT.index_keys],
}
