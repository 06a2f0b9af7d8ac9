"""Filters as plain words: each selects what it says, and what is not understood selects nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from django.utils import timezone

from django_faceprint.clock import now
from django_faceprint.models import MediaAsset, VerificationAttempt, VerificationSession
from django_faceprint.records.filters import FILTERS, Selection
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]


def references(**parameters: str) -> set[str]:
    selection = Selection(parameters)
    assert selection.problems == []
    return set(selection.queryset().values_list("reference", flat=True))


@pytest.fixture
def records() -> None:
    """One record for each thing to filter by."""
    colourful = factories.make_plan(plan_id="20001", liveness="colorful")
    factories.make_passed_session(
        reference="passed",
        plan=colourful,
        purpose="loan",
        spoofing_score=0.2,
        certificate_type=2,
        retain_until=now() + timedelta(days=3),
        age=timedelta(hours=1),
    )
    failed = factories.make_session(
        reference="failed",
        verdict="failed",
        archive_state="complete",
        score=62.5,
        liveness_score=0.2,
        is_demoted=True,
        error_class="verification_failed",
        error_code="222351",
        retain_until=now() - timedelta(days=1),
        age=timedelta(hours=2),
    )
    for order in (1, 2, 3):
        VerificationAttempt.objects.create(session=failed, order=order, passed=False)
    late = factories.make_passed_session(
        reference="late", archive_state="collecting", age=timedelta(hours=20)
    )
    factories.make_asset(late, "video")
    factories.make_session(reference="waiting", returned_at=now(), age=timedelta(minutes=10))
    factories.make_session(
        reference="live",
        environment="live",
        application="second",
        verdict="expired",
        archive_state="not_applicable",
        erased_at=now(),
        age=timedelta(days=3),
    )
    factories.make_session(reference="old", verdict="unknown", archive_state="lost", age=timedelta(days=20))


RECENT = {"passed", "failed", "late", "waiting", "live"}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, RECENT),
        ({"created": "7d"}, RECENT),
        ({"created": "24h"}, RECENT - {"live"}),
        ({"created": "30d"}, RECENT | {"old"}),
        ({"created": "all"}, RECENT | {"old"}),
        ({"status": "verifying"}, {"waiting"}),
        ({"status": "passed,abandoned"}, {"passed", "late", "live"}),
        ({"verdict": "failed"}, {"failed"}),
        ({"verdict": "failed,passed"}, {"failed", "passed", "late"}),
        ({"archive_state": "lost"}, set()),
        ({"archive_state": "lost", "created": "all"}, {"old"}),
        ({"left": "6h"}, {"late"}),
        ({"left": "24h"}, {"late", "waiting"}),
        ({"left": "over"}, set()),
        ({"liveness": "colorful"}, {"passed"}),
        ({"liveness": "image"}, set()),
        ({"purpose": "loan"}, {"passed"}),
        ({"purpose": "LOAN"}, set()),
        ({"reference": "old"}, {"old"}),
        ({"application": "second"}, {"live"}),
        ({"environment": "live"}, {"live"}),
        ({"certificate_type": "2"}, {"passed"}),
        ({"score_min": "80"}, {"passed", "late"}),
        ({"score_min": "60", "score_max": "70"}, {"failed"}),
        ({"liveness_max": "0.5"}, {"failed"}),
        ({"spoofing_min": "0.1"}, {"passed"}),
        ({"error_class": "verification_failed"}, {"failed"}),
        ({"error_class": "none", "verdict": "passed"}, {"passed", "late"}),
        ({"error_code": "222351"}, {"failed"}),
        ({"attempts": "1"}, {"failed"}),
        ({"attempts": "3"}, {"failed"}),
        ({"attempts": "4"}, set()),
        ({"is_demoted": "1"}, {"failed"}),
        ({"is_demoted": "0"}, {"passed", "late"}),
        ({"retention": "7d"}, {"passed", "failed"}),
        ({"retention": "over"}, {"failed"}),
        ({"retention": "none"}, {"late", "waiting"}),
        ({"erased": "1"}, {"live"}),
        ({"erased": "0"}, RECENT - {"live"}),
        ({"verdict": ""}, RECENT),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_each_filter_selects_its_records(
    records: None, parameters: dict[str, str], expected: set[str], settings: Any
) -> None:
    applications = settings.FACEPRINT["APPLICATIONS"]
    settings.FACEPRINT = settings.FACEPRINT | {
        "APPLICATIONS": applications | {"second": applications["default"]}
    }
    assert references(**parameters) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("created", "nonsense"),
        ("since", "yesterday"),
        ("since", "2026-02-30"),
        ("since", "0001-01-01"),
        ("until", "9999-12-31"),
        ("until", "2026-01-01T00:00:00"),
        ("status", "passed,"),
        ("status", "x"),
        ("verdict", "passed;drop"),
        ("archive_state", "__all__"),
        ("left", "1h"),
        ("plan", "x"),
        ("plan", "-1"),
        ("plan", "99999999999999999999"),
        ("plan", "1" * 5000),
        ("liveness", "x"),
        ("purpose", "x\x00"),
        ("purpose", "x" * 101),
        ("application", "x"),
        ("certificate_type", "9"),
        ("certificate_type", "²"),
        ("score_min", "nan"),
        ("score_max", "inf"),
        ("score_max", "1e999"),
        ("error_class", "x"),
        ("attempts", "0"),
        ("attempts", "1000000"),
        ("is_demoted", "yes"),
        ("retention", "1d"),
        ("erased", "2"),
        ("rows", "1,x"),
        ("rows", ",".join(map(str, range(1, 600)))),
        ("number_index", "x"),
        ("verdict__regex", "["),
        ("pk", "1"),
    ],
)
def test_an_unknown_value_selects_nothing(records: None, name: str, text: str) -> None:
    selection = Selection({name: text, "created": "all"} if name != "created" else {name: text})
    assert selection.problems == [name]
    assert not selection.queryset().exists()
    frozen = Selection.from_json(selection.frozen().to_json())
    assert frozen.problems == [name]
    assert not frozen.queryset().exists()


def test_a_day_is_one_of_the_readers_zone() -> None:
    for hour in (15, 16, 17):
        at = datetime(2026, 3, 9, hour, 30, tzinfo=UTC)
        factories.make_session(reference=f"{hour}", created_at=at)
    with timezone.override("Asia/Shanghai"):
        assert references(since="2026-03-10", until="2026-03-10") == {"16", "17"}
        assert references(until="2026-03-09") == {"15"}
    with timezone.override("UTC"):
        assert references(since="2026-03-10") == set()


def test_a_frozen_selection_stays_the_same(records: None, clock: Any) -> None:
    with timezone.override("Asia/Shanghai"):
        for parameters in ({"created": "today"}, {"created": "24h"}, {"left": "24h"}, {"retention": "7d"}):
            selection = Selection(parameters)
            before = set(selection.queryset().values_list("pk", flat=True))
            kept = selection.frozen().to_json()
            factories.make_passed_session(reference="later", retain_until=now())
            clock.advance(timedelta(days=2))
            with timezone.override("America/New_York"):
                after = Selection.from_json(kept)
                assert set(after.queryset().values_list("pk", flat=True)) == before
            clock.advance(timedelta(days=-2))
            VerificationSession.objects.filter(reference="later").delete()


def test_a_frozen_selection_may_be_frozen_again(records: None) -> None:
    once = Selection({"verdict": "passed"}).frozen()
    factories.make_passed_session()
    assert once.frozen().to_json() == once.to_json()


def test_every_status_is_that_of_the_row() -> None:
    """The condition in the database and the property in Python are the same thing said twice."""
    plans = [
        factories.make_plan(identity_entry="specified", match_source="match_image"),
        factories.make_plan(identity_entry="ocr", match_source="authority"),
    ]
    moment = now()
    for plan, verdict, issued, identity, image, returned, adopted, attempted in product(
        plans, VerificationSession.Verdict.values, *[(None, moment)] * 5, (False, True)
    ):
        session = factories.make_session(
            plan=plan, verdict=verdict, identity_name=None, identity_number=None, returned_at=returned
        )
        VerificationSession.objects.filter(pk=session.pk).update(
            token_answered_at=issued,
            identity_accepted_at=identity,
            match_image_accepted_at=image,
            adopted_at=adopted,
            attempted_at=moment if attempted else None,
        )
    counted = 0
    for status in VerificationSession.Status.values:
        found = set(Selection({"status": status}).queryset().values_list("pk", flat=True))
        expected = {
            session.pk
            for session in VerificationSession.objects.select_related("plan")
            if session.status == status
        }
        assert found == expected, status
        assert found
        counted += len(found)
    assert counted == VerificationSession.objects.count()


def test_the_filter_by_time_left_agrees_with_the_statistics(records: None) -> None:
    from django_faceprint.records import statistics

    for name, span in (("6h", timedelta(hours=6)), ("24h", timedelta(hours=24))):
        selected = Selection({"left": name, "created": "all"}).queryset()
        assert selected.count() == statistics.at_risk(span)
    assert MediaAsset.objects.wanted().count() == 1


def test_the_filters_name_no_person() -> None:
    assert not [name for name in FILTERS if "index" in name or "number" in name or name.endswith("_name")]
