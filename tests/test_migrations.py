"""The migrations say what the models say, and can be taken back."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command
from django.db import connection

from django_faceprint.models import AlertRule


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    out = io.StringIO()
    call_command("makemigrations", "faceprint", dry_run=True, stdout=out)
    assert out.getvalue() == "No changes detected in app 'faceprint'\n"


@pytest.mark.django_db(transaction=True)
def test_migrations_are_reversible() -> None:
    try:
        call_command("migrate", "faceprint", "zero", verbosity=0)
        assert not [name for name in connection.introspection.table_names() if name.startswith("faceprint_")]
    finally:
        call_command("migrate", "faceprint", verbosity=0)
    assert AlertRule.objects.count() == len(AlertRule.Condition.values)
