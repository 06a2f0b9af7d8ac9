"""Queries of the console's pages and of an export: as many for ten records as for ten thousand.

One test, since ten thousand records take a while to make. The dashboard has its own.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_faceprint.admin.sessions import VerificationSessionAdmin
from django_faceprint.audit.access import Actor
from django_faceprint.jobs import jobs
from django_faceprint.models import MediaAsset
from django_faceprint.records.filters import Selection
from tests import factories

from .conftest import LIST, link, page_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]

Kind = MediaAsset.Kind
#: First page, filters, another order, the end, a page of much to search.
PAGES = ("", "verdict=passed&attempts=1", "order=score", "last=1", "liveness=action", "created=all")
ROWS = 10_000


def test_ten_thousand_records_take_no_more_queries_than_ten(
    full_viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An export counts by its parts: here all records are one. A list that fits one page is not counted.
    monkeypatch.setattr(jobs, "ROWS_OF_PART", 2 * ROWS)
    monkeypatch.setattr(VerificationSessionAdmin, "list_per_page", 5)
    plan = factories.make_plan()
    kinds = (Kind.FACE, Kind.VIDEO)
    session = factories.make_many_passed(10, *kinds, plan=plan)[0]
    full_viewer.get(LIST)
    few = _counts(full_viewer, page_of(session))
    # All are the same person's, so that the record has ten thousand others beside it.
    factories.make_many_passed(ROWS - 10, *kinds, plan=plan)
    many = _counts(full_viewer, page_of(session))
    following = link(full_viewer.get(LIST), "next")
    many["the next page"], few["the next page"] = _queries(full_viewer, f"{LIST}?{following}"), few["list: "]
    assert many == few
    assert max(count for name, count in few.items() if name.startswith("list")) <= 11


def test_a_list_that_fits_one_page_is_not_counted(full_viewer: Client) -> None:
    factories.make_many_passed(3, plan=factories.make_plan())
    full_viewer.get(LIST)
    with CaptureQueriesContext(connection) as captured:
        page = full_viewer.get(LIST)
    assert page.context["cl"].result_count == 3
    assert not any("COUNT(" in entry["sql"] for entry in captured)


def _counts(client: Client, record: str) -> dict[str, int]:
    counts = {f"list: {page}": _queries(client, f"{LIST}?{page}") for page in PAGES}
    counts["record"] = _queries(client, f"{record}?_changelist_filters=verdict%3Dpassed")
    for kind in ("export_csv", "export_xlsx"):
        counts[kind] = _queries_of_export(kind)
    return counts


def _queries(client: Client, address: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(address).status_code == 200
    return len(captured)


def _queries_of_export(kind: Any) -> int:
    job = jobs.create(kind, Selection({"created": "all"}), actor=Actor("auditor", "admin", "7", "192.0.2.1"))
    with CaptureQueriesContext(connection) as captured:
        jobs.work_on(job, until=0.0, monotonic=lambda: 0.0)
    assert job.state == "done"
    return len(captured)
