"""Claims that end by themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_faceprint.base.hold import hold, is_free, is_held
from django_faceprint.models import AccessToken

pytestmark = pytest.mark.django_db

LENGTH = timedelta(seconds=30)


@pytest.fixture
def rows(clock: Any) -> Any:
    AccessToken.objects.create(key="a" * 64)
    return AccessToken.objects.filter(key="a" * 64)


def claim_for(rows: Any, holder: str) -> bool:
    return hold(rows, "lease_until", LENGTH, lease_holder=holder)


def test_only_the_first_worker_claims_a_row(rows: Any, clock: Any) -> None:
    assert claim_for(rows, "first")
    assert not claim_for(rows, "second")
    row = rows.get()
    assert (row.lease_holder, row.lease_until) == ("first", clock() + LENGTH)
    assert is_held(row.lease_until, LENGTH)


def test_a_claim_ends_by_itself(rows: Any, clock: Any) -> None:
    assert claim_for(rows, "first")
    clock.advance(LENGTH - timedelta(seconds=1))
    assert not claim_for(rows, "second")
    clock.advance(seconds=1)
    assert not is_held(rows.get().lease_until, LENGTH)
    assert claim_for(rows, "second")


def test_a_claim_under_a_clock_that_has_moved_back_does_not_count(rows: Any, clock: Any) -> None:
    clock.advance(days=3)
    assert claim_for(rows, "ahead")
    clock.advance(days=-3)
    assert not is_held(rows.get().lease_until, LENGTH)
    assert rows.filter(is_free("lease_until", LENGTH)).exists()
    assert claim_for(rows, "second")


def test_a_claim_under_a_clock_a_little_ahead_counts(rows: Any, clock: Any) -> None:
    clock.advance(seconds=5)
    assert claim_for(rows, "ahead")
    clock.advance(seconds=-5)
    assert is_held(rows.get().lease_until, LENGTH)
    assert not claim_for(rows, "second")


def test_no_row_no_claim(rows: Any) -> None:
    assert not claim_for(rows.none(), "first")
    assert not is_held(None, LENGTH)
