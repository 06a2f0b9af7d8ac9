"""Who looked, and why: one row, and the reason in words apart from it."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.http import HttpRequest
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from django_faceprint.audit.access import Reason, reason_digest, record_access
from django_faceprint.models import AccessLog, AccessReason
from tests.factories import make_session

pytestmark = pytest.mark.django_db

Action = AccessLog.Action
WORDS = "complaint 4711 of 柴犬"


@pytest.fixture
def request_of_user(rf: RequestFactory) -> HttpRequest:
    request = rf.post("/")
    request.user = get_user_model().objects.create_user("auditor")
    return request


def test_a_look_costs_one_insert(request_of_user: HttpRequest) -> None:
    session = make_session()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        record_access(request_of_user, Action.VIEW_RECORD, session=session, channel="admin")
    assert len(queries) == 1


def test_a_reason_in_words_stands_apart_and_encrypted(request_of_user: HttpRequest) -> None:
    entry = record_access(
        request_of_user,
        Action.REVEAL,
        session=make_session(),
        channel="admin",
        reason=Reason("complaint", WORDS),
    )
    entry.refresh_from_db()
    reason = AccessReason.objects.get(public_id=entry.public_id)
    assert (entry.reason_code, reason.text) == ("complaint", WORDS)
    assert entry.reason_digest == reason_digest(reason.salt, WORDS)
    with connection.cursor() as cursor:
        cursor.execute("SELECT text FROM faceprint_accessreason")
        assert WORDS.encode() not in bytes(str(cursor.fetchall()), "utf-8")


def test_a_reason_without_words_is_its_code_alone(request_of_user: HttpRequest) -> None:
    entry = record_access(request_of_user, Action.REVEAL, channel="admin", reason=Reason("audit"))
    assert (entry.reason_code, entry.reason_digest) == ("audit", "")
    assert not AccessReason.objects.exists()


def test_erasing_the_words_leaves_the_entry_as_it_was(request_of_user: HttpRequest) -> None:
    entry = record_access(request_of_user, Action.REVEAL, channel="admin", reason=Reason("other", WORDS))
    AccessReason.objects.all().delete()
    assert AccessLog.objects.get().reason_digest == entry.reason_digest
