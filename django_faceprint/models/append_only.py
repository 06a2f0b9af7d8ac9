"""Tables with rows that are written once: they never change, and only old rows are deleted."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar

from django.db import models

#: The law requires rows to be kept this long. The database's triggers use the same number of days.
KEPT_AT_LEAST = timedelta(days=1_095)

Row = TypeVar("Row", bound=models.Model)


class ChangeRefused(RuntimeError):
    """An attempt to change or delete rows of an append-only table."""

    def __init__(self, table: str) -> None:
        super().__init__(f"{table} can only be added to.")


class AppendOnlyQuerySet(models.QuerySet[Row]):
    """Reads and adds rows. On PostgreSQL and MySQL, triggers also stop other clients from more than that."""

    def _refuse(self) -> NoReturn:
        raise ChangeRefused(self.model._meta.db_table)

    def update(self, **kwargs: Any) -> NoReturn:
        """Refused."""
        self._refuse()

    def delete(self) -> NoReturn:
        """Refused; see :meth:`prune`."""
        self._refuse()

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused."""
        self._refuse()

    def bulk_create(self, objs: Iterable[Row], *args: Any, **kwargs: Any) -> list[Row]:
        """Insert new rows. Options that would overwrite or ignore existing rows are refused."""
        if kwargs.get("update_conflicts") or kwargs.get("ignore_conflicts"):
            self._refuse()
        return super().bulk_create(objs, *args, **kwargs)

    def update_or_create(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused."""
        self._refuse()

    def prune(self, column: str, before: datetime) -> int:
        """Delete the rows with *column* earlier than *before*; returns their number.

        The caller makes sure that *before* is at least :data:`KEPT_AT_LEAST` ago.
        """
        return int(self.filter(**{f"{column}__lt": before}).order_by()._raw_delete(self.db))  # type: ignore[attr-defined]


class AppendOnly(models.Model):
    """A row that is written once."""

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert the row. Refused for a row that exists."""
        if not self._state.adding:
            raise ChangeRefused(self._meta.db_table)
        kwargs["force_insert"] = True
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused."""
        raise ChangeRefused(self._meta.db_table)
