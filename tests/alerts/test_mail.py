"""What the mails say, to whom they go, and what happens when they do not get through."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.db import connection
from django.utils import translation

from django_faceprint.alerts import mail as alert_mail
from django_faceprint.alerts.evaluation import EvaluationReport, evaluate
from django_faceprint.alerts.mail import AlertMailFailed, send_due_mails, send_test_mail
from django_faceprint.clock import now
from django_faceprint.models import Alert, AlertRule, MediaAsset
from tests.alerts.conftest import Enable, calls, decided, refusing
from tests.alerts.smtp import SmtpServer
from tests.factories import NAME, NUMBER, TOKEN, make_asset, make_passed_session, make_session

pytestmark = pytest.mark.django_db

THREE = "a@example.com\nb@example.com\nc@example.com"


@pytest.fixture
def errors(enable: Enable) -> AlertRule:
    return enable("upstream_errors", share_percent=20, minimum_count=10, window_minutes=30)


def only_message() -> tuple[EmailMultiAlternatives, str, str]:
    """The one message that was sent, its text and its HTML."""
    (message,) = mail.outbox
    assert isinstance(message, EmailMultiAlternatives)
    ((html, kind),) = message.alternatives
    assert kind == "text/html"
    return message, str(message.body), str(html)


class TestContent:
    def test_holds_headline_time_value_threshold_sample_causes_and_link(self, errors: AlertRule) -> None:
        calls(10, 15)
        evaluate()
        message, text, html = only_message()
        assert message.subject == "[warning][faceprint] 40% of the calls to Baidu fail"
        for body in (text, html):
            assert "40%" in body
            assert "2026-03-02 16:00 (Asia/Shanghai)" in body
            assert "20%" in body
            assert "10 of 25, at least 10 are needed" in body
            assert "30 minutes" in body
            assert "faceprint_doctor" in body
            assert "sandbox" in body
        alert = Alert.objects.get()
        assert f"http://testserver/admin/faceprint/alert/{alert.pk}/change/" in text
        assert f'href="http://testserver/admin/faceprint/alert/{alert.pk}/change/"' in html
        assert message.extra_headers["Auto-Submitted"] == "auto-generated"
        assert message.extra_headers["References"] == f"<faceprint-alert-{alert.pk}@testserver>"

    @pytest.mark.parametrize(
        ("condition", "title"),
        [
            ("evidence_at_risk", "Evidence of 2 sessions nears its deadline unarchived"),
            ("evidence_lost", "Evidence of 2 sessions was not archived in time"),
            ("attack", "100% of the verifications fail as under attack"),
            ("quota", "A quota is used up or not billed: 2 interfaces of Baidu refuse everything"),
        ],
    )
    def test_every_condition_has_its_words_and_nothing_personal(
        self, enable: Enable, clock: Any, condition: str, title: str
    ) -> None:
        enable(condition, minimum_count=2, severity="critical")
        if condition == "attack":
            made = [decided("failed", "223120", reference="order-4711") for _ in range(2)]
        elif condition == "quota":
            made = [make_passed_session(reference="order-4711")]
            refusing("result_detail", "18")
            refusing("result_media_query", "17")
        else:
            made = [make_passed_session(reference="order-4711") for _ in range(2)]
            assets = [make_asset(session, MediaAsset.Kind.VIDEO) for session in made]
            clock.set(assets[0].give_up_at if condition == "evidence_lost" else assets[0].deadline)
        evaluate()
        message, text, html = only_message()
        assert message.subject == f"[critical][faceprint] {title}"
        everything = f"{message.subject}{text}{html}{Alert.objects.get().facts}{message.message()}"
        for secret in (
            NAME,
            NUMBER,
            NUMBER[-4:],
            TOKEN,
            "order-4711",
            "sandbox-api-key",
            "sandbox-secret-key",
        ):
            assert secret not in everything
        for session in made:
            assert str(session.public_id) not in everything
            assert session.public_id.hex not in everything
        assert "<img" not in html
        assert all(isinstance(value, int | float) for value in Alert.objects.get().facts.values())

    def test_is_in_the_language_of_the_site(self, errors: AlertRule, settings: Any) -> None:
        settings.LANGUAGE_CODE = "zh-hans"
        calls(10, 0)
        with translation.override("en"):
            evaluate()
            assert translation.get_language() == "en"
        _, _, html = only_message()
        assert '<html lang="zh-hans">' in html

    def test_without_a_public_address_there_is_no_link(self, errors: AlertRule, settings: Any) -> None:
        settings.FACEPRINT = {**settings.FACEPRINT, "PUBLIC_URL": ""}
        calls(10, 0)
        evaluate()
        _, text, html = only_message()
        assert "http" not in text
        assert "href" not in html

    def test_the_end_of_an_alert_names_its_time_and_no_causes(self, errors: AlertRule, clock: Any) -> None:
        calls(10, 0)
        evaluate()
        clock.advance(hours=1)
        calls(0, 10)
        mail.outbox.clear()
        evaluate()
        message, text, _ = only_message()
        assert message.subject.startswith("[Recovered][faceprint]")
        assert "Until: 2026-03-02 17:00 (Asia/Shanghai)" in text
        assert "faceprint_doctor" not in text


class TestRecipients:
    def test_each_gets_a_message_of_their_own(self, enable: Enable, smtp: SmtpServer) -> None:
        enable("upstream_errors", minimum_count=10, recipients=f"{THREE}\n a@example.com ")
        calls(20, 0)
        assert evaluate().mails_sent == 1
        assert [item.recipients for item in smtp.delivered] == [[line] for line in THREE.split()]
        for item in smtp.delivered:
            others = {"a@example.com", "b@example.com", "c@example.com"} - set(item.recipients)
            assert not [other for other in others if other in item.message.as_string()]
            assert item.message["To"] == item.recipients[0]
            kinds = [part.get_content_type() for part in item.message.walk()]
            assert kinds == ["multipart/alternative", "text/plain", "text/html"]

    def test_without_recipients_it_waits_and_is_sent_later(self, enable: Enable) -> None:
        rule = enable("upstream_errors", minimum_count=10, recipients="")
        calls(20, 0)
        assert evaluate() == EvaluationReport(opened=1, open=1)
        alert = Alert.objects.get()
        assert (alert.mailed_at, alert.mail_error) == (None, "")
        AlertRule.objects.filter(pk=rule.pk).update(recipients="ops@example.com")
        assert evaluate().mails_sent == 1


class TestFailures:
    @pytest.fixture
    def rule(self, enable: Enable, smtp: SmtpServer) -> AlertRule:
        calls(20, 0)
        return enable("upstream_errors", minimum_count=10, recipients=THREE)

    def test_is_noted_and_tried_again_for_the_other_recipients(
        self, rule: AlertRule, smtp: SmtpServer, clock: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        smtp.replies = {"b@example.com": ""}
        with caplog.at_level(logging.WARNING):
            assert evaluate() == EvaluationReport(opened=1, open=1, mails_failed=1)
        alert = Alert.objects.get()
        assert alert.mailed_at is None
        assert alert.mail_error.startswith("SMTPServerDisconnected [")
        assert "example.com" not in alert.mail_error + caplog.text
        assert evaluate().mails_failed == 1

        clock.advance(minutes=1)
        smtp.replies = {}
        assert evaluate().mails_sent == 1
        told = Alert.objects.get()
        assert (told.mailed_at, told.mail_error) == (now(), "")
        assert smtp.reached == THREE.split()

    def test_an_address_that_is_refused_for_good_does_not_stop_the_others(
        self, rule: AlertRule, smtp: SmtpServer
    ) -> None:
        smtp.replies = {"a@example.com": "550 no such user here: a@example.com"}
        assert evaluate().mails_sent == 1
        alert = Alert.objects.get()
        assert (alert.mailed_at, alert.mail_error) == (now(), "SMTPRecipientsRefused 550")
        assert evaluate().mails_sent == 0
        assert smtp.reached == ["b@example.com", "c@example.com"]

    def test_an_address_that_is_put_off_gets_its_mail_later(self, rule: AlertRule, smtp: SmtpServer) -> None:
        smtp.replies = {"a@example.com": "450 greylisted"}
        assert evaluate().mails_failed == 1
        assert smtp.reached == ["b@example.com", "c@example.com"]
        smtp.replies = {}
        assert evaluate().mails_sent == 1
        assert smtp.reached == ["b@example.com", "c@example.com", "a@example.com"]

    def test_when_all_addresses_are_refused_the_mail_stays_due(
        self, rule: AlertRule, smtp: SmtpServer
    ) -> None:
        smtp.replies = dict.fromkeys(THREE.split(), "550 relaying denied")
        assert evaluate().mails_failed == 1
        smtp.replies = {}
        assert evaluate().mails_sent == 1
        assert smtp.reached == THREE.split()

    def test_the_note_fits_its_column_however_many_recipients_there_are(
        self, enable: Enable, smtp: SmtpServer
    ) -> None:
        calls(20, 0)
        everybody = [f"r{number}@example.com" for number in range(450)]
        enable("upstream_errors", minimum_count=10, recipients="\n".join(everybody))
        smtp.replies = {"r440@example.com": ""}
        assert evaluate().mails_failed == 1
        limit = Alert._meta.get_field("mail_error").max_length
        assert limit is not None
        assert len(Alert.objects.get().mail_error) <= limit
        assert len(smtp.delivered) == 440

    def test_a_changed_list_of_recipients_starts_anew(self, rule: AlertRule, smtp: SmtpServer) -> None:
        smtp.replies = {"b@example.com": ""}
        evaluate()
        AlertRule.objects.filter(pk=rule.pk).update(recipients="d@example.com\nc@example.com")
        evaluate()
        assert smtp.reached == ["a@example.com", "d@example.com", "c@example.com"]

    def test_an_alert_that_ended_before_its_mail_is_mailed_once(
        self, rule: AlertRule, smtp: SmtpServer, clock: Any
    ) -> None:
        smtp.replies = {"a@example.com": ""}
        evaluate()
        clock.advance(hours=1)
        calls(0, 10)
        report = evaluate()
        assert (report.resolved, report.mails_failed) == (1, 1)
        smtp.replies = {}
        assert evaluate().mails_sent == 1
        assert evaluate() == EvaluationReport()
        assert {item.message["Subject"] for item in smtp.delivered} == {
            "[warning][faceprint] 100% of the calls to Baidu fail"
        }
        text = smtp.delivered[0].message.get_body(("plain",))
        assert text is not None
        assert "Until:" in text.get_content()

    def test_old_news_is_not_sent(self, rule: AlertRule, smtp: SmtpServer, clock: Any) -> None:
        smtp.replies = {"a@example.com": ""}
        evaluate()
        clock.advance(hours=1)
        calls(0, 10)
        evaluate()
        clock.advance(hours=24)
        smtp.replies = {}
        assert evaluate() == EvaluationReport()
        assert smtp.reached == []


class TestClaims:
    """Two workers must not both send; one that died must not keep a mail from being sent."""

    @pytest.fixture
    def opened(self, errors: AlertRule, settings: Any) -> Alert:
        calls(10, 0)
        AlertRule.objects.update(recipients="")
        evaluate()
        AlertRule.objects.update(recipients="ops@example.com")
        return Alert.objects.select_related("rule").get()

    def test_a_mail_that_another_worker_is_sending_is_left_to_it(self, opened: Alert, clock: Any) -> None:
        Alert.objects.update(mail_error=f"sending since {now().isoformat()} [00000000:0]")
        clock.advance(alert_mail.CLAIM_LIFE - timedelta(seconds=1))
        assert send_due_mails() == (0, 0)
        clock.advance(seconds=1)
        assert send_due_mails() == (1, 0)
        assert len(mail.outbox) == 1

    def test_a_worker_that_comes_late_to_the_claim_sends_nothing(self, opened: Alert) -> None:
        others: list[tuple[int, int]] = []

        def let_another_worker_send_first(execute: Any, sql: str, *arguments: Any) -> Any:
            if sql.startswith("UPDATE") and not others:
                others.append((0, 0))
                others[0] = send_due_mails()
            return execute(sql, *arguments)

        with connection.execute_wrapper(let_another_worker_send_first):
            assert send_due_mails() == (0, 0)
        assert others == [(1, 0)]
        assert len(mail.outbox) == 1

    def test_a_claim_from_the_future_does_not_count(self, opened: Alert) -> None:
        ahead = (now() + timedelta(days=3)).isoformat()
        Alert.objects.update(mail_error=f"sending since {ahead} [00000000:0]")
        assert send_due_mails() == (1, 0)


class TestTestMail:
    def test_goes_to_everybody_at_once(self, enable: Enable, admin_user: Any) -> None:
        admin_user.username = "asked.by"
        rule = enable("attack", recipients=THREE)
        assert send_test_mail(rule, admin_user) == 3
        assert [message.to for message in mail.outbox] == [[line] for line in THREE.split()]
        assert mail.outbox[0].subject == "[Test][faceprint] many verifications fail (attack)"
        assert f"/admin/faceprint/alertrule/{rule.pk}/change/" in mail.outbox[0].body
        assert "asked.by" not in mail.outbox[0].body
        assert not Alert.objects.exists()

    def test_without_recipients(self, enable: Enable, admin_user: Any) -> None:
        rule = enable("attack", recipients="")
        with translation.override("en"), pytest.raises(AlertMailFailed, match="no recipients"):
            send_test_mail(rule, admin_user)

    def test_names_the_number_of_reached_recipients_and_no_address(
        self, enable: Enable, admin_user: Any, smtp: SmtpServer
    ) -> None:
        rule = enable("attack", recipients=THREE)
        smtp.replies = {"b@example.com": "550 no such user: b@example.com"}
        with translation.override("en"), pytest.raises(AlertMailFailed) as failure:
            send_test_mail(rule, admin_user)
        assert str(failure.value) == "2 of 3 recipients were reached: SMTPRecipientsRefused 550"
        assert failure.value.__cause__ is None
        assert failure.value.__context__ is None

    def test_no_server_at_all(self, enable: Enable, admin_user: Any, smtp: SmtpServer) -> None:
        rule = enable("attack")
        smtp.__exit__()
        with pytest.raises(AlertMailFailed, match="ConnectionRefusedError"):
            send_test_mail(rule, admin_user)


def test_no_subject_has_a_line_break(enable: Enable, clock: Any) -> None:
    enable("evidence_at_risk")
    make_session(age=timedelta(hours=23))
    evaluate()
    assert not re.search(r"[\r\n]", str(only_message()[0].subject))
