"""One small, blurred, sealed thumbnail per record; hostile pictures cause no failure."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest
from PIL import Image

from django_faceprint.audit.access import Actor
from django_faceprint.clock import now
from django_faceprint.evidence import erasure
from django_faceprint.evidence.thumbnails import MAX_BYTES, make_thumbnail, open_thumbnail_of, portrait_of
from django_faceprint.maintenance.retention import retain
from django_faceprint.maintenance.rotation import rotate_keys
from django_faceprint.models import MediaAsset, Plan, VerificationSession
from django_faceprint.privacy.files import new_file_key, open_thumbnail, seal_thumbnail
from django_faceprint.privacy.keys import SealBroken, generate_key
from tests.factories import image_bytes
from tests.scenario import Scenario

Kind = MediaAsset.Kind
State = MediaAsset.State


def picture(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def striped(width: int, height: int) -> Image.Image:
    """Black and white columns in turn: blurring makes them grey."""
    row = bytes(255 * (x // 40 % 2) for x in range(width))
    return Image.frombytes("L", (width, height), row * height)


class TestMaking:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
    def test_is_small_blurred_and_a_jpeg(self, kind: str) -> None:
        small = make_thumbnail(picture(striped(640, 480).convert("RGB"), kind))
        assert small is not None
        assert len(small) <= MAX_BYTES
        with Image.open(io.BytesIO(small)) as image:
            assert (image.format, image.size) == ("JPEG", (32, 24))
            levels = image.convert("L").getextrema()
        # The blur has mixed black and white.
        assert 30 < levels[0] < levels[1] < 225

    def test_noise_stays_within_two_kilobytes(self) -> None:
        noise = Image.frombytes("RGB", (400, 400), os.urandom(480_000))
        small = make_thumbnail(picture(noise, "PNG"))
        assert small is not None
        assert len(small) <= MAX_BYTES

    def test_a_picture_is_never_enlarged(self) -> None:
        for size, expected in {(1, 1): (1, 1), (3000, 2): (32, 1), (16, 20): (16, 20)}.items():
            small = make_thumbnail(picture(Image.new("CMYK", size)))
            assert small is not None
            with Image.open(io.BytesIO(small)) as image:
                assert image.size == expected

    def test_metadata_of_the_picture_is_dropped(self) -> None:
        exif = Image.Exif()
        exif[0x010E] = "CANARY-exif"
        data = picture(
            Image.new("RGB", (64, 64)), exif=exif, comment=b"CANARY-comment", icc_profile=b"CANARY-icc"
        )
        assert b"CANARY" in data
        small = make_thumbnail(data)
        assert small is not None
        assert b"CANARY" not in small

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"GIF89a",
            image_bytes()[:200],
            image_bytes()[:-40],
            b"%PDF-1.4",
            b"\x89PNG\r\n\x1a\n" + bytes(50),
            b"BM" + bytes(60),
        ],
    )
    def test_a_picture_that_cannot_be_decoded_has_none(self, data: bytes) -> None:
        assert make_thumbnail(data) is None

    def test_a_bomb_is_not_unpacked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: Any) -> None:
            raise AssertionError("it was unpacked")

        bomb = picture(Image.new("1", (6000, 6000)), "PNG")
        assert len(bomb) < 20_000
        monkeypatch.setattr(Image.Image, "convert", refuse)
        assert make_thumbnail(bomb) is None

    def test_a_large_jpeg_is_decoded_at_an_eighth(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes = []
        convert = Image.Image.convert

        def watch(image: Image.Image, *args: Any) -> Image.Image:
            sizes.append(image.size)
            return convert(image, *args)

        data = picture(Image.new("RGB", (4000, 3000)))
        monkeypatch.setattr(Image.Image, "convert", watch)
        assert make_thumbnail(data) is not None
        assert sizes[0] == (500, 375)


class TestSealing:
    def test_opens_with_its_files_key_for_its_file_only(self) -> None:
        key, asset = new_file_key(), MediaAsset()
        sealed = seal_thumbnail(b"small", key, asset.public_id)
        assert open_thumbnail(sealed, key, asset.public_id) == b"small"
        assert seal_thumbnail(b"small", key, asset.public_id) != sealed
        for other in (
            (sealed, new_file_key(), asset.public_id),
            (sealed, key, MediaAsset().public_id),
            (sealed[:-1] + bytes([sealed[-1] ^ 1]), key, asset.public_id),
            (b"\x02" + sealed[1:], key, asset.public_id),
            (sealed[:20], key, asset.public_id),
            (b"", key, asset.public_id),
        ):
            with pytest.raises(SealBroken):
                open_thumbnail(*other)


@pytest.mark.django_db
class TestOfARecord:
    @pytest.fixture
    def session(self, scenario: Scenario, failing: Any) -> VerificationSession:
        session = scenario.start("25003")
        scenario.finish(session)
        return scenario.back(session)

    def test_one_picture_has_a_thumbnail_and_it_is_sealed(self, session: VerificationSession) -> None:
        face = session.assets.get(thumbnail__isnull=False)
        assert face.kind == Kind.FACE
        assert face.thumbnail is not None
        assert len(face.thumbnail) <= MAX_BYTES + 29
        assert b"JFIF" not in bytes(face.thumbnail)
        small = open_thumbnail_of(face)
        assert small is not None
        with Image.open(io.BytesIO(small)) as image:
            assert max(image.size) == 32

    def test_a_rotation_of_keys_leaves_it_readable(self, session: VerificationSession, settings: Any) -> None:
        before = session.assets.get(kind="face")
        keys = settings.FACEPRINT["ENCRYPTION_KEYS"]
        new = generate_key()
        settings.FACEPRINT = {**settings.FACEPRINT, "ENCRYPTION_KEYS": [new, *keys]}
        assert rotate_keys().broken == []
        settings.FACEPRINT = {**settings.FACEPRINT, "ENCRYPTION_KEYS": [new]}
        after = session.assets.get(kind="face")
        assert before.wrapped_key != after.wrapped_key
        assert before.thumbnail == after.thumbnail
        assert open_thumbnail_of(after) is not None
        assert open_thumbnail_of(before) is None

    def test_it_is_deleted_with_its_file(self, session: VerificationSession, clock: Any) -> None:
        MediaAsset.objects.filter(session=session, kind="face").update(retain_until=now())
        clock.advance(seconds=1)
        assert retain().files == 1
        assert not session.assets.filter(thumbnail__isnull=False).exists()

    def test_it_is_deleted_with_its_record(self, session: VerificationSession, clock: Any) -> None:
        rows = VerificationSession.objects.filter(pk=session.pk)
        erasure.erase(rows, reason="request", actor=Actor("", "dpo"))
        assert not session.assets.filter(thumbnail__isnull=False).exists()

    @pytest.mark.parametrize(
        ("off", "outcome", "expected"),
        [
            ({"face": 0}, "pass", ("attempt_face", 1)),
            ({}, "fail", ("attempt_face", 1)),
            ({"face": 0, "attempt_face": 0}, "pass", ("frame", 0)),
        ],
    )
    def test_without_a_face_another_picture_has_the_thumbnail(
        self, scenario: Scenario, failing: Any, off: dict[str, int], outcome: str, expected: tuple[str, int]
    ) -> None:
        Plan.objects.filter(plan_id="25001").update(retention=off)
        session = scenario.start("25001")
        scenario.finish(session, outcome, **({"code": "223120"} if outcome == "fail" else {}))
        scenario.back(session)
        asset = session.assets.get(thumbnail__isnull=False)
        assert (asset.kind, asset.attempt_order) == expected
        assert asset.position == 0

    def test_a_failing_decoder_does_not_stop_the_archive(
        self, scenario: Scenario, failing: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any, **options: Any) -> Image.Image:
            opened.append(args)
            raise OSError("decoder")

        opened: list[Any] = []
        monkeypatch.setattr(Image, "open", fail)
        session = scenario.start("25001")
        scenario.finish(session)
        assert scenario.back(session).archive_state == "complete"
        assert len(opened) == 1
        assert not session.assets.filter(thumbnail__isnull=False).exists()


def test_the_face_comes_first_then_the_first_attempt() -> None:
    def asset(kind: str, state: str = State.WANTED, **place: int) -> MediaAsset:
        return MediaAsset(kind=kind, state=state, **place)

    second = asset(Kind.ATTEMPT_FACE, attempt_order=2)
    first = asset(Kind.ATTEMPT_FACE, attempt_order=1)
    video = asset(Kind.VIDEO)
    assert portrait_of([]) is None
    assert portrait_of([video, asset(Kind.ID_FRONT)]) is None
    assert portrait_of([video, second, first, asset(Kind.FACE, State.NOT_PROVIDED)]) is first
    face = asset(Kind.FACE, State.STORED)
    assert portrait_of([second, first, face]) is face
