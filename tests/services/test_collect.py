"""From the person's last click to the evidence in storage, with Baidu well and unwell."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_faceprint import signals
from django_faceprint.models import (
    MediaAsset,
    UploadIntent,
    UpstreamAnswer,
    UpstreamCall,
    VerificationSession,
)
from django_faceprint.sandbox import core
from django_faceprint.services import collect, schedule, sessions
from django_faceprint.services.visit import Visit
from tests.factories import NUMBER, make_session

from .conftest import Story

State = MediaAsset.State
Archived = Callable[[VerificationSession], None]


def states(session: VerificationSession) -> dict[tuple[str, int, int], str]:
    return {(asset.kind, asset.attempt_order, asset.position): asset.state for asset in session.assets.all()}


@pytest.mark.parametrize("plan_id", ["25001", "25002", "25003", "25004", "25005", "25006", "25007"])
def test_a_passed_session_of_every_plan_is_archived_whole(
    story: Story, assert_archived: Archived, plan_id: str
) -> None:
    session = story.start(plan_id)
    story.finish(session)
    session = story.back(session)
    assert (session.verdict, session.archive_state) == ("passed", "complete")
    assert not session.has_outstanding_work
    assert session.error_class == ""
    assert_archived(session)
    assert UploadIntent.objects.count() == 0


@pytest.mark.parametrize("plan_id", ["25001", "25003", "25004", "25005", "25006"])
def test_a_failure_is_final_where_the_plan_closes_the_url(
    story: Story, assert_archived: Archived, plan_id: str
) -> None:
    session = story.start(plan_id)
    story.finish(session, "fail", code="223120")
    session = story.back(session)
    assert (session.verdict, session.error_class, session.error_code) == (
        "failed",
        "verification_failed",
        "223120",
    )
    assert [(attempt.order, attempt.passed) for attempt in session.attempts.all()] == [(1, False)]
    assert session.assets.get(kind="face").reason == "not_passed"
    assert_archived(session)


def test_where_the_person_may_retry_a_failure_decides_nothing(story: Story, clock: Any) -> None:
    session = story.start("25002")
    story.finish(session, "fail", code="223114")
    session = story.back(session)
    assert (session.verdict, session.status) == ("pending", "verifying")
    clock.advance(minutes=5)
    story.finish(session, "pass")
    session = story.back(session)
    assert session.verdict == "passed"
    assert [attempt.passed for attempt in session.attempts.all()] == [False, True]


def test_failures_become_final_when_the_window_has_closed(
    story: Story, clock: Any, assert_archived: Archived
) -> None:
    session = story.start("25002")
    story.finish(session, "fail", code="223114")
    story.finish(session, "fail", code="223120")
    story.back(session)
    clock.advance(hours=2, minutes=59)
    story.work()
    assert story.fresh(session).verdict == "pending"
    clock.advance(minutes=2)
    story.work()
    session = story.fresh(session)
    assert (session.verdict, session.error_code) == ("failed", "223120")
    assert session.attempts.count() == 2
    assert_archived(session)


@pytest.mark.parametrize("outcome", ["giveup", None])
def test_a_session_that_nobody_finished_expires(story: Story, clock: Any, outcome: str | None) -> None:
    session = story.start()
    if outcome:
        story.finish(session, outcome)
    clock.advance(hours=3, seconds=1)
    story.work()
    session = story.fresh(session)
    assert (session.verdict, session.archive_state) == ("expired", "not_applicable")
    assert session.status == "abandoned"
    assert not session.has_outstanding_work


def test_the_browser_need_not_return(story: Story, clock: Any, assert_archived: Archived) -> None:
    session = story.start()
    story.finish(session)
    story.work()
    assert story.fresh(session).verdict == "pending"
    clock.advance(seconds=31)
    story.work()
    session = story.fresh(session)
    assert (session.verdict, session.archive_state, session.returned_at) == ("passed", "complete", None)
    assert_archived(session)


def test_scores_identity_and_times_are_kept(story: Story, clock: Any) -> None:
    session = story.start("25003")
    story.script(session, score=91.5, liveness_score=0.0, spoofing=0.01)
    story.finish(session)
    session = story.back(session)
    assert (session.score, session.liveness_score, session.spoofing) == (91.5, 0.0, 0.01)
    assert session.threshold == 80.0
    assert session.confirmed == {"name": "张三", "number": NUMBER}
    assert session.ocr["number"] == NUMBER
    assert (session.masked_name, session.masked_number) == ("张*", "110***********002X")
    assert session.verified_at == clock.moment
    assert session.stat


def test_collecting_twice_changes_nothing(story: Story) -> None:
    session = story.start("25003")
    story.finish(session)
    session = story.back(session)
    before = (list(session.assets.values()), list(session.attempts.values()), session.answers.count())
    assert collect.collect_anew(session)
    story.work()
    session = story.fresh(session)
    assert (session.verdict, session.archive_state) == ("passed", "complete")
    assert (list(session.assets.values()), list(session.attempts.values()), session.answers.count()) == before


# --- Baidu unwell -------------------------------------------------------------------------------


@pytest.mark.parametrize("over", [timedelta(hours=2, minutes=1), timedelta(hours=4)])
def test_a_window_that_closes_while_the_answer_is_on_its_way(
    story: Story, clock: Any, monkeypatch: pytest.MonkeyPatch, over: timedelta
) -> None:
    """The worker was frozen, say: what was answered before says nothing about now, and is asked again."""
    session = story.start("25001")
    really_ask = collect.ask_verdict
    asked: list[str] = []

    def ask(visit: Visit) -> None:
        really_ask(visit)
        if not asked:
            clock.advance(over)
        asked.append(visit.session.verdict)

    monkeypatch.setattr(collect, "ask_verdict", ask)
    # Written before anybody finds that the lease has run out.
    monkeypatch.setattr(collect, "COMMIT_WITHIN", 0.0)
    clock.advance(minutes=1)
    story.work()
    assert len(asked) == 2
    fresh = story.fresh(session)
    assert fresh.last_polled_at == clock()
    assert fresh.verdict == ("expired" if over > timedelta(hours=3) else "pending")


RESULT_ENDPOINTS = ["result_detail", "result_getall", "result_simple", "result_media_query", "result_stat"]
FAULTS: list[dict[str, Any]] = [
    {"kind": "http_500"},
    {"kind": "html"},
    {"kind": "malformed_json"},
    {"kind": "empty"},
    {"kind": "reset"},
    {"kind": "truncate"},
    {"kind": "gateway", "code": 18},
    {"kind": "gateway", "code": 2},
    {"kind": "service", "code": 283512},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(map(str, fault.values())))
@pytest.mark.parametrize("endpoint", RESULT_ENDPOINTS)
def test_one_fault_anywhere_costs_nothing_but_time(
    story: Story, clock: Any, assert_archived: Archived, endpoint: str, fault: dict[str, Any]
) -> None:
    session = story.start("25001")
    story.finish(session)
    story.fault(endpoint, count=1, **fault)
    session = story.back(session)
    assert session.has_outstanding_work
    assert session.error_class in ("retry", "slow_down")
    clock.advance(minutes=1)
    story.work()
    session = story.fresh(session)
    assert (session.verdict, session.archive_state, session.error_class) == ("passed", "complete", "")
    assert_archived(session)


MEDIA_FAULTS: list[dict[str, Any]] = [
    {"kind": "http_500"},
    {"kind": "reset"},
    {"kind": "not_image"},
    {"kind": "truncated_image"},
]


@pytest.mark.parametrize("fault", MEDIA_FAULTS, ids=lambda fault: "-".join(map(str, fault.values())))
@pytest.mark.parametrize("endpoint", ["media", "simple_image"])
def test_a_broken_download_leaves_nothing_and_is_repeated(
    story: Story, clock: Any, assert_archived: Archived, endpoint: str, fault: dict[str, Any]
) -> None:
    session = story.start("25001")
    story.finish(session)
    story.fault(endpoint, count=1, **fault)
    session = story.back(session)
    assert session.archive_state == "collecting"
    (broken,) = session.assets.wanted()
    assert broken.error
    assert (broken.tries, broken.stored_name, broken.sha256) == (1, "", "")
    assert UploadIntent.objects.count() == 0
    clock.advance(minutes=1)
    story.work()
    assert story.fresh(session).archive_state == "complete"
    assert_archived(story.fresh(session))


@pytest.mark.parametrize("endpoint", ["media", "simple_image"])
def test_a_url_that_has_expired_is_asked_for_anew(
    story: Story, assert_archived: Archived, endpoint: str
) -> None:
    """Within the same visit: it has cost one question more."""
    session = story.start("25001")
    story.finish(session)
    story.fault(endpoint, "expired_url", count=1)
    session = story.back(session)
    assert (session.archive_state, session.poll_count) == ("complete", 1)
    assert set(session.assets.values_list("tries", flat=True)) == {0}
    assert_archived(session)
    asked = [UpstreamCall.objects.filter(endpoint=name).count() for name in RESULT_ENDPOINTS]
    assert sorted(asked) == [1] * (len(asked) - 1) + [2]


def test_many_urls_that_have_expired_cost_one_question_of_each_interface(
    story: Story, monkeypatch: pytest.MonkeyPatch, assert_archived: Archived
) -> None:
    session = story.start("25001")
    story.finish(session)
    really_archive = collect._archive_wanted

    def archive_later(visit: Visit) -> None:
        story.control("POST", "clock", {"advance": 60})
        really_archive(visit)

    monkeypatch.setattr(core, "SIGNED_SECONDS", 60)
    monkeypatch.setattr(collect, "_archive_wanted", archive_later)
    session = story.back(session)
    assert (session.archive_state, session.poll_count) == ("complete", 1)
    assert_archived(session)
    assert session.assets.stored().filter(source="result_media_query").count() > 2
    # That of the face itself is not signed.
    for interface in ("result_getall", "result_media_query"):
        assert UpstreamCall.objects.filter(endpoint=interface).count() == 2


@pytest.mark.parametrize("endpoint", ["media", "simple_image"])
def test_a_fresh_url_that_is_not_served_either_waits_for_the_next_visit(
    story: Story, clock: Any, assert_archived: Archived, endpoint: str
) -> None:
    session = story.start("25001")
    story.finish(session)
    story.fault(endpoint, "expired_url", count=2)
    session = story.back(session)
    (broken,) = session.assets.wanted()
    assert (broken.tries, broken.error) == (1, "url_expired")
    assert UpstreamCall.objects.filter(endpoint=broken.source).count() == 2
    clock.advance(minutes=1)
    story.work()
    assert story.fresh(session).archive_state == "complete"
    assert_archived(story.fresh(session))


@pytest.mark.parametrize("fault", [{"kind": "http_500"}, {"kind": "gateway", "code": 18}])
def test_a_fresh_url_that_cannot_be_had_waits_for_the_next_visit(
    story: Story, clock: Any, assert_archived: Archived, fault: dict[str, Any]
) -> None:
    session = story.start("25001")
    story.finish(session)
    story.fault("media", "expired_url", count=1)
    story.fault("result_media_query", skip=1, count=1, **fault)
    session = story.back(session)
    assert session.archive_state == "collecting"
    clock.advance(minutes=1)
    story.work()
    assert story.fresh(session).archive_state == "complete"
    assert_archived(story.fresh(session))


@pytest.mark.parametrize("fault", [{"kind": "reset", "after_bytes": 5000}, {"kind": "truncate"}])
@pytest.mark.parametrize("endpoint", ["media", "simple_image"])
def test_an_accident_in_the_middle_of_a_file_costs_nothing(
    story: Story, assert_archived: Archived, endpoint: str, fault: dict[str, Any]
) -> None:
    """The download goes on where it was interrupted, within the same visit."""
    session = story.start("25001")
    story.finish(session)
    story.fault(endpoint, count=1, **fault)
    session = story.back(session)
    assert (session.archive_state, session.poll_count) == ("complete", 1)
    assert set(session.assets.values_list("tries", flat=True)) == {0}
    assert_archived(session)


@pytest.mark.parametrize("kind", ["foreign_url", "internal_url"])
def test_media_urls_to_other_hosts_are_never_asked(story: Story, clock: Any, kind: str) -> None:
    url = "http://169.254.169.254/latest" if kind == "internal_url" else "https://evil.example.com"
    session = story.start("25001")
    story.finish(session)
    story.fault("result_media_query", kind, url=url)
    session = story.back(session)
    refused = session.assets.filter(source="result_media_query")
    assert {asset.state for asset in refused} == {State.WANTED}
    assert {asset.error for asset in refused} == {"unsafe_media: host"}
    story.heal()
    clock.advance(minutes=1)
    story.work()
    assert story.fresh(session).archive_state == "complete"


def test_an_answer_that_is_not_understood_is_kept_as_evidence(story: Story) -> None:
    session = story.start("25001")
    story.finish(session)
    story.fault("result_detail", "service", code=987654, message="新的错误", count=1)
    session = story.back(session)
    assert session.verdict == "pending"
    assert (session.error_class, session.error_code) == ("unknown", "987654")
    answer = session.answers.get(endpoint="result_detail")
    assert not answer.parsed
    assert "987654" in answer.body


def test_an_unknown_failure_code_is_decided_by_the_list_of_attempts(story: Story) -> None:
    session = story.start("25001")
    story.finish(session, "fail", code="low_score")
    session = story.back(session)
    assert session.verdict == "failed"
    assert session.attempts.get().passed is False


def test_a_recording_that_baidu_could_not_make_is_not_lost(story: Story) -> None:
    session = story.start("25001")
    story.script(session, ext_info="video transcoding failed")
    story.finish(session)
    session = story.back(session)
    assert session.archive_state == "complete"
    missing = session.assets.filter(kind__in=("process_video", "frame"))
    assert {asset.state for asset in missing} <= {State.NOT_PROVIDED, State.STORED}
    assert "video transcoding failed" in session.assets.get(kind="process_video").reason


def test_a_plan_without_recording_says_so(story: Story) -> None:
    session = story.start("25005")
    story.finish(session)
    session = story.back(session)
    video = session.assets.get(kind="process_video")
    assert (video.state, video.reason) == (State.NOT_PROVIDED, "recording_off")


def test_evidence_is_lost_only_after_the_latest_deadline_and_loudly(
    story: Story, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lost = []
    signals.evidence_lost.connect(
        lambda **what: lost.append(what["asset"].kind), weak=False, dispatch_uid="t"
    )
    try:
        session = story.start("25001")
        story.finish(session)
        story.fault("media", "http_500")
        session = story.back(session)
        clock.set(session.media_latest - timedelta(seconds=1))
        story.work()
        assert not session.assets.filter(state=State.LOST).exists()
        clock.advance(hours=1)
        story.work()
    finally:
        signals.evidence_lost.disconnect(dispatch_uid="t")
    session = story.fresh(session)
    assert session.archive_state == "collecting"  # the face of the attempt has three days
    assert sorted(lost) == ["frame"] * 4 + ["process_video"]
    assert "not archived in time" in caplog.text
    story.heal()
    story.work()
    clock.advance(minutes=30)
    story.work()
    assert story.fresh(session).archive_state == "partial"


def test_a_token_that_is_gone_never_decides_and_ends_as_unknown(story: Story, clock: Any) -> None:
    session = story.start("25001")
    story.finish(session)
    story.control("POST", "reset")
    session = story.back(session)
    assert (session.verdict, session.error_class) == ("pending", "gone")
    clock.set(session.results_latest)
    story.work()
    session = story.fresh(session)
    assert (session.verdict, session.archive_state) == ("unknown", "lost")
    assert not session.has_outstanding_work


def test_wrong_credentials_are_said_and_tried_again(story: Story, clock: Any, settings: Any) -> None:
    session = story.start("25001")
    story.finish(session)
    good = settings.FACEPRINT
    settings.FACEPRINT = {
        **good,
        "APPLICATIONS": {"default": {"API_KEY": "wrong-api-key", "SECRET_KEY": "wrong-secret-key"}},
    }
    session = story.back(session)
    assert session.error_class == "configuration"
    assert "wrong-api-key" not in session.error_message
    settings.FACEPRINT = good
    clock.advance(minutes=1)
    story.work()
    assert story.fresh(session).archive_state == "complete"


def test_a_full_storage_leaves_the_file_due(
    story: Story, clock: Any, settings: Any, assert_archived: Archived
) -> None:
    session = story.start("25001")
    story.finish(session)
    good = settings.STORAGES
    settings.STORAGES = {
        **good,
        "faceprint": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": "/proc/none"},
        },
    }
    session = story.back(session)
    assert {asset.error.partition(":")[0] for asset in session.assets.wanted()} == {"storage"}
    settings.STORAGES = good
    # The intents of the failed uploads could not be deleted either; the others go on.
    clock.advance(minutes=1)
    story.work()
    assert story.fresh(session).archive_state == "complete"
    assert_archived(story.fresh(session))


def test_pictures_leave_no_copy_in_the_answers(story: Story) -> None:
    session = story.start("25003")
    story.finish(session)
    session = story.back(session)
    detail = session.answers.get(endpoint="result_detail")
    front = session.assets.get(kind="id_front")
    assert str(front.public_id) in detail.body
    assert front.sha256 in detail.body
    assert max(len(answer.body) for answer in session.answers.all()) < 10_000


# --- leases -------------------------------------------------------------------------------------


def test_a_worker_that_lost_its_lease_writes_nothing(story: Story, clock: Any) -> None:
    session = story.start("25001")
    story.finish(session)
    sessions.record_return(session)
    (frozen,) = schedule.claim(clock())
    clock.advance(schedule.LEASE + timedelta(seconds=1))
    story.work()
    done = story.fresh(session)
    assert done.archive_state == "complete"
    with pytest.raises(schedule.LeaseLost):
        frozen.update(verdict="failed")
    with pytest.raises(schedule.LeaseLost), frozen.fenced():
        UpstreamAnswer.objects.all().delete()
    with pytest.raises(schedule.LeaseLost):
        frozen.session()
    assert story.fresh(session).verdict == "passed"


def test_a_poke_during_work_is_not_forgotten(story: Story, clock: Any) -> None:
    session = story.start("25001")
    sessions.record_return(session)
    (lease,) = schedule.claim(clock())
    collect.make_due(session)
    assert schedule.claim(clock()) == []
    lease.update(**schedule.Release(clock() + timedelta(hours=1)).columns())
    session = story.fresh(session)
    assert session.wake_at == clock()
    assert not session.poked


def test_the_most_urgent_comes_first(story: Story, clock: Any) -> None:
    late = story.start("25001")
    clock.advance(minutes=-30)
    early = story.start("25001")
    clock.advance(minutes=30)
    for session in (late, early):
        sessions.record_return(session)
    (first,) = schedule.claim(clock())
    (second,) = schedule.claim(clock())
    assert (first.session_pk, second.session_pk) == (early.pk, late.pk)
    assert schedule.claim(clock()) == []


def in_order_of_visits(
    monkeypatch: pytest.MonkeyPatch,
    clock: Any,
    *,
    takes: timedelta,
    meanwhile: Callable[[], None] | None = None,
) -> list[int]:
    """Work on all that is due; each visit takes so long and ends its session. The sessions as they come."""
    order: list[int] = []

    def visit(visit: Visit) -> None:
        order.append(visit.lease.session_pk)
        visit.release(None)
        clock.advance(takes)
        if meanwhile is not None and len(order) == 1:
            meanwhile()

    monkeypatch.setattr(collect, "_visit", visit)
    seconds = itertools.count()
    collect.collect_due(budget=timedelta(hours=1), monotonic=lambda: float(next(seconds)))
    return order


def test_what_was_claimed_yields_when_its_deadline_has_gone_by(
    db: None, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claimed together; the visit to the first takes so long that the second cannot be in time any more."""
    first, second, third = (
        make_session(
            wake_at=clock(),
            next_deadline=clock() + timedelta(minutes=minutes),
            later_deadline=clock() + timedelta(hours=48, minutes=minutes),
        ).pk
        for minutes in (1, 2, 90)
    )
    assert in_order_of_visits(monkeypatch, clock, takes=timedelta(minutes=2)) == [first, third, second]


