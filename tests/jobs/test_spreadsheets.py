"""CSV and XLSX, read with the csv module of the standard library and with openpyxl."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import openpyxl
import pytest

from django_faceprint.jobs import spreadsheets
from django_faceprint.jobs.spreadsheets import CSV, XLSX, Cell, Format, Piece, guarded
from django_faceprint.jobs.zipping import zipped

HEAD = ["业务单号", "log_id", "分数", "时间", "通过"]
#: Without a zone, as spreadsheets show them.
PAID, LEAP = datetime.fromisoformat("2026-03-02T16:00:01"), datetime.fromisoformat("2024-02-29T23:59:59")
ROWS: list[list[Cell]] = [
    ["ORDER-1", "1390123456789012345", 84.4321, PAID, True],
    ["欧阳𠮷", "11010519491231002X", None, None, False],
    ['say "hi", all', "007", 0.0, LEAP, None],
]


def file_of(form: Format, rows: Sequence[Sequence[Cell]], *, size: int = 2) -> bytes:
    """The file of *rows*, written in pieces of *size*."""
    pieces = []
    for start in range(0, len(rows), size):
        data = form.rows(rows[start : start + size], before=start)
        pieces.append(Piece(len(rows[start : start + size]), partial(iter, [data[:7], data[7:]])))
    return b"".join(form.file(HEAD, pieces))


def sheet_of(data: bytes) -> list[list[Any]]:
    book = openpyxl.load_workbook(io.BytesIO(data))
    return [[cell.value for cell in row] for sheet in book for row in sheet.iter_rows()]


def test_csv_keeps_chinese_and_every_digit() -> None:
    data = file_of(CSV(), ROWS)
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    assert rows == [
        HEAD,
        ["ORDER-1", "\t1390123456789012345", "84.4321", "2026-03-02 16:00:01", "True"],
        ["欧阳𠮷", "11010519491231002X", "", "", "False"],
        ['say "hi", all', "\t007", "0.0", "2024-02-29 23:59:59", ""],
    ]


def test_xlsx_keeps_types_and_every_digit() -> None:
    assert sheet_of(file_of(XLSX(), ROWS)) == [
        HEAD,
        ["ORDER-1", "1390123456789012345", 84.4321, PAID, True],
        ["欧阳𠮷", "11010519491231002X", None, None, False],
        ['say "hi", all', "007", 0, LEAP, None],
    ]


def test_texts_of_xlsx_stay_texts_when_edited() -> None:
    book = openpyxl.load_workbook(io.BytesIO(file_of(XLSX(), ROWS)))
    cell = book.active["B2"]
    assert (cell.data_type, cell.number_format, cell.quotePrefix) == ("s", "@", True)
    assert book.active.freeze_panes == "A2"


@pytest.mark.parametrize("form", [CSV(), XLSX()])
def test_a_file_without_rows_has_a_head(form: Format) -> None:
    data = b"".join(form.file(HEAD, []))
    rows = (
        sheet_of(data)
        if form.extension == "xlsx"
        else list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    )
    assert rows == [HEAD]


def test_a_full_sheet_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheets, "ROWS_OF_SHEET", 4)
    data = file_of(XLSX(), [[f"{number}"] for number in range(10)])
    book = openpyxl.load_workbook(io.BytesIO(data))
    found = [[row[0].value for row in sheet.iter_rows()] for sheet in book]
    assert found == [
        [HEAD[0], "0", "1", "2", "3"],
        [HEAD[0], "4", "5", "6", "7"],
        [HEAD[0], "8", "9"],
    ]


FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "＝1+1",
    "＋1",
    "－1",
    "＠SUM",
    "\t=1+1",
    "\r\n=1+1",
    " =1+1",
    "\u3000=1+1",
    "\ufeff=1+1",
    "\u200b=1+1",
    "\x00=1+1",
    "'=1+1",
    "|calc",
    "%0A=1",
    '=HYPERLINK("http://evil","x")',
    "=cmd|' /C calc'!A0",
    "a\n=1+1",
    'a",=1+1,"',
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula(text: str) -> None:
    for form, read in ((CSV(), _csv_rows), (XLSX(), sheet_of)):
        rows = read(b"".join(form.file(["x"], [Piece(1, partial(iter, [form.rows([[text]], before=0)]))])))
        assert len(rows) == 2
        assert len(rows[1]) == 1
        shown = str(rows[1][0])
        assert "\n" not in shown
        assert not shown.lstrip(" \t\r\n\u3000\u200b\ufeff\x00").startswith(tuple("=+-@|%＝＋－＠"))


def _csv_rows(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_other_texts_stay_as_they_are() -> None:
    for text in ("ORDER-1", "a=b", "–", "张*", "110***********002X", "12:30"):
        assert guarded(text) == text


def test_characters_that_xml_forbids_are_replaced() -> None:
    text = "a\x00b\x1fc\ud800d\uffffe<&>\"'f]]>"
    (row,) = sheet_of(
        b"".join(XLSX().file([], [Piece(1, partial(iter, [XLSX().rows([[text]], before=0)]))]))
    )[1:]
    assert row == ["a\ufffdb\ufffdc\ufffdd\ufffde<&>\"'f]]>"]


def test_a_zip_file_is_streamed() -> None:
    """A piece is no larger than what was put in since the piece before."""
    read = 0

    def chunks() -> Iterable[bytes]:
        nonlocal read
        for number in range(200):
            read += 1
            yield bytes([number]) * 65_536

    data = b""
    for piece in zipped([(zipfile.ZipInfo("a"), chunks()), (zipfile.ZipInfo("ä/b.txt"), [b"end"])]):
        assert len(piece) <= 200_000
        assert read * 65_536 - len(data) - len(piece) <= 200_000
        data += piece
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.read("a") == b"".join(chunks())
        assert archive.read("ä/b.txt") == b"end"
