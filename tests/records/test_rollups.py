"""Roll-ups say what a walk over all rows says: after late verdicts, standstills and rebuilding alike."""

from __future__ import annotations

import math
import random
from collections import Counter
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_faceprint.audit.access import Actor
from django_faceprint.engine import refresh
from django_faceprint.evidence.erasure import erase
from django_faceprint.maintenance.retention import CALLS_KEPT
from django_faceprint.models import (
    Heartbeat,
    MediaAsset,
    Plan,
    Rollup,
    RollupHour,
    StorageBlock,
    UpstreamCall,
    VerificationSession,
)
from django_faceprint.records import rollups
from django_faceprint.records.rollups import HOUR, PERIOD, floor_hour, roll_up
from tests.factories import make_asset, make_call, make_passed_session, make_plan, make_session
from tests.scenario import Scenario

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
SNAPSHOTS = (rollups.OUTLOOK, rollups.RETENTION)
Verdict = VerificationSession.Verdict


def stored() -> dict[tuple[Any, ...], tuple[int, float]]:
    """All that was counted by the hour."""
    return {
        (row.environment, row.hour, row.plan, row.metric, row.key): (row.count, row.total)
        for row in Rollup.objects.exclude(metric__in=SNAPSHOTS)
    }


def walked() -> dict[tuple[Any, ...], int]:
    """The figures as a plain walk over all sessions and calls finds them."""
    found: Counter[tuple[Any, ...]] = Counter()
    for row in VerificationSession.objects.select_related("plan").prefetch_related("assets"):
        where = (row.environment, floor_hour(row.created_at), row.plan_id)
        attempted = (
            row.verdict in (Verdict.PASSED, Verdict.FAILED)
            or row.attempted_at is not None
            or (row.returned_at is not None and (row.decided_at is None or row.returned_at <= row.decided_at))
        )
        found[*where, "verdict", row.verdict] += 1
        found[*where, "archive", row.archive_state] += 1
        found[*where, "demoted", ""] += bool(row.is_demoted)
        found[*where, "attempted", ""] += attempted
        found[*where, "prepared", ""] += attempted or row.is_prepared
        if row.verdict == Verdict.FAILED:
            found[*where, "failed", f"{row.error_class}|{row.error_code}"] += 1
            found[*where, "stage", stage_of(row)] += 1
        decided = row.verdict in (Verdict.PASSED, Verdict.FAILED)
        if decided and row.score is not None and row.plan.match_source != Plan.MatchSource.LIVENESS_ONLY:
            found[*where, "score", f"{row.verdict}|{min(math.floor(row.score / 5), 19):02d}"] += 1
        if row.archive_state == "complete" and row.archived_at:
            late = [a for a in row.assets.all() if a.archived_at and a.archived_at > a.deadline]
            found[*where, "late", ""] += bool(late)
            took = row.archived_at - min(filter(None, (row.verified_at, row.decided_at)))
            slot = sum(took.total_seconds() > end for end in rollups.TIMES_TO_ARCHIVE)
            found[*where, "time_to_archive", str(slot)] += 1
    for call in UpstreamCall.objects.all():
        slot = sum(call.latency > end for end in rollups.LATENCIES)
        key = f"{call.endpoint}|{call.outcome}|{slot}"
        found[call.environment, floor_hour(call.at), 0, "call", key] += 1
    return {key: number for key, number in found.items() if number}


def stage_of(row: VerificationSession) -> str:
    if row.stat:
        return "ocr"
    return "liveness" if row.error_code == "223120" else "comparison"


def assert_same() -> None:
    assert {key: number for key, (number, _) in stored().items()} == walked()


def next_run(clock: Any, later: timedelta = PERIOD) -> rollups.RollupReport:
    clock.advance(later)
    return roll_up()


def settle(session: VerificationSession, **columns: Any) -> None:
    VerificationSession.objects.filter(pk=session.pk).update(wake_at=None, priority_at=None, **columns)


