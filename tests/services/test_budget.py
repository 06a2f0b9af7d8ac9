"""Requests per second: kept to by all workers together, urgent work first."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from django_faceprint.exceptions import BudgetExhausted
from django_faceprint.models import UpstreamBudget, UpstreamCall
from django_faceprint.services import budget, schedule, sessions
from django_faceprint.services.budget import Budget, DatabaseMicroseconds, persistent_quota_problems

from .conftest import Story

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

    def worker(self) -> Budget:
        return Budget(
            monotonic=self.monotonic,
            sleep=self.sleep,
            database_time=lambda: round(self.seconds * 1_000_000),
        )


@pytest.fixture
def world() -> World:
    return World()


def limited(settings: Any, qps: float) -> None:
    settings.FACEPRINT = {**settings.FACEPRINT, "QPS": qps}


def most_in_a_second(moments: list[float]) -> int:
    return max(sum(1 for other in moments if start <= other < start + 0.999999) for start in moments)


@pytest.mark.parametrize("qps", [0.5, 2, 10, 75])
def test_many_workers_never_exceed_the_rate_in_any_second(
    world: World, settings: Any, clock: Any, qps: float
) -> None:
    limited(settings, qps)
    workers = [world.worker() for _ in range(4)]
    sent = []
    for number in range(60):
        workers[number % 4].wait_turn("default", ENDPOINT, urgent=True)
        sent.append(world.seconds)
    assert most_in_a_second(sent) <= max(qps, 1)
    if qps < 1 / budget.BATCH_SECONDS:
        # Nor is any of it wasted. (Batches are, here, where one worker's sleep makes all others late.)
        assert sent[-1] - sent[0] == pytest.approx(59 / qps)


def test_slots_that_were_not_used_in_time_are_not_used_in_a_burst(
    world: World, settings: Any, clock: Any
) -> None:
    limited(settings, 100)
    worker, other = world.worker(), world.worker()
    worker.wait_turn("default", ENDPOINT, urgent=True)  # has booked ten
    world.seconds += 5
    sent = []
    for _ in range(50):
        for each in (worker, other):
            each.wait_turn("default", ENDPOINT, urgent=True)
            sent.append(world.seconds)
    assert most_in_a_second(sent) <= 100


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
    worker.wait_turn("one", ENDPOINT, urgent=True)
    worker.wait_turn("one", "result_simple", urgent=True)
    worker.wait_turn("elsewhere", ENDPOINT, urgent=True)
    assert world.slept == 0
    worker.wait_turn("two", ENDPOINT, urgent=True)
    assert world.slept == pytest.approx(1.0), "two applications of one account share its budget"


def test_urgent_work_takes_its_turn_before_other_work(world: World, settings: Any, clock: Any) -> None:
    limited(settings, 2)
    urgent, other = world.worker(), world.worker()
    other.wait_turn("default", ENDPOINT, urgent=False)
    urgent._slots.clear()
    # Urgent work has booked the next two seconds.
    booked = [urgent._take_slot(("default", ENDPOINT), urgent=True) for _ in range(4)]
    assert booked == [pytest.approx(world.seconds + 0.5 * number) for number in range(1, 5)]
    refused = other._take_slot(("default", ENDPOINT), urgent=False)
    assert isinstance(refused, budget._Booking)
    assert refused.slots == 0
    before = world.seconds
    other.wait_turn("default", ENDPOINT, urgent=False)
    assert world.seconds - before >= 2.0


def test_other_work_waits_for_nobody_on_an_idle_interface(world: World, settings: Any, clock: Any) -> None:
    limited(settings, 2)
    world.worker().wait_turn("default", ENDPOINT, urgent=False)
    assert world.slept == 0


def test_who_would_wait_too_long_is_told_and_nothing_is_sent(world: World, settings: Any, clock: Any) -> None:
    limited(settings, 0.01)
    worker = world.worker()
    worker.wait_turn("default", ENDPOINT, urgent=True)
    with pytest.raises(BudgetExhausted) as caught:
        worker.wait_turn("default", ENDPOINT, urgent=True)
    assert caught.value.retry_after > budget.LONGEST_WAIT


def test_a_rate_limit_answer_pauses_everybody_and_longer_each_time(
    world: World, settings: Any, clock: Any
) -> None:
    limited(settings, 10)
    worker, other = world.worker(), world.worker()
    pauses = []
    for _ in range(8):
        worker.note_answer("default", ENDPOINT, "18")
        other._slots.clear()
        with pytest.raises(BudgetExhausted) as caught:
            other.wait_turn("default", ENDPOINT, urgent=True)
        pauses.append(caught.value.retry_after)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    other.wait_turn("default", "result_simple", urgent=True)
    clock.advance(seconds=60)
    other.wait_turn("default", ENDPOINT, urgent=True)
    other.note_answer("default", ENDPOINT, "")
    row = UpstreamBudget.objects.get(endpoint=ENDPOINT)
    assert (row.paused_until, row.throttled, row.throttled_since) == (None, 0, None)


@pytest.mark.parametrize("code", ["17", "19"])
def test_a_quota_that_is_used_up_is_left_alone_for_minutes(world: World, clock: Any, code: str) -> None:
    worker = world.worker()
    worker.note_answer("default", ENDPOINT, code)
    with pytest.raises(BudgetExhausted) as caught:
        worker.wait_turn("default", ENDPOINT, urgent=True)
    assert caught.value.retry_after == budget.QUOTA_PAUSE


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
    worker.note_answer("default", ENDPOINT, "")
    assert persistent_quota_problems() == []


def test_no_slot_is_given_twice(settings: Any, clock: Any) -> None:
    """Real threads with connections of their own on the real database, whose time stands still."""
    limited(settings, 10)
    started = 1_700_000_000_000_000
    taken: list[float] = []
    guard = threading.Lock()
    together = threading.Barrier(4)

    def work() -> None:
        # A budget for each thread, as processes have.
        mine = Budget(monotonic=lambda: 0.0, sleep=lambda seconds: None, database_time=lambda: started)
        try:
            together.wait(timeout=30)
            for _ in range(10):
                slot = mine._take_slot(("default", ENDPOINT), urgent=True)
                if isinstance(slot, float):
                    with guard:
                        taken.append(round(slot, 6))
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(taken) == len(set(taken)) == 40
    assert UpstreamBudget.objects.get().free_at == started + 40 * 100_000


def test_a_fast_account_costs_few_statements(
    world: World, settings: Any, clock: Any, django_assert_max_num_queries: Any
) -> None:
    limited(settings, 10_000)
    worker = world.worker()
    worker.wait_turn("default", ENDPOINT, urgent=True)
    with django_assert_max_num_queries(0):
        for _ in range(900):
            worker.wait_turn("default", ENDPOINT, urgent=True)
            worker.note_answer("default", ENDPOINT, "")


def test_the_time_is_the_databases(clock: Any) -> None:
    UpstreamBudget.objects.create(account="default", endpoint=ENDPOINT)
    rows = UpstreamBudget.objects.annotate(moment=DatabaseMicroseconds())
    first, second = rows.get().moment, rows.get().moment
    assert isinstance(first, int)
    assert 1_700_000_000_000_000 < first <= second


def test_a_session_that_our_own_limit_holds_back_keeps_its_place(story: Story, clock: Any) -> None:
    session = story.start("25001")
    story.finish(session)
    UpstreamBudget.objects.update_or_create(
        account="default",
        endpoint="result_detail",
        defaults={"paused_until": clock() + timedelta(seconds=20), "throttled": 3},
    )
    before = UpstreamCall.objects.filter(endpoint="result_detail").count()
    session = story.back(session)
    assert (session.verdict, session.failure_count, session.error_class) == ("pending", 0, "")
    assert timedelta(seconds=20) <= session.wake_at - clock() <= timedelta(seconds=30)
    assert UpstreamCall.objects.filter(endpoint="result_detail").count() == before, "nothing was sent"
    clock.advance(seconds=31)
    story.work()
    assert story.fresh(session).archive_state == "complete"


def test_a_person_who_waits_and_a_near_deadline_are_urgent(story: Story, clock: Any) -> None:
    from django_faceprint.services.collect import _is_urgent

    session = story.start("25001")
    assert not _is_urgent(session)
    sessions.record_return(session)
    assert _is_urgent(session)
    clock.advance(minutes=2)
    assert not _is_urgent(session)
    clock.set(session.next_deadline - timedelta(minutes=29))
    assert _is_urgent(session)
    assert schedule.turn_at(clock(), 0) > clock()
