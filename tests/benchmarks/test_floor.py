"""The floor does the engine's work: the product reads its files and rows, and the benchmark accepts them."""

from __future__ import annotations

import hashlib
import json
import uuid
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.db import models

from benchmarks import floor, sessions, upstream
from django_faceprint.models import (
    MediaAsset,
    UpstreamAnswer,
    UpstreamCall,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.privacy.fields import EncryptedField, Sealed
from django_faceprint.privacy.files import DecryptingReader, unwrap_file_key
from django_faceprint.privacy.keys import encryption_ring

ADDRESS = "http://127.0.0.1:1"
MODELS: dict[str, type[models.Model]] = {
    model._meta.db_table: model for model in (MediaAsset, UpstreamAnswer, VerificationAttempt, UpstreamCall)
}


class Response(BytesIO):
    """What the floor uses of urllib3's."""

    status = 200

    @property
    def data(self) -> bytes:
        return self.getvalue()

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Length": str(len(self.data))}

    def release_conn(self) -> None:
        self.close()


class Pool:
    """Answers as nginx does in the benchmark, from the same files."""

    def __init__(self, content: Path) -> None:
        self._content = content

    def urlopen(self, method: str, path: str, **options: Any) -> Response:
        if method == "GET":
            return Response((self._content / path.rpartition("/")[2]).read_bytes())
        (name,) = (name for name, place in upstream.ANSWERS.items() if place == path.partition("?")[0])
        media = f"{ADDRESS}/media/1"
        small: dict[str, Any] = {
            "simple": {"image": f"{media}/{upstream.FACE}"},
            "media": {
                "processVideo": [f"{media}/{upstream.VIDEO}"],
                "images": [f"{media}/{frame}" for frame in upstream.FRAME_NAMES],
            },
            "stat": {},
        }
        if name in small:
            return Response(json.dumps({"success": True, "result": small[name], "log_id": "1"}).encode())
        return Response((self._content / name).read_bytes())


@pytest.mark.parametrize("size", [1, floor.CHUNK - 1, floor.CHUNK, floor.CHUNK + 1, 2 * floor.PIECE])
def test_the_product_opens_its_files(tmp_path: Path, size: int) -> None:
    data, file_id = bytes(range(256)) * (size // 256 + 1), uuid.uuid4()
    pieces = [data[start : min(start + floor.PIECE, size)] for start in range(0, size, floor.PIECE)]
    stored = floor.store(encryption_ring(), str(tmp_path), file_id, size, pieces)
    key = unwrap_file_key(stored.wrapped_key, file_id)
    with (tmp_path / stored.name).open("rb") as file:
        assert DecryptingReader(file, key, file_id, size).read() == data[:size]
    assert (stored.sha256, stored.size) == (hashlib.sha256(data[:size]).hexdigest(), size)


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="99 bytes instead of 100"):
        floor.store(encryption_ring(), str(tmp_path), uuid.uuid4(), 100, [bytes(99)])


@pytest.mark.parametrize("table", floor.COLUMNS)
def test_rows_have_every_column_of_their_table(table: str) -> None:
    fields = MODELS[table]._meta.concrete_fields
    assert set(floor.COLUMNS[table]) == {field.column for field in fields if not field.primary_key}


@pytest.mark.django_db
def test_the_benchmark_accepts_an_archived_session(tmp_path: Path, settings: Any) -> None:
    archive = tmp_path / "archive"
    settings.STORAGES = {
        **settings.STORAGES,
        "faceprint": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": archive},
        },
    }
    hashes = upstream._write_files(tmp_path, upstream.VIDEO_BYTES)
    sessions.start(1)
    row = VerificationSession.objects.get()
    sealed = VerificationSession.objects.values_list("verify_token", flat=True).get()
    shared = floor.Shared(
        *(str(archive), ADDRESS, Pool(tmp_path), encryption_ring()),
        spans=dict.fromkeys(MediaAsset.Kind.values),
        record_span=None,
    )
    session = floor.Session(
        *(row.pk, row.public_id, row.environment, row.application, sealed.token),
        *(row.media_give_up_at, row.results_give_up_at),
    )
    archived = floor.SessionArchive(shared, session)
    archived.run()
    for table, rows in archived.rows.items():
        for values in rows:
            write(MODELS[table], dict(zip(floor.COLUMNS[table], values, strict=True)))
    changed = as_attributes(VerificationSession, dict(zip(floor.UPDATED, archived.updated, strict=False)))
    VerificationSession.objects.filter(pk=row.pk).update(**changed, wake_at=None)
    sessions.verify(1, hashes, str(archive))


def write(model: type[models.Model], columns: dict[str, Any]) -> None:
    model._default_manager.create(**as_attributes(model, columns))


def as_attributes(model: type[models.Model], columns: dict[str, Any]) -> dict[str, Any]:
    """Values of *columns* as attributes of *model*: JSON is read, sealed values are marked as such."""
    values = {}
    for name, value in columns.items():
        field = model._meta.get_field(name)
        if isinstance(field, models.JSONField):
            value = json.loads(value)
        elif isinstance(field, EncryptedField):
            value = Sealed(value, field.label)
        values[name] = value
    return values
