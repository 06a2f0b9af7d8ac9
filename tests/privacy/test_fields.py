from __future__ import annotations

import base64
import copy
import json
import pickle
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.core import checks, serializers
from django.core.exceptions import FieldError, ValidationError
from django.db import connection, models, transaction
from django.db.migrations.state import ModelState, ProjectState
from django.db.migrations.writer import MigrationWriter
from django.db.models import F, Value
from django.forms import modelform_factory
from django.forms.models import model_to_dict
from django.test.utils import isolate_apps, override_settings

from django_faceprint.privacy.fields import (
    EncryptedField,
    EncryptedJSONField,
    EncryptedTextField,
    Sealed,
    column_values,
    encrypted_fields,
    seal_value,
)
from django_faceprint.privacy.keys import SealBroken, UnknownKey, generate_key
from tests.privacy.models import Employee, EncryptedBinaryField, Person

NAME = "张三丰"
DATA = {"number": "11010519491231002X", "list": [1, 2.5, None, True], "surrogate": "\ud800"}
BLOB = bytes(range(256)) * 5
UID = Person._meta.get_field("uid")

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module", autouse=True)
def _tables(django_db_setup: None, django_db_blocker: Any, settings_of_module: None) -> Iterator[None]:
    with django_db_blocker.unblock():
        with connection.schema_editor() as editor:
            editor.create_model(Person)
            editor.create_model(Employee)
        yield
        with connection.schema_editor() as editor:
            editor.delete_model(Employee)
            editor.delete_model(Person)


@pytest.fixture(scope="module")
def settings_of_module() -> Iterator[None]:
    from django.conf import settings

    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, "tests.privacy.apps.SealedTestsConfig"]):
        yield


@pytest.fixture
def person() -> Person:
    return Person.objects.create(name=NAME, data=DATA, blob=BLOB, early="早")


def stored(person: Person, column: str) -> bytes | None:
    table = "sealed_tests_employee" if column == "salary" else "sealed_tests_person"
    key = "person_ptr_id" if column == "salary" else "id"
    with connection.cursor() as cursor:
        quoted = connection.ops.quote_name(column)  # MariaDB has a type of the name "blob"
        cursor.execute(f"SELECT {quoted} FROM {table} WHERE {key} = %s", [person.pk])  # noqa: S608
        (value,) = cursor.fetchone()
    return None if value is None else bytes(value)


def assert_hidden(text: str | bytes) -> None:
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    for secret in (NAME, "11010519491231002X", "早"):
        assert secret.encode() not in text
        assert json.dumps(secret).strip('"').encode() not in text
    assert BLOB[:32] not in text


# Round trips


def test_round_trip(person: Person) -> None:
    for fresh in (Person.objects.get(), person):
        assert fresh.name == NAME
        assert fresh.data == DATA
        assert fresh.blob == BLOB
        assert fresh.early == "早"


def test_the_columns_hold_ciphertext_only(person: Person) -> None:
    for column in ("name", "data", "blob", "early"):
        value = stored(person, column)
        assert value is not None
        assert value[:1] == b"\x01"
        assert_hidden(value)


def test_null_and_empty_values_are_distinct() -> None:
    person = Person.objects.create(name="", data=None, blob=b"")
    assert stored(person, "data") is None
    assert stored(person, "early") is None
    assert len(stored(person, "name") or b"") > 16
    fresh = Person.objects.get()
    assert (fresh.name, fresh.data, fresh.blob, fresh.early) == ("", None, b"", None)
    empties: tuple[Any, ...] = ([], {}, "", 0, False)
    for empty in empties:
        fresh.data = empty
        fresh.save()
        assert Person.objects.get().data == empty


def test_any_text_is_kept() -> None:
    for text in ("\ud800", "a\x00b", "𠮷", "\ufffe"):
        Person.objects.update_or_create(city="x", defaults={"name": text})
        assert Person.objects.get().name == text


def test_every_save_seals_again(person: Person) -> None:
    before = stored(person, "data")
    person.save()
    assert stored(person, "data") != before


def test_json_changed_in_place_is_saved(person: Person) -> None:
    fresh = Person.objects.get()
    assert fresh.data is not None
    fresh.data["number"] = "changed"
    fresh.save()
    assert Person.objects.get().data["number"] == "changed"
    assert person.data is not None
    person.data["number"] = "after create"
    person.save(update_fields=["data"])
    assert Person.objects.get().data["number"] == "after create"


