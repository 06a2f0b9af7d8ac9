"""Reading back real files of the archive, complete and damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from django.core.files.storage import storages

from chaos.evidence import names_on_disk, read_everything, work_history
from chaos.verdict import ArchivedSession
from django_faceprint.models import MediaAsset
from tests.factories import image_bytes, make_session, make_stored_asset

pytestmark = pytest.mark.django_db(transaction=True)

Kind = MediaAsset.Kind


@pytest.fixture
def stored() -> MediaAsset:
    session = make_session(reference="day-1", verify_token="token")
    return make_stored_asset(session, Kind.FACE, image_bytes())


def path_of(asset: MediaAsset) -> Path:
    return Path(storages["faceprint"].path(asset.stored_name))


def archived() -> ArchivedSession:
    (mine,) = read_everything().values()
    return mine


def test_a_complete_file_is_read_decrypted_and_hashed(stored: MediaAsset) -> None:
    (file,) = archived().files
    assert file.digest == file.sha256 == hashlib.sha256(image_bytes()).hexdigest()
    assert (file.kind, file.attempt, file.position) == ("face", 0, 0)
    assert file.name in names_on_disk(Path(storages["faceprint"].path("")))


def test_half_a_file_has_no_digest(stored: MediaAsset) -> None:
    path = path_of(stored)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert archived().files[0].digest is None
    path.unlink()
    assert archived().files[0].digest is None


def test_a_changed_file_has_no_digest(stored: MediaAsset) -> None:
    path = path_of(stored)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    assert archived().files[0].digest is None


def test_the_work_history_has_the_files_and_no_secret(stored: MediaAsset) -> None:
    history = work_history("day-1")
    assert "face 0/0: stored" in history
    assert "token" not in history
