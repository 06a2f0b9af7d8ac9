"""Files, whole or not at all: check, hash, encrypt, store; the row that refers to them comes last.

The plaintext is never written to disk. Pictures are small and checked in memory before they are
stored; videos are streamed, checked and encrypted on the way.
"""

from __future__ import annotations

import io
import logging
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Any, Protocol, TypeVar, cast
from uuid import UUID

from django.core.files import File
from django.core.files.storage import Storage, storages
from django.db import transaction

from django_faceprint.base import events
from django_faceprint.base.db_thread import Interrupts, RunEnded
from django_faceprint.base.lease import MAX_LEASE_SECONDS, Lease, LeaseLost
from django_faceprint.clock import now
from django_faceprint.exceptions import FaceprintError, UnsafeMedia, replace_exceptions
from django_faceprint.models import MediaAsset, UploadIntent
from django_faceprint.privacy.files import (
    DecryptingReader,
    EncryptingStream,
    new_file_key,
    seal_thumbnail,
    unwrap_file_key,
    wrap_file_key,
)
from django_faceprint.upstream import clients

from .media_types import NotMedia, VideoInspector, describe_image
from .thumbnails import make_thumbnail

logger = logging.getLogger(__name__)

_Key = TypeVar("_Key", int, int | None)

STORAGE_ALIAS = "faceprint"
MAX_IMAGE_BYTES = 20 * 1024 * 1024
#: What is not what was promised is kept as evidence up to this size.
MAX_REFUSED_BYTES = 64 * 1024
#: An upload that has not been committed after this time never will be: its lease is long over.
INTENT_LIFE = timedelta(seconds=4 * MAX_LEASE_SECONDS)


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


def write_checked(
    asset: MediaAsset,
    name: str,
    chunks: Iterable[bytes],
    *,
    plain_http: bool = False,
    with_thumbnail: bool = False,
    interrupts: Interrupts = (),
) -> dict[str, Any]:
    """Check, encrypt and write the file that *chunks* make up, under the reserved *name*. Commits nothing.

    Returns the columns of *asset* that make it stored. The caller writes them in the transaction that settles
    the name; where ``stored_name`` differs from *name*, the storage has altered it: call
    :func:`rename_reserved` first. *with_thumbnail*: make one of the picture, if possible. *interrupts* pass
    through unchanged, even out of the storage. Uses no database.

    Raises :class:`UnsafeMedia` when the content is not a picture or video of the promised kind (``raw`` then
    holds the bytes, if they are few), :class:`StorageFailed` when the storage fails, and whatever reading
    *chunks* raises. In all these cases part of a file may lie under *name*.
    """
    check: _Check = _VideoCheck(chunks) if asset.is_video else _PictureCheck(chunks)
    key = new_file_key()
    sealed = write_unchecked(asset.public_id, name, check.chunks(), key=key, interrupts=interrupts)
    try:
        facts = check.facts()
    except UnsafeMedia:
        if sealed["stored_name"] != name:
            # The caller knows the reserved name alone.
            delete_file(sealed["stored_name"])
        raise
    return {
        **sealed,
        "state": MediaAsset.State.STORED,
        "reason": "",
        "error_class": "",
        "error_detail": "",
        "content_type": facts.content_type,
        "width": facts.width,
        "height": facts.height,
        "duration": facts.duration,
        "plain_http": plain_http,
        "thumbnail": check.thumbnail(key, asset.public_id) if with_thumbnail else None,
        "archived_at": now(),
    }


def write_unchecked(
    file_id: UUID,
    name: str,
    chunks: Iterable[bytes],
    *,
    key: bytes | None = None,
    interrupts: Interrupts = (),
) -> dict[str, Any]:
    """Encrypt and write *chunks*, unchecked, under the reserved *name*.

    Returns the columns ``stored_name``, ``wrapped_key``, ``sha256`` and ``size`` of the row that refers
    to the file, whose identity *file_id* is. Raises :class:`StorageFailed`, and whatever reading
    *chunks* raises.
    """
    key = key or new_file_key()
    stream = EncryptingStream(chunks, key, file_id)
    written = _write(name, stream, interrupts)
    return {
        "stored_name": written,
        "wrapped_key": wrap_file_key(key, file_id),
        "sha256": stream.sha256,
        "size": stream.plain_size,
    }


