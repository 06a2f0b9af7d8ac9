"""Jobs: frozen, worked through in steps, stored encrypted, destroyed in time; whatever fails on the way."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import openpyxl
import pytest
from django.core.files.storage import storages
from django.db import connection
from django.utils import timezone, translation

from django_faceprint.audit.access import Actor, Reason
from django_faceprint.evidence import erasure
from django_faceprint.evidence import files as evidence_files
from django_faceprint.exceptions import InvalidInput
from django_faceprint.jobs import jobs
from django_faceprint.maintenance import retention, rotation
from django_faceprint.models import (
    AccessLog,
    AccessReason,
    Erasure,
    Job,
    JobPart,
    UploadIntent,
    VerificationSession,
)
from django_faceprint.privacy.keys import generate_key
from django_faceprint.records.filters import Selection
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]

ACTOR = Actor("auditor", "admin", "7", "192.0.2.1")


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(jobs, "ROWS_OF_PART", 3)
    monkeypatch.setattr(jobs, "ROWS_OF_STEP", 3)
    with translation.override("en"):
        yield


def make_records(count: int, **values: Any) -> list[VerificationSession]:
    plan = factories.make_plan()
    return [
        factories.make_passed_session(plan=plan, reference=f"R-{number}", **values) for number in range(count)
    ]


def export(**options: Any) -> Job:
    kind = options.pop("kind", "export_csv")
    parameters = options.pop("parameters", {"created": "all"})
    return jobs.create(kind, Selection(parameters), actor=ACTOR, **options)


def work(budget: float = 100.0, ticks: Callable[[], float] = lambda: 0.0) -> int:
    return jobs.work_on_jobs(budget=timedelta(seconds=budget), monotonic=ticks)


def table(job: Job) -> list[list[str]]:
    _type, extension, chunks = jobs.open_file(job)
    data = b"".join(chunks)
    if extension == "xlsx":
        sheet = openpyxl.load_workbook(io.BytesIO(data)).active
        return [["" if cell.value is None else str(cell.value) for cell in row] for row in sheet.iter_rows()]
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))


def column(job: Job, head: str) -> list[str]:
    heads, *rows = table(job)
    return [row[heads.index(head)] for row in rows]


def files() -> set[str]:
    def walk(folder: str) -> set[str]:
        folders, names = storages["faceprint"].listdir(folder)
        here = {f"{folder}/{name}".lstrip("/") for name in names}
        return here.union(*(walk(f"{folder}/{name}".lstrip("/")) for name in folders))

    return walk("") if storages["faceprint"].exists("") else set()


# --- exports ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["export_csv", "export_xlsx"])
def test_an_export_holds_every_selected_record_masked(kind: str) -> None:
    records = make_records(8)
    factories.make_session(reference="other", verdict="failed")
    before = files()
    job = export(kind=kind, parameters={"verdict": "passed"})
    assert (job.state, job.total, job.done) == ("waiting", 8, 0)
    work()
    job.refresh_from_db()
    assert (job.state, job.done, job.problem) == ("done", 8, "")
    assert column(job, "Reference") == [record.reference for record in records]
    assert column(job, "Session ID") == [str(record.public_id) for record in records]
    assert set(column(job, "Name (masked)")) == {"张**"}
    assert set(column(job, "ID number (masked)")) == {"110***********002X"}
    assert set(column(job, "Similarity score")) == {"84.4"}
    assert set(column(job, "Spoofing score")) == {"not checked"}
    content = b"".join(jobs.open_file(job)[2])
    assert factories.NAME.encode() not in content
    assert factories.NUMBER.encode() not in content
    # Three pieces of three rows and less, each a file of its own that only its key opens.
    assert job.parts.count() == 3
    stored = files() - before
    assert len(stored) == 3
    for name in stored:
        with storages["faceprint"].open(name) as file:
            assert b"R-1" not in file.read()
    assert not UploadIntent.objects.exists()
    entry = AccessLog.objects.get()
    assert (entry.action, entry.actor_name, entry.session_id) == ("export", "auditor", None)


def test_an_export_in_clear_names_each_record_in_the_log() -> None:
    records = make_records(4)
    job = export(unmasked=True, reason=Reason("audit", "工单 4711"))
    work()
    job.refresh_from_db()
    assert column(job, "Name") == [factories.NAME] * 4
    assert column(job, "ID number") == [factories.NUMBER] * 4
    first, *others = AccessLog.objects.order_by("pk")
    assert (first.session_id, first.reason_code) == (None, "audit")
    assert AccessReason.objects.get(public_id=first.public_id).text == "工单 4711"
    assert [entry.session_id for entry in others] == [record.public_id for record in records]
    assert {entry.reason_code for entry in others} == {"audit"}


def test_an_export_uses_language_and_time_zone_of_its_user() -> None:
    make_records(1, age=timedelta(hours=1))
    with translation.override("zh-hans"), timezone.override("Asia/Shanghai"):
        job = export()
    work()
    job.refresh_from_db()
    assert column(job, "创建时间") == ["2026-03-02 15:00:00+08:00"]
    assert column(job, "认证结果") == ["通过"]


def test_an_export_leaves_out_later_records_and_holds_later_changes() -> None:
    first, second = make_records(2)
    job = export()
    factories.make_passed_session(reference="later")
    VerificationSession.objects.filter(pk=second.pk).update(score=91.0)
    work()
    job.refresh_from_db()
    assert column(job, "Reference") == [first.reference, second.reference]
    assert column(job, "Similarity score") == ["84.4", "91.0"]


def test_a_record_that_cannot_be_decrypted_does_not_stop_the_others(settings: Any) -> None:
    make_records(1)
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [generate_key()]}
    make_records(1)
    job = export()
    work()
    job.refresh_from_db()
    assert column(job, "Name (masked)") == ["cannot be decrypted", "张**"]


@pytest.mark.parametrize(
    ("parameters", "code"),
    [({"verdict": "x"}, "unknown"), ({"verdict": "failed"}, "empty"), ({"nonsense": "1"}, "unknown")],
)
def test_a_selection_that_selects_nothing_is_refused(parameters: dict[str, str], code: str) -> None:
    make_records(1)
    with pytest.raises(InvalidInput) as caught:
        export(parameters=parameters)
    assert (caught.value.field, caught.value.code) == ("selection", code)
    assert not Job.objects.exists()
    assert not AccessLog.objects.exists()


def test_too_many_records_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_ROWS", 2)
    make_records(3)
    with pytest.raises(InvalidInput) as caught:
        export()
    assert caught.value.code == "too_large"


# --- steps --------------------------------------------------------------------------------------


def test_a_budget_ends_a_run_and_the_next_one_goes_on() -> None:
    make_records(8)
    job = export()
    clock = iter(range(1000))
    work(1.5, lambda: float(next(clock)))
    job.refresh_from_db()
    assert (job.state, job.done) == ("running", 3)
    work()
    job.refresh_from_db()
    assert (job.state, job.done) == ("done", 8)
    assert len(column(job, "Reference")) == 8


def test_a_worker_that_dies_costs_one_step(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make_records(8)
    before = files()
    job = export()
    write = evidence_files.write_unchecked

    def die(*args: Any, **options: Any) -> Any:
        # The machine goes down: no handler runs, the intent stays.
        if JobPart.objects.count() == 1:
            write(*args, **options)
            raise KeyboardInterrupt
        return write(*args, **options)

    monkeypatch.setattr(evidence_files, "write_unchecked", die)
    monkeypatch.setattr(evidence_files, "discard", lambda names: None)
    with pytest.raises(KeyboardInterrupt):
        work()
    monkeypatch.undo()
    monkeypatch.setattr(jobs, "ROWS_OF_PART", 3)
    assert work() == 0
    clock.advance(jobs.STEP_LEASE + timedelta(seconds=1))
    assert work()
    job.refresh_from_db()
    assert (job.state, job.done) == ("done", 8)
    assert column(job, "Reference") == [f"R-{number}" for number in range(8)]
    # What the dead worker left is found by its intent.
    assert len(files() - before) == 4
    clock.advance(evidence_files.INTENT_LIFE + timedelta(minutes=1))
    retention.retain()
    assert len(files() - before) == 3


def test_a_worker_that_wakes_after_an_hour_writes_nothing(
    clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_records(5)
    before = files()
    job = export()
    write = evidence_files.write_unchecked

    def freeze(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(evidence_files, "write_unchecked", write)
        clock.advance(timedelta(hours=1))
        assert work() == 2
        return write(*args, **options)

    monkeypatch.setattr(evidence_files, "write_unchecked", freeze)
    work()
    job.refresh_from_db()
    assert (job.state, job.done, job.failures) == ("done", 5, 0)
    assert column(job, "Reference") == [f"R-{number}" for number in range(5)]
    assert len(files() - before) == 2
    assert not UploadIntent.objects.exists()


def test_a_storage_that_fails_is_tried_again_and_then_given_up(
    clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_records(5)
    before = files()
    job = export()

    def fail(*args: Any, **options: Any) -> Any:
        raise evidence_files.StorageFailed("OSError")

    write = evidence_files.write_unchecked
    monkeypatch.setattr(evidence_files, "write_unchecked", fail)
    for failures in range(1, jobs.MAX_FAILURES):
        assert work() == 1
        job.refresh_from_db()
        assert (job.state, job.failures, job.problem) == ("running", failures, "StorageFailed")
        clock.advance(jobs.AGAIN_AFTER + timedelta(seconds=1))
    monkeypatch.setattr(evidence_files, "write_unchecked", write)
    work()
    job.refresh_from_db()
    assert (job.state, job.failures) == ("done", 0)
    monkeypatch.setattr(evidence_files, "write_unchecked", fail)
    job = export()
    for _ in range(jobs.MAX_FAILURES):
        work()
        clock.advance(jobs.AGAIN_AFTER + timedelta(seconds=1))
    job.refresh_from_db()
    assert (job.state, job.wake_at) == ("failed", None)
    assert job.finished_at
    assert len(files() - before) == 2


def test_a_cancelled_job_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    make_records(8)
    before = files()
    job = export()
    ticks = iter(range(1000))
    work(1.5, lambda: float(next(ticks)))
    assert jobs.cancel(job)
    assert job.state == "cancelled"
    assert files() == before
    assert not JobPart.objects.exists()
    assert work() == 0
    assert not jobs.cancel(job)
    with pytest.raises(InvalidInput):
        jobs.open_file(job)


def test_jobs_do_not_work_inside_a_transaction(transactional_db: None) -> None:
    from django.db import transaction

    make_records(1)
    job = export()
    with transaction.atomic(), pytest.raises(RuntimeError):
        jobs.work_on(job, until=0.0, monotonic=lambda: 0.0)


# --- the end of files ---------------------------------------------------------------------------


def test_a_file_expires_and_is_deleted(clock: Any) -> None:
    make_records(4)
    before = files()
    job = export()
    work()
    job.refresh_from_db()
    clock.advance(jobs.FILE_LIFE - timedelta(seconds=1))
    assert retention.retain().exports == 0
    assert table(job)
    clock.advance(timedelta(seconds=1))
    with pytest.raises(InvalidInput):
        jobs.open_file(job)
    assert retention.retain().exports == 2
    assert files() == before
    job.refresh_from_db()
    assert job.state == "expired"
    clock.advance(jobs.JOB_KEPT)
    retention.retain()
    assert not Job.objects.exists()


def test_erasing_a_person_destroys_the_files_that_may_hold_them() -> None:
    records = make_records(8)
    before = files()
    early = export(parameters={"rows": f"{records[0].pk},{records[1].pk}"})
    wide = export()
    work()
    running = export()
    ticks = iter(range(1000))
    work(1.5, lambda: float(next(ticks)))
    erasure.erase(VerificationSession.objects.filter(pk=records[4].pk), reason="withdrawn", actor=ACTOR)
    for job in (early, wide, running):
        job.refresh_from_db()
    # The running one has come to the third record: it goes on, and finds the fifth one erased.
    assert (early.state, wide.state, running.state) == ("done", "expired", "running")
    assert not wide.parts.exists()
    work()
    running.refresh_from_db()
    assert column(running, "Name (masked)") == [*["张**"] * 4, "", *["张**"] * 3]
    assert len(files() - before) == 1 + 3


def test_a_record_that_is_erased_while_it_is_exported_is_not_in_the_file(
    clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = make_records(5)
    before = files()
    job = export()
    write = evidence_files.write_unchecked

    def erase_first(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(evidence_files, "write_unchecked", write)
        erasure.erase(VerificationSession.objects.filter(pk=records[1].pk), reason="x", actor=ACTOR)
        return write(*args, **options)

    monkeypatch.setattr(evidence_files, "write_unchecked", erase_first)
    work()
    job.refresh_from_db()
    assert (job.state, job.done, job.problem) == ("running", 0, "ErasedMeanwhile")
    assert files() == before
    clock.advance(jobs.AGAIN_AFTER)
    work()
    job.refresh_from_db()
    assert column(job, "Name (masked)") == ["张**", "", "张**", "张**", "张**"]


def test_rotating_keys_keeps_files_readable(settings: Any) -> None:
    make_records(2)
    job = export(reason=Reason("audit", "words"))
    work()
    job.refresh_from_db()
    old = settings.FACEPRINT["ENCRYPTION_KEYS"]
    new = generate_key()
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [new, *old]}
    report = rotation.rotate_keys()
    assert report.changed["jobpart"] == 1
    assert report.changed["job"] == 1
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [new]}
    job = Job.objects.get()
    assert len(table(job)) == 3
    assert job.reason == "words"


# --- actions ------------------------------------------------------------------------------------


def test_query_now_queries_all_sessions_with_work_left() -> None:
    waiting = [factories.make_awaiting_session(reference="w") for _ in range(4)]
    finished = make_records(3)
    job = jobs.create("query_now", Selection({}), actor=ACTOR)
    work()
    job.refresh_from_db()
    assert (job.state, job.done, job.skipped, job.total) == ("done", 4, 3, 7)
    for session in waiting:
        session.refresh_from_db()
        assert session.wake_at is None
        assert session.priority_at is not None
    logged = AccessLog.objects.filter(action="refresh").values_list("session_id", flat=True)
    assert set(logged) == {session.public_id for session in waiting}
    assert not {session.public_id for session in finished} & set(logged)
    with pytest.raises(InvalidInput):
        jobs.open_file(job)


def test_everything_that_is_not_stored_is_fetched_again() -> None:
    lost = make_records(4, archive_state="lost")
    for session in lost:
        factories.make_asset(session, "face", state="lost")
    factories.make_session()
    job = jobs.create("archive_again", Selection({}), actor=ACTOR)
    work()
    job.refresh_from_db()
    assert (job.done, job.skipped) == (4, 1)
    for session in lost:
        assert session.assets.get().state == "wanted"


def test_a_whole_filter_is_erased_in_steps_with_a_certificate_for_each() -> None:
    chosen = make_records(7)
    for session in chosen[:2]:
        factories.make_stored_asset(session, "face")
    other = factories.make_session(reference="other", verdict="failed")
    job = jobs.create(
        "erase", Selection({"verdict": "passed"}), actor=ACTOR, reason=Reason("", "contract ended")
    )
    work()
    job.refresh_from_db()
    assert (job.state, job.done) == ("done", 7)
    assert VerificationSession.objects.filter(erased_at__isnull=False).count() == 7
    other.refresh_from_db()
    assert other.identity_name == factories.NAME
    done = Erasure.objects.order_by("pk")
    assert [len(one.sessions) for one in done] == [3, 3, 1]
    assert {one.reason for one in done} == {"contract ended"}
    assert all(one.verified_at for one in done)


def test_a_cancelled_erasure_stops_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    make_records(7)
    job = jobs.create("erase", Selection({}), actor=ACTOR, reason=Reason("", "x"))
    erase = erasure.erase

    def cancel_then_erase(*args: Any, **options: Any) -> Any:
        if Erasure.objects.count() == 1:
            jobs.cancel(Job.objects.get())
        return erase(*args, **options)

    monkeypatch.setattr(erasure, "erase", cancel_then_erase)
    work()
    job.refresh_from_db()
    assert (job.state, job.done) == ("cancelled", 3)
    assert VerificationSession.objects.filter(erased_at__isnull=False).count() == 3


def test_a_reason_lies_encrypted() -> None:
    make_records(1)
    job = export(reason=Reason("audit", "张三丰 asked"), unmasked=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT reason FROM faceprint_job")
        (raw,) = cursor.fetchone()
    assert "张三丰" not in str(raw)
    assert Job.objects.get(pk=job.pk).reason == "张三丰 asked"


def test_a_job_claimed_under_a_clock_that_has_moved_back_goes_on(clock: Any) -> None:
    make_records(1)
    job = export()
    Job.objects.filter(pk=job.pk).update(state="running", wake_at=clock() + timedelta(days=3))
    assert work() == 1
    job.refresh_from_db()
    assert job.state == "done"
