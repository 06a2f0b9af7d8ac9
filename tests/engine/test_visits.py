"""From the person's last click to the evidence in storage, with Baidu well and unwell."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_faceprint import signals
from django_faceprint.base import lease as leases
from django_faceprint.engine import queue, refresh, runner, steps, writer
from django_faceprint.engine.visit import Visit
from django_faceprint.models import (
    MediaAsset,
    UploadIntent,
    UpstreamAnswer,
    UpstreamCall,
    VerificationSession,
)
from django_faceprint.sandbox import object_storage
from django_faceprint.verification import record_return
from tests.factories import NUMBER, make_session
from tests.scenario import Scenario

State = MediaAsset.State
Archived = Callable[[VerificationSession], None]


def states(session: VerificationSession) -> dict[tuple[str, int, int], str]:
    return {(asset.kind, asset.attempt_order, asset.position): asset.state for asset in session.assets.all()}


@pytest.mark.parametrize("plan_id", ["25001", "25002", "25003", "25004", "25005", "25006", "25007"])
def test_a_passed_session_of_every_plan_is_archived_whole(
    scenario: Scenario, assert_archived: Archived, plan_id: str
) -> None:
    session = scenario.start(plan_id)
    scenario.finish(session)
    session = scenario.back(session)
    assert (session.verdict, session.archive_state) == ("passed", "complete")
    assert not session.has_outstanding_work
    assert session.error_class == ""
    assert_archived(session)
    assert UploadIntent.objects.count() == 0


@pytest.mark.parametrize("plan_id", ["25001", "25003", "25004", "25005", "25006"])
def test_a_failure_is_final_where_the_plan_closes_the_url(
    scenario: Scenario, assert_archived: Archived, plan_id: str
) -> None:
    session = scenario.start(plan_id)
    scenario.finish(session, "fail", code="223120")
    session = scenario.back(session)
    assert (session.verdict, session.error_class, session.error_code) == (
        "failed",
        "verification_failed",
        "223120",
    )
    assert [(attempt.order, attempt.passed) for attempt in session.attempts.all()] == [(1, False)]
    assert session.assets.get(kind="face").reason == "not_passed"
    assert_archived(session)


def test_where_the_person_may_retry_a_failure_decides_nothing(scenario: Scenario, clock: Any) -> None:
    session = scenario.start("25002")
    scenario.finish(session, "fail", code="223114")
    session = scenario.back(session)
    assert (session.verdict, session.status) == ("pending", "verifying")
    clock.advance(minutes=5)
    scenario.finish(session, "pass")
    session = scenario.back(session)
    assert session.verdict == "passed"
    assert [attempt.passed for attempt in session.attempts.all()] == [False, True]


def test_failures_become_final_when_the_window_has_closed(
    scenario: Scenario, clock: Any, assert_archived: Archived
) -> None:
    session = scenario.start("25002")
    scenario.finish(session, "fail", code="223114")
    scenario.finish(session, "fail", code="223120")
    scenario.back(session)
    clock.advance(hours=2, minutes=59)
    scenario.work()
    assert scenario.fresh(session).verdict == "pending"
    clock.advance(minutes=2)
    scenario.work()
    session = scenario.fresh(session)
    assert (session.verdict, session.error_code) == ("failed", "223120")
    assert session.attempts.count() == 2
    assert_archived(session)


@pytest.mark.parametrize("outcome", ["giveup", None])
def test_a_session_that_nobody_finished_expires(scenario: Scenario, clock: Any, outcome: str | None) -> None:
    session = scenario.start()
    if outcome:
        scenario.finish(session, outcome)
    clock.advance(hours=3, seconds=1)
    scenario.work()
    session = scenario.fresh(session)
    assert (session.verdict, session.archive_state) == ("expired", "not_applicable")
    assert session.status == "abandoned"
    assert not session.has_outstanding_work


def test_the_browser_need_not_return(scenario: Scenario, clock: Any, assert_archived: Archived) -> None:
    session = scenario.start()
    scenario.finish(session)
    scenario.work()
    assert scenario.fresh(session).verdict == "pending"
    clock.advance(seconds=31)
    scenario.work()
    session = scenario.fresh(session)
    assert (session.verdict, session.archive_state, session.returned_at) == ("passed", "complete", None)
    assert_archived(session)


def test_scores_identity_and_times_are_kept(scenario: Scenario, clock: Any) -> None:
    session = scenario.start("25003")
    scenario.script(session, score=91.5, liveness_score=0.0, spoofing=0.01)
    scenario.finish(session)
    session = scenario.back(session)
    assert (session.score, session.liveness_score, session.spoofing_score) == (91.5, 0.0, 0.01)
    assert session.threshold == 80.0
    assert session.confirmed == {"name": "张三", "number": NUMBER}
    assert session.ocr["number"] == NUMBER
    assert (session.masked_name, session.masked_number) == ("张*", "110***********002X")
    assert session.verified_at == clock.moment
    assert session.stat


def test_collecting_twice_changes_nothing(scenario: Scenario) -> None:
    session = scenario.start("25003")
    scenario.finish(session)
    session = scenario.back(session)
    before = (list(session.assets.values()), list(session.attempts.values()), session.answers.count())
    assert refresh.recollect(session)
    scenario.work()
    session = scenario.fresh(session)
    assert (session.verdict, session.archive_state) == ("passed", "complete")
    assert (list(session.assets.values()), list(session.attempts.values()), session.answers.count()) == before


# --- Baidu unwell -------------------------------------------------------------------------------


@pytest.mark.parametrize("over", [timedelta(hours=2, minutes=1), timedelta(hours=4)])
def test_a_window_that_closes_while_the_answer_is_on_its_way(
    scenario: Scenario, clock: Any, monkeypatch: pytest.MonkeyPatch, over: timedelta
) -> None:
    """The worker was frozen, say: what was answered before says nothing about now, and is asked again."""
    session = scenario.start("25001")
    really_ask = steps.ask_verdict
    asked: list[str] = []

    def ask(visit: Visit) -> None:
        really_ask(visit)
        if not asked:
            clock.advance(over)
        asked.append(visit.session.verdict)

    monkeypatch.setattr(steps, "ask_verdict", ask)
    # Written before anybody finds that the lease has run out.
    monkeypatch.setattr(writer, "COMMIT_WITHIN", 0.0)
    clock.advance(minutes=1)
    scenario.work()
    assert len(asked) == 2
    fresh = scenario.fresh(session)
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
    scenario: Scenario, clock: Any, assert_archived: Archived, endpoint: str, fault: dict[str, Any]
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault(endpoint, count=1, **fault)
    session = scenario.back(session)
    assert session.has_outstanding_work
    assert session.error_class in ("retry", "slow_down")
    clock.advance(minutes=1)
    scenario.work()
    session = scenario.fresh(session)
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
    scenario: Scenario, clock: Any, assert_archived: Archived, endpoint: str, fault: dict[str, Any]
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault(endpoint, count=1, **fault)
    session = scenario.back(session)
    assert session.archive_state == "collecting"
    (broken,) = session.assets.wanted()
    assert broken.error_class
    assert (broken.tries, broken.stored_name, broken.sha256) == (1, "", "")
    assert UploadIntent.objects.count() == 0
    clock.advance(minutes=1)
    scenario.work()
    assert scenario.fresh(session).archive_state == "complete"
    assert_archived(scenario.fresh(session))


@pytest.mark.parametrize("endpoint", ["media", "simple_image"])
def test_a_url_that_has_expired_is_asked_for_anew(
    scenario: Scenario, assert_archived: Archived, endpoint: str
) -> None:
    """Within the same visit: it has cost one question more."""
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault(endpoint, "expired_url", count=1)
    session = scenario.back(session)
    assert (session.archive_state, session.poll_count) == ("complete", 1)
    assert set(session.assets.values_list("tries", flat=True)) == {0}
    assert_archived(session)
    asked = [UpstreamCall.objects.filter(endpoint=name).count() for name in RESULT_ENDPOINTS]
    assert sorted(asked) == [1] * (len(asked) - 1) + [2]


def test_many_urls_that_have_expired_cost_one_question_of_each_interface(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, assert_archived: Archived
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    really_archive = steps.archive_wanted

    def archive_later(visit: Visit) -> None:
        scenario.control("POST", "clock", {"advance": 60})
        really_archive(visit)

    monkeypatch.setattr(object_storage, "SIGNED_SECONDS", 60)
    monkeypatch.setattr(steps, "archive_wanted", archive_later)
    session = scenario.back(session)
    assert (session.archive_state, session.poll_count) == ("complete", 1)
    assert_archived(session)
    assert session.assets.stored().filter(source="result_media_query").count() > 2
    # That of the face itself is not signed.
    for interface in ("result_getall", "result_media_query"):
        assert UpstreamCall.objects.filter(endpoint=interface).count() == 2


@pytest.mark.parametrize("endpoint", ["media", "simple_image"])
def test_a_fresh_url_that_is_not_served_either_waits_for_the_next_visit(
    scenario: Scenario, clock: Any, assert_archived: Archived, endpoint: str
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault(endpoint, "expired_url", count=2)
    session = scenario.back(session)
    (broken,) = session.assets.wanted()
    assert (broken.tries, broken.error_class) == (1, "url_expired")
    assert UpstreamCall.objects.filter(endpoint=broken.source).count() == 2
    clock.advance(minutes=1)
    scenario.work()
    assert scenario.fresh(session).archive_state == "complete"
    assert_archived(scenario.fresh(session))


@pytest.mark.parametrize("fault", [{"kind": "http_500"}, {"kind": "gateway", "code": 18}])
def test_a_fresh_url_that_cannot_be_had_waits_for_the_next_visit(
    scenario: Scenario, clock: Any, assert_archived: Archived, fault: dict[str, Any]
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault("media", "expired_url", count=1)
    scenario.fault("result_media_query", skip=1, count=1, **fault)
    session = scenario.back(session)
    assert session.archive_state == "collecting"
    clock.advance(minutes=1)
    scenario.work()
    assert scenario.fresh(session).archive_state == "complete"
    assert_archived(scenario.fresh(session))


@pytest.mark.parametrize("fault", [{"kind": "reset", "after_bytes": 5000}, {"kind": "truncate"}])
@pytest.mark.parametrize("endpoint", ["media", "simple_image"])
def test_an_accident_in_the_middle_of_a_file_costs_nothing(
    scenario: Scenario, assert_archived: Archived, endpoint: str, fault: dict[str, Any]
) -> None:
    """The download goes on where it was interrupted, within the same visit."""
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault(endpoint, count=1, **fault)
    session = scenario.back(session)
    assert (session.archive_state, session.poll_count) == ("complete", 1)
    assert set(session.assets.values_list("tries", flat=True)) == {0}
    assert_archived(session)


@pytest.mark.parametrize("kind", ["foreign_url", "internal_url"])
def test_media_urls_to_other_hosts_are_never_asked(scenario: Scenario, clock: Any, kind: str) -> None:
    url = "http://169.254.169.254/latest" if kind == "internal_url" else "https://evil.example.com"
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault("result_media_query", kind, url=url)
    session = scenario.back(session)
    refused = session.assets.filter(source="result_media_query")
    assert {asset.state for asset in refused} == {State.WANTED}
    assert {(asset.error_class, asset.error_detail) for asset in refused} == {("unsafe_media", "host")}
    scenario.heal()
    clock.advance(minutes=1)
    scenario.work()
    assert scenario.fresh(session).archive_state == "complete"


def test_an_answer_that_is_not_understood_is_kept_as_evidence(scenario: Scenario) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault("result_detail", "service", code=987654, message="新的错误", count=1)
    session = scenario.back(session)
    assert session.verdict == "pending"
    assert (session.error_class, session.error_code) == ("unknown", "987654")
    answer = session.answers.get(endpoint="result_detail")
    assert not answer.parsed
    assert "987654" in answer.body


def test_an_unknown_failure_code_is_decided_by_the_list_of_attempts(scenario: Scenario) -> None:
    session = scenario.start("25001")
    scenario.finish(session, "fail", code="low_score")
    session = scenario.back(session)
    assert session.verdict == "failed"
    assert session.attempts.get().passed is False


def test_a_recording_that_baidu_could_not_make_is_not_lost(scenario: Scenario) -> None:
    session = scenario.start("25001")
    scenario.script(session, ext_info="video transcoding failed")
    scenario.finish(session)
    session = scenario.back(session)
    assert session.archive_state == "complete"
    missing = session.assets.filter(kind__in=("process_video", "frame"))
    assert {asset.state for asset in missing} <= {State.NOT_PROVIDED, State.STORED}
    video = session.assets.get(kind="process_video")
    assert (video.reason, video.ext_info) == ("upstream_explained", "video transcoding failed")


def test_a_plan_without_recording_says_so(scenario: Scenario) -> None:
    session = scenario.start("25005")
    scenario.finish(session)
    session = scenario.back(session)
    video = session.assets.get(kind="process_video")
    assert (video.state, video.reason) == (State.NOT_PROVIDED, "recording_off")


def test_evidence_is_lost_only_after_the_latest_deadline_and_loudly(
    scenario: Scenario, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lost = []
    signals.evidence_lost.connect(
        lambda **what: lost.append(what["asset"].kind), weak=False, dispatch_uid="t"
    )
    try:
        session = scenario.start("25001")
        scenario.finish(session)
        scenario.fault("media", "http_500")
        session = scenario.back(session)
        clock.set(session.media_give_up_at - timedelta(seconds=1))
        scenario.work()
        assert not session.assets.filter(state=State.LOST).exists()
        clock.advance(hours=1)
        scenario.work()
    finally:
        signals.evidence_lost.disconnect(dispatch_uid="t")
    session = scenario.fresh(session)
    assert session.archive_state == "collecting"  # the face of the attempt has three days
    assert sorted(lost) == ["frame"] * 4 + ["process_video"]
    assert "not archived in time" in caplog.text
    scenario.heal()
    scenario.work()
    clock.advance(minutes=30)
    scenario.work()
    assert scenario.fresh(session).archive_state == "partial"


def test_a_token_that_is_gone_never_decides_and_ends_as_unknown(scenario: Scenario, clock: Any) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.control("POST", "reset")
    session = scenario.back(session)
    assert (session.verdict, session.error_class) == ("pending", "gone")
    clock.set(session.results_give_up_at)
    scenario.work()
    session = scenario.fresh(session)
    assert (session.verdict, session.archive_state) == ("unknown", "lost")
    assert not session.has_outstanding_work


def test_wrong_credentials_are_said_and_tried_again(scenario: Scenario, clock: Any, settings: Any) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    good = settings.FACEPRINT
    settings.FACEPRINT = {
        **good,
        "APPLICATIONS": {"default": {"API_KEY": "wrong-api-key", "SECRET_KEY": "wrong-secret-key"}},
    }
    session = scenario.back(session)
    assert session.error_class == "configuration"
    assert "wrong-api-key" not in session.error_message
    settings.FACEPRINT = good
    clock.advance(minutes=1)
    scenario.work()
    assert scenario.fresh(session).archive_state == "complete"


def test_a_full_storage_leaves_the_file_due(
    scenario: Scenario, clock: Any, settings: Any, assert_archived: Archived
) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    good = settings.STORAGES
    settings.STORAGES = {
        **good,
        "faceprint": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": "/proc/none"},
        },
    }
    session = scenario.back(session)
    assert {asset.error_class for asset in session.assets.wanted()} == {"storage"}
    settings.STORAGES = good
    # The intents of the failed uploads could not be deleted either; the others go on.
    clock.advance(minutes=1)
    scenario.work()
    assert scenario.fresh(session).archive_state == "complete"
    assert_archived(scenario.fresh(session))


def test_pictures_leave_no_copy_in_the_answers(scenario: Scenario) -> None:
    session = scenario.start("25003")
    scenario.finish(session)
    session = scenario.back(session)
    detail = session.answers.get(endpoint="result_detail")
    front = session.assets.get(kind="id_front")
    assert str(front.public_id) in detail.body
    assert front.sha256 in detail.body
    assert max(len(answer.body) for answer in session.answers.all()) < 10_000


# --- leases -------------------------------------------------------------------------------------


def test_a_worker_that_lost_its_lease_writes_nothing(scenario: Scenario, clock: Any) -> None:
    session = scenario.start("25001")
    scenario.finish(session)
    record_return(session)
    (frozen,) = queue.claim(clock())
    clock.advance(leases.MAX_LEASE + timedelta(seconds=1))
    scenario.work()
    done = scenario.fresh(session)
    assert done.archive_state == "complete"
    with pytest.raises(leases.LeaseLost):
        frozen.update(verdict="failed")
    with pytest.raises(leases.LeaseLost), frozen.fenced():
        UpstreamAnswer.objects.all().delete()
    with pytest.raises(leases.LeaseLost):
        frozen.session()
    assert scenario.fresh(session).verdict == "passed"


def test_a_poke_during_work_is_not_forgotten(scenario: Scenario, clock: Any) -> None:
    session = scenario.start("25001")
    record_return(session)
    (lease,) = queue.claim(clock())
    queue.request_recheck(session.pk)
    assert queue.claim(clock()) == []
    lease.update(**leases.Release(clock() + timedelta(hours=1)).columns())
    session = scenario.fresh(session)
    assert session.wake_at == clock()
    assert not session.recheck_requested


def test_the_most_urgent_comes_first(scenario: Scenario, clock: Any) -> None:
    late = scenario.start("25001")
    clock.advance(minutes=-30)
    early = scenario.start("25001")
    clock.advance(minutes=30)
    for session in (late, early):
        record_return(session)
    (first,) = queue.claim(clock())
    (second,) = queue.claim(clock())
    assert (first.session_pk, second.session_pk) == (early.pk, late.pk)
    assert queue.claim(clock()) == []


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

    monkeypatch.setattr(steps, "perform_visit", visit)
    seconds = itertools.count()
    runner.collect_due(budget=timedelta(hours=1), monotonic=lambda: float(next(seconds)))
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
    monkeypatch.setattr(runner, "CLAIM_BATCH", 1)
    patient = [make_session(wake_at=clock(), next_deadline=clock() + timedelta(hours=9)).pk for _ in range(2)]
    urgent: list[int] = []

    def another() -> None:
        urgent.append(make_session(wake_at=clock(), next_deadline=clock() + timedelta(hours=1)).pk)

    order = in_order_of_visits(monkeypatch, clock, takes=timedelta(minutes=1), meanwhile=another)
    assert order == [patient[0], *urgent, patient[1]]


def test_the_queue_is_not_asked_at_every_step_of_a_visit(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With places free and nothing due: it would be a dozen questions for every session that comes alone."""
    session = scenario.start()
    scenario.finish(session)
    record_return(session)
    found: list[int] = []
    claim = queue.claim

    def counted(*arguments: Any, **options: Any) -> list[leases.Lease]:
        leases = claim(*arguments, **options)
        found.append(len(leases))
        return leases

    monkeypatch.setattr(queue, "claim", counted)
    # No time passes for the run.
    runner.collect_due(budget=timedelta(seconds=60), monotonic=lambda: 0.0, concurrency=8)
    assert scenario.fresh(session).archive_state == "complete"
    # The session, nothing else while it is visited, nothing more after it.
    assert found == [1, 0, 0]


def test_a_deadline_that_is_over_is_not_urgent(db: None, clock: Any) -> None:
    """The face may have gone after two hours: the recordings, which have 20 hours left, are in no hurry."""

    def session(*hours: float) -> VerificationSession:
        names = ("next_deadline", "later_deadline", "last_deadline")
        return make_session(
            **{name: clock() + timedelta(hours=hour) for name, hour in zip(names, hours, strict=False)}
        )

    assert not steps.is_urgent(session(-2, 20, 68))
    assert steps.is_urgent(session(-2, 0.4, 48))
    assert not steps.is_urgent(session(-50, -30, -2))


def test_personal_data_stays_out_of_logs_and_rows(
    scenario: Scenario, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    session = scenario.start("25001")
    scenario.finish(session)
    scenario.fault("result_detail", "service", code=987654, count=1)
    scenario.fault("media", "reset", count=2)
    scenario.back(session)
    for _ in range(2):
        clock.advance(minutes=1)
        scenario.work()
    session = scenario.fresh(session)
    assert session.archive_state == "complete"
    row = str(VerificationSession.objects.filter(pk=session.pk).values().get())
    for secret in ("张三", NUMBER, session.verify_token, "sandbox-secret-key"):
        assert secret not in caplog.text
        assert secret not in row
