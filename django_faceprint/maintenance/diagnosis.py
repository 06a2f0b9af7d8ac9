"""Finding problems of this installation by testing it; each has a message and a remedy for operators.

The tests cost no money and change no personal data. Only on request, a plan is tested by generating a
verify_token that nobody uses. No message contains a key, token, password or URL of the broker.
"""

from __future__ import annotations

import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery import current_app
from django.apps import apps
from django.core import checks, mail
from django.core.files.base import ContentFile
from django.core.files.storage import Storage
from django.db import DatabaseError, connections, router
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Model
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _

from django_faceprint.client import ErrorClass, UpstreamError, explain
from django_faceprint.clock import now, system_clock
from django_faceprint.conf import conf
from django_faceprint.evidence import files
from django_faceprint.exceptions import (
    AuthenticationFailed,
    FaceprintConfigurationError,
    FaceprintError,
    Unreachable,
)
from django_faceprint.models import AlertRule, MediaAsset, Plan, VerificationSession
from django_faceprint.privacy.blind_index import blind_index, blind_index_candidates
from django_faceprint.privacy.fields import encrypted_fields
from django_faceprint.privacy.files import unwrap_file_key
from django_faceprint.privacy.keys import SealBroken, encryption_ring, index_ring
from django_faceprint.records import statistics
from django_faceprint.upstream import clients
from django_faceprint.upstream.rate_limit import persistent_quota_problems

#: A tick comes every few seconds; after this time without one, beat or the workers are down.
HEARTBEAT_MAX_AGE = timedelta(minutes=5)
BROKER_SECONDS = 5
#: Number of rows of each encrypted column that are decrypted as a test, from either end of the table.
SAMPLE = 10


class State(StrEnum):
    """The result of a check. Only ``WRONG`` makes an installation unusable."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One check: short name, result, message and remedy ("" if none is needed)."""

    name: str
    state: State
    message: str
    remedy: str = ""


def diagnose(*, plan_ids: Iterable[str] = (), all_plans: bool = False) -> Iterator[Check]:
    """Run all checks, one after the other; never raises for a problem that it finds.

    For *plan_ids*, or all active plans with *all_plans*, a verify_token is generated, which proves that the
    plan exists and belongs to the application.

    Call it outside of transactions.
    """
    readable = _attempt(_read_settings)
    if isinstance(readable, Exception):
        yield _wrong("settings", str(readable), _("Run manage.py check: it says more about each setting."))
        return
    yield _settings()
    moment = _attempt(now)
    if isinstance(moment, Exception):
        yield _wrong("clock", _("The clock does not work: %s") % moment, _("Repair or remove CLOCK."))
        return
    yield _clock()
    database = _database()
    yield database
    if database.state == State.WRONG:
        yield Check("other", State.SKIPPED, _("What needs the database was left out."))
        yield from _storage()
        yield _broker()
        yield _mail()
        return
    yield _encryption_keys()
    yield _index_keys()
    yield from _storage()
    for alias in conf.applications:
        yield _application(alias)
    yield from _plans(list(plan_ids), all_plans=all_plans)
    yield _quota()
    yield _broker()
    yield _heartbeat()
    yield _recipients()
    yield _mail()
    yield _public_url()


# --- settings, time, database -------------------------------------------------------------------


def _read_settings() -> None:
    """Raises :class:`FaceprintConfigurationError` for a setting that everything else needs."""
    for name in ("applications", "api_url", "h5_url", "public_url", "proxies", "clock", "latest_grace"):
        getattr(conf, name)


def _settings() -> Check:
    problems = [message for message in checks.run_checks(tags=["faceprint"]) if not message.is_silenced()]
    errors = [message for message in problems if message.is_serious()]
    worst = errors or problems
    if not worst:
        return _ok("settings", _("settings.FACEPRINT is valid, environment: %s") % conf.environment)
    return Check(
        "settings",
        State.WRONG if errors else State.WARNING,
        " ".join(f"{message.msg} ({message.id})" for message in worst),
        " ".join(dict.fromkeys(str(message.hint) for message in worst if message.hint)),
    )


def _clock() -> Check:
    if conf.clock is system_clock:
        return _ok("clock", _("the system's clock"))
    if conf.debug:
        return _ok("clock", _("a clock of its own, allowed while DEBUG is on"))
    return _wrong(
        "clock",
        _("FACEPRINT['CLOCK'] can be moved while DEBUG is off."),
        _("Remove CLOCK: whoever can move the time can make evidence expire."),
    )


