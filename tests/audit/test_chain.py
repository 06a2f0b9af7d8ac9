"""The chain over the access log: what it shows, and what nobody can do through us."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.utils import Error

from django_faceprint.audit import chain
from django_faceprint.audit.access import reason_digest
from django_faceprint.audit.chain import Verification, add_links, head, prune_log, verify
from django_faceprint.clock import now
from django_faceprint.maintenance import rotation
from django_faceprint.models import AccessLog, AccessReason, AccessSeal
from django_faceprint.models.append_only import KEPT_AT_LEAST, ChangeRefused
from django_faceprint.privacy.keys import generate_key

pytestmark = pytest.mark.django_db(transaction=True)

SOME_ID = "018f0000-0000-7000-8000-000000000001"
#: The last link, the newest entry of it, late and new entries, the links, and what a transaction takes.
BATCH_QUERIES = 7
DAY = timedelta(days=1)
LOG, CHAIN = "faceprint_accesslog", "faceprint_accessseal"


def look(**values: Any) -> AccessLog:
    given = {"actor_id": "7", "actor_name": "operator", "action": "view_record", "channel": "admin"} | values
    return AccessLog.objects.create(**given)


def look_with_reason(text: str = "complaint 4711") -> AccessLog:
    entry = look(action="reveal", reason_code="complaint", reason_digest=reason_digest("salt", text))
    AccessReason.objects.create(public_id=entry.public_id, text=text, salt="salt")
    return entry


@pytest.fixture
def tamper() -> Callable[..., None]:
    """``tamper("DELETE …")`` as one who owns the database would: the triggers are off."""

    def off() -> list[str]:
        if connection.vendor == "postgresql":
            return [f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in (LOG, CHAIN)]
        return []

    def on() -> list[str]:
        if connection.vendor == "postgresql":
            return [f"ALTER TABLE {table} ENABLE TRIGGER USER" for table in (LOG, CHAIN)]
        return []

    def run(statement: str, *values: Any) -> None:
        from importlib import import_module

        triggers = import_module("django_faceprint.migrations.0002_append_only")
        with connection.cursor() as cursor:
            for text in off():
                cursor.execute(text)
            if connection.vendor == "mysql":
                for text in triggers.MYSQL_BACK:
                    cursor.execute(text)
            try:
                cursor.execute(statement, values)
            finally:
                for text in on():
                    cursor.execute(text)
                if connection.vendor == "mysql":
                    for text in triggers.MYSQL:
                        cursor.execute(text)

    return run


def kinds(**options: Any) -> dict[str, int]:
    return dict(verify(**options).counts)


# --- the chain ----------------------------------------------------------------------------------


def test_an_untouched_log_has_no_findings() -> None:
    entries = [look(session_id=SOME_ID, address="2001:db8::1"), look_with_reason()]
    entries += [look(actor_name="王芳"), look(asset_id=SOME_ID)]
    assert add_links() == 4
    assert add_links() == 0
    result = verify()
    assert result == Verification(links=4, entries=4, head=head())
    chained = AccessSeal.objects.order_by("sequence").values_list("log_id", flat=True)
    assert list(chained) == [entry.pk for entry in entries]
    assert head().startswith("4:")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("actor_name", "somebody else"),
        ("actor_id", "8"),
        ("action", "view_media"),
        ("reason_code", "audit"),
        ("reason_digest", "0" * 64),
        ("channel", "api"),
        ("address", "10.0.0.1"),
        ("session_id", None),
        ("at", "2020-01-01 00:00:00"),
    ],
)
def test_a_changed_entry_is_found(tamper: Any, column: str, value: Any) -> None:
    look()
    entry = look(session_id=SOME_ID)
    look()
    add_links()
    tamper(f"UPDATE {LOG} SET {column} = %s WHERE id = %s", value, entry.pk)  # noqa: S608
    (finding,) = verify().findings
    assert (finding.kind, finding.sequence, finding.log_id) == ("edited", 2, entry.pk)


def test_a_deleted_entry_is_found(tamper: Any) -> None:
    entries = [look() for _ in range(3)]
    add_links()
    tamper(f"DELETE FROM {LOG} WHERE id = %s", entries[1].pk)  # noqa: S608
    assert kinds() == {"missing": 1}
    # With its link.
    tamper(f"DELETE FROM {CHAIN} WHERE log_id = %s", entries[1].pk)  # noqa: S608
    assert kinds() == {"gap": 1}


def test_deleting_from_the_front_is_found(tamper: Any) -> None:
    entries = [look() for _ in range(3)]
    add_links()
    tamper(f"DELETE FROM {LOG} WHERE id = %s", entries[0].pk)  # noqa: S608
    tamper(f"DELETE FROM {CHAIN} WHERE log_id = %s", entries[0].pk)  # noqa: S608
    assert kinds() == {"gap": 1}


def test_a_front_that_was_cut_off_cannot_be_passed_off_as_old(tamper: Any, clock: Any) -> None:
    first = [look() for _ in range(3)]
    add_links()
    noted = head()
    clock.advance(minutes=1)
    look()
    add_links()
    tamper(f"DELETE FROM {LOG} WHERE id <= %s", first[-1].pk)  # noqa: S608
    tamper(f"DELETE FROM {CHAIN} WHERE sequence <= 3")  # noqa: S608
    assert kinds(heads=[noted]) == {"gap": 1}
    tamper(f"UPDATE {CHAIN} SET sealed_at = '2020-01-01 00:00:00' WHERE sequence = 4")  # noqa: S608
    assert "forged" in kinds(heads=[noted])


def test_a_run_that_was_broken_off_is_no_finding(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "BATCH", 2)
    for _ in range(6):
        look(at=now() - 3 * DAY)
    batches = iter([True])

    def die_in_the_second_batch(execute: Any, sql: str, *arguments: Any) -> Any:
        if sql.startswith("INSERT") and not next(batches, False):
            raise KeyboardInterrupt
        return execute(sql, *arguments)

    with pytest.raises(KeyboardInterrupt), connection.execute_wrapper(die_in_the_second_batch):
        add_links()
    clock.advance(minutes=1)
    assert add_links() == 4
    assert kinds() == {}


def test_cutting_off_the_end_is_found_by_a_head_that_was_noted(tamper: Any) -> None:
    entries = [look() for _ in range(3)]
    add_links()
    noted = head()
    assert kinds(heads=[noted]) == {}
    tamper(f"DELETE FROM {LOG} WHERE id = %s", entries[2].pk)  # noqa: S608
    tamper(f"DELETE FROM {CHAIN} WHERE log_id = %s", entries[2].pk)  # noqa: S608
    assert kinds() == {}
    assert kinds(heads=[noted[:12]]) == {"truncated": 1}
    # Another entry in its place does not help.
    look()
    add_links()
    assert kinds(heads=[noted]) == {"forged": 1}
    # Nor does emptying everything.
    tamper(f"DELETE FROM {CHAIN}")  # noqa: S608
    assert kinds(heads=[noted]) == {"truncated": 1}


def test_entries_that_were_exchanged_are_found(tamper: Any) -> None:
    one, two = look(actor_name="one"), look(actor_name="two")
    add_links()
    tamper(f"UPDATE {CHAIN} SET log_id = -1 WHERE log_id = %s", one.pk)  # noqa: S608
    tamper(f"UPDATE {CHAIN} SET log_id = %s WHERE log_id = %s", one.pk, two.pk)  # noqa: S608
    tamper(f"UPDATE {CHAIN} SET log_id = %s WHERE log_id = -1", two.pk)  # noqa: S608
    assert kinds() == {"edited": 2}


def test_a_chain_made_anew_without_the_key_is_found(tamper: Any, settings: Any) -> None:
    look()
    entry = look()
    add_links()
    tamper(f"UPDATE {LOG} SET actor_name = 'nobody' WHERE id = %s", entry.pk)  # noqa: S608
    tamper(f"DELETE FROM {CHAIN}")  # noqa: S608
    kept = settings.FACEPRINT
    settings.FACEPRINT = kept | {"ENCRYPTION_KEYS": [generate_key()]}
    add_links()
    forged = dict(AccessSeal.objects.values_list("sequence", "mac"))
    settings.FACEPRINT = kept
    assert kinds() == {"unknown_key": 2}
    # Nor can the forger name our key.
    ours = chain.encryption_ring().primary_id
    for sequence, mac in forged.items():
        tamper(
            f"UPDATE {CHAIN} SET mac = %s WHERE sequence = %s",  # noqa: S608
            f"{ours}:{mac.partition(':')[2]}",
            sequence,
        )
    assert kinds() == {"forged": 2}


def test_an_entry_put_in_later_is_found(clock: Any) -> None:
    look()
    add_links()
    clock.advance(minutes=1)
    backdated = look(at=now() - 2 * DAY)
    assert add_links() == 1
    (finding,) = verify().findings
    assert (finding.kind, finding.sequence, finding.log_id) == ("backdated", 2, backdated.pk)


def test_an_entry_without_a_link_is_found(clock: Any) -> None:
    look()
    add_links()
    look()
    assert kinds() == {}
    clock.advance(minutes=6)
    assert kinds() == {"unsealed": 1}


def test_whatever_was_written_while_the_chain_stood_still_is_chained(
    clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "BATCH", 3)
    look()
    add_links()
    for _ in range(4):
        clock.advance(hours=13)
        look()
        look()
    clock.advance(hours=13)
    assert add_links() == 8
    assert add_links() == 0
    assert kinds() == {}


def test_an_entry_that_was_committed_late_is_chained(tamper: Any) -> None:
    late = look(at=now() - timedelta(minutes=50))
    look(at=now() - timedelta(minutes=30))
    tamper(f"DELETE FROM {LOG} WHERE id = %s", late.pk)  # noqa: S608
    add_links()
    # Its transaction began before that of the one that is chained, got its number, and ends only now.
    AccessLog(
        pk=late.pk, at=late.at, actor_id="7", actor_name="operator", action="view_media", channel="api"
    ).save()
    assert add_links() == 1
    assert list(AccessSeal.objects.order_by("sequence").values_list("log_id", flat=True))[-1] == late.pk
    assert kinds() == {}


def test_changed_words_of_a_reason_are_found_and_erased_ones_are_not() -> None:
    entry = look_with_reason()
    look_with_reason("another")
    add_links()
    reason = AccessReason.objects.get(public_id=entry.public_id)
    reason.text = "something nobler"
    reason.save()
    assert kinds() == {"reason": 1}
    reason.delete()
    assert kinds() == {}


def test_two_runs_at_once_make_one_chain() -> None:
    for _ in range(20):
        look()
    ready = threading.Barrier(2)

    def work() -> None:
        ready.wait()
        try:
            add_links()
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    add_links()
    assert AccessSeal.objects.count() == 20
    assert kinds() == {}


def test_many_entries_take_a_fixed_number_of_queries_each_batch(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    look()
    add_links()
    for count in (5, 50):
        for _ in range(count):
            look()
        with django_assert_num_queries(BATCH_QUERIES):
            assert add_links() == count


# --- keys and age -------------------------------------------------------------------------------


def test_after_a_rotation_the_old_key_can_go_and_noted_heads_stay_true(settings: Any) -> None:
    for _ in range(3):
        look()
    add_links()
    noted, old = head(), settings.FACEPRINT["ENCRYPTION_KEYS"]
    new = [generate_key()]
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": new + old}
    report = rotation.rotate_keys()
    assert report.changed["accessseal"] == 3
    assert report.broken == []
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": new}
    look()
    add_links()
    assert kinds(heads=[noted]) == {}


def test_a_rotation_does_not_make_a_forged_link_good(settings: Any, tamper: Any) -> None:
    look()
    look()
    add_links()
    tamper(f"UPDATE {CHAIN} SET digest = %s WHERE sequence = 2", "0" * 64)  # noqa: S608
    settings.FACEPRINT = settings.FACEPRINT | {
        "ENCRYPTION_KEYS": [generate_key(), *settings.FACEPRINT["ENCRYPTION_KEYS"]]
    }
    report = rotation.rotate_keys()
    assert [(value.model, value.pk, value.column) for value in report.broken] == [("accessseal", 2, "mac")]
    assert kinds()["forged"] == 1


def test_old_entries_go_and_the_rest_still_verifies(settings: Any, clock: Any) -> None:
    clock.set(real_now() - KEPT_AT_LEAST - 3 * DAY)
    old = [look_with_reason(f"reason {number}") for number in range(4)]
    add_links()
    noted = head()
    clock.set(real_now())
    young = [look() for _ in range(2)]
    add_links()
    assert prune_log() == 3
    assert prune_log() == 0
    # The newest old link stays as the anchor, with its entry.
    assert set(AccessLog.objects.values_list("pk", flat=True)) == {old[-1].pk, *(entry.pk for entry in young)}
    assert AccessReason.objects.count() == 1
    assert kinds(heads=[noted, head()]) == {}


def test_clocks_that_differ_a_little_do_not_stop_the_pruning(clock: Any) -> None:
    """What is just old enough by ours may not be by the database's, whose triggers would refuse it."""
    for minutes in (240, 200, 160, 90, 30, 1):
        clock.set(real_now() - KEPT_AT_LEAST - timedelta(minutes=minutes))
        look()
        add_links()
    clock.set(real_now() + timedelta(minutes=50))
    assert prune_log() > 0
    assert AccessLog.objects.count() == AccessSeal.objects.count() > 2
    assert kinds() == {}