def test_saving_other_fields_leaves_the_ciphertext(person: Person) -> None:
    before = [stored(person, column) for column in ("name", "data", "blob")]
    fresh = Person.objects.get()
    fresh.city = "Beijing"
    fresh.save(update_fields=["city"])
    fresh.name = "李四"
    fresh.save(update_fields=["city"])
    assert [stored(person, column) for column in ("name", "data", "blob")] == before


def test_binary_takes_any_bytes_like(person: Person) -> None:
    for value in (bytearray(BLOB), memoryview(BLOB)):
        person.blob = value
        person.save()
        assert Person.objects.get().blob == BLOB


# Loading


def test_deferred_and_partial_loading(person: Person, django_assert_num_queries: Any) -> None:
    fresh = Person.objects.defer("name").get()
    with django_assert_num_queries(2):  # the value, and the UUID of the row that Django loads for it
        assert fresh.name == NAME
    with django_assert_num_queries(0):
        assert fresh.name == NAME
    fresh = Person.objects.only("name").get()
    assert fresh.name == NAME  # loads the UUID, which it needs
    assert fresh.blob == BLOB
    fresh = Person.objects.only("uid", "city").get()
    fresh.city = "Beijing"
    fresh.save()
    assert Person.objects.get().name == NAME


def test_refresh(person: Person) -> None:
    other = Person.objects.get()
    other.name, other.data = "李四", [1]
    other.save()
    person.refresh_from_db()
    assert (person.name, person.data) == ("李四", [1])
    person.name = "unsaved"
    person.refresh_from_db(fields=["name"])
    assert person.name == "李四"
    del person.name
    assert person.name == "李四"


def test_values_and_annotations_are_opaque(person: Person) -> None:
    row = Person.objects.annotate(again=F("name")).values("uid", "name", "again", "data").get()
    for key in ("name", "again", "data"):
        assert isinstance(row[key], Sealed)
    assert_hidden(repr(row))
    assert_hidden(f"{row['name']}")
    assert str(row["name"]) == "<Sealed>"
    fields = {field.name: field for field in encrypted_fields(Person)}
    assert fields["name"].unseal(row["uid"], row["name"]) == NAME
    assert fields["data"].unseal(row["uid"], row["data"]) == DATA
    assert Person.objects.values_list("name", flat=True).get() == row["name"]
    with pytest.raises(TypeError):
        json.dumps(row["name"])
    with pytest.raises(SealBroken):
        fields["name"].unseal(uuid.uuid4(), row["name"])
    with pytest.raises(SealBroken):
        fields["data"].unseal(row["uid"], row["name"])


def test_decrypted_only_when_read(person: Person, settings: Any) -> None:
    lose_keys(settings)
    fresh = Person.objects.get()
    assert fresh.city == ""
    assert_hidden(repr(fresh.__dict__))
    with pytest.raises(UnknownKey):
        _ = fresh.name


def test_moved_ciphertexts_do_not_open(person: Person) -> None:
    other = Person.objects.create(name="李四", early="x")
    swap = "UPDATE sealed_tests_person SET {} WHERE id = %s"
    with connection.cursor() as cursor:
        cursor.execute(swap.format("early = name"), [person.pk])
        cursor.execute(swap.format("name = %s"), [stored(other, "name"), person.pk])
    fresh = Person.objects.get(pk=person.pk)
    for attribute in ("name", "early"):
        with pytest.raises(SealBroken) as caught:
            getattr(fresh, attribute)
        assert caught.value.__context__ is None
    assert fresh.blob == BLOB


# Saving


def test_a_row_without_uuid_is_refused() -> None:
    person = Person(uid=None, name=NAME)
    with pytest.raises(ValueError, match="uid") as caught:
        person.save()
    assert_hidden(str(caught.value))
    with pytest.raises(ValueError, match="uid"):
        seal_value(person, "name", NAME)


def test_a_uuid_may_be_text() -> None:
    uid = uuid.uuid4()
    Person.objects.create(uid=str(uid), name=NAME)
    assert Person.objects.get(uid=uid).name == NAME


def test_bulk_create() -> None:
    Person.objects.bulk_create(Person(name=f"{NAME}{n}", data=n, blob=bytes([n])) for n in range(5))
    assert [(p.name, p.data, p.blob) for p in Person.objects.order_by("pk")] == [
        (f"{NAME}{n}", n, bytes([n])) for n in range(5)
    ]


