"""Submitting name and number (API reference 3.2)."""

from __future__ import annotations

from typing import Any

from django.views.decorators.debug import sensitive_variables

from django_faceprint.client import Identity
from django_faceprint.clock import now
from django_faceprint.exceptions import InvalidInput
from django_faceprint.models import Plan, VerificationSession
from django_faceprint.privacy.blind_index import blind_index
from django_faceprint.upstream.errors import NO_ERROR

from . import consent
from .state import already_accepted, check_open, client_of, update, update_among
from .verify_token import obtained_token


@sensitive_variables()
def submit_identity(session: VerificationSession, identity: Identity) -> None:
    """Submit name and number for *session*, before the person opens the page.

    Obtains a missing verify_token first. Submitting the accepted identity again changes nothing. Raises
    :class:`InvalidInput` when the plan takes no identity, another one was accepted, the verify_token has
    expired or the verdict is known; and the upstream error, after writing it on the session.
    """
    check_open(session)
    check_identity(session.plan, identity)
    given = consent.of_session(session)
    guardian = given.guardian_reference if given is not None else None
    consent.require_guardian(identity.number, identity.certificate_type, guardian)
    if _is_accepted(session, identity):
        return
    token = obtained_token(session)
    # Another call may have been quicker: what was accepted is never overwritten, whatever we loaded.
    unaccepted = VerificationSession.objects.filter(identity_accepted_at__isnull=True)
    if not update_among(unaccepted, session, identity_columns(identity)):
        session.refresh_from_db()
        check_open(session)
        if _is_accepted(session, identity):
            return
    with client_of(session) as client:
        client.submit_identity(token, identity)
    update(session, identity_accepted_at=now(), **NO_ERROR)


def _is_accepted(session: VerificationSession, identity: Identity) -> bool:
    """Whether *identity* was accepted. Raises :class:`InvalidInput` when another one was."""
    if session.identity_accepted_at is None:
        return False
    # The person may be on the page already, so the identity of a session must not change.
    accepted = (session.identity_name, session.identity_number, session.certificate_type)
    if accepted != (identity.name, identity.number, identity.certificate_type):
        raise already_accepted("identity")
    return True


def identity_columns(identity: Identity) -> dict[str, Any]:
    """Values of a session's columns for *identity*, in plaintext, and of the blind indexes to find it by."""
    return {
        "identity_name": identity.name,
        "identity_number": identity.number,
        "certificate_type": identity.certificate_type,
        "name_index": blind_index("name", identity.name),
        "number_index": blind_index("id_number", identity.number),
    }


def check_identity(plan: Plan, identity: Identity) -> None:
    """Raise :class:`InvalidInput` when *plan* does not take *identity* from the server."""
    if not plan.needs_identity:
        raise InvalidInput("identity", "not_wanted_by_plan", "This plan takes no identity from the server.")
    if identity.certificate_type != 0 and not plan.accepts_non_mainland:
        raise InvalidInput(
            "identity.certificate_type", "mainland_only", "This plan accepts certificate type 0 only."
        )
