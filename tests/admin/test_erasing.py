"""Erasing from the console: preview, reason, typed confirmation, certificate."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from django.urls import reverse

from django_faceprint.admin import erasing, pages
from django_faceprint.models import (
    AccessLog,
    ConsentRecord,
    Erasure,
    UpstreamAnswer,
    VerificationAttempt,
    VerificationSession,
)
from tests import factories

from .conftest import LIST, messages_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def eraser(login: Callable[..., Client]) -> Client:
    return login("view_verificationsession", "erase_person")


@pytest.fixture
def session(transactional_db: None) -> VerificationSession:
    session = factories.make_passed_session(reference="ERASE-1", error_message="张三丰 不符")
    factories.make_stored_asset(session, "face")
    factories.make_stored_asset(session, "video")
    UpstreamAnswer.objects.create(session=session, endpoint="result_detail", body="{}", body_index="x")
    VerificationAttempt.objects.create(session=session, order=1, passed=True, message="张三丰 通过")
    return session


def token_of(page: Any) -> str:
    found = re.search(r'name="token" value="([^"]+)"', page.content.decode())
    assert found
    return found.group(1)


def confirm(client: Client, page: Any, **form: str) -> Any:
    given = {"token": token_of(page), "reason": "the person asked", "count": "1"} | form
    return client.post(f"{LIST}erase/", given)


def test_a_record_is_erased_after_a_preview_with_a_reason_and_its_number(
    eraser: Client, session: VerificationSession
) -> None:
    page = eraser.post(f"{LIST}{session.pk}/erase/")
    html = page.content.decode()
    assert page.status_code == 200
    assert "no-store" in page["Cache-Control"]
    assert "ERASE-1" in html
    assert "110***********002X" in html
    assert factories.NUMBER not in html
    assert session.assets.stored().count() == 2
    answer = confirm(eraser, page)
    done = Erasure.objects.get()
    assert answer["Location"] == reverse("admin:faceprint_erasure_change", args=[done.pk])
    assert (done.files, done.answers, done.reason, done.actor_name) == (2, 1, "the person asked", "operator")
    assert done.verified_at is not None
    session.refresh_from_db()
    assert session.erased_at is not None
    assert session.known_name is None
    assert session.error_message == ""
    assert VerificationAttempt.objects.get().message == ""
    assert not session.assets.stored().exists()
    assert [entry.action for entry in AccessLog.objects.all()] == ["erase"]
    shown = eraser.get(answer["Location"])
    assert messages_of(shown) == ["Erased. Storage has confirmed it."]
    assert "the person asked" in shown.content.decode()
    # The record is still there, and offers nothing more to erase.
    record = eraser.get(f"{LIST}{session.pk}/change/").content.decode()
    assert "Erase …" not in record
    assert "ERASE-1" in record


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"count": "2"}, "Type the number of records to confirm."),
        ({"count": ""}, "Type the number of records to confirm."),
        ({"reason": "  "}, "Give a reason of at most 500 characters."),
        ({"reason": "x" * 501}, "Give a reason of at most 500 characters."),
    ],
)
def test_without_confirmation_or_reason_nothing_is_erased(
    eraser: Client, session: VerificationSession, form: dict[str, str], problem: str
) -> None:
    answer = confirm(eraser, eraser.post(f"{LIST}{session.pk}/erase/"), **form)
    assert problem in answer.content.decode()
    assert token_of(answer)
    session.refresh_from_db()
    assert session.erased_at is None
    assert not Erasure.objects.exists()


def test_a_preview_cannot_be_made_up_or_kept(
    eraser: Client, session: VerificationSession, clock: Any
) -> None:
    page = eraser.post(f"{LIST}{session.pk}/erase/")
    for token in ("", "x", token_of(page)[:-1], f"{session.pk}"):
        assert confirm(eraser, page, token=token)["Location"] == LIST
    assert not Erasure.objects.exists()


def test_an_old_preview_erases_nothing(
    eraser: Client, session: VerificationSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = eraser.post(f"{LIST}{session.pk}/erase/")
    monkeypatch.setattr(pages, "LIFETIME", -1)
    assert confirm(eraser, page)["Location"] == LIST
    assert messages_of(eraser.get(LIST)) == ["Nothing was erased: the preview is too old. Open it again."]
    assert not Erasure.objects.exists()


def test_a_preview_is_for_whoever_asked_and_for_once(
    eraser: Client, session: VerificationSession, admin_client: Client
) -> None:
    page = eraser.post(f"{LIST}{session.pk}/erase/")
    assert confirm(admin_client, page)["Location"] == LIST
    assert not Erasure.objects.exists()
    confirm(eraser, page)
    assert confirm(eraser, page)["Location"] == LIST
    assert Erasure.objects.count() == 1


def test_a_withdrawal_without_a_reason_changes_nothing(eraser: Client, session: VerificationSession) -> None:
    page = eraser.post(f"{LIST}{session.pk}/erase/", {"withdrawal": "1"})
    assert "Give a reason" in confirm(eraser, page, reason="  ").content.decode()
    assert not ConsentRecord.objects.exists()
    assert not AccessLog.objects.exists()


def test_a_person_is_erased_over_all_records(eraser: Client, session: VerificationSession) -> None:
    factories.make_passed_session(confirmed={"name": factories.NAME, "number": factories.NUMBER})
    other = factories.make_passed_session(identity_name="李四", identity_number="440308199901015331")
    form = eraser.get(f"{LIST}erase-person/").content.decode()
    assert 'name="number"' in form
    page = eraser.post(f"{LIST}erase-person/", {"number": "１１０１０５１９４９１２３１００２ｘ"})
    html = page.content.decode()
    assert "Type 2 to confirm" in html
    assert factories.NUMBER not in html
    confirm(eraser, page, count="2")
    assert set(VerificationSession.objects.exclude(erased_at=None).values_list("pk", flat=True)) == {
        *VerificationSession.objects.exclude(pk=other.pk).values_list("pk", flat=True)
    }
    # The number is nowhere: the look is logged without it.
    assert AccessLog.objects.filter(action="lookup").count() == 1
    again = eraser.post(f"{LIST}erase-person/", {"number": factories.NUMBER}).content.decode()
    assert "There is no record of this number that is not erased." in again


def test_selected_rows_are_erased_together(eraser: Client, session: VerificationSession) -> None:
    other = factories.make_passed_session()
    page = eraser.post(LIST, {"action": "erase", "_selected_action": [session.pk, other.pk]})
    confirm(eraser, page, count="2")
    assert VerificationSession.objects.exclude(erased_at=None).count() == 2
    eraser.post(LIST, {"action": "erase", "_selected_action": [session.pk]})
    assert "Nothing was done: these records are erased already." in messages_of(eraser.get(LIST))


def test_too_many_at_once_are_refused(
    eraser: Client, session: VerificationSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "MAX_RECORDS", 1)
    factories.make_passed_session()
    eraser.post(f"{LIST}erase-person/", {"number": factories.NUMBER})
    assert messages_of(eraser.get(LIST)) == ["Nothing was done: select at most 1 records at a time."]


def test_a_withdrawal_is_noted_with_the_consent(eraser: Client, session: VerificationSession) -> None:
    ConsentRecord.objects.create(session_id=session.public_id, notice_version="3", reference="c-1")
    page = eraser.post(f"{LIST}{session.pk}/erase/", {"withdrawal": "1"})
    assert "The withdrawal is noted with the consent." in page.content.decode()
    confirm(eraser, page)
    assert ConsentRecord.objects.get().withdrawn_by == "operator"
    actions = AccessLog.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["withdraw", "erase"]
    html = eraser.get(f"{LIST}{session.pk}/change/").content.decode()
    assert "withdrawn" in html
    assert "c-1" in html


def test_the_admins_history_of_the_record_goes_too(eraser: Client, session: VerificationSession) -> None:
    kind = ContentType.objects.get_for_model(VerificationSession)
    user = eraser.get("/admin/").wsgi_request.user
    for row in (session, factories.make_passed_session()):
        LogEntry.objects.create(
            user_id=user.pk,
            content_type=kind,
            object_id=str(row.pk),
            object_repr="张三丰",
            action_flag=CHANGE,
            change_message="x",
        )
    confirm(eraser, eraser.post(f"{LIST}{session.pk}/erase/"))
    assert not LogEntry.objects.filter(object_id=str(session.pk)).exists()
    assert LogEntry.objects.count() == 1


def test_the_certificate_is_a_file(eraser: Client, session: VerificationSession) -> None:
    confirm(eraser, eraser.post(f"{LIST}{session.pk}/erase/"))
    done = Erasure.objects.get()
    answer = eraser.get(reverse("admin:faceprint_erasure_certificate", args=[done.pk]))
    certificate = json.loads(answer.content)
    assert answer["Content-Disposition"] == f'attachment; filename="erasure-{done.public_id}.json"'
    assert certificate["sessions"] == [str(session.public_id)]
    assert (certificate["files"], certificate["erased_by"]) == (2, "operator")
    assert certificate["storage_verified_at"]
    assert eraser.get(reverse("admin:faceprint_erasure_certificate", args=[999])).status_code == 404


def test_a_storage_that_refuses_is_reported(
    eraser: Client, session: VerificationSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.core.files.storage import FileSystemStorage

    def refuse(*args: Any) -> None:
        raise OSError("disk")

    monkeypatch.setattr(FileSystemStorage, "delete", refuse)
    answer = confirm(eraser, eraser.post(f"{LIST}{session.pk}/erase/"))
    assert "faceprint.retain deletes them" in messages_of(eraser.get(answer["Location"]))[0]
    assert Erasure.objects.get().verified_at is None


def test_the_page_says_when_a_child_lacks_a_guardian(login: Callable[..., Client], clock: Any) -> None:
    viewer = login("view_verificationsession")
    child = factories.make_passed_session(identity_number="11010520140302001X")
    warning = "Under 14 by the ID number, and no guardian"
    assert warning in viewer.get(f"{LIST}{child.pk}/change/").content.decode()
    ConsentRecord.objects.create(session_id=child.public_id, reference="c", guardian_reference="mother")
    assert warning not in viewer.get(f"{LIST}{child.pk}/change/").content.decode()
