"""Downloads that go on after accidents: every byte once, of one and the same file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from django_faceprint.client import Downloader
from django_faceprint.client.download import MAX_RENEWALS, MAX_RESUMES, RESUME_PAUSES
from django_faceprint.exceptions import FaceprintError, Unreachable, UnsafeMedia, UrlExpired

from .certificates import Authority
from .server import Handler, Respond, RunningServer, Script, drip, reset
from .test_download import fixed, resolver

FILE = b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(20_000))
OTHER = FILE[:1000] + b"another" + FILE[1007:]
DATE = "Wed, 25 Nov 2026 00:00:00 GMT"


@dataclass
class File:
    """Serves a file as a storage does, with an accident after ``until`` bytes of each answer's body."""

    content: bytes = FILE
    etag: str | None = '"one"'
    date: str | None = DATE
    until: int | None = None
    #: What happens then: "cut" (the connection ends) or "reset".
    accident: str = "cut"
    ranges: bool = True
    chunked: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, handler: Handler) -> None:
        first = 0
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if asked and self.ranges and handler.headers.get("If-Range", self.etag) == self.etag:
            first = int(asked[1])
        if first >= len(self.content) > 0:
            handler.send_response(416)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = self.content[first:]
        handler.send_response(206 if first else 200)
        headers = {"Content-Type": "video/mp4", "ETag": self.etag, "Last-Modified": self.date}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(self.content) - 1}/{len(self.content)}"
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(len(body))
        for name, value in {**headers, **self.headers}.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        sent = body[: self.until]
        if self.chunked:
            pieces = [sent[start : start + 5000] for start in range(0, len(sent), 5000)]
            sent = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
            if self.until is None or self.until >= len(body):
                sent += b"0\r\n\r\n"
        handler.wfile.write(sent)
        if self.until is not None and self.until < len(body):
            handler.close_connection = True
            if self.accident == "reset":
                reset(handler)


class Clock:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@pytest.fixture
def media() -> Iterator[Script]:
    with RunningServer() as script:
        yield script


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def new_downloader(media: Script, clock: Clock) -> Iterator[Callable[..., Downloader]]:
    made: list[Downloader] = []

    def new(**options: Any) -> Downloader:
        defaults: dict[str, Any] = {
            "allowed_hosts": [f"127.0.0.1:{media.port}"],
            "allow_private": True,
            "timeout": (5.0, 5.0),
            "max_bytes": 4 * 1024 * 1024,
            "monotonic": clock,
            "sleep": clock.sleep,
        }
        downloader = Downloader(**{**defaults, **options})
        made.append(downloader)
        return downloader

    yield new
    for downloader in made:
        downloader.close()


@pytest.fixture
def downloader(new_downloader: Callable[..., Downloader]) -> Downloader:
    return new_downloader()


def read(downloader: Downloader, url: str, renew: Callable[[], str | None] | None = None) -> bytes:
    with downloader.download(url, renew=renew) as download:
        return b"".join(download.chunks())


def partly(downloader: Downloader, url: str, renew: Any = None) -> tuple[bytes, FaceprintError]:
    """What was yielded before the failure, and the failure."""
    received: list[bytes] = []
    with downloader.download(url, renew=renew) as download, pytest.raises(FaceprintError) as caught:
        received.extend(download.chunks())
    assert caught.value.__cause__ is None
    return b"".join(received), caught.value


def ranges(media: Script) -> list[tuple[str | None, str | None]]:
    return [(request.headers.get("range"), request.headers.get("if-range")) for request in media.requests]


def test_whole_file_in_one_answer(media: Script, downloader: Downloader) -> None:
    media.always("/a", File())
    for _ in range(2):
        with downloader.download(f"{media.url}/a") as download:
            assert (download.content_type, download.content_length) == ("video/mp4", len(FILE))
            assert download.plain_http
            assert b"".join(download.chunks()) == FILE
            with pytest.raises(RuntimeError):
                next(download.chunks())
    assert ranges(media) == [(None, None)] * 2
    assert repr(download) == f"Download(content_type='video/mp4', content_length={len(FILE)})"


