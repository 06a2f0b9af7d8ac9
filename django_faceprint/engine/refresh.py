"""Asking Baidu again about a record: now, or for all that is not stored."""

from __future__ import annotations

from copy import copy

from django.db import transaction
from django.db.models import F, Q

from django_faceprint.audit.access import Actor, record_access
from django_faceprint.base import deadlines
from django_faceprint.clock import now
from django_faceprint.conf import RETENTION_KINDS
from django_faceprint.models import AccessLog, Job, MediaAsset, VerificationSession
from django_faceprint.records import rollups

from . import queue
from .results import QUESTIONS

Verdict = VerificationSession.Verdict
ArchiveState = VerificationSession.ArchiveState
State = MediaAsset.State
Source = MediaAsset.Source

#: Why a record is left alone.
FINISHED, UNDECIDED, NO_TOKEN, BUSY = "finished", "undecided", "no_token", "busy"


def request_refresh(session: VerificationSession, kind: str, *, actor: Actor) -> str:
    """Make *session* due (``query_now``), or have everything fetched that is not stored (``archive_again``).

    That it was wanted is written to the access log. Returns "", or why the record was left alone.
    """
    if kind == Job.Kind.QUERY_NOW:
        if not session.has_outstanding_work:
            return FINISHED
        record_access(actor, AccessLog.Action.REFRESH, session_id=session.public_id)
        queue.request_recheck(session.pk)
        return ""
    if session.verdict not in (Verdict.PASSED, Verdict.FAILED):
        return UNDECIDED
    if not VerificationSession.objects.filter(pk=session.pk, verify_token__isnull=False).exists():
        return NO_TOKEN
    record_access(actor, AccessLog.Action.ARCHIVE_AGAIN, session_id=session.public_id)
    return "" if recollect(session) else BUSY


def recollect(session: VerificationSession) -> bool:
    """Ask upstream for everything again that is not stored.

    False while a worker holds the session, before it is decided and after its verify_token was erased.

    Assets that were lost become wanted again for one more visit at least; those that were not
    provided do when upstream names them now, and those of a kind that was switched off and is kept now
    while there is time.
    """
    moment = now()
    kept_now = Q(
        reason=MediaAsset.NOT_KEPT,
        state=State.NOT_PROVIDED,
        kind__in=[kind for kind in RETENTION_KINDS if session.plan.keeps(kind)],
        give_up_at__gt=moment,
    ) & ~Q(source=Source.UPLOAD)
    again = session.assets.filter(Q(state__in=(State.WANTED, State.LOST)) | kept_now)
    pending = deadlines.outstanding_deadlines(
        session, again, moment, unknown=[session.media_deadline, session.results_deadline]
    )
    due = copy(session)
    due.wake_at = moment
    for name, deadline in pending.columns().items():
        setattr(due, name, deadline)
    idle = Q(lease_until__isnull=True) | Q(lease_until__lte=moment)
    with transaction.atomic():
        changed = VerificationSession.objects.filter(
            idle, pk=session.pk, verdict__in=(Verdict.PASSED, Verdict.FAILED), verify_token__isnull=False
        ).update(
            **{f"{step}_answered_at": None for step in QUESTIONS},
            archive_state=ArchiveState.COLLECTING,
            lease_epoch=F("lease_epoch") + 1,
            priority_at=queue.priority(due, moment),
            **pending.columns(),
            wake_at=None,
            failure_count=0,
        )
        if changed:
            session.assets.filter(Q(state=State.LOST) | kept_now).update(
                state=State.WANTED, error_class="", error_detail="", reason=""
            )
            rollups.recount(session)
    return bool(changed)
