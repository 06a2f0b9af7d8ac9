"""The dashboard as an operator sees it: wide and narrow, light and dark, without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_faceprint.models import AlertRule
from django_faceprint.records.rollups import roll_up
from django_faceprint.records.statistics import record_heartbeat
from tests import factories
from tests.admin.dashboard_data import make_days

from .conftest import log_in

pytestmark = [pytest.mark.browser]
Screenshot = Callable[[Any, str], None]
PAGE = "/admin/faceprint/dashboard/"


@pytest.fixture
def days(transactional_db: None, clock: Any) -> None:
    """Three busy days, counted."""
    plan = factories.make_plan(name="开户实名认证")
    make_days(plan, sessions=900, calls=300)
    for number in range(3):
        session = factories.make_passed_session(plan=plan, reference=f"ORDER-{number}")
        factories.make_stored_asset(session, "face")
    AlertRule.objects.get(condition="attack").alerts.create(severity="critical")
    for name in ("tick", "alerts", "retain"):
        record_heartbeat(name)
    roll_up()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_the_dashboard_fits_and_loads_nothing_foreign(
    site: Any, days: None, screenshot: Screenshot, scheme: str, device: str, request: pytest.FixtureRequest
) -> None:
    page = request.getfixturevalue(device)
    page.emulate_media(color_scheme=scheme)
    log_in(page, site, "/admin/", "#content")
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    foreign: list[str] = []
    page.on("request", lambda sent: sent.url.startswith(site.url) or foreign.append(sent.url))
    page.goto(f"{site.url}{PAGE}")
    page.get_by_role("heading", name="通过率").wait_for()
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Nothing that a strict Content-Security-Policy would refuse.
    assert (
        page.evaluate("document.querySelectorAll('#content [style], #content style, #content script').length")
        == 0
    )
    assert (problems, foreign) == ([], [])
    screenshot(page, f"dashboard-{device}-{scheme}")
    page.get_by_role("link", name="7 天").click()
    page.wait_for_url("**range=7d*")
    assert page.get_by_role("link", name="7 天").get_attribute("aria-current") == "true"
    page.locator("summary").first.click()
    assert page.locator("details[open] tbody tr").count() == 28 + 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if scheme == "light":
        screenshot(page, f"dashboard-{device}-table")


def test_the_first_page_of_the_app_leads_to_the_dashboard(
    site: Any, days: None, desktop: Any, screenshot: Screenshot
) -> None:
    log_in(desktop, site, "/admin/", "#content")
    desktop.goto(f"{site.url}/admin/faceprint/")
    screenshot(desktop, "dashboard-first-page")
    desktop.locator(".fp-first-page a").first.click()
    desktop.get_by_role("heading", name="通过率").wait_for()
    assert desktop.url == f"{site.url}{PAGE}"


def test_nothing_counted_yet_is_said(
    site: Any, desktop: Any, transactional_db: None, screenshot: Screenshot
) -> None:
    log_in(desktop, site, "/admin/", "#content")
    desktop.goto(f"{site.url}{PAGE}")
    screenshot(desktop, "dashboard-empty")
    assert desktop.locator(".fp-dash-empty").count() == 1