@pytest.mark.parametrize("accident", ["cut", "reset"])
@pytest.mark.parametrize("until", [0, 1, 1000, 65_536, 262_143, 262_144, 262_145, 600_000, len(FILE) - 1])
def test_goes_on_where_it_was_interrupted(
    media: Script, downloader: Downloader, until: int, accident: str
) -> None:
    media.then("/a", File(until=until, accident=accident), File())

    assert read(downloader, f"{media.url}/a") == FILE

    again = ranges(media)[1]
    if accident == "cut":
        # All that arrived counts. (A reset may destroy what was on its way.)
        assert again == ((f"bytes={until}-", '"one"') if until else (None, None))
    elif again[0] is not None:
        assert int(again[0][6:-1]) <= until


def test_interrupted_again_and_again(media: Script, downloader: Downloader, clock: Clock) -> None:
    media.always("/a", File(until=len(FILE) // MAX_RESUMES))
    assert read(downloader, f"{media.url}/a") == FILE
    assert len(media.requests) == MAX_RESUMES
    assert clock.slept == []  # every attempt brought something


def test_attempts_are_counted(media: Script, downloader: Downloader, clock: Clock) -> None:
    media.always("/a", File(until=10))
    received, failure = partly(downloader, f"{media.url}/a")
    assert received == FILE[: 10 * (MAX_RESUMES + 1)]
    assert type(failure) is Unreachable
    assert "cut short" in str(failure)
    assert len(media.requests) == MAX_RESUMES + 1


def test_waits_longer_while_nothing_comes(media: Script, downloader: Downloader, clock: Clock) -> None:
    media.then("/a", File(until=1000), Respond(b"", 503), reset, Respond(b"", 500), Respond(b"", 503), File())
    assert read(downloader, f"{media.url}/a") == FILE
    assert clock.slept == [*RESUME_PAUSES[1:], RESUME_PAUSES[-1]]


def test_does_not_wait_beyond_the_total_time(
    media: Script, new_downloader: Callable[..., Downloader], clock: Clock
) -> None:
    media.then("/a", File(until=1000))
    media.always("/a", Respond(b"", 503))
    received, failure = partly(new_downloader(total_timeout=2.0), f"{media.url}/a")
    assert received == FILE[:1000]
    assert "503" in str(failure)
    assert clock.slept == [0.5, 1.0]


def test_a_silent_server_is_left(media: Script, new_downloader: Callable[..., Downloader]) -> None:
    def stall(handler: Handler) -> None:
        File(until=5000)(handler)
        handler.script.over.wait(10)

    media.then("/a", stall, File())
    assert read(new_downloader(timeout=(5.0, 0.2)), f"{media.url}/a") == FILE
    assert ranges(media)[1] == ("bytes=5000-", '"one"')


def test_dripping_ends_with_the_total_time(media: Script, new_downloader: Callable[..., Downloader]) -> None:
    # A clock that goes on by a second whenever it is asked: no number of drips keeps us longer.
    moments = iter(range(10_000))
    downloader = new_downloader(total_timeout=60.0, monotonic=lambda: float(next(moments)))
    head = b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nETag: "x"\r\n\r\n'
    media.always("/a", drip(head + b"12345"))
    received, failure = partly(downloader, f"{media.url}/a")
    assert received.startswith(b"12345")
    assert "time-out" in str(failure)
    assert next(moments) < 100


@pytest.mark.parametrize("chunked", [True, False])
def test_server_that_ignores_the_range(media: Script, downloader: Downloader, chunked: bool) -> None:
    for etag in ('"one"', None):
        media.then("/a", File(until=300_000, etag=etag), File(etag=etag, ranges=False, chunked=chunked))
        assert read(downloader, f"{media.url}/a") == FILE


def test_beginning_is_compared_where_nothing_names_the_file(media: Script, downloader: Downloader) -> None:
    anonymous = {"etag": None, "date": None}
    media.then("/a", File(until=300_000, **anonymous), File(until=7, **anonymous), File(**anonymous))
    assert read(downloader, f"{media.url}/a") == FILE
    assert ranges(media) == [(None, None)] * 3

    media.then("/a", File(until=300_000, **anonymous), File(OTHER, **anonymous))
    received, failure = partly(downloader, f"{media.url}/a")
    assert received == FILE[:300_000]
    assert "changed" in str(failure)


def test_file_without_a_length_is_compared(media: Script, downloader: Downloader) -> None:
    media.then("/a", File(until=100_000, etag=None, chunked=True), File(etag=None, chunked=True))
    assert read(downloader, f"{media.url}/a") == FILE
    media.then("/a", File(until=100_000, chunked=True), File(chunked=True))
    assert read(downloader, f"{media.url}/a") == FILE
    assert ranges(media)[1::2] == [(None, None), ("bytes=100000-", '"one"')]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (File(), File(OTHER, etag='"two"')),
        (File(), File(OTHER, etag='"two"', ranges=False)),
        (File(), File(etag=None)),
        (File(), File(etag='W/"one"', ranges=False)),
        (File(), File(FILE + b"more")),
        (File(), File(FILE[:-1])),
        (File(), File(FILE[:100])),
        (File(), File(FILE[:100], chunked=True)),
        (File(), File(FILE[:100], ranges=False, chunked=True)),
        (File(etag=None), File(FILE[:-1], etag=None)),
        (File(etag=None), File(etag=None, date="Wed, 25 Nov 2026 00:00:01 GMT")),
        (File(etag='W/"a"'), File(etag='W/"b"')),
        (File(etag=None, chunked=True), File(OTHER, etag=None, chunked=True)),
        (File(etag=None, date=None), File(OTHER, etag=None, date=None)),
        (File(etag=None, date=None), File(FILE[:-1], etag=None, date=None)),
    ],
)
def test_another_file_is_not_mixed_in(
    media: Script, downloader: Downloader, first: File, second: File
) -> None:
    first.until = 300_000
    media.then("/a", first, second)
    media.always("/a", second)
    received, failure = partly(downloader, f"{media.url}/a")
    assert received == FILE[:300_000]
    assert type(failure) is Unreachable
    assert "changed" in str(failure)


