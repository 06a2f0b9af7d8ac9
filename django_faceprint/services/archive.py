"""Files, whole or not at all: check, hash, encrypt, store, then commit the row under the lease.

The plaintext is never written to disk. Pictures are small and checked in memory before they are
stored; videos are streamed, encrypted on the way, and checked by reading the stored file back.
"""

from __future__ import annotations

import io
import logging
import secrets
from collections.abc import Iterable, Iterator
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


def store(lease: Lease, asset: MediaAsset, chunks: Iterable[bytes], *, plain_http: bool = False) -> None:
    """Store the file that *chunks* make up as *asset*.

    Raises :class:`UnsafeMedia` when it is not what was promised, :class:`StorageFailed` when the
    storage fails, :class:`LeaseLost` when the session was taken over, ``RuntimeError`` inside a database
    transaction, and whatever reading *chunks* raises. In every such case the asset is unchanged and
    nothing half-written is referred to.
    """
    upstream.refuse_inside_transaction()
    facts: _Facts | None = None
    if not asset.is_video:
        data = _read_image(chunks)
        facts = _image_facts(data)
        chunks = [data]
    key = new_file_key()
    stream = EncryptingStream(chunks, key, asset.public_id)
    intent = UploadIntent.objects.create(name=_random_name(), asset=asset)
    try:
        _save(intent, stream)
        if facts is None:
            facts = _video_facts(asset, intent.name, key, stream.plain_size)
        _commit(lease, asset, intent, key, stream, facts, plain_http)
    except (FaceprintError, StorageFailed, LeaseLost):
        discard_upload(intent)
        raise


def open_stored(asset: MediaAsset) -> DecryptingReader:
    """Read a stored asset's plaintext, any part of it.

    Raises :class:`StorageFailed` when the file cannot be opened and ``SealBroken`` when it, its row
    or its key were changed. The caller closes the reader.
    """
    if asset.state != MediaAsset.State.STORED or asset.wrapped_key is None or asset.size is None:
        raise StorageFailed("not stored")
    key = unwrap_file_key(bytes(asset.wrapped_key), asset.public_id)
    return DecryptingReader(_open(asset.stored_name), key, asset.public_id, asset.size)


def discard_upload(intent: UploadIntent) -> bool:
    """Delete an uncommitted file and its intent; False when the storage refused, to be tried again later."""
    try:
        storage().delete(intent.name)
    except Exception as error:  # noqa: BLE001  (storages raise what they like)
        logger.warning("faceprint: an uncommitted file could not be deleted: %s", type(error).__name__)
        return False
    intent.delete()
    return True


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


def _save(intent: UploadIntent, stream: EncryptingStream) -> None:
    failure = ""
    try:
        name = storage().save(intent.name, File(cast(IO[bytes], stream)))
    except FaceprintError:
        raise
    except Exception as error:  # noqa: BLE001  (storages raise what they like)
        failure = type(error).__name__
    if failure:
        raise StorageFailed(failure)
    if name != intent.name:
        # A storage may alter names; whatever it returns is the truth.
        intent.name = name
        intent.save(update_fields=["name"])


def _open(name: str) -> IO[Any]:
    failure = ""
    try:
        return storage().open(name, "rb")
    except Exception as error:  # noqa: BLE001  (storages raise what they like)
        failure = type(error).__name__
    raise StorageFailed(failure)


def _commit(
    lease: Lease,
    asset: MediaAsset,
    intent: UploadIntent,
    key: bytes,
    stream: EncryptingStream,
    facts: _Facts,
    plain_http: bool,
) -> None:
    moment = now()
    with lease.fenced():
        changed = (
            MediaAsset.objects.wanted()
            .filter(pk=asset.pk)
            .update(
                state=MediaAsset.State.STORED,
                reason="",
                error="",
                sha256=stream.sha256,
                size=stream.plain_size,
                content_type=facts.content_type,
                width=facts.width,
                height=facts.height,
                duration=facts.duration,
                plain_http=plain_http,
                stored_name=intent.name,
                wrapped_key=wrap_file_key(key, asset.public_id),
                archived_at=moment,
            )
        )
        if not changed:
            raise LeaseLost
        # Retention takes an old intent over by its time before it deletes the file: then ours is too late.
        if not UploadIntent.objects.filter(pk=intent.pk, created_at=intent.created_at).delete()[0]:
            raise LeaseLost
        asset.refresh_from_db()
        transaction.on_commit(lambda: events.asset_archived(asset))
