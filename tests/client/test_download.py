"""Downloads: which URLs, which addresses, and only whole bodies."""

from __future__ import annotations

import base64
import logging
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_faceprint.client import Downloader, MediaBody
from django_faceprint.client.connections import is_public_address, is_unicast_address
from django_faceprint.exceptions import FaceprintConfigurationError, Unreachable, UnsafeMedia, UrlExpired

from .certificates import Authority
from .server import Handler, Respond, RunningServer, Script, drip, hang, reset

BAIDU = ["brain.baidu.com", "*.bcebos.com"]
VIDEO = bytes(range(256)) * 2048
MP4 = {"Content-Type": "Video/MP4; charset=binary"}


@pytest.fixture
def media() -> Iterator[Script]:
    """A media host without an access token in sight."""
    with RunningServer() as script:
        yield script


@pytest.fixture
def new_downloader(media: Script) -> Iterator[Callable[..., Downloader]]:
    made: list[Downloader] = []

    def new(**options: Any) -> Downloader:
        defaults: dict[str, Any] = {
            "allowed_hosts": [f"127.0.0.1:{media.port}"],
            "allow_private": True,
            "timeout": (0.5, 0.5),
            "total_timeout": 2.0,
            "max_bytes": 1024 * 1024,
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


def read(downloader: Downloader, url: str, **options: Any) -> bytes:
    with downloader.fetch(url, **options) as body:
        return b"".join(body.chunks())


def refused(downloader: Downloader, url: str) -> str:
    with pytest.raises(UnsafeMedia) as caught:
        downloader.fetch(url)
    return caught.value.reason


def test_download(media: Script, downloader: Downloader) -> None:
    media.then("/v.mp4", Respond(VIDEO, headers=MP4))

    with downloader.fetch(f"{media.url}/v.mp4?authorization=a%2Fb") as body:
        chunks = list(body.chunks())

    assert b"".join(chunks) == VIDEO
    assert {len(chunk) for chunk in chunks} == {256 * 1024}
    assert all(type(chunk) is bytes for chunk in chunks)
    assert (body.content_type, body.content_length) == ("video/mp4", len(VIDEO))
    assert (body.resumed, body.plain_http) == (False, True)
    (request,) = media.requests
    assert request.method == "GET"
    assert request.target == "/v.mp4?authorization=a%2Fb"
    assert request.headers["accept-encoding"] == "identity"
    assert not {"authorization", "cookie", "range", "referer"} & set(request.headers)


def test_chunked_body_without_length(media: Script, downloader: Downloader) -> None:
    body = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    media.then("/a", Respond(body, headers={"Transfer-Encoding": "chunked"}))

    with downloader.fetch(f"{media.url}/a") as opened:
        assert opened.content_length is None
        assert b"".join(opened.chunks()) == b"hello world"


def test_empty_body(media: Script, downloader: Downloader) -> None:
    media.then("/a", Respond(b""))
    assert read(downloader, f"{media.url}/a") == b""


def test_a_file_after_an_empty_one_is_whole(media: Script, downloader: Downloader) -> None:
    media.then("/a", Respond(b"first"), Respond(b""), Respond(b"third"))
    contents = []
    for _ in range(3):
        with downloader.download(f"{media.url}/a") as body:
            contents.append(b"".join(body.chunks()))
    assert contents == [b"first", b"", b"third"]


@pytest.mark.parametrize(
    "claimed", ["", "x", "text", "text/ht\x01ml", "a/" + "b" * 100, "image/jpeg, text/html"]
)
def test_malformed_content_types_are_empty(media: Script, downloader: Downloader, claimed: str) -> None:
    media.then("/a", Respond(b"x", headers={"Content-Type": claimed}))
    with downloader.fetch(f"{media.url}/a") as body:
        assert body.content_type == ""


def test_connections_are_kept(media: Script, downloader: Downloader) -> None:
    ports: list[int] = []

    def step(handler: Handler) -> None:
        ports.append(handler.client_address[1])
        Respond(VIDEO)(handler)

    media.always("/a", step)
    for _ in range(3):
        read(downloader, f"{media.url}/a")

    assert len(set(ports)) == 1


def test_connection_left_early_is_not_used_again(media: Script, downloader: Downloader) -> None:
    media.then("/a", Respond(VIDEO), Respond(b"second"))

    with downloader.fetch(f"{media.url}/a") as body:
        next(body.chunks())

    assert read(downloader, f"{media.url}/a") == b"second"


def test_body_is_read_once(media: Script, downloader: Downloader) -> None:
    media.then("/a", Respond(b"x"))
    with downloader.fetch(f"{media.url}/a") as body:
        list(body.chunks())
        with pytest.raises(RuntimeError):
            list(body.chunks())


def test_memory_stays_flat(media: Script, new_downloader: Callable[..., Downloader]) -> None:
    size = 24 * 1024 * 1024
    piece = b"\0" * (1024 * 1024)

    def step(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        for _ in range(size // len(piece)):
            handler.wfile.write(piece)

    media.then("/a", step)
    downloader = new_downloader(max_bytes=size, total_timeout=30.0)
    tracemalloc.start()
    try:
        with downloader.fetch(f"{media.url}/a") as body:
            assert sum(len(chunk) for chunk in body.chunks()) == size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_expired_url(media: Script, downloader: Downloader, status: int) -> None:
    media.then("/a", Respond(b"<Error/>", status))
    with pytest.raises(UrlExpired, match=str(status)):
        downloader.fetch(f"{media.url}/a")


@pytest.mark.parametrize("status", [201, 204, 304, 405, 408, 416, 429, 451, 500, 502, 503])
def test_other_statuses_are_tried_again(media: Script, downloader: Downloader, status: int) -> None:
    media.then("/a", Respond(b"", status))
    with pytest.raises(Unreachable) as caught:
        downloader.fetch(f"{media.url}/a")
    assert not isinstance(caught.value, UrlExpired)


@pytest.mark.parametrize(
    "step",
    [
        reset,
        drip(b""),
        drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n"),
        drip(b"HTTP/1.1 200 OK\r\n\r\n"),
        Respond(b"cut", length=1000),
        Respond(b"ffff\r\ncut", headers={"Transfer-Encoding": "chunked"}),
        Respond(b"zz\r\n", headers={"Transfer-Encoding": "chunked"}),
        Respond(b"x", headers={"Content-Length": "1, 2"}),
    ],
    ids=["reset", "status", "header", "body", "chunk", "endless", "cut", "cut chunk", "bad chunk", "lengths"],
)
def test_broken_and_dripping_bodies_end(
    media: Script, new_downloader: Callable[..., Downloader], step: Any
) -> None:
    downloader = new_downloader(total_timeout=0.4)
    media.then("/a", step)
    started = time.monotonic()

    with pytest.raises(Unreachable) as caught:
        read(downloader, f"{media.url}/a")

    assert time.monotonic() - started < 2
    assert not isinstance(caught.value, UrlExpired)


def test_silence_ends(media: Script, new_downloader: Callable[..., Downloader]) -> None:
    media.then("/a", hang)
    with pytest.raises(Unreachable, match="time-out"):
        new_downloader(timeout=(0.3, 0.3)).fetch(f"{media.url}/a")


def test_size_is_bounded(media: Script, new_downloader: Callable[..., Downloader]) -> None:
    downloader = new_downloader(max_bytes=100)
    chunked = {"Transfer-Encoding": "chunked"}
    media.then(
        "/a",
        Respond(b"x" * 100),
        Respond(b"x" * 101),
        Respond(b"65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n", headers=chunked),
    )

    assert len(read(downloader, f"{media.url}/a")) == 100
    for _ in range(2):
        with pytest.raises(UnsafeMedia) as caught:
            read(downloader, f"{media.url}/a")
        assert caught.value.reason == "too_large"


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_compressed_bodies_are_refused(media: Script, downloader: Downloader, encoding: str) -> None:
    media.then("/a", Respond(b"x", headers={"Content-Encoding": encoding}))
    assert refused(downloader, f"{media.url}/a") == "encoding"


def test_rest_of_a_file(media: Script, downloader: Downloader) -> None:
    rest = VIDEO[1000:]
    content_range = {"Content-Range": f"bytes 1000-{len(VIDEO) - 1}/{len(VIDEO)}"}
    media.then("/a", Respond(rest, 206, content_range))

    with downloader.fetch(f"{media.url}/a", resume_from=1000) as body:
        assert body.resumed
        assert body.content_length == len(rest)
        assert b"".join(body.chunks()) == rest

    assert media.requests[0].headers["range"] == "bytes=1000-"


def test_server_that_ignores_the_range(media: Script, downloader: Downloader) -> None:
    media.then("/a", Respond(VIDEO))
    with downloader.fetch(f"{media.url}/a", resume_from=1000) as body:
        assert not body.resumed
        assert b"".join(body.chunks()) == VIDEO


def test_file_that_became_shorter_is_begun_anew(media: Script, downloader: Downloader) -> None:
    media.then("/a", Respond(b"", 416), Respond(b"short"))
    with downloader.fetch(f"{media.url}/a", resume_from=1000) as body:
        assert not body.resumed
        assert b"".join(body.chunks()) == b"short"
    assert "range" not in media.requests[1].headers


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        "bytes 0-9/20",
        "bytes 11-20/21",
        "bytes 10-14/20",
        "bytes 10-9/20",
        "items 10-19/20",
        "bytes 10-19/5",
        "x",
    ],
)
def test_wrong_ranges_are_not_taken(media: Script, downloader: Downloader, content_range: str) -> None:
    media.then("/a", Respond(b"x" * 10, 206, {"Content-Range": content_range}))
    with pytest.raises(Unreachable, match="range"):
        downloader.fetch(f"{media.url}/a", resume_from=10)


def test_a_range_that_was_not_requested_is_refused(media: Script, downloader: Downloader) -> None:
    media.then("/a", Respond(b"x" * 10, 206, {"Content-Range": "bytes 0-9/10"}))
    with pytest.raises(Unreachable):
        downloader.fetch(f"{media.url}/a")


def test_resumed_bytes_count_towards_the_limit(
    media: Script, new_downloader: Callable[..., Downloader]
) -> None:
    media.then("/a", Respond(b"x" * 10, 206, {"Content-Range": "bytes 95-104/105"}))
    with pytest.raises(UnsafeMedia):
        new_downloader(max_bytes=100).fetch(f"{media.url}/a", resume_from=95)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(media: Script, downloader: Downloader, status: int) -> None:
    media.then("/a", Respond(b"", status, {"Location": "/b?x=1"}))
    media.then("/b", Respond(b"", status, {"Location": f"{media.url}/c"}))
    media.then("/c", Respond(b"", status, {"Location": f"//127.0.0.1:{media.port}/d"}))
    media.then("/d", Respond(b"here"))
    assert read(downloader, f"{media.url}/a") == b"here"
    assert media.asked("/b")[0].target == "/b?x=1"


def test_redirects_are_counted(media: Script, downloader: Downloader) -> None:
    media.always("/a", Respond(b"", 302, {"Location": "/a"}))
    assert refused(downloader, f"{media.url}/a") == "redirects"
    assert len(media.requests) == 4


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://127.0.0.1:1/", "host"),
        ("http://10.0.0.1/", "host"),
        ("https://evil.example/", "host"),
        ("file:///etc/passwd", "url"),
        ("ftp://127.0.0.1/", "scheme"),
        ("http://user@127.0.0.1/", "userinfo"),
        ("/a#b", "fragment"),
        ("http://[", "url"),
        ("/a b", "url"),
    ],
)
def test_redirects_are_checked(media: Script, downloader: Downloader, location: str, reason: str) -> None:
    media.then("/a", Respond(b"", 302, {"Location": location}))
    assert refused(downloader, f"{media.url}/a") == reason


