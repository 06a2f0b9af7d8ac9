"""The dashboard: its figures and links, its states, its queries and what it never shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import DatabaseError, connection
from django.test import Client
from django.test.html import Element, parse_html
from django.test.utils import CaptureQueriesContext

from django_faceprint.models import AccessLog, AlertRule, MediaAsset, VerificationSession
from django_faceprint.records import rollups, statistics
from django_faceprint.records.rollups import roll_up
from tests import factories

from .conftest import SECRETS
from .dashboard_data import make_days

pytestmark = pytest.mark.django_db

PAGE = "/admin/faceprint/dashboard/"
HOUR = timedelta(hours=1)


def open_page(client: Client, query: str = "") -> Any:
    response = client.get(PAGE + query)
    assert response.status_code == 200
    return response


def figures(response: Any) -> dict[str, str]:
    """The large numbers, by what they are called."""
    return {figure.label: figure.value for figure in response.context["page"].figures}


def bars(found: Any) -> dict[str, int]:
    return {bar.label: bar.count for bar in found}


def content_of(response: Any) -> str:
    """The content of the page, without the frame of the admin."""
    html: str = response.content.decode()
    return html[html.index('<div id="content-main"') : html.index("</main>")]


def content_text_of(response: Any) -> str:
    """The content as a person reads it."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", content_of(response))).split())


def elements(response: Any, name: str = "") -> list[Element]:
    """The elements of the content, or those of a name."""
    found: list[Element] = []

    def walk(element: Any) -> None:
        for child in getattr(element, "children", ()):
            if not isinstance(child, str):
                found.append(child)
                walk(child)

    walk(parse_html(response.content.decode()))
    content = next(element for element in found if ("id", "content-main") in element.attributes)
    found.clear()
    walk(content)
    return [element for element in found if name in ("", element.name)]


def inner(element: Any, name: str) -> list[Element]:
    return [child for child in element.children if not isinstance(child, str) and child.name == name]


@pytest.fixture
def sessions(clock: Any) -> list[VerificationSession]:
    """Two passed, one failed for liveness, one below the threshold, one gone, one still waiting."""
    plan = factories.make_plan(name="Opening")
    at = {"plan": plan, "age": 2 * HOUR, "identity_number": None}
    passed = factories.make_passed_session(**at, archived_at=clock())
    factories.make_asset(passed, "face", state="stored", size=2048, archived_at=clock())
    late = factories.make_passed_session(**at, archived_at=clock(), score=99.0, is_demoted=True)
    factories.make_asset(late, "face", state="stored", size=1024, archived_at=clock())
    MediaAsset.objects.filter(session=late).update(deadline=clock() - HOUR)
    failure = {**at, "verdict": "failed", "decided_at": clock(), "archive_state": "lost"}
    return [
        passed,
        late,
        factories.make_session(**failure, error_class="verification_failed", error_code="223120"),
        factories.make_session(**failure, score=62.0, threshold=80.0),
        factories.make_session(**at, verdict="expired", decided_at=clock(), archive_state="not_applicable"),
        factories.make_session(**at, wake_at=clock() + HOUR),
    ]


def test_figures_say_what_the_records_say(viewer: Client, sessions: list[VerificationSession]) -> None:
    roll_up()
    response = open_page(viewer)
    shown = figures(response)
    assert shown["Started"] == "6"
    assert shown["Pass rate"] == "50 %"
    assert shown["Demoted to recorded video"] == "1"
    # Two complete, of which one was late, and two lost.
    assert shown["Archived in time"] == "25 %"
    assert shown["Not archived in time"] == "2"
    assert shown["Storage used"] == "3.0\xa0KB"
    assert shown["Deleted in the next 7 days"] == "0"
    page = response.context["page"]
    assert [bar.count for bar in page.funnel] == [6, 6, 4, 4, 2]
    assert bars(page.verdicts) == {"pending": 1, "passed": 2, "failed": 2, "expired": 1}
    assert bars(page.failures) == {
        "The liveness check failed.": 1,
        "No error code: below the threshold": 1,
    }
    assert bars(page.stages) == {"liveness": 1, "comparison with the ID photo": 1}
    assert bars(page.archive) == {"waiting": 1, "complete": 2, "lost": 2, "not applicable": 1}
    text = content_text_of(response)
    assert "5 of" not in text
    assert "2 of 4 who finished" in text
    assert not AccessLog.objects.exists()


