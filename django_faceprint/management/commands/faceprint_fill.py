"""``manage.py faceprint_fill``: made-up records in any number, to try the console with years of use."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.utils import Error as AnyDatabaseError
from django.utils.translation import gettext as _

from django_faceprint.devtools import sample_data
from django_faceprint.exceptions import FaceprintConfigurationError, replace_exceptions
from django_faceprint.management.progress import ProgressLine
from django_faceprint.management.stopping import stop_signals

STOPPED = 2
MAX_RECORDS = 100_000_000
MAX_YEARS = 20.0
MAX_PER_BATCH = 20_000


class Command(BaseCommand):
    """Exit status 0: done; 1: refused, or failed; 2: stopped between two batches."""

    help = "Fill a sandbox's database with made-up records of years of use, or remove them again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See ``--help``."""
        parser.add_argument("count", type=int, nargs="?", metavar="N", help="how many records to add")
        parser.add_argument("--years", type=float, default=2.0, help="spread over this number of years (2)")
        parser.add_argument("--seed", type=int, default=1, help="equal seeds give equal records (1)")
        parser.add_argument(
            "--batch",
            type=int,
            default=sample_data.BATCH,
            help=f"records per transaction; more take more memory ({sample_data.BATCH})",
        )
        parser.add_argument(
            "--files",
            choices=["none", "main", "all"],
            default="main",
            help="rows of files: none, faces, videos and match images (main), or all",
        )
        parser.add_argument(
            "--thumbnails",
            type=int,
            default=sample_data.THUMBNAILS,
            metavar="N",
            help=f"number of newest records with a thumbnail ({sample_data.THUMBNAILS})",
        )
        parser.add_argument("--remove", action="store_true", help="remove all records that this command made")

    def handle(self, *args: Any, **options: Any) -> None:
        """Fill or remove."""
        self._check(options)
        began = time.monotonic()
        line = ProgressLine(self.stdout)
        try:
            with (
                stop_signals() as stop,
                replace_exceptions(FaceprintConfigurationError, by=lambda error: CommandError(str(error))),
                replace_exceptions(AnyDatabaseError, by=_database_failed),
            ):
                run = self._remove if options["remove"] else self._fill
                done = run(options, line, stop.is_set)
        finally:
            line.clear()
        text = (
            _("Removed: %(sessions)s records, %(files)s rows of files, %(attempts)s attempts.")
            if options["remove"]
            else _("Made up: %(sessions)s records, %(files)s rows of files, %(attempts)s attempts.")
        )
        self.stdout.write(text % vars(done))
        if options["verbosity"] > 1:
            self.stdout.write(_("%(seconds)s s") % {"seconds": round(time.monotonic() - began, 1)})
        if not options["remove"]:
            self.stdout.write(_("No file was stored: opening one of these records' files fails."))
        if stop.is_set():
            self.stdout.write(_("Stopped; run the command again to go on."))
            sys.exit(STOPPED)

    def _fill(
        self, options: dict[str, Any], line: ProgressLine, stop: Callable[[], bool]
    ) -> sample_data.Filled:
        return sample_data.fill(
            options["count"],
            years=options["years"],
            seed=options["seed"],
            batch=options["batch"],
            files=options["files"],
            thumbnails=options["thumbnails"],
            progress=lambda part: line.show_part(part.sessions, options["count"]),
            stop=stop,
        )

    def _remove(
        self, options: dict[str, Any], line: ProgressLine, stop: Callable[[], bool]
    ) -> sample_data.Filled:
        total = sample_data.sample_records().count()
        return sample_data.remove(
            batch=options["batch"],
            progress=lambda part: line.show_part(part.sessions, total),
            stop=stop,
        )

    def _check(self, options: dict[str, Any]) -> None:
        if options["remove"] != (options["count"] is None):
            raise CommandError(_("Say how many records, or --remove."))
        if options["count"] is not None and not 1 <= options["count"] <= MAX_RECORDS:
            raise CommandError(_("From 1 to %s records.") % MAX_RECORDS)
        if not 0 < options["years"] <= MAX_YEARS:
            raise CommandError(_("--years: above 0, at most %s.") % int(MAX_YEARS))
        if not 1 <= options["batch"] <= MAX_PER_BATCH:
            raise CommandError(_("--batch: from 1 to %s.") % MAX_PER_BATCH)
        if options["thumbnails"] < 0:
            raise CommandError(_("--thumbnails: 0 or more."))


def _database_failed(error: Exception) -> CommandError:
    # The texts of databases quote values.
    return CommandError(_("The database failed (%s).") % type(error).__name__)
