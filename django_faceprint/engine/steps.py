"""The steps of a visit: ask Baidu what is unknown, download what is wanted, then settle the session."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta
from typing import Any

from django.views.decorators.debug import sensitive_variables

from django_faceprint.base import deadlines
from django_faceprint.base.db_thread import Interrupts, RunEnded
from django_faceprint.base.lease import LeaseLost
from django_faceprint.clock import now
from django_faceprint.evidence import files, thumbnails
from django_faceprint.exceptions import FaceprintConfigurationError, FaceprintError, UnsafeMedia, UrlExpired
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.upstream.errors import NO_ERROR, error_columns

from . import queue, results
from .problems import log_unexpected, report, run_step
from .settle import replace_broken_visit, settle, settle_without_token
from .verdict import ask_verdict
from .visit import Visit

logger = logging.getLogger(__name__)

Verdict = VerificationSession.Verdict
Source = MediaAsset.Source

#: Urgent requests acquire their slot of the rate limit first: those of a session whose deadline is nearer
#: than this, and those of a person who returned so recently that they may be waiting for the result.
URGENT_WITHIN = timedelta(minutes=30)
PERSON_WAITS = timedelta(minutes=1)
#: Bytes from which a download takes long enough for what is known to be written first.
LONG_DOWNLOAD = 8 * 1024 * 1024


@sensitive_variables()
def visit_session(visit: Visit) -> Visit:
    """Make *visit*; the changes of the visit that is returned may still have to be written.

    A visit that breaks off is replaced by one that says so on the session and postpones it. Raises what the
    database raises, :class:`RunEnded` and the interrupts of the run.
    """
    interrupts: Interrupts = (RunEnded, *visit.context.interrupts)
    problem: dict[str, str] = {}
    try:
        perform_visit(visit)
    except LeaseLost:
        logger.info("faceprint: session was taken over by another worker")
        visit.abandon()
    except FaceprintConfigurationError as error:
        problem = error_columns(error)
    except interrupts:
        raise
    except Exception as error:  # noqa: BLE001  (reported below, with its place)
        # One session that trips over a mistake of ours must not keep the others from their visits.
        log_unexpected(f"session pk {visit.lease.session_pk}", error)
        problem = {**NO_ERROR, "error_class": "internal", "error_message": type(error).__name__}
    if problem:
        # Outside the except block: should this fail too, its traceback must not quote the first failure.
        visit.abandon()
        return replace_broken_visit(visit, problem)
    return visit


def perform_visit(visit: Visit) -> None:
    """Ask, archive and settle. Raises what :func:`visit_session` turns into a problem of the session."""
    session, context = visit.session, visit.context
    connected = context.upstream.client_for(
        session.application,
        session=session,
        records=visit.calls,
        urgent=is_urgent(session),
        database=context.database,
        decode=visit.pictures.decode,
    )
    with connected as visit.connection:
        work_through(visit)


def work_through(visit: Visit) -> None:
    """All steps that the session still needs."""
    session = visit.session
    visit.update(last_polled_at=now(), poll_count=session.poll_count + 1)
    visit.drop_unkept()
    if session.token_answered_at is None:
        settle_without_token(visit)
        return
    if session.verdict == Verdict.PENDING:
        run_step(visit, ask_verdict)
    if session.verdict in (Verdict.PASSED, Verdict.FAILED):
        for step in results.QUESTIONS.values():
            run_step(visit, step)
        run_step(visit, results.ask_detail_again)
        archive_wanted(visit)
    settle(visit)


def archive_wanted(visit: Visit) -> None:
    """Store every wanted asset whose bytes or URL this visit has, the earliest deadline first.

    Stops, after one at least, when the run has no time for another download: a worker that is killed in the
    middle of a download has downloaded for nothing.
    """
    far = datetime.max.replace(tzinfo=now().tzinfo)
    available = sorted(
        (asset for asset in visit.wanted() if visit.is_available(asset)),
        key=lambda asset: deadlines.ordering_deadline(visit.session, asset) or far,
    )
    visit.names.reserve(len(available))
    for done, asset in enumerate(available):
        if done and not visit.context.may_download():
            visit.outcome.cut_short = True
            return
        _archive_one(visit, asset)
        visit.checkpoint()


def renewed_url(visit: Visit, asset: MediaAsset) -> str | None:
    """Another URL of *asset*, whose present one is not served any more; None if upstream names none.

    Each interface is asked again once in a visit: what is not served then either is left to the next visit.
    """
    source = Source(asset.source)
    if source in visit.renewed_sources:
        return None
    visit.renewed_sources.add(source)
    del visit.urls[asset.public_id]
    run_step(visit, results.NAMED_BY[source])
    return visit.urls.get(asset.public_id)


def _fetch_and_store(visit: Visit, asset: MediaAsset, name: str) -> dict[str, Any]:
    context = visit.context
    picture = visit.pictures.data_of(asset)
    if picture is not None:
        return files.write_checked(asset, name, [picture], interrupts=context.interrupts)
    own_thread = threading.get_ident()

    def renew() -> str | None:
        # Some storages read in threads of their own, which must use neither Baidu nor the database.
        return renewed_url(visit, asset) if threading.get_ident() == own_thread else None

    with context.upstream.downloader().download(visit.urls[asset.public_id], renew=renew) as body:
        if (body.content_length or LONG_DOWNLOAD) >= LONG_DOWNLOAD:
            # What is known so far must not wait for it.
            visit.checkpoint()
        return files.write_checked(
            asset,
            name,
            body.chunks(),
            plain_http=body.plain_http,
            with_thumbnail=asset is thumbnails.portrait_of(visit.assets.values()),
            interrupts=context.interrupts,
        )


def _archive_one(visit: Visit, asset: MediaAsset) -> None:
    interrupts: Interrupts = (LeaseLost, RunEnded, *visit.context.interrupts)
    error_class = error_detail = ""
    name = visit.names.take()
    try:
        columns = _fetch_and_store(visit, asset, name)
    except UrlExpired:
        error_class = "url_expired"
    except UnsafeMedia as error:
        error_class, error_detail = "unsafe_media", error.reason
        report(visit, error_columns(error))
        if error.raw:
            visit.add_refusal(asset, error.raw, error.reason)
    except FaceprintError as error:
        error_class, error_detail = error_columns(error)["error_class"], str(error)
    except files.StorageFailed as error:
        error_class, error_detail = "storage", str(error)
    except interrupts:
        visit.drop_upload(name)
        raise
    except Exception as error:  # noqa: BLE001  (reported, with its place)
        # One file that trips over a mistake of ours must not keep the others from being archived.
        log_unexpected(f"session {visit.session.public_id}", error)
        error_class, error_detail = "internal", type(error).__name__
    if not error_class:
        visit.keep_upload(asset, name, columns)
        return
    visit.outcome.failed = True
    visit.drop_upload(name)
    visit.change(asset, tries=asset.tries + 1, error_class=error_class[:30], error_detail=error_detail[:200])
    logger.warning(
        "faceprint: session %s: %s not archived: %s %s",
        visit.session.public_id,
        asset.kind,
        error_class,
        error_detail,
    )


def is_urgent(session: VerificationSession) -> bool:
    """A deadline that can be kept is near, or a person waits for the result."""
    moment = now()
    deadline, returned_at = queue.priority(session, moment), session.returned_at
    return (deadline is not None and deadline - moment < URGENT_WITHIN) or (
        returned_at is not None and moment - returned_at < PERSON_WAITS
    )
