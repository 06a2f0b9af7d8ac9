"""The charts of the dashboard: SVG without text, so that they fit any width, each with a table behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from django.utils.formats import date_format, number_format
from django.utils.timezone import localtime
from django.utils.translation import gettext

from django_faceprint.models import VerificationSession
from django_faceprint.records import rollups

from . import labels

Verdict = VerificationSession.Verdict

VERDICT_TONES = {
    Verdict.PASSED: "good",
    Verdict.FAILED: "bad",
    Verdict.EXPIRED: "quiet",
    Verdict.UNKNOWN: "warn",
    Verdict.PENDING: "busy",
}
_FINISHED = (Verdict.PASSED, Verdict.FAILED)


@dataclass(frozen=True)
class Shape:
    """A rectangle of a chart that is 100 high."""

    x: float
    y: float
    width: float
    height: float
    tone: str


@dataclass(frozen=True)
class Chart:
    """Shapes, vertical ``lines``, the texts below (``marks``) and at the ``top``, and the same as a table.

    ``legend`` names the colours: text and tone.
    """

    title: str
    description: str
    width: float
    shapes: list[Shape]
    marks: list[str]
    head: list[str]
    rows: list[list[str]]
    top: str
    lines: list[float] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)


class VerdictsByTime:
    """The verdicts of each step of *span*, by its beginning in the reader's time zone."""

    def __init__(self, counts: rollups.Counts, span: rollups.Span) -> None:
        self._step = span.step
        steps: dict[datetime, Counter[str]] = {}
        for number in range(span.hours):
            hour = counts.since + number * rollups.HOUR
            begin = localtime(hour)
            if span.step > 1:
                begin = begin.replace(hour=begin.hour // span.step * span.step, minute=0)
            steps.setdefault(begin, Counter()).update(counts.verdicts.get(hour, {}))
        self._steps = list(steps.items())

    @property
    def rate_chart(self) -> Chart:
        """Passed of finished; a step in which nobody finished has no mark."""
        shapes, rows = [], []
        for place, (begin, found) in enumerate(self._steps):
            passed, failed = found[Verdict.PASSED], found[Verdict.FAILED]
            if passed + failed:
                height = 0.96 * share(passed, passed + failed)
                shapes.append(Shape(place + 0.1, 98 - height, 0.8, 2.6, "mark"))
                shapes.append(Shape(place + 0.1, 100 - height, 0.8, height, "area"))
            rate = percent(passed, passed + failed) or labels.EMPTY
            rows.append([self._time(begin), rate, grouped(passed), grouped(failed)])
        return Chart(
            title=gettext("Pass rate"),
            description=gettext("Of those who finished, by the time at which the verification was started."),
            width=len(self._steps),
            shapes=shapes,
            marks=self._marks,
            head=[gettext("Time"), gettext("Pass rate"), *(str(verdict.label) for verdict in _FINISHED)],
            rows=rows,
            top="100 %",
        )

    @property
    def volume_chart(self) -> Chart:
        """Started verifications by verdict."""
        columns = {self._time(begin): found for begin, found in self._steps}
        title, description = gettext("Verifications"), gettext("Started verifications by verdict.")
        return _columns(title, description, gettext("Time"), columns, tuple(VERDICT_TONES), self._marks)

    def _time(self, begin: datetime) -> str:
        return date_format(begin, "Y-m-d" if self._step == 24 else "m-d H:i")

    @property
    def _marks(self) -> list[str]:
        """Five times, evenly spread."""
        last = len(self._steps) - 1
        shown = [self._steps[round(place * last / 4)][0] for place in range(5)]
        return [date_format(begin, "H:i" if self._step == 1 else "m-d") for begin in shown]


def score_chart(found: dict[str, int], thresholds: Iterable[float]) -> Chart | None:
    """Similarity in steps of five, with lines for the thresholds; None when nothing was compared."""
    if not found:
        return None
    step = 100 // rollups.SCORE_BUCKETS
    buckets = [Counter[str]() for _ in range(rollups.SCORE_BUCKETS)]
    for key, count in found.items():
        verdict, _separator, place = key.partition(rollups.SEPARATOR)
        buckets[int(place)][verdict] += count
    return _columns(
        gettext("Similarity scores"),
        gettext("Scores in steps of five; the line is the threshold of the plan."),
        gettext("Score"),
        {f"{place * step}–{(place + 1) * step}": bucket for place, bucket in enumerate(buckets)},
        _FINISHED,
        ["0", "20", "40", "60", "80", "100"],
        [threshold / step for threshold in thresholds],
    )


def _columns(
    title: str,
    description: str,
    unit: str,
    columns: dict[str, Counter[str]],
    verdicts: tuple[Verdict, ...],
    marks: list[str],
    lines: Iterable[float] = (),
) -> Chart:
    """A chart with one column of *verdicts*, the first at the bottom, for each of *columns*."""
    most = max((sum(found[verdict] for verdict in verdicts) for found in columns.values()), default=0)
    shapes = []
    for place, found in enumerate(columns.values()):
        top = 100.0
        for verdict in verdicts:
            if found[verdict]:
                height = 96 * found[verdict] / most
                top -= height
                tone = VERDICT_TONES[verdict]
                shapes.append(Shape(place + 0.12, round(top, 3), 0.76, round(height, 3), tone))
    return Chart(
        title=title,
        description=description,
        width=len(columns),
        shapes=shapes,
        marks=marks,
        head=[unit, *(str(verdict.label) for verdict in verdicts)],
        rows=[[name, *(grouped(found[verdict]) for verdict in verdicts)] for name, found in columns.items()],
        top=grouped(most),
        lines=list(lines),
        legend=[(str(verdict.label), VERDICT_TONES[verdict]) for verdict in verdicts],
    )


def share(count: int, total: int) -> float:
    """*count* of *total* in percent, 0 to 100."""
    return round(100 * count / total, 2) if total else 0.0


def percent(count: int, total: int) -> str:
    """A share as text, "" of nothing; only all is 100 %, and only none is 0 %."""
    if not total:
        return ""
    value = 100 * count / total
    if 0 < count < total:
        value = min(max(value, 0.1), 99.9)
    return f"{labels.number(round(value, 1))} %"


def grouped(value: int) -> str:
    """A number with separators between thousands."""
    return number_format(value, use_l10n=True, force_grouping=True)
