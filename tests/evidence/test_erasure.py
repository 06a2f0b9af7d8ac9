"""A person asks to be forgotten: all goes at once, in storage too, and what remains says nothing of them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.storage import FileSystemStorage
from django.db import connection

from django_faceprint.audit.access import Actor, Reason, record_access
from django_faceprint.base.lease import LeaseLost
from django_faceprint.client import Identity
from django_faceprint.clock import now
from django_faceprint.engine import queue
from django_faceprint.evidence.erasure import certificate, erase, preview, sessions_of_person
from django_faceprint.evidence.files import INTENT_LIFE
from django_faceprint.exceptions import InvalidInput
from django_faceprint.maintenance import retention
from django_faceprint.models import AccessLog, AccessReason, Erasure, MediaAsset, UploadIntent, UpstreamAnswer
from django_faceprint.models import VerificationSession as Session
from django_faceprint.records import statistics
from tests.factories import NAME, NUMBER, make_passed_session, make_session, make_stored_asset
from tests.scenario import Scenario, store_in, stored_files

ACTOR = Actor("auditor", "command", id="7", address="10.0.0.1")
OTHER = "110105194912310010"


class Hoarder(FileSystemStorage):
    """Says that it deletes, and does not until ``obeys``."""

    obeys = False

    def delete(self, name: str) -> None:
        if self.obeys:
            super().delete(name)


@pytest.fixture
def hoarder(settings: Any, tmp_path: Any) -> type[Hoarder]:
    Hoarder.obeys = False
    store_in(settings, tmp_path, Hoarder)
    return Hoarder


def everything_stored(session: Session) -> str:
    """The rows of a session as the database has them."""
    tables = ("verificationsession", "mediaasset", "upstreamanswer", "accesslog", "erasure", "uploadintent")
    texts = []
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"SELECT * FROM faceprint_{table}")  # noqa: S608  (our own names)
            texts += [str(row) for row in cursor.fetchall()]
    return "\n".join(texts)


def test_all_data_of_one_person_is_erased_and_nothing_else(
    scenario: Scenario, clock: Any, assert_archived: Any, hoarder: type[Hoarder]
) -> None:
    hoarder.obeys = True
    mine, others = scenario.start("25001"), scenario.start("25001")
    for session in (mine, others):
        scenario.finish(session)
        scenario.back(session)
    Session.objects.filter(pk=others.pk).update(number_index="x:y")
    before = preview(sessions_of_person(f" {NUMBER.lower()} "))
    files = mine.assets.stored().count()
    assert (before.sessions, before.files) == (1, files)
    assert before.bytes > 0
    assert before.answers == UpstreamAnswer.objects.filter(session=mine).count() > 0

    erasure = erase(sessions_of_person(NUMBER), reason="withdrew consent", actor=ACTOR)

    fresh = scenario.fresh(mine)
    assert (fresh.verdict, fresh.archive_state, fresh.reference) == ("passed", "complete", mine.reference)
    assert fresh.erased_at == clock()
    assert fresh.verify_token is fresh.identity_name is fresh.identity_number is fresh.confirmed is None
    assert set(fresh.assets.exclude(state="not_provided").values_list("state", "reason")) == {
        ("erased", "erased")
    }
    assert not UpstreamAnswer.objects.filter(session=mine).exists()
    assert (erasure.files, erasure.bytes, erasure.answers) == (before.files, before.bytes, before.answers)
    assert erasure.verified_at == clock()
    assert not sessions_of_person(NUMBER).exists()
    assert_archived(scenario.fresh(others))
    assert len(stored_files()) == others.assets.stored().count()
    look = AccessLog.objects.get(action="erase")
    assert (look.actor_name, look.actor_id, look.session_id, look.address) == (
        "auditor",
        "7",
        mine.public_id,
        "10.0.0.1",
    )
    shown = certificate(Erasure.objects.get())
    assert shown["reason"] == "withdrew consent"
    assert shown["sessions"] == [str(mine.public_id)]
    assert NUMBER not in json.dumps(shown)
    assert "withdrew" not in everything_stored(mine)
    # Nothing is asked about it any more.
    clock.advance(hours=30)
    assert scenario.work().sessions == 0
    assert statistics.lost_since(None) == 0


@pytest.mark.django_db
class TestRows:
    @pytest.fixture(autouse=True)
    def frozen(self, clock: Any) -> None:
        """Time stands still."""

    def test_polling_ends_and_nothing_counts_as_lost(self, clock: Any) -> None:
        session = make_session(wake_at=now(), returned_at=now())
        lease = queue.claim(now() + timedelta(seconds=1))
        assert lease == []
        queue.promote(now())
        (lease,) = queue.claim(now())
        erase(Session.objects.all(), reason="r", actor=ACTOR)
        with pytest.raises(LeaseLost):
            lease.update(verdict="passed")
        session.refresh_from_db()
        assert (session.verdict, session.archive_state, session.has_outstanding_work) == (
            "unknown",
            "not_applicable",
            False,
        )
        clock.advance(days=9)
        assert statistics.lost_since(None) == 0
        assert statistics.at_risk(timedelta(days=1)) == 0

    def test_an_erasure_is_not_verified_while_storage_keeps_a_file(
        self, hoarder: type[Hoarder], clock: Any
    ) -> None:
        make_stored_asset(make_passed_session(), MediaAsset.Kind.FACE)
        erasure = erase(sessions_of_person(NUMBER), reason="r", actor=ACTOR)
        assert erasure.verified_at is None
        assert not MediaAsset.objects.exclude(wrapped_key=None).exists(), "nobody can read it any more"
        clock.advance(INTENT_LIFE + timedelta(minutes=1))
        retention.retain()
        assert Erasure.objects.get().verified_at is None
        hoarder.obeys = True
        clock.advance(INTENT_LIFE + timedelta(minutes=1))
        retention.retain()
        assert Erasure.objects.get().verified_at == now()
        assert stored_files() == []
        assert not UploadIntent.objects.exists()

    def test_a_reason_is_needed(self) -> None:
        make_session()
        for reason, code in (("", "required"), ("  ", "required"), ("x" * 501, "too_long")):
            with pytest.raises(InvalidInput) as refused:
                erase(sessions_of_person(NUMBER), reason=reason, actor=ACTOR)
            assert (refused.value.field, refused.value.code) == ("reason", code)
        assert not Erasure.objects.exists()

    def test_it_is_all_or_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        session = make_session()

        def fail(*args: Any, **more: Any) -> None:
            raise RuntimeError

        monkeypatch.setattr(AccessLog.objects, "bulk_create", fail)
        with pytest.raises(RuntimeError):
            erase(sessions_of_person(NUMBER), reason="r", actor=ACTOR)
        session.refresh_from_db()
        assert session.identity_name == NAME
        assert not Erasure.objects.exists()

    @pytest.mark.parametrize("number", ["", " ", "370***********5826", OTHER])
    def test_an_empty_or_masked_number_finds_nobody(self, number: str) -> None:
        make_session()
        make_session(identity_name=None, identity_number=None)
        assert not sessions_of_person(number).exists()

    def test_a_number_is_found_however_it_is_written(self) -> None:
        session = make_session()
        for number in (NUMBER, NUMBER.lower(), f" {NUMBER[:6]} {NUMBER[6:]} ", "１" + NUMBER[1:]):
            assert [found.pk for found in sessions_of_person(number)] == [session.pk]
        assert Identity.checked(NAME, NUMBER).number == NUMBER


@pytest.mark.django_db(transaction=True)
def test_free_text_reasons_are_erased_and_their_entries_stay() -> None:
    session, other = make_passed_session(), make_passed_session()
    for viewed in (session, other):
        record_access(
            Actor("operator", "admin", "1"),
            AccessLog.Action.REVEAL,
            session_id=viewed.public_id,
            reason=Reason("complaint", "张三丰 called"),
        )
    erase(Session.objects.filter(pk=session.pk), reason="asked for it", actor=Actor("auditor", "test"))
    entry = AccessLog.objects.get(session_id=session.public_id, action="reveal")
    assert entry.reason_digest
    assert not AccessReason.objects.filter(public_id=entry.public_id).exists()
    assert AccessReason.objects.count() == 1
