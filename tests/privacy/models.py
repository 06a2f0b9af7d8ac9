from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.db import models

from django_faceprint.privacy.fields import EncryptedField, EncryptedJSONField, EncryptedTextField


class EncryptedBinaryField(EncryptedField):
    """``bytes`` in a field of the host's own."""

    def _encode(self, value: Any) -> bytes:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(f"{self} takes bytes, not {type(value).__name__}.")
        return bytes(value)

    def _decode(self, data: bytes) -> bytes:
        return data


class Person(models.Model):
    # Before the UUID on purpose: its values are set before the row's UUID is.
    early = EncryptedTextField(label="person.early", null=True, uuid_field="uid")
    uid = models.UUIDField(default=uuid.uuid4, unique=True)
    name = EncryptedTextField(label="person.name", uuid_field="uid", max_length=30)
    data = EncryptedJSONField(label="person.data", null=True, uuid_field="uid")
    blob = EncryptedBinaryField(label="person.blob", null=True, uuid_field="uid")
    city = models.CharField(max_length=20, default="", blank=True)

    objects: ClassVar[models.Manager[Any]] = models.Manager()

    class Meta:
        app_label = "sealed_tests"

    def __str__(self) -> str:
        return str(self.pk)


class Employee(Person):
    """Multi-table inheritance: the UUID is a column of the parent's table."""

    salary = EncryptedTextField(label="employee.salary", uuid_field="uid", default="secret default")

    objects: ClassVar[models.Manager[Any]] = models.Manager()

    class Meta:
        app_label = "sealed_tests"

    def __str__(self) -> str:
        return str(self.pk)
