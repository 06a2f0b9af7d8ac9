"""Checks of texts that are stored in plaintext: short, printable, without personal data."""

from __future__ import annotations

import re
import unicodedata

from django_faceprint.exceptions import InvalidInput

#: Maximum length of a text that is stored in plaintext.
MAX_REFERENCE_LENGTH = 100

_DAY = r"(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
_ID_NUMBER = re.compile(
    rf"(?<![0-9])[1-9][0-9]{{5}}(?:(?:18|19|20)[0-9]{{2}}{_DAY}[0-9]{{3}}[0-9Xx]|[0-9]{{2}}{_DAY}[0-9]{{3}})"
    r"(?![0-9])"
)
_PHONE_NUMBER = re.compile(r"(?<![0-9])(?:\+?86)?1[3-9][0-9]{9}(?![0-9])")


def check_text(field: str, text: str) -> None:
    """Raise :class:`InvalidInput` for a *text* that must not be stored in plaintext."""
    if len(text) > MAX_REFERENCE_LENGTH:
        raise InvalidInput(
            field, "too_long", f"At most {MAX_REFERENCE_LENGTH} characters.", {"limit": MAX_REFERENCE_LENGTH}
        )
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise InvalidInput(field, "control_characters", "Control characters are not allowed.")
    if looks_personal(text):
        raise InvalidInput(field, "looks_personal", "This looks like an ID or phone number.")


def looks_personal(text: str) -> bool:
    """Whether *text* seems to contain an ID or phone number, also in full-width digits or with separators."""
    normal = unicodedata.normalize("NFKC", text)
    joined = re.sub(r"[\s\-_.]", "", normal)
    return any(pattern.search(form) for pattern in (_ID_NUMBER, _PHONE_NUMBER) for form in (normal, joined))
