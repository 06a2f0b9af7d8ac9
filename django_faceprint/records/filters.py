"""The filters of the record console, for lists, jobs and links.

A selection is the checked query of an address or a stored job (``verdict=failed&created=7d``). It names no
person: ``records.lookup`` finds names and ID numbers, which never come into an address.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Exists, Max, OuterRef, Q
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from django_faceprint.base.deadlines import RESULTS_LIFE, TOKEN_LIFE
from django_faceprint.client import ErrorClass
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.models import MediaAsset, Plan, VerificationAttempt, VerificationSession
from django_faceprint.models.certificates import CERTIFICATE_TYPES
from django_faceprint.models.session import VerificationSessionQuerySet
from django_faceprint.upstream.errors import UNSAFE_MEDIA

from .at_risk import is_undecided_until

#: Values of ``created`` besides ``today`` and ``all``; and its default.
SPANS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
DEFAULT_SPAN = "7d"
#: Values of ``left``: less time than this to the deadline of evidence that is not archived.
HOURS_LEFT = {"6h": timedelta(hours=6), "24h": timedelta(hours=24), "over": timedelta(0)}
DAYS_LEFT = {"7d": timedelta(days=7), "30d": timedelta(days=30), "over": timedelta(0)}
ERROR_CLASSES = (*(kind.value for kind in ErrorClass), UNSAFE_MEDIA)
#: The largest value of ``attempts``: at least this many under one token.
MAX_ATTEMPTS = 5
MAX_TEXT_LENGTH = 100
MAX_ROWS = 500
_FIRST, _LAST = date(2000, 1, 1), date(2100, 1, 1)


@dataclass(frozen=True)
class Filter:
    """One filter.

    ``condition`` takes the text and the moment that relative times count from, and returns a condition on
    records. It raises ``ValueError`` for a text that it does not understand.
    """

    condition: Callable[[str, datetime], Q]


def _choices(column: str, allowed: Callable[[], Iterable[str]]) -> Filter:
    """One of the allowed values, or several joined by commas."""

    def condition(text: str, moment: datetime) -> Q:
        values = text.split(",")
        known = set(allowed())
        if not known.issuperset(values):
            raise ValueError(text)
        return Q(**{column: values[0]}) if len(values) == 1 else Q(**{f"{column}__in": values})

    return Filter(condition)


def _number(column: str, operation: str) -> Filter:
    def condition(text: str, moment: datetime) -> Q:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(text)
        return Q(**{f"{column}__{operation}": value})

    return Filter(condition)


def _text(lookup: str) -> Filter:
    def condition(text: str, moment: datetime) -> Q:
        if len(text) > MAX_TEXT_LENGTH or "\x00" in text:
            raise ValueError(text)
        return Q(**{lookup: text})

    return Filter(condition)


def _yes_no(if_yes: Q, if_no: Q) -> Filter:
    return Filter(lambda text, moment: {"1": if_yes, "0": if_no}[text])


def _created(text: str, moment: datetime) -> Q:
    if text == "all":
        return Q()
    if text == "today":
        return Q(created_at__gte=_start_of_day(moment))
    return Q(created_at__gte=moment - SPANS[text])


def _start_of_day(moment: datetime) -> datetime:
    return timezone.localtime(moment).replace(hour=0, minute=0, second=0, microsecond=0)


def _instant(text: str, *, end_of_day: bool) -> datetime:
    """A date in the user's time zone, or a moment with a zone of its own."""
    try:
        day = parse_date(text)
        moment = None if day else parse_datetime(text)
    except ValueError:
        day = moment = None
    if day is not None and _FIRST <= day < _LAST:
        return timezone.make_aware(datetime.combine(day + timedelta(days=end_of_day), time()))
    if moment is not None and moment.tzinfo is not None and _FIRST <= moment.date() < _LAST:
        return moment
    raise ValueError(text)


def _status(text: str, moment: datetime) -> Q:
    found = Q()
    for status in text.split(","):
        found |= VerificationSessionQuerySet.in_status(status)
    return found