def random_history(clock: Any, run: random.Random, hours: int, *, counting: bool) -> None:
    """Sessions begin, return, are decided at any later time, and their archives complete or are lost."""
    plans = [make_plan(), make_plan(match_source="liveness_only", identity_entry="none")]
    waiting: list[VerificationSession] = []
    seeds = count()
    for _ in range(hours * 4):
        clock.advance(minutes=run.randint(3, 25))
        for _ in range(run.randint(0, 3)):
            session = make_session(
                age=timedelta(0), plan=run.choice(plans), environment=run.choice(["live", "sandbox"])
            )
            VerificationSession.objects.filter(pk=session.pk).update(wake_at=clock() + HOUR)
            waiting.append(session)
            make_call(session, at=clock(), latency=run.choice([0.05, 0.3, 2.0, 45.0]))
        for session in [item for item in waiting if run.random() < 0.15]:
            waiting.remove(session)
            decide(session, run, clock, next(seeds))
        if counting and run.random() < 0.6:
            roll_up()


def decide(session: VerificationSession, run: random.Random, clock: Any, seed: int) -> None:
    moment = clock()
    verdict = run.choice([*Verdict.values][1:])
    columns: dict[str, Any] = {"verdict": verdict, "decided_at": moment, "archive_state": "not_applicable"}
    if verdict == Verdict.PASSED:
        asset = make_asset(session, "face", state="stored", size=100 + seed, archived_at=moment)
        late = run.random() < 0.3
        if late:
            MediaAsset.objects.filter(pk=asset.pk).update(deadline=moment - MINUTE)
        columns |= {
            "archive_state": run.choice(["complete", "partial", "lost"]),
            "archived_at": moment + timedelta(seconds=run.choice([3, 40, 4000, 100_000])),
            "verified_at": run.choice([None, moment - timedelta(seconds=5)]),
            "score": run.choice([80.0, 84.4, 99.99, 100.0]),
            "is_demoted": run.choice([True, False, None]),
        }
    elif verdict == Verdict.FAILED:
        code = run.choice(["223120", "222351", ""])
        columns |= {
            "error_code": code,
            "error_class": "verification_failed" if code else "",
            "score": run.choice([0.0, 4.99, 5.0, 79.99]),
            "threshold": 80.0,
            "stat": run.choice(
                [
                    None,
                    {
                        "OCR": [{"error_code": "0", "count": 1}, {"error_code": "216630", "count": 2}],
                        "verify": [{"error_code": "0", "count": 1}],
                    },
                ]
            ),
        }
    settle(session, **columns)


@pytest.mark.parametrize("seed", range(2))
def test_catching_up_and_rebuilding_agree_with_a_count_in_python(clock: Any, seed: int) -> None:
    run = random.Random(seed)
    random_history(clock, run, 24, counting=True)
    # All that is late has come, and one more run sees it.
    roll_up()
    clock.advance(days=2)
    roll_up()
    assert_same()
    caught_up = stored()
    assert len({key[1] for key in caught_up}) > 20
    Rollup.objects.all().delete()
    rollups.rebuild()
    assert stored() == caught_up
    # And again: nothing counts twice.
    rollups.rebuild()
    assert stored() == caught_up


def test_a_day_without_workers_is_made_up_for(clock: Any) -> None:
    random_history(clock, random.Random(7), 4, counting=True)
    random_history(clock, random.Random(8), 30, counting=False)
    report = next_run(clock)
    assert report.left == 0
    assert report.hours > 24
    assert_same()


def test_a_verdict_that_comes_hours_later_counts_once_and_in_its_hour(clock: Any) -> None:
    hour = floor_hour(clock())
    session = make_session(age=timedelta(0), wake_at=clock() + HOUR)
    roll_up()
    plan = session.plan_id
    assert stored()["sandbox", hour, plan, "verdict", "pending"] == (1, 0.0)
    clock.advance(hours=9)
    roll_up()
    settle(session, verdict="passed", decided_at=clock(), score=90.0)
    next_run(clock, HOUR)
    verdicts = {key: number for key, (number, _) in stored().items() if key[3] == "verdict"}
    assert verdicts == {("sandbox", hour, plan, "verdict", "passed"): 1}
    # With nothing left to come, the hour is not read any more.
    assert RollupHour.objects.get(hour=hour).due_at is None


def test_hours_with_work_left_are_counted_ever_more_seldom(clock: Any) -> None:
    make_session(age=timedelta(0), wake_at=clock() + timedelta(days=3))
    hour = floor_hour(clock())
    looks = 0
    for _ in range(24 * 12):
        before = RollupHour.objects.filter(hour=hour).values_list("due_at", flat=True).first()
        next_run(clock)
        after = RollupHour.objects.get(hour=hour).due_at
        assert after is not None
        looks += before != after
    # Each of the first four hours has twelve runs; then every twenty-fourth of its age.
    assert 48 + 24 <= looks <= 48 + 60


