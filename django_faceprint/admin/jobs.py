"""Jobs: started by actions, their progress, and the files they make."""

from __future__ import annotations

from datetime import timedelta
from time import monotonic
from typing import Any

from django.contrib import admin, messages
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
from django.urls import path
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_GET, require_safe

from django_faceprint.actors import actor_of
from django_faceprint.audit.access import Reason, record_access
from django_faceprint.evidence.serving import attachment
from django_faceprint.exceptions import InvalidInput
from django_faceprint.jobs import jobs
from django_faceprint.models import AccessLog, Job
from django_faceprint.records.filters import Selection
from django_faceprint.tasks import notify_job_worker
from django_faceprint.upstream import clients

from . import labels
from .filters import FilterBar
from .pages import CHANNEL, admin_url, page, uncached
from .presentation import Badge
from .readonly import ReadOnlyAdmin

EXPORT_MASKED, EXPORT_SENSITIVE = "faceprint.export_masked", "faceprint.export_sensitive"
VIEW_RECORDS, VIEW_ACCESSLOG = "faceprint.view_verificationsession", "faceprint.view_accesslog"
#: A bundle contains pictures and videos to keep.
BUNDLE_MEDIA = ("faceprint.view_media", "faceprint.download_media")
#: The time that a request works on a job itself, before a worker takes over.
AT_ONCE = timedelta(seconds=2)
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
    "too_large": _("Nothing was done: too many records. Choose a narrower filter."),
}


def may_export(request: HttpRequest, *, unmasked: bool, bundle: bool = False) -> bool:
    """Whether the user may make and download an export or a *bundle*, masked or *unmasked*."""
    needed = [VIEW_RECORDS, EXPORT_SENSITIVE if unmasked else EXPORT_MASKED]
    return request.user.has_perms([*needed, *(BUNDLE_MEDIA if bundle else ())])  # type: ignore[union-attr]


@sensitive_variables()
def start_job(
    request: HttpRequest,
    model_admin: admin.ModelAdmin,
    kind: str,
    selection: Selection,
    *,
    reason: Reason | None = None,
    unmasked: bool = False,
) -> Job | None:
    """Start a job and work on it for :data:`AT_ONCE`. None, and a message to the user, when it is refused."""
    try:
        job = jobs.create(
            kind,
            selection,
            actor=actor_of(request, CHANNEL),
            reason=reason,
            unmasked=unmasked,
            with_log=request.user.has_perm(VIEW_ACCESSLOG),
        )
    except InvalidInput as error:
        model_admin.message_user(request, str(_PROBLEMS[error.code]), messages.ERROR)
        return None
    # Inside the transaction of a request, a worker does all of the job.
    if not clients.is_inside_transaction():
        jobs.work_on(job, until=monotonic() + AT_ONCE.total_seconds(), monotonic=monotonic)
    if job.is_unfinished:
        notify_job_worker()
    return job


def job_url(model_admin: admin.ModelAdmin, job: Job, view: str = "change") -> str:
    """The address of a page of *job*."""
    return admin_url(model_admin, view, job.pk, model="job")


def described(selection: Selection) -> list[tuple[str, str]]:
    """The filters of *selection* as labels and texts."""
    bar = FilterBar(selection, lambda _changes: "")
    span = [(gettext("time range"), span.text) for span in bar.spans if span.is_current]
    return [*span, *((chip.label, chip.text) for chip in bar.chips)]


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    """A user's own jobs; all jobs for users with ``view_accesslog``. Only its owner downloads a file."""

    list_display = ("created_at", "kind", "state_column", "progress_column", "actor_name", "expires_at")
    list_display_links = ("created_at", "kind")
    list_filter = ("kind", "state")
    sortable_by = ("created_at",)

    class Media:
        css = {"all": ["faceprint/admin/console.css"]}
        js = ["faceprint/admin/job.js"]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Users who may view records may start jobs, and view their own."""
        return request.user.has_perm(VIEW_RECORDS) or super().has_view_permission(request, obj)

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

    @method_decorator(require_safe)
    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        """The progress of a job, and its file."""
        job = self._job(request, object_id)
        context = {
            "title": job.get_kind_display(),
            "job": job,
            "state": _state(job),
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

    @method_decorator(require_safe)
    def status_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """The progress of a job as JSON, for the script of its page."""
        job = self._job(request, str(pk))
        status = {
            "state": job.state,
            "unfinished": job.is_unfinished,
            "done": job.done + job.skipped,
            "total": job.total,
            "text": _progress(job),
        }
        return uncached(JsonResponse(status))

    @method_decorator(require_GET)
    def download_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """The file, for its owner who still has the permissions. Logged first."""
        job = self._job(request, str(pk))
        if not self._is_own(request, job) or not self._may_have(request, job):
            raise PermissionDenied
        try:
            content_type, extension, chunks = jobs.open_file(job)
        except InvalidInput:
            chunks = None
        if chunks is None:
            self.message_user(request, _("There is no file, or it was deleted."), messages.WARNING)
            return HttpResponseRedirect(job_url(self, job))
        record_access(actor_of(request, CHANNEL), AccessLog.Action.DOWNLOAD_EXPORT)
        name = f"faceprint-{localtime(job.created_at):%Y%m%d-%H%M%S}.{extension}"
        return attachment(request, chunks, name=name, content_type=content_type)

    def cancel_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Stop a job of one's own."""
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
        """The job, if the user may view it; 404 otherwise."""
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
    def state_column(self, job: Job) -> Badge:
        return _state(job)

    @admin.display(description=_("progress"))
    def progress_column(self, job: Job) -> SafeString:
        return format_html('<span class="fp-nowrap">{}</span>', _progress(job))


def _state(job: Job) -> Badge:
    return Badge(job.get_state_display(), _TONES[Job.State(job.state)])


def _progress(job: Job) -> str:
    """Progress as text: "30 of 100 · 2 skipped"."""
    text = gettext("%(done)s of %(total)s") % {"done": f"{job.done:,}", "total": f"{job.total or 0:,}"}
    if job.skipped:
        skipped = ngettext("%(count)s skipped", "%(count)s skipped", job.skipped)
        text = f"{text} · {skipped % {'count': f'{job.skipped:,}'}}"
    return text
