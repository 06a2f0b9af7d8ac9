"""The simulation: memory gives what the database gives, its optimum is one, and a bad order keeps less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import outage
from benchmarks.catching_up import CatchingUp, DatabaseTable, MemoryTable, Setting, first_come
from benchmarks.optimum import moore_hodgson
from benchmarks.outage import Scenario

VISIT_SECONDS = 2.0
SCENARIOS: dict[str, Callable[[], list[Scenario]]] = {
    "not enough time": lambda: outage.asked_in_vain(150, left=(60, 200)),
    "sessions go on starting": lambda: (
        outage.asked_in_vain(80, left=(60, 200)) + outage.arrivals(40, within=200, never=0.1)
    ),
}


def setting(scenarios: list[Scenario], factor: float) -> Setting:
    return Setting(outage.enough(scenarios, VISIT_SECONDS) * factor, VISIT_SECONDS, 2, 2)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", SCENARIOS)
def test_memory_gives_what_the_real_claims_give(name: str, clock: Any) -> None:
    scenarios = SCENARIOS[name]()
    given = setting(scenarios, 0.8)
    real = CatchingUp(scenarios, DatabaseTable(), given).run()
    twin = CatchingUp(scenarios, MemoryTable(), given).run()
    assert real.kept == twin.kept
    assert real.turns == twin.turns
    assert real.hours == twin.hours


@pytest.mark.parametrize("factor", [1.0, 0.7, 0.3])
def test_the_optimum_of_a_backlog_is_moore_and_hodgsons(factor: float) -> None:
    scenarios = outage.backlog(2000)
    rate = outage.enough(scenarios, VISIT_SECONDS) * factor
    deadlines = [scenario.gone["media"] - VISIT_SECONDS for scenario in scenarios if scenario.records]
    assert outage.most(scenarios, "media", rate=rate, visit_seconds=VISIT_SECONDS) == moore_hodgson(
        (1 / rate, deadline) for deadline in deadlines
    )


def test_all_is_kept_at_the_least_rate_and_something_is_lost_below_it() -> None:
    scenarios = outage.backlog(2000)
    rate = outage.enough(scenarios, VISIT_SECONDS)
    recorded = sum(scenario.records for scenario in scenarios)
    assert outage.most(scenarios, "media", rate=rate * 1.001, visit_seconds=VISIT_SECONDS) == recorded
    assert outage.most(scenarios, "media", rate=rate * 0.99, visit_seconds=VISIT_SECONDS) < recorded


def test_the_engine_is_close_to_the_optimum_where_first_come_first_served_is_not(clock: Any) -> None:
    scenarios = outage.asked_in_vain(4000, left=(60, 4000))
    given = setting(scenarios, 0.9)
    best = outage.most(scenarios, "media", rate=given.rate, visit_seconds=VISIT_SECONDS)
    ours = CatchingUp(scenarios, MemoryTable(), given).run()
    naive = CatchingUp(scenarios, MemoryTable(first_come), given).run()
    assert 0.99 * best <= ours.kept["media"] <= best
    assert naive.kept["media"] < 0.8 * best
