from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core import mail
from django.test import Client

from django_faceprint.audit.chain import add_links
from django_faceprint.models import AccessLog, AccessReason, Alert, AlertRule, Plan
from tests import factories

from .conftest import messages_of, text_of

pytestmark = pytest.mark.django_db

BASE = "/admin/faceprint/"
PLAN = {
    "plan_id": "25011",
    "name": "新方案",
    "application": "default",
    "match_source": "authority",
    "identity_entry": "specified",
    "card_sides": "front",
    "liveness": "action",
    "threshold": "80",
}


def errors_of(response: Any) -> dict[str, list[str]]:
    return dict(response.context["adminform"].form.errors)


# --- plans --------------------------------------------------------------------------------------


def test_plans_are_changed_with_manage_plans_only(login: Callable[..., Client]) -> None:
    client = login("view_plan")
    plan = factories.make_plan()
    assert client.get(f"{BASE}plan/").status_code == 200
    assert client.get(f"{BASE}plan/{plan.pk}/change/").status_code == 200
    assert client.get(f"{BASE}plan/add/").status_code == 403
    assert client.post(f"{BASE}plan/{plan.pk}/change/", PLAN).status_code == 403
    assert client.post(f"{BASE}plan/{plan.pk}/delete/", {"post": "yes"}).status_code == 403


def test_djangos_own_change_permission_is_not_enough(login: Callable[..., Client]) -> None:
    client = login("change_plan", "add_plan", "delete_plan")
    plan = factories.make_plan()
    assert client.post(f"{BASE}plan/{plan.pk}/change/", PLAN).status_code == 403
    assert client.post(f"{BASE}plan/add/", PLAN).status_code == 403


def test_a_plan_is_added_and_checked(login: Callable[..., Client]) -> None:
    client = login("manage_plans")
    assert client.post(f"{BASE}plan/add/", PLAN).status_code == 302
    assert Plan.objects.get().plan_id == "25011"
    wrong = client.post(f"{BASE}plan/add/", {**PLAN, "plan_id": "25012", "application": "nobody"})
    assert errors_of(wrong)["application"] == [
        'FACEPRINT["APPLICATIONS"] has no such alias. There are: default, other.'
    ]
    wrong = client.post(
        f"{BASE}plan/add/", {**PLAN, "plan_id": "x1", "identity_entry": "none", "threshold": "101"}
    )
    assert set(errors_of(wrong)) == {"plan_id", "identity_entry", "threshold"}


def test_what_gives_records_their_meaning_is_fixed_once_used(login: Callable[..., Client]) -> None:
    client = login("manage_plans")
    plan = factories.make_session().plan
    changed = {**PLAN, "plan_id": "1", "application": "other", "name": "renamed"}
    assert client.post(f"{BASE}plan/{plan.pk}/change/", changed).status_code == 302
    fresh = Plan.objects.get()
    assert (fresh.plan_id, fresh.application, fresh.name) == (plan.plan_id, "default", "renamed")
    client.post(f"{BASE}plan/{plan.pk}/delete/", {"post": "yes"})
    assert Plan.objects.exists()


def test_retention_by_kind_is_a_form_of_numbers(login: Callable[..., Client]) -> None:
    client = login("manage_plans")
    days = {"keep_video": "7", "keep_face": "0", "keep_frame": ""}
    assert client.post(f"{BASE}plan/add/", {**PLAN, **days}).status_code == 302
    plan = Plan.objects.get()
    assert plan.retention == {"video": 7, "face": 0}
    page = client.get(f"{BASE}plan/{plan.pk}/change/")
    form = page.context["adminform"].form
    assert [form[f"keep_{kind}"].value() for kind in ("video", "face", "frame")] == [7, 0, None]
    assert "recorded video" in text_of(page)
    assert client.post(f"{BASE}plan/{plan.pk}/change/", {**PLAN, "keep_video": "9"}).status_code == 302
    plan.refresh_from_db()
    assert plan.retention == {"video": 9}
    wrong = client.post(f"{BASE}plan/{plan.pk}/change/", {**PLAN, "keep_video": "181"})
    assert errors_of(wrong)["__all__"] == ["No file is kept longer than its record: 180 days."]
    wrong = client.post(f"{BASE}plan/{plan.pk}/change/", {**PLAN, "keep_video": "-1"})
    assert set(errors_of(wrong)) == {"keep_video"}
    plan.refresh_from_db()
    assert plan.retention == {"video": 9}


def test_forever_needs_its_legal_basis_typed_in(login: Callable[..., Client]) -> None:
    client = login("manage_plans")
    wrong = client.post(f"{BASE}plan/add/", {**PLAN, "retain_indefinitely": "on", "retention_basis": " "})
    assert errors_of(wrong) == {"retention_basis": ["To keep evidence without end, enter the legal basis."]}
    founded = {**PLAN, "retain_indefinitely": "on", "retention_basis": "AML law, article 34"}
    assert client.post(f"{BASE}plan/add/", founded).status_code == 302
    assert Plan.objects.get().record_span is None


