"""``console``: the record console at a million records against a thousand, and against Django's own list.

Requests go through Django's test client with every middleware and query; the next and the last page follow
the links of the page itself. The two databases alternate at each address.

The small database spans a week, so that its pages are as full as those of the large one. Where a filter finds
fewer rows there, its medians are normalised: the measured time of the missing rows is added to them.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from html import unescape
from typing import Any

from . import sessions
from .project import Project, set_up, use_database
from .report import Goal, Report, Spread
from .servers import DatabaseServer, postgresql
from .workspace import folder, peak_memory, require_space, run_worker

ROWS = 1_000_000
FEW_ROWS = 1_000
YEARS = 2.0
FEW_YEARS = 7 / 365.25
ROUNDS = 10
REQUESTS = 3
BYTES_PER_ROW = 6_000
MAX_RATIO = 1.3
MIN_GAIN = 5.0
MAX_MEMORY = 1.1
#: Records of the small export.
EXPORTED = 10_000
#: Pages that are turned before one is measured by its link.
TURNED = 3
#: How many are looked up at once, as an operator pastes them.
PASTED = 100

LIST = "/admin/faceprint/verificationsession/"
RIVAL = "/rival/faceprint/verificationsession/"

#: Names of groups, each with its goal.
PAGES, ALONE, COMBINED, ALL_TIME, LOOKUP, DETAIL = (
    *("list", "a filter alone, last 7 days", "filters combined, last 7 days"),
    *("indexed filters and orders, all time", "lookup", "record"),
)

#: Each filter alone, within the default range. ``{plan}`` stands for the key of a plan.
FILTERS_ALONE = (
    *("created=24h", "created=today", "created=30d"),
    *("status=passed", "status=failed", "status=awaiting_user", "status=verifying", "status=abandoned"),
    *("verdict=passed", "verdict=failed", "verdict=expired", "verdict=unknown", "verdict=pending"),
    *("archive_state=complete", "archive_state=partial", "archive_state=lost", "archive_state=collecting"),
    *("left=6h", "left=24h", "left=over"),
    *("plan={plan}", "liveness=colorful", "liveness=action", "application=default", "environment=sandbox"),
    *("purpose=开户", "certificate_type=0", "certificate_type=3"),
    *("score_min=90", "score_max=60", "liveness_min=0.9", "liveness_max=0.2"),
    *("spoofing_min=0.01", "spoofing_max=0.001"),
    *("error_class=none", "error_class=verification_failed", "error_class=retry", "error_code=223120"),
    *("attempts=1", "attempts=2", "attempts=4", "is_demoted=1", "is_demoted=0"),
    *("retention=7d", "retention=none", "erased=0", "erased=1"),
)

#: Twenty questions that operators ask, within the default range.
FILTERS_COMBINED = (
    "verdict=failed&plan={plan}",
    "verdict=failed&error_code=223120",
    "verdict=failed&score_min=70&score_max=80",
    "verdict=failed&certificate_type=0&attempts=1",
    "verdict=passed&score_max=82",
    "verdict=passed&is_demoted=1",
    "verdict=passed&archive_state=partial",
    "verdict=passed&archive_state=lost",
    "verdict=passed&liveness=colorful&score_min=90",
    "verdict=passed&spoofing_min=0.01",
    "verdict=expired&plan={plan}",
    "verdict=expired&error_class=configuration",
    "archive_state=complete&plan={plan}&purpose=开户",
    "archive_state=collecting&left=24h",
    "archive_state=not_applicable&verdict=failed",
    "status=abandoned&liveness=silent",
    "status=passed&purpose=签约&certificate_type=1",
    "error_class=retry,slow_down&created=24h",
    "plan={plan}&liveness_max=0.2&verdict=failed",
    "environment=sandbox&application=default&erased=0&is_demoted=0&score_min=95",
)

#: Filters that have an index, and orders, over all time.
OVER_ALL_TIME = (
    *("created=all", "created=all&last=1", "created=all&order=created", "created=all&order=deadline"),
    *("created=all&order=score", "created=all&order=-score", "created=all&order=-score&last=1"),
    *("created=all&verdict=passed", "created=all&verdict=failed", "created=all&verdict=unknown"),
    *("created=all&archive_state=complete", "created=all&archive_state=lost"),
    *(
        "created=all&archive_state=partial&last=1",
        "created=all&plan={plan}",
        "created=all&plan={plan}&last=1",
    ),
    *("created=all&error_code=223120", "created=all&error_code=223131", "created=all&retention=7d"),
    *("created=all&left=24h", "reference={reference}"),
)


@dataclass(frozen=True)
class Address:
    """A page to request: its group, its name, and the request by a client."""

    group: str
    name: str
    ask: Callable[[Any], Any] = field(compare=False)

    @property
    def key(self) -> str:
        """Its name among all groups."""
        return f"{self.group}: {self.name}"


@dataclass
class Side:
    """One of the two databases: its connection, a client that is logged in, and its addresses."""

    name: str
    count: int
    connection: Any
    client: Any
    addresses: list[Address] = field(default_factory=list)
    #: Seconds by name of the address, and rows on its page.
    seconds: dict[str, list[float]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def use(self) -> None:
        """Use this database from now on, by its open connection."""
        from django.db import DEFAULT_DB_ALIAS, connections

        connections[DEFAULT_DB_ALIAS] = self.connection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--rows", type=int, default=ROWS, help=f"records (default: {ROWS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument(
        "--requests", type=int, default=REQUESTS, help=f"of each address in a round (default: {REQUESTS})"
    )
    parser.add_argument("--no-exports", dest="exports", action="store_false", help="leave exports out")


def run(options: argparse.Namespace) -> Report:
    """Measure on PostgreSQL."""
    require_space((options.rows + FEW_ROWS) * BYTES_PER_ROW)
    report = Report(
        f"Console: {options.rows:,} records against {FEW_ROWS:,}, and against Django's ModelAdmin"
    )
    with ExitStack() as stack:
        home = stack.enter_context(folder())
        # Filling the tables does not wait for the disk.
        server = stack.enter_context(postgresql({"fsync": "off"}))
        report.versions = {server.version: ""}
        first = server.create("many")
        os.environ.update(Project(database=first, archive=str(home / "archive")).environment())
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.console_settings"
        set_up()
        many = _make(server, "many", first, options.rows, YEARS)
        stack.callback(many.connection.close)
        few = _make(server, "few", server.create("few"), FEW_ROWS, FEW_YEARS)
        stack.callback(few.connection.close)
        _compare_sizes(report, few, many, options)
        _compare_with_rival(report, many, options)
        if options.exports:
            _compare_exports(report, many)
    return report


# --- databases ----------------------------------------------------------------------------------------


def _make(server: DatabaseServer, name: str, entry: dict[str, Any], count: int, years: float) -> Side:
    """A filled database, and a client of a superuser."""
    from django.contrib.auth import get_user_model
    from django.db import DEFAULT_DB_ALIAS, connections
    from django.test import Client

    from django_faceprint.devtools import sample_data

    use_database(entry)
    sessions.migrate()
    began = time.monotonic()
    # Every face has its thumbnail, as in production: a page of faces is what takes longest.
    sample_data.fill(
        count,
        years=years,
        thumbnails=count,
        progress=lambda done: print(f"{name}: {done.sessions:,}", end="\r", flush=True),
    )
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        # As autovacuum does some time after: a list reads indexes alone only then.
        cursor.execute("VACUUM ANALYZE")
    print(f"{server.version}: {count:,} records filled in {time.monotonic() - began:.0f} s", flush=True)
    side = Side(name, count, connections[DEFAULT_DB_ALIAS], Client())
    side.client.force_login(get_user_model().objects.create_superuser("operator"))
    side.addresses = _addresses(side.client)
    return side


def _addresses(client: Any) -> list[Address]:
    """The addresses for the database in use."""
    from django_faceprint.devtools import sample_data
    from django_faceprint.models import Plan

    rows = sample_data.sample_records().order_by("-pk")
    known = {
        "plan": str(Plan.objects.order_by("plan_id").values_list("pk", flat=True)[0]),
        "reference": rows.values_list("reference", flat=True)[0],
    }
    found = [
        _page(PAGES, "first page", ""),
        _page(PAGES, "the page after it", _linked(client, "", "next")),
        _page(PAGES, "deepest page", _linked(client, "", "last")),
        _page(PAGES, "deepest page, all time", _linked(client, "created=all", "last")),
        _page(PAGES, f"{TURNED} pages on, all time", _turned(client, "created=all")),
    ]
    for group, queries in ((ALONE, FILTERS_ALONE), (COMBINED, FILTERS_COMBINED), (ALL_TIME, OVER_ALL_TIME)):
        found += [_page(group, query, query.format(**known)) for query in queries]
    return [*found, *_lookups(), *_records()]


def _page(group: str, name: str, query: str) -> Address:
    return Address(group, name, lambda client: client.get(f"{LIST}?{query}"))


def _linked(client: Any, query: str, relation: str) -> str:
    """The query of the link with that ``rel`` on a page of the list; that of the page where it has none."""
    page = client.get(f"{LIST}?{query}").content.decode()
    for tag in re.findall(r"<a\b[^>]*>", page):
        if re.search(rf'rel="{relation}"', tag) and (target := re.search(r'href="\?([^"]*)"', tag)):
            return unescape(target[1])
    return query


def _turned(client: Any, query: str) -> str:
    for _ in range(TURNED):
        query = _linked(client, query, "next")
    return query


def _lookups() -> list[Address]:
    """Posted texts that find one record each, and many that find many."""
    from django.db.models import Count

    from django_faceprint.devtools import sample_data
    from django_faceprint.models import UpstreamCall

    rows = (
        sample_data.sample_records().filter(erased_at=None, plan__plan_id="99250001").exclude(number_index="")
    )
    newest = rows.order_by("-pk")
    once = rows.values("number_index").annotate(count=Count("pk")).filter(count=1)
    indexes = set(newest.values_list("number_index", flat=True)[:50])
    single = once.filter(number_index__in=indexes)[0]["number_index"]
    row = newest.filter(number_index=single)[0]
    call = UpstreamCall.objects.filter(session=row).exclude(log_id="").first()
    pasted = "\n".join(newest.values_list("reference", flat=True)[:PASTED])
    texts = {
        "reference": row.reference,
        "session ID": str(row.public_id),
        "ID number": row.known_number,
        "name": row.known_name,
        "verify_token": row.verify_token,
        "log_id": call.log_id if call else "1900000000000000000",
        f"{PASTED} references": pasted,
        "nothing that is there": "fill-no-such-record",
    }
    return [Address(LOOKUP, name, _asking(str(text))) for name, text in texts.items()]


def _asking(text: str) -> Callable[[Any], Any]:
    return lambda client: client.post(f"{LIST}lookup/", {"q": text})


def _records() -> list[Address]:
    """Pages of records whose files and calls are alike in both databases."""
    from django_faceprint.clock import now
    from django_faceprint.devtools import sample_data

    recent = sample_data.sample_records().filter(
        plan__plan_id="99250001",
        erased_at=None,
        created_at__range=(now() - timedelta(days=6), now() - timedelta(days=1)),
    )
    chosen = {
        "passed": recent.filter(verdict="passed", archive_state="complete", is_demoted=False),
        "failed": recent.filter(verdict="failed", archive_state="complete"),
        "expired": recent.filter(verdict="expired", error_class=""),
    }
    found = []
    for name, rows in chosen.items():
        pk = rows.order_by("-pk").values_list("pk", flat=True).first()
        if pk is not None:
            found.append(Address(DETAIL, name, _opening(f"{LIST}{pk}/change/")))
    return found


def _opening(url: str) -> Callable[[Any], Any]:
    return lambda client: client.get(url)


# --- measuring ----------------------------------------------------------------------------------------


def _timed(side: Side, address: Address) -> tuple[float, Any]:
    began = time.perf_counter()
    answer = address.ask(side.client)
    took = time.perf_counter() - began
    if answer.status_code not in (200, 302):
        raise AssertionError(f"{address.key}: the console answered {answer.status_code}.")
    return took, answer


def _measure(sides: Sequence[Side], options: argparse.Namespace) -> None:
    """Request every address that all sides have, alternating between the sides."""
    by_key: dict[str, list[tuple[Side, Address]]] = {}
    for side in sides:
        for address in side.addresses:
            by_key.setdefault(address.key, []).append((side, address))
    shared = {key: turns for key, turns in by_key.items() if len(turns) == len(sides)}
    # The first round warms what is cold.
    for number in range(options.rounds + 1):
        for key, turns in shared.items():
            for side, address in turns if number % 2 else reversed(turns):
                side.use()
                for _ in range(options.requests if number else 1):
                    took, answer = _timed(side, address)
                    side.rows[key] = answer.content.count(b'name="_selected_action"')
                    if number:
                        side.seconds.setdefault(key, []).append(took)
        print(f"round {number}/{options.rounds}", end="\r", flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that *share* of *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def seconds_per_row(side: Side) -> float:
    """The time of one more row on a page: the median of the full page against that of the emptiest one."""
    full = f"{PAGES}: first page"
    empty = min(
        (key for key in side.seconds if key.startswith((ALONE, COMBINED))), key=lambda key: side.rows[key]
    )
    more = side.rows[full] - side.rows[empty]
    difference = statistics.median(side.seconds[full]) - statistics.median(side.seconds[empty])
    return max(difference / more, 0.0) if more > 0 else 0.0


def _compare_sizes(report: Report, few: Side, many: Side, options: argparse.Namespace) -> None:
    _measure([few, many], options)
    per_row = seconds_per_row(few)
    ratios: dict[str, dict[str, float]] = {}
    table = []
    for address in many.addresses:
        key = address.key
        if key not in many.seconds:
            continue
        small, large = few.seconds[key], many.seconds[key]
        missing = max(many.rows[key] - few.rows[key], 0)
        middle = statistics.median(large) / (statistics.median(small) + missing * per_row)
        ratio = percentile(large, 0.95) / (percentile(small, 0.95) + missing * per_row)
        ratios.setdefault(address.group, {})[address.name] = ratio
        table.append(
            [
                address.group,
                address.name,
                f"{few.rows[key]} / {many.rows[key]}",
                _both(small),
                _both(large),
                f"{statistics.median(large) / statistics.median(small):.2f}",
                f"{percentile(large, 0.95) / percentile(small, 0.95):.2f}",
                f"{middle:.2f}",
                f"{ratio:.2f}",
            ]
        )
    report.table(
        f"Milliseconds at {few.count:,} and {many.count:,} records: p50 / p95 of "
        f"{options.rounds * options.requests}",
        [
            *("", "", "rows", f"{few.count:,}", f"{many.count:,}"),
            "p50",
            "p95",
            "normalised p50",
            "normalised p95",
        ],
        table,
    )
    for group, by_name in ratios.items():
        worst = max(by_name, key=lambda name: by_name[name])
        report.goals.append(
            Goal(f"{group}: the worst p95 ({worst})", Spread.of([by_name[worst]]), at_most=MAX_RATIO)
        )
        report.goals.append(Goal(f"{group}: p95, all", Spread.of(list(by_name.values())), at_most=MAX_RATIO))
    report.notes.append(
        f"One more row takes {per_row * 1000:.2f} ms; the normalised ratios add that to the small side for\n"
        "each row that its page lacks. Opening a record writes the entry of the access log."
    )
    report.figures["sizes"] = {
        side.name: {"rows": side.rows, "seconds": side.seconds} for side in (few, many)
    }


def _both(values: Sequence[float]) -> str:
    return f"{statistics.median(values) * 1000:.1f} / {percentile(values, 0.95) * 1000:.1f}"


def _compare_with_rival(report: Report, many: Side, options: argparse.Namespace) -> None:
    """The list against Django's, in turns on the large database."""
    many.use()
    ours = {"default (last 7 days)": LIST, "all time": f"{LIST}?created=all"}
    theirs = {
        "first page": RIVAL,
        "a filter (verdict=failed)": f"{RIVAL}?verdict__exact=failed",
        "deepest page": f"{RIVAL}?p={_last_page_of_rival(many)}",
    }
    seconds: dict[str, list[float]] = {}
    for number in range(options.rounds + 1):
        contestants = [*ours.items(), *theirs.items()]
        for name, url in contestants if number % 2 else reversed(contestants):
            side = "ours" if name in ours else "ModelAdmin"
            took, _ = _timed(many, Address("rival", name, _opening(url)))
            # The first round warms the caches.
            if number:
                seconds.setdefault(f"{side}: {name}", []).append(took)
    report.table(
        f"Milliseconds at {many.count:,} records, the same columns on a page of the same size: p50 / p95",
        ["", "ms"],
        [[name, _both(values)] for name, values in seconds.items()],
    )
    rival = seconds["ModelAdmin: first page"]
    for name in ours:
        gains = [slow / quick for slow, quick in zip(rival, seconds[f"ours: {name}"], strict=True)]
        report.goals.append(Goal(f"list, {name}: ModelAdmin / ours", Spread.of(gains), at_least=MIN_GAIN))
    report.figures["rival"] = seconds


