"""The way back from the H5 page: a hint for the engine, and something to look at for the person."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.staticfiles import finders
from django.db import connections
from django.test import Client

from django_faceprint.models import VerificationSession
from django_faceprint.tasks import collect
from django_faceprint.verification import return_token
from tests.factories import NUMBER
from tests.scenario import Scenario


@pytest.fixture
def browser() -> Client:
    """Somebody's phone: no login, English."""
    return Client(headers={"Accept-Language": "en"})


def way_back(session: VerificationSession) -> str:
    return f"/faceprint/return/{return_token(session)}/"


def standing(browser: Client, session: VerificationSession, query: str = "") -> dict[str, Any]:
    answer = browser.get(f"{way_back(session)}status/{query}")
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    return dict(answer.json())


def test_the_return_page_waits_and_then_shows_the_result(scenario: Scenario, browser: Client) -> None:
    session = scenario.start()
    done = scenario.control("POST", "finish", {"verify_token": session.verify_token, "outcome": "pass"})
    address = done["redirect"].removeprefix("http://testserver")
    assert address.partition("?")[0] == way_back(session)
    page = browser.get(address)
    assert page.status_code == 200
    assert "Confirming the result" in page.content.decode()
    assert scenario.fresh(session).status == "verifying"
    assert standing(browser, session) == {"done": False, "status": "verifying", "redirect": None}
    scenario.work()
    assert standing(browser, session) == {"done": True, "status": "passed", "redirect": None}
    assert "Verification passed" in browser.get(address).content.decode()


def test_the_page_is_safe_to_show(scenario: Scenario, browser: Client) -> None:
    session = scenario.start()
    answer = browser.get(way_back(session))
    page = answer.content.decode()
    assert answer["Referrer-Policy"] == "no-referrer"
    assert "no-store" in answer["Cache-Control"]
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Robots-Tag"] == "noindex, nofollow"
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)
    assert not re.search(r"\s(style|on[a-z]+)=", page)
    assert "https://" not in page
    for file in re.findall(r'"/static/([^"]+)"', page):
        assert finders.find(file), file
    assert re.search(r'<noscript><meta http-equiv="refresh" content="5; url=/faceprint/return/', page)
    assert '<html lang="en"' in page
    for secret in (NUMBER, "张三", "张*", str(session.verify_token), str(session.public_id)):
        assert secret not in page
    assert not answer.cookies


def test_the_page_speaks_the_browsers_language(scenario: Scenario) -> None:
    session = scenario.start()
    page = Client(headers={"Accept-Language": "zh-CN"}).get(way_back(session)).content.decode()
    assert '<html lang="zh-hans"' in page


def test_a_forged_link_finds_no_session(scenario: Scenario, browser: Client) -> None:
    session = scenario.start()
    forged = way_back(session)[:-2] + "x/"
    for address in (forged, f"/faceprint/return/{session.public_id}/", f"/faceprint/return/{'x' * 500}/"):
        answer = browser.get(address)
        assert answer.status_code == 404
        assert "This link is not valid" in answer.content.decode()
        assert browser.get(f"{address}status/").status_code == 404
    assert scenario.fresh(session).returned_at is None


def test_only_the_first_return_counts(scenario: Scenario, browser: Client, clock: Any) -> None:
    session = scenario.start()
    browser.get(way_back(session))
    first = scenario.fresh(session).returned_at
    assert first == clock()
    clock.advance(minutes=1)
    browser.get(way_back(session))
    assert scenario.fresh(session).returned_at == first


def test_head_and_status_change_nothing(scenario: Scenario, browser: Client) -> None:
    session = scenario.start()
    before = scenario.fresh(session)
    assert browser.head(way_back(session)).status_code == 200
    standing(browser, session)
    after = scenario.fresh(session)
    assert (after.returned_at, after.wake_at, after.priority_at) == (None, before.wake_at, None)
    assert browser.post(way_back(session)).status_code == 405


def test_reloading_requests_a_recheck_only_once_per_interval(
    scenario: Scenario, browser: Client, clock: Any
) -> None:
    session = scenario.start()
    asked = []
    for _ in range(6):
        browser.get(way_back(session))
        asked.append(scenario.work().sessions)
        clock.advance(seconds=1)
    assert asked[0] == 1
    browser.get(way_back(session))
    assert scenario.fresh(session).priority_at is None
    clock.advance(seconds=10)
    browser.get(way_back(session))
    assert scenario.fresh(session).priority_at is not None


