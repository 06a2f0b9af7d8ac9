"""Comparisons that mean the same on every database."""

from __future__ import annotations

from typing import Any

from django.db.models import CharField
from django.db.models.lookups import Exact


@CharField.register_lookup
class Exactly(Exact):
    """``filter(reference__exactly="A-1")``: the very same text, character by character.

    MySQL and MariaDB compare by collation, which as a rule takes ``a`` for ``A``, ``e`` for ``é`` and any two
    characters outside of the basic plane for the same. The bytes are compared there as well, after the
    index has found the row.
    """

    lookup_name = "exactly"

    def get_rhs_op(self, connection: Any, rhs: str) -> str:
        """The operator, which Django else looks up under the name of the lookup."""
        return f"= {rhs}"

    def as_mysql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        """The comparison of collations, which an index serves, and then that of bytes."""
        found, values = self.as_sql(compiler, connection)
        left, left_values = self.process_lhs(compiler, connection)
        right, right_values = self.process_rhs(compiler, connection)
        return (
            f"({found} AND CAST({left} AS BINARY) = CAST({right} AS BINARY))",
            [*values, *left_values, *right_values],
        )
