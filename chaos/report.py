"""The verdict on the run and the control run, and a table of their figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .storage import KINDS
from .upstream import fault_names

Figures = Mapping[str, Any]

#: Share of all answers that must be faults, and of the files left after the outage that must be urgent.
FAULT_SHARE = (0.17, 0.23)
URGENT_SHARE = 0.30
#: There must be one fault of each kind for every n people.
PEOPLE_PER_FAULT = 500
#: There must be one kill for every n seconds of work, and n kills during urgent work.
SECONDS_PER_KILL = 10
URGENT_KILLS = 3
WORKING_PHASES = ("day", "rescue", "aftermath")


def problems(run: Figures, control: Figures) -> list[str]:
    """Every reason why the verdict does not hold, as text."""
    found = [f"by deadline: {problem}" for problem in (*_of_findings(run), *_of_faults(run))]
    if run["findings"]["lost"]:
        found.append(
            f"by deadline: {run['findings']['lost']} files were lost that could still have been fetched"
        )
    found += [f"by arrival: {problem}" for problem in _of_findings(control)]
    if not control["findings"]["lost"]:
        found.append("by arrival: nothing was lost, so that the run by deadline proves nothing")
    return found


def _of_findings(run: Figures) -> list[str]:
    """Problems that no order of work explains."""
    findings = run["findings"]
    found = [
        f"{findings[name]} {text}"
        for name, text in (
            ("duplicates", "duplicates"),
            ("half", "files that cannot be read back whole"),
            ("wrong_hash", "files with a wrong hash"),
            ("orphans", "files in storage that nothing refers to"),
            ("missing_files", "rows that refer to no file"),
            ("strangers", "sessions that are missing here or in the sandbox"),
            ("wrong_verdicts", "wrong verdicts"),
            ("unfinished", "sessions that did not come to an end"),
        )
        if findings[name]
    ]
    if not findings["expected"]:
        found.append("there was nothing to archive")
    found += [f"the engine logged a bug: {bug}" for bug in run["engine_bugs"]]
    if run["throttled_by_us"]:
        found.append(f"{run['throttled_by_us']} times the engine exceeded the upstream's rate")
    if not FAULT_SHARE[0] <= run["faults"] / max(run["answers"], 1) <= FAULT_SHARE[1]:
        found.append(f"{run['faults']} of {run['answers']} answers were faults")
    if run["urgent_after_outage"] < URGENT_SHARE * max(run["left_after_outage"], 1):
        share = f"{run['urgent_after_outage']} of {run['left_after_outage']}"
        found.append(f"only {share} files were urgent after the outage")
    return found


def _of_faults(run: Figures) -> list[str]:
    """Faults, kills and restarts that did not happen often enough."""
    minimum = max(run["people"] // PEOPLE_PER_FAULT, 1)
    found = [
        f"only {run['faults_by_kind'].get(name, 0)} faults of the kind {name}, not {minimum}"
        for name in fault_names()
        if run["faults_by_kind"].get(name, 0) < minimum
    ]
    found += [
        f"only {run['storage_faults'].get(kind, 0)} failures of storage of the kind {kind}, not {minimum}"
        for kind in KINDS
        if run["storage_faults"].get(kind, 0) < minimum
    ]
    kills = run["kills"]
    worked = sum(run["phases"][name] for name in WORKING_PHASES)
    if (kills["children"] + kills["whole"]) * SECONDS_PER_KILL < worked or not kills["whole"]:
        found.append(f"only {kills['children']} + {kills['whole']} kills in {worked:.0f} s")
    if run["urgent_kills_at_work"] < URGENT_KILLS:
        found.append(f"only {run['urgent_kills_at_work']} workers were killed during urgent work")
    if run["broker_wipes"] < 2 or not run["messages_wiped"]:
        found.append(f"{run['broker_wipes']} wipes of the broker took {run['messages_wiped']} messages")
    if run["database_restarts"] < 3:
        found.append(f"only {run['database_restarts']} restarts of the database")
    return found


def table(run: Figures, control: Figures) -> str:
    """Both runs side by side."""
    rows = [("", "by deadline", "by arrival")]
    for label, value in _ROWS:
        rows.append((label, value(run), value(control)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{label:<{widths[0]}}  {first:>{widths[1]}}  {second:>{widths[2]}}" for label, first, second in rows
    )


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


_ROWS: tuple[tuple[str, Any], ...] = (
    ("people", lambda run: str(run["people"])),
    ("files in the ledger", lambda run: str(run["findings"]["expected"])),
    ("files archived", lambda run: str(run["findings"]["archived"])),
    ("lost", lambda run: str(run["findings"]["lost"])),
    ("duplicates", lambda run: str(run["findings"]["duplicates"])),
    ("half files", lambda run: str(run["findings"]["half"])),
    ("wrong hashes", lambda run: str(run["findings"]["wrong_hash"])),
    (
        "orphans, missing files",
        lambda run: f"{run['findings']['orphans']}, {run['findings']['missing_files']}",
    ),
    (
        "wrong verdicts, unfinished",
        lambda run: f"{run['findings']['wrong_verdicts']}, {run['findings']['unfinished']}",
    ),
    ("left after the outage", lambda run: str(run["left_after_outage"])),
    (
        "… with less than 30 min left",
        lambda run: _share(run["urgent_after_outage"], run["left_after_outage"]),
    ),
    ("… until the last of them expires", lambda run: f"{run['urgent_minutes']:.1f} min"),
    ("… of which remained", lambda run: f"{max(run['minutes_to_spare'], 0):.1f} min"),
    ("time per upstream answer", lambda run: f"{run['seconds_per_answer']:.3f} s"),
    ("upstream answers", lambda run: str(run["answers"])),
    ("… that were faults", lambda run: _share(run["faults"], run["answers"])),
    ("failures of storage", lambda run: str(sum(run["storage_faults"].values()))),
    ("kill -9: child, whole worker", lambda run: f"{run['kills']['children']}, {run['kills']['whole']}"),
    ("… during a task, an urgent one", lambda run: f"{run['kills_at_work']}, {run['urgent_kills_at_work']}"),
    ("broker wipes, database restarts", lambda run: f"{run['broker_wipes']}, {run['database_restarts']}"),
    ("uncommitted uploads deleted", lambda run: str(run["uploads_swept"])),
    ("seconds", lambda run: f"{run['seconds']:.0f}"),
    ("CPU seconds of all processes", lambda run: f"{run['cpu_seconds']:.0f}"),
)