def test_users_who_may_only_view_a_plan_read_its_retention_as_text(login: Callable[..., Client]) -> None:
    client = login("view_plan")
    plan = factories.make_plan(retention={"video": 7, "face": 0})
    text = text_of(client.get(f"{BASE}plan/{plan.pk}/change/"))
    assert "face: not kept, recorded video: 7" in text


# --- alerts -------------------------------------------------------------------------------------


@pytest.fixture
def rule() -> AlertRule:
    rule = AlertRule.objects.get(condition="evidence_lost")
    rule.recipients = "one@example.com\ntwo@example.com"
    rule.save()
    return rule


RULE = {
    "enabled": "on",
    "severity": "notice",
    "window_minutes": "10",
    "share_percent": "5",
    "minimum_count": "3",
    "recipients": "three@example.com",
}


def test_rules_are_changed_but_neither_added_nor_deleted(
    login: Callable[..., Client], rule: AlertRule
) -> None:
    client = login("manage_alerts")
    assert client.get(f"{BASE}alertrule/").status_code == 200
    assert client.get(f"{BASE}alertrule/add/").status_code == 403
    assert client.post(f"{BASE}alertrule/{rule.pk}/delete/", {"post": "yes"}).status_code == 403
    assert (
        client.post(f"{BASE}alertrule/{rule.pk}/change/", {**RULE, "condition": "attack"}).status_code == 302
    )
    rule.refresh_from_db()
    assert (rule.severity, rule.condition, rule.addresses) == (
        "notice",
        "evidence_lost",
        ["three@example.com"],
    )
    wrong = client.post(f"{BASE}alertrule/{rule.pk}/change/", {**RULE, "recipients": "not an address"})
    assert errors_of(wrong) == {"recipients": ["Line 1 is not an e-mail address."]}


def test_a_test_mail(login: Callable[..., Client], rule: AlertRule) -> None:
    client = login("manage_alerts")
    assert "Send test mail" in text_of(client.get(f"{BASE}alertrule/{rule.pk}/change/"))
    response = client.post(f"{BASE}alertrule/{rule.pk}/test-mail/", follow=True)
    assert messages_of(response) == ["The test mail was sent to 2 addresses."]
    assert {address for message in mail.outbox for address in message.recipients()} == set(rule.addresses)


def test_a_test_mail_that_cannot_be_sent(login: Callable[..., Client], rule: AlertRule) -> None:
    client = login("manage_alerts")
    AlertRule.objects.update(recipients="")
    response = client.post(f"{BASE}alertrule/{rule.pk}/test-mail/", follow=True)
    assert messages_of(response)[0].startswith("The test mail could not be sent: ")
    assert client.get(f"{BASE}alertrule/{rule.pk}/test-mail/").status_code == 405
    assert client.post(f"{BASE}alertrule/999/test-mail/").status_code == 404
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = client.cookies
    assert strict.post(f"{BASE}alertrule/{rule.pk}/test-mail/").status_code == 403


def test_rules_are_seen_but_not_changed_with_view_permission(
    login: Callable[..., Client], rule: AlertRule
) -> None:
    client = login("view_alertrule")
    assert "Send test mail" not in text_of(client.get(f"{BASE}alertrule/{rule.pk}/change/"))
    assert client.post(f"{BASE}alertrule/{rule.pk}/change/", RULE).status_code == 403
    assert client.post(f"{BASE}alertrule/{rule.pk}/test-mail/").status_code == 403
    assert not mail.outbox


def test_alerts_are_read_and_acknowledged(login: Callable[..., Client], rule: AlertRule) -> None:
    client = login("view_alert", "manage_alerts")
    alerts = [Alert.objects.create(rule=rule, severity="critical", facts={"<b>": 3}) for _ in range(2)]
    text = text_of(client.get(f"{BASE}alert/"))
    assert "open" in text
    html = client.get(f"{BASE}alert/{alerts[0].pk}/change/").content.decode()
    assert "<li>&lt;b&gt;: <b>3</b></li>" in html
    chosen = {"action": "acknowledge", "_selected_action": [alert.pk for alert in alerts]}
    response = client.post(f"{BASE}alert/", chosen, follow=True)
    assert messages_of(response) == ["2 alerts were acknowledged."]
    assert "open, acknowledged" in text_of(response)
    assert Alert.objects.filter(acknowledged_by__username="operator").count() == 2
    response = client.post(f"{BASE}alert/", chosen, follow=True)
    assert messages_of(response) == ["0 alerts were acknowledged."]


def test_without_manage_alerts_nothing_is_acknowledged(login: Callable[..., Client], rule: AlertRule) -> None:
    client = login("view_alert")
    alert = Alert.objects.create(rule=rule, severity="critical")
    client.post(f"{BASE}alert/", {"action": "acknowledge", "_selected_action": [alert.pk]})
    alert.refresh_from_db()
    assert alert.acknowledged_at is None
    assert client.post(f"{BASE}alert/{alert.pk}/delete/", {"post": "yes"}).status_code == 403


