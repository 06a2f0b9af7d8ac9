"""Requests per second: kept to by all workers together, urgent work first."""

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
from django.test.utils import CaptureQueriesContext

from django_faceprint.engine import polling
from django_faceprint.exceptions import RateLimitReached
from django_faceprint.models import RateLimitBucket, UpstreamCall
from django_faceprint.upstream import rate_limit
from django_faceprint.upstream.db_thread import desk
from django_faceprint.upstream.rate_limit import DatabaseMicroseconds, RateLimit, persistent_quota_problems
from django_faceprint.verification import sessions
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


def limited(settings: Any, qps: float) -> None:
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


@pytest.mark.parametrize("qps", [0.5, 2, 10, 75])
def test_evenly_spaced_and_none_of_it_wasted(world: World, settings: Any, clock: Any, qps: float) -> None:
    limited(settings, qps)
    workers = [world.worker() for _ in range(4)]
    sent = []
    for number in range(200):
        workers[number % 4].acquire("default", ENDPOINT, urgent=True)
        sent.append(world.seconds)
    assert most_in_a_second(sent) <= max(qps, 1)
    assert sent[-1] - sent[0] == pytest.approx(199 / qps, rel=0.01)


@pytest.mark.parametrize(
    ("qps", "seconds", "share"),
    [(10, 20.0, 0.95), (80, 4.0, 0.95), (100, 4.0, 0.8), (400, 2.0, 0.8)],
)
def test_many_workers_never_exceed_the_rate_in_any_second(
    settings: Any, clock: Any, qps: float, seconds: float, share: float
) -> None:
    """Three processes with two threads each, some of them urgent, all with more to do than they may."""
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
    assert len(sent) >= share * qps * seconds


def test_turns_that_were_not_used_in_time_are_not_used_in_a_burst(
    world: World, settings: Any, clock: Any
) -> None:
    limited(settings, 1000)
    worker, other = world.worker(), world.worker()
    sent = []

    def ask(each: RateLimit) -> None:
        each.acquire("default", ENDPOINT, urgent=True)
        sent.append(world.seconds)

    for pause in (0.0, 0.05, 0.0999, 0.1, 0.2, 5.0):
        for _ in range(64):
            ask(worker)
        world.seconds += pause
        for _ in range(1200):
            ask(worker)
            ask(other)
    assert most_in_a_second(sent) <= 1000


def test_processes_that_need_little_do_not_wait_for_each_other(settings: Any, clock: Any) -> None:
    limited(settings, 10_000)
    shared = SharedTime()
    waited: list[float] = []

    def life() -> None:
        mine = shared.worker()
        for _ in range(200):
            before = shared.seconds
            mine.acquire("default", ENDPOINT, urgent=False)
            waited.append(shared.seconds - before)
            shared.sleep(0.005)

    shared.run(*[life] * 4)
    assert sum(waited) / len(waited) < 0.001


def test_interfaces_and_accounts_have_budgets_of_their_own(world: World, settings: Any, clock: Any) -> None:
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
    assert world.slept == pytest.approx(1.0), "two applications of one account share its budget"


def test_urgent_work_takes_its_turn_before_other_work(world: World, settings: Any, clock: Any) -> None:
    limited(settings, 2)
    urgent, other = world.worker(), world.worker()
    other.acquire("default", ENDPOINT, urgent=False)
    # Urgent work has booked the next two seconds.
    booked = [urgent._take_turn(("default", ENDPOINT), urgent=True).begin for _ in range(4)]
    assert booked == [pytest.approx(world.seconds + 0.5 * number) for number in range(1, 5)]
    assert other._take_turn(("default", ENDPOINT), urgent=False).turns == 0
    before = world.seconds
    other.acquire("default", ENDPOINT, urgent=False)
    assert world.seconds - before >= 2.0


@pytest.mark.parametrize("qps", [20, 400])
def test_other_work_never_books_out_urgent_work(settings: Any, clock: Any, qps: float) -> None:
    """However many ask for what is left, urgent work waits for one booking of theirs at most."""
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
    one_booking = (
        rate_limit._Pace.of(qps).near + rate_limit._Pace.of(qps).spacing * rate_limit._Pace.of(qps).most
    )
    assert max(waited) <= one_booking + 1e-6
    assert len(waited) >= 3 / (0.07 + one_booking) - 1
    assert others, "and what is left is theirs"


def test_who_waits_in_one_process_asks_the_database_once(
    world: World, settings: Any, clock: Any, django_assert_num_queries: Any
) -> None:
    limited(settings, 1)
    worker = world.worker()
    worker.acquire("default", ENDPOINT, urgent=True)
    worker.acquire("default", ENDPOINT, urgent=True)
    world.seconds -= 1.0
    with django_assert_num_queries(1):
        for _ in range(20):
            assert worker._take_turn(("default", ENDPOINT), urgent=False).turns == 0


def test_other_work_waits_for_nobody_on_an_idle_interface(world: World, settings: Any, clock: Any) -> None:
    limited(settings, 2)
    world.worker().acquire("default", ENDPOINT, urgent=False)
    assert world.slept == 0


