from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.files.storage import storages
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from django.test import AsyncRequestFactory, RequestFactory

from django_faceprint.actors import actor_of
from django_faceprint.evidence.serving import ONE_VIEW, log_media_view, media_response
from django_faceprint.models import AccessLog, MediaAsset
from tests import factories

pytestmark = pytest.mark.django_db

Kind = MediaAsset.Kind
PADDING = 200_000
DATA = factories.video_bytes(PADDING)
SIZE = len(DATA)


@pytest.fixture
def video() -> MediaAsset:
    return factories.make_stored_asset(factories.make_passed_session(), Kind.VIDEO, DATA)


def get(asset: MediaAsset, method: str = "GET", **headers: str) -> HttpResponseBase:
    request = RequestFactory().generic(method, "/", headers=headers)
    return media_response(request, asset)


def body(response: Any) -> bytes:
    content = b"".join(response.streaming_content) if response.streaming else response.content
    response.close()
    return content


def stored_path(asset: MediaAsset) -> Path:
    return Path(storages["faceprint"].path(asset.stored_name))


def test_the_whole_file(video: MediaAsset) -> None:
    response = get(video)
    assert response.status_code == 200
    assert response["Content-Type"] == "video/mp4"
    assert response["Content-Length"] == str(SIZE)
    assert response["Accept-Ranges"] == "bytes"
    assert response["ETag"] == f'"{video.sha256}"'
    assert response["Cache-Control"] == "private, no-store"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert response["Content-Disposition"] == f'inline; filename="video-{video.public_id}.mp4"'
    assert body(response) == DATA


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=65530-65545", 65530, 65546),  # across two encrypted chunks
        ("bytes=0-", 0, SIZE),
        (f"bytes={SIZE - 3}-", SIZE - 3, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        (f"bytes=100-{SIZE * 2}", 100, SIZE),
        (f"bytes=7-{'9' * 5000}", 7, SIZE),
        ("bytes=0000000000000000000000000000000000005-9", 5, 10),
        ("Bytes= 10-19 ", 10, 20),
        ("bytes=10-19,", 10, 20),
    ],
)
def test_one_range(video: MediaAsset, header: str, start: int, end: int) -> None:
    response = get(video, range=header)
    assert response.status_code == 206
    assert response["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert response["Content-Length"] == str(end - start)
    assert body(response) == DATA[start:end]


@pytest.mark.parametrize(
    "header",
    [
        "bytes=0-1,5-9",
        "bytes=9-5",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=１-２",
        "bytes=1 - 2",
        "bytes=--5",
        "bytes=+1-2",
        "lines=0-5",
        "0-5",
    ],
)
def test_what_is_no_single_range_gives_the_whole_file(video: MediaAsset, header: str) -> None:
    response = get(video, range=header)
    assert response.status_code == 200
    assert "Content-Range" not in response
    assert body(response) == DATA


@pytest.mark.parametrize(
    "header", [f"bytes={SIZE}-", "bytes=-0", f"bytes={'9' * 5000}-", f"bytes={SIZE}-{SIZE}"]
)
def test_past_the_end(video: MediaAsset, header: str) -> None:
    response = get(video, range=header)
    assert response.status_code == 416
    assert response["Content-Range"] == f"bytes */{SIZE}"
    assert body(response) == b""


def test_if_range(video: MediaAsset) -> None:
    condition = {"If-Range": f'"{video.sha256}"'}
    assert get(video, Range="bytes=1-2", **condition).status_code == 206
    for changed in ('"another"', f'W/"{video.sha256}"', "Tue, 24 Nov 2026 08:00:00 GMT"):
        response = get(video, Range="bytes=1-2", **{"If-Range": changed})
        assert response.status_code == 200
        assert body(response) == DATA
    # A file that has changed may be shorter: what lies past its end is then no error either.
    assert get(video, Range=f"bytes={SIZE}-", **{"If-Range": '"another"'}).status_code == 200


def test_head(video: MediaAsset) -> None:
    response = get(video, "HEAD", range="bytes=1-2")
    assert response.status_code == 200
    assert response["Content-Length"] == str(SIZE)
    assert response["Content-Type"] == "video/mp4"
    assert response["ETag"] == f'"{video.sha256}"'
    assert body(response) == b""


def test_unchanged(video: MediaAsset) -> None:
    response = get(video, **{"If-None-Match": f'"{video.sha256}"'})
    assert response.status_code == 304
    assert response["Cache-Control"] == "private, no-store"


def test_other_methods_are_refused(video: MediaAsset) -> None:
    assert get(video, "POST").status_code == 405


def test_unknown_types_are_only_offered_for_download() -> None:
    asset = factories.make_stored_asset(factories.make_passed_session(), Kind.FACE)
    for hostile in ("text/html", "image/svg+xml", "image/jpeg\r\nSet-Cookie: a=b", ""):
        asset.content_type = hostile
        response = get(asset)
        assert response["Content-Type"] == "application/octet-stream"
        assert response["Content-Disposition"].startswith("attachment; ")
        assert "Set-Cookie" not in response
        assert body(response) == factories.image_bytes()


@pytest.mark.parametrize("state", [state for state in MediaAsset.State if state != "stored"])
def test_what_is_not_stored_is_not_found(state: str) -> None:
    asset = factories.make_asset(factories.make_passed_session(), Kind.FACE, state=state)
    assert get(asset).status_code == 404


def test_only_the_needed_chunks_are_decrypted(video: MediaAsset) -> None:
    path = stored_path(video)
    with path.open("r+b") as file:
        file.seek(29 + 65552 + 100)  # inside the second chunk
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    assert body(get(video, range="bytes=0-100")) == DATA[:101]
    assert get(video, range="bytes=70000-70001").status_code == 502


def test_a_damaged_file(video: MediaAsset, caplog: pytest.LogCaptureFixture) -> None:
    path = stored_path(video)
    path.write_bytes(path.read_bytes()[:-1])
    response = get(video)
    assert response.status_code == 502
    assert body(response) == b""
    assert str(video.public_id) in caplog.text
    assert "SealBroken" in caplog.text


def test_a_damaged_row(video: MediaAsset) -> None:
    other = factories.make_stored_asset(factories.make_passed_session(), Kind.FACE)
    video.wrapped_key = other.wrapped_key
    assert get(video).status_code == 502


def test_storage_that_fails(video: MediaAsset, caplog: pytest.LogCaptureFixture) -> None:
    stored_path(video).unlink()
    response = get(video)
    assert response.status_code == 503
    assert body(response) == b""
    assert video.stored_name not in caplog.text


def test_damage_in_mid_stream_ends_it(video: MediaAsset, caplog: pytest.LogCaptureFixture) -> None:
    path = stored_path(video)
    with path.open("r+b") as file:
        file.seek(29 + 65552 + 100)
        file.write(b"damaged")
    response: Any = get(video)
    assert response.status_code == 200
    pieces = iter(response.streaming_content)
    assert next(pieces) == DATA[:65536]
    with pytest.raises(Exception, match="damaged") as caught:
        next(pieces)
    assert type(caught.value).__name__ == "SealBroken"
    assert caught.value.__context__ is None
    assert str(video.public_id) in caplog.text


def test_the_stored_file_is_closed(video: MediaAsset, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    storage: Any = storages["faceprint"]
    real_open = storage.open

    def remember(*args: Any) -> Any:
        opened.append(real_open(*args))
        return opened[-1]

    monkeypatch.setattr(storage, "open", remember)
    body(get(video))
    get(video).close()  # abandoned
    path = stored_path(video)
    path.write_bytes(path.read_bytes()[:-1])
    get(video).close()
    assert [file.closed for file in opened] == [True, True, True]


def test_compression_keeps_off(video: MediaAsset) -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        return media_response(request, video)

    request = RequestFactory().get("/", headers={"Range": "bytes=0-999", "Accept-Encoding": "gzip"})
    response: Any = GZipMiddleware(view)(request)
    assert "Content-Encoding" not in response
    assert response["Content-Length"] == "1000"
    assert body(response) == DATA[:1000]


@pytest.mark.django_db(transaction=True)
def test_asgi_streams_piece_by_piece() -> None:
    asset = factories.make_stored_asset(factories.make_passed_session(), Kind.VIDEO, DATA)

    async def pieces(response: Any) -> list[bytes]:
        assert response.is_async
        return [piece async for piece in response.streaming_content]

    async def main() -> None:
        for header, expected in (("bytes=10-", DATA[10:]), ("", DATA)):
            request = AsyncRequestFactory().get("/", headers={"Range": header})
            response: Any = media_response(request, asset)
            got = await pieces(response)
            response.close()
            assert b"".join(got) == expected
            assert max(map(len, got)) <= 65536

    asyncio.run(main())


# --- looks --------------------------------------------------------------------------------------


@pytest.fixture
def look(video: MediaAsset) -> Callable[..., int]:
    users = get_user_model()
    users.objects.create_user("viewer")
    users.objects.create_user("another")

    def record(method: str = "GET", user: str = "viewer", **headers: str) -> int:
        request = RequestFactory().generic(method, "/", headers=headers)
        request.user = users.objects.get(username=user)
        log_media_view(request, video, actor_of(request, "admin"))
        return AccessLog.objects.count()

    return record


def test_a_player_makes_one_view(look: Callable[..., int], video: MediaAsset) -> None:
    assert look(Range="bytes=0-") == 1
    assert look(Range="bytes=70000-") == 1
    assert look(Range=f"bytes={SIZE}-") == 1
    assert look(Range="bytes=-100") == 1
    entry = AccessLog.objects.get()
    assert entry.action == AccessLog.Action.VIEW_MEDIA
    assert entry.asset_id == video.public_id
    assert entry.session_id == video.session.public_id
    assert entry.channel == "admin"
    assert look(Range="bytes=0-") == 2
    assert look() == 3


def test_no_part_can_be_read_without_a_view(look: Callable[..., int]) -> None:
    assert look(Range="bytes=1-") == 1
    assert look(Range="bytes=1-") == 1
    assert look(Range="bytes=1-", user="another") == 2
    assert look(Range=f"bytes=-{SIZE}") == 3
    assert look(**{"Range": "bytes=1-", "If-Range": '"another"'}) == 4


def test_a_later_part_is_a_new_view(look: Callable[..., int], clock: Any) -> None:
    assert look(Range="bytes=1-") == 1
    clock.advance(seconds=ONE_VIEW.total_seconds())
    assert look(Range="bytes=1-") == 2


def test_head_is_no_view(look: Callable[..., int]) -> None:
    assert look("HEAD") == 0
