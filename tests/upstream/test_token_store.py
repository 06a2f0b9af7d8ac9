"""Access tokens in the database: shared, encrypted, fetched by one worker at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event, Thread
from typing import Any

import pytest
from django.db import connection

from django_faceprint.client import AccessToken as Token
from django_faceprint.clock import now
from django_faceprint.models import AccessToken
from django_faceprint.upstream.token_store import FETCH_LEASE, DatabaseTokenStore
from tests.settings import fixed_key

VALUE = "24.0123456789abcdef0123456789abcdef.2592000.1775116800.282335-20000001"
KEY = "a" * 64


@pytest.fixture
def store(db: None, clock: Any) -> DatabaseTokenStore:
    return DatabaseTokenStore()


def token(value: str = VALUE, *, days: float = 30) -> Token:
    return Token(value, now() + timedelta(days=days), now() + timedelta(days=days - 3))


class TestKeeping:
    def test_nothing_is_kept_at_first(self, store: DatabaseTokenStore) -> None:
        assert store.get(KEY) is None

    def test_every_worker_gets_the_stored_token(self, store: DatabaseTokenStore) -> None:
        store.put(KEY, token())
        assert DatabaseTokenStore().get(KEY) == token()
        assert store.get("b" * 64) is None

    def test_a_newer_token_replaces_the_older(self, store: DatabaseTokenStore) -> None:
        store.put(KEY, token())
        store.put(KEY, token("newer"))
        assert store.get(KEY) == token("newer")
        assert AccessToken.objects.count() == 1

    def test_an_expired_token_comes_with_its_time(self, store: DatabaseTokenStore, clock: Any) -> None:
        store.put(KEY, token())
        clock.advance(days=31)
        kept = store.get(KEY)
        assert kept is not None
        assert kept.expires_at < now()

    def test_lies_encrypted_in_the_database(self, store: DatabaseTokenStore) -> None:
        store.put(KEY, token())
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM faceprint_accesstoken")
            columns = [
                bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
                for value in cursor.fetchone()
            ]
        assert not [
            column for column in columns if VALUE.encode() in column or VALUE[3:20].encode() in column
        ]

    def test_discarding(self, store: DatabaseTokenStore) -> None:
        store.put(KEY, token())
        store.discard(KEY, token("another"))
        assert store.get(KEY) == token()
        store.discard(KEY, token())
        assert store.get(KEY) is None
        store.discard(KEY, token())
        store.put(KEY, token("newer"))
        assert store.get(KEY) == token("newer")

    def test_discarding_finds_a_token_that_was_indexed_with_an_older_key(
        self, store: DatabaseTokenStore, settings: Any
    ) -> None:
        store.put(KEY, token())
        settings.FACEPRINT = {**settings.FACEPRINT, "INDEX_KEYS": [fixed_key(12), fixed_key(2)]}
        store.discard(KEY, token())
        assert store.get(KEY) is None


class TestUndecryptable:
    @pytest.mark.parametrize("damage", ["another key", "damaged"])
    def test_counts_as_none_and_is_replaced(
        self, store: DatabaseTokenStore, settings: Any, caplog: pytest.LogCaptureFixture, damage: str
    ) -> None:
        store.put(KEY, token())
        if damage == "another key":
            settings.FACEPRINT = {**settings.FACEPRINT, "ENCRYPTION_KEYS": [fixed_key(11)]}
        else:
            with connection.cursor() as cursor:
                cursor.execute("UPDATE faceprint_accesstoken SET token = %s", [b"\x01damaged" * 8])
        with caplog.at_level(logging.WARNING):
            assert store.get(KEY) is None
        assert "cannot be decrypted" in caplog.text
        assert VALUE not in caplog.text
        with store.single_flight(KEY):
            store.put(KEY, token("newer"))
        assert store.get(KEY) == token("newer")


@pytest.mark.django_db(transaction=True)
class TestSingleFlight:
    """Threads with a connection each: to the database they are two workers."""

    @pytest.fixture
    def store(self, transactional_db: None, clock: Any) -> Iterator[DatabaseTokenStore]:
        yield DatabaseTokenStore()
        connection.close()

    def test_two_workers_fetch_one_token(self, store: DatabaseTokenStore) -> None:
        fetched: list[str] = []
        inside, waiting = Event(), Event()

        def wait(seconds: float) -> None:
            waiting.set()
            time.sleep(seconds)

        impatient = DatabaseTokenStore(sleep=wait)

        def first() -> Token | None:
            try:
                with store.single_flight(KEY):
                    inside.set()
                    assert waiting.wait(20)
                    fetched.append("first")
                    store.put(KEY, token())
                return store.get(KEY)
            finally:
                connection.close()

        def second() -> Token | None:
            try:
                assert inside.wait(20)
                with impatient.single_flight(KEY):
                    kept = impatient.get(KEY)
                    if kept is None:
                        fetched.append("second")
                return kept
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as workers:
            results = [worker.result(30) for worker in (workers.submit(first), workers.submit(second))]
        assert fetched == ["first"]
        assert results == [token(), token()]

    def test_many_workers_are_never_inside_together(self, store: DatabaseTokenStore) -> None:
        eager = DatabaseTokenStore(sleep=lambda seconds: time.sleep(seconds / 20))
        inside: list[int] = []
        most: list[int] = []

        def work() -> None:
            try:
                with eager.single_flight(KEY):
                    inside.append(1)
                    most.append(len(inside))
                    eager.get(KEY)
                    inside.pop()
            finally:
                connection.close()

        threads = [Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert most == [1, 1, 1, 1]
        row = AccessToken.objects.get()
        assert (row.lease_holder, row.lease_until) == ("", None)

    def test_the_lease_of_a_dead_worker_is_taken_over(self, store: DatabaseTokenStore, clock: Any) -> None:
        AccessToken.objects.create(key=KEY, lease_holder="dead", lease_until=now() + FETCH_LEASE)
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            clock.advance(FETCH_LEASE / 2)

        with DatabaseTokenStore(sleep=wait).single_flight(KEY):
            assert len(waits) == 2
            row = AccessToken.objects.get()
            assert row.lease_holder not in ("", "dead")
            assert row.lease_until == now() + FETCH_LEASE
        assert AccessToken.objects.get().lease_holder == ""

    def test_a_worker_that_was_taken_over_leaves_the_new_lease(
        self, store: DatabaseTokenStore, clock: Any
    ) -> None:
        with store.single_flight(KEY):
            clock.advance(FETCH_LEASE)
            heir = DatabaseTokenStore().single_flight(KEY)
            heir.__enter__()
            held = AccessToken.objects.get()
        row = AccessToken.objects.get()
        assert (row.lease_holder, row.lease_until) == (held.lease_holder, now() + FETCH_LEASE)
        heir.__exit__(None, None, None)

    def test_a_lease_from_the_future_is_taken_over(self, store: DatabaseTokenStore) -> None:
        AccessToken.objects.create(key=KEY, lease_holder="ahead", lease_until=now() + timedelta(days=3))
        with store.single_flight(KEY):
            assert AccessToken.objects.get().lease_holder != "ahead"

    def test_waiting_ends_although_the_clock_stands_still(self, transactional_db: None, clock: Any) -> None:
        """Two tokens are harmless, waiting for ever is not."""
        AccessToken.objects.create(key=KEY, lease_holder="other", lease_until=now() + FETCH_LEASE)
        real_time = iter(range(0, 1000, 10))
        store = DatabaseTokenStore(monotonic=lambda: float(next(real_time)), sleep=lambda seconds: None)
        with store.single_flight(KEY):
            assert AccessToken.objects.get().lease_holder == "other"
        assert AccessToken.objects.get().lease_holder == "other"

    def test_a_failed_fetch_frees_the_way(self, store: DatabaseTokenStore) -> None:
        with pytest.raises(RuntimeError), store.single_flight(KEY):
            raise RuntimeError("no token")
        assert AccessToken.objects.get().lease_until is None
