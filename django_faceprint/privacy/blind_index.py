"""Searching encrypted values by equality.

A blind index is ``keyid:hex``: a keyed HMAC-SHA256 over the normalised value. ID numbers and names are
few enough to be guessed one by one, so the secrecy of the index key is the only protection; it is
never an encryption key. Values of different kinds never share an index.
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
    """What can be looked up. The value is part of the key derivation and never changes."""

    ID_NUMBER = "id_number"
    NAME = "name"
    VERIFY_TOKEN = "verify_token"  # noqa: S105  (the name of a kind)
    ACCESS_TOKEN = "access_token"  # noqa: S105
    LOG_ID = "log_id"


def blind_index(kind: str, value: str) -> str:
    """The index of ``value`` under the newest key, 73 characters.

    "" when there is nothing to index: an empty value, or a masked one (with ``*``), which would match
    other masked values and never the real one. Raises ``ValueError`` for an unknown kind.
    """
    normalised = normalise(kind, value)
    if not normalised:
        return ""
    return _index(kind, normalised, index_ring().primary_id)


def blind_index_candidates(kind: str, value: str) -> list[str]:
    """The indexes of ``value`` under every key, newest first, for ``filter(index__in=...)``.

    Empty when there is nothing to look for; raises as :func:`blind_index`.
    """
    normalised = normalise(kind, value)
    if not normalised:
        return []
    return [_index(kind, normalised, key_id) for key_id in index_ring().key_ids]


def is_current(index: str) -> bool:
    """Whether ``index`` was made with the newest key; "" counts as current."""
    return not index or index.partition(":")[0] == index_ring().primary_id


def fingerprint(purpose: str, content: bytes) -> str:
    """A keyed hash of exact content, ``keyid:hex``, to tell same from different without keeping it."""
    ring = index_ring()
    return f"{ring.primary_id}:{ring.mac(f'fingerprint/{purpose}', content, key_id=ring.primary_id).hex()}"


def has_fingerprint(purpose: str, content: bytes, known: str) -> bool:
    """Whether *known* is the fingerprint of *content*, under whichever key it was made.

    Raises ``UnknownKey`` when that key is no longer in the ring.
    """
    key_id = known.partition(":")[0]
    made = f"{key_id}:{index_ring().mac(f'fingerprint/{purpose}', content, key_id=key_id).hex()}"
    return hmac.compare_digest(made, known)


def normalise(kind: str, value: str) -> str:
    """``value`` as it is indexed; "" when it cannot be.

    Numbers: NFKC, upper case, without spaces, hyphens and invisible characters. Names: NFKC, upper case,
    one kind of middle dot, spaces only between Latin words. Tokens and log ids: without surrounding
    spaces, case kept.
    """
    normalised = _NORMALISERS[Kind(kind)](value)
    # Fullwidth asterisks are still asterisks; NFKC is not applied to tokens.
    return "" if is_masked(normalised) else normalised


def _index(kind: str, normalised: str, key_id: str) -> str:
    # A lone surrogate, which JSON can carry, must not make a value impossible to search.
    data = normalised.encode("utf-8", "surrogatepass")
    return f"{key_id}:{index_ring().mac(f'index/{Kind(kind)}', data, key_id=key_id).hex()}"


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
    # Again, because what was between a letter and its accent may be gone.
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