@pytest.mark.parametrize(
    "url",
    [
        "https://brain.baidu.com/solution/faceprint/image/query?verify_token=x",
        "http://brain.baidu.com/x",
        "https://bj.bcebos.com/v1/b/k.jpg?authorization=bce-auth-v1%2Fx",
        "https://a.b.bcebos.com:443/x",
        "http://BJ.BCEBOS.COM:80/x",
    ],
)
def test_allowed_urls(url: str) -> None:
    Downloader(allowed_hosts=BAIDU).check_url(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://bcebos.com/x", "host"),
        ("https://evilbcebos.com/x", "host"),
        ("https://bj.bcebos.com.evil.example/x", "host"),
        ("https://bj.bcebos.com./x", "host"),
        ("https://www.brain.baidu.com/x", "host"),
        ("https://baidu.com/x", "host"),
        ("https://bj.bcebos.com:8443/x", "host"),
        ("http://bj.bcebos.com:22/x", "host"),
        ("https://127.0.0.1/x", "host"),
        ("https://2130706433/x", "host"),
        ("https://0177.0.0.1/x", "host"),
        ("https://[::1]/x", "host"),
        ("https://localhost/x", "host"),
        ("https://bj.bcebos.com@evil.example/x", "userinfo"),
        ("https://user:pass@bj.bcebos.com/x", "userinfo"),
        ("https://@bj.bcebos.com/x", "userinfo"),
        ("https://bj.bcebos.com/x#y", "fragment"),
        ("https://bj.bcebos.com/x#", "fragment"),
        ("ftp://bj.bcebos.com/x", "scheme"),
        ("gopher://bj.bcebos.com/x", "scheme"),
        ("file:///etc/passwd", "url"),
        ("//bj.bcebos.com/x", "scheme"),
        ("bj.bcebos.com/x", "url"),
        ("https:///x", "url"),
        ("https://bj.bcebos.com\\@evil.example/x", "url"),
        ("https://evil.example\\.bcebos.com/x", "url"),
        ("https://evil.example%2f.bcebos.com/x", "host"),
        ("https://evil.example%00.bcebos.com/x", "host"),
        ("https://bj.bcebos.com:0/x", "url"),
        ("https://bj.bcebos.com:99999/x", "url"),
        ("https://bj.bcebos.com:x/x", "url"),
        ("https://bj.bcebos.com/x\r\nHost: evil", "url"),
        ("https://bj.bcebos.com/\tx", "url"),
        ("https://bj.bcebos.com/张", "url"),
        ("https://ｂj.bcebos.com/x", "url"),
        ("https://bj.bcebos.com/" + "x" * 5000, "url"),
        ("", "url"),
    ],
)
def test_refused_urls(url: str, reason: str) -> None:
    assert refused(Downloader(allowed_hosts=BAIDU), url) == reason


