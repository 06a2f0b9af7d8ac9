"""Giving out an archived file over HTTP: whole or in part, decrypting only what is sent.

Shared by the admin and the REST API, which check permissions. Byte ranges as in RFC 9110, part 14:
without 206 the seek bar of a video does nothing. The content is never trusted, whatever was checked
when it was archived: its type comes from a short list, and browsers may neither sniff, run, frame nor
cache it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response

from django_faceprint.audit.access import Actor, record_access
from django_faceprint.clock import now
from django_faceprint.models import AccessLog, MediaAsset
from django_faceprint.privacy.files import DecryptingReader
from django_faceprint.privacy.keys import SealBroken

from . import media_types
from .files import StorageFailed, open_stored

logger = logging.getLogger(__name__)

UNKNOWN_TYPE = "application/octet-stream"
#: Parts of a file that one user fetches within this time are one view.
ONE_VIEW = timedelta(hours=1)

_RANGE = re.compile(r"([0-9]*)-([0-9]*)")
# Longer positions lie behind the end of any file, and int() refuses very long ones.
_LONGEST_POSITION = 18


@dataclass(frozen=True)
class _Part:
    """Bytes ``start`` to ``end`` (exclusive)."""

    start: int
    end: int


class _NotSatisfiable(Exception):
    """The range lies outside the file."""


def media_response(request: HttpRequest, asset: MediaAsset, *, as_download: bool = False) -> HttpResponseBase:
    """The plaintext of *asset*, or the part of it that the request asks for.

    GET gives 200, 206 or 416; HEAD gives the headers of the whole file; ``If-None-Match`` may give 304.
    Several ranges at once are answered with the whole file, which RFC 9110 (14.2) allows. A file that
    is not in the archive is 404, one that was tampered with or damaged 502, a storage that fails 503;
    these three say nothing more, the log does. Under ASGI the response streams asynchronously.

    With *as_download* the browser saves it instead of showing it. The caller has checked permissions and has
    called :func:`log_media_view`.
    """
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD"])
    if asset.state != MediaAsset.State.STORED or asset.size is None:
        return _refusal(404)
    etag = f'"{asset.sha256}"'
    unchanged = get_conditional_response(request, etag=etag)
    if unchanged is not None:
        unchanged["Cache-Control"] = "private, no-store"
        return unchanged
    try:
        part = _wanted_part(request, etag, asset.size)
    except _NotSatisfiable:
        response = _refusal(416)
        response["Content-Range"] = f"bytes */{asset.size}"
        response["Accept-Ranges"] = "bytes"
        return response
    # A part of a compressed file is not the compressed part of the file: GZipMiddleware must keep off.
    request.META.pop("HTTP_ACCEPT_ENCODING", None)
    answer: HttpResponseBase
    if request.method == "HEAD":
        answer = HttpResponse()
    else:
        body = _open_body(asset, part or _Part(0, asset.size))
        if isinstance(body, int):
            return _refusal(body)
        # ASGI would read a synchronous iterator into memory as a whole.
        answer = StreamingHttpResponse(_AsyncBody(body) if hasattr(request, "scope") else body)
    _describe(answer, asset, etag, part, as_download=as_download)
    return answer


def log_media_view(
    request: HttpRequest,
    asset: MediaAsset,
    actor: Actor,
    action: AccessLog.Action = AccessLog.Action.VIEW_MEDIA,
) -> None:
    """Write to the access log that *actor* views *asset* with *request*, once per view.

    A player fetches a video in many parts. The first part always counts as a view; a later part counts when
    the same user has not viewed the file within :data:`ONE_VIEW`. HEAD shows nothing and is not logged.
    Raises what the database raises; the caller must then not show anything.
    """
    if request.method == "HEAD":
        return
    if _starts_later(request, asset) and _viewed_recently(actor, asset, action):
        return
    record_access(actor, action, session_id=asset.session.public_id, asset_id=asset.public_id)


def _starts_later(request: HttpRequest, asset: MediaAsset) -> bool:
    try:
        part = _wanted_part(request, f'"{asset.sha256}"', asset.size or 0)
    except _NotSatisfiable:
        return True
    return part is not None and part.start > 0


def _viewed_recently(actor: Actor, asset: MediaAsset, action: AccessLog.Action) -> bool:
    return AccessLog.objects.filter(
        session_id=asset.session.public_id,
        asset_id=asset.public_id,
        actor_id=actor.id,
        action=action,
        at__gt=now() - ONE_VIEW,
    ).exists()


def _wanted_part(request: HttpRequest, etag: str, size: int) -> _Part | None:
    """The one range that is asked for, or None for the whole file. Raises :class:`_NotSatisfiable`."""
    header = request.headers.get("Range", "")
    if request.method != "GET" or not header:
        return None
    condition = request.headers.get("If-Range")
    # Strong comparison (RFC 9110, 13.1.5): weak tags and dates, of which we send none, never match.
    if condition is not None and condition.strip() != etag:
        return None
    unit, _, listed = header.partition("=")
    specs = [spec.strip() for spec in listed.split(",") if spec.strip()]
    if unit.strip().lower() != "bytes" or len(specs) != 1:
        return None
    match = _RANGE.fullmatch(specs[0])
    if match is None or specs[0] == "-":
        return None
    first, last = (_position(digits) for digits in match.groups())
    if first is None:
        return _suffix(last or 0, size)
    if last is not None and last < first:
        return None
    if first >= size:
        raise _NotSatisfiable
    return _Part(first, size if last is None else min(last + 1, size))


def _suffix(length: int, size: int) -> _Part:
    if length == 0 or size == 0:
        raise _NotSatisfiable
    return _Part(max(size - length, 0), size)


def _position(digits: str) -> int | None:
    if not digits:
        return None
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) <= _LONGEST_POSITION else 10**_LONGEST_POSITION


def _describe(
    response: HttpResponseBase, asset: MediaAsset, etag: str, part: _Part | None, *, as_download: bool
) -> None:
    size = asset.size or 0
    # Types that a browser may show; anything else is only offered for download.
    extension = media_types.EXTENSIONS.get(asset.content_type)
    name = f"{asset.kind}-{asset.public_id}"
    if extension:
        response["Content-Type"] = asset.content_type
        disposition = "attachment" if as_download else "inline"
        response["Content-Disposition"] = f'{disposition}; filename="{name}.{extension}"'
    else:
        response["Content-Type"] = UNKNOWN_TYPE
        response["Content-Disposition"] = f'attachment; filename="{name}.bin"'
    if part is None:
        response["Content-Length"] = str(size)
    else:
        response.status_code = 206
        response["Content-Length"] = str(part.end - part.start)
        response["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{size}"
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-store"
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response["Cross-Origin-Resource-Policy"] = "same-origin"


def _refusal(status: int) -> HttpResponse:
    response = HttpResponse(status=status, content_type="text/plain; charset=utf-8")
    response["Cache-Control"] = "private, no-store"
    response["X-Content-Type-Options"] = "nosniff"
    return response


def _open_body(asset: MediaAsset, part: _Part) -> _Body | int:
    """The body with its first piece read and proven, or the status that says why there is none."""
    body: _Body | None = None
    problem: Exception | None = None
    try:
        body = _Body(asset, open_stored(asset), part)
        body.prepare()
    except (SealBroken, StorageFailed) as error:
        problem = error
    if problem is None and body is not None:
        return body
    if body is not None:
        body.close()
    else:
        _log(asset, problem)
    return 502 if isinstance(problem, SealBroken) else 503


class _Body:
    """The pieces of a part of a file; closes the reader when it ends, fails or is abandoned."""

    def __init__(self, asset: MediaAsset, reader: DecryptingReader, part: _Part) -> None:
        self._asset = asset
        self._reader = reader
        self._pieces = reader.iter_range(part.start, part.end)
        self._first: bytes | None = None

    def prepare(self) -> None:
        """Read the first piece. Raises :class:`SealBroken` or :class:`StorageFailed` while the status can
        still say so."""
        self._first = next(self, b"")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        problem: Exception | None = None
        piece: bytes | None = None
        try:
            piece = next(self._pieces, None)
        except SealBroken as error:
            problem = error
        except Exception as error:  # noqa: BLE001  (storages raise what they like, with addresses in it)
            problem = StorageFailed(type(error).__name__)
        if problem is not None:
            self.close()
            _log(self._asset, problem)
            # In mid-stream this ends the connection early; the length tells the browser.
            raise problem
        if piece is None:
            self.close()
            raise StopIteration
        return piece

    def close(self) -> None:
        """Close the reader and the stored file with it."""
        self._reader.close()


def attachment(
    request: HttpRequest, chunks: Iterator[bytes], *, name: str, content_type: str
) -> HttpResponseBase:
    """A file to save, made of *chunks* as they are asked for. *name* is ASCII.

    The caller has checked permissions and has written the download to the log. What breaks off was tampered
    with or cannot be read; the log says which.
    """
    request.META.pop("HTTP_ACCEPT_ENCODING", None)
    body = _Chunks(chunks)
    answer = StreamingHttpResponse(_AsyncBody(body) if hasattr(request, "scope") else body)
    answer["Content-Type"] = content_type
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    answer["Cache-Control"] = "private, no-store"
    answer["X-Content-Type-Options"] = "nosniff"
    answer["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return answer


class _Chunks:
    """An iterator that is closed with its response."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


class _AsyncBody:
    """The same for ASGI: each piece is read and decrypted in a thread, when it is wanted."""

    def __init__(self, body: _Body | _Chunks) -> None:
        self._body = body
        # The response closes what it was given.
        self.close = body.close

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while (piece := await sync_to_async(self._next)()) is not None:
            yield piece

    def _next(self) -> bytes | None:
        return next(self._body, None)


def _log(asset: MediaAsset, problem: Exception | None) -> None:
    kind = type(problem).__name__
    if isinstance(problem, StorageFailed):
        kind = f"{kind}: {problem}"
    logger.error("faceprint: stored file %s cannot be read (%s)", asset.public_id, kind)
