"""Actions on many records: what is asked before, how far they have come, and the files that come of them."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from time import monotonic
from typing import Any

from django.contrib import admin, messages
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
)
from django.http.response import HttpResponseBase
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables

from django_faceprint.actors import actor_of
from django_faceprint.audit.access import Reason, checked_reason, record_access
from django_faceprint.evidence.serving import attachment
from django_faceprint.exceptions import InvalidInput
from django_faceprint.jobs import jobs
from django_faceprint.models import AccessLog, Job
from django_faceprint.records.filters import Selection
from django_faceprint.tasks import notify_job_worker
from django_faceprint.upstream import clients

from . import labels
from .columns import badge
from .filters import FilterBar
from .pages import fresh, page
from .readonly import ReadOnlyAdmin
from .record import Badge

CHANNEL = "admin"
EXPORT_MASKED, EXPORT_SENSITIVE = "faceprint.export_masked", "faceprint.export_sensitive"
VIEW_RECORDS, VIEW_ACCESSLOG = "faceprint.view_verificationsession", "faceprint.view_accesslog"
#: What a bundle holds beside the record: pictures and videos, to keep.
BUNDLE_MEDIA = ("faceprint.view_media", "faceprint.download_media")
#: A job that is done within this time needs no page of its own.
AT_ONCE = timedelta(seconds=2)
#: How long the page that asks what to export stays good (seconds).
QUESTION_LIFE = 900
_SALT = "faceprint.job"
_TONES = {
    Job.State.WAITING: "quiet",
    Job.State.RUNNING: "busy",
    Job.State.DONE: "good",
    Job.State.FAILED: "bad",
    Job.State.CANCELLED: "quiet",
    Job.State.EXPIRED: "quiet",
}
_PROBLEMS = {
    "unknown": _("Nothing was done: a filter is not understood."),
    "empty": _("Nothing was done: no record is selected."),
    "too_large": _("Nothing was done: these are too many records. Choose a narrower filter."),
}


def may_export(request: HttpRequest, *, unmasked: bool, bundle: bool = False) -> bool:
    """Whether the user may have such a file made, and may download it."""
    needed = [VIEW_RECORDS, EXPORT_SENSITIVE if unmasked else EXPORT_MASKED]
    return request.user.has_perms([*needed, *(BUNDLE_MEDIA if bundle else ())])  # type: ignore[union-attr]


@sensitive_variables()
def begin(
    request: HttpRequest,
    model_admin: admin.ModelAdmin,
    kind: str,
    selection: Selection,
    *,
    reason: Reason | None = None,
    unmasked: bool = False,
) -> Job | None:
    """Start a job and work on it as long as a person likes to wait; None, and a message, when refused."""
    refused = ""
    job = None
    try:
        job = jobs.start(
            kind,
            selection,
            actor=actor_of(request, CHANNEL),
            reason=reason,
            unmasked=unmasked,
            with_log=request.user.has_perm(VIEW_ACCESSLOG),
        )
    except InvalidInput as error:
        refused = str(_PROBLEMS[error.code])
    if job is None:
        model_admin.message_user(request, refused, messages.ERROR)
        return None
    # Where the host has each request in a transaction, a worker does all of it.
    if not clients.is_inside_transaction():
        jobs.work_on(job, until=monotonic() + AT_ONCE.total_seconds(), monotonic=monotonic)
    if job.is_unfinished:
        notify_job_worker()
    return job


def ask_what_to_export(
    request: HttpRequest,
    model_admin: admin.ModelAdmin,
    selection: Selection,
    *,
    confirm_url: str,
    back_url: str,
) -> HttpResponse:
    """The page that asks for the format and whether names are wanted; the selection is signed."""
    frozen = selection.frozen()
    count = frozen.queryset()[: jobs.MAX_ROWS + 1].count()
    context = {
        "title": _("Export"),
        "count": count,
        "most": jobs.MAX_ROWS,
        "described": described(frozen),
        "token": signing.dumps(
            {"selection": frozen.to_json(), "user": str(request.user.pk)}, salt=_SALT, compress=True
        ),
        "may_mask": may_export(request, unmasked=False),
        "may_be_clear": may_export(request, unmasked=True),
        "reveal_reasons": labels.reveal_reasons(),
        "hours": int(jobs.FILE_LIFE.total_seconds() // 3600),
        "confirm_url": confirm_url,
        "back_url": back_url,
    }
    return fresh(page(request, model_admin, "verificationsession/export.html", context))


def export(request: HttpRequest, model_admin: admin.ModelAdmin, *, back_url: str) -> HttpResponseBase:
    """Starts what :func:`ask_what_to_export` asked about."""
    signed: dict[str, Any] = {}
    with suppress(signing.BadSignature):
        signed = signing.loads(request.POST.get("token", ""), salt=_SALT, max_age=QUESTION_LIFE)
    if signed.get("user") != str(request.user.pk):
        model_admin.message_user(
            request, _("Nothing was exported: the page was too old. Choose again."), messages.WARNING
        )
        return HttpResponseRedirect(back_url)
    kind = request.POST.get("format", "")
    unmasked = request.POST.get("unmasked") == "1"
    if kind not in (Job.Kind.EXPORT_CSV, Job.Kind.EXPORT_XLSX) or not may_export(request, unmasked=unmasked):
        raise PermissionDenied
    reason, problem = reason_for(request, unmasked=unmasked)
    job = None
    if problem:
        model_admin.message_user(request, problem, messages.ERROR)
    else:
        selection = Selection.from_json(signed["selection"])
        job = begin(request, model_admin, kind, selection, reason=reason, unmasked=unmasked)
    return HttpResponseRedirect(back_url if job is None else job_url(model_admin, job))


@sensitive_variables()
def reason_for(request: HttpRequest, *, unmasked: bool) -> tuple[Reason | None, str]:
    """The reason that was given for names in clear, and what is wrong with it."""
    if not unmasked:
        return None, ""
    try:
        return checked_reason(request.POST.get("reason", ""), request.POST.get("reason_text", "")), ""
    except InvalidInput as error:
        return None, labels.reason_problem(error)


def job_url(model_admin: admin.ModelAdmin, job: Job, view: str = "change") -> str:
    """The address of a page of *job*."""
    return reverse(f"admin:faceprint_job_{view}", args=[job.pk], current_app=model_admin.admin_site.name)


def described(selection: Selection) -> list[tuple[str, str]]:
    """The filters of *selection* as text."""
    bar = FilterBar(selection, lambda _changes: "")
    span = [(gettext("time range"), span.text) for span in bar.spans if span.is_current]
    return [*span, *((chip.label, chip.text) for chip in bar.chips)]


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    """One's own jobs, and all of them for who reads the access log. A file is its owner's alone."""

    list_display = ("created_at", "kind", "state_column", "progress_column", "actor_name", "expires_at")
    list_display_links = ("created_at", "kind")
    list_filter = ("kind", "state")
    sortable_by = ("created_at",)

    class Media:
        css = {"all": ["faceprint/admin/console.css"]}
        js = ["faceprint/admin/job.js"]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may see records may start jobs, and see what has become of them."""
        return request.user.has_perm(VIEW_RECORDS) or super().has_view_permission(request, obj)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """As for viewing."""
        return self.has_view_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        found = super().get_queryset(request).defer("reason")
        if request.user.has_perm(VIEW_ACCESSLOG):
            return found
        return found.filter(actor_id=str(request.user.pk or ""))

    def get_urls(self) -> list[Any]:
        wrap = self.admin_site.admin_view
        return [
            path("<int:pk>/status/", wrap(self.status_view), name="faceprint_job_status"),
            path(
                "<int:pk>/download/", wrap(self.download_view, cacheable=True), name="faceprint_job_download"
            ),
            path("<int:pk>/cancel/", wrap(self.cancel_view), name="faceprint_job_cancel"),
            *super().get_urls(),
        ]

    # --- pages ----------------------------------------------------------------------------------

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """How far a job has come, and its file."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        job = self._job(request, object_id)
        context = {
            "title": job.get_kind_display(),
            "job": job,
            "state": badge(_state(job)),
            "described": described(Selection.from_json(job.selection)),
            "reason_name": labels.reason_name(job.reason_code) if job.reason_code else "",
            "may_download": self._may_download(request, job),
            "may_cancel": job.is_unfinished and self._is_own(request, job),
            "download_url": job_url(self, job, "download"),
            "cancel_url": job_url(self, job, "cancel"),
            "status_url": job_url(self, job, "status"),
            "progress": _progress(job),
        }
        return page(request, self, "job/change_form.html", context)

    def status_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """How far a job has come, for the script of its page."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        job = self._job(request, str(pk))
        told = {
            "state": job.state,
            "unfinished": job.is_unfinished,
            "done": job.done + job.skipped,
            "total": job.total,
            "text": _progress(job),
        }
        return fresh(JsonResponse(told))

    def download_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """The file, for who had it made and still may. Written to the access log first."""
        if request.method != "GET":
            return HttpResponseNotAllowed(["GET"])
        job = self._job(request, str(pk))
        if not self._is_own(request, job) or not self._may_have(request, job):
            raise PermissionDenied
        try:
            content_type, extension, chunks = jobs.open_file(job)
        except InvalidInput:
            chunks = None
        if chunks is None:
            self.message_user(request, _("There is no file, or no more."), messages.WARNING)
            return HttpResponseRedirect(job_url(self, job))
        record_access(actor_of(request, CHANNEL), AccessLog.Action.DOWNLOAD_EXPORT)
        name = f"faceprint-{localtime(job.created_at):%Y%m%d-%H%M%S}.{extension}"
        return attachment(request, chunks, name=name, content_type=content_type)

    def cancel_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Stops a job of one's own."""
        job = self._job(request, str(pk))
        if not self._is_own(request, job):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if jobs.cancel(job):
            self.message_user(request, _("The job was stopped."), messages.SUCCESS)
        else:
            self.message_user(request, _("Nothing was stopped: the job has ended."), messages.WARNING)
        return HttpResponseRedirect(job_url(self, job))

    def _job(self, request: HttpRequest, key: str) -> Job:
        """The job, if the user may see it; 404 for another one's, as for none."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        job = self.get_object(request, key)
        if not isinstance(job, Job):
            raise Http404
        return job

    @staticmethod
    def _is_own(request: HttpRequest, job: Job) -> bool:
        return job.actor_id == str(request.user.pk or "")

    @staticmethod
    def _may_have(request: HttpRequest, job: Job) -> bool:
        return may_export(request, unmasked=job.unmasked, bundle=job.kind == Job.Kind.BUNDLE)

    def _may_download(self, request: HttpRequest, job: Job) -> bool:
        return job.has_file and self._is_own(request, job) and self._may_have(request, job)

    # --- columns --------------------------------------------------------------------------------

    @admin.display(description=_("state"))
    def state_column(self, job: Job) -> SafeString:
        return badge(_state(job))

    @admin.display(description=_("progress"))
    def progress_column(self, job: Job) -> SafeString:
        return format_html('<span class="fp-nowrap">{}</span>', _progress(job))


def _state(job: Job) -> Badge:
    return Badge(job.get_state_display(), _TONES[Job.State(job.state)])


def _progress(job: Job) -> str:
    """So many of so many, and how many were left alone."""
    text = gettext("%(done)s of %(total)s") % {"done": f"{job.done:,}", "total": f"{job.total or 0:,}"}
    if job.skipped:
        left = ngettext("%(count)s left alone", "%(count)s left alone", job.skipped)
        text = f"{text} · {left % {'count': f'{job.skipped:,}'}}"
    return text
