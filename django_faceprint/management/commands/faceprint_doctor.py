"""``manage.py faceprint_doctor``: test the installation and print problems with remedies."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _

from django_faceprint.maintenance.diagnosis import Check, State, diagnose


class Command(BaseCommand):
    """Exit status 0 when nothing is wrong (warnings included), else 1."""

    help = "Try settings, database, keys, storage, Baidu, broker and mail; say what is wrong and what to do."
    # It is run because something is wrong, and reports the system checks itself.
    requires_system_checks: list[str] = []  # type: ignore[assignment]

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See ``--help``."""
        parser.add_argument(
            "--plan",
            action="append",
            default=[],
            metavar="ID",
            help="try this plan (方案ID); may be repeated",
        )
        parser.add_argument(
            "--plans",
            action="store_true",
            help="try every active plan: generates an unused verify_token each",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print each check as soon as it is done."""
        found: list[Check] = []
        for check in diagnose(plan_ids=options["plan"], all_plans=options["plans"]):
            found.append(check)
            if not options["json"]:
                self._print(check)
        wrong = [check for check in found if check.state == State.WRONG]
        if options["json"]:
            report = {"ok": not wrong, "checks": [asdict(check) for check in found]}
            self.stdout.write(json.dumps(report, ensure_ascii=False, indent=2))
        else:
            self.stdout.write(_("%s checks, %s wrong") % (len(found), len(wrong)))
        if wrong:
            sys.exit(1)

    def _print(self, check: Check) -> None:
        styles: dict[State, Callable[[str], str]] = {
            State.OK: self.style.SUCCESS,
            State.WARNING: self.style.WARNING,
            State.WRONG: self.style.ERROR,
            State.SKIPPED: self.style.NOTICE,
        }
        labels = {
            State.OK: _("ok"),
            State.WARNING: _("warning"),
            State.WRONG: _("wrong"),
            State.SKIPPED: _("skipped"),
        }
        line = f"[{styles[check.state](labels[check.state])}] {check.name}: {check.message}"
        self.stdout.write(f"{line} → {check.remedy}" if check.remedy else line)
        self.stdout.flush()
