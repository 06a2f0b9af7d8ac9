from __future__ import annotations

import base64
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import unquote

import pytest
from django.contrib import admin
from django.core.signals import got_request_exception
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.views.debug import ExceptionReporter

from django_faceprint.clock import now
from django_faceprint.evidence.thumbnails import make_thumbnail
from django_faceprint.models import (
    AccessLog,
    MediaAsset,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.privacy.files import seal_thumbnail, unwrap_file_key
from django_faceprint.privacy.keys import generate_key
from tests import factories

from .conftest import (
    LIST,
    SECRETS,
    action_of,
    content_of,
    full_session,
    look_up,
    messages_of,
    page_of,
    text_of,
)

pytestmark = pytest.mark.django_db

Kind = MediaAsset.Kind
Action = AccessLog.Action
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def actions_logged() -> list[str]:
    return list(AccessLog.objects.order_by("pk").values_list("action", flat=True))


# --- permissions --------------------------------------------------------------------------------


def test_strangers_are_sent_to_the_login(client: Client) -> None:
    session = factories.make_passed_session()
    asset = factories.make_stored_asset(session, Kind.FACE)
    urls = [LIST, page_of(session), content_of(asset), f"{LIST}lookup/"]
    for url in [*urls, action_of(session, "query_now"), action_of(session, "archive_again")]:
        response = client.get(url)
        assert response.status_code == 302
        assert response["Location"].startswith("/admin/login/")
    assert not AccessLog.objects.exists()


def test_staff_without_permission_sees_nothing(login: Callable[..., Client]) -> None:
    client = login("view_media")
    session = factories.make_passed_session()
    asset = factories.make_stored_asset(session, Kind.FACE)
    assert client.get(LIST).status_code == 403
    assert client.get(page_of(session)).status_code == 403
    assert client.get(content_of(asset)).status_code == 403
    assert client.post(f"{LIST}lookup/", {"q": "x"}).status_code == 403
    for name in ("query_now", "archive_again"):
        assert client.post(action_of(session, name)).status_code == 403
    assert not AccessLog.objects.exists()


def test_permissions_are_checked_before_methods(viewer: Client) -> None:
    session = factories.make_passed_session()
    names = ("reveal", "query_now", "archive_again", "bundle", "erase_record")
    for url in [*(action_of(session, name) for name in names), f"{LIST}export/", f"{LIST}erase/"]:
        assert viewer.get(url).status_code == viewer.post(url).status_code == 403, url


def test_records_are_read_only(login: Callable[..., Client]) -> None:
    client = login(is_superuser=True)
    session = factories.make_passed_session()
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{LIST}{session.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.post(page_of(session), {"verdict": "failed"}).status_code == 405
    session.refresh_from_db()
    assert session.verdict == "passed"


def test_technical_tables_have_no_page() -> None:
    registered = {
        model._meta.model_name for model in admin.site._registry if model._meta.app_label == "faceprint"
    }
    assert registered == {
        "verificationsession",
        "plan",
        "alertrule",
        "alert",
        "accesslog",
        "upstreamcall",
        "erasure",
        "job",
        "dashboard",
    }


# --- list ---------------------------------------------------------------------------------------


def test_a_row_that_cannot_be_decrypted_does_not_hide_the_others(viewer: Client, settings: Any) -> None:
    session = full_session()
    settings.FACEPRINT = {**settings.FACEPRINT, "ENCRYPTION_KEYS": [generate_key()]}
    assert "cannot be decrypted" in text_of(viewer.get(LIST))
    assert "cannot be decrypted" in text_of(viewer.get(page_of(session)))


# --- finding ------------------------------------------------------------------------------------


def test_a_single_hit_opens_at_once(viewer: Client) -> None:
    session = full_session()
    factories.make_session()
    for text in (
        "ORDER-1",
        " ORDER-1 ",
        str(session.public_id),
        "1390000000000000001",
        "1390000000000000002",
    ):
        assert look_up(viewer, text)["Location"] == page_of(session)


def test_what_is_not_found_is_not_repeated_and_comes_into_no_url(viewer: Client) -> None:
    session = full_session()
    for text in (
        "欧阳朔月",
        "440308199901015331",
        "ORDER",
        f"{session.verify_token}x",
        "110***********002X",
        "张**",
    ):
        response = look_up(viewer, text)
        assert response["Location"] == LIST
        followed = viewer.get(LIST)
        assert messages_of(followed) == ["No record matches. The text must be exact."]
        assert text not in followed.content.decode() or text in ("ORDER", "110***********002X", "张**")
    assert messages_of(viewer.get(look_up(viewer, "")["Location"])) == []


def test_nothing_personal_in_any_url(full_viewer: Client) -> None:
    session = full_session()
    for url in (LIST, page_of(session)):
        html = full_viewer.get(url).content.decode()
        links = re.findall(r'(?:href|src|action|data-src|data-href)="([^"]*)"', html)
        assert links
        for link in links:
            for secret in SECRETS:
                assert secret not in unquote(unescape(link))


def test_lookup_takes_only_posts_with_csrf(viewer: Client) -> None:
    assert viewer.get(f"{LIST}lookup/?q=x").status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = viewer.cookies
    assert look_up(strict, "x").status_code == 403


def test_error_reports_do_not_contain_the_texts_of_a_lookup(
    viewer: Client, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """Neither Django's mails to ADMINS nor reports of other tools."""
    reports: list[str] = []

    def report(request: Any, **kwargs: Any) -> None:
        reporter = ExceptionReporter(request, *sys.exc_info())
        reports.extend((reporter.get_traceback_text(), reporter.get_traceback_html()))

    def fail(kind: str, text: str) -> Any:
        raise RuntimeError("the database is gone")

    settings.DEBUG = False
    viewer.raise_request_exception = False
    monkeypatch.setattr("django_faceprint.records.lookup.blind_index_candidates", fail)
    got_request_exception.connect(report)
    try:
        assert look_up(viewer, factories.NUMBER).status_code == 500
    finally:
        got_request_exception.disconnect(report)
    assert "the database is gone" in reports[0]
    for text in reports:
        assert factories.NUMBER not in text


# --- one record ---------------------------------------------------------------------------------


def test_the_page_tells_everything_masked(full_viewer: Client) -> None:
    session = full_session()
    response = full_viewer.get(page_of(session))
    text = text_of(response)
    for expected in (
        "84.4 ≥ 80 of plan 25001: passed",
        "张** 110***********002X",
        "threshold 80",
        "confirmed 张** differs",
        "浙江省****",
        "recording is off at Baidu",
        "process video",
        "1390000000000000001",
        "1390000000000000002",
        "result/detail",
        "verifyToken/generate",
        "The liveness check failed.",
        "video liveness 223120",
        "camera",
        "account opening",
        "Synthetic picture not checked",
        str(session.public_id),
    ):
        assert expected in text
    for asset in session.assets.stored():
        assert asset.sha256 in text
    html = response.content.decode()
    for secret in (*SECRETS, "张三峰", "文三路"):
        assert secret not in html


def test_opening_a_record_is_logged(viewer: Client) -> None:
    session = factories.make_session()
    viewer.get(page_of(session))
    entry = AccessLog.objects.get()
    assert (entry.action, entry.session_id, entry.actor_name) == (
        "view_record",
        session.public_id,
        "operator",
    )
    assert entry.channel == "admin"


def test_the_page_takes_as_many_queries_for_few_rows_as_for_many(full_viewer: Client) -> None:
    small, large = factories.make_passed_session(), factories.make_passed_session()
    factories.make_asset(small, Kind.FACE)
    for number in range(30):
        factories.make_asset(large, Kind.FRAME, position=number)
        factories.make_call(large)
        VerificationAttempt.objects.create(session=large, order=number, passed=False)
    full_viewer.get(page_of(small))
    counts = []
    for session in (small, large):
        with CaptureQueriesContext(connection) as captured:
            assert full_viewer.get(page_of(session)).status_code == 200
        counts.append(len(captured))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"verdict": "failed", "score": 79.996, "threshold": 80.0}, "79.996 < 80 of plan 25009: failed"),
        (
            {"verdict": "failed", "error_class": "verification_failed", "error_code": "223120"},
            "The liveness check failed.",
        ),
        ({"verdict": "failed"}, "Failed by plan 25009"),
        (
            {"verdict": "passed", "score": 70.0, "threshold": 80.0},
            "Passed with 70, though plan 25009 says 80 here",
        ),
        ({"verdict": "passed"}, "Passed by plan 25009"),
        ({}, "The person has not finished the verification page yet."),
        ({"identity_accepted_at": None}, "Baidu has not yet accepted all that plan 25009 requires."),
        ({"verdict": "expired"}, "The person did not finish the verification page in time."),
        ({"verdict": "unknown"}, "Baidu did not return a result in time."),
    ],
)
def test_one_sentence_says_why(viewer: Client, values: dict[str, Any], sentence: str) -> None:
    session = factories.make_session(plan=factories.make_plan(plan_id="25009"), **values)
    assert sentence in text_of(viewer.get(page_of(session)))


