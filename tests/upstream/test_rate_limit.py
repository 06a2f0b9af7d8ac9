"""Requests per second: one limit for all workers together, urgent work first."""

from __future__ import annotations

import heapq
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from django_faceprint.engine import polling
from django_faceprint.exceptions import RateLimitReached
from django_faceprint.models import RateLimitBucket, UpstreamCall
from django_faceprint.upstream import rate_limit
from django_faceprint.upstream.rate_limit import DatabaseMicroseconds, RateLimit, persistent_quota_problems
from django_faceprint.verification import record_return
from tests.scenario import Scenario

pytestmark = pytest.mark.django_db(transaction=True)

ENDPOINT = "result_detail"


class World:
    """A time of its own, in which sleeping takes no time, and workers that live in it."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0
        self.slept = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.seconds += seconds
        self.slept += seconds

    def worker(self) -> RateLimit:
        return RateLimit(
            monotonic=self.monotonic,
            sleep=self.sleep,
            database_time=lambda: round(self.seconds * 1_000_000),
        )


class SharedTime:
    """A time that threads share: it moves on to the next of them when all of them sleep."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0
        self._condition = threading.Condition()
        self._awake = 0
        self._sleepers: list[tuple[float, int, threading.Event]] = []
        self._number = 0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        woken = threading.Event()
        with self._condition:
            self._number += 1
            heapq.heappush(self._sleepers, (self.seconds + seconds, self._number, woken))
            self._fall_asleep()
        assert woken.wait(60)

    def worker(self) -> RateLimit:
        """A process of its own."""
        return RateLimit(
            monotonic=self.monotonic,
            sleep=self.sleep,
            database_time=lambda: round(self.seconds * 1_000_000),
        )

    def run(self, *lives: Callable[[], None]) -> None:
        """Live all *lives* at once, each in a thread with a connection of its own."""
        failures: list[BaseException] = []

        def live(life: Callable[[], None]) -> None:
            try:
                life()
            except BaseException as error:  # noqa: BLE001  (raised again below)
                failures.append(error)
            finally:
                connection.close()
                with self._condition:
                    self._fall_asleep()

        self._awake = len(lives)
        threads = [threading.Thread(target=live, args=(life,)) for life in lives]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        if failures:
            raise failures[0]

    def _fall_asleep(self) -> None:
        self._awake -= 1
        if self._awake == 0 and self._sleepers:
            moment, _, woken = heapq.heappop(self._sleepers)
            self.seconds = max(self.seconds, moment)
            self._awake += 1
            woken.set()


@pytest.fixture
def world() -> World:
    return World()


def limited(settings: Any, qps: float | None) -> None:
    settings.FACEPRINT = {**settings.FACEPRINT, "QPS": qps}


def most_in_a_second(moments: list[float]) -> int:
    """The most in any half-open second that begins with one of them."""
    moments = sorted(moments)
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - 0.9999:
            first += 1
        most = max(most, last + 1 - first)
    return most


@pytest.mark.parametrize("qps", [0.5, 2, 10, 50])
def test_slots_are_evenly_spaced_none_is_wasted(world: World, settings: Any, clock: Any, qps: float) -> None:
    limited(settings, qps)
    workers = [world.worker() for _ in range(4)]
    sent = []
    for number in range(200):
        workers[number % 4].acquire("default", ENDPOINT, urgent=True)
        sent.append(world.seconds)
    assert most_in_a_second(sent) <= max(qps, 1)
    assert sent[-1] - sent[0] == pytest.approx(199 / qps, rel=0.01)


