"""The steps of one visit: ask Baidu what is unknown, download what is wanted, then settle the session."""

from __future__ import annotations

import logging
import threading
import traceback
from datetime import datetime, timedelta
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from django_faceprint.base import deadlines
from django_faceprint.base.lease import LeaseLost
from django_faceprint.client import remembering_pictures
from django_faceprint.clock import now
from django_faceprint.evidence import files, thumbnails
from django_faceprint.exceptions import FaceprintError, UnsafeMedia, UrlExpired
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.upstream import clients
from django_faceprint.upstream.db_thread import RunEnded
from django_faceprint.upstream.errors import error_columns

from . import queue, results
from .results import NAMED_BY, STEPS
from .settle import finish_unstarted, settle
from .verdict import ask_verdict
from .visit import Visit

logger = logging.getLogger(__name__)
Verdict = VerificationSession.Verdict
Source = MediaAsset.Source

#: Work whose deadline is nearer than this goes first where our rate limit makes others wait, as does that
#: of a person who came back so recently as to be looking at the page.
URGENT_WITHIN = timedelta(minutes=30)
PERSON_WAITS = timedelta(minutes=1)
#: Bytes from which a download takes long enough for what is known to be written first.
LONG_DOWNLOAD = 8 * 1024 * 1024


def perform_visit(visit: Visit) -> None:
    session = visit.session
    client_of_session = clients.client_for(
        session.application, session=session, records=visit.calls, urgent=_is_urgent(session)
    )
    with client_of_session as client, remembering_pictures():
        visit.connection = client
        _work_through(visit)


def log_unexpected(where: str, error: Exception) -> None:
    """Only the place is logged: the exception's own text could quote what upstream sent."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    logger.error(
        "faceprint: %s: unexpected %s at %s:%s", where, type(error).__name__, frame.filename, frame.lineno
    )


def _is_urgent(session: VerificationSession) -> bool:
    """A deadline that can be kept is near, or a person waits for the result."""
    moment = now()
    deadline, returned_at = queue.priority_of(session, moment), session.returned_at
    return (deadline is not None and deadline - moment < URGENT_WITHIN) or (
        returned_at is not None and moment - returned_at < PERSON_WAITS
    )


def _work_through(visit: Visit) -> None:
    session = visit.session
    visit.update(last_polled_at=now(), poll_count=session.poll_count + 1)
    visit.drop_what_is_not_kept()
    if session.token_answered_at is None:
        finish_unstarted(visit)
        return
    if session.verdict == Verdict.PENDING:
        visit.attempt(ask_verdict)
    if session.verdict in (Verdict.PASSED, Verdict.FAILED):
        for step in STEPS.values():
            visit.attempt(step)
        visit.attempt(results.ask_detail_again)
        _archive_wanted(visit)
    settle(visit)


def _archive_wanted(visit: Visit) -> None:
    """Store every wanted asset whose bytes or URL this visit has, the earliest deadline first.

    Stops, after one at least, when the run has no time for another download: a worker that is killed in
    mid-download has downloaded for nothing.
    """
    far = datetime.max.replace(tzinfo=now().tzinfo)
    within_reach = sorted(
        (asset for asset in visit.wanted() if visit.is_within_reach(asset)),
        key=lambda asset: deadlines.ordering_deadline(visit.session, asset) or far,
    )
    visit.reserve_names(len(within_reach))
    for done, asset in enumerate(within_reach):
        if done and not visit.in_time():
            visit.cut_short = True
            return
        _archive_one(visit, asset)
        visit.checkpoint()


def _fetch_and_store(visit: Visit, asset: MediaAsset, name: str) -> dict[str, Any]:
    if asset.public_id in visit.data:
        return files.save(asset, name, [visit.data[asset.public_id]])
    own_thread = threading.get_ident()

    def renew() -> str | None:
        # Some storages read in threads of their own, where nobody may ask Baidu or a database.
        return _fresh_url(visit, asset) if threading.get_ident() == own_thread else None

    with clients.downloader().download(visit.urls[asset.public_id], renew=renew) as body:
        if (body.content_length or LONG_DOWNLOAD) >= LONG_DOWNLOAD:
            # What is known so far must not wait for it.
            visit.checkpoint()
        return files.save(
            asset,
            name,
            body.chunks(),
            plain_http=body.plain_http,
            with_thumbnail=asset is thumbnails.portrait_of(visit.assets.values()),
        )


def _fresh_url(visit: Visit, asset: MediaAsset) -> str | None:
    """Another URL of *asset*, whose present one is not served any more; None if upstream names none.

    Each interface is asked anew once in a visit: what is not served then either is a matter for the next.
    """
    source = Source(asset.source)
    if source in visit.asked_anew:
        return None
    visit.asked_anew.add(source)
    del visit.urls[asset.public_id]
    visit.attempt(NAMED_BY[source])
    return visit.urls.get(asset.public_id)


def _archive_one(visit: Visit, asset: MediaAsset) -> None:
    problem = ""
    name = visit.next_name()
    try:
        columns = _fetch_and_store(visit, asset, name)
    except UrlExpired:
        problem = "url_expired"
    except UnsafeMedia as error:
        problem = f"unsafe_media: {error.reason}"
        visit.write_problem(error_columns(error))
        if error.raw:
            visit.record_refused(asset, error.raw, error.reason)
    except FaceprintError as error:
        problem = str(error)
    except files.StorageFailed as error:
        problem = f"storage: {error}"
    except (LeaseLost, SoftTimeLimitExceeded, RunEnded):
        visit.drop_upload(name)
        raise
    except Exception as error:  # noqa: BLE001  (reported, with its place)
        # One file that trips over a mistake of ours must not keep the others from being archived.
        log_unexpected(f"session {visit.session.public_id}", error)
        problem = f"internal: {type(error).__name__}"
    if not problem:
        visit.keep_upload(asset, columns)
        return
    visit.failed = True
    visit.drop_upload(name)
    visit.change(asset, tries=asset.tries + 1, error=problem[:200])
    logger.warning("faceprint: session %s: %s not archived: %s", visit.session.public_id, asset.kind, problem)
