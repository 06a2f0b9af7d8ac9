"""System checks: report problems of the configuration at start instead of at the first verification.

They read settings only: no network, no database; but for those of ``check --deploy``, which also look
for the engine's heartbeat. Each has an id of its own (listed in ``docs/checks.md``) and a hint. The checks
of encrypted fields, ``faceprint.E101``–``E104``, stand with the fields.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import current_app
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004  (Django's name)
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import FileSystemStorage
from django.db import DatabaseError
from django.utils.module_loading import import_string

from django_faceprint.base import lease as leases
from django_faceprint.maintenance.diagnosis import HEARTBEAT_MAX_AGE
from django_faceprint.records import statistics

from .clock import FileClock, now, system_clock
from .conf import APPLICATION_KEYS, KEYS, conf
from .exceptions import FaceprintConfigurationError
from .hosts import unsafe_settings
from .models.append_only import KEPT_AT_LEAST
from .tasks import FACEPRINT_BEAT_SCHEDULE

STORAGE_ALIAS = "faceprint"
#: Default visibility timeout of the redis and SQS transports (kombu).
DEFAULT_VISIBILITY_TIMEOUT = 3600
TRANSPORTS_WITH_VISIBILITY_TIMEOUT = ("redis", "rediss", "sentinel", "sqs", "valkey")

# Setting → property of ``conf`` that reads and checks it.
_PROPERTIES = {
    "API_URL": "api_url",
    "H5_URL": "h5_url",
    "PUBLIC_URL": "public_url",
    "MEDIA_HOSTS": "media_hosts",
    "QPS": "qps",
    "CONCURRENCY": "concurrency",
    "REQUIRE_CONSENT": "require_consent",
    "REVEAL_REASONS": "reveal_reasons",
    "RETENTION": "retention",
    "LOG_RETENTION": "log_retention",
    "RETENTION_BASIS": "retention_basis",
    "RETURN_URL_HOSTS": "return_url_hosts",
    "LATEST_GRACE": "latest_grace",
    "CLOCK": "clock",
    "PROXIES": "proxies",
}

#: Heartbeat, its name for people, and the age from which it is overdue.
_HEARTBEATS = (
    ("tick", "The engine", HEARTBEAT_MAX_AGE),
    ("retain", "The deletion of expired evidence (faceprint.retain)", timedelta(hours=2)),
)

_DANGERS = {
    "loopback": "is this machine",
    "private": "is a private address or name",
    "plain_http": "is plain http",
    "invalid": "is no usable host",
}


@register("faceprint")
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """E001–E007, W005: ``settings.FACEPRINT`` exists, its keys are known, and every value is valid."""
    raw = getattr(settings, "FACEPRINT", None)
    if not isinstance(raw, Mapping):
        return [
            Error(
                "settings.FACEPRINT is missing." if raw is None else "settings.FACEPRINT is not a dict.",
                hint="Set FACEPRINT = {...}; docs/settings.md lists its keys.",
                id="faceprint.E001",
            )
        ]
    if unknown := conf.unknown_keys():
        # conf refuses to read anything until they are removed, so that no misspelt key is ignored.
        return list(_unknown_keys(unknown, KEYS, "settings.FACEPRINT"))
    return [*_wrong_values(), *_applications(raw), *_keys(raw)]


@register("faceprint")
def check_storage(**kwargs: Any) -> list[CheckMessage]:
    """E008, E009, W001, W002: the archive has its own storage, which is not public."""
    entry = settings.STORAGES.get(STORAGE_ALIAS)
    if not isinstance(entry, Mapping) or not entry.get("BACKEND"):
        return [
            Error(
                f'STORAGES["{STORAGE_ALIAS}"] is missing.',
                hint="Add a private storage under this alias. There is no fallback to the default storage, "
                "which is often served by the web server.",
                id="faceprint.E008",
            )
        ]
    backend = entry["BACKEND"]
    try:
        storage_class = import_string(backend) if isinstance(backend, str) else backend
    except ImportError:
        return [
            Error(
                f'The backend of STORAGES["{STORAGE_ALIAS}"] cannot be imported.',
                hint="Correct the dotted path, or install what it needs (django-faceprint[s3] for S3).",
                id="faceprint.E009",
            )
        ]
    options = entry.get("OPTIONS") or {}
    messages: list[CheckMessage] = []
    if isinstance(storage_class, type) and issubclass(storage_class, FileSystemStorage):
        location = options.get("location") or settings.MEDIA_ROOT
        if not options.get("location") or _is_served(Path(location)):
            messages.append(
                Warning(
                    f'STORAGES["{STORAGE_ALIAS}"] keeps its files in a folder that web servers serve.',
                    hint="Give it a location of its own, outside of MEDIA_ROOT, STATIC_ROOT and the folders "
                    "of the other storages.",
                    id="faceprint.W001",
                )
            )
    if (
        options.get("base_url")
        or str(options.get("default_acl") or "").startswith("public")
        or options.get("querystring_auth") is False
    ):
        messages.append(
            Warning(
                f'STORAGES["{STORAGE_ALIAS}"] is set up to give out public addresses.',
                hint="Remove base_url, a public default_acl and querystring_auth=False: files are served by "
                "access-checked views only.",
                id="faceprint.W002",
            )
        )
    return messages


@register("faceprint")
def check_production(**kwargs: Any) -> list[CheckMessage]:
    """E010, E011, W003, W004: with ``DEBUG`` off, neither the sandbox nor a movable clock is in use."""
    if conf.debug:
        return []
    messages: list[CheckMessage] = []
    try:
        unsafe = unsafe_settings()
        is_sandbox = conf.environment == "sandbox"
        clock = conf.clock
    except FaceprintConfigurationError:
        return []  # reported by check_settings
    for setting, danger in unsafe:
        messages.append(
            Error(
                f'DEBUG is off, and FACEPRINT["{setting}"] {_DANGERS[danger]}.',
                hint="Set it to the public https address; no session is started until then.",
                id="faceprint.E010",
            )
        )
    if isinstance(clock, FileClock):
        messages.append(
            Error(
                'DEBUG is off, and FACEPRINT["CLOCK"] is a clock that a file can move.',
                hint="Remove CLOCK: whoever can write that file could make evidence expire.",
                id="faceprint.E011",
            )
        )
    elif clock is not system_clock:
        messages.append(
            Warning(
                'DEBUG is off, and FACEPRINT["CLOCK"] is not the system\'s clock.',
                hint="Remove CLOCK, unless you know why deadlines follow another clock.",
                id="faceprint.W003",
            )
        )
    if is_sandbox and not any(setting == "API_URL" for setting, _ in unsafe):
        messages.append(
            Warning(
                'DEBUG is off, and FACEPRINT["API_URL"] is not a host of Baidu.',
                hint="Sessions are marked as sandbox and left out of the statistics. Remove API_URL to talk "
                "to Baidu itself.",
                id="faceprint.W004",
            )
        )
    return messages


@register("faceprint", deploy=True)
def check_retention(**kwargs: Any) -> list[CheckMessage]:
    """E020: indefinite retention of evidence has a documented legal basis."""
    try:
        unfounded = conf.retention.default is None and not conf.retention_basis
    except FaceprintConfigurationError:
        return []  # reported by check_settings
    if not unfounded:
        return []
    return [
        Error(
            'FACEPRINT["RETENTION"] keeps faces and ID numbers without end, and no legal basis is named.',
            hint="Set a finite RETENTION, or say in RETENTION_BASIS which rule obliges you to keep them.",
            id="faceprint.E020",
        )
    ]


@register("faceprint")
def check_return_hosts(**kwargs: Any) -> list[CheckMessage]:
    """E012: every entry of ``RETURN_URL_HOSTS`` names one host, so that no redirect is open."""
    try:
        entries = conf.return_url_hosts
    except FaceprintConfigurationError:
        return []  # reported by check_settings
    if not any(character in entry for entry in entries for character in "*/@?# "):
        return []
    return [
        Error(
            'FACEPRINT["RETURN_URL_HOSTS"] has an entry that is not host or host:port.',
            hint='Name each host, without scheme, path and "*": else strangers could send people elsewhere.',
            id="faceprint.E012",
        )
    ]


@register("faceprint")
def check_time_limits(**kwargs: Any) -> list[CheckMessage]:
    """E013, E014: soft limit < hard limit < lease < the broker's visibility timeout."""
    return time_limit_messages(
        leases.SOFT_TIME_LIMIT, leases.HARD_TIME_LIMIT, leases.MAX_LEASE_SECONDS, _visibility_timeout()
    )


