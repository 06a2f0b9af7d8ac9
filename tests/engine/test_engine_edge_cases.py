"""What goes wrong between the steps: late recordings, refusals, races, slow downloads, mistakes of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.files.storage import FileSystemStorage
from django.db import IntegrityError, transaction
from django.dispatch import Signal
from django.test import RequestFactory

from django_faceprint import signals
from django_faceprint.actors import actor_of
from django_faceprint.audit.access import record_access
from django_faceprint.base import lease as leases
from django_faceprint.client import Identity, MatchImage, MediaResult
from django_faceprint.engine import polling, queue, refresh, results, runner
from django_faceprint.evidence import files
from django_faceprint.exceptions import InvalidInput, Unreachable
from django_faceprint.models import AccessLog, MediaAsset, VerificationSession
from django_faceprint.records import lookup
from django_faceprint.verification import (
    StartRequest,
    ensure_token,
    record_return,
    start_session,
    submit_identity,
    upload_match_image,
)
from tests.factories import NUMBER, image_bytes, make_session
from tests.scenario import Scenario, store_in

State = MediaAsset.State
Archived = Callable[[VerificationSession], None]


@contextmanager
def heard(signal: Signal, receive: Callable[[VerificationSession], None]) -> Iterator[None]:
    """Call *receive* with the session of every *signal* inside the block."""

    def receiver(**what: Any) -> None:
        receive(what["session"])

    signal.connect(receiver, weak=False, dispatch_uid="mishaps")
    try:
        yield
    finally:
        signal.disconnect(dispatch_uid="mishaps")


class NotifyingStorage(FileSystemStorage):
    """A storage that tells of every file that was written."""

    tell: ClassVar[Callable[[], object]] = lambda: None

    def _save(self, name: str, content: Any) -> str:
        written = str(super()._save(name, content))
        type(self).tell()
        return written


@contextmanager
def storing(settings: Any, folder: Path, tell: Callable[[], object]) -> Iterator[None]:
    """Call *tell* after every file that is written inside the block."""
    NotifyingStorage.tell = staticmethod(tell)
    store_in(settings, folder, NotifyingStorage)
    try:
        yield
    finally:
        NotifyingStorage.tell = staticmethod(lambda: None)


def later(
    scenario: Scenario, clock: Any, session: VerificationSession, times: int = 1
) -> VerificationSession:
    """Let *times* retries come round."""
    for _ in range(times):
        clock.advance(minutes=1)
        scenario.work()
    return scenario.fresh(session)


# --- what upstream says -------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["result_getall", "result_media_query", "result_stat"])
def test_trouble_with_the_evidence_does_not_replace_why_the_person_failed(
    scenario: Scenario, clock: Any, endpoint: str
) -> None:
    session = scenario.start("25001")
    scenario.finish(session, "fail", code="223120")
    scenario.fault(endpoint, "gateway", code=18, count=1)
    session = scenario.back(session)
    assert session.has_outstanding_work
    assert (session.error_class, session.error_code) == ("verification_failed", "223120")
    session = later(scenario, clock, session)
    assert not session.has_outstanding_work
    assert (session.error_class, session.error_code) == ("verification_failed", "223120")


def without_video(scenario: Scenario) -> None:
    """Baidu names the pictures and not yet the video."""
    scenario.fault("result_media_query", "patch_result", fields={"processVideo": None})


def test_a_video_that_is_named_later_than_the_pictures_is_waited_for(
    scenario: Scenario, clock: Any, assert_archived: Archived
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    without_video(scenario)
    session = scenario.back(session)
    assert session.assets.stored().filter(kind="frame").count() == 4
    assert session.assets.get(kind="process_video").state == State.WANTED
    session = later(scenario, clock, session, times=2)
    scenario.heal()
    session = later(scenario, clock, session, times=1)
    assert session.archive_state == "complete"
    assert_archived(session)


def test_a_video_that_is_never_named_was_not_provided(scenario: Scenario, clock: Any) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    without_video(scenario)
    session = scenario.back(session)
    clock.advance(results.RECORDING_LAG)
    scenario.work()
    session = scenario.fresh(session)
    video = session.assets.get(kind="process_video")
    assert (video.state, video.reason) == (State.NOT_PROVIDED, "upstream_gave_none")
    assert session.archive_state == "complete"


def test_urls_that_differ_in_more_than_their_signature_are_two_files() -> None:
    root = "https://bj.bcebos.com/v1/example/media"
    given = results.given_media(
        MediaResult(
            process_videos=(f"{root}.mp4?authorization=one",),
            videos=(f"{root}.mp4?authorization=two",),
            images=(f"{root}?file=0&authorization=one", f"{root}?file=1&authorization=two"),
        )
    )
    assert sorted(given) == [("frame", 0), ("frame", 1), ("process_video", 0)]


def test_a_reason_in_upstreams_words_carries_no_address_and_no_number(scenario: Scenario) -> None:
    session = scenario.start("25001")
    scenario.script(session, ext_info=f"video of {NUMBER} at https://bj.bcebos.com/v1/secret failed")
    scenario.finish(session)
    session = scenario.back(session)
    video = session.assets.get(kind="process_video")
    assert (video.reason, video.ext_info) == ("upstream_explained", "video of *** at *** failed")


def test_attempts_are_asked_for_again_before_they_are_given_up(
    scenario: Scenario, clock: Any, assert_archived: Archived
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault("result_getall", "service", code=987654, count=2)
    session = scenario.back(session)
    assert (session.verdict, session.attempts.count()) == ("passed", 0)
    session = later(scenario, clock, session, times=2)
    assert session.archive_state == "complete"
    assert session.attempts.count() == 1
    assert_archived(session)


def test_a_session_ends_without_an_interface_that_baidu_does_not_offer(
    scenario: Scenario, clock: Any
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault("result_getall", "gateway", code=3)
    session = scenario.back(session)
    session = later(scenario, clock, session, times=8)
    assert (session.archive_state, session.error_class) == ("complete", "")


@pytest.mark.parametrize(
    "answer",
    [{"code": 987654, "message": "新的错误"}, {"code": 900001, "message": "Token无效或者已过期"}],
    ids=["unpublished", "gone"],
)
def test_the_film_of_a_failure_is_not_given_up_for_one_answer_that_explains_nothing(
    scenario: Scenario, clock: Any, assert_archived: Archived, answer: dict[str, Any]
) -> None:
    session = scenario.start("25001")
    scenario.finish(session, "fail", code="223120")
    scenario.fault("result_media_query", "service", count=1, **answer)
    session = scenario.back(session)
    assert session.has_outstanding_work
    session = later(scenario, clock, session)
    assert (session.archive_state, session.assets.stored().filter(kind="process_video").count()) == (
        "complete",
        1,
    )
    assert_archived(session)


def test_what_baidu_never_named_is_a_loss_like_any_other(
    scenario: Scenario, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever passed has tried: where result/getall was down until the end, the face of that is gone."""
    passed, failed = scenario.start("25001"), scenario.start("25001")
    scenario.finish(passed)
    scenario.finish(failed, "fail", code="223120")
    scenario.fault("result_getall", "http_500")
    scenario.fault("result_media_query", "http_500", match={"verify_token": failed.verify_token})
    scenario.back(passed)
    scenario.back(failed)
    clock.set(passed.results_give_up_at - timedelta(minutes=1))
    scenario.work()
    assert scenario.fresh(passed).has_outstanding_work
    clock.advance(minutes=20)
    scenario.work()
    passed, failed = scenario.fresh(passed), scenario.fresh(failed)
    assert (passed.has_outstanding_work, passed.archive_state) == (False, "partial")
    assert (passed.error_class, passed.error_code) == ("retry", "http_error")
    (face,) = passed.assets.filter(state=State.LOST)
    assert (face.kind, face.error_class, face.error_detail) == ("attempt_face", "retry", "http_error")
    assert sorted(failed.assets.filter(state=State.LOST).values_list("kind", flat=True)) == [
        "attempt_face",
        "process_video",
    ]
    assert "was not archived in time" in caplog.text


