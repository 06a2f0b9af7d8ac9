"""Verifying an evidence bundle (证据包) away from the installation that made it.

``python -m django_faceprint.bundle_check FILE --key PUBLIC_KEY``, or ``manage.py faceprint_verify_bundle``.
Plain Python: no Django, no database, no network, no secret. Shares no code with what writes bundles; both
keep to docs/en/bundle.md.

The file is hostile until it is proven. Nothing is unpacked to disk or executed, memory is flat, and the work
is in proportion to the file: what claims to unpack to far more is not read. A ZIP that other programs might
read differently (hidden bytes, names twice, names that lead elsewhere) is not taken for whole.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import re
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

#: Exit status: whole, and signed by a known key; not whole; whole, but signed by an unknown key; no bundle.
WHOLE, CHANGED, UNKNOWN_SIGNER, NO_BUNDLE = 0, 1, 2, 3

#: Bytes of the ZIP's directory, of the manifest, and of a line of the access log, at most.
MAX_DIRECTORY = 1024 * 1024
MAX_MANIFEST = 4 * 1024 * 1024
MAX_LINE_LENGTH = 64 * 1024
#: Files at most.
MAX_FILES = 10_000
#: What a bundle unpacks to, at most: so many times its own size, and so many bytes more.
MAX_RATIO, MAX_BYTES_MORE = 100, 1024 * 1024
#: Findings that are told one by one.
NAMED = 1_000

_MANIFEST, _SIGNATURE = "manifest.json", "signature.json"
_PIECE = 64 * 1024
_PATH = re.compile(r"(?:media/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,100}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PUBLIC_KEY = _SHA256
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SIGNED = b"django-faceprint/1/bundle\x00"
# The columns of an entry of the access log as its link hashes them, by the version of the link.
_LOG_COLUMNS = {
    1: (
        *("public_id", "at", "actor_id", "actor_name", "action", "session_id", "asset_id"),
        *("channel", "address", "reason_code", "reason_digest"),
    )
}


def _(text: str) -> str:
    """Marks a text for translation; ``manage.py`` speaks the site's language."""
    return text


#: What is said of a finding.
WORDS = {
    "changed": _("%(path)s: changed."),
    "missing": _("%(path)s: missing."),
    "additional": _("%(path)s: not of this bundle."),
    "duplicate": _("%(path)s: is there twice."),
    "unsafe": _("%(path)s: this is no name or kind of a file of a bundle."),
    "unreadable": _("%(path)s: cannot be unpacked."),
    "hidden": _("%(path)s: bytes that belong to no file, before it or about it."),
    "log": _("%(path)s, line %(line)s: does not fit its link of the chain."),
    "signature": _("%(path)s: the signature is wrong."),
    "too_large": _("It claims to unpack to far more than its size; not read."),
}
#: Why a file is no bundle.
REASONS = {
    "not_a_zip": _("This is no ZIP file, or its end is missing."),
    "too_many_files": _("Its directory is too large for a bundle."),
    "manifest": _("It has no manifest of a bundle."),
    "version": _("The bundle is of a newer version than this program."),
}
#: What is said of a whole.
SUMMARY = _("Record %(session)s, made %(made_at)s by %(made_by)s")
COUNTED = _("%(files)s files, %(bytes)s bytes, %(entries)s entries of the access log: %(findings)s findings")
SIGNED_BY = _("Signed with the public key %(key)s")
SIGNER_UNKNOWN = _("You do not know this key yet: ask the maker of the bundle for it, by another way.")


class NotABundle(Exception):
    """It cannot be said what this is. ``reason`` is a key of :data:`REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Broken(Exception):
    """A file of the ZIP does not unpack to what its directory says."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: what (a key of :data:`WORDS`), in which file, in which line."""

    kind: str
    path: str = ""
    line: int = 0


@dataclass
class Verification:
    """What a look at a bundle found. ``signer`` is the public key of a right signature, else ""."""

    session: str = ""
    made_at: str = ""
    made_by: str = ""
    identity: str = ""
    files: int = 0
    bytes: int = 0
    log_entries: int = 0
    manifest_sha256: str = ""
    signer: str = ""
    is_known: bool = False
    count: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: str, path: str = "", line: int = 0) -> None:
        """One more finding."""
        self.count += 1
        if len(self.findings) < NAMED:
            self.findings.append(Finding(kind, path, line))

    @property
    def status(self) -> int:
        """The exit status."""
        if self.count:
            return CHANGED
        return WHOLE if self.is_known else UNKNOWN_SIGNER


@dataclass(frozen=True)
class _Place:
    """Where the bytes of a file of the ZIP are."""

    info: zipfile.ZipInfo
    start: int


