"""A real Chromium against the real pages: the live server's and the sandbox's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model

# Without a network Chromium keeps trying to reach its maker; none of that belongs into a test.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]


LIST = "/admin/faceprint/verificationsession/"


def log_in(page: Any, site: Any, path: str = LIST, selector: str = "#result_list") -> Any:
    """A superuser "auditor" logs in and comes to *path*; the page, when *selector* is there."""
    get_user_model().objects.create_superuser("auditor", password="correct horse")
    page.goto(f"{site.url}/admin/login/?next={path}")
    page.fill("#id_username", "auditor")
    page.fill("#id_password", "correct horse")
    page.press("#id_password", "Enter")
    page.wait_for_selector(selector)
    return page


@pytest.fixture(scope="session")
def chromium(chromium_path: str) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is missing")
    # Playwright runs an event loop in this thread, in which Django would refuse to touch the database.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        with playwright.sync_playwright() as engine:
            browser = engine.chromium.launch(
                executable_path=chromium_path, args=FLAGS, chromium_sandbox=False
            )
            yield browser
            browser.close()
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def phone(chromium: Any) -> Iterator[Any]:
    """A page of a phone, in Chinese."""
    context = chromium.new_context(
        viewport={"width": 375, "height": 812}, device_scale_factor=2, locale="zh-CN", is_mobile=True
    )
    yield context.new_page()
    context.close()


@pytest.fixture
def desktop(chromium: Any) -> Iterator[Any]:
    """A page of an operator's screen, in Chinese."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, locale="zh-CN")
    yield context.new_page()
    context.close()


@pytest.fixture
def site(live_server: Any, sandbox: Any, settings: Any) -> Any:
    """The live server, told its own address."""
    settings.FACEPRINT = {**settings.FACEPRINT, "PUBLIC_URL": live_server.url}
    return live_server
