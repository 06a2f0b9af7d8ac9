"""How long workers may be down, by examples worked out by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.records.forecast import forecast
from tests.factories import make_asset, make_passed_session, make_plan, make_session

pytestmark = pytest.mark.django_db

WINDOW = timedelta(hours=1)
HOUR = timedelta(hours=1)


def passed(clock: Any, *deadlines: timedelta, **more: Any) -> VerificationSession:
    """A passed session with a file wanted for each deadline."""
    session = make_passed_session(archived_at=None, wake_at=clock() + timedelta(minutes=1), **more)
    for position, deadline in enumerate(deadlines):
        make_asset(
            session,
            MediaAsset.Kind.FRAME,
            position=position,
            state=MediaAsset.State.WANTED,
            deadline=clock() + deadline,
        )
    return session


def finished(clock: Any, count: int, ago: timedelta) -> None:
    for _ in range(count):
        make_passed_session(archived_at=clock() - ago)


def test_with_nothing_outstanding_a_session_that_starts_now_has_a_day(clock: Any) -> None:
    seen = forecast(WINDOW)
    assert (seen.due, seen.asleep, seen.files, seen.per_minute) == (0, 0, 0, None)
    assert (seen.tolerable_outage, seen.at_risk, seen.at_risk_total) == (timedelta(hours=24), [], 0)


def test_the_first_deadline_counts_where_the_speed_is_unknown(clock: Any) -> None:
    passed(clock, 5 * HOUR, 3 * HOUR)
    passed(clock, 4 * HOUR)
    seen = forecast(WINDOW)
    assert (seen.asleep, seen.files) == (2, 3)
    assert seen.tolerable_outage == 3 * HOUR


def test_the_backlog_takes_its_time(clock: Any) -> None:
    """Two a minute; the third of three that are due by then is done after a minute and a half."""
    finished(clock, 2, timedelta(minutes=30))
    finished(clock, 1, timedelta(minutes=10))
    finished(clock, 9, timedelta(minutes=61))
    for _ in range(3):
        passed(clock, 2 * HOUR)
    passed(clock, 10 * HOUR)
    seen = forecast(WINDOW)
    assert seen.per_minute == 2.0
    assert seen.tolerable_outage == 2 * HOUR - timedelta(seconds=90)


def test_sessions_beyond_our_speed_are_at_risk(clock: Any) -> None:
    finished(clock, 1, timedelta(minutes=1))
    sessions = [passed(clock, timedelta(minutes=90), reference=f"order-{number}") for number in range(92)]
    seen = forecast(timedelta(0))
    assert seen.tolerable_outage == timedelta(0)
    assert seen.at_risk_total == 2
    assert {item.missing for item in seen.at_risk} == {"frame"}
    assert {item.public_id for item in seen.at_risk} <= {session.public_id for session in sessions}
    assert forecast(2 * HOUR).at_risk_total == 92
    assert len(forecast(2 * HOUR).at_risk) == 50


def test_a_person_may_have_finished_without_our_knowing(clock: Any) -> None:
    recorded = make_session(age=2 * HOUR, wake_at=clock(), next_deadline=clock())
    assert forecast(WINDOW).tolerable_outage == recorded.media_deadline - clock() == 22 * HOUR
    assert forecast(WINDOW).due == 1
    VerificationSession.objects.all().delete()
    make_session(age=60 * HOUR, wake_at=clock(), next_deadline=clock(), plan=make_plan(records_video=False))
    assert forecast(WINDOW).tolerable_outage == 12 * HOUR
    (risk,) = forecast(13 * HOUR).at_risk
    assert risk.missing == "verdict"


def test_the_other_environment_does_not_count(clock: Any) -> None:
    passed(clock, HOUR, environment="live")
    assert forecast(2 * HOUR).tolerable_outage == timedelta(hours=24)
    assert forecast(2 * HOUR).asleep == 0
