"""Whatever text comes to lie in a row, from Baidu, a caller or an operator, it is never markup."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.core import mail
from django.db import models
from django.test import Client
from django.urls import reverse

from django_faceprint.alerts.evaluation import evaluate
from django_faceprint.models import (
    AccessLog,
    Alert,
    AlertRule,
    Erasure,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.privacy.fields import EncryptedJSONField, EncryptedTextField
from django_faceprint.verification import return_token
from tests import factories
from tests.pages import admin_pages

from .conftest import text_of

pytestmark = pytest.mark.django_db

PAYLOAD = "\"'><script>xss()</script><img src=x onerror=xss()>{{7*7}}"
#: What a browser would act upon. Short columns hold the beginning only.
MARKUP = ("<script>xss", "<img src=x", PAYLOAD[:3])
TEXTS = (models.CharField, models.TextField, models.JSONField, EncryptedTextField, EncryptedJSONField)
#: What gives a row its place or is computed; a text there would be no row of ours.
STRUCTURE = {
    "public_id",
    "verify_token_index",
    "idempotency_key",
    "name_index",
    "number_index",
    "wrapped_key",
    "stored_name",
    "environment",
    "application",
}


def poisonable(model: type[models.Model]) -> Iterator[Any]:
    """The columns of a model that hold free text."""
    for field in model._meta.concrete_fields:
        if field.name in STRUCTURE or field.choices or field.primary_key or field.is_relation:
            continue
        if isinstance(field, TEXTS):
            yield field


def poison(row: models.Model) -> None:
    """Put the payload into every free text of *row*, as far as it fits."""
    for field in poisonable(type(row)):
        if isinstance(field, models.JSONField | EncryptedJSONField):
            setattr(row, field.name, poisoned_json(getattr(row, field.name)))
        else:
            limit = field.max_length if isinstance(field, models.CharField) else None
            setattr(row, field.name, PAYLOAD[:limit])
    row.save()


def poisoned_json(value: Any) -> Any:
    """*value* in its shape, with the payload for each text."""
    if isinstance(value, dict):
        return {key: poisoned_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned_json(item) for item in value]
    return PAYLOAD if isinstance(value, str) else value


@pytest.fixture
def poisoned() -> VerificationSession:
    """A record whose every row, related ones too, is full of the payload."""
    session = factories.make_passed_session(
        ocr={"name": "x", "address": "x", "issue_authority": "x", "nation": "x"},
        confirmed={"name": "x", "number": "x"},
        stat={"match": [{"error_code": "x", "count": 1}]},
        return_url="https://example.com/",
    )
    look = {"actor_id": "1", "actor_name": "x", "channel": "admin"}
    rows: list[models.Model] = [
        session,
        session.plan,
        VerificationAttempt.objects.create(session=session, order=1, passed=False),
        factories.make_asset(session, "video"),
        factories.make_stored_asset(session, "face"),
        factories.make_call(session),
        Alert.objects.create(
            rule=AlertRule.objects.get(condition="attack"),
            severity="critical",
            facts={"plan": "x", "note": "x"},
        ),
        Erasure.objects.create(actor_name="x", channel="admin", reason="x", sessions=["x"]),
    ]
    for row in rows:
        poison(row)
    record = VerificationSession.objects.get(pk=session.pk)
    AccessLog.objects.create(
        **look | {"actor_name": PAYLOAD}, action="view_record", session_id=record.public_id
    )
    return record


def test_every_table_has_texts_to_poison() -> None:
    found = {
        model.__name__ for model in apps.get_app_config("faceprint").get_models() if [*poisonable(model)]
    }
    assert {"VerificationSession", "VerificationAttempt", "MediaAsset", "UpstreamCall", "AccessLog"} <= found


def test_no_page_of_the_admin_carries_markup_of_a_row(
    superuser: Client, poisoned: VerificationSession
) -> None:
    pages = [*admin_pages(), reverse("admin:index"), reverse("admin:app_list", args=["faceprint"])]
    assert len(pages) > 15
    seen = 0
    for page in pages:
        answer = superuser.get(page)
        assert answer.status_code == 200, page
        html = text_of(answer)
        seen += "xss()" in html
        for markup in MARKUP:
            assert markup not in html, page
        assert "49" not in html.partition("{{7*7}}")[0][-3:], page
    # The texts are shown: it is the escaping that keeps them quiet, not their absence.
    assert seen > 5


def test_no_search_or_filter_repeats_markup(superuser: Client, poisoned: VerificationSession) -> None:
    page = reverse("admin:faceprint_verificationsession_changelist")
    for query in ({"q": PAYLOAD}, {"verdict": PAYLOAD}, {"o": PAYLOAD}, {"p": PAYLOAD}, {PAYLOAD: "1"}):
        html = text_of(superuser.get(page, query, follow=True))
        assert not [markup for markup in MARKUP if markup in html], query
    posted = superuser.post(
        reverse("admin:faceprint_verificationsession_lookup"), {"q": PAYLOAD}, follow=True
    )
    assert not [markup for markup in MARKUP if markup in text_of(posted)]


def test_the_return_page_is_clean(poisoned: VerificationSession, client: Client) -> None:
    html = text_of(client.get(reverse("faceprint:return", args=[return_token(poisoned)])))
    assert not [markup for markup in MARKUP if markup in html]


def test_the_api_answers_json_that_no_browser_takes_for_a_page(
    superuser: Client, poisoned: VerificationSession
) -> None:
    address = f"/api/faceprint/sessions/{poisoned.public_id}/"
    for part in ("", "result/", "stat/", "media/", "../", "nonsense/"):
        answer = superuser.get(address + part, headers={"accept": "text/html"})
        assert answer["Content-Type"] in ("application/json", "application/problem+json") or (
            answer.status_code == 404 and "xss" not in text_of(answer)
        )
        if answer.status_code == 200:
            assert answer["X-Content-Type-Options"] == "nosniff"


def test_alert_mails_carry_no_markup(poisoned: VerificationSession) -> None:
    AlertRule.objects.update(recipients="ops@example.com", minimum_count=1, share_percent=1)
    Alert.objects.all().delete()
    for _ in range(3):
        factories.make_call(outcome="transport", code=PAYLOAD[:40], endpoint="result_detail")
    session = factories.make_passed_session(reference=PAYLOAD)
    factories.make_asset(
        session, "video", state="lost", error_class=PAYLOAD[:30], error_detail=PAYLOAD, reason=PAYLOAD
    )
    evaluate()
    assert mail.outbox
    for message in mail.outbox:
        for part in message.message().walk():
            if part.get_content_type() == "text/html":
                html = part.get_payload(decode=True).decode()
                assert not [markup for markup in MARKUP if markup in html]


def test_a_hostile_name_in_the_address_is_only_a_wrong_address(superuser: Client) -> None:
    for path in (
        "/faceprint/return/%3Cscript%3Exss()%3C/script%3E/",
        "/api/faceprint/sessions/%22%3E%3Cscript%3E/",
    ):
        answer = superuser.get(path)
        assert answer.status_code == 404
        assert not [markup for markup in MARKUP if markup in text_of(answer)]
