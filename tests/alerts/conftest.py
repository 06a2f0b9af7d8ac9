"""Rules with recipients, rows that make conditions true, and a mail server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import django
import pytest

from django_faceprint.clock import now
from django_faceprint.models import AlertRule, RateLimitBucket, VerificationAttempt, VerificationSession
from tests.alerts.smtp import SmtpServer
from tests.factories import make_call, make_session

Enable = Callable[..., AlertRule]


@pytest.fixture
def enable(db: None, clock: Any, settings: Any) -> Enable:
    """``enable("attack", ...)``: that rule alone is on, with one recipient; the site speaks English."""
    settings.LANGUAGE_CODE = "en"
    AlertRule.objects.update(enabled=False)

    def change(condition: str, **values: Any) -> AlertRule:
        rule = AlertRule.objects.get(condition=condition)
        for name, value in ({"enabled": True, "recipients": "ops@example.com"} | values).items():
            setattr(rule, name, value)
        rule.full_clean()
        rule.save()
        return rule

    return change


@pytest.fixture
def smtp(settings: Any) -> Iterator[SmtpServer]:
    """A real mail server, and the settings pointing at it."""
    with SmtpServer() as server:
        backend = "django.core.mail.backends.smtp.EmailBackend"
        options = {"host": "127.0.0.1", "port": server.port, "timeout": 10}
        if django.VERSION >= (6, 1):
            settings.MAILERS = {"default": {"BACKEND": backend, "OPTIONS": options}}
        else:
            settings.EMAIL_BACKEND = backend
            settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
            settings.EMAIL_TIMEOUT = 10
        yield server


def calls(failed: int, fine: int, **values: Any) -> None:
    """So many recorded calls to Baidu."""
    for _ in range(failed):
        make_call(outcome="transport", **values)
    for _ in range(fine):
        make_call(**values)


def attempts(session: VerificationSession, *codes: str, **values: Any) -> None:
    """One attempt per code under *session*; "0" is a pass."""
    for order, code in enumerate(codes, start=1):
        VerificationAttempt.objects.create(
            session=session, order=order, passed=code == "0", code=code, **values
        )


def decided(verdict: str, *codes: str, **values: Any) -> VerificationSession:
    """A session that was decided just now, with attempts as Baidu listed them."""
    from django_faceprint.clock import now

    session = make_session(verdict=verdict, decided_at=values.pop("decided_at", now()), **values)
    attempts(session, *codes)
    return session


def refusing(endpoint: str, code: str, minutes: int = 6, **values: Any) -> RateLimitBucket:
    """An interface that has answered nothing but *code* for so many minutes."""
    given = {"account": "default", "throttled": 5, "throttled_at": now()} | values
    return RateLimitBucket.objects.create(
        endpoint=endpoint, throttled_code=code, throttled_since=now() - timedelta(minutes=minutes), **given
    )
