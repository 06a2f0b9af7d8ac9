"""``rotation``: all rows under new keys, in a process of its own: time and peak memory.

Two databases on PostgreSQL, the second with ten times as many rows. The rounds alternate between two pairs
of encryption and index keys, so that each seals every row anew; no row may be left under the old keys. The
memory before the start is reported beside the peak.
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from dataclasses import replace

from . import sessions
from .project import Project, set_up, use_database
from .report import Goal, Report, Spread
from .servers import postgresql
from .workspace import Missing, answer, measured, peak_memory, run_worker, wait_for_go

ROWS = 100_000
TIMES = 10
#: Rows of one record: itself, three files and an answer.
ROWS_PER_RECORD = 5
BATCH = 500
GOAL = 1.1
KEYS = ((1, 3), (2, 4))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--rows", type=int, default=ROWS, help=f"of the larger database (default: {ROWS})")
    parser.add_argument("--rounds", type=int, default=3, help="of both sizes (default: 3)")


def run(options: argparse.Namespace) -> Report:
    """Measure."""
    if peak_memory() is None:
        raise Missing("The peak memory of a process can be read on Linux only.")
    report = Report("Rotation: every row under new keys")
    sizes = (options.rows // TIMES, options.rows)
    found: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    with ExitStack() as stack:
        server = stack.enter_context(postgresql())
        report.versions = {server.version: ""}
        project = Project(database=server.create(), archive="")
        project.set_up()
        projects = {}
        for size in sizes:
            projects[size] = replace(project, database=server.create(f"rows_{size}"))
            use_database(projects[size].database)
            sessions.migrate()
            _fill(size)
        use_database(project.database)
        for number in range(options.rounds):
            for size in sizes:
                result = _rotate(projects[size], number)
                if result["changed"] != size or result["left"]:
                    raise AssertionError(f"{result['changed']:.0f} of {size} rows were rotated.")
                found[size].append(result)
                print(
                    f"round {number + 1}/{options.rounds}  {size:8} rows  {result['seconds']:7.1f} s",
                    flush=True,
                )
    report.table(
        f"Medians of {options.rounds} rounds (least–most)",
        ["rows", "peak memory, MB", "of it before the start", "rows/s"],
        [
            [
                f"{size:,}",
                str(Spread.of([item["memory"] / 1e6 for item in results])),
                str(Spread.of([item["before"] / 1e6 for item in results])),
                str(Spread.of([size / item["seconds"] for item in results])),
            ]
            for size, results in found.items()
        ],
    )
    small, large = (found[size] for size in sizes)
    ratios = [one["memory"] / other["memory"] for one, other in zip(large, small, strict=True)]
    report.goals.append(
        Goal(f"peak memory, {sizes[1]:,} rows / {sizes[0]:,} rows", Spread.of(ratios), at_most=GOAL)
    )
    report.figures = {f"{size} rows": results for size, results in found.items()}
    return report


def _rotate(project: Project, number: int) -> dict[str, float]:
    """Rotate in a fresh process that knows both keys of each ring, the new one first."""
    encryption, index = (keys if number % 2 else keys[::-1] for keys in KEYS)
    there = replace(project, encryption_keys=encryption, index_keys=index)
    return run_worker("benchmarks.rotation", [], there.environment())


def _fill(rows: int) -> None:
    """Insert *rows* rows, a fifth of them records, sealed and indexed by the product."""
    from django_faceprint.evidence.answers import content_index
    from django_faceprint.models import MediaAsset, UpstreamAnswer, VerificationSession
    from django_faceprint.privacy.blind_index import blind_index
    from django_faceprint.privacy.files import new_file_key, wrap_file_key

    plan = sessions.plan()
    kinds = (MediaAsset.Kind.FACE, MediaAsset.Kind.VIDEO, MediaAsset.Kind.FRAME)
    body = json.dumps({"result": {"note": "x" * 1500}})
    body_index = content_index(body)

    def record(number: int) -> VerificationSession:
        token = f"benchmarkToken{number:010d}"
        return VerificationSession(
            environment="sandbox",
            plan=plan,
            application="default",
            verify_token=token,
            verify_token_index=blind_index("verify_token", token),
            identity_name="张三丰",
            identity_number="11010519491231002X",
            name_index=blind_index("name", "张三丰"),
            number_index=blind_index("id_number", "11010519491231002X"),
            ocr={"name": "张三丰", "address": "x" * 60},
            confirmed={"name": "张三丰", "number": "11010519491231002X"},
            verdict="passed",
        )

    def files(session: VerificationSession) -> list[MediaAsset]:
        made = [
            MediaAsset(session=session, kind=kind, source="result_simple", state="stored") for kind in kinds
        ]
        for asset in made:
            asset.wrapped_key = wrap_file_key(new_file_key(), asset.public_id)
        return made

    for first in range(0, rows // ROWS_PER_RECORD, BATCH):
        last = min(first + BATCH, rows // ROWS_PER_RECORD)
        made = VerificationSession.objects.bulk_create(record(number) for number in range(first, last))
        MediaAsset.objects.bulk_create(asset for session in made for asset in files(session))
        UpstreamAnswer.objects.bulk_create(
            UpstreamAnswer(session=session, endpoint="result_detail", body=body, body_index=body_index)
            for session in made
        )


def main() -> None:
    """Wait for "go", rotate, answer."""
    set_up()
    from django.db import connection

    from django_faceprint.maintenance.rotation import rotate_keys

    connection.ensure_connection()
    wait_for_go()
    before = peak_memory()

    def work() -> dict[str, int]:
        report = rotate_keys()
        return {"changed": report.changed.total(), "broken": len(report.broken)}

    result = measured(work)
    left = result["broken"] + rotate_keys(dry_run=True).changed.total()
    answer({**result, "before": before, "left": left})


if __name__ == "__main__":
    main()
