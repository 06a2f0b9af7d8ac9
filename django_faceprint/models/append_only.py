"""Tables whose rows are written once: no change, and no deletion but that of what is old enough."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar

from django.db import models

#: What the law wants to be able to read must not be deleted before (days are those of the triggers, too).
KEPT_AT_LEAST = timedelta(days=1_095)

Row = TypeVar("Row", bound=models.Model)


class ChangeRefused(RuntimeError):
    """Someone tried to change or delete what can only be added to."""

    def __init__(self, table: str) -> None:
        super().__init__(f"{table} can only be added to.")


class AppendOnlyQuerySet(models.QuerySet[Row]):
    """Reads and adds. On PostgreSQL and MySQL, triggers refuse the same of any other client."""

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
        """As usual; rows that are there already are not overwritten."""
        if kwargs.get("update_conflicts") or kwargs.get("ignore_conflicts"):
            self._refuse()
        return super().bulk_create(objs, *args, **kwargs)

    def update_or_create(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused."""
        self._refuse()

    def prune(self, column: str, before: datetime) -> int:
        """Delete those of these rows that *column* dates before *before*; how many. Services see to it that
        it is :data:`KEPT_AT_LEAST` ago."""
        return int(self.filter(**{f"{column}__lt": before}).order_by()._raw_delete(self.db))  # type: ignore[attr-defined]


class AppendOnly(models.Model):
    """A row that is written once."""

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert; refused for a row that is there."""
        if not self._state.adding:
            raise ChangeRefused(self._meta.db_table)
        kwargs["force_insert"] = True
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused."""
        raise ChangeRefused(self._meta.db_table)
