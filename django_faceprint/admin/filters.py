"""The bar of filters above the record list: its fields, and the chips of those in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext, ngettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from django_faceprint.conf import conf
from django_faceprint.models import Plan, VerificationSession
from django_faceprint.models.certificates import CERTIFICATE_TYPES
from django_faceprint.records.filters import DEFAULT_SPAN, MAX_ATTEMPTS, MAX_TEXT_LENGTH, Selection

from . import labels

Choices = Iterable[tuple[str, Any]]

SPANS: dict[str, Promise] = {
    "today": _("today"),
    "24h": _("last 24 hours"),
    "7d": _("last 7 days"),
    "30d": _("last 30 days"),
    "all": _("all time"),
}
HOURS_LEFT: dict[str, Promise] = {
    "6h": _("less than 6 hours"),
    "24h": _("less than 24 hours"),
    "over": pgettext_lazy("time left to a deadline", "overdue"),
}
DAYS_LEFT: dict[str, Promise] = {
    "7d": _("ends within 7 days"),
    "30d": _("ends within 30 days"),
    "over": pgettext_lazy("retention", "is over"),
    "none": _("no end set"),
}
#: Fields that are always in sight; the others come after "More filters".
_IN_SIGHT = ("status", "archive_state", "left", "plan", "error_class")
_NAMES: dict[str, Promise] = {
    "created": _("created"),
    "since": _("from"),
    "until": _("to"),
    "status": _("status"),
    "verdict": _("verdict"),
    "archive_state": _("archive"),
    "left": _("time left"),
    "plan": _("plan"),
    "liveness": _("liveness"),
    "purpose": _("purpose"),
    "reference": _("reference"),
    "application": _("application"),
    "environment": _("environment"),
    "certificate_type": _("document"),
    "score_min": _("similarity from"),
    "score_max": _("similarity to"),
    "liveness_min": _("liveness score from"),
    "liveness_max": _("liveness score to"),
    "spoofing_min": _("synthetic picture from"),
    "spoofing_max": _("synthetic picture to"),
    "error_class": _("error"),
    "error_code": _("error code"),
    "attempts": _("attempts"),
    "is_demoted": _("demoted"),
    "retention": _("retention"),
    "erased": _("erased"),
    "has": _("has"),
    "rows": _("chosen records"),
}
_NUMBERS = frozenset(
    {"score_min", "score_max", "liveness_min", "liveness_max", "spoofing_min", "spoofing_max"}
)
_YES_NO: dict[str, Promise] = {"1": _("yes"), "0": _("no")}


@dataclass(frozen=True)
class Field:
    """A field of the bar. ``options`` of a choice are (value, text); none for what is typed."""

    name: str
    label: str
    value: str
    options: list[tuple[str, str]] | None = None
    is_number: bool = False
    is_date: bool = False

    @property
    def longest(self) -> int:
        return MAX_TEXT_LENGTH


@dataclass(frozen=True)
class Chip:
    """A filter in use, and the address of the list without it."""

    label: str
    text: str
    url_without: str


@dataclass(frozen=True)
class Span:
    """A time range, and the address of the list with it."""

    text: str
    url: str
    is_current: bool


class FilterBar:
    """What the bar shows for *selection*. ``url`` makes the address of the list with other parameters:
    it takes a mapping of those to change, with None for those to leave out."""

    def __init__(self, selection: Selection, url: Callable[[dict[str, str | None]], str]) -> None:
        self._values = selection.parameters
        plans = Plan.objects.order_by("plan_id").values_list("pk", "name", "plan_id")
        at_least = gettext("%(count)d or more")
        self._choices: dict[str, Choices] = {
            "created": SPANS.items(),
            "status": VerificationSession.Status.choices,
            "verdict": VerificationSession.Verdict.choices,
            "archive_state": VerificationSession.ArchiveState.choices,
            "left": HOURS_LEFT.items(),
            "plan": [(str(pk), f"{name} ({plan_id})") for pk, name, plan_id in plans],
            "liveness": Plan.Liveness.choices,
            "application": [(alias, alias) for alias in conf.applications],
            "environment": VerificationSession.Environment.choices,
            "certificate_type": [(str(kind), name) for kind, name in CERTIFICATE_TYPES.items()],
            "error_class": [("none", _("no error")), *labels.ERROR_CLASSES.items()],
            "attempts": [(str(least), at_least % {"count": least}) for least in range(1, MAX_ATTEMPTS + 1)],
            "is_demoted": _YES_NO.items(),
            "retention": DAYS_LEFT.items(),
            "has": [("score", _("a score")), ("deadline", _("something outstanding"))],
            "erased": _YES_NO.items(),
        }
        shown = [name for name in _NAMES if name not in ("created", "has", "rows")]
        self.fields = [self._field(name) for name in shown if name in _IN_SIGHT]
        self.more_fields = [self._field(name) for name in shown if name not in _IN_SIGHT]
        self.has_more_in_use = any(field.value for field in self.more_fields)
        self.chips = [
            Chip(str(_NAMES[name]), self._describe(name, value), url({name: None}))
            for name, value in self._values.items()
            if name != "created"
        ]
        self.span = selection.span
        self.chosen_span = self._values.get("created", "")
        others = {"since": None, "until": None}
        self.spans = [
            Span(
                str(text),
                url({"created": None if span == DEFAULT_SPAN else span, **others}),
                span == self.span,
            )
            for span, text in SPANS.items()
        ]
        self.is_default = not self.chips and self.span == DEFAULT_SPAN

    def _field(self, name: str) -> Field:
        value = self._values.get(name, "")
        options = None
        if name in self._choices:
            options = [(key, str(text)) for key, text in self._choices[name]]
            if value and value not in dict(options):
                # Several at once, which an address can ask for.
                options.append((value, self._describe(name, value)))
        return Field(
            name=name,
            label=str(_NAMES[name]),
            value=value,
            options=options,
            is_number=name in _NUMBERS,
            is_date=name in ("since", "until") and (not value or len(value) == len("2026-01-01")),
        )

    def _describe(self, name: str, value: str) -> str:
        if name == "rows":
            count = value.count(",") + 1
            return ngettext("%(count)d record", "%(count)d records", count) % {"count": count}
        if name not in self._choices:
            return value
        texts = {key: str(text) for key, text in self._choices[name]}
        return gettext(", ").join(texts.get(part, part) for part in value.split(","))


def names_of(parameters: Iterable[str]) -> list[str]:
    """What filters are called; unknown ones as they were written, cut to a readable length."""
    return [str(_NAMES.get(name, name[:30])) for name in parameters]
