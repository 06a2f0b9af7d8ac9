"""Settings of the example project: safe for a laptop as they are, for production by environment alone.

Every variable is read here, through django-environ, and nowhere else; ``.env.example`` explains each.
The environment overrides the ``.env`` file.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django
import environ
from django.core.exceptions import ImproperlyConfigured

from .keys import key_from_file, private_folder
from .storage import storage_from_url

BASE_DIR = Path(__file__).resolve().parent.parent
SANDBOX_URL = "http://127.0.0.1:8400"

env = environ.Env()
# Set but empty: read no file at all, so that only the environment counts (the demo does so).
if env_file := env.str("FACEPRINT_ENV_FILE", default=str(BASE_DIR / ".env")):
    env.read_env(env_file)

# The folder for everything that the site writes on a laptop.
VAR = Path(env.str("FACEPRINT_VAR", default="") or BASE_DIR / "var").resolve()

# On by default, for the laptop: sandbox, movable clock and generated keys need it. Until ALLOWED_HOSTS is
# set, only this machine has access.
DEBUG = env.bool("DEBUG", default=True)


def strings(variable: str, default: list[str]) -> list[str]:
    """The items of a comma-separated variable, without surrounding blanks."""
    given = [item.strip() for item in env.str(variable, default="").split(",")]
    return [item for item in given if item] or default


def required(variable: str, reason: str) -> str:
    """The value of a variable that must be set."""
    value: str = env.str(variable, default="")
    if not value:
        raise ImproperlyConfigured(f"Set {variable}: {reason}.")
    return value


def generated_key(variable: str, file_name: str) -> str:
    """A key that the laptop generates; on a server it must be set."""
    if not DEBUG:
        required(variable, "with DEBUG off, no key is generated")
    return key_from_file(private_folder(VAR) / "keys" / file_name)


# --- Django -----------------------------------------------------------------------------------------

SECRET_KEY = env.str("SECRET_KEY", default="") or generated_key("SECRET_KEY", "django.key")
SECRET_KEY_FALLBACKS = strings("SECRET_KEY_FALLBACKS", [])
ALLOWED_HOSTS = strings("ALLOWED_HOSTS", ["127.0.0.1", "localhost", "[::1]"])
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
ASGI_APPLICATION = "example_project.asgi.application"
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
    "example_project",
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

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "admin:login"

LANGUAGE_CODE = "zh-hans"
LANGUAGES = [("zh-hans", "简体中文"), ("en", "English")]
TIME_ZONE = "Asia/Shanghai"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = VAR / "static"

# A match image of 10 MB arrives as base64 inside JSON.
DATA_UPLOAD_MAX_MEMORY_SIZE = 15 * 1024 * 1024

# --- Database, cache, storage -----------------------------------------------------------------------


def database() -> dict[str, Any]:
    """SQLite below ``VAR``, or the database of DATABASE_URL, with the options that its engine needs."""
    url = env.str("DATABASE_URL", default="")
    if url:
        config: dict[str, Any] = env.db_url_config(url)
    else:
        config = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(private_folder(VAR) / "db.sqlite3"),
        }
    needed: dict[str, Any] = {}
    if config["ENGINE"] == "django.db.backends.sqlite3":
        # Readers do not wait for the writer, and a writer takes its lock at the start: a lock taken
        # in the middle of a transaction fails at once instead of waiting for the timeout.
        needed = {"init_command": "PRAGMA journal_mode=WAL", "transaction_mode": "IMMEDIATE", "timeout": 20}
    else:
        config.setdefault("CONN_MAX_AGE", 60)
        config.setdefault("CONN_HEALTH_CHECKS", True)
    if config["ENGINE"] == "django.db.backends.mysql":
        needed = {
            "charset": "utf8mb4",
            "isolation_level": "read committed",
            "init_command": "SET sql_mode='STRICT_TRANS_TABLES'",
        }
    config["OPTIONS"] = needed | config.get("OPTIONS", {})
    return config


DATABASES = {"default": database()}

# Not in memory: all processes share it.
CACHES = {
    "default": env.cache_url("CACHE_URL")
    if env.str("CACHE_URL", default="")
    else {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": str(VAR / "cache"),
    }
}

STORAGES = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(VAR / "media")},
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    # Encrypted evidence. Private: no base URL, and no web server serves it.
    "faceprint": storage_from_url(env.str("FACEPRINT_STORAGE", default="") or (VAR / "archive").as_uri()),
}

# --- Mail -------------------------------------------------------------------------------------------


# The old names of a mailer's options.
SMTP_OPTIONS = {
    "EMAIL_HOST": "host",
    "EMAIL_PORT": "port",
    "EMAIL_HOST_USER": "username",
    "EMAIL_HOST_PASSWORD": "password",
    "EMAIL_USE_TLS": "use_tls",
    "EMAIL_USE_SSL": "use_ssl",
    "EMAIL_TIMEOUT": "timeout",
}


def mail() -> dict[str, Any]:
    """EMAIL_URL as ``EMAIL_*`` settings; files below ``VAR`` by default."""
    url = env.str("EMAIL_URL", default="")
    given: dict[str, Any] = {
        "EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend",
        "EMAIL_FILE_PATH": str(VAR / "mail"),
    }
    if url:
        given = {"EMAIL_TIMEOUT": 20} | env.email_url_config(url)
    backend = given["EMAIL_BACKEND"]
    names = {"EMAIL_BACKEND"}
    if backend.endswith(".filebased.EmailBackend"):
        names.add("EMAIL_FILE_PATH")
    elif backend.endswith(".smtp.EmailBackend"):
        names.update(SMTP_OPTIONS)
    return {name: given[name] for name in names if given.get(name) not in (None, "")}


def mailer(given: dict[str, Any]) -> dict[str, Any]:
    """The same as an entry of MAILERS, which replaces the ``EMAIL_*`` settings since Django 6.1."""
    names = SMTP_OPTIONS | {"EMAIL_FILE_PATH": "file_path"}
    options = {names[name]: value for name, value in given.items() if name in names}
    return {"BACKEND": given["EMAIL_BACKEND"], "OPTIONS": options}


if django.VERSION >= (6, 1):
    MAILERS = {"default": mailer(mail())}
else:
    globals().update(mail())
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="faceprint@localhost")

# --- Celery -----------------------------------------------------------------------------------------

CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default="filesystem://localhost")
if CELERY_BROKER_URL.startswith("filesystem:"):
    _messages = str(private_folder(VAR / "broker" / "messages"))
    CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {
        "data_folder_in": _messages,
        "data_folder_out": _messages,
        "control_folder": str(private_folder(VAR / "broker" / "control")),
    }
elif CELERY_BROKER_URL.startswith(("redis:", "rediss:", "sentinel:")):
    # Longer than the hard time limit: a task must not be handed out again while it runs.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 3600}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_SOFT_TIME_LIMIT = 240
CELERY_TASK_TIME_LIMIT = 300
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = TIME_ZONE
# Next to the data, not in the current folder.
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR / "celerybeat-schedule")

# --- REST API ---------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        "rest_framework.authentication.TokenAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "django-faceprint",
    "SERVE_INCLUDE_SCHEMA": False,
    # From this site, not from a content delivery network.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

# --- django-faceprint -------------------------------------------------------------------------------

FACEPRINT_API_URL = env.str("FACEPRINT_API_URL", default="") or SANDBOX_URL
LIVE = f".{urlsplit(FACEPRINT_API_URL).hostname}".endswith(".baidubce.com")
PUBLIC_URL = env.str("FACEPRINT_PUBLIC_URL", default="")
if not PUBLIC_URL:
    if not DEBUG:
        required("FACEPRINT_PUBLIC_URL", "Baidu sends browsers back to it")
    PUBLIC_URL = "http://127.0.0.1:8000"


def credential(variable: str, sandbox: str) -> str:
    """One of the two credentials; by default the sandbox's, but required for Baidu."""
    if LIVE:
        return required(variable, "FACEPRINT_API_URL is Baidu's")
    return str(env.str(variable, default="") or sandbox)


