"""Baidu as configured by this project: clients, downloads and the record of every call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from django.db import DEFAULT_DB_ALIAS, connections

from django_faceprint.client import Breakers, CallRecord, Downloader, ErrorClass, FaceprintClient
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.exceptions import FaceprintConfigurationError
from django_faceprint.hosts import refuse_unsafe_hosts
from django_faceprint.models import UpstreamCall, VerificationSession

from .rate_limit import RateLimit
from .token_store import DatabaseTokenStore

#: Bytes that one picture or video may have at most, and seconds that its download may take.
MAX_MEDIA_BYTES = 512 * 1024 * 1024
MEDIA_SECONDS = 120.0


@dataclass(frozen=True)
class _Caller:
    """On whose behalf the calls of this context are made."""

    application: str
    urgent: bool
    records: list[UpstreamCall]


_caller: ContextVar[_Caller | None] = ContextVar("faceprint_caller", default=None)
_budget = RateLimit()
# Apart, as one host may be both: the sandbox is.
_api_hosts = Breakers()
_media_hosts = Breakers()
_lock = threading.Lock()
_clients: dict[tuple[object, ...], FaceprintClient] = {}
_downloaders: dict[tuple[object, ...], Downloader] = {}


@contextmanager
def client_for(
    application: str,
    *,
    session: VerificationSession | None = None,
    records: list[UpstreamCall] | None = None,
    urgent: bool = True,
) -> Iterator[FaceprintClient]:
    """A client with the credentials of *application*; its calls are recorded for *session*.

    They are written to the database at the end, or appended to *records* for the caller to write. Each call
    waits for its turn in the account's budget, *urgent* ones first; see :mod:`.rate_limit`.

    Raises :class:`FaceprintConfigurationError` for an unknown application, for hosts that production
    refuses, and for a session of the other environment: the sandbox must never be asked about a person
    of Baidu's, nor Baidu about one of the sandbox's. Raises ``RuntimeError`` inside a database
    transaction: upstream may take a minute, and a row must not be locked so long.
    """
    refuse_inside_transaction()
    refuse_unsafe_hosts()
    if session is not None and session.environment != conf.environment:
        raise FaceprintConfigurationError(
            f"The session is of the environment {session.environment}, API_URL of {conf.environment}."
        )
    client = _client(application)
    made: list[UpstreamCall] = []
    token = _caller.set(_Caller(application, urgent, made))
    try:
        yield client
    finally:
        _caller.reset(token)
        for record in made:
            record.application = application
            record.session_id = session.pk if session else None
        if records is None:
            UpstreamCall.objects.bulk_create(made)
        else:
            records += made


def downloader() -> Downloader:
    """What fetches media, from the configured hosts only. Shared, so that connections are kept alive."""
    key = (conf.media_hosts, conf.debug, tuple(sorted(conf.proxies.items())))
    with _lock:
        if key not in _downloaders:
            _downloaders.clear()
            _downloaders[key] = Downloader(
                allowed_hosts=conf.media_hosts,
                allow_private=conf.debug,
                timeout=(5.0, 20.0),
                total_timeout=MEDIA_SECONDS,
                max_bytes=MAX_MEDIA_BYTES,
                proxies=conf.proxies,
                breakers=_media_hosts,
            )
        return _downloaders[key]


def api_retry_after() -> float | None:
    """None while Baidu answers; else seconds until it may be asked again, 0 if that is now."""
    return _api_hosts.of_url(conf.api_url).retry_after()


def is_inside_transaction() -> bool:
    """Whether a transaction is open; Django's own test transactions do not count."""
    blocks = connections[DEFAULT_DB_ALIAS].atomic_blocks
    return bool(blocks) and not getattr(blocks[-1], "_from_testcase", False)


def refuse_inside_transaction() -> None:
    """Raise ``RuntimeError`` when a transaction is open; Django's own test transactions do not count."""
    if is_inside_transaction():
        raise RuntimeError(
            "faceprint talks to Baidu and to storage outside database transactions only; call it after the "
            "transaction, or mark the view with transaction.non_atomic_requests."
        )


def _client(application: str) -> FaceprintClient:
    try:
        credentials = conf.applications[application]
    except KeyError:
        raise FaceprintConfigurationError(
            f'FACEPRINT["APPLICATIONS"] has no application {application!r}.'
        ) from None
    key = (
        credentials.api_key,
        credentials.secret_key,
        conf.api_url,
        conf.h5_url,
        tuple(sorted(conf.proxies.items())),
    )
    with _lock:
        if key not in _clients:
            _clients[key] = FaceprintClient(
                api_key=credentials.api_key,
                secret_key=credentials.secret_key,
                api_url=conf.api_url,
                h5_url=conf.h5_url,
                token_store=DatabaseTokenStore(),
                proxies=conf.proxies,
                before_call=_acquire,
                on_call=_remember,
                breakers=_api_hosts,
                clock=now,
            )
        return _clients[key]


def _acquire(endpoint: str) -> None:
    caller = _caller.get()
    if caller is not None:
        _budget.acquire(caller.application, endpoint, urgent=caller.urgent)


def _remember(record: CallRecord) -> None:
    caller = _caller.get()
    if caller is not None:
        if record.outcome != UpstreamCall.TRANSPORT:
            throttled_by = record.code if record.outcome == ErrorClass.SLOW_DOWN.value else ""
            _budget.note_answer(caller.application, record.endpoint, throttled_by)
        caller.records.append(
            UpstreamCall(
                environment=conf.environment,
                endpoint=record.endpoint,
                outcome=record.outcome,
                code=record.code[:40],
                log_id=record.log_id[:40],
                http_status=record.http_status,
                latency=record.latency,
            )
        )