def _plan(text: str, moment: datetime) -> Q:
    plans = [int(part) for part in text.split(",")]
    if not all(0 < plan < 2**63 for plan in plans):
        raise ValueError(text)
    return Q(plan__in=plans) if len(plans) > 1 else Q(plan=plans[0])


def _liveness(text: str, moment: datetime) -> Q:
    kinds = text.split(",")
    if not set(Plan.Liveness.values).issuperset(kinds):
        raise ValueError(text)
    # The keys of the few plans, so that their index serves.
    return Q(plan__in=list(Plan.objects.filter(liveness__in=kinds).values_list("pk", flat=True)))


def _certificate(text: str, moment: datetime) -> Q:
    if text not in map(str, CERTIFICATE_TYPES):
        raise ValueError(text)
    return Q(certificate_type=int(text))


def _error_class(text: str, moment: datetime) -> Q:
    kinds = ["" if kind == "none" else kind for kind in text.split(",")]
    if not {"", *ERROR_CLASSES}.issuperset(kinds):
        raise ValueError(text)
    return Q(error_class__in=kinds)


def _left(text: str, moment: datetime) -> Q:
    """The records that ``statistics.at_risk`` counts, of any environment."""
    horizon = moment + HOURS_LEFT[text]
    # No evidence waits longer than this. The bound keeps the query small, also for all time.
    waits = TOKEN_LIFE + conf.latest_grace + RESULTS_LIFE
    wanted = MediaAsset.objects.wanted().filter(deadline__lte=horizon).values("session_id")
    return Q(created_at__gte=moment - waits) & (is_undecided_until(horizon) | Q(pk__in=wanted))


def _retention(text: str, moment: datetime) -> Q:
    if text == "none":
        return Q(retain_until__isnull=True, erased_at__isnull=True)
    return Q(retain_until__lte=moment + DAYS_LEFT[text])


def _attempts(text: str, moment: datetime) -> Q:
    """At least this many attempts."""
    least = int(text)
    if not 1 <= least <= MAX_ATTEMPTS:
        raise ValueError(text)
    rows = VerificationAttempt.objects.filter(session=OuterRef("pk"))
    return Q(Exists(rows.order_by("order")[least - 1 : least]))


def _rows(text: str, moment: datetime) -> Q:
    keys = [int(part) for part in text.split(",")]
    if len(keys) > MAX_ROWS or not all(0 < key < 2**63 for key in keys):
        raise ValueError(text)
    return Q(pk__in=keys)


_HAS = {"score": Q(score__isnull=False), "deadline": Q(next_deadline__isnull=False)}

FILTERS: dict[str, Filter] = {
    "created": Filter(_created),
    "since": Filter(lambda text, moment: Q(created_at__gte=_instant(text, end_of_day=False))),
    "until": Filter(lambda text, moment: Q(created_at__lt=_instant(text, end_of_day=True))),
    "status": Filter(_status),
    "verdict": _choices("verdict", lambda: VerificationSession.Verdict.values),
    "archive_state": _choices("archive_state", lambda: VerificationSession.ArchiveState.values),
    "left": Filter(_left),
    "plan": Filter(_plan),
    "liveness": Filter(_liveness),
    "purpose": _text("purpose__exactly"),
    "reference": _text("reference__exactly"),
    "application": _choices("application", lambda: conf.applications),
    "environment": _choices("environment", lambda: VerificationSession.Environment.values),
    "certificate_type": Filter(_certificate),
    "score_min": _number("score", "gte"),
    "score_max": _number("score", "lte"),
    "liveness_min": _number("liveness_score", "gte"),
    "liveness_max": _number("liveness_score", "lte"),
    "spoofing_min": _number("spoofing_score", "gte"),
    "spoofing_max": _number("spoofing_score", "lte"),
    "error_class": Filter(_error_class),
    "error_code": _text("error_code__exactly"),
    "attempts": Filter(_attempts),
    "is_demoted": _yes_no(Q(is_demoted=True), Q(is_demoted=False)),
    "retention": Filter(_retention),
    "erased": _yes_no(Q(erased_at__isnull=False), Q(erased_at__isnull=True)),
    # Only records with a value in the sorted column; the list sets it when sorting.
    "has": Filter(lambda text, moment: _HAS[text]),
    "rows": Filter(_rows),
}
#: Filters that replace the default time range.
_OF_ALL_TIME = ("created", "since", "until", "reference", "rows")


