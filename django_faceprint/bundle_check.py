"""Verifies an evidence bundle (证据包) away from the installation that made it.

``python -m django_faceprint.bundle_check FILE --key PUBLISHED.pem``, or the management command.
Needs cryptography and nothing else: no Django, no database, no network, no secret, no other module of this
package, so that a copy of this file is enough. docs/en/bundle.md describes the format.

The file is hostile until it is proven. Nothing is unpacked to disk, memory is flat, and the work is in
proportion to the file, because members are uncompressed and lie one behind the other. A ZIP that other
programs might read differently (hidden bytes, duplicate names, names that lead out of the folder) is refused.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import stat
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

#: Exit status: whole, and signed by a known key; not whole; whole, but signed by an unknown key; no bundle.
WHOLE, CHANGED, UNKNOWN_SIGNER, NO_BUNDLE = 0, 1, 2, 3

#: Bytes at most: of the ZIP's directory, of SHA256SUMS and manifest.json each, of a line of the access log.
MAX_DIRECTORY = 1024 * 1024
MAX_DOCUMENT = 4 * 1024 * 1024
MAX_LINE_LENGTH = 64 * 1024

SUMS, SIGNATURE, SIGNER = "SHA256SUMS", "SHA256SUMS.sig", "signer.pem"
MANIFEST, LOG = "manifest.json", "access-log.jsonl"
_PATH = r"(?:media/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,100}"
_SUM = re.compile(rf"^([0-9a-f]{{64}})  ({_PATH})\n", re.MULTILINE)
# The PEM form of an Ed25519 public key (RFC 8410): twelve fixed bytes, then the key.
_PEM = re.compile(
    "-----BEGIN PUBLIC KEY-----\n(MCowBQYDK2VwAyEA[A-Za-z0-9+/]{43}=)\n-----END PUBLIC KEY-----"
)
# The columns of an entry of the access log, in the order in which its link hashes them.
_LOG_COLUMNS = (
    *("public_id", "at", "actor_id", "actor_name", "action", "session_id", "asset_id"),
    *("channel", "address", "reason_code", "reason_digest"),
)


def _(text: str) -> str:
    """Marks a text for translation; ``manage.py`` translates it into the site's language."""
    return text


#: The sentence for each kind of finding.
MESSAGES = {
    "changed": _("%(path)s: changed."),
    "missing": _("%(path)s: missing."),
    "additional": _("%(path)s: not listed in SHA256SUMS."),
    "duplicate": _("%(path)s: occurs twice. Nothing else was read."),
    "unsafe": _("%(path)s: bundles hold no file of this name or kind. Nothing else was read."),
    "hidden": _("%(path)s: hidden bytes before it or around it. Nothing else was read."),
    "log": _("%(path)s, line %(line)s: does not fit its link of the chain."),
    "signature": _("%(path)s: the signature is wrong."),
}
#: Why nothing could be verified.
REASONS = {
    "not_a_zip": _("This is not a ZIP file as bundles are, or it is incomplete."),
    "sums": _("It has no valid SHA256SUMS file."),
    "manifest": _("It has no valid manifest.json."),
    "version": _("The bundle has a format that this program does not know."),
    "key": _("--key takes a PEM file with Ed25519 public keys."),
}
SUMMARY = _("Record %(session)s, made %(made_at)s by %(made_by)s")
COUNTED = _("%(files)s files, %(bytes)s bytes, %(log_entries)s access log entries: %(findings)s findings")
SIGNED_BY = _("Signed with the public key %(key)s")
SIGNER_UNKNOWN = _("You do not trust this key yet: compare it with the key that the maker publishes.")


class NotVerifiable(Exception):
    """Nothing can be said about the file. ``reason`` is a key of :data:`REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: its kind (a key of :data:`MESSAGES`), the file, and the line in it."""

    kind: str
    path: str = ""
    line: int = 0


@dataclass
class Verification:
    """The result. ``signer`` is the public key of a valid signature, as the base64 line of its PEM file, else
    ""; ``is_known``: it is one of the trusted keys. ``files`` and ``bytes`` count all members of the ZIP."""

    session: str = ""
    made_at: str = ""
    made_by: str = ""
    identity: str = ""
    files: int = 0
    bytes: int = 0
    log_entries: int = 0
    signer: str = ""
    is_known: bool = False
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: str, path: str, line: int = 0) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, _printable(path), line))

    @property
    def status(self) -> int:
        """The exit status."""
        if self.findings:
            return CHANGED
        return WHOLE if self.is_known else UNKNOWN_SIGNER


