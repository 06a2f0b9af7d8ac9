"""The large numbers of the dashboard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext, ngettext

from django_faceprint.models import VerificationSession
from django_faceprint.records import rollups

from . import labels
from .charts import grouped, percent

Verdict = VerificationSession.Verdict
ArchiveState = VerificationSession.ArchiveState


@dataclass(frozen=True)
class Figure:
    """One number in large type; ``url`` leads to the records behind it, "" where there is no such list."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    url: str = ""


def verification_figures(counts: rollups.Counts, records: Callable[..., str]) -> list[Figure]:
    """How many started and passed. ``records(**filters)`` is the address of a list of records."""
    passed = counts.of(rollups.VERDICT, Verdict.PASSED)
    finished = passed + counts.of(rollups.VERDICT, Verdict.FAILED)
    pending = counts.of(rollups.VERDICT, Verdict.PENDING)
    demoted = counts.of(rollups.DEMOTED)
    return [
        Figure(
            gettext("Started"),
            grouped(counts.all_of(rollups.VERDICT)),
            ngettext("%(count)s is pending", "%(count)s are pending", pending) % {"count": grouped(pending)},
            url=records(),
        ),
        Figure(
            gettext("Pass rate"),
            percent(passed, finished) or labels.EMPTY,
            gettext("%(passed)s of %(finished)s who finished")
            % {"passed": grouped(passed), "finished": grouped(finished)},
            url=records(verdict=Verdict.PASSED),
        ),
        Figure(
            gettext("Demoted to recorded video"),
            grouped(demoted),
            percent(demoted, finished),
            url=records(is_demoted="1"),
        ),
    ]


def archive_figures(counts: rollups.Counts, records: Callable[..., str]) -> list[Figure]:
    """What waits to be archived, what was archived in time, and what was not."""
    complete, lost, partial = (
        counts.of(rollups.ARCHIVE, state)
        for state in (ArchiveState.COMPLETE, ArchiveState.LOST, ArchiveState.PARTIAL)
    )
    missing, late = lost + partial, counts.of(rollups.LATE)
    on_time, known = complete - late, complete + missing
    outlook, has_stock = counts.stock.get(rollups.OUTLOOK, {}), counts.stock_hour is not None
    files, risky = outlook.get("files", 0), outlook.get("at_risk", 0)
    spare = timedelta(seconds=outlook.get("tolerable_outage", 0))
    return [
        Figure(
            gettext("Backlog"),
            grouped(files) if has_stock else labels.EMPTY,
            ngettext(
                "file to archive; %(risky)s records near their deadline",
                "files to archive; %(risky)s records near their deadline",
                files,
            )
            % {"risky": grouped(risky)},
            tone="bad" if risky else "",
            url=records(created="all", archive_state=ArchiveState.COLLECTING),
        ),
        Figure(
            gettext("Until the first loss"),
            labels.duration(spare) if has_stock else labels.EMPTY,
            gettext("if all workers stopped now"),
            tone="bad" if has_stock and spare < labels.URGENT else "",
            url=records(created="all", left="6h"),
        ),
        Figure(
            gettext("Archived in time"),
            percent(on_time, known) or labels.EMPTY,
            gettext("%(count)s of %(total)s") % {"count": grouped(on_time), "total": grouped(known)},
            tone="warn" if late or missing else "",
            url=records(archive_state=ArchiveState.COMPLETE),
        ),
        Figure(
            gettext("Not archived in time"),
            grouped(missing),
            gettext("%(count)s of them in part") % {"count": grouped(partial)},
            tone="bad" if missing else "good",
            url=records(archive_state=ArchiveState.PARTIAL if partial and not lost else ArchiveState.LOST),
        ),
    ]


def storage_figures(counts: rollups.Counts, storage: rollups.Storage) -> list[Figure]:
    """How much is stored, and how much is deleted soon."""
    text = ngettext("%(count)s file", "%(count)s files", storage.files)
    retention = counts.stock.get(rollups.RETENTION, {})
    due, overdue = retention.get("due", 0), retention.get("overdue", 0)
    more = "+" if due > rollups.MAX_DUE else ""
    return [
        Figure(
            gettext("Storage used"), filesizeformat(storage.bytes), text % {"count": grouped(storage.files)}
        ),
        Figure(
            gettext("Deleted in the next 7 days"),
            f"{grouped(min(due, rollups.MAX_DUE))}{more}",
            gettext("overdue: %(count)s") % {"count": grouped(overdue)},
            tone="bad" if overdue else "",
        ),
    ]