def test_attempts_without_the_one_that_passed_are_asked_for_again(
    scenario: Scenario, clock: Any, assert_archived: Archived
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault("result_getall", "patch_result", fields={"verify_result": []}, count=1)
    session = scenario.back(session)
    assert (session.archive_state, session.error_code) == ("collecting", "unreadable_result")
    session = later(scenario, clock, session)
    assert_archived(session)


@pytest.mark.parametrize("answer", [{"code": 987654}, {"code": 216100}], ids=["unpublished", "refused"])
def test_recordings_of_a_failure_that_baidu_always_refuses_are_waited_for_by_nobody(
    scenario: Scenario, clock: Any, answer: dict[str, Any]
) -> None:
    session = scenario.start("25001")
    scenario.finish(session, "fail", code="223120")
    scenario.fault("result_media_query", "service", **answer)
    scenario.back(session)
    session = later(scenario, clock, session, times=8)
    assert not session.has_outstanding_work
    assert session.archive_state == "complete"


@pytest.mark.parametrize("code", [3, 6])
def test_a_session_expires_without_an_interface_that_baidu_does_not_grant(
    scenario: Scenario, clock: Any, code: int
) -> None:
    session = scenario.start("25001")
    scenario.fault("result_getall", "gateway", code=code)
    scenario.back(session)
    clock.advance(hours=3)
    scenario.work()
    assert scenario.fresh(session).verdict == "pending"
    session = later(scenario, clock, session, times=8)
    assert (session.verdict, session.archive_state) == ("expired", "not_applicable")


def test_a_loss_says_why_although_no_download_was_begun(scenario: Scenario, clock: Any) -> None:
    """Nobody worked for a day; now result/media/query answers without an error, and names nothing."""
    passed, failed = scenario.start("25001"), scenario.start("25001")
    scenario.finish(passed)
    scenario.finish(failed, "fail", code="223120")
    # The failed session's video is named once, and cannot be had.
    scenario.fault("media", "http_500")
    scenario.back(failed)
    scenario.fault("result_media_query", "gateway", code=18, match={"verify_token": failed.verify_token})
    clock.set(failed.media_give_up_at)
    scenario.work()
    passed, failed = scenario.fresh(passed), scenario.fresh(failed)
    assert passed.assets.get(kind="process_video").state == State.LOST
    assert set(passed.assets.filter(state=State.LOST).values_list("error_class", flat=True)) == {
        "upstream_gave_none"
    }
    assert all(failed.assets.filter(state=State.LOST).values_list("error_class", flat=True))
    assert failed.error_class == "verification_failed"


@pytest.mark.parametrize(
    ("fault", "why"),
    [({"kind": "http_500"}, ("retry", "http_error")), ({"kind": "gateway", "code": 18}, ("slow_down", "18"))],
)
def test_a_loss_says_what_baidu_said_instead_of_naming_the_file(
    scenario: Scenario, clock: Any, fault: dict[str, Any], why: tuple[str, str]
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault("result_media_query", **fault)
    session = scenario.back(session)
    clock.set(session.media_give_up_at)
    scenario.work()
    lost = session.assets.filter(state=State.LOST)
    assert set(lost.values_list("error_class", "error_detail")) == {why}


def test_nothing_is_waited_for_when_the_verdict_was_never_learnt(scenario: Scenario, clock: Any) -> None:
    """The upload of the match image broke off, and nobody came to the page."""
    session = scenario.start("25004")
    session.assets.filter(kind="match_image").update(state=State.WANTED, stored_name="", wrapped_key=None)
    scenario.control("POST", "reset")
    clock.set(session.results_give_up_at)
    scenario.work()
    session = scenario.fresh(session)
    assert (session.verdict, session.has_outstanding_work) == ("unknown", False)
    image = session.assets.get(kind="match_image")
    assert (image.state, image.reason) == (State.NOT_PROVIDED, "upload_cut_off")


def test_collecting_anew_does_not_take_a_sessions_place(scenario: Scenario, clock: Any) -> None:
    """A face that may be gone in two hours stays ahead of recordings that have a day."""
    scenario.fault("simple_image", "http_500", count=1)
    session = scenario.start("25001")
    scenario.finish(session)
    session = scenario.back(session)
    urgent = session.next_deadline
    assert urgent == session.verified_at + timedelta(hours=2)
    clock.advance(minutes=1)
    assert refresh.recollect(session)
    assert scenario.fresh(session).priority_at == urgent


# --- once and not twice -------------------------------------------------------------------------


class RefusingStorage(FileSystemStorage):
    """A storage that refuses the first files."""

    refusals: ClassVar[int] = 0

    def _save(self, name: str, content: Any) -> str:
        if type(self).refusals:
            type(self).refusals -= 1
            raise OSError("full")
        return str(super()._save(name, content))


def test_a_picture_that_two_answers_bring_is_stored_once(
    scenario: Scenario, clock: Any, settings: Any, tmp_path: Path, assert_archived: Archived
) -> None:
    """result/detail brings the card while storage is full, and result/getall only when it is not any more."""
    RefusingStorage.refusals = 2
    store_in(settings, tmp_path, RefusingStorage)
    scenario.fault("result_getall", "http_500", count=1)
    scenario.fault("result_simple", "http_500", count=1)
    scenario.fault("result_media_query", "http_500", count=1)
    session = scenario.start("25003")
    scenario.finish(session)
    session = scenario.back(session)
    assert session.assets.wanted().filter(kind="id_front").exists()
    assert not session.getall_answered_at
    # The card comes with result/getall alone.
    scenario.fault("result_detail", "http_500", count=1)
    clock.advance(minutes=1)
    scenario.work()
    session = scenario.fresh(session)
    assert not session.has_outstanding_work
    assert_archived(session)


def test_what_may_be_recorded_of_a_failure_is_ordered_by_the_life_of_recordings(
    scenario: Scenario, clock: Any
) -> None:
    """The person failed, and upstream has not told yet whether there is a video: it may be gone in a day."""
    scenario.fault("result_media_query", "http_500", count=1)
    session = scenario.start("25001")
    scenario.finish(session, "fail", code="223120")
    session = scenario.back(session)
    assert (session.verdict, session.next_deadline) == ("failed", session.media_deadline)


def test_a_session_that_is_poked_while_it_ends_is_archived_once(
    scenario: Scenario, clock: Any, settings: Any, tmp_path: Path
) -> None:
    archived: list[int] = []
    session = scenario.start("25001")
    scenario.finish(session)
    with (
        heard(signals.session_archived, lambda session: archived.append(session.pk)),
        storing(settings, tmp_path, lambda: queue.request_recheck(session.pk)),
    ):
        first = scenario.back(session)
    assert first.poll_count > 1
    assert archived == [session.pk]
    assert not first.has_outstanding_work


def test_collecting_anew_does_not_announce_the_archive_again(scenario: Scenario, clock: Any) -> None:
    archived: list[int] = []
    session = scenario.start("25001")
    scenario.finish(session)
    with heard(signals.session_archived, lambda session: archived.append(session.pk)):
        session = scenario.back(session)
        clock.advance(minutes=5)
        assert refresh.recollect(session)
        scenario.work()
    assert archived == [session.pk]
    assert scenario.fresh(session).archived_at == session.archived_at


def test_a_token_ends_the_visit_of_a_worker_that_knows_of_none(scenario: Scenario, clock: Any) -> None:
    scenario.fault("verify_token_generate", "http_500", count=1)
    with pytest.raises(Unreachable):
        scenario.start("25001")
    session = VerificationSession.objects.select_related("plan").get()
    queue.request_recheck(session.pk)
    (lease,) = queue.claim(clock())
    ensure_token(session)
    with pytest.raises(leases.LeaseLost):
        lease.update(**leases.Release(clock() + timedelta(hours=2)).columns())
    session = scenario.fresh(session)
    assert session.wake_at == clock() + polling.FIRST_POLL
    assert not session.is_leased


def test_an_accepted_identity_is_not_overwritten_by_a_call_that_came_later(scenario: Scenario) -> None:
    session = start_session(StartRequest(plan_id="25001"))
    stale = scenario.fresh(session)
    submit_identity(session, Identity.checked("张三", NUMBER, 0))
    with pytest.raises(InvalidInput) as caught:
        submit_identity(stale, Identity.checked("李四", NUMBER, 0))
    assert caught.value.code == "already_accepted"
    assert scenario.fresh(session).identity_name == "张三"


def test_idempotency_holds_without_a_user_and_by_the_database(scenario: Scenario) -> None:
    first = start_session(StartRequest(plan_id="25002", idempotency_key="k"))
    again = start_session(StartRequest(plan_id="25002", idempotency_key="k"))
    other = start_session(StartRequest(plan_id="25002", idempotency_key="K"))
    assert again.pk == first.pk
    assert other.pk != first.pk
    with pytest.raises(IntegrityError), transaction.atomic():
        VerificationSession.objects.filter(pk=other.pk).update(idempotency_key=first.idempotency_key)


@pytest.mark.parametrize("key", ["", "k" * 81, "k\x00", "钥匙"])
def test_a_bad_idempotency_key_is_refused(scenario: Scenario, key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        start_session(StartRequest(plan_id="25002", idempotency_key=key))
    assert caught.value.field == "idempotency_key"


# --- time and mistakes --------------------------------------------------------------------------


def test_slow_downloads_end_a_visit_before_its_worker_is_killed(
    scenario: Scenario, clock: Any, assert_archived: Archived, settings: Any, tmp_path: Path
) -> None:
    seconds = [0.0]
    stored: list[float] = []

    def after_a_download() -> None:
        seconds[0] += queue.DOWNLOADS_BEGIN_WITHIN
        stored.append(seconds[0])

    session = scenario.start("25001")
    scenario.finish(session)
    record_return(session)
    with storing(settings, tmp_path, after_a_download):
        report = runner.collect_due(budget=timedelta(seconds=90), monotonic=lambda: seconds[0])
        assert (report.sessions, report.archived) == (1, 1)
        visited = scenario.fresh(session)
        assert (visited.archive_state, visited.failure_count) == ("collecting", 0)
        while scenario.fresh(session).has_outstanding_work:
            clock.advance(seconds=2)
            assert runner.collect_due(budget=timedelta(seconds=90), monotonic=lambda: seconds[0]).archived < 2
    session = scenario.fresh(session)
    assert session.archive_state == "complete"
    assert len(stored) == session.assets.stored().count()
    assert_archived(session)


def test_one_file_that_trips_a_mistake_does_not_keep_the_others(
    scenario: Scenario, clock: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def facts(self: Any) -> Any:
        raise ZeroDivisionError("never seen before")

    monkeypatch.setattr(files.VideoInspector, "facts", facts)
    session = scenario.start("25001")
    scenario.finish(session)
    session = scenario.back(session)
    (video,) = session.assets.wanted()
    assert (video.kind, video.error_class) == ("process_video", "internal")
    assert video.error_detail == "ZeroDivisionError"
    assert "unexpected ZeroDivisionError" in caplog.text
    assert "never seen before" not in caplog.text


def test_a_session_whose_application_was_removed_comes_to_an_end(
    scenario: Scenario, clock: Any, settings: Any
) -> None:
    undecided, passed = scenario.start("25001"), scenario.start("25001")
    scenario.finish(passed)
    scenario.fault("media", "http_500")
    passed = scenario.back(passed)
    keys = settings.FACEPRINT["APPLICATIONS"]["default"]
    settings.FACEPRINT = {**settings.FACEPRINT, "APPLICATIONS": {"another": keys}}
    clock.advance(hours=4)
    scenario.work()
    assert scenario.fresh(undecided).error_class == "configuration"
    assert not passed.assets.filter(state=State.LOST).exists()
    clock.set(undecided.results_give_up_at)
    scenario.work()
    undecided, passed = scenario.fresh(undecided), scenario.fresh(passed)
    assert undecided.verdict == "unknown"
    assert passed.archive_state == "partial"
    assert passed.assets.filter(state=State.LOST).count() == 6
    assert not undecided.has_outstanding_work
    assert not passed.has_outstanding_work


def test_no_picture_is_stored_inside_a_transaction(scenario: Scenario, settings: Any, tmp_path: Any) -> None:
    backend = "django.core.files.storage.FileSystemStorage"
    storage = {"BACKEND": backend, "OPTIONS": {"location": str(tmp_path / "archive")}}
    settings.STORAGES = {**settings.STORAGES, "faceprint": storage}
    session = start_session(StartRequest(plan_id="25004"))
    with pytest.raises(RuntimeError, match="transaction"), transaction.atomic():
        upload_match_image(session, MatchImage.checked(image_bytes()))
    assert not session.assets.exists()
    assert not (tmp_path / "archive").exists()


# --- what databases refuse ----------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("peer", "kept"),
    [("192.0.2.7", "192.0.2.7"), ("fe80::1%eth0", "fe80::1"), ("unix:", None), ("", None)],
)
def test_a_look_is_recorded_whatever_the_server_calls_its_peer(
    peer: str, kept: str | None, admin_user: Any
) -> None:
    looked_at = RequestFactory().get("/", REMOTE_ADDR=peer)
    looked_at.user = admin_user
    record_access(actor_of(looked_at, "admin"), AccessLog.Action.VIEW_RECORD)
    assert AccessLog.objects.get().address == kept


@pytest.mark.django_db
def test_a_search_for_an_impossible_text_finds_nothing(clock: Any) -> None:
    make_session(reference="order-1")
    assert not lookup.look_up("order-1\x00").keys


def test_the_sandbox_is_never_asked_about_a_person_of_baidus(scenario: Scenario, clock: Any) -> None:
    session = scenario.start()
    scenario.finish(session)
    VerificationSession.objects.update(environment="live")
    session = scenario.back(session)
    assert (session.verdict, session.error_class) == ("pending", "configuration")
    assert "environment live" in session.error_message
    assert session.has_outstanding_work


def test_the_engine_talks_to_no_sandbox_in_production(scenario: Scenario, clock: Any, settings: Any) -> None:
    session = scenario.start()
    scenario.finish(session)
    settings.DEBUG = False
    session = scenario.back(session)
    assert (session.verdict, session.error_class) == ("pending", "configuration")
    settings.DEBUG = True
    clock.advance(minutes=1)
    scenario.work()
    assert scenario.fresh(session).verdict == "passed"
