"""记录查询: the list of records, and the addresses of everything below it."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_safe

from django_faceprint.actors import actor_of
from django_faceprint.audit.access import record_access
from django_faceprint.models import AccessLog, MediaAsset, VerificationSession
from django_faceprint.models.session import NOT_LISTED
from django_faceprint.records.lookup import MAX_TEXTS

from . import columns, erasing, evidence, exports, lookup, record_page, refresh
from .changelist import RecordChangeList
from .list_request import visible_records
from .pages import CHANNEL, admin_url
from .readonly import ReadOnlyAdmin

VIEW_MEDIA = "faceprint.view_media"


@admin.register(VerificationSession)
class VerificationSessionAdmin(ReadOnlyAdmin):
    """Records are read-only. Actions request new queries, export and erase; every view is logged."""

    list_display: tuple[Any, ...] = (
        columns.status_column,
        columns.archive_column,
        columns.created_column,
        columns.person_column,
        columns.reference_column,
        columns.score_column,
        columns.plan_column,
        columns.retention_column,
    )
    list_display_links = (columns.status_column, columns.reference_column)
    # RecordChangeList sorts and filters, lookup_view() finds: Django's own sorting and search are off.
    sortable_by = ()
    search_fields = ()
    actions = (refresh.query_now, refresh.archive_again, exports.export, erasing.erase)

    class Media:
        css = {"all": ["faceprint/admin/console.css"]}
        js = ["faceprint/admin/list.js"]

    def get_urls(self) -> list[Any]:
        def view(route: str, function: Any, name: str, *, cacheable: bool = False) -> URLPattern:
            wrapped = self.admin_site.admin_view(partial(function, model_admin=self), cacheable=cacheable)
            return path(route, wrapped, name=f"faceprint_verificationsession_{name}")

        return [
            view("lookup/", lookup.lookup_view, "lookup"),
            view("media/<uuid:asset_id>/", evidence.media_view, "media", cacheable=True),
            view("<int:pk>/answer/<int:answer_pk>/", evidence.answer_view, "answer"),
            view("<int:pk>/reveal/", record_page.reveal_view, "reveal"),
            view("<int:pk>/query-now/", refresh.query_now_view, "query_now"),
            view("<int:pk>/archive-again/", refresh.archive_again_view, "archive_again"),
            view("export/", exports.export_view, "export"),
            view("<int:pk>/bundle/", exports.bundle_view, "bundle"),
            view("erase-person/", erasing.erase_person_view, "erase_person"),
            view("erase/", erasing.erase_view, "erase"),
            view("<int:pk>/erase/", erasing.erase_record_view, "erase_record"),
            *super().get_urls(),
        ]

    # --- permissions of the actions ---------------------------------------------------------------

    def has_refresh_permission(self, request: HttpRequest) -> bool:
        return refresh.may_refresh(request, self)

    def has_export_permission(self, request: HttpRequest) -> bool:
        return exports.may_export_any(request)

    def has_erase_permission(self, request: HttpRequest) -> bool:
        return erasing.may_erase(request, self)

    # --- list -----------------------------------------------------------------------------------

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[RecordChangeList]:
        return RecordChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        names = ["session_id", "state", "deadline"]
        if request.user.has_perm(VIEW_MEDIA):
            names += ["public_id", "wrapped_key", "thumbnail"]
        files = MediaAsset.objects.only(*names)
        return (
            super()
            .get_queryset(request)
            .select_related("plan")
            .defer(*NOT_LISTED)
            .prefetch_related(Prefetch("assets", files, to_attr="listed_assets"))
        )

    def get_list_display(self, request: HttpRequest) -> Any:
        """With faces for users with ``view_media``: a blurred face is still a face."""
        shown = super().get_list_display(request)
        return (columns.face_column, *shown) if request.user.has_perm(VIEW_MEDIA) else shown

    @sensitive_variables()
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        if request.method == "GET" and "" in request.GET.values():
            # The form of the filters sends empty fields; an address to share has none.
            given = {name: text for name, text in request.GET.items() if text}
            return HttpResponseRedirect(f"{request.path}?{urlencode(given)}")
        may_erase = erasing.may_erase(request, self)
        context = {
            "title": self.opts.verbose_name_plural,
            "lookup_url": admin_url(self, "lookup"),
            "most_texts": MAX_TEXTS,
            "has_any_record": VerificationSession.objects.exists,
            "erase_person_url": admin_url(self, "erase_person") if may_erase else "",
            **(extra_context or {}),
        }
        response = super().changelist_view(request, context)
        changelist = (getattr(response, "context_data", None) or {}).get("cl")
        if changelist is not None and changelist.problems:
            response.status_code = 400
        return response

    # --- one record -----------------------------------------------------------------------------

    @method_decorator(require_safe)
    @sensitive_variables()
    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        """The page of one record. Logged, except for HEAD requests."""
        session = self.get_object(request, object_id)
        if not self.has_view_permission(request, session):
            raise PermissionDenied
        if session is None:
            self.message_user(request, _("There is no such record."), messages.WARNING)
            return HttpResponseRedirect(admin_url(self, "changelist"))
        if request.method == "GET":
            record_access(
                actor_of(request, CHANNEL), AccessLog.Action.VIEW_RECORD, session_id=session.public_id
            )
        return record_page.render_record(request, self, session)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The record with all of its columns; the list leaves some out."""
        try:
            pk = self.opts.pk.to_python(object_id)
            return visible_records(request, self).select_related("plan", "created_by").get(pk=pk)
        except (VerificationSession.DoesNotExist, ValidationError):
            return None
