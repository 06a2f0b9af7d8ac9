"""Evidence bundles that were tampered with, or made to hurt who verifies them."""

from __future__ import annotations

import hashlib
import io
import json
import random
import stat
import struct
import tempfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from django_faceprint import bundle_check
from django_faceprint.bundle_check import CHANGED, UNKNOWN_SIGNER, WHOLE, NotABundle, Verification, verify
from django_faceprint.jobs.bundle import write_bundle
from django_faceprint.models import AccessLog
from django_faceprint.privacy.signatures import public_keys
from tests import factories

pytestmark = pytest.mark.django_db

Files = dict[str, bytes]


@pytest.fixture
def genuine() -> bytes:
    """A bundle with a picture and two chained entries of the log."""
    session = factories.make_passed_session()
    factories.make_stored_asset(session, "face")
    for _ in range(2):
        AccessLog.objects.create(
            actor_id="1",
            actor_name="x",
            action="view_record",
            channel="admin",
            session_id=session.public_id,
        )
    out = io.BytesIO()
    write_bundle(session, out, unmasked=True, language="en", made_by="root")
    assert check(out.getvalue()).status == WHOLE
    return out.getvalue()


def check(data: bytes) -> Verification:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        return verify(file, trusted=public_keys("bundle"))


def kinds(data: bytes) -> set[tuple[str, str]]:
    result = check(data)
    assert result.status == (CHANGED if result.findings else UNKNOWN_SIGNER if not result.is_known else WHOLE)
    return {(finding.kind, finding.path) for finding in result.findings}


