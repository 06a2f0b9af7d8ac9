"""Keys that are replaced while everything goes on: in the end all opens with the new ones alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from django.db.models import QuerySet

from django_faceprint.evidence.files import open_stored
from django_faceprint.exceptions import FaceprintConfigurationError, InvalidInput
from django_faceprint.maintenance import rotation
from django_faceprint.maintenance.rotation import RotationReport, rotate_keys
from django_faceprint.models import AccessToken, MediaAsset, UpstreamAnswer, VerificationSession
from django_faceprint.privacy.blind_index import blind_index_candidates
from django_faceprint.privacy.fields import encrypted_fields
from django_faceprint.privacy.keys import encryption_ring, index_ring
from django_faceprint.verification import Adoption, Consent, adopt, h5_url
from django_faceprint.verification.consent import of_session
from tests.factories import NAME, NUMBER, make_passed_session, make_plan, make_session, make_stored_asset
from tests.scenario import Scenario
from tests.settings import fixed_key

OLD, OLD_INDEX, NEW, NEW_INDEX = fixed_key(1), fixed_key(2), fixed_key(11), fixed_key(12)

Keys = Callable[..., None]


@pytest.fixture
def keys(settings: Any) -> Keys:
    """``keys(NEW, OLD, index=[NEW_INDEX])`` are the keys from now on."""

    def configure(*encryption: str, index: list[str]) -> None:
        settings.FACEPRINT = {
            **settings.FACEPRINT,
            "ENCRYPTION_KEYS": list(encryption),
            "INDEX_KEYS": index,
        }

    return configure


@pytest.fixture
def archived(scenario: Scenario, keys: Keys) -> VerificationSession:
    """A session with all that can be encrypted, under the old keys."""
    keys(OLD, index=[OLD_INDEX])
    session = scenario.start("25001", purpose="loan", consent=Consent("c-1"), idempotency_key="k-1")
    scenario.finish(session)
    return scenario.back(session)


def key_ids() -> dict[str, set[str]]:
    """Which keys are in use, by column."""
    found: dict[str, set[str]] = {}
    for model in (VerificationSession, UpstreamAnswer, AccessToken):
        for column in encrypted_fields(model):
            for row in model.objects.filter(**{f"{column.name}__isnull": False}):
                sealed = column.sealed_of(row)
                assert sealed is not None
                found.setdefault(column.name, set()).add(sealed.token[1:5].hex())
    for asset in MediaAsset.objects.stored():
        found.setdefault("wrapped_key", set()).add(bytes(asset.wrapped_key or b"")[1:5].hex())
    indexes = (
        *((VerificationSession, name) for name in ("verify_token_index", "name_index", "number_index")),
        *((UpstreamAnswer, "body_index"), (AccessToken, "token_index")),
    )
    for model, column in indexes:
        for value in model.objects.values_list(column, flat=True):
            if value:
                found.setdefault(column, set()).add(value.partition(":")[0])
    return found


def test_everything_is_re_encrypted_with_the_newest_keys(
    scenario: Scenario, archived: VerificationSession, keys: Keys, clock: Any, assert_archived: Any
) -> None:
    before = key_ids()
    assert len(before) >= 9
    keys(NEW, OLD, index=[NEW_INDEX, OLD_INDEX])
    clock.advance(days=1)
    dry = rotate_keys(dry_run=True)
    assert key_ids() == before
    report = rotate_keys()
    assert (report.changed, report.broken, report.repeatable) == (dry.changed, [], 0)
    assert report.changed["verificationsession"] == 1
    expected = encryption_ring().primary_id, index_ring().primary_id
    for column, used in key_ids().items():
        assert used == {expected[column.endswith("_index")]}, column
    assert before.keys() == key_ids().keys()
    assert rotate_keys().changed.total() == 0

    # Without the old keys all is still there.
    keys(NEW, index=[NEW_INDEX])
    fresh = scenario.fresh(archived)
    assert (fresh.identity_name, fresh.identity_number) == ("张三", NUMBER)
    found = of_session(fresh)
    assert found is not None
    assert found.reference == "c-1"
    assert_archived(fresh)
    for kind, value in (("name", "张三"), ("id_number", NUMBER)):
        assert VerificationSession.objects.filter(
            **{f"{'number' if kind == 'id_number' else kind}_index__in": blind_index_candidates(kind, value)}
        ).exists()
    assert not adopt(Adoption(fresh.verify_token or "", "25001")).is_new
    assert all(UpstreamAnswer.objects.values_list("body", flat=True))


def test_an_answer_that_comes_again_is_kept_once(
    scenario: Scenario, archived: VerificationSession, keys: Keys
) -> None:
    from django_faceprint.engine.refresh import recollect

    count = UpstreamAnswer.objects.count()
    keys(NEW, OLD, index=[NEW_INDEX, OLD_INDEX])
    assert recollect(scenario.fresh(archived))
    scenario.work()
    assert UpstreamAnswer.objects.count() > count, "under the new key it looks like another one"
    rotate_keys()
    assert UpstreamAnswer.objects.count() == count


@pytest.mark.django_db
class TestRows:
    """Rows alone, without a Baidu."""

    @pytest.fixture(autouse=True)
    def old_keys(self, keys: Keys, clock: Any) -> None:
        keys(OLD, index=[OLD_INDEX])

    def test_it_goes_on_where_it_was_stopped(self, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
        plan = make_plan()
        for _ in range(6):
            make_session(plan=plan)
        keys(NEW, OLD, index=[NEW_INDEX, OLD_INDEX])
        monkeypatch.setattr(rotation, "BATCH", 2)
        seen: list[tuple[int, int]] = []

        def watch(report: RotationReport, total: int) -> None:
            seen.append((report.rows, total))

        first = rotate_keys(progress=watch, stop=lambda: len(seen) == 2)
        assert seen == [(2, 6), (4, 6)]
        assert first.changed["verificationsession"] == 4
        assert rotate_keys().changed["verificationsession"] == 2

    def test_values_that_do_not_open_are_reported_and_left(self, keys: Keys) -> None:
        plan = make_plan()
        damaged, fine = make_session(plan=plan), make_session(plan=plan)
        asset = make_stored_asset(make_passed_session(plan=plan), MediaAsset.Kind.FACE)
        MediaAsset.objects.filter(pk=asset.pk).update(
            wrapped_key=bytes(asset.wrapped_key or b"")[:-1] + b"\0"
        )
        keys(NEW, index=[NEW_INDEX, OLD_INDEX])
        VerificationSession.objects.filter(pk=fine.pk).update(
            verify_token=None, identity_name=None, identity_number=None
        )
        report = rotate_keys()
        named = {(value.model, value.pk, value.column) for value in report.broken}
        assert ("verificationsession", damaged.pk, "identity_name") in named
        assert ("verificationsession", damaged.pk, "name_index") in named
        assert ("mediaasset", asset.pk, "wrapped_key") in named
        assert not [value for value in report.broken if value.pk == fine.pk and value.model != "mediaasset"]
        for value in report.broken:
            assert NAME not in value.why
            assert NUMBER not in value.why
        keys(NEW, OLD, index=[NEW_INDEX, OLD_INDEX])
        assert {value.column for value in rotate_keys().broken} == {"wrapped_key"}
        damaged.refresh_from_db()
        assert damaged.identity_name == NAME

    def test_a_row_that_changes_meanwhile_keeps_what_was_written(
        self, keys: Keys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = make_session()
        keys(NEW, OLD, index=[NEW_INDEX, OLD_INDEX])
        really_lock = QuerySet.select_for_update

        def change_then_lock(rows: QuerySet[Any]) -> QuerySet[Any]:
            # The row was read but is not locked yet: an erasure removes the name.
            VerificationSession.objects.filter(pk=session.pk).update(identity_name=None, name_index="")
            return really_lock(rows)

        monkeypatch.setattr(QuerySet, "select_for_update", change_then_lock)
        rotate_keys()
        session.refresh_from_db()
        assert (session.identity_name, session.name_index) == (None, "")
        assert session.identity_number == NUMBER

    def test_rows_are_read_in_batches(self, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
        plan = make_plan()
        for _ in range(4):
            make_session(plan=plan)
        monkeypatch.setattr(rotation, "BATCH", 2)
        done = [0]
        rotate_keys(progress=lambda report, total: done.append(report.rows))
        assert max(after - before for before, after in pairwise(done)) == 2

    def test_one_key_for_both_is_refused(self, keys: Keys) -> None:
        keys(OLD, index=[OLD])
        with pytest.raises(FaceprintConfigurationError):
            rotate_keys()


def test_a_start_can_be_repeated_across_a_rotation(
    scenario: Scenario, archived: VerificationSession, keys: Keys, clock: Any
) -> None:
    keys(NEW, OLD, index=[NEW_INDEX, OLD_INDEX])
    assert rotate_keys().repeatable == 1

    def again(purpose: str = "loan") -> VerificationSession:
        plan = scenario.plans["25001"]
        assert plan.needs_identity
        return scenario.start(
            "25001",
            purpose=purpose,
            consent=Consent("c-1"),
            idempotency_key="k-1",
            reference=archived.reference,
        )

    assert again().pk == archived.pk
    with pytest.raises(InvalidInput):
        again("other")
    clock.advance(days=1)
    assert rotate_keys().repeatable == 0
    keys(NEW, index=[NEW_INDEX])
    assert again().pk != archived.pk


def test_a_file_that_is_being_read_stays_readable(
    scenario: Scenario, archived: VerificationSession, keys: Keys
) -> None:
    asset = archived.assets.stored().exclude(source="upload").first()
    assert asset is not None
    with open_stored(asset) as reader:
        keys(NEW, OLD, index=[NEW_INDEX, OLD_INDEX])
        rotate_keys()
        assert len(reader.read()) == asset.size
    assert h5_url(archived) is None


@pytest.mark.django_db
def test_two_sessions_of_one_token_are_named_and_both_stay(keys: Keys, clock: Any) -> None:
    """As after a restored backup: one was adopted anew when the key of the other's index was missing."""
    keys(OLD, index=[OLD_INDEX])
    first = make_session()
    keys(OLD, index=[NEW_INDEX])
    second = make_session(plan=first.plan, verify_token=first.verify_token)
    keys(OLD, index=[NEW_INDEX, OLD_INDEX])
    (broken,) = rotate_keys().broken
    assert (broken.model, broken.pk) == ("verificationsession", first.pk)
    assert set(VerificationSession.objects.values_list("pk", flat=True)) == {first.pk, second.pk}