def verify(file: BinaryIO, *, trusted: Collection[str] = ()) -> Verification:
    """Look at all of a bundle. *file* is seekable; *trusted* are public keys, 64 hexadecimal digits each.

    Raises :class:`NotABundle`, and ``OSError`` when the file cannot be read.
    """
    result = Verification()
    places = _places(file, result)
    if _MANIFEST not in places:
        raise NotABundle("manifest")
    try:
        raw = b"".join(_unpacked(file, places[_MANIFEST], MAX_MANIFEST))
        manifest = _read_json(raw)
        listed = _listed(manifest)
    except (_Broken, ValueError):
        manifest, listed, raw = None, {}, b""
    if manifest is None:
        raise NotABundle("manifest")
    result.manifest_sha256 = hashlib.sha256(raw).hexdigest()
    for name in ("session", "made_at", "made_by", "identity"):
        setattr(result, name, manifest[name])
    _verify_signature(file, places.get(_SIGNATURE), raw, trusted, result)
    for path in sorted(listed.keys() - places.keys()):
        result.add("missing", path)
    for path in sorted(places.keys() - listed.keys() - {_MANIFEST, _SIGNATURE}):
        result.add("additional", path)
    if sum(place.info.file_size for place in places.values()) > _most_bytes(file):
        result.add("too_large")
        return result
    for path, (digest, size, role) in listed.items():
        if path in places:
            _verify_file(file, places[path], digest, size, role, result)
    return result


def _verify_file(
    file: BinaryIO, place: _Place, digest: str, size: int, role: str, result: Verification
) -> None:
    path = place.info.orig_filename
    result.files += 1
    found, length = hashlib.sha256(), 0
    log = _LogReader(path, result) if role == "access_log" else None
    try:
        for piece in _unpacked(file, place, size):
            found.update(piece)
            length += len(piece)
            if log is not None:
                log.feed(piece)
    except _Broken:
        # Longer than the manifest says, too.
        result.add("unreadable", path)
        return
    result.bytes += length
    if length != size or found.hexdigest() != digest:
        result.add("changed", path)
    if log is not None:
        log.end()


# --- the ZIP --------------------------------------------------------------------------------------


def _places(file: BinaryIO, result: Verification) -> dict[str, _Place]:
    """Files by name, all of which lie one behind the other and fill the ZIP. The first of a name counts."""
    _refuse_large_directory(file)
    archive = None
    with suppress(zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error):
        archive = zipfile.ZipFile(file)
    if archive is None:
        raise NotABundle("not_a_zip")
    if len(archive.infolist()) > MAX_FILES:
        raise NotABundle("too_many_files")
    places: dict[str, _Place] = {}
    position = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        name = info.orig_filename
        if not _PATH.fullmatch(name) or not _is_plain(info):
            result.add("unsafe", name)
        elif name in places:
            result.add("duplicate", name)
        start, end = _local(file, info, archive.start_dir)
        if info.header_offset != position or end is None:
            result.add("hidden", name)
        position = end or position
        if end is not None:
            places.setdefault(name, _Place(info, start))
        elif name not in places:
            result.add("unreadable", name)
    if position != archive.start_dir or archive.comment:
        result.add("hidden", "ZIP")
    return places


def _refuse_large_directory(file: BinaryIO) -> None:
    """zipfile reads the directory into memory: look first how large it claims to be."""
    size = file.seek(0, 2)
    length = min(size, 22 + 20 + 56)
    file.seek(size - length)
    tail = file.read(length)
    end = tail[-22:]
    # A bundle has no comment: its end is its end.
    if len(end) < 22 or end[:4] != b"PK\x05\x06" or end[20:] != b"\x00\x00":
        raise NotABundle("not_a_zip")
    count, directory = struct.unpack("<HL", end[10:16])
    if tail[-42:-38] == b"PK\x06\x07":
        record = tail[:-42]
        (offset,) = struct.unpack("<Q", tail[-34:-26])
        if record[:4] != b"PK\x06\x06" or offset != size - length:
            raise NotABundle("not_a_zip")
        count, directory = struct.unpack("<QQ", record[32:48])
    if count > MAX_FILES or directory > MAX_DIRECTORY:
        raise NotABundle("too_many_files")
    if directory > size - 22:
        raise NotABundle("not_a_zip")


def _is_plain(info: zipfile.ZipInfo) -> bool:
    """A regular file, not encrypted, packed as usual, with nothing hung onto it."""
    return (
        stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
        and not info.flag_bits & ~0x0808
        and info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        and not info.comment
        and _is_only_zip64(info.extra)
    )


def _is_only_zip64(extra: bytes) -> bool:
    if not extra:
        return True
    return len(extra) in (12, 20, 28) and extra[:4] == struct.pack("<HH", 1, len(extra) - 4)