def unpacked(data: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return out.getvalue()


def forged(files: Files, **more: Any) -> bytes:
    """A bundle of *files* as somebody else would make and sign it; *more* goes into the manifest."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = [
        {
            "path": name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "role": "access_log" if name == "access-log.jsonl" else "media",
        }
        for name, data in files.items()
        if name not in ("manifest.json", "signature.json")
    ]
    return packed(signed(files, json.dumps(manifest | more).encode()).items())


def signed(files: Files, manifest: bytes) -> Files:
    pair = Ed25519PrivateKey.generate()
    told = {
        "algorithm": "Ed25519",
        "public_key": pair.public_key().public_bytes_raw().hex(),
        "signature": pair.sign(b"django-faceprint/1/bundle\x00" + manifest).hex(),
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
    }
    return files | {"manifest.json": manifest, "signature.json": json.dumps(told).encode()}


# --- changed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["README-en.txt", "record.json", "consent.json", "access-log.jsonl", "media/face.jpg"]
)
def test_a_changed_file_is_found(genuine: bytes, path: str) -> None:
    files = unpacked(genuine)
    files[path] = files[path][:-2] + b"?" + files[path][-1:]
    assert ("changed", path) in kinds(packed(files.items()))
    files[path] += b" "
    assert ("unreadable", path) in kinds(packed(files.items()))


def test_a_missing_and_an_additional_file_are_found(genuine: bytes) -> None:
    files = unpacked(genuine)
    del files["media/face.jpg"]
    files["media/video.mp4"] = b"not there before"
    assert kinds(packed(files.items())) == {("missing", "media/face.jpg"), ("additional", "media/video.mp4")}


def test_a_changed_manifest_is_found(genuine: bytes) -> None:
    files = unpacked(genuine)
    files["manifest.json"] = files["manifest.json"].replace(b'"clear"', b'"clean"')
    assert kinds(packed(files.items())) == {("signature", "signature.json")}


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"algorithm": "none", "public_key": "", "signature": "", "manifest_sha256": ""}',
        b'{"algorithm": "Ed25519", "public_key": 7, "signature": [], "manifest_sha256": null}',
        b'{"algorithm": "Ed25519", "public_key": "00", "signature": "00", "manifest_sha256": "00"}',
        b"\xff" * 20,
        b"[" * 60_000,
        b"x" * 70_000,
    ],
)
def test_a_wrong_signature_is_found(genuine: bytes, signature: bytes) -> None:
    files = unpacked(genuine)
    files["signature.json"] = signature
    assert kinds(packed(files.items())) == {("signature", "signature.json")}


def test_a_point_of_small_order_signs_nothing(genuine: bytes) -> None:
    files = unpacked(genuine)
    told = json.loads(files["signature.json"])
    for point in ("00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f"):
        told |= {"public_key": point, "signature": point + "00" * 32}
        files["signature.json"] = json.dumps(told).encode()
        assert check(packed(files.items())).status != WHOLE


def test_a_removed_signature_is_found(genuine: bytes) -> None:
    files = unpacked(genuine)
    del files["signature.json"]
    assert kinds(packed(files.items())) == {("missing", "signature.json")}


def test_whoever_signs_anew_is_not_the_maker(genuine: bytes) -> None:
    files = unpacked(genuine)
    files["record.json"] = files["record.json"].replace(b'"passed"', b'"failed"')
    result = check(forged(files))
    assert (result.count, result.is_known, result.status) == (0, False, UNKNOWN_SIGNER)
    assert result.signer not in public_keys("bundle")


def test_a_signature_serves_one_purpose(genuine: bytes) -> None:
    assert public_keys("bundle") != public_keys("something else")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"actor_name": "x"', b'"actor_name": "y"'),
        (b'"sequence": 2', b'"sequence": 3'),
        (b'"log_id"', b'"log_ID"'),
        (b'"entry"', b'"entri"'),
        (b'"version": 1', b'"version": []'),
        (b'"version": 1', b'"version": 9'),
        (b'"action"', b'"\\ud800"'),
    ],
)
def test_a_changed_entry_of_the_log_is_found_whoever_signed(genuine: bytes, old: bytes, new: bytes) -> None:
    files = unpacked(genuine)
    assert old in files["access-log.jsonl"]
    files["access-log.jsonl"] = files["access-log.jsonl"].replace(old, new)
    assert ("log", "access-log.jsonl") in kinds(forged(files))


@pytest.mark.parametrize(
    "log",
    [b"[]", b"7", b"null", b'{"entry": "x", "link": {}}', b"{" * 60_000, b"x" * 200_000, b"\n" * 70, b"\xff"],
)
def test_a_log_that_is_none_is_found(genuine: bytes, log: bytes) -> None:
    files = unpacked(genuine)
    files["access-log.jsonl"] = log
    assert ("log", "access-log.jsonl") in kinds(forged(files))


def test_a_swapped_log_is_found(genuine: bytes) -> None:
    files = unpacked(genuine)
    first, second = files["access-log.jsonl"].splitlines()
    told = json.loads(second)
    told["link"]["before"] = "0" * 64
    content = [
        1,
        told["link"]["sequence"],
        "0" * 64,
        told["link"]["sealed_at"],
        told["log_id"],
        list(told["entry"].values()),
    ]
    told["link"]["digest"] = hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
    files["access-log.jsonl"] = first + b"\n" + json.dumps(told).encode()
    (finding,) = check(forged(files)).findings
    assert (finding.kind, finding.line) == ("log", 2)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        "media/../../evil",
        "media\\..\\evil",
        "C:\\evil",
        "media/",
        "media/sub/evil",
        ".hidden",
        "evil\x00.jpg",
        "evil\x1b[2J",
        "媒体.jpg",
        "a" * 200,
        " ",
    ],
)
def test_a_name_that_leads_elsewhere_is_found(genuine: bytes, name: str) -> None:
    files = unpacked(genuine)
    # zipfile itself would cut a name at its NUL.
    data = packed([*files.items(), (name.replace("\x00", "@"), b"evil")])
    found = kinds(data.replace(name.replace("\x00", "@").encode(), name.encode()))
    assert "unsafe" in {kind for kind, _ in found}


def test_a_manifest_cannot_make_such_a_name_good(genuine: bytes) -> None:
    files = unpacked(genuine)
    with pytest.raises(NotABundle, match="manifest"):
        check(forged(files | {"../evil": b"evil"}))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_what_is_no_regular_file_is_found(genuine: bytes, kind: int) -> None:
    files = unpacked(genuine)
    link = zipfile.ZipInfo("media/face.jpg")
    link.external_attr = (kind | 0o777) << 16
    entries = [(link if name == "media/face.jpg" else name, data) for name, data in files.items()]
    assert kinds(packed(entries)) == {("unsafe", "media/face.jpg")}


def test_a_name_that_is_there_twice_is_found(genuine: bytes) -> None:
    files = unpacked(genuine)
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = packed([*files.items(), ("record.json", b'{"verdict": "failed"}')])
    assert kinds(data) == {("duplicate", "record.json")}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_pack_are_not_read(genuine: bytes, method: int) -> None:
    files = unpacked(genuine)
    face = zipfile.ZipInfo("media/face.jpg")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            if name == "media/face.jpg":
                archive.writestr(face, data, method)
            else:
                archive.writestr(name, data)
    assert ("unsafe", "media/face.jpg") in kinds(out.getvalue())


# --- bytes that belong to nobody ------------------------------------------------------------------


def test_bytes_around_the_files_are_found(genuine: bytes) -> None:
    assert ("hidden", "README-en.txt") in kinds(b"MZ evil" + genuine)
    with pytest.raises(NotABundle):
        check(genuine + b"evil")
    comment = bytearray(genuine)
    comment[-2:] = b"\x04\x00"
    with pytest.raises(NotABundle):
        check(bytes(comment) + b"evil")


def test_bytes_between_the_files_are_found(genuine: bytes) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in unpacked(genuine).items():
            archive.writestr(name, data)
            if name == "record.json":
                out.write(b"hidden")
                archive.start_dir = out.tell()
    assert {kind for kind, _ in kinds(out.getvalue())} == {"hidden"}


def test_bytes_behind_a_packed_file_are_found(genuine: bytes) -> None:
    files = unpacked(genuine)
    data = files["record.json"]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflate.compress(data) + deflate.flush() + b"hidden"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, other in files.items():
            if name != "record.json":
                archive.writestr(name, other)
                continue
            info = zipfile.ZipInfo(name)
            archive.writestr(info, body)
            info.compress_type, info.file_size, info.CRC = zipfile.ZIP_DEFLATED, len(data), zlib.crc32(data)
            archive.fp.seek(info.header_offset)  # type: ignore[union-attr]
            archive.fp.write(info.FileHeader())  # type: ignore[union-attr]
            archive.fp.seek(archive.start_dir)  # type: ignore[union-attr]
    assert kinds(out.getvalue()) == {("unreadable", "record.json")}


def test_a_header_that_disagrees_with_the_directory_is_found(genuine: bytes) -> None:
    """Some programs read the one, some the other."""
    position = genuine.index(b"record.json")
    data = genuine[:position] + b"rekord.json" + genuine[position + 11 :]
    assert ("hidden", "record.json") in kinds(data)


# --- bombs ----------------------------------------------------------------------------------------


def test_a_bomb_is_not_unpacked(genuine: bytes) -> None:
    files = unpacked(genuine)
    out = io.BytesIO()
    bomb = bytes(1 << 20)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        with archive.open("media/bomb.mp4", "w") as file:
            for _ in range(300):
                file.write(bomb)
    assert ("too_large", "") in kinds(out.getvalue())


def test_a_bomb_that_lies_about_its_size_is_cut(genuine: bytes) -> None:
    files = unpacked(genuine)
    files["media/face.jpg"] = bytes(50 << 20)
    data = bytearray(forged(files))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo("media/face.jpg")
        start = archive.start_dir
    small = struct.pack("<L", 1000)
    data[info.header_offset + 22 : info.header_offset + 26] = small
    entry = data.index(b"media/face.jpg", start) - 46
    data[entry + 24 : entry + 28] = small
    tracemalloc.start()
    begun = time.perf_counter()
    assert ("unreadable", "media/face.jpg") in kinds(bytes(data))
    assert time.perf_counter() - begun < 2
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_files_that_share_their_bytes_are_found(genuine: bytes) -> None:
    """Many names for one kernel: small, and huge when it is unpacked."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in unpacked(genuine).items():
            archive.writestr(name, data)
        kernel = archive.getinfo("record.json")
        for number in range(200):
            copy = zipfile.ZipInfo(f"media/copy-{number}.jpg")
            copy.compress_type, copy.CRC = kernel.compress_type, kernel.CRC
            copy.compress_size, copy.file_size = kernel.compress_size, kernel.file_size
            copy.header_offset = kernel.header_offset
            archive.filelist.append(copy)
        archive._didModify = True  # type: ignore[attr-defined]
    found = kinds(out.getvalue())
    assert ("hidden", "media/copy-199.jpg") in found


@pytest.mark.parametrize(
    "end",
    [
        struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 9, 9, 3 << 30, 0, 0),
        struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 60_000, 60_000, 100, 0, 0),
        struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 1, 1, 900_000, 0, 0),
        struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 1 << 62, 0)
        + struct.pack("<4sLQL", b"PK\x06\x07", 0, 1000, 1)
        + struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 1, 1, 50, 0, 0),
        struct.pack("<4sLQL", b"PK\x06\x07", 0, 1 << 62, 1)
        + struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 1, 1, 50, 0, 0),
        b"PK\x05\x06",
        b"",
    ],
)
def test_a_directory_that_lies_about_its_size_is_not_read(end: bytes) -> None:
    with pytest.raises(NotABundle):
        check(bytes(1000) + end)