def write_and_commit(lease: Lease, asset: MediaAsset, chunks: Iterable[bytes]) -> None:
    """Store one file of an asset that has its row, and commit it under *lease*.

    Raises as :func:`write_checked` does, :class:`LeaseLost` when the session was taken over, and
    ``RuntimeError`` inside a database transaction. In all these cases the asset is unchanged, and no row
    refers to part of a file.
    """
    clients.refuse_inside_transaction()
    (name,) = reserve_names(lease.session_pk, 1)
    try:
        columns = write_checked(asset, name, chunks)
        rename_reserved(name, columns["stored_name"])
        name = columns["stored_name"]
        with lease.fenced():
            wanted = MediaAsset.objects.wanted().filter(pk=asset.pk)
            if not wanted.update(**columns) or not end_reservations([name]):
                raise LeaseLost
            asset.refresh_from_db()
            transaction.on_commit(lambda: events.asset_archived(asset))
    except (FaceprintError, StorageFailed, LeaseLost):
        discard([name])
        raise


def reserve_names(session_pk: int | None, count: int) -> list[str]:
    """Names for *count* uploads, recorded so that files of a crash can be found and deleted.

    *session_pk* is None for the files of a job.
    """
    return reserve_names_of_many({session_pk: count})[session_pk]


def reserve_names_of_many(counts: Mapping[_Key, int]) -> dict[_Key, list[str]]:
    """Names for many sessions in one statement; *counts* and the result by the session's key."""
    names = {session_pk: [_random_name() for _ in range(count)] for session_pk, count in counts.items()}
    UploadIntent.objects.bulk_create(
        UploadIntent(name=name, session_id=session_pk) for session_pk, own in names.items() for name in own
    )
    return names


def rename_reserved(name: str, written: str) -> None:
    """The storage has written the file reserved as *name* under another name."""
    if written != name:
        UploadIntent.objects.filter(name=name).update(name=written)


def end_reservations(names: Sequence[str]) -> bool:
    """End the reservations of *names*; False when one was abandoned, so that no row may refer to its file.

    Called in the transaction that refers to the files, or for names that no upload has used.
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


def is_gone(name: str) -> bool:
    """Whether storage says that there is no such file; False too when it cannot say."""
    try:
        return not storage().exists(name)
    except Exception as error:  # noqa: BLE001  (storages raise what they like)
        logger.warning("faceprint: storage cannot say whether a file is gone: %s", type(error).__name__)
        return False


def open_stored(asset: MediaAsset) -> DecryptingReader:
    """Read a stored asset's plaintext, any part of it.

    Raises :class:`StorageFailed` when the file cannot be opened and ``SealBroken`` when it, its row
    or its key were changed. The caller closes the reader.
    """
    if asset.state != MediaAsset.State.STORED or asset.wrapped_key is None or asset.size is None:
        raise StorageFailed("not stored")
    return open_sealed(asset.public_id, asset.stored_name, bytes(asset.wrapped_key), asset.size)


def open_sealed(file_id: UUID, name: str, wrapped_key: bytes, size: int) -> DecryptingReader:
    """Read what :func:`write_unchecked` wrote; raises as :func:`open_stored` does."""
    key = unwrap_file_key(wrapped_key, file_id)
    return DecryptingReader(_open(name), key, file_id, size)


def _random_name() -> str:
    name = secrets.token_hex(20)
    return f"{name[:2]}/{name[2:4]}/{name}"


class _Check(Protocol):
    """Looks at a file's bytes on their way to storage. Raises :class:`UnsafeMedia`."""

    def chunks(self) -> Iterable[bytes]: ...

    def facts(self) -> _Facts: ...

    def thumbnail(self, key: bytes, asset_id: UUID) -> bytes | None: ...