def _local(file: BinaryIO, info: zipfile.ZipInfo, limit: int) -> tuple[int, int | None]:
    """Where the bytes of a file start, and where those of the next must; None: not as the directory says.

    All of it lies before *limit*.
    """
    if not 0 <= info.header_offset < limit:
        return 0, None
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        return 0, None
    flags, method = struct.unpack("<HH", header[6:10])
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    name, extra = file.read(name_length), file.read(extra_length)
    start = info.header_offset + 30 + name_length + extra_length
    same = (flags, method, name) == (
        info.flag_bits,
        info.compress_type,
        info.orig_filename.encode("utf-8" if flags & 0x800 else "cp437", "replace"),
    )
    if not same or not _is_only_zip64(extra):
        return start, None
    end = start + info.compress_size
    if end > limit:
        return start, None
    if not flags & 0x08:
        return start, end
    file.seek(end)
    told = file.read(24)
    for form in ("<4sLLL", "<4sLQQ"):
        length = struct.calcsize(form)
        sizes = (info.compress_size, info.file_size)
        if len(told) >= length and struct.unpack(form, told[:length]) == (b"PK\x07\x08", info.CRC, *sizes):
            return start, end + length
    return start, None


def _unpacked(file: BinaryIO, place: _Place, most: int) -> Iterator[bytes]:
    """The bytes of a file in pieces; never more than *most*. Raises :class:`_Broken`."""
    check, length = 0, 0
    most = min(most, place.info.file_size)
    pieces = _stored if place.info.compress_type == zipfile.ZIP_STORED else _inflated
    for piece in pieces(file, place.start, place.info.compress_size):
        length += len(piece)
        if length > most:
            raise _Broken
        check = zlib.crc32(piece, check)
        yield piece
    if (length, check) != (place.info.file_size, place.info.CRC):
        raise _Broken


