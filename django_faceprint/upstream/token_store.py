"""The access_token of each application, shared by all processes through the database."""

from __future__ import annotations

import copy
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db import IntegrityError, transaction

from django_faceprint.base.db_thread import Database, in_this_thread
from django_faceprint.base.hold import hold
from django_faceprint.client import AccessToken as Token
from django_faceprint.clock import now
from django_faceprint.models import AccessToken
from django_faceprint.privacy.blind_index import blind_index, blind_index_candidates
from django_faceprint.privacy.keys import SealBroken

logger = logging.getLogger(__name__)

#: Seconds for which a process goes on using a token that another one may have replaced.
REMEMBERED_SECONDS = 30.0
#: How long one worker may fetch a token before others do; and seconds between their tries.
FETCH_LEASE = timedelta(seconds=30)
WAIT_SECONDS = 0.1


class DatabaseTokenStore:
    """Keeps access_tokens encrypted in the table ``faceprint_accesstoken``.

    Works on every database and needs no cache server. A worker that dies while fetching blocks the
    others for at most 30 seconds. Each process remembers a token for 30 seconds, so that not every call reads
    the database.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._remembered: dict[str, tuple[Token, float]] = {}
        self._database: Database = in_this_thread

    def over(self, database: Database) -> DatabaseTokenStore:
        """The same store for a thread whose database work *database* does."""
        other = copy.copy(self)
        other._database = database
        return other

    def get(self, key: str) -> Token | None:
        """The stored token, or None. One that cannot be decrypted any more counts as none."""
        token, until = self._remembered.get(key, (None, 0.0))
        if token is not None and self._monotonic() < until and now() < token.renew_at:
            return token
        token = self._database(lambda: self._read(key))
        if token is None:
            self._remembered.pop(key, None)
        else:
            self._remembered[key] = (token, self._monotonic() + REMEMBERED_SECONDS)
        return token

    def _read(self, key: str) -> Token | None:
        row = AccessToken.objects.filter(key=key).first()
        if row is None or row.expires_at is None or row.renew_at is None:
            return None
        try:
            value = row.token
        except SealBroken:
            logger.warning("faceprint: the stored access_token cannot be decrypted; fetching a new one")
            return None
        return Token(value, row.expires_at, row.renew_at) if value else None

    def put(self, key: str, token: Token) -> None:
        """Keep *token* for all workers."""
        self._remembered.pop(key, None)
        self._database(lambda: self._write(key, token))

    def _write(self, key: str, token: Token) -> None:
        row = self._row(key)
        row.token = token.value
        row.token_index = blind_index("access_token", token.value)
        row.expires_at = token.expires_at
        row.renew_at = token.renew_at
        row.save(update_fields=["token", "token_index", "expires_at", "renew_at"])

    def discard(self, key: str, token: Token) -> None:
        """Forget *token*, unless another worker has replaced it already."""
        self._remembered.pop(key, None)
        stored = AccessToken.objects.filter(
            key=key, token_index__in=blind_index_candidates("access_token", token.value)
        )
        self._database(lambda: stored.update(token=None, token_index="", expires_at=None, renew_at=None))

    @contextmanager
    def single_flight(self, key: str) -> Iterator[None]:
        """Enter when no other worker is fetching, or after 30 seconds; then read the store again."""
        rows = AccessToken.objects.filter(pk=self._database(lambda: self._row(key)).pk)
        holder = secrets.token_hex(16)
        give_up_at = self._monotonic() + FETCH_LEASE.total_seconds()

        def is_claimed() -> bool:
            return hold(rows, "lease_until", FETCH_LEASE, lease_holder=holder)

        while not self._database(is_claimed) and self._monotonic() < give_up_at:
            self._sleep(WAIT_SECONDS)
        # Another worker may have brought a new token meanwhile.
        self._remembered.pop(key, None)
        try:
            yield
        finally:
            ours = rows.filter(lease_holder=holder)
            self._database(lambda: ours.update(lease_holder="", lease_until=None))

    @staticmethod
    def _row(key: str) -> AccessToken:
        try:
            with transaction.atomic():
                return AccessToken.objects.get_or_create(key=key)[0]
        except IntegrityError:
            return AccessToken.objects.get(key=key)