@pytest.mark.parametrize(
    ("qps", "seconds"),
    [(2, 20.0), (10, 20.0), (50, 4.0)],
)
def test_many_workers_never_exceed_the_rate_in_any_second(
    settings: Any, clock: Any, qps: float, seconds: float
) -> None:
    """Three processes with two threads each, some of them urgent, all with more work than the rate allows."""
    limited(settings, qps)
    shared = SharedTime()
    sent: list[float] = []
    end = shared.seconds + seconds

    def life(mine: RateLimit, *, urgent: bool, seed: int) -> Callable[[], None]:
        chance = random.Random(seed)

        def ask() -> None:
            while shared.seconds < end:
                try:
                    mine.acquire("default", ENDPOINT, urgent=urgent)
                except RateLimitReached:
                    continue
                sent.append(shared.seconds)
                # How long an answer takes; now and then the process is busy otherwise.
                shared.sleep(chance.choice([0.0005, 0.001, 0.002, 0.15 if chance.random() < 0.1 else 0.001]))

        return ask

    processes = [shared.worker() for _ in range(3)]
    shared.run(
        *(life(processes[number % 3], urgent=number < 2, seed=number) for number in range(6)),
    )
    assert most_in_a_second(sent) <= qps
    assert len(sent) >= 0.95 * qps * seconds


def test_each_interface_of_an_account_has_a_limit_of_its_own(world: World, settings: Any, clock: Any) -> None:
    limited(settings, 1)
    settings.FACEPRINT = {
        **settings.FACEPRINT,
        "APPLICATIONS": {
            "one": {"API_KEY": "a", "SECRET_KEY": "b"},
            "two": {"API_KEY": "c", "SECRET_KEY": "d"},
            "elsewhere": {"API_KEY": "e", "SECRET_KEY": "f", "ACCOUNT": "another"},
        },
    }
    worker = world.worker()
    worker.acquire("one", ENDPOINT, urgent=True)
    worker.acquire("one", "result_simple", urgent=True)
    worker.acquire("elsewhere", ENDPOINT, urgent=True)
    assert world.slept == 0
    worker.acquire("two", ENDPOINT, urgent=True)
    assert world.slept == pytest.approx(1.0), "two applications of one account share its limit"


def test_urgent_work_goes_before_other_work(world: World, settings: Any, clock: Any) -> None:
    limited(settings, 2)
    other = world.worker()
    other.acquire("default", ENDPOINT, urgent=False)
    started = world.seconds
    slots: list[float] = []
    # Its threads all ask in the same moment, and then sleep until their slots.
    urgent = RateLimit(
        monotonic=world.monotonic, sleep=slots.append, database_time=lambda: round(world.seconds * 1_000_000)
    )
    for _ in range(4):
        urgent.acquire("default", ENDPOINT, urgent=True)
    assert slots == [pytest.approx(0.5 * number) for number in range(1, 5)]
    other.acquire("default", ENDPOINT, urgent=False)
    assert world.seconds - started >= 2.0


@pytest.mark.parametrize("qps", [10, 50])
def test_urgent_work_waits_for_one_slot_of_other_work_at_most(settings: Any, clock: Any, qps: float) -> None:
    """However many other threads ask for a slot."""
    limited(settings, qps)
    shared = SharedTime()
    end = shared.seconds + 3
    waited: list[float] = []
    others: list[float] = []

    def other() -> None:
        mine = shared.worker()
        while shared.seconds < end:
            try:
                mine.acquire("default", ENDPOINT, urgent=False)
            except RateLimitReached:
                continue
            others.append(shared.seconds)
            shared.sleep(0.0001)

    def urgent() -> None:
        mine = shared.worker()
        while shared.seconds < end:
            before = shared.seconds
            mine.acquire("default", ENDPOINT, urgent=True)
            waited.append(shared.seconds - before)
            shared.sleep(0.07)

    shared.run(urgent, *[other] * 5)
    # The slot that is free now, and the one that other work may have booked just before.
    two_slots = 2 / qps
    assert max(waited) <= two_slots + 1e-6
    assert len(waited) >= 3 / (0.07 + two_slots) - 1
    assert others, "other work gets the slots that are left"


