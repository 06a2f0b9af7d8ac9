"""Baidu or its storage is down: it is left alone, nothing is given up, and all goes on when it is back."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest

from django_faceprint.client import Breakers
from django_faceprint.client.breaker import FAILURES_IN_A_ROW, MAX_PAUSE
from django_faceprint.engine import queue, runner, steps
from django_faceprint.engine.visit import Visit, VisitContext
from django_faceprint.models import UpstreamCall, VerificationSession
from django_faceprint.upstream import clients
from django_faceprint.verification import record_return
from tests.factories import make_session
from tests.scenario import Scenario


class Seconds:
    """Real time as the breakers see it."""

    now = 1000.0

    def __init__(self) -> None:
        self.api_breakers = Breakers(monotonic=self)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    """Breakers whose pauses pass when told to."""
    passing = Seconds()
    shared = clients.Upstream(api_breakers=passing.api_breakers, media_breakers=Breakers(monotonic=passing))
    monkeypatch.setattr(clients, "upstream", shared)
    return passing


def run(concurrency: int) -> runner.WorkReport:
    return runner.collect_due(budget=timedelta(seconds=60), monotonic=time.monotonic, concurrency=concurrency)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_while_baidu_is_down_one_session_is_visited_now_and_then(
    scenario: Scenario, seconds: Seconds, clock: Any, concurrency: int
) -> None:
    waiting = [scenario.start() for _ in range(20)]
    for session in waiting:
        scenario.finish(session)
        record_return(session)
    scenario.fault("*", "http_503")
    UpstreamCall.objects.all().delete()

    assert run(concurrency).baidu_down
    calls = UpstreamCall.objects.count()
    assert FAILURES_IN_A_ROW <= calls <= FAILURES_IN_A_ROW + concurrency
    for _ in range(4):
        assert run(concurrency).sessions == 0
        seconds.now += MAX_PAUSE
        assert run(concurrency).sessions == 1
    assert UpstreamCall.objects.count() == calls + 4
    untouched = VerificationSession.objects.filter(poll_count=0)
    assert untouched.count() >= 20 - calls - 4 - concurrency
    assert set(untouched.values_list("failure_count", "error_class")) == {(0, "")}
    assert all(session.priority_at for session in untouched)

    scenario.heal()
    seconds.now += MAX_PAUSE
    for _ in range(5):
        clock.advance(minutes=1)
        report = run(concurrency)
    assert not report.baidu_down
    assert set(VerificationSession.objects.values_list("verdict", "archive_state")) == {
        ("passed", "complete")
    }


def test_a_session_that_was_not_asked_about_keeps_its_place(
    scenario: Scenario, seconds: Seconds, clock: Any
) -> None:
    session = scenario.start()
    scenario.finish(session)
    record_return(session)
    host = clients.conf.api_url.removeprefix("http://").split(":")
    breaker = seconds.api_breakers.of(host[0], int(host[1]))
    for _ in range(FAILURES_IN_A_ROW):
        with breaker.attempt() as attempt:
            attempt.failed()
    seconds.now += MAX_PAUSE
    with breaker.attempt():
        # Another thread's probe is under way.
        lease = queue.claim(clock())[0]
        context = VisitContext(upstream=clients.upstream)
        visit = Visit(lease, session, context, assets=session.assets.all())
        steps.perform_visit(visit)
    assert visit.outcome.retry_after
    assert not visit.outcome.failed
    assert visit.session.failure_count == 0
    release = visit.changes.release
    assert release is not None
    assert release.wake_at is not None
    assert timedelta(0) < release.wake_at - clock() <= timedelta(seconds=2)


def test_while_storage_of_media_is_down_baidu_is_asked_ever_more_rarely(
    scenario: Scenario, seconds: Seconds, clock: Any
) -> None:
    # The sandbox's limit counts in real time, in which these hours are seconds.
    scenario.control("PUT", "switches", {"qps": 0})
    waiting = [scenario.start() for _ in range(10)]
    for session in waiting:
        scenario.finish(session)
        record_return(session)
    scenario.fault("media", "http_503")
    run(1)
    asked = UpstreamCall.objects.count()
    for _ in range(60):
        clock.advance(minutes=1)
        seconds.now += 60
        run(1)
    more = UpstreamCall.objects.count() - asked
    assert more < 10 * 12 * 3, "at most some ten visits an hour for each session"
    failures = VerificationSession.objects.values_list("failure_count", flat=True)
    assert min(failures) >= 5

    scenario.heal()
    for _ in range(16):
        clock.advance(minutes=1)
        seconds.now += 60
        run(1)
    assert set(VerificationSession.objects.values_list("archive_state", flat=True)) == {"complete"}


@pytest.mark.parametrize(
    ("left", "urgent"),
    [
        (timedelta(minutes=29), True),
        (timedelta(minutes=31), False),
        (timedelta(0), False),
        (timedelta(hours=-3), False),
    ],
)
def test_what_is_urgent_can_still_be_kept(db: None, clock: Any, left: timedelta, urgent: bool) -> None:
    session = make_session()
    session.next_deadline = clock() + left
    session.later_deadline = session.last_deadline = None
    session.returned_at = None
    assert steps.is_urgent(session) is urgent
    session.next_deadline = clock() - timedelta(hours=1)
    session.last_deadline = clock() + timedelta(minutes=10)
    assert steps.is_urgent(session)
