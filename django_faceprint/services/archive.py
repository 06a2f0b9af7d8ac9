"""Files, whole or not at all: check, hash, encrypt, store; the row that refers to them comes last.

The plaintext is never written to disk. Pictures are small and checked in memory before they are
stored; videos are streamed, encrypted on the way, and checked by reading the stored file back.
"""

from __future__ import annotations

import io
import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Any, cast

from django.core.files import File
from django.core.files.storage import Storage, storages
from django.db import transaction

from django_faceprint.clock import now
from django_faceprint.exceptions import FaceprintError, UnsafeMedia
from django_faceprint.media_types import NotMedia, describe_image, describe_video
from django_faceprint.models import MediaAsset, UploadIntent
from django_faceprint.privacy.files import (
    DecryptingReader,
    EncryptingStream,
    new_file_key,
    unwrap_file_key,
    wrap_file_key,
)
from django_faceprint.privacy.keys import SealBroken

from . import events, upstream
from .desk import on_desk
from .schedule import LEASE_SECONDS, Lease, LeaseLost

logger = logging.getLogger(__name__)

STORAGE_ALIAS = "faceprint"
MAX_IMAGE_BYTES = 20 * 1024 * 1024
#: An upload that has not been committed after this time never will be: its lease is long over.
INTENT_LIFE = timedelta(seconds=4 * LEASE_SECONDS)


class StorageFailed(Exception):
    """The storage could not be written or read. The asset stays due; carries the error's type only."""


@dataclass(frozen=True)
class _Facts:
    content_type: str
    width: int | None
    height: int | None
    duration: float | None


def storage() -> Storage:
    """The private storage of this app; there is no fallback to ``default``."""
    return storages[STORAGE_ALIAS]


def save(
    asset: MediaAsset, name: str, chunks: Iterable[bytes], *, plain_http: bool = False
) -> dict[str, Any]:
    """Write the file that *chunks* make up, encrypted, under the reserved *name*.

    Returns the columns of *asset* that make it stored; the caller writes them, together with the end of the
    reservation. No database is used here.

    Raises :class:`UnsafeMedia` when it is not what was promised, :class:`StorageFailed` when the storage
    fails, and whatever reading *chunks* raises. In every such case *name* may hold part of a file.
    """
    facts: _Facts | None = None
    if not asset.is_video:
        data = _read_image(chunks)
        facts = _image_facts(data)
        chunks = [data]
    key = new_file_key()
    stream = EncryptingStream(chunks, key, asset.public_id)
    written = _write(name, stream)
    if facts is None:
        facts = _video_facts(asset, written, key, stream.plain_size)
    return {
        "state": MediaAsset.State.STORED,
        "reason": "",
        "error": "",
        "sha256": stream.sha256,
        "size": stream.plain_size,
        "content_type": facts.content_type,
        "width": facts.width,
        "height": facts.height,
        "duration": facts.duration,
        "plain_http": plain_http,
        "stored_name": written,
        "wrapped_key": wrap_file_key(key, asset.public_id),
        "archived_at": now(),
    }


def store(lease: Lease, asset: MediaAsset, chunks: Iterable[bytes]) -> None:
    """Store one file of an asset that has its row, and commit it under *lease*.

    Raises as :func:`save` does, :class:`LeaseLost` when the session was taken over, and ``RuntimeError``
    inside a database transaction. In every such case the asset is unchanged and nothing half-written is
    referred to.
    """
    upstream.refuse_inside_transaction()
    (name,) = reserve_names(lease.session_pk, 1)
    try:
        columns = save(asset, name, chunks)
        with lease.fenced():
            wanted = MediaAsset.objects.wanted().filter(pk=asset.pk)
            if not wanted.update(**columns) or not settle_names([columns["stored_name"]]):
                raise LeaseLost
            asset.refresh_from_db()
            transaction.on_commit(lambda: events.asset_archived(asset))
    except (FaceprintError, StorageFailed, LeaseLost):
        discard([name])
        raise


