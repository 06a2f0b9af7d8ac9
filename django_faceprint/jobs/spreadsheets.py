"""Tables as CSV and XLSX, written in pieces and joined when the file is read, in flat memory.

Libraries for XLSX write rows to unencrypted temporary files first. Here rows become text at once, which the
caller stores encrypted. The tests read the files with openpyxl.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Protocol
from xml.sax.saxutils import escape

from .zipping import zipped

Cell = str | float | int | bool | datetime | None

#: Rows of a sheet, without its head; Excel's limit is 1,048,576. The caller makes no piece that crosses it.
ROWS_OF_SHEET = 1_000_000
# Texts that spreadsheets take for formulas, also in full width, and after characters that they drop.
_FORMULA = re.compile(r"[\s'\x00-\x1f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]*[=+\-@|%＝＋－＠]")
# Characters that XML forbids.
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_BREAKS = re.compile(r"[\r\n\t\x0b\x0c\x85\u2028\u2029]+")
#: Excel shows longer numbers in scientific notation, rounds them, and drops the zeros of "007".
_MAX_DIGITS = 11
_NUMBER = re.compile(r"[0-9]+([.,][0-9]+)?([eE][0-9]+)?")
_DAY_ZERO = datetime(1899, 12, 30)  # noqa: DTZ001  (spreadsheets have no time zones)
#: Of the members of an XLSX file, so that equal tables are equal files.
_MEMBER_DATE = (2000, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Piece:
    """Rows in a file's format: their number, and a function that reads their bytes in chunks."""

    rows: int
    chunks: Callable[[], Iterable[bytes]]


class Format(Protocol):
    """A file format: turns rows into pieces, and later the pieces into a file."""

    content_type: str
    extension: str

    def rows(self, rows: Iterable[Sequence[Cell]], *, before: int) -> bytes:
        """The bytes of a piece of *rows*, of which ``before`` others precede it."""
        ...

    def file(self, head: Sequence[str], pieces: Sequence[Piece]) -> Iterator[bytes]:
        """The bytes of the file: *head*, then the pieces."""
        ...


def guarded(text: str) -> str:
    """*text* on one line, with ``'`` before it if a spreadsheet could take it for a formula."""
    text = _BREAKS.sub(" ", text)
    return f"'{text}" if _FORMULA.match(text) else text


class CSV:
    """UTF-8 with a byte order mark, without which Excel garbles Chinese.

    CSV has no types: texts of digits that Excel would round or shorten (a log_id, an ID number) begin with a
    tab, which spreadsheets do not show and which keeps every digit.
    """

    content_type = "text/csv; charset=utf-8"
    extension = "csv"

    def rows(self, rows: Iterable[Sequence[Cell]], *, before: int) -> bytes:
        """See :class:`Format`."""
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([self._cell(cell) for cell in row] for row in rows)
        return buffer.getvalue().encode("utf-8", "replace")

    def file(self, head: Sequence[str], pieces: Sequence[Piece]) -> Iterator[bytes]:
        """See :class:`Format`."""
        yield codecs.BOM_UTF8 + self.rows([head], before=0)
        for piece in pieces:
            yield from piece.chunks()

    @staticmethod
    def _cell(cell: Cell) -> str:
        if cell is None:
            return ""
        if isinstance(cell, datetime):
            return cell.isoformat(sep=" ", timespec="seconds")
        if not isinstance(cell, str):
            return str(cell)
        text = guarded(cell)
        would_change = len(text) > _MAX_DIGITS or text.startswith("0") or "e" in text.lower()
        return f"\t{text}" if would_change and _NUMBER.fullmatch(text) else text


class XLSX:
    """Office Open XML with typed cells. Times lose their zone: callers give them in the one to be shown."""

    content_type = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    extension = "xlsx"

    def rows(self, rows: Iterable[Sequence[Cell]], *, before: int) -> bytes:
        """See :class:`Format`."""
        # Row 1 of each sheet is the head.
        first = before % ROWS_OF_SHEET + 2
        return "".join(_xml_row(row, number) for number, row in enumerate(rows, first)).encode()

    def file(self, head: Sequence[str], pieces: Sequence[Piece]) -> Iterator[bytes]:
        """See :class:`Format`."""
        sheets: list[list[Piece]] = [[]]
        for piece in pieces:
            if sum(one.rows for one in sheets[-1]) >= ROWS_OF_SHEET:
                sheets.append([])
            sheets[-1].append(piece)
        contents = [
            *((name, [content.encode()]) for name, content in _workbook(len(sheets)).items()),
            *((f"xl/worksheets/sheet{n}.xml", _sheet(head, own)) for n, own in enumerate(sheets, 1)),
        ]
        return zipped(((_member(name), chunks) for name, chunks in contents), force_zip64=True)


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _MEMBER_DATE)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


