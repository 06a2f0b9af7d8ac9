"""Query now (立即查询) and archive again (重新归档), for one record and for many."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseNotAllowed, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from django_faceprint.actors import actor_of
from django_faceprint.engine import refresh
from django_faceprint.models import Job
from django_faceprint.tasks import notify_worker

from . import jobs
from .list_request import in_list, selected_records, visible_records
from .pages import CHANNEL, admin_url

REFRESH = "faceprint.refresh_session"

_REQUESTED = {
    Job.Kind.QUERY_NOW: _("Baidu is asked as soon as a worker is free. Reload this page in a few seconds."),
    Job.Kind.ARCHIVE_AGAIN: _(
        "What is not in the archive is fetched as soon as a worker is free. "
        "Reload this page in a few seconds."
    ),
}
_REFUSED = {
    refresh.FINISHED: _(
        "Nothing was requested: this record is finished and Baidu has no new result. "
        "To fetch files again, use “Archive again”."
    ),
    refresh.UNDECIDED: _("Nothing was fetched: there are files only after a verification passed or failed."),
    refresh.NO_TOKEN: _("Nothing was fetched: the token was erased, and without it Baidu returns nothing."),
    refresh.BUSY: _("Nothing was changed: a worker is on this record now. Try again in a few minutes."),
}
_MANY_REQUESTED = {
    Job.Kind.QUERY_NOW: ngettext_lazy(
        "%(count)d record will be queried as soon as a worker is free.",
        "%(count)d records will be queried as soon as a worker is free.",
        "count",
    ),
    Job.Kind.ARCHIVE_AGAIN: ngettext_lazy(
        "The files of %(count)d record are fetched again as soon as a worker is free.",
        "The files of %(count)d records are fetched again as soon as a worker is free.",
        "count",
    ),
}
_MANY_SKIPPED = {
    Job.Kind.QUERY_NOW: ngettext_lazy(
        "%(count)d record is finished: there is nothing to query.",
        "%(count)d records are finished: there is nothing to query.",
        "count",
    ),
    Job.Kind.ARCHIVE_AGAIN: ngettext_lazy(
        "%(count)d record was skipped: not decided, erased, or being worked on.",
        "%(count)d records were skipped: not decided, erased, or being worked on.",
        "count",
    ),
}


def may_refresh(request: HttpRequest, model_admin: admin.ModelAdmin) -> bool:
    """Whether the user may request a query or a new download from Baidu."""
    return model_admin.has_view_permission(request) and request.user.has_perm(REFRESH)


def query_now_view(request: HttpRequest, pk: int, *, model_admin: admin.ModelAdmin) -> HttpResponseBase:
    """Query Baidu as soon as a worker is free."""
    return _request_one(request, model_admin, pk, Job.Kind.QUERY_NOW)


def archive_again_view(request: HttpRequest, pk: int, *, model_admin: admin.ModelAdmin) -> HttpResponseBase:
    """Fetch all files again that are not in the archive, as soon as a worker is free."""
    return _request_one(request, model_admin, pk, Job.Kind.ARCHIVE_AGAIN)


@admin.action(description=_("Query now"), permissions=["refresh"])
def query_now(model_admin: Any, request: HttpRequest, queryset: QuerySet) -> HttpResponseBase | None:
    """The same for the selected records."""
    return _request_many(request, model_admin, queryset, Job.Kind.QUERY_NOW)


@admin.action(description=_("Archive again"), permissions=["refresh"])
def archive_again(model_admin: Any, request: HttpRequest, queryset: QuerySet) -> HttpResponseBase | None:
    """The same for the selected records."""
    return _request_many(request, model_admin, queryset, Job.Kind.ARCHIVE_AGAIN)


def _request_one(
    request: HttpRequest, model_admin: admin.ModelAdmin, pk: int, kind: Job.Kind
) -> HttpResponseBase:
    if not may_refresh(request, model_admin):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    session = visible_records(request, model_admin).filter(pk=pk).first()
    if session is None:
        raise Http404
    problem = refresh.request_refresh(session, kind, actor=actor_of(request, CHANNEL))
    if problem:
        model_admin.message_user(request, _REFUSED[problem], messages.WARNING)
    else:
        notify_worker(session)
        model_admin.message_user(request, _REQUESTED[kind], messages.SUCCESS)
    return HttpResponseRedirect(admin_url(model_admin, "change", session.pk) + in_list(request))


def _request_many(
    request: HttpRequest, model_admin: admin.ModelAdmin, queryset: QuerySet, kind: Job.Kind
) -> HttpResponseBase | None:
    selection = selected_records(request, model_admin, queryset)
    job = jobs.start_job(request, model_admin, kind, selection) if selection is not None else None
    if job is None:
        return None
    if job.is_unfinished:
        return HttpResponseRedirect(jobs.job_url(model_admin, job))
    if job.done:
        text = _MANY_REQUESTED[kind] % {"count": job.done}
        model_admin.message_user(request, text, messages.SUCCESS)
    if job.skipped:
        text = _MANY_SKIPPED[kind] % {"count": job.skipped}
        model_admin.message_user(request, text, messages.WARNING)
    return None
