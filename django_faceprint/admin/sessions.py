"""记录查询: the list of verifications and the page of one."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Prefetch, QuerySet
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
from django.utils.decorators import method_decorator
from django.utils.translation import gettext, ngettext, ngettext_lazy
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from django_faceprint.actors import actor_of
from django_faceprint.audit.access import REVEALED_FOR, Reason, earlier_reason, record_access
from django_faceprint.engine import refresh
from django_faceprint.evidence.erasure import sessions_of_person
from django_faceprint.evidence.serving import log_media_view, media_response
from django_faceprint.models import AccessLog, Job, MediaAsset, VerificationSession
from django_faceprint.models.session import NOT_LISTED
from django_faceprint.records import lookup
from django_faceprint.records.filters import MAX_ROWS, Selection
from django_faceprint.records.lookup import MAX_TEXTS
from django_faceprint.tasks import notify_worker

from . import columns, erasing, jobs, labels, record
from .changelist import ListRequest, RecordChangeList
from .pages import fresh, page
from .readonly import ReadOnlyAdmin

CHANNEL = "admin"
#: Characters of a number, and of a whole list of texts to look for.
MAX_TEXT_LENGTH = 100
MAX_LOOKUP_LENGTH = 20_000
REVEAL, DOWNLOAD, REFRESH = (
    "faceprint.reveal_identity",
    "faceprint.download_media",
    "faceprint.refresh_session",
)
#: Where the browser session keeps which entry of the log holds the reason for a record, and for how many.
REASONS = "faceprint_reasons"
MAX_REASONS = 50
#: What the form sends for "the reason of before".
REMEMBERED = "same"
VIEW_MEDIA = "faceprint.view_media"
#: Django's own parameter for the list that one comes from.
IN_LIST = "_changelist_filters"


@admin.register(VerificationSession)
class VerificationSessionAdmin(ReadOnlyAdmin):
    """Records are read-only; what can be done is to ask Baidu again. Looks are logged."""

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
    # Sorted and filtered by RecordChangeList, found by lookup_view(): nothing is searched by column.
    sortable_by = ()
    search_fields = ()
    actions = ("query_now", "archive_again", "export", "erase")

    class Media:
        css = {"all": ["faceprint/admin/console.css"]}
        js = ["faceprint/admin/list.js"]

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

    @sensitive_variables()
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        if request.method == "GET" and "" in request.GET.values():
            # From the form of the filters: the address that is worth sharing has no empty fields.
            said = {name: text for name, text in request.GET.items() if text}
            return HttpResponseRedirect(f"{request.path}?{urlencode(said)}")
        context = {
            "title": self.opts.verbose_name_plural,
            "lookup_url": self._url("lookup"),
            "most_texts": MAX_TEXTS,
            "has_any_record": VerificationSession.objects.exists,
            "erase_person_url": self._url("erase_person") if self.has_erase_permission(request) else "",
            **(extra_context or {}),
        }
        response = super().changelist_view(request, context)
        listed = (getattr(response, "context_data", None) or {}).get("cl")
        if listed is not None and listed.problems:
            response.status_code = 400
        return response

    def get_list_display(self, request: HttpRequest) -> Any:
        """Blurred faces are faces: only for who may see those."""
        shown = super().get_list_display(request)
        return (columns.face_column, *shown) if request.user.has_perm(VIEW_MEDIA) else shown

    # --- one record -----------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        name = "faceprint_verificationsession"
        wrap = self.admin_site.admin_view
        return [
            path("lookup/", wrap(self.lookup_view), name=f"{name}_lookup"),
            path("media/<uuid:asset_id>/", wrap(self.media_view, cacheable=True), name=f"{name}_media"),
            path("<int:pk>/reveal/", wrap(self.reveal_view), name=f"{name}_reveal"),
            path("<int:pk>/answer/<int:answer_pk>/", wrap(self.answer_view), name=f"{name}_answer"),
            path("export/", wrap(self.export_view), name=f"{name}_export"),
            path("<int:pk>/bundle/", wrap(self.bundle_view), name=f"{name}_bundle"),
            path("erase-person/", wrap(self.erase_person_view), name=f"{name}_erase_person"),
            path("erase/", wrap(self.erase_view), name=f"{name}_erase"),
            path("<int:pk>/erase/", wrap(self.erase_record_view), name=f"{name}_erase_record"),
            path("<int:pk>/query-now/", wrap(self.query_now_view), name=f"{name}_query_now"),
            path("<int:pk>/archive-again/", wrap(self.archive_again_view), name=f"{name}_archive_again"),
            *super().get_urls(),
        ]

    @sensitive_variables()
    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The page of one record; opening it is logged."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        session = self.get_object(request, object_id)
        if not self.has_view_permission(request, session):
            raise PermissionDenied
        if session is None:
            self.message_user(request, _("There is no such record."), messages.WARNING)
            return HttpResponseRedirect(self._url("changelist"))
        if request.method == "GET":
            record_access(
                actor_of(request, CHANNEL), AccessLog.Action.VIEW_RECORD, session_id=session.public_id
            )
        return self._page(request, session, extra_context or {})

    def _page(
        self,
        request: HttpRequest,
        session: VerificationSession,
        extra: dict[str, Any],
        *,
        unmasked: bool = False,
    ) -> HttpResponse:
        listed, kept = self._in_list(request)
        beside = record.neighbours_in_list(session, self._visible(request), listed)
        context = {
            "title": _("Verification record"),
            "subtitle": None,
            "original": session,
            "record": self._record(request, session, unmasked=unmasked),
            "list_url": self._url("changelist") + (f"?{listed}" if listed else ""),
            "previous_url": self._url("change", beside.previous) + kept if beside.previous else "",
            "next_url": self._url("change", beside.next) + kept if beside.next else "",
            "may_refresh": self.has_refresh_permission(request),
            "may_reveal": request.user.has_perm(REVEAL),
            "may_download": request.user.has_perm(DOWNLOAD),
            "may_erase": self.has_erase_permission(request) and session.erased_at is None,
            "erase_url": self._url("erase_record", session.pk),
            "may_bundle": jobs.may_export(request, unmasked=False, bundle=True),
            "may_bundle_clear": jobs.may_export(request, unmasked=True, bundle=True),
            "bundle_url": self._url("bundle", session.pk),
            "reveal_reasons": labels.reveal_reasons(),
            "remembered_reason": self._remembered_reason(request, session),
            "revealed_for": int(REVEALED_FOR.total_seconds()),
            "reveal_url": self._url("reveal", session.pk),
            "record_url": self._url("change", session.pk) + kept,
            "query_now_url": self._url("query_now", session.pk) + kept,
            "archive_again_url": self._url("archive_again", session.pk) + kept,
            **extra,
        }
        return page(request, self, "verificationsession/record.html", context)

    @staticmethod
    def _in_list(request: HttpRequest) -> tuple[str, str]:
        """The parameters of the list that the reader comes from, and how addresses of records keep them."""
        listed = request.GET.get(IN_LIST, "")
        return listed, f"?{urlencode({IN_LIST: listed})}" if listed else ""

    def _visible(self, request: HttpRequest) -> QuerySet:
        """The records that the user may see at all, whole: a host may narrow them in ``get_queryset``."""
        return self.get_queryset(request).defer(None).prefetch_related(None)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The record with all of its columns; the list leaves some out."""
        try:
            pk = self.opts.pk.to_python(object_id)
            return self._visible(request).select_related("plan", "created_by").get(pk=pk)
        except (VerificationSession.DoesNotExist, ValidationError):
            return None

    def _record(
        self, request: HttpRequest, session: VerificationSession, *, unmasked: bool = False
    ) -> record.Record:
        def url(asset: MediaAsset) -> str:
            return record.media_url(asset, site_name=self.admin_site.name)

        return record.Record(
            session,
            media_url=url if request.user.has_perm(VIEW_MEDIA) else None,
            with_looks=request.user.has_perm("faceprint.view_accesslog"),
            visible=self._visible(request),
            unmasked=unmasked,
            site_name=self.admin_site.name,
        )

    # --- revealing ------------------------------------------------------------------------------

    @method_decorator(sensitive_post_parameters("reason_text"))
    @sensitive_variables()
    def reveal_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Name, number and what was read from the card, in clear, for a minute and for a reason.

        Posted; the look is logged first. Scripts ask for JSON and hide the texts by themselves, without them
        the page goes back to the masked one after the same time. A reason is remembered for the record until
        the user logs out: a reference to its entry in the log, not the text.
        """
        if not self.has_view_permission(request) or not request.user.has_perm(REVEAL):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        session = self.get_object(request, str(pk))
        if session is None:
            raise Http404
        given = request.POST.get("reason", ""), request.POST.get("reason_text", "")
        reason = self._remembered_reason(request, session) if given == (REMEMBERED, "") else None
        problem = ""
        if reason is None:
            reason, problem = jobs.reason_for(request, unmasked=True)
        if reason is None:
            if self._wants_json(request):
                return fresh(JsonResponse({"problem": problem}, status=400))
            self.message_user(request, problem, messages.ERROR)
            return HttpResponseRedirect(self._url("change", pk))
        entry = record_access(
            actor_of(request, CHANNEL), AccessLog.Action.REVEAL, session_id=session.public_id, reason=reason
        )
        self._remember_reason(request, session, entry)
        if self._wants_json(request):
            shown = self._record(request, session, unmasked=True)
            rows = [[row.submitted, row.read, row.confirmed] for row in shown.identity]
            told = {"rows": rows, "facts": shown.card_facts, "seconds": int(REVEALED_FOR.total_seconds())}
            return fresh(JsonResponse(told))
        return fresh(self._page(request, session, {}, unmasked=True))

    @staticmethod
    def _wants_json(request: HttpRequest) -> bool:
        return request.headers.get("Accept", "").startswith("application/json")

    @staticmethod
    def _remembered_reason(request: HttpRequest, session: VerificationSession) -> Reason | None:
        entry_id = request.session.get(REASONS, {}).get(str(session.pk))
        return earlier_reason(actor_of(request, CHANNEL), UUID(entry_id), session) if entry_id else None

    @staticmethod
    def _remember_reason(request: HttpRequest, session: VerificationSession, entry: AccessLog) -> None:
        kept = {
            key: value for key, value in request.session.get(REASONS, {}).items() if key != str(session.pk)
        }
        newest = list(kept.items())[1 - MAX_REASONS :]
        request.session[REASONS] = {**dict(newest), str(session.pk): str(entry.public_id)}

    def media_view(self, request: HttpRequest, asset_id: UUID) -> HttpResponseBase:
        """A picture or video, or a part of it, for who may see it. The look is logged first."""
        if not self.has_view_permission(request) or not request.user.has_perm(VIEW_MEDIA):
            raise PermissionDenied
        asset = MediaAsset.objects.stored().select_related("session").filter(public_id=asset_id).first()
        if asset is None or not self._visible(request).filter(pk=asset.session_id).exists():
            raise Http404
        as_download = "download" in request.GET
        if as_download and not request.user.has_perm(DOWNLOAD):
            raise PermissionDenied
        action = AccessLog.Action.DOWNLOAD_MEDIA if as_download else AccessLog.Action.VIEW_MEDIA
        log_media_view(request, asset, actor_of(request, CHANNEL), action)
        return media_response(request, asset, as_download=as_download)

    @sensitive_variables()
    def answer_view(self, request: HttpRequest, pk: int, answer_pk: int) -> HttpResponseBase:
        """One raw answer of Baidu, with everything personal hidden. The look is logged first."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        session = self.get_object(request, str(pk))
        if not self.has_view_permission(request, session):
            raise PermissionDenied
        answer = session.answers.select_related("session").filter(pk=answer_pk).first() if session else None
        if answer is None:
            raise Http404
        if request.method == "GET":
            record_access(
                actor_of(request, CHANNEL), AccessLog.Action.VIEW_RECORD, session_id=session.public_id
            )
        text = record.answer_text(answer)
        problem = (
            "" if text else gettext("Not shown: it is erased, or no JSON in which names could be masked.")
        )
        if self._wants_json(request):
            return fresh(JsonResponse({"text": text, "problem": problem}))
        context = {
            "title": _("Answer of Baidu"),
            "original": session,
            "interface": labels.endpoint_name(answer.endpoint),
            "answer": answer,
            "text": text,
            "problem": problem,
            "record_url": self._url("change", pk),
        }
        return fresh(page(request, self, "verificationsession/answer.html", context))

    # --- finding --------------------------------------------------------------------------------

    @method_decorator(sensitive_post_parameters("q"))
    @sensitive_variables()
    def lookup_view(self, request: HttpRequest) -> HttpResponseBase:
        """Opens the record that was asked for; several are listed, in the answer itself.

        Takes up to :data:`MAX_TEXTS` texts: references, session IDs, log_ids, verify_tokens, ID numbers and
        names. They are posted and come into no URL and no log; that a person was looked for is logged. What
        matched nothing is not repeated, nor in the report of an error.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        found = lookup.look_up(request.POST.get("q", "")[:MAX_LOOKUP_LENGTH])
        if found.may_be_personal:
            record_access(actor_of(request, CHANNEL), AccessLog.Action.LOOKUP)
        rows = list(self.get_queryset(request).filter(pk__in=found.keys).order_by("-created_at", "-pk"))
        for text, level in self._findings(found, hidden=len(found.keys) - len(rows)):
            self.message_user(request, text, level)
        if not rows:
            return HttpResponseRedirect(self._url("changelist"))
        if len(rows) == 1 and not found.missing:
            return HttpResponseRedirect(self._url("change", rows[0].pk))
        return self._hits_page(request, rows, cut=found.is_truncated)

    @staticmethod
    def _findings(found: lookup.Found, *, hidden: int) -> list[tuple[str, int]]:
        """What to say about a lookup besides the records. Never the texts that were looked for."""
        told: list[tuple[str, int]] = []
        if found.left_out:
            told.append(
                (
                    gettext("At most %(count)d texts are looked for at a time.") % {"count": MAX_TEXTS},
                    messages.ERROR,
                )
            )
        if hidden:
            text = ngettext(
                "%(count)d record matches that is outside your permission.",
                "%(count)d records match that are outside your permission.",
                hidden,
            )
            told.append((text % {"count": hidden}, messages.WARNING))
        if found.missing and found.asked == 1:
            told.append((gettext("No record matches. The text must be exact."), messages.WARNING))
        elif found.missing:
            text = ngettext(
                "No record matches line %(lines)s. Texts must be exact.",
                "No record matches lines %(lines)s. Texts must be exact.",
                len(found.missing),
            )
            told.append((text % {"lines": ", ".join(map(str, found.missing))}, messages.WARNING))
        return told

    def _hits_page(
        self, request: HttpRequest, sessions: list[VerificationSession], *, cut: bool
    ) -> HttpResponse:
        """Several records to choose from, in the answer itself: what was looked for comes into no URL."""
        rows = [
            {
                "session": session,
                "url": self._url("change", session.pk),
                "status": record.status_badge(session),
                "name": record.masked(session, "masked_name"),
                "number": record.masked(session, "masked_number"),
            }
            for session in sessions
        ]
        context = {
            "title": ngettext("%(count)d record found", "%(count)d records found", len(rows))
            % {"count": len(rows)},
            "rows": rows,
            "more": cut,
        }
        return fresh(page(request, self, "verificationsession/hits.html", context))

    # --- asking again ---------------------------------------------------------------------------

    def query_now_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """立即查询: a worker asks Baidu as soon as it is free."""
        return self._ask(request, pk, Job.Kind.QUERY_NOW)

    def archive_again_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """重新归档: a worker fetches again whatever is not in the archive."""
        return self._ask(request, pk, Job.Kind.ARCHIVE_AGAIN)

    def has_refresh_permission(self, request: HttpRequest) -> bool:
        """Whether the user may have Baidu asked again."""
        return self.has_view_permission(request) and request.user.has_perm(REFRESH)

    def _ask(self, request: HttpRequest, pk: int, kind: Job.Kind) -> HttpResponseBase:
        if not self.has_refresh_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        session = self._visible(request).filter(pk=pk).first()
        if session is None:
            raise Http404
        problem = refresh.request_refresh(session, kind, actor=actor_of(request, CHANNEL))
        if problem:
            self.message_user(request, _LEFT_ALONE[problem], messages.WARNING)
        else:
            notify_worker(session)
            self.message_user(request, _ASKED if kind == Job.Kind.QUERY_NOW else _FETCHED, messages.SUCCESS)
        return HttpResponseRedirect(self._url("change", session.pk) + self._in_list(request)[1])

    # --- many records ---------------------------------------------------------------------------

    @admin.action(description=_("Query now"), permissions=["refresh"])
    def query_now(self, request: HttpRequest, queryset: QuerySet) -> HttpResponseBase | None:
        """The same for selected rows, or for all of the filter."""
        return self._ask_many(request, queryset, Job.Kind.QUERY_NOW)

    @admin.action(description=_("Archive again"), permissions=["refresh"])
    def archive_again(self, request: HttpRequest, queryset: QuerySet) -> HttpResponseBase | None:
        """The same for selected rows, or for all of the filter."""
        return self._ask_many(request, queryset, Job.Kind.ARCHIVE_AGAIN)

    def _ask_many(self, request: HttpRequest, queryset: QuerySet, kind: Job.Kind) -> HttpResponseBase | None:
        selection = self._chosen(request, queryset)
        job = jobs.begin(request, self, kind, selection) if selection is not None else None
        if job is None:
            return None
        if job.is_unfinished:
            return HttpResponseRedirect(jobs.job_url(self, job))
        if job.done:
            self.message_user(request, _ASKED_MANY[kind] % {"count": job.done}, messages.SUCCESS)
        if job.skipped:
            self.message_user(request, _LEFT_MANY[kind] % {"count": job.skipped}, messages.WARNING)
        return None

    def has_export_permission(self, request: HttpRequest) -> bool:
        """Whether the user may export, masked or in clear."""
        return any(jobs.may_export(request, unmasked=unmasked) for unmasked in (False, True))

    @admin.action(description=_("Export …"), permissions=["export"])
    def export(self, request: HttpRequest, queryset: QuerySet) -> HttpResponseBase | None:
        """Asks for the format and whether names are wanted in clear."""
        selection = self._chosen(request, queryset)
        if selection is None:
            return None
        return jobs.ask_what_to_export(
            request,
            self,
            selection,
            confirm_url=self._url("export"),
            back_url=request.get_full_path(),
        )

    @sensitive_variables()
    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """Starts the export that was asked about."""
        if not self.has_export_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return jobs.export(request, self, back_url=self._url("changelist"))

    @sensitive_variables()
    def bundle_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """证据包: everything about one record in a file, to be checked without us."""
        unmasked = request.POST.get("unmasked") == "1"
        if not jobs.may_export(request, unmasked=unmasked, bundle=True):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self._visible(request).filter(pk=pk).exists():
            raise Http404
        reason, problem = jobs.reason_for(request, unmasked=unmasked)
        job = None
        if problem:
            self.message_user(request, problem, messages.ERROR)
        else:
            one = Selection({"rows": str(pk)})
            job = jobs.begin(request, self, Job.Kind.BUNDLE, one, reason=reason, unmasked=unmasked)
        return HttpResponseRedirect(self._url("change", pk) if job is None else jobs.job_url(self, job))

    def _chosen(self, request: HttpRequest, queryset: QuerySet) -> Selection | None:
        """The rows that an action was asked for: those chosen, or all that the list shows on all pages.

        A host may narrow what an operator sees, which no selection can say: then only so many rows as can be
        named one by one. None, and a message, when there are more.
        """
        asked = ListRequest.of(request.GET)
        if request.POST.get("select_across") == "1" and not self.get_queryset(request).query.where:
            return asked.whole
        keys = list(queryset.order_by().values_list("pk", flat=True)[: MAX_ROWS + 1])
        if keys and len(keys) <= MAX_ROWS and not asked.problems:
            return Selection({"rows": ",".join(map(str, keys))})
        text = _("Nothing was done: select at most %(count)d records at a time.") % {"count": MAX_ROWS}
        self.message_user(request, text, messages.ERROR)
        return None

    # --- erasing --------------------------------------------------------------------------------

    def has_erase_permission(self, request: HttpRequest) -> bool:
        """Whether the user may erase."""
        return self.has_view_permission(request) and request.user.has_perm(erasing.ERASE)

    @admin.action(description=_("Erase …"), permissions=["erase"])
    def erase(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        """A preview of what erasing the selected rows would take away."""
        selection = self._chosen(request, queryset)
        if selection is None:
            return None
        keys = erasing.chosen(selection.queryset())
        if keys is None:
            # More than fit into one transaction: a job does it, step by step.
            return erasing.preview_page(
                request,
                self,
                selection.frozen(),
                confirm_url=self._url("erase"),
                back_url=self._url("changelist"),
            )
        return self._preview(request, keys)

    @method_decorator(sensitive_post_parameters("number"))
    @sensitive_variables()
    def erase_person_view(self, request: HttpRequest) -> HttpResponseBase:
        """Asks for an ID number, and shows what there is of that person."""
        if not self.has_erase_permission(request):
            raise PermissionDenied
        problem = ""
        if request.method == "POST":
            number = request.POST.get("number", "").strip()[:MAX_TEXT_LENGTH]
            record_access(actor_of(request, CHANNEL), AccessLog.Action.LOOKUP)
            keys = erasing.chosen(sessions_of_person(number))
            if keys is None or keys:
                return self._preview(request, keys) or HttpResponseRedirect(self._url("changelist"))
            problem = gettext("There is no record of this number that is not erased.")
        context = {
            "title": _("Erase a person"),
            "find_url": self._url("erase_person"),
            "problem": problem,
        }
        return fresh(page(request, self, "verificationsession/erase.html", context))

    def erase_record_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """The preview for one record; with ``withdrawal`` the person has taken the consent back."""
        if not self.has_erase_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self._visible(request).filter(pk=pk).exists():
            raise Http404
        keys = erasing.chosen(VerificationSession.objects.filter(pk=pk))
        withdrawal = "withdrawal" in request.POST
        page = self._preview(request, keys, back_url=self._url("change", pk), withdrawal=withdrawal)
        return page or HttpResponseRedirect(self._url("change", pk))

    def erase_view(self, request: HttpRequest) -> HttpResponseBase:
        """Erases what a preview has shown."""
        if not self.has_erase_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return erasing.confirm(
            request, self, confirm_url=self._url("erase"), back_url=self._url("changelist")
        )

    def _preview(
        self, request: HttpRequest, keys: list[int] | None, *, back_url: str = "", withdrawal: bool = False
    ) -> HttpResponse | None:
        if not keys:
            text = (
                _("Nothing was done: all of this is erased already.")
                if keys is not None
                else _("Nothing was done: select at most %(count)d records at a time.")
                % {"count": erasing.MAX_RECORDS}
            )
            self.message_user(request, text, messages.WARNING)
            return None
        return erasing.preview_page(
            request,
            self,
            keys,
            confirm_url=self._url("erase"),
            back_url=back_url or self._url("changelist"),
            withdrawal=withdrawal,
        )

    def _url(self, name: str, *arguments: Any) -> str:
        return reverse(
            f"admin:faceprint_verificationsession_{name}", args=arguments, current_app=self.admin_site.name
        )


_ASKED = _("Baidu is asked as soon as a worker is free. Reload this page in a few seconds.")
_FETCHED = _(
    "What is not in the archive is fetched as soon as a worker is free. Reload this page in a few seconds."
)
_LEFT_ALONE = {
    refresh.FINISHED: _(
        "Nothing was asked: this record is finished and Baidu has nothing more to tell. "
        "To fetch files again, use “Archive again”."
    ),
    refresh.UNDECIDED: _("Nothing was fetched: there are files only after a verification passed or failed."),
    refresh.NO_TOKEN: _("Nothing was fetched: the token was erased, and without it Baidu gives nothing."),
    refresh.BUSY: _("Nothing was changed: a worker is on this record now. Try again in some minutes."),
}
_ASKED_MANY = {
    Job.Kind.QUERY_NOW: ngettext_lazy(
        "%(count)d record is asked about as soon as a worker is free.",
        "%(count)d records are asked about as soon as a worker is free.",
        "count",
    ),
    Job.Kind.ARCHIVE_AGAIN: ngettext_lazy(
        "The files of %(count)d record are fetched again as soon as a worker is free.",
        "The files of %(count)d records are fetched again as soon as a worker is free.",
        "count",
    ),
}
_LEFT_MANY = {
    Job.Kind.QUERY_NOW: ngettext_lazy(
        "%(count)d record is finished: there is nothing left to ask.",
        "%(count)d records are finished: there is nothing left to ask.",
        "count",
    ),
    Job.Kind.ARCHIVE_AGAIN: ngettext_lazy(
        "%(count)d record was left alone: not decided, erased, or being worked on.",
        "%(count)d records were left alone: not decided, erased, or being worked on.",
        "count",
    ),
}