def test_reloading_while_no_worker_runs_does_not_fill_the_broker(
    scenario: Scenario, browser: Client, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = scenario.start()
    sent: list[int] = []
    monkeypatch.setattr(collect, "apply_async", lambda args, **_: sent.append(*args))
    for _ in range(5):
        assert browser.get(way_back(session)).status_code == 200
        clock.advance(seconds=30)
    assert sent == [session.pk]
    assert scenario.fresh(session).priority_at is not None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://shop.example.com/done", "https://shop.example.com/done?faceprint_session={id}"),
        (
            "https://shop.example.com/done?order=1&x=%2F#part",
            "https://shop.example.com/done?order=1&x=%2F&faceprint_session={id}#part",
        ),
        ("https://shop.example.com/done?", "https://shop.example.com/done?faceprint_session={id}"),
    ],
)
@pytest.mark.parametrize("outcome", ["pass", "fail"])
def test_the_person_is_sent_on_to_the_host_whatever_the_result(
    scenario: Scenario, browser: Client, given: str, expected: str, outcome: str
) -> None:
    session = scenario.start(return_url=given)
    scenario.finish(session, outcome)
    assert browser.get(way_back(session)).status_code == 200
    assert standing(browser, session)["redirect"] is None
    scenario.work()
    target = expected.format(id=session.public_id)
    assert standing(browser, session)["redirect"] == target
    answer = browser.get(way_back(session))
    assert (answer.status_code, answer["Location"]) == (302, target)
    assert answer["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        ("passed", "Verification passed"),
        ("failed", "Verification not passed"),
        ("expired", "This verification has ended"),
        ("unknown", "This verification has ended"),
    ],
)
def test_every_final_status_has_a_text(scenario: Scenario, browser: Client, verdict: str, text: str) -> None:
    session = scenario.start()
    VerificationSession.objects.filter(pk=session.pk).update(verdict=verdict)
    page = browser.get(way_back(session)).content.decode()
    assert text in page
    assert "<script" not in page
    assert 'http-equiv="refresh"' not in page


def test_a_failed_attempt_that_may_be_repeated_does_not_keep_the_person_waiting(
    scenario: Scenario, browser: Client, clock: Any
) -> None:
    plan = next(plan for plan in scenario.plans.values() if not plan.closes_on_failure)
    session = scenario.start(plan.plan_id)
    scenario.finish(session, "fail")
    first = browser.get(way_back(session)).content.decode()
    again = re.search(r'data-again-url="([^"]+)"', first)
    assert again is not None
    scenario.work()
    assert scenario.fresh(session).verdict == "pending"
    query = "?" + urlsplit(again[1]).query
    assert standing(browser, session, query)["status"] == "not_passed_yet"
    assert "Not passed this time" in browser.get(again[1]).content.decode()
    # The next attempt is waited for, not answered with the result of the one before.
    clock.advance(minutes=5)
    scenario.finish(session, "pass")
    second = browser.get(way_back(session)).content.decode()
    assert "Confirming the result" in second
    again = re.search(r'data-again-url="([^"]+)"', second)
    assert again is not None
    assert standing(browser, session, "?" + urlsplit(again[1]).query)["done"] is False
    scenario.work()
    assert standing(browser, session)["status"] == "passed"


@pytest.mark.parametrize("since", ["", "x", "-1", "9" * 10, "9" * 40, "１２"])
def test_a_strange_since_is_harmless(scenario: Scenario, browser: Client, since: str) -> None:
    session = scenario.start()
    assert browser.get(way_back(session), {"since": since}).status_code == 200
    assert standing(browser, session, f"?since={since}")["done"] is False


def test_no_transaction_and_no_login_stand_in_the_way(
    scenario: Scenario, browser: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    session = scenario.start()
    assert browser.get(way_back(session)).status_code == 200
    assert standing(browser, session)["done"] is False
    assert scenario.fresh(session).returned_at is not None


def test_a_link_is_not_logged(
    scenario: Scenario, browser: Client, caplog: pytest.LogCaptureFixture, clock: Any
) -> None:
    caplog.set_level("DEBUG")
    session = scenario.start()
    scenario.finish(session)
    browser.get(way_back(session))
    clock.advance(timedelta(seconds=30))
    scenario.work()
    browser.get(way_back(session))
    for secret in (NUMBER, "张三", str(session.verify_token)):
        assert secret not in caplog.text
