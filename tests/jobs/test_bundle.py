"""Evidence bundles: their contents, what they leave out, and that they are whole or fail."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tracemalloc
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_faceprint import bundle_check
from django_faceprint.audit import chain
from django_faceprint.audit.access import Actor
from django_faceprint.clock import now
from django_faceprint.evidence import erasure, files
from django_faceprint.evidence.answers import make_answer
from django_faceprint.evidence.files import StorageFailed
from django_faceprint.jobs.bundle import README_LANGUAGES, Bundle, RecordErased, write_bundle
from django_faceprint.models import (
    AccessLog,
    AccessReason,
    MediaAsset,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.models.access import AccessSeal
from django_faceprint.privacy.signatures import public_keys
from django_faceprint.verification import consent
from tests import factories
from tests.factories import NAME, NUMBER, make_asset, make_call, make_passed_session, make_stored_asset

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = "合同-2026-0042"
OCR = {"name": NAME, "number": NUMBER, "address": "浙江省杭州市西湖区1号", "expire_time": "20360101"}


@pytest.fixture
def record(clock: Any) -> VerificationSession:
    """A record with everything: consent, files, an attempt, calls, answers, a view."""
    session = make_passed_session(reference="order-1", ocr=OCR, confirmed={"name": NAME, "number": NUMBER})
    consent.record(
        session,
        consent.Consent(
            reference=REFERENCE, notice_version="v3", given_at=now(), channel="app", separate=True
        ),
    )
    for kind in ("face", "id_front", "id_back", "process_video"):
        make_stored_asset(session, kind)
    make_stored_asset(session, "frame", position=2)
    make_stored_asset(session, "attempt_face", attempt_order=1)
    make_asset(session, "match_image", state=MediaAsset.State.NOT_PROVIDED, reason="upstream_gave_none")
    VerificationAttempt.objects.create(session=session, order=1, passed=True, code="0", score=84.4)
    make_call(session)
    body = {"log_id": 17, "result": {"verify_token": session.verify_token, "name": NAME}}
    make_answer(session, "result_detail", json.dumps(body).encode(), log_id="17").save()
    view(session)
    return session


def view(session: VerificationSession, **values: Any) -> AccessLog:
    return AccessLog.objects.create(
        **{"actor_id": "1", "actor_name": "审核员", "action": "view_record", "channel": "admin"} | values,
        session_id=session.public_id,
    )


def bundle(session: VerificationSession, **options: Any) -> zipfile.ZipFile:
    out = io.BytesIO()
    defaults = {"unmasked": True, "language": "zh-hans", "made_by": "root"}
    write_bundle(session, out, **defaults | options)
    return zipfile.ZipFile(out)


def document(archive: zipfile.ZipFile, path: str) -> Any:
    return json.loads(archive.read(path))


def left_out(archive: zipfile.ZipFile) -> dict[str, str]:
    """Reasons of the missing files by kind."""
    missing = document(archive, "manifest.json")["not_included"]
    return {entry["kind"]: entry["why"]["code"] for entry in missing}


def lines(archive: zipfile.ZipFile, path: str) -> list[Any]:
    return [json.loads(line) for line in archive.read(path).splitlines()]


def verified(archive: zipfile.ZipFile) -> bundle_check.Verification:
    assert archive.fp is not None
    return bundle_check.verify(archive.fp, trusted="".join(public_keys("bundle")))  # type: ignore[arg-type]


# --- contents -------------------------------------------------------------------------------------


def test_all_that_is_on_record_is_in_it(record: VerificationSession) -> None:
    found = bundle(record)
    assert found.testzip() is None
    assert found.namelist() == [
        "README-en.txt",
        "README-zh-hans.txt",
        "record.json",
        "consent.json",
        "calls.jsonl",
        "answers.jsonl",
        "access-log.jsonl",
        "media/face.jpg",
        "media/frame-2.jpg",
        "media/id-back.jpg",
        "media/id-front.jpg",
        "media/process-video.mp4",
        "media/attempt-face-attempt-1.jpg",
        "manifest.json",
        "signer.pem",
        "SHA256SUMS",
        "SHA256SUMS.sig",
    ]
    content = document(found, "record.json")
    assert content["identity"] == {"name": NAME, "number": NUMBER, "certificate_type": 0}
    assert (content["verdict"], content["verdict_text"]) == ("passed", "通过")
    assert content["scores"]["score"] == 84.4
    assert content["times"]["verified_at"] == "2026-03-02T08:00:00+00:00"
    assert [attempt["score"] for attempt in content["attempts"]] == [84.4]
    assert document(found, "consent.json")["reference"] == REFERENCE
    assert [call["log_id"] for call in lines(found, "calls.jsonl")] == ["1390123456789012345"]
    assert found.read("media/face.jpg") == factories.image_bytes()
    assert found.read("media/process-video.mp4") == factories.video_bytes()
    result = verified(found)
    assert (result.findings, result.status, result.files, result.log_entries) == ([], 0, 17, 1)


def test_every_other_file_has_its_sum(record: VerificationSession) -> None:
    found = bundle(record)
    sums = {path: digest for digest, path in map(str.split, found.read("SHA256SUMS").decode().splitlines())}
    assert set(sums) == set(found.namelist()) - {"SHA256SUMS", "SHA256SUMS.sig"}
    for path, digest in sums.items():
        assert digest == hashlib.sha256(found.read(path)).hexdigest()
    video = MediaAsset.objects.get(kind="process_video")
    assert sums["media/process-video.mp4"] == video.sha256
    assert found.read("signer.pem").decode() == public_keys("bundle")[0]


def test_the_manifest_says_what_each_file_is_and_what_is_missing(record: VerificationSession) -> None:
    found = bundle(record)
    manifest = document(found, "manifest.json")
    assert {entry["path"] for entry in manifest["media"]} == {
        name for name in found.namelist() if name.startswith("media/")
    }
    video = next(entry for entry in manifest["media"] if entry["kind"] == "process_video")
    asset = MediaAsset.objects.get(kind="process_video")
    assert (video["id"], video["path"]) == (str(asset.public_id), "media/process-video.mp4")
    assert video["deadline"] == asset.deadline.isoformat()  # type: ignore[union-attr]
    (missing,) = manifest["not_included"]
    assert (missing["kind"], missing["kind_text"]) == ("match_image", "对比图片")
    assert missing["why"] == {"code": "upstream_gave_none", "text": "百度未提供"}
    assert (manifest["made_by"], manifest["identity"]) == ("root", "unmasked")
    assert (manifest["session"], manifest["environment"]) == (str(record.public_id), record.environment)
    assert manifest["access_log_head"] == chain.head()


def test_texts_are_in_the_language_that_is_asked_for(record: VerificationSession) -> None:
    found = bundle(record, language="en")
    assert document(found, "record.json")["verdict_text"] == "passed"
    assert "Evidence bundle of a face verification" in found.read("README-en.txt").decode()
    assert "人脸实名认证证据包" in found.read("README-zh-hans.txt").decode()


# --- left out -------------------------------------------------------------------------------------


def test_a_masked_bundle_identifies_nobody_in_writing(record: VerificationSession) -> None:
    found = bundle(record, unmasked=False)
    everything = b"".join(found.read(name) for name in found.namelist()).decode("utf-8", "replace")
    for secret in (NAME, NUMBER, REFERENCE, "西湖区", str(record.verify_token)):
        assert secret not in everything
    assert document(found, "record.json")["identity"]["name"] == "张**"
    assert document(found, "record.json")["ocr"]["address"] == "浙江省****"
    assert document(found, "consent.json")["has_reference"] is True
    assert "answers.jsonl" not in found.namelist()
    assert left_out(found) == {"id_front": "masked", "id_back": "masked", "match_image": "upstream_gave_none"}
    assert verified(found).status == 0


def test_no_bundle_holds_the_token(record: VerificationSession) -> None:
    found = bundle(record)
    (answer,) = lines(found, "answers.jsonl")
    assert json.loads(answer["body"])["result"] == {"verify_token": "[verify_token]", "name": NAME}
    assert all(str(record.verify_token).encode() not in found.read(name) for name in found.namelist())


def test_the_access_log_can_be_left_out(record: VerificationSession) -> None:
    found = bundle(record, with_log=False)
    assert "access-log.jsonl" not in found.namelist()
    assert document(found, "manifest.json")["access_log_head"] is None
    assert "access-log" not in found.read("README-en.txt").decode()
    assert verified(found).status == 0


def test_a_bare_record_has_a_bundle(clock: Any) -> None:
    found = bundle(factories.make_session(identity_name=None, identity_number=None))
    assert document(found, "record.json")["identity"]["name"] is None
    assert document(found, "consent.json") is None
    assert verified(found).status == 0


# --- the access log -------------------------------------------------------------------------------


def test_entries_of_the_log_fit_their_links(record: VerificationSession) -> None:
    view(factories.make_session())
    entry = view(record, action="export", reason_code="audit", reason_digest="0" * 64)
    AccessReason.objects.create(public_id=entry.public_id, text=f"张三丰 asked {NUMBER}", salt="s")
    found = bundle(record)
    content = lines(found, "access-log.jsonl")
    assert [line["entry"]["action"] for line in content] == ["view_record", "export"]
    assert [line["link"]["sequence"] for line in content] == [1, 3]
    assert AccessSeal.objects.get(log_id=entry.pk).digest == content[1]["link"]["digest"]
    assert "asked" not in found.read("access-log.jsonl").decode()
    assert (verified(found).log_entries, verified(found).findings) == (2, [])


def test_a_link_whose_forerunner_was_deleted_for_its_age_says_so(clock: Any) -> None:
    present = now()
    clock.set(present - timedelta(days=1_300))
    session = make_passed_session()
    for _ in range(2):
        view(session)
    chain.add_links()
    clock.set(present)
    assert chain.prune_log() == 1
    found = bundle(session)
    (content,) = lines(found, "access-log.jsonl")
    assert (content["link"]["sequence"], content["link"]["before"]) == (2, None)
    assert (verified(found).log_entries, verified(found).findings) == (1, [])


# --- damage ---------------------------------------------------------------------------------------


def test_a_damaged_file_is_named_and_spoils_nothing(record: VerificationSession, stored: Any) -> None:
    video = MediaAsset.objects.get(kind="process_video")
    path = stored(video)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    stored(MediaAsset.objects.get(kind="frame")).unlink()
    MediaAsset.objects.filter(kind="face").update(sha256="0" * 64)
    found = bundle(record)
    assert left_out(found)["process_video"] == "damaged"
    assert left_out(found)["frame"] == "gone"
    assert left_out(found)["face"] == "damaged"
    assert verified(found).status == 0


@pytest.fixture
def stored() -> Any:
    """The path of an asset's file."""
    return lambda asset: Path(files.storage().path(asset.stored_name))


