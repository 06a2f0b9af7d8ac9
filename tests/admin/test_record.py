"""The page of one record: the other records of the person, neighbours, raw answers, files, queries."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_faceprint.admin import record
from django_faceprint.admin.list_request import ORDERS, Neighbours, neighbours, neighbours_in_list
from django_faceprint.admin.sessions import VerificationSessionAdmin
from django_faceprint.clock import now
from django_faceprint.models import (
    AccessLog,
    MediaAsset,
    UpstreamAnswer,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.privacy.keys import generate_key
from tests import factories

from .conftest import LIST, SECRETS, full_session, page_of, text_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]

Kind = MediaAsset.Kind


def links(response: Any, relation: str) -> list[str]:
    found = re.findall(rf'<a href="([^"]*)" rel="{relation}"', response.content.decode())
    return [unescape(url) for url in found]


def answer_url(answer: UpstreamAnswer) -> str:
    return reverse("admin:faceprint_verificationsession_answer", args=[answer.session_id, answer.pk])


# --- the same person ----------------------------------------------------------------------------


def test_a_tiny_score_for_a_synthetic_picture_is_no_perfect_zero(viewer: Client) -> None:
    session = factories.make_passed_session(spoofing_score=0.00002)
    VerificationAttempt.objects.create(session=session, order=1, passed=True, spoofing_score=0.00003)
    assert text_of(viewer.get(page_of(session))).count("< 0.0001") == 2
    assert "< 0.0001" in text_of(viewer.get(LIST))


def test_other_records_of_the_person_are_listed_masked(viewer: Client) -> None:
    session = full_session()
    factories.make_session(reference="SAME-1", verdict="failed", score=70.5, threshold=80.0)
    # However the number was written, and whatever name came with it.
    factories.make_session(reference="SAME-2", identity_number="11010519491231002x", identity_name="李四")
    factories.make_session(reference="ANOTHER", identity_number="440308199901015331")
    response = viewer.get(page_of(session))
    text = text_of(response)
    assert "Same person 2 more" in text
    part = text[text.index("Other records of the same person") : text.index("Scores")]
    assert "SAME-1" in part
    assert "70.5 < 80 of plan" in part
    assert "李* 110***********002x" in part
    assert "ANOTHER" not in text
    assert "ORDER-1" not in part
    for secret in (*SECRETS, "李四"):
        assert secret not in response.content.decode()


def test_they_are_found_under_an_older_index_key(viewer: Client, settings: Any) -> None:
    factories.make_session(reference="OLD-KEY")
    settings.FACEPRINT = {
        **settings.FACEPRINT,
        "INDEX_KEYS": [generate_key(), *settings.FACEPRINT["INDEX_KEYS"]],
    }
    session = factories.make_session(reference="NEW-KEY")
    assert (
        session.number_index.split(":")[0]
        != VerificationSession.objects.get(reference="OLD-KEY").number_index.split(":")[0]
    )
    assert "OLD-KEY" in text_of(viewer.get(page_of(session)))


def test_at_most_twenty_are_listed_and_a_thousand_counted(
    viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = factories.make_plan()
    session = factories.make_session(plan=plan)
    for number in range(23):
        factories.make_session(plan=plan, reference=f"MORE-{number:02}", age=timedelta(minutes=10 + number))
    text = text_of(viewer.get(page_of(session)))
    assert "the newest 20 of 23" in text
    assert "MORE-19" in text
    assert "MORE-20" not in text
    monkeypatch.setattr(record, "MAX_OTHERS_COUNTED", 21)
    assert "the newest 20 of 21+" in text_of(viewer.get(page_of(session)))


def test_who_has_no_number_has_no_others(viewer: Client) -> None:
    factories.make_session(identity_number=None)
    session = factories.make_session(identity_number=None)
    text = text_of(viewer.get(page_of(session)))
    assert "The ID number is not known, so there is nothing to compare." in text
    assert "Same person" not in text
    alone = factories.make_session(identity_number="440308199901015331")
    assert "There is no other record with this ID number." in text_of(viewer.get(page_of(alone)))


def test_what_cannot_be_decrypted_can_still_be_compared(viewer: Client, settings: Any) -> None:
    session = factories.make_session()
    factories.make_session(reference="SAME")
    settings.FACEPRINT = {**settings.FACEPRINT, "ENCRYPTION_KEYS": [generate_key()]}
    text = text_of(viewer.get(page_of(session)))
    assert "SAME" in text
    assert "cannot be decrypted" in text


def test_records_outside_ones_permission_stay_outside(
    viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = factories.make_plan()
    for number, reference in enumerate(("MINE-1", "THEIRS", "MINE-2")):
        factories.make_session(plan=plan, reference=reference, age=timedelta(minutes=30 - number))
    first, theirs, last = VerificationSession.objects.order_by("created_at")
    whole = VerificationSessionAdmin.get_queryset
    monkeypatch.setattr(
        VerificationSessionAdmin,
        "get_queryset",
        lambda self, request: whole(self, request).exclude(reference="THEIRS"),
    )
    response = viewer.get(page_of(last))
    assert "THEIRS" not in text_of(response)
    assert links(response, "next") == [page_of(first)]
    answer = UpstreamAnswer.objects.create(
        session=theirs, endpoint="result_detail", body="{}", body_index="x"
    )
    assert viewer.get(answer_url(answer)).status_code == 404


# --- neighbours ---------------------------------------------------------------------------------


def test_neighbours_follow_the_list() -> None:
    plan = factories.make_plan()
    moment = now() - timedelta(hours=1)
    # Two of the same moment are told apart by their keys.
    rows = [
        factories.make_session(plan=plan, token_answered_at=moment + timedelta(minutes=minutes))
        for minutes in (0, 1, 1, 2)
    ]
    everything = VerificationSession.objects.order_by()
    for order, listed in (("-created", rows[::-1]), ("created", rows)):
        keys: list[int | None] = [None, *(row.pk for row in listed), None]
        for place, row in enumerate(listed, 1):
            assert neighbours(row, everything, ORDERS[order]) == Neighbours(keys[place - 1], keys[place + 1])


def test_neighbours_take_two_queries_and_no_record_with_no_place() -> None:
    scored = [factories.make_passed_session(score=score) for score in (90.0, 70.5, 80.0)]
    session = factories.make_session()
    rows = VerificationSession.objects.order_by()
    with CaptureQueriesContext(connection) as captured:
        found = neighbours(scored[2], rows, ORDERS["score"])
    assert found == Neighbours(scored[1].pk, scored[0].pk)
    assert len(captured) == 2
    assert neighbours(session, rows, ORDERS["score"]) == Neighbours(None, None)


def test_neighbours_among_what_retention_takes_next() -> None:
    due = [
        factories.make_passed_session(age=timedelta(minutes=age), retain_until=now() + timedelta(days=3))
        for age in (5, 15, 25)
    ]
    factories.make_passed_session(age=timedelta(minutes=10), retain_until=now() + timedelta(days=90))
    rows = VerificationSession.objects.all()
    for session, expected in zip(due, [(None, 1), (0, 2), (1, None)], strict=True):
        keys = [None if place is None else due[place].pk for place in expected]
        found = neighbours_in_list(session, rows, "created=all&retention=7d")
        assert [found.previous, found.next] == keys


def test_a_record_that_left_its_list_still_has_its_place_in_it() -> None:
    older = factories.make_session(verdict="failed", age=timedelta(minutes=20))
    session = factories.make_passed_session(age=timedelta(minutes=10))
    newer = factories.make_session(verdict="failed", age=timedelta(minutes=5))
    factories.make_passed_session(age=timedelta(minutes=7))
    everything = VerificationSession.objects.order_by()
    assert neighbours_in_list(session, everything, "verdict=failed") == Neighbours(newer.pk, older.pk)


def test_the_page_leads_on_within_the_list(viewer: Client) -> None:
    plan = factories.make_plan()
    verdicts = ("failed", "passed", "failed")
    oldest, middle, newest = (
        factories.make_session(plan=plan, verdict=verdict, age=timedelta(minutes=30 - number))
        for number, verdict in enumerate(verdicts)
    )
    assert links(viewer.get(page_of(newest)), "next") == [page_of(middle)]
    assert links(viewer.get(page_of(newest)), "prev") == []
    # The list's own links carry what it is a list of.
    html = viewer.get(f"{LIST}?verdict=failed&order=created").content.decode()
    found = re.search(rf'href="({re.escape(page_of(oldest))}\?[^"]*)"', html)
    assert found
    response = viewer.get(unescape(found[1]))
    kept = f"?{urlencode({'_changelist_filters': 'verdict=failed&order=created'})}"
    assert links(response, "next") == [page_of(newest) + kept]
    assert f'href="{LIST}?verdict=failed&amp;order=created"' in response.content.decode()
    # One that is older than the seven days of a list without a time range is none of its rows.
    ancient = factories.make_session(plan=plan, verdict="failed", age=timedelta(days=9))
    assert links(viewer.get(page_of(oldest)), "next") == [page_of(ancient)]
    listed = urlencode({"_changelist_filters": "verdict=failed"})
    assert links(viewer.get(f"{page_of(oldest)}?{listed}"), "next") == []


@pytest.mark.parametrize(
    "listed",
    ["verdict=nonsense", "nonsense=1", "order=nonsense", "after=nonsense", "&&&=", "\x00", "a" * 3000],
)
def test_a_forged_list_breaks_nothing(viewer: Client, listed: str) -> None:
    session = factories.make_session()
    response = viewer.get(page_of(session), {"_changelist_filters": listed})
    assert response.status_code == 200
    assert "<script>" not in response.content.decode()


def test_acting_on_a_record_keeps_its_list(operator: Client) -> None:
    session = factories.make_awaiting_session()
    kept = f"?{urlencode({'_changelist_filters': 'verdict=pending'})}"
    html = operator.get(page_of(session) + kept).content.decode()
    url = reverse("admin:faceprint_verificationsession_query_now", args=[session.pk]) + kept
    assert f'action="{url}"' in html
    assert operator.post(url)["Location"] == page_of(session) + kept


# --- raw answers --------------------------------------------------------------------------------


def make_answer(session: VerificationSession, document: Any) -> UpstreamAnswer:
    body = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)
    return UpstreamAnswer.objects.create(
        session=session, endpoint="result_detail", body=body, body_index="y", log_id="1390000000000000007"
    )


DOCUMENT = {
    "success": True,
    "result": {
        "verify_result": {"score": 84.4},
        "idcard_confirm": {"name": factories.NAME, "idcard_number": factories.NUMBER},
        "message": f"{factories.NAME} 核验成功",
    },
    "log_id": "1390000000000000007",
}


def test_a_raw_answer_is_shown_masked_and_the_look_logged(viewer: Client) -> None:
    session = factories.make_passed_session()
    answer = make_answer(session, DOCUMENT)
    assert f'href="{answer_url(answer)}"' in viewer.get(page_of(session)).content.decode()
    before = AccessLog.objects.count()
    for headers in ({}, {"Accept": "application/json"}):
        response = viewer.get(answer_url(answer), headers=headers)
        assert response.status_code == 200
        assert "no-store" in response["Cache-Control"]
        html = unescape(response.content.decode())
        for secret in SECRETS:
            assert secret not in html
    found = json.loads(response.json()["text"])
    assert found["result"]["verify_result"] == {"score": 84.4}
    assert found["result"]["idcard_confirm"] == {"name": "张**", "idcard_number": "110***********002X"}
    assert found["result"]["message"] == "**** 核验成功"
    entries = AccessLog.objects.order_by("pk")[before:]
    assert [(entry.action, entry.session_id) for entry in entries] == [("view_record", session.public_id)] * 2


@pytest.mark.parametrize("body", ["no JSON at all: 张三丰", '{"name": "张三丰', ""])
def test_what_could_not_be_masked_is_not_shown(viewer: Client, body: str) -> None:
    answer = make_answer(factories.make_session(), body)
    response = viewer.get(answer_url(answer))
    assert "Not shown: it is erased, or not JSON" in text_of(response)
    assert factories.NAME not in response.content.decode()
    found = viewer.get(answer_url(answer), headers={"Accept": "application/json"}).json()
    assert found["text"] == ""
    assert found["problem"]


def test_an_erased_answer_says_so(viewer: Client) -> None:
    answer = make_answer(factories.make_session(), DOCUMENT)
    UpstreamAnswer.objects.update(body=None)
    assert "Not shown: it is erased" in text_of(viewer.get(answer_url(answer)))


def test_answers_are_for_who_may_see_the_record(login: Callable[..., Client]) -> None:
    answer = make_answer(factories.make_session(), DOCUMENT)
    other = make_answer(factories.make_session(), DOCUMENT)
    assert Client().get(answer_url(answer)).status_code == 302
    client = login("view_media")
    assert client.get(answer_url(answer)).status_code == 403
    get_user_model().objects.all().delete()
    client = login("view_verificationsession")
    assert client.post(answer_url(answer)).status_code == 405
    # Not under another record's address.
    mixed = reverse("admin:faceprint_verificationsession_answer", args=[answer.session_id, other.pk])
    assert client.get(mixed).status_code == 404
    assert not AccessLog.objects.exists()


# --- notes --------------------------------------------------------------------------------------


def test_looks_stand_in_the_timeline_for_who_may_see_them(login: Callable[..., Client]) -> None:
    session = full_session()
    client = login("view_verificationsession")
    client.get(page_of(session))
    assert "operator · viewed record" not in text_of(client.get(page_of(session)))
    auditor = login("view_verificationsession", "view_accesslog", username="auditor")
    text = text_of(auditor.get(page_of(session)))
    timeline = text[text.index("Timeline") : text.index("Session ID")]
    assert timeline.count("operator · viewed record") == 2
    for _ in range(2):
        auditor.get(page_of(session))
    text = text_of(auditor.get(page_of(session)))
    assert "auditor · viewed record ×4" in text


def test_a_long_log_is_a_link_away(full_viewer: Client) -> None:
    session = factories.make_session()
    for _ in range(record.MAX_VIEWS + 1):
        response = full_viewer.get(page_of(session))
    assert f"/admin/faceprint/accesslog/?q={session.public_id}" in response.content.decode()


def test_sources_that_agree_are_said_to(viewer: Client) -> None:
    text = text_of(viewer.get(page_of(full_session())))
    assert "Number ✓ all agree" in text
    assert "Name ✓" not in text


def test_charges_are_summed_up(viewer: Client) -> None:
    session = factories.make_passed_session()
    for order, charged in enumerate((True, False, True), 1):
        VerificationAttempt.objects.create(
            session=session, order=order, passed=True, is_charged=charged, charge_type="verify"
        )
    assert "Charged: 2 × identity verification" in text_of(viewer.get(page_of(session)))


def test_face_card_and_match_image_stand_side_by_side() -> None:
    session = factories.make_passed_session()
    for kind in (Kind.FRAME, Kind.MATCH_IMAGE, Kind.ID_BACK, Kind.FACE, Kind.ID_FRONT):
        factories.make_stored_asset(session, kind)
    factories.make_asset(session, Kind.VIDEO, state="not_provided", reason="recording_off")
    page = shown(session)
    assert [file.asset.kind for file in page.compared] == [Kind.FACE, Kind.ID_FRONT, Kind.MATCH_IMAGE]
    assert [file.asset.kind for file in page.strip] == [Kind.ID_BACK, Kind.FRAME]
    assert [file.asset.kind for file in page.videos] == [Kind.VIDEO]


def test_the_last_attempts_face_stands_for_one_that_is_missing() -> None:
    session = factories.make_session(verdict="failed")
    for order in (1, 2):
        factories.make_stored_asset(session, Kind.ATTEMPT_FACE, attempt_order=order)
    factories.make_asset(session, Kind.FACE, state="not_provided", reason="not_passed")
    page = shown(session)
    assert [file.asset.attempt_order for file in page.compared] == [2]
    assert [file.asset.attempt_order for file in page.strip] == [1]


def shown(session: VerificationSession) -> record.Record:
    return record.Record(
        session,
        url=lambda view, *arguments, **options: "",
        may_view_media=True,
        with_views=True,
        visible=VerificationSession.objects.all(),
    )


def test_a_file_whose_days_have_ended_does_not_make_the_archive_incomplete(full_viewer: Client) -> None:
    session = factories.make_passed_session()
    for kind in (Kind.FACE, Kind.ID_FRONT, Kind.MATCH_IMAGE):
        factories.make_stored_asset(session, kind)
    factories.make_asset(session, Kind.PROCESS_VIDEO, state="erased", reason="retention")
    assert "complete 3/3" in text_of(full_viewer.get(LIST))
    text = text_of(full_viewer.get(page_of(session)))
    assert "complete 3/3" in text
    # It is not hidden either.
    assert "process video" in text
    assert "erased" in text


def test_the_page_is_complete_in_chinese(full_viewer: Client) -> None:
    session = full_session()
    factories.make_session(reference="SAME")
    text = text_of(full_viewer.get(page_of(session), headers={"accept-language": "zh-hans"}))
    for expected in (
        "同一人的其他记录",
        "另有 1 条",
        "上一条",
        "加密保存，脱敏显示",
        "安全期限、最晚期限",
        "不一致",
    ):
        assert expected in text
    for english in ("Previous record", "Same person", "Compare", "Copy", "Loading", "all agree"):
        assert english not in text


def test_nothing_makes_the_page_take_more_queries(full_viewer: Client) -> None:
    plan = factories.make_plan()
    numbers = ("440308199901015331", factories.NUMBER)
    small, large = (factories.make_passed_session(plan=plan, identity_number=number) for number in numbers)
    make_answer(small, DOCUMENT)
    factories.make_passed_session(plan=plan, identity_number=numbers[0])
    for number in range(30):
        factories.make_asset(large, Kind.FRAME, position=number)
        factories.make_call(large)
        VerificationAttempt.objects.create(session=large, order=number, passed=False)
        factories.make_passed_session(plan=plan, age=timedelta(minutes=number))
        UpstreamAnswer.objects.create(
            session=large, endpoint="result_stat", body="{}", body_index=str(number)
        )
        full_viewer.get(page_of(large))
    listed = {"_changelist_filters": "verdict=passed"}
    full_viewer.get(page_of(small), listed)
    counts = []
    for session in (small, large):
        with CaptureQueriesContext(connection) as captured:
            assert full_viewer.get(page_of(session), listed).status_code == 200
        counts.append(len(captured))
    assert counts[0] == counts[1]
    # Session, user, permissions twice, record, look, two neighbours; consent, files, calls, answers,
    # attempts, looks, the person's records and how many.
    assert counts[0] <= 16
