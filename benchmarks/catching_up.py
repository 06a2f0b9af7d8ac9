"""The engine after an outage, in simulated time: only time and network are replaced.

Sessions are claimed, given back and written by the runs of ``engine.runner`` themselves, on the real
tables (:class:`DatabaseTable`) or, for a million of them, on rows in memory that are ordered by the same
``queue.priority_of`` (:class:`MemoryTable`; a test shows that both give the same). The replaced parts:

- *Network.* Each visit takes one slot of the account's rate limit, then downloads for some seconds. Slots are
  evenly spaced. Urgent visits get theirs first, in their order, then the others in random order; a visit that
  has waited for ten seconds gives up, as in ``upstream.rate_limit``.
- *Time.* A run lasts as long as in a Celery worker and is followed by the next one at once when its time was
  up, else by the next tick. Waking 500 sessions takes a fixed time.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol
from unittest.mock import patch

from django_faceprint.base import deadlines
from django_faceprint.base.lease import Lease
from django_faceprint.clock import now
from django_faceprint.engine import claims, polling, queue, runner, steps, writer
from django_faceprint.engine.commit import Changes, commit
from django_faceprint.engine.retry import DatabaseRetry
from django_faceprint.engine.visit import Visit, VisitContext
from django_faceprint.models import Plan, VerificationSession
from django_faceprint.tasks import RUN_BUDGET, TICK_SECONDS
from django_faceprint.upstream import clients, rate_limit
from tests.clock import START, clock

from .outage import Scenario

#: Seconds for which waking one batch of sessions counts: a rather slow database.
BATCH_WOKEN_IN = 0.02
#: Seconds of a visit that finds that the person has not finished.
POLL_SECONDS = 0.2

Order = Callable[[Any, datetime], Any]


@dataclass
class Cost:
    """Real seconds in the queue's statements, and calls, by function."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Count the block as a call of *name*."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began
            self.calls[name] += 1


class Table(Protocol):
    """Holds the outstanding sessions."""

    cost: Cost

    def fill(self, scenarios: Sequence[Scenario]) -> dict[int, Scenario]:
        """Make a row of each scenario; returns the scenarios by primary key."""

    def replaced(self) -> ExitStack:
        """Inside, the engine's runs work on this table."""

    def request_recheck(self, pk: int) -> None:
        """The person's browser has returned."""


def _columns(scenario: Scenario) -> dict[str, Any]:
    """The row as :func:`~django_faceprint.verification.start_session` leaves it."""
    issued = START + timedelta(seconds=scenario.started_at)
    dates = deadlines.session_deadlines(issued, issued)
    pending = deadlines.undecided_deadlines(
        requested_at=issued,
        media_deadline=dates.media_deadline,
        results_deadline=dates.results_deadline,
        records_video=scenario.records,
        moment=issued if scenario.wakes_at is None else START,
    )
    returned = wake_at = None
    if scenario.returned_at is not None and scenario.returned_at <= 0:
        returned = wake_at = START + timedelta(seconds=scenario.returned_at)
    if scenario.wakes_at is not None:
        wake_at = START + timedelta(seconds=scenario.wakes_at)
    return {
        "token_requested_at": issued,
        "token_answered_at": issued,
        **dates.columns(),
        "wake_at": wake_at or polling.first_poll_at(issued),
        "returned_at": returned,
        **pending.columns(),
    }


class _Replaced:
    """Stands in for the module ``queue`` within the engine's runs."""

    def __init__(self) -> None:
        self.cost = Cost()
        #: Simulated seconds of waking sessions.
        self.spent: float = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(queue, name)

    def promote(self, moment: datetime, **more: Any) -> int:
        with self.cost.of("promote"):
            woken = self._promote(moment, **more)
        self.spent += BATCH_WOKEN_IN if woken else 0.0
        return woken

    def _promote(self, moment: datetime, **more: Any) -> int:
        raise NotImplementedError