_HEAD, _TEXT, _TIME = 1, 2, 3


def _xml_row(row: Sequence[Cell], number: int, style: int = _TEXT) -> str:
    cells = "".join(_xml_cell(cell, f"{_letters(column)}{number}", style) for column, cell in enumerate(row))
    return f'<row r="{number}">{cells}</row>'


def _xml_cell(cell: Cell, place: str, style: int) -> str:
    if cell is None or cell == "":
        return ""
    if isinstance(cell, str):
        text = escape(_NO_XML.sub("\ufffd", guarded(cell)))
        return f'<c r="{place}" s="{style}" t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'
    if isinstance(cell, bool):
        return f'<c r="{place}" t="b"><v>{cell:d}</v></c>'
    if isinstance(cell, datetime):
        days = (cell.replace(tzinfo=None) - _DAY_ZERO) / timedelta(days=1)
        return f'<c r="{place}" s="{_TIME}"><v>{days:.9f}</v></c>'
    return f'<c r="{place}"><v>{cell!r}</v></c>'


@cache
def _letters(column: int) -> str:
    """0 → A, 25 → Z, 26 → AA."""
    left, last = divmod(column, 26)
    return (_letters(left - 1) if left else "") + chr(ord("A") + last)


_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_FONT = '<sz val="11"/><name val="Calibri"/>'
# Cell formats in the order of _HEAD, _TEXT and _TIME. With a quote prefix an edited text stays a text.
_STYLES = f"""{_XML}<styleSheet xmlns="{_MAIN}">\
<numFmts count="1"><numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss"/></numFmts>\
<fonts count="2"><font>{_FONT}</font><font><b/>{_FONT}</font></fonts>\
<fills count="2"><fill><patternFill patternType="none"/></fill>\
<fill><patternFill patternType="gray125"/></fill></fills><borders count="1"><border/></borders>\
<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>\
<cellXfs count="4"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/>\
<xf numFmtId="49" fontId="1" fillId="0" borderId="0" xfId="0" applyFont="1" quotePrefix="1"/>\
<xf numFmtId="49" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1" quotePrefix="1"/>\
<xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/></cellXfs>\
<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles>\
</styleSheet>"""


def _sheet(head: Sequence[str], pieces: Sequence[Piece]) -> Iterator[bytes]:
    widths = "".join(
        f'<col min="{column}" max="{column}" width="22" customWidth="1"/>'
        for column in range(1, len(head) + 1)
    )
    yield (
        f'{_XML}<worksheet xmlns="{_MAIN}"><sheetViews><sheetView workbookViewId="0">'
        '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews>'
        f"<cols>{widths}</cols><sheetData>{_xml_row(head, 1, _HEAD)}"
    ).encode()
    for piece in pieces:
        yield from piece.chunks()
    yield b"</sheetData></worksheet>"


def _workbook(sheets: int) -> dict[str, str]:
    """The parts of the file by name, without the sheets."""
    numbers = range(1, sheets + 1)
    types = "".join(
        f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType="{_TYPE}.worksheet+xml"/>'
        for n in numbers
    )
    names = "".join(f'<sheet name="{n}" sheetId="{n}" r:id="rId{n}"/>' for n in numbers)
    links = "".join(
        f'<Relationship Id="rId{n}" Type="{_RELATIONS}/worksheet" Target="worksheets/sheet{n}.xml"/>'
        for n in numbers
    )
    style = f'<Relationship Id="rId{sheets + 1}" Type="{_RELATIONS}/styles" Target="styles.xml"/>'
    return {
        "[Content_Types].xml": f"""{_XML}<Types xmlns="{_PACKAGE}/content-types">\
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>\
<Default Extension="xml" ContentType="application/xml"/>\
<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>\
<Override PartName="/xl/styles.xml" ContentType="{_TYPE}.styles+xml"/>{types}</Types>""",
        "_rels/.rels": f"""{_XML}<Relationships xmlns="{_PACKAGE}/relationships">\
<Relationship Id="rId1" Type="{_RELATIONS}/officeDocument" Target="xl/workbook.xml"/></Relationships>""",
        "xl/workbook.xml": f"""{_XML}<workbook xmlns="{_MAIN}" xmlns:r="{_RELATIONS}">\
<sheets>{names}</sheets></workbook>""",
        "xl/_rels/workbook.xml.rels": f"""{_XML}<Relationships xmlns="{_PACKAGE}/relationships">\
{links}{style}</Relationships>""",
        "xl/styles.xml": _STYLES,
    }
