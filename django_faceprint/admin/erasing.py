"""Erasing: a preview, a reason, a typed confirmation, and the certificate."""

from __future__ import annotations

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
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from django_faceprint.actors import actor_of
from django_faceprint.audit.access import Reason, record_access
from django_faceprint.evidence import erasure
from django_faceprint.exceptions import InvalidInput
from django_faceprint.models import AccessLog, Erasure, Job, VerificationSession
from django_faceprint.models.session import VerificationSessionQuerySet
from django_faceprint.records.filters import Selection
from django_faceprint.verification import withdraw

from .jobs import job_url, start_job
from .list_request import selected_records, visible_records
from .pages import CHANNEL, admin_url, page, sign, signed_values, uncached
from .presentation import RecordSummary
from .readonly import ReadOnlyAdmin

ERASE = "faceprint.erase_person"
#: Most records that one confirmation erases at once. The erase action takes more: a job erases those.
MAX_RECORDS = 1_000
#: Most records that a preview lists.
LISTED = 50
#: Most characters of an ID number.
MAX_NUMBER_LENGTH = 100
_SALT = "faceprint.erase"


def may_erase(request: HttpRequest, model_admin: admin.ModelAdmin) -> bool:
    """Whether the user may erase."""
    return model_admin.has_view_permission(request) and request.user.has_perm(ERASE)