def reserve_names(session_pk: int, count: int) -> list[str]:
    """Names for *count* uploads of a session, recorded so that what is left of a crash can be found."""
    names = [_random_name() for _ in range(count)]
    UploadIntent.objects.bulk_create(UploadIntent(name=name, session_id=session_pk) for name in names)
    return names


def settle_names(names: Sequence[str]) -> bool:
    """End reservations in the transaction that refers to their files.

    False when one of them has been abandoned: then none of the files may be referred to.
    """
    return UploadIntent.objects.filter(name__in=names, abandoned=False).delete()[0] == len(names)


def discard(names: Sequence[str]) -> None:
    """Delete files that nothing refers to; where the storage refuses, retention tries again later."""
    deleted = [name for name in names if delete_file(name)]
    UploadIntent.objects.filter(name__in=deleted).delete()


def delete_file(name: str) -> bool:
    """Delete a file that nothing refers to; False when the storage refused."""
    try:
        storage().delete(name)
    except Exception as error:  # noqa: BLE001  (storages raise what they like)
        logger.warning("faceprint: an uncommitted file could not be deleted: %s", type(error).__name__)
        return False
    return True


def open_stored(asset: MediaAsset) -> DecryptingReader:
    """Read a stored asset's plaintext, any part of it.

    Raises :class:`StorageFailed` when the file cannot be opened and ``SealBroken`` when it, its row
    or its key were changed. The caller closes the reader.
    """
    if asset.state != MediaAsset.State.STORED or asset.wrapped_key is None or asset.size is None:
        raise StorageFailed("not stored")
    key = unwrap_file_key(bytes(asset.wrapped_key), asset.public_id)
    return DecryptingReader(_open(asset.stored_name), key, asset.public_id, asset.size)


def _random_name() -> str:
    name = secrets.token_hex(20)
    return f"{name[:2]}/{name[2:4]}/{name}"


def _read_image(chunks: Iterable[bytes]) -> bytes:
    buffer = io.BytesIO()
    for chunk in chunks:
        buffer.write(chunk)
        if buffer.tell() > MAX_IMAGE_BYTES:
            raise UnsafeMedia("too_large")
    return buffer.getvalue()


def _image_facts(data: bytes) -> _Facts:
    with _refusing_non_media():
        image = describe_image(io.BytesIO(data))
        return _Facts(image.content_type, image.width, image.height, None)


def _video_facts(asset: MediaAsset, name: str, key: bytes, size: int) -> _Facts:
    with DecryptingReader(_open(name), key, asset.public_id, size) as reader:
        problem = ""
        try:
            with _refusing_non_media():
                video = describe_video(io.BufferedReader(reader, 65536))
                return _Facts(video.content_type, video.width, video.height, video.duration)
        except (OSError, SealBroken) as error:
            problem = type(error).__name__
        raise StorageFailed(problem)


@contextmanager
def _refusing_non_media() -> Iterator[None]:
    reason = ""
    try:
        yield
    except NotMedia as error:
        reason = error.reason
    if reason:
        raise UnsafeMedia(reason)


def _write(name: str, stream: EncryptingStream) -> str:
    failure = ""
    written = name
    try:
        written = storage().save(name, File(cast(IO[bytes], stream)))
    except FaceprintError:
        raise
    except Exception as error:  # noqa: BLE001  (storages raise what they like)
        failure = type(error).__name__
    if failure:
        raise StorageFailed(failure)
    if written != name:
        # A storage may alter names; whatever it returns is the truth.
        on_desk(lambda: UploadIntent.objects.filter(name=name).update(name=written))
    return written


def _open(name: str) -> IO[Any]:
    failure = ""
    try:
        return storage().open(name, "rb")
    except Exception as error:  # noqa: BLE001  (storages raise what they like)
        failure = type(error).__name__
    raise StorageFailed(failure)
