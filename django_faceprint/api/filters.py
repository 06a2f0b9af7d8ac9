"""Filters and order of the list of sessions."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from django.db.models import Q
from django.utils.dateparse import parse_datetime
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request

from django_faceprint.exceptions import InvalidInput
from django_faceprint.models.session import VerificationSessionQuerySet


class NewestFirst(CursorPagination):
    """Pages by cursor: the first and the last page of millions cost the same."""

    ordering = ("-created_at", "-id")
    page_size = 50
    max_page_size = 200
    page_size_query_param = "page_size"

    def decode_cursor(self, request: Request) -> Cursor | None:
        """The position of the request's cursor. Raises :class:`InvalidInput` for a forged cursor."""
        problem = False
        cursor = None
        try:
            cursor = super().decode_cursor(request)
            if cursor is not None and cursor.position is not None:
                moment = parse_datetime(str(cursor.position))
                problem = moment is None or moment.tzinfo is None
                if moment is not None:
                    # The first and the last hours of the calendar do not exist in every zone.
                    moment.astimezone(UTC)
        except Exception:  # noqa: BLE001  (decoding a forged cursor may raise anything)
            problem = True
        if problem:
            raise InvalidInput("cursor", "cursor", "This is no cursor of this list.")
        return cursor


def matching(values: dict[str, Any]) -> Q:
    """The condition for filters validated by ``SessionFilterSerializer``."""
    found = Q()
    if "reference" in values:
        found &= Q(reference__exactly=values["reference"])
    if "plan" in values:
        found &= Q(plan__plan_id=values["plan"])
    if "verdict" in values:
        found &= Q(verdict=values["verdict"])
    if "archive_state" in values:
        found &= Q(archive_state=values["archive_state"])
    if "status" in values:
        found &= VerificationSessionQuerySet.in_status(values["status"])
    return found
