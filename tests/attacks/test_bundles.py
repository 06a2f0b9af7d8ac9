"""Evidence bundles that were tampered with, or made to harm those who verify them."""

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
from base64 import b64encode
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from django_faceprint import bundle_check
from django_faceprint.bundle_check import CHANGED, UNKNOWN_SIGNER, WHOLE, NotVerifiable, Verification, verify
from django_faceprint.jobs.bundle import write_bundle
from django_faceprint.jobs.zipping import zipped
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
        return verify(file, trusted="".join(public_keys("bundle")))


def kinds(data: bytes) -> set[tuple[str, str]]:
    result = check(data)
    assert result.status == (CHANGED if result.findings else UNKNOWN_SIGNER if not result.is_known else WHOLE)
    return {(finding.kind, finding.path) for finding in result.findings}


def unpacked(data: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    """A ZIP like those of bundles: uncompressed, written as a stream."""
    members = ((zipfile.ZipInfo(entry) if isinstance(entry, str) else entry, [data]) for entry, data in files)
    return b"".join(zipped(members))


def forged(files: Files, **more: Any) -> bytes:
    """A bundle of *files* as somebody else would make and sign it; *more* goes into the manifest."""
    manifest = json.loads(files["manifest.json"]) | more
    return packed(signed(files | {"manifest.json": json.dumps(manifest).encode()}).items())


def signed(files: Files, sums: bytes | None = None) -> Files:
    """*files* with sums (or *sums*) and a signature by somebody else."""
    pair = Ed25519PrivateKey.generate()
    pem = pair.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    files = files | {"signer.pem": pem}
    if sums is None:
        own = ("SHA256SUMS", "SHA256SUMS.sig")
        lines = [f"{sha256(data)}  {name}\n" for name, data in files.items() if name not in own]
        sums = "".join(lines).encode()
    return files | {"SHA256SUMS": sums, "SHA256SUMS.sig": pair.sign(sums)}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- changed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["README-en.txt", "record.json", "consent.json", "access-log.jsonl", "media/face.jpg"]
)
def test_a_changed_file_is_found(genuine: bytes, path: str) -> None:
    files = unpacked(genuine)
    files[path] = files[path][:-2] + b"?" + files[path][-1:]
    assert ("changed", path) in kinds(packed(files.items()))
    files[path] += b" "
    assert ("changed", path) in kinds(packed(files.items()))


def test_a_missing_and_an_additional_file_are_found(genuine: bytes) -> None:
    files = unpacked(genuine)
    del files["media/face.jpg"]
    files["media/video.mp4"] = b"not there before"
    assert kinds(packed(files.items())) == {("missing", "media/face.jpg"), ("additional", "media/video.mp4")}


def test_a_changed_manifest_is_found(genuine: bytes) -> None:
    files = unpacked(genuine)
    files["manifest.json"] = files["manifest.json"].replace(b'"unmasked"', b'"masked"')
    assert kinds(packed(files.items())) == {("changed", "manifest.json")}


@pytest.mark.parametrize("signature", [b"", b"x", b"\x00" * 64, b"x" * 65, b"x" * 70_000])
def test_a_wrong_signature_is_found(genuine: bytes, signature: bytes) -> None:
    files = unpacked(genuine) | {"SHA256SUMS.sig": signature}
    assert kinds(packed(files.items())) == {("signature", "SHA256SUMS.sig")}


def test_changed_sums_are_found(genuine: bytes) -> None:
    """Whoever changes a file and its sum cannot sign."""
    files = unpacked(genuine)
    changed = files["record.json"].replace(b'"passed"', b'"failed"')
    old, new = sha256(files["record.json"]).encode(), sha256(changed).encode()
    files |= {"record.json": changed, "SHA256SUMS": files["SHA256SUMS"].replace(old, new)}
    assert kinds(packed(files.items())) == {("signature", "SHA256SUMS.sig")}


def test_a_file_cannot_be_renamed(genuine: bytes) -> None:
    files = unpacked(genuine)
    files["media/id-front.jpg"] = files.pop("media/face.jpg")
    assert kinds(packed(files.items())) == {
        ("missing", "media/face.jpg"),
        ("additional", "media/id-front.jpg"),
    }


