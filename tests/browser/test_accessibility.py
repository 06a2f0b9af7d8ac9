"""The pages of the console, and those without login, before axe: nothing serious; light, dark, phone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from django_faceprint.audit.access import Actor
from django_faceprint.jobs import jobs
from django_faceprint.models import AlertRule, VerificationSession
from django_faceprint.records import rollups
from django_faceprint.records.filters import Selection
from django_faceprint.verification import return_token
from tests import factories

from .conftest import LIST, log_in
from .test_record import open_record, records, show_media  # noqa: F401  (records: a fixture)

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing")

GRAVE = ("serious", "critical")
#: Of Django's own admin: before 6.1 its trail tells links from text by a shade only, and its search field has
#: no visible label. The console's own pages have a list and a label instead.
NOT_OURS = {"exclude": [["div.breadcrumbs"], ["#toolbar:not(.fp-lookup)"]]}


def check(page: Any, name: str) -> None:
    """Asserts that axe finds nothing serious or critical on *page*."""
    found = axe.Axe().run(page, context=NOT_OURS).response
    # A page that was not looked at has passed nothing.
    assert len(found["passes"]) > 5, name
    grave = [
        f"{name}: {one['id']} {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in GRAVE
        for node in one["nodes"]
    ]
    assert not grave, "\n".join(grave)


@pytest.fixture(params=[("light", 1280), ("dark", 1280), ("light", 375)], ids=str)
def page(request: pytest.FixtureRequest, chromium: Any) -> Iterator[Any]:
    """A page of a screen or of a phone, in Chinese."""
    scheme, width = request.param
    context = chromium.new_context(
        viewport={"width": width, "height": 800},
        locale="zh-CN",
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    yield context.new_page()
    context.close()


@pytest.mark.usefixtures("records")
def test_the_list_and_what_it_leads_to(site: Any, page: Any) -> None:
    log_in(page, site)
    check(page, "list")
    page.locator("#fp-filters summary").first.click()
    check(page, "list with all filters")
    page.goto(f"{site.url}{LIST}?reference=NONE")
    check(page, "empty list")
    page.goto(f"{site.url}{LIST}?status=nonsense")
    check(page, "list that was not understood")
    page.goto(f"{site.url}{LIST}")
    page.fill("#searchbar", factories.NUMBER)
    page.press("#searchbar", "Enter")
    page.wait_for_selector("h1:has-text('找到 3 条记录')")
    check(page, "hits")
    page.goto(f"{site.url}{LIST}")
    page.locator("input.action-select").first.check()
    page.select_option("select[name=action]", "export")
    page.locator("button[name=index]").click()
    page.wait_for_selector(".fp-record, .fp-card")
    check(page, "export")


def test_the_record(site: Any, page: Any, records: list[VerificationSession]) -> None:  # noqa: F811
    log_in(page, site)
    for session in records:
        open_record(page, site, session)
        check(page, f"record {session.reference}")
    open_record(page, site, records[1])
    show_media(page)
    page.locator("a.fp-answer").click()
    page.wait_for_selector(".fp-answer-text")
    check(page, "record with media and answer")
    page.keyboard.press("c")
    page.wait_for_selector("#fp-viewer[open]")
    check(page, "comparison")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.wait_for_selector("#fp-keys[open]")
    check(page, "keys")
    answer = records[1].answers.get()
    page.goto(f"{site.url}{LIST}{records[1].pk}/answer/{answer.pk}/")
    check(page, "answer")


def test_erasing(site: Any, page: Any, records: list[VerificationSession]) -> None:  # noqa: F811
    log_in(page, site)
    page.goto(f"{site.url}{LIST}erase-person/")
    check(page, "erase")
    page.fill("#fp-number", factories.NUMBER)
    page.get_by_role("button", name="预览将删除的内容").click()
    page.get_by_role("heading", name="将要删除").wait_for()
    check(page, "preview")


@pytest.mark.usefixtures("records")
def test_the_other_pages(site: Any, page: Any) -> None:
    log_in(page, site)
    rollups.roll_up()
    user = get_user_model().objects.get()
    job = jobs.create("export_csv", Selection({}), actor=Actor("auditor", "admin", str(user.pk)))
    rule = AlertRule.objects.get(condition="attack")
    for address in (
        *("", "dashboard/", "job/", f"job/{job.pk}/change/", "alertrule/", f"alertrule/{rule.pk}/change/"),
        *("accesslog/", "upstreamcall/"),
    ):
        page.goto(f"{site.url}/admin/faceprint/{address}")
        check(page, address or "the app's page")


def test_pages_without_login(site: Any, page: Any, records: list[VerificationSession]) -> None:  # noqa: F811
    for session in records:
        page.goto(f"{site.url}/faceprint/return/{return_token(session)}/")
        check(page, f"return of {session.reference}")
    page.goto(f"{site.url}/faceprint/return/unknown/")
    check(page, "unknown return")
    assert get_user_model().objects.count() == 0
