"""From one record to others: beside it in the list, of the same person, and Baidu's answers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_faceprint.models import UpstreamAnswer, VerificationSession
from django_faceprint.privacy.keys import generate_key
from tests import factories

from .test_sessions import LIST, page_of, text_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]


def neighbours(client: Client, session: VerificationSession, query: str = "") -> tuple[str, str]:
    """The references of the newer and the older record that the page leads to; "" for none."""
    data = {"_changelist_filters": query} if query else {}
    context = client.get(page_of(session), data).context
    found = []
    for name in ("newer_url", "older_url"):
        path = context[name].partition("?")[0]
        keys = [other for other in VerificationSession.objects.all() if page_of(other) == path]
        found.append(keys[0].reference if keys else "")
    return found[0], found[1]


def test_the_records_beside_one_are_those_of_the_list(viewer: Client) -> None:
    plan = factories.make_plan()
    records = [
        factories.make_session(
            reference=f"R-{number}",
            plan=plan,
            verdict="failed" if number % 2 else "passed",
            age=timedelta(minutes=number // 2),
        )
        for number in range(6)
    ]
    order = sorted(records, key=lambda session: (session.created_at, session.pk), reverse=True)
    names = [session.reference for session in order]
    for place, session in enumerate(order):
        expected = names[place - 1] if place else "", names[place + 1] if place < 5 else ""
        assert neighbours(viewer, session) == expected
    failed = [session for session in order if session.verdict == "failed"]
    assert neighbours(viewer, failed[1], "verdict=failed") == (failed[0].reference, failed[2].reference)
    page = viewer.get(page_of(failed[1]), {"_changelist_filters": "verdict=failed&after=1_1"})
    assert f'href="{LIST}?verdict=failed&amp;after=1_1"' in page.content.decode()
    assert "_changelist_filters=verdict%3Dfailed" in page.context["older_url"]


@pytest.mark.parametrize("query", ["verdict=nonsense", "number_index=x", "%00", "after=x", "created=all"])
def test_a_list_that_is_not_understood_does_no_harm(viewer: Client, query: str) -> None:
    session = factories.make_session()
    assert viewer.get(page_of(session), {"_changelist_filters": query}).status_code == 200


def test_the_list_leads_to_records_with_its_filters(viewer: Client) -> None:
    session = factories.make_session(verdict="failed")
    html = viewer.get(f"{LIST}?verdict=failed").content.decode()
    assert f'href="{page_of(session)}?_changelist_filters=verdict%3Dfailed"' in html


def test_other_records_of_the_person_are_shown_masked(viewer: Client, settings: Any) -> None:
    session = factories.make_passed_session(reference="this")
    factories.make_session(reference="earlier", verdict="failed", age=timedelta(days=400))
    factories.make_session(reference="stranger", identity_number="440308199901015331")
    settings.FACEPRINT = settings.FACEPRINT | {
        "INDEX_KEYS": [generate_key(), *settings.FACEPRINT["INDEX_KEYS"]]
    }
    factories.make_session(reference="newer key")
    page = viewer.get(page_of(session))
    assert [row.reference for row, _ in page.context["record"].others] == ["newer key", "earlier"]
    assert "Other records of this person" in text_of(page)
    assert "stranger" not in page.content.decode()
    alone = factories.make_session(identity_number=None, identity_name=None)
    assert "Other records of this person" not in text_of(viewer.get(page_of(alone)))


def test_the_page_asks_as_often_however_many_other_records_there_are(viewer: Client) -> None:
    plan = factories.make_plan()
    session = factories.make_passed_session(plan=plan)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            viewer.get(page_of(session))
        return len(captured)

    for _ in range(2):
        factories.make_session(plan=plan)
    viewer.get(page_of(session))
    few = queries()
    for _ in range(30):
        factories.make_session(plan=plan)
    assert queries() == few
    assert viewer.get(page_of(session)).context["record"].has_more_others


def test_an_answer_is_shown_without_the_person(viewer: Client) -> None:
    session = factories.make_passed_session()
    answer = UpstreamAnswer.objects.create(
        session=session,
        endpoint="result_detail",
        body=f'{{"result": {{"name": "{factories.NAME}", "score": 84.4}}}}',
        body_index="x",
        log_id="1390000000000000002",
    )
    address = reverse("admin:faceprint_verificationsession_answer", args=[session.pk, answer.pk])
    assert address in viewer.get(page_of(session)).content.decode()
    page = viewer.get(address)
    text = text_of(page)
    assert '"score": 84.4' in text
    assert '"name": "… (3)"' in text
    assert factories.NAME not in page.content.decode()
    assert "no-store" in page["Cache-Control"]
    assert viewer.post(address).status_code == 405
    other = factories.make_session()
    elsewhere = reverse("admin:faceprint_verificationsession_answer", args=[other.pk, answer.pk])
    assert viewer.get(elsewhere).status_code == 404


def test_an_answer_that_cannot_be_decrypted_says_so(viewer: Client, settings: Any) -> None:
    session = factories.make_passed_session()
    answer = UpstreamAnswer.objects.create(session=session, endpoint="x", body="{}", body_index="x")
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [generate_key()]}
    address = reverse("admin:faceprint_verificationsession_answer", args=[session.pk, answer.pk])
    assert "cannot be decrypted" in text_of(viewer.get(address))
