"""The fault suite's verdict: every kind of damage is found, and nothing else."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from chaos.report import problems, table
from chaos.storage import KINDS
from chaos.upstream import fault_names, fault_rules
from chaos.verdict import ArchivedSession, Findings, StoredFile, judge
from django_faceprint.sandbox.faults import Rule

FACE = StoredFile("face", 0, 0, "aa/face", "hash-of-face", "hash-of-face")
VIDEO = StoredFile("video", 0, 0, "bb/video", "hash-of-video", "hash-of-video")
ARCHIVED = ArchivedSession("day-1", "passed", "complete", (FACE, VIDEO), (1,))
LEDGER: dict[str, Any] = {
    "sessions": [
        {
            "verify_token": "token",
            "attempts": [{"order": 1, "code": "0", "passed": True, "at": "2026-01-01T00:00:00+00:00"}],
            "assets": [
                {"kind": "face", "sha256": "hash-of-face", "served": 1},
                {"kind": "video", "sha256": "hash-of-video", "served": 2},
            ],
        }
    ]
}
DISK = ["aa/face", "bb/video"]
EXPECTED = {"day-1": "passed"}


def judged(archived: ArchivedSession, disk: list[str] = DISK, ledger: dict[str, Any] = LEDGER) -> Findings:
    return judge(ledger, {"token": archived}, disk, EXPECTED)


def test_a_complete_archive_has_no_findings() -> None:
    findings = judged(ARCHIVED)
    assert (findings.expected, findings.archived, findings.lost, findings.broken) == (2, 2, 0, 0)
    assert (findings.served, findings.examples) == (3, [])


def test_a_lost_file_is_one_finding() -> None:
    findings = judged(replace(ARCHIVED, files=(FACE,)), ["aa/face"])
    assert (findings.lost, findings.losers, findings.broken) == (1, ["day-1"], 0)
    assert findings.examples == ["lost: day-1: video, fetched 2 times"]


TWICE = replace(VIDEO, name="cc/again")


@pytest.mark.parametrize(
    ("archived", "disk", "kind"),
    [
        (replace(ARCHIVED, files=(FACE, VIDEO, TWICE)), [*DISK, "cc/again"], "duplicates"),
        (
            replace(ARCHIVED, files=(FACE, VIDEO, replace(TWICE, digest="x", sha256="x", name="bb/video"))),
            DISK,
            "duplicates",
        ),
        (replace(ARCHIVED, attempts=(1, 1)), DISK, "duplicates"),
        (replace(ARCHIVED, attempts=(1, 2)), DISK, "duplicates"),
        (replace(ARCHIVED, files=(FACE, replace(VIDEO, digest=None))), DISK, "half"),
        (replace(ARCHIVED, files=(FACE, replace(VIDEO, digest="other"))), DISK, "wrong_hash"),
        (replace(ARCHIVED, files=(FACE, replace(VIDEO, digest="other", sha256="other"))), DISK, "wrong_hash"),
        (ARCHIVED, [*DISK, "dd/left-over"], "orphans"),
        (ARCHIVED, ["aa/face"], "missing_files"),
        (replace(ARCHIVED, verdict="failed"), DISK, "wrong_verdicts"),
        (replace(ARCHIVED, outstanding=True), DISK, "unfinished"),
    ],
)
def test_all_other_damage_is_found(archived: ArchivedSession, disk: list[str], kind: str) -> None:
    findings = judged(archived, disk)
    assert getattr(findings, kind) == 1
    assert findings.broken


def test_sessions_missing_here_or_in_the_sandbox_are_found() -> None:
    unknown = judge({"sessions": []}, {"token": ARCHIVED}, DISK, EXPECTED)
    assert unknown.strangers == 1
    missing = judge(LEDGER, {}, [], EXPECTED)
    assert (missing.strangers, missing.unfinished) == (1, 1)
    unused = {"sessions": [{"verify_token": "lost on its way", "attempts": [], "assets": []}]}
    assert judge(unused, {}, [], {}).broken == 0
    assert judge(unused, {}, [], {}).tokens_never_received == 1


def test_one_person_has_one_session() -> None:
    twin = copy.deepcopy(LEDGER["sessions"][0]) | {"verify_token": "second", "assets": []}
    ledger = {"sessions": [*LEDGER["sessions"], twin]}
    findings = judge(ledger, {"token": ARCHIVED, "second": replace(ARCHIVED, files=())}, DISK, EXPECTED)
    assert findings.duplicates == 1


# --- the report -----------------------------------------------------------------------------------


def figures(**changes: Any) -> dict[str, Any]:
    """The figures of a run with enough faults and without damage."""
    findings = {name: value for name, value in vars(judged(ARCHIVED)).items() if not name.startswith("_")}
    return {
        "order": "deadline",
        "people": 5000,
        "seconds": 400.0,
        "cpu_seconds": 500.0,
        "phases": {"day": 100.0, "rescue": 100.0, "aftermath": 20.0},
        "answers": 10_000,
        "faults": 2_000,
        "faults_by_kind": dict.fromkeys(fault_names(), 10),
        "throttled_by_us": 0,
        "storage_faults": dict.fromkeys(KINDS, 10),
        "kills": {"children": 30, "whole": 10},
        "kills_at_work": 20,
        "urgent_kills_at_work": 10,
        "engine_bugs": [],
        "broker_wipes": 2,
        "messages_wiped": 7,
        "database_restarts": 3,
        "left_after_outage": 1000,
        "urgent_after_outage": 400,
        "urgent_minutes": 26.0,
        "minutes_to_spare": 3.0,
        "seconds_per_answer": 0.02,
        "uploads_swept": 5,
        "findings": findings,
        **changes,
    }


def lossy(lost: int) -> dict[str, Any]:
    return figures()["findings"] | {"lost": lost}


def test_the_verdict_holds_only_if_the_control_run_loses_something() -> None:
    assert problems(figures(), figures(findings=lossy(3))) == []
    assert problems(figures(), figures()) == [
        "by arrival: nothing was lost, so that the run by deadline proves nothing"
    ]
    (problem,) = problems(figures(findings=lossy(1)), figures(findings=lossy(3)))
    assert problem == "by deadline: 1 files were lost that could still have been fetched"


@pytest.mark.parametrize(
    "changes",
    [
        {"faults": 1_000},
        {"faults_by_kind": dict.fromkeys(fault_names(), 10) | {"hang": 0}},
        {"storage_faults": dict.fromkeys(KINDS, 10) | {"half": 0}},
        {"kills": {"children": 5, "whole": 1}},
        {"kills": {"children": 50, "whole": 0}},
        {"urgent_kills_at_work": 0},
        {"broker_wipes": 1},
        {"messages_wiped": 0},
        {"database_restarts": 2},
        {"urgent_after_outage": 299},
        {"engine_bugs": ["session pk 1: unexpected KeyError at somewhere:1"]},
        {"throttled_by_us": 1},
    ],
)
def test_a_run_with_too_few_faults_fails(changes: dict[str, Any]) -> None:
    (problem,) = problems(figures(**changes), figures(findings=lossy(3)))
    assert problem.startswith("by deadline: ")


@pytest.mark.parametrize(
    "kind",
    [
        "duplicates",
        "half",
        "wrong_hash",
        "orphans",
        "missing_files",
        "strangers",
        "wrong_verdicts",
        "unfinished",
    ],
)
def test_damage_in_the_control_run_fails(kind: str) -> None:
    damaged = figures(findings=lossy(3) | {kind: 1})
    (problem,) = problems(figures(), damaged)
    assert problem.startswith("by arrival: 1 ")


def test_the_table_has_both_runs() -> None:
    lines = table(figures(), figures(people=1200, findings=lossy(37))).splitlines()
    assert lines[0].split() == ["by", "deadline", "by", "arrival"]
    assert [line.split()[-2:] for line in lines if line.startswith(("people", "lost"))] == [
        ["5000", "1200"],
        ["0", "37"],
    ]


# --- the faults -----------------------------------------------------------------------------------


def test_the_sandbox_understands_every_rule() -> None:
    rules = [Rule.of_json(rule) for rule in fault_rules(0.2)]
    assert {rule.endpoint for rule in rules} >= {"result_detail", "media", "simple_image", "oauth_token"}


@pytest.mark.parametrize("endpoint", ["result_detail", "result_getall", "media", "verify_token_generate"])
def test_one_answer_in_five_is_a_fault(endpoint: str) -> None:
    regular = 1.0
    for rule in fault_rules(0.2):
        if rule["endpoint"] == endpoint and "count" not in rule:
            regular *= 1 - rule["probability"]
    assert regular == pytest.approx(0.8)