class DatabaseTable(_Replaced):
    """The real tables: production's functions, timed."""

    def fill(self, scenarios: Sequence[Scenario]) -> dict[int, Scenario]:
        recorded, plain = (
            Plan.objects.create(plan_id=f"9000{number}", name="simulated", records_video=number == 1)
            for number in (1, 2)
        )
        rows = [
            VerificationSession(
                environment=VerificationSession.Environment.SANDBOX,
                application="default",
                plan=recorded if scenario.records else plain,
                created_at=START + timedelta(seconds=scenario.started_at),
                **_columns(scenario),
            )
            for scenario in scenarios
        ]
        VerificationSession.objects.bulk_create(rows, batch_size=2000)
        pks = VerificationSession.objects.order_by("pk").values_list("pk", flat=True)
        return dict(zip(pks, scenarios, strict=True))

    def replaced(self) -> ExitStack:
        stack = ExitStack()
        stack.enter_context(patch.object(claims, "queue", self))
        stack.enter_context(patch.object(writer, "commit", self.commit))
        # Nothing is stored here.
        stack.enter_context(patch.object(claims, "likely_files", lambda _: 0))
        return stack

    def _promote(self, moment: datetime, **more: Any) -> int:
        return queue.promote(moment, **more)

    def claim(self, moment: datetime, **more: Any) -> list[Lease]:
        with self.cost.of("claim"):
            return queue.claim(moment, **more)

    def give_back(self, leases: Sequence[Lease]) -> None:
        with self.cost.of("give_back"):
            queue.give_back(leases)

    def commit(self, batch: Sequence[Changes], retry: DatabaseRetry) -> list[Changes]:
        with self.cost.of("commit"):
            return commit(batch, retry)

    def request_recheck(self, pk: int) -> None:
        VerificationSession.objects.filter(pk=pk).update(returned_at=now())
        queue.request_recheck(pk)


