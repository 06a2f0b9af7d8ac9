"""Adopting (接管) verify_tokens that another system obtained.

A company that changes systems has sessions under way, and their evidence expires like any other. The engine
collects adopted sessions like its own; only the time of issue may be unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.views.decorators.debug import sensitive_variables

from django_faceprint.base import deadlines
from django_faceprint.client import Identity, checked_plan_id
from django_faceprint.client.results import is_verify_token
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.engine import queue
from django_faceprint.exceptions import InvalidInput
from django_faceprint.hosts import refuse_unsafe_hosts
from django_faceprint.models import Plan, VerificationSession
from django_faceprint.privacy.blind_index import blind_index, blind_index_candidates

from . import consent
from .consent import Consent
from .identity import identity_columns
from .start import check_application
from .texts import check_text

#: Other systems note the time before the request or after the answer.
ISSUE_TOLERANCE = timedelta(minutes=1)
#: How far ahead of ours another system's clock may be.
CLOCK_TOLERANCE = timedelta(minutes=10)
#: With an unknown time of issue, everything may expire at any moment. A deadline this near comes before all
#: later ones, and yet counts as one that can be kept.
SOON = timedelta(minutes=10)


@dataclass(frozen=True)
class Adoption:
    """A verify_token of another system.

    ``issued_at`` (with a time zone) is when Baidu issued it, or None if unknown. ``reference`` and
    ``purpose`` are stored in plaintext, ``identity`` and ``consent_reference`` encrypted.
    """

    verify_token: str
    plan_id: str
    issued_at: datetime | None = None
    reference: str = ""
    purpose: str = ""
    identity: Identity | None = None
    consent_reference: str = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(plan_id={self.plan_id!r})"


@dataclass(frozen=True)
class Adopted:
    """The result of :func:`adopt`. ``is_new`` is False when a session had this verify_token before."""

    session: VerificationSession
    is_new: bool


@sensitive_variables()
def adopt(adoption: Adoption, *, created_by: Any = None) -> Adopted:
    """Create the session of a verify_token; the next free worker asks Baidu about it. May be repeated.

    Without ``issued_at`` the safe deadlines are now (everything may expire at any moment), and the latest
    deadlines count from now.

    Raises :class:`InvalidInput` with the name of the field: ``issued_at`` also when Baidu has certainly
    deleted everything. Raises :class:`FaceprintConfigurationError` for a plan whose application the settings
    do not have.
    """
    plan = check_adoption(adoption)
    found = _find(adoption.verify_token)
    if found is not None:
        return Adopted(found, is_new=False)
    try:
        with transaction.atomic():
            return Adopted(_create(adoption, plan, created_by), is_new=True)
    except IntegrityError:
        # Another call was quicker.
        found = _find(adoption.verify_token)
        if found is None:
            raise
        return Adopted(found, is_new=False)


@sensitive_variables()
def check_adoption(adoption: Adoption) -> Plan:
    """Check *adoption* as :func:`adopt` does, without writing; return its plan."""
    refuse_unsafe_hosts()
    if not is_verify_token(adoption.verify_token):
        raise InvalidInput("verify_token", "token_format", "This is no verification token.")
    plan = Plan.objects.filter(plan_id=checked_plan_id(adoption.plan_id)).first()
    if plan is None:
        raise InvalidInput("plan", "unknown_plan", "There is no plan with this ID.")
    check_application(plan)
    check_text("reference", adoption.reference)
    check_text("purpose", adoption.purpose)
    check_text("consent_reference", adoption.consent_reference)
    if adoption.issued_at is not None:
        _check_issue(adoption.issued_at)
    return plan


def _check_issue(issued_at: datetime) -> None:
    moment = now()
    if issued_at.tzinfo is None:
        raise InvalidInput("issued_at", "naive", "The time needs a time zone.")
    if issued_at > moment + CLOCK_TOLERANCE:
        raise InvalidInput("issued_at", "future", "The time lies in the future.")
    answered_at = issued_at + ISSUE_TOLERANCE
    if deadlines.session_deadlines(issued_at, answered_at).results_give_up_at <= moment:
        raise InvalidInput("issued_at", "too_old", "Baidu has deleted everything of it by now.")


def _find(verify_token: str) -> VerificationSession | None:
    candidates = blind_index_candidates("verify_token", verify_token)
    return VerificationSession.objects.filter(verify_token_index__in=candidates).first()


def _create(adoption: Adoption, plan: Plan, created_by: Any) -> VerificationSession:
    moment = now()
    if adoption.issued_at is not None:
        requested_at = adoption.issued_at - ISSUE_TOLERANCE
        answered_at = adoption.issued_at + ISSUE_TOLERANCE
        dates = deadlines.session_deadlines(requested_at, answered_at)
    else:
        # The earliest and the latest possible time of issue.
        requested_at = moment - deadlines.TOKEN_LIFE - deadlines.RESULTS_LIFE
        answered_at = moment
        dates = deadlines.session_deadlines(requested_at, answered_at)
        dates = replace(dates, media_deadline=moment + SOON, results_deadline=moment + SOON)
    pending = deadlines.undecided_deadlines(
        requested_at=requested_at,
        media_deadline=dates.media_deadline,
        results_deadline=dates.results_deadline,
        records_video=plan.records_video,
        moment=moment,
    )
    session = VerificationSession(
        environment=conf.environment,
        plan=plan,
        application=plan.application,
        created_by=created_by,
        verify_token=adoption.verify_token,
        verify_token_index=blind_index("verify_token", adoption.verify_token),
        reference=adoption.reference,
        purpose=adoption.purpose,
        threshold=plan.applied_threshold,
        **(identity_columns(adoption.identity) if adoption.identity else {}),
        created_at=moment,
        adopted_at=moment,
        token_requested_at=requested_at,
        token_answered_at=answered_at,
        **dates.columns(),
        **pending.columns(),
    )
    session.priority_at = queue.priority(session, moment)
    session.save(force_insert=True)
    if adoption.consent_reference:
        consent.record(session, Consent(adoption.consent_reference))
    return session
