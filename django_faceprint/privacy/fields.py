"""Model fields with values that are encrypted in the database and decrypted when they are read.

Each value is sealed (see :mod:`.keys`) under a subkey of the field's ``label`` and bound to the label and the
row's UUID: a ciphertext copied to another column or row does not open there. The UUID must be set before a
value is saved, and neither label nor UUID may ever change.

* The attribute of an instance is the plaintext, decrypted when it is read. ``values()``, ``values_list()``
  and annotations return an opaque :class:`Sealed`.
* The only lookup is ``isnull``. To filter by equality, put a blind index beside the field.
* ``save()``, ``create()`` and ``bulk_create()`` seal values. ``QuerySet.update()`` does not know the row: it
  takes sealed values (see :func:`column_values`) and refuses plaintexts, as ``bulk_update()`` does.
* Serializers (``dumpdata``) write the ciphertext; ``loaddata`` restores it under the same keys.
"""

from __future__ import annotations

import base64
import binascii
import copy
import json
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

from django.core import checks
from django.core.exceptions import FieldDoesNotExist, FieldError, ValidationError
from django.db import models
from django.db.models.query_utils import DeferredAttribute
from django.utils.translation import gettext_lazy as _

from ..exceptions import replace_exceptions
from .keys import SealBroken, UnknownKey, encryption_ring

MAX_LABEL_LENGTH = 100


class Sealed:
    """An encrypted value as the database holds it. ``repr`` hides it, and ``==`` compares ciphertexts."""

    __slots__ = ("_restored", "label", "token")

    #: The label of the field for which the value was sealed; other fields refuse it.
    label: str
    #: The ciphertext in the format of :mod:`.keys`.
    token: bytes

    def __init__(self, token: bytes, label: str, *, restored: bool = False) -> None:
        self.token = token
        self.label = label
        self._restored = restored

    def __repr__(self) -> str:
        return "<Sealed>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sealed):
            return NotImplemented
        return self.token == other.token and self.label == other.label

    def __hash__(self) -> int:
        return hash((self.token, self.label))

    def __reduce__(self) -> tuple[type[Sealed], tuple[bytes, str]]:
        return Sealed, (self.token, self.label)

    def __copy__(self) -> Sealed:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Sealed:
        return self


class _Plaintext:
    """A plaintext in an instance's ``__dict__``. ``repr`` hides it, and pickling seals it.

    A pickled instance, in a cache for example, contains no plaintext.
    """

    __slots__ = ("field", "row", "value")

    def __init__(self, field: EncryptedField, value: Any, row: uuid.UUID | None) -> None:
        self.field = field
        self.value = value
        self.row = row

    def __repr__(self) -> str:
        return "<Sealed>"

    def __copy__(self) -> _Plaintext:
        return _Plaintext(self.field, self.value, self.row)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Plaintext:
        return _Plaintext(self.field, copy.deepcopy(self.value, memo), self.row)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.row is None:
            raise TypeError(
                f"{self.field} holds an unsaved value of a row without {self.field.uuid_field}; "
                "save the instance before pickling it."
            )
        return self.field.seal(self.row, self.value).__reduce__()


class SealedAttribute(DeferredAttribute):
    """The attribute of an encrypted field: reading it decrypts the value."""

    field: EncryptedField

    def __get__(self, instance: models.Model | None, cls: type[models.Model] | None = None) -> Any:
        if instance is None:
            return self
        value = super().__get__(instance, cls)
        if isinstance(value, _Plaintext):
            return value.value
        if not isinstance(value, Sealed) or value._restored:
            return value
        row = self.field.row_of(instance)
        plain = self.field.unseal(row, value)
        if self.field.mutable:
            # obj.data["x"] = 1; obj.save() must save the change.
            instance.__dict__[self.field.attname] = _Plaintext(self.field, plain, row)
        return plain

    def __set__(self, instance: models.Model, value: Any) -> None:
        if value is not None and not isinstance(value, Sealed):
            row = instance.__dict__.get(self.field.uuid_field)
            value = _Plaintext(self.field, value, row if isinstance(row, uuid.UUID) else None)
        instance.__dict__[self.field.attname] = value

    def __delete__(self, instance: models.Model) -> None:
        """Defer the field: the next read loads it again."""
        instance.__dict__.pop(self.field.attname, None)


