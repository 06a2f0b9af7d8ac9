"""数据报警: the rules, their recipients, and the alerts."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseNotAllowed, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from django_faceprint.alerts.mail import AlertMailFailed, send_test_mail
from django_faceprint.clock import now
from django_faceprint.models import Alert, AlertRule

from .pages import admin_url
from .presentation import Badge
from .readonly import ManagedAdmin, ReadOnlyAdmin

MANAGE = "faceprint.manage_alerts"

_SEVERITY_TONES = {
    AlertRule.Severity.NOTICE: "busy",
    AlertRule.Severity.WARNING: "warn",
    AlertRule.Severity.CRITICAL: "bad",
}
_CONSOLE_CSS = {"all": ["faceprint/admin/console.css"]}


@admin.register(AlertRule)
class AlertRuleAdmin(ManagedAdmin):
    """The rules exist from the start; users with ``manage_alerts`` change them."""

    manage_permission = MANAGE
    list_display = ("condition", "enabled", "severity_column", "window_minutes", "recipients_column")
    list_display_links = ("condition",)
    readonly_fields = ("condition",)
    fieldsets = (
        (None, {"fields": ("condition", "enabled", "severity")}),
        (_("When"), {"fields": ("window_minutes", "share_percent", "minimum_count")}),
        (_("Whom"), {"fields": ("recipients",)}),
    )

    class Media:
        css = _CONSOLE_CSS

    @admin.display(description=_("severity"), ordering="severity")
    def severity_column(self, rule: AlertRule) -> Badge:
        return severity_badge(rule)

    @admin.display(description=_("recipients"))
    def recipients_column(self, rule: AlertRule) -> str:
        count = len(rule.addresses)
        if not count:
            return gettext("nobody")
        return ngettext("%(count)d address", "%(count)d addresses", count) % {"count": count}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.test_mail_view)
        return [path("<int:pk>/test-mail/", view, name="faceprint_alertrule_test_mail"), *super().get_urls()]

    def test_mail_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Send a test mail to the saved recipients of a rule."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        rule = AlertRule.objects.filter(pk=pk).first()
        if rule is None:
            raise Http404
        try:
            count = send_test_mail(rule, request.user)
        except AlertMailFailed as error:
            text = gettext("The test mail could not be sent: %(reason)s") % {"reason": error}
            self.message_user(request, text, messages.ERROR)
        else:
            text = ngettext(
                "The test mail was sent to %(count)d address.",
                "The test mail was sent to %(count)d addresses.",
                count,
            )
            self.message_user(request, text % {"count": count}, messages.SUCCESS)
        return HttpResponseRedirect(admin_url(self, "change", pk))


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    """Alerts open and resolve by themselves; users with ``manage_alerts`` can acknowledge them."""

    list_display = (
        *("state_column", "severity_column", "rule", "opened_at", "last_seen_at", "resolved_at"),
        *("mail_column", "acknowledged_by"),
    )
    list_display_links = ("state_column",)
    list_filter = (("resolved_at", admin.EmptyFieldListFilter), "severity", "rule")
    list_select_related = ("rule", "acknowledged_by")
    fields = (
        *("state_column", "severity_column", "rule", "opened_at", "last_seen_at", "resolved_at"),
        *("facts_column", "mailed_at", "mail_error", "acknowledged_at", "acknowledged_by"),
    )
    readonly_fields = fields
    actions = ("acknowledge",)

    class Media:
        css = _CONSOLE_CSS

    @admin.display(description=_("state"))
    def state_column(self, alert: Alert) -> Badge:
        if alert.resolved_at is not None:
            return Badge(gettext("resolved"), "good")
        if alert.acknowledged_at is not None:
            return Badge(gettext("open, acknowledged"), "warn")
        return Badge(gettext("open"), "bad")

    @admin.display(description=_("severity"), ordering="severity")
    def severity_column(self, alert: Alert) -> Badge:
        return severity_badge(alert)

    @admin.display(description=_("mail"))
    def mail_column(self, alert: Alert) -> str:
        if alert.mail_error:
            return gettext("not delivered")
        return gettext("sent") if alert.mailed_at else gettext("not sent")

    @admin.display(description=_("facts"))
    def facts_column(self, alert: Alert) -> SafeString:
        facts = alert.facts.items() if isinstance(alert.facts, dict) else []
        return format_html(
            '<ul class="fp-facts-list">{}</ul>', format_html_join("", "<li>{}: <b>{}</b></li>", facts)
        )

    def has_acknowledge_permission(self, request: HttpRequest) -> bool:
        """For the action below."""
        return request.user.has_perm(MANAGE)

    @admin.action(description=_("Acknowledge"), permissions=["acknowledge"])
    def acknowledge(self, request: HttpRequest, queryset: QuerySet) -> None:
        """Note who acknowledged the selected alerts; earlier acknowledgements stay."""
        keys = list(queryset.order_by().values_list("pk", flat=True))
        unacknowledged = Alert.objects.filter(pk__in=keys, acknowledged_at__isnull=True)
        count = unacknowledged.update(acknowledged_at=now(), acknowledged_by=request.user)
        text = ngettext("%(count)d alert was acknowledged.", "%(count)d alerts were acknowledged.", count)
        self.message_user(request, text % {"count": count}, messages.SUCCESS)


def severity_badge(row: Alert | AlertRule) -> Badge:
    """The severity of an alert or a rule."""
    tone = _SEVERITY_TONES.get(AlertRule.Severity(row.severity), "quiet")
    return Badge(row.get_severity_display(), tone)
