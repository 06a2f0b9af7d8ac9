"""Exports of many records and the evidence bundle (证据包) of one."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables

from django_faceprint.jobs import jobs as engine
from django_faceprint.models import Job
from django_faceprint.records.filters import Selection

from . import labels
from .jobs import described, job_url, may_export, start_job
from .list_request import selected_records, visible_records
from .pages import admin_url, page, posted_reason, sign, signed_values, uncached

_SALT = "faceprint.job"


def may_export_any(request: HttpRequest) -> bool:
    """Whether the user may export, masked or in clear."""
    return any(may_export(request, unmasked=unmasked) for unmasked in (False, True))


@admin.action(description=_("Export …"), permissions=["export"])
def export(model_admin: Any, request: HttpRequest, queryset: QuerySet) -> HttpResponseBase | None:
    """Ask for the format, and whether names are exported in clear."""
    selection = selected_records(request, model_admin, queryset)
    return None if selection is None else _export_form(request, model_admin, selection)


@sensitive_variables()
def export_view(request: HttpRequest, *, model_admin: admin.ModelAdmin) -> HttpResponseBase:
    """Start the export that the form was about."""
    if not may_export_any(request):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    list_url = admin_url(model_admin, "changelist")
    signed = signed_values(request, salt=_SALT)
    if signed is None:
        text = _("Nothing was exported: the page is too old. Choose the records again.")
        model_admin.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(list_url)
    kind = request.POST.get("format", "")
    unmasked = request.POST.get("unmasked") == "1"
    if kind not in (Job.Kind.EXPORT_CSV, Job.Kind.EXPORT_XLSX) or not may_export(request, unmasked=unmasked):
        raise PermissionDenied
    selection = Selection.from_json(signed["selection"])
    return _start(request, model_admin, kind, selection, unmasked=unmasked, back_url=list_url)


@sensitive_variables()
def bundle_view(request: HttpRequest, pk: int, *, model_admin: admin.ModelAdmin) -> HttpResponseBase:
    """Start making the evidence bundle of one record: all of it in a signed file."""
    unmasked = request.POST.get("unmasked") == "1"
    if not may_export(request, unmasked=unmasked, bundle=True):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    if not visible_records(request, model_admin).filter(pk=pk).exists():
        raise Http404
    selection = Selection({"rows": str(pk)})
    back_url = admin_url(model_admin, "change", pk)
    return _start(request, model_admin, Job.Kind.BUNDLE, selection, unmasked=unmasked, back_url=back_url)


@sensitive_variables()
def _start(
    request: HttpRequest,
    model_admin: admin.ModelAdmin,
    kind: str,
    selection: Selection,
    *,
    unmasked: bool,
    back_url: str,
) -> HttpResponseBase:
    reason, problem = posted_reason(request) if unmasked else (None, "")
    if problem:
        model_admin.message_user(request, problem, messages.ERROR)
        return HttpResponseRedirect(back_url)
    job = start_job(request, model_admin, kind, selection, reason=reason, unmasked=unmasked)
    return HttpResponseRedirect(back_url if job is None else job_url(model_admin, job))


def _export_form(request: HttpRequest, model_admin: admin.ModelAdmin, selection: Selection) -> HttpResponse:
    frozen = selection.frozen()
    context = {
        "title": _("Export"),
        "count": frozen.queryset()[: engine.MAX_ROWS + 1].count(),
        "described": described(frozen),
        "token": sign(request, {"selection": frozen.to_json()}, salt=_SALT),
        "may_mask": may_export(request, unmasked=False),
        "may_be_clear": may_export(request, unmasked=True),
        "reveal_reasons": labels.reveal_reasons(),
        "hours": int(engine.FILE_LIFE.total_seconds() // 3600),
        "confirm_url": admin_url(model_admin, "export"),
        "back_url": request.get_full_path(),
    }
    return uncached(page(request, model_admin, "verificationsession/export.html", context))
