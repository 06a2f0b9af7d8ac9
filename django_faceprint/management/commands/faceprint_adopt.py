"""``manage.py faceprint_adopt``: adopt verify_tokens that another system obtained."""

from __future__ import annotations

import csv
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError
from django.db.utils import Error as AnyDatabaseError
from django.utils.dateparse import parse_datetime
from django.utils.timezone import get_current_timezone, is_naive
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_faceprint.client import MESSAGES, Identity
from django_faceprint.exceptions import FaceprintConfigurationError, InvalidInput
from django_faceprint.management.failures import describe
from django_faceprint.management.progress import ProgressLine
from django_faceprint.verification import Adoption, adopt
from django_faceprint.verification.adoption import check_adoption

COLUMNS = (
    *("verify_token", "plan", "issued_at", "reference", "purpose"),
    *("name", "number", "certificate_type", "consent_reference"),
)
REFUSED = 1
#: Maximum number of refused lines that are listed.
NAMED = 100
#: Lines between two updates of the progress line.
STEP = 50

#: Rules that are not among those of the client's inputs.
RULES = {
    "control_characters": gettext_lazy("Control characters are not allowed."),
    "future": gettext_lazy("The time lies in the future."),
    "looks_personal": gettext_lazy("This looks like an ID or phone number; it would be stored in clear."),
    "time_format": gettext_lazy("Not a time: use 2026-03-02T16:00:00+08:00 or seconds since 1970."),
    "too_long": gettext_lazy("At most %(limit)d characters."),
    "too_old": gettext_lazy("Too old: Baidu has deleted everything of it by now."),
    "too_many_cells": gettext_lazy("The line has more cells than the head of the table."),
    "unknown_plan": gettext_lazy("There is no plan with this ID."),
}


@dataclass
class Count:
    """Number of lines by result."""

    adopted: int = 0
    known: int = 0
    refused: int = 0


class Command(BaseCommand):
    """Exit status 0; 1 when lines were refused: correct them and run the command again."""

    help = "Adopt verification sessions that were started elsewhere, from a CSV file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See ``--help``."""
        parser.add_argument(
            "file", help=f"CSV with a head line; columns: {' '.join(COLUMNS)}. - reads standard input"
        )
        parser.add_argument("--plan", help="plan ID (方案ID) of lines that name none")
        parser.add_argument(
            "--encoding", default="utf-8-sig", help="of the file (default: UTF-8; Excel in China: gb18030)"
        )
        parser.add_argument("--dry-run", action="store_true", help="check every line, adopt nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        """Adopt line by line and print the counts."""
        count = Count()
        problem = ""
        self._line = ProgressLine(self.stdout)
        try:
            with _opened(options["file"], options["encoding"]) as stream:
                for line, row in _rows(stream):
                    self._take(line, row, options, count)
        except LookupError as error:
            problem = str(error)
        except OSError as error:
            problem = error.strerror or str(error)
        except UnicodeDecodeError:
            problem = _("The file is not in the encoding %s.") % options["encoding"]
        except csv.Error:
            problem = _("The file is no CSV from here on.")
        except (FaceprintConfigurationError, AnyDatabaseError) as error:
            problem = describe(error)
        self._line.clear()
        if problem:
            raise CommandError(f"{self._progress_text(count)}\n{problem}")
        if options["dry_run"]:
            self.stdout.write(_("Dry run: nothing was adopted."))
        self.stdout.write(self._progress_text(count))
        if count.refused:
            sys.exit(REFUSED)

    def _take(self, line: int, row: Mapping[str, str], options: Mapping[str, Any], count: Count) -> None:
        try:
            adoption = _adoption(row, options["plan"] or "")
            if options["dry_run"]:
                check_adoption(adoption)
                count.adopted += 1
            elif adopt(adoption).is_new:
                count.adopted += 1
            else:
                count.known += 1
        except InvalidInput as refusal:
            count.refused += 1
            self._name(line, refusal, count)
        if (count.adopted + count.known + count.refused) % STEP == 0:
            self._line.show(self._progress_text(count))

    def _name(self, line: int, refusal: InvalidInput, count: Count) -> None:
        if count.refused > NAMED:
            return
        self._line.clear()
        text = RULES[refusal.code] if refusal.code in RULES else _(MESSAGES[refusal.code])
        where = _("line %(line)s, %(column)s") % {"line": line, "column": refusal.field}
        self.stderr.write(f"{where}: {str(text) % refusal.params}")
        if count.refused == NAMED:
            self.stderr.write(_("Further refused lines are only counted."))

    def _progress_text(self, count: Count) -> str:
        return _("%(adopted)s adopted, %(known)s known already, %(refused)s refused") % vars(count)


@contextmanager
def _opened(name: str, encoding: str) -> Iterator[TextIO]:
    if name == "-":
        stream = sys.stdin
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=encoding, errors="strict", newline="")
        yield stream
        return
    with Path(name).open(encoding=encoding, newline="") as file:
        yield file


def _rows(stream: TextIO) -> Iterator[tuple[int, dict[str, str]]]:
    """Each line that is not empty, with its number. Raises :class:`CommandError` for a wrong head line."""
    reader = csv.reader(stream, strict=True)
    head = [cell.strip().lower() for cell in next(reader, [])]
    unknown = sorted(set(head) - set(COLUMNS))
    if "verify_token" not in head or unknown or len(set(head)) != len(head):
        # Without a head line the first line is data, so it is not quoted.
        raise CommandError(
            _("The first line must name the columns: verify_token, and others of %s.") % " ".join(COLUMNS)
        )
    for cells in reader:
        texts = [cell.strip() for cell in cells]
        if not any(texts):
            continue
        row = dict(zip(head, texts, strict=False))
        if any(texts[len(head) :]):
            row["#"] = "more"
        yield reader.line_num, row


def _adoption(row: Mapping[str, str], default_plan: str) -> Adoption:
    """The adoption of one line. Raises :class:`InvalidInput`."""
    if "#" in row:
        raise InvalidInput("verify_token", "too_many_cells")
    plan_id = row.get("plan") or default_plan
    if not plan_id:
        raise InvalidInput("plan", "required")
    if not row.get("verify_token"):
        raise InvalidInput("verify_token", "required")
    return Adoption(
        verify_token=row["verify_token"],
        plan_id=plan_id,
        issued_at=_time(row.get("issued_at", "")),
        reference=row.get("reference", ""),
        purpose=row.get("purpose", ""),
        identity=_identity(row),
        consent_reference=row.get("consent_reference", ""),
    )


def _identity(row: Mapping[str, str]) -> Identity | None:
    name, number, kind = (row.get(column, "") for column in ("name", "number", "certificate_type"))
    if not (name or number or kind):
        return None
    # The other system has submitted it already: only its form is checked, not its check digit.
    kind = kind or "0"
    return Identity.checked(name, number, int(kind) if kind in tuple("01234") else -1, strict=False)


def _time(text: str) -> datetime | None:
    """A time, with a zone or in the site's, or seconds or milliseconds since 1970."""
    if not text:
        return None
    try:
        if text.isascii() and text.isdigit() and len(text) in (10, 13):
            return datetime.fromtimestamp(int(text[:10]), tz=UTC)
        moment = parse_datetime(text.replace("/", "-"))
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise InvalidInput("issued_at", "time_format")
    return moment.replace(tzinfo=get_current_timezone()) if is_naive(moment) else moment
