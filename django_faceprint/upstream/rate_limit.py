"""Requests per second: one limit that all workers keep together (API reference 4.5).

Baidu counts per account and interface over a sliding second. The next free slot of each interface stands in
the database, in the database's own time: the clocks of workers may differ. Each request books one slot, and
slots are spaced evenly, so that no second holds more of them than the rate.

Urgent work books up to five seconds ahead. Other work takes a slot only when it is free now: urgent work
finds at most one slot of others ahead of it, and may use the whole rate.

A rate-limit answer pauses the interface for all workers, longer each time. A long run of them means that
a quota is used up or that a backend interface is not billed (API reference 8.1, 19).

A rate of 0 books no slots; pauses count all the same, those of other processes after up to a second.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import BigIntegerField, F, Func

from django_faceprint.base.db_thread import Database, in_this_thread
from django_faceprint.base.hold import is_held
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.exceptions import RateLimitReached
from django_faceprint.models import RateLimitBucket

logger = logging.getLogger(__name__)

#: Seconds that urgent requests may book ahead.
BOOK_AHEAD = 5.0
#: Longest wait of a call for its slot, in seconds.
MAX_WAIT = 10.0
#: Without a rate, seconds for which a process relies on having read that an interface does not pause.
PAUSE_CHECK = 1.0
#: Seconds of the first pause after a rate-limit answer; doubled each time.
FIRST_PAUSE = 1.0
MAX_PAUSE = 60.0
#: The longest pause after the code of a daily or total quota that is used up.
QUOTA_PAUSE = 300.0
QUOTA_CODES = frozenset({"17", "19"})
#: An unbroken run of rate-limit answers persists when it lasts this long and has at least this many answers:
#: an interface that is rarely called may well meet a limit twice.
PERSISTS_AFTER = timedelta(minutes=5)
PERSISTS_FROM = 3

_MICRO = 1_000_000
_TRIES = 50


class DatabaseMicroseconds(Func):
    """The database's own time in microseconds since 1970, not that of the transaction's start."""

    output_field = BigIntegerField()
    arity = 0

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
        return self.as_sql(compiler, connection, template=template)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "CAST(extract(epoch from clock_timestamp()) * 1000000 AS bigint)"
        return self.as_sql(compiler, connection, template=template)

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        # Not by way of local time, of which an hour comes twice when summer ends.
        template = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
        return self.as_sql(compiler, connection, template=template)


@dataclass(frozen=True)
class QuotaProblem:
    """An interface that has answered nothing but rate limits from ``since`` to ``last``.

    ``code`` is the last code, a decimal number.
    """

    account: str
    endpoint: str
    code: str
    since: datetime
    last: datetime


@dataclass(frozen=True)
class _Booking:
    """A slot that begins at ``begin`` (monotonic seconds); None: retry after ``wait`` seconds."""

    begin: float | None
    wait: float = 0.0


@dataclass
class _Bucket:
    """What this process knows about one interface."""

    #: Work that is not urgent gets no slot before (monotonic seconds): its threads need not ask the database.
    not_urgent_before: float = 0.0
    #: Without a rate, no pause is looked up before (monotonic seconds).
    unpaused_until: float = 0.0
    #: The last answers were rate limits.
    throttled: bool = False


class RateLimit:
    """Books slots for one process. Safe to share between threads.

    *monotonic* and *sleep* are those of the process; *database_time* (microseconds) replaces the database's.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        database_time: Callable[[], int] | None = None,
    ) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._database_time = database_time
        self._guard = threading.Lock()
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def acquire(
        self, application: str, endpoint: str, *, urgent: bool, database: Database = in_this_thread
    ) -> None:
        """Return when the request may be sent.

        Raises :class:`RateLimitReached` when there is no slot within 10 seconds or the interface pauses.
        """
        key = (_account(application), endpoint)
        give_up_at = self._monotonic() + MAX_WAIT
        while True:
            booking = self._book(key, urgent=urgent, database=database)
            moment = self._monotonic()
            if booking.begin is not None:
                if booking.begin > moment:
                    self._sleep(booking.begin - moment)
                return
            if moment + booking.wait > give_up_at:
                raise RateLimitReached(
                    f"{endpoint}: held back by our own rate limit.", retry_after=booking.wait
                )
            self._sleep(max(booking.wait, 0.001))

    def note_answer(
        self, application: str, endpoint: str, rate_limit_code: str, *, database: Database = in_this_thread
    ) -> None:
        """Baidu has answered; *rate_limit_code* is the code of a rate limit, "" for anything else."""
        key = (_account(application), endpoint)
        bucket = self._bucket(key)
        if rate_limit_code:
            bucket.throttled = True
            bucket.unpaused_until = 0.0
            database(lambda: _pause(key, rate_limit_code))
        elif bucket.throttled and database(lambda: _resume(key)):
            bucket.throttled = False

    def _bucket(self, key: tuple[str, str]) -> _Bucket:
        with self._guard:
            return self._buckets.setdefault(key, _Bucket())

    def _book(self, key: tuple[str, str], *, urgent: bool, database: Database) -> _Booking:
        """Book a slot, if there is one. Raises :class:`RateLimitReached` while the interface pauses."""
        bucket = self._bucket(key)
        moment = self._monotonic()
        if not urgent and moment < bucket.not_urgent_before:
            return _Booking(None, wait=bucket.not_urgent_before - moment)
        if not conf.qps and moment < bucket.unpaused_until:
            return _Booking(moment)
        booking = database(lambda: self._book_in_database(key, bucket, urgent=urgent))
        if booking.begin is None and not urgent:
            bucket.not_urgent_before = self._monotonic() + booking.wait
        return booking

    def _book_in_database(self, key: tuple[str, str], bucket: _Bucket, *, urgent: bool) -> _Booking:
        qps = conf.qps
        for _ in range(_TRIES):
            row = _row(key)
            read_at = self._monotonic()
            bucket.throttled = row.throttled > 0
            pause = _pause_left(row)
            if pause > 0:
                raise RateLimitReached(f"{key[1]}: paused after a rate limit.", retry_after=pause)
            if not qps:
                # A throttled interface is looked up each time: the answers of others begin and end pauses.
                bucket.unpaused_until = 0.0 if bucket.throttled else read_at + PAUSE_CHECK
                return _Booking(read_at)
            spacing = 1 / qps
            moment = self._database_time() if self._database_time else row.moment
            start = max(row.free_at, moment)
            if start - moment > (BOOK_AHEAD + spacing + 1) * _MICRO:
                # No slot is booked this far ahead: the database's clock was set back, or the rate was lower.
                start = moment
            wait = (start - moment) / _MICRO
            book_ahead = BOOK_AHEAD if urgent else spacing
            if wait >= book_ahead:
                return _Booking(None, wait=wait - book_ahead / 2)
            # Rounded up: a microsecond less per slot would make room for one more in a second.
            free_at = start + math.ceil(spacing * _MICRO - 0.001)
            if RateLimitBucket.objects.filter(pk=row.pk, free_at=row.free_at).update(free_at=free_at):
                return _Booking(read_at + wait)
        return _Booking(None, wait=spacing)