def test_threads_that_wait_in_one_process_ask_the_database_once(settings: Any, clock: Any) -> None:
    limited(settings, 0.1)
    seconds = 1_000_000.0
    worker = RateLimit(
        monotonic=lambda: seconds,
        sleep=lambda _: pytest.fail("it waits longer than is allowed"),
        database_time=lambda: round(seconds * 1_000_000),
    )
    worker.acquire("default", ENDPOINT, urgent=True)
    RateLimitBucket.objects.update(free_at=F("free_at") + 6_000_000)
    with CaptureQueriesContext(connection) as queries:
        for _ in range(20):
            with pytest.raises(RateLimitReached):
                worker.acquire("default", ENDPOINT, urgent=False)
    assert len(queries) == 1


def test_other_work_does_not_wait_on_an_idle_interface(world: World, settings: Any, clock: Any) -> None:
    limited(settings, 2)
    world.worker().acquire("default", ENDPOINT, urgent=False)
    assert world.slept == 0


def test_a_wait_beyond_the_limit_raises_and_nothing_is_sent(world: World, settings: Any, clock: Any) -> None:
    limited(settings, 0.01)
    worker = world.worker()
    worker.acquire("default", ENDPOINT, urgent=True)
    with pytest.raises(RateLimitReached) as caught:
        worker.acquire("default", ENDPOINT, urgent=True)
    assert caught.value.retry_after > rate_limit.MAX_WAIT


def test_a_rate_limit_answer_pauses_everybody_and_longer_each_time(
    world: World, settings: Any, clock: Any
) -> None:
    limited(settings, 10)
    worker, other = world.worker(), world.worker()
    pauses = []
    for _ in range(8):
        # A burst: what was under way is answered alike, and is one reason to pause.
        for _ in range(5):
            worker.note_answer("default", ENDPOINT, "18")
        with pytest.raises(RateLimitReached) as caught:
            other.acquire("default", ENDPOINT, urgent=True)
        pauses.append(caught.value.retry_after)
        clock.advance(seconds=caught.value.retry_after)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    other.acquire("default", "result_simple", urgent=True)
    other.acquire("default", ENDPOINT, urgent=True)
    other.note_answer("default", ENDPOINT, "")
    row = RateLimitBucket.objects.get(endpoint=ENDPOINT)
    assert (row.paused_until, row.throttled, row.throttled_since) == (None, 0, None)


def test_the_answer_to_an_earlier_request_does_not_end_a_pause(world: World, clock: Any) -> None:
    worker, other = world.worker(), world.worker()
    worker.note_answer("default", ENDPOINT, "18")
    worker.note_answer("default", ENDPOINT, "")
    with pytest.raises(RateLimitReached):
        other.acquire("default", ENDPOINT, urgent=True)
    clock.advance(seconds=1)
    worker.note_answer("default", ENDPOINT, "")
    assert RateLimitBucket.objects.get().throttled == 0
    other.acquire("default", ENDPOINT, urgent=True)


def test_a_pause_under_a_clock_far_ahead_does_not_count(world: World, clock: Any) -> None:
    clock.advance(hours=1)
    world.worker().note_answer("default", ENDPOINT, "18")
    clock.advance(hours=-1)
    world.worker().acquire("default", ENDPOINT, urgent=True)


def test_the_databases_clock_may_be_set_back(world: World, settings: Any, clock: Any) -> None:
    limited(settings, 10)
    for _ in range(3):
        world.worker().acquire("default", ENDPOINT, urgent=True)
    world.seconds -= 3600
    before = world.slept
    world.worker().acquire("default", ENDPOINT, urgent=True)
    assert world.slept == before


@pytest.mark.parametrize("qps", [None, 0])
def test_without_a_rate_no_request_waits_but_pauses_count(
    world: World, settings: Any, clock: Any, qps: float | None
) -> None:
    limited(settings, qps)
    for urgent in (True, False) * 500:
        world.worker().acquire("default", ENDPOINT, urgent=urgent)
    assert world.slept == 0
    world.worker().note_answer("default", ENDPOINT, "18")
    with pytest.raises(RateLimitReached):
        world.worker().acquire("default", ENDPOINT, urgent=True)


