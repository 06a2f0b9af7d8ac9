"""Finding records by reference, ID, name or number, exactly and without personal data in a URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.views.decorators.debug import sensitive_variables

from django_faceprint.models import UpstreamAnswer, UpstreamCall, VerificationSession
from django_faceprint.privacy.blind_index import Kind, blind_index_candidates
from django_faceprint.privacy.keys import SealBroken

#: Texts of one lookup, and records found for one text (the newest).
MAX_TEXTS = 100
MAX_HITS = 50
MAX_TEXT_LENGTH = 100

_BLIND_INDEXES = (
    ("number_index", Kind.ID_NUMBER),
    ("name_index", Kind.NAME),
    ("verify_token_index", Kind.VERIFY_TOKEN),
)
_LINES = re.compile(r"[\r\n\t,;，；、]+")


@dataclass(frozen=True)
class Found:
    """The records that a lookup found. ``missing`` are the places, from 1, of the texts that matched nothing.

    ``may_be_personal``: a text was compared with names and numbers. ``is_truncated``: a text has more records
    than are listed. ``left_out``: texts beyond the limit.
    """

    keys: frozenset[int]
    asked: int
    missing: tuple[int, ...]
    may_be_personal: bool
    is_truncated: bool
    left_out: int


@sensitive_variables()
def look_up(text: str) -> Found:
    """The records whose reference, session ID, log_id, verify_token, ID number or name *text* is, exactly.

    *text* may be several, one on a line or separated by commas, or by spaces where the whole is none. Each is
    first taken for a reference, session ID or log_id, and only then for a person or a token, through the
    blind indexes, however it is written. A masked number (``370***``) matches nothing.
    """
    texts = [part.strip() for part in _LINES.split(text) if part.strip()]
    found = _look_up(texts)
    if len(texts) == 1 and found.missing and len(texts[0].split()) > 1:
        apart = _look_up(texts[0].split())
        return apart if apart.keys else found
    return found


@sensitive_variables()
def _look_up(texts: list[str]) -> Found:
    keys: set[int] = set()
    missing = []
    may_be_personal = is_truncated = False
    asked = texts[:MAX_TEXTS]
    named = _by_name(asked)
    for place, text in enumerate(asked, 1):
        hits = named.get(text, [])
        if not hits and len(text) <= MAX_TEXT_LENGTH:
            may_be_personal = True
            hits = _of_person(text)
        if not hits:
            missing.append(place)
        is_truncated |= len(hits) > MAX_HITS
        keys.update(hits[:MAX_HITS])
    return Found(
        frozenset(keys),
        len(asked),
        tuple(missing),
        may_be_personal,
        is_truncated,
        max(len(texts) - MAX_TEXTS, 0),
    )


def _by_name(texts: list[str]) -> dict[str, list[int]]:
    """Records by reference, session ID or log_id. Each question names one indexed column only: joined by OR,
    a database reads the whole table."""
    # PostgreSQL does not even take a question with a null character.
    asked = [text for text in texts if len(text) <= MAX_TEXT_LENGTH and "\x00" not in text]
    found: dict[str, set[int]] = {text: set() for text in asked}
    sessions = VerificationSession.objects.order_by()
    by_id = {
        public_id: text
        for text in asked
        if (public_id := VerificationSession.parse_public_id(text)) is not None
    }
    for public_id, pk in sessions.filter(public_id__in=by_id).values_list("public_id", "pk"):
        found[by_id[public_id]].add(pk)
    log_ids = [text for text in asked if len(text) <= 40]
    for rows, column, key, values in (
        (sessions, "reference", "pk", asked),
        (sessions, "error_log_id", "pk", log_ids),
        (UpstreamAnswer.objects.order_by(), "log_id", "session_id", log_ids),
        (UpstreamCall.objects.exclude(session=None).order_by(), "log_id", "session_id", log_ids),
    ):
        _collect(found, rows, column, key, values)
    return {text: sorted(keys, reverse=True) for text, keys in found.items() if keys}


def _collect(
    found: dict[str, set[int]], rows: QuerySet[Any], column: str, key: str, values: list[str]
) -> None:
    most = (MAX_HITS + 1) * MAX_TEXTS
    for text, pk in rows.filter(**{f"{column}__in": values}).values_list(column, key)[:most]:
        # MySQL finds by collation, which takes "a" for "A": only the very same text counts.
        if text in found:
            found[text].add(pk)


@sensitive_variables()
def _of_person(text: str) -> list[int]:
    """The newest records of an ID number or name, or that of a token: as submitted or as confirmed."""
    for column, kind in _BLIND_INDEXES:
        candidates = blind_index_candidates(kind, text)
        if candidates:
            rows = VerificationSession.objects.filter(**{f"{column}__in": candidates})
            keys = list(rows.order_by("-pk").values_list("pk", flat=True)[: MAX_HITS + 1])
            if keys:
                return keys
    return []


@sensitive_variables()
def others_of_person(
    session: VerificationSession, among: QuerySet[VerificationSession]
) -> QuerySet[VerificationSession] | None:
    """Those *among* the records that have the ID number of *session*, newest first, without itself.

    None when it has no number. One that cannot be decrypted can still be compared, under its own index key.
    """
    try:
        candidates = blind_index_candidates(Kind.ID_NUMBER, session.known_number or "")
    except SealBroken:
        candidates = [session.number_index] if session.number_index else []
    if not candidates:
        return None
    found = among.filter(number_index__in=candidates).exclude(pk=session.pk)
    return found.order_by("-created_at", "-pk")
