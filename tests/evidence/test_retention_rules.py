"""Retention by plan and kind: what is kept for how long, and what is not even fetched."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, transaction

from django_faceprint.base.lease import Lease, LeaseLost
from django_faceprint.client import MatchImage
from django_faceprint.clock import now
from django_faceprint.conf import RETENTION_KINDS
from django_faceprint.engine import refresh
from django_faceprint.engine.visit import Visit, VisitContext
from django_faceprint.evidence import files, retention_rules
from django_faceprint.evidence.erasure import Purged, purge_files
from django_faceprint.evidence.files import INTENT_LIFE
from django_faceprint.exceptions import InvalidInput
from django_faceprint.maintenance import retention
from django_faceprint.maintenance.retention import Forecast, ForecastLine, RetentionReport, forecast, retain
from django_faceprint.models import MediaAsset, Plan, UploadIntent, VerificationSession
from django_faceprint.upstream import clients
from django_faceprint.verification import upload_match_image
from tests.factories import (
    image_bytes,
    make_asset,
    make_erased_session,
    make_passed_session,
    make_plan,
    make_session,
    make_stored_asset,
)
from tests.scenario import Scenario, stored_files

# Each test has a storage of its own.
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("failing")]

Kind = MediaAsset.Kind
State = MediaAsset.State
DAY = timedelta(days=1)


@pytest.fixture
def rules(settings: Any) -> Any:
    """``rules(default=…, video=0)``: retention in the settings."""

    def rules(**spans: Any) -> None:
        settings.FACEPRINT = {**settings.FACEPRINT, "RETENTION": spans}

    return rules


def test_the_settings_know_every_kind_that_is_archived() -> None:
    assert set(MediaAsset.Kind.values) - {Kind.THUMBNAIL} == RETENTION_KINDS


class TestSpans:
    def test_the_plans_own_days_come_first_then_the_settings_then_the_record(self, rules: Any) -> None:
        rules(default=100 * DAY, video=30 * DAY, frame=0, face=None)
        plan = Plan(retention={"video": 7, "id_front": 0})
        assert plan.record_span == 100 * DAY
        assert plan.span_of("video") == 7 * DAY
        assert plan.span_of("id_front") == timedelta(0)
        assert plan.span_of("frame") == timedelta(0)
        assert plan.span_of("face") is None
        assert plan.span_of("process_video") is None
        assert [kind for kind in sorted(RETENTION_KINDS) if not plan.keeps(kind)] == ["frame", "id_front"]

    def test_no_file_outlives_its_record(self, rules: Any) -> None:
        rules(default=100 * DAY, video=30 * DAY)
        assert Plan(retention_days=20).span_of("video") is None
        assert Plan(retention_days=40).span_of("video") == 30 * DAY

    def test_without_end_only_with_its_basis(self, rules: Any) -> None:
        plan = make_plan()
        plan.retain_indefinitely = True
        with pytest.raises(ValidationError) as refusal:
            plan.full_clean()
        assert set(refusal.value.message_dict) == {"retention_basis"}
        with pytest.raises(IntegrityError), transaction.atomic():
            plan.save()
        plan.retention_basis = "反洗钱法第三十四条"
        plan.full_clean()
        plan.save()
        assert plan.record_span is None

    @pytest.mark.parametrize(
        "retention", [{"video": 181}, {"video": -1}, {"video": 1.5}, {"video": True}, {"movie": 1}, [1]]
    )
    def test_what_cannot_be_is_refused(self, retention: Any) -> None:
        with pytest.raises(ValidationError) as refusal:
            make_plan(retention=retention).full_clean()
        assert set(refusal.value.message_dict) == {NON_FIELD_ERRORS}

    def test_days_and_without_end_contradict_each_other(self) -> None:
        with pytest.raises(ValidationError) as refusal:
            make_plan(retention_days=5, retain_indefinitely=True, retention_basis="law").full_clean()
        assert set(refusal.value.message_dict) == {"retention_days"}


class TestKindsThatAreOff:
    def change(self, scenario: Scenario, plan_id: str, **values: Any) -> Plan:
        Plan.objects.filter(plan_id=plan_id).update(**values)
        plan = scenario.plans[plan_id] = Plan.objects.get(plan_id=plan_id)
        return plan

    def served(self, scenario: Scenario, session: VerificationSession) -> dict[str, int]:
        """How often Baidu was asked for each kind of file, whole or in part.

        Card pictures come inside answers: nobody can do without them.
        """
        counts: dict[str, int] = {}
        for item in scenario.ledger(session)["assets"]:
            if item["kind"] in ("id_front", "id_back"):
                continue
            asked = item["served"] + item["partly_served"]
            counts[item["kind"]] = counts.get(item["kind"], 0) + asked
        return counts

    @pytest.mark.parametrize("plan_id", ["25001", "25003"])
    def test_are_never_fetched_never_lost_and_count_as_complete(
        self, scenario: Scenario, clock: Any, plan_id: str
    ) -> None:
        off = {"face": 0, "process_video": 0, "video": 0, "id_front": 0, "attempt_face": 0}
        self.change(scenario, plan_id, retention=off)
        session = scenario.start(plan_id)
        scenario.finish(session)
        session = scenario.back(session)
        assert (session.verdict, session.archive_state) == ("passed", "complete")
        assert session.archived_at == now()
        rows = {asset.kind: asset for asset in session.assets.all()}
        for kind in {"face", "attempt_face"} | ({"id_front"} & set(rows)):
            assert (rows[kind].state, rows[kind].reason) == (State.NOT_PROVIDED, "not_kept")
            assert (rows[kind].stored_name, rows[kind].wrapped_key, rows[kind].sha256) == ("", None, "")
        videos = [asset for asset in rows.values() if asset.is_video]
        assert [video.reason for video in videos] == ["not_kept"]
        served = self.served(scenario, session)
        assert {kind for kind, count in served.items() if count} <= {"frame"}
        assert not UploadIntent.objects.exists()

        clock.advance(days=5)
        assert scenario.work().lost == 0
        assert not session.assets.filter(state=State.LOST).exists()

    def test_a_record_of_which_nothing_is_kept_is_complete(self, scenario: Scenario) -> None:
        self.change(scenario, "25001", retention=dict.fromkeys(RETENTION_KINDS, 0))
        session = scenario.start("25001")
        scenario.finish(session)
        session = scenario.back(session)
        assert session.archive_state == "complete"
        assert stored_files() == []
        assert set(self.served(scenario, session).values()) == {0}

    def test_card_pictures_inside_answers_leave_their_hash_only(self, scenario: Scenario) -> None:
        self.change(scenario, "25003", retention={"id_front": 0, "id_back": 0})
        session = scenario.start("25003")
        scenario.finish(session)
        session = scenario.back(session)
        cards = [item for item in scenario.ledger(session)["assets"] if item["kind"].startswith("id_")]
        bodies = {answer.endpoint: answer.body or "" for answer in session.answers.all()}
        assert cards
        for card in cards:
            assert card["sha256"] in bodies["result_detail"]
        for body in bodies.values():
            assert not any(len(text) > 2000 for text in _texts(json.loads(body)))
        assert not session.assets.filter(kind__startswith="id_", state=State.STORED).exists()

    def test_what_waits_when_its_kind_is_switched_off_is_not_fetched_any_more(
        self, scenario: Scenario, clock: Any
    ) -> None:
        scenario.fault("media", "http_500")
        session = scenario.start("25001")
        scenario.finish(session)
        session = scenario.back(session)
        waiting = session.assets.filter(pk__in=list(session.assets.wanted().values_list("pk", flat=True)))
        assert waiting.count() == 6
        self.change(scenario, "25001", retention=dict.fromkeys(RETENTION_KINDS, 0))
        scenario.heal()
        before = self.served(scenario, session)
        clock.advance(hours=1)
        scenario.work()
        session = scenario.fresh(session)
        assert (session.archive_state, session.has_outstanding_work) == ("complete", False)
        assert set(waiting.values_list("state", "reason")) == {("not_provided", "not_kept")}
        assert self.served(scenario, session) == before

    def test_archiving_again_fetches_what_is_kept_now(self, scenario: Scenario, assert_archived: Any) -> None:
        self.change(scenario, "25003", retention={"face": 0, "id_front": 0, "frame": 0, "video": 0})
        session = scenario.start("25003")
        scenario.finish(session)
        session = scenario.back(session)
        self.change(scenario, "25003", retention={})
        assert refresh.recollect(scenario.fresh(session))
        scenario.work()
        assert scenario.fresh(session).archive_state == "complete"
        assert_archived(session)

    def test_archiving_again_loses_nothing_that_was_not_kept(self, scenario: Scenario, clock: Any) -> None:
        self.change(scenario, "25001", retention=dict.fromkeys(RETENTION_KINDS, 0))
        session = scenario.start("25001")
        scenario.finish(session)
        session = scenario.back(session)
        self.change(scenario, "25001", retention={})
        clock.advance(days=5)
        refresh.recollect(scenario.fresh(session))
        assert scenario.work().lost == 0
        assert set(session.assets.values_list("reason", flat=True)) == {"not_kept"}

    def test_a_match_image_goes_to_baidu_and_is_not_kept(self, scenario: Scenario) -> None:
        self.change(scenario, "25004", retention={"match_image": 0})
        session = scenario.start("25004")
        assert session.match_image_accepted_at is not None
        asset = session.assets.get(kind="match_image")
        assert (asset.state, asset.reason) == (State.NOT_PROVIDED, "not_kept")
        assert stored_files() == []
        assert [item["kind"] for item in scenario.ledger(session)["assets"]] == ["match_image"]

        upload_match_image(session, MatchImage.checked(image_bytes()))
        with pytest.raises(InvalidInput):
            upload_match_image(session, MatchImage.checked(image_bytes(50, 60)))
        assert session.assets.count() == 1


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


class TestFilesThatGoBeforeTheirRecord:
    def test_only_that_file_goes_and_the_record_stays(self, scenario: Scenario, clock: Any) -> None:
        Plan.objects.filter(plan_id="25001").update(retention={"process_video": 7, "video": 7, "face": 30})
        scenario.plans["25001"] = Plan.objects.get(plan_id="25001")
        session = scenario.start("25001")
        scenario.finish(session)
        session = scenario.back(session)
        decided = session.decided_at
        assert decided is not None
        video = session.assets.get(kind__in=MediaAsset.VIDEO_KINDS)
        assert video.retain_until == decided + 7 * DAY
        assert session.assets.get(kind="face").retain_until == decided + 30 * DAY
        assert set(session.assets.filter(kind="attempt_face").values_list("retain_until", flat=True)) == {
            None
        }
        before = stored_files()

        clock.set(decided + 7 * DAY)
        assert retain() == RetentionReport()
        clock.advance(microseconds=1)
        assert retain() == RetentionReport(files=1)
        gone = session.assets.get(pk=video.pk)
        assert (gone.state, gone.reason, gone.wrapped_key, gone.stored_name, gone.sha256) == (
            *(State.ERASED, "retention", None, "", ""),
        )
        assert set(before) - set(stored_files()) == {video.stored_name}
        assert files.is_gone(video.stored_name)
        session = scenario.fresh(session)
        assert (session.archive_state, session.known_name) == ("complete", "张三")
        assert session.answers.exists()

        clock.set(decided + 30 * DAY + timedelta(seconds=1))
        assert (retain().files, session.assets.get(kind="face").state) == (1, State.ERASED)
        clock.set(decided + 180 * DAY + timedelta(seconds=1))
        assert retain().sessions == 1
        assert stored_files() == []
        assert scenario.fresh(session).known_name is None

    def test_a_match_image_counts_from_the_verdict(self, scenario: Scenario, clock: Any) -> None:
        Plan.objects.filter(plan_id="25004").update(retention={"match_image": 1})
        scenario.plans["25004"] = Plan.objects.get(plan_id="25004")
        session = scenario.start("25004")
        image = session.assets.get()
        assert image.retain_until is None
        clock.advance(minutes=30)
        scenario.finish(session)
        session = scenario.back(session)
        assert session.decided_at is not None
        image.refresh_from_db()
        assert image.retain_until == session.decided_at + DAY

    def test_storage_that_refuses_is_asked_again(self, failing: Any, clock: Any) -> None:
        session = make_passed_session(retain_until=now() + 180 * DAY)
        make_stored_asset(session, Kind.FACE)
        video = make_stored_asset(session, Kind.VIDEO)
        MediaAsset.objects.filter(pk=video.pk).update(retain_until=now())
        clock.advance(seconds=1)
        failing.broken = True
        assert retain() == RetentionReport(files=1, failures=1)
        assert video.stored_name in stored_files()
        assert not MediaAsset.objects.exclude(wrapped_key=None).filter(pk=video.pk).exists()
        failing.broken = False
        clock.advance(INTENT_LIFE + timedelta(seconds=1))
        assert retain() == RetentionReport(uncommitted_files=1)
        assert len(stored_files()) == 1

    def test_a_visit_that_began_before_does_not_bring_the_row_back(
        self,
        failing: Any,
        clock: Any,
    ) -> None:
        session = make_passed_session(retain_until=now() + 180 * DAY)
        video = make_stored_asset(session, Kind.VIDEO)
        lease = Lease(session.pk, session.lease_epoch)
        visit = Visit(lease, session, VisitContext(clients.upstream), assets=session.assets.all())
        with transaction.atomic():
            purge_files("retention", MediaAsset.objects.filter(pk=video.pk), Purged())
        visit.change(next(iter(visit.assets.values())), tries=9)
        with pytest.raises(LeaseLost):
            visit.write()
        video.refresh_from_db()
        assert (video.state, video.wrapped_key, video.tries) == (State.ERASED, None, 0)

    def test_a_run_is_bounded(self, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        session = make_passed_session(retain_until=now() + 180 * DAY)
        for position in range(3):
            make_stored_asset(session, Kind.FRAME, position=position)
        MediaAsset.objects.update(retain_until=now())
        clock.advance(seconds=1)
        monkeypatch.setattr(retention, "BATCH", 2)
        assert [retain().files, retain().files, retain().files] == [2, 1, 0]


class TestRulesThatChange:
    def test_hold_for_older_records_only_when_they_are_applied(self, clock: Any) -> None:
        plan = make_plan()
        decided = now() - 10 * DAY
        session = make_passed_session(plan=plan, decided_at=decided, retain_until=decided + 180 * DAY)
        video, frame, face = (
            make_stored_asset(session, kind) for kind in (Kind.VIDEO, Kind.FRAME, Kind.FACE)
        )
        other = make_passed_session(decided_at=decided, retain_until=decided + 180 * DAY)
        plan.retention, plan.retention_days = {"video": 5, "frame": 0, "face": 20}, 90
        plan.save()
        assert retain() == RetentionReport()

        assert retention_rules.apply_rules(Plan.objects.filter(pk=plan.pk)) == 1
        session.refresh_from_db()
        other.refresh_from_db()
        for asset in (video, frame, face):
            asset.refresh_from_db()
        assert session.retain_until == decided + 90 * DAY
        assert other.retain_until == decided + 180 * DAY
        assert (video.retain_until, frame.retain_until) == (decided + 5 * DAY, now())
        assert face.retain_until == decided + 20 * DAY
        clock.advance(seconds=1)
        assert retain() == RetentionReport(files=2)

        plan.retention, plan.retention_days = {}, None
        plan.save()
        assert retention_rules.apply_rules() == 2
        face.refresh_from_db()
        session.refresh_from_db()
        assert (face.retain_until, session.retain_until) == (None, decided + 180 * DAY)

    def test_leave_undecided_and_erased_records_alone(self, clock: Any) -> None:
        make_session()
        make_erased_session()
        assert retention_rules.apply_rules() == 0
        assert not VerificationSession.objects.filter(retain_until__isnull=False).exists()

    def test_are_applied_in_batches(self, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retention_rules, "BATCH", 2)
        plan = make_plan(retention_days=3)
        for _ in range(5):
            make_passed_session(plan=plan)
        told: list[int] = []
        assert retention_rules.apply_rules(progress=told.append) == 5
        assert told == [2, 4, 5]
        assert VerificationSession.objects.filter(retain_until=now() + 3 * DAY).count() == 5


class TestForecast:
    def test_counts_what_the_next_run_will_delete(self, clock: Any, django_assert_num_queries: Any) -> None:
        plan = make_plan(plan_id="70900")
        whole = make_passed_session(plan=plan, retain_until=now() + timedelta(hours=5))
        make_stored_asset(whole, Kind.FACE, image_bytes())
        # Its own end comes too, and it is counted once.
        twice = make_stored_asset(whole, Kind.FRAME, image_bytes())
        staying = make_passed_session(plan=plan, retain_until=now() + 9 * DAY)
        video = make_stored_asset(staying, Kind.VIDEO)
        make_stored_asset(staying, Kind.FACE)
        make_asset(staying, Kind.ID_BACK)
        MediaAsset.objects.filter(pk__in=(twice.pk, video.pk)).update(retain_until=now() + timedelta(hours=2))
        with django_assert_num_queries(3):
            ahead = forecast(now() + DAY)
        size = len(image_bytes())
        assert video.size is not None
        assert ahead == Forecast(
            now() + DAY,
            records=1,
            lines=[
                ForecastLine("70900", "video", 1, video.size),
                ForecastLine("70900", "face", 1, size),
                ForecastLine("70900", "frame", 1, size),
            ],
        )
        assert (ahead.files, ahead.bytes) == (3, video.size + 2 * size)
        assert forecast(now()).lines == []

        clock.advance(DAY)
        report = retain()
        assert (report.sessions, report.files) == (1, 3)

    def test_without_anything_due_there_is_nothing(self, clock: Any) -> None:
        make_stored_asset(make_passed_session(retain_until=None), Kind.FACE)
        ahead = forecast(now() + 36_000 * DAY)
        assert (ahead.records, ahead.files, ahead.bytes, ahead.lines) == (0, 0, 0, [])