class _PictureCheck:
    """Pictures are small: they are looked at as a whole, before anything is written."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._facts: _Facts | None = None
        self._data = b""

    def chunks(self) -> Iterable[bytes]:
        pieces: list[bytes] = []
        size = 0
        for chunk in self._chunks:
            pieces.append(chunk)
            size += len(chunk)
            if size > MAX_IMAGE_BYTES:
                raise UnsafeMedia("too_large")
        data = b"".join(pieces)
        with _refusing_non_media(lambda: data):
            image = describe_image(io.BytesIO(data))
        self._facts = _Facts(image.content_type, image.width, image.height, None)
        self._data = data
        yield data

    def facts(self) -> _Facts:
        assert self._facts is not None  # noqa: S101  (the chunks were read)
        return self._facts

    def thumbnail(self, key: bytes, asset_id: UUID) -> bytes | None:
        small = make_thumbnail(self._data)
        return None if small is None else seal_thumbnail(small, key, asset_id)


class _VideoCheck:
    """Videos are looked at while they go by."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._inspector = VideoInspector()
        self._seen: bytearray | None = bytearray()

    def chunks(self) -> Iterable[bytes]:
        for chunk in self._chunks:
            if self._seen is not None:
                self._remember(chunk)
            with _refusing_non_media(self._evidence):
                self._inspector.feed(chunk)
            yield chunk

    def facts(self) -> _Facts:
        with _refusing_non_media(self._evidence):
            video = self._inspector.facts()
        return _Facts(video.content_type, video.width, video.height, video.duration)

    def thumbnail(self, key: bytes, asset_id: UUID) -> bytes | None:
        return None

    def _remember(self, chunk: bytes) -> None:
        assert self._seen is not None  # noqa: S101  (the caller has checked)
        self._seen += chunk
        if len(self._seen) > MAX_REFUSED_BYTES:
            self._seen = None

    def _evidence(self) -> bytes | None:
        """What there is of the file, if all of it is small."""
        for chunk in self._chunks:
            if self._seen is None:
                break
            self._remember(chunk)
        return None if self._seen is None else bytes(self._seen)


@contextmanager
def _refusing_non_media(evidence: Callable[[], bytes | None]) -> Iterator[None]:
    reason = ""
    try:
        yield
    except NotMedia as error:
        reason = error.reason
    if reason:
        data: bytes | None = None
        with suppress(FaceprintError):  # the rest of it may not come
            data = evidence()
        refusal = UnsafeMedia(reason)
        refusal.raw = data if data is not None and len(data) <= MAX_REFUSED_BYTES else None
        raise refusal


class _Encrypted(File):
    """An encrypting stream as a file for storages, in the pieces that it makes: they are not cut anew."""

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        return cast(EncryptingStream, self.file).chunks()


def _write(name: str, stream: EncryptingStream, interrupts: Interrupts) -> str:
    """Write the file; returns the name that the storage gave it, which alone is right."""
    # Raised by what is read, or not by anybody's mistake.
    passing = (FaceprintError, LeaseLost, RunEnded, *interrupts)

    def replacement(error: Exception) -> StorageFailed | None:
        return None if isinstance(error, passing) else StorageFailed(type(error).__name__)

    with replace_exceptions(Exception, by=replacement):
        return storage().save(name, _Encrypted(cast(IO[bytes], stream)))


def _open(name: str) -> IO[Any]:
    with replace_exceptions(Exception, by=lambda error: StorageFailed(type(error).__name__)):
        return _in_parts(storage().open(name, "rb"))


def _in_parts(file: IO[Any]) -> IO[Any]:
    """*file*, or, if it lies in S3, one of which only those parts are fetched that are read.

    The file of django-storages would fetch the whole object, perhaps a large video, for any part of it.
    """
    lies_in_s3 = getattr(sys.modules.get("storages.backends.s3"), "S3File", ())
    if not isinstance(file, lies_in_s3):
        return file
    from smart_open import s3

    stored = cast(Any, file).obj
    return cast(IO[Any], s3.open(stored.bucket_name, stored.key, "rb", client=stored.meta.client))