@register("faceprint", deploy=True)
def check_debug(**kwargs: Any) -> list[CheckMessage]:
    """W009: ``DEBUG`` is off in production."""
    if not conf.debug:
        return []
    return [
        Warning(
            "DEBUG is on: sandbox hosts and a movable clock are allowed, and error pages show what they can.",
            hint="Switch DEBUG off wherever real people are verified.",
            id="faceprint.W009",
        )
    ]


@register("faceprint", deploy=True)
def check_consent(**kwargs: Any) -> list[CheckMessage]:
    """W006: evidence of consent is required before a person is sent to Baidu."""
    try:
        required = conf.require_consent
    except FaceprintConfigurationError:
        return []  # reported by check_settings
    if required:
        return []
    return [
        Warning(
            'FACEPRINT["REQUIRE_CONSENT"] is off: sessions start without evidence of consent.',
            hint="Switch it on, unless another system makes sure that each person has consented separately, "
            "and keeps the evidence.",
            id="faceprint.W006",
        )
    ]


@register("faceprint", deploy=True)
def check_log_retention(**kwargs: Any) -> list[CheckMessage]:
    """E015: ``LOG_RETENTION`` is at least the legal minimum."""
    try:
        kept = conf.log_retention
    except FaceprintConfigurationError:
        return []  # reported by check_settings
    if kept >= KEPT_AT_LEAST:
        return []
    return [
        Error(
            f'FACEPRINT["LOG_RETENTION"] is {kept.days} days, less than {KEPT_AT_LEAST.days}.',
            hint="Records of processing are to be kept for three years; nothing younger is deleted, whatever "
            "this says. Remove it or raise it.",
            id="faceprint.E015",
        )
    ]


