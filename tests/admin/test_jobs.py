"""Actions on many records and exports: from the list to the file."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from django.core.management import call_command
from django.core.signing import TimestampSigner
from django.test import Client
from django.urls import reverse

from django_faceprint.jobs import jobs
from django_faceprint.models import AccessLog, AccessReason, Job, VerificationSession
from tests import factories

from .conftest import LIST, messages_of, text_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]

EXPORTERS = ("view_verificationsession", "export_masked")


@pytest.fixture
def exporter(login: Callable[..., Client]) -> Client:
    """May export, masked."""
    return login(*EXPORTERS)


@pytest.fixture
def auditor(login: Callable[..., Client]) -> Client:
    """May export in clear, too."""
    return login(*EXPORTERS, "export_sensitive")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests do not work on jobs by themselves for longer than one step of three rows."""
    monkeypatch.setattr("django_faceprint.admin.jobs.AT_ONCE", timedelta(0))
    monkeypatch.setattr("django_faceprint.jobs.jobs.ROWS_OF_PART", 3)
    monkeypatch.setattr("django_faceprint.jobs.jobs.ROWS_OF_STEP", 3)


def choose(client: Client, action: str, query: str = "", *chosen: VerificationSession) -> Any:
    """Run *action* of the list on rows, or without any on all of the filter."""
    body: dict[str, Any] = {"action": action, "select_across": "0" if chosen else "1"}
    rows = chosen or VerificationSession.objects.order_by("-pk")[:1]
    return client.post(f"{LIST}?{query}", body | {"_selected_action": [row.pk for row in rows]})


def token_of(page: Any) -> str:
    found = re.search(r'name="token" value="([^"]+)"', page.content.decode())
    assert found
    return found[1]


def export(client: Client, page: Any, **values: str) -> Any:
    return client.post(
        f"{LIST}export/", {"token": token_of(page), "format": "export_csv", "unmasked": "0"} | values
    )


def address(job: Job, view: str = "change") -> str:
    return reverse(f"admin:faceprint_job_{view}", args=[job.pk])


def work() -> None:
    jobs.work_on_jobs(budget=timedelta(minutes=1), monotonic=lambda: 0.0)


# --- export -------------------------------------------------------------------------------------


def test_the_filter_is_exported_as_it_was_when_asked(exporter: Client) -> None:
    for number in range(5):
        factories.make_passed_session(reference=f"R-{number}")
    factories.make_session(reference="failed", verdict="failed")
    page = choose(exporter, "export", "verdict=passed&order=score")
    text = text_of(page)
    assert "5 records are exported" in text
    assert "Time range last 7 days" in text
    assert "Verdict passed" in text
    assert "in clear" not in text
    factories.make_passed_session(reference="later")
    answer = export(exporter, page)
    job = Job.objects.get()
    assert answer["Location"] == address(job)
    assert (job.state, job.total, job.done, job.actor_name) == ("done", 5, 5, "operator")
    shown = text_of(exporter.get(address(job)))
    assert "5 of 5" in shown
    assert "Download" in shown
    file = exporter.get(address(job, "download"))
    assert file["Content-Type"] == "text/csv; charset=utf-8"
    assert file["Content-Disposition"] == 'attachment; filename="faceprint-20260302-160000.csv"'
    assert file["Cache-Control"] == "private, no-store"
    assert file["X-Content-Type-Options"] == "nosniff"
    rows = list(csv.DictReader(io.StringIO(file.getvalue().decode("utf-8-sig"))))
    assert [row["Reference"] for row in rows] == [f"R-{number}" for number in range(5)]
    assert {row["ID number (masked)"] for row in rows} == {"110***********002X"}
    logged = list(AccessLog.objects.order_by("pk").values_list("action", flat=True))
    assert logged == ["export", "download_export"]


def test_chosen_rows_are_exported_whatever_the_filter(exporter: Client) -> None:
    first, _, third = (factories.make_passed_session(reference=f"R-{number}") for number in range(3))
    page = choose(exporter, "export", "", first, third)
    export(exporter, page, format="export_xlsx")
    file = exporter.get(address(Job.objects.get(), "download"))
    book = openpyxl.load_workbook(io.BytesIO(file.getvalue()))
    assert [row[1].value for row in book.active.iter_rows()] == ["Reference", "R-0", "R-2"]