def _last_page_of_rival(many: Side) -> int:
    from .console_urls import RivalAdmin

    return -(-many.count // RivalAdmin.list_per_page)


# --- exports ------------------------------------------------------------------------------------------


def _compare_exports(report: Report, many: Side) -> None:
    """Peak memory of an export of all records against one of few, each in a process of its own."""
    if peak_memory() is None:
        report.notes.append("Exports are not measured: peak memory can be read on Linux only.")
        return
    from django_faceprint.devtools import sample_data

    many.use()
    keys = sample_data.sample_records().order_by("pk").values_list("pk", flat=True)
    sizes = {"few": min(EXPORTED, many.count // 2), "all": many.count}
    table = []
    for kind in ("export_csv", "export_xlsx"):
        found = {}
        for name, count in sizes.items():
            found[name] = result = run_worker(
                "benchmarks.console_export", [kind, str(keys[count - 1])], os.environ
            )
            if result["records"] != count:
                raise AssertionError(f"{result['records']} records were exported instead of {count}.")
            table.append(
                [
                    kind,
                    f"{count:,}",
                    f"{result['memory'] / 1e6:.0f}",
                    f"{result['before'] / 1e6:.0f}",
                    f"{result['bytes'] / 1e6:.0f}",
                    f"{count / result['seconds']:.0f}",
                ]
            )
        ratio = found["all"]["memory"] / found["few"]["memory"]
        name = f"{kind}: peak memory, {sizes['all']:,} records / {sizes['few']:,}"
        report.goals.append(Goal(name, Spread.of([ratio]), at_most=MAX_MEMORY))
        report.figures[kind] = found
    report.table(
        "Exports, masked, read back whole",
        ["", "records", "peak memory, MB", "of it before the start", "file, MB", "records/s"],
        table,
    )