@pytest.mark.parametrize("field", [16, 20, 42])
@pytest.mark.parametrize("value", [0, 1, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF])
def test_a_directory_that_lies_about_a_file_is_seen_through(genuine: bytes, field: int, value: int) -> None:
    with zipfile.ZipFile(io.BytesIO(genuine)) as archive:
        start = archive.start_dir
    entry = genuine.index(b"record.json", start) - 46
    data = genuine[: entry + field] + struct.pack("<L", value) + genuine[entry + field + 4 :]
    with suppress(NotABundle):
        assert check(data).status == CHANGED


# --- manifests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"format": "something else"},
        {"session": "../x"},
        {"session": 7},
        {"made_by": None},
        {"made_by": "x" * 201},
        {"files": None},
        {"files": [7]},
        {"files": {"path": "record.json"}},
        {"files": [{"path": "record.json"}]},
        {"files": [{"path": "record.json", "sha256": "0" * 64, "size": -1, "role": ""}]},
        {"files": [{"path": "record.json", "sha256": "0" * 64, "size": True, "role": ""}]},
        {"files": [{"path": "record.json", "sha256": "0" * 64, "size": 1e300, "role": ""}]},
        {"files": [{"path": "record.json", "sha256": "Z" * 64, "size": 1, "role": ""}]},
        {"files": [{"path": ["record.json"], "sha256": "0" * 64, "size": 1, "role": ""}]},
        {"files": [{"path": "manifest.json", "sha256": "0" * 64, "size": 1, "role": ""}]},
        {"files": [{"path": "record.json", "sha256": "0" * 64, "size": 1, "role": ""}] * 2},
    ],
)
def test_what_is_no_manifest_is_refused(genuine: bytes, change: dict[str, Any]) -> None:
    files = unpacked(genuine)
    manifest = json.dumps(json.loads(files["manifest.json"]) | change).encode()
    with pytest.raises(NotABundle, match="manifest"):
        check(packed(signed(files, manifest).items()))


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"format": ' * 50_000,
        b'{"format": "faceprint-bundle", "format": "faceprint-bundle"}',
        b'{"version": ' + b"9" * 10_000 + b"}",
        b" " * (5 << 20),
    ],
)
def test_what_is_no_json_is_refused(genuine: bytes, manifest: bytes) -> None:
    with pytest.raises(NotABundle, match="manifest"):
        check(packed(signed(unpacked(genuine), manifest).items()))


