"""Who may do what: every role at every address of the app, allowed and refused, and each allowed look logged.

The addresses come from the URL configuration: one that has no line here fails the test.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core import signing
from django.core.management import call_command
from django.http import HttpResponseBase
from django.test import Client
from django.urls import URLPattern, URLResolver, reverse

from django_faceprint import urls as browser_urls
from django_faceprint.api import urls as api_urls
from django_faceprint.audit.access import Actor
from django_faceprint.jobs.jobs import create, work_on_jobs
from django_faceprint.models import (
    AccessLog,
    Alert,
    AlertRule,
    Erasure,
    MediaAsset,
    UpstreamAnswer,
    VerificationSession,
)
from django_faceprint.records.filters import Selection
from django_faceprint.verification import return_token
from tests import factories

pytestmark = pytest.mark.django_db

STAFF = ("nothing", "support", "review", "compliance", "administration", "superuser")
CALLERS = ("nobody", "stranger", "creator", "auditor", "revealer", "superuser")
RECORDS = {"support", "review", "compliance", "superuser"}
PICTURES = {"review", "compliance", "superuser"}
REFRESHERS = {"support", "review", "superuser"}
ADMINISTRATORS = {"administration", "superuser"}
ERASERS = {"compliance", "superuser"}
EXPORTERS = {"compliance", "superuser"}
EVERYBODY = {*STAFF}
OWN = {"creator", "auditor", "revealer", "superuser"}
#: What the API says of a session that is not the caller's; without authentication 401 or 403.
ELSEWHERE = {404, 403, 401}


@dataclass(frozen=True)
class Line:
    """One address and method: who is let in, and what the log then holds."""

    name: str
    allowed: set[str]
    method: str = "get"
    look: str = ""
    body: dict[str, Any] | None = None
    query: str = ""


LOOK, PLAY, SAVE = "view_record", "view_media", "download_media"
RECORD = "verificationsession"

ADMIN_LINES = [
    Line(f"{RECORD}_changelist", RECORDS),
    Line(f"{RECORD}_changelist", REFRESHERS, "post", "refresh", {"action": "query_now"}),
    Line(f"{RECORD}_changelist", REFRESHERS, "post", "archive_again", {"action": "archive_again"}),
    Line(f"{RECORD}_change", RECORDS, look=LOOK),
    Line(f"{RECORD}_history", RECORDS),
    Line(f"{RECORD}_answer", RECORDS, look=LOOK),
    Line(f"{RECORD}_add", set()),
    Line(f"{RECORD}_delete", set()),
    Line(f"{RECORD}_lookup", RECORDS, "post", "lookup", {"q": factories.NUMBER}),
    Line(f"{RECORD}_media", PICTURES, look=PLAY),
    Line(f"{RECORD}_media", {"compliance", "superuser"}, look=SAVE, query="?download"),
    Line(f"{RECORD}_reveal", PICTURES, "post", "reveal", {"reason": "audit"}),
    Line(f"{RECORD}_query_now", REFRESHERS, "post", "refresh"),
    Line(f"{RECORD}_archive_again", REFRESHERS, "post", "archive_again"),
    Line(f"{RECORD}_changelist", ERASERS, "post", body={"action": "erase"}),
    Line(f"{RECORD}_erase_person", ERASERS),
    Line(f"{RECORD}_erase_person", ERASERS, "post", "lookup", {"number": factories.NUMBER}),
    Line(f"{RECORD}_erase_record", ERASERS, "post"),
    Line(
        f"{RECORD}_erase", ERASERS, "post", "erase", {"token": "preview", "count": "1", "reason": "request"}
    ),
    Line(f"{RECORD}_changelist", EXPORTERS, "post", body={"action": "export"}),
    Line(f"{RECORD}_export", EXPORTERS, "post", "export", {"token": "export", "format": "export_csv"}),
    Line(
        f"{RECORD}_export",
        {"superuser"},
        "post",
        "export export",
        {"token": "export", "format": "export_xlsx", "unmasked": "1", "reason": "audit"},
    ),
    Line(f"{RECORD}_bundle", EXPORTERS, "post", "export"),
    Line(f"{RECORD}_bundle", {"superuser"}, "post", "export", {"unmasked": "1", "reason": "audit"}),
    Line("job_changelist", RECORDS),
    Line("job_change", RECORDS),
    Line("job_history", RECORDS),
    Line("job_status", RECORDS),
    Line("job_cancel", RECORDS, "post"),
    Line("job_download", EXPORTERS, look="download_export"),
    Line("job_add", set()),
    Line("job_delete", set()),
    Line("dashboard_changelist", RECORDS),
    Line("erasure_changelist", ERASERS),
    Line("erasure_change", ERASERS),
    Line("erasure_history", ERASERS),
    Line("erasure_certificate", ERASERS),
    Line("erasure_add", set()),
    Line("erasure_delete", set()),
    Line("plan_changelist", {"compliance", *ADMINISTRATORS}),
    Line("plan_change", {"compliance", *ADMINISTRATORS}),
    Line("plan_history", {"compliance", *ADMINISTRATORS}),
    Line("plan_add", ADMINISTRATORS),
    Line("plan_delete", ADMINISTRATORS),
    Line("alertrule_changelist", ADMINISTRATORS),
    Line("alertrule_change", ADMINISTRATORS),
    Line("alertrule_history", ADMINISTRATORS),
    Line("alertrule_add", set()),
    Line("alertrule_delete", set()),
    Line("alertrule_test_mail", ADMINISTRATORS, "post"),
    Line("alert_changelist", {"compliance", *ADMINISTRATORS}),
    Line("alert_change", {"compliance", *ADMINISTRATORS}),
    Line("alert_history", {"compliance", *ADMINISTRATORS}),
    Line("alert_add", set()),
    Line("alert_delete", set()),
    Line("accesslog_changelist", {"compliance", "superuser"}),
    Line("accesslog_change", {"compliance", "superuser"}),
    Line("accesslog_history", {"compliance", "superuser"}),
    Line("accesslog_add", set()),
    Line("accesslog_delete", set()),
    Line("upstreamcall_changelist", {"compliance", *ADMINISTRATORS}),
    Line("upstreamcall_change", {"compliance", *ADMINISTRATORS}),
    Line("upstreamcall_history", {"compliance", *ADMINISTRATORS}),
    Line("upstreamcall_add", set()),
    Line("upstreamcall_delete", set()),
]

API_LINES = [
    Line("sessions", {*CALLERS} - {"nobody"}),
    Line("plans", {*CALLERS} - {"nobody"}),
    Line("session", OWN),
    Line("session-identity", {"creator"}, "post", body={"name": factories.NAME, "number": factories.NUMBER}),
    Line("session-match-image", {"creator"}, "post", body={"image": "AAAA"}),
    Line("session-refresh", {"creator", "superuser"}, "post", "refresh"),
    Line("session-result", OWN, look=LOOK),
    Line("session-reveal", {"revealer", "superuser"}, "post", "reveal", {"reason": "audit"}),
    Line("session-withdraw", {"creator", "superuser"}, "post", "withdraw erase", {"reason": "asked for it"}),
    Line("session-erase", {"superuser"}, "post", "erase", {"reason": "asked for it"}),
    Line("session-stat", OWN),
    Line("session-media", OWN),
    Line("media-content", {"creator", "revealer", "superuser"}, look=PLAY),
    Line("schema", {*CALLERS} - {"nobody"}),
    Line("docs", {*CALLERS} - {"nobody"}),
]


def names_of(patterns: list[Any]) -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from names_of(pattern.url_patterns)
        elif isinstance(pattern, URLPattern) and pattern.name:
            yield pattern.name


def test_every_address_has_its_line() -> None:
    ours = {
        name.removeprefix("faceprint_")
        for model_admin in admin.site._registry.values()
        if model_admin.opts.app_label == "faceprint"
        for name in names_of(model_admin.get_urls())
    }
    assert {line.name for line in ADMIN_LINES} == ours
    assert {line.name for line in API_LINES} == set(names_of(api_urls.urlpatterns))
    assert set(names_of(browser_urls.urlpatterns)) == {"return", "return-status"}


@pytest.fixture(autouse=True)
def groups(db: None) -> None:
    """The ready groups, with their English names."""
    call_command("faceprint_groups", language="en", stdout=io.StringIO())


# --- people -------------------------------------------------------------------------------------


@pytest.fixture
def record() -> VerificationSession:
    """A record with a file, made by "creator", about which Baidu may still be asked."""
    creator = get_user_model().objects.create_user("creator", "", "x")
    session = factories.make_passed_session(created_by=creator, reference="matrix")
    factories.make_stored_asset(session, "face")
    factories.make_asset(session, "video")
    VerificationSession.objects.filter(pk=session.pk).update(wake_at=session.media_deadline)
    return session


def staff(role: str) -> Client:
    """A member of the staff in one of the ready groups, or with nothing, or with everything."""
    user = get_user_model().objects.create_user(
        f"staff-{role}", "", "x", is_staff=True, is_superuser=role == "superuser"
    )
    if role not in ("nothing", "superuser"):
        user.groups.add(Group.objects.get(name=f"Faceprint {role}"))
    browser = Client(headers={"accept-language": "en"})
    browser.force_login(user)
    return browser


def caller(role: str) -> Client:
    """A caller of the API: of no account, a foreign one, the creator, or one who sees all sessions."""
    browser = Client()
    if role == "nobody":
        return browser
    user, _ = get_user_model().objects.get_or_create(
        username=role if role != "superuser" else "api-root", defaults={"is_superuser": role == "superuser"}
    )
    granted = {
        "stranger": ["view_media", "reveal_identity"],
        "auditor": ["view_all_sessions"],
        "revealer": ["view_all_sessions", "reveal_identity", "view_media"],
    }.get(role, [])
    user.user_permissions.set(Permission.objects.filter(codename__in=granted))
    browser.force_login(user)
    return browser


def send(browser: Client, address: str, line: Line, pk: int) -> HttpResponseBase:
    body = dict(line.body or {})
    if "action" in body:
        body["_selected_action"] = [str(pk)]
    if body.get("token") == "preview":
        body["token"] = signing.dumps(
            {
                "target": [pk],
                "count": 1,
                "withdrawal": False,
                "user": browser.session.get("_auth_user_id", ""),
            },
            salt="faceprint.erase",
        )
    if body.get("token") == "export":
        chosen = Selection({"rows": str(pk)}).to_json()
        user = browser.session.get("_auth_user_id", "")
        body["token"] = signing.dumps({"selection": chosen, "user": user}, salt="faceprint.job")
    if line.method == "get":
        answer = browser.get(address + line.query)
    elif address.startswith("/api/"):
        answer = browser.post(address, body, content_type="application/json")
    else:
        answer = browser.post(address, body)
    if answer.streaming:
        assert b"".join(answer.streaming_content)  # type: ignore[attr-defined]
    return answer


# --- the admin ----------------------------------------------------------------------------------


def own_job(browser: Client) -> int:
    """A finished export that was made for whoever uses *browser*."""
    user = browser.session.get("_auth_user_id", "")
    job = create("export_csv", Selection({}), actor=Actor("x", "admin", user))
    work_on_jobs(budget=timedelta(minutes=1), monotonic=lambda: 0.0)
    return job.pk


def address_of(line: Line, record: VerificationSession, browser: Client) -> str:
    model, _, view = line.name.partition("_")
    if view in ("changelist", "add", "lookup", "erase_person", "erase", "export"):
        return reverse(f"admin:faceprint_{line.name}")
    if line.name == f"{RECORD}_media":
        return reverse(f"admin:faceprint_{line.name}", args=[MediaAsset.objects.stored().get().public_id])
    if line.name == f"{RECORD}_answer":
        answer = UpstreamAnswer.objects.create(
            session=record, endpoint="result_detail", body="{}", body_index="x"
        )
        return reverse(f"admin:faceprint_{line.name}", args=[record.pk, answer.pk])
    rows = {
        RECORD: record.pk,
        "plan": record.plan_id,
        "alertrule": AlertRule.objects.get(condition="attack").pk,
        "alert": lambda: (
            Alert.objects.create(rule=AlertRule.objects.get(condition="attack"), severity="notice").pk
        ),
        "accesslog": lambda: (
            AccessLog.objects.create(
                actor_id="0", actor_name="earlier", action="view_record", channel="api"
            ).pk
        ),
        "erasure": lambda: Erasure.objects.create(actor_name="x", channel="admin", reason="x").pk,
        "job": lambda: own_job(browser),
        "upstreamcall": lambda: factories.make_call(record).pk,
    }
    pk = rows[model]
    return reverse(f"admin:faceprint_{line.name}", args=[pk() if callable(pk) else pk])


@pytest.mark.parametrize("role", ["nobody", *STAFF])
@pytest.mark.parametrize("line", ADMIN_LINES, ids=lambda line: f"{line.method}-{line.name}-{line.look}")
def test_the_admin(line: Line, role: str, record: VerificationSession) -> None:
    browser = Client() if role == "nobody" else staff(role)
    address = address_of(line, record, browser)
    before = set(AccessLog.objects.values_list("pk", flat=True))
    answer = send(browser, address, line, record.pk)
    looks = list(AccessLog.objects.exclude(pk__in=before).order_by("pk"))
    if role in line.allowed:
        assert answer.status_code in (200, 302)
        assert "/login/" not in answer.get("Location", "")
        assert [look.action for look in looks] == line.look.split()
        if looks:
            assert looks[0].actor_name == f"staff-{role}"
            assert looks[0].session_id in (record.public_id, None)
            assert (looks[0].session_id is None) == (
                line.look == "lookup" or ("export" in line.look and "bundle" not in line.name)
            )
        return
    assert not looks
    if role == "nobody":
        assert answer.status_code == 302
        assert "/login/" in answer["Location"]
    elif "action" in (line.body or {}) and role in RECORDS:
        # The list opens; the action is not among what may be chosen.
        assert answer.status_code in (200, 302)
        record.refresh_from_db()
        assert record.priority_at is None
    else:
        assert answer.status_code == 403


def test_the_admins_front_page_shows_each_their_own(record: VerificationSession) -> None:
    seen = {}
    for role in STAFF:
        html = staff(role).get(reverse("admin:index")).content.decode()
        seen[role] = {
            model
            for model in (RECORD, "plan", "alertrule", "alert", "accesslog", "upstreamcall", "erasure", "job")
            if f"/admin/faceprint/{model}/" in html
        }
    assert seen["nothing"] == set()
    assert seen["support"] == seen["review"] == {RECORD, "job"}
    assert RECORD not in seen["administration"]
    assert "accesslog" in seen["compliance"]
    assert seen["superuser"] == {
        *(RECORD, "plan", "alertrule", "alert", "accesslog", "upstreamcall", "erasure", "job")
    }


# --- the API ------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", CALLERS)
@pytest.mark.parametrize("line", API_LINES, ids=lambda line: f"{line.method}-{line.name}")
def test_the_api(line: Line, role: str, record: VerificationSession) -> None:
    arguments: list[Any] = []
    if line.name == "media-content":
        arguments = [MediaAsset.objects.stored().get().public_id]
    elif line.name.startswith("session") and line.name != "sessions":
        arguments = [record.public_id]
    address = reverse(f"faceprint-api:{line.name}", args=arguments)
    answer = send(caller(role), address, line, record.pk)
    looks = list(AccessLog.objects.order_by("pk"))
    if role in line.allowed:
        # Past the gate: what is wrong with the request itself is said there.
        assert answer.status_code in (200, 202, 400, 409)
        assert [look.action for look in looks] == line.look.split()
        assert all(look.session_id == record.public_id for look in looks)
        return
    assert not looks
    assert answer.status_code in ELSEWHERE
    body = answer.content.decode()  # type: ignore[attr-defined]
    for secret in (factories.NAME, factories.NUMBER, "matrix", str(record.verify_token)):
        assert secret not in body


def test_a_list_holds_ones_own_or_all(record: VerificationSession) -> None:
    found = {
        role: len(caller(role).get(reverse("faceprint-api:sessions")).json()["results"])
        for role in CALLERS
        if role != "nobody"
    }
    assert found == {"stranger": 0, "creator": 1, "auditor": 1, "revealer": 1, "superuser": 1}


def test_a_return_link_is_for_whoever_holds_it_and_shows_no_person(record: VerificationSession) -> None:
    for view in ("return", "return-status"):
        answer = Client().get(reverse(f"faceprint:{view}", args=[return_token(record)]))
        assert answer.status_code == 200
        for secret in (factories.NAME, factories.NUMBER, str(record.verify_token), "matrix"):
            assert secret not in answer.content.decode()
    assert not AccessLog.objects.exists()
