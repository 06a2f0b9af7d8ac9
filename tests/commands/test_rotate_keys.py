"""Rotating keys from the command line."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError
from django.utils import translation

from django_faceprint.clock import now
from django_faceprint.models import VerificationSession
from django_faceprint.privacy.blind_index import fingerprint
from tests.commands.conftest import Run
from tests.factories import make_session
from tests.settings import fixed_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def change(settings: Any, clock: Any) -> Any:
    def apply(**values: Any) -> None:
        settings.FACEPRINT = {**settings.FACEPRINT, **values}

    return apply


def test_says_what_was_done_and_which_keys_can_go(run: Run, change: Any) -> None:
    make_session()
    change(ENCRYPTION_KEYS=[fixed_key(11), fixed_key(1)], INDEX_KEYS=[fixed_key(12), fixed_key(2)])
    dry = run("faceprint_rotate_keys", "--dry-run")
    assert (dry.status, dry.out) == (0, "1 rows looked at, 1 rows would change\n  verificationsession: 1\n")
    done = run("faceprint_rotate_keys")
    assert done.status == 0
    assert done.out.startswith(
        "1 rows looked at, 1 rows changed\n  verificationsession: 1\nENCRYPTION_KEYS: only "
    )
    assert "INDEX_KEYS: only " in done.out
    change(ENCRYPTION_KEYS=[fixed_key(11)], INDEX_KEYS=[fixed_key(12)])
    assert run("faceprint_rotate_keys").out == "1 rows looked at, 0 rows changed\n"


def test_what_does_not_open(run: Run, change: Any) -> None:
    session = make_session()
    change(ENCRYPTION_KEYS=[fixed_key(11)])
    done = run("faceprint_rotate_keys")
    assert done.status == 1
    assert f"verificationsession {session.pk}, identity_name: No configured key has the id" in done.out
    assert "values do not open and were left as they are." in done.out
    assert "not needed" not in done.out


def test_what_must_wait(run: Run, change: Any) -> None:
    session = make_session(created_at=now())
    VerificationSession.objects.filter(pk=session.pk).update(
        idempotency_key="k", request_digest=fingerprint("start_request", b"x")
    )
    change(INDEX_KEYS=[fixed_key(12), fixed_key(2)])
    done = run("faceprint_rotate_keys")
    assert done.status == 1
    assert "1 requests of the last day still need the old index key" in done.out


def test_unusable_keys(run: Run, change: Any) -> None:
    change(ENCRYPTION_KEYS=["short"])
    with translation.override("en"), pytest.raises(CommandError, match="ENCRYPTION_KEYS"):
        run("faceprint_rotate_keys")
