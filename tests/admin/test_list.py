"""The record list: what its rows say, its filters, its pages by key."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client

from django_faceprint.admin.list_request import ORDERS
from django_faceprint.clock import now
from django_faceprint.models import AccessLog, MediaAsset, VerificationSession
from tests import factories

from .conftest import (
    LIST,
    SECRETS,
    action_of,
    content_of,
    full_session,
    link,
    look_up,
    messages_of,
    page_of,
    text_of,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]

Kind = MediaAsset.Kind


def listed(client: Client, query: str = "") -> list[str]:
    """The references of one page, in order."""
    return [session.reference for session in client.get(f"{LIST}?{query}").context["cl"].result_list]


# --- rows ---------------------------------------------------------------------------------------


def test_the_list_shows_masked_records(viewer: Client) -> None:
    full_session()
    factories.make_session(
        verdict="failed",
        archive_state="complete",
        score=62.51,
        threshold=80.0,
        error_class="verification_failed",
        error_code="222351",
        retain_until=now() + timedelta(days=30),
    )
    response = viewer.get(LIST)
    text = text_of(response)
    for expected in (
        "84.4 / 80",
        "62.51 / 80",
        "张** 110***********002X",
        "ORDER-1 account opening",
        "25001 sandbox",
        "complete 4/4",
        "Name and ID number do not match",
        "2026-04-01",
        "2 records",
    ):
        assert expected in text
    for secret in SECRETS:
        assert secret not in response.content.decode()


def test_a_score_that_means_nothing_is_no_number(viewer: Client) -> None:
    colourful = factories.make_plan(liveness="colorful")
    factories.make_passed_session(plan=colourful, liveness_score=0, spoofing_score=0, score=90.5)
    only_alive = factories.make_plan(match_source="liveness_only")
    factories.make_passed_session(plan=only_alive, score=0, spoofing_score=0.25, liveness_score=0.5)
    alive, coloured = viewer.get(LIST).context["cl"].result_list
    html = viewer.get(LIST).content.decode()
    cells = re.findall(r'<td class="field-score_column">(.*?)</td>', html)
    assert (alive.plan, coloured.plan) == (only_alive, colourful)
    assert [re.sub(r"<[^>]+>", " ", cell).split() for cell in cells] == [
        ["not", "applicable", "0.5", "·", "0.25"],
        ["90.5", "/", "80", "not", "applicable", "·", "not", "checked"],
    ]


def test_a_score_is_not_rounded_onto_the_threshold(viewer: Client) -> None:
    for score in (79.9996, 84.4321, 80.0):
        factories.make_passed_session(score=score)
    text = text_of(viewer.get(LIST))
    assert "79.9996 / 80" in text
    assert "84.43 / 80" in text
    assert " 80 / 80" in text


def test_time_left_is_red_below_six_hours(viewer: Client) -> None:
    near = factories.make_passed_session(archive_state="collecting", age=timedelta(hours=19))
    factories.make_asset(near, Kind.VIDEO, deadline=now() + timedelta(hours=5, minutes=30, seconds=30))
    far = factories.make_passed_session(archive_state="collecting")
    factories.make_asset(far, Kind.VIDEO, deadline=now() + timedelta(hours=7, seconds=30))
    late = factories.make_passed_session(archive_state="collecting")
    factories.make_asset(late, Kind.VIDEO, deadline=now() - timedelta(minutes=3, seconds=30))
    html = viewer.get(LIST).content.decode()
    assert '<span class="fp-sub fp-urgent">5 h 30 min left</span>' in html
    assert '<span class="fp-sub">7 h 0 min left</span>' in html
    assert '<span class="fp-sub fp-urgent">overdue by 3 min</span>' in html


# --- filters ------------------------------------------------------------------------------------


def test_filters_in_use_are_listed_and_can_be_removed(viewer: Client) -> None:
    factories.make_passed_session(reference="passed")
    factories.make_session(reference="failed", verdict="failed", error_class="verification_failed")
    response = viewer.get(f"{LIST}?verdict=failed&error_class=verification_failed&order=created")
    chips = response.context["cl"].filter_bar.chips
    assert [(chip.label, chip.text) for chip in chips] == [
        ("verdict", "failed"),
        ("error", "verification failed"),
    ]
    assert listed(viewer, "verdict=failed") == ["failed"]
    assert chips[0].url_without == "?error_class=verification_failed&order=created"
    assert "verdict: failed" in text_of(response)
    assert "Clear all filters" in text_of(response)
    assert "Clear all filters" not in text_of(viewer.get(LIST))


def test_several_values_of_one_filter_can_be_asked_for(viewer: Client) -> None:
    for verdict in ("passed", "failed", "expired"):
        factories.make_session(reference=verdict, verdict=verdict)
    response = viewer.get(f"{LIST}?verdict=failed,expired")
    assert {session.reference for session in response.context["cl"].result_list} == {"failed", "expired"}
    assert "verdict: failed, expired" in text_of(response)
    # The form keeps it, so that another filter does not undo it.
    assert '<option value="failed,expired" selected>' in response.content.decode()


def test_the_form_leads_to_an_address_without_empty_fields(viewer: Client) -> None:
    factories.make_plan(plan_id="31337", name="Loans")
    html = viewer.get(LIST).content.decode()
    fields = re.findall(r'<(?:select|input)[^>]* name="([a-z_]+)" id="fp-filter-', html)
    assert len(fields) == len(set(fields)) >= 24
    answer = viewer.get(LIST, {**dict.fromkeys(fields, ""), "verdict": "failed"})
    assert answer["Location"] == f"{LIST}?verdict=failed"
    assert "Loans (31337)" in html


def test_seven_days_are_the_default_and_all_is_one_click_away(viewer: Client) -> None:
    factories.make_session(reference="old", age=timedelta(days=8))
    factories.make_session(reference="new")
    response = viewer.get(LIST)
    assert [session.reference for session in response.context["cl"].result_list] == ["new"]
    html = response.content.decode()
    assert '<a href="?" aria-current="true">last 7 days</a>' in html
    assert '<a href="?created=all">all time</a>' in html
    assert listed(viewer, "created=all") == ["new", "old"]


@pytest.mark.parametrize(
    "query",
    [
        "number_index__startswith=a",
        "verify_token_index__isnull=False",
        "idempotency_key__regex=(a%2B)%2B$",
        "reference__regex=[",
        "reference__contains=x",
        "verdict__regex=[",
        "verdict__exact=passed",
        "created_by__id__exact=1",
        "created_at__gte=0001-01-01T00:00:00%2B14:00",
        "id__in=99999999999999999999999999",
        "attempted_at=1",
        "created=nonsense",
        "score_min=nan",
        "q=x",
        "p=2",
        "order=number_index",
        "after=x",
        "after=1_0",
        "after=_",
        "after=99999999999999999999999999999_1",
        "before=1_99999999999999999999",
        "before=-5_-5",
        "order=score&after=nan_1",
        "order=score&after=inf_1",
        "after=%00_1",
        "after=1e5_1",
    ],
)
@pytest.mark.parametrize("act", [False, True])
def test_what_the_list_does_not_understand_shows_nothing_and_says_so(
    operator: Client, query: str, act: bool
) -> None:
    session = factories.make_session()
    if act:
        body = {"action": "query_now", "select_across": "1", "_selected_action": [str(session.pk)]}
        response = operator.post(f"{LIST}?{query}", body, follow=True)
        assert not AccessLog.objects.exists()
    else:
        response = operator.get(f"{LIST}?{query}")
    assert response.status_code == 400
    assert response.context["cl"].result_list == []
    assert "This filter is not understood" in text_of(response)


def test_empty_states(viewer: Client) -> None:
    assert "No records yet" in text_of(viewer.get(LIST))
    factories.make_session(age=timedelta(days=8))
    assert "No records in the last 7 days" in text_of(viewer.get(LIST))
    assert "No record matches" in text_of(viewer.get(f"{LIST}?verdict=failed"))


# --- pages --------------------------------------------------------------------------------------


@pytest.fixture
def pages(viewer: Client, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Twenty-three records on pages of five; several were made in the same moment, some have no score."""
    monkeypatch.setattr("django_faceprint.admin.sessions.VerificationSessionAdmin.list_per_page", 5)
    plan = factories.make_plan()
    for number in range(23):
        factories.make_session(
            plan=plan,
            reference=f"{number:02}",
            age=timedelta(minutes=number // 4),
            score=None if number % 7 == 3 else [70.25, 70.25, 99.125, 0.1][number % 4],
            next_deadline=now() + timedelta(hours=number % 3) if number % 2 else None,
            retain_until=now() + timedelta(days=3),
        )
    return viewer


def walk(client: Client, query: str, relation: str) -> list[list[str]]:
    """All pages from *query* on, following the links of that relation."""
    found: list[list[str]] = []
    while len(found) < 30:
        response = client.get(f"{LIST}?{query}")
        assert response.status_code == 200
        found.append([session.reference for session in response.context["cl"].result_list])
        query = link(response, relation)
        if not query:
            return found
    raise AssertionError("The pages go round in a circle.")


@pytest.mark.parametrize("selected", ["", "&created=all&retention=7d"])
@pytest.mark.parametrize("order", ORDERS)
def test_every_record_is_on_exactly_one_page_in_order(pages: Client, order: str, selected: str) -> None:
    column, descending = ORDERS[order].column, ORDERS[order].descending
    expected = [
        session.reference
        for session in sorted(
            VerificationSession.objects.exclude(**{column: None}),
            key=lambda session: (getattr(session, column), session.pk),
            reverse=descending,
        )
    ]
    forward = walk(pages, f"order={order}{selected}", "next")
    assert [reference for page in forward for reference in page] == expected
    last = link(pages.get(f"{LIST}?order={order}{selected}"), "last")
    backward = walk(pages, last, "prev")
    assert backward[0] == expected[-5:]
    seen = [reference for page in backward for reference in page]
    # The first page is shown whole, also when what is left before it is less than a page.
    assert set(seen) == set(expected)
    assert backward[-1] == expected[:5]


def test_a_page_has_links_only_where_there_is_something(pages: Client) -> None:
    first = pages.get(LIST)
    assert [bool(link(first, relation)) for relation in ("first", "prev", "next", "last")] == [0, 0, 1, 1]
    second = pages.get(f"{LIST}?{link(first, 'next')}")
    assert [bool(link(second, relation)) for relation in ("prev", "next", "last")] == [1, 1, 1]
    assert '<a href="?" rel="first">' in second.content.decode()
    last = pages.get(f"{LIST}?{link(first, 'last')}")
    assert [bool(link(last, relation)) for relation in ("prev", "next", "last")] == [1, 0, 0]
    assert "23 records" in text_of(last)


def test_pages_keep_their_place_while_records_come_in(pages: Client) -> None:
    following = link(pages.get(LIST), "next")
    before = listed(pages, following)
    factories.make_session(reference="new", age=timedelta(0))
    assert listed(pages, following) == before


def test_pages_keep_the_filters(pages: Client) -> None:
    response = pages.get(f"{LIST}?environment=sandbox&order=created")
    assert link(response, "next").startswith("environment=sandbox&order=created&after=")


def test_a_click_on_a_head_sorts(pages: Client) -> None:
    headers = {header.name: header for header in pages.get(LIST).context["cl"].headers}
    assert headers["created_column"].aria_sort == "descending"
    assert headers["created_column"].url == "?order=created"
    assert headers["score_column"].url == "?order=score"
    assert headers["person_column"].url == ""
    headers = {header.name: header for header in pages.get(f"{LIST}?order=score").context["cl"].headers}
    assert (headers["score_column"].aria_sort, headers["score_column"].url) == ("ascending", "?order=-score")
    assert "Only records with a score." in text_of(pages.get(f"{LIST}?order=score"))


def test_a_count_is_capped(pages: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_faceprint.admin.changelist.MAX_COUNTED", 20)
    text = text_of(pages.get(LIST))
    assert "20+ records" in text
    assert "23" not in re.findall(r"(\d+)\+? records", text)


def test_an_action_on_the_whole_filter_takes_all_of_its_pages(
    login: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_faceprint.admin.sessions.VerificationSessionAdmin.list_per_page", 2)
    client = login("view_verificationsession", "refresh_session")
    for number in range(5):
        factories.make_awaiting_session(reference=f"{number}")
    other = factories.make_passed_session(wake_at=now() + timedelta(hours=1))
    chosen = VerificationSession.objects.order_by("pk").first()
    body = {"action": "query_now", "select_across": "1", "_selected_action": [str(chosen and chosen.pk)]}
    client.post(f"{LIST}?verdict=pending", body)
    assert AccessLog.objects.count() == 5
    assert not AccessLog.objects.filter(session_id=other.public_id).exists()


# --- finding ------------------------------------------------------------------------------------


def test_several_hits_are_listed_in_the_answer_itself(viewer: Client) -> None:
    for _ in range(2):
        factories.make_session(reference="KYC/77 81", age=timedelta(days=400))
    factories.make_session(reference="another")
    answer = look_up(viewer, "KYC/77 81")
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    text = text_of(answer)
    assert text.count("KYC/77 81") == 2
    assert text.count("110***********002X") == 2
    assert "another" not in text


def test_texts_without_a_match_are_named_by_line(viewer: Client) -> None:
    factories.make_session(reference="A-1")
    answer = look_up(viewer, "A-1\n440308199901015331\nB-7")
    assert messages_of(answer) == ["No record matches lines 2, 3. Texts must be exact."]
    assert "440308199901015331" not in answer.content.decode()
    assert "B-7" not in answer.content.decode()


def test_a_record_outside_the_permission_differs_from_none(
    login: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host may narrow what the admin shows, to the records of one's own branch, say."""
    from django_faceprint.admin.sessions import VerificationSessionAdmin

    everything = VerificationSessionAdmin.get_queryset
    monkeypatch.setattr(
        VerificationSessionAdmin,
        "get_queryset",
        lambda self, request: everything(self, request).filter(purpose="mine"),
    )
    mine, other = factories.make_session(reference="1", purpose="mine"), factories.make_session(reference="2")
    viewer = login("view_verificationsession", username="viewer")
    assert look_up(viewer, "1")["Location"] == page_of(mine)
    assert look_up(viewer, "2")["Location"] == LIST
    assert messages_of(viewer.get(LIST)) == ["1 matching record is outside your permission."]
    assert look_up(viewer, "3")["Location"] == LIST
    assert messages_of(viewer.get(LIST)) == ["No record matches. The text must be exact."]
    assert listed(viewer, "created=all") == ["1"]
    assert viewer.get(page_of(other)).status_code == 302
    face = factories.make_stored_asset(other, Kind.FACE)
    everyone = login(
        "view_verificationsession", "view_media", "refresh_session", "reveal_identity", "erase_person"
    )
    assert everyone.get(content_of(face)).status_code == 404
    for name in ("query_now", "archive_again", "reveal", "erase_record"):
        assert everyone.post(action_of(other, name), {"reason": "audit"}).status_code == 404