def verify(file: BinaryIO, *, trusted: str = "") -> Verification:
    """Verify a whole bundle. *file* is seekable; *trusted* is the text of PEM files of public keys.

    Raises :class:`NotVerifiable`, and ``OSError`` when the file cannot be read.
    """
    result = Verification()
    archive = _open(file)
    members = _members(file, archive, result)
    if result.findings:
        return result
    sums = _read(archive, SUMS)
    digests = _parse_sums(sums)
    for name, value in _parse_manifest(_read(archive, MANIFEST)).items():
        setattr(result, name, value)
    _verify_signature(archive, sums, trusted, result)
    result.files, result.bytes = len(members), sum(info.file_size for info in members.values())
    for path in sorted(digests.keys() | members.keys() - {SUMS, SIGNATURE}):
        if path not in members:
            result.add("missing", path)
        elif path not in digests:
            result.add("additional", path)
        elif not _has_digest(archive, path, digests[path]):
            result.add("changed", path)
        elif path == LOG:
            with archive.open(path) as log:
                _verify_log(log, result)
    return result


# --- the ZIP --------------------------------------------------------------------------------------


def _open(file: BinaryIO) -> zipfile.ZipFile:
    """Check the end of the ZIP, then read its directory; zipfile alone would read one of any size."""
    size = file.seek(0, 2)
    file.seek(max(size - 98, 0))
    tail = file.read(98).rjust(98, b"\x00")
    record, locator, end = tail[:56], tail[56:76], tail[76:]
    length, offset = struct.unpack("<LL", end[12:20])
    end_size = 22
    valid = end.startswith(b"PK\x05\x06") and end.endswith(b"\x00\x00")
    if locator.startswith(b"PK\x06\x07"):
        # More than 2 GiB: ZIP64.
        length, offset = struct.unpack("<QQ", record[40:])
        end_size = 98
        valid &= record.startswith(b"PK\x06\x06") and locator[8:16] == struct.pack("<Q", size - 98)
    if not valid or length > MAX_DIRECTORY or offset + length + end_size != size:
        raise NotVerifiable("not_a_zip")
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error):
        raise NotVerifiable("not_a_zip") from None


def _members(file: BinaryIO, archive: zipfile.ZipFile, result: Verification) -> dict[str, zipfile.ZipInfo]:
    """The members by name. They fill the ZIP without gap or overlap, so reading all of them reads each byte
    once. Stops at the first finding."""
    members: dict[str, zipfile.ZipInfo] = {}
    position = 0
    for info in archive.infolist():
        name = info.orig_filename
        if not re.fullmatch(_PATH, name) or not _is_plain(info):
            result.add("unsafe", name)
        elif name in members:
            result.add("duplicate", name)
        elif info.header_offset != position or not (position := _end(file, info)):
            result.add("hidden", name)
        if result.findings:
            return members
        members[name] = info
    if position != archive.start_dir:
        result.add("hidden", "ZIP")
    return members


def _is_plain(info: zipfile.ZipInfo) -> bool:
    """Whether this is a regular file, neither compressed nor encrypted, with nothing attached to it."""
    return (
        stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
        and info.compress_type == zipfile.ZIP_STORED
        and info.compress_size == info.file_size < 1 << 32
        and info.flag_bits == 0x08
        and not info.comment
        # Beyond 2 GiB: its position.
        and (not info.extra or (len(info.extra) == 12 and info.extra.startswith(b"\x01\x00\x08\x00")))
    )