def test_a_storage_that_fails_gives_no_bundle(
    record: VerificationSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, mode: str = "rb") -> Any:
        raise ConnectionError(f"https://key:secret@storage.example/{name}")

    monkeypatch.setattr(files.storage(), "open", fail)
    with pytest.raises(StorageFailed) as caught:
        bundle(record)
    assert str(caught.value) == "ConnectionError"


def test_values_that_do_not_open_are_named(record: VerificationSession, settings: Any) -> None:
    assets = MediaAsset.objects.filter(session=record)
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": ["C" * 43 + "="]}
    fresh = VerificationSession.objects.get(pk=record.pk)
    found = bundle(fresh)
    content = document(found, "record.json")
    assert (content["identity"]["name"], content["ocr"]) == (None, None)
    assert content["unreadable"] == ["identity_name", "identity_number", "ocr", "confirmed"]
    assert len(document(found, "manifest.json")["not_included"]) == assets.count()


def test_a_record_that_is_erased_meanwhile_gives_no_bundle(record: VerificationSession) -> None:
    pieces = iter(Bundle(record, unmasked=True, language="en", made_by="root"))
    next(pieces)
    VerificationSession.objects.filter(pk=record.pk).update(erased_at=now())
    with pytest.raises(RecordErased):
        list(pieces)


