"""Names and numbers in clear: found by, shown for a reason and for a minute, never in an address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from django_faceprint.models import AccessLog, AccessReason, VerificationSession
from tests import factories

from .conftest import action_of, look_up, page_of

pytestmark = pytest.mark.django_db

CARD = {
    "name": factories.NAME,
    "number": factories.NUMBER,
    "gender": "男",
    "nation": "汉",
    "birthday": "19491231",
    "address": "浙江省杭州市西湖区文三路1号",
    "issue_authority": "杭州市公安局",
    "issue_time": "20200101",
    "expire_time": "长期",
}
# A year alone also stands in the random digits of a page.
HIDDEN = (factories.NAME, factories.NUMBER, "西湖区", "19491231", "1949-12-31", "1949年", "公安局")


@pytest.fixture
def session(db: None) -> VerificationSession:
    return factories.make_passed_session(
        ocr=CARD, confirmed={"name": factories.NAME, "number": factories.NUMBER}
    )


@pytest.fixture
def revealer(login: Callable[..., Client]) -> Client:
    return login("view_verificationsession", "reveal_identity")


def reveal(client: Client, session: VerificationSession, *, as_json: bool = True, **form: str) -> Any:
    headers = {"accept": "application/json"} if as_json else {}
    return client.post(action_of(session, "reveal"), form, headers=headers)


# --- revealing ----------------------------------------------------------------------------------


def test_a_reveal_gives_everything_and_is_logged_with_its_reason(
    revealer: Client, session: VerificationSession
) -> None:
    answer = reveal(revealer, session, reason="complaint", reason_text=" ticket 4711 ")
    assert answer.status_code == 200
    revealed = answer.json()
    assert revealed["rows"] == [[factories.NAME] * 3, [factories.NUMBER] * 3]
    assert dict(revealed["facts"]) == {
        "Address": CARD["address"],
        "Valid until": "长期",
        "Gender": "男",
        "Ethnic group": "汉",
        "Birthday": "1949-12-31",
        "Issued by": "杭州市公安局",
        "Issued on": "2020-01-01",
    }
    assert revealed["seconds"] == 60
    assert "no-store" in answer["Cache-Control"]
    entry = AccessLog.objects.get()
    assert (entry.action, entry.reason_code, entry.session_id) == ("reveal", "complaint", session.public_id)
    assert (entry.actor_name, entry.channel) == ("operator", "admin")
    assert AccessReason.objects.get(public_id=entry.public_id).text == "ticket 4711"


def test_without_scripts_the_page_comes_in_clear_and_goes_back_by_itself(
    revealer: Client, session: VerificationSession
) -> None:
    answer = reveal(revealer, session, as_json=False, reason="audit")
    html = answer.content.decode()
    for text in (factories.NAME, factories.NUMBER, "西湖区"):
        assert text in html
    assert f'<meta http-equiv="refresh" content="60; url={page_of(session)}">' in html
    assert "no-store" in answer["Cache-Control"]
    masked = revealer.get(page_of(session)).content.decode()
    assert not [text for text in HIDDEN if text in masked]


def test_nothing_in_clear_is_in_the_page_before(revealer: Client, session: VerificationSession) -> None:
    html = revealer.get(page_of(session)).content.decode()
    assert 'id="fp-reveal"' in html
    assert not [text for text in HIDDEN if text in html]
    assert "张**" in html
    assert "浙江省" in html


def test_without_the_permission_there_is_neither_form_nor_answer(
    login: Callable[..., Client], session: VerificationSession
) -> None:
    viewer = login("view_verificationsession", "view_media", "view_accesslog")
    assert "fp-reveal" not in viewer.get(page_of(session)).content.decode()
    views = AccessLog.objects.count()
    answer = reveal(viewer, session, reason="audit")
    assert answer.status_code == 403
    assert factories.NUMBER not in answer.content.decode()
    assert AccessLog.objects.count() == views


def test_the_permission_alone_does_not_open_records(
    login: Callable[..., Client], session: VerificationSession
) -> None:
    assert reveal(login("reveal_identity"), session, reason="audit").status_code == 403
    assert not AccessLog.objects.exists()


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({}, "Choose a reason."),
        ({"reason": ""}, "Choose a reason."),
        ({"reason": "curiosity"}, "Choose a reason."),
        ({"reason": "same"}, "Choose a reason."),
        ({"reason": "other", "reason_text": "  "}, "Please add a short explanation, e.g. a ticket number."),
        ({"reason": "audit", "reason_text": "x" * 201}, "The explanation is too long."),
    ],
)
def test_nothing_is_shown_without_a_good_reason(
    revealer: Client, session: VerificationSession, form: dict[str, str], problem: str
) -> None:
    answer = reveal(revealer, session, **form)
    assert (answer.status_code, answer.json()) == (400, {"problem": problem})
    plain = reveal(revealer, session, as_json=False, **form)
    assert plain["Location"] == page_of(session)
    assert not AccessLog.objects.exists()


def test_reasons_are_those_of_the_settings(
    revealer: Client, session: VerificationSession, settings: Any
) -> None:
    settings.FACEPRINT = settings.FACEPRINT | {"REVEAL_REASONS": {"case_file": "Court case", "audit": ""}}
    html = revealer.get(page_of(session)).content.decode()
    assert '<option value="case_file">Court case</option>' in html
    assert '<option value="audit">audit</option>' in html
    assert "complaint" not in html
    assert reveal(revealer, session, reason="complaint").status_code == 400
    assert reveal(revealer, session, reason="case_file").status_code == 200


def test_a_reason_is_remembered_for_the_record_and_the_visit(
    revealer: Client, session: VerificationSession
) -> None:
    reveal(revealer, session, reason="complaint", reason_text="ticket 4711")
    assert 'value="same" selected' in revealer.get(page_of(session)).content.decode()
    assert reveal(revealer, session, reason="same").status_code == 200
    first, second = AccessLog.objects.filter(action="reveal").order_by("pk")
    assert second.reason_code == "complaint"
    texts = [AccessReason.objects.get(public_id=entry.public_id).text for entry in (first, second)]
    assert texts == ["ticket 4711"] * 2
    # The browser session does not hold the explanation.
    assert "ticket" not in str(dict(revealer.session))
    other = factories.make_passed_session()
    assert 'value="same"' not in revealer.get(page_of(other)).content.decode()
    assert reveal(revealer, other, reason="same").status_code == 400


def test_a_reason_that_was_erased_is_asked_for_again(revealer: Client, session: VerificationSession) -> None:
    reveal(revealer, session, reason="complaint", reason_text="ticket 4711")
    AccessReason.objects.all().delete()
    assert reveal(revealer, session, reason="same").status_code == 400


def test_another_user_remembers_nothing(
    revealer: Client, session: VerificationSession, admin_client: Client
) -> None:
    reveal(revealer, session, reason="complaint")
    kept = dict(revealer.session)["faceprint_reasons"]
    stolen = admin_client.session
    stolen["faceprint_reasons"] = kept
    stolen.save()
    assert reveal(admin_client, session, reason="same").status_code == 400


def test_reveals_are_posted_and_need_their_token(revealer: Client, session: VerificationSession) -> None:
    assert revealer.get(action_of(session, "reveal")).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = revealer.cookies
    assert reveal(strict, session, reason="audit").status_code == 403
    assert not AccessLog.objects.exists()
    missing = reverse("admin:faceprint_verificationsession_reveal", args=[999_999])
    assert revealer.post(missing, {"reason": "audit"}).status_code == 404


# --- finding a person ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        factories.NUMBER,
        factories.NUMBER.lower(),
        "１１０１０５１９４９１２３１００２Ｘ",
        "110105 19491231 002x",
        factories.NAME,
        " 张 三丰 ",
    ],
)
def test_a_person_is_found_however_it_is_written(
    revealer: Client, session: VerificationSession, text: str
) -> None:
    factories.make_session(identity_name="李四", identity_number="440308199901015331")
    answer = look_up(revealer, text)
    assert answer["Location"] == page_of(session)
    assert [entry.action for entry in AccessLog.objects.all()] == ["lookup"]
    columns = str(AccessLog.objects.values().get())
    assert factories.NUMBER not in columns
    assert factories.NAME not in columns


def test_a_token_is_found(revealer: Client, session: VerificationSession) -> None:
    assert look_up(revealer, session.verify_token or "")["Location"] == page_of(session)


def test_a_person_is_found_under_an_older_index_key(
    revealer: Client, session: VerificationSession, settings: Any
) -> None:
    from django_faceprint.privacy.keys import generate_key

    settings.FACEPRINT = settings.FACEPRINT | {
        "INDEX_KEYS": [generate_key(), *settings.FACEPRINT["INDEX_KEYS"]]
    }
    assert look_up(revealer, factories.NUMBER)["Location"] == page_of(session)


def test_several_records_are_shown_masked_in_the_answer_itself(
    revealer: Client, session: VerificationSession
) -> None:
    other = factories.make_session(reference="second")
    answer = look_up(revealer, factories.NUMBER)
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    html = answer.content.decode()
    assert page_of(session) in html
    assert page_of(other) in html
    assert "second" in html
    assert "张**" in html
    assert "110***********002X" in html
    assert not [text for text in HIDDEN[:2] if text in html]


def test_more_records_than_a_page_are_cut_with_a_word(
    revealer: Client, session: VerificationSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.make_session()
    factories.make_session()
    monkeypatch.setattr("django_faceprint.records.lookup.MAX_HITS", 2)
    html = look_up(revealer, factories.NUMBER).content.decode()
    assert html.count("/change/") == 2
    assert "Older records are not listed." in html


@pytest.mark.parametrize("text", ["110***********002X", "张**", "*", "１１０＊＊＊002X"])
def test_what_someone_has_masked_finds_nothing(
    revealer: Client, session: VerificationSession, text: str
) -> None:
    factories.make_session(identity_name="张**", identity_number="110***********002X")
    assert look_up(revealer, text)["Location"] == reverse("admin:faceprint_verificationsession_changelist")


def test_a_masked_value_of_baidu_is_no_difference(revealer: Client) -> None:
    session = factories.make_passed_session(confirmed={"name": "张**", "number": "110***********002X"})
    assert "differs" not in revealer.get(page_of(session)).content.decode()


def test_a_reference_is_no_look_at_a_person(revealer: Client) -> None:
    session = factories.make_session(reference="ORDER-9")
    assert look_up(revealer, "ORDER-9")["Location"] == page_of(session)
    assert not AccessLog.objects.exists()


# --- files --------------------------------------------------------------------------------------


def test_a_download_needs_its_permission_and_is_logged_as_one(login: Callable[..., Client]) -> None:
    session = factories.make_passed_session()
    face = factories.make_stored_asset(session, "face")
    address = reverse("admin:faceprint_verificationsession_media", args=[face.public_id])
    viewer = login("view_verificationsession", "view_media")
    assert viewer.get(f"{address}?download").status_code == 403
    assert "?download" not in viewer.get(page_of(session)).content.decode()
    shown = viewer.get(address)
    assert shown["Content-Disposition"].startswith("inline;")
    assert shown.getvalue() == factories.image_bytes()
    assert AccessLog.objects.latest("pk").action == "view_media"


def test_who_may_download_gets_a_file_to_keep(login: Callable[..., Client]) -> None:
    session = factories.make_passed_session()
    face = factories.make_stored_asset(session, "face")
    address = reverse("admin:faceprint_verificationsession_media", args=[face.public_id])
    auditor = login("view_verificationsession", "view_media", "download_media")
    assert f"{address}?download" in auditor.get(page_of(session)).content.decode()
    answer = auditor.get(f"{address}?download")
    assert answer["Content-Disposition"] == f'attachment; filename="face-{face.public_id}.jpg"'
    assert answer.getvalue() == factories.image_bytes()
    assert AccessLog.objects.latest("pk").action == "download_media"
