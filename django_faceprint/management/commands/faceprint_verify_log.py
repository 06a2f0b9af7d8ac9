"""``manage.py faceprint_verify_log``: find out whether the access log was changed."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from django_faceprint.audit.chain import Finding, Verification, verify
from django_faceprint.exceptions import replace_exceptions
from django_faceprint.management.failures import command_errors
from django_faceprint.management.progress import ProgressLine
from django_faceprint.management.stopping import stop_signals

CHANGED, STOPPED = 1, 2


class Command(BaseCommand):
    """Exit status 0: unchanged; 1: something was changed; 2: stopped."""

    help = "Verify that no entry of the access log was changed, taken out or put in between."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See ``--help``."""
        parser.add_argument(
            "--head",
            action="append",
            default=[],
            metavar="NUMBER:DIGITS",
            help="a head that was noted before, as in the daily mail; may be given several times",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Verify, then print what was found and the present head."""
        wrong_head = CommandError(_("--head takes the number of a link, a colon, and at least 8 digits."))
        with (
            command_errors(),
            replace_exceptions(ValueError, by=lambda error: wrong_head),
            ProgressLine(self.stdout) as line,
            stop_signals() as stop,
        ):
            result = verify(
                heads=options["head"],
                progress=None if options["json"] else line.show_part,
                stop=stop.is_set,
            )
        if options["json"]:
            findings = [vars(finding) for finding in result.findings]
            report = vars(result) | {"findings": findings, "stopped": stop.is_set()}
            self.stdout.write(json.dumps(report, indent=2))
        else:
            self._print(result)
        if result.counts:
            sys.exit(CHANGED)
        if stop.is_set():
            self.stderr.write(_("Stopped before the end."))
            sys.exit(STOPPED)

    def _print(self, result: Verification) -> None:
        for finding in result.findings:
            self.stderr.write(_describe(finding))
        more = result.counts.total() - len(result.findings)
        if more:
            self.stderr.write(_("… and %s more") % more)
        self.stdout.write(
            _("%(links)s links and %(entries)s entries looked at, %(findings)s findings")
            % {"links": result.links, "entries": result.entries, "findings": result.counts.total()}
        )
        if result.head:
            self.stdout.write(_("Head: %s") % result.head)


def _describe(finding: Finding) -> str:
    texts = {
        "edited": _("Link %(sequence)s: entry %(log_id)s was changed."),
        "missing": _("Link %(sequence)s: entry %(log_id)s was deleted."),
        "gap": _("Link %(sequence)s: the links before it were deleted."),
        "forged": _("Link %(sequence)s: this is not the link that was made."),
        "backdated": _("Link %(sequence)s: entry %(log_id)s claims to be older than when it was written."),
        "truncated": _("Link %(sequence)s was there before, and is not any more."),
        "unsealed": _("Entry %(log_id)s was never chained: put in later, or faceprint.seal does not run."),
        "unknown_key": _("Link %(sequence)s was made with a key that is not configured."),
        "reason": _("Entry %(log_id)s: the words of its reason were changed."),
    }
    return texts[finding.kind] % {"sequence": finding.sequence, "log_id": finding.log_id}