def test_an_erased_record_keeps_its_counts_and_a_pending_one_gets_its_end(clock: Any) -> None:
    make_passed_session(age=timedelta(0), error_code="")
    pending = make_session(age=timedelta(0), wake_at=clock() + HOUR)
    roll_up()
    erase(VerificationSession.objects.all(), reason="asked for it", actor=Actor("tester", "command"))
    next_run(clock)
    assert_same()
    assert [key[4] for key in stored() if key[3] == "verdict" and key[2] == pending.plan_id] == ["unknown"]
    before = stored()
    rollups.rebuild()
    assert stored() == before


def test_archiving_again_is_seen_though_the_hour_was_settled(
    clock: Any, sandbox: Any, plans: dict[str, Plan]
) -> None:
    session = make_passed_session(age=timedelta(0), archive_state="partial")
    make_asset(session, "face", state="lost")
    roll_up()
    clock.advance(hours=6)
    roll_up()
    assert RollupHour.objects.get(hour=floor_hour(session.created_at)).due_at is None
    session.refresh_from_db()
    assert refresh.recollect(session)
    next_run(clock)
    assert_same()
    assert ("sandbox", floor_hour(session.created_at), session.plan_id, "archive", "collecting") in stored()


def test_a_run_whose_time_is_up_leaves_the_rest_to_the_next(clock: Any) -> None:
    for hours in range(1, 11):
        make_passed_session(age=hours * HOUR)
    ticks = count()
    report = roll_up(budget=timedelta(seconds=5), monotonic=lambda: float(next(ticks)))
    assert report.hours == 4
    assert report.left == 7
    assert not Heartbeat.objects.filter(name="rollup").exists()
    # The newest come first.
    assert sum(row.count for row in Rollup.objects.filter(metric="verdict")) == 3
    assert rollups.hours_behind() == 0
    assert next_run(clock).left == 0
    assert_same()
    assert Heartbeat.objects.get(name="rollup").at == clock()
    clock.advance(minutes=20)
    assert rollups.hours_behind() > 0