def test_update_refuses_plaintext_and_takes_sealed_values(person: Person) -> None:
    rows = Person.objects.filter(pk=person.pk)
    for value in (NAME, b"bytes", 1):
        with pytest.raises(TypeError, match="column_values") as caught, transaction.atomic():
            rows.update(name=value)
        assert_hidden(str(caught.value))
    assert rows.update(**column_values(person, {"name": "李四", "data": None, "blob": b"b"})) == 1
    fresh = rows.get()
    assert (fresh.name, fresh.data, fresh.blob) == ("李四", None, b"b")
    rows.update(name=seal_value(person, "name", "王五"))
    assert rows.get().name == "王五"
    rows.update(data=None)
    assert seal_value(person, "data", None) is None
    assert rows.get().data is None


def test_column_values_seal_what_is_encrypted(person: Person) -> None:
    values = {
        "name": "李四",
        "data": None,
        "blob": seal_value(person, "blob", b"b"),
        "city": "Beijing",
        "early": "x",
    }
    Person.objects.filter(pk=person.pk).update(**column_values(person, values))
    fresh = Person.objects.get()
    assert (fresh.name, fresh.data, fresh.blob) == ("李四", None, b"b")
    assert (fresh.city, fresh.early) == ("Beijing", "x")


def test_sealed_values_fit_their_own_field_only(person: Person) -> None:
    sealed = seal_value(person, "name", NAME)
    with pytest.raises(TypeError, match="another field"), transaction.atomic():
        Person.objects.update(early=sealed)
    with pytest.raises(TypeError, match="not an encrypted field"):
        seal_value(person, "city", "x")


def test_bulk_update_refuses_plaintext(person: Person) -> None:
    person.name = "李四"
    with pytest.raises(TypeError, match="column_values") as caught, transaction.atomic():
        Person.objects.bulk_update([person], ["name"])
    assert "李四" not in str(caught.value)
    person.city = "Beijing"
    Person.objects.bulk_update([person], ["city"])
    assert Person.objects.get().city == "Beijing"


def test_update_or_create() -> None:
    uid = uuid.uuid4()
    for name in ("first", "second"):
        Person.objects.update_or_create(uid=uid, defaults={"name": name})
        assert Person.objects.get().name == name


def test_errors_do_not_quote_the_refused_value(person: Person) -> None:
    for field, value, error in (
        ("name", 11010519491231, TypeError),
        ("name", b"11010519491231", TypeError),
        ("name", "11010519491231" * 3, ValueError),
        ("blob", "11010519491231", TypeError),
        ("data", {"x": {"11010519491231"}}, ValueError),
        ("data", float("nan"), ValueError),
        ("data", F("city"), ValueError),
        ("name", F("city"), TypeError),
    ):
        setattr(person, field, value)
        with pytest.raises(error) as caught, transaction.atomic():
            person.save()
        assert "11010519491231" not in str(caught.value)
        assert caught.value.__context__ is None
        person.refresh_from_db()


def test_max_length_counts_bytes() -> None:
    Person.objects.create(name="中" * 10)
    with pytest.raises(ValueError, match="30 bytes"):
        Person.objects.create(name="中" * 11)


def test_a_row_that_changes_its_uuid_is_refused_unless_its_values_are_set(person: Person) -> None:
    clone = Person.objects.get()
    clone.pk, clone.uid = None, uuid.uuid4()
    with pytest.raises(SealBroken), transaction.atomic():
        clone.save()
    original = Person.objects.get()
    clone.name, clone.early, clone.data, clone.blob = original.name, None, original.data, original.blob
    clone.save()
    assert Person.objects.get(pk=clone.pk).name == NAME


def test_a_value_of_a_lost_key_survives_a_save(person: Person, settings: Any) -> None:
    before = stored(person, "name")
    keys = settings.FACEPRINT["ENCRYPTION_KEYS"]
    fresh = Person.objects.get()
    lose_keys(settings)
    fresh.city = "Beijing"
    fresh.save()
    assert stored(person, "name") == before
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": keys}
    assert Person.objects.get().name == NAME


def test_rotation(person: Person, settings: Any) -> None:
    new = generate_key()
    settings.FACEPRINT = settings.FACEPRINT | {
        "ENCRYPTION_KEYS": [new, *settings.FACEPRINT["ENCRYPTION_KEYS"]]
    }
    fields = {field.name: field for field in encrypted_fields(Person)}
    assert list(fields) == ["early", "name", "data", "blob"]
    row = Person.objects.values("uid", *fields).get()
    again = {name: field.reseal(row["uid"], row[name]) for name, field in fields.items()}
    assert all(again[name] != row[name] for name in fields)
    Person.objects.update(**again)
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [new]}
    fresh = Person.objects.get()
    assert (fresh.early, fresh.name, fresh.data, fresh.blob) == ("早", NAME, DATA, BLOB)
    assert fields["name"].reseal(row["uid"], again["name"]) is again["name"]