@admin.action(description=_("Erase …"), permissions=["erase"])
def erase(model_admin: Any, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
    """Preview the erasure of the selected records."""
    selection = selected_records(request, model_admin, queryset)
    if selection is None:
        return None
    keys = _keys(selection.queryset())
    if keys is None:
        # Too many for one transaction: a job erases them.
        return _preview_page(request, model_admin, selection.frozen())
    return _preview(request, model_admin, keys)


@sensitive_post_parameters("number")
@sensitive_variables()
def erase_person_view(request: HttpRequest, *, model_admin: admin.ModelAdmin) -> HttpResponseBase:
    """Ask for an ID number, and preview the erasure of that person."""
    if not may_erase(request, model_admin):
        raise PermissionDenied
    problem = ""
    if request.method == "POST":
        number = request.POST.get("number", "").strip()[:MAX_NUMBER_LENGTH]
        record_access(actor_of(request, CHANNEL), AccessLog.Action.LOOKUP)
        keys = _keys(erasure.sessions_of_person(number))
        if keys != []:
            preview = _preview(request, model_admin, keys)
            return preview or HttpResponseRedirect(admin_url(model_admin, "changelist"))
        problem = gettext("There is no record of this number that is not erased.")
    context = {
        "title": _("Erase a person"),
        "find_url": admin_url(model_admin, "erase_person"),
        "longest": MAX_NUMBER_LENGTH,
        "problem": problem,
    }
    return uncached(page(request, model_admin, "verificationsession/erase.html", context))


def erase_record_view(request: HttpRequest, pk: int, *, model_admin: admin.ModelAdmin) -> HttpResponseBase:
    """Preview the erasure of one record; with ``withdrawal`` because the person withdrew the consent."""
    if not may_erase(request, model_admin):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    if not visible_records(request, model_admin).filter(pk=pk).exists():
        raise Http404
    keys = _keys(VerificationSession.objects.filter(pk=pk))
    back_url = admin_url(model_admin, "change", pk)
    withdrawal = "withdrawal" in request.POST
    preview = _preview(request, model_admin, keys, back_url=back_url, withdrawal=withdrawal)
    return preview or HttpResponseRedirect(back_url)


def erase_view(request: HttpRequest, *, model_admin: admin.ModelAdmin) -> HttpResponseBase:
    """Erase the records of a preview, if their number was typed and a reason given."""
    if not may_erase(request, model_admin):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    signed = signed_values(request, salt=_SALT)
    target: Any = signed["target"] if signed else []
    if isinstance(target, dict):
        target = Selection.from_json(target)
    # A preview is used once: records that have been erased meanwhile are not erased again.
    if signed is None or _sessions(target).count() != signed["count"]:
        text = _("Nothing was erased: the preview is too old. Open it again.")
        model_admin.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(admin_url(model_admin, "changelist"))
    withdrawal = signed["withdrawal"]
    problem: Any = ""
    done: Erasure | Job | None = None
    if request.POST.get("count", "").strip() != str(signed["count"]):
        problem = _("Type the number of records to confirm.")
    else:
        try:
            done = _erase(request, model_admin, target, withdrawal=withdrawal)
        except InvalidInput:
            problem = _("Give a reason of at most %s characters.") % erasure.MAX_REASON_LENGTH
    if done is None:
        return _preview_page(request, model_admin, target, withdrawal=withdrawal, problem=problem)
    if isinstance(done, Job):
        return HttpResponseRedirect(job_url(model_admin, done))
    if done.verified_at:
        model_admin.message_user(request, _("Erased. Storage has confirmed it."), messages.SUCCESS)
    else:
        text = _("Erased. Storage still has files that nobody can read; faceprint.retain deletes them.")
        model_admin.message_user(request, text, messages.WARNING)
    return HttpResponseRedirect(admin_url(model_admin, "change", done.pk, model="erasure"))


def _keys(sessions: VerificationSessionQuerySet) -> list[int] | None:
    """Primary keys of those *sessions* that are not erased; None when there are more than MAX_RECORDS."""
    rows = sessions.filter(erased_at__isnull=True).order_by("pk")
    keys = list(rows.values_list("pk", flat=True)[: MAX_RECORDS + 1])
    return None if len(keys) > MAX_RECORDS else keys


def _sessions(target: list[int] | Selection) -> VerificationSessionQuerySet:
    """The records of *target* that are not erased."""
    rows = (
        target.queryset()
        if isinstance(target, Selection)
        else VerificationSession.objects.filter(pk__in=target)
    )
    return rows.filter(erased_at__isnull=True)


def _preview(
    request: HttpRequest,
    model_admin: admin.ModelAdmin,
    keys: list[int] | None,
    *,
    back_url: str = "",
    withdrawal: bool = False,
) -> HttpResponse | None:
    """The preview of *keys* as from :func:`_keys`; None, and a message, when there is nothing to erase or too
    much."""
    if keys:
        return _preview_page(request, model_admin, keys, back_url=back_url, withdrawal=withdrawal)
    text: Any = _("Nothing was done: these records are erased already.")
    if keys is None:
        text = _("Nothing was done: select at most %(count)d records at a time.") % {"count": MAX_RECORDS}
    model_admin.message_user(request, text, messages.WARNING)
    return None


def _preview_page(
    request: HttpRequest,
    model_admin: admin.ModelAdmin,
    target: list[int] | Selection,
    *,
    back_url: str = "",
    withdrawal: bool = False,
    problem: Any = "",
) -> HttpResponse:
    """What would be erased, and the form to confirm it. *target* are primary keys, or a frozen selection of
    more records than fit into one transaction; it is signed."""
    sessions = _sessions(target)
    preview = erasure.preview(sessions)
    listed = sessions.select_related("plan").order_by("-created_at", "-pk")[:LISTED]
    signed = {
        "target": target.to_json() if isinstance(target, Selection) else target,
        "count": preview.sessions,
        "withdrawal": withdrawal,
    }
    context = {
        "title": _("Withdraw consent and erase") if withdrawal else _("Erase"),
        "preview": preview,
        "rows": [RecordSummary.of(row, admin_url(model_admin, "change", row.pk)) for row in listed],
        "more": max(preview.sessions - LISTED, 0),
        "token": sign(request, signed, salt=_SALT),
        "longest": erasure.MAX_REASON_LENGTH,
        "confirm_url": admin_url(model_admin, "erase"),
        "back_url": back_url or admin_url(model_admin, "changelist"),
        "withdrawal": withdrawal,
        "problem": problem,
    }
    return uncached(page(request, model_admin, "verificationsession/erase.html", context))


def _erase(
    request: HttpRequest, model_admin: admin.ModelAdmin, target: list[int] | Selection, *, withdrawal: bool
) -> Erasure | Job | None:
    """Erase now, or in a job what does not fit into one transaction. Raises :class:`InvalidInput`."""
    reason = request.POST.get("reason", "")
    if isinstance(target, Selection):
        erasure.check_reason(reason)
        return start_job(request, model_admin, Job.Kind.ERASE, target, reason=Reason(text=reason.strip()))
    actor = actor_of(request, CHANNEL)
    sessions = VerificationSession.objects.filter(pk__in=target)
    if withdrawal:
        return withdraw(sessions.get(), reason=reason, actor=actor)
    return erasure.erase(sessions, reason=reason, actor=actor)


@admin.register(Erasure)
class ErasureAdmin(ReadOnlyAdmin):
    """Erasures, for users with ``erase_person`` or ``view_accesslog``."""

    list_display = ("at", "actor_name", "channel", "record_count", "files", "bytes", "is_verified")
    list_display_links = ("at",)
    fields = (
        *("public_id", "at", "actor_name", "channel", "reason", "record_list"),
        *("files", "bytes", "answers", "verified_at", "certificate_link"),
    )
    readonly_fields = fields
    sortable_by = ("at",)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        user = request.user
        return (
            user.has_perm(ERASE)
            or user.has_perm("faceprint.view_accesslog")
            or super().has_view_permission(request, obj)
        )

    def get_urls(self) -> list[Any]:
        wrap = self.admin_site.admin_view
        return [
            path("<int:pk>/certificate/", wrap(self.certificate_view), name="faceprint_erasure_certificate"),
            *super().get_urls(),
        ]

    def certificate_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """The certificate as a file."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        done = Erasure.objects.filter(pk=pk).first()
        if done is None:
            raise Http404
        response = JsonResponse(
            erasure.certificate(done), json_dumps_params={"indent": 2, "ensure_ascii": False}
        )
        response["Content-Disposition"] = f'attachment; filename="erasure-{done.public_id}.json"'
        return uncached(response)

    @admin.display(description=_("records"))
    def record_count(self, done: Erasure) -> int:
        return len(done.sessions)

    @admin.display(description=_("records"))
    def record_list(self, done: Erasure) -> str:
        return "\n".join(str(public_id) for public_id in done.sessions)

    @admin.display(description=_("confirmed by storage"), boolean=True)
    def is_verified(self, done: Erasure) -> bool:
        return done.verified_at is not None

    @admin.display(description=_("certificate"))
    def certificate_link(self, done: Erasure) -> SafeString:
        url = admin_url(self, "certificate", done.pk)
        return format_html('<a href="{}">{}</a>', url, _("Download (JSON)"))