class Selection:
    """Checked filters over records.

    :param parameters: texts by the name of their filter; empty ones are ignored.
    :param moment: the moment that relative times count from; now by default.
    :param up_to: the key of the last record that counts; later ones do not.

    ``parameters`` are those that were understood, in the order of :data:`FILTERS`; ``problems`` are the names
    of the others. A selection with problems selects nothing: without a filter it would show, export or erase
    more than was requested.
    """

    def __init__(
        self, parameters: Mapping[str, str], *, moment: datetime | None = None, up_to: int | None = None
    ) -> None:
        self.moment = moment or now()
        self.up_to = up_to
        given = {name: text.strip() for name, text in parameters.items() if text.strip()}
        self.problems = sorted(given.keys() - FILTERS.keys())
        self.parameters: dict[str, str] = {}
        self._condition = Q()
        for name, one in FILTERS.items():
            if name not in given:
                continue
            try:
                self._condition &= one.condition(given[name], self.moment)
            except (ValueError, KeyError, OverflowError, ValidationError):
                self.problems.append(name)
            else:
                self.parameters[name] = given[name]
        if not any(name in given for name in _OF_ALL_TIME):
            self._condition &= _created(DEFAULT_SPAN, self.moment)

    @property
    def span(self) -> str:
        """The name of the time range; "" where dates, references or rows replace it."""
        if "created" in self.parameters:
            return self.parameters["created"]
        return "" if any(name in self.parameters for name in _OF_ALL_TIME) else DEFAULT_SPAN

    @property
    def prefers_retention_index(self) -> bool:
        """Whether the records lie far apart by creation time, so that another index finds them faster.

        Records due to be deleted are the oldest: a search from the newest on would read all.
        """
        return self.span == "all" and self.parameters.get("retention") in DAYS_LEFT

    @property
    def condition(self) -> Q:
        """The condition on records."""
        if self.problems:
            return Q(pk__in=[])
        return self._condition if self.up_to is None else self._condition & Q(pk__lte=self.up_to)

    def queryset(self) -> VerificationSessionQuerySet:
        """The records, in no order."""
        return VerificationSession.objects.order_by().filter(self.condition)

    def frozen(self) -> Selection:
        """The same for later: relative times count from this moment, and records made later do not count."""
        parameters = dict(self.parameters)
        if parameters.get("created") == "today":
            # The day is that of the user: a worker may be in another time zone.
            del parameters["created"]
            start = _start_of_day(self.moment)
            since = _instant(parameters["since"], end_of_day=False) if "since" in parameters else start
            parameters["since"] = max(start, since).isoformat()
        for name, end_of_day in (("since", False), ("until", True)):
            if name in parameters:
                parameters[name] = _instant(parameters[name], end_of_day=end_of_day).isoformat()
        last = VerificationSession.objects.aggregate(last=Max("pk"))["last"] or 0
        frozen = Selection(parameters, moment=self.moment, up_to=last if self.up_to is None else self.up_to)
        frozen.problems = self.problems
        return frozen

    def to_json(self) -> dict[str, Any]:
        """As plain data, for a column."""
        return {
            "parameters": self.parameters,
            "moment": self.moment.isoformat(),
            "up_to": self.up_to,
            "problems": self.problems,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Selection:
        """The selection that :meth:`to_json` wrote."""
        selection = cls(
            data["parameters"], moment=datetime.fromisoformat(data["moment"]), up_to=data["up_to"]
        )
        selection.problems = sorted({*selection.problems, *data["problems"]})
        return selection