# --- logs ---------------------------------------------------------------------------------------


def test_the_access_log_needs_its_permission_and_cannot_be_changed(login: Callable[..., Client]) -> None:
    client = login("view_accesslog", "change_accesslog", "delete_accesslog")
    session = factories.make_session()
    entry = AccessLog.objects.create(
        actor_id="1", actor_name="someone", action="view_record", session_id=session.public_id, channel="api"
    )
    AccessLog.objects.create(actor_id="2", actor_name="other", action="view_media", channel="api")
    for query in ("someone", str(session.public_id)):
        listed = client.get(f"{BASE}accesslog/", {"q": query}).context["cl"].queryset
        assert list(listed) == [entry]
    assert client.get(f"{BASE}accesslog/{entry.pk}/change/").status_code == 200
    assert client.post(f"{BASE}accesslog/{entry.pk}/change/", {"actor_name": "x"}).status_code == 403
    assert client.post(f"{BASE}accesslog/{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"}
    client.post(f"{BASE}accesslog/", chosen)
    assert AccessLog.objects.count() == 2


def test_the_logs_are_read_by_time(login: Callable[..., Client], clock: Any) -> None:
    client = login("view_accesslog", "view_upstreamcall")
    for days in (0, 3, 40):
        clock.advance(days=days)
        AccessLog.objects.create(actor_id="1", actor_name="someone", action="view_record", channel="api")
        factories.make_call()
    for log in ("accesslog", "upstreamcall"):
        newest, second, oldest = list(client.get(f"{BASE}{log}/").context["cl"].queryset)
        between = {"at__gte": oldest.at.isoformat(), "at__lt": newest.at.isoformat()}
        assert list(client.get(f"{BASE}{log}/", between).context["cl"].queryset) == [second, oldest]
        assert "Past 7 days" in text_of(client.get(f"{BASE}{log}/"))


@pytest.mark.parametrize(
    "address",
    [
        "accesslog/?action__gte=a",
        "accesslog/?at__year=2026",
        "alert/?resolved_at__gte=2026-01-01",
        "plan/?liveness__lt=b",
    ],
)
def test_only_times_are_filtered_by_range_and_only_where_the_list_offers_it(
    admin_client: Client, address: str
) -> None:
    assert admin_client.get(f"{BASE}{address}").status_code == 400


def test_an_entry_shows_why_and_whether_it_is_chained(login: Callable[..., Client]) -> None:
    session = factories.make_session()
    entry = AccessLog(
        actor_id="2",
        actor_name="other",
        action="reveal",
        channel="admin",
        session_id=session.public_id,
        reason_code="complaint",
        reason_digest="0" * 64,
    )
    entry.save()
    AccessReason.objects.create(public_id=entry.public_id, text="ticket <4711>", salt="s")
    auditor = login("view_accesslog")
    page = f"/admin/faceprint/accesslog/{entry.pk}/change/"
    html = auditor.get(page).content.decode()
    assert "complaint of the person" in html
    assert "ticket &lt;4711&gt;" in html
    assert f"/admin/faceprint/verificationsession/{session.pk}/change/" in html
    assert "icon-no" in html
    add_links()
    AccessReason.objects.all().delete()
    html = auditor.get(page).content.decode()
    assert "ticket" not in html
    assert "erased" in html
    assert "icon-yes" in html
    # The list tells the code, and takes no query for each entry.
    assert "complaint of the person" in auditor.get("/admin/faceprint/accesslog/").content.decode()


def test_the_access_log_is_closed_to_others(viewer: Client) -> None:
    assert viewer.get(f"{BASE}accesslog/").status_code == 403


def test_upstream_calls_are_listed_and_found_by_log_id(login: Callable[..., Client]) -> None:
    client = login("view_upstreamcall")
    session = factories.make_session()
    call = factories.make_call(session, log_id="777", outcome="verification_failed", code="223120")
    factories.make_call(None)
    response = client.get(f"{BASE}upstreamcall/")
    assert str(session.public_id) in text_of(response)
    assert "result/detail" in text_of(response)
    assert list(client.get(f"{BASE}upstreamcall/?q=777").context["cl"].queryset) == [call]
    assert "The liveness check failed." in text_of(client.get(f"{BASE}upstreamcall/{call.pk}/change/"))
    assert client.post(f"{BASE}upstreamcall/{call.pk}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_every_page_opens(login: Callable[..., Client], language: str, rule: AlertRule) -> None:
    client = login(is_superuser=True)
    session = factories.make_session()
    factories.make_call(session)
    Alert.objects.create(rule=rule, severity="notice")
    client.defaults["HTTP_ACCEPT_LANGUAGE"] = language
    for model in ("verificationsession", "plan", "alertrule", "alert", "accesslog", "upstreamcall"):
        listed = client.get(f"{BASE}{model}/")
        assert listed.status_code == 200
        for row in listed.context["cl"].result_list:
            assert client.get(f"{BASE}{model}/{row.pk}/change/").status_code == 200
    assert client.get(BASE).status_code == 200
