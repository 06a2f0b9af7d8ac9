"""The access log, and the log of calls to Baidu."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_faceprint.models import AccessLog, AccessReason, AccessSeal, UpstreamCall, VerificationSession
from django_faceprint.privacy.keys import SealBroken

from . import labels
from .labels import EMPTY
from .pages import admin_url
from .presentation import Badge
from .readonly import ReadOnlyAdmin


@admin.register(AccessLog)
class AccessLogAdmin(ReadOnlyAdmin):
    """Append-only. For users with ``view_accesslog``."""

    list_display = (
        *("at", "actor_name", "action", "reason", "session_id", "asset_id", "channel", "address"),
    )
    list_display_links = ("at",)
    list_filter = ("at", "action", "channel")
    fields = (
        *("at", "actor_name", "actor_id", "action", "reason", "reason_text", "record_link"),
        *("asset_id", "channel", "address", "is_chained"),
    )
    readonly_fields = fields
    search_help_text = _("Exact session ID, file ID or user name.")
    sortable_by = ("at",)

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """Turns the search box on; ``get_search_results`` searches."""
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

    @admin.display(description=_("reason"), empty_value=EMPTY)
    def reason(self, entry: AccessLog) -> str | None:
        return labels.reason_name(entry.reason_code) if entry.reason_code else None

    @admin.display(description=_("explanation"), empty_value=EMPTY)
    def reason_text(self, entry: AccessLog) -> str | None:
        """The text that was typed, or why it cannot be shown."""
        if not entry.reason_digest:
            return None
        kept = AccessReason.objects.filter(public_id=entry.public_id).first()
        if kept is None:
            return gettext("erased")
        try:
            return kept.text
        except SealBroken:
            return gettext("cannot be decrypted")

    @admin.display(description=_("session"), empty_value=EMPTY)
    def record_link(self, entry: AccessLog) -> SafeString | str | None:
        """A link to the record, if it still exists."""
        if entry.session_id is None:
            return None
        found = VerificationSession.objects.filter(public_id=entry.session_id)
        pk = found.values_list("pk", flat=True).first()
        if pk is None:
            return str(entry.session_id)
        return _record_link(self, pk, entry.session_id)

    @admin.display(description=_("chained"), boolean=True)
    def is_chained(self, entry: AccessLog) -> bool:
        return AccessSeal.objects.filter(log_id=entry.pk).exists()


@admin.register(UpstreamCall)
class UpstreamCallAdmin(ReadOnlyAdmin):
    """One row for each request to Baidu, kept for a short time."""

    list_display = (
        *("at", "endpoint_column", "outcome_column", "code", "log_id", "latency_column", "http_status"),
        *("session_column", "application", "environment"),
    )
    list_display_links = ("at",)
    list_filter = ("at", "endpoint", "environment")
    list_select_related = ("session",)
    fields = (
        *("at", "environment", "application", "endpoint_column", "outcome_column", "code"),
        *("explanation", "log_id", "http_status", "latency_column", "session_column"),
    )
    readonly_fields = fields
    sortable_by = ("at",)
    search_help_text = _("Exact log_id.")

    class Media:
        css = {"all": ["faceprint/admin/console.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        own = [field.name for field in UpstreamCall._meta.concrete_fields]
        return super().get_queryset(request).only(*own, "session__public_id")

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """Turns the search box on; ``get_search_results`` searches."""
        return ("=log_id",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        return (queryset.filter(log_id=search_term) if search_term else queryset), False

    @admin.display(description=_("interface"))
    def endpoint_column(self, call: UpstreamCall) -> str:
        return labels.endpoint_name(call.endpoint)

    @admin.display(description=_("outcome"))
    def outcome_column(self, call: UpstreamCall) -> Badge:
        tone = {UpstreamCall.OK: "good", "not_started": "quiet", "verification_failed": "quiet"}
        return Badge(labels.outcome_name(call.outcome), tone.get(call.outcome, "bad"))

    @admin.display(description=_("latency"))
    def latency_column(self, call: UpstreamCall) -> str:
        return labels.format_seconds(call.latency)

    @admin.display(description=_("explanation"), empty_value=EMPTY)
    def explanation(self, call: UpstreamCall) -> str | None:
        failed = call.outcome != UpstreamCall.OK
        return labels.describe_error(call.outcome, call.code) if failed else None

    @admin.display(description=_("session"), empty_value=EMPTY)
    def session_column(self, call: UpstreamCall) -> SafeString | None:
        session: Any = call.session
        if session is None:
            return None
        return _record_link(self, session.pk, session.public_id)


def _record_link(model_admin: admin.ModelAdmin, pk: int, public_id: UUID) -> SafeString:
    url = admin_url(model_admin, "change", pk, model="verificationsession")
    return format_html('<a class="fp-nowrap" href="{}">{}</a>', url, public_id)
