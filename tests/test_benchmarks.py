"""The benchmarks' own tools: figures, logs and plans are read correctly."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import claims, plain, statements, upstream
from benchmarks.report import Goal, Report, Spread
from django_faceprint.evidence import files
from django_faceprint.evidence.media_types import MP4, describe_image, describe_video
from django_faceprint.privacy.files import EncryptingStream
from tests.factories import image_bytes, make_asset, make_passed_session


def test_the_median_decides_whether_a_goal_is_met() -> None:
    values = Spread.of([0.1, 0.3, 0.9])
    assert (values.median, values.least, values.most) == (0.3, 0.1, 0.9)
    assert Goal("quick", values, at_least=0.3).is_met
    assert not Goal("quick", values, at_least=0.31).is_met
    assert Goal("small", values, at_most=0.3).is_met
    assert not Goal("small", values, at_most=0.29).is_met


def test_a_missed_goal_is_reported_in_text_and_json(tmp_path: Path) -> None:
    report = Report("A title")
    report.goals.append(Goal("ratio", Spread.of([0.2]), at_least=0.25))
    assert "≥ 0.25×  MISSED" in report.text()
    report.write_json(tmp_path / "report.json")
    (goal,) = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["goals"]
    assert goal["is_met"] is False


def test_the_product_accepts_the_served_files(tmp_path: Path) -> None:
    hashes = upstream._write_files(tmp_path, upstream.VIDEO_BYTES)
    video = tmp_path / upstream.VIDEO
    assert video.stat().st_size == upstream.VIDEO_BYTES
    with video.open("rb") as content:
        assert describe_video(content).content_type == MP4
    for name in (upstream.FACE, *upstream.FRAME_NAMES):
        picture = (tmp_path / name).read_bytes()
        assert abs(len(picture) - upstream.PICTURE_BYTES) < 0.03 * upstream.PICTURE_BYTES
        assert describe_image(io.BytesIO(picture)).width > 100
    assert len(set(hashes)) == len(hashes) == 8
    assert hashlib.sha256(video.read_bytes()).hexdigest() in hashes
    for name in ("detail", "getall"):
        assert len((tmp_path / name).read_bytes()) > 2 * upstream.CARD_BYTES


@pytest.mark.django_db
@pytest.mark.parametrize("encrypted", [True, False])
def test_only_the_cipher_of_files_is_replaced(encrypted: bool) -> None:
    """Else the ratio would be that of two different products."""
    asset = make_asset(make_passed_session(), "face")
    data = image_bytes()
    with plain.files(encrypted=encrypted):
        columns = files.write_checked(asset, f"benchmark/{asset.public_id}", [data])
        for name, value in columns.items():
            setattr(asset, name, value)
        with files.open_stored(asset) as reader:
            assert reader.read() == data
            assert b"".join(reader.iter_range(10, 99)) == data[10:99]
    with files.storage().open(asset.stored_name) as file:
        assert (file.read() == data) != encrypted
    assert (asset.sha256, asset.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert files.EncryptingStream is EncryptingStream


def test_statements_are_counted_by_verb_and_table(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = [
        'engine|LOG:  statement: SELECT 1 FROM "before"',
        "engine|LOG:  statement: BEGIN",
        'engine|LOG:  statement: UPDATE "faceprint_asset" SET "a" = (SELECT 1 FROM "b")',
        "a second line of it: statement: DELETE",
        'engine|LOG:  execute _pg3_0: SELECT "x"."y" FROM "x"',
        'other|LOG:  statement: DELETE FROM "x"',
        "engine|ERROR:  deadlock detected",
        "engine|LOG:  statement: COMMIT",
    ]
    log.write_text("\n".join(lines), encoding="utf-8")
    assert statements._kinds(log, len(lines[0])) == {
        "BEGIN, COMMIT and the like": 2,
        "UPDATE faceprint_asset": 1,
        "SELECT x": 1,
    }


class Cursor:
    """Answers what a database would."""

    def __init__(self, *rows: Any, columns: tuple[str, ...] = ()) -> None:
        self.rows = list(rows)
        self.description = [(name,) for name in columns]

    def execute(self, sql: str, params: Any) -> None:
        assert sql.startswith("EXPLAIN")

    def fetchone(self) -> Any:
        return self.rows[0]

    def fetchall(self) -> list[Any]:
        return self.rows


@pytest.mark.parametrize("node", ["Seq Scan", "Sort"])
def test_a_plan_that_reads_the_table_on_postgresql_is_refused(node: str) -> None:
    index = {"Node Type": "Index Scan", "Index Name": "by_time"}
    good = Cursor(([{"Plan": {"Node Type": "Limit", "Plans": [index]}}],))
    bad = Cursor(([{"Plan": {"Node Type": "Limit", "Plans": [index, {"Node Type": node}]}}],))
    plan = claims._explained_by_postgresql(good, "SELECT 1 FOR UPDATE SKIP LOCKED", ())
    assert (plan.verb, plan.indexes, plan.bad) == ("SELECT … FOR UPDATE", ("by_time",), ())
    claims._check([plan])
    with pytest.raises(AssertionError, match=node):
        claims._check([claims._explained_by_postgresql(bad, "SELECT 1", ())])


@pytest.mark.parametrize(
    ("kind", "key", "extra"), [("ALL", None, ""), ("range", "by_time", "Using where; Using filesort")]
)
def test_a_plan_that_reads_the_table_on_mariadb_is_refused(kind: str, key: str | None, extra: str) -> None:
    columns = ("table", "type", "key", "Extra")
    good = Cursor(("sessions", "range", "by_time", "Using where"), columns=columns)
    bad = Cursor(("sessions", kind, key, extra), columns=columns)
    nothing = Cursor((None, None, None, "Impossible WHERE"), columns=columns)
    plans = [claims._explained_by_mariadb(cursor, "UPDATE x", ()) for cursor in (good, nothing)]
    assert [plan.indexes for plan in plans] == [("by_time",), ()]
    claims._check(plans)
    with pytest.raises(AssertionError):
        claims._check([claims._explained_by_mariadb(bad, "UPDATE x", ())])


def test_no_explained_statement_is_an_error() -> None:
    with pytest.raises(AssertionError, match="explained"):
        claims._check([])
