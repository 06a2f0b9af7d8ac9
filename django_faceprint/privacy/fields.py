"""Model fields whose values are encrypted in the database and decrypted when they are read.

Each value is sealed (see :mod:`.keys`) under a subkey of the field's ``label`` and bound to the label
and to the row's UUID: a ciphertext copied to another column or row does not open there. So the row's
UUID must be set before a value is, and neither label nor UUID may ever change.

* An attribute of an instance gives the plaintext, decrypted when it is read. ``values()``,
  ``values_list()`` and annotations give an opaque :class:`Sealed`.
* Only ``isnull`` can be asked of such a column; equality needs a blind index beside it.
* ``save()``, ``create()`` and ``bulk_create()`` seal by themselves. ``QuerySet.update()`` does not know
  the row and takes what :func:`sealed_values` made; it refuses a plaintext, and so does ``bulk_update()``.
* Serializers (``dumpdata``) write the ciphertext, which ``loaddata`` restores under the same keys.
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

from .keys import SealBroken, UnknownKey, encryption_ring

MAX_LABEL_LENGTH = 100


class Sealed:
    """An encrypted value as the database holds it. Shows and compares nothing but ciphertext."""

    __slots__ = ("_restored", "label", "token")

    #: The field's label; a value sealed for one field is refused by every other.
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


class _Held:
    """A plaintext in an instance's ``__dict__``, where reprs, copies and pickles of the instance find it.

    Sealed when pickled, so that a cached instance carries no plaintext.
    """

    __slots__ = ("field", "plain", "row")

    def __init__(self, field: EncryptedField, plain: Any, row: uuid.UUID | None) -> None:
        self.field = field
        self.plain = plain
        self.row = row

    def __repr__(self) -> str:
        return "<Sealed>"

    def __copy__(self) -> _Held:
        return _Held(self.field, self.plain, self.row)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Held:
        return _Held(self.field, copy.deepcopy(self.plain, memo), self.row)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.row is None:
            raise TypeError(
                f"{self.field} holds an unsaved value of a row without {self.field.uuid_field}; "
                "save the instance before pickling it."
            )
        return self.field.seal(self.row, self.plain).__reduce__()


class SealedAttribute(DeferredAttribute):
    """The attribute of an encrypted field: decrypts when it is read."""

    field: EncryptedField

    def __get__(self, instance: models.Model | None, cls: type[models.Model] | None = None) -> Any:
        if instance is None:
            return self
        value = super().__get__(instance, cls)
        if isinstance(value, _Held):
            return value.plain
        if not isinstance(value, Sealed) or value._restored:
            return value
        row = self.field.row_of(instance)
        plain = self.field.unseal(row, value)
        if self.field.mutable:
            # obj.data["x"] = 1; obj.save() must save, so the object that was handed out is kept.
            instance.__dict__[self.field.attname] = _Held(self.field, plain, row)
        return plain

    def __set__(self, instance: models.Model, value: Any) -> None:
        if value is not None and not isinstance(value, Sealed):
            row = instance.__dict__.get(self.field.uuid_field)
            value = _Held(self.field, value, row if isinstance(row, uuid.UUID) else None)
        instance.__dict__[self.field.attname] = value

    def __delete__(self, instance: models.Model) -> None:
        """Defer the field: the next read loads it again."""
        instance.__dict__.pop(self.field.attname, None)


class EncryptedField(models.BinaryField):
    """Base of the encrypted fields; use one of its subclasses.

    :param label: fixed name of the column in key derivation and associated data, 1–100 ASCII
        characters, unique among the fields of a row. Never change it: old values would not open.
    :param uuid_field: name of the non-null ``UUIDField`` of the same row.
    :param max_length: limit of the plaintext in bytes (UTF-8); None for no limit.

    Never editable, so forms and the admin leave it out.
    """

    # What type checkers take for the types of the attribute.
    _pyi_private_set_type: Any
    _pyi_private_get_type: Any

    descriptor_class = SealedAttribute
    #: Whether plaintexts can be changed in place.
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
        if not isinstance(self.label, str) or not self.label.isascii() or not self.label.isprintable():
            usable = False
        else:
            usable = 1 <= len(self.label) <= MAX_LABEL_LENGTH
        if not usable:
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
                    hint="Give each encrypted field a label of its own: values could be swapped unnoticed.",
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
                hint="Encrypted values are bound to their row by its UUID; add such a field with a default.",
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
        return []  # the default is a plaintext, which may well be text

    def get_lookup(self, lookup_name: str) -> Any:
        """Only ``isnull``; every other lookup raises ``FieldError``."""
        if lookup_name != "isnull":
            self._refuse_lookup(lookup_name)
        return super().get_lookup(lookup_name)

    def get_transform(self, lookup_name: str) -> NoReturn:
        self._refuse_lookup(lookup_name)

    def _refuse_lookup(self, lookup_name: str) -> NoReturn:
        raise FieldError(
            f"{lookup_name!r} cannot be asked of the encrypted field {self.name!r}, only isnull; "
            "filter by its blind index."
        )

    # Sealing

    def seal(self, row: uuid.UUID, value: Any) -> Sealed:
        """``value`` (not None) sealed for the row with UUID ``row``.

        Raises ``TypeError`` or ``ValueError`` without the value when it has the wrong type, cannot be
        encoded or is too long.
        """
        token = encryption_ring().seal(self._purpose, self._encode_checked(value), self._aad(row))
        return Sealed(token, self.label)

    def unseal(self, row: uuid.UUID, sealed: Sealed) -> Any:
        """The plaintext of a value of this field in the row with UUID ``row``.

        Raises :class:`~.keys.SealBroken`, or its subclass ``UnknownKey``.
        """
        if sealed.label != self.label:
            raise SealBroken
        return self._decode(encryption_ring().open(self._purpose, sealed.token, self._aad(row)))

    def reseal(self, row: uuid.UUID, sealed: Sealed) -> Sealed:
        """The same value under the newest key; ``sealed`` itself if it is already.

        Raises as :meth:`unseal`.
        """
        ring = encryption_ring()
        token = ring.reseal(self._purpose, sealed.token, self._aad(row))
        return sealed if token is sealed.token else Sealed(token, self.label)

    def sealed_of(self, instance: models.Model) -> Sealed | None:
        """The value of a loaded row as it is stored; None for NULL. Nothing is decrypted."""
        value = instance.__dict__.get(self.attname)
        return value if isinstance(value, Sealed) else self._sealed(instance)

    def row_of(self, instance: models.Model) -> uuid.UUID:
        """The UUID of the row that ``instance`` stands for. Raises ``ValueError`` when it is not set."""
        row = getattr(instance, self.uuid_field)
        if isinstance(row, str):
            try:
                return uuid.UUID(row)
            except ValueError:
                row = None
        if not isinstance(row, uuid.UUID):
            raise ValueError(f"{self} needs a UUID in {self.uuid_field} before a value is sealed or read.")
        return row

    @property
    def _purpose(self) -> str:
        return f"field/{self.label}"

    def _aad(self, row: uuid.UUID) -> bytes:
        return self.label.encode() + b"\0" + row.bytes

    def _encode(self, value: Any) -> bytes:
        """The bytes of a plaintext; raises ``TypeError`` or ``ValueError`` without the value."""
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
            # From here on the instance holds what the row holds, and no plaintext.
            model_instance.__dict__[self.attname] = sealed
        return sealed

    def _sealed(self, instance: models.Model) -> Sealed | None:
        if self.attname not in instance.__dict__:
            getattr(instance, self.attname)
        value = instance.__dict__[self.attname]
        if value is None:
            return None
        row = self.row_of(instance)
        if isinstance(value, _Held):
            sealed = self.seal(row, value.plain)
            value.row = row
            return sealed
        # A value of another row would never open again: refuse to save it. One whose key is missing is
        # unreadable here and now, but perhaps not for ever: keep it as it is.
        with suppress(UnknownKey):
            self.unseal(row, value)
        return value

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if value is None:
            return None
        if not isinstance(value, Sealed):
            raise TypeError(
                f"{self} takes no plaintext here, because the row is not known: use save(), "
                "or sealed_values() with QuerySet.update()."
            )
        if value.label != self.label:
            raise TypeError(f"{self} was given a value that was sealed for another field.")
        return super().get_db_prep_value(value.token, connection, prepared)

    # Serializers and validation

    def value_from_object(self, obj: models.Model) -> Any:
        """The ciphertext: serializers ask for it, and must not see plaintexts."""
        return self._sealed(obj)

    def value_to_string(self, obj: models.Model) -> str:
        """The ciphertext in base64."""
        sealed = self._sealed(obj)
        return "" if sealed is None else base64.b64encode(sealed.token).decode("ascii")

    def to_python(self, value: Any) -> Sealed | None:
        """A ciphertext out of a serializer; opaque until the instance is loaded from the database."""
        if value is None or isinstance(value, Sealed):
            return value
        token = b""
        if isinstance(value, str):
            # Refused outside of this block, so that the value is in no context.
            with suppress(UnicodeEncodeError, binascii.Error):
                token = base64.b64decode(value.encode("ascii"), validate=True)
        if not token:
            raise ValidationError(_("Not an encrypted value."), code="invalid")
        return Sealed(token, self.label, restored=True)

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        """Check a plaintext as sealing will; raises ``ValidationError`` without the value."""
        if value is None or isinstance(value, Sealed):
            return value
        message = ""
        try:
            self._encode_checked(value)
        except (TypeError, ValueError) as error:
            message = str(error)
        if message:
            raise ValidationError(message, code="invalid")
        self.run_validators(value)
        return value


class EncryptedTextField(EncryptedField):
    """Encrypted ``str``. "" is a value of its own, distinct from NULL."""

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
        # JSON can carry lone surrogates, and evidence must be kept whatever it holds.
        return value.encode("utf-8", "surrogatepass")

    def _decode(self, data: bytes) -> str:
        return data.decode("utf-8", "surrogatepass")


class EncryptedJSONField(EncryptedField):
    """Encrypted JSON: what ``json`` can write, without NaN and Infinity. ``None`` is NULL, not JSON null."""

    description = _("Encrypted JSON")
    empty_values = [None, "", [], {}]
    empty_strings_allowed = False
    mutable = True

    def _encode(self, value: Any) -> bytes:
        try:
            # ASCII, because a lone surrogate in a vendor's answer has no other encoding.
            return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")
        except (TypeError, ValueError, RecursionError):
            pass  # their texts may quote the value: raise ours outside this block
        raise ValueError(f"The value of {self} cannot be written as JSON.")

    def _decode(self, data: bytes) -> Any:
        return json.loads(data)


def seal_value(instance: models.Model, field_name: str, value: Any) -> Sealed | None:
    """``value`` sealed for a field of ``instance``'s row; None stays None.

    Raises ``TypeError`` or ``ValueError`` as :meth:`EncryptedField.seal`, and ``ValueError`` when the row's
    UUID is not set.
    """
    field = _encrypted_field(type(instance), field_name)
    return None if value is None else field.seal(field.row_of(instance), value)


def sealed_values(model: type[models.Model], row: uuid.UUID, /, **values: Any) -> dict[str, Sealed | None]:
    """Keyword arguments for ``QuerySet.update()`` on the one row with UUID ``row``.

    ``Session.objects.filter(pk=pk, epoch=epoch).update(**sealed_values(Session, public_id, name="张三"))``.
    Plaintexts by field name, encrypted fields only; None stays None. Raises as :func:`seal_value`.
    """
    return {
        name: None if value is None else _encrypted_field(model, name).seal(row, value)
        for name, value in values.items()
    }


def column_values(instance: models.Model, values: Mapping[str, Any], /) -> dict[str, Any]:
    """*values* as ``QuerySet.update()`` on ``instance``'s row takes them.

    Plaintexts of encrypted fields are sealed; sealed values and those of other fields stay as they are.
    Raises as :func:`seal_value`.
    """
    encrypted = {field.name for field in encrypted_fields(type(instance))}
    return {
        name: seal_value(instance, name, value)
        if name in encrypted and not isinstance(value, Sealed)
        else value
        for name, value in values.items()
    }


def unsealed(model: type[models.Model], row: uuid.UUID, field_name: str, sealed: Sealed | None) -> Any:
    """The plaintext of what ``values()`` gave for a field of the row with UUID ``row``; None stays None.

    Raises :class:`~.keys.SealBroken`, or its subclass ``UnknownKey``.
    """
    field = _encrypted_field(model, field_name)
    return None if sealed is None else field.unseal(row, sealed)


def encrypted_fields(model: type[models.Model]) -> tuple[EncryptedField, ...]:
    """The encrypted fields of a model, in their order; key rotation walks them."""
    return tuple(field for field in model._meta.concrete_fields if isinstance(field, EncryptedField))


def _encrypted_field(model: type[models.Model], name: str) -> EncryptedField:
    field = model._meta.get_field(name)
    if not isinstance(field, EncryptedField):
        raise TypeError(f"{model.__name__}.{name} is not an encrypted field.")
    return field