@pytest.mark.parametrize("change", ["", "none", "CRLF", "twice", "comment", "RSA"])
def test_a_key_file_of_another_form_verifies_nothing(genuine: bytes, change: str) -> None:
    """Signed anew, so that its sum is right."""
    files = signed(unpacked(genuine))
    pem = files["signer.pem"]
    changed = {
        "": b"",
        "none": b"\xff" * 113,
        "CRLF": pem.replace(b"\n", b"\r\n"),
        "twice": public_keys("bundle")[0].encode() + pem,
        "comment": b"a key:\n" + pem,
        "RSA": pem.replace(b"MCow", b"MIIB"),
    }[change]
    sums = files["SHA256SUMS"].replace(sha256(pem).encode(), sha256(changed).encode())
    files = signed(files, sums) | {"signer.pem": changed}
    assert kinds(packed(files.items())) == {("signature", "SHA256SUMS.sig")}


def test_a_point_of_small_order_is_no_known_key(genuine: bytes) -> None:
    files = unpacked(genuine)
    pem = files["signer.pem"].decode()
    for point in ("00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f"):
        line = b64encode(bytes.fromhex("302a300506032b6570032100" + point)).decode()
        files["signer.pem"] = pem.replace(pem.splitlines()[1], line).encode()
        files["SHA256SUMS.sig"] = bytes.fromhex(point + "00" * 32)
        assert check(packed(files.items())).status == CHANGED


@pytest.mark.parametrize("name", ["SHA256SUMS.sig", "signer.pem"])
def test_a_removed_signature_or_key_is_found(genuine: bytes, name: str) -> None:
    files = unpacked(genuine)
    del files[name]
    assert ("signature", "SHA256SUMS.sig") in kinds(packed(files.items()))


def test_whoever_signs_anew_is_not_the_maker(genuine: bytes) -> None:
    files = unpacked(genuine)
    files["record.json"] = files["record.json"].replace(b'"passed"', b'"failed"')
    result = check(forged(files))
    assert (result.findings, result.is_known, result.status) == ([], False, UNKNOWN_SIGNER)
    assert result.signer not in "".join(public_keys("bundle"))


def test_whoever_signs_anew_cannot_keep_the_makers_key(genuine: bytes) -> None:
    files = unpacked(genuine)
    pem = files["signer.pem"]
    files["record.json"] = files["record.json"].replace(b'"passed"', b'"failed"')
    files = signed(files)
    sums = files["SHA256SUMS"].replace(sha256(files["signer.pem"]).encode(), sha256(pem).encode())
    files = signed(files, sums) | {"signer.pem": pem}
    assert kinds(packed(files.items())) == {("signature", "SHA256SUMS.sig")}


def test_each_purpose_has_keys_of_its_own() -> None:
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
def test_another_text_in_place_of_the_log_is_found(genuine: bytes, log: bytes) -> None:
    files = unpacked(genuine)
    files["access-log.jsonl"] = log
    assert ("log", "access-log.jsonl") in kinds(forged(files))


def test_a_link_that_does_not_follow_the_one_before_is_found(genuine: bytes) -> None:
    files = unpacked(genuine)
    first, second = files["access-log.jsonl"].splitlines()
    line = json.loads(second)
    link = line["link"]
    link["before"] = "0" * 64
    values = list(line["entry"].values())
    content = [1, link["sequence"], "0" * 64, link["sealed_at"], line["log_id"], values]
    link["digest"] = sha256(json.dumps(content, separators=(",", ":")).encode())
    files["access-log.jsonl"] = first + b"\n" + json.dumps(line).encode()
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


def test_a_listed_name_that_leads_elsewhere_is_refused(genuine: bytes) -> None:
    files = unpacked(genuine)
    assert kinds(forged(files | {"../evil": b"evil"})) == {("unsafe", "../evil")}
    sums = files["SHA256SUMS"] + f"{'0' * 64}  ../evil\n".encode()
    with pytest.raises(NotVerifiable, match="sums"):
        check(packed(signed(files, sums).items()))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_a_member_that_is_no_regular_file_is_found(genuine: bytes, kind: int) -> None:
    files = unpacked(genuine)
    link = zipfile.ZipInfo("media/face.jpg")
    link.external_attr = (kind | 0o777) << 16
    entries = [(link if name == "media/face.jpg" else name, data) for name, data in files.items()]
    assert kinds(packed(entries)) == {("unsafe", "media/face.jpg")}


