"""The questions behind alerts, and when an alert opens and ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_faceprint.alerts.conditions import Outcome, examine
from django_faceprint.clock import now
from django_faceprint.models import Alert, AlertRule, MediaAsset, Plan
from django_faceprint.records import statistics
from django_faceprint.records.statistics import Share
from django_faceprint.upstream.rate_limit import RateLimit
from tests.alerts.conftest import Enable, attempts, calls, decided, refusing
from tests.factories import make_asset, make_call, make_passed_session, make_plan, make_session

pytestmark = pytest.mark.django_db

Kind = MediaAsset.Kind
State = MediaAsset.State
HALF_HOUR = timedelta(minutes=30)


@pytest.fixture
def plan(clock: Any) -> Plan:
    return make_plan()


class TestAtRisk:
    def test_counts_sessions_with_unarchived_evidence_near_its_safe_deadline(self, plan: Plan) -> None:
        near = make_passed_session(
            plan=plan, age=timedelta(hours=20), verified_at=now() - timedelta(hours=20)
        )
        make_asset(near, Kind.PROCESS_VIDEO)
        make_asset(near, Kind.FRAME)
        far = make_passed_session(plan=plan, age=timedelta(hours=1), verified_at=now() - timedelta(hours=1))
        make_asset(far, Kind.PROCESS_VIDEO)
        done = make_passed_session(plan=plan, age=timedelta(hours=20))
        make_asset(done, Kind.PROCESS_VIDEO, state=State.NOT_PROVIDED)

        assert statistics.at_risk(timedelta(hours=6)) == 1
        assert statistics.at_risk(timedelta(hours=3)) == 0
        assert statistics.earliest_deadline() == now() + timedelta(hours=4)

    def test_counts_sessions_without_a_verdict(self, plan: Plan) -> None:
        make_session(plan=plan, age=timedelta(hours=19))
        assert statistics.at_risk(timedelta(hours=6)) == 1
        assert statistics.at_risk(timedelta(hours=4)) == 0

    def test_never_mixes_environments(self, plan: Plan) -> None:
        make_session(plan=plan, age=timedelta(hours=19), environment="live")
        assert statistics.at_risk(timedelta(hours=6)) == 0
        assert statistics.earliest_deadline() is None

    def test_a_match_image_has_no_deadline(self, plan: Plan) -> None:
        make_asset(make_passed_session(plan=plan), Kind.MATCH_IMAGE)
        assert statistics.at_risk(timedelta(days=365)) == 0


class TestLost:
    def test_counts_by_the_moment_of_the_loss_not_of_the_verdict(self, plan: Plan, clock: Any) -> None:
        """A verdict is days older than the loss of its evidence."""
        session = make_passed_session(plan=plan, age=timedelta(hours=26))
        make_asset(session, Kind.VIDEO, state=State.LOST)
        before = now()
        assert statistics.lost_since(None) == 0

        clock.set(session.media_give_up_at)
        assert statistics.lost_since(before) == 1
        assert statistics.lost_since(clock.moment) == 0

    def test_each_loss_falls_into_one_of_two_adjoining_periods(self, plan: Plan, clock: Any) -> None:
        session = make_passed_session(plan=plan, age=timedelta(hours=30))
        make_asset(session, Kind.VIDEO, state=State.LOST)
        middle = session.media_give_up_at
        assert middle is not None
        assert statistics.lost_since(middle - timedelta(hours=1), until=middle) == 1
        assert statistics.lost_since(middle, until=middle + timedelta(hours=1)) == 0

    def test_a_loss_counts_before_a_worker_has_noted_it(self, plan: Plan) -> None:
        overdue = make_passed_session(plan=plan, age=timedelta(hours=28))
        make_asset(overdue, Kind.VIDEO)
        assert statistics.lost_since(None) == 1

    def test_an_attempt_whose_outcome_was_never_learnt(self, plan: Plan) -> None:
        old = timedelta(hours=80)
        make_session(plan=plan, age=old, verdict="unknown", archive_state="lost", returned_at=now())
        make_session(plan=plan, age=old, attempted_at=now() - old)
        assert statistics.lost_since(None) == 2
        make_session(plan=plan, age=old)
        make_session(plan=plan, age=old, verdict="unknown", archive_state="not_applicable")
        assert statistics.lost_since(None) == 2

    def test_a_session_counts_once(self, plan: Plan) -> None:
        session = make_passed_session(plan=plan, age=timedelta(hours=80))
        make_asset(session, Kind.VIDEO, state=State.LOST)
        make_asset(session, Kind.FACE, state=State.LOST)
        make_asset(make_passed_session(plan=plan, environment="live", age=timedelta(days=9)), Kind.VIDEO)
        assert statistics.lost_since(None) == 1


class TestUpstreamFailures:
    def test_counts_failures_of_baidu_network_and_configuration(self, clock: Any) -> None:
        for outcome in ("transport", "retry", "slow_down", "reauthenticate", "configuration", "unknown"):
            make_call(outcome=outcome)
        for outcome in ("ok", "not_started", "gone", "caller", "verification_failed"):
            make_call(outcome=outcome)
        assert statistics.upstream_failures(HALF_HOUR) == Share(6, 11)

    def test_looks_back_one_window_in_this_environment(self, clock: Any) -> None:
        make_call(outcome="transport", environment="live")
        make_call(outcome="transport")
        clock.advance(minutes=29)
        make_call()
        assert statistics.upstream_failures(HALF_HOUR) == Share(1, 2)
        clock.advance(minutes=1)
        assert statistics.upstream_failures(HALF_HOUR) == Share(0, 1)

    def test_no_calls_are_no_share(self, clock: Any) -> None:
        share = statistics.upstream_failures(HALF_HOUR)
        assert (share, share.percent) == (Share(0, 0), 0.0)


class TestSuspiciousFailures:
    def test_counts_attempts_by_code_and_by_score(self, plan: Plan) -> None:
        decided("failed", "223120", "223131", "222351", plan=plan)
        decided("passed", "222202", "0", plan=plan)
        low = decided("failed", plan=plan)
        attempts(low, "999999", score=41.5, threshold=80.0)
        assert statistics.suspicious_failures(HALF_HOUR) == Share(4, 6)

    def test_a_pass_is_never_suspicious(self, plan: Plan) -> None:
        low = decided("passed", plan=plan)
        attempts(low, "0", score=70.0, threshold=80.0)
        assert statistics.suspicious_failures(HALF_HOUR) == Share(0, 1)

    def test_the_time_at_which_we_learnt_of_it_counts(self, plan: Plan, clock: Any) -> None:
        """Upstream may tell an attempt hours later, without its time, or in another clock."""
        session = decided("failed", plan=plan, age=timedelta(hours=2))
        attempts(session, "223120", "223120", verified_at=now() - timedelta(hours=2))
        session.attempts.filter(order=2).update(verified_at=None)
        assert statistics.suspicious_failures(HALF_HOUR) == Share(2, 2)
        clock.advance(HALF_HOUR)
        assert statistics.suspicious_failures(HALF_HOUR) == Share(0, 0)

    def test_sessions_without_a_list_of_attempts_count_once(self, plan: Plan) -> None:
        decided("failed", plan=plan, error_code="223120")
        decided("failed", plan=plan, error_code="222202")
        decided("failed", plan=plan, error_code="222999", score=12.0, threshold=80.0)
        decided("passed", plan=plan)
        decided("expired", plan=plan)
        assert statistics.suspicious_failures(HALF_HOUR) == Share(2, 4)

    def test_failed_sessions_that_may_try_again_count(self, plan: Plan) -> None:
        values: dict[str, Any] = {"plan": plan, "error_class": "verification_failed", "last_polled_at": now()}
        make_session(error_code="223120", **values)
        make_session(error_code="223114", **values)
        make_session(plan=plan, last_polled_at=now(), error_class="retry", error_code="223120")
        assert statistics.suspicious_failures(HALF_HOUR) == Share(1, 2)


class TestShares:
    """``upstream_errors`` with 20 % of at least 10; ``attack`` is judged by the same function."""

    @pytest.fixture
    def rule(self, enable: Enable) -> AlertRule:
        return enable("upstream_errors", share_percent=20, minimum_count=10, window_minutes=30)

    @pytest.mark.parametrize(
        ("failed", "fine", "expected"),
        [
            (2, 8, Outcome.FIRING),
            (20, 0, Outcome.FIRING),
            (9, 0, Outcome.UNDECIDED),  # all fail, but too few to say
            (19, 81, Outcome.UNDECIDED),  # below the threshold, not below 0.9 of it
            (18, 82, Outcome.UNDECIDED),
            (17, 83, Outcome.CLEAR),
            (0, 10, Outcome.CLEAR),
            (0, 1, Outcome.CLEAR),  # few, and none of them failed
            (1, 8, Outcome.UNDECIDED),
            (0, 0, Outcome.UNDECIDED),  # no data is not recovery
        ],
    )
    def test_outcome(self, rule: AlertRule, failed: int, fine: int, expected: Outcome) -> None:
        calls(failed, fine)
        finding = examine(rule, None, now())
        assert finding.outcome == expected
        assert finding.facts["count"] == failed
        assert finding.facts["total"] == failed + fine
        assert all(isinstance(value, int | float) for value in finding.facts.values())

    def test_a_threshold_of_zero_means_any_failure(self, rule: AlertRule) -> None:
        rule.share_percent = 0
        calls(0, 10)
        assert examine(rule, None, now()).outcome == Outcome.CLEAR
        calls(1, 0)
        assert examine(rule, None, now()).outcome == Outcome.FIRING

    def test_attack(self, enable: Enable, plan: Plan) -> None:
        rule = enable("attack", share_percent=50, minimum_count=4, window_minutes=30)
        decided("failed", "223120", "223131", plan=plan)
        assert examine(rule, None, now()).outcome == Outcome.UNDECIDED
        decided("passed", "222202", "0", plan=plan)
        assert examine(rule, None, now()).outcome == Outcome.FIRING


class TestQuota:
    """An interface that refuses everything for minutes; that it once refused for a moment is none."""

    def test_names_each_interface_and_its_code(self, enable: Enable) -> None:
        rule = enable("quota")
        refusing("result_detail", "18", minutes=30)
        refusing("result_getall", "17", minutes=6)
        refusing("result_simple", "18", minutes=4)
        refusing("result_stat", "18", minutes=30, throttled=2)
        finding = examine(rule, None, now())
        assert finding.outcome == Outcome.FIRING
        assert finding.facts == {"result_detail": 18, "result_getall": 17, "interfaces": 2, "minutes": 30}

    def test_is_over_when_something_else_is_answered(self, enable: Enable, clock: Any) -> None:
        rule, budget = enable("quota"), RateLimit()
        for _ in range(4):
            assert examine(rule, None, now()).outcome == Outcome.CLEAR
            budget.note_answer("default", "result_detail", "18")
            clock.advance(minutes=2)
        assert examine(rule, None, now()).outcome == Outcome.FIRING
        budget.note_answer("default", "result_detail", "")
        assert examine(rule, None, now()).outcome == Outcome.CLEAR


def test_a_check_does_not_change_the_open_alert(enable: Enable) -> None:
    rule = enable("evidence_lost")
    alert = Alert.objects.create(
        rule=rule, open_key="evidence_lost", severity="critical", facts={"sessions": 1}
    )
    assert examine(rule, alert, now()).outcome == Outcome.UNDECIDED
    alert.acknowledged_at = now()
    assert examine(rule, alert, now()).outcome == Outcome.CLEAR
