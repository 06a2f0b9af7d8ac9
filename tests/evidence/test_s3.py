"""The archive in an S3 storage, spoken to over its own protocol."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from django.contrib.auth import get_user_model
from django.core.files.storage import storages
from django.test import Client
from django.urls import reverse
from moto.server import ThreadedMotoServer

from django_faceprint.audit.access import Actor
from django_faceprint.evidence import erasure
from django_faceprint.models import MediaAsset, UploadIntent, VerificationSession
from django_faceprint.privacy.files import CHUNK_BYTES, sealed_size
from tests import factories
from tests.scenario import Scenario

BUCKET = "evidence"
PREFIX = "2026"
KEYS = {"aws_access_key_id": "id", "aws_secret_access_key": "canary-secret", "region_name": "bj"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 service on this machine; gives its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


class Bucket:
    """What lies in the bucket, and what was asked of it."""

    def __init__(self, url: str) -> None:
        self.client: Any = boto3.client("s3", endpoint_url=url, **KEYS)
        self.client.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": KEYS["region_name"]}
        )

    def names(self) -> set[str]:
        found = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {entry["Key"] for entry in found}

    def parts(self) -> list[Any]:
        """Uploads that were begun and neither finished nor given up."""
        return list(self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))

    def empty(self) -> None:
        for name in self.names():
            self.client.delete_object(Bucket=BUCKET, Key=name)
        self.client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def bucket(server: str, settings: Any) -> Iterator[Bucket]:
    """An empty bucket, and the settings pointing at it."""
    settings.STORAGES = {
        **settings.STORAGES,
        "faceprint": {
            "BACKEND": "storages.backends.s3.S3Storage",
            "OPTIONS": {
                "bucket_name": BUCKET,
                "location": PREFIX,
                "endpoint_url": server,
                "access_key": KEYS["aws_access_key_id"],
                "secret_key": KEYS["aws_secret_access_key"],
                "region_name": KEYS["region_name"],
            },
        },
    }
    bucket = Bucket(server)
    yield bucket
    bucket.empty()


def stored_names(session: VerificationSession) -> set[str]:
    names = session.assets.stored().values_list("stored_name", flat=True)
    return {f"{PREFIX}/{name}" for name in names}


def test_the_whole_way(
    scenario: Scenario, bucket: Bucket, assert_archived: Callable[[VerificationSession], None]
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    session = scenario.back(session)
    assert session.archive_state == "complete"
    assert_archived(session)
    assert bucket.names() == stored_names(session)
    erased = erasure.erase(
        VerificationSession.objects.filter(pk=session.pk), reason="request", actor=Actor("auditor", "test")
    )
    assert erased.verified_at is not None
    assert bucket.names() == set()


def test_what_lies_there_is_encrypted(scenario: Scenario, bucket: Bucket) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.back(session)
    names = bucket.names()
    assert names
    for name in names:
        body = bucket.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        assert body.startswith(b"DFPF")
        assert b"ftyp" not in body
        assert b"JFIF" not in body


@pytest.mark.django_db
def test_a_large_video_is_uploaded_in_parts_and_read_in_parts(bucket: Bucket) -> None:
    session = factories.make_passed_session()
    video = factories.make_stored_asset(session, "video", factories.video_bytes(padding=20_000_000))
    assert video.size is not None
    assert video.size > 20_000_000
    (name,) = bucket.names()
    assert bucket.client.head_object(Bucket=BUCKET, Key=name)["ContentLength"] == sealed_size(video.size)
    asked: list[tuple[str, str]] = []
    remote: Any = storages["faceprint"]
    remote.connection.meta.client.meta.events.register(
        "before-send.s3.*",
        lambda request, **_: asked.append((request.method, (request.headers.get("Range") or b"").decode())),
    )
    browser = Client()
    browser.force_login(get_user_model().objects.create_superuser("root"))
    start = 15_000_000
    answer = browser.get(
        reverse("admin:faceprint_verificationsession_media", args=[video.public_id]),
        headers={"range": f"bytes={start}-{start + 99}"},
    )
    assert answer.status_code == 206
    assert answer.getvalue() == factories.video_bytes(padding=20_000_000)[start : start + 100]
    # Never the object from its start to its end without a stop: each read begins where it is needed.
    positions = [int(given[6:].partition("-")[0]) for method, given in asked if method == "GET"]
    assert 0 < len(positions) <= 5
    assert any(position >= start // CHUNK_BYTES * CHUNK_BYTES for position in positions)
    assert all(given for method, given in asked if method == "GET")


def test_a_download_that_breaks_off_leaves_nothing_behind(
    scenario: Scenario, bucket: Bucket, clock: Any
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault("media", "reset", after_bytes=1_000)
    session = scenario.back(session)
    video = session.assets.get(kind="process_video")
    assert video.state == MediaAsset.State.WANTED
    assert bucket.names() == stored_names(session)
    assert bucket.parts() == []
    assert not UploadIntent.objects.exists()
    scenario.heal()
    clock.advance(minutes=5)
    scenario.work()
    assert scenario.fresh(session).archive_state == "complete"


def test_a_bucket_that_is_gone_keeps_the_session_due(
    scenario: Scenario, settings: Any, bucket: Bucket
) -> None:
    options = settings.STORAGES["faceprint"]["OPTIONS"] | {"bucket_name": "no-such-bucket"}
    kept = settings.STORAGES
    settings.STORAGES = {**kept, "faceprint": {**kept["faceprint"], "OPTIONS": options}}
    session = scenario.start("25001")
    scenario.finish(session)
    session = scenario.back(session)
    assert not session.assets.stored().exists()
    assert session.has_outstanding_work
    texts = " ".join(session.assets.values_list("error_detail", flat=True)) + session.error_message
    assert "canary-secret" not in texts
    assert "no-such-bucket" not in texts


@pytest.mark.django_db
def test_a_file_that_was_removed_from_the_bucket_is_told(bucket: Bucket) -> None:
    session = factories.make_passed_session()
    face = factories.make_stored_asset(session, "face")
    bucket.client.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{face.stored_name}")
    browser = Client()
    browser.force_login(get_user_model().objects.create_superuser("root"))
    answer = browser.get(reverse("admin:faceprint_verificationsession_media", args=[face.public_id]))
    assert answer.status_code == 503