@register("faceprint", deploy=True)
def check_beat_schedule(**kwargs: Any) -> list[CheckMessage]:
    """W010: Celery's beat starts every task of ``FACEPRINT_BEAT_SCHEDULE``."""
    planned = {entry.get("task") for entry in (current_app.conf.beat_schedule or {}).values()}
    missing = sorted({entry["task"] for entry in FACEPRINT_BEAT_SCHEDULE.values()} - planned)
    if not missing:
        return []
    return [
        Warning(
            f"Celery's beat_schedule does not start {', '.join(missing)}.",
            hint="Merge django_faceprint.tasks.FACEPRINT_BEAT_SCHEDULE into beat_schedule, so that tasks of "
            "later versions are in it too; or silence this where faceprint_run --forever does the work.",
            id="faceprint.W010",
        )
    ]


@register("faceprint", deploy=True)
def check_heartbeat(**kwargs: Any) -> list[CheckMessage]:
    """W011: engine and retention have run recently."""
    try:
        last = statistics.heartbeats()
    except (DatabaseError, ImproperlyConfigured) as error:
        said = [f"The engine's heartbeat cannot be read ({type(error).__name__})."]
    else:
        moment = now()
        said = [
            f"{what} {f'last ran at {last[name]:%Y-%m-%d %H:%M}' if name in last else 'has never run'}."
            for name, what, age in _HEARTBEATS
            if name not in last or moment - last[name] > age
        ]
    return [
        Warning(
            text,
            hint="Start a worker and beat, or faceprint_run --forever: what is not fetched in time is lost, "
            "and what is not deleted in time is kept too long. faceprint_doctor says more.",
            id="faceprint.W011",
        )
        for text in said
    ]


def time_limit_messages(
    soft: float, hard: float, lease: float, visibility: float | None
) -> list[CheckMessage]:
    """Problems with these times in seconds; ``visibility`` is None for brokers without that timeout."""
    messages: list[CheckMessage] = []
    if not soft < hard < lease:
        messages.append(
            Error(
                f"The time limits of tasks ({soft} s, {hard} s) and the lease ({lease} s) are out of order.",
                hint="Keep soft limit < hard limit < lease: a task must be dead before another takes over.",
                id="faceprint.E013",
            )
        )
    if visibility is not None and visibility <= lease:
        messages.append(
            Error(
                f"The broker hands out a task again after {visibility} s, but a lease lasts {lease} s.",
                hint="Raise visibility_timeout in Celery's broker_transport_options; 3600 is usual.",
                id="faceprint.E014",
            )
        )
    return messages


def _unknown_keys(unknown: Sequence[str], known: frozenset[str], where: str) -> Iterator[CheckMessage]:
    for key in unknown:
        similar = difflib.get_close_matches(key.upper(), known, n=1)
        yield Error(
            f"{where} has the unknown key {key!r}.",
            hint=f"Did you mean {similar[0]!r}?" if similar else f"Known are {', '.join(sorted(known))}.",
            id="faceprint.E002",
        )