def test_without_a_rate_the_database_is_asked_once_a_second(world: World, settings: Any, clock: Any) -> None:
    limited(settings, None)
    worker, other = world.worker(), world.worker()
    worker.acquire("default", ENDPOINT, urgent=True)
    with CaptureQueriesContext(connection) as queries:
        for _ in range(20):
            worker.acquire("default", ENDPOINT, urgent=False)
    assert len(queries) == 0
    other.note_answer("default", ENDPOINT, "18")
    world.seconds += 1
    with pytest.raises(RateLimitReached):
        worker.acquire("default", ENDPOINT, urgent=True)


def test_without_a_rate_a_process_keeps_to_its_own_pause_at_once(
    world: World, settings: Any, clock: Any
) -> None:
    limited(settings, None)
    worker = world.worker()
    worker.acquire("default", ENDPOINT, urgent=True)
    worker.note_answer("default", ENDPOINT, "18")
    with pytest.raises(RateLimitReached):
        worker.acquire("default", ENDPOINT, urgent=True)


@pytest.mark.parametrize("code", ["17", "19"])
def test_a_used_up_quota_pauses_for_minutes_when_repeated(world: World, clock: Any, code: str) -> None:
    """Only a run does: one such answer must not cost evidence that is about to be deleted."""
    worker = world.worker()
    pauses = []
    for _ in range(10):
        worker.note_answer("default", ENDPOINT, code)
        with pytest.raises(RateLimitReached) as caught:
            worker.acquire("default", ENDPOINT, urgent=True)
        pauses.append(caught.value.retry_after)
        clock.advance(seconds=caught.value.retry_after)
    assert pauses[:3] == [1, 2, 4]
    assert pauses[-2:] == [256, rate_limit.QUOTA_PAUSE]


