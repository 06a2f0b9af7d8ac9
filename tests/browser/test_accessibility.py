"""axe over the console's pages: nothing serious, in light and dark, on desktop and phone."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model

from django_faceprint.models import Job, VerificationSession
from django_faceprint.services import jobs, rollups
from django_faceprint.services.access import Actor
from django_faceprint.services.selection import Selection
from tests import factories

LIST = "/admin/faceprint/verificationsession/"
SERIOUS = {"serious", "critical"}


@pytest.fixture
def record(transactional_db: None) -> VerificationSession:
    plan = factories.make_plan(plan_id="25001", name="开户实名认证")
    factories.make_session(
        plan=plan,
        reference="FAILED",
        verdict="failed",
        archive_state="complete",
        score=61.2,
        threshold=80.0,
        error_class="verification_failed",
        error_code="223120",
    )
    late = factories.make_passed_session(plan=plan, reference="LATE", archive_state="collecting")
    factories.make_asset(late, "video")
    session = factories.make_passed_session(plan=plan, reference="THIS", purpose="开户")
    for kind in ("face", "id_front", "video"):
        factories.make_stored_asset(session, kind)
    factories.make_call(session)
    rollups.roll_up()
    return session


def log_in(page: Any, site: Any) -> int:
    """Logs in; the key of a job of that user's."""
    user = get_user_model().objects.create_superuser("auditor", password="correct horse")
    page.goto(f"{site.url}/admin/login/?next={LIST}")
    page.fill("#id_username", "auditor")
    page.fill("#id_password", "correct horse")
    page.press("#id_password", "Enter")
    page.wait_for_selector("#result_list")
    return jobs.start("export_csv", Selection({}), actor=Actor("auditor", "admin", str(user.pk))).pk


def findings(page: Any) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    violations = axe.Axe().run(page).response["violations"]
    return [
        f"{page.url}: {one['id']}: {one['help']}: {one['nodes'][0]['html'][:160]}"
        for one in violations
        if one["impact"] in SERIOUS
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 375])
def test_no_page_of_the_console_has_a_serious_finding(
    site: Any, record: VerificationSession, chromium: Any, scheme: str, width: int
) -> None:
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, locale="zh-CN", color_scheme=scheme
    )
    try:
        page = context.new_page()
        job = log_in(page, site)
        found = findings(page)
        for path in (
            f"{LIST}?verdict=failed&score_max=70&order=score",
            f"{LIST}?verdict=expired",
            f"{LIST}?verdict=nonsense",
            f"{LIST}{record.pk}/change/",
            "/admin/faceprint/dashboard/",
            f"{LIST}erase-person/",
            "/admin/faceprint/job/",
            f"/admin/faceprint/job/{job}/change/",
        ):
            page.goto(f"{site.url}{path}")
            found += findings(page)
        # The record with everything open.
        page.goto(f"{site.url}{LIST}{record.pk}/change/")
        page.locator("#fp-show-media").click()
        page.wait_for_function("[...document.querySelectorAll('img[data-kind]')].every(i => i.naturalWidth)")
        found += findings(page)
        page.locator("#fp-compare").click()
        page.wait_for_selector("#fp-viewer[open]")
        found += findings(page)
        page.goto(f"{site.url}{LIST}")
        page.fill("#searchbar", factories.NUMBER)
        page.press("#searchbar", "Enter")
        page.get_by_text("找到 3 条记录").first.wait_for()
        found += findings(page)
        assert Job.objects.count() == 1
        assert found == []
    finally:
        context.close()
