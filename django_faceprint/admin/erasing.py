"""Erasing from the console: a preview, a reason, a typed confirmation, and what can be shown afterwards."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.contrib import admin, messages
from django.core import signing
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
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_faceprint.actors import actor_of
from django_faceprint.audit.access import Reason
from django_faceprint.evidence import erasure
from django_faceprint.exceptions import InvalidInput
from django_faceprint.models import Erasure, Job, VerificationSession
from django_faceprint.models.session import VerificationSessionQuerySet
from django_faceprint.records.filters import Selection
from django_faceprint.verification import withdraw

from . import jobs, record
from .pages import fresh, page
from .readonly import ReadOnlyAdmin

ERASE = "faceprint.erase_person"
#: Records that one confirmation erases at most, and how long a preview stays good (seconds).
MAX_RECORDS = 1_000
PREVIEW_LIFE = 900
#: Records of a preview that are listed.
LISTED = 50
_SALT = "faceprint.erase"
CHANNEL = "admin"


def chosen(sessions: VerificationSessionQuerySet) -> list[int] | None:
    """The keys of *sessions* that are not erased yet; None when there are too many for one confirmation."""
    rows = sessions.filter(erased_at__isnull=True).order_by("pk")
    keys = list(rows.values_list("pk", flat=True)[: MAX_RECORDS + 1])
    return None if len(keys) > MAX_RECORDS else keys


def preview_page(
    request: HttpRequest,
    model_admin: admin.ModelAdmin,
    target: list[int] | Selection,
    *,
    confirm_url: str,
    back_url: str,
    withdrawal: bool = False,
    problem: Any = "",
) -> HttpResponse:
    """What would go, and the form that has it go; which records is signed, and no number is sent again.

    *target* are the keys of records, or a frozen selection of more than fit into one transaction.
    """
    sessions = _sessions(target)
    previewed = erasure.preview(sessions)
    rows = [
        {
            "session": session,
            "status": record.status_badge(session),
            "name": record.masked(session, "masked_name"),
            "number": record.masked(session, "masked_number"),
        }
        for session in sessions.select_related("plan").order_by("-created_at", "-pk")[:LISTED]
    ]
    context = {
        "title": _("Withdraw consent and erase") if withdrawal else _("Erase"),
        "preview": previewed,
        "rows": rows,
        "more": max(previewed.sessions - LISTED, 0),
        "token": signing.dumps(
            {
                "target": target.to_json() if isinstance(target, Selection) else target,
                "count": previewed.sessions,
                "withdrawal": withdrawal,
                "user": str(request.user.pk),
            },
            salt=_SALT,
            compress=True,
        ),
        "longest": erasure.MAX_REASON_LENGTH,
        "confirm_url": confirm_url,
        "back_url": back_url,
        "withdrawal": withdrawal,
        "problem": problem,
    }
    return fresh(page(request, model_admin, "verificationsession/erase.html", context))


def confirm(
    request: HttpRequest, model_admin: admin.ModelAdmin, *, confirm_url: str, back_url: str
) -> HttpResponseBase:
    """Erase what the preview showed, if its number was typed and a reason given."""
    signed: dict[str, Any] = {}
    with suppress(signing.BadSignature):
        signed = signing.loads(request.POST.get("token", ""), salt=_SALT, max_age=PREVIEW_LIFE)
    # A preview is for whoever asked for it, and once: what was erased meanwhile is not erased again.
    target: Any = signed.get("target")
    if isinstance(target, dict):
        target = Selection.from_json(target)
    if signed.get("user") != str(request.user.pk) or _sessions(target).count() != signed["count"]:
        model_admin.message_user(
            request, _("Nothing was erased: the preview is too old. Look again."), messages.WARNING
        )
        return HttpResponseRedirect(back_url)
    withdrawal = signed["withdrawal"]
    reason = request.POST.get("reason", "")
    problem: Any = ""
    if request.POST.get("count", "").strip() != str(signed["count"]):
        problem = _("Type the number of records to confirm.")
    done: Erasure | Job | None = None
    if not problem:
        try:
            done = _erase(request, model_admin, target, withdrawal=withdrawal, reason=reason)
        except InvalidInput:
            problem = _("Give a reason of at most %s characters.") % erasure.MAX_REASON_LENGTH
    if done is None:
        return preview_page(
            request,
            model_admin,
            target,
            confirm_url=confirm_url,
            back_url=back_url,
            withdrawal=withdrawal,
            problem=problem,
        )
    if isinstance(done, Job):
        return HttpResponseRedirect(jobs.job_url(model_admin, done))
    if done.verified_at:
        model_admin.message_user(request, _("Erased. Storage has confirmed it."), messages.SUCCESS)
    else:
        model_admin.message_user(
            request,
            _("Erased. Storage still has files that nobody can read; faceprint.retain deletes them."),
            messages.WARNING,
        )
    return HttpResponseRedirect(
        reverse("admin:faceprint_erasure_change", args=[done.pk], current_app=model_admin.admin_site.name)
    )


def _sessions(target: list[int] | Selection) -> VerificationSessionQuerySet:
    """What of *target* is not erased yet."""
    there = (
        target.queryset()
        if isinstance(target, Selection)
        else VerificationSession.objects.filter(pk__in=target)
    )
    return there.filter(erased_at__isnull=True)


def _erase(
    request: HttpRequest,
    model_admin: admin.ModelAdmin,
    target: list[int] | Selection,
    *,
    withdrawal: bool,
    reason: str,
) -> Erasure | Job | None:
    """Erase now, or, what is too much for one transaction, in a job. Raises :class:`InvalidInput`."""
    actor = actor_of(request, CHANNEL)
    if isinstance(target, Selection):
        erasure.check_reason(reason)
        return jobs.begin(request, model_admin, Job.Kind.ERASE, target, reason=Reason(text=reason.strip()))
    sessions = VerificationSession.objects.filter(pk__in=target)
    if withdrawal:
        return withdraw(sessions.get(), reason=reason, actor=actor)
    return erasure.erase(sessions, reason=reason, actor=actor)


@admin.register(Erasure)
class ErasureAdmin(ReadOnlyAdmin):
    """What was erased, when, by whom and why; for those who erase and those who read the access log."""

    list_display = ("at", "actor_name", "channel", "record_count", "files", "bytes", "is_verified")
    list_display_links = ("at",)
    fields = (
        *("public_id", "at", "actor_name", "channel", "reason", "record_list"),
        *("files", "bytes", "answers", "verified_at", "certificate_link"),
    )
    readonly_fields = fields
    sortable_by = ("at",)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Who erases, and who reads the access log."""
        user = request.user
        return (
            user.has_perm(ERASE)
            or user.has_perm("faceprint.view_accesslog")
            or super().has_view_permission(request, obj)
        )

    def has_module_permission(self, request: HttpRequest) -> bool:
        """As for viewing."""
        return self.has_view_permission(request)

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
        answer = JsonResponse(
            erasure.certificate(done), json_dumps_params={"indent": 2, "ensure_ascii": False}
        )
        answer["Content-Disposition"] = f'attachment; filename="erasure-{done.public_id}.json"'
        return fresh(answer)

    @admin.display(description=_("records"))
    def record_count(self, done: Erasure) -> int:
        return len(done.sessions)

    @admin.display(description=_("records"))
    def record_list(self, done: Erasure) -> str:
        return "\n".join(str(public_id) for public_id in done.sessions)

    @admin.display(description=_("verified"), boolean=True)
    def is_verified(self, done: Erasure) -> bool:
        return done.verified_at is not None

    @admin.display(description=_("certificate"))
    def certificate_link(self, done: Erasure) -> SafeString:
        url = reverse("admin:faceprint_erasure_certificate", args=[done.pk], current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', url, _("Download (JSON)"))