def test_wrong_range_is_an_accident_like_others(media: Script, downloader: Downloader) -> None:
    shifted = File(headers={"Content-Range": f"bytes 5-{len(FILE) - 1}/{len(FILE)}"})
    media.then("/a", File(until=1000), shifted, File())
    assert read(downloader, f"{media.url}/a") == FILE


def test_end_that_is_not_confirmed(media: Script, downloader: Downloader) -> None:
    # The whole file came, but not the word that this was all of it: asked for the rest, there is none.
    def unfinished(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("ETag", '"one"')
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(FILE), FILE))
        handler.close_connection = True

    media.then("/a", unfinished, File(), File())
    assert read(downloader, f"{media.url}/a") == FILE
    assert ranges(media) == [(None, None), (f"bytes={len(FILE)}-", '"one"'), (None, None)]


def test_limit_of_bytes_holds_for_all_attempts(
    media: Script, new_downloader: Callable[..., Downloader]
) -> None:
    media.then("/a", File(until=1000, chunked=True), File(chunked=True))
    received, failure = partly(new_downloader(max_bytes=2000), f"{media.url}/a")
    assert FILE.startswith(received)
    assert isinstance(failure, UnsafeMedia)
    assert failure.reason == "too_large"


def renewing(*urls: str | None) -> Callable[[], str | None]:
    answers = iter(urls)
    return lambda: next(answers)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_expired_at_the_start(media: Script, downloader: Downloader, status: int) -> None:
    media.always("/old", Respond(b"", status))
    media.always("/new", File())
    assert read(downloader, f"{media.url}/old", renewing(f"{media.url}/new")) == FILE
    assert read(downloader, f"{media.url}/old", renewing(f"{media.url}/old", f"{media.url}/new")) == FILE