def test_nothing_younger_than_the_law_wants_goes_whatever_the_setting(settings: Any, clock: Any) -> None:
    settings.FACEPRINT = settings.FACEPRINT | {"LOG_RETENTION": DAY}
    clock.set(real_now() - KEPT_AT_LEAST + DAY)
    for _ in range(3):
        look()
    add_links()
    clock.set(real_now())
    look()
    add_links()
    assert prune_log() == 0
    assert AccessLog.objects.count() == 4


def test_a_longer_retention_holds(settings: Any, clock: Any) -> None:
    settings.FACEPRINT = settings.FACEPRINT | {"LOG_RETENTION": timedelta(days=4_000)}
    clock.set(real_now() - timedelta(days=3_000))
    for _ in range(3):
        look()
    add_links()
    clock.set(real_now())
    assert prune_log() == 0


def real_now() -> Any:
    """The database's triggers go by the real time."""
    from django.utils import timezone

    return timezone.now()


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [AccessLog, AccessSeal])
def test_nothing_of_ours_changes_the_log(model: Any) -> None:
    look()
    add_links()
    row = model.objects.get()
    before = model.objects.values().get()
    attempts: list[Callable[[], Any]] = [
        row.save,
        row.delete,
        lambda: model.objects.update(pk=5),
        lambda: model.objects.all().delete(),
        lambda: model.objects.filter(pk=row.pk).delete(),
        lambda: model.objects.bulk_update([row], ["pk"]),
        lambda: model.objects.bulk_create([row], ignore_conflicts=True),
        lambda: model.objects.update_or_create(pk=row.pk, defaults={}),
    ]
    for attempt in attempts:
        with pytest.raises(ChangeRefused, match="can only be added to"):
            attempt()
    assert model.objects.values().get() == before


