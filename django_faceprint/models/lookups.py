"""Lookups with the same meaning on every database."""

from __future__ import annotations

from typing import Any

from django.db.models import CharField
from django.db.models.lookups import Exact


@CharField.register_lookup
class Exactly(Exact):
    """``filter(reference__exactly="A-1")``: equal character by character.

    MySQL and MariaDB compare by collation. By default, ``a`` equals ``A`` there, ``e`` equals ``é``, and any
    two characters outside of the basic plane are equal. So the bytes are compared as well, after the index
    has found the row.
    """

    lookup_name = "exactly"

    def get_rhs_op(self, connection: Any, rhs: str) -> str:
        """The operator; Django would look it up by the name of the lookup."""
        return f"= {rhs}"

    def as_mysql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        """The comparison by collation, which uses an index, and then that of the bytes."""
        found, values = self.as_sql(compiler, connection)
        left, left_values = self.process_lhs(compiler, connection)
        right, right_values = self.process_rhs(compiler, connection)
        return (
            f"({found} AND CAST({left} AS BINARY) = CAST({right} AS BINARY))",
            [*values, *left_values, *right_values],
        )