def test_an_order_that_leaves_records_out_leaves_them_out_of_an_action(exporter: Client) -> None:
    factories.make_passed_session(reference="scored")
    factories.make_session(reference="without")
    export(exporter, choose(exporter, "export", "order=score"))
    assert Job.objects.get().total == 1


def test_names_in_clear_need_permission_and_reason(auditor: Client) -> None:
    session = factories.make_passed_session()
    page = choose(auditor, "export")
    assert "in clear" in text_of(page)
    export(auditor, page, unmasked="1")
    assert messages_of(auditor.get(LIST)) == ["Choose a reason."]
    export(auditor, page, unmasked="1", reason="other")
    assert messages_of(auditor.get(LIST)) == ["Please add a short explanation, e.g. a ticket number."]
    assert not Job.objects.exists()
    export(auditor, page, unmasked="1", reason="audit", reason_text="工单 4711")
    job = Job.objects.get()
    file = auditor.get(address(job, "download"))
    content = file.getvalue().decode()
    assert factories.NAME in content
    assert factories.NUMBER in content
    entries = AccessLog.objects.filter(action="export").order_by("pk")
    assert [(entry.session_id, entry.reason_code) for entry in entries] == [
        (None, "audit"),
        (session.public_id, "audit"),
    ]
    assert AccessReason.objects.get().text == "工单 4711"


def test_who_may_only_mask_gets_nothing_in_clear(exporter: Client) -> None:
    factories.make_passed_session()
    page = choose(exporter, "export")
    assert export(exporter, page, unmasked="1", reason="audit").status_code == 403
    assert export(exporter, page, format="bundle").status_code == 403
    assert not Job.objects.exists()


def test_a_permission_that_is_gone_ends_the_download(exporter: Client, django_user_model: Any) -> None:
    factories.make_passed_session()
    export(exporter, choose(exporter, "export"))
    job = Job.objects.get()
    user = django_user_model.objects.get(username="operator")
    user.user_permissions.remove(user.user_permissions.get(codename="export_masked"))
    assert exporter.get(address(job, "download")).status_code == 403
    assert "Download" not in text_of(exporter.get(address(job)))
    assert not AccessLog.objects.filter(action="download_export").exists()


def test_a_file_is_its_owners_alone(exporter: Client, login: Callable[..., Client]) -> None:
    factories.make_passed_session()
    export(exporter, choose(exporter, "export"))
    job = Job.objects.get()
    exporter.logout()
    other = login(*EXPORTERS, username="other")
    for view in ("change", "status", "download", "cancel"):
        assert other.get(address(job, view)).status_code in (302, 404, 405)
        assert other.post(address(job, view)).status_code in (302, 404, 405)
    assert text_of(other.get(reverse("admin:faceprint_job_changelist"))).count("export (CSV)") == 1
    other.logout()
    reader = login(*EXPORTERS, "view_accesslog", username="reader")
    assert "operator" in text_of(reader.get(address(job)))
    assert reader.get(address(job, "download")).status_code == 403
    assert reader.post(address(job, "cancel")).status_code == 403


def test_a_file_that_is_gone_says_so(exporter: Client, clock: Any) -> None:
    factories.make_passed_session()
    export(exporter, choose(exporter, "export"))
    job = Job.objects.get()
    clock.advance(jobs.FILE_LIFE)
    answer = exporter.get(address(job, "download"))
    assert answer["Location"] == address(job)
    assert messages_of(exporter.get(address(job))) == ["There is no file, or it was deleted."]
    jobs.delete_expired()
    assert "The file was deleted" in text_of(exporter.get(address(job)))


