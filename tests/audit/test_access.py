"""The access log: one row per action; a free-text reason is kept apart from it, encrypted."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_faceprint.audit.access import Actor, Reason, earlier_reason, reason_digest, record_access
from django_faceprint.models import AccessLog, AccessReason
from tests.factories import make_session

pytestmark = pytest.mark.django_db

Action = AccessLog.Action
TEXT = "complaint 4711 of 柴犬"
AUDITOR = Actor("auditor", "admin", "7", "192.0.2.7")


def test_an_entry_costs_one_insert() -> None:
    session = make_session()
    with CaptureQueriesContext(connection) as queries:
        entry = record_access(AUDITOR, Action.VIEW_RECORD, session_id=session.public_id)
    assert len(queries) == 1
    entry.refresh_from_db()
    assert (entry.actor_name, entry.channel, entry.actor_id, entry.address) == tuple(vars(AUDITOR).values())
    assert (entry.action, entry.session_id, entry.asset_id) == ("view_record", session.public_id, None)


def test_a_free_text_reason_is_kept_apart_and_encrypted() -> None:
    entry = record_access(AUDITOR, Action.REVEAL, reason=Reason("complaint", TEXT))
    entry.refresh_from_db()
    reason = AccessReason.objects.get(public_id=entry.public_id)
    assert (entry.reason_code, reason.text) == ("complaint", TEXT)
    assert entry.reason_digest == reason_digest(reason.salt, TEXT)
    with connection.cursor() as cursor:
        cursor.execute("SELECT text FROM faceprint_accessreason")
        assert TEXT.encode() not in bytes(str(cursor.fetchall()), "utf-8")


def test_a_reason_without_a_text_is_its_code_alone() -> None:
    entry = record_access(AUDITOR, Action.REVEAL, reason=Reason("audit"))
    assert (entry.reason_code, entry.reason_digest) == ("audit", "")
    assert not AccessReason.objects.exists()


def test_erasing_the_text_leaves_the_entry_as_it_was() -> None:
    entry = record_access(AUDITOR, Action.REVEAL, reason=Reason("other", TEXT))
    AccessReason.objects.all().delete()
    assert AccessLog.objects.get().reason_digest == entry.reason_digest


def test_an_earlier_reason_counts_for_the_same_user_and_session_only() -> None:
    session, other = make_session(), make_session()
    reason = Reason("complaint", TEXT)
    entry = record_access(AUDITOR, Action.REVEAL, session_id=session.public_id, reason=reason)
    assert earlier_reason(AUDITOR, entry.public_id, session) == reason
    assert earlier_reason(AUDITOR, entry.public_id, other) is None
    assert earlier_reason(Actor("another", "admin", "8"), entry.public_id, session) is None
    AccessReason.objects.all().delete()
    assert earlier_reason(AUDITOR, entry.public_id, session) is None
