"""Requests per second, kept to by all workers together (API reference 4.5).

Baidu counts per account and interface over a sliding second. The next free turn of each interface stands
in the database, in the database's own time: the clocks of workers may differ. Turns are spaced evenly. At
rates from 100 on, a process books several at once, as many as it has lately had use for; they are good for
a tenth of a second and dropped afterwards, and the spacing is so much wider (11 %) that even turns used late
never make more than the rate in any second. From 1000 on they are good for half a second, which costs a
third of the rate and makes bookings so much rarer.

Work near its deadline books ahead. Other work takes a turn only when it is as good as free, so urgent
work finds at most one booking of others ahead of it: what it needs is reserved for it, up to the whole
rate, and none of it is wasted while it needs nothing.

A rate-limit answer pauses the interface for everybody, longer each time. One that persists says that a
quota is used up or that a backend interface is not billed (API reference 8.1, 19).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import BigIntegerField, F, Func

from django_faceprint.base.db_thread import Database, in_this_thread
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.exceptions import RateLimitReached
from django_faceprint.models import RateLimitBucket

logger = logging.getLogger(__name__)

#: Seconds that urgent work may book ahead, and that any call waits for its turn at the longest.
BOOK_AHEAD = 5.0
MAX_WAIT = 10.0
#: Requests per second from which a process books several turns at once, for at most so many seconds' worth,
#: and seconds after which those that are left are dropped.
BATCHES_FROM = 100.0
BATCH_SECONDS = 0.02
GOOD_FOR = 0.1
#: The same from so many requests per second on, and seconds' worth that are booked at least: there is enough,
#: and each booking costs two statements.
PLENTY_FROM = 1000.0
PLENTY_GOOD_FOR = 0.5
PLENTY_SECONDS = 0.005
#: Seconds of the first pause after a rate-limit answer; doubled each time.
FIRST_PAUSE = 1.0
MAX_PAUSE = 60.0
#: The longest pause where they say that a daily or total quota is used up.
QUOTA_PAUSE = 300.0
QUOTA_CODES = frozenset({"17", "19"})
#: An unbroken run of such answers that lasts longer is no accident.
PERSISTS_AFTER = timedelta(minutes=5)
#: Fewer of them, however far apart, are none either: an interface that is rarely asked meets a limit, too.
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
    """An interface that answered nothing but rate limits from ``since`` to ``last``, which is long.

    ``code`` is the last one, a decimal number.
    """

    account: str
    endpoint: str
    code: str
    since: datetime
    last: datetime


@dataclass(frozen=True)
class _Pace:
    """How turns are given out at some rate: all in seconds, except how many are booked at once."""

    spacing: float
    least: int
    most: int
    good_for: float
    near: float

    @classmethod
    def of(cls, qps: float) -> _Pace:
        """What never makes more than *qps* requests in any second.

        The turns that are used in a second begin in it or ``good_for`` before; the last booking among
        them may reach beyond it.
        """
        if qps < BATCHES_FROM:
            return cls(spacing=1 / qps, least=1, most=1, good_for=0.0, near=1 / qps)
        least, most, good_for = 1, int(qps * BATCH_SECONDS), GOOD_FOR
        if qps >= PLENTY_FROM:
            least, good_for = int(qps * PLENTY_SECONDS), PLENTY_GOOD_FOR
        return cls((1 + good_for) / (qps - most), least, most, good_for, BATCH_SECONDS)


@dataclass(frozen=True)
class _Booking:
    """So many turns from ``begin`` (monotonic) on, or none: it is full for ``wait`` seconds."""

    turns: int
    begin: float = 0.0
    wait: float = 0.0


@dataclass
class _Bucket:
    """What one process has booked of one interface."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    booked: int = 0
    left: int = 0
    begin: float = 0.0
    until: float = 0.0
    #: No turn for other than urgent work before; spares the database questions of all threads that wait.
    full_until: float = 0.0
    throttled: bool = False

    def size(self, moment: float) -> int:
        """How many turns to book next: rather more than were used of the last booking."""
        if self.left == 0 and moment <= self.until:
            return 2 * self.booked
        return self.booked - self.left + 1