def test_links_lead_to_the_records_that_were_counted(
    viewer: Client, sessions: list[VerificationSession]
) -> None:
    roll_up()
    plan = sessions[0].plan_id
    page = open_page(viewer, f"?range=7d&plan={plan}").context["page"]

    def query(url: str) -> dict[str, str]:
        parts = urlsplit(url)
        assert parts.path == "/admin/faceprint/verificationsession/"
        return {name: value for name, (value,) in parse_qs(parts.query).items()}

    here = {"created": "7d", "plan": str(plan)}
    by_label = {bar.label: query(bar.url) for bar in page.failures}
    assert by_label == {
        "The liveness check failed.": {**here, "verdict": "failed", "error_code": "223120"},
        "No error code: below the threshold": {**here, "verdict": "failed", "error_class": "none"},
    }
    assert {bar.label: query(bar.url) for bar in page.archive}["lost"] == {**here, "archive_state": "lost"}
    assert {bar.label: query(bar.url) for bar in page.verdicts}["passed"] == {**here, "verdict": "passed"}
    links = {figure.label: query(figure.url) for figure in page.figures if "session" in figure.url}
    assert links["Started"] == here
    assert links["Until the first loss"] == {"created": "all", "left": "6h", "plan": str(plan)}


def test_a_range_and_a_plan_can_be_chosen_and_nonsense_is_ignored(viewer: Client, clock: Any) -> None:
    plan = factories.make_plan()
    factories.make_passed_session(plan=plan, age=HOUR)
    factories.make_passed_session(plan=plan, age=30 * HOUR)
    factories.make_passed_session(age=10 * 24 * HOUR)
    roll_up()
    started = {
        query: figures(open_page(viewer, query))["Started"]
        for query in (
            "",
            "?range=7d",
            "?range=30d",
            f"?range=30d&plan={plan.pk}",
            "?range=x&plan=x",
            "?plan=0",
        )
    }
    assert [*started.values()] == ["1", "2", "3", "2", "1", "1"]
    html = open_page(viewer, f"?range=7d&plan={plan.pk}").content.decode()
    assert f'href="?range=30d&amp;plan={plan.pk}"' in html
    assert f'<option value="{plan.pk}" selected>' in html


@pytest.mark.parametrize(("name", "steps"), [("24h", 24), ("7d", 29), ("30d", 31)])
def test_charts_have_a_step_for_each_hour_or_day_and_a_table_that_says_the_same(
    viewer: Client, clock: Any, name: str, steps: int
) -> None:
    make_days(factories.make_plan())
    roll_up()
    page = open_page(viewer, f"?range={name}").context["page"]
    for chart in (page.rate_chart, page.volume_chart):
        assert len(chart.rows) == steps == chart.width
        assert all(len(row) == len(chart.head) for row in chart.rows)
        assert all(0 <= shape.x <= chart.width and shape.y >= 0 for shape in chart.shapes)
        assert all(shape.y + shape.height <= 100.001 for shape in chart.shapes if shape.tone != "mark")
    counted = sum(int(cell) for row in page.volume_chart.rows for cell in row[1:])
    assert str(counted) == figures(open_page(viewer, f"?range={name}"))["Started"]
    scores = page.score_chart
    assert scores.lines == [16.0]
    assert page.threshold_list == "80"
    compared = VerificationSession.objects.filter(
        score__isnull=False,
        created_at__gte=rollups.read(rollups.SPANS[name]).since,
        verdict__in=("passed", "failed"),
    )
    assert sum(int(row[1]) + int(row[2]) for row in scores.rows) == compared.count()


def test_times_are_those_of_the_operators_zone(viewer: Client, clock: Any) -> None:
    """08:00 UTC is 16:00 in Shanghai, where the tests are."""
    factories.make_passed_session(age=timedelta(0))
    roll_up()
    rows = open_page(viewer).context["page"].volume_chart.rows
    assert rows[-1][0] == "03-02 16:00"
    assert rows[-1][1] == "1"
    days = open_page(viewer, "?range=30d").context["page"].volume_chart
    assert (days.rows[-1][0], days.marks[-1]) == ("2026-03-02", "03-02")