def _database() -> Check:
    connection = connections[router.db_for_write(VerificationSession)]
    try:
        connection.ensure_connection()
        executor = MigrationExecutor(connection)
        leaves = [node for node in executor.loader.graph.leaf_nodes() if node[0] == "faceprint"]
        missing = [migration.name for migration, _backwards in executor.migration_plan(leaves)]
    except DatabaseError as error:
        return _wrong(
            "database",
            _("The database cannot be reached: %s") % type(error).__name__,
            _("Start the database server, and check DATABASES: host, port, name, user and password."),
        )
    if missing:
        return _wrong(
            "database",
            _("Migrations are not applied: %s") % ", ".join(missing),
            _("Run: manage.py migrate"),
        )
    return _ok("database", _("%s, reachable, all migrations applied") % connection.vendor)


# --- keys ---------------------------------------------------------------------------------------


def _encryption_keys() -> Check:
    try:
        ring = encryption_ring()
        if ring.open("doctor", ring.seal("doctor", b"probe", b"doctor"), b"doctor") != b"probe":
            raise SealBroken
    except (FaceprintConfigurationError, SealBroken) as error:
        return _wrong("encryption_keys", str(error), _("Repair FACEPRINT['ENCRYPTION_KEYS']."))
    tried = 0
    problems: set[str] = set()
    for probe in _sealed_samples():
        tried += 1
        problem = _attempt(probe)
        if isinstance(problem, Exception):
            # Only our own texts are known to hold nothing of the value.
            problems.add(str(problem) if isinstance(problem, SealBroken) else type(problem).__name__)
    if problems:
        return _wrong(
            "encryption_keys",
            _("Stored rows cannot be decrypted: %s") % " ".join(sorted(problems)),
            _("Put the missing key back at the end of ENCRYPTION_KEYS; without it those rows stay closed."),
        )
    return _ok(
        "encryption_keys",
        _("%(keys)s keys, newest %(id)s; %(tried)s stored values were decrypted on trial")
        % {"keys": len(ring.key_ids), "id": ring.primary_id, "tried": tried},
    )


def _sealed_samples() -> Iterator[Callable[[], object]]:
    """Functions that decrypt stored values: the oldest and newest of each encrypted column."""
    for model in apps.get_app_config("faceprint").get_models():
        for field in encrypted_fields(model):
            for row, value in _both_ends(model, field.uuid_field, field.name):
                yield partial(field.unseal, row, value)
    for row, wrapped in _both_ends(MediaAsset, "public_id", "wrapped_key"):
        yield partial(unwrap_file_key, bytes(wrapped), row)


def _both_ends(model: type[Model], *columns: str) -> Iterator[tuple[Any, ...]]:
    rows = model._default_manager.filter(**{f"{columns[-1]}__isnull": False}).values_list("pk", *columns)
    seen = set()
    for order in ("pk", "-pk"):
        for row in rows.order_by(order)[:SAMPLE]:
            if row[0] not in seen:
                seen.add(row[0])
                yield row[1:]


def _index_keys() -> Check:
    try:
        ring = index_ring()
        if blind_index("log_id", "probe") not in blind_index_candidates("log_id", "probe"):
            raise SealBroken
    except (FaceprintConfigurationError, SealBroken) as error:
        return _wrong("index_keys", str(error), _("Repair FACEPRINT['INDEX_KEYS']."))
    used = {
        index.partition(":")[0]
        for column in ("verify_token_index", "number_index", "name_index")
        for (index,) in _both_ends(VerificationSession, column)
        if index
    }
    unknown = sorted(used - set(ring.key_ids))
    if unknown:
        return _wrong(
            "index_keys",
            _("Records were indexed with keys that are not configured: %s") % ", ".join(unknown),
            _("Put the missing key back at the end of INDEX_KEYS, or those persons cannot be searched for."),
        )
    return _ok(
        "index_keys",
        _("%(keys)s keys, newest %(id)s") % {"keys": len(ring.key_ids), "id": ring.primary_id},
    )


# --- storage ------------------------------------------------------------------------------------


def _storage() -> Iterator[Check]:
    remedy = _("Check STORAGES['faceprint']: folder, permissions, free space; bucket, keys and endpoint.")
    data = secrets.token_bytes(1024)
    storage = _attempt(files.storage)
    if isinstance(storage, Exception):
        yield _wrong("storage", _("There is no usable storage: %s") % type(storage).__name__, remedy)
        return
    name = _attempt(lambda: storage.save(f"doctor/{uuid4().hex}", ContentFile(data)))
    if isinstance(name, Exception):
        yield _wrong("storage", _("A file cannot be written: %s") % type(name).__name__, remedy)
        return
    read = _attempt(lambda: _read(storage, name))
    exposure = _exposure(storage, name)
    deleted = _attempt(lambda: storage.delete(name))
    if isinstance(read, Exception):
        yield _wrong("storage", _("A written file cannot be read: %s") % type(read).__name__, remedy)
    elif read != data:
        yield _wrong("storage", _("A file comes back different from how it was written."), remedy)
    elif isinstance(deleted, Exception) or _attempt(lambda: storage.exists(name)) is not False:
        kind = type(deleted).__name__ if isinstance(deleted, Exception) else _("it is still there")
        yield _wrong("storage", _("A file cannot be deleted: %s") % kind, remedy)
    else:
        yield _ok("storage", _("a probe was written, read and deleted (%s)") % type(storage).__name__)
    yield exposure