# Copies


def test_pickled_instances_carry_no_plaintext(person: Person) -> None:
    read = Person.objects.get()
    assert (read.name, read.data) == (NAME, DATA)
    refreshed = Person.objects.get()
    refreshed.refresh_from_db()
    assigned = Person.objects.get()
    assigned.name = NAME
    for instance in (person, read, refreshed, assigned):
        pickled = pickle.dumps(instance)
        assert_hidden(pickled)
        again = pickle.loads(pickled)  # noqa: S301
        assert (again.name, again.data, again.blob, again.early) == (NAME, DATA, BLOB, "早")
        again.save()


def test_pickling_keeps_unsaved_changes(person: Person) -> None:
    assert person.data is not None
    person.data["number"] = "changed"
    person.name = "李四"
    again = pickle.loads(pickle.dumps(person))  # noqa: S301
    assert (again.data["number"], again.name) == ("changed", "李四")


def test_a_plaintext_of_no_row_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="before pickling"):
        pickle.dumps(Person(uid=None, name=NAME))


def test_copies_are_independent(person: Person) -> None:
    person.name = "unsaved"
    shallow, deep = copy.copy(person), copy.deepcopy(person)
    assert deep.data is not None
    deep.data["number"] = "deep"
    shallow.name = "shallow"
    assert (person.name, person.data) == ("unsaved", DATA)
    deep.save()
    assert Person.objects.get().data["number"] == "deep"
    sealed = Person.objects.values_list("name", flat=True).get()
    assert copy.copy(sealed) is sealed
    assert copy.deepcopy(sealed) is sealed
    assert pickle.loads(pickle.dumps(sealed)) == sealed  # noqa: S301
    assert len({sealed, copy.copy(sealed)}) == 1
    assert sealed != sealed.token


def test_reprs_of_an_instance_hide_the_values(person: Person) -> None:
    person.name = NAME
    assert_hidden(repr(person.__dict__))
    assert_hidden(repr(vars(Person.objects.get())))


# Queries


def test_isnull_is_the_only_lookup(person: Person) -> None:
    assert Person.objects.filter(name__isnull=False, data__isnull=False).count() == 1
    assert Person.objects.filter(early__isnull=True).count() == 0
    for lookup in ("name", "name__exact", "name__in", "name__contains", "name__gt", "data__number", "blob"):
        for method in (Person.objects.filter, Person.objects.exclude):
            with pytest.raises(FieldError, match="blind index") as caught:
                method(**{lookup: NAME})
            assert_hidden(str(caught.value))
    with pytest.raises(FieldError):
        Person.objects.filter(name=F("early"))


def test_a_plaintext_in_an_expression_is_refused() -> None:
    with pytest.raises(TypeError):
        list(Person.objects.annotate(x=Value(NAME, output_field=Person._meta.get_field("name"))))


# Serializers, forms, validation


@pytest.mark.parametrize("format_name", ["json", "python", "xml", "jsonl"])
def test_serializers_move_ciphertext(person: Person, format_name: str) -> None:
    person.data = 5  # a "protected type", which serializers would write as it is
    person.name = NAME
    text = serializers.serialize(format_name, [person])
    assert_hidden(repr(text))
    person.save()
    text = serializers.serialize(format_name, Person.objects.all())
    before = stored(person, "name")
    Person.objects.all().delete()
    for restored in serializers.deserialize(format_name, text):
        assert isinstance(vars(restored.object)["name"], Sealed)
        restored.save()
    assert stored(Person.objects.get(), "name") == before
    fresh = Person.objects.get()
    assert (fresh.name, fresh.data, fresh.blob, fresh.early) == (NAME, 5, BLOB, "早")


def test_deserializers_refuse_other_texts_than_ciphertext() -> None:
    fields = {"uid": str(uuid.uuid4()), "name": NAME}
    text = json.dumps([{"model": "sealed_tests.person", "pk": 1, "fields": fields}])
    with pytest.raises(serializers.base.DeserializationError) as caught:
        list(serializers.deserialize("json", text))
    assert_hidden(repr(caught.value.__cause__))
    field = Person._meta.get_field("name")
    for value in ("", "*", 5, b"x"):
        with pytest.raises(ValidationError):
            field.to_python(value)
    restored = field.to_python(base64.b64encode(b"x").decode())
    assert restored is not None
    assert restored.token == b"x"


