"""A text finds the record that has exactly this text, on every database."""

from __future__ import annotations

import pytest

from django_faceprint.api import filters
from django_faceprint.models import VerificationSession
from django_faceprint.services import lookup
from tests.factories import make_session

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("other", ["order-a", "ORDER-Á", "ORDER-A ", "ＯＲＤＥＲ-A", "ORDER-A\u200b"])
def test_a_similar_reference_is_another_one(other: str) -> None:
    session = make_session(reference="ORDER-A")
    make_session(reference=other)
    found = VerificationSession.objects.filter(lookup.matching("ORDER-A"))
    assert list(found) == [session]
    assert list(VerificationSession.objects.filter(filters.matching({"reference": "ORDER-A"}))) == [session]
    assert VerificationSession.objects.filter(reference__exactly=other).count() == 1


def test_characters_outside_of_the_basic_plane_differ() -> None:
    session = make_session(reference="客户𠮷")
    make_session(reference="客户𠮸")
    assert list(VerificationSession.objects.filter(lookup.matching("客户𠮷"))) == [session]


def test_a_log_id_is_compared_exactly() -> None:
    session = make_session(error_log_id="139aB")
    make_session(error_log_id="139Ab")
    assert list(VerificationSession.objects.filter(lookup.matching("139aB"))) == [session]
