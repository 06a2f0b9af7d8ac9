"""The published calls per session are those of the present engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import calls
from benchmarks.calls import Bench
from django_faceprint.models import Plan

DOCS = Path(__file__).resolve().parents[2] / "docs"


def published(language: str) -> list[str]:
    """The table's lines."""
    text = (DOCS / language / "calls.md").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith("|")]


@pytest.fixture
def bench(sandbox: Any, plans: dict[str, Plan], clock: Any) -> Bench:
    sample_records = Bench(sandbox.url, plans, clock)
    calls.warm_up(sample_records)
    return sample_records


@pytest.mark.parametrize(
    ("plan_id", "outcome", "verdict"),
    [
        ("25001", "passed", "passed"),
        ("25003", "passed_500", "passed"),
        ("25004", "failed_liveness", "failed"),
        ("25005", "away", "expired"),
        ("25007", "retried", "passed"),
    ],
)
def test_the_table_has_the_engines_calls(bench: Bench, plan_id: str, outcome: str, verdict: str) -> None:
    cell = calls.measure(bench, plan_id, outcome)
    assert cell.verdict == verdict
    for language in calls.LABELS:
        assert calls.row(language, plan_id, outcome, cell) in published(language)


def test_the_table_has_every_cell_in_both_languages(bench: Bench) -> None:
    cells = [
        (plan_id, outcome) for plan_id, plan in bench.plans.items() for outcome in calls.outcomes_of(plan)
    ]
    figures = []
    for language, labels in calls.LABELS.items():
        head, _, *lines = published(language)
        assert [head, _] == calls.heading(language).splitlines()
        columns = [[column.strip() for column in line.strip("|").split("|")] for line in lines]
        assert [tuple(line[:2]) for line in columns] == [(plan, labels[outcome]) for plan, outcome in cells]
        figures.append([line[2:] for line in columns])
    assert figures[0] == figures[1]
