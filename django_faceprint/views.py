"""The return view, to which Baidu's H5 page sends the person's browser.

The browser's return proves nothing: these views make the session due and wait for Baidu's result. Their URLs
contain the session's signed id and no identity; the responses contain a status and the host's return URL.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from django_faceprint.clock import now
from django_faceprint.models import VerificationSession
from django_faceprint.tasks import notify_worker
from django_faceprint.verification import record_return, session_of_return_token

#: Query parameter with the session's id that is added to the host's return URL.
SESSION_PARAMETER = "faceprint_session"
#: Minimum time between two requests to Baidu that reloading the page causes.
RECHECK_INTERVAL = timedelta(seconds=10)
#: Status of a failed attempt while the person may still try again.
NOT_PASSED_YET = "not_passed_yet"

_SECONDS = re.compile(r"[0-9]{1,10}")

View = Callable[[HttpRequest, str], HttpResponse]


@dataclass(frozen=True)
class Standing:
    """The state of a session for the person. ``done``: stop waiting; ``redirect``: the next URL, or ""."""

    done: bool
    status: str
    redirect: str


def _public(view: View) -> Callable[..., HttpResponse]:
    """Make a view need no login, read only, uncached, outside transactions and without ``Referer``."""

    @wraps(view)
    def guarded(request: HttpRequest, token: str) -> HttpResponse:
        response = view(request, token)
        response["Referrer-Policy"] = "no-referrer"
        response["X-Robots-Tag"] = "noindex, nofollow"
        return response

    return transaction.non_atomic_requests(login_not_required(require_safe(never_cache(guarded))))


@_public
def returned(request: HttpRequest, token: str) -> HttpResponse:
    """The return URL: make the session due, then wait, go on, or show the result.

    HEAD, as link scanners send it, changes nothing. GET makes a worker ask Baidu sooner, at most once in
    :data:`RECHECK_INTERVAL`.
    """
    session = session_of_return_token(token)
    if session is None:
        return render(request, "faceprint/return_unknown.html", status=404)
    moment = now()
    since = _since(request, moment)
    if request.method == "GET" and _needs_recheck(session, moment):
        record_return(session)
        notify_worker(session)
    standing = _standing(session, since)
    if standing.redirect:
        return HttpResponseRedirect(standing.redirect)
    again = f"{reverse(_name(request, 'return'), args=[token])}?since={int(since.timestamp())}"
    status_url = reverse(_name(request, "return-status"), args=[token])
    context = {
        "standing": standing,
        "again_url": again,
        "status_url": f"{status_url}?since={int(since.timestamp())}",
    }
    return render(request, "faceprint/return.html", context)


@_public
def return_status(request: HttpRequest, token: str) -> HttpResponse:
    """For the waiting page: ``{"done": bool, "status": string, "redirect": url or null}``."""
    session = session_of_return_token(token)
    if session is None:
        return JsonResponse({"done": True, "status": "unknown_link", "redirect": None}, status=404)
    standing = _standing(session, _since(request, now()))
    return JsonResponse(
        {"done": standing.done, "status": standing.status, "redirect": standing.redirect or None}
    )


def _needs_recheck(session: VerificationSession, moment: datetime) -> bool:
    if session.returned_at is None:
        return True
    if session.verdict != VerificationSession.Verdict.PENDING:
        return False
    if session.priority_at is not None or (session.is_leased and session.recheck_requested):
        # Already due: while no worker runs, reloading would only fill the broker.
        return False
    last = session.last_polled_at
    return last is None or moment - last >= RECHECK_INTERVAL


def _standing(session: VerificationSession, since: datetime) -> Standing:
    status: str = session.status
    done = session.verdict != VerificationSession.Verdict.PENDING
    if not done and session.attempted_at:
        # A failed attempt with a plan that allows another: done once Baidu was asked after this return.
        asked = session.last_polled_at is not None and session.last_polled_at >= since
        done = asked and not session.is_leased
        status = NOT_PASSED_YET if done else status
    return Standing(done, status, _redirect_url(session) if done else "")


def _redirect_url(session: VerificationSession) -> str:
    """The host's return URL with the session's id added; "" without one."""
    if not session.return_url:
        return ""
    parts = urlsplit(session.return_url)
    query = "&".join(filter(None, (parts.query, f"{SESSION_PARAMETER}={session.public_id}")))
    return urlunsplit(parts._replace(query=query))


def _since(request: HttpRequest, moment: datetime) -> datetime:
    """When the person returned, from the page's own URL; *moment* on the first request."""
    text = request.GET.get("since", "")
    if not _SECONDS.fullmatch(text):
        return moment.replace(microsecond=0)
    return min(datetime.fromtimestamp(int(text), UTC), moment)


def _name(request: HttpRequest, name: str) -> str:
    match: Any = request.resolver_match
    return f"{match.namespace if match else 'faceprint'}:{name}"
