"""Searching encrypted values by equality.

A blind index is ``keyid:hex``: an HMAC-SHA256 over the normalised value. An attacker can try all ID numbers
and names one by one, so the index key must stay secret, and it is never an encryption key. Values of
different kinds never share an index.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from collections.abc import Callable, Iterable
from enum import StrEnum

from .keys import index_ring
from .masking import is_masked


class Kind(StrEnum):
    """The kinds of values that can be looked up. The text is part of the key derivation and never changes."""

    ID_NUMBER = "id_number"
    NAME = "name"
    VERIFY_TOKEN = "verify_token"  # noqa: S105  (the name of a kind)
    ACCESS_TOKEN = "access_token"  # noqa: S105
    LOG_ID = "log_id"


def blind_index(kind: str, value: str) -> str:
    """The index of *value* under the newest key, 73 characters.

    "" for an empty value and for a masked one (with ``*``): it would match other masked values, but never
    the real one. Raises ``ValueError`` for an unknown kind.
    """
    normalised = normalise(kind, value)
    if not normalised:
        return ""
    return _index(kind, normalised, index_ring().primary_id)


def blind_index_candidates(kind: str, value: str) -> list[str]:
    """The indexes of *value* under all keys, newest first, for ``filter(index__in=...)``.

    Empty where :func:`blind_index` returns ""; raises as it does.
    """
    normalised = normalise(kind, value)
    if not normalised:
        return []
    return [_index(kind, normalised, key_id) for key_id in index_ring().key_ids]


def is_current(index: str) -> bool:
    """Whether *index* was made with the newest key; "" counts as current."""
    return not index or index.partition(":")[0] == index_ring().primary_id


def fingerprint(purpose: str, content: bytes) -> str:
    """A keyed hash of *content*, ``keyid:hex``: it shows equal content without storing it."""
    return _mac(f"fingerprint/{purpose}", content, index_ring().primary_id)


def has_fingerprint(purpose: str, content: bytes, known: str) -> bool:
    """Whether *known* is the fingerprint of *content*, under the key that *known* names.

    Raises ``UnknownKey`` when that key is no longer in the ring.
    """
    return hmac.compare_digest(_mac(f"fingerprint/{purpose}", content, known.partition(":")[0]), known)


def normalise(kind: str, value: str) -> str:
    """The form of *value* that is indexed; "" when it is empty or masked.

    Numbers: NFKC, upper case, without spaces, hyphens and invisible characters. Names: NFKC, upper case,
    one kind of middle dot, spaces only between Latin words. Tokens and log ids: without surrounding
    spaces, case kept.
    """
    normalised = _NORMALISERS[Kind(kind)](value)
    # Fullwidth asterisks are still asterisks; NFKC is not applied to tokens.
    return "" if is_masked(normalised) else normalised


def _index(kind: str, normalised: str, key_id: str) -> str:
    # JSON can carry lone surrogates; values with them must be searchable too.
    return _mac(f"index/{Kind(kind)}", normalised.encode("utf-8", "surrogatepass"), key_id)


def _mac(purpose: str, data: bytes, key_id: str) -> str:
    return f"{key_id}:{index_ring().mac(purpose, data, key_id=key_id).hex()}"


def _number(value: str) -> str:
    return _composed(
        character
        for character in unicodedata.normalize("NFKC", value).upper()
        if unicodedata.category(character) not in _IGNORED_IN_NUMBERS and character != "\N{MINUS SIGN}"
    )


def _name(value: str) -> str:
    text = _composed(
        character
        for character in unicodedata.normalize("NFKC", value).upper()
        if character.isspace() or unicodedata.category(character) not in _INVISIBLE
    )
    text = _MIDDLE_DOT.sub("\N{MIDDLE DOT}", text)
    # "张 三" is "张三", but "VAN DER BERG" is not "VANDERBERG".
    return unicodedata.normalize("NFKC", _SPACE_BESIDE_NON_LATIN.sub("", " ".join(text.split())))


def _composed(characters: Iterable[str]) -> str:
    # A removed character may have stood between a letter and its accent.
    return unicodedata.normalize("NFKC", "".join(characters))


def _verbatim(value: str) -> str:
    return value.strip()


_INVISIBLE = frozenset({"Cc", "Cf"})
_IGNORED_IN_NUMBERS = _INVISIBLE | {"Zs", "Zl", "Zp", "Pd"}
_MIDDLE_DOT = re.compile(r"\s*[\u00b7\u0387\u2022\u2027\u2219\u22c5\u30fb]\s*")
_SPACE_BESIDE_NON_LATIN = re.compile(r"(?<=[^\u0000-\u024f]) | (?=[^\u0000-\u024f])")
_NORMALISERS: dict[Kind, Callable[[str], str]] = {
    Kind.ID_NUMBER: _number,
    Kind.NAME: _name,
    Kind.VERIFY_TOKEN: _verbatim,
    Kind.ACCESS_TOKEN: _verbatim,
    Kind.LOG_ID: _verbatim,
}
