"""The page of one record, and the identity in clear for a short time."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
)
from django.http.response import HttpResponseBase
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from django_faceprint.actors import actor_of
from django_faceprint.audit.access import REVEALED_FOR, Reason, earlier_reason, record_access
from django_faceprint.models import AccessLog, VerificationSession

from . import labels
from .erasing import may_erase
from .jobs import may_export
from .list_request import IN_LIST, in_list, neighbours_in_list, visible_records
from .pages import CHANNEL, admin_url, page, posted_reason, uncached, wants_json
from .record import Record
from .refresh import may_refresh

REVEAL = "faceprint.reveal_identity"
#: The value of the form for "the same reason as before".
REMEMBERED = "same"
#: Key in the browser session: record → entry of the access log that holds its reason; and most records.
REASONS = "faceprint_reasons"
MAX_REASONS = 50


@sensitive_variables()
def render_record(
    request: HttpRequest,
    model_admin: admin.ModelAdmin,
    session: VerificationSession,
    *,
    unmasked: bool = False,
) -> HttpResponse:
    """The page of *session*. The caller has checked permissions and written the access log."""
    url = partial(admin_url, model_admin)
    listed, kept = request.GET.get(IN_LIST, ""), in_list(request)
    beside = neighbours_in_list(session, visible_records(request, model_admin), listed)
    context = {
        "title": _("Verification record"),
        "subtitle": None,
        "original": session,
        "record": _record(request, model_admin, session, unmasked=unmasked),
        "list_url": url("changelist") + (f"?{listed}" if listed else ""),
        "previous_url": url("change", beside.previous) + kept if beside.previous else "",
        "next_url": url("change", beside.next) + kept if beside.next else "",
        "may_refresh": may_refresh(request, model_admin),
        "may_reveal": request.user.has_perm(REVEAL),
        "may_download": request.user.has_perm("faceprint.download_media"),
        "may_erase": may_erase(request, model_admin) and session.erased_at is None,
        "erase_url": url("erase_record", session.pk),
        "may_bundle": may_export(request, unmasked=False, bundle=True),
        "may_bundle_clear": may_export(request, unmasked=True, bundle=True),
        "bundle_url": url("bundle", session.pk),
        "reveal_reasons": labels.reveal_reasons(),
        "remembered_reason": _remembered_reason(request, session),
        "revealed_for": int(REVEALED_FOR.total_seconds()),
        "reveal_url": url("reveal", session.pk),
        "record_url": url("change", session.pk) + kept,
        "query_now_url": url("query_now", session.pk) + kept,
        "archive_again_url": url("archive_again", session.pk) + kept,
    }
    return page(request, model_admin, "verificationsession/record.html", context)


@sensitive_post_parameters("reason_text")
@sensitive_variables()
def reveal_view(request: HttpRequest, pk: int, *, model_admin: admin.ModelAdmin) -> HttpResponseBase:
    """Name, number and card data in clear for :data:`REVEALED_FOR`, with a reason; logged before it is shown.

    Scripts request JSON and mask the values again themselves. Without scripts, the page reloads itself masked
    after the same time. The reason is remembered for the record until the user logs out.
    """
    if not model_admin.has_view_permission(request) or not request.user.has_perm(REVEAL):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    session = model_admin.get_object(request, str(pk))
    if session is None:
        raise Http404
    as_before = (request.POST.get("reason"), request.POST.get("reason_text", "")) == (REMEMBERED, "")
    reason, problem = _remembered_reason(request, session) if as_before else None, ""
    if reason is None:
        reason, problem = posted_reason(request)
    if reason is None:
        if wants_json(request):
            return uncached(JsonResponse({"problem": problem}, status=400))
        model_admin.message_user(request, problem, messages.ERROR)
        return HttpResponseRedirect(admin_url(model_admin, "change", pk))
    entry = record_access(
        actor_of(request, CHANNEL), AccessLog.Action.REVEAL, session_id=session.public_id, reason=reason
    )
    _remember_reason(request, session, entry)
    if not wants_json(request):
        return uncached(render_record(request, model_admin, session, unmasked=True))
    record = _record(request, model_admin, session, unmasked=True)
    revealed = {
        "rows": [[row.submitted, row.read, row.confirmed] for row in record.identity],
        "facts": record.card_facts,
        "seconds": int(REVEALED_FOR.total_seconds()),
    }
    return uncached(JsonResponse(revealed))


def _record(
    request: HttpRequest, model_admin: admin.ModelAdmin, session: VerificationSession, *, unmasked: bool
) -> Record:
    return Record(
        session,
        url=partial(admin_url, model_admin),
        may_view_media=request.user.has_perm("faceprint.view_media"),
        with_views=request.user.has_perm("faceprint.view_accesslog"),
        visible=visible_records(request, model_admin),
        unmasked=unmasked,
    )


def _remembered_reason(request: HttpRequest, session: VerificationSession) -> Reason | None:
    """The user's last reason for *session*, until logout."""
    entry_id = request.session.get(REASONS, {}).get(str(session.pk))
    return earlier_reason(actor_of(request, CHANNEL), UUID(entry_id), session) if entry_id else None


def _remember_reason(request: HttpRequest, session: VerificationSession, entry: AccessLog) -> None:
    """Remember *entry* as the one with the reason for *session*: a reference, not the text."""
    entries = dict(request.session.get(REASONS, {}))
    entries.pop(str(session.pk), None)
    newest = list(entries.items())[1 - MAX_REASONS :]
    request.session[REASONS] = {**dict(newest), str(session.pk): str(entry.public_id)}
