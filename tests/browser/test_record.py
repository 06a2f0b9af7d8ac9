"""One record in the browser: pictures compared, videos faster and slower, from record to record."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from django_faceprint.models import AccessLog, VerificationSession
from tests import factories

Screenshot = Callable[[Any, str], None]
LIST = "/admin/faceprint/verificationsession/"


@pytest.fixture
def record(transactional_db: None) -> VerificationSession:
    """The middle one of three, with a face, a card, a match image and a film."""
    plan = factories.make_plan(plan_id="25001", name="开户实名认证")
    for reference, minutes in (("NEWER", 1), ("OLDER", 9)):
        factories.make_passed_session(plan=plan, reference=reference, age=timedelta(minutes=minutes))
    session = factories.make_passed_session(plan=plan, reference="THIS", age=timedelta(minutes=5))
    for kind, colour in (("face", "#7799bb"), ("id_front", "#bb9977"), ("match_image", "#77bb99")):
        factories.make_stored_asset(session, kind, factories.image_bytes(360, 480, colour))
    factories.make_stored_asset(session, "video")
    return session


@pytest.fixture
def page(site: Any, record: VerificationSession, desktop: Any) -> Any:
    get_user_model().objects.create_superuser("auditor", password="correct horse")
    desktop.goto(f"{site.url}/admin/login/?next={LIST}{record.pk}/change/")
    desktop.fill("#id_username", "auditor")
    desktop.fill("#id_password", "correct horse")
    desktop.press("#id_password", "Enter")
    desktop.wait_for_selector("#fp-show-media")
    return desktop


def zoom_of(page: Any) -> list[str]:
    return page.locator(".fp-viewer-pictures img").evaluate_all(
        "images => images.map(image => getComputedStyle(image).transform)"
    )


def test_pictures_are_compared_side_by_side(page: Any, screenshot: Screenshot) -> None:
    page.keyboard.press("c")
    assert not page.locator("#fp-viewer").is_visible()
    page.keyboard.press("o")
    page.wait_for_function("[...document.querySelectorAll('img[data-kind]')].every(i => i.naturalWidth)")
    looks = AccessLog.objects.filter(action="view_media").count()
    assert looks >= 3
    page.keyboard.press("c")
    page.wait_for_selector("#fp-viewer[open]")
    assert page.locator(".fp-viewer-pictures figcaption").all_inner_texts() == [
        "人脸图片",
        "身份证人像面",
        "对比图片",
    ]
    # Zoomed and moved together, by keys and by wheel.
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    first, *others = zoom_of(page)
    assert first == "matrix(1.5, 0, 0, 1.5, 40, 0)"
    assert others == [first, first]
    page.mouse.move(720, 500)
    page.mouse.wheel(0, -200)
    image = "document.querySelector('.fp-viewer-pictures img')"
    page.wait_for_function(f"getComputedStyle({image}).transform.startsWith('matrix(1.8')")
    page.keyboard.press("0")
    assert set(zoom_of(page)) == {"matrix(1, 0, 0, 1, 0, 0)"}
    screenshot(page, "console-compare")
    page.keyboard.press("Escape")
    page.wait_for_selector("#fp-viewer", state="hidden")
    # A click on one enlarges it alone, and is no further look.
    page.locator("img[data-kind=id_front]").click()
    page.wait_for_selector("#fp-viewer[open]")
    assert page.locator(".fp-viewer-pictures img").count() == 1
    page.get_by_role("button", name="关闭").click()
    assert AccessLog.objects.filter(action="view_media", asset_id=None).count() == 0


def test_a_video_plays_slower_and_faster(page: Any) -> None:
    assert not page.locator("#fp-speed").is_visible()
    page.get_by_role("button", name="显示图片和视频").click()
    for speed in ("0.25", "2"):
        page.select_option("#fp-speed", speed)
        assert page.evaluate("document.querySelector('video').playbackRate") == float(speed)


def test_from_record_to_record_by_keyboard(page: Any, site: Any) -> None:
    page.keyboard.press("n")
    page.get_by_role("heading", level=1).wait_for()
    page.wait_for_function("document.title.length && document.body.innerText.includes('OLDER')")
    assert page.locator("a[rel=next]").count() == 0
    page.keyboard.press("p")
    page.wait_for_function("document.body.innerText.includes('THIS')")
    page.keyboard.press("p")
    page.wait_for_function("document.body.innerText.includes('NEWER')")
    # Letters typed into a field lead nowhere.
    page.fill("#fp-words", "")
    page.focus("#fp-words")
    page.keyboard.type("npo")
    assert page.input_value("#fp-words") == "npo"
    assert "NEWER" in page.locator(".fp-crumbs").inner_text()