def test_what_wakes_during_a_run_is_seen_before_the_next_claim(
    db: None, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "CLAIM_BATCH", 1)
    patient = [make_session(wake_at=clock(), next_deadline=clock() + timedelta(hours=9)).pk for _ in range(2)]
    urgent: list[int] = []

    def another() -> None:
        urgent.append(make_session(wake_at=clock(), next_deadline=clock() + timedelta(hours=1)).pk)

    order = in_order_of_visits(monkeypatch, clock, takes=timedelta(minutes=1), meanwhile=another)
    assert order == [patient[0], *urgent, patient[1]]


def test_the_queue_is_not_asked_at_every_step_of_a_visit(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With places free and nothing due: it would be a dozen questions for every session that comes alone."""
    session = story.start()
    story.finish(session)
    sessions.record_return(session)
    found: list[int] = []
    claim = schedule.claim

    def counted(*arguments: Any, **options: Any) -> list[schedule.Lease]:
        leases = claim(*arguments, **options)
        found.append(len(leases))
        return leases

    monkeypatch.setattr(schedule, "claim", counted)
    # No time passes for the run.
    collect.collect_due(budget=timedelta(seconds=60), monotonic=lambda: 0.0, concurrency=8)
    assert story.fresh(session).archive_state == "complete"
    # The session, nothing else while it is visited, nothing more after it.
    assert found == [1, 0, 0]


def test_a_deadline_that_is_over_is_not_urgent(db: None, clock: Any) -> None:
    """The face may have gone after two hours: the recordings, which have 20 hours left, are in no hurry."""

    def session(*hours: float) -> VerificationSession:
        names = ("next_deadline", "later_deadline", "last_deadline")
        return make_session(
            **{name: clock() + timedelta(hours=hour) for name, hour in zip(names, hours, strict=False)}
        )

    assert not collect._is_urgent(session(-2, 20, 68))
    assert collect._is_urgent(session(-2, 0.4, 48))
    assert not collect._is_urgent(session(-50, -30, -2))


def test_personal_data_stays_out_of_logs_and_rows(
    story: Story, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    session = story.start("25001")
    story.finish(session)
    story.fault("result_detail", "service", code=987654, count=1)
    story.fault("media", "reset", count=2)
    story.back(session)
    for _ in range(2):
        clock.advance(minutes=1)
        story.work()
    session = story.fresh(session)
    assert session.archive_state == "complete"
    row = str(VerificationSession.objects.filter(pk=session.pk).values().get())
    for secret in ("张三", NUMBER, session.verify_token, "sandbox-secret-key"):
        assert secret not in caplog.text
        assert secret not in row
