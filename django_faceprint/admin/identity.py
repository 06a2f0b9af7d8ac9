"""Who was verified: name, number and card data of one record, masked or in clear, and the consent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext

from django_faceprint.models import ConsentRecord, VerificationSession
from django_faceprint.privacy.blind_index import normalise
from django_faceprint.privacy.keys import SealBroken
from django_faceprint.privacy.masking import mask_address, mask_name, mask_number


@dataclass(frozen=True)
class IdentityRow:
    """A name or number from up to three sources, and whether the sources agree."""

    label: str
    submitted: str
    read: str
    confirmed: str
    read_differs: bool
    confirmed_differs: bool

    @property
    def is_known(self) -> bool:
        """At least one source has a value."""
        return bool(self.submitted or self.read or self.confirmed)

    @property
    def agrees(self) -> bool:
        """At least two sources have a value, and all values are equal."""
        known = sum(map(bool, (self.submitted, self.read, self.confirmed)))
        return known > 1 and not self.read_differs and not self.confirmed_differs


def identity_rows(session: VerificationSession, *, unmasked: bool) -> list[IdentityRow]:
    """Name and number. They are compared in clear, whether *unmasked* or not."""
    ocr, confirmed = opened(session, "ocr") or {}, opened(session, "confirmed") or {}
    names = [opened(session, "identity_name"), ocr.get("name"), confirmed.get("name")]
    numbers = [opened(session, "identity_number"), ocr.get("number"), confirmed.get("number")]
    return [
        _row(gettext("Name"), "name", _unchanged if unmasked else mask_name, names),
        _row(gettext("Number"), "id_number", _unchanged if unmasked else mask_number, numbers),
    ]


def card_facts(session: VerificationSession, *, unmasked: bool) -> list[tuple[str, str]]:
    """Label and value of what OCR read besides name and number. Masked, only the beginning of the address
    and the date of expiry."""
    ocr = opened(session, "ocr") or {}
    facts = [
        (gettext("Address"), (_unchanged if unmasked else mask_address)(ocr.get("address") or "")),
        (gettext("Valid until"), _day(ocr.get("expire_time") or "")),
    ]
    if unmasked:
        facts += [
            (gettext("Gender"), ocr.get("gender") or ""),
            (gettext("Ethnic group"), ocr.get("nation") or ""),
            (gettext("Birthday"), _day(ocr.get("birthday") or "")),
            (gettext("Issued by"), ocr.get("issue_authority") or ""),
            (gettext("Issued on"), _day(ocr.get("issue_time") or "")),
        ]
    return [(name, value) for name, value in facts if value]


def consent_facts(consent: ConsentRecord | None) -> list[tuple[str, Any]]:
    """Label and value of what is on record about the consent."""
    if consent is None:
        return []
    return [
        (gettext("Given"), consent.given_at),
        (gettext("Notice version"), consent.notice_version),
        (gettext("Channel"), consent.channel),
        (gettext("Separate consent"), _yes_no(consent.is_separate)),
        (gettext("Names Baidu as recipient"), _yes_no(consent.names_recipient)),
        (gettext("An alternative was offered"), _yes_no(consent.alternative_offered)),
        (gettext("Consent on record as"), opened(consent, "reference")),
        (gettext("Guardian's consent on record as"), opened(consent, "guardian_reference")),
        (gettext("Withdrawn"), consent.withdrawn_at),
    ]


def opened(row: Any, attribute: str) -> Any:
    """An encrypted value, or None when it cannot be decrypted: pages must work without it."""
    try:
        return getattr(row, attribute)
    except SealBroken:
        return None


def _row(label: str, kind: str, mask: Callable[[str], str], sources: list[str | None]) -> IdentityRow:
    submitted, read, confirmed = (text or "" for text in sources)
    return IdentityRow(
        label=label,
        submitted=mask(submitted),
        read=mask(read),
        confirmed=mask(confirmed),
        read_differs=_differs(kind, submitted, read),
        confirmed_differs=_differs(kind, submitted or read, confirmed),
    )


def _differs(kind: str, one: str, other: str) -> bool:
    first, second = normalise(kind, one), normalise(kind, other)
    # A missing value, or one that Baidu masked, normalises to "" and cannot be compared.
    return bool(first and second and first != second)


def _unchanged(value: str) -> str:
    return value


def _yes_no(value: bool) -> str:
    return gettext("yes") if value else gettext("no")


def _day(text: str) -> str:
    if len(text) == 8 and text.isascii() and text.isdigit():
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text