def test_a_rate_limit_that_persists_is_a_quota_or_a_bill(
    world: World, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    worker = world.worker()
    first = clock()
    worker.note_answer("default", ENDPOINT, "18")
    clock.advance(minutes=4)
    worker.note_answer("default", ENDPOINT, "18")
    assert persistent_quota_problems() == []
    clock.advance(minutes=2)
    worker.note_answer("default", ENDPOINT, "18")
    (problem,) = persistent_quota_problems()
    assert (problem.account, problem.endpoint, problem.code, problem.since) == (
        "default",
        ENDPOINT,
        "18",
        first,
    )
    assert "not billed" in caplog.text
    clock.advance(minutes=1)
    worker.note_answer("default", ENDPOINT, "")
    assert persistent_quota_problems() == []


def test_a_single_answer_however_long_ago_is_no_quota_problem(world: World, clock: Any) -> None:
    for code in ("18", "17"):
        world.worker().note_answer("default", ENDPOINT, code)
    clock.advance(hours=9)
    assert persistent_quota_problems() == []


def test_no_slot_is_booked_twice_by_threads(settings: Any, clock: Any) -> None:
    """Real threads with connections of their own on the real database, whose time stands still."""
    limited(settings, 10)
    started = 1_700_000_000_000_000
    slots: list[float] = []
    together = threading.Barrier(4)

    def work() -> None:
        # A rate limit for each thread, as processes have.
        mine = RateLimit(monotonic=lambda: 0.0, sleep=slots.append, database_time=lambda: started)
        try:
            together.wait(timeout=30)
            for _ in range(10):
                mine.acquire("default", ENDPOINT, urgent=True)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    # The first slot begins at once: nobody sleeps for it.
    assert sorted(slots) == [pytest.approx(number / 10) for number in range(1, 40)]
    assert RateLimitBucket.objects.get().free_at == started + 40 * 100_000


PROCESS = """
import sys, django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
settings.FACEPRINT = {**settings.FACEPRINT, "QPS": 50}
django.setup()
from django_faceprint.upstream.rate_limit import RateLimit
mine = RateLimit(monotonic=lambda: 0.0, sleep=print, database_time=lambda: 1_700_000_000_000_000)
sys.stdin.readline()
for _ in range(25):
    mine.acquire("default", "result_detail", urgent=True)
"""


def test_no_slot_is_booked_twice_by_processes(clock: Any) -> None:
    name = str(connection.settings_dict["NAME"])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
            cwd=Path(__file__).resolve().parents[2],
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    slots = sorted(float(line) for output in outputs for line in output.split())
    assert slots == [pytest.approx(number / 50) for number in range(1, 75)]


def test_the_time_is_the_databases(clock: Any) -> None:
    RateLimitBucket.objects.create(account="default", endpoint=ENDPOINT)
    rows = RateLimitBucket.objects.annotate(moment=DatabaseMicroseconds())
    first, second = rows.get().moment, rows.get().moment
    assert isinstance(first, int)
    assert 1_700_000_000_000_000 < first <= second


def test_a_session_that_our_own_limit_holds_back_keeps_its_place(scenario: Scenario, clock: Any) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    RateLimitBucket.objects.update_or_create(
        account="default",
        endpoint="result_detail",
        defaults={"paused_until": clock() + timedelta(seconds=20), "throttled": 3},
    )
    before = UpstreamCall.objects.filter(endpoint="result_detail").count()
    session = scenario.back(session)
    assert (session.verdict, session.failure_count, session.error_class) == ("pending", 0, "")
    assert timedelta(seconds=20) <= session.wake_at - clock() <= timedelta(seconds=30)
    assert UpstreamCall.objects.filter(endpoint="result_detail").count() == before, "nothing was sent"
    clock.advance(seconds=31)
    scenario.work()
    assert scenario.fresh(session).archive_state == "complete"


def test_a_person_who_waits_and_a_near_deadline_are_urgent(scenario: Scenario, clock: Any) -> None:
    from django_faceprint.engine.steps import is_urgent

    session = scenario.start("25001")
    assert not is_urgent(session)
    record_return(session)
    assert is_urgent(session)
    clock.advance(minutes=2)
    assert not is_urgent(session)
    clock.set(session.next_deadline - timedelta(minutes=29))
    assert is_urgent(session)
    assert polling.turn_at(clock(), 0) > clock()


def test_no_microsecond_is_cut_off_of_the_spacing(world: World, settings: Any, clock: Any) -> None:
    limited(settings, 30)
    sent = []
    for _ in range(31):
        world.worker().acquire("default", ENDPOINT, urgent=True)
        sent.append(round(world.seconds * 1_000_000))
    assert sent[30] - sent[0] >= 1_000_000


def test_the_database_thread_itself_may_book_slots(settings: Any, clock: Any) -> None:
    """While a visit waits for it: a receiver of a signal may start the next session."""
    limited(settings, 10)
    mine = RateLimit(sleep=lambda seconds: None)
    requests: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
    done = threading.Event()

    def ask(work: Callable[[], Any]) -> Any:
        result: Future[Any] = Future()
        requests.put((work, result))
        return result.result(timeout=30)

    def visit() -> None:
        mine.acquire("default", ENDPOINT, urgent=True, database=ask)
        done.set()

    threading.Thread(target=visit, daemon=True).start()
    work, result = requests.get(timeout=30)
    receiver = threading.Thread(target=_acquire_and_close, args=(mine,), daemon=True)
    receiver.start()
    receiver.join(timeout=30)
    assert not receiver.is_alive(), "it waits for the visit, which waits for it"
    result.set_result(work())
    assert done.wait(30)


def _acquire_and_close(mine: RateLimit) -> None:
    try:
        mine.acquire("default", ENDPOINT, urgent=True)
    finally:
        connection.close()
