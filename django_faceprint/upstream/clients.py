"""Baidu as configured by this project: clients, downloads and the record of every call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DEFAULT_DB_ALIAS, connections

from django_faceprint.base.db_thread import Database, in_this_thread
from django_faceprint.client import (
    Breakers,
    CallRecord,
    DecodePicture,
    Downloader,
    ErrorClass,
    FaceprintClient,
    decode_picture,
)
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.exceptions import FaceprintConfigurationError
from django_faceprint.hosts import refuse_unsafe_hosts
from django_faceprint.models import UpstreamCall, VerificationSession

from .rate_limit import RateLimit
from .token_store import DatabaseTokenStore

#: Maximum size of one picture or video in bytes, and maximum length of its download in seconds.
MAX_MEDIA_BYTES = 512 * 1024 * 1024
MEDIA_SECONDS = 120.0


class Upstream:
    """What one process shares: connections, circuit breakers, the rate limit and the access tokens.

    Safe to share between threads.
    """

    def __init__(
        self,
        *,
        rate_limit: RateLimit | None = None,
        api_breakers: Breakers | None = None,
        media_breakers: Breakers | None = None,
    ) -> None:
        self._rate_limit = rate_limit if rate_limit is not None else RateLimit()
        # Two of them, as one host may be both: the sandbox is.
        self._api_breakers = api_breakers if api_breakers is not None else Breakers()
        self._media_breakers = media_breakers if media_breakers is not None else Breakers()
        self._tokens = DatabaseTokenStore()
        self._guard = threading.Lock()
        self._clients: dict[tuple[object, ...], FaceprintClient] = {}
        self._downloaders: dict[tuple[object, ...], Downloader] = {}

    @contextmanager
    def client_for(
        self,
        application: str,
        *,
        session: VerificationSession | None = None,
        records: list[UpstreamCall] | None = None,
        urgent: bool = True,
        database: Database = in_this_thread,
        decode: DecodePicture = decode_picture,
    ) -> Iterator[FaceprintClient]:
        """A client with the credentials of *application*; its calls are recorded for *session*.

        The records are written to the database at the end, or appended to *records* for the caller to write.
        Each call acquires its slot in the account's rate limit, *urgent* ones first; see
        :mod:`.rate_limit`. *database* does what the client needs of the database, *decode* reads the pictures
        inside answers.

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
        made: list[UpstreamCall] = []

        def acquire(endpoint: str) -> None:
            self._rate_limit.acquire(application, endpoint, urgent=urgent, database=database)

        def keep(record: CallRecord) -> None:
            if record.outcome != UpstreamCall.TRANSPORT:
                rate_limit_code = record.code if record.outcome == ErrorClass.SLOW_DOWN.value else ""
                self._rate_limit.note_answer(application, record.endpoint, rate_limit_code, database=database)
            made.append(_row(record, application, session))

        client = self._shared_client(application).with_hooks(
            before_call=acquire, on_call=keep, token_store=self._tokens.over(database), decode=decode
        )
        try:
            yield client
        finally:
            if records is None:
                UpstreamCall.objects.bulk_create(made)
            else:
                records += made

    def downloader(self) -> Downloader:
        """What fetches media, from the configured hosts only. Shared, so that connections are kept alive."""
        key = (conf.media_hosts, conf.debug, tuple(sorted(conf.proxies.items())))
        with self._guard:
            if key not in self._downloaders:
                self._downloaders.clear()
                self._downloaders[key] = Downloader(
                    allowed_hosts=conf.media_hosts,
                    allow_private=conf.debug,
                    timeout=(5.0, 20.0),
                    total_timeout=MEDIA_SECONDS,
                    max_bytes=MAX_MEDIA_BYTES,
                    proxies=conf.proxies,
                    breakers=self._media_breakers,
                )
            return self._downloaders[key]

    def api_retry_after(self) -> float | None:
        """None while Baidu answers; else seconds until the next request is sent, 0 if that is now."""
        return self._api_breakers.of_url(conf.api_url).retry_after()

    def _shared_client(self, application: str) -> FaceprintClient:
        credentials = conf.applications.get(application)
        if credentials is None:
            raise FaceprintConfigurationError(
                f'FACEPRINT["APPLICATIONS"] has no application {application!r}.'
            )
        key = (
            credentials.api_key,
            credentials.secret_key,
            conf.api_url,
            conf.h5_url,
            tuple(sorted(conf.proxies.items())),
        )
        with self._guard:
            if key not in self._clients:
                self._clients[key] = FaceprintClient(
                    api_key=credentials.api_key,
                    secret_key=credentials.secret_key,
                    api_url=conf.api_url,
                    h5_url=conf.h5_url,
                    proxies=conf.proxies,
                    breakers=self._api_breakers,
                    clock=now,
                )
            return self._clients[key]


#: What this process shares.
upstream = Upstream()


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


def _row(record: CallRecord, application: str, session: VerificationSession | None) -> UpstreamCall:
    return UpstreamCall(
        environment=conf.environment,
        application=application,
        session_id=session.pk if session else None,
        endpoint=record.endpoint,
        outcome=record.outcome,
        code=record.code[:40],
        log_id=record.log_id[:40],
        http_status=record.http_status,
        latency=record.latency,
    )
