"""Sample records: they equal records of the package itself, and can be removed completely."""

from __future__ import annotations

import io
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import CharField, Count, Model, Q
from PIL import Image

from django_faceprint.clock import now
from django_faceprint.devtools import sample_data
from django_faceprint.engine import queue
from django_faceprint.evidence.thumbnails import open_thumbnail_of
from django_faceprint.exceptions import FaceprintConfigurationError
from django_faceprint.models import (
    AccessLog,
    ConsentRecord,
    MediaAsset,
    Plan,
    Rollup,
    UpstreamCall,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.privacy.files import unwrap_file_key
from django_faceprint.records import rollups
from django_faceprint.records.lookup import look_up
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]

MODELS: tuple[type[Model], ...] = (
    *(VerificationSession, MediaAsset, VerificationAttempt, ConsentRecord, UpstreamCall),
)
Verdict = VerificationSession.Verdict
State = MediaAsset.State


def contents() -> list[dict[str, Any]]:
    """All sample records, decrypted."""
    return [
        {
            "reference": row.reference,
            "public_id": row.public_id,
            "created_at": row.created_at,
            "plan": row.plan.plan_id,
            "verdict": row.verdict,
            "score": row.score,
            "person": (row.known_name, row.known_number, row.certificate_type),
            "files": [(file.public_id, file.kind, file.state, file.sha256) for file in row.assets.all()],
        }
        for row in sample_data.sample_records()
        .select_related("plan")
        .prefetch_related("assets")
        .order_by("reference")
    ]


@pytest.fixture
def many(clock: Any) -> None:
    sample_data.fill(1_500, batch=400, files="all", thumbnails=40)


# --- what there is ------------------------------------------------------------------------------


@pytest.mark.usefixtures("many")
def test_every_kind_of_record_has_a_likely_share() -> None:
    rows = sample_data.sample_records()
    assert rows.count() == VerificationSession.objects.count() == 1_500
    assert set(rows.values_list("environment", flat=True)) == {"sandbox"}
    verdicts = Counter(rows.values_list("verdict", flat=True))
    assert set(verdicts) == set(Verdict.values)
    assert 0.7 < verdicts["passed"] / 1_500 < 0.85
    assert 0.08 < verdicts["failed"] / 1_500 < 0.16
    assert set(rows.values_list("plan__plan_id", flat=True)) == set(sample_data.PLANS)
    states = set(rows.values_list("archive_state", flat=True))
    assert states >= {"complete", "partial", "lost", "not_applicable", "waiting"}
    assert set(MediaAsset.objects.values_list("state", flat=True)) >= {
        *(State.STORED, State.LOST, State.NOT_PROVIDED, State.ERASED)
    }
    assert set(MediaAsset.objects.values_list("kind", flat=True)) == set(MediaAsset.Kind) - {"thumbnail"}
    assert len(set(rows.values_list("error_code", flat=True))) > 12
    assert set(rows.values_list("error_class", flat=True)) >= {"", "verification_failed", "retry", "gone"}
    assert set(rows.values_list("is_demoted", flat=True)) == {True, False, None}
    assert set(rows.values_list("certificate_type", flat=True)) == {0, 1, 2, 3, None}
    assert VerificationAttempt.objects.filter(order__gt=1).exists()


@pytest.mark.usefixtures("many")
def test_records_spread_over_the_years_and_over_the_day() -> None:
    rows = sample_data.sample_records()
    moment = now()
    assert not rows.filter(created_at__gt=moment).exists()
    assert not rows.filter(created_at__lt=moment - timedelta(days=731)).exists()
    halves = rows.aggregate(
        old=Count("pk", filter=Q(created_at__lt=moment - timedelta(days=365))),
        new=Count("pk", filter=Q(created_at__gte=moment - timedelta(days=365))),
    )
    assert 500 < halves["old"] < halves["new"] < 1_000
    # 09:00 to 18:00 in Shanghai.
    by_day = sum(1 <= at.hour < 10 for at in rows.values_list("created_at", flat=True))
    assert by_day > 900
    # Keys follow time, as where records are made one after the other.
    assert list(rows.order_by("pk").values_list("pk", flat=True)) == list(
        rows.order_by("created_at", "pk").values_list("pk", flat=True)
    )