def test_a_name_that_occurs_twice_is_found(genuine: bytes) -> None:
    files = unpacked(genuine)
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = packed([*files.items(), ("record.json", b'{"verdict": "failed"}')])
    assert kinds(data) == {("duplicate", "record.json")}


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members_are_not_read(genuine: bytes, method: int) -> None:
    face = zipfile.ZipInfo("media/face.jpg")
    face.compress_type = method
    files = unpacked(genuine)
    entries = [(face if name == "media/face.jpg" else name, data) for name, data in files.items()]
    assert kinds(packed(entries)) == {("unsafe", "media/face.jpg")}


@pytest.mark.parametrize(("attribute", "value"), [("comment", b"evil"), ("extra", b"\x99\x99\x04\x00evil")])
def test_bytes_attached_to_a_member_are_found(genuine: bytes, attribute: str, value: bytes) -> None:
    face = zipfile.ZipInfo("media/face.jpg")
    setattr(face, attribute, value)
    files = unpacked(genuine)
    entries = [(face if name == "media/face.jpg" else name, data) for name, data in files.items()]
    assert kinds(packed(entries)) == {("unsafe", "media/face.jpg")}


# --- bytes that belong to no file -----------------------------------------------------------------


def test_bytes_around_the_files_are_found(genuine: bytes) -> None:
    comment = genuine[:-2] + b"\x04\x00evil"
    end = struct.unpack("<L", genuine[-6:-2])[0]
    moved = b"MZ evil" + genuine[:-6] + struct.pack("<L", end + 7) + genuine[-2:]
    for data in (b"MZ evil" + genuine, genuine + b"evil", genuine + bytes(76) + genuine[-22:], comment):
        with pytest.raises(NotVerifiable, match="not_a_zip"):
            check(data)
    # Here the first file is said to lie in front of the ZIP.
    assert {kind for kind, _ in kinds_or_refused(moved)} <= {"hidden", "not_a_zip"}


def kinds_or_refused(data: bytes) -> set[tuple[str, str]]:
    try:
        found = kinds(data)
    except NotVerifiable as error:
        return {(error.reason, "")}
    assert found
    return found


def test_bytes_between_the_files_are_found(genuine: bytes) -> None:
    files = unpacked(genuine)
    first = packed([("README-en.txt", files["README-en.txt"])])
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        gap = archive.start_dir
    data = insert(genuine, gap, b"hidden")
    assert kinds(data) == {("hidden", "README-zh-hans.txt")}
    with zipfile.ZipFile(io.BytesIO(genuine)) as archive:
        gap = archive.start_dir
    assert kinds(insert(genuine, gap, b"hidden")) == {("hidden", "ZIP")}


def insert(data: bytes, position: int, more: bytes) -> bytes:
    """A ZIP with *more* at *position*, and a directory that knows of it."""
    (start,) = struct.unpack("<L", data[-6:-2])
    directory = bytearray(data[start:-22])
    entry = 0
    while entry < len(directory):
        (offset,) = struct.unpack("<L", directory[entry + 42 : entry + 46])
        if offset >= position:
            directory[entry + 42 : entry + 46] = struct.pack("<L", offset + len(more))
        entry += 46 + sum(struct.unpack("<HHH", directory[entry + 28 : entry + 34]))
    end = data[-22:-6] + struct.pack("<L", start + len(more)) + data[-2:]
    return data[:position] + more + data[position:start] + directory + end