class MemoryTable(_Replaced):
    """Rows in memory: what the statements of ``queue`` do, in its order or in another."""

    def __init__(self, order: Order | None = None) -> None:
        super().__init__()
        self._order = order
        self._rows: dict[int, Any] = {}
        # Entries of rows that have moved on since are skipped when they come up.
        self._ready: list[tuple[Any, int, int]] = []
        self._asleep: list[tuple[datetime, int, int]] = []

    def fill(self, scenarios: Sequence[Scenario]) -> dict[int, Scenario]:
        for pk, scenario in enumerate(scenarios, start=1):
            self._rows[pk] = SimpleNamespace(
                pk=pk,
                **_columns(scenario),
                priority_at=None,
                lease_epoch=0,
                lease_until=None,
                last_polled_at=None,
                recheck_requested=False,
                poll_count=0,
                moved=0,
                due_since=None,
            )
            self._sleep(self._rows[pk])
        return dict(enumerate(scenarios, start=1))

    def replaced(self) -> ExitStack:
        stack = ExitStack()
        stack.enter_context(patch.object(claims, "queue", self))
        stack.enter_context(patch.object(writer, "commit", self.commit))
        # Nothing is stored here.
        stack.enter_context(patch.object(claims, "likely_files", lambda _: 0))
        stack.enter_context(patch.object(claims, "prefetch_related_objects", lambda *_: None))
        return stack

    def _aim(self, row: Any, moment: datetime) -> Any:
        if self._order is not None:
            return self._order(row, moment)
        return queue.priority(row, moment)

    def _make_ready(self, row: Any, moment: datetime) -> None:
        if row.priority_at is None:
            row.due_since = row.wake_at
        row.priority_at = self._aim(row, moment)
        row.wake_at = None
        row.moved += 1
        heapq.heappush(self._ready, (row.priority_at, row.pk, row.moved))

    def _sleep(self, row: Any) -> None:
        row.moved += 1
        heapq.heappush(self._asleep, (row.wake_at, row.pk, row.moved))

    def _first(self, heap: list[Any]) -> Any | None:
        """The row on top of *heap*."""
        while heap:
            row = self._rows[heap[0][1]]
            if row.moved == heap[0][2]:
                return row
            heapq.heappop(heap)
        return None

    def _reorder(self, moment: datetime) -> None:
        soon = moment + queue.MIN_LEAD_TIME
        while (row := self._first(self._ready)) and row.priority_at <= soon:
            heapq.heappop(self._ready)
            self._make_ready(row, moment)

    def _promote(self, moment: datetime, **more: Any) -> int:
        limit = more.get("limit", queue.PROMOTE_BATCH)
        woken = 0
        while woken < limit and (row := self._first(self._asleep)) and row.wake_at <= moment:
            heapq.heappop(self._asleep)
            self._make_ready(row, moment)
            woken += 1
        return woken

    def claim(
        self, moment: datetime, *, ttl: timedelta, limit: int = 1, session_pk: int | None = None
    ) -> list[Lease]:
        rows: list[Any] = []
        if session_pk is not None:
            rows = [row for row in [self._rows[session_pk]] if row.priority_at is not None]
        else:
            if self._order is None:
                self._reorder(moment)
            while len(rows) < limit and (row := self._first(self._ready)):
                heapq.heappop(self._ready)
                rows.append(row)
        leases = []
        for row in rows:
            priority_at, row.priority_at = row.priority_at, None
            row.lease_epoch += 1
            row.lease_until = row.wake_at = moment + ttl
            row.recheck_requested = False
            self._sleep(row)
            # A copy: what a worker has read does not change.
            leases.append(Lease(row.pk, row.lease_epoch, copy(row), moment, priority_at))
        return leases

    def renew(self, leases: Sequence[Lease], moment: datetime, ttl: timedelta) -> set[int]:
        ours = set()
        for lease in leases:
            row = self._rows[lease.session_pk]
            if row.lease_epoch == lease.epoch and row.lease_until is not None and row.priority_at is None:
                row.lease_until = row.wake_at = moment + ttl
                self._sleep(row)
                ours.add(row.pk)
        return ours

    def is_stale(self, lease: Lease, moment: datetime) -> bool:
        return self._order is None and queue.is_stale(lease, moment)

    def give_back(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            row = self._rows[lease.session_pk]
            if row.lease_epoch == lease.epoch:
                row.lease_until = None
                row.recheck_requested = False
                # As the statement does: by the lease's end only where there is no other deadline.
                self._make_ready(row, now())

    def commit(self, batch: Sequence[Changes], retry: DatabaseRetry) -> list[Changes]:
        lost = []
        for changes in batch:
            row = self._rows[changes.lease.session_pk]
            if row.lease_epoch != changes.lease.epoch:
                lost.append(changes)
                continue
            release = changes.release
            assert release is not None
            row.wake_at = now() if row.recheck_requested else release.wake_at
            row.lease_until = None
            row.recheck_requested = False
            for name, value in release.pending.columns().items():
                setattr(row, name, value)
            if row.wake_at is None:
                row.moved += 1
            else:
                self._sleep(row)
        return lost

    def request_recheck(self, pk: int) -> None:
        row = self._rows[pk]
        row.returned_at = now()
        if row.lease_until is not None and row.lease_until > now():
            row.recheck_requested = True
        elif row.wake_at is not None:
            self._make_ready(row, now())


def first_come(row: Any, moment: datetime) -> datetime:
    """First come, first served: by when the session became due."""
    return row.due_since


def in_random_order(seed: int) -> Order:
    """In random order."""
    chance = random.Random(seed)
    return lambda row, moment: chance.random()


@dataclass(frozen=True)
class Setting:
    """The engine's resources: slots per second, seconds of downloads per visit, workers."""

    rate: float
    visit_seconds: float = 2.0
    processes: int = 1
    concurrency: int = 8

    @classmethod
    def sized(cls, rate: float, visit_seconds: float = 2.0) -> Setting:
        """As many places as an operator would configure for this rate: downloads and a short wait."""
        places = max(1, round(rate * (visit_seconds + 3.0)))
        concurrency = min(places, 8)
        return cls(rate, visit_seconds, -(-places // concurrency), concurrency)


@dataclass
class Outcome:
    """The result: sessions by the kind of kept evidence, slots by their use."""

    kept: Counter[str] = field(default_factory=Counter)
    turns: Counter[str] = field(default_factory=Counter)
    gave_up: int = 0
    hours: float = 0.0
    cost: Cost = field(default_factory=Cost)


@dataclass(eq=False)
class _Place:
    """A visit under way: its worker, and since when it has waited for its slot."""

    worker: _Worker
    visit: Visit
    asked_at: float
    waiting: bool = True


@dataclass(eq=False)
class _Worker:
    """One worker process: a run of the engine, then the next."""

    simulation: CatchingUp
    run: Any = None
    active: int = 0

    def begin(self, hint: int | None = None) -> None:
        monotonic = self.simulation.monotonic
        started = monotonic()
        self.run = runner.Run(
            stop_at=started + RUN_BUDGET.total_seconds(),
            monotonic=monotonic,
            hint=hint,
            limit=None,
            concurrency=self.simulation.setting.concurrency,
            progress=lambda report: None,
            stop=lambda: False,
            interrupts=(),
            upstream=clients.upstream,
            retry=DatabaseRetry(),
        )
        self.run.begin()
        self.hand_out()

    def hand_out(self) -> None:
        self.run.checkpoint()
        while self.active < self.simulation.setting.concurrency and (
            claimed := self.run.next_lease(self.active)
        ):
            self.active += 1
            visit = Visit(claimed[0], claimed[0].row, VisitContext(clients.upstream))
            self.simulation.ask(_Place(self, visit, self.simulation.seconds))
        if not self.active:
            self.run.end()
            time_is_up = self.simulation.monotonic() >= self.run.stop_at
            self.run = None
            if time_is_up:
                # It has sent a message to any free worker.
                self.begin()

    def end(self, place: _Place) -> None:
        self.active -= 1
        self.run.finish(place.visit)
        self.hand_out()


class CatchingUp:
    """One simulation, from the end of the outage until nothing is outstanding."""

    def __init__(self, scenarios: Sequence[Scenario], table: Any, setting: Setting, *, seed: int = 7) -> None:
        self.setting = setting
        self.seconds = 0.0
        self.outcome = Outcome(cost=table.cost)
        self.table = table
        self._chance = random.Random(seed)
        self._scenarios = table.fill(scenarios)
        self._outstanding = set(self._scenarios)
        self._workers = [_Worker(self) for _ in range(setting.processes)]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._urgent: list[_Place] = []
        self._waiting: list[_Place] = []
        self._turn = 0
        self._booked: _Place | None = None

    def monotonic(self) -> float:
        """Seconds as the engine's runs count them."""
        return float(self.seconds + self.table.spent)

    def run(self) -> Outcome:
        """Simulate; returns the outcome."""
        with self.table.replaced(), patch.object(polling.jitter, "uniform", self._chance.uniform):
            for pk, scenario in self._scenarios.items():
                if scenario.returned_at is not None and scenario.returned_at > 0:
                    self._at(scenario.returned_at, partial(self._come_back, pk))
            self._at(0.0, self._tick)
            while self._outstanding:
                self.seconds, _, event = heapq.heappop(self._events)
                clock.set(START + timedelta(seconds=self.seconds))
                event()
        clock.set(START)
        self.outcome.hours = self.seconds / 3600
        return self.outcome

    def _at(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (seconds, next(self._number), event))

    def _tick(self) -> None:
        """Beat's message reaches one free worker, if any."""
        for worker in self._workers:
            if worker.run is None:
                worker.begin()
                break
        self._at(self.seconds + TICK_SECONDS, self._tick)

    def _come_back(self, pk: int) -> None:
        self.table.request_recheck(pk)
        for worker in self._workers:
            if worker.run is None:
                worker.begin(hint=pk)
                break

    # --- turns --------------------------------------------------------------------------------------

    def ask(self, place: _Place) -> None:
        """A visit begins: it waits for a slot."""
        if self._booked is None:
            self._book(place)
            return
        urgent = steps.is_urgent(place.visit.session)
        (self._urgent if urgent else self._waiting).append(place)
        self._at(self.seconds + rate_limit.MAX_WAIT, lambda: self._give_up(place))

    def _book(self, place: _Place) -> None:
        place.waiting = False
        self._booked = place
        self._turn = max(self._turn + 1, -int(-self.seconds * self.setting.rate // 1))
        self._at(self._turn / self.setting.rate, self._take_turn)

    def _take_turn(self) -> None:
        place, self._booked = self._booked, None
        assert place is not None
        waiting = self._urgent or self._waiting
        if waiting:
            number = 0 if waiting is self._urgent else self._chance.randrange(len(waiting))
            self._book(waiting.pop(number))
        self._visit(place)

    def _give_up(self, place: _Place) -> None:
        if not place.waiting:
            return
        (self._urgent if place in self._urgent else self._waiting).remove(place)
        self.outcome.gave_up += 1
        row = place.visit.session
        pending = deadlines.PendingDeadlines(row.next_deadline, row.later_deadline, row.last_deadline)
        place.visit.release(polling.turn_at(now(), 0.5 / self.setting.rate), pending)
        place.worker.end(place)

    # --- visits -------------------------------------------------------------------------------------

    def _visit(self, place: _Place) -> None:
        scenario = self._scenarios[place.visit.lease.session_pk]
        if scenario.finished_at is None or scenario.finished_at > self.seconds:
            self.outcome.turns["poll"] += 1
            self._at(self.seconds + POLL_SECONDS, lambda: self._end_poll(place, scenario))
            return
        done_at = self.seconds + self.setting.visit_seconds
        kept = [kind for kind, gone_at in scenario.gone.items() if done_at <= gone_at]
        self._at(done_at, lambda: self._end_visit(place, kept))

    def _end_poll(self, place: _Place, scenario: Scenario) -> None:
        row = place.visit.session
        moment = now()
        closes_at = deadlines.window_closes_at(row)
        assert closes_at is not None
        if moment >= closes_at:
            self._outstanding.discard(row.pk)
            place.visit.release(None)
        else:
            pending = deadlines.undecided_deadlines(
                requested_at=row.token_requested_at,
                media_deadline=row.media_deadline,
                results_deadline=row.results_deadline,
                records_video=scenario.records,
                moment=moment,
            )
            place.visit.release(polling.next_poll_at(row, moment), pending)
        place.worker.end(place)

    def _end_visit(self, place: _Place, kept: list[str]) -> None:
        if place.visit.session.pk in self._outstanding:
            # Not a second time, after a lease that ended during the visit.
            self._outstanding.discard(place.visit.session.pk)
            self.outcome.kept.update(kept)
        self.outcome.turns["media" if "media" in kept else "results" if kept else "nothing"] += 1
        place.visit.release(None)
        place.worker.end(place)