def test_charts_are_named_and_need_nothing_that_a_strict_policy_refuses(viewer: Client, clock: Any) -> None:
    make_days(factories.make_plan())
    roll_up()
    response = open_page(viewer)
    charts = [svg for svg in elements(response, "svg") if ("role", "img") in svg.attributes]
    assert len(charts) == 3
    for chart in charts:
        named = dict(chart.attributes)["aria-labelledby"].split()
        texts = [*inner(chart, "title"), *inner(chart, "desc")]
        assert [dict(element.attributes)["id"] for element in texts] == named
        assert all(element.children for element in texts)
    assert len(elements(response, "details")) == 3
    attributes = {name for element in elements(response) for name, _value in element.attributes}
    assert not [name for name in attributes if name == "style" or name.startswith("on")]
    assert not elements(response, "style")
    assert not elements(response, "script")
    # Numbers in attributes have a point, whatever the language.
    shapes = [dict(shape.attributes) for shape in elements(response, "rect")]
    assert len(shapes) > 100
    for shape in shapes:
        for name in {"x", "y", "width", "height"} & shape.keys():
            assert re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", shape[name])


def test_calls_are_shown_by_interface(login: Callable[..., Client], clock: Any) -> None:
    for _ in range(9):
        factories.make_call(latency=0.2)
    factories.make_call(outcome="transport", latency=45.0)
    factories.make_call(outcome="not_started", endpoint="result_simple", latency=0.05)
    roll_up()
    client = login("view_verificationsession", "view_upstreamcall")
    first, second = open_page(client).context["page"].interfaces
    assert (first.name, first.calls, first.failed, first.percent) == ("result/detail", 10, 1, 10.0)
    assert (first.reason, first.median, first.slowest) == ("not reached", "≤ 0.25 s", "> 30 s")
    assert first.is_bad
    assert first.url == "/admin/faceprint/upstreamcall/?endpoint__exact=result_detail"
    assert client.get(first.url).status_code == 200
    # "Not started" is an answer, not a failure.
    assert (second.name, second.failed, second.is_bad) == ("result/simple", 0, False)


def test_links_are_for_who_may_follow_them(login: Callable[..., Client], clock: Any) -> None:
    factories.make_call()
    AlertRule.objects.get(condition="attack").alerts.create(severity="critical")
    roll_up()
    page = open_page(login("view_verificationsession")).context["page"]
    alerts = next(figure for figure in page.figures if figure.label == "Open alerts")
    assert (alerts.value, alerts.url, alerts.tone) == ("1", "", "bad")
    assert page.interfaces[0].url == ""


def test_open_alerts_lead_to_the_alerts(login: Callable[..., Client], clock: Any) -> None:
    rule = AlertRule.objects.get(condition="attack")
    open_alert = rule.alerts.create(severity="critical")
    rule.alerts.create(severity="critical", resolved_at=clock())
    roll_up()
    client = login("view_verificationsession", "view_alert")
    page = open_page(client).context["page"]
    url = next(figure.url for figure in page.figures if figure.label == "Open alerts")
    listed = client.get(url).context["cl"].result_list
    assert [alert.pk for alert in listed] == [open_alert.pk]


def test_numbers_with_several_records_are_masked_and_lead_to_the_newest(viewer: Client, clock: Any) -> None:
    for hours in (3, 2, 1):
        newest = factories.make_passed_session(age=hours * HOUR)
    other = factories.make_passed_session(identity_number="110101199003074477")
    factories.make_passed_session(age=30 * HOUR, identity_number="110101199003074477")
    roll_up()
    response = open_page(viewer)
    (person,) = response.context["page"].repeated
    assert (person.number, person.count) == ("110***********002X", 3)
    assert person.url == f"/admin/faceprint/verificationsession/{newest.pk}/change/"
    body = response.content.decode()
    for secret in (*SECRETS, other.number_index, newest.number_index):
        assert secret not in body
    assert [person.count for person in open_page(viewer, "?range=7d").context["page"].repeated] == [3, 2]
    assert open_page(viewer, f"?plan={other.plan_id}").context["page"].repeated == []


def test_only_the_newest_records_are_compared(
    viewer: Client, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "MAX_COMPARED", 2)
    for minutes in range(4):
        factories.make_passed_session(age=timedelta(minutes=minutes))
    roll_up()
    response = open_page(viewer)
    assert [person.count for person in response.context["page"].repeated] == [2]
    assert "Among the newest 2 records." in content_text_of(response)


