"""Alerts from opening to end, and the mails they cause."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from django.core import mail
from django.db import connection

from django_faceprint import signals
from django_faceprint.alerts.conditions import unacknowledged_loss
from django_faceprint.alerts.evaluation import EvaluationReport, evaluate
from django_faceprint.clock import now
from django_faceprint.models import Alert, AlertRule, MediaAsset, UpstreamCall
from django_faceprint.records import statistics
from tests.alerts.conftest import Enable, calls
from tests.factories import make_asset, make_passed_session

pytestmark = pytest.mark.django_db


def lose_evidence(clock: Any) -> MediaAsset:
    """A video that is lost right now."""
    session = make_passed_session()
    asset = make_asset(session, MediaAsset.Kind.VIDEO)
    clock.set(session.media_give_up_at)
    MediaAsset.objects.filter(pk=asset.pk).update(state=MediaAsset.State.LOST)
    return asset


def subjects() -> list[str]:
    return [str(message.subject) for message in mail.outbox]


@pytest.fixture
def errors(enable: Enable) -> AlertRule:
    """20 % of at least 10 calls within half an hour."""
    return enable("upstream_errors", share_percent=20, minimum_count=10, window_minutes=30)


class TestLifeOfAnIncident:
    def test_opens_once_mails_once_and_recovers_once(self, errors: AlertRule, clock: Any) -> None:
        calls(10, 10)
        opened_at = now()
        report = evaluate()
        assert report == EvaluationReport(opened=1, resolved=0, open=1, mails_sent=1, mails_failed=0)
        assert len(mail.outbox) == 1

        clock.advance(minutes=1)
        calls(10, 0)
        assert evaluate() == EvaluationReport(open=1)
        alert = Alert.objects.get()
        assert (alert.opened_at, alert.last_seen_at) == (opened_at, now())
        assert (alert.facts["count"], alert.facts["total"]) == (20, 30)
        assert (alert.open_key, alert.resolved_at, alert.severity) == ("upstream_errors", None, "warning")

        clock.advance(minutes=40)
        calls(0, 10)
        assert evaluate() == EvaluationReport(resolved=1, mails_sent=1)
        alert.refresh_from_db()
        assert (alert.open_key, alert.resolved_at, alert.mail_error) == (None, now(), "")
        assert alert.facts["count"] == 20, "the facts of the end are those last seen"

        clock.advance(minutes=1)
        assert evaluate() == EvaluationReport()
        assert subjects() == [
            "[warning][faceprint] 50% of the calls to Baidu fail",
            "[Recovered][faceprint] 66.7% of the calls to Baidu fail",
        ]

    def test_does_not_flutter_around_its_threshold(self, errors: AlertRule) -> None:
        calls(20, 80)
        evaluate()
        UpstreamCall.objects.filter(outcome="transport").first().delete()  # type: ignore[union-attr]
        assert evaluate() == EvaluationReport(open=1)

    def test_silence_is_no_recovery(self, errors: AlertRule, clock: Any) -> None:
        calls(10, 0)
        evaluate()
        clock.advance(hours=5)
        assert evaluate().open == 1
        calls(0, 1)
        assert evaluate().resolved == 1

    def test_a_second_alert_sends_another_mail(self, errors: AlertRule, clock: Any) -> None:
        for _ in range(2):
            calls(10, 0)
            evaluate()
            clock.advance(hours=1)
            calls(0, 10)
            evaluate()
            clock.advance(hours=1)
        assert len(mail.outbox) == 4
        assert Alert.objects.count() == 2

    def test_a_rule_that_is_switched_off_closes_its_alert_without_a_word(self, errors: AlertRule) -> None:
        calls(10, 0)
        evaluate()
        AlertRule.objects.update(enabled=False)
        assert evaluate() == EvaluationReport(resolved=1)
        assert len(mail.outbox) == 1

    def test_stamps_its_heartbeat(self, errors: AlertRule) -> None:
        evaluate()
        assert statistics.last_heartbeat("alerts") == now()

    def test_the_task_calls_it(self, errors: AlertRule) -> None:
        from django_faceprint.tasks import alerts

        calls(10, 0)
        assert alerts() is None
        assert Alert.objects.count() == 1


class TestEvidenceAtRisk:
    def test_opens_and_ends_with_the_risk(self, enable: Enable, clock: Any) -> None:
        enable("evidence_at_risk", window_minutes=360)
        asset = make_asset(make_passed_session(), MediaAsset.Kind.VIDEO)
        assert evaluate().opened == 0
        assert asset.deadline is not None
        clock.set(asset.deadline - timedelta(hours=5))
        assert evaluate().opened == 1
        assert Alert.objects.get().facts == {"sessions": 1, "window_minutes": 360, "minutes_left": 300}

        MediaAsset.objects.update(state=MediaAsset.State.STORED)
        assert evaluate().resolved == 1
        assert subjects()[1].startswith("[Recovered]")


class TestEvidenceLost:
    def test_ends_on_acknowledgement_only_and_never_tells_the_same_loss_twice(
        self, enable: Enable, clock: Any
    ) -> None:
        enable("evidence_lost", severity="critical")
        assert evaluate() == EvaluationReport()
        asset = lose_evidence(clock)
        assert evaluate().opened == 1
        clock.advance(days=3)
        assert evaluate() == EvaluationReport(open=1)
        assert unacknowledged_loss(now()) == 1

        clock.advance(minutes=1)
        Alert.objects.update(acknowledged_at=now())
        assert unacknowledged_loss(now()) == 0
        assert evaluate() == EvaluationReport(resolved=1, mails_sent=1)
        clock.advance(minutes=1)
        assert evaluate() == EvaluationReport()

        # "Archive again" makes it wanted once more, and lost once more.
        for state in (MediaAsset.State.WANTED, MediaAsset.State.LOST):
            MediaAsset.objects.filter(pk=asset.pk).update(state=state)
            assert evaluate() == EvaluationReport()

        lose_evidence(clock)
        assert evaluate().opened == 1
        assert subjects() == [
            "[critical][faceprint] Evidence of 1 session was not archived in time",
            "[Acknowledged][faceprint] Evidence of 1 session was not archived in time",
            "[critical][faceprint] Evidence of 1 session was not archived in time",
        ]

    def test_a_loss_between_the_last_check_and_the_acknowledgement_opens_another(
        self, enable: Enable, clock: Any
    ) -> None:
        enable("evidence_lost")
        lose_evidence(clock)
        evaluate()
        lose_evidence(clock)
        Alert.objects.update(acknowledged_at=now())
        assert unacknowledged_loss(now()) == 1
        report = evaluate()
        assert (report.resolved, report.opened) == (1, 1)

    def test_further_losses_join_the_open_alert(self, enable: Enable, clock: Any) -> None:
        enable("evidence_lost")
        lose_evidence(clock)
        evaluate()
        lose_evidence(clock)
        assert evaluate() == EvaluationReport(open=1)
        assert Alert.objects.get().facts == {"sessions": 2}

    def test_stays_open_when_the_file_was_got_after_all(self, enable: Enable, clock: Any) -> None:
        enable("evidence_lost")
        lose_evidence(clock)
        evaluate()
        MediaAsset.objects.update(state=MediaAsset.State.STORED)
        assert evaluate() == EvaluationReport(open=1)
        assert Alert.objects.get().facts == {"sessions": 1}

    def test_losses_while_the_rule_was_off_are_mailed_when_it_is_on_again(
        self, enable: Enable, clock: Any
    ) -> None:
        rule = enable("evidence_lost", enabled=False)
        lose_evidence(clock)
        assert evaluate() == EvaluationReport()
        assert unacknowledged_loss(now()) == 1
        AlertRule.objects.filter(pk=rule.pk).update(enabled=True)
        assert evaluate().opened == 1


@pytest.fixture
def received() -> Iterator[list[tuple[str, Alert]]]:
    """What a host's receivers see."""
    seen: list[tuple[str, Alert]] = []

    def opened(sender: Any, alert: Alert, **_: Any) -> None:
        seen.append(("opened", alert))

    def resolved(sender: Any, alert: Alert, **_: Any) -> None:
        seen.append(("resolved", alert))

    signals.alert_opened.connect(opened)
    signals.alert_resolved.connect(resolved)
    yield seen
    signals.alert_opened.disconnect(opened)
    signals.alert_resolved.disconnect(resolved)


