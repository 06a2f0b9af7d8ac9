"""Requests per second, kept to by all workers together (API reference 4.5).

Baidu counts per account and interface over a sliding second, so the slots of an interface are spaced
evenly, and the next free one stands in the database, in the database's own time: the clocks of workers may
differ. At high rates a process books several slots at once; those that it does not use in time are dropped,
never used later in a burst.

Work near its deadline books ahead. Other work takes a slot only when it is free at once, so that urgent
work gets all that it needs first, and on an idle interface nobody waits.

A rate-limit answer pauses the interface for everybody, longer each time. One that persists says that a
quota is used up or that a backend interface is not billed (API reference 8.1, 19).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import BigIntegerField, Func

from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.exceptions import BudgetExhausted
from django_faceprint.models import UpstreamBudget

from .desk import on_desk

logger = logging.getLogger(__name__)

#: Seconds that urgent work may book ahead, and that any call waits for its turn at the longest.
BOOK_AHEAD = 5.0
LONGEST_WAIT = 10.0
#: Seconds of slots that a process books at once, and after which an unused slot is dropped.
BATCH_SECONDS = 0.1
#: Seconds of the first pause after a rate-limit answer; doubled each time.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
#: After the answer that a daily or total quota is used up.
QUOTA_PAUSE = 300.0
QUOTA_CODES = frozenset({"17", "19"})
#: An unbroken run of such answers that lasts longer is no accident.
PERSISTS_AFTER = timedelta(minutes=5)

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
    """An interface that has answered nothing but rate limits for a while."""

    account: str
    endpoint: str
    code: str
    since: datetime


@dataclass(frozen=True)
class _Booking:
    """Slots from ``wait`` seconds from now on, or none: so long is the queue."""

    slots: int
    wait: float


class Budget:
    """The turns of one process. Safe to share between threads.

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
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._slots: dict[tuple[str, str], deque[float]] = {}
        self._throttled: set[tuple[str, str]] = set()

    def wait_turn(self, application: str, endpoint: str, *, urgent: bool) -> None:
        """Return when the request may be sent.

        Raises :class:`BudgetExhausted` when it is not its turn within 10 seconds or the interface pauses.
        """
        key = (_account(application), endpoint)
        give_up_at = self._monotonic() + LONGEST_WAIT
        while True:
            slot = self._take_slot(key, urgent=urgent)
            moment = self._monotonic()
            if isinstance(slot, float):
                if slot > moment:
                    self._sleep(slot - moment)
                return
            if moment + slot.wait > give_up_at:
                raise BudgetExhausted(f"{endpoint}: held back by our own rate limit.", retry_after=slot.wait)
            self._sleep(max(slot.wait, 0.01))

    def note_answer(self, application: str, endpoint: str, throttled_by: str) -> None:
        """Baidu has answered; *throttled_by* is the code of a rate limit, "" for anything else."""
        key = (_account(application), endpoint)
        if throttled_by:
            self._throttled.add(key)
            on_desk(lambda: _pause(key, throttled_by))
            with self._guard:
                # What was booked before the pause is not used during it.
                self._slots.pop(key, None)
        elif key in self._throttled:
            self._throttled.discard(key)
            on_desk(lambda: _resume(key))

    def _take_slot(self, key: tuple[str, str], *, urgent: bool) -> float | _Booking:
        """When (monotonic) the request may be sent, or the booking that failed."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
            slots = self._slots.setdefault(key, deque())
        with lock:
            while slots and slots[0] < self._monotonic() - BATCH_SECONDS:
                slots.popleft()
            if not slots:
                rate = conf.qps
                count = max(1, int(rate * BATCH_SECONDS))
                horizon = BOOK_AHEAD if urgent else max(1 / rate, BATCH_SECONDS)
                booking = on_desk(lambda: self._book(key, count, rate, horizon))
                if not booking.slots:
                    return booking
                first = self._monotonic() + booking.wait
                slots.extend(first + number / rate for number in range(booking.slots))
            return slots.popleft()

    def _book(self, key: tuple[str, str], count: int, rate: float, horizon: float) -> _Booking:
        for _ in range(_TRIES):
            row = _row(key)
            if row.paused_until is not None:
                self._throttled.add(key)
                if row.paused_until > now():
                    wait = (row.paused_until - now()).total_seconds()
                    raise BudgetExhausted(f"{key[1]}: paused after a rate limit.", retry_after=wait)
            moment = self._database_time() if self._database_time else row.moment
            start = max(row.free_at, moment)
            wait = (start - moment) / _MICRO
            if wait >= horizon:
                return _Booking(0, wait - horizon / 2)
            free_at = start + round(count * _MICRO / rate)
            if UpstreamBudget.objects.filter(pk=row.pk, free_at=row.free_at).update(free_at=free_at):
                return _Booking(count, wait)
        return _Booking(0, horizon)


def persistent_quota_problems() -> list[QuotaProblem]:
    """Interfaces whose rate-limit answers have lasted for more than five minutes."""
    rows = UpstreamBudget.objects.filter(throttled_since__lte=now() - PERSISTS_AFTER)
    return [
        QuotaProblem(row.account, row.endpoint, row.throttled_code, row.throttled_since)
        for row in rows.order_by("throttled_since")
        if row.throttled_since is not None
    ]


def _account(application: str) -> str:
    known = conf.applications.get(application)
    return known.account if known is not None else application


def _row(key: tuple[str, str]) -> Any:
    rows = UpstreamBudget.objects.annotate(moment=DatabaseMicroseconds())
    row = rows.filter(account=key[0], endpoint=key[1]).first()
    if row is not None:
        return row
    try:
        with transaction.atomic():
            UpstreamBudget.objects.create(account=key[0], endpoint=key[1])
    except IntegrityError:
        logger.debug("faceprint: another worker has begun the budget of %s", key[1])
    return rows.get(account=key[0], endpoint=key[1])


def _pause(key: tuple[str, str], code: str) -> None:
    row = _row(key)
    pause = (
        QUOTA_PAUSE if code in QUOTA_CODES else min(FIRST_PAUSE * 2 ** min(row.throttled, 10), LONGEST_PAUSE)
    )
    moment = now()
    since = row.throttled_since or moment
    UpstreamBudget.objects.filter(pk=row.pk).update(
        paused_until=moment + timedelta(seconds=pause),
        throttled=row.throttled + 1,
        throttled_since=since,
        throttled_code=code[:40],
    )
    if moment - since >= PERSISTS_AFTER:
        logger.error(
            "faceprint: %s of account %s answers code %s since %s: its quota is used up, or a paid backend "
            "interface is not billed",
            key[1],
            key[0],
            code,
            since.isoformat(timespec="seconds"),
        )


def _resume(key: tuple[str, str]) -> None:
    UpstreamBudget.objects.filter(account=key[0], endpoint=key[1]).update(
        paused_until=None, throttled=0, throttled_since=None, throttled_code=""
    )
