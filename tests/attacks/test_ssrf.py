"""Baidu's answers, or whoever poses as Baidu, name addresses of our network: none of them is asked."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from django_faceprint.client import Downloader
from django_faceprint.exceptions import Unreachable, UnsafeMedia
from django_faceprint.models import MediaAsset
from tests.client.server import Respond, RunningServer, Script
from tests.scenario import Scenario

State = MediaAsset.State


@pytest.fixture
def inner() -> Iterator[Script]:
    """A service of the inside, such as a metadata server: whoever reaches it has won."""
    with RunningServer() as server:
        yield server


@pytest.fixture
def accomplice() -> Iterator[Script]:
    """A host from which media may be fetched, in the hands of an attacker."""
    with RunningServer() as server:
        yield server


FORMS = [
    "127.0.0.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "localhost",
    "LOCALHOST.",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "127.0.0.1.nip.io",
    "user@127.0.0.1",
    "brain.baidu.com@127.0.0.1",
    "0",
    "①②⑦.⓪.⓪.①",
]


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_an_inner_address_is_asked(scenario: Scenario, inner: Script, form: str) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault("result_media_query", "foreign_url", url=f"http://{form}:{inner.port}")
    session = scenario.back(session)
    assert not inner.requests
    refused = session.assets.filter(source="result_media_query")
    assert {asset.state for asset in refused} == {State.WANTED}
    # What is no URL at all is an answer that cannot be read, and said on the session.
    unreadable = session.error_code == "unreadable_result"
    assert {asset.error_class for asset in refused} == {"" if unreadable else "unsafe_media"}
    # It is not given up either: the next answer may be honest.
    assert session.has_outstanding_work


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("form", ["127.0.0.1", "[::1]", "2130706433", "localhost"])
def test_no_redirect_leads_inside(
    scenario: Scenario, settings: Any, inner: Script, accomplice: Script, form: str, status: int
) -> None:
    hosts = [*settings.FACEPRINT["MEDIA_HOSTS"], f"127.0.0.1:{accomplice.port}"]
    settings.FACEPRINT = settings.FACEPRINT | {"MEDIA_HOSTS": hosts}
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault("result_media_query", "foreign_url", url=accomplice.url)
    accomplice.always("", Respond(b"", status, {"Location": f"http://{form}:{inner.port}/latest/meta-data/"}))
    session = scenario.back(session)
    assert accomplice.requests
    assert not inner.requests
    refused = session.assets.filter(source="result_media_query")
    assert {(asset.error_class, asset.error_detail) for asset in refused} == {("unsafe_media", "host")}


def test_a_name_that_changes_its_address_gains_nothing(inner: Script) -> None:
    """DNS rebinding: what was checked is what is connected to, and no connection is made without a check."""
    answers = iter(["93.184.216.34", "127.0.0.1"])
    given: list[str] = []

    def rebinding(host: str, port: int, *_: object) -> list[tuple[Any, ...]]:
        given.append(next(answers))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (given[-1], inner.port))]

    downloader = Downloader(
        allowed_hosts=["*.bcebos.com"],
        allow_private=False,
        resolver=rebinding,
        timeout=(0.5, 0.5),
        total_timeout=2.0,
    )
    # The suite lets nobody connect to another machine, so the first, public address is unreachable.
    with pytest.raises(Unreachable):
        downloader.fetch("https://rebind.bcebos.com/x")
    assert given == ["93.184.216.34"]
    with pytest.raises(UnsafeMedia, match="address"):
        downloader.fetch("https://rebind.bcebos.com/x")
    assert not inner.requests
    downloader.close()


def test_no_token_and_no_cookie_goes_to_a_media_host(
    scenario: Scenario, settings: Any, accomplice: Script
) -> None:
    hosts = [*settings.FACEPRINT["MEDIA_HOSTS"], f"127.0.0.1:{accomplice.port}"]
    settings.FACEPRINT = settings.FACEPRINT | {"MEDIA_HOSTS": hosts}
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault("result_media_query", "foreign_url", url=accomplice.url)
    accomplice.always("", Respond(b"", 404, {"Set-Cookie": "a=b"}))
    scenario.back(session)
    assert accomplice.requests
    for request in accomplice.requests:
        names = {name.lower() for name in request.headers}
        assert not names & {"authorization", "cookie", "referer"}
        assert "access_token" not in str(request.headers) + request.path


def test_an_error_of_a_refused_address_does_not_repeat_it(scenario: Scenario, inner: Script) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault("result_media_query", "foreign_url", url=f"http://canary-of-the-inside:{inner.port}")
    session = scenario.back(session)
    assert all("canary" not in asset.error_class + asset.error_detail for asset in session.assets.all())
