"""Finding records by exact texts, which come into no URL and no log."""

from __future__ import annotations

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.utils.translation import gettext, ngettext
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from django_faceprint.actors import actor_of
from django_faceprint.audit.access import record_access
from django_faceprint.models import AccessLog, VerificationSession
from django_faceprint.records import lookup

from .pages import CHANNEL, admin_url, page, uncached
from .presentation import RecordSummary

#: Most characters of the posted list of texts.
MAX_LENGTH = 20_000


@sensitive_post_parameters("q")
@sensitive_variables()
def lookup_view(request: HttpRequest, *, model_admin: admin.ModelAdmin) -> HttpResponseBase:
    """Open the record that matches the posted texts; list several in the response itself.

    Takes up to :data:`~django_faceprint.records.lookup.MAX_TEXTS` references, session IDs, log_ids,
    verify_tokens, ID numbers and names. A lookup that may be for a person is logged, without the text. Texts
    without a match are not repeated, neither in messages nor in error reports.
    """
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    found = lookup.look_up(request.POST.get("q", "")[:MAX_LENGTH])
    if found.may_be_personal:
        record_access(actor_of(request, CHANNEL), AccessLog.Action.LOOKUP)
    rows = model_admin.get_queryset(request).filter(pk__in=found.keys).order_by("-created_at", "-pk")
    sessions = list(rows)
    for text, level in _messages(found, hidden=len(found.keys) - len(sessions)):
        model_admin.message_user(request, text, level)
    if not sessions:
        return HttpResponseRedirect(admin_url(model_admin, "changelist"))
    if len(sessions) == 1 and not found.missing:
        return HttpResponseRedirect(admin_url(model_admin, "change", sessions[0].pk))
    return _hits_page(request, model_admin, sessions, truncated=found.is_truncated)


def _messages(found: lookup.Found, *, hidden: int) -> list[tuple[str, int]]:
    """Messages about a lookup, with their levels. They never contain the texts."""
    result: list[tuple[str, int]] = []
    if found.left_out:
        text = gettext("At most %(count)d texts can be looked up at a time.") % {"count": lookup.MAX_TEXTS}
        result.append((text, messages.ERROR))
    if hidden:
        text = ngettext(
            "%(count)d matching record is outside your permission.",
            "%(count)d matching records are outside your permission.",
            hidden,
        )
        result.append((text % {"count": hidden}, messages.WARNING))
    if found.missing and found.asked == 1:
        result.append((gettext("No record matches. The text must be exact."), messages.WARNING))
    elif found.missing:
        text = ngettext(
            "No record matches line %(lines)s. Texts must be exact.",
            "No record matches lines %(lines)s. Texts must be exact.",
            len(found.missing),
        )
        result.append((text % {"lines": ", ".join(map(str, found.missing))}, messages.WARNING))
    return result


def _hits_page(
    request: HttpRequest,
    model_admin: admin.ModelAdmin,
    sessions: list[VerificationSession],
    *,
    truncated: bool,
) -> HttpResponse:
    title = ngettext("%(count)d record found", "%(count)d records found", len(sessions))
    context = {
        "title": title % {"count": len(sessions)},
        "rows": [RecordSummary.of(row, admin_url(model_admin, "change", row.pk)) for row in sessions],
        "more": truncated,
    }
    return uncached(page(request, model_admin, "verificationsession/hits.html", context))
