"""A host that is down is left alone, and found again."""

from __future__ import annotations

import pytest

from django_faceprint.alerts.rules import DEFAULTS
from django_faceprint.client import Breakers, Downloader, FaceprintClient
from django_faceprint.client.breaker import FAILURES_IN_A_ROW, MAX_PAUSE, Breaker
from django_faceprint.exceptions import HostDown, Unreachable, UrlExpired

from .conftest import VERIFY_TOKEN
from .server import Respond, RunningServer, reset, success, token

DETAIL = "/result/detail"


class Time:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def breaker(time: Time) -> Breaker:
    return Breaker("host.example", monotonic=time, jitter=lambda: 1.0)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        with breaker.attempt() as attempt:
            attempt.failed()


def answer(breaker: Breaker, status: int = 200) -> None:
    with breaker.attempt() as attempt:
        attempt.answered(status)


def test_failures_in_a_row_take_a_host_down(breaker: Breaker) -> None:
    fail(breaker, FAILURES_IN_A_ROW - 1)
    answer(breaker)
    fail(breaker, FAILURES_IN_A_ROW - 1)
    assert breaker.retry_after() is None
    answer(breaker, 503)
    assert breaker.retry_after() == 1.0
    with pytest.raises(HostDown) as refused, breaker.attempt():
        pytest.fail("no request is to be made")
    assert refused.value.retry_after == 1.0


def test_probes_are_sent_more_and_more_rarely_until_one_is_answered(breaker: Breaker, time: Time) -> None:
    fail(breaker, FAILURES_IN_A_ROW)
    pauses = []
    for _ in range(6):
        pauses.append(breaker.retry_after())
        time.seconds += breaker.retry_after() or 0
        assert breaker.retry_after() == 0
        fail(breaker)
    assert pauses == [1, 2, 4, 8, MAX_PAUSE, MAX_PAUSE]
    time.seconds += MAX_PAUSE
    answer(breaker, 404)
    assert breaker.retry_after() is None
    fail(breaker, FAILURES_IN_A_ROW)
    assert breaker.retry_after() == 1.0


def test_one_probe_at_a_time(breaker: Breaker, time: Time) -> None:
    fail(breaker, FAILURES_IN_A_ROW)
    time.seconds += 1
    with breaker.attempt() as probe:
        assert breaker.retry_after() == 1.0
        with pytest.raises(HostDown), breaker.attempt():
            pytest.fail("the probe is under way")
        probe.answered(200)
    assert breaker.retry_after() is None


def test_a_probe_that_was_never_sent_leaves_the_turn_to_the_next(breaker: Breaker, time: Time) -> None:
    fail(breaker, FAILURES_IN_A_ROW)
    time.seconds += 1
    with pytest.raises(KeyboardInterrupt), breaker.attempt():
        raise KeyboardInterrupt
    assert breaker.retry_after() == 0
    answer(breaker)
    assert breaker.retry_after() is None


def test_requests_sent_before_the_outage_say_nothing_of_the_probe(breaker: Breaker, time: Time) -> None:
    with breaker.attempt() as slow, breaker.attempt() as slower:
        fail(breaker, FAILURES_IN_A_ROW)
        slow.failed()
        time.seconds += 1
        assert breaker.retry_after() == 0
        answer(breaker)
        slower.failed()
    fail(breaker, FAILURES_IN_A_ROW - 1)
    assert breaker.retry_after() is None


def test_an_outage_still_makes_enough_calls_for_its_alert(breaker: Breaker, time: Time) -> None:
    rule = DEFAULTS["upstream_errors"]
    end = time.seconds + 60 * rule["window_minutes"]
    fail(breaker, FAILURES_IN_A_ROW)
    calls = 0
    while time.seconds < end:
        calls += 1
        time.seconds += breaker.retry_after() or 0
        fail(breaker)
    assert calls >= rule["minimum_count"]


def test_hosts_have_breakers_of_their_own() -> None:
    breakers = Breakers()
    fail(breakers.of("down.example", 443), FAILURES_IN_A_ROW)
    assert breakers.of("down.example", 443).retry_after() is not None
    assert breakers.of("down.example", 8443).retry_after() is None
    assert breakers.of("up.example", 443).retry_after() is None
    breakers.forget()
    assert breakers.of("down.example", 443).retry_after() is None


def test_a_client_does_not_ask_a_host_that_is_down() -> None:
    time = Time()
    breakers = Breakers(monotonic=time)
    with RunningServer() as server:
        server.always("/oauth/2.0/token", token())
        server.then(DETAIL, reset, Respond(b"<html>", 502), *[Respond(b"{}", 503)] * 3, success({}))
        held_back: list[str] = []
        with FaceprintClient(
            api_key="key",
            secret_key="secret",
            api_url=server.url,
            breakers=breakers,
            before_call=held_back.append,
        ) as client:
            for _ in range(FAILURES_IN_A_ROW):
                with pytest.raises(Unreachable):
                    client.result_detail(VERIFY_TOKEN)
            asked = len(held_back)
            with pytest.raises(HostDown) as refused:
                client.result_detail(VERIFY_TOKEN)
            assert 0 < refused.value.retry_after <= 1
            assert len(held_back) == asked, "no turn is taken for a request that is not sent"
            assert len(server.asked(DETAIL)) == FAILURES_IN_A_ROW
            time.seconds += 1
            assert client.result_detail(VERIFY_TOKEN).endpoint == "result_detail"
            assert breakers.of("127.0.0.1", server.port).retry_after() is None


def test_a_downloader_does_not_ask_a_host_that_is_down() -> None:
    time = Time()
    breakers = Breakers(monotonic=time)
    with RunningServer() as server:
        server.then("/a.jpg", *[reset] * FAILURES_IN_A_ROW, Respond(b"gone", 404), Respond(b"a picture"))
        url = f"{server.url}/a.jpg"
        with Downloader(
            allowed_hosts=[f"127.0.0.1:{server.port}"], allow_private=True, breakers=breakers
        ) as downloader:
            for _ in range(FAILURES_IN_A_ROW):
                with pytest.raises(Unreachable):
                    downloader.download(url)
            with pytest.raises(HostDown):
                downloader.download(url)
            assert len(server.asked("/a.jpg")) == FAILURES_IN_A_ROW
            time.seconds += 1
            with pytest.raises(UrlExpired):
                # An answer all the same: the host is back.
                downloader.download(url)
            with downloader.download(url) as body:
                assert b"".join(body.chunks()) == b"a picture"


def test_a_download_whose_host_goes_down_raises_host_down() -> None:
    breakers = Breakers(monotonic=Time())
    with RunningServer() as server:
        server.then("/a.mp4", Respond(b"half", length=8), *[Respond(b"", 503)] * FAILURES_IN_A_ROW)
        with (
            Downloader(
                allowed_hosts=[f"127.0.0.1:{server.port}"],
                allow_private=True,
                breakers=breakers,
                sleep=lambda seconds: None,
            ) as downloader,
            downloader.download(f"{server.url}/a.mp4") as body,
            pytest.raises(HostDown),
        ):
            list(body.chunks())
        assert len(server.asked("/a.mp4")) == 1 + FAILURES_IN_A_ROW