def _end(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where a member ends; 0 if its header and the sizes after it are not as the directory says."""
    member = zipfile.ZipInfo(info.orig_filename, info.date_time)
    member.flag_bits = info.flag_bits
    header = member.FileHeader(zip64=False)
    sizes = struct.pack("<4s3L", b"PK\x07\x08", info.CRC, info.file_size, info.file_size)
    file.seek(info.header_offset)
    found = file.read(len(header))
    end = file.seek(info.header_offset + len(header) + info.file_size)
    return end + len(sizes) if (found, file.read(len(sizes))) == (header, sizes) else 0


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """A small member; empty, as none of them may be, when it is missing, too large or damaged."""
    with suppress(KeyError, EOFError, zipfile.BadZipFile):
        if archive.getinfo(name).file_size <= MAX_DOCUMENT:
            return archive.read(name)
    return b""


def _has_digest(archive: zipfile.ZipFile, name: str, digest: str) -> bool:
    try:
        with archive.open(name) as member:
            return hashlib.file_digest(member, "sha256").hexdigest() == digest  # type: ignore[arg-type]
    except (EOFError, zipfile.BadZipFile):
        return False


# --- its documents --------------------------------------------------------------------------------


def _parse_sums(raw: bytes) -> dict[str, str]:
    """SHA-256 by path. Raises :class:`NotVerifiable` unless each line is as ``sha256sum`` writes it."""
    text = raw.decode("ascii", "replace")
    digests = {path: digest for digest, path in _SUM.findall(text)}
    if not text or text != "".join(f"{digest}  {path}\n" for path, digest in digests.items()):
        raise NotVerifiable("sums")
    return digests


def _parse_json(raw: bytes) -> Any:
    """Raises ``ValueError``, also for duplicate names, which programs understand differently."""
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("duplicate name")
    return names


def _parse_manifest(raw: bytes) -> dict[str, str]:
    """The fields of :class:`Verification` that the manifest has. Raises :class:`NotVerifiable`."""
    try:
        manifest = _parse_json(raw)
        version = manifest["format"], manifest["version"]
        facts = {name: _printable(manifest[name]) for name in ("session", "made_at", "made_by", "identity")}
    except (ValueError, KeyError, TypeError):
        raise NotVerifiable("manifest") from None
    if version != ("faceprint-bundle", 1):
        raise NotVerifiable("version")
    return facts


def parse_keys(pem: str) -> list[str]:
    """The Ed25519 public keys in the text of PEM files, each as its base64 line."""
    return _PEM.findall(pem)


def read_keys(paths: Iterable[str]) -> str:
    """The text of PEM files. Raises ``OSError``, and :class:`NotVerifiable` for a file without a key."""
    text = ""
    for path in paths:
        with open(path, encoding="ascii", errors="replace") as file:
            read = file.read(MAX_DOCUMENT)
        if not parse_keys(read):
            raise NotVerifiable("key")
        text += read
    return text


def _verify_signature(archive: zipfile.ZipFile, sums: bytes, trusted: str, result: Verification) -> None:
    pem = _read(archive, SIGNER).decode("ascii", "replace")
    # One key and nothing else, so that openssl finds the same one.
    if match := _PEM.fullmatch(pem.removesuffix("\n")):
        with suppress(InvalidSignature):
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(match[1])[-32:])
            key.verify(_read(archive, SIGNATURE), sums)
            result.signer, result.is_known = match[1], match[1] in parse_keys(trusted)
    if not result.signer:
        result.add("signature", SIGNATURE)


def _verify_log(log: IO[bytes], result: Verification) -> None:
    """Verify that each entry fits its link, and each link the one before it. Stops at the first finding."""
    last: tuple[Any, Any] | None = None
    while line := log.readline(MAX_LINE_LENGTH + 1):
        result.log_entries += 1
        try:
            last = _verify_entry(_parse_json(line), last)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            result.add("log", LOG, result.log_entries)
            return


def _verify_entry(line: Any, last: tuple[Any, Any] | None) -> tuple[Any, Any] | None:
    """Sequence and digest of the last link, which is this line's own, if it has one.

    Raises ``ValueError`` when the line does not fit, other exceptions when it has another shape.
    """
    entry, link = line["entry"], line["link"]
    if tuple(entry) != _LOG_COLUMNS:
        raise ValueError("columns")
    if link is None:
        # Not chained yet when the bundle was made; the signature still covers it.
        return last
    version, sequence, before, digest = (link[name] for name in ("version", "sequence", "before", "digest"))
    content = [version, sequence, before, link["sealed_at"], line["log_id"], list(entry.values())]
    computed = hashlib.sha256(json.dumps(content, separators=(",", ":")).encode("ascii")).hexdigest()
    # Without the link before, which was deleted for its age, the digest cannot be computed.
    if version != 1 or (before is not None and computed != digest):
        raise ValueError("digest")
    if last is not None and sequence == last[0] + 1 and before != last[1]:
        raise ValueError("order")
    return sequence, digest


# --- for people -----------------------------------------------------------------------------------


def describe(result: Verification, translate: Callable[[str], str] = _) -> Iterator[str]:
    """The result, line by line."""
    for finding in result.findings:
        yield translate(MESSAGES[finding.kind]) % vars(finding)
    if result.session:
        yield translate(SUMMARY) % vars(result)
    yield translate(COUNTED) % (vars(result) | {"findings": len(result.findings)})
    if result.signer:
        yield translate(SIGNED_BY) % {"key": result.signer}
        if not result.is_known:
            yield translate(SIGNER_UNKNOWN)


def explain(error: NotVerifiable | OSError, translate: Callable[[str], str] = _) -> str:
    """Why a file could not be verified."""
    if isinstance(error, NotVerifiable):
        return translate(REASONS[error.reason])
    return error.strerror or type(error).__name__


def _printable(text: str) -> str:
    """*text*, cut after 200 characters and with those escaped that could steer a terminal.

    Raises ``TypeError`` for anything but a text.
    """
    if not isinstance(text, str):
        raise TypeError("no text")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:200])


def main(arguments: list[str] | None = None) -> int:
    """Verify a file; returns the exit status."""
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
        metavar="PEM_FILE",
        help="the public keys that the maker publishes; may be given several times",
    )
    options = parser.parse_args(arguments)
    try:
        trusted = read_keys(options.key)
        with open(options.file, "rb") as file:
            result = verify(file, trusted=trusted)
    except (NotVerifiable, OSError) as error:
        sys.stderr.write(f"{explain(error)}\n")
        return NO_BUNDLE
    for line in describe(result):
        sys.stdout.write(f"{line}\n")
    return result.status


if __name__ == "__main__":
    sys.exit(main())
