"""Rows written past Django's models, which would take most of the time: COPY or one prepared INSERT."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections, models, router

from django_faceprint.privacy.fields import EncryptedField

Values = dict[str, Any]


class Sealer:
    """Encrypts values for the encrypted columns of a model."""

    def __init__(self, model: type[models.Model]) -> None:
        self._fields = {
            item.name: item for item in model._meta.concrete_fields if isinstance(item, EncryptedField)
        }

    def __call__(self, row: UUID, name: str, plain: Any) -> bytes:
        """The ciphertext of *plain* for the column *name* of the row with that public ID."""
        return self._fields[name].seal(row, plain).token


class Table:
    """The table of a model. Rows are values by ``attname``; missing ones get the field's default.

    The database assigns the primary keys.
    """

    def __init__(self, model: type[models.Model]) -> None:
        self.using = router.db_for_write(model) or DEFAULT_DB_ALIAS
        self._connection: Any = connections[self.using]
        self._fields = [item for item in model._meta.concrete_fields if not item.primary_key]
        self._table = self._connection.ops.quote_name(model._meta.db_table)
        self._columns = ", ".join(self._connection.ops.quote_name(str(item.column)) for item in self._fields)
        self._adapters = {item.attname: self._adapter(item) for item in self._fields}
        self._defaults = {item.attname: _default(item) for item in self._fields}

    def insert(self, rows: Sequence[Values]) -> None:
        """Add rows in their order. Raises ``KeyError`` for an unknown column."""
        if not rows:
            return
        with self._connection.cursor() as cursor:
            if self._connection.vendor == "postgresql" and hasattr(cursor, "copy"):
                with cursor.copy(f"COPY {self._table} ({self._columns}) FROM STDIN") as copy:
                    for values in rows:
                        copy.write_row(self._adapted(values))
                return
            places = ", ".join(["%s"] * len(self._fields))
            cursor.executemany(
                f"INSERT INTO {self._table} ({self._columns}) VALUES ({places})",  # noqa: S608  (names of ours)
                [self._adapted(values) for values in rows],
            )

    def analyze(self) -> None:
        """Refresh the statistics by which the database plans its queries."""
        if self._connection.vendor == "mysql":
            # MySQL does that by itself, and ANALYZE would end the transaction.
            return
        with self._connection.cursor() as cursor:
            cursor.execute(f"ANALYZE {self._table}")

    def _adapted(self, values: Values) -> list[Any]:
        row = self._defaults | values
        if len(row) != len(self._fields):
            raise KeyError(*(set(row) - set(self._defaults)))
        return [
            value if value is None or adapt is None else adapt(value)
            for (name, adapt), value in zip(self._adapters.items(), row.values(), strict=True)
        ]

    def _adapter(self, item: Any) -> Callable[[Any], Any] | None:
        """Converts a value to the type that the database's driver takes; ``None``: takes it as it is."""
        if isinstance(item, models.JSONField):
            return json.dumps
        if self._connection.vendor == "postgresql":
            return None
        if isinstance(item, models.DateTimeField):
            return self._connection.ops.adapt_datetimefield_value
        if isinstance(item, models.UUIDField):
            return lambda value: item.get_db_prep_save(value, self._connection)
        return None


def _default(item: Any) -> Any:
    if item.has_default():
        return item.default() if callable(item.default) else item.default
    return None if item.null else item.get_default()
