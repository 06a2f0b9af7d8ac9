"""The evidence bundle (证据包): a signed ZIP with everything on record about one verification.

It is written in one pass and flat memory, however large its videos are. ``SHA256SUMS`` comes last and is
signed, so standard tools and ``faceprint_verify_bundle`` can verify a bundle elsewhere, without this database
and without a secret. docs/en/bundle.md describes the format.

A bundle is unencrypted personal data. Callers store it encrypted, write its making to the access log first,
and discard it when the record was erased in the meantime.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO

from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import override

import django_faceprint
from django_faceprint.audit import chain
from django_faceprint.clock import now
from django_faceprint.evidence import media_types
from django_faceprint.evidence.expected import describe_absence
from django_faceprint.evidence.files import StorageFailed, is_gone, open_stored
from django_faceprint.exceptions import replace_exceptions
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.privacy.keys import SealBroken
from django_faceprint.privacy.signatures import public_keys, sign
from django_faceprint.upstream import clients

from . import bundle_documents as documents
from .bundle_documents import iso, json_document, json_line
from .zipping import zipped

FORMAT, VERSION = "faceprint-bundle", 1
#: Whose keys sign bundles.
PURPOSE = "bundle"
README_LANGUAGES = ("en", "zh-hans")
#: Pictures that show the identity: left out of masked bundles.
SHOWS_IDENTITY = frozenset({MediaAsset.Kind.ID_FRONT, MediaAsset.Kind.ID_BACK})

_ABSENCE = {
    "damaged": _("damaged in the archive"),
    "gone": _("gone from the storage"),
    "masked": _("left out, as it shows the identity"),
}


class RecordErased(Exception):
    """The record was erased while its bundle was made: discard what was written."""


def write_bundle(
    session: VerificationSession,
    out: BinaryIO,
    *,
    unmasked: bool,
    language: str,
    made_by: str,
    with_log: bool = True,
) -> None:
    """Write the bundle of *session* to *out*, which need not be seekable; see :class:`Bundle`."""
    out.writelines(Bundle(session, unmasked=unmasked, language=language, made_by=made_by, with_log=with_log))


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An evidence bundle; iterating over it makes it and yields its bytes.

    :param unmasked: whether it holds names, numbers, what was read from the card, pictures of the card and
        Baidu's answers. Otherwise the first three are masked, and the others are left out.
    :param language: of explanatory texts, such as ``zh-hans``. The README comes in both languages.
    :param made_by: name of the person who makes it.
    :param with_log: whether it holds the access log of the record.

    A file that is damaged or gone from storage is named in the manifest; the rest is complete. Iterating
    raises :class:`StorageFailed` when storage fails (try again later), :class:`RecordErased`, and
    ``RuntimeError`` inside a database transaction. The bytes yielded until then are no bundle.
    """

    session: VerificationSession = field(kw_only=False)
    unmasked: bool
    language: str
    made_by: str
    with_log: bool = True
    made_at: datetime = field(default_factory=now, init=False)

    def __iter__(self) -> Iterator[bytes]:
        clients.refuse_inside_transaction()
        if self.with_log:
            # Chains the entry about the making of this bundle.
            chain.add_links()
        yield from zipped((self._member(path), chunks) for path, chunks in self._signed_files())

    def _member(self, path: str) -> zipfile.ZipInfo:
        # Not compressed, so that nobody has to decompress what is not verified yet.
        info = zipfile.ZipInfo(path, timezone.localtime(self.made_at).timetuple()[:6])
        info.create_system = 3
        info.external_attr = 0o600 << 16
        return info

    def _signed_files(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        """All files of the bundle. Each must be read to its end before the next."""
        lines = []
        for path, chunks in self._files():
            digest = hashlib.sha256()
            yield path, _hashed(chunks, digest)
            lines.append(f"{digest.hexdigest()}  {path}\n")
        sums = "".join(lines).encode("ascii")
        yield "SHA256SUMS", [sums]
        yield "SHA256SUMS.sig", [sign(PURPOSE, sums)]

    def _files(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        session, unmasked = self.session, self.unmasked
        for language in README_LANGUAGES:
            yield f"README-{language}.txt", [self._readme(language)]
        record = documents.record(session, unmasked=unmasked, language=self.language)
        yield "record.json", [json_document(record)]
        yield "consent.json", [json_document(documents.consent_on_record(session, unmasked=unmasked))]
        yield "calls.jsonl", documents.calls(session)
        if unmasked:
            yield "answers.jsonl", documents.answers(session)
        if self.with_log:
            yield "access-log.jsonl", map(json_line, chain.entries_of(session.public_id))
        media: list[dict[str, Any]] = []
        not_included: list[dict[str, Any]] = []
        for asset in session.assets.order_by("attempt_order", "kind", "position"):
            if absence := self._absence(asset):
                not_included.append({**self._facts(asset), "why": absence})
                continue
            path = _path(asset)
            media.append({"path": path, **self._facts(asset)})
            yield path, _plaintext(asset)
        current = VerificationSession.objects.filter(pk=session.pk, erased_at=session.erased_at)
        if not current.exists():
            raise RecordErased
        yield "manifest.json", [json_document(self._manifest(media, not_included))]
        yield "signer.pem", [public_keys(PURPOSE)[0].encode("ascii")]

    def _readme(self, language: str) -> bytes:
        context = {
            "session": self.session,
            "made_at": timezone.localtime(self.made_at).isoformat(timespec="seconds"),
            "made_by": self.made_by,
            "unmasked": self.unmasked,
            "with_log": self.with_log,
        }
        with override(language):
            return render_to_string("faceprint/bundle/readme.txt", context).encode()

    def _manifest(self, media: list[dict[str, Any]], not_included: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "product": f"django-faceprint {django_faceprint.__version__}",
            "made_at": iso(self.made_at),
            "made_by": self.made_by,
            "language": self.language,
            "session": str(self.session.public_id),
            "environment": self.session.environment,
            "identity": "unmasked" if self.unmasked else "masked",
            "access_log_head": chain.head() if self.with_log else None,
            "media": media,
            "not_included": not_included,
        }

    def _facts(self, asset: MediaAsset) -> dict[str, Any]:
        with override(self.language):
            kind_text = str(asset.get_kind_display())
        return {
            "id": str(asset.public_id),
            "kind": asset.kind,
            "kind_text": kind_text,
            "attempt": asset.attempt_order,
            "position": asset.position,
            "source": asset.source,
            "content_type": asset.content_type,
            "width": asset.width,
            "height": asset.height,
            "duration": asset.duration,
            "archived_at": iso(asset.archived_at),
            "deadline": iso(asset.deadline),
        }

    def _absence(self, asset: MediaAsset) -> dict[str, str] | None:
        """Why a file is not in the bundle; None when it is."""
        with override(self.language):
            if asset.state != MediaAsset.State.STORED:
                text = describe_absence(asset) or asset.get_state_display()
                return {"code": asset.reason or asset.state, "text": str(text)}
            is_masked = not self.unmasked and asset.kind in SHOWS_IDENTITY
            code = "masked" if is_masked else _damage(asset)
            return {"code": code, "text": str(_ABSENCE[code])} if code else None


def _hashed(chunks: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    """*chunks*, which also update *digest*."""
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _plaintext(asset: MediaAsset) -> Iterator[bytes]:
    """The decrypted file in chunks. Raises :class:`StorageFailed` and ``SealBroken``."""
    # Storages raise what they like, with addresses in it.
    with replace_exceptions(Exception, by=_storage_failed), open_stored(asset) as reader:
        yield from reader.iter_range(0, asset.size or 0)


def _storage_failed(error: Exception) -> StorageFailed | None:
    return None if isinstance(error, SealBroken | StorageFailed) else StorageFailed(type(error).__name__)


def _damage(asset: MediaAsset) -> str:
    """``damaged``, ``gone``, or "" for a file that is whole. Raises :class:`StorageFailed`.

    Reads the whole file, because a member of a ZIP cannot be taken back once it was begun.
    """
    digest = hashlib.sha256()
    try:
        for chunk in _plaintext(asset):
            digest.update(chunk)
    except SealBroken:
        return "damaged"
    except StorageFailed:
        if is_gone(asset.stored_name):
            return "gone"
        raise
    return "" if digest.hexdigest() == asset.sha256 else "damaged"


def _path(asset: MediaAsset) -> str:
    name = asset.kind.replace("_", "-")
    if asset.attempt_order:
        name += f"-attempt-{asset.attempt_order}"
    if asset.position or asset.kind == MediaAsset.Kind.FRAME:
        name += f"-{asset.position}"
    return f"media/{name}.{media_types.EXTENSIONS.get(asset.content_type, 'bin')}"