def test_a_question_is_answered_by_who_was_asked_and_in_time(
    exporter: Client, login: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.make_passed_session()
    page = choose(exporter, "export")
    exporter.logout()
    other = login(*EXPORTERS, username="other")
    assert export(other, page)["Location"] == LIST
    assert messages_of(other.get(LIST)) == [
        "Nothing was exported: the page is too old. Choose the records again."
    ]
    own = choose(other, "export")
    monkeypatch.setattr(TimestampSigner, "timestamp", lambda self: "0")
    old = choose(other, "export")
    monkeypatch.undo()
    export(other, old)
    assert not Job.objects.exists()
    forged = token_of(own)[:-2] + "xx"
    other.post(f"{LIST}export/", {"token": forged, "format": "export_csv"})
    assert not Job.objects.exists()
    export(other, own)
    assert Job.objects.exists()


# --- evidence bundle ----------------------------------------------------------------------------


def test_a_bundle_of_a_record_is_made_checked_and_logged(
    login: Callable[..., Client], tmp_path: Path, settings: Any
) -> None:
    client = login(*EXPORTERS, "export_sensitive", "view_media", "download_media")
    session = factories.make_passed_session(reference="R-1")
    face = factories.make_stored_asset(session, "face")
    other = factories.make_passed_session(reference="R-2")
    bundle_url = reverse("admin:faceprint_verificationsession_bundle", args=[session.pk])
    page = client.get(reverse("admin:faceprint_verificationsession_change", args=[session.pk]))
    assert f'action="{bundle_url}"' in page.content.decode()
    client.post(bundle_url, {"unmasked": "1"})
    assert messages_of(client.get(LIST)) == ["Choose a reason."]
    client.post(bundle_url, {"unmasked": "0"})
    job = Job.objects.get()
    assert (job.kind, job.state, job.done) == ("bundle", "done", 1)
    file = client.get(address(job, "download"))
    assert file["Content-Type"] == "application/zip"
    path = tmp_path / "bundle.zip"
    path.write_bytes(file.getvalue())
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pictures = [name for name in names if name.endswith(".jpg")]
        assert [archive.read(name) for name in pictures] == [factories.image_bytes()]
        texts = [archive.read(name) for name in names if name not in (*pictures, "SHA256SUMS.sig")]
    text = b"".join(texts).decode()
    assert face.sha256 in text
    # Only users who may view the access log see the names of others.
    assert "access-log.jsonl" not in names
    assert str(other.public_id) not in text
    assert factories.NAME not in text
    assert factories.NUMBER not in text
    out = io.StringIO()
    call_command("faceprint_verify_bundle", str(path), stdout=out)
    logged = list(AccessLog.objects.order_by("pk").values_list("action", "session_id"))
    assert logged[1:] == [("export", session.public_id), ("download_export", None)]


def test_who_reads_the_access_log_gets_it_in_the_bundle(login: Callable[..., Client]) -> None:
    client = login(*EXPORTERS, "view_media", "download_media", "view_accesslog")
    session = factories.make_passed_session()
    client.post(reverse("admin:faceprint_verificationsession_bundle", args=[session.pk]))
    file = client.get(address(Job.objects.get(), "download"))
    with zipfile.ZipFile(io.BytesIO(file.getvalue())) as archive:
        assert b"operator" in archive.read("access-log.jsonl")


def test_who_may_not_keep_pictures_gets_no_bundle(exporter: Client) -> None:
    session = factories.make_passed_session()
    address = reverse("admin:faceprint_verificationsession_bundle", args=[session.pk])
    page = exporter.get(reverse("admin:faceprint_verificationsession_change", args=[session.pk]))
    assert address not in page.content.decode()
    assert exporter.post(address).status_code == 403


# --- long jobs ----------------------------------------------------------------------------------


def test_a_long_job_shows_how_far_it_is_and_can_be_stopped(exporter: Client, later: None) -> None:
    for number in range(8):
        factories.make_passed_session(reference=f"R-{number}")
    export(exporter, choose(exporter, "export"))
    job = Job.objects.get()
    assert (job.state, job.done) == ("running", 3)
    html = exporter.get(address(job)).content.decode()
    assert '<progress max="8" value="3"' in html
    status = exporter.get(address(job, "status")).json()
    assert status == {"state": "running", "unfinished": True, "done": 3, "total": 8, "text": "3 of 8"}
    assert exporter.get(address(job, "download"))["Location"] == address(job)
    assert messages_of(exporter.get(address(job))) == ["There is no file, or it was deleted."]
    assert exporter.get(address(job, "cancel")).status_code == 405
    exporter.post(address(job, "cancel"))
    job.refresh_from_db()
    assert job.state == "cancelled"
    assert messages_of(exporter.get(address(job))) == ["The job was stopped."]
    exporter.post(address(job, "cancel"))
    assert messages_of(exporter.get(address(job))) == ["Nothing was stopped: the job has ended."]


def test_a_long_job_is_ended_by_a_worker(exporter: Client, later: None) -> None:
    for _ in range(8):
        factories.make_passed_session()
    export(exporter, choose(exporter, "export"))
    work()
    job = Job.objects.get()
    assert (job.state, job.done) == ("done", 8)
    assert exporter.get(address(job, "status")).json()["unfinished"] is False


def test_baidu_is_asked_about_a_whole_filter_in_the_background(operator: Client, later: None) -> None:
    for _ in range(7):
        factories.make_awaiting_session()
    answer = choose(operator, "query_now", "verdict=pending")
    job = Job.objects.get()
    assert answer["Location"] == address(job)
    assert (job.state, job.done) == ("running", 3)
    work()
    job.refresh_from_db()
    assert (job.state, job.done) == ("done", 7)
    assert VerificationSession.objects.filter(priority_at__isnull=False).count() == 7


def test_a_host_that_narrows_the_list_narrows_its_actions(
    exporter: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django_faceprint.admin.sessions import VerificationSessionAdmin

    for purpose in ("mine", "mine", "other"):
        factories.make_passed_session(purpose=purpose)
    everything = VerificationSessionAdmin.get_queryset
    monkeypatch.setattr(
        VerificationSessionAdmin,
        "get_queryset",
        lambda self, request: everything(self, request).filter(purpose="mine"),
    )
    export(exporter, choose(exporter, "export"))
    assert Job.objects.get().total == 2
    monkeypatch.setattr("django_faceprint.admin.list_request.MAX_ROWS", 1)
    choose(exporter, "export")
    assert messages_of(exporter.get(LIST)) == ["Nothing was done: select at most 1 records at a time."]


def test_the_pages_speak_chinese(exporter: Client) -> None:
    factories.make_passed_session()
    exporter.defaults["HTTP_ACCEPT_LANGUAGE"] = "zh-hans"
    page = choose(exporter, "export")
    assert "将导出 1 条记录" in text_of(page)
    export(exporter, page)
    job = Job.objects.get()
    assert "下载" in text_of(exporter.get(address(job)))
    content = exporter.get(address(job, "download")).getvalue().decode("utf-8-sig")
    assert "证件号（脱敏）" in content


# --- erasing a whole filter ---------------------------------------------------------------------


def test_more_than_one_transaction_takes_is_erased_by_a_job(
    login: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, later: None
) -> None:
    monkeypatch.setattr("django_faceprint.admin.erasing.MAX_RECORDS", 4)
    client = login("view_verificationsession", "erase_person")
    for _ in range(7):
        factories.make_passed_session()
    other = factories.make_session(verdict="failed")
    page = choose(client, "erase", "verdict=passed")
    assert "Records 7" in text_of(page)
    body = {"token": token_of(page), "count": "6", "reason": "contract ended"}
    again = client.post(f"{LIST}erase/", body)
    assert "Type the number of records to confirm." in text_of(again)
    again = client.post(f"{LIST}erase/", body | {"count": "7", "reason": " "})
    assert "Give a reason" in text_of(again)
    assert not Job.objects.exists()
    factories.make_passed_session()
    answer = client.post(f"{LIST}erase/", body | {"count": "7"})
    job = Job.objects.get()
    assert answer["Location"] == address(job)
    assert (job.kind, job.state, job.done) == ("erase", "running", 3)
    work()
    assert VerificationSession.objects.filter(erased_at__isnull=False).count() == 7
    other.refresh_from_db()
    assert other.erased_at is None


def test_a_preview_of_a_filter_is_good_only_for_what_it_showed(
    login: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_faceprint.admin.erasing.MAX_RECORDS", 1)
    client = login("view_verificationsession", "erase_person")
    first, *_ = (factories.make_passed_session() for _ in range(3))
    page = choose(client, "erase", "verdict=passed")
    VerificationSession.objects.filter(pk=first.pk).update(verdict="failed")
    client.post(f"{LIST}erase/", {"token": token_of(page), "count": "3", "reason": "x"})
    assert messages_of(client.get(LIST)) == ["Nothing was erased: the preview is too old. Open it again."]
    assert not Job.objects.exists()
