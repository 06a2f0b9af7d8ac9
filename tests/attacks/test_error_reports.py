"""Reports of errors, which Django mails to the site's administrators with the variables of each frame."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.contrib.auth import get_user_model
from django.test import Client, RequestFactory
from django.urls import reverse
from django.views.debug import ExceptionReporter
from urllib3.connection import HTTPConnection

from django_faceprint.client import Identity, MatchImage
from django_faceprint.engine.runner import collect_due
from django_faceprint.evidence.erasure import sessions_of_person
from django_faceprint.maintenance.rotation import rotate_keys
from django_faceprint.models import VerificationSession
from django_faceprint.verification import (
    Adoption,
    StartRequest,
    adopt,
    record_return,
    register_session,
    start_session,
    submit_identity,
    upload_match_image,
)
from tests import factories
from tests.scenario import Scenario

NAME, NUMBER = "欧阳朔月", "440308199901015331"


class Unforeseen(Exception):
    """What no code of ours expects."""


def fail(*args: Any, **kwargs: Any) -> Any:
    raise Unforeseen


@pytest.fixture
def report(settings: Any, rf: RequestFactory) -> Callable[[Callable[[], Any]], str]:
    """What Django would tell of the error that a call ends with, as a page and as a mail."""

    def make(call: Callable[[], Any]) -> str:
        settings.DEBUG = True
        try:
            call()
        except Unforeseen:
            error = sys.exc_info()
        else:
            pytest.fail("nothing went wrong")
        settings.DEBUG = False
        reporter = ExceptionReporter(rf.get("/"), *error)
        html = reporter.get_traceback_html()
        assert "Unforeseen" in html
        # The frames are there, and their variables are named.
        assert "sensitive_variables_wrapper" in html or "********************" in html
        return html + reporter.get_traceback_text()

    return make


def assert_silent(text: str, *more: str | None) -> None:
    secrets = [NAME, NUMBER, factories.NAME, factories.NUMBER, "sandbox-secret-key", *more]
    assert [secret for secret in secrets if secret and secret in text] == []


def identity() -> Identity:
    return Identity.checked(NAME, NUMBER, 0)


def test_a_failed_start_is_reported_without_secrets(
    scenario: Scenario, report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.start("25001")  # the access token is there
    monkeypatch.setattr(HTTPConnection, "request", fail)
    request = StartRequest(plan_id="25001", identity=identity())
    for call in (start_session, register_session):
        if call is register_session:
            monkeypatch.setattr(AESGCM, "encrypt", fail)
            monkeypatch.setattr(VerificationSession, "save", fail)
        assert_silent(report(lambda call=call: call(request)))


def test_a_failed_submission_is_reported_without_secrets(
    scenario: Scenario, report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = start_session(StartRequest(plan_id="25001"))
    matched = start_session(StartRequest(plan_id="25003"))
    token = waiting.verify_token
    monkeypatch.setattr(HTTPConnection, "request", fail)
    assert_silent(report(lambda: submit_identity(waiting, identity())), token)
    if matched.plan.needs_match_image:
        image = MatchImage.checked(factories.image_bytes())
        assert_silent(report(lambda: upload_match_image(matched, image)), matched.verify_token)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_failed_run_is_reported_without_secrets(
    scenario: Scenario, report: Any, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    record_return(session)
    monkeypatch.setattr("django_faceprint.engine.steps.perform_visit", fail)
    monkeypatch.setattr("django_faceprint.engine.steps.log_unexpected", fail)
    ticks = iter(range(10_000))

    def work() -> None:
        collect_due(
            budget=timedelta(seconds=60), monotonic=lambda: float(next(ticks)), concurrency=concurrency
        )

    assert_silent(report(work), session.verify_token)


def test_failures_of_adopting_erasing_and_rotating_are_reported_without_secrets(
    scenario: Scenario, report: Any, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    session = scenario.start("25001")
    token = "faceprintTokenOfAnotherSystem0123456789"
    monkeypatch.setattr(VerificationSession, "save", fail)
    assert_silent(report(partial(adopt, Adoption(verify_token=token, plan_id="25001"))), token)
    monkeypatch.setattr("django_faceprint.evidence.erasure.blind_index_candidates", fail)
    assert_silent(report(lambda: sessions_of_person(NUMBER)))
    monkeypatch.setattr(AESGCM, "decrypt", fail)
    keys = settings.FACEPRINT["ENCRYPTION_KEYS"]
    settings.FACEPRINT = settings.FACEPRINT | {
        "ENCRYPTION_KEYS": ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", *keys]
    }
    assert_silent(report(lambda: rotate_keys()), session.verify_token, *keys)


@pytest.mark.django_db
def test_failed_pages_of_the_admin_are_reported_without_secrets(
    report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = factories.make_passed_session()
    browser = Client()
    browser.force_login(get_user_model().objects.create_superuser("root"))
    monkeypatch.setattr("django_faceprint.admin.presentation.masked", fail)
    monkeypatch.setattr("django_faceprint.admin.record.Record.__init__", fail)
    record = "admin:faceprint_verificationsession"
    token = VerificationSession.objects.get().verify_token
    for page in (reverse(f"{record}_changelist"), reverse(f"{record}_change", args=[session.pk])):
        assert_silent(report(lambda page=page: browser.get(page)), token)


def test_settings_in_a_report_hold_no_key(report: Any, settings: Any) -> None:
    text = report(lambda: fail_in_wrapper())
    settings_shown = [*settings.FACEPRINT["ENCRYPTION_KEYS"], *settings.FACEPRINT["INDEX_KEYS"]]
    assert settings_shown
    assert_silent(text, *settings_shown, settings.SECRET_KEY)


def fail_in_wrapper() -> None:
    from django.views.decorators.debug import sensitive_variables

    sensitive_variables()(fail)()
