"""Obtaining the verify_token, and the H5 page that it opens (API reference 3.1, 5)."""

from __future__ import annotations

from django.db.models import F
from django.views.decorators.debug import sensitive_variables

from django_faceprint.base import deadlines, events
from django_faceprint.clock import now
from django_faceprint.engine import polling
from django_faceprint.exceptions import InvalidInput, Rejected
from django_faceprint.models import VerificationSession
from django_faceprint.privacy.blind_index import blind_index
from django_faceprint.privacy.fields import seal_value
from django_faceprint.upstream import clients
from django_faceprint.upstream.errors import NO_ERROR

from . import consent
from .returning import return_view_url
from .state import check_open, client_of


@sensitive_variables()
def ensure_token(session: VerificationSession) -> None:
    """Obtain the verify_token of a session whose start failed.

    Raises :class:`InvalidInput` when the session is over or lacks a required consent, and the upstream error
    after writing it on the session.
    """
    check_open(session)
    if session.token_answered_at is None:
        _obtain_token(session)


@sensitive_variables()
def h5_url(session: VerificationSession) -> str | None:
    """The URL of the H5 page for the person; None until the session is prepared, and when it is over.

    The URL carries the verify_token: show it to that person only and never log it.
    """
    if not session.is_prepared or session.verdict != VerificationSession.Verdict.PENDING:
        return None
    if session.expires_at is None or now() >= session.expires_at:
        return None
    with clients.upstream.client_for(session.application, session=session) as client:
        return client.h5_url(_require_token(session))


def obtained_token(session: VerificationSession) -> str:
    """The verify_token of an open session, obtained first if need be. Raises as :func:`ensure_token`."""
    ensure_token(session)
    return _require_token(session)


def _require_token(session: VerificationSession) -> str:
    token = session.verify_token
    if not token:
        raise InvalidInput("session", "no_token", "This session has no verify_token yet.")
    return token


def _obtain_token(session: VerificationSession) -> None:
    consent.require(session)
    back = return_view_url(session)
    requested_at = now()
    with client_of(session) as client:
        answer = client.generate_verify_token(session.plan.plan_id, success_url=back, failed_url=back)
        if answer.result is None:
            raise Rejected("verifyToken/generate answered no token.", error=answer.error)
    answered_at = now()
    dates = deadlines.session_deadlines(requested_at, answered_at)
    token = str(answer.result)
    values = {
        "verify_token": seal_value(session, "verify_token", token),
        "verify_token_index": blind_index("verify_token", token),
        "token_requested_at": requested_at,
        "token_answered_at": answered_at,
        **dates.columns(),
        **deadlines.undecided_deadlines(
            requested_at=requested_at,
            media_deadline=dates.media_deadline,
            results_deadline=dates.results_deadline,
            records_video=session.plan.records_video,
            moment=answered_at,
        ).columns(),
        "wake_at": polling.first_poll_at(answered_at),
        "priority_at": None,
        # A worker that holds the session still takes it for one without a token: end its lease.
        "lease_epoch": F("lease_epoch") + 1,
        "lease_until": None,
        "recheck_requested": False,
        **NO_ERROR,
    }
    # Two callers with one idempotency key may both get here; the second token is simply never used.
    won = VerificationSession.objects.filter(
        pk=session.pk, token_answered_at__isnull=True, verdict=VerificationSession.Verdict.PENDING
    ).update(**values)
    session.refresh_from_db()
    if won:
        events.session_started(session)