def header_of(data: bytes, name: str) -> int:
    """Where the local header of a member is."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.getinfo(name).header_offset


def test_a_header_that_disagrees_with_the_directory_is_found(genuine: bytes) -> None:
    """Some programs read the one, some the other."""
    position = header_of(genuine, "record.json") + 30
    data = genuine[:position] + b"rekord.json" + genuine[position + 11 :]
    assert kinds(data) == {("hidden", "record.json")}


def test_a_header_that_shifts_its_file_is_found(genuine: bytes) -> None:
    for length in (1, 16, 0xFFFF):
        position = header_of(genuine, "record.json") + 28
        data = genuine[:position] + struct.pack("<H", length) + genuine[position + 2 :]
        assert kinds(data) == {("hidden", "record.json")}


def test_every_byte_around_a_member_is_as_the_directory_says(genuine: bytes) -> None:
    """Some programs believe the header of a member, or the sizes after it."""
    start = header_of(genuine, "record.json")
    size = len(unpacked(genuine)["record.json"])
    around = [*range(start, start + 41), *range(start + 41 + size, start + 41 + size + 16)]
    for position in around:
        data = bytearray(genuine)
        data[position] ^= 1
        assert kinds(bytes(data)) == {("hidden", "record.json")}


# --- bombs ----------------------------------------------------------------------------------------


def test_a_bomb_is_not_unpacked(genuine: bytes) -> None:
    bomb = zipfile.ZipInfo("media/bomb.mp4")
    bomb.compress_type = zipfile.ZIP_DEFLATED
    data = packed([*unpacked(genuine).items(), (bomb, bytes(300 << 20))])
    assert len(data) < 1 << 20
    tracemalloc.start()
    begun = time.perf_counter()
    assert kinds(data) == {("unsafe", "media/bomb.mp4")}
    assert time.perf_counter() - begun < 2
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("said", [(1000, 50 << 20), (50 << 20, 50 << 20), (50 << 20, 1000)])
def test_sizes_that_lie_are_found(genuine: bytes, said: tuple[int, int]) -> None:
    data = bytearray(genuine)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = data.index(b"media/face.jpg", archive.start_dir) - 46
    data[entry + 20 : entry + 28] = struct.pack("<LL", *said)
    assert {kind for kind, _ in kinds_or_refused(bytes(data))} <= {"unsafe", "hidden", "not_a_zip"}


def test_files_that_share_their_bytes_are_found(genuine: bytes) -> None:
    """Many names for one kernel: small, and huge when it is unpacked."""
    (start,) = struct.unpack("<L", genuine[-6:-2])
    directory = genuine[start:-22]
    entry = directory.index(b"record.json") - 46
    copies = b""
    for number in range(200):
        name = f"media/copy-{number}.jpg".encode()
        copies += directory[entry : entry + 28] + struct.pack("<H", len(name))
        copies += directory[entry + 30 : entry + 46] + name
    count = struct.unpack("<H", genuine[-12:-10])[0] + 200
    sizes = struct.pack("<HHL", count, count, len(directory) + len(copies))
    data = genuine[:-22] + copies + genuine[-22:-14] + sizes + genuine[-6:]
    assert len(zipfile.ZipFile(io.BytesIO(data)).infolist()) == count
    assert kinds(data) == {("hidden", "media/copy-0.jpg")}


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
    with pytest.raises(NotVerifiable, match="not_a_zip"):
        check(bytes(1000) + end)


@pytest.mark.parametrize("field", [16, 20, 42])
@pytest.mark.parametrize("value", [0, 1, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF])
def test_a_directory_that_lies_about_a_file_is_seen_through(genuine: bytes, field: int, value: int) -> None:
    with zipfile.ZipFile(io.BytesIO(genuine)) as archive:
        start = archive.start_dir
    entry = genuine.index(b"record.json", start) - 46
    data = genuine[: entry + field] + struct.pack("<L", value) + genuine[entry + field + 4 :]
    with suppress(NotVerifiable):
        assert check(data).status == CHANGED


def test_zip64_is_verified(genuine: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles of more than 2 GiB have further records at their end, which must agree with the rest."""
    files = unpacked(genuine)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", max(map(len, files.values())))
    data = packed(files.items())
    assert data[-42:-38] == b"PK\x06\x07"
    assert check(data).status == WHOLE
    # Signatures, size and position of the directory, position of the record.
    for position in (-98, -58, -50, -42, -34):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(NotVerifiable, match="not_a_zip"):
            check(bytes(changed))


