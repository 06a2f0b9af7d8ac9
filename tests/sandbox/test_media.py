"""Pictures and videos: decodable, unique, whole, in ranges, and gone in time."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import tracemalloc
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from django_faceprint.sandbox.media import MediaGenerator, Video, digest, pad_jpeg

from .conftest import NAME, NUMBER, Caller, jpeg_base64


def boxes(data: bytes) -> list[tuple[str, int]]:
    """The top-level boxes of an MP4 with their sizes."""
    found, at = [], 0
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        assert size >= 8
        found.append((name.decode(), size))
        at += size
    assert at == len(data)
    return found


def media_url(caller: Caller, plan: int = 25001, field: str = "processVideo") -> str:
    verify_token = caller.finished(plan)
    url = caller.result("result/media/query", verify_token=verify_token)[field][0]
    assert isinstance(url, str)
    return url


def test_every_picture_decodes_and_is_unique(caller: Caller) -> None:
    hashes = set()
    for verify_token in (caller.finished(25001), caller.finished(25001)):
        media = caller.result("result/media/query", verify_token=verify_token)
        result = caller.result("result/getall", verify_token=verify_token)
        urls = [*media["images"], result["verify_result"][0]["verify_detail"]["face_image"]]
        urls.append(caller.result("result/simple", verify_token=verify_token)["image"])
        for url in urls:
            answer = caller.get(url)
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg")
            assert len(answer.content) == 40_000
            with Image.open(io.BytesIO(answer.content)) as image:
                image.verify()
            with Image.open(io.BytesIO(answer.content)) as image:
                image.load()
                assert image.size == (480, 640)
            hashes.add(hashlib.sha256(answer.content).hexdigest())
    assert len(hashes) == 12


@pytest.mark.parametrize("size", [0, 30_000, 65_000, 65_537, 150_000, 150_001, 150_002, 150_003, 1_000_000])
def test_a_jpeg_is_filled_to_the_byte(size: int) -> None:
    data = MediaGenerator(image_size=size).picture("face", "seed")
    assert len(data) == size or (size < 25_000 and len(data) < 25_000)
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def test_every_size_above_the_minimum_is_exact() -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    start = len(out.getvalue()) + 200
    for size in [*range(start, start + 12), *range(start + 65_530, start + 65_545)]:
        padded = pad_jpeg(out.getvalue(), size, "seed")
        assert len(padded) == size
        with Image.open(io.BytesIO(padded)) as image:
            image.load()


def test_sizes_have_limits() -> None:
    with pytest.raises(ValueError, match="video_size"):
        MediaGenerator(video_size=-1)
    with pytest.raises(ValueError, match="image_size"):
        MediaGenerator(image_size=10**9)


@pytest.mark.parametrize(("plan", "field"), [(25001, "processVideo"), (25004, "video")])
def test_a_video_is_a_complete_mp4_unique_by_its_free_box(caller: Caller, plan: int, field: str) -> None:
    contents = [caller.get(media_url(caller, plan, field)) for _ in range(2)]
    for answer in contents:
        assert answer.headers["Content-Type"] == "video/mp4"
        found = boxes(answer.content)
        names = [name for name, _ in found]
        assert names[0] == "ftyp"
        assert names.index("moov") < names.index("mdat")
        assert names[-1] == "free"
        assert found[-1][1] > 200_000
        assert len(answer.content) == 300_000
        assert b"avc1" in answer.content
    assert contents[0].content != contents[1].content


def test_a_video_is_generated_while_it_is_read() -> None:
    video = Video("seed", 64 * 1024 * 1024)
    tracemalloc.start()
    try:
        digest(video)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024
    whole = hashlib.sha256(b"".join(Video("s", 500_000).read(0, 500_000))).hexdigest()
    assert whole == digest(Video("s", 500_000)) != digest(Video("t", 500_000))


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, 300_000),
        ("bytes=100-199", 100, 200),
        ("bytes=150000-", 150_000, 300_000),
        ("bytes=-500", 299_500, 300_000),
        ("bytes=-999999", 0, 300_000),
        ("bytes=299999-999999999", 299_999, 300_000),
        ("bytes=36000-140000", 36_000, 140_001),
    ],
)
def test_a_range_is_a_part_of_the_file(caller: Caller, header: str, start: int, stop: int) -> None:
    url = media_url(caller)
    whole = caller.get(url)
    assert whole.headers["Accept-Ranges"] == "bytes"
    part = caller.get(url, Range=header)
    assert part.status_code == 206
    assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/300000"
    assert part.headers["Content-Length"] == str(stop - start)
    assert part.content == whole.content[start:stop]
    assert part.headers["ETag"] == whole.headers["ETag"]


@pytest.mark.parametrize("header", ["bytes=300000-", "bytes=-0", "bytes=999999-1000000"])
def test_a_range_beyond_the_end_is_unsatisfiable(caller: Caller, header: str) -> None:
    answer = caller.get(media_url(caller), Range=header)
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["Content-Range"] == "bytes */300000"


@pytest.mark.parametrize(
    "header", ["bytes=5-1", "bytes=a-b", "items=0-1", "bytes=0-1,5-6", "bytes=-", "nonsense"]
)
def test_invalid_ranges_are_ignored(caller: Caller, header: str) -> None:
    answer = caller.get(media_url(caller), Range=header)
    assert (answer.status_code, len(answer.content)) == (200, 300_000)


def test_conditional_and_head_requests_follow_http(caller: Caller) -> None:
    url = media_url(caller)
    head = caller.http.head(url, timeout=10)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "300000", b"")
    etag = head.headers["ETag"]
    assert caller.get(url, **{"If-None-Match": etag}).status_code == 304
    assert caller.get(url, **{"If-Range": etag, "Range": "bytes=0-9"}).status_code == 206
    assert caller.get(url, **{"If-Range": '"other"', "Range": "bytes=0-9"}).status_code == 200
    assert caller.http.post(url, timeout=10).status_code == 405


def test_a_signed_url_has_the_documented_form_and_expires(caller: Caller) -> None:
    verify_token = caller.finished(25001)
    detail = caller.result("result/getall", verify_token=verify_token)["verify_result"][0]["verify_detail"]
    url = detail["face_image"]
    parts = urlsplit(url)
    (authorization,) = parse_qs(parts.query)["authorization"]
    version, key, stamp, seconds, headers, signature = authorization.split("/")
    assert (version, len(key), stamp, seconds, headers) == (
        "bce-auth-v1",
        32,
        "2026-03-02T08:20:00Z",
        "86400",
        "",
    )
    assert len(signature) == 64
    assert parts.path.startswith("/v1/")
    assert "authorization=bce-auth-v1%2F" in url

    caller.advance(days=1, seconds=-1)
    assert caller.get(url).status_code == 200
    caller.advance(seconds=1)
    expired = caller.get(url)
    assert expired.status_code == 403
    assert expired.headers["Content-Type"] == "application/xml"
    assert "RequestExpired" in expired.text
    # The picture itself lives as long as the result: asked anew, it has a new URL.
    caller.advance(days=1)
    detail = caller.result("result/getall", verify_token=verify_token)["verify_result"][0]["verify_detail"]
    assert caller.get(detail["face_image"]).status_code == 200


def test_a_wrong_signature_is_refused(caller: Caller) -> None:
    url = media_url(caller)
    path = url.partition("?")[0]
    assert caller.get(path).status_code == 403
    assert "SignatureDoesNotMatch" in caller.get(f"{url[:-1]}{'0' if url[-1] != '0' else '1'}").text
    assert caller.get(f"{path}?authorization=%E4%B8%AD/x").status_code == 403
    assert caller.get(url.replace("-process_video-", "-frame-")).status_code == 403
    caller.control("PUT", "switches", {"sign_media": False})
    assert caller.get(path).status_code == 200
    assert caller.get(f"{caller.url}/v1/sandbox-media/202603/25001/nothing.mp4").status_code == 404
    assert caller.get(path.replace("-process_video-", "-id_front-")).status_code == 404
    token = urlsplit(media_url(caller)).path.split("/")[-1][:24]
    assert caller.result("result/media/query", verify_token=token)["processVideo"][0].endswith(".mp4")


def test_the_picture_of_result_simple_ends_with_the_result(caller: Caller) -> None:
    verify_token = caller.finished(25001)
    url = caller.result("result/simple", verify_token=verify_token)["image"]
    assert caller.get(url, Range="bytes=0-9").status_code == 206
    caller.control("PUT", "switches", {"simple_image_seconds": 7200})
    caller.advance(hours=2)
    assert caller.get(url).status_code == 404
    caller.control("PUT", "switches", {"simple_image_seconds": 3 * 86400})
    assert caller.get(url).status_code == 200
    caller.advance(days=3)
    assert caller.get(url).status_code == 404
    failed = caller.finished(25001, "fail")
    assert caller.get(f"{caller.url}/solution/faceprint/image/query?verify_token={failed}").status_code == 404
    assert caller.get(f"{caller.url}/solution/faceprint/image/query").status_code == 404


def test_the_ledger_counts_deliveries(caller: Caller) -> None:
    verify_token = caller.generate(25003)
    match_token = caller.generate(25004)
    image = jpeg_base64()
    caller.result("uploadMatchImage", verify_token=match_token, image=image)
    caller.go_through(verify_token)
    kinds = [(a["kind"], a["attempt"], a["position"]) for a in caller.ledger(verify_token)["assets"]]
    assert kinds == [
        ("face", 0, 0),
        ("attempt_face", 1, 0),
        ("id_front", 0, 0),
        ("id_back", 0, 0),
        ("process_video", 0, 0),
        *(("frame", 0, at) for at in range(4)),
    ]

    detail = caller.result("result/detail", verify_token=verify_token)
    media = caller.result("result/media/query", verify_token=verify_token)
    video = caller.get(media["processVideo"][0]).content
    caller.get(media["images"][2], Range="bytes=0-99")
    caller.get(media["images"][3], Range="bytes=100-")
    assets = {(a["kind"], a["position"]): a for a in caller.ledger(verify_token)["assets"]}
    front = base64.b64decode(detail["idcard_images"]["front_base64"])
    assert assets["id_front", 0]["sha256"] == hashlib.sha256(front).hexdigest()
    assert (assets["id_front", 0]["served"], assets["id_front", 0]["size"]) == (1, len(front))
    assert assets["process_video", 0]["sha256"] == hashlib.sha256(video).hexdigest()
    assert assets["process_video", 0]["served"] == 1
    assert (assets["frame", 2]["served"], assets["frame", 2]["partly_served"]) == (0, 1)
    assert assets["frame", 3]["served"] == 1
    assert assets["face", 0]["served"] == 0

    (uploaded,) = caller.ledger(match_token)["assets"]
    raw = base64.b64decode(image)
    assert (uploaded["kind"], uploaded["size"], uploaded["served"]) == ("match_image", len(raw), 0)
    assert uploaded["sha256"] == hashlib.sha256(raw).hexdigest()


def test_the_ledger_counts_calls_without_personal_data(caller: Caller) -> None:
    verify_token = caller.finished(25002)
    caller.error("result/detail", verify_token="x")
    answer = caller.get(f"{caller.url}/_sandbox/ledger?hashes=0")
    ledger = answer.json()
    assert ledger["oauth_tokens"] == 1
    assert ledger["calls"]["result_detail"] == {"900001": 1}
    assert ledger["calls"]["h5"]["pass"] == 1
    (entry,) = ledger["sessions"]
    assert (entry["app"], entry["plan_id"], entry["verify_token"]) == (
        "sandbox-api-key",
        "25002",
        verify_token,
    )
    assert entry["finished_at"] == "2026-03-02T08:20:00+00:00"
    assert all(asset["sha256"] is None for asset in entry["assets"])
    assert NAME not in answer.text
    assert NUMBER not in answer.text
