"""A text finds the record that has exactly this text, on every database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_faceprint.api import filters
from django_faceprint.models import VerificationSession
from django_faceprint.records import lookup
from tests.factories import NUMBER, make_call, make_session

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("other", ["order-a", "ORDER-Á", "ORDER-A ", "ＯＲＤＥＲ-A", "ORDER-A\u200b"])
def test_a_similar_reference_is_another_one(other: str) -> None:
    session = make_session(reference="ORDER-A")
    make_session(reference=other)
    assert lookup.look_up("ORDER-A").keys == {session.pk}
    assert list(VerificationSession.objects.filter(filters.matching({"reference": "ORDER-A"}))) == [session]
    assert VerificationSession.objects.filter(reference__exactly=other).count() == 1


def test_characters_outside_of_the_basic_plane_differ() -> None:
    session = make_session(reference="客户𠮷")
    make_session(reference="客户𠮸")
    assert lookup.look_up("客户𠮷").keys == {session.pk}


def test_a_log_id_is_compared_exactly() -> None:
    session = make_session(error_log_id="139aB")
    make_session(error_log_id="139Ab")
    assert lookup.look_up("139aB").keys == {session.pk}


def test_many_texts_of_every_kind_are_found_at_once() -> None:
    sessions = [
        make_session(reference=f"KYC-{number}", identity_name=None, identity_number=None)
        for number in range(4)
    ]
    sessions[1].error_log_id = "1390000000000000077"
    sessions[1].save()
    make_call(sessions[2], log_id="1390000000000000088")
    other = make_session(reference="another", identity_name="欧阳朔月", identity_number="440308199901015331")
    text = "\n".join(
        [
            "KYC-0",
            "1390000000000000077",
            "1390000000000000088",
            str(sessions[3].public_id),
            "４４０３０８１９９９０１０１５３３１",
        ]
    )
    found = lookup.look_up(text)
    assert found.keys == {session.pk for session in (*sessions, other)}
    assert found.missing == ()
    assert found.asked == 5
    assert found.may_be_personal


@pytest.mark.parametrize("separator", ["\n", "\r\n", ", ", "；", "、", "\t", " "])
def test_texts_may_be_separated_as_they_come(separator: str) -> None:
    first, second = make_session(reference="A-1"), make_session(reference="A-2")
    assert lookup.look_up(separator.join(["A-1", "A-2"])).keys == {first.pk, second.pk}


def test_a_reference_with_a_space_is_one_text() -> None:
    session = make_session(reference="KYC/77 81")
    make_session(reference="KYC/77")
    assert lookup.look_up("KYC/77 81").keys == {session.pk}


def test_texts_that_match_nothing_are_listed_by_place() -> None:
    make_session(reference="A-1")
    found = lookup.look_up("A-1\n440308199901015331\nA-1\nB-9")
    assert found.missing == (2, 4)


def test_texts_beyond_a_hundred_are_left_out() -> None:
    session = make_session(reference="A-100")
    late = make_session(reference="A-101")
    found = lookup.look_up("\n".join(f"A-{number}" for number in range(1, 103)))
    assert found.keys == {session.pk}
    assert found.left_out == 2
    assert late.pk not in found.keys


def test_a_reference_alone_is_no_question_about_a_person() -> None:
    make_session(reference="A-1")
    assert not lookup.look_up("A-1").may_be_personal
    assert lookup.look_up("B-1").may_be_personal


def test_the_newest_records_of_a_person_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MAX_HITS", 2)
    sessions = [make_session() for _ in range(3)]
    found = lookup.look_up(NUMBER)
    assert found.keys == {sessions[1].pk, sessions[2].pk}
    assert found.is_truncated


def test_the_queries_of_a_lookup_do_not_grow_with_the_references(
    django_assert_num_queries: Callable[..., Any],
) -> None:
    for number in range(50):
        make_session(reference=f"R-{number}")
    for count in (1, 50):
        with django_assert_num_queries(4):
            found = lookup.look_up("\n".join(f"R-{number}" for number in range(count)))
        assert len(found.keys) == count