def test_an_erased_record_has_a_bundle_of_what_is_left(record: VerificationSession) -> None:
    erasure.erase(
        VerificationSession.objects.filter(pk=record.pk), reason="asked", actor=Actor("root", "admin")
    )
    found = bundle(VerificationSession.objects.get(pk=record.pk))
    everything = b"".join(found.read(name) for name in found.namelist()).decode("utf-8", "replace")
    assert NAME not in everything
    assert NUMBER not in everything
    assert document(found, "record.json")["times"]["erased_at"]
    assert set(left_out(found).values()) == {"erased", "upstream_gave_none"}
    assert verified(found).status == 0


@pytest.mark.django_db(transaction=True)
def test_no_bundle_is_made_inside_a_transaction() -> None:
    session = make_passed_session()
    with transaction.atomic(), pytest.raises(RuntimeError, match="transaction"):
        bundle(session)


# --- cost -----------------------------------------------------------------------------------------


def test_queries_do_not_grow_with_rows(clock: Any) -> None:
    counts = []
    for rows in (1, 10):
        session = make_passed_session()
        for number in range(rows):
            make_call(session)
            view(session)
            make_asset(session, "frame", position=number)
            VerificationAttempt.objects.create(session=session, order=number)
            make_answer(session, "result_detail", b'{"n": %d}' % number).save()
        chain.add_links()
        with CaptureQueriesContext(connection) as queries:
            bundle(VerificationSession.objects.get(pk=session.pk))
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_memory_does_not_grow_with_the_video(clock: Any, tmp_path: Path) -> None:
    peaks = []
    for megabytes in (1, 24):
        session = make_passed_session()
        zeros = [bytes(64 * 1024)] * (16 * megabytes)
        padding = (len(zeros) * 64 * 1024 + 8).to_bytes(4, "big") + b"free"
        make_stored_asset(session, "video", [factories.video_bytes(), padding, *zeros])
        path = tmp_path / f"{megabytes}.zip"
        tracemalloc.start()
        with path.open("wb") as out:
            write_bundle(session, out, unmasked=True, language="en", made_by="root")
        with path.open("rb") as file:
            result = bundle_check.verify(file, trusted="".join(public_keys("bundle")))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (result.status, result.bytes > megabytes << 20) == (0, True)
    assert peaks[1] < peaks[0] + 1_000_000