def test_who_would_wait_too_long_is_told_and_nothing_is_sent(world: World, settings: Any, clock: Any) -> None:
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


@pytest.mark.parametrize("code", ["17", "19"])
def test_a_quota_that_is_used_up_is_left_alone_for_minutes(world: World, clock: Any, code: str) -> None:
    """Only when it is said again and again: one such answer must not cost evidence that is about to go."""
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


def test_no_turn_is_given_twice(settings: Any, clock: Any) -> None:
    """Real threads with connections of their own on the real database, whose time stands still."""
    limited(settings, 10)
    started = 1_700_000_000_000_000
    taken: list[float] = []
    together = threading.Barrier(4)

    def work() -> None:
        # A budget for each thread, as processes have.
        mine = RateLimit(monotonic=lambda: 0.0, sleep=lambda seconds: None, database_time=lambda: started)
        try:
            together.wait(timeout=30)
            for _ in range(10):
                turn = mine._take_turn(("default", ENDPOINT), urgent=True)
                if turn.turns:
                    taken.append(round(turn.begin, 6))
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(taken) == len(set(taken)) == 40
    assert RateLimitBucket.objects.get().free_at == started + 40 * 100_000


PROCESS = """
import sys, django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
settings.FACEPRINT = {**settings.FACEPRINT, "QPS": 50}
django.setup()
from django_faceprint.upstream.rate_limit import Budget
mine = Budget(monotonic=lambda: 0.0, sleep=lambda seconds: None, database_time=lambda: 1_700_000_000_000_000)
sys.stdin.readline()
for _ in range(25):
    print(round(mine._take_turn(("default", "result_detail"), urgent=True).begin, 6))
"""


def test_nor_by_several_processes(clock: Any) -> None:
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
    taken = sorted(float(line) for output in outputs for line in output.split())
    assert taken == [pytest.approx(number / 50) for number in range(75)]


def test_a_fast_account_costs_few_statements(
    world: World, settings: Any, clock: Any, django_assert_max_num_queries: Any
) -> None:
    limited(settings, 10_000)
    worker = world.worker()
    worker.acquire("default", ENDPOINT, urgent=True)
    with django_assert_max_num_queries(100):
        for _ in range(5_000):
            worker.acquire("default", ENDPOINT, urgent=True)
            worker.note_answer("default", ENDPOINT, "")
            world.seconds += 0.0001


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
    from django_faceprint.engine.steps import _is_urgent

    session = scenario.start("25001")
    assert not _is_urgent(session)
    sessions.record_return(session)
    assert _is_urgent(session)
    clock.advance(minutes=2)
    assert not _is_urgent(session)
    clock.set(session.next_deadline - timedelta(minutes=29))
    assert _is_urgent(session)
    assert polling.turn_at(clock(), 0) > clock()


def test_no_microsecond_is_cut_off_of_the_spacing(world: World, settings: Any, clock: Any) -> None:
    limited(settings, 75)
    sent = []
    for _ in range(76):
        world.worker().acquire("default", ENDPOINT, urgent=True)
        sent.append(round(world.seconds * 1_000_000))
    assert sent[75] - sent[0] >= 1_000_000


def test_calls_at_the_highest_rates_cost_few_statements(settings: Any, clock: Any) -> None:
    """Four processes, each with a hundred calls a second: less than one statement for ten calls."""
    limited(settings, 10_000)
    shared = SharedTime()
    statements: list[int] = []

    def life() -> None:
        mine = shared.worker()
        with CaptureQueriesContext(connection) as queries:
            for _ in range(200):
                mine.acquire("default", ENDPOINT, urgent=False)
                mine.note_answer("default", ENDPOINT, "")
                shared.sleep(0.01)
        statements.append(len(queries))

    shared.run(*[life] * 4)
    # Two that book at once repeat one of the bookings, more often on a server than on SQLite.
    assert sum(statements) < 800 / 10


def test_the_desk_itself_may_take_turns(settings: Any, clock: Any) -> None:
    """While a visit waits for it, as a receiver of a signal does that starts the next session."""
    limited(settings, 10)
    mine = RateLimit(sleep=lambda seconds: None)
    requests: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
    done = threading.Event()

    def ask(work: Callable[[], Any]) -> Any:
        result: Future[Any] = Future()
        requests.put((work, result))
        return result.result(timeout=30)

    def visit() -> None:
        with desk(ask):
            mine.acquire("default", ENDPOINT, urgent=True)
        done.set()

    threading.Thread(target=visit, daemon=True).start()
    work, result = requests.get(timeout=30)
    receiver = threading.Thread(target=_take_turn_and_close, args=(mine,), daemon=True)
    receiver.start()
    receiver.join(timeout=30)
    assert not receiver.is_alive(), "it waits for the visit, which waits for it"
    result.set_result(work())
    assert done.wait(30)


def _take_turn_and_close(mine: RateLimit) -> None:
    try:
        mine.acquire("default", ENDPOINT, urgent=True)
    finally:
        connection.close()