class RateLimit:
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
        self._lanes: dict[tuple[str, str], _Bucket] = {}

    def acquire(
        self, application: str, endpoint: str, *, urgent: bool, database: Database = in_this_thread
    ) -> None:
        """Return when the request may be sent.

        Raises :class:`RateLimitReached` when it is not its turn within 10 seconds or the interface pauses.
        """
        key = (_account(application), endpoint)
        give_up_at = self._monotonic() + MAX_WAIT
        while True:
            turn = self._take_turn(key, urgent=urgent, database=database)
            moment = self._monotonic()
            if turn.turns:
                if turn.begin > moment:
                    self._sleep(turn.begin - moment)
                return
            if moment + turn.wait > give_up_at:
                raise RateLimitReached(f"{endpoint}: held back by our own rate limit.", retry_after=turn.wait)
            self._sleep(max(turn.wait, 0.001))

    def note_answer(
        self, application: str, endpoint: str, throttled_by: str, *, database: Database = in_this_thread
    ) -> None:
        """Baidu has answered; *throttled_by* is the code of a rate limit, "" for anything else."""
        key = (_account(application), endpoint)
        lane = self._lane(key)
        if throttled_by:
            lane.throttled = True
            database(lambda: _pause(key, throttled_by))
            with lane.lock:
                # What was booked before the pause is not used during it.
                lane.left = 0
        elif lane.throttled and database(lambda: _resume(key)):
            lane.throttled = False

    def _lane(self, key: tuple[str, str]) -> _Bucket:
        with self._guard:
            return self._lanes.setdefault(key, _Bucket())

    def _take_turn(self, key: tuple[str, str], *, urgent: bool, database: Database) -> _Booking:
        """One turn, or why there is none. Raises :class:`RateLimitReached` while the interface pauses."""
        lane = self._lane(key)
        pace = _Pace.of(conf.qps)
        reach = BOOK_AHEAD if urgent else pace.near
        with lane.lock:
            turn = self._kept_turn(lane, reach, urgent=urgent)
        if turn is not None:
            return turn
        # Not under the lock: the desk's own thread may want a turn, too, and would wait for us for ever.
        return database(lambda: self._fresh_turn(key, lane, pace, reach, urgent=urgent))

    def _kept_turn(self, lane: _Bucket, reach: float, *, urgent: bool) -> _Booking | None:
        """A turn that is booked already, or why there can be none; None: ask the database."""
        moment = self._monotonic()
        if not lane.left or moment > lane.until:
            full = not urgent and moment < lane.full_until
            return _Booking(0, wait=lane.full_until - moment) if full else None
        if lane.begin - moment >= reach:
            # Booked far ahead by urgent work of this process.
            return _Booking(0, wait=lane.begin - moment - reach / 2)
        lane.left -= 1
        return _Booking(1, lane.begin)

    def _fresh_turn(
        self, key: tuple[str, str], lane: _Bucket, pace: _Pace, reach: float, *, urgent: bool
    ) -> _Booking:
        with lane.lock:
            # Another thread may have booked while this one was on its way.
            turn = self._kept_turn(lane, reach, urgent=urgent)
            count = min(max(lane.size(self._monotonic()), pace.least), pace.most)
        if turn is not None:
            return turn
        booking = self._book(key, lane, count, pace, reach)
        with lane.lock:
            if booking.turns:
                lane.booked, lane.left = booking.turns, booking.turns - 1
                lane.begin, lane.until = booking.begin, booking.begin + pace.good_for
                return _Booking(1, booking.begin)
            if not urgent:
                lane.full_until = self._monotonic() + booking.wait
            return booking

    def _book(self, key: tuple[str, str], lane: _Bucket, count: int, pace: _Pace, reach: float) -> _Booking:
        for _ in range(_TRIES):
            row = _row(key)
            seen_at = self._monotonic()
            lane.throttled = row.throttled > 0
            pause = _pause_left(row)
            if pause > 0:
                raise RateLimitReached(f"{key[1]}: paused after a rate limit.", retry_after=pause)
            moment = self._database_time() if self._database_time else row.moment
            start = max(row.free_at, moment)
            if start - moment > (BOOK_AHEAD + pace.most * pace.spacing + 1) * _MICRO:
                # Nobody books so far ahead: the database's clock has been set back, or the rate was lower.
                start = moment
            wait = (start - moment) / _MICRO
            if wait >= reach:
                return _Booking(0, wait=wait - reach / 2)
            # Rounded up: what is cut off of each turn would make room for one more in a second.
            free_at = start + math.ceil(count * pace.spacing * _MICRO - 0.001)
            if RateLimitBucket.objects.filter(pk=row.pk, free_at=row.free_at).update(free_at=free_at):
                return _Booking(count, seen_at + wait)
        return _Booking(0, wait=pace.near)


def persistent_quota_problems() -> list[QuotaProblem]:
    """Interfaces that have answered nothing but rate limits, three at least, for five minutes and more."""
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
        logger.debug("faceprint: another worker has begun the budget of %s", key[1])
    return rows.get(account=key[0], endpoint=key[1])


def _pause_left(row: RateLimitBucket) -> float:
    """Seconds for which the interface still pauses; 0 or less: it does not.

    A pause that is longer than any we give was written under a clock that is ahead of ours: it does not
    count.
    """
    if row.paused_until is None:
        return 0.0
    left = (row.paused_until - now()).total_seconds()
    return left if left <= (QUOTA_PAUSE if row.throttled_code in QUOTA_CODES else MAX_PAUSE) else 0.0


def _pause(key: tuple[str, str], code: str) -> None:
    for _ in range(_TRIES):
        row = _row(key)
        if _pause_left(row) > 0:
            # Many requests are under way at once: one burst of such answers is one reason to pause.
            return
        # One such answer may be a mistake of theirs, and a deadline may be near: only a run of them is long.
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
    """End the run, unless the interface pauses: then this is the answer to a request sent before."""
    rows = RateLimitBucket.objects.filter(account=key[0], endpoint=key[1])
    row = rows.first()
    if row is None:
        return True
    if _pause_left(row) > 0:
        return False
    columns = {"paused_until": None, "throttled": 0, "throttled_since": None, "throttled_at": None}
    # Unless another worker has begun the next pause at this moment.
    return bool(rows.filter(throttled=row.throttled).update(**columns, throttled_code=""))