@pytest.mark.django_db(transaction=True)
class TestCommitted:
    """With real transactions, for what happens after the commit and between workers."""

    @pytest.fixture
    def errors(self, transactional_db: None, enable: Enable) -> AlertRule:
        return enable("upstream_errors", share_percent=20, minimum_count=10, window_minutes=30)

    def test_signals_are_sent_after_the_commit(
        self, errors: AlertRule, received: list[tuple[str, Alert]], clock: Any
    ) -> None:
        calls(10, 0)
        evaluate()
        evaluate()
        clock.advance(hours=1)
        calls(0, 10)
        evaluate()
        alert = Alert.objects.get()
        assert received == [("opened", alert), ("resolved", alert)]
        assert received[1][1].resolved_at == now()

    def test_two_workers_open_one_alert_and_send_one_mail(self, errors: AlertRule) -> None:
        """Both have found that nothing is open before either opens."""
        calls(10, 0)
        barrier = Barrier(2, timeout=20)
        reports: list[EvaluationReport] = []

        def wait_for_the_other(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            found = execute(sql, params, many, context)
            if sql.startswith("SELECT") and errors.condition in (params or ()):
                barrier.wait()
            return found

        def work() -> None:
            try:
                with connection.execute_wrapper(wait_for_the_other):
                    reports.append(evaluate())
            finally:
                connection.close()

        workers = [Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sorted(report.opened for report in reports) == [0, 1]
        assert sum(report.mails_sent for report in reports) == 1
        assert Alert.objects.count() == 1
        assert len(mail.outbox) == 1