def _read(storage: Storage, name: str) -> bytes:
    with storage.open(name, "rb") as file:
        return bytes(file.read())


def _exposure(storage: Storage, name: str) -> Check:
    """Whether the stored files are public; they are encrypted, but that is only the last defence."""
    mode = 0
    with suppress(NotImplementedError, OSError):
        mode = Path(storage.path(name)).stat().st_mode
    if mode & stat.S_IROTH:
        return Check(
            "storage_private",
            State.WARNING,
            _("Every user of this machine can read the archive's files."),
            _("Set file_permissions_mode=0o600 and directory_permissions_mode=0o700 in its OPTIONS."),
        )
    is_public = getattr(storage, "querystring_auth", True) is False
    if is_public or str(getattr(storage, "default_acl", None) or "").startswith("public"):
        return _wrong(
            "storage_private",
            _("The archive's files have public addresses."),
            _("Remove querystring_auth=False and the public default_acl, and make the bucket private."),
        )
    return _ok("storage_private", _("no public address, not readable by others"))


# --- Baidu --------------------------------------------------------------------------------------


def _application(alias: str) -> Check:
    name = f"application:{alias}"
    try:
        with clients.upstream.client_for(alias) as client:
            client.check_credentials()
    except (FaceprintError, FaceprintConfigurationError) as error:
        return Check(name, State.WRONG, *_describe_upstream(error))
    return _ok(name, _("API key and Secret Key are accepted (%s)") % conf.environment)


def _plans(plan_ids: list[str], *, all_plans: bool) -> Iterator[Check]:
    active = {plan.plan_id: plan for plan in Plan.objects.active()}
    if not active:
        yield Check(
            "plans",
            State.WARNING,
            _("There is no active plan, so that no verification can be started."),
            _("Add the plan (方案ID, not 项目ID) in the admin, with the options it has in Baidu's console."),
        )
    orphans = sorted(plan.plan_id for plan in active.values() if plan.application not in conf.applications)
    if orphans:
        yield _wrong(
            "plans",
            _("Plans name an application that is not configured: %s") % ", ".join(orphans),
            _("Correct the application of the plan in the admin, or add it to FACEPRINT['APPLICATIONS']."),
        )
    elif active:
        yield _ok("plans", _("%s active plans, each with a configured application") % len(active))
    wanted = dict.fromkeys([*plan_ids, *(active if all_plans else ())])
    for plan_id in wanted:
        yield _plan(plan_id, active.get(plan_id))


def _plan(plan_id: str, plan: Plan | None) -> Check:
    name = f"plan:{plan_id}"
    alias = plan.application if plan else next(iter(conf.applications))
    try:
        with clients.upstream.client_for(alias) as client:
            client.generate_verify_token(plan_id)
    except (FaceprintError, FaceprintConfigurationError) as error:
        return Check(name, State.WRONG, *_describe_upstream(error))
    if plan is None:
        return Check(
            name,
            State.WARNING,
            _("Baidu knows the plan, but it is not among the active plans of this site."),
            _("Add it in the admin, with the options it has in Baidu's console."),
        )
    return _ok(name, _("a verify_token was generated"))


def _describe_upstream(error: FaceprintError | FaceprintConfigurationError) -> tuple[str, str]:
    """(message, remedy)"""
    answer: UpstreamError | None = error.error
    if isinstance(error, AuthenticationFailed):
        return _(str(error)), _("Copy API Key and Secret Key again from the application in Baidu's console.")
    if answer is not None:
        text = _("%(words)s (code %(code)s, log_id %(log_id)s)") % {
            "words": _(explain(answer.code, answer.error_class)),
            "code": answer.code,
            "log_id": answer.log_id or "-",
        }
        if answer.error_class == ErrorClass.CONFIGURATION:
            return text, _("Check plan ID, account, permissions and certification in Baidu's console.")
        return text, _("Try again later; if it persists, ask Baidu with the code and the log_id.")
    if isinstance(error, Unreachable):
        return (
            _("The host of API_URL does not answer as it should: %s") % error,
            _("Check the network, a firewall, FACEPRINT['PROXIES'] and API_URL."),
        )
    return str(error), _("Check FACEPRINT and the plan.")


