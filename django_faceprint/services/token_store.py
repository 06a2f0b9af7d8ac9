"""The access_token of each application, shared by all processes through the database."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q

from django_faceprint.client import AccessToken as Token
from django_faceprint.clock import now
from django_faceprint.models import AccessToken
from django_faceprint.privacy.blind_index import blind_index, blind_index_candidates
from django_faceprint.privacy.keys import SealBroken

logger = logging.getLogger(__name__)

FETCH_LEASE = timedelta(seconds=30)
WAIT_SECONDS = 0.1


class DatabaseTokenStore:
    """Keeps access_tokens encrypted in the table ``faceprint_accesstoken``.

    Works on every database and needs no cache server. A worker that dies while fetching blocks the
    others for at most 30 seconds.
    """

    def get(self, key: str) -> Token | None:
        """The stored token, or None. One that cannot be decrypted any more counts as none."""
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
        row = self._row(key)
        row.token = token.value
        row.token_index = blind_index("access_token", token.value)
        row.expires_at = token.expires_at
        row.renew_at = token.renew_at
        row.save(update_fields=["token", "token_index", "expires_at", "renew_at"])

    def discard(self, key: str, token: Token) -> None:
        """Forget *token*, unless another worker has replaced it already."""
        AccessToken.objects.filter(
            key=key, token_index__in=blind_index_candidates("access_token", token.value)
        ).update(token=None, token_index="", expires_at=None, renew_at=None)

    @contextmanager
    def single_flight(self, key: str) -> Iterator[None]:
        """Enter when no other worker is fetching; whoever waited should look into the store again."""
        row = self._row(key)
        holder = secrets.token_hex(16)
        give_up_at = time.monotonic() + FETCH_LEASE.total_seconds()
        while not self._take(row.pk, holder) and time.monotonic() < give_up_at:
            time.sleep(WAIT_SECONDS)
        try:
            yield
        finally:
            AccessToken.objects.filter(pk=row.pk, lease_holder=holder).update(
                lease_holder="", lease_until=None
            )

    @staticmethod
    def _take(pk: int, holder: str) -> bool:
        moment = now()
        free = Q(lease_until__isnull=True) | Q(lease_until__lte=moment)
        # A lease that ends later than any we hand out was written under a clock that has since moved back.
        free |= Q(lease_until__gt=moment + FETCH_LEASE)
        rows = AccessToken.objects.filter(free, pk=pk)
        return rows.update(lease_holder=holder, lease_until=moment + FETCH_LEASE) == 1

    @staticmethod
    def _row(key: str) -> AccessToken:
        try:
            with transaction.atomic():
                return AccessToken.objects.get_or_create(key=key)[0]
        except IntegrityError:
            return AccessToken.objects.get(key=key)