FACEPRINT: dict[str, Any] = {
    "APPLICATIONS": {
        "default": {
            "API_KEY": credential("FACEPRINT_API_KEY", "sandbox-api-key"),
            "SECRET_KEY": credential("FACEPRINT_SECRET_KEY", "sandbox-secret-key"),
        },
    },
    "API_URL": FACEPRINT_API_URL,
    "H5_URL": env.str("FACEPRINT_H5_URL", default="")
    or ("https://brain.baidu.com/face/print/" if LIVE else f"{FACEPRINT_API_URL.rstrip('/')}/face/print/"),
    "PUBLIC_URL": PUBLIC_URL,
    "MEDIA_HOSTS": strings(
        "FACEPRINT_MEDIA_HOSTS",
        ["brain.baidu.com", "*.bcebos.com"] if LIVE else [urlsplit(FACEPRINT_API_URL).netloc],
    ),
    "ENCRYPTION_KEYS": strings("FACEPRINT_ENCRYPTION_KEYS", [])
    or [generated_key("FACEPRINT_ENCRYPTION_KEYS", "encryption.key")],
    "INDEX_KEYS": strings("FACEPRINT_INDEX_KEYS", []) or [generated_key("FACEPRINT_INDEX_KEYS", "index.key")],
    "QPS": env.float("FACEPRINT_QPS", default=10.0),
    "CONCURRENCY": env.int("FACEPRINT_CONCURRENCY", default=8),
    "REQUIRE_CONSENT": env.bool("FACEPRINT_REQUIRE_CONSENT", default=True),
    "RETURN_URL_HOSTS": strings("FACEPRINT_RETURN_URL_HOSTS", []),
}
if retention_days := env.int("FACEPRINT_RETENTION_DAYS", default=0):
    FACEPRINT["RETENTION"] = timedelta(days=retention_days)