def _quota() -> Check:
    problems = persistent_quota_problems()
    if not problems:
        return _ok("quota", _("no interface of Baidu refuses everything"))
    refusing = ", ".join(f"{item.endpoint} ({item.account}): {item.code}" for item in problems)
    return _wrong(
        "quota",
        _("Quota used up or not billed: %s") % refusing,
        _("In Baidu's console, buy quota (codes 17, 19) or open the billing of the backend interface (18)."),
    )


# --- Celery, mail, addresses --------------------------------------------------------------------


def _broker() -> Check:
    def connect() -> None:
        with current_app.connection_for_write(connect_timeout=BROKER_SECONDS) as connection:
            connection.ensure_connection(
                max_retries=1, interval_start=0, interval_step=0, timeout=BROKER_SECONDS
            )

    problem = _attempt(connect)
    transport = str(current_app.conf.broker_write_url or "amqp").partition(":")[0]
    if isinstance(problem, Exception):
        return _wrong(
            "broker",
            _("The message broker (%(transport)s) cannot be reached: %(problem)s")
            % {"transport": transport, "problem": type(problem).__name__},
            _("Start the broker and check Celery's broker_url; or do without: faceprint_run --forever."),
        )
    return _ok("broker", _("reachable (%s)") % transport)


def _heartbeat() -> Check:
    remedy = _(
        "Start a worker and beat (celery --app … worker --beat) with FACEPRINT_BEAT_SCHEDULE in its "
        "beat_schedule, or faceprint_run --forever."
    )
    last = statistics.last_heartbeat("tick")
    if last is None:
        return _wrong("heartbeat", _("The engine has never run: beat has not reached a worker."), remedy)
    age = now() - last
    if age > HEARTBEAT_MAX_AGE:
        minutes = int(age.total_seconds() // 60)
        return _wrong("heartbeat", _("The engine last ran %s minutes ago.") % minutes, remedy)
    return _ok("heartbeat", _("the engine ran %s seconds ago") % max(int(age.total_seconds()), 0))


def _recipients() -> Check:
    rules = list(AlertRule.objects.filter(enabled=True))
    silent = [rule.get_condition_display() for rule in rules if not rule.addresses]
    if not rules or silent:
        return _missing(
            "alert_recipients",
            _("Alerts without recipients: %s") % ", ".join(silent) if silent else _("No alert is enabled."),
            _("Enter e-mail addresses in the admin, under alert rules, and send a test mail."),
        )
    return _ok("alert_recipients", _("%s rules have recipients") % len(rules))


def _mail() -> Check:
    def connect() -> None:
        # Django 6.1 names its mailers; before, there is one connection.
        mailers = getattr(mail, "mailers", None)
        backend = mailers.default if mailers is not None else mail.get_connection()
        try:
            backend.open()
        finally:
            backend.close()

    problem = _attempt(connect)
    if isinstance(problem, Exception):
        return _wrong(
            "mail",
            _("The mail server cannot be used: %s") % type(problem).__name__,
            _("Check host, port, TLS, user and password of the mail settings."),
        )
    return _ok("mail", _("the mail server accepts connections"))


def _public_url() -> Check:
    if not conf.public_url:
        return _missing(
            "public_url",
            _("PUBLIC_URL is not set: browsers cannot be sent back, and mails have no links."),
            _("Set FACEPRINT['PUBLIC_URL'] to the https address at which browsers reach this site."),
        )
    try:
        reverse("faceprint:return", args=["probe"])
    except NoReverseMatch:
        return Check(
            "public_url",
            State.WARNING,
            _("The return view has no address: results are found by polling alone."),
            _("Include django_faceprint.urls in the project's urls."),
        )
    return _ok("public_url", _("browsers return to this site"))


# --- texts --------------------------------------------------------------------------------------


def _attempt(action: Callable[[], Any]) -> Any:
    """The result of *action*, or its exception: storages, brokers and mail backends raise anything."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001  (see above)
        return error


def _ok(name: str, message: str) -> Check:
    return Check(name, State.OK, message)


def _wrong(name: str, message: str, remedy: str) -> Check:
    return Check(name, State.WRONG, message, remedy)


def _missing(name: str, message: str, remedy: str) -> Check:
    """A problem that is a warning with ``DEBUG`` and an error without."""
    return Check(name, State.WARNING if conf.debug else State.WRONG, message, remedy)