def test_scores_that_do_not_exist_are_not_zero(viewer: Client) -> None:
    plan = factories.make_plan(liveness="colorful")
    session = factories.make_passed_session(plan=plan, liveness_score=0.0, spoofing_score=0.0)
    text = text_of(viewer.get(page_of(session)))
    assert "Liveness not applicable" in text
    assert "Synthetic picture not checked" in text
    plan = factories.make_plan(match_source="liveness_only", identity_entry="none")
    session = factories.make_passed_session(plan=plan, score=0.0)
    assert "Similarity not applicable" in text_of(viewer.get(page_of(session)))


def test_an_error_is_explained(viewer: Client) -> None:
    session = factories.make_session(
        error_class="configuration", error_code="6", error_message="no permission", error_log_id="139"
    )
    text = text_of(viewer.get(page_of(session)))
    assert "Configuration 6 No permission. Grant the application" in text
    assert "Baidu's message: no permission" in text
    session = factories.make_session(error_class="unsafe_media", error_code="foreign_host")
    assert "refused as unsafe or broken" in text_of(viewer.get(page_of(session)))


def test_when_the_next_look_is_due(viewer: Client) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"wake_at": now() + timedelta(seconds=90)}, "The next query is due in 1 min."),
        ({"wake_at": now() - timedelta(seconds=1)}, "The next query is due now"),
        ({"priority_at": now()}, "The next query is due now"),
        ({"wake_at": now(), "lease_until": now() + timedelta(minutes=5)}, "A worker is on it right now."),
    ]
    for values, sentence in cases:
        session = factories.make_session(**values)
        assert sentence in text_of(viewer.get(page_of(session)))
    done = factories.make_passed_session()
    assert "next query" not in text_of(viewer.get(page_of(done)))


