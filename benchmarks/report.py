"""A benchmark's results: figures with their spread, ratios beside their goals, as a table or as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spread:
    """The median, minimum and maximum of several rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.least)}–{_short(self.most)})"


@dataclass(frozen=True)
class Goal:
    """A promised figure with its lower or upper limit."""

    name: str
    value: Spread
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "×"

    @property
    def is_met(self) -> bool:
        """The median decides."""
        return (self.at_least is None or self.value.median >= self.at_least) and (
            self.at_most is None or self.value.median <= self.at_most
        )

    def cells(self) -> list[str]:
        """A row of the table."""
        goal = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        return [
            self.name,
            f"{self.value}{self.unit}",
            f"{goal}{self.unit}",
            "met" if self.is_met else "MISSED",
        ]


@dataclass
class Report:
    """One command's findings."""

    title: str
    versions: dict[str, str] = field(default_factory=dict)
    tables: list[tuple[str, list[str], list[list[str]]]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table of texts."""
        self.tables.append((title, list(head), [list(row) for row in rows]))

    def text(self) -> str:
        """All of it, for a terminal."""
        parts = [f"{self.title}\n{', '.join(self._surroundings())}"]
        tables = list(self.tables)
        if self.goals:
            tables.append(
                ("Goals", ["figure", "measured", "goal", ""], [goal.cells() for goal in self.goals])
            )
        parts += [f"{title}\n{_aligned(head, rows)}" for title, head, rows in tables]
        parts += self.notes
        return "\n\n".join(parts) + "\n"

    def write_json(self, path: Path) -> None:
        """The same with every single figure, for a machine."""
        goals = [{**asdict(goal), "is_met": goal.is_met} for goal in self.goals]
        document = {
            "title": self.title,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "surroundings": self._surroundings(),
            "goals": goals,
            "figures": self.figures,
            "notes": self.notes,
        }
        path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def _surroundings(self) -> list[str]:
        import django

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        load = os.getloadavg()[0]
        return [
            datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            f"{cores} cores (load {load:.1f})",
            f"Python {platform.python_version()}",
            f"Django {django.__version__}",
            *(f"{name} {version}".strip() for name, version in self.versions.items()),
        ]


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
