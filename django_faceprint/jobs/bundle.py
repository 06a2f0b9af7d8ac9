"""The evidence bundle (证据包): all that is on record of one verification, in a ZIP that proves itself.

Written in one pass and flat memory, however large its videos are. The manifest comes last and names every
file with its SHA-256; it is signed, so that ``faceprint_verify_bundle`` can tell elsewhere, without this
database and without a secret, whether anything was changed. docs/en/bundle.md describes the format.

A bundle is personal data in clear. Store it encrypted, write its making to the access log first, and when it
is done, refer to it only if its record has not been erased meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
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
from django_faceprint.models import MediaAsset, UpstreamCall, VerificationSession
from django_faceprint.privacy.keys import SealBroken
from django_faceprint.privacy.masking import mask_card, mask_name, mask_number
from django_faceprint.privacy.signatures import sign
from django_faceprint.upstream import clients
from django_faceprint.verification import consent

from .zipping import zipped

FORMAT, VERSION = "faceprint-bundle", 1
#: What a signature is for; part of what is signed.
PURPOSE = "bundle"
README_LANGUAGES = ("en", "zh-hans")
#: Pictures that show in clear what is masked elsewhere.
SHOWS_IDENTITY = frozenset({MediaAsset.Kind.ID_FRONT, MediaAsset.Kind.ID_BACK})
#: Rows that are read at a time.
BATCH = 500


_WHY = {
    "damaged": _("damaged in the archive"),
    "gone": _("gone from the storage"),
    "masked": _("left out, as it shows the identity"),
    "not_asked_for": _("left out, as no files were asked for"),
}
_TIMES = (
    *("created_at", "adopted_at", "token_requested_at", "token_answered_at", "identity_accepted_at"),
    *("match_image_accepted_at", "expires_at", "returned_at", "verified_at", "decided_at", "archived_at"),
    "erased_at",
)


class RecordErased(Exception):
    """The record was erased while its bundle was made; what there is of it must go."""


def write_bundle(
    session: VerificationSession,
    out: BinaryIO,
    *,
    unmasked: bool,
    language: str,
    made_by: str,
    with_media: bool = True,
    with_log: bool = True,
) -> str:
    """Write the bundle of *session* to *out*, which need not be seekable; see :class:`Bundle`.

    Returns the SHA-256 of its manifest, which stands for all of it.
    """
    bundle = Bundle(
        session,
        unmasked=unmasked,
        language=language,
        made_by=made_by,
        with_media=with_media,
        with_log=with_log,
    )
    for piece in bundle:
        out.write(piece)
    return bundle.manifest_sha256


@dataclass
class _Entry:
    """A file of the bundle: where it stands, what the manifest says of it, and what it consists of."""

    path: str
    facts: dict[str, Any]
    chunks: Iterable[bytes]
    #: Bytes, where they are known; None for texts, which are compressed.
    size: int | None = None


class Bundle:
    """The bytes of a bundle, to be iterated once, as ``archive`` and streaming responses like them.

    :param unmasked: names, numbers, what was read from the card, and Baidu's answers are told; otherwise they
        are masked, and pictures of the ID card and the answers are left out.
    :param language: of the texts that explain, such as ``zh-hans``. The README comes in both.
    :param made_by: who will be named as its maker.
    :param with_media: with pictures and videos; *with_log*: with the access log. What is left out is said.

    A file that is damaged or gone from storage is named in the manifest and does not spoil the rest.
    Iterating raises :class:`StorageFailed` when storage fails (try again later), :class:`RecordErased`, and
    ``RuntimeError`` inside a database transaction. What was given out by then is no bundle.
    """

    def __init__(
        self,
        session: VerificationSession,
        *,
        unmasked: bool,
        language: str,
        made_by: str,
        with_media: bool = True,
        with_log: bool = True,
    ) -> None:
        self._session = session
        self._in_clear = unmasked
        self._language = language
        self._made_by = made_by
        self._with_media = with_media
        self._with_log = with_log
        self._made_at = now()
        self._files: list[dict[str, Any]] = []
        self._left_out: list[dict[str, Any]] = []
        self._manifest_sha256 = ""

    @property
    def manifest_sha256(self) -> str:
        """SHA-256 of the manifest in hex. Raises ``RuntimeError`` before the bundle was read to its end."""
        if not self._manifest_sha256:
            raise RuntimeError("The manifest is known when the bundle has been read to its end.")
        return self._manifest_sha256

    def __iter__(self) -> Iterator[bytes]:
        clients.refuse_inside_transaction()
        if self._with_log:
            # So that the entry about this very bundle is chained.
            chain.seal()
        yield from zipped(self._members())

    def _members(self) -> Iterator[tuple[zipfile.ZipInfo, Iterable[bytes]]]:
        for entry in self._entries():
            content = _Counted(entry.chunks)
            yield self._described(entry), content
            self._files.append(
                {
                    "path": entry.path,
                    "sha256": content.digest.hexdigest(),
                    "size": content.size,
                    **entry.facts,
                }
            )
        session = VerificationSession.objects.filter(pk=self._session.pk)
        if not session.filter(erased_at=self._session.erased_at).exists():
            raise RecordErased
        manifest = _json(self._manifest())
        yield self._described(_Entry("manifest.json", {}, ())), [manifest]
        self._manifest_sha256 = hashlib.sha256(manifest).hexdigest()
        yield self._described(_Entry("signature.json", {}, ())), [_json(_signature(manifest))]

    def _described(self, entry: _Entry) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(entry.path, timezone.localtime(self._made_at).timetuple()[:6])
        info.compress_type = zipfile.ZIP_DEFLATED if entry.size is None else zipfile.ZIP_STORED
        # Decides whether the entry gets the long form of its lengths.
        info.file_size = entry.size or 0
        info.create_system = 3
        info.external_attr = 0o600 << 16
        return info

    def _manifest(self) -> dict[str, Any]:
        session = self._session
        return {
            "format": FORMAT,
            "version": VERSION,
            "product": f"django-faceprint {django_faceprint.__version__}",
            "made_at": _time(self._made_at),
            "made_by": self._made_by,
            "language": self._language,
            "session": str(session.public_id),
            "environment": session.environment,
            "identity": "clear" if self._in_clear else "masked",
            "access_log_head": chain.head() if self._with_log else None,
            "files": self._files,
            "not_included": self._left_out,
        }

    # --- what is in it --------------------------------------------------------------------------

    def _entries(self) -> Iterator[_Entry]:
        for language in README_LANGUAGES:
            yield _text_entry(f"README-{language}.txt", "readme", [self._readme(language)])
        yield _text_entry("record.json", "record", [_json(self._record())])
        yield _text_entry("consent.json", "consent", [_json(self._consent())])
        yield _text_entry("calls.jsonl", "calls", self._calls())
        if self._in_clear:
            yield _text_entry("answers.jsonl", "answers", self._answers())
        if self._with_log:
            lines = (_line(entry) for entry in chain.entries_of(self._session.public_id))
            yield _text_entry("access-log.jsonl", "access_log", lines)
        for asset in self._session.assets.order_by("attempt_order", "kind", "position"):
            facts = self._facts(asset)
            why = self._why_not(asset)
            if why:
                self._left_out.append({**facts, "why": why})
                continue
            yield _Entry(_path(asset), {"role": "media", **facts}, _plaintext(asset), asset.size)

    def _readme(self, language: str) -> bytes:
        context = {
            "session": self._session,
            "made_at": timezone.localtime(self._made_at).isoformat(timespec="seconds"),
            "made_by": self._made_by,
            "unmasked": self._in_clear,
            "with_log": self._with_log,
        }
        with override(language):
            return render_to_string("faceprint/bundle/readme.txt", context).encode()

    def _record(self) -> dict[str, Any]:
        session = self._session
        opened = _Opened(session)
        name = opened.get("identity_name"), opened.get("identity_number")
        ocr, confirmed = opened.get("ocr"), opened.get("confirmed")
        if not self._in_clear:
            name = mask_name(name[0] or "") or None, mask_number(name[1] or "") or None
            ocr, confirmed = mask_card(ocr), mask_card(confirmed)
        with override(self._language):
            verdict = str(session.get_verdict_display())
        return {
            "id": str(session.public_id),
            "environment": session.environment,
            "application": session.application,
            "plan": {
                "plan_id": session.plan.plan_id,
                "name": session.plan.name,
                "match_source": session.plan.match_source,
                "liveness": session.plan.liveness,
            },
            "reference": session.reference,
            "purpose": session.purpose,
            "status": session.status,
            "verdict": session.verdict,
            "verdict_text": verdict,
            "archive_state": session.archive_state,
            "scores": {
                "score": session.score,
                "liveness_score": session.liveness_score,
                "spoofing": session.spoofing_score,
            },
            "threshold": session.threshold,
            "is_demote": session.is_demoted,
            "error": {
                "class": session.error_class,
                "code": session.error_code,
                "message": session.error_message,
                "log_id": session.error_log_id,
            }
            if session.error_class
            else None,
            "identity": {
                "name": name[0],
                "number": name[1],
                "certificate_type": session.certificate_type,
            },
            "ocr": ocr,
            "confirmed": confirmed,
            # Encrypted values that do not open: a key is missing, or they were changed.
            "unreadable": opened.failed,
            "attempts": [_attempt(row) for row in session.attempts.order_by("order")],
            "stat": session.stat,
            "times": {name: _time(getattr(session, name)) for name in _TIMES},
            "deadlines": {
                "results": _time(session.results_deadline),
                "media": _time(session.media_deadline),
            },
            "retain_until": _time(session.retain_until),
        }

    def _consent(self) -> dict[str, Any] | None:
        found = consent.of_session(self._session)
        if found is None:
            return None
        opened = _Opened(found)
        references = {name: opened.get(name) for name in ("reference", "guardian_reference")}
        return {
            "recorded_at": _time(found.recorded_at),
            "given_at": _time(found.given_at),
            "purpose": found.purpose,
            "notice_version": found.notice_version,
            "channel": found.channel,
            "separate": found.is_separate,
            "names_recipient": found.names_recipient,
            "alternative_offered": found.alternative_offered,
            # It may be the number of a contract: masked, only whether there is one.
            **(
                references
                if self._in_clear
                else {f"has_{name}": bool(value) for name, value in references.items()}
            ),
            "withdrawn_at": _time(found.withdrawn_at),
            "unreadable": opened.failed,
        }

    def _calls(self) -> Iterator[bytes]:
        calls = UpstreamCall.objects.filter(session=self._session).order_by("at", "pk")
        for call in calls.iterator(chunk_size=BATCH):
            yield _line(
                {
                    "at": _time(call.at),
                    "endpoint": call.endpoint,
                    "outcome": call.outcome,
                    "code": call.code,
                    "log_id": call.log_id,
                    "http_status": call.http_status,
                    "latency": call.latency,
                }
            )

    def _answers(self) -> Iterator[bytes]:
        token = _Opened(self._session).get("verify_token")
        # Few at a time: an answer may be as large as a megabyte.
        for answer in self._session.answers.order_by("received_at", "pk").iterator(chunk_size=5):
            opened = _Opened(answer)
            body = opened.get("body")
            yield _line(
                {
                    "received_at": _time(answer.received_at),
                    "endpoint": answer.endpoint,
                    "code": answer.code,
                    "log_id": answer.log_id,
                    "understood": answer.parsed,
                    # Whoever holds the token could ask Baidu for the evidence.
                    "body": body.replace(token, "[verify_token]") if body and token else body,
                    "unreadable": opened.failed,
                }
            )

    def _facts(self, asset: MediaAsset) -> dict[str, Any]:
        with override(self._language):
            kind = str(asset.get_kind_display())
        return {
            "id": str(asset.public_id),
            "kind": asset.kind,
            "kind_text": kind,
            "attempt": asset.attempt_order,
            "position": asset.position,
            "source": asset.source,
            "content_type": asset.content_type,
            "width": asset.width,
            "height": asset.height,
            "duration": asset.duration,
            "archived_at": _time(asset.archived_at),
            "deadline": _time(asset.deadline),
        }

    def _why_not(self, asset: MediaAsset) -> dict[str, str] | None:
        """Why a file is not in the bundle; None when it is."""
        if asset.state != MediaAsset.State.STORED:
            with override(self._language):
                words = describe_absence(asset) or str(asset.get_state_display())
            return {"code": asset.reason or asset.state, "text": words}
        code = ""
        if not self._with_media:
            code = "not_asked_for"
        elif not self._in_clear and asset.kind in SHOWS_IDENTITY:
            code = "masked"
        else:
            code = _damage(asset)
        if not code:
            return None
        with override(self._language):
            return {"code": code, "text": str(_WHY[code])}


class _Counted:
    """Chunks, of which size and digest are known when all were read."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.digest = hashlib.sha256()
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.digest.update(chunk)
            self.size += len(chunk)
            yield chunk


