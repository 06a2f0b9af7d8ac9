"""Settings of the benchmark of the console: those of the others, and a site with an admin."""

from __future__ import annotations

from typing import Any

from .settings import *  # noqa: F403
from .settings import INSTALLED_APPS as ENGINE_APPS

INSTALLED_APPS = [
    "django.contrib.admin",
    *ENGINE_APPS,
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            # As in production: nothing is kept for error pages.
            "debug": False,
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
ROOT_URLCONF = "benchmarks.console_urls"
ALLOWED_HOSTS = ["testserver"]
STATIC_URL = "/static/"
LANGUAGE_CODE = "zh-hans"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