def persistent_quota_problems() -> list[QuotaProblem]:
    """Interfaces whose last answers, three or more over at least five minutes, were all rate limits."""
    rows = RateLimitBucket.objects.filter(
        throttled__gte=PERSISTS_FROM, throttled_at__gte=F("throttled_since") + PERSISTS_AFTER
    )
    return [
        QuotaProblem(row.account, row.endpoint, row.throttled_code, row.throttled_since, row.throttled_at)
        for row in rows.order_by("throttled_since", "pk")
        if row.throttled_since is not None and row.throttled_at is not None
    ]


def _account(application: str) -> str:
    known = conf.applications.get(application)
    return known.account if known is not None else application


def _row(key: tuple[str, str]) -> Any:
    rows = RateLimitBucket.objects.annotate(moment=DatabaseMicroseconds())
    row = rows.filter(account=key[0], endpoint=key[1]).first()
    if row is not None:
        return row
    try:
        with transaction.atomic():
            RateLimitBucket.objects.create(account=key[0], endpoint=key[1])
    except IntegrityError:
        logger.debug("faceprint: another worker has created the rate limit of %s", key[1])
    return rows.get(account=key[0], endpoint=key[1])


def _pause_left(row: RateLimitBucket) -> float:
    """Seconds for which the interface still pauses; 0: it does not."""
    longest = timedelta(seconds=QUOTA_PAUSE if row.throttled_code in QUOTA_CODES else MAX_PAUSE)
    if row.paused_until is None or not is_held(row.paused_until, longest):
        return 0.0
    return (row.paused_until - now()).total_seconds()


def _pause(key: tuple[str, str], code: str) -> None:
    for _ in range(_TRIES):
        row = _row(key)
        if _pause_left(row) > 0:
            # Many requests are under way at once: a burst of rate-limit answers counts once.
            return
        # A single answer may be Baidu's mistake, and a deadline may be near: only a run pauses for long.
        longest = QUOTA_PAUSE if code in QUOTA_CODES else MAX_PAUSE
        pause = min(FIRST_PAUSE * 2 ** min(row.throttled, 10), longest)
        moment = now()
        since = row.throttled_since or moment
        changed = RateLimitBucket.objects.filter(pk=row.pk, throttled=row.throttled).update(
            paused_until=moment + timedelta(seconds=pause),
            throttled=row.throttled + 1,
            throttled_since=since,
            throttled_at=moment,
            throttled_code=code[:40],
        )
        if changed:
            break
    else:
        return
    if moment - since >= PERSISTS_AFTER and row.throttled + 1 >= PERSISTS_FROM:
        logger.error(
            "faceprint: %s of account %s answers code %s since %s: its quota is used up, or a paid backend "
            "interface is not billed",
            key[1],
            key[0],
            code,
            since.isoformat(timespec="seconds"),
        )


def _resume(key: tuple[str, str]) -> bool:
    """End the run of rate-limit answers; returns whether it has ended.

    While the interface pauses, it has not: the answer belongs to a request sent before.
    """
    rows = RateLimitBucket.objects.filter(account=key[0], endpoint=key[1])
    row = rows.first()
    if row is None:
        return True
    if _pause_left(row) > 0:
        return False
    columns = {"paused_until": None, "throttled": 0, "throttled_since": None, "throttled_at": None}
    # Unless another worker has just begun the next pause.
    return bool(rows.filter(throttled=row.throttled).update(**columns, throttled_code=""))