def test_an_entry_cannot_be_written_over_another() -> None:
    entry = look()
    with pytest.raises(IntegrityError), transaction.atomic():
        AccessLog(pk=entry.pk, actor_name="other", action="view_media", channel="api").save()


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE {LOG} SET actor_name = 'x'",  # noqa: S608
        f"DELETE FROM {LOG}",  # noqa: S608
        f"UPDATE {CHAIN} SET digest = 'x'",  # noqa: S608
        f"UPDATE {CHAIN} SET log_id = 99",  # noqa: S608
        f"DELETE FROM {CHAIN}",  # noqa: S608
    ],
)
def test_the_database_refuses_changes_of_any_client_or_the_chain_tells(statement: str) -> None:
    look()
    add_links()
    noted = head()
    if connection.vendor == "sqlite":
        # No triggers here: whoever can open the file is its owner.
        with connection.cursor() as cursor:
            cursor.execute(statement)
        assert verify(heads=[noted]).counts
        return
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SET @faceprint_emptying = 0")
        try:
            with pytest.raises(Error, match="can only be added to"), transaction.atomic():
                cursor.execute(statement)
        finally:
            if connection.vendor == "mysql":
                cursor.execute("SET @faceprint_emptying = 1")
    assert (AccessLog.objects.count(), AccessSeal.objects.count()) == (1, 1)
    assert kinds() == {}