def test_polls_that_say_the_same_are_one_line(viewer: Client) -> None:
    session = factories.make_session()
    for _ in range(5):
        factories.make_call(session, outcome="not_started", code="283450")
    assert "result/detail ×5" in text_of(viewer.get(page_of(session)))


def test_hostile_text_is_escaped(full_viewer: Client) -> None:
    session = factories.make_session(
        reference=HOSTILE,
        purpose=HOSTILE,
        error_class=HOSTILE[:30],
        error_code=HOSTILE[:40],
        error_message=HOSTILE,
        plan=factories.make_plan(name=HOSTILE),
        stat={HOSTILE: [{"error_code": HOSTILE, "count": 1}]},
    )
    VerificationAttempt.objects.create(
        session=session, order=1, passed=False, message=HOSTILE, risk_tag=HOSTILE, risk_level=HOSTILE[:20]
    )
    factories.make_asset(session, Kind.VIDEO, error_class=HOSTILE[:30], error_detail=HOSTILE, reason=HOSTILE)
    factories.make_call(session, code=HOSTILE[:40], endpoint=HOSTILE[:40])
    for url in (LIST, page_of(session), "/admin/faceprint/upstreamcall/"):
        html = full_viewer.get(url).content.decode()
        assert "<script>alert" not in html
        assert "<img src=x" not in html
        assert "<img src" not in html.split("fp-record", 1)[-1] or url == LIST


def test_no_inline_script_or_style_in_the_page(full_viewer: Client) -> None:
    """A host's Content-Security-Policy need allow nothing beyond what Django's own admin needs."""
    html = full_viewer.get(page_of(full_session())).content.decode()
    page = html[html.index('<div id="content-main"') :]
    assert "<script" not in page
    assert "<style" not in page
    assert " style=" not in page
    assert not re.search(r'\son\w+="', page)


def test_an_unknown_record_leads_back_to_the_list(viewer: Client) -> None:
    for url in (f"{LIST}999999/change/", f"{LIST}nonsense/change/", f"{LIST}{'9' * 40}/change/"):
        assert viewer.get(url)["Location"] == LIST
        assert messages_of(viewer.get(LIST)) == ["There is no such record."]
    assert not AccessLog.objects.exists()