def test_forms_leave_the_fields_out(person: Person) -> None:
    form = modelform_factory(Person, fields="__all__")
    assert set(form.base_fields) == {"uid", "city"}
    assert set(model_to_dict(person)) == {"id", "uid", "city"}


def test_full_clean(person: Person) -> None:
    person.name = "李四"
    person.full_clean()
    assert person.name == "李四"
    for field, value in (("name", 5), ("name", "中" * 11), ("data", {"x": {NAME}})):
        setattr(person, field, value)
        with pytest.raises(ValidationError) as caught:
            person.full_clean()
        assert field in caught.value.message_dict
        assert_hidden(str(caught.value))
        person.refresh_from_db()
    fresh = Person.objects.get()
    fresh.full_clean()
    fresh.save()


# Definition


def test_inheritance() -> None:
    employee = Employee.objects.create(name=NAME, salary="1000", city="Beijing")
    assert_hidden(stored(employee, "salary") or b"")
    fresh = Employee.objects.get()
    assert (fresh.name, fresh.salary) == (NAME, "1000")
    fresh.salary = "2000"
    fresh.save()
    assert Person.objects.get().employee.salary == "2000"
    assert Employee.objects.only("salary").get().salary == "2000"
    assert Employee.objects.create(name="x").salary == "secret default"


def test_migrations_keep_label_and_uuid_field() -> None:
    for field in encrypted_fields(Person):
        _, path, args, kwargs = field.deconstruct()
        assert path == f"{type(field).__module__}.{type(field).__name__}"
        assert args == []
        assert kwargs["label"] == field.label
        assert kwargs["uuid_field"] == "uid"
        assert "editable" not in kwargs
        assert kwargs.get("max_length") == field.max_length
        clone = field.clone()
        assert (clone.label, clone.uuid_field, clone.editable) == (field.label, "uid", False)
        source, _ = MigrationWriter.serialize(field)
        assert f"label='{field.label}'" in source


def test_columns_can_be_added_by_a_migration(person: Person, transactional_db: None) -> None:
    field = EncryptedTextField(label="person.added", uuid_field="uid", null=True)
    field.set_attributes_from_name("added")
    field.model = Person
    with connection.schema_editor() as editor:
        editor.add_field(Person, field)
    assert stored(person, "added") is None
    with connection.schema_editor() as editor:
        editor.remove_field(Person, field)


def test_historical_models_read_the_values(person: Person) -> None:
    state = ProjectState()
    state.add_model(ModelState.from_model(Person))
    historical = state.apps.get_model("sealed_tests", "Person")
    assert historical._default_manager.get().name == NAME
    with_label = historical._meta.get_field("name")
    assert isinstance(with_label, EncryptedTextField)
    assert with_label.label == "person.name"


def test_editable_is_refused() -> None:
    with pytest.raises(TypeError):
        EncryptedTextField(label="x", editable=True)


@isolate_apps("tests.privacy")
def test_checks() -> None:
    class Sound(models.Model):
        public_id = models.UUIDField(default=uuid.uuid4)
        text = EncryptedTextField(label="sound.text", default="text")
        binary = EncryptedBinaryField(label="sound.binary", default=b"x")
        mapping = EncryptedJSONField(label="sound.mapping", default=dict)

        class Meta:
            app_label = "sealed_tests"

        def __str__(self) -> str:
            return str(self.pk)

    class Wrong(models.Model):
        public_id = models.UUIDField(default=uuid.uuid4, null=True)
        unlabelled = EncryptedTextField(label="", uuid_field="missing")
        chinese = EncryptedTextField(label="姓名")
        one = EncryptedTextField(label="same", unique=True)
        two = EncryptedTextField(label="same", db_index=True, db_default=Value("x"))

        class Meta:
            app_label = "sealed_tests"

        def __str__(self) -> str:
            return str(self.pk)

    assert Sound.check() == []
    assert Sound().mapping == {}
    found: dict[str, set[str]] = {}
    for message in Wrong.check():
        assert isinstance(message, checks.Error)
        assert message.hint
        assert isinstance(message.obj, EncryptedField)
        found.setdefault(message.id or "", set()).add(message.obj.name)
    everything = {"unlabelled", "chinese", "one", "two"}
    assert found == {
        "faceprint.E101": {"unlabelled", "chinese"},
        "faceprint.E102": {"one", "two"},
        "faceprint.E103": everything,
        "faceprint.E104": {"one", "two"},
    }


def lose_keys(settings: Any) -> None:
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": [generate_key()]}