class EncryptedField(models.BinaryField):
    """Base of the encrypted fields. Subclasses define ``_encode`` and ``_decode``.

    :param label: fixed name of the column in key derivation and associated data, 1–100 ASCII characters,
        unique among the fields of a model. Never change it: old values would not open.
    :param uuid_field: name of the non-null ``UUIDField`` of the same row.
    :param max_length: limit of the plaintext in bytes (UTF-8); None for no limit.

    Never editable: forms and the admin leave it out.
    """

    # For type checkers: the types of the attribute.
    _pyi_private_set_type: Any
    _pyi_private_get_type: Any

    descriptor_class = SealedAttribute
    #: Whether a plaintext can be changed in place.
    mutable = False

    def __init__(
        self,
        verbose_name: Any = None,
        *,
        label: str,
        uuid_field: str = "public_id",
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("editable", False):
            raise TypeError("An encrypted field cannot be editable.")
        # Not given to BinaryField, whose validator would count characters.
        max_length = kwargs.pop("max_length", None)
        super().__init__(verbose_name, editable=False, **kwargs)
        self.max_length = max_length
        self.label = label
        self.uuid_field = uuid_field

    # Definition

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs["label"] = self.label
        kwargs["uuid_field"] = self.uuid_field
        return name, path, args, kwargs

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        return [*super().check(**kwargs), *self._check_label(), *self._check_row(), *self._check_options()]

    def _check_label(self) -> list[checks.CheckMessage]:
        usable = isinstance(self.label, str) and self.label.isascii() and self.label.isprintable()
        if not usable or not 1 <= len(self.label) <= MAX_LABEL_LENGTH:
            return [
                checks.Error(
                    "The label of an encrypted field must be 1–100 printable ASCII characters.",
                    hint='Name the column, for example label="session.verify_token".',
                    obj=self,
                    id="faceprint.E101",
                )
            ]
        others = [
            field.name
            for field in self.model._meta.concrete_fields
            if isinstance(field, EncryptedField) and field.label == self.label and field.name != self.name
        ]
        if others:
            return [
                checks.Error(
                    f"The label {self.label!r} is also the label of {', '.join(others)}.",
                    hint="Give each encrypted field its own label, or swapped values would go unnoticed.",
                    obj=self,
                    id="faceprint.E102",
                )
            ]
        return []

    def _check_row(self) -> list[checks.CheckMessage]:
        try:
            field = self.model._meta.get_field(self.uuid_field)
        except FieldDoesNotExist:
            field = None
        if isinstance(field, models.UUIDField) and not field.null:
            return []
        return [
            checks.Error(
                f"uuid_field {self.uuid_field!r} is not a UUIDField without null on the same model.",
                hint="The UUID binds encrypted values to their row; add such a field with a default.",
                obj=self,
                id="faceprint.E103",
            )
        ]

    def _check_options(self) -> list[checks.CheckMessage]:
        wrong = [name for name in ("primary_key", "unique", "db_index", "choices") if getattr(self, name)]
        if getattr(self, "db_default", models.NOT_PROVIDED) is not models.NOT_PROVIDED:
            wrong.append("db_default")
        if not wrong:
            return []
        return [
            checks.Error(
                f"An encrypted field cannot have {', '.join(wrong)}.",
                hint="Equal values have different ciphertexts; put a blind index into a column beside it.",
                obj=self,
                id="faceprint.E104",
            )
        ]

    def _check_str_default_value(self) -> list[checks.CheckMessage]:
        return []  # the default is a plaintext, which may be text

    def get_lookup(self, lookup_name: str) -> Any:
        """Only ``isnull``; every other lookup raises ``FieldError``."""
        if lookup_name != "isnull":
            self._refuse_lookup(lookup_name)
        return super().get_lookup(lookup_name)

    def get_transform(self, lookup_name: str) -> NoReturn:
        self._refuse_lookup(lookup_name)

    def _refuse_lookup(self, lookup_name: str) -> NoReturn:
        raise FieldError(
            f"The encrypted field {self.name!r} has no lookup {lookup_name!r}, only isnull; "
            "filter by its blind index."
        )

    # Sealing

    def seal(self, row: uuid.UUID, value: Any) -> Sealed:
        """*value* (not None), sealed for the row with the UUID *row*.

        Raises ``TypeError`` or ``ValueError`` when the value has the wrong type, cannot be encoded or is too
        long. The exception does not contain the value.
        """
        token = encryption_ring().seal(self._purpose, self._encode_checked(value), self._aad(row))
        return Sealed(token, self.label)

    def unseal(self, row: uuid.UUID, sealed: Sealed) -> Any:
        """The plaintext of a value of this field in the row with the UUID *row*.

        Raises :class:`~.keys.SealBroken`, or its subclass ``UnknownKey``.
        """
        if sealed.label != self.label:
            raise SealBroken
        return self._decode(encryption_ring().open(self._purpose, sealed.token, self._aad(row)))

    def reseal(self, row: uuid.UUID, sealed: Sealed) -> Sealed:
        """The same value under the newest key; *sealed* itself if it already is. Raises as :meth:`unseal`."""
        ring = encryption_ring()
        token = ring.reseal(self._purpose, sealed.token, self._aad(row))
        return sealed if token is sealed.token else Sealed(token, self.label)

    def sealed_of(self, instance: models.Model) -> Sealed | None:
        """The stored value of a loaded row, not decrypted; None for NULL."""
        value = instance.__dict__.get(self.attname)
        return value if isinstance(value, Sealed) else self._sealed(instance)

    def row_of(self, instance: models.Model) -> uuid.UUID:
        """The UUID of the instance's row. Raises ``ValueError`` when it is not set."""
        row = getattr(instance, self.uuid_field)
        if isinstance(row, str):
            try:
                return uuid.UUID(row)
            except ValueError:
                row = None
        if not isinstance(row, uuid.UUID):
            raise ValueError(f"{self} needs a UUID in {self.uuid_field} to seal or read a value.")
        return row

    @property
    def _purpose(self) -> str:
        return f"field/{self.label}"

    def _aad(self, row: uuid.UUID) -> bytes:
        return self.label.encode() + b"\0" + row.bytes

    def _encode(self, value: Any) -> bytes:
        """The bytes of a plaintext. Raises ``TypeError`` or ``ValueError``, without the value."""
        raise NotImplementedError

    def _decode(self, data: bytes) -> Any:
        raise NotImplementedError

    def _encode_checked(self, value: Any) -> bytes:
        data = self._encode(value)
        if self.max_length is not None and len(data) > self.max_length:
            raise ValueError(f"The value of {self} has more than {self.max_length} bytes.")
        return data

    # From and to the database

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Sealed | None:
        return None if value is None else Sealed(bytes(value), self.label)

    def pre_save(self, model_instance: models.Model, add: bool) -> Sealed | None:
        sealed = self._sealed(model_instance)
        if not self.mutable:
            # From here on the instance holds the ciphertext only.
            model_instance.__dict__[self.attname] = sealed
        return sealed

    def _sealed(self, instance: models.Model) -> Sealed | None:
        if self.attname not in instance.__dict__:
            getattr(instance, self.attname)
        value = instance.__dict__[self.attname]
        if value is None:
            return None
        row = self.row_of(instance)
        if isinstance(value, _Plaintext):
            sealed = self.seal(row, value.value)
            value.row = row
            return sealed
        # Refuse to save a value of another row: it would never open again. Keep a value with a missing key:
        # the key may come back.
        with suppress(UnknownKey):
            self.unseal(row, value)
        return value

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if value is None:
            return None
        if not isinstance(value, Sealed):
            raise TypeError(
                f"{self} cannot seal a plaintext here, because the row is unknown: use save(), "
                "or column_values() with QuerySet.update()."
            )
        if value.label != self.label:
            raise TypeError(f"The value for {self} was sealed for another field.")
        return super().get_db_prep_value(value.token, connection, prepared)

    # Serializers and validation

    def value_from_object(self, obj: models.Model) -> Any:
        """The ciphertext, because serializers must not see plaintexts."""
        return self._sealed(obj)

    def value_to_string(self, obj: models.Model) -> str:
        """The ciphertext in base64."""
        sealed = self._sealed(obj)
        return "" if sealed is None else base64.b64encode(sealed.token).decode("ascii")

    def to_python(self, value: Any) -> Sealed | None:
        """A ciphertext from a serializer; opaque until the instance is loaded from the database."""
        if value is None or isinstance(value, Sealed):
            return value
        token = b""
        if isinstance(value, str):
            # ValidationError is raised outside of this block, so that no context holds the value.
            with suppress(UnicodeEncodeError, binascii.Error):
                token = base64.b64decode(value.encode("ascii"), validate=True)
        if not token:
            raise ValidationError(_("Not an encrypted value."), code="invalid")
        return Sealed(token, self.label, restored=True)

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        """Check a plaintext as :meth:`seal` does. Raises ``ValidationError``, without the value."""
        if value is None or isinstance(value, Sealed):
            return value
        invalid = (TypeError, ValueError)
        with replace_exceptions(*invalid, by=lambda error: ValidationError(str(error), code="invalid")):
            self._encode_checked(value)
        self.run_validators(value)
        return value


class EncryptedTextField(EncryptedField):
    """Encrypted ``str``. "" and NULL are different values."""

    _pyi_private_set_type: str
    _pyi_private_get_type: str

    description = _("Encrypted text")
    empty_values = [None, ""]

    def get_default(self) -> Any:
        default = super().get_default()
        return "" if default == b"" else default

    def _encode(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise TypeError(f"{self} takes a str, not {type(value).__name__}.")
        # JSON can carry lone surrogates, and evidence must be kept unchanged.
        return value.encode("utf-8", "surrogatepass")

    def _decode(self, data: bytes) -> str:
        return data.decode("utf-8", "surrogatepass")


class EncryptedJSONField(EncryptedField):
    """Encrypted JSON, without NaN and Infinity. ``None`` is NULL, not JSON's null."""

    description = _("Encrypted JSON")
    empty_values = [None, "", [], {}]
    empty_strings_allowed = False
    mutable = True

    def _encode(self, value: Any) -> bytes:
        replaced = ValueError(f"The value of {self} cannot be written as JSON.")
        # The texts of the original exceptions may quote the value.
        with replace_exceptions(TypeError, ValueError, RecursionError, by=lambda error: replaced):
            # ASCII, because UTF-8 has no lone surrogates, and Baidu's answers may.
            return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")

    def _decode(self, data: bytes) -> Any:
        return json.loads(data)


def seal_value(instance: models.Model, field_name: str, value: Any) -> Sealed | None:
    """*value*, sealed for a field of the instance's row; None stays None.

    Raises ``TypeError`` or ``ValueError`` as :meth:`EncryptedField.seal`, and ``ValueError`` when the row's
    UUID is not set.
    """
    field = _encrypted_field(type(instance), field_name)
    return None if value is None else field.seal(field.row_of(instance), value)


def column_values(instance: models.Model, values: Mapping[str, Any], /) -> dict[str, Any]:
    """*values* as ``QuerySet.update()`` on the instance's row takes them.

    ``Session.objects.filter(pk=session.pk).update(**column_values(session, {"name": "张三"}))``. Seals the
    plaintexts of encrypted fields; sealed values and values of other fields stay unchanged. Raises as
    :func:`seal_value`.
    """
    encrypted = {field.name for field in encrypted_fields(type(instance))}
    return {
        name: seal_value(instance, name, value)
        if name in encrypted and not isinstance(value, Sealed)
        else value
        for name, value in values.items()
    }


def encrypted_fields(model: type[models.Model]) -> tuple[EncryptedField, ...]:
    """The encrypted fields of a model, in the order of its columns."""
    return tuple(field for field in model._meta.concrete_fields if isinstance(field, EncryptedField))


def _encrypted_field(model: type[models.Model], name: str) -> EncryptedField:
    field = model._meta.get_field(name)
    if not isinstance(field, EncryptedField):
        raise TypeError(f"{model.__name__}.{name} is not an encrypted field.")
    return field
