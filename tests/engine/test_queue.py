"""Whose turn it is, and when to look again."""

from __future__ import annotations

import itertools
import re
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_faceprint.base import lease as leases
from django_faceprint.base.deadlines import window_closes_at
from django_faceprint.engine import polling
from django_faceprint.engine import queue as work_queue
from django_faceprint.models import VerificationSession
from tests.factories import (
    make_awaiting_session,
    make_due_session,
    make_leased_session,
    make_plan,
    make_session,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_waking_up_is_bounded_and_soonest_first(clock: Any) -> None:
    made = [make_session(wake_at=clock() - timedelta(seconds=number)) for number in range(5)]
    asleep = make_session(wake_at=clock() + timedelta(seconds=1))
    assert work_queue.promote(clock(), limit=2) == 2
    ready = set(VerificationSession.objects.ready().values_list("pk", flat=True))
    assert ready == {made[4].pk, made[3].pk}
    assert work_queue.promote(clock()) == 3
    assert work_queue.promote(clock()) == 0
    asleep.refresh_from_db()
    assert asleep.wake_at is not None
    assert asleep.priority_at is None


def test_a_dead_worker_needs_no_cleaner(clock: Any) -> None:
    session, lease = make_leased_session()
    assert work_queue.claim(clock()) == []
    clock.advance(leases.MAX_LEASE - timedelta(seconds=1))
    assert work_queue.promote(clock()) == 0
    clock.advance(seconds=1)
    assert work_queue.promote(clock()) == 1
    (second,) = work_queue.claim(clock())
    assert (second.session_pk, second.epoch) == (session.pk, lease.epoch + 1)


def test_a_lease_is_taken_for_a_term(clock: Any) -> None:
    session = make_due_session()
    assert len(work_queue.claim(clock(), ttl=work_queue.LEASE_TTL)) == 1
    session.refresh_from_db()
    assert session.lease_until == session.wake_at == clock() + work_queue.LEASE_TTL
    assert work_queue.promote(session.lease_until - timedelta(seconds=1)) == 0
    assert work_queue.promote(session.lease_until) == 1


def test_a_renewed_lease_lasts_for_another_term(clock: Any) -> None:
    sessions = [make_due_session() for _ in range(3)]
    leases = work_queue.claim(clock(), limit=2, ttl=work_queue.LEASE_TTL)
    (other,) = work_queue.claim(clock(), ttl=work_queue.LEASE_TTL)
    clock.advance(work_queue.LEASE_TTL - timedelta(seconds=1))
    work_queue.renew(leases, clock(), work_queue.LEASE_TTL)
    clock.advance(seconds=1)
    assert work_queue.promote(clock()) == 1
    assert [lease.session_pk for lease in work_queue.claim(clock(), limit=3)] == [other.session_pk]
    for session in sessions:
        session.refresh_from_db()
        if session.pk != other.session_pk:
            assert (
                session.lease_until
                == session.wake_at
                == clock() + work_queue.LEASE_TTL - timedelta(seconds=1)
            )
    for lease in leases:
        lease.update(poll_count=1)


def test_no_lease_is_renewed_for_ever(clock: Any) -> None:
    """A visit that hangs where nothing can end it must not keep its session for good."""
    session = make_due_session()
    (lease,) = work_queue.claim(clock(), ttl=work_queue.LEASE_TTL)
    claimed_at = clock()
    while work_queue.promote(clock()) == 0:
        work_queue.renew([lease], clock(), work_queue.LEASE_TTL)
        clock.advance(work_queue.RENEW_AFTER)
    assert leases.MAX_LEASE - work_queue.RENEW_AFTER <= clock() - claimed_at <= leases.MAX_LEASE
    session.refresh_from_db()
    assert session.priority_at is not None


@pytest.mark.parametrize("taken", [False, True])
def test_a_lost_lease_is_not_won_back(clock: Any, taken: bool) -> None:
    session = make_due_session()
    (lease,) = work_queue.claim(clock(), ttl=work_queue.LEASE_TTL)
    clock.advance(work_queue.LEASE_TTL)
    assert work_queue.promote(clock()) == 1
    if taken:
        (second,) = work_queue.claim(clock(), ttl=timedelta(seconds=1))
        assert second.epoch == lease.epoch + 1
    before = VerificationSession.objects.filter(pk=session.pk).values()[0]
    work_queue.renew([lease], clock(), work_queue.LEASE_TTL)
    assert VerificationSession.objects.filter(pk=session.pk).values()[0] == before


def test_many_workers_never_share_a_session(clock: Any) -> None:
    for number in range(24):
        make_session(priority_at=clock() + timedelta(minutes=number))
    claimed: list[int] = []
    guard = threading.Lock()
    together = threading.Barrier(4)

    def worker() -> None:
        try:
            together.wait(timeout=30)
            while lease := work_queue.claim(clock()):
                with guard:
                    claimed.append(lease[0].session_pk)
        finally:
            connection.close()

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    # On SQLite a worker may find its candidates taken and go home early; what is left stays ready.
    assert len(claimed) == len(set(claimed))
    assert len(claimed) + VerificationSession.objects.ready().count() == 24
    assert VerificationSession.objects.filter(lease_epoch__gt=1).count() == 0


def queue(clock: Any, *hours: float) -> list[int]:
    """Ready sessions, each with a deadline in so many hours and one long after; returns their keys."""
    plan = make_plan()
    made = [
        make_session(
            plan=plan,
            verify_token=None,
            wake_at=clock(),
            next_deadline=clock() + timedelta(hours=number),
            later_deadline=clock() + timedelta(hours=48 + number),
        )
        for number in hours
    ]
    assert work_queue.promote(clock()) == len(made)
    return [session.pk for session in made]


def claim_all(clock: Any) -> list[int]:
    return [lease.session_pk for lease in work_queue.claim(clock(), limit=100)]


def test_a_deadline_that_goes_by_in_the_queue_loses_its_place(clock: Any) -> None:
    """Without it, a busy worker would go on with those first whose deadline is over."""
    first, second, third = queue(clock, 1, 2, 3)
    clock.advance(hours=1.5)
    assert claim_all(clock) == [second, third, first]


def test_it_does_so_when_there_is_hardly_time_for_a_visit(clock: Any) -> None:
    first, second = queue(clock, 1, 2)
    clock.advance(timedelta(hours=1) - work_queue.MIN_LEAD_TIME)
    assert claim_all(clock) == [second, first]


def test_it_keeps_its_place_until_then(clock: Any) -> None:
    first, second = queue(clock, 1, 2)
    clock.advance(timedelta(hours=1) - work_queue.MIN_LEAD_TIME - timedelta(seconds=1))
    assert claim_all(clock) == [first, second]


def test_recordings_that_may_be_there_yet_go_before_what_has_more_than_a_day(clock: Any) -> None:
    """Their safe deadline is over, and only the latest one is sure: there is no harm in trying while there is
    time, and none in waiting for what may go sooner."""
    plan = make_plan()

    def ready(*, hours: float, **more: Any) -> int:
        deadline = clock() + timedelta(hours=hours)
        results = {"results_give_up_at": deadline, "next_deadline": deadline}
        return make_session(plan=plan, verify_token=None, wake_at=clock(), **results, **more).pk

    def recorded(safe: float, give_up_at: float) -> dict[str, Any]:
        return {
            "media_deadline": clock() + timedelta(hours=safe),
            "media_give_up_at": clock() + timedelta(hours=give_up_at),
        }

    over = ready(hours=46, **recorded(-3, -0.1))
    later = ready(hours=47)
    doubtful = ready(hours=48, **recorded(-1, 1.5))
    sooner = ready(hours=23)
    assert work_queue.promote(clock()) == 4
    assert claim_all(clock) == [sooner, doubtful, over, later]


@pytest.fixture
def doubtful(clock: Any) -> VerificationSession:
    """A ready session whose recordings may be there for another hour."""
    session = make_session(
        plan=make_plan(),
        verify_token=None,
        wake_at=clock(),
        next_deadline=clock() + timedelta(hours=48),
        media_deadline=clock() - timedelta(hours=1),
        media_give_up_at=clock() + timedelta(hours=1),
        results_give_up_at=clock() + timedelta(hours=50),
    )
    assert work_queue.promote(clock()) == 1
    return session


def test_a_claim_of_such_recordings_does_not_go_stale(clock: Any, doubtful: VerificationSession) -> None:
    (lease,) = work_queue.claim(clock())
    clock.advance(minutes=2)
    assert not work_queue.is_stale(lease, clock())


def test_it_does_when_their_latest_deadline_is_over(clock: Any, doubtful: VerificationSession) -> None:
    """What was ordered as if it had a day has two again, with its results."""
    clock.advance(hours=2)
    (lease,) = work_queue.claim(clock())
    assert work_queue.is_stale(lease, clock())
    work_queue.give_back([lease])
    doubtful.refresh_from_db()
    assert doubtful.priority_at == doubtful.next_deadline
    (lease,) = work_queue.claim(clock())
    assert not work_queue.is_stale(lease, clock())


def test_however_many_deadlines_have_gone_by(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_queue, "PROMOTE_BATCH", 2)
    *passed, last = queue(clock, 1, 1.1, 1.2, 1.3, 1.4, 9)
    clock.advance(hours=8)
    assert claim_all(clock) == [last, *passed]


def test_a_claim_is_stale_when_its_deadline_goes_by(clock: Any) -> None:
    queue(clock, 1)
    clock.advance(timedelta(hours=1) - work_queue.MIN_LEAD_TIME - timedelta(seconds=10))
    (lease,) = work_queue.claim(clock())
    clock.advance(seconds=9)
    assert not work_queue.is_stale(lease, clock())
    clock.advance(seconds=1)
    assert work_queue.is_stale(lease, clock())
    # Claimed anew, it is for the later one.
    work_queue.give_back([lease])
    (lease,) = work_queue.claim(clock())
    assert not work_queue.is_stale(lease, clock())


def test_a_claim_is_stale_when_a_visit_would_outlast_it(clock: Any) -> None:
    queue(clock, 9)
    (lease,) = work_queue.claim(clock())
    clock.advance(leases.MAX_LEASE - work_queue.MAX_VISIT)
    assert not work_queue.is_stale(lease, clock())
    clock.advance(seconds=1)
    assert work_queue.is_stale(lease, clock())


def test_every_question_to_the_queue_goes_by_its_index(clock: Any) -> None:
    """Without an order, a database with much due reads the table until it meets a due session."""
    make_session(wake_at=clock())
    make_due_session()
    with CaptureQueriesContext(connection) as queries:
        assert work_queue.is_anything_ready()
        assert work_queue.promote(clock()) == 1
        assert len(work_queue.claim(clock(), limit=8)) == 2
        assert not work_queue.is_anything_ready()
    questions = [
        query["sql"] for query in queries if re.match(r"SELECT .*faceprint_verificationsession", query["sql"])
    ]
    assert len(questions) >= 4
    assert [sql for sql in questions if " ORDER BY " not in sql] == []


def test_a_named_session_is_only_claimed_when_it_is_ready(clock: Any) -> None:
    urgent = make_session(priority_at=clock())
    named = make_session(priority_at=clock() + timedelta(hours=1))
    asleep = make_awaiting_session()
    assert work_queue.claim(clock(), session_pk=asleep.pk) == []
    (first,) = work_queue.claim(clock(), session_pk=named.pk)
    (second,) = work_queue.claim(clock())
    assert (first.session_pk, second.session_pk) == (named.pk, urgent.pk)


def test_polling_widens_and_ends_with_the_window(clock: Any) -> None:
    session = make_session(age=timedelta(0))
    closes_at = window_closes_at(session)
    assert closes_at is not None
    moments = []
    while clock() < closes_at:
        following = polling.next_poll_at(session, clock())
        assert following is not None
        assert following > clock()
        moments.append(following - session.token_answered_at)
        clock.set(following)
    assert len(moments) <= 30
    assert moments[0] == polling.FIRST_POLL
    assert timedelta(hours=2, seconds=30) in moments
    assert moments[-1] == timedelta(hours=3)


def test_after_the_return_the_answer_is_sought_within_seconds(clock: Any) -> None:
    session = make_session(age=timedelta(minutes=10), returned_at=clock())
    assert polling.next_poll_at(session, clock()) == clock() + timedelta(seconds=2)
    clock.advance(seconds=20)
    assert polling.next_poll_at(session, clock()) == clock() + timedelta(seconds=10)


def test_backoff_doubles_has_jitter_and_an_end(clock: Any) -> None:
    for failures, full in ((1, 2), (2, 4), (3, 8), (9, 512), (10, 900), (1000, 900)):
        waits = {polling.backoff(failures).total_seconds() for _ in range(50)}
        assert full / 2 <= min(waits) <= max(waits) <= full
        assert len(waits) > 1


def test_a_near_deadline_shortens_the_wait(clock: Any) -> None:
    wait = polling.retry_at(clock(), 20, clock() + timedelta(minutes=10)) - clock()
    assert wait == timedelta(minutes=1)
    assert polling.retry_at(clock(), 20, clock() - timedelta(hours=1)) - clock() >= timedelta(minutes=7)


def test_the_order_in_the_database_is_the_one_in_python(clock: Any) -> None:
    """What simulations and tools compute with ``priority`` is what workers are given."""
    near = [timedelta(0), work_queue.MIN_LEAD_TIME, work_queue.MIN_LEAD_TIME + timedelta(seconds=1)]
    offsets = [None, timedelta(hours=-1), *near, timedelta(hours=24), timedelta(hours=25)]
    media = [(None, None), (-1, 1), (-2, -1), (1, 2), (None, 1)]
    plan = make_plan()
    results = [None, timedelta(hours=-2), timedelta(hours=40)]
    for number, (*rungs, over) in enumerate(itertools.product(offsets, offsets, offsets, results)):
        safe, give_up_at = media[number % len(media)]
        moments = {
            **dict(zip(("next_deadline", "later_deadline", "last_deadline"), rungs, strict=True)),
            "results_give_up_at": over,
            "media_deadline": None if safe is None else timedelta(hours=safe),
            "media_give_up_at": None if give_up_at is None else timedelta(hours=give_up_at),
        }
        columns = {name: None if after is None else clock() + after for name, after in moments.items()}
        make_session(wake_at=clock(), plan=plan, verify_token=None, **columns)
    expected = {row.pk: work_queue.priority(row, clock()) for row in VerificationSession.objects.all()}
    assert work_queue.promote(clock(), limit=10_000) == len(expected) == 7**3 * 3
    assert dict(VerificationSession.objects.values_list("pk", "priority_at")) == expected