# --- pictures and videos ------------------------------------------------------------------------


def test_without_permission_no_file_can_be_reached(viewer: Client) -> None:
    session = full_session()
    response = viewer.get(page_of(session))
    assert "You have no permission to view faces and videos." in text_of(response)
    html = response.content.decode()
    assert "verificationsession/media/" not in html
    assert "data-src" not in html
    assert "fp-show-media" not in html
    for asset in session.assets.stored():
        assert viewer.get(content_of(asset)).status_code == 403
    assert actions_logged() == ["view_record"]


def test_nothing_clear_is_loaded_before_a_click(full_viewer: Client) -> None:
    session = full_session()
    html = full_viewer.get(page_of(session)).content.decode()
    assert 'id="fp-show-media"' in html
    for asset in session.assets.stored():
        assert f'data-src="{content_of(asset)}"' in html
        assert f' src="{content_of(asset)}"' not in html
    assert actions_logged() == ["view_record"]


def test_what_is_not_kept_by_rule_says_so(viewer: Client) -> None:
    session = factories.make_passed_session()
    factories.make_asset(session, Kind.FACE, state="not_provided", reason="not_kept")
    text = text_of(viewer.get(page_of(session)))
    assert "not kept by rule" in text
    assert "not provided by Baidu" not in text


def with_thumbnail(session: VerificationSession) -> bytes:
    """A stored face and its thumbnail, which is returned."""
    asset = factories.make_stored_asset(session, Kind.FACE)
    small = make_thumbnail(factories.image_bytes())
    assert small is not None
    assert asset.wrapped_key is not None
    key = unwrap_file_key(bytes(asset.wrapped_key), asset.public_id)
    MediaAsset.objects.filter(pk=asset.pk).update(thumbnail=seal_thumbnail(small, key, asset.public_id))
    return small


def test_a_blurred_face_stands_in_list_and_record_for_who_may_see_faces(full_viewer: Client) -> None:
    session = factories.make_passed_session()
    small = with_thumbnail(session)
    image = f'src="data:image/jpeg;base64,{base64.b64encode(small).decode()}"'
    assert image in full_viewer.get(LIST).content.decode()
    assert image in full_viewer.get(page_of(session)).content.decode()
    assert AccessLog.objects.filter(action=Action.VIEW_MEDIA).count() == 0


def test_nobody_else_gets_even_that(viewer: Client) -> None:
    session = factories.make_passed_session()
    with_thumbnail(session)
    for url in (LIST, page_of(session)):
        assert "data:image" not in viewer.get(url).content.decode()


def test_a_thumbnail_costs_no_query(full_viewer: Client) -> None:
    plan = factories.make_plan()

    def queries_with(count: int) -> int:
        for _ in range(count):
            with_thumbnail(factories.make_passed_session(plan=plan))
        with CaptureQueriesContext(connection) as captured:
            assert full_viewer.get(LIST).content.decode().count("data:image") >= count
        return len(captured)

    queries_with(1)
    assert queries_with(1) == queries_with(10)


def test_a_thumbnail_that_does_not_open_is_left_out(full_viewer: Client) -> None:
    session = factories.make_passed_session()
    with_thumbnail(session)
    MediaAsset.objects.update(thumbnail=bytes(200))
    for url in (LIST, page_of(session)):
        response = full_viewer.get(url)
        assert response.status_code == 200
        assert "data:image" not in response.content.decode()


def test_a_file_is_served_and_the_look_logged(full_viewer: Client) -> None:
    session = full_session()
    face = session.assets.get(kind=Kind.FACE)
    response: Any = full_viewer.get(content_of(face))
    assert response.status_code == 200
    assert response["Content-Type"] == "image/jpeg"
    assert response["Cache-Control"] == "private, no-store"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert response["Content-Disposition"] == f'inline; filename="face-{face.public_id}.jpg"'
    assert b"".join(response.streaming_content) == factories.image_bytes()
    entry = AccessLog.objects.get()
    assert (entry.action, entry.asset_id) == (Action.VIEW_MEDIA, face.public_id)