def test_a_number_that_cannot_be_decrypted_is_said_so(viewer: Client, clock: Any) -> None:
    factories.make_passed_session()
    broken = factories.make_passed_session()
    VerificationSession.objects.filter(pk=broken.pk).update(identity_number=None)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE faceprint_verificationsession SET identity_number = %s WHERE id = %s",
            [b"x" * 40, broken.pk],
        )
    roll_up()
    (person,) = open_page(viewer).context["page"].repeated
    assert person.number == "cannot be decrypted"


def test_before_the_first_count_it_says_what_to_start(viewer: Client, clock: Any) -> None:
    text = content_text_of(open_page(viewer))
    assert "Nothing has been counted yet" in text
    assert "faceprint_run" in text


def test_a_time_without_verifications_is_no_error(viewer: Client, clock: Any) -> None:
    roll_up()
    text = content_text_of(open_page(viewer))
    assert "No verification was started in this time" in text
    assert "not up to date" not in text


def test_old_figures_are_called_old(viewer: Client, clock: Any) -> None:
    factories.make_passed_session()
    roll_up()
    clock.advance(rollups.STALE_AFTER)
    assert "not up to date" not in content_text_of(open_page(viewer))
    clock.advance(minutes=5)
    text = content_text_of(open_page(viewer))
    assert "These figures are not up to date" in text
    assert "They were complete 20 min ago. 2 hours have not been counted yet." in text
    parts = {part.name: part.stands_still for part in open_page(viewer).context["page"].parts}
    assert parts["dashboard figures"]
    roll_up()
    assert "not up to date" not in content_text_of(open_page(viewer))


def test_a_database_that_fails_is_said_and_not_guessed(
    viewer: Client, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DatabaseError("gone")

    monkeypatch.setattr(rollups, "read", fail)
    response = viewer.get(PAGE)
    assert response.status_code == 503
    assert "The figures could not be read" in content_text_of(response)
    assert "gone" not in content_text_of(response)


def test_the_page_is_complete_in_chinese(viewer: Client, sessions: list[VerificationSession]) -> None:
    factories.make_call()
    roll_up()
    viewer.defaults["HTTP_ACCEPT_LANGUAGE"] = "zh-hans"
    text = content_text_of(open_page(viewer))
    for sentence in (
        "仪表盘",
        "通过率",
        "未通过的原因",
        "活体检测未通过。",
        "距首次逾期",
        "逾期未归档",
        "对百度的调用",
    ):
        assert sentence in text
    assert not re.search(r"[A-Za-z]{3,} [a-z]{2,}", text.partition(">")[2])


def test_the_page_costs_the_same_with_many_rows(viewer: Client, clock: Any) -> None:
    plan = factories.make_plan()
    asked = []
    for sessions, calls in ((10, 5), (10_000, 100)):
        make_days(plan, sessions=sessions, calls=calls, seed=sessions)
        factories.make_passed_session(plan=plan)
        factories.make_passed_session(plan=plan)
        rollups.rebuild()
        roll_up()
        open_page(viewer)
        for query in ("", f"?range=30d&plan={plan.pk}"):
            with CaptureQueriesContext(connection) as queries:
                open_page(viewer, query)
            asked.append(len(queries))
            # Counting the big tables is not for a page.
            for table in ("mediaasset", "upstreamcall"):
                assert not any(f"faceprint_{table}" in entry["sql"] for entry in queries)
    assert len(set(asked)) == 1
    assert asked[0] <= 20


def test_it_is_for_who_may_read_records(login: Callable[..., Client], clock: Any) -> None:
    client = login("view_accesslog")
    assert client.get(PAGE).status_code == 403
    assert PAGE not in client.get("/admin/").content.decode()
    assert PAGE not in client.get("/admin/faceprint/").content.decode()
    assert client.post(PAGE).status_code == 403


def test_the_apps_first_page_begins_with_it(viewer: Client, clock: Any) -> None:
    response = viewer.get("/admin/faceprint/")
    html: str = response.content.decode()
    links = re.findall(r'<a href="([^"]+)"', html[html.index('id="content"') :])
    assert links[0] == PAGE
    assert PAGE in viewer.get("/admin/").content.decode()
    assert viewer.post(PAGE).status_code == 405
