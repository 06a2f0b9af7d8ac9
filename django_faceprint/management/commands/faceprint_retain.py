"""``manage.py faceprint_retain``: delete what has expired, or forecast it."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.template.defaultfilters import filesizeformat
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from django_faceprint.clock import now
from django_faceprint.evidence import retention_rules
from django_faceprint.maintenance import retention
from django_faceprint.models import MediaAsset, Plan

#: Maximum of ``--days``: the longest possible retention.
MAX_DAYS = 36_500


class Command(BaseCommand):
    """Exit status 0; 1 when storage refused to delete a file, which is retried later."""

    help = "Delete what has been kept long enough, as faceprint.retain does. --dry-run: only say what goes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See ``--help``."""
        parser.add_argument("--dry-run", action="store_true", help="delete nothing, say what would go")
        parser.add_argument(
            "--days", type=int, default=1, metavar="N", help="with --dry-run: how far to look ahead (1)"
        )
        parser.add_argument("--json", action="store_true", help="with --dry-run: print JSON")
        parser.add_argument(
            "--apply-rules",
            action="store_true",
            help="first put the present rules of plans and settings on the records that are there",
        )
        parser.add_argument(
            "--plan",
            action="append",
            metavar="ID",
            help="with --apply-rules: only this plan (may be repeated)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Forecast or delete."""
        if not 0 <= options["days"] <= MAX_DAYS:
            raise CommandError(_("--days: from 0 to %s.") % MAX_DAYS)
        if options["dry_run"]:
            if options["apply_rules"]:
                raise CommandError(_("--dry-run changes nothing, so it takes no --apply-rules."))
            self._print_forecast(options["days"], as_json=options["json"])
            return
        if options["apply_rules"]:
            self._apply(options["plan"])
        self._delete()

    def _print_forecast(self, days: int, *, as_json: bool) -> None:
        ahead = retention.forecast(now() + timedelta(days=days))
        if as_json:
            self.stdout.write(json.dumps(as_dict(ahead), ensure_ascii=False, indent=2))
            return
        self.stdout.write(
            _("Until %(until)s this deletes %(files)s files, %(size)s, and %(records)s whole records.")
            % {
                "until": localtime(ahead.until).isoformat(timespec="minutes"),
                "files": ahead.files,
                "size": filesizeformat(ahead.bytes),
                "records": ahead.records,
            }
        )
        for line in ahead.lines:
            kind = MediaAsset.Kind(line.kind).label
            self.stdout.write(f"  {line.plan}  {kind}: {line.files}, {filesizeformat(line.bytes)}")

    def _apply(self, plan_ids: list[str] | None) -> None:
        plans = None
        if plan_ids:
            plans = Plan.objects.filter(plan_id__in=plan_ids)
            if missing := sorted(set(plan_ids) - set(plans.values_list("plan_id", flat=True))):
                raise CommandError(_("There is no plan %s.") % ", ".join(missing))
        changed = retention_rules.apply_rules(plans)
        self.stdout.write(_("The present rules hold for %s records.") % changed)

    def _delete(self) -> None:
        total = retention.RetentionReport()
        while True:
            report = retention.retain()
            total.sessions += report.sessions
            total.files += report.files
            total.failures += report.failures
            if not (report.sessions or report.files) or report.storage_is_down:
                break
        self.stdout.write(
            _("Deleted: %(files)s files, and %(records)s whole records.")
            % {"files": total.files, "records": total.sessions}
        )
        if total.failures:
            raise CommandError(
                _("%s files could not be deleted from storage; it is tried again.") % total.failures
            )


def as_dict(ahead: retention.Forecast) -> dict[str, Any]:
    """A forecast as JSON values."""
    return {
        "until": ahead.until.isoformat(),
        "records": ahead.records,
        "files": ahead.files,
        "bytes": ahead.bytes,
        "by_plan_and_kind": [asdict(line) for line in ahead.lines],
    }
