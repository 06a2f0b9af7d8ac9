"""Answers made to break us, over a real socket: kept as evidence, said on the session, and no more.

Whatever one session is answered, the others of the same run are archived, nothing is decoded in full that
is larger than anything honest, and nobody's evidence is given up while Baidu may still give it.
"""

from __future__ import annotations

import gzip
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_faceprint.models import MediaAsset, UploadIntent, VerificationSession
from django_faceprint.sandbox.clock import SandboxClock
from django_faceprint.sandbox.core import Sandbox
from django_faceprint.sandbox.message import Request, Response
from django_faceprint.sandbox.server import SandboxServer
from tests.factories import image_bytes, video_bytes
from tests.scenario import Scenario

State = MediaAsset.State
Archived = Callable[[VerificationSession], None]
Lie = Callable[[Response], Response]

MB = 1024 * 1024
RESULTS = ["result_detail", "result_getall", "result_simple", "result_media_query", "result_stat"]
#: More memory than this is not used for any answer: the largest honest one, its pieces and its text.
MAX_MEMORY = 120 * MB


class Liar(Sandbox):
    """A sandbox that answers some sessions anything."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lies: dict[tuple[str, str], Lie] = {}

    def handle(self, request: Request) -> Response:
        response = super().handle(request)
        facts = self.facts(request)
        lie = self.lies.get((facts.endpoint, facts.verify_token or "")) if facts else None
        return lie(response) if lie else response


@pytest.fixture
def sandbox(settings: Any, clock: Any, tmp_path: Path) -> Iterator[Any]:
    """In place of the usual one."""
    settings.STORAGES = {
        **settings.STORAGES,
        "faceprint": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path / "archive")},
        },
    }
    liar = Liar(clock=SandboxClock(base=clock), video_size=5_000, image_size=3_000, qps=0)
    with SandboxServer(sandbox=liar) as server:
        settings.FACEPRINT = {
            **settings.FACEPRINT,
            "API_URL": server.url,
            "H5_URL": server.h5_url,
            "MEDIA_HOSTS": [server.url.removeprefix("http://")],
            "PUBLIC_URL": "http://testserver",
            "APPLICATIONS": {"default": {"API_KEY": "sandbox-api-key", "SECRET_KEY": "sandbox-secret-key"}},
        }
        yield server


class Victims:
    """Sessions that are lied to, each in its own way, between two that are not."""

    def __init__(self, scenario: Scenario, plan_id: str, lies: dict[str, Lie], *endpoints: str) -> None:
        self.scenario = scenario
        self.baidu: Liar = scenario.sandbox.sandbox
        self.before = self._finished(plan_id)
        self.sessions = {name: self._finished(plan_id) for name in lies}
        self.after = self._finished(plan_id)
        for name, session in self.sessions.items():
            for endpoint in endpoints:
                self.baidu.lies[endpoint, session.verify_token or ""] = lies[name]

    def _finished(self, plan_id: str) -> VerificationSession:
        session = self.scenario.start(plan_id)
        self.scenario.finish(session)
        return session

    def look(self, clock: Any, minutes: float = 1) -> dict[str, VerificationSession]:
        """One run a little later; what has become of the victims."""
        clock.advance(minutes=minutes)
        self.scenario.work()
        return {name: self.scenario.fresh(session) for name, session in self.sessions.items()}

    def neighbours(self) -> list[VerificationSession]:
        return [self.scenario.fresh(session) for session in (self.before, self.after)]

    def repent(self) -> None:
        """No lies any more."""
        self.baidu.lies.clear()


def says(
    body: bytes, content_type: str | None = "application/json", status: int = 200, **headers: str
) -> Lie:
    """Answer these bytes instead."""

    def lie(honest: Response) -> Response:
        fields = [(name.replace("_", "-"), text) for name, text in headers.items()]
        if content_type is not None:
            fields.append(("Content-Type", content_type))
        return Response(status=status, headers=fields, body=body, length=len(body))

    return lie


def nested(opening: bytes, closing: bytes, depth: int = 100_000) -> bytes:
    return b'{"success": true, "result": ' + opening * depth + b"1" + closing * depth + b"}"


BODIES: dict[str, Lie] = {
    "empty": says(b""),
    "null": says(b"null"),
    "a number": says(b"1"),
    "a text": says(b'"success"'),
    "an array": says(b'[{"success": true}]'),
    "deep arrays": says(nested(b"[", b"]")),
    "deep objects": says(nested(b'{"a":', b"}")),
    "5,000 digits": says(b'{"success": true, "result": {"score": ' + b"9" * 5000 + b"}}"),
    "a code of 5,000 digits": says(b'{"success": false, "code": ' + b"7" * 5000 + b"}"),
    "NULs": says(bytes(1000)),
    "a NUL in a text": says(b'{"success": false, "code": "2\x0034", "message": "\x00"}'),
    "escaped NULs": says(b'{"success": false, "code": "\\u0000", "message": "\\u0000", "log_id": "\\u0000"}'),
    "lone surrogates": says(
        b'{"success": false, "code": "\\ud800", "message": "\\udfff x", "log_id": "\\ud83d"}'
    ),
    "NaN": says(b'{"success": true, "result": {"score": NaN}}'),
    "Infinity": says(b'{"success": true, "result": {"score": -Infinity}}'),
    "a number beyond all": says(b'{"success": false, "code": 1e999}'),
    "duplicate keys": says(
        b'{"success": false, "code": 222351, "message": "no", "success": true, "result": {}}'
    ),
    "two results": says(b'{"success": true, "result": {}, "result": {}}'),
    "GBK": says(
        '{"success": false, "code": 1, "message": "服务异常"}'.encode("gbk"), "application/json;charset=gbk"
    ),
    "UTF-16": says('{"success": false, "code": 1}'.encode("utf-16")),
    "HTML": says(b"<!DOCTYPE html><script>alert(1)</script>", "text/html"),
    "SVG": says(b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', "image/svg+xml"),
    "a damaged gzip": says(b"\x1f\x8b\x08 not gzip", Content_Encoding="gzip"),
    "an unknown encoding": says(b"{}", Content_Encoding="br"),
    "a redirect to a file": says(b"", status=302, Location="file:///etc/passwd"),
    "a redirect inwards": says(b"", status=307, Location="http://169.254.169.254/latest/meta-data"),
    "codes of wrong types": says(b'{"success": [], "code": {"a": 1}, "message": [1], "log_id": {}}'),
    "a result that is none": says(b'{"success": true, "result": 17, "log_id": 1e5}'),
}
#: What is no answer at all is not kept: it is larger than any that is, or came damaged.
NOT_KEPT = {"empty", "a damaged gzip", "an unknown encoding", "a redirect to a file", "a redirect inwards"}


@pytest.mark.parametrize("endpoint", RESULTS)
def test_an_answer_that_is_none_costs_one_session_nothing_but_time(
    scenario: Scenario, clock: Any, assert_archived: Archived, endpoint: str
) -> None:
    victims = Victims(scenario, "25001", BODIES, endpoint)
    for name, session in victims.look(clock).items():
        if endpoint == "result_stat" and not session.has_outstanding_work:
            continue  # nice to have: a clear refusal is taken for one
        assert session.has_outstanding_work, name
        assert session.error_class in ("retry", "unknown"), name
        assert session.error_code or session.error_message, name
        assert session.verdict == ("pending" if endpoint == "result_detail" else "passed"), name
        kept = session.answers.filter(endpoint=endpoint, parsed=False).count()
        assert kept == (name not in NOT_KEPT), name
    for session in victims.neighbours():
        assert_archived(session)
    victims.repent()
    for name, session in victims.look(clock).items():
        assert (session.verdict, session.archive_state) == ("passed", "complete"), name
        assert session.error_class == "", name
        assert_archived(session)


@pytest.mark.parametrize("endpoint", RESULTS)
def test_a_missing_or_wrong_content_type_is_no_matter(
    scenario: Scenario, clock: Any, assert_archived: Archived, endpoint: str
) -> None:
    def with_type(content_type: str | None) -> Lie:
        def lie(honest: Response) -> Response:
            honest.headers = [] if content_type is None else [("Content-Type", content_type)]
            return honest

        return lie

    types = {"none": None, "HTML": "text/html", "another charset": "application/json; charset=latin-1"}
    victims = Victims(scenario, "25001", {name: with_type(kind) for name, kind in types.items()}, endpoint)
    for session in victims.look(clock).values():
        assert session.archive_state == "complete"
        assert_archived(session)


# --- too much -----------------------------------------------------------------------------------


class Flood:
    """An endless answer that counts what of it was taken."""

    def __init__(self, beginning: bytes, size: int, content_type: str, **headers: str) -> None:
        self.beginning, self.size, self.content_type, self.headers = beginning, size, content_type, headers
        self.taken = 0

    def __call__(self, honest: Response) -> Response:
        headers = [("Content-Type", self.content_type), *self.headers.items()]
        return Response(headers=headers, body=self._pieces(), length=self.size)

    def _pieces(self) -> Iterator[bytes]:
        left, piece = self.size, self.beginning
        while left:
            piece = piece[:left]
            yield piece
            left -= len(piece)
            self.taken += len(piece)
            piece = b" " * 65536


def peak_memory(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_hundred_megabytes_of_json_are_not_read(
    scenario: Scenario, clock: Any, assert_archived: Archived
) -> None:
    flood = Flood(b'{"success": true, "result": {', 100 * MB, "application/json")
    victims = Victims(scenario, "25001", {"flood": flood}, "result_detail")
    memory = peak_memory(lambda: victims.look(clock))
    session = scenario.fresh(victims.sessions["flood"])
    assert flood.taken < 48 * MB
    assert memory < MAX_MEMORY
    assert (session.verdict, session.error_class) == ("pending", "retry")
    assert "too large" in session.error_message
    assert session.answers.count() == 0
    for neighbour in victims.neighbours():
        assert_archived(neighbour)


@pytest.mark.parametrize("endpoint", ["result_detail", "result_getall", "result_media_query"])
def test_a_bomb_of_json_is_not_unpacked(
    scenario: Scenario, clock: Any, assert_archived: Archived, endpoint: str
) -> None:
    packer = zlib.compressobj(1, wbits=31)
    bomb = packer.compress(b'{"success": true, "result": {"a": "')
    bomb += (
        b"".join(packer.compress(b"a" * MB) for _ in range(300)) + packer.compress(b'"}}') + packer.flush()
    )
    assert len(bomb) < 2 * MB
    victims = Victims(scenario, "25001", {"bomb": says(bomb, Content_Encoding="gzip")}, endpoint)
    memory = peak_memory(lambda: victims.look(clock))
    session = scenario.fresh(victims.sessions["bomb"])
    assert memory < MAX_MEMORY
    assert session.error_class == "retry"
    assert "too large" in session.error_message
    for neighbour in victims.neighbours():
        assert_archived(neighbour)


# --- wrong types --------------------------------------------------------------------------------

VALUES: dict[str, Any] = {
    "nothing": None,
    "no text": "",
    "true": True,
    "a negative number": -1,
    "forty digits": 10**39,
    "a number beyond all": 1e308,
    "an empty array": [],
    "an empty object": {},
    "arrays in arrays": [[["x"]]],
    "a long text": "x" * 30_000,
    "NULs and surrogates": "\x00\ud800\udfff\x1b[31m",
    "markup": "<script>alert(1)</script>",
    "a file": "file:///etc/passwd",
    "somewhere inside": "http://169.254.169.254/latest",
    "an address with a NUL": "http://127.0.0.1\x00.example.com/",
}
#: With these upstream says that there is none, which is its right; the last reads as a picture in base64.
SAY_SOMETHING_ELSE = {"nothing", "no text", "a long text"}


def with_leaves(value: Any, replacement: Any) -> Any:
    if isinstance(value, dict):
        return {key: with_leaves(item, replacement) for key, item in value.items()}
    if isinstance(value, list):
        return [with_leaves(item, replacement) for item in value]
    return replacement


def with_fields(value: Any, replacement: Any) -> Any:
    return dict.fromkeys(value, replacement)


@pytest.mark.parametrize("change", [with_leaves, with_fields])
@pytest.mark.parametrize("endpoint", RESULTS)
def test_wrong_types_break_nothing_and_lose_nothing(
    scenario: Scenario,
    clock: Any,
    assert_archived: Archived,
    endpoint: str,
    change: Callable[[Any, Any], Any],
) -> None:
    def with_value(value: Any) -> Lie:
        def lie(honest: Response) -> Response:
            payload = {**honest.payload, "result": change(honest.payload["result"], value)}
            # As it comes over the wire: lone surrogates in escapes.
            return Response.of_bytes(json.dumps(payload).encode("ascii"), "application/json")

        return lie

    victims = Victims(
        scenario, "25003", {name: with_value(value) for name, value in VALUES.items()}, endpoint
    )
    for name, session in victims.look(clock).items():
        assert session.verdict == "passed", name
        assert session.answers.filter(endpoint=endpoint).exists(), name
    for session in victims.neighbours():
        assert_archived(session)
    victims.repent()
    for name, session in victims.look(clock).items():
        if name not in SAY_SOMETHING_ELSE:
            assert session.archive_state == "complete", name
            assert_archived(session)


def test_what_is_deep_but_readable_is_read(scenario: Scenario, clock: Any, assert_archived: Archived) -> None:
    def lie(honest: Response) -> Response:
        deep: Any = 1
        for _ in range(150):
            deep = [deep]
        payload = {**honest.payload, "result": {**honest.payload["result"], "new": deep}}
        return Response.of_json(payload)

    victims = Victims(
        scenario, "25003", {"deep": lie}, "result_detail", "result_getall", "result_media_query"
    )
    (session,) = victims.look(clock).values()
    assert session.archive_state == "complete"
    assert_archived(session)


# --- files that are none ------------------------------------------------------------------------


def png_bomb(side: int = 60_000) -> bytes:
    """A small PNG of 60,000 × 60,000 pixels: 10 GB once it is decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = packer.compress(bytes(MB)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_bomb() -> bytes:
    """An honest JPEG whose header says 65,000 × 65,000."""
    data = image_bytes()
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", 65_000, 65_000) + data[at + 4 :]


def box(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I", size if size is not None else len(data) + 8) + kind + data


FILES: dict[str, Lie] = {
    "HTML": says(b"<!DOCTYPE html><script>alert(1)</script>", "image/jpeg"),
    "SVG": says(b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', "image/svg+xml"),
    "nothing": says(b"", "image/jpeg"),
    "NULs": says(bytes(4096), "video/mp4"),
    "a PNG bomb": says(png_bomb(), "image/png"),
    "a JPEG bomb": says(jpeg_bomb(), "image/jpeg"),
    "half a JPEG": says(image_bytes()[:300], "image/jpeg"),
    "an MP4 of one box": says(box(b"ftyp", b"isom\0\0\0\0isom"), "video/mp4"),
    "an MP4 that promises": says(box(b"ftyp", b"isom\0\0\0\0isom") + box(b"moov", b"", 2**31), "video/mp4"),
    "an MP4 without end": says(box(b"ftyp", b"isom\0\0\0\0isom") + box(b"moov", bytes(99), 0), "video/mp4"),
    "half an MP4": says(video_bytes()[:20_000], "video/mp4"),
    "a zipped picture": says(gzip.compress(image_bytes()), "image/jpeg", Content_Encoding="gzip"),
    "a redirect to a file": says(b"", None, 302, Location="file:///etc/passwd"),
    "a redirect inwards": says(b"", None, 302, Location="http://169.254.169.254/latest"),
    "a redirect to a neighbour": says(b"", None, 302, Location="http://127.0.0.1:9/"),
    "redirects for ever": says(b"", None, 302, Location="/v1/sandbox-media/again"),
}
#: Nothing came of these that could be kept.
NO_BYTES = {"nothing", "a zipped picture", *(name for name in FILES if "redirect" in name)}


@pytest.mark.parametrize("endpoint", ["media", "simple_image"])
def test_a_file_that_is_none_is_never_archived(
    scenario: Scenario, clock: Any, assert_archived: Archived, tmp_path: Path, endpoint: str
) -> None:
    victims = Victims(scenario, "25001", FILES, endpoint)
    victims.look(clock, 0.6)
    for name, first in victims.sessions.items():
        session = scenario.fresh(first)
        assert (session.verdict, session.archive_state) == ("passed", "collecting"), name
        refused = session.assets.wanted()
        assert refused.exists(), name
        assert all(asset.error_class and not asset.stored_name for asset in refused), name
        # The path that it leads to at last is none of the sandbox's.
        if name != "redirects for ever":
            assert {asset.error_class for asset in refused} == {"unsafe_media"}, name
            assert session.error_class == "unsafe_media", name
        kept = session.answers.filter(parsed=False, body__isnull=False)
        assert kept.exists() == (name not in NO_BYTES), name
        for answer in kept:
            assert set(json.loads(answer.body)) == {"refused", "base64"}, "as text it is never shown"
        # Nothing else of the session waits for it.
        other = "face" if endpoint == "media" else "process_video"
        assert session.assets.stored().filter(kind=other).exists(), name
    for session in victims.neighbours():
        assert_archived(session)
    assert UploadIntent.objects.count() == 0
    files = [path for path in (tmp_path / "archive").rglob("*") if path.is_file()]
    assert len(files) == MediaAsset.objects.stored().count()
    victims.repent()
    for name, session in victims.look(clock).items():
        assert session.archive_state == "complete", name
        assert_archived(session)


@pytest.mark.parametrize("bomb", ["a PNG bomb", "a JPEG bomb"])
def test_a_bomb_of_a_picture_is_not_decoded(scenario: Scenario, clock: Any, bomb: str) -> None:
    victims = Victims(scenario, "25001", {bomb: FILES[bomb]}, "media", "simple_image")
    memory = peak_memory(lambda: victims.look(clock))
    session = scenario.fresh(victims.sessions[bomb])
    assert memory < 16 * MB, "of 10 GB"
    assert session.assets.filter(error_class="unsafe_media", error_detail="too_many_pixels").count() == 6
    assert not session.assets.stored().exists()


@pytest.mark.parametrize(
    ("endpoint", "beginning", "most"),
    [
        # A picture is given up beyond 20 MB, what is no video at its first bytes.
        ("simple_image", image_bytes()[:200], 32 * MB),
        ("media", b"no video, nor picture", 32 * MB),
    ],
)
def test_a_flood_of_a_file_is_not_read(
    scenario: Scenario, clock: Any, assert_archived: Archived, endpoint: str, beginning: bytes, most: int
) -> None:
    flood = Flood(beginning, 400 * MB, "image/jpeg")
    victims = Victims(scenario, "25004" if endpoint == "media" else "25001", {"flood": flood}, endpoint)
    memory = peak_memory(lambda: victims.look(clock))
    (session,) = (scenario.fresh(session) for session in victims.sessions.values())
    assert session.archive_state == "collecting"
    assert flood.taken < most * session.assets.filter(error_class="unsafe_media").count()
    assert memory < MAX_MEMORY
    for neighbour in victims.neighbours():
        assert_archived(neighbour)


# --- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "lie", "lost", "why"),
    [
        ("result_getall", BODIES["deep arrays"], "attempt_face", "retry: not_json"),
        ("result_getall", BODIES["a result that is none"], None, ""),
        ("result_simple", BODIES["5,000 digits"], "face", "retry: not_json"),
        ("result_media_query", BODIES["NaN"], "process_video", "retry: not_json"),
        (
            "result_media_query",
            BODIES["a result that is none"],
            "process_video",
            "unknown: unreadable_result",
        ),
        ("simple_image", FILES["a JPEG bomb"], "face", "unsafe_media: too_many_pixels"),
        ("media", FILES["a redirect to a file"], "process_video", "unsafe_media: url"),
    ],
)
def test_who_is_lied_to_is_due_until_the_latest_deadline_and_then_says_why(
    scenario: Scenario, clock: Any, endpoint: str, lie: Lie, lost: str | None, why: str
) -> None:
    victims = Victims(scenario, "25001", {"victim": lie}, endpoint)
    (session,) = victims.look(clock).values()
    # For as long as Baidu may change its mind, and not much more often than every quarter of an hour.
    for _ in range(8):
        (session,) = victims.look(clock, 16).values()
    assert session.has_outstanding_work == (lost is not None)
    give_up_at = session.media_give_up_at if lost == "process_video" else session.results_give_up_at
    clock.set(give_up_at - timedelta(minutes=1))
    victims.look(clock, 0)
    assert not session.assets.filter(state=State.LOST).exists()
    clock.set(give_up_at)
    victims.look(clock, 16)
    clock.set(session.results_give_up_at)
    (session,) = victims.look(clock, 16).values()
    assert not session.has_outstanding_work
    if lost is None:
        # A clear answer, time and again: this Baidu does not offer the interface.
        assert session.archive_state == "complete"
        return
    asset = session.assets.filter(kind=lost).first()
    assert (asset.state, f"{asset.error_class}: {asset.error_detail}") == (State.LOST, why)
    assert session.archive_state == "partial"
    assert session.error_class


def test_a_verdict_that_is_never_readable_ends_as_unknown_and_says_why(
    scenario: Scenario, clock: Any
) -> None:
    victims = Victims(scenario, "25001", {"victim": BODIES["deep arrays"]}, "result_detail")
    (session,) = victims.look(clock).values()
    clock.set(session.results_give_up_at - timedelta(minutes=1))
    (session,) = victims.look(clock, 0).values()
    assert (session.verdict, session.has_outstanding_work) == ("pending", True)
    (session,) = victims.look(clock, 20).values()
    assert (session.verdict, session.has_outstanding_work) == ("unknown", False)
    assert (session.error_class, session.error_code) == ("retry", "not_json")
