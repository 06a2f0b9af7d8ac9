"""Finding a person, seeing who it is for a minute, and erasing: as an operator does it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from django_faceprint.models import AccessLog, ConsentRecord, Erasure, VerificationSession
from tests import factories

from .conftest import LIST, log_in

Screenshot = Callable[[Any, str], None]
CARD = {
    "name": factories.NAME,
    "number": factories.NUMBER,
    "gender": "男",
    "nation": "汉",
    "birthday": "19491231",
    "address": "浙江省杭州市西湖区文三路1号",
    "issue_authority": "杭州市公安局",
    "issue_time": "20200101",
    "expire_time": "长期",
}


@pytest.fixture
def records(transactional_db: None) -> VerificationSession:
    """Two records of one person, the newer one with everything."""
    factories.make_passed_session(reference="ORDER-0", verdict="failed")
    session = factories.make_passed_session(
        reference="ORDER-1",
        purpose="开户",
        plan=factories.make_plan(name="开户实名认证"),
        ocr=CARD,
        confirmed={"name": factories.NAME, "number": factories.NUMBER},
    )
    for kind in ("face", "id_front", "video"):
        factories.make_stored_asset(session, kind)
    ConsentRecord.objects.create(
        session_id=session.public_id,
        notice_version="3",
        channel="App",
        reference="合同 4711",
        is_separate=True,
    )
    return session


@pytest.fixture
def operator(site: Any, records: VerificationSession, desktop: Any) -> Any:
    """An operator's browser, logged in, whose clock the test moves."""
    desktop.clock.install()
    return log_in(desktop, site, "/admin/", "#content")


def test_an_identity_is_shown_for_a_reason_and_for_a_minute(
    site: Any, operator: Any, records: VerificationSession, screenshot: Screenshot
) -> None:
    operator.goto(f"{site.url}{LIST}{records.pk}/change/")
    assert factories.NUMBER not in operator.content()
    assert "西湖区" not in operator.content()
    operator.locator("#fp-identity").scroll_into_view_if_needed()
    # Without a reason the browser itself refuses.
    operator.get_by_role("button", name="显示 60 秒").click()
    assert not AccessLog.objects.filter(action="reveal").exists()
    operator.select_option("#fp-reason", "other")
    operator.get_by_role("button", name="显示 60 秒").click()
    operator.get_by_text("请补充简短说明，例如工单号。").wait_for()
    operator.select_option("#fp-reason", "complaint")
    operator.fill("#fp-reason-text", "工单 4711")
    screenshot(operator, "admin-reveal-form")
    # From here on time goes by only where the test says so, however long a screenshot takes.
    operator.clock.pause_at(datetime(2100, 1, 1, tzinfo=UTC))
    operator.get_by_role("button", name="显示 60 秒").click()
    operator.get_by_text("浙江省杭州市西湖区文三路1号").wait_for()
    assert operator.get_by_text(factories.NUMBER).count() == 3
    screenshot(operator, "admin-revealed")
    entry = AccessLog.objects.get(action="reveal")
    assert (entry.actor_name, entry.reason_code) == ("auditor", "complaint")

    operator.clock.fast_forward(59_000)
    assert operator.get_by_text(factories.NUMBER).count() == 3
    operator.clock.fast_forward(2_000)
    operator.get_by_text("西湖区").wait_for(state="detached")
    assert factories.NUMBER not in operator.content()
    assert factories.NAME not in operator.content()
    assert operator.locator("#fp-identity-state").inner_text() == "已脱敏"
    # Away and back: nothing in clear is behind the back button either.
    operator.get_by_role("button", name="显示 60 秒").click()
    operator.get_by_text("西湖区").wait_for()
    operator.goto(f"{site.url}{LIST}")
    operator.go_back()
    operator.wait_for_selector("#fp-identity")
    assert "西湖区" not in operator.content()


def test_a_person_is_found_and_chosen_among_several(
    site: Any, operator: Any, records: VerificationSession, screenshot: Screenshot
) -> None:
    operator.goto(f"{site.url}{LIST}")
    operator.fill("#searchbar", factories.NUMBER)
    operator.press("#searchbar", "Enter")
    operator.get_by_role("heading", name="找到 2 条记录").wait_for()
    assert factories.NUMBER not in operator.url
    assert factories.NUMBER not in operator.content()
    screenshot(operator, "admin-hits")
    operator.get_by_role("row", name="ORDER-1").get_by_role("link").click()
    operator.wait_for_selector("#fp-media")
    assert operator.url.endswith(f"/{records.pk}/change/")


def test_a_person_is_erased(
    site: Any, operator: Any, records: VerificationSession, screenshot: Screenshot
) -> None:
    operator.goto(f"{site.url}{LIST}")
    operator.get_by_role("link", name="删除某人的全部数据").click()
    operator.fill("#fp-number", factories.NUMBER)
    operator.get_by_role("button", name="预览将删除的内容").click()
    operator.get_by_role("heading", name="将要删除").wait_for()
    operator.fill("#fp-erase-reason", "本人来电要求删除")
    operator.fill("#fp-erase-count", "2")
    screenshot(operator, "admin-erase")
    operator.get_by_role("button", name="永久删除").click()
    operator.get_by_text("已删除，并已在存储中确认。").wait_for()
    screenshot(operator, "admin-erased")
    assert Erasure.objects.get().files == 3
    assert VerificationSession.objects.filter(erased_at=None).count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_record_is_usable_on_a_phone(
    site: Any, records: VerificationSession, phone: Any, screenshot: Screenshot, scheme: str
) -> None:
    phone.emulate_media(color_scheme=scheme)
    log_in(phone, site, "/admin/", "#content")
    phone.goto(f"{site.url}{LIST}{records.pk}/change/")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 375
    phone.select_option("#fp-reason", "audit")
    phone.locator("#fp-reveal button").click()
    phone.get_by_text("西湖区").wait_for()
    screenshot(phone, f"admin-record-phone-{scheme}")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 375
