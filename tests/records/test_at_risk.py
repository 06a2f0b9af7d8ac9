"""One deadline for each record, in queries and for single records alike."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.records import statistics
from django_faceprint.records.at_risk import deadline_of, undecided
from django_faceprint.records.filters import Selection
from django_faceprint.records.forecast import forecast
from tests.factories import make_asset, make_passed_session, make_plan, make_session

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
Kind, State = MediaAsset.Kind, MediaAsset.State


def wanted(session: VerificationSession, in_hours: float, *, position: int = 0) -> MediaAsset:
    deadline = session.token_requested_at + in_hours * HOUR  # type: ignore[operator]
    return make_asset(session, Kind.ATTEMPT_FACE, position=position, state=State.WANTED, deadline=deadline)


def test_the_first_file_counts_once_there_is_a_verdict(clock: Any) -> None:
    session = make_passed_session()
    files = [wanted(session, 30), wanted(session, 20, position=1)]
    assert deadline_of(session, files) == files[1].deadline
    assert deadline_of(session, []) is None
    assert statistics.earliest_deadline() == files[1].deadline


@pytest.mark.parametrize(("records_video", "hours"), [(True, 24), (False, 72)])
def test_without_a_verdict_what_the_plan_may_yield_counts(
    clock: Any, records_video: bool, hours: int
) -> None:
    session = make_session(age=HOUR, plan=make_plan(records_video=records_video), next_deadline=clock())
    assert deadline_of(session, []) == clock() + (hours - 1) * HOUR
    assert undecided().get().deadline == statistics.earliest_deadline() == deadline_of(session, [])
    for left, count in (((hours - 2) * HOUR, 0), ((hours - 1) * HOUR, 1)):
        assert statistics.at_risk(left) == count
    assert forecast(hours * HOUR).at_risk[0].deadline == deadline_of(session, [])


def test_without_a_verdict_a_known_file_may_be_the_first(clock: Any) -> None:
    session = make_session(age=HOUR, next_deadline=clock())
    later = wanted(session, 30)
    assert deadline_of(session, [later]) == session.media_deadline
    first = wanted(session, 5, position=1)
    assert deadline_of(session, [later, first]) == first.deadline
    assert statistics.at_risk(4 * HOUR) == 1
    assert Selection({"left": "6h", "created": "all"}).queryset().get() == session
    assert forecast(5 * HOUR).at_risk[0].deadline == first.deadline


def test_a_session_with_several_files_is_at_risk_once(clock: Any) -> None:
    session = make_session(age=20 * HOUR)
    for position in range(3):
        wanted(session, 21, position=position)
    assert statistics.at_risk(6 * HOUR) == 1