def _stored(file: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    while length:
        file.seek(start)
        piece = file.read(min(_PIECE, length))
        if not piece:
            raise _Broken
        start += len(piece)
        length -= len(piece)
        yield piece


def _inflated(file: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    packed = _stored(file, start, length)
    waiting = b""
    while not inflater.eof:
        came = waiting or next(packed, b"")
        try:
            piece = inflater.decompress(came, _PIECE)
        except zlib.error:
            piece = None
        if piece is None or not (piece or came):
            raise _Broken
        waiting = inflater.unconsumed_tail
        if piece:
            yield piece
    if inflater.unused_data or waiting or next(packed, b""):
        raise _Broken


def _most_bytes(file: BinaryIO) -> int:
    return file.seek(0, 2) * MAX_RATIO + MAX_BYTES_MORE


# --- what is said in it ---------------------------------------------------------------------------


def _read_json(raw: bytes) -> Any:
    """Raises ``ValueError``, for names that are there twice too: programs disagree about what they mean."""
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except RecursionError:
        pass
    raise ValueError("nested too deeply")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a name is there twice")
    return names


def _listed(manifest: Any) -> dict[str, tuple[str, int, str]]:
    """SHA-256, size and role of each file that a manifest lists. Raises ``ValueError`` when it is none."""
    if not isinstance(manifest, dict) or manifest.get("format") != "faceprint-bundle":
        raise ValueError("no manifest")
    if manifest.get("version") != 1:
        raise NotABundle("version")
    words: list[Any] = [manifest.get(name) for name in ("session", "made_at", "made_by", "identity")]
    if not all(isinstance(word, str) and len(word) <= 200 for word in words) or not _UUID.fullmatch(words[0]):
        raise ValueError("no manifest")
    files = manifest.get("files")
    if not isinstance(files, list) or not all(isinstance(entry, dict) for entry in files):
        raise ValueError("no files")
    listed: dict[str, tuple[str, int, str]] = {}
    for entry in files:
        path, digest, size, role = (entry.get(name) for name in ("path", "sha256", "size", "role"))
        good = (
            isinstance(path, str)
            and _PATH.fullmatch(path)
            and path not in (*listed, _MANIFEST, _SIGNATURE)
            and isinstance(digest, str)
            and _SHA256.fullmatch(digest)
            and type(size) is int
            and size >= 0
            and isinstance(role, str)
        )
        if not good:
            raise ValueError("no file")
        listed[path] = digest, size, role
    return listed


def _verify_signature(
    file: BinaryIO, place: _Place | None, manifest: bytes, trusted: Collection[str], result: Verification
) -> None:
    if place is None:
        result.add("missing", _SIGNATURE)
        return
    try:
        told = _read_json(b"".join(_unpacked(file, place, _PIECE)))
        key, signature = bytes.fromhex(told["public_key"]), bytes.fromhex(told["signature"])
        right = (
            told["algorithm"] == "Ed25519"
            and told["manifest_sha256"] == result.manifest_sha256
            and _is_signed(key, signature, manifest)
        )
    except (_Broken, ValueError, KeyError, TypeError):
        right = False
    if not right:
        result.add("signature", _SIGNATURE)
        return
    result.signer = key.hex()
    result.is_known = any(hmac.compare_digest(result.signer, known.lower()) for known in trusted)


def _is_signed(key: bytes, signature: bytes, manifest: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, _SIGNED + manifest)
    except InvalidSignature:
        return False
    return True


class _LogReader:
    """Looks at the access log while it goes by: does each entry fit its link, each link the one before?"""

    def __init__(self, path: str, result: Verification) -> None:
        self._path = path
        self._result = result
        self._line = b""
        self._number = 0
        self._last: tuple[int, str] | None = None

    def feed(self, piece: bytes) -> None:
        """The next bytes."""
        *lines, rest = (self._line + piece).split(b"\n")
        for line in lines:
            self._look_at(line)
        # A line that never ends is cut: it does not fit.
        self._line = rest[: MAX_LINE_LENGTH + 1]

    def end(self) -> None:
        """No more bytes."""
        if self._line:
            self._look_at(self._line)

    def _look_at(self, line: bytes) -> None:
        self._number += 1
        self._result.log_entries += 1
        try:
            fits = len(line) <= MAX_LINE_LENGTH and self._fits(_read_json(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            fits = False
        if not fits:
            self._result.add("log", self._path, self._number)

    def _fits(self, told: Any) -> bool:
        entry, link = told["entry"], told["link"]
        if link is None:
            # Not chained yet when the bundle was made; the signature still covers it.
            return tuple(entry) == _LOG_COLUMNS[1]
        version, sequence, before = link["version"], link["sequence"], link["before"]
        follows = self._last is None or sequence != self._last[0] + 1 or before == self._last[1]
        self._last = sequence, link["digest"]
        if before is None:
            # The link before was deleted for its age.
            return follows and tuple(entry) == _LOG_COLUMNS[version]
        values = list(entry.values())
        content = [version, sequence, before, link["sealed_at"], told["log_id"], values]
        digest = hashlib.sha256(json.dumps(content, separators=(",", ":")).encode("ascii")).hexdigest()
        return follows and tuple(entry) == _LOG_COLUMNS[version] and digest == link["digest"]


# --- the face -------------------------------------------------------------------------------------


def is_public_key(text: str) -> bool:
    """Whether *text* looks like a public key: 64 hexadecimal digits."""
    return bool(_PUBLIC_KEY.fullmatch(text.strip().lower()))


def describe(result: Verification, translate: Callable[[str], str] = _) -> Iterator[str]:
    """What was found, line by line. Nothing in it steers a terminal, whatever the file says."""
    for finding in result.findings:
        yield translate(WORDS[finding.kind]) % {"path": _printable(finding.path), "line": finding.line}
    if result.count > len(result.findings):
        yield f"… +{result.count - len(result.findings)}"
    yield translate(SUMMARY) % {
        name: _printable(getattr(result, name)) for name in ("session", "made_at", "made_by")
    }
    yield translate(COUNTED) % {
        "files": result.files,
        "bytes": result.bytes,
        "entries": result.log_entries,
        "findings": result.count,
    }
    if result.signer:
        yield translate(SIGNED_BY) % {"key": result.signer}
        if not result.is_known:
            yield translate(SIGNER_UNKNOWN)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def main(arguments: list[str] | None = None) -> int:
    """Verify a file; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m django_faceprint.bundle_check",
        description="Verify an evidence bundle. Exit status 0: whole, and signed by a known key; "
        "1: not whole; 2: whole, but signed by an unknown key; 3: no bundle, or it cannot be read.",
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="PUBLIC_KEY",
        help="a public key of the maker, 64 hexadecimal digits; may be given several times",
    )
    options = parser.parse_args(arguments)
    if not all(map(is_public_key, options.key)):
        parser.exit(NO_BUNDLE, "--key takes 64 hexadecimal digits.\n")
    problem = ""
    try:
        with open(options.file, "rb") as file:
            result = verify(file, trusted=[key.strip() for key in options.key])
    except NotABundle as error:
        problem = REASONS[error.reason]
    except OSError as error:
        problem = error.strerror or type(error).__name__
    if problem:
        sys.stderr.write(f"{problem}\n")
        return NO_BUNDLE
    for line in describe(result):
        sys.stdout.write(f"{line}\n")
    return result.status


if __name__ == "__main__":
    sys.exit(main())