def _wrong_values() -> Iterator[CheckMessage]:
    for key, name in _PROPERTIES.items():
        problem = _problem(name)
        if problem:
            yield Error(problem, hint=f"docs/settings.md describes {key}.", id="faceprint.E003")


def _applications(raw: Mapping[str, Any]) -> Iterator[CheckMessage]:
    applications = raw.get("APPLICATIONS")
    if not applications:
        yield Error(
            'FACEPRINT["APPLICATIONS"] is empty: there are no credentials for Baidu.',
            hint='Set APPLICATIONS = {"default": {"API_KEY": …, "SECRET_KEY": …}} from Baidu\'s console.',
            id="faceprint.E004",
        )
        return
    found = False
    for alias, values in applications.items() if isinstance(applications, Mapping) else ():
        if not isinstance(values, Mapping):
            continue  # reported by conf, below
        unknown = sorted(str(key) for key in set(values) - APPLICATION_KEYS)
        for message in _unknown_keys(unknown, APPLICATION_KEYS, f'FACEPRINT["APPLICATIONS"][{alias!r}]'):
            found = True
            yield message
        for key in ("API_KEY", "SECRET_KEY"):
            if not values.get(key):
                found = True
                yield Error(
                    f'FACEPRINT["APPLICATIONS"][{alias!r}] has no {key}.',
                    hint="Copy it from the application's page in Baidu's console.",
                    id="faceprint.E004",
                )
    problem = "" if found else _problem("applications")
    if problem:
        yield Error(problem, hint="docs/settings.md describes APPLICATIONS.", id="faceprint.E003")


def _keys(raw: Mapping[str, Any]) -> Iterator[CheckMessage]:
    hint = (
        "Make one with: python -c 'from django_faceprint.privacy.keys import generate_key; "
        "print(generate_key())', and keep a copy: without it the archive cannot be read."
    )
    usable = True
    for key, name, check_id in (
        ("ENCRYPTION_KEYS", "encryption_keys", "faceprint.E005"),
        ("INDEX_KEYS", "index_keys", "faceprint.E006"),
    ):
        problem = _key_problem(key, name) if raw.get(key) else f'FACEPRINT["{key}"] is empty.'
        if problem:
            usable = False
            yield Error(problem, hint=hint, id=check_id)
    if not usable or conf.key_provider("ENCRYPTION_KEYS") or conf.key_provider("INDEX_KEYS"):
        return
    keys = [*conf.encryption_keys, *conf.index_keys]
    if len(set(keys)) != len(keys):
        yield Error(
            "ENCRYPTION_KEYS and INDEX_KEYS of FACEPRINT hold the same key twice.",
            hint="Make a key of its own for each: whoever can test index values must not be able to decrypt.",
            id="faceprint.E007",
        )
    # Tests and demonstrations may well use b"\1" * 32; random bytes repeat far less.
    elif not conf.debug and any(len(set(key)) < 8 for key in keys):
        yield Warning(
            "DEBUG is off, and a key of FACEPRINT is not random.",
            hint=hint,
            id="faceprint.W005",
        )


def _key_problem(key: str, name: str) -> str:
    """Problems with a list of keys. Providers are not called: they may need the network."""
    try:
        if conf.key_provider(key) is not None:
            return ""
    except FaceprintConfigurationError as error:
        return str(error)
    return _problem(name)


def _problem(name: str) -> str:
    """The error that ``conf`` raises for a property, "" if none; it names keys and never values."""
    try:
        getattr(conf, name)
    except FaceprintConfigurationError as error:
        return str(error)
    return ""


def _is_served(location: Path) -> bool:
    others = [
        (entry.get("OPTIONS") or {}).get("location")
        for alias, entry in settings.STORAGES.items()
        if alias != STORAGE_ALIAS and isinstance(entry, Mapping)
    ]
    resolved = location.resolve()
    # S3 storages have a "location" too: a relative prefix, not a folder.
    served = [Path(root) for root in (settings.MEDIA_ROOT, settings.STATIC_ROOT, *others) if root]
    return any(resolved.is_relative_to(root.resolve()) for root in served if root.is_absolute())


def _visibility_timeout() -> float | None:
    url = str(current_app.conf.broker_url or "")
    if url.partition(":")[0].partition("+")[0] not in TRANSPORTS_WITH_VISIBILITY_TIMEOUT:
        return None
    options = current_app.conf.broker_transport_options or {}
    return float(options.get("visibility_timeout", DEFAULT_VISIBILITY_TIMEOUT))
