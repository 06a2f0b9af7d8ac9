"""Having Baidu asked again about a record, as an operator wants it."""

from __future__ import annotations

from django_faceprint.models import AccessLog, Job, VerificationSession

from . import collect
from .access import Actor, add_entry

Verdict = VerificationSession.Verdict

#: Why a record is left alone.
FINISHED, UNDECIDED, NO_TOKEN, BUSY = "finished", "undecided", "no_token", "busy"


def ask(session: VerificationSession, kind: str, *, actor: Actor) -> str:
    """Make *session* due (``query_now``), or have everything fetched that is not stored (``archive_again``).

    That it was wanted is written to the access log. Returns "", or why the record was left alone.
    """
    if kind == Job.Kind.QUERY_NOW:
        if not session.has_outstanding_work:
            return FINISHED
        add_entry(actor, AccessLog.Action.REFRESH, session_id=session.public_id)
        collect.make_due(session)
        return ""
    if session.verdict not in (Verdict.PASSED, Verdict.FAILED):
        return UNDECIDED
    if not VerificationSession.objects.filter(pk=session.pk, verify_token__isnull=False).exists():
        return NO_TOKEN
    add_entry(actor, AccessLog.Action.ARCHIVE_AGAIN, session_id=session.public_id)
    return "" if collect.collect_anew(session) else BUSY
