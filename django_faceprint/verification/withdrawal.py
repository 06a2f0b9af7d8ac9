"""Withdrawing a consent, which erases the session's evidence."""

from __future__ import annotations

from django_faceprint.audit.access import Actor
from django_faceprint.clock import now
from django_faceprint.evidence import erasure
from django_faceprint.models import AccessLog, ConsentRecord, Erasure, VerificationSession


def withdraw(session: VerificationSession, *, reason: str, actor: Actor) -> Erasure:
    """Record that the person withdraws the consent to *session*, stop collecting and erase the evidence.

    *actor* is who does it, for the access log. May be repeated. Raises :class:`InvalidInput` for ``reason``
    (required, up to 500 characters, encrypted). Call it outside of transactions.
    """

    def note() -> None:
        consent, _ = ConsentRecord.objects.get_or_create(
            session_id=session.public_id, defaults={"purpose": session.purpose}
        )
        ConsentRecord.objects.filter(pk=consent.pk, withdrawn_at=None).update(
            withdrawn_at=now(), withdrawn_by=actor.name[:150]
        )
        AccessLog.objects.create(
            **actor.columns(),
            address=actor.address,
            action=AccessLog.Action.WITHDRAW,
            session_id=session.public_id,
        )

    found = VerificationSession.objects.filter(pk=session.pk)
    return erasure.erase(found, reason=reason, actor=actor, also=note)
