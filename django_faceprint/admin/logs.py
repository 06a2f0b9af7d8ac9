"""Who looked at what, and what was asked of Baidu."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_faceprint.models import AccessLog, UpstreamCall, VerificationSession

from . import words
from .readonly import ReadOnlyAdmin
from .record import Badge
from .sessions import EMPTY, badge


@admin.register(AccessLog)
class AccessLogAdmin(ReadOnlyAdmin):
    """Append-only. Seen with the permission ``view_accesslog``."""

    list_display = ("at", "actor_name", "action", "session_id", "asset_id", "channel", "address")
    list_display_links = ("at",)
    list_filter = ("action", "channel")
    search_help_text = _("Exact session ID, file ID or user name.")
    sortable_by = ("at",)

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """Shows the search box; what is searched is decided below."""
        return ("actor_name",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        if not search_term:
            return queryset, False
        found = Q(actor_name=search_term)
        identifier = VerificationSession.parse_public_id(search_term)
        if identifier is not None:
            found |= Q(session_id=identifier) | Q(asset_id=identifier)
        return queryset.filter(found), False


@admin.register(UpstreamCall)
class UpstreamCallAdmin(ReadOnlyAdmin):
    """One row for each request to Baidu; kept for a short time."""

    list_display = (
        "at",
        "endpoint_column",
        "outcome_column",
        "code",
        "log_id",
        "latency_column",
        "http_status",
        "session_column",
        "application",
        "environment",
    )
    list_display_links = ("at",)
    list_filter = ("endpoint", "environment")
    list_select_related = ("session",)
    fields = (
        "at",
        "environment",
        "application",
        "endpoint_column",
        "outcome_column",
        "code",
        "explanation",
        "log_id",
        "http_status",
        "latency_column",
        "session_column",
    )
    readonly_fields = fields
    sortable_by = ("at",)
    search_help_text = _("Exact log_id.")

    class Media:
        css = {"all": ["faceprint/admin/console.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return (
            super()
            .get_queryset(request)
            .only(*(field.name for field in UpstreamCall._meta.concrete_fields), "session__public_id")
        )

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """Shows the search box."""
        return ("=log_id",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        return (queryset.filter(log_id=search_term) if search_term else queryset), False

    @admin.display(description=_("interface"))
    def endpoint_column(self, call: UpstreamCall) -> str:
        return words.endpoint_name(call.endpoint)

    @admin.display(description=_("outcome"))
    def outcome_column(self, call: UpstreamCall) -> SafeString:
        tone = {UpstreamCall.OK: "good", "not_started": "quiet", "verification_failed": "quiet"}
        return badge(Badge(words.outcome_name(call.outcome), tone.get(call.outcome, "bad")))

    @admin.display(description=_("latency"))
    def latency_column(self, call: UpstreamCall) -> str:
        return words.seconds_in_words(call.latency)

    @admin.display(description=_("explanation"), empty_value=EMPTY)
    def explanation(self, call: UpstreamCall) -> str | None:
        failed = call.outcome != UpstreamCall.OK
        return words.error_in_words(call.outcome, call.code) if failed else None

    @admin.display(description=_("session"), empty_value=EMPTY)
    def session_column(self, call: UpstreamCall) -> SafeString | None:
        session: Any = call.session
        if session is None:
            return None
        url = reverse(
            "admin:faceprint_verificationsession_change",
            args=[session.pk],
            current_app=self.admin_site.name,
        )
        return format_html('<a class="fp-nowrap" href="{}">{}</a>', url, session.public_id)
