"""What may still be done with a session, and changes of its row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django_faceprint.client import FaceprintClient
from django_faceprint.clock import now
from django_faceprint.exceptions import FaceprintConfigurationError, FaceprintError, InvalidInput
from django_faceprint.models import VerificationSession
from django_faceprint.models.session import VerificationSessionQuerySet
from django_faceprint.privacy.fields import column_values
from django_faceprint.upstream import clients
from django_faceprint.upstream.errors import error_columns


def refuse_erased(session: VerificationSession) -> None:
    """Raise :class:`InvalidInput` for a session whose evidence was erased."""
    if session.erased_at is not None:
        raise InvalidInput("session", "erased", "The evidence of this session was erased.")


def already_accepted(field: str) -> InvalidInput:
    """The refusal of a second, different input for *field*."""
    return InvalidInput(
        field, "already_accepted", "Another one was accepted for this session; start a new session."
    )


def check_open(session: VerificationSession) -> None:
    """Raise :class:`InvalidInput` for a session that was erased, decided or has expired."""
    refuse_erased(session)
    if session.verdict != VerificationSession.Verdict.PENDING:
        raise InvalidInput("session", "closed", "This session is closed.")
    if session.expires_at is not None and now() >= session.expires_at:
        raise InvalidInput("session", "expired", "This session's verify_token has expired.")


@contextmanager
def client_of(session: VerificationSession) -> Iterator[FaceprintClient]:
    """The client of the session's application. An upstream error is written on *session* and passes."""
    try:
        with clients.upstream.client_for(session.application, session=session) as client:
            yield client
    except InvalidInput:
        raise
    except (FaceprintError, FaceprintConfigurationError) as problem:
        update(session, **error_columns(problem))
        raise


def update(session: VerificationSession, **values: Any) -> None:
    """Change columns of the row of *session* and of the instance."""
    update_among(VerificationSession.objects.all(), session, values)


def update_among(
    rows: VerificationSessionQuerySet, session: VerificationSession, values: Mapping[str, Any]
) -> bool:
    """Change the row of *session* and the instance if the row is among *rows*; return whether it was."""
    if not rows.filter(pk=session.pk).update(**column_values(session, values)):
        return False
    for name, value in values.items():
        setattr(session, name, value)
    return True