def test_a_few_records_of_the_last_day_are_unfinished() -> None:
    sample_data.fill(2_000, years=2 / 365, files="all")
    moment = now()
    day = sample_data.sample_records().filter(created_at__gte=moment - timedelta(days=1))
    open_states = ("waiting", "collecting")
    waiting = day.filter(archive_state__in=open_states)
    assert 0.01 <= waiting.count() / day.count() <= 0.05
    assert set(waiting.values_list("archive_state", flat=True)) == set(open_states)
    started = waiting.exclude(token_answered_at=None)
    assert started.exists()
    assert not started.filter(next_deadline=None).exists()
    assert (
        not sample_data.sample_records()
        .exclude(archive_state__in=open_states)
        .exclude(next_deadline=None)
        .exists()
    )
    wanted = MediaAsset.objects.wanted()
    assert wanted.exists()
    assert set(wanted.values_list("session__archive_state", flat=True)) == {"collecting"}
    assert not wanted.filter(deadline__lt=moment).exists()
    assert UpstreamCall.objects.filter(session__in=day).exists()
    # No worker asks the sandbox about what it does not know.
    assert not sample_data.sample_records().outstanding().exists()
    assert queue.promote(moment + timedelta(days=9)) == 0
    assert queue.claim(moment, limit=8) == []


@pytest.mark.usefixtures("many")
def test_times_of_a_record_are_in_order_and_in_the_past() -> None:
    moment = now()
    for row in sample_data.sample_records().exclude(verified_at=None):
        times = [
            *(row.created_at, row.token_requested_at, row.token_answered_at, row.returned_at),
            *(row.decided_at, row.archived_at),
        ]
        known = [at for at in times if at is not None]
        assert known == sorted(known)
        assert known[-1] <= moment
        assert row.erased_at is None or row.decided_at < row.erased_at < moment
        assert row.retain_until is None or row.retain_until > moment


# --- the package reads what was written -----------------------------------------------------------


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_value_is_valid_for_its_field(model: type[Model]) -> None:
    rows = model._default_manager.all()[:400]
    assert rows
    for row in rows:
        for item in model._meta.concrete_fields:
            # Decrypts, where the column is encrypted.
            value = getattr(row, item.attname)
            if isinstance(item, CharField) and value:
                assert len(value) <= (item.max_length or 0), item.name
                assert not item.choices or value in dict(item.flatchoices), item.name


@pytest.mark.usefixtures("many")
def test_people_are_found_by_name_and_number_and_some_come_repeatedly() -> None:
    rows = sample_data.sample_records().exclude(number_index="")
    assert rows.exists()
    for row in rows.order_by("pk")[:50]:
        assert row.known_name
        assert row.known_number
        assert row.known_name not in row.masked_name
        for text in filter(None, (row.known_name, row.known_number, row.verify_token)):
            assert row.pk in look_up(text).keys
        assert look_up(row.reference).keys == {row.pk}
    often = rows.values("number_index").annotate(count=Count("pk")).filter(count__gt=2)
    assert often.exists()
    # The numbers are nobody's: no region begins with 99.
    numbers = [row.known_number or "" for row in rows.filter(certificate_type=0)]
    assert all(number.startswith("99") and len(number) == 18 for number in numbers)


@pytest.mark.usefixtures("many")
def test_files_have_keys_and_the_newest_records_a_thumbnail() -> None:
    stored = MediaAsset.objects.stored()
    for asset in stored[:100]:
        assert len(unwrap_file_key(bytes(asset.wrapped_key or b""), asset.public_id)) == 32
        assert len(asset.sha256) == 64
        assert asset.stored_name.startswith(sample_data.PREFIX)
    pictured = stored.exclude(thumbnail=None)
    newest = sample_data.sample_records().order_by("-pk")[:40]
    assert set(pictured.values_list("session", flat=True)) <= {row.pk for row in newest}
    assert pictured.count() > 20
    for asset in pictured:
        with Image.open(io.BytesIO(open_thumbnail_of(asset) or b"")) as image:
            assert max(image.size) <= 32


@pytest.mark.usefixtures("many")
def test_erased_records_have_no_personal_data() -> None:
    erased = sample_data.sample_records().exclude(erased_at=None)
    assert erased.exists()
    for row in erased:
        assert (row.known_name, row.known_number, row.verify_token, row.ocr) == (None, None, None, None)
        assert (row.name_index, row.number_index, row.verify_token_index) == ("", "", None)
        assert not row.assets.filter(state__in=(State.STORED, State.WANTED)).exists()
    assert not MediaAsset.objects.filter(state=State.ERASED).exclude(wrapped_key=None, sha256="").exists()


