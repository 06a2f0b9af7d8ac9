"""``manage.py faceprint_rotate_keys``: put all that is stored under the newest keys."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _

from django_faceprint.maintenance.rotation import RotationReport, rotate_keys
from django_faceprint.management.failures import command_errors
from django_faceprint.management.progress import ProgressLine
from django_faceprint.management.stopping import stop_signals
from django_faceprint.privacy.keys import encryption_ring, index_ring

BROKEN, STOPPED = 1, 2
#: Maximum number of broken values that are listed.
NAMED = 100


class Command(BaseCommand):
    """Exit status 0: no old key is needed any more; 1: some values do not open or must wait; 2: stopped."""

    help = "Re-encrypt stored values, file keys and indexes under the newest keys. May be interrupted."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See ``--help``."""
        parser.add_argument("--dry-run", action="store_true", help="count what would change")

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate, then print what was done and which keys can go."""
        with command_errors(), ProgressLine(self.stdout) as line, stop_signals() as stop:
            report = rotate_keys(
                dry_run=options["dry_run"],
                progress=lambda report, total: line.show_part(report.rows, total),
                stop=stop.is_set,
            )
        self._print(report, dry_run=options["dry_run"])
        if stop.is_set():
            self.stdout.write(_("Stopped; run the command again to go on."))
            sys.exit(STOPPED)
        if report.broken or report.repeatable:
            sys.exit(BROKEN)
        if not options["dry_run"]:
            self._print_keys_that_can_go()

    def _print(self, report: RotationReport, *, dry_run: bool) -> None:
        done = _("%(count)s rows would change") if dry_run else _("%(count)s rows changed")
        self.stdout.write(
            _("%(rows)s rows looked at, ") % {"rows": report.rows} + done % {"count": report.changed.total()}
        )
        for model, count in sorted(report.changed.items()):
            if count:
                self.stdout.write(f"  {model}: {count}")
        for value in report.broken[:NAMED]:
            self.stderr.write(f"{value.model} {value.pk}, {value.column}: {value.why}")
        if report.broken:
            self.stderr.write(_("%s values do not open and were left as they are.") % len(report.broken))
        if report.repeatable:
            self.stdout.write(
                _("%s requests of the last day still need the old index key: run this again tomorrow.")
                % report.repeatable
            )

    def _print_keys_that_can_go(self) -> None:
        for setting, ring in (("ENCRYPTION_KEYS", encryption_ring()), ("INDEX_KEYS", index_ring())):
            old = ring.key_ids[1:]
            if old:
                self.stdout.write(
                    _("%(setting)s: only %(newest)s is needed any more; not needed: %(old)s")
                    % {"setting": setting, "newest": ring.primary_id, "old": ", ".join(old)}
                )
