"""How much evidence the engine's order of work saves after an outage: ``python -m benchmarks.ordering``.

Media live for 24 hours, nothing could be fetched for 20, and then the account's rate limit leaves barely
enough, not quite enough or far too little time. A session is one job: a visit calls each interface once,
which takes one slot of the rate limit, and then downloads for some seconds. A piece of evidence is kept when
the visit ends before Baidu deletes it. Baidu deletes as early as its documents allow: media 24 hours and
results 72 hours after the token was issued.

Yardsticks
----------
A session has several deadlines, and one visit saves all that is still there. The optimum therefore counts
pieces, not sessions, and it is given twice:

- For each kind alone, the most sessions whose piece of that kind any schedule can save (Moore and Hodgson,
  for jobs of equal length; Glover's form of it where sessions are not all there from the beginning). No
  schedule keeps more of any kind, and this one knows everything in advance.
- For the pieces together, a bound that no schedule exceeds: the sum of these numbers, or the bound by linear
  programming duality where that is less.

Both ignore the face of result/simple, which lasts two hours or three days: Baidu's documents disagree. The
engine assumes two hours, so that young sessions come first. The simulation cannot say whether that is right;
the tables show the kept faces in a column of their own, as if Baidu deleted them after two hours.

First come, first served and random order go through the same simulator, with the same claims.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catching_up import Order, Outcome
    from .outage import Scenario

VISIT_SECONDS = 2.0
#: How long a visit waits for its turn when all places are taken: none is free when a turn comes up.
SPARE_SECONDS = 5.0
PROCESSES = 3
ENOUGH = (("barely enough", 1.001), ("not quite enough", 0.95), ("far too little", 0.4))


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and print tables in Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ordering", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--sessions", type=int, default=50_000, help="sessions in memory (50000)")
    parser.add_argument("--million", action="store_true", help="also simulate 1,000,000 sessions in memory")
    parser.add_argument(
        "--rows",
        type=int,
        nargs="*",
        default=[],
        help="also on a real database, with these numbers of sessions",
    )
    parser.add_argument(
        "--database",
        default="",
        help="where: postgres://… or mysql://…; SQLite in a temporary file by default",
    )
    parser.add_argument(
        "--rate", type=float, default=20.0, help="sessions per second for --rows, not quite enough (20)"
    )
    parser.add_argument("--no-memory", action="store_true", help="only --rows and --million")
    options = parser.parse_args(arguments)
    set_up(options.database)
    if not options.no_memory:
        compare_orders(options.sessions)
    if options.million:
        print_million()
    if options.rows:
        compare_costs(options.rows, options.rate)


def set_up(database: str) -> None:
    """Set Django up with a clock that the simulation moves."""
    if database:
        os.environ["FACEPRINT_TEST_DATABASE"] = database
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from django.conf import settings

    settings.FACEPRINT = {**settings.FACEPRINT, "CLOCK": "tests.clock.now"}


# --- orders ---------------------------------------------------------------------------------------


def compare_orders(count: int) -> None:
    """Our order, first come first served and random, after each outage."""
    for title, scenarios, least in outages(count):
        print(f"\n{title}\n")
        print(
            "| time | order | media kept | of the optimum | results | faces "
            "| media and results, of the bound | with faces, of the bound |"
        )
        print("|---|---|---:|---:|---:|---:|---:|---:|")
        for label, factor in ENOUGH:
            compare_at(scenarios, label, least * factor)


def outages(count: int) -> list[tuple[str, list[Scenario], float]]:
    """Title, sessions and the rate at which all their media can just be kept."""
    from . import outage

    down = outage.asked_in_vain(count)
    idle = outage.backlog(count)
    busy = outage.backlog(count * 3 // 4) + outage.arrivals(count // 4)
    return [
        (
            f"Baidu was down: {count:,} sessions from the hours before, 30 minutes to 4 hours left",
            down,
            outage.enough(down, VISIT_SECONDS),
        ),
        (
            f"Our workers were down: {count:,} sessions from all 20 hours, 4 to 24 hours left",
            idle,
            outage.enough(idle, VISIT_SECONDS),
        ),
        (
            f"The same, and sessions go on starting: {len(busy):,}, a quarter of them afterwards",
            busy,
            outage.enough(busy, VISIT_SECONDS),
        ),
    ]


def compare_at(scenarios: Sequence[Scenario], label: str, rate: float) -> None:
    """Print the rows of one rate."""
    from . import outage
    from .catching_up import MemoryTable, first_come, in_random_order

    limit: dict[str, Any] = {"rate": rate, "visit_seconds": VISIT_SECONDS}
    best = outage.most(scenarios, "media", **limit)
    sure = outage.most_together(scenarios, outage.SURE, **limit)
    together = outage.most_together(scenarios, (*outage.SURE, "face"), **limit)
    orders: list[tuple[str, Order | None]] = [("ours", None)]
    if label == "not quite enough":
        orders += [("first come", first_come), ("random", in_random_order(5))]
    for name, order in orders:
        kept = simulate(scenarios, MemoryTable(order), rate).kept
        certain = kept["media"] + kept["results"]
        print(
            f"| {label} ({rate:.2f}/s) | {name} | {kept['media']:,} | {percent(kept['media'], best)} "
            f"| {kept['results']:,} | {kept['face']:,} | {percent(certain, sure)} "
            f"| {percent(certain + kept['face'], together)} |",
            flush=True,
        )


def simulate(scenarios: Sequence[Scenario], table: Any, rate: float) -> Outcome:
    """Catch up at *rate* with the workers of this benchmark."""
    from .catching_up import CatchingUp, Setting

    # Enough places for the downloads of all visits that begin meanwhile, and a few more.
    places = max(1, round(rate * (VISIT_SECONDS + SPARE_SECONDS)))
    processes = min(PROCESSES, places)
    return CatchingUp(
        scenarios, table, Setting(rate, VISIT_SECONDS, processes, -(-places // processes))
    ).run()


def print_million() -> None:
    """A million sessions with not quite enough time."""
    from . import outage
    from .catching_up import MemoryTable

    scenarios = outage.asked_in_vain(1_000_000)
    rate = outage.enough(scenarios, VISIT_SECONDS) * 0.95
    began = time.perf_counter()
    kept = simulate(scenarios, MemoryTable(), rate).kept
    seconds = time.perf_counter() - began
    best = outage.most(scenarios, "media", rate=rate, visit_seconds=VISIT_SECONDS)
    print(
        f"\n1,000,000 sessions in memory, not quite enough time ({rate:.2f}/s): media of {kept['media']:,} "
        f"kept, {percent(kept['media'], best)} of the optimum; {seconds:.0f} s"
    )


def percent(part: int, whole: int) -> str:
    """With two decimals, rounded down: 100 % means all."""
    return f"{int(10_000 * part / whole) / 100:.2f} %" if whole else "-"


# --- costs ----------------------------------------------------------------------------------------


def compare_costs(counts: Sequence[int], rate: float) -> None:
    """The same on the real tables, with the time of the queue's statements."""
    from django.db import connection

    print(f"\nThrough the real claims on {connection.vendor}, not quite enough time\n")
    print("| sessions | media kept | in memory | optimum | waking | claiming | writing | all, per session |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for count in counts:
        name = connection.settings_dict["NAME"]
        connection.creation.create_test_db(verbosity=0, autoclobber=True)
        try:
            print_cost(count, rate)
        finally:
            connection.creation.destroy_test_db(name, verbosity=0)


def print_cost(count: int, rate: float) -> None:
    """Print one row: milliseconds of database time per session."""
    from . import outage
    from .catching_up import DatabaseTable, MemoryTable

    # About the same rate is enough for any number of sessions.
    scenarios = outage.asked_in_vain(count, left=(60.0, 60.0 + count * outage.RECORDED / rate))
    rate = outage.enough(scenarios, VISIT_SECONDS) * 0.95
    outcome = simulate(scenarios, DatabaseTable(), rate)
    twin = simulate(scenarios, MemoryTable(), rate)
    best = outage.most(scenarios, "media", rate=rate, visit_seconds=VISIT_SECONDS)
    spent = outcome.cost.seconds
    each = [1000 * seconds / count for seconds in (spent["promote"], spent["claim"], spent["commit"])]
    print(
        f"| {count:,} | {outcome.kept['media']:,} | {twin.kept['media']:,} | {best:,} | "
        + " | ".join(f"{value:.2f} ms" for value in each)
        + f" | {1000 * sum(spent.values()) / count:.2f} ms |",
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
