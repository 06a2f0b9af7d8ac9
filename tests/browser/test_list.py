"""The record list as an operator works with it: keyboard, filters, lookup, pages; desktop and phone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_faceprint.clock import now
from tests import factories

from .conftest import LIST, log_in

Screenshot = Callable[[Any, str], None]


@pytest.fixture
def records(transactional_db: None) -> None:
    """Fifty-three records: one about to be lost, some failed, the others passed."""
    plan = factories.make_plan(plan_id="25001", name="开户实名认证")
    for number in range(50):
        factories.make_passed_session(
            plan=plan,
            reference=f"ORDER-{number:03}",
            purpose="开户",
            score=80.0 + number / 3,
            retain_until=now() + timedelta(days=180),
            age=timedelta(minutes=10 + number),
        )
    factories.make_session(
        plan=plan,
        reference="ORDER-900",
        purpose="开户",
        verdict="failed",
        archive_state="complete",
        score=61.2,
        threshold=80.0,
        error_class="verification_failed",
        error_code="223120",
        identity_name="欧阳朔月",
        identity_number="440308199901015331",
        age=timedelta(minutes=3),
    )
    late = factories.make_passed_session(
        plan=plan,
        reference="ORDER-901",
        purpose="开户",
        archive_state="collecting",
        age=timedelta(hours=19, minutes=30),
        next_deadline=now() + timedelta(hours=5),
    )
    factories.make_asset(late, "video")
    face = factories.make_passed_session(plan=plan, reference="ORDER-902", purpose="开户")
    factories.make_stored_asset(face, "face")


def references(page: Any) -> list[str]:
    return [text.split("\n")[0] for text in page.locator(".fp-reference").all_inner_texts()]


def test_an_operator_finds_what_needs_action(
    site: Any, records: None, desktop: Any, screenshot: Screenshot
) -> None:
    page = log_in(desktop, site)
    screenshot(page, "list-desktop")
    assert len(references(page)) == 50
    # A filter applies as soon as it is chosen, and only what is asked for is in the address.
    page.select_option("#fp-filter-left", "6h")
    page.wait_for_url("**?left=6h")
    assert references(page) == ["ORDER-901"]
    assert page.locator("#result_list .fp-urgent").inner_text().startswith("剩余 ")
    screenshot(page, "console-list-urgent")
    page.get_by_title("移除此条件").click()
    page.wait_for_selector("#result_list tbody tr:nth-child(50)")
    page.get_by_text("更多筛选").click()
    page.fill("#fp-filter-score_max", "70")
    page.press("#fp-filter-score_max", "Enter")
    page.wait_for_url("**?score_max=70")
    assert references(page) == ["ORDER-900"]
    screenshot(page, "console-list-filtered")


@pytest.mark.parametrize("language", ["zh-CN", "en"])
def test_every_column_is_on_the_screen_of_a_laptop(
    site: Any, records: None, chromium: Any, screenshot: Screenshot, language: str
) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, locale=language)
    page = log_in(context.new_page(), site)
    screenshot(page, f"list-laptop-{language.lower()}")
    room, table = page.evaluate(
        """() => { const box = document.querySelector("#result_list").parentElement;
                   return [box.clientWidth, box.scrollWidth]; }"""
    )
    assert table <= room
    last = page.locator("#result_list thead th").last.bounding_box()
    assert last["x"] + last["width"] <= 1280
    context.close()


def test_pages_and_heads(site: Any, records: None, desktop: Any) -> None:
    page = log_in(desktop, site)
    first = references(page)
    page.get_by_role("link", name="下一页").click()
    page.wait_for_selector("a[rel=prev]")
    assert len(references(page)) == 3
    assert not set(first) & set(references(page))
    page.get_by_role("link", name="上一页").click()
    page.wait_for_selector("a[rel=next]")
    assert references(page) == first
    page.get_by_role("link", name="比对分").click()
    page.wait_for_url("**?order=score")
    assert references(page)[0] == "ORDER-900"
    assert page.locator("th[aria-sort=ascending]").count() == 1


def test_the_list_by_keyboard(site: Any, records: None, desktop: Any) -> None:
    page = log_in(desktop, site)
    for key in "jjjk":
        page.keyboard.press(key)
    assert page.locator("#result_list tbody tr.fp-current .fp-reference").inner_text() == references(page)[1]
    page.keyboard.press("x")
    assert page.locator("input.action-select:checked").count() == 1
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "searchbar"
    # Letters typed there are letters.
    page.keyboard.type("jk/")
    assert page.input_value("#searchbar") == "jk/"
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/change/**")


def test_a_pasted_list_is_looked_for_at_once(
    site: Any, records: None, desktop: Any, screenshot: Screenshot
) -> None:
    page = log_in(desktop, site)
    page.fill("#searchbar", "ORDER-003\nNOT-THERE\n４４０３０８１９９９０１０１５３３１")
    assert int(page.get_attribute("#searchbar", "rows") or 0) == 3
    page.press("#searchbar", "Enter")
    page.get_by_text("第 2 行没有匹配的记录").wait_for()
    assert page.get_by_text("ORDER-003").count() == 1
    assert page.get_by_text("ORDER-900").count() == 1
    assert "440308199901015331" not in page.content()
    screenshot(page, "console-hits")


def test_the_list_on_a_phone(site: Any, records: None, phone: Any, screenshot: Screenshot) -> None:
    page = log_in(phone, site)
    screenshot(page, "list-phone")
    # Nothing sticks out to the side.
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    row = page.locator("#result_list tbody tr").first
    for column in ("status", "archive", "created", "person", "reference", "score"):
        box = row.locator(f".field-{column}_column").bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 375
    row.locator("a").first.click()
    page.wait_for_url("**/change/**")
    page.goto(f"{site.url}{LIST}?score_max=81")
    screenshot(page, "console-list-phone")
