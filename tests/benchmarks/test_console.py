"""The console understands the benchmark's requests, and the compared pages show the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from benchmarks import console
from django_faceprint.devtools import sample_data
from django_faceprint.models import Plan, VerificationSession
from django_faceprint.records.filters import FILTERS, Selection

ORDERED = ("order", "last")


@pytest.fixture
def filled(db: None, clock: Any) -> None:
    sample_data.fill(400, years=console.FEW_YEARS, thumbnails=400)


@pytest.fixture
def client(settings: Any, admin_client: Client) -> Iterator[Client]:
    settings.ROOT_URLCONF = "benchmarks.console_urls"
    return admin_client


def parameters_of(query: str) -> dict[str, str]:
    said = dict(part.split("=", 1) for part in query.format(plan="1", reference="fill-1").split("&"))
    return {name: text for name, text in said.items() if name not in ORDERED}


@pytest.mark.django_db
@pytest.mark.parametrize("query", [*console.FILTERS_ALONE, *console.FILTERS_COMBINED, *console.OVER_ALL_TIME])
def test_every_query_is_understood(query: str) -> None:
    assert Selection(parameters_of(query)).problems == []


def test_every_filter_is_measured_alone_and_twenty_together() -> None:
    alone = {name for query in console.FILTERS_ALONE for name in parameters_of(query)}
    # Dates are ranges like those that have a name, and "has" is what orders ask; the others look records up.
    assert alone == FILTERS.keys() - {"since", "until", "has", "reference", "rows"}
    assert all(len(parameters_of(query)) == 1 for query in console.FILTERS_ALONE)
    assert len(set(console.FILTERS_COMBINED)) == 20
    assert all(len(parameters_of(query)) > 1 for query in console.FILTERS_COMBINED)


@pytest.mark.usefixtures("filled")
def test_every_address_is_answered_and_pages_follow_their_links(client: Client) -> None:
    addresses = {address.key: address for address in console._addresses(client)}
    side = console.Side("few", 400, connection, client)
    answers = {key: console._timed(side, address)[1] for key, address in addresses.items()}
    listed = {
        name: answers[f"{console.PAGES}: {name}"].content for name in ("first page", "the page after it")
    }
    first, second = (set(keys_of(page)) for page in listed.values())
    assert len(first) == len(second) == 50
    assert first.isdisjoint(second)
    deepest = keys_of(answers[f"{console.PAGES}: deepest page, all time"].content)
    assert deepest[-1] == VerificationSession.objects.order_by("created_at", "pk")[0].pk
    turned = keys_of(answers[f"{console.PAGES}: {console.TURNED} pages on, all time"].content)
    order = list(VerificationSession.objects.order_by("-created_at", "-pk").values_list("pk", flat=True))
    assert turned == order[150:200]
    for name in ("reference", "session ID", "ID number", "name", "verify_token", "log_id"):
        # One record is found, and opened.
        assert answers[f"{console.LOOKUP}: {name}"].status_code == 302
    assert answers[f"{console.LOOKUP}: 100 references"].status_code == 200
    assert {f"{console.DETAIL}: {name}" for name in ("passed", "failed", "expired")} <= answers.keys()


@pytest.mark.usefixtures("filled")
def test_the_rival_lists_the_same_records_in_the_same_columns(client: Client) -> None:
    ours, theirs = (client.get(url).content for url in (f"{console.LIST}?created=all", console.RIVAL))
    assert keys_of(ours) == keys_of(theirs)
    row = VerificationSession.objects.order_by("-created_at", "-pk")[0]
    for said in (row.reference, row.plan.plan_id, row.masked_number):
        assert said.encode() in ours
        assert said.encode() in theirs
    plan = Plan.objects.order_by("plan_id")[0]
    found = client.get(console.RIVAL, {"plan__id__exact": str(plan.pk)})
    assert found.status_code == 200
    last = client.get(console.RIVAL, {"p": "8"})
    assert keys_of(last.content)[-1] == VerificationSession.objects.order_by("created_at", "pk")[0].pk


def keys_of(page: bytes) -> list[int]:
    import re

    return [int(key) for key in re.findall(rb'name="_selected_action" value="(\d+)"', page)]


def test_the_95th_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(1, 31)]
    assert console.percentile(values, 0.95) == 29.0
    assert console.percentile([3.0], 0.95) == 3.0


def test_a_missing_row_counts_as_long_as_one_more_row_takes() -> None:
    side = console.Side("few", 1, None, None)
    full, empty = f"{console.PAGES}: first page", f"{console.ALONE}: erased=1"
    side.rows = {full: 50, empty: 0}
    side.seconds = {full: [0.1, 0.12, 0.5], empty: [0.02, 0.02, 0.02]}
    assert console.seconds_per_row(side) == pytest.approx(0.002)
    side.rows[empty] = 50
    assert console.seconds_per_row(side) == 0.0
