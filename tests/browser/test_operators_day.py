"""An operator's day: five errands, with the clicks, the fields and the seconds that each of them takes.

Seconds are those of the browser and the pages, without reading and typing; they are written down with
``--screenshots``, and not asserted on.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_faceprint.bundle_check import main as check_bundle
from django_faceprint.models import AccessLog, Erasure, VerificationSession
from tests import factories

from .conftest import log_in

Screenshot = Callable[[Any, str], None]
NUMBER = "440308199901015331"


class Operator:
    """A browser whose clicks and filled fields are counted."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.clicks = self.fields = 0
        self._began = time.monotonic()

    def click(self, target: Any) -> None:
        self.clicks += 1
        target.click()

    def fill(self, selector: str, text: str) -> None:
        """A field that is typed into; Enter counts with it."""
        self.fields += 1
        self.page.fill(selector, text)

    def choose(self, selector: str, value: str) -> None:
        self.clicks += 1
        self.page.select_option(selector, value)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, float]]:
    return {}


@pytest.fixture
def operator(site: Any, records: VerificationSession, desktop: Any) -> Operator:
    return Operator(log_in(desktop, site))


@pytest.fixture(autouse=True)
def written_down(
    request: pytest.FixtureRequest, operator: Operator, told: dict[str, dict[str, float]]
) -> Iterator[None]:
    yield
    told[request.node.name] = {
        "clicks": operator.clicks,
        "fields": operator.fields,
        "seconds": round(operator.seconds, 1),
    }
    folder = request.config.getoption("--screenshots")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, "operators-day.json").write_text(json.dumps(told, indent=2), encoding="utf-8")


@pytest.fixture
def records(transactional_db: None) -> VerificationSession:
    """A hundred records of others, and two of one person, one of which failed."""
    plan = factories.make_plan(plan_id="25001", name="开户实名认证")
    for number in range(100):
        factories.make_passed_session(
            plan=plan, reference=f"ORDER-{number:03}", purpose="开户", age=timedelta(minutes=10 + number)
        )
    late = factories.make_passed_session(
        plan=plan, reference="LATE-1", archive_state="collecting", age=timedelta(hours=20)
    )
    factories.make_asset(late, "video")
    person = {"identity_name": "欧阳朔月", "identity_number": NUMBER, "plan": plan}
    factories.make_session(
        reference="ORDER-900",
        verdict="failed",
        archive_state="complete",
        score=61.25,
        threshold=80.0,
        error_class="verification_failed",
        error_code="223120",
        age=timedelta(days=2),
        **person,
    )
    session = factories.make_passed_session(reference="ORDER-901", age=timedelta(hours=3), **person)
    for kind in ("face", "id_front", "video"):
        factories.make_stored_asset(session, kind)
    return session


def test_find_a_person_by_id_number(operator: Operator, screenshot: Screenshot) -> None:
    page = operator.page
    operator.fill("#searchbar", NUMBER)
    page.press("#searchbar", "Enter")
    page.get_by_text("找到 2 条记录").first.wait_for()
    operator.click(page.get_by_role("row", name="ORDER-901").get_by_role("link"))
    page.wait_for_selector("#fp-media")
    assert NUMBER not in page.url
    screenshot(page, "console-record")
    assert (operator.clicks, operator.fields) == (1, 1)


def test_explain_a_failure(operator: Operator, screenshot: Screenshot) -> None:
    page = operator.page
    operator.choose("#fp-filter-status", "failed")
    page.wait_for_url("**?status=failed")
    # The list says it already; the record says it with the threshold.
    assert "活体检测未通过" in page.locator("#result_list").inner_text()
    operator.click(page.locator(".fp-reference").first)
    page.wait_for_selector("h1")
    assert "61.25 < 方案 25001 的阈值 80" in page.locator(".fp-record h1").inner_text()
    screenshot(page, "console-failure")
    assert (operator.clicks, operator.fields) == (2, 0)


def test_see_what_will_be_lost_today(operator: Operator, screenshot: Screenshot) -> None:
    page = operator.page
    operator.choose("#fp-filter-left", "24h")
    page.wait_for_url("**?left=24h")
    assert page.locator(".fp-reference").all_inner_texts() == ["LATE-1"]
    assert page.locator("#result_list .fp-urgent").inner_text().startswith("剩余 ")
    screenshot(page, "console-lost-today")
    assert (operator.clicks, operator.fields) == (1, 0)


def test_hand_an_auditor_the_evidence(
    operator: Operator, records: VerificationSession, tmp_path: Path, screenshot: Screenshot
) -> None:
    page = operator.page
    operator.fill("#searchbar", "ORDER-901")
    page.press("#searchbar", "Enter")
    page.wait_for_selector("#fp-bundle")
    operator.click(page.get_by_role("button", name="生成证据包"))
    page.wait_for_selector(".fp-job")
    screenshot(page, "console-bundle")
    with page.expect_download() as caught:
        operator.click(page.get_by_role("link", name="下载"))
    path = tmp_path / "bundle.zip"
    caught.value.save_as(path)
    assert caught.value.suggested_filename.endswith(".zip")
    with zipfile.ZipFile(path) as archive:
        assert str(records.public_id) in archive.read("record.json").decode()
    # The auditor has neither database nor secret, only the file.
    assert check_bundle([str(path)]) == 2
    assert AccessLog.objects.filter(action="download_export").count() == 1
    assert (operator.clicks, operator.fields) == (2, 1)


def test_erase_a_person(operator: Operator, screenshot: Screenshot) -> None:
    page = operator.page
    operator.click(page.get_by_role("link", name="删除某人的全部数据"))
    operator.fill("#fp-number", NUMBER)
    page.press("#fp-number", "Enter")
    page.wait_for_selector("#fp-erase-count")
    screenshot(page, "console-erase")
    operator.fill("#fp-erase-reason", "本人申请")
    operator.fill("#fp-erase-count", "2")
    operator.click(page.get_by_role("button", name="永久删除"))
    page.get_by_text("已在存储中确认").first.wait_for()
    assert Erasure.objects.get().verified_at
    assert VerificationSession.objects.exclude(erased_at=None).count() == 2
    assert (operator.clicks, operator.fields) == (2, 3)