@pytest.mark.usefixtures("many")
def test_records_of_liveness_plans_have_no_identity() -> None:
    rows = sample_data.sample_records().filter(plan__match_source=Plan.MatchSource.LIVENESS_ONLY)
    assert rows.exists()
    assert not rows.exclude(score=None, number_index="", identity_number__isnull=True).exists()
    colourful = sample_data.sample_records().filter(
        plan__liveness=Plan.Liveness.COLORFUL, verdict=Verdict.PASSED
    )
    assert set(colourful.values_list("liveness_score", flat=True)) == {0.0}


# --- runs -----------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_records() -> None:
    sample_data.fill(60, seed=7)
    before = contents()
    sample_data.remove()
    sample_data.fill(60, seed=7, batch=13)
    assert contents() == before
    sample_data.remove()
    sample_data.fill(60, seed=8)
    assert {row["public_id"] for row in contents()}.isdisjoint(row["public_id"] for row in before)


def test_a_further_run_continues_with_the_same_plans() -> None:
    sample_data.fill(30)
    sample_data.fill(20)
    assert [row["reference"][-8:] for row in contents()] == [f"{number:08d}" for number in range(1, 51)]
    assert Plan.objects.count() == 5
    assert not Plan.objects.active().exists()
    # Nor does a removal that was stopped make two of one number.
    sample_data.remove(batch=10, stop=lambda: sample_data.sample_records().count() < 45)
    sample_data.fill(20)
    assert [int(row["reference"][-8:]) for row in contents()] == list(range(11, 71))


@pytest.mark.parametrize(("files", "least", "most"), [("none", 0, 0), ("main", 1, 2), ("all", 3, 8)])
def test_the_number_of_files_can_be_chosen(files: sample_data.Files, least: int, most: int) -> None:
    done = sample_data.fill(300, files=files)
    assert done.sessions == 300
    assert done.files == MediaAsset.objects.count()
    assert least * 300 <= done.files <= most * 300
    assert done.attempts == VerificationAttempt.objects.count() > 250


def test_a_run_stops_between_two_batches() -> None:
    seen: list[int] = []
    sample_data.fill(
        100, batch=20, progress=lambda done: seen.append(done.sessions), stop=lambda: len(seen) == 2
    )
    assert seen == [20, 40]
    assert sample_data.sample_records().count() == 40


def test_removing_deletes_all_sample_records_and_nothing_else() -> None:
    own = factories.make_passed_session(reference="fill-1-00000001")
    asset = factories.make_stored_asset(own, "face")
    factories.make_call(own)
    sample_data.fill(50, years=0.02)
    AccessLog.objects.create(
        actor_id="1", actor_name="a", action="view_record", channel="admin", session_id=own.public_id
    )
    # The plan of a record that somebody else made stays, too.
    other = factories.make_session(plan=Plan.objects.get(plan_id="99250001"), reference="A-1")
    done = sample_data.remove(batch=20)
    assert done.sessions == 50
    assert set(VerificationSession.objects.all()) == {own, other}
    assert MediaAsset.objects.get() == asset
    assert UpstreamCall.objects.count() == AccessLog.objects.count() == 1
    assert not ConsentRecord.objects.exists()
    assert set(Plan.objects.filter(plan_id__in=sample_data.PLANS)) == {other.plan}


def test_removing_deletes_real_files_of_sample_records() -> None:
    from django_faceprint.evidence.files import storage

    sample_data.fill(5, files="none")
    asset = factories.make_stored_asset(sample_data.sample_records()[0], "match_image")
    assert storage().exists(asset.stored_name)
    sample_data.remove()
    assert not storage().exists(asset.stored_name)


# --- where ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [lambda: sample_data.fill(1), sample_data.remove], ids=["fill", "remove"])
def test_outside_of_a_sandbox_nothing_is_made_or_removed(settings: Any, action: Any) -> None:
    sandbox = settings.FACEPRINT
    settings.FACEPRINT = {**sandbox, "API_URL": "https://aip.baidubce.com"}
    with pytest.raises(FaceprintConfigurationError, match="sandbox"):
        action()
    settings.FACEPRINT = sandbox
    settings.DEBUG = False
    with pytest.raises(FaceprintConfigurationError, match="DEBUG"):
        action()
    assert not VerificationSession.objects.exists()
    assert not Plan.objects.exists()


def test_the_dashboard_counts_sample_records_until_they_are_removed(clock: Any) -> None:
    own = factories.make_passed_session()
    rollups.rebuild()
    before = counted()
    sample_data.fill(60, years=0.02)
    rollups.roll_up()
    assert counted() == before + 60
    sample_data.remove()
    rollups.roll_up()
    assert counted() == before == 1
    assert VerificationSession.objects.get() == own


def counted() -> int:
    return sum(Rollup.objects.filter(metric=rollups.VERDICT).values_list("count", flat=True))