class _Opened:
    """Encrypted values of a row; ``failed`` names those that do not open."""

    def __init__(self, row: Any) -> None:
        self._row = row
        self.failed: list[str] = []

    def get(self, name: str) -> Any:
        """The value, or None."""
        try:
            return getattr(self._row, name)
        except SealBroken:
            self.failed.append(name)
            return None


def _text_entry(path: str, role: str, chunks: Iterable[bytes]) -> _Entry:
    return _Entry(path, {"role": role}, chunks)


def _plaintext(asset: MediaAsset) -> Iterator[bytes]:
    """The file in pieces. Raises :class:`StorageFailed` and ``SealBroken``."""
    reader = open_stored(asset)
    problem = ""
    try:
        yield from reader.iter_range(0, asset.size or 0)
    except SealBroken:
        raise
    except Exception as error:  # noqa: BLE001  (storages raise what they like, with addresses in it)
        problem = type(error).__name__
    finally:
        reader.close()
    if problem:
        raise StorageFailed(problem)


def _damage(asset: MediaAsset) -> str:
    """``damaged``, ``gone``, or "" for a file that is whole. Reads all of it: once its entry was begun, an
    entry cannot be taken back. Raises :class:`StorageFailed`."""
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


def _attempt(row: Any) -> dict[str, Any]:
    return {
        "order": row.order,
        "passed": row.passed,
        "code": row.code,
        "message": row.message,
        "verified_at": _time(row.verified_at),
        "score": row.score,
        "threshold": row.threshold,
        "liveness_score": row.liveness_score,
        "spoofing": row.spoofing_score,
        "risk_level": row.risk_level,
        "risk_tag": row.risk_tag,
        "is_demote": row.is_demoted,
        "is_charged": row.is_charged,
        "charge_type": row.charge_type,
        "log_id": row.verify_log_id,
    }


def _signature(manifest: bytes) -> dict[str, str]:
    public_key, signature = sign(PURPOSE, manifest)
    return {
        "algorithm": "Ed25519",
        "public_key": public_key,
        "signature": signature,
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
    }


def _time(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment is not None else None


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "backslashreplace")


def _line(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