def test_a_newer_version_is_not_guessed_at(genuine: bytes) -> None:
    with pytest.raises(NotABundle, match="version"):
        check(forged(unpacked(genuine), version=2))


def test_a_size_that_no_number_holds_is_no_work(genuine: bytes) -> None:
    files = unpacked(genuine)
    manifest = json.loads(files["manifest.json"])
    manifest["files"][0]["size"] = 10**300
    data = packed(signed(files, json.dumps(manifest).encode()).items())
    assert ("changed", manifest["files"][0]["path"]) in kinds(data)


# --- who reads ------------------------------------------------------------------------------------


def test_nothing_in_a_bundle_steers_the_terminal(genuine: bytes) -> None:
    files = unpacked(genuine)
    data = forged(files, made_by="\x1b]0;evil\x07\u202e\ud800\n0 findings", made_at="\r\x1b[2K")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    lines = list(bundle_check.in_words(check(packed([*entries, ("\x1b[2J\n", b"")]))))
    text = "\n".join(lines)
    assert all(line.isprintable() for line in lines)
    assert "\\x1b]0;evil" in text
    text.encode("utf-8")


def test_whatever_is_flipped_nothing_breaks_and_nothing_changed_passes(genuine: bytes) -> None:
    """A flip that still passes is one that no program shows: in times and rights, say."""
    dice = random.Random(20260302)
    before = unpacked(genuine)
    passed = 0
    for _ in range(1_500):
        data = bytearray(genuine)
        for _ in range(dice.choice((1, 1, 3))):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        try:
            result = check(bytes(data))
        except NotABundle:
            continue
        if result.status == WHOLE:
            passed += 1
            assert unpacked(bytes(data)) == before
    assert passed < 300


def test_wherever_it_is_cut_it_is_no_bundle(genuine: bytes) -> None:
    for length in [*range(0, len(genuine), 97), len(genuine) - 1]:
        with pytest.raises(NotABundle):
            check(genuine[:length])