def test_a_video_seeks_and_is_one_look(full_viewer: Client) -> None:
    video = full_session().assets.get(kind=Kind.PROCESS_VIDEO)
    data = factories.video_bytes()
    for start in (0, 1000, 30_000):
        response: Any = full_viewer.get(content_of(video), headers={"Range": f"bytes={start}-"})
        assert response.status_code == 206
        assert b"".join(response.streaming_content) == data[start:]
    assert full_viewer.head(content_of(video)).status_code == 200
    assert full_viewer.get(content_of(video), headers={"Range": "bytes=999999-"}).status_code == 416
    assert actions_logged() == [Action.VIEW_MEDIA]


def test_files_that_are_not_stored_are_not_found(full_viewer: Client) -> None:
    session = factories.make_passed_session()
    for position, state in enumerate(("wanted", "lost", "erased", "not_provided")):
        asset = factories.make_asset(session, Kind.FRAME, position=position, state=state)
        assert full_viewer.get(content_of(asset)).status_code == 404
    assert not AccessLog.objects.exists()


# --- asking again -------------------------------------------------------------------------------


def test_query_now(operator: Client) -> None:
    session = factories.make_awaiting_session()
    response = operator.post(action_of(session, "query_now"), follow=True)
    assert messages_of(response) == [
        "Baidu is asked as soon as a worker is free. Reload this page in a few seconds."
    ]
    session.refresh_from_db()
    assert session.wake_at is None
    assert session.priority_at is not None
    assert actions_logged() == ["refresh", "view_record"]


def test_query_now_says_so_when_there_is_nothing_left(operator: Client) -> None:
    session = factories.make_passed_session()
    response = operator.post(action_of(session, "query_now"), follow=True)
    assert messages_of(response)[0].startswith("Nothing was requested: this record is finished")
    assert actions_logged() == ["view_record"]


def test_archive_again(operator: Client) -> None:
    session = factories.make_passed_session(archive_state="lost")
    lost = factories.make_asset(session, Kind.VIDEO, state="lost")
    response = operator.post(action_of(session, "archive_again"), follow=True)
    assert messages_of(response)[0].startswith("What is not in the archive is fetched")
    session.refresh_from_db()
    lost.refresh_from_db()
    assert session.archive_state == "collecting"
    assert lost.state == "wanted"
    assert actions_logged() == ["archive_again", "view_record"]


@pytest.mark.parametrize(
    ("values", "beginning"),
    [
        ({}, "Nothing was fetched: there are files only after"),
        ({"verdict": "passed", "verify_token": None}, "Nothing was fetched: the token was erased"),
        (
            {"verdict": "passed", "lease_until": now() + timedelta(minutes=5)},
            "Nothing was changed: a worker is on this record",
        ),
    ],
)
def test_archive_again_says_why_not(operator: Client, values: dict[str, Any], beginning: str) -> None:
    session = factories.make_session(**values)
    response = operator.post(action_of(session, "archive_again"), follow=True)
    assert messages_of(response)[0].startswith(beginning)
    session.refresh_from_db()
    assert session.archive_state == "waiting"


@pytest.mark.parametrize("name", ["query_now", "archive_again"])
def test_buttons_take_only_posts_with_csrf(operator: Client, name: str) -> None:
    session = factories.make_awaiting_session()
    assert operator.get(action_of(session, name)).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = operator.cookies
    assert strict.post(action_of(session, name)).status_code == 403
    assert operator.post(action_of(session, name).replace(str(session.pk), "999999")).status_code == 404


def run_action(client: Client, name: str, *sessions: VerificationSession) -> Any:
    chosen = [session.pk for session in sessions]
    return client.post(LIST, {"action": name, "_selected_action": chosen}, follow=True)


def test_actions_on_rows_count(operator: Client) -> None:
    waiting = [factories.make_awaiting_session() for _ in range(2)]
    done = factories.make_passed_session()
    assert messages_of(run_action(operator, "query_now", *waiting, done)) == [
        "2 records will be queried as soon as a worker is free.",
        "1 record is finished: there is nothing to query.",
    ]
    assert VerificationSession.objects.ready().count() == 2
    assert messages_of(run_action(operator, "archive_again", *waiting, done)) == [
        "The files of 1 record are fetched again as soon as a worker is free.",
        "2 records were skipped: not decided, erased, or being worked on.",
    ]
    assert actions_logged() == ["refresh", "refresh", "archive_again"]
