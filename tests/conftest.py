"""What all tests share: no network but this machine, no leftovers, no quiet skips where none is allowed."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from django_faceprint.testing import _faceprint_log_may_be_emptied  # noqa: F401  (a fixture)

# .ci/run sets it after it has installed what the tests can use: a skip is then a failure.
NO_SKIPS = os.environ.get("FACEPRINT_NO_SKIPS", "") not in ("", "0")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

_network_allowed = False


class NetworkRefused(OSError):
    """A test tried to reach another machine."""


def _refuse_foreign_connections(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect" or _network_allowed:
        return
    address = arguments[1]
    if not isinstance(address, tuple):
        return  # a Unix socket
    host = str(address[0]).partition("%")[0]
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise NetworkRefused(f"Tests may only connect to this machine, not to {host}.")


sys.addaudithook(_refuse_foreign_connections)


def pytest_addoption(parser: pytest.Parser) -> None:
    """--screenshots: where browser tests keep their pictures."""
    parser.addoption("--screenshots", metavar="DIR", help="keep the pictures of the browser tests in DIR")


def pytest_configure(config: pytest.Config) -> None:
    """Give tasks their application."""
    import tests.celery  # noqa: F401  (becomes the default application)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where no skip is allowed, a skipped test fails. Tests of the real Baidu are excepted."""
    report: Any = yield
    if item.get_closest_marker("live") is None:
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a module that skips itself as a whole."""
    report: Any = yield
    if "live" not in collector.path.parts:
        _refuse_skip(report)
    return report


def _refuse_skip(report: Any) -> None:
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"No skip is allowed here (FACEPRINT_NO_SKIPS): {reason}"


@pytest.fixture(autouse=True)
def _network(request: pytest.FixtureRequest) -> Iterator[None]:
    global _network_allowed
    _network_allowed = request.node.get_closest_marker("live") is not None
    yield
    _network_allowed = False


@pytest.fixture(autouse=True)
def _fresh_cache() -> Iterator[None]:
    from django.core.cache import cache

    yield
    cache.clear()


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Path of a Chromium with a Chinese font beside it; skips, by name, where either is missing."""
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        pytest.skip("Chromium is not installed (Debian: apt install chromium)")
    fonts = (
        subprocess.run(["fc-list", ":lang=zh"], capture_output=True, check=False)
        if shutil.which("fc-list")
        else None
    )
    if fonts is None or not fonts.stdout.strip():
        pytest.skip("no Chinese font is installed (Debian: apt install fontconfig fonts-noto-cjk)")
    return path


@pytest.fixture
def screenshot(request: pytest.FixtureRequest) -> Callable[[Any, str], None]:
    """``screenshot(page, "admin-list")`` keeps a picture when pytest was given --screenshots DIR."""
    folder = request.config.getoption("--screenshots")

    def take(page: Any, name: str) -> None:
        if not re.fullmatch(r"[a-z0-9-]+", name):
            raise ValueError("A screenshot's name has lower case letters, digits and hyphens.")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)

    return take


@pytest.fixture
def clock(settings: Any) -> Iterator[Any]:
    """A clock that stands still at 2026-03-02 08:00 UTC until the test moves it."""
    from tests.clock import START
    from tests.clock import clock as frozen

    frozen.set(START)
    settings.FACEPRINT = {**settings.FACEPRINT, "CLOCK": "tests.clock.now"}
    yield frozen
    frozen.set(START)


@pytest.fixture
def sandbox(settings: Any, clock: Any) -> Iterator[Any]:
    """A sandbox on a real socket, its clock the test's, and the settings pointing at it."""
    from django_faceprint.sandbox.clock import SandboxClock
    from django_faceprint.sandbox.server import SandboxServer

    with SandboxServer(clock=SandboxClock(base=clock), video_size=300_000, image_size=20_000) as server:
        settings.FACEPRINT = {
            **settings.FACEPRINT,
            "API_URL": server.url,
            "H5_URL": server.h5_url,
            "MEDIA_HOSTS": [server.url.removeprefix("http://")],
            "PUBLIC_URL": "http://testserver",
            "APPLICATIONS": {"default": {"API_KEY": "sandbox-api-key", "SECRET_KEY": "sandbox-secret-key"}},
        }
        yield server


@pytest.fixture
def plans(transactional_db: None, sandbox: Any) -> dict[str, Any]:
    """The sandbox's plans as rows, by plan ID. Real transactions: the engine refuses to work inside one."""
    from django_faceprint.devtools.sandbox_plans import copy_sandbox_plans

    return {plan.plan_id: plan for plan in copy_sandbox_plans()}


# Imported late: some tests load this module before Django is set up.


@pytest.fixture
def scenario(sandbox: Any, plans: dict[str, Any]) -> Any:
    """People, Baidu and the engine."""
    from tests.scenario import Scenario

    return Scenario(sandbox, plans)


@pytest.fixture
def assert_archived(scenario: Any) -> Callable[[Any], None]:
    """``assert_archived(session)``: all that Baidu holds of it is archived whole, and nothing twice."""
    from tests.scenario import assert_archived

    return partial(assert_archived, scenario)


@pytest.fixture
def failing(settings: Any, tmp_path: Path, clock: Any) -> Any:
    """``failing.broken = True`` makes the archive's storage refuse to delete."""
    from tests.scenario import FailingStorage, store_in

    FailingStorage.broken, FailingStorage.asked = False, []
    store_in(settings, tmp_path, FailingStorage)
    return FailingStorage
