"""Consent: the evidence that is required before a face goes to Baidu."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.views.decorators.debug import sensitive_variables

from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.exceptions import InvalidInput
from django_faceprint.models import ConsentRecord, VerificationSession
from django_faceprint.models.append_only import KEPT_AT_LEAST

from .texts import check_text

#: Characters of a reference, which is kept encrypted.
MAX_CONSENT_REFERENCE_LENGTH = 500
#: How far ahead of ours a host's clock may be.
CLOCK_TOLERANCE = timedelta(minutes=5)
#: Below this age a guardian consents (FR 7; PIPL 31).
GUARDIAN_UNTIL = 14
BATCH = 500
_CHINA = ZoneInfo("Asia/Shanghai")


@dataclass(frozen=True)
class Consent:
    """A host's evidence of a person's consent.

    ``reference`` and ``guardian_reference`` locate it in the host's records (up to 500 characters,
    encrypted). ``notice_version`` names the notice that was shown, ``channel`` where it was shown (app,
    counter …); ``given_at`` has a time zone. ``separate``: consent to this purpose alone (单独同意).
    ``names_recipient``: the notice names Baidu. ``alternative_offered``: another way to verify was offered.
    """

    reference: str
    notice_version: str = ""
    given_at: datetime | None = None
    channel: str = ""
    separate: bool = False
    names_recipient: bool = False
    alternative_offered: bool = False
    guardian_reference: str = ""

    def __repr__(self) -> str:
        return "<Consent>"


def check(consent: Consent | None, purpose: str) -> None:
    """Raise :class:`InvalidInput` if *consent* is malformed or, with ``REQUIRE_CONSENT``, incomplete.

    ``required`` for an empty field, ``must_be_true`` for one that is false.
    """
    if consent is not None:
        _check_form(consent)
    if not conf.require_consent:
        return
    if consent is None:
        raise InvalidInput("consent", "required", "Evidence of the person's consent is required.")
    if not purpose:
        raise InvalidInput("purpose", "required", "The purpose is required.")
    for name in ("reference", "notice_version", "given_at", "channel"):
        if not getattr(consent, name):
            raise InvalidInput(f"consent.{name}", "required", "This is required.")
    for name in ("separate", "names_recipient", "alternative_offered"):
        if not getattr(consent, name):
            raise InvalidInput(f"consent.{name}", "must_be_true", "Without it there is no consent.")


def record(session: VerificationSession, consent: Consent) -> ConsentRecord:
    """Write *consent* to *session*, in the transaction that creates the session."""
    return ConsentRecord.objects.create(
        session_id=session.public_id,
        purpose=session.purpose,
        given_at=consent.given_at,
        notice_version=consent.notice_version,
        channel=consent.channel,
        is_separate=consent.separate,
        names_recipient=consent.names_recipient,
        alternative_offered=consent.alternative_offered,
        reference=consent.reference,
        guardian_reference=consent.guardian_reference or None,
    )


def of_session(session: VerificationSession) -> ConsentRecord | None:
    """The consent to *session*; None when none was recorded."""
    return ConsentRecord.objects.filter(session_id=session.public_id).first()


def require(session: VerificationSession) -> None:
    """Raise :class:`InvalidInput` for a session without the consent that the settings require."""
    if not conf.require_consent:
        return
    found = of_session(session)
    complete = found is not None and all(
        (
            *(session.purpose, found.reference, found.notice_version, found.given_at, found.channel),
            *(found.is_separate, found.names_recipient, found.alternative_offered),
        )
    )
    if not complete:
        raise InvalidInput("consent", "required", "Evidence of the person's consent is required.")


@sensitive_variables()
def require_guardian(number: str, certificate_type: int, guardian_reference: str | None) -> None:
    """Raise :class:`InvalidInput` for a child without a guardian's consent, where consent is required."""
    if conf.require_consent and not guardian_reference and needs_guardian(number, certificate_type):
        raise InvalidInput(
            "consent.guardian_reference", "guardian", "Under 14 a guardian's consent is required."
        )


@sensitive_variables()
def needs_guardian(number: str | None, certificate_type: int | None) -> bool:
    """Whether the number of a resident identity card is that of a child under 14, today in China.

    A year of age is complete on the day after the birthday. Numbers of other documents hold no birthday.
    """
    born = _birthday(number or "") if certificate_type in (0, None) else None
    if born is None:
        return False
    today = now().astimezone(_CHINA).date()
    year = born.year + GUARDIAN_UNTIL
    # Fourteen years after a leap year there is no 29 February.
    birthday = date(year, 3, 1) if (born.month, born.day) == (2, 29) else date(year, born.month, born.day)
    return today <= birthday


def prune() -> int:
    """Delete one batch of records older than ``LOG_RETENTION``; return the number."""
    cutoff = now() - max(conf.log_retention, KEPT_AT_LEAST)
    old = ConsentRecord.objects.filter(recorded_at__lt=cutoff).order_by("recorded_at")
    return ConsentRecord.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:BATCH])).delete()[0]


def _check_form(consent: Consent) -> None:
    for name in ("notice_version", "channel"):
        check_text(f"consent.{name}", getattr(consent, name))
    for name in ("reference", "guardian_reference"):
        text: Any = getattr(consent, name)
        if len(text) > MAX_CONSENT_REFERENCE_LENGTH:
            raise InvalidInput(
                f"consent.{name}",
                "too_long",
                f"At most {MAX_CONSENT_REFERENCE_LENGTH} characters.",
                {"limit": MAX_CONSENT_REFERENCE_LENGTH},
            )
    if consent.given_at is None:
        return
    if consent.given_at.tzinfo is None:
        raise InvalidInput("consent.given_at", "naive", "The time needs a time zone.")
    if consent.given_at > now() + CLOCK_TOLERANCE:
        raise InvalidInput("consent.given_at", "future", "The time lies in the future.")


def _birthday(number: str) -> date | None:
    digits = number[6:14] if len(number) == 18 else f"19{number[6:12]}" if len(number) == 15 else ""
    if not (digits.isascii() and digits.isdigit()):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
