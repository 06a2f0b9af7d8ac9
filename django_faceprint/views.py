"""Where a person's browser arrives when it comes back from Baidu's H5 page.

The way back is made by the browser and proves nothing: these views make the session due and wait for
what Baidu says. Their addresses carry a signed name of the session, no identity, and lead to nothing
but words like "passed" and the host's own return URL.
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

#: What is added to the host's return URL, so that it knows which session has come back.
SESSION_PARAMETER = "faceprint_session"
#: A page that is reloaded does not have Baidu asked more often than this.
RECHECK_INTERVAL = timedelta(seconds=10)
#: Words for an attempt that did not pass while the person may still try again.
NOT_PASSED_YET = "not_passed_yet"

_SECONDS = re.compile(r"[0-9]{1,10}")

View = Callable[[HttpRequest, str], HttpResponse]


@dataclass(frozen=True)
class Standing:
    """What the person is told. ``done``: there is something to tell; ``redirect``: where to go, or ""."""

    done: bool
    status: str
    redirect: str


def _public(view: View) -> Callable[..., HttpResponse]:
    """Open to everybody, read only, cached by nobody, outside transactions, address told to no other site."""

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

    HEAD, as link scanners send it, changes nothing. Whatever fetches the page with GET makes Baidu be
    asked sooner, at most once in :data:`RECHECK_INTERVAL`, and no more.
    """
    session = session_of_return_token(token)
    if session is None:
        return render(request, "faceprint/return_unknown.html", status=404)
    moment = now()
    since = _since(request, moment)
    if request.method == "GET" and _wants_asking(session, moment):
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
    """What the waiting page asks for: ``{"done": bool, "status": word, "redirect": url or null}``."""
    session = session_of_return_token(token)
    if session is None:
        return JsonResponse({"done": True, "status": "unknown_link", "redirect": None}, status=404)
    standing = _standing(session, _since(request, now()))
    return JsonResponse(
        {"done": standing.done, "status": standing.status, "redirect": standing.redirect or None}
    )


def _wants_asking(session: VerificationSession, moment: datetime) -> bool:
    if session.returned_at is None:
        return True
    if session.verdict != VerificationSession.Verdict.PENDING:
        return False
    if session.priority_at is not None or (session.is_leased and session.recheck_requested):
        # It is due already. While no worker runs, reloading would only fill the broker.
        return False
    last = session.last_polled_at
    return last is None or moment - last >= RECHECK_INTERVAL


def _standing(session: VerificationSession, since: datetime) -> Standing:
    status: str = session.status
    done = session.verdict != VerificationSession.Verdict.PENDING
    if not done and session.attempted_at:
        # A failed attempt of a plan that allows another: told once Baidu was asked after this return.
        asked = session.last_polled_at is not None and session.last_polled_at >= since
        done = asked and not session.is_leased
        status = NOT_PASSED_YET if done else status
    return Standing(done, status, _way_on(session) if done else "")


def _way_on(session: VerificationSession) -> str:
    """The host's return URL with the session's id; "" when it gave none."""
    if not session.return_url:
        return ""
    parts = urlsplit(session.return_url)
    query = "&".join(filter(None, (parts.query, f"{SESSION_PARAMETER}={session.public_id}")))
    return urlunsplit(parts._replace(query=query))


def _since(request: HttpRequest, moment: datetime) -> datetime:
    """When this visit of the person began, as the page itself carries it; *moment* on the first request."""
    text = request.GET.get("since", "")
    if not _SECONDS.fullmatch(text):
        return moment.replace(microsecond=0)
    return min(datetime.fromtimestamp(int(text), UTC), moment)


def _name(request: HttpRequest, name: str) -> str:
    match: Any = request.resolver_match
    return f"{match.namespace if match else 'faceprint'}:{name}"
