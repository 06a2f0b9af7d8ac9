"""What must go, goes: files nobody refers to, old call records, evidence past its time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.files.base import ContentFile

from django_faceprint.base.lease import Lease, LeaseLost
from django_faceprint.clock import now
from django_faceprint.evidence import files
from django_faceprint.evidence.answers import make_answer
from django_faceprint.evidence.files import INTENT_LIFE
from django_faceprint.maintenance import retention
from django_faceprint.maintenance.retention import CALLS_KEPT, RetentionReport, retain
from django_faceprint.models import (
    MediaAsset,
    UploadIntent,
    UpstreamAnswer,
    UpstreamCall,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.records import statistics
from tests.factories import (
    NAME,
    NUMBER,
    image_bytes,
    make_asset,
    make_call,
    make_passed_session,
    make_session,
    make_stored_asset,
)
from tests.scenario import FailingStorage, store_in, stored_files

pytestmark = pytest.mark.django_db

Kind = MediaAsset.Kind
State = MediaAsset.State


class SleepyStorage(FailingStorage):
    """A storage whose worker sleeps after writing a file, until retention takes the upload for abandoned."""

    clock: ClassVar[Any]

    def save(self, *args: Any, **more: Any) -> str:
        name = str(super().save(*args, **more))
        self.clock.advance(INTENT_LIFE * 2)
        retain()
        return name


def leave_upload(asset: MediaAsset, name: str) -> UploadIntent:
    """What a worker leaves that died between upload and commit."""
    intent = UploadIntent.objects.create(name=name, session=asset.session)
    files.storage().save(name, ContentFile(b"ciphertext"))
    return intent


class TestUncommittedUploads:
    def test_are_removed_after_their_life_and_not_before(self, failing: Any, clock: Any) -> None:
        leave_upload(make_asset(make_session(), Kind.FACE), "ab/cd/abcd")
        clock.advance(INTENT_LIFE)
        assert retain() == RetentionReport()
        assert stored_files() == ["ab/cd/abcd"]
        clock.advance(microseconds=1)
        assert retain() == RetentionReport(uncommitted_files=1)
        assert stored_files() == []
        assert not UploadIntent.objects.exists()
        assert retain() == RetentionReport()

    def test_one_whose_file_was_never_written_is_no_failure(self, failing: Any, clock: Any) -> None:
        UploadIntent.objects.create(name="ab/cd/never", session=make_session())
        clock.advance(INTENT_LIFE * 2)
        assert retain() == RetentionReport(uncommitted_files=1)

    def test_a_failing_storage_is_asked_again_later(self, failing: Any, clock: Any) -> None:
        leave_upload(make_asset(make_session(), Kind.FACE), "ab/cd/abcd")
        clock.advance(INTENT_LIFE * 2)
        failing.broken = True
        assert retain() == RetentionReport(failures=1)
        assert stored_files() == ["ab/cd/abcd"]
        failing.broken = False
        assert retain() == RetentionReport(), "not at once: a broken storage is left alone for a while"
        clock.advance(INTENT_LIFE * 2)
        assert retain() == RetentionReport(uncommitted_files=1)
        assert stored_files() == []

    def test_a_storage_that_is_down_is_not_asked_hundreds_of_times(self, failing: Any, clock: Any) -> None:
        session = make_session()
        for number in range(15):
            UploadIntent.objects.create(name=f"n/{number}", session=session)
        clock.advance(INTENT_LIFE * 2)
        failing.broken = True
        assert retain().failures == retention.STORAGE_FAILURES_PER_RUN == len(failing.asked)
        failing.broken = False
        assert retain().uncommitted_files == 5, "those that failed do not stand in the way"

    def test_an_upload_that_is_taken_over_can_no_longer_be_committed(
        self, settings: Any, tmp_path: Path, clock: Any
    ) -> None:
        """A worker that slept over its upload must not refer to a file that retention deleted."""
        session = make_session()
        asset = make_asset(session, Kind.FACE)
        lease = Lease(session.pk, session.lease_epoch)
        SleepyStorage.clock, SleepyStorage.broken = clock, False
        store_in(settings, tmp_path, SleepyStorage)
        with pytest.raises(LeaseLost):
            files.write_and_commit(lease, asset, [image_bytes()])
        asset.refresh_from_db()
        assert (asset.state, asset.stored_name, asset.wrapped_key) == (State.WANTED, "", None)
        assert stored_files() == []

    def test_nor_can_an_upload_whose_file_could_not_be_deleted(
        self, settings: Any, tmp_path: Path, clock: Any
    ) -> None:
        session = make_session()
        asset = make_asset(session, Kind.FACE)
        SleepyStorage.clock, SleepyStorage.broken = clock, True
        store_in(settings, tmp_path, SleepyStorage)
        with pytest.raises(LeaseLost):
            files.write_and_commit(Lease(session.pk, session.lease_epoch), asset, [image_bytes()])
        asset.refresh_from_db()
        assert asset.state == State.WANTED


class TestCalls:
    def test_old_records_of_calls_go(self, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retention, "BATCH", 2)
        for _ in range(5):
            make_call()
        clock.advance(CALLS_KEPT)
        recent = make_call()
        assert retain().calls == 0
        clock.advance(seconds=1)
        assert retain().calls == 5
        assert list(UpstreamCall.objects.all()) == [recent]

    def test_a_run_is_bounded(self, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retention, "BATCH", 2)
        monkeypatch.setattr(retention, "CALLS_PER_RUN", 4)
        for _ in range(6):
            make_call()
        clock.advance(CALLS_KEPT * 2)
        assert [retain().calls, retain().calls] == [4, 2]


class TestPurge:
    @pytest.fixture
    def session(self, failing: Any, admin_user: Any) -> VerificationSession:
        session = make_passed_session(
            reference="order-4711",
            created_by=admin_user,
            idempotency_key="once",
            request_digest="01234567:abcd",
            ocr={"name": NAME},
            confirmed={"name": NAME, "number": NUMBER},
            return_url="https://shop.example.com/done",
            retain_until=now() + timedelta(days=180),
        )
        make_stored_asset(session, Kind.FACE)
        make_stored_asset(session, Kind.PROCESS_VIDEO)
        make_asset(session, Kind.FRAME)
        make_asset(session, Kind.VIDEO, state=State.LOST)
        make_asset(session, Kind.ID_BACK, state=State.NOT_PROVIDED, reason="upstream_gave_none")
        VerificationAttempt.objects.create(session=session, order=1, passed=True, code="0", score=84.4)
        make_answer(session, "result_detail", b'{"success": true}').save()
        return session

    def test_removes_files_keys_identity_and_answers_and_keeps_the_skeleton(
        self, session: VerificationSession, clock: Any
    ) -> None:
        assert len(stored_files()) == 2
        clock.set(session.retain_until)
        assert retain() == RetentionReport()
        assert len(stored_files()) == 2

        clock.advance(microseconds=1)
        assert retain() == RetentionReport(sessions=1, files=2)
        assert stored_files() == []
        purged = VerificationSession.objects.get()
        empty = [
            *("verify_token", "verify_token_index", "identity_name", "identity_number", "ocr", "confirmed"),
            *("subject", "return_url", "idempotency_key", "retain_until", "wake_at", "priority_at"),
        ]
        assert {name: getattr(purged, name) for name in empty} == dict.fromkeys(empty)
        assert (purged.name_index, purged.number_index, purged.request_digest) == ("", "", "")
        assert purged.known_name is None
        assert not UpstreamAnswer.objects.exists()
        assert not UploadIntent.objects.exists()

        assert (purged.public_id, purged.reference, purged.verdict) == (
            session.public_id,
            "order-4711",
            "passed",
        )
        assert (purged.score, purged.created_at, purged.plan_id) == (
            84.4,
            session.created_at,
            session.plan_id,
        )
        assert purged.attempts.get().score == 84.4
        states = dict(purged.assets.values_list("kind", "state"))
        assert states == {
            Kind.FACE: State.ERASED,
            Kind.PROCESS_VIDEO: State.ERASED,
            Kind.FRAME: State.ERASED,
            Kind.VIDEO: State.LOST,
            Kind.ID_BACK: State.NOT_PROVIDED,
        }
        for asset in purged.assets.filter(state=State.ERASED):
            assert (asset.wrapped_key, asset.stored_name, asset.sha256, asset.reason) == (
                None,
                "",
                "",
                "retention",
            )
        assert retain() == RetentionReport()

    def test_a_worker_that_holds_the_session_writes_nothing_any_more(
        self, session: VerificationSession, clock: Any
    ) -> None:
        lease = Lease(session.pk, session.lease_epoch)
        clock.advance(days=181)
        retain()
        with pytest.raises(LeaseLost):
            lease.update(identity_name=None)

    def test_files_that_cannot_be_deleted_are_noise_at_once_and_go_later(
        self, session: VerificationSession, failing: Any, clock: Any
    ) -> None:
        clock.advance(days=181)
        failing.broken = True
        report = retain()
        assert (report.sessions, report.files, report.failures) == (1, 2, 2)
        assert len(stored_files()) == 2
        assert not MediaAsset.objects.exclude(wrapped_key=None).exists()
        assert VerificationSession.objects.get().identity_name is None

        failing.broken = False
        clock.advance(INTENT_LIFE + timedelta(seconds=1))
        assert retain() == RetentionReport(uncommitted_files=2)
        assert stored_files() == []

    def test_a_session_that_was_given_more_time_meanwhile_stays(
        self, session: VerificationSession, clock: Any
    ) -> None:
        clock.advance(days=181)
        VerificationSession.objects.update(retain_until=now() + timedelta(days=30))
        retention._purge(session.pk, RetentionReport())
        assert VerificationSession.objects.get().identity_name == NAME

    def test_without_a_limit_nothing_is_deleted(self, failing: Any, clock: Any) -> None:
        make_stored_asset(make_passed_session(retain_until=None), Kind.FACE)
        clock.advance(days=36_500)
        assert retain().sessions == 0
        assert len(stored_files()) == 1


def test_stamps_its_heartbeat(clock: Any) -> None:
    retain()
    assert statistics.last_heartbeat("retain") == now()


def test_an_idempotency_key_is_free_again_after_the_purge(scenario: Any, clock: Any) -> None:
    first = scenario.start(idempotency_key="once")
    VerificationSession.objects.update(retain_until=now())
    clock.advance(days=1)
    retain()
    second = scenario.start(idempotency_key="once")
    assert second.pk != first.pk