def test_expired_in_mid_file(media: Script, downloader: Downloader, clock: Clock) -> None:
    media.then("/old", File(until=300_000), Respond(b"", 403))
    media.always("/new", File())
    assert read(downloader, f"{media.url}/old", renewing(f"{media.url}/new")) == FILE
    assert media.asked("/new")[0].headers["range"] == "bytes=300000-"
    assert clock.slept == []


def test_expired_for_good(media: Script, downloader: Downloader) -> None:
    media.then("/a", File(until=1000))
    media.always("/a", Respond(b"", 403))
    assert isinstance(partly(downloader, f"{media.url}/a")[1], UrlExpired)
    with pytest.raises(UrlExpired):
        downloader.download(f"{media.url}/a")
    with pytest.raises(UrlExpired):
        downloader.download(f"{media.url}/a", renew=renewing(None))
    before = len(media.requests)
    with pytest.raises(UrlExpired):
        downloader.download(f"{media.url}/a", renew=renewing(*[f"{media.url}/a"] * MAX_RENEWALS))
    assert len(media.requests) - before == MAX_RENEWALS + 1


def test_fresh_url_is_checked(media: Script, downloader: Downloader) -> None:
    media.then("/a", File(until=1000))
    media.always("/a", Respond(b"", 403))
    failure = partly(downloader, f"{media.url}/a", renewing("http://10.0.0.1/a"))[1]
    assert isinstance(failure, UnsafeMedia)
    assert failure.reason == "host"


def test_errors_of_the_renewal_pass_through(media: Script, downloader: Downloader) -> None:
    class Taken(Exception):
        pass

    def renew() -> str | None:
        raise Taken

    media.then("/a", File(until=1000))
    media.always("/a", Respond(b"", 403))
    with downloader.download(f"{media.url}/a", renew=renew) as download, pytest.raises(Taken):
        list(download.chunks())


def test_redirect_is_followed_again(media: Script, downloader: Downloader) -> None:
    media.always("/a", Respond(b"", 302, {"Location": "/b"}))
    media.then("/b", File(until=1000), File())
    assert read(downloader, f"{media.url}/a") == FILE
    assert [request.path for request in media.requests] == ["/a", "/b", "/a", "/b"]


def test_left_early(media: Script, downloader: Downloader) -> None:
    media.then("/a", File(), Respond(b"second"))
    with downloader.download(f"{media.url}/a") as download:
        next(download.chunks())
    assert read(downloader, f"{media.url}/a") == b"second"


def test_a_file_begun_over_tls_is_not_completed_without_it(
    tmp_path: Path, media: Script, new_downloader: Callable[..., Downloader], clock: Clock
) -> None:
    authority = Authority(tmp_path)
    ports: dict[str, int] = {"http": media.port}
    media.always("/a", File())
    with RunningServer(authority.server_context("bj.bcebos.com")) as secure:
        ports["https"] = secure.port

        def resolve(host: str, port: int, *rest: Any) -> Sequence[tuple[Any, ...]]:
            return resolver(**ports)(host, port, *rest)

        downloader = new_downloader(
            allowed_hosts=["*.bcebos.com"], resolver=resolve, ca_bundle=authority.bundle
        )
        secure.then("/a", File(until=1000))
        with downloader.download("http://bj.bcebos.com/a") as download:
            assert not download.plain_http
            del ports["https"]
            received: list[bytes] = []
            with pytest.raises(Unreachable, match="https"):
                received.extend(download.chunks())
    assert received == [FILE[:1000]]


def test_addresses_are_checked_on_the_way(media: Script, new_downloader: Callable[..., Downloader]) -> None:
    addresses = iter([resolver(http=media.port), fixed("0.0.0.0")])
    downloader = new_downloader(
        allowed_hosts=["*.bcebos.com:80"], resolver=lambda *asked: next(addresses)(*asked)
    )
    media.then("/a", File(until=1000))
    failure = partly(downloader, "http://bj.bcebos.com/a")[1]
    assert isinstance(failure, UnsafeMedia)
    assert failure.reason == "address"