# --- sums and manifests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[:-1],
        lambda line: line.upper(),
        lambda line: line[1:],
        lambda line: b"\\" + line,
        lambda line: line.replace(b"  ", b" *"),
        lambda line: line.replace(b"  ", b" "),
        lambda line: line.replace(b"\n", b"\r\n"),
        lambda line: line * 2,
        lambda line: b"# " + line,
        lambda line: line + b"\n",
        lambda line: line + b"\xff\xfe\n",
        lambda line: line + b"0" * 64 + b"  /etc/passwd\n",
        lambda line: line + b" " * (5 << 20),
    ],
)
def test_sums_of_another_form_are_refused(genuine: bytes, change: Any) -> None:
    files = signed(unpacked(genuine))
    line = f"{sha256(files['record.json'])}  record.json\n".encode()
    assert line in files["SHA256SUMS"]
    files = signed(files, files["SHA256SUMS"].replace(line, change(line)))
    with pytest.raises(NotVerifiable, match="sums"):
        check(packed(files.items()))


def test_a_file_without_a_sum_is_found(genuine: bytes) -> None:
    files = signed(unpacked(genuine))
    line = f"{sha256(files['record.json'])}  record.json\n".encode()
    files |= signed(files, files["SHA256SUMS"].replace(line, b"")) | {"signer.pem": files["signer.pem"]}
    assert ("additional", "record.json") in kinds(packed(files.items()))


def test_a_bundle_without_sums_is_refused(genuine: bytes) -> None:
    files = unpacked(genuine)
    del files["SHA256SUMS"]
    with pytest.raises(NotVerifiable, match="sums"):
        check(packed(files.items()))


@pytest.mark.parametrize(
    "change",
    [{"session": 7}, {"session": None}, {"made_by": None}, {"made_at": ["2026"]}, {"identity": {}}],
)
def test_a_manifest_of_another_form_is_refused(genuine: bytes, change: dict[str, Any]) -> None:
    with pytest.raises(NotVerifiable, match="manifest"):
        check(forged(unpacked(genuine), **change))


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"7",
        b"{}",
        b"[" * 100_000,
        b'{"format": ' * 50_000,
        b'{"format": "faceprint-bundle", "format": "faceprint-bundle"}',
        b'{"version": ' + b"9" * 10_000 + b"}",
        b" " * (5 << 20),
    ],
)
def test_a_manifest_that_is_no_json_object_is_refused(genuine: bytes, manifest: bytes) -> None:
    files = signed(unpacked(genuine) | {"manifest.json": manifest})
    with pytest.raises(NotVerifiable, match="manifest"):
        check(packed(files.items()))


@pytest.mark.parametrize("change", [{"version": 2}, {"version": []}, {"format": "something else"}])
def test_another_version_is_not_guessed_at(genuine: bytes, change: dict[str, Any]) -> None:
    with pytest.raises(NotVerifiable, match="version"):
        check(forged(unpacked(genuine), **change))


# --- people and chance ------------------------------------------------------------------------------------


def test_nothing_in_a_bundle_steers_the_terminal(genuine: bytes) -> None:
    files = unpacked(genuine)
    data = forged(files, made_by="\x1b]0;evil\x07\u202e\ud800\n0 findings", made_at="\r\x1b[2K")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    results = [check(data), check(packed([*entries, ("\x1b[2J\n", b"")]))]
    lines = [line for result in results for line in bundle_check.describe(result)]
    text = "\n".join(lines)
    assert all(line.isprintable() for line in lines)
    assert "\\x1b]0;evil" in text
    text.encode("utf-8")


def test_random_bit_flips_break_nothing_and_no_change_passes(genuine: bytes) -> None:
    """A flip that still passes is one that no program shows: in the permissions of a file, for example."""
    dice = random.Random(20260302)
    before = unpacked(genuine)
    passed = 0
    for _ in range(1_500):
        data = bytearray(genuine)
        for _ in range(dice.choice((1, 1, 3))):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        try:
            result = check(bytes(data))
        except NotVerifiable:
            continue
        if result.status == WHOLE:
            passed += 1
            assert unpacked(bytes(data)) == before
    assert passed < 40


def test_a_bundle_that_is_cut_anywhere_is_refused(genuine: bytes) -> None:
    for length in [*range(0, len(genuine), 97), len(genuine) - 1]:
        with pytest.raises(NotVerifiable):
            check(genuine[:length])
