"""The daily mail: once a day, to everybody, about nobody."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection

from django_faceprint import tasks
from django_faceprint.alerts import daily
from django_faceprint.alerts.daily import send_daily_mail
from django_faceprint.audit.chain import add_links, head
from django_faceprint.clock import now
from django_faceprint.models import AccessLog, AlertRule, Heartbeat
from tests import factories
from tests.alerts.conftest import Enable

pytestmark = pytest.mark.django_db

#: Eight in the morning in Shanghai.
EIGHT = datetime(2026, 3, 3, 0, 0, tzinfo=UTC)


@pytest.fixture
def rule(enable: Enable, clock: Any) -> AlertRule:
    """One rule with two recipients; the mail went out the day before."""
    Heartbeat.objects.create(name=daily.NAME, at=EIGHT - timedelta(hours=23))
    return enable("evidence_lost", recipients="ops@example.com\nofficer@example.com")


def test_it_goes_out_once_a_day_when_it_is_time(rule: AlertRule, clock: Any) -> None:
    clock.set(EIGHT - timedelta(seconds=1))
    assert not send_daily_mail()
    clock.set(EIGHT)
    assert send_daily_mail()
    assert not send_daily_mail()
    clock.set(EIGHT + timedelta(hours=23, minutes=59))
    assert not send_daily_mail()
    clock.set(EIGHT + timedelta(days=1))
    assert send_daily_mail()
    reached = sorted(message.to[0] for message in mail.outbox)
    assert reached == [*["officer@example.com"] * 2, *["ops@example.com"] * 2]


def test_the_mail_holds_the_events_of_the_day_and_the_head(rule: AlertRule, clock: Any) -> None:
    clock.set(EIGHT - timedelta(hours=5))
    session = factories.make_passed_session()
    factories.make_session(verdict="failed")
    for action in ("view_record", "view_record", "reveal", "erase"):
        AccessLog.objects.create(
            actor_id="7", actor_name="wang", action=action, channel="admin", session_id=session.public_id
        )
    factories.make_session(verdict="passed", age=timedelta(days=3))
    add_links()
    clock.set(EIGHT)
    tasks.alerts()
    message = mail.outbox[-1]
    text = message.body
    assert message.subject == "[faceprint] Daily report of 2026-03-02"
    for line in (
        "Verification sessions: 2",
        "passed: 1",
        "failed: 1",
        "Access log: viewed record: 2",
        "Access log: revealed identity: 1",
        "Access log: erased record: 1",
        "Not archived in time: 0",
        f"Head of the access log: {head()}",
    ):
        assert line in text, line
    whole = str(message.message()) + text
    for secret in (factories.NAME, factories.NUMBER, "wang", str(session.public_id)):
        assert secret not in whole


def test_no_mail_is_sent_about_the_first_day(enable: Enable, clock: Any) -> None:
    enable("evidence_lost")
    clock.set(EIGHT + timedelta(hours=1))
    assert not send_daily_mail()
    clock.set(EIGHT + timedelta(days=1))
    assert send_daily_mail()


def test_without_recipients_there_is_none(rule: AlertRule, clock: Any) -> None:
    AlertRule.objects.update(recipients="")
    clock.set(EIGHT)
    assert not send_daily_mail()
    assert mail.outbox == []


def test_a_mail_that_the_server_refused_is_sent_at_the_next_call(
    rule: AlertRule, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.core.mail import EmailMultiAlternatives

    def fail(self: Any, *args: Any, **kwargs: Any) -> int:
        raise OSError("no route to mail.internal")

    clock.set(EIGHT)
    with monkeypatch.context() as patched:
        patched.setattr(EmailMultiAlternatives, "send", fail)
        assert not send_daily_mail()
    clock.advance(minutes=1)
    assert send_daily_mail()
    assert Heartbeat.objects.get(name=daily.NAME).at == now()


@pytest.mark.django_db(transaction=True)
def test_of_two_workers_one_sends_it(rule: AlertRule, clock: Any) -> None:
    clock.set(EIGHT)
    ready = threading.Barrier(2)
    sent: list[bool] = []

    def work() -> None:
        ready.wait()
        try:
            sent.append(send_daily_mail())
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sent) == [False, True]
