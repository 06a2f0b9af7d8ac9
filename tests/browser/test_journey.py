"""H5 page → return → record in the admin → the video plays and seeks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model

from django_faceprint.client import Identity
from django_faceprint.engine.runner import collect_due
from django_faceprint.models import AccessLog, VerificationSession
from django_faceprint.verification import StartRequest, h5_url, return_token, start_session
from tests.factories import NUMBER

Screenshot = Callable[[Any, str], None]


def work() -> None:
    collect_due(budget=timedelta(seconds=60), monotonic=time.monotonic)


def start(plan_id: str) -> VerificationSession:
    identity = Identity.checked("张三", NUMBER, 0) if plan_id == "25001" else None
    return start_session(
        StartRequest(plan_id=plan_id, reference="ORDER-20261124-0001", purpose="开户", identity=identity)
    )


def test_a_person_passes_and_an_operator_sees_it(
    site: Any, plans: dict[str, Any], clock: Any, phone: Any, desktop: Any, screenshot: Screenshot
) -> None:
    session = start("25001")
    phone.goto(h5_url(session))
    screenshot(phone, "h5-consent")
    phone.get_by_label("我已阅读并同意上述授权声明").check()
    phone.get_by_role("button", name="同意并继续").click()
    screenshot(phone, "h5-liveness")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 375
    phone.get_by_role("button", name="通过", exact=True).click()

    # Back on our site: it waits, and says so, until the engine has looked.
    phone.wait_for_url(re.compile(re.escape(site.url)))
    screenshot(phone, "return-waiting")
    assert VerificationSession.objects.get().returned_at == clock()
    work()
    phone.get_by_text("已通过").wait_for(timeout=15_000)
    screenshot(phone, "return-passed")

    get_user_model().objects.create_superuser("admin", password="correct horse")
    desktop.goto(f"{site.url}/admin/")
    desktop.fill("#id_username", "admin")
    desktop.fill("#id_password", "correct horse")
    desktop.press("#id_password", "Enter")
    desktop.goto(f"{site.url}/admin/faceprint/verificationsession/")
    screenshot(desktop, "admin-list")
    desktop.get_by_text("ORDER-20261124-0001").click()
    desktop.wait_for_selector("#fp-media")
    assert NUMBER not in desktop.content()
    assert "张三" not in desktop.content()
    screenshot(desktop, "admin-record-covered")

    ranges: list[int] = []
    desktop.on("response", lambda reply: "/media/" in reply.url and ranges.append(reply.status))
    desktop.click("#fp-show-media")
    desktop.wait_for_function(
        "[...document.querySelectorAll('#fp-media img')].every(i => i.complete && i.naturalWidth > 0)"
    )
    play(desktop)
    assert 206 in ranges
    screenshot(desktop, "admin-record")
    assert AccessLog.objects.filter(action=AccessLog.Action.VIEW_MEDIA, actor_name="admin").exists()


def play(page: Any) -> None:
    """The video runs by itself once started, and jumps to where it is told."""
    video = "document.querySelector('#fp-media video')"
    page.wait_for_function(f"{video}.readyState >= 2")
    page.evaluate(f"(async () => {{ const v = {video}; v.muted = true; await v.play(); }})()")
    page.wait_for_function(f"{video}.currentTime > 0.5")
    page.evaluate(
        f"new Promise(done => {{ const v = {video}; v.pause();"
        " v.addEventListener('seeked', done, {once: true}); v.currentTime = 4.2; })"
    )
    assert abs(page.evaluate(f"{video}.currentTime") - 4.2) < 0.1
    assert page.evaluate(f"{video}.error") is None
    assert page.evaluate(f"{video}.videoWidth") == 320


def test_a_person_fails_and_is_told_in_plain_words(
    site: Any, plans: dict[str, Any], phone: Any, screenshot: Screenshot
) -> None:
    session = start("25003")
    phone.goto(h5_url(session))
    phone.get_by_label("我已阅读并同意上述授权声明").check()
    phone.get_by_role("button", name="同意并继续").click()
    screenshot(phone, "h5-card")
    phone.get_by_role("button", name="下一步").click()
    phone.get_by_role("button", name="未通过").click()
    phone.wait_for_url(re.compile(re.escape(site.url)))
    work()
    phone.get_by_text("未通过").wait_for(timeout=15_000)
    screenshot(phone, "return-failed")


def test_the_waiting_page_works_without_scripts(
    site: Any, plans: dict[str, Any], chromium: Any, screenshot: Screenshot
) -> None:
    session = start("25005")
    context = chromium.new_context(
        viewport={"width": 375, "height": 812}, java_script_enabled=False, locale="zh-CN"
    )
    page = context.new_page()
    page.goto(f"{site.url}/faceprint/return/{return_token(session)}/")
    assert page.locator("noscript, meta[http-equiv=refresh]").count()
    context.close()