if proxy := env.str("FACEPRINT_PROXY", default=""):
    FACEPRINT["PROXIES"] = {"http": proxy, "https": proxy}

# The plan (方案ID) that the demo, the doctor and the first verification use.
FACEPRINT_PLAN_ID = (
    required("FACEPRINT_PLAN_ID", "FACEPRINT_API_URL is Baidu's")
    if LIVE
    else (env.str("FACEPRINT_PLAN_ID", default="") or "25001")
)

# The demo and the fault tests move the time of all processes and of the sandbox together.
FACEPRINT_CLOCK_FILE = env.str("FACEPRINT_CLOCK_FILE", default="")
if FACEPRINT_CLOCK_FILE:
    if not DEBUG:
        raise ImproperlyConfigured("FACEPRINT_CLOCK_FILE is refused when DEBUG is off.")
    FACEPRINT["CLOCK"] = "example_project.clock.now"

# --- Security ---------------------------------------------------------------------------------------

X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_AGE = 12 * 3600
CSRF_TRUSTED_ORIGINS = strings("CSRF_TRUSTED_ORIGINS", [])
if not DEBUG:
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=True)
    SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=365 * 24 * 3600)
    SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("SECURE_HSTS_INCLUDE_SUBDOMAINS", default=False)
    SECURE_HSTS_PRELOAD = env.bool("SECURE_HSTS_PRELOAD", default=False)
    # Only behind a proxy that always sets or strips this header itself.
    if env.bool("BEHIND_TLS_PROXY", default=False):
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# --- Logging ----------------------------------------------------------------------------------------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", default="INFO")},
    # Below WARNING this library logs full URLs, and Baidu's contain the access token.
    "loggers": {"urllib3": {"level": "WARNING"}},
}