# --- standard tools -------------------------------------------------------------------------------

SUMS = ["sha256sum", "-c", "SHA256SUMS"]
SIGNATURE = "openssl pkeyutl -verify -pubin -inkey signer.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig"


PACKAGES = {"sha256sum": "coreutils", "openssl": "openssl", "unzip": "unzip"}


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run *command* in *folder*; skips, by name, where the program is missing or too old."""
    program = command[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian: apt install {PACKAGES[program]})")
    if program == "openssl" and command[1:] != ["version"]:
        version = run(["openssl", "version"], folder).stdout
        if not re.match(r"OpenSSL ([3-9]|[1-9]\d)\.", version):
            pytest.skip(f"OpenSSL 3 or newer is not installed ({version.strip()})")
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def folder(record: VerificationSession, tmp_path: Path) -> Path:
    """A bundle that was unpacked by unzip."""
    with (tmp_path / "bundle.zip").open("wb") as out:
        write_bundle(record, out, unmasked=True, language="en", made_by="root")
    done = run(["unzip", "-q", "bundle.zip", "-d", "out"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    return tmp_path / "out"


def test_standard_tools_verify_a_bundle(folder: Path) -> None:
    assert (folder / "media" / "face.jpg").read_bytes() == factories.image_bytes()
    sums = run(SUMS, folder)
    assert (sums.returncode, sums.stderr) == (0, "")
    assert sums.stdout.count(": OK\n") == len([path for path in folder.rglob("*") if path.is_file()]) - 2
    signature = run(SIGNATURE.split(), folder)
    assert (signature.returncode, signature.stdout) == (0, "Signature Verified Successfully\n")


def test_standard_tools_find_a_change(folder: Path) -> None:
    (folder / "record.json").write_text("{}")
    sums = run(SUMS, folder)
    assert sums.returncode == 1
    assert "record.json: FAILED" in sums.stdout
    content = (folder / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(content.replace("a", "b"))
    assert run(SIGNATURE.split(), folder).returncode == 1


def test_the_documents_show_these_commands(folder: Path) -> None:
    pages = [ROOT / "docs" / language / "bundle.md" for language in README_LANGUAGES]
    for path in [*pages, *folder.glob("README-*.txt")]:
        text = path.read_text(encoding="utf-8")
        assert f"\n{' '.join(SUMS)}\n{SIGNATURE}\n" in text
