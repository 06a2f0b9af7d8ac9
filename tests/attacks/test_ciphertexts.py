"""Who can write to the database or the storage, and has no key: nothing opens where it does not belong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, models
from django.test import Client
from django.urls import reverse

from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.privacy.fields import EncryptedField, encrypted_fields
from django_faceprint.privacy.keys import SealBroken
from tests import factories

from .conftest import text_of

pytestmark = pytest.mark.django_db

Kind = MediaAsset.Kind
OTHER_NAME, OTHER_NUMBER = "欧阳朔月", "440308199901015331"


@pytest.fixture
def other() -> VerificationSession:
    """A second person, whose data an attacker would like to see or to pass off."""
    return factories.make_passed_session(identity_name=OTHER_NAME, identity_number=OTHER_NUMBER)


def raw(row: models.Model, column: str) -> bytes:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {connection.ops.quote_name(column)} FROM {row._meta.db_table} WHERE id = %s",  # noqa: S608
            [row.pk],
        )
        return bytes(cursor.fetchone()[0])


def overwrite(row: models.Model, column: str, value: Any) -> None:
    """As with a database client: no field of ours looks at it."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {row._meta.db_table} SET {connection.ops.quote_name(column)} = %s WHERE id = %s",  # noqa: S608
            [value, row.pk],
        )


def damaged(token: bytes) -> Iterator[bytes]:
    """Every kind of damage: each part of the format, cut, longer, empty, another version."""
    for position in (0, 1, 5, 17, len(token) // 2, len(token) - 1):
        yield token[:position] + bytes([token[position] ^ 1]) + token[position + 1 :]
    yield token[:-1]
    yield token[:10]
    yield token + b"\x00"
    yield b""


def pages_of(session: VerificationSession) -> list[str]:
    return [
        reverse("admin:faceprint_verificationsession_change", args=[session.pk]),
        reverse("admin:faceprint_verificationsession_changelist"),
        f"/api/faceprint/sessions/{session.public_id}/",
        f"/api/faceprint/sessions/{session.public_id}/result/",
    ]


def test_a_damaged_value_is_no_value_and_no_page_falls_over(
    superuser: Client, victim: VerificationSession
) -> None:
    column = VerificationSession._meta.get_field("identity_number")
    assert isinstance(column, EncryptedField)
    for token in damaged(raw(victim, "identity_number")):
        overwrite(victim, "identity_number", token)
        with pytest.raises(SealBroken):
            _ = VerificationSession.objects.get(pk=victim.pk).identity_number
        for page in pages_of(victim):
            answer = superuser.get(page)
            # 503 with the problem's words from the API; the admin shows the rest of the record.
            assert answer.status_code in (200, 503), page
            assert factories.NUMBER not in text_of(answer)


def test_a_value_moved_to_another_row_or_column_does_not_open(
    superuser: Client, victim: VerificationSession, other: VerificationSession
) -> None:
    columns = ("identity_name", "identity_number", "verify_token")
    for source, target in ((s, t) for s in columns for t in columns):
        kept = raw(victim, target)
        overwrite(victim, target, raw(other, source))
        with pytest.raises(SealBroken):
            getattr(VerificationSession.objects.get(pk=victim.pk), target)
        for page in pages_of(victim):
            answer = superuser.get(page)
            assert answer.status_code in (200, 503), page
            assert OTHER_NUMBER not in text_of(answer)
            assert OTHER_NAME not in text_of(answer)
        overwrite(victim, target, kept)


def test_every_encrypted_column_of_every_table_is_bound_to_its_row() -> None:
    bound = {
        field.label
        for model in apps.get_app_config("faceprint").get_models()
        for field in encrypted_fields(model)
    }
    assert {"session.identity_number", "answer.body", "access.reason"} <= bound
    for model in apps.get_app_config("faceprint").get_models():
        for field in encrypted_fields(model):
            column = model._meta.get_field(field.uuid_field)
            assert column.unique, field


def media_of(superuser: Client, asset: MediaAsset) -> Any:
    return superuser.get(reverse("admin:faceprint_verificationsession_media", args=[asset.public_id]))


def test_a_file_of_another_person_cannot_be_passed_off(
    superuser: Client, victim: VerificationSession, other: VerificationSession
) -> None:
    mine = victim.assets.get(kind=Kind.FACE)
    theirs = factories.make_stored_asset(other, "face", factories.image_bytes(colour="#223344"))
    assert hashlib.sha256(media_of(superuser, mine).getvalue()).hexdigest() == mine.sha256
    # The file alone; the file with its key; the whole row but for its id.
    for columns in (
        ("stored_name",),
        ("stored_name", "wrapped_key"),
        ("stored_name", "wrapped_key", "sha256"),
    ):
        MediaAsset.objects.filter(pk=mine.pk).update(
            **{name: getattr(theirs, name) for name in columns}, size=theirs.size
        )
        answer = media_of(superuser, MediaAsset.objects.get(pk=mine.pk))
        assert answer.status_code == 502
        assert factories.image_bytes(colour="#223344") not in answer.content


def test_a_key_moved_between_files_opens_nothing(superuser: Client, victim: VerificationSession) -> None:
    face, card = victim.assets.get(kind=Kind.FACE), victim.assets.get(kind=Kind.ID_FRONT)
    MediaAsset.objects.filter(pk=face.pk).update(wrapped_key=card.wrapped_key)
    assert media_of(superuser, face).status_code == 502


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/passwd",
        "/etc/passwd",
        "..\\..\\secret",
        "a/../../b",
        "./../archive",
        "\x01",
        "x" * 150,
    ],
)
def test_a_name_in_a_row_reaches_no_other_file(
    superuser: Client, victim: VerificationSession, name: str
) -> None:
    face = victim.assets.get(kind=Kind.FACE)
    MediaAsset.objects.filter(pk=face.pk).update(stored_name=name)
    answer = media_of(superuser, face)
    assert answer.status_code in (502, 503)
    assert b"root:" not in answer.content
    assert name not in text_of(answer)
