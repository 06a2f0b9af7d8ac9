"""Consent: what is demanded, children, and what follows when it is taken back."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.conf import settings as project
from django.core.files.storage import FileSystemStorage

from django_faceprint.audit.access import Actor
from django_faceprint.client import Identity
from django_faceprint.clock import now
from django_faceprint.exceptions import InvalidInput
from django_faceprint.models import (
    AccessLog,
    ConsentRecord,
    MediaAsset,
    UploadIntent,
    UpstreamAnswer,
    VerificationSession,
)
from django_faceprint.models.append_only import KEPT_AT_LEAST
from django_faceprint.verification import (
    Consent,
    StartRequest,
    consent,
    ensure_token,
    record_return,
    register_session,
    start_session,
    submit_identity,
    withdraw,
)
from django_faceprint.verification.consent import needs_guardian, of_session
from django_faceprint.verification.state import refuse_erased
from tests.scenario import Scenario, store_in

ACTOR = Actor("officer", "test", "7")
FULL = Consent(
    "contract 4711",
    notice_version="3",
    given_at=datetime(2026, 3, 2, 7, 0, tzinfo=UTC),
    channel="app",
    separate=True,
    names_recipient=True,
    alternative_offered=True,
)
ADULT = Identity("张三", "11010519491231002X", 0)
#: A child's number that is valid: born on 2 March 2014.
CHILD = "11010520140302001X"


class WaitingStorage(FileSystemStorage):
    """A storage that waits for the withdrawal before it writes a file."""

    saving: ClassVar[threading.Event]
    withdrawn: ClassVar[threading.Event]

    def save(self, *args: Any, **more: Any) -> str:
        self.saving.set()
        assert self.withdrawn.wait(20)
        return str(super().save(*args, **more))


@pytest.fixture
def required(settings: Any) -> Any:
    settings.FACEPRINT = settings.FACEPRINT | {"REQUIRE_CONSENT": True}
    return settings


def request(**more: Any) -> StartRequest:
    return StartRequest(**{"plan_id": "25001", "purpose": "account opening"} | more)


# --- what is demanded ---------------------------------------------------------------------------


def test_the_consent_record_is_separate_from_the_session(scenario: Scenario, required: Any) -> None:
    session = start_session(request(consent=FULL))
    found = of_session(session)
    assert found is not None
    assert (found.reference, found.notice_version, found.channel) == ("contract 4711", "3", "app")
    assert (found.purpose, found.given_at) == ("account opening", FULL.given_at)
    assert found.is_separate
    assert found.names_recipient
    assert found.alternative_offered
    assert "4711" not in repr(FULL)


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"reference": ""}, "consent.reference", "required"),
        ({"notice_version": ""}, "consent.notice_version", "required"),
        ({"given_at": None}, "consent.given_at", "required"),
        ({"channel": ""}, "consent.channel", "required"),
        ({"separate": False}, "consent.separate", "must_be_true"),
        ({"names_recipient": False}, "consent.names_recipient", "must_be_true"),
        ({"alternative_offered": False}, "consent.alternative_offered", "must_be_true"),
        ({"given_at": datetime(2026, 3, 2, 7, 0)}, "consent.given_at", "naive"),  # noqa: DTZ001
        ({"given_at": datetime(2026, 3, 2, 8, 6, tzinfo=UTC)}, "consent.given_at", "future"),
        ({"reference": "x" * 501}, "consent.reference", "too_long"),
        ({"channel": "call 13800138000"}, "consent.channel", "looks_personal"),
    ],
)
def test_missing_evidence_is_named_and_nothing_is_sent(
    scenario: Scenario, required: Any, changes: dict[str, Any], field: str, code: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        start_session(request(consent=replace(FULL, **changes)))
    assert (caught.value.field, caught.value.code) == (field, code)
    assert not VerificationSession.objects.exists()
    assert scenario.control("GET", "ledger")["sessions"] == []


@pytest.mark.parametrize(("more", "field"), [({}, "consent"), ({"consent": FULL, "purpose": ""}, "purpose")])
def test_without_consent_or_purpose_nothing_starts(
    scenario: Scenario, required: Any, more: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        start_session(request(**more))
    assert (caught.value.field, caught.value.code) == (field, "required")


def test_no_token_is_obtained_for_a_session_older_than_the_rule(scenario: Scenario, settings: Any) -> None:
    session = register_session(request())
    settings.FACEPRINT = settings.FACEPRINT | {"REQUIRE_CONSENT": True}
    with pytest.raises(InvalidInput) as caught:
        ensure_token(session)
    assert caught.value.field == "consent"
    consent.record(session, FULL)
    ensure_token(session)
    assert scenario.fresh(session).verify_token


def test_a_repeated_start_needs_the_same_consent(scenario: Scenario, required: Any) -> None:
    first = start_session(request(consent=FULL, idempotency_key="k"))
    assert start_session(request(consent=FULL, idempotency_key="k")).pk == first.pk
    with pytest.raises(InvalidInput):
        start_session(request(consent=replace(FULL, channel="web"), idempotency_key="k"))
    assert ConsentRecord.objects.count() == 1


# --- children -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "certificate", "today", "needed"),
    [
        # Complete on the day after the birthday, by the day in China.
        ("11010520120302001X", 0, "2026-03-01T15:59:59", True),
        ("11010520120302001X", 0, "2026-03-02T15:59:59", True),
        ("11010520120302001X", 0, "2026-03-02T16:00:00", False),
        # Born on 29 February; fourteen years later there is none.
        ("110105201202290013", 0, "2026-03-01T15:59:59", True),
        ("110105201202290013", 0, "2026-03-01T16:00:00", False),
        ("110105491231002", 0, "2026-03-02T08:00:00", False),
        (CHILD, 1, "2026-03-02T08:00:00", False),
        ("H1234567800", 1, "2026-03-02T08:00:00", False),
        ("11010520149902001X", 0, "2026-03-02T08:00:00", False),
        ("", 0, "2026-03-02T08:00:00", False),
        (None, None, "2026-03-02T08:00:00", False),
    ],
)
def test_who_is_a_child(clock: Any, number: Any, certificate: Any, today: str, needed: bool) -> None:
    clock.set(datetime.fromisoformat(today).replace(tzinfo=UTC))
    assert needs_guardian(number, certificate) is needed


def test_a_child_needs_a_guardian_before_anything_is_sent(scenario: Scenario, required: Any) -> None:
    child = Identity("张小三", CHILD, 0)
    with pytest.raises(InvalidInput) as caught:
        start_session(request(consent=FULL, identity=child))
    assert (caught.value.field, caught.value.code) == ("consent.guardian_reference", "guardian")
    assert scenario.control("GET", "ledger")["sessions"] == []
    later = start_session(request(consent=FULL))
    with pytest.raises(InvalidInput) as caught:
        submit_identity(later, child)
    assert caught.value.code == "guardian"
    assert scenario.fresh(later).identity_number is None


def test_with_a_guardian_the_session_continues(scenario: Scenario, required: Any) -> None:
    guarded = replace(FULL, guardian_reference="mother's form 12")
    session = start_session(request(consent=guarded))
    given = of_session(session)
    assert given is not None
    assert given.guardian_reference == "mother's form 12"
    consent.require_guardian(CHILD, 0, given.guardian_reference)


def test_without_required_consent_children_are_accepted(settings: Any) -> None:
    consent.require_guardian(CHILD, 0, None)


# --- withdrawal ---------------------------------------------------------------------------------


def test_a_withdrawal_erases_everything_and_stops_collecting(
    scenario: Scenario, required: Any, clock: Any
) -> None:
    session = start_session(request(consent=FULL, identity=ADULT))
    scenario.finish(session)
    session = scenario.back(session)
    assert session.assets.stored().exists()
    done = withdraw(session, reason="by phone", actor=ACTOR)
    assert done.verified_at is not None
    session = scenario.fresh(session)
    assert session.erased_at is not None
    assert session.verify_token is None
    assert session.known_number is None
    assert not session.has_outstanding_work
    assert not session.assets.stored().exists()
    assert not UpstreamAnswer.objects.exists()
    found = of_session(session)
    assert found is not None
    assert (found.withdrawn_at, found.withdrawn_by, found.reference) == (now(), "officer", "contract 4711")
    assert list(AccessLog.objects.order_by("pk").values_list("action", flat=True)) == ["withdraw", "erase"]
    clock.advance(hours=1)
    scenario.work()
    assert not session.assets.stored().exists()
    for attempt in (
        lambda: submit_identity(session, ADULT),
        lambda: ensure_token(session),
        lambda: refuse_erased(session),
    ):
        with pytest.raises(InvalidInput) as caught:
            attempt()
        assert caught.value.code == "erased"


def test_a_download_that_is_under_way_writes_nothing_after_a_withdrawal(
    scenario: Scenario, settings: Any, tmp_path: Path
) -> None:
    session = start_session(request(consent=FULL, identity=ADULT))
    scenario.finish(session)
    record_return(session)
    saving, withdrawn = threading.Event(), threading.Event()
    WaitingStorage.saving, WaitingStorage.withdrawn = saving, withdrawn
    store_in(settings, tmp_path, WaitingStorage)

    def officer() -> None:
        from django.db import connection

        assert saving.wait(20)
        withdraw(VerificationSession.objects.get(pk=session.pk), reason="by phone", actor=ACTOR)
        withdrawn.set()
        connection.close()

    thread = threading.Thread(target=officer)
    thread.start()
    scenario.work()
    thread.join()
    assert not MediaAsset.objects.stored().exists()
    assert not MediaAsset.objects.exclude(wrapped_key=None).exists()
    assert UploadIntent.objects.count() == 0 or not _committed()
    assert scenario.fresh(session).verify_token is None


def _committed() -> list[str]:
    """Files that a row refers to."""
    assert project.STORAGES["faceprint"]
    return list(MediaAsset.objects.exclude(stored_name="").values_list("stored_name", flat=True))


def test_a_withdrawal_may_be_repeated_and_keeps_its_first_time(scenario: Scenario, clock: Any) -> None:
    session = start_session(request(consent=FULL))
    withdraw(session, reason="by phone", actor=ACTOR)
    first = now()
    clock.advance(days=1)
    withdraw(session, reason="by letter", actor=Actor("another", "test"))
    found = of_session(session)
    assert found is not None
    assert (found.withdrawn_at, found.withdrawn_by) == (first, "officer")


def test_a_withdrawal_without_a_recorded_consent_is_recorded_too(scenario: Scenario) -> None:
    session = start_session(request())
    withdraw(session, reason="by phone", actor=ACTOR)
    found = of_session(session)
    assert found is not None
    assert found.withdrawn_at == now()
    assert found.reference is None


# --- how long -----------------------------------------------------------------------------------


def test_consent_outlives_the_evidence_and_goes_after_its_own_time(scenario: Scenario, clock: Any) -> None:
    session = start_session(request(consent=FULL))
    clock.advance(days=KEPT_AT_LEAST.days)
    assert consent.prune() == 0
    clock.advance(seconds=1)
    assert consent.prune() == 1
    assert of_session(session) is None


def test_a_shorter_setting_does_not_delete_earlier(scenario: Scenario, clock: Any, settings: Any) -> None:
    settings.FACEPRINT = settings.FACEPRINT | {"LOG_RETENTION": timedelta(days=1)}
    start_session(request(consent=FULL))
    clock.advance(days=1_000)
    assert consent.prune() == 0