def test_url_that_is_no_text() -> None:
    assert refused(Downloader(allowed_hosts=BAIDU), None) == "url"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "entry", ["", "*", "*.", "*.com", "a/b", "http://a", "u@a", "a b", "a?b", "a:b", "a*b.c"]
)
def test_wrong_allowed_hosts(entry: str) -> None:
    with pytest.raises(FaceprintConfigurationError):
        Downloader(allowed_hosts=[entry])


@pytest.mark.parametrize(
    "address",
    ["110.242.68.66", "93.184.216.34", "2400:da00::6666", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"],
)
def test_public_addresses(address: str) -> None:
    assert is_public_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.2.1", "198.18.0.1", "203.0.113.5",
        "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1",
        "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:f5ff:fffe",
        "::7f00:1", "localhost", "2130706433", "0x7f.1", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public_address(address)


def test_private_addresses_where_they_are_trusted() -> None:
    assert all(map(is_unicast_address, ("127.0.0.1", "10.0.0.1", "::1", "93.184.216.34")))
    assert not any(map(is_unicast_address, ("0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "x")))


def resolver(**ports: int) -> Callable[..., Any]:
    """Resolves every name to this machine, and default ports to those of the test servers."""

    def resolve(host: str, port: int, *_: object) -> list[tuple[Any, ...]]:
        resolve.asked.append((host, port))  # type: ignore[attr-defined]
        target = ports.get({80: "http", 443: "https"}[port], 1)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", target))]

    resolve.asked = []  # type: ignore[attr-defined]
    return resolve


def fixed(*addresses: str) -> Callable[..., Any]:
    def resolve(host: str, port: int, *_: object) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return resolve


@pytest.mark.parametrize(
    "addresses", [("127.0.0.1",), ("10.0.0.1",), ("93.184.216.34", "10.0.0.1"), ("169.254.169.254",)]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_name_with_a_single_internal_address_is_refused(
    new_downloader: Callable[..., Downloader], addresses: tuple[str, ...], scheme: str
) -> None:
    downloader = new_downloader(allowed_hosts=BAIDU, allow_private=False, resolver=fixed(*addresses))
    assert refused(downloader, f"{scheme}://bj.bcebos.com/x") == "address"


def test_internal_address_is_refused_even_when_listed(
    media: Script, new_downloader: Callable[..., Downloader]
) -> None:
    assert refused(new_downloader(allow_private=False), f"{media.url}/a") == "address"
    assert not media.requests


def test_address_is_checked_again_for_a_redirect(
    media: Script, new_downloader: Callable[..., Downloader]
) -> None:
    media.then("/a", Respond(b"", 302, {"Location": "http://inner.bcebos.com/b"}))
    public_first = resolver(http=media.port)

    def resolve(host: str, port: int, *rest: object) -> Any:
        return fixed("0.0.0.0")(host, port) if host.startswith("inner") else public_first(host, port, *rest)

    downloader = new_downloader(allowed_hosts=BAIDU, resolver=resolve)
    assert refused(downloader, "http://bj.bcebos.com/a") == "address"


def test_name_that_does_not_resolve(new_downloader: Callable[..., Downloader]) -> None:
    def resolve(*_: object) -> Any:
        raise OSError("no such host")

    for broken in (resolve, fixed()):
        with pytest.raises(Unreachable, match="name resolution failed"):
            new_downloader(allowed_hosts=BAIDU, resolver=broken).fetch("https://bj.bcebos.com/x")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(Path(tmp_path_factory.mktemp("tls")))


@pytest.fixture
def secure_media(authority: Authority) -> Iterator[Script]:
    with RunningServer(authority.server_context("bj.bcebos.com")) as script:
        yield script


def test_https_is_tried_first(
    media: Script, secure_media: Script, authority: Authority, new_downloader: Callable[..., Downloader]
) -> None:
    resolve = resolver(http=media.port, https=secure_media.port)
    downloader = new_downloader(allowed_hosts=BAIDU, resolver=resolve, ca_bundle=authority.bundle)
    secure_media.always("/a", Respond(b"secure"))

    with downloader.fetch("http://bj.bcebos.com/a") as body:
        assert b"".join(body.chunks()) == b"secure"
        assert body.plain_http is False

    assert secure_media.requests[0].headers["host"] == "bj.bcebos.com"
    assert not media.requests
    assert resolve.asked == [("bj.bcebos.com", 443)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("https", ["nobody listens", "no TLS", "no certificate"])
def test_https_is_tried_once_at_a_host_without_it(
    media: Script,
    secure_media: Script,
    new_downloader: Callable[..., Downloader],
    https: str,
) -> None:
    ports = {"nobody listens": 1, "no TLS": media.port, "no certificate": secure_media.port}
    resolve = resolver(http=media.port, https=ports[https])
    downloader = new_downloader(allowed_hosts=BAIDU, resolver=resolve)
    media.always("/a", Respond(b"plain"))

    for _ in range(3):
        with downloader.fetch("http://bj.bcebos.com/a") as body:
            assert b"".join(body.chunks()) == b"plain"
            assert body.plain_http is True

    assert [port for _, port in resolve.asked].count(443) == 1  # type: ignore[attr-defined]


def test_https_is_never_given_up_for_http(
    media: Script, secure_media: Script, authority: Authority, new_downloader: Callable[..., Downloader]
) -> None:
    media.always("/a", Respond(b"plain"))
    secure_media.always("/a", Respond(b"secure"))
    resolve = resolver(http=media.port, https=secure_media.port)
    untrusting = new_downloader(allowed_hosts=BAIDU, resolver=resolve)
    with pytest.raises(Unreachable, match="TLS failure"):
        untrusting.fetch("https://bj.bcebos.com/a")

    trusting = new_downloader(allowed_hosts=BAIDU, resolver=resolve, ca_bundle=authority.bundle)
    assert read(trusting, "https://bj.bcebos.com/a") == b"secure"
    with pytest.raises(Unreachable, match="TLS failure"):
        trusting.fetch("https://brain.baidu.com/a")
    assert not media.requests


def test_port_of_its_own_is_not_tried_over_https(media: Script, downloader: Downloader) -> None:
    media.always("/a", Respond(b"x"))
    read(downloader, f"{media.url}/a")
    assert len(media.requests) == 1


def test_proxy_resolves_and_gets_its_credentials(new_downloader: Callable[..., Downloader]) -> None:
    with RunningServer() as proxy:
        proxy.always("/a", Respond(b"via proxy"))
        downloader = new_downloader(
            allowed_hosts=["bj.bcebos.com:8080"],
            allow_private=False,
            resolver=fixed("10.0.0.1"),
            proxies={"http": f"http://us%40er:pass@127.0.0.1:{proxy.port}"},
        )
        assert read(downloader, "http://bj.bcebos.com:8080/a") == b"via proxy"
        (request,) = proxy.requests
        assert request.target == "http://bj.bcebos.com:8080/a"
        credentials = base64.b64encode(b"us@er:pass").decode()
        assert request.headers["proxy-authorization"] == f"Basic {credentials}"
        assert refused(downloader, "http://evil.example/a") == "host"


def test_environment_is_not_consulted(
    media: Script, downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    media.then("/a", Respond(b"x"))
    assert read(downloader, f"{media.url}/a") == b"x"


def test_no_log_record_holds_a_url(
    media: Script, downloader: Downloader, caplog: pytest.LogCaptureFixture
) -> None:
    media.then("/secret", Respond(b"x"), reset)
    with caplog.at_level(logging.DEBUG):
        read(downloader, f"{media.url}/secret")
        with pytest.raises(Unreachable):
            downloader.fetch(f"{media.url}/secret")
    assert "secret" not in caplog.text


def test_representation_hides_the_url(media: Script, downloader: Downloader) -> None:
    media.then("/secret", Respond(b"x"))
    body: MediaBody
    with downloader.fetch(f"{media.url}/secret") as body:
        assert repr(body) == "MediaBody(content_type='application/json', content_length=1)"


def test_negative_offset(downloader: Downloader) -> None:
    with pytest.raises(ValueError, match="negative"):
        downloader.fetch("https://bj.bcebos.com/x", resume_from=-1)