def test_a_worker_that_lost_its_hour_to_another_writes_nothing(clock: Any) -> None:
    make_passed_session(age=timedelta(0))

    def lose_the_hour(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "GROUP BY" in sql and "faceprint_verificationsession" in sql:
            # Another worker has taken the hour while this one counts its sessions.
            RollupHour.objects.filter(hour=floor_hour(clock())).update(due_at=clock() - MINUTE)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(lose_the_hour):
        assert roll_up().hours == 0
    assert stored() == {}
    next_run(clock)
    assert_same()


def test_old_calls_stay_counted_when_their_rows_are_gone(clock: Any) -> None:
    make_call(at=clock(), latency=0.2)
    make_call(at=clock(), latency=31.5, outcome="transport")
    hour = floor_hour(clock())
    next_run(clock)
    expected = {
        ("sandbox", hour, 0, "call", "result_detail|ok|1"): (1, 0.2),
        ("sandbox", hour, 0, "call", "result_detail|transport|8"): (1, 31.5),
    }
    assert stored() == expected
    clock.advance(CALLS_KEPT + HOUR)
    UpstreamCall.objects.all().delete()
    roll_up()
    rollups.rebuild()
    assert stored() == expected


def test_hours_that_are_too_old_are_deleted(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "KEPT", timedelta(days=3))
    make_passed_session(age=timedelta(0))
    roll_up()
    clock.advance(rollups.KEPT + HOUR)
    for _ in range(2):
        roll_up()
    assert stored() == {}
    assert RollupHour.objects.order_by("hour").first().hour >= floor_hour(clock()) - rollups.KEPT  # type: ignore[union-attr]


def test_storage_is_summed_in_blocks(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "BLOCK", 3)
    monkeypatch.setattr(rollups, "BLOCKS_PER_RUN", 2)
    session = make_passed_session()
    files = [
        make_asset(session, "frame", position=number, state="stored", size=10 ** (number % 5))
        for number in range(14)
    ]
    for _ in range(4):
        next_run(clock)
    total = sum(asset.size or 0 for asset in files)
    assert (rollups.storage().files, rollups.storage().bytes) == (14, total)
    MediaAsset.objects.filter(pk=files[0].pk).update(state="erased")
    for _ in range(4):
        next_run(clock)
    assert (rollups.storage().files, rollups.storage().bytes) == (13, total - 1)
    assert rollups.storage().since >= clock() - 4 * PERIOD  # type: ignore[operator]
    StorageBlock.objects.all().delete()
    rollups.rebuild()
    assert rollups.storage().bytes == total - 1


def test_the_stock_is_that_of_the_last_run(clock: Any) -> None:
    make_session(wake_at=clock() + HOUR, next_deadline=clock(), age=timedelta(0))
    make_passed_session(retain_until=clock() + timedelta(days=3))
    make_passed_session(retain_until=clock() - timedelta(hours=2))
    roll_up()
    counts = rollups.read(rollups.SPANS["24h"])
    assert counts.stock["forecast"]["asleep"] == 1
    assert counts.stock["retention"] == {"due": 1, "overdue": 1}
    assert counts.stock_hour == floor_hour(clock())
    VerificationSession.objects.update(retain_until=None)
    next_run(clock, 2 * HOUR)
    assert rollups.read(rollups.SPANS["24h"]).stock["retention"] == {"due": 0, "overdue": 0}


def test_reading_sums_hours_plans_and_leaves_the_other_environment_out(clock: Any) -> None:
    plan = make_plan()
    make_passed_session(plan=plan, age=3 * HOUR)
    make_passed_session(plan=plan, age=30 * HOUR)
    make_passed_session(age=3 * HOUR, environment="live")
    failed = make_session(age=HOUR, verdict="failed", error_class="verification_failed", error_code="223120")
    make_call(at=clock())
    roll_up()
    day = rollups.read(rollups.SPANS["24h"])
    assert day.counts["verdict"] == {"passed": 1, "failed": 1}
    assert day.verdicts == {
        floor_hour(clock()) - 3 * HOUR: {"passed": 1},
        floor_hour(clock()) - HOUR: {"failed": 1},
    }
    assert day.of("failed", "verification_failed|223120") == 1
    assert day.all_of("call") == 1
    week = rollups.read(rollups.SPANS["7d"], plan.pk)
    assert week.counts["verdict"] == {"passed": 2}
    assert week.all_of("call") == 1
    assert rollups.read(rollups.SPANS["7d"], failed.plan_id).counts["stage"] == {"liveness": 1}


def test_the_queries_of_a_run_do_not_grow_with_the_rows(clock: Any) -> None:
    plan = make_plan()
    asked = []
    for number in (10, 1_000):
        session = make_session(age=timedelta(0), plan=plan, verdict="failed", error_code="223120")
        fields = {
            field.name: getattr(session, field.name)
            for field in VerificationSession._meta.concrete_fields
            if field.name not in ("id", "public_id", "verify_token", "verify_token_index")
        }
        VerificationSession.objects.bulk_create(VerificationSession(**fields) for _ in range(number))
        next_run(clock)
        with CaptureQueriesContext(connection) as queries:
            next_run(clock)
        asked.append(len(queries))
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({}, 0.5, None),
        ({0: 9, 3: 1}, 0.9, 0.1),
        ({0: 9, 3: 1}, 0.95, 1.0),
        ({8: 1}, 0.5, math.inf),
    ],
)
def test_percentiles_are_ends_of_buckets(
    buckets: dict[int, int], share: float, expected: float | None
) -> None:
    assert rollups.percentile(buckets, rollups.LATENCIES, share) == expected


def test_the_whole_journey_is_counted(scenario: Scenario, clock: Any) -> None:
    """Real sessions, through the sandbox: one passes and is archived, one fails, one never comes."""
    passes, fails, _absent = scenario.start(), scenario.start(), scenario.start()
    roll_up()
    scenario.finish(passes)
    scenario.finish(fails, "fail")
    for hours in (1, 3, 30):
        clock.advance(hours=hours)
        scenario.work()
        roll_up()
    assert_same_without_stage()
    counts = rollups.read(rollups.SPANS["7d"])
    assert counts.counts["verdict"] == {"passed": 1, "failed": 1, "expired": 1}
    assert counts.of("archive", "complete") >= 1
    assert counts.all_of("call") > 5


def assert_same_without_stage() -> None:
    assert {key: number for key, (number, _) in stored().items() if key[3] != "stage"} == {
        key: number for key, number in walked().items() if key[3] != "stage"
    }
