"""``manage.py faceprint_status``: the state of sessions and engine, for people and for monitoring."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.utils import Error as AnyDatabaseError
from django.template.defaultfilters import filesizeformat
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from django_faceprint.alerts.conditions import risk_window, unacknowledged_loss
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.exceptions import FaceprintConfigurationError
from django_faceprint.maintenance import retention
from django_faceprint.models import Alert, VerificationSession
from django_faceprint.records import statistics
from django_faceprint.records.forecast import forecast
from django_faceprint.upstream.rate_limit import persistent_quota_problems

#: Maximum number of sessions at risk that are printed; --json has more.
SHOWN = 10
AT_RISK, LOST, UNREADABLE = 1, 2, 3


class Command(BaseCommand):
    """Exit status 0: fine; 1: evidence is near its deadline; 2: an unacknowledged loss; 3: unknown, because
    the database or the settings cannot be read."""

    help = "Print sessions, outstanding work, risk and loss. Exit: 0 fine, 1 at risk, 2 loss, 3 not known."
    # A failed check would end with 1, which means something else here; the doctor reports them.
    requires_system_checks: list[str] = []  # type: ignore[assignment]

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See ``--help``."""
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print and exit with the status."""
        report: dict[str, Any] = {}
        problem = ""
        try:
            report = self._report()
        except (AnyDatabaseError, FaceprintConfigurationError) as error:
            # The texts of databases name hosts and users.
            problem = str(error) if isinstance(error, FaceprintConfigurationError) else type(error).__name__
        if problem:
            raise CommandError(
                _("How things stand cannot be read (%s): run faceprint_doctor.") % problem,
                returncode=UNREADABLE,
            )
        if options["json"]:
            self.stdout.write(json.dumps(report, ensure_ascii=False, indent=2, default=_iso))
        else:
            self._print(report)
        if report["status"]:
            sys.exit(report["status"])

    def _report(self) -> dict[str, Any]:
        moment = now()
        summary = statistics.summary()
        window = risk_window()
        at_risk = statistics.at_risk(window)
        unacknowledged = unacknowledged_loss(moment)
        ahead = forecast(window)
        return {
            "status": LOST if unacknowledged else AT_RISK if at_risk else 0,
            "environment": conf.environment,
            "sessions": summary.by_verdict,
            "files": summary.by_asset_state,
            "bytes_stored": summary.bytes_stored,
            "outstanding": summary.outstanding,
            "earliest_deadline": statistics.earliest_deadline(),
            "backlog": {"due": ahead.due, "asleep": ahead.asleep, "files": ahead.files},
            "sessions_per_minute": ahead.per_minute,
            "may_be_down_hours": round(ahead.tolerable_outage.total_seconds() / 3600, 2),
            "at_risk_sessions": [
                {
                    "id": str(item.public_id),
                    "reference": item.reference,
                    "deadline": item.deadline,
                    "missing": item.missing,
                    "error": item.error,
                }
                for item in ahead.at_risk
            ],
            "at_risk_sessions_total": ahead.at_risk_total,
            "risk_window_minutes": int(window.total_seconds() // 60),
            "at_risk": at_risk,
            "lost": statistics.lost_since(None, until=moment),
            "lost_unacknowledged": unacknowledged,
            "quota_problems": [
                {"account": item.account, "interface": item.endpoint, "code": item.code, "since": item.since}
                for item in persistent_quota_problems()
            ],
            "deletes_within_a_day": self._forecast(moment),
            "open_alerts": Alert.objects.filter(resolved_at__isnull=True).count(),
            "heartbeats": statistics.heartbeats(),
        }

    @staticmethod
    def _forecast(moment: datetime) -> dict[str, int]:
        ahead = retention.forecast(moment + timedelta(days=1))
        return {"files": ahead.files, "bytes": ahead.bytes, "records": ahead.records}

    def _print(self, report: dict[str, Any]) -> None:
        verdicts = VerificationSession.Verdict
        sessions = [
            f"{verdicts(name).label} {report['sessions'][name]}"
            for name in verdicts.values
            if name in report["sessions"]
        ]
        deadline = report["earliest_deadline"]
        lines = [
            (_("Environment"), report["environment"]),
            (_("Verification sessions"), ", ".join(sessions) or "0"),
            (_("Outstanding"), report["outstanding"]),
            (_("Earliest deadline"), localtime(deadline).isoformat(timespec="seconds") if deadline else "-"),
            (
                _("Backlog"),
                _("%(due)s due, %(asleep)s asleep, %(files)s files to be archived") % report["backlog"],
            ),
            (
                _("Speed"),
                _("%s sessions a minute (the best minute of the last hour)") % report["sessions_per_minute"]
                if report["sessions_per_minute"]
                else _("not known: nothing was archived in the last hour"),
            ),
            (
                _("Workers may be down for"),
                _("%s hours before the first loss") % report["may_be_down_hours"],
            ),
            (_("Deadline within %s minutes") % report["risk_window_minutes"], report["at_risk"]),
            (_("Not archived in time"), f"{report['lost_unacknowledged']} / {report['lost']}"),
            (
                _("Retention deletes within a day"),
                _("%(files)s files, %(size)s, and %(records)s whole records")
                % {
                    **report["deletes_within_a_day"],
                    "size": filesizeformat(report["deletes_within_a_day"]["bytes"]),
                },
            ),
            (_("Open alerts"), report["open_alerts"]),
        ]
        lines += [
            (
                _("At risk"),
                (
                    f"{item['id']} {item['reference'] or '-'} "
                    f"{localtime(item['deadline']).isoformat(timespec='seconds')} {item['missing']}"
                ),
            )
            for item in report["at_risk_sessions"][:SHOWN]
        ]
        if report["at_risk_sessions_total"] > SHOWN:
            lines.append((_("At risk"), _("and %s more") % (report["at_risk_sessions_total"] - SHOWN)))
        lines += [
            (
                _("Quota used up or not billed"),
                (
                    f"{item['interface']} ({item['account']}), {item['code']}, "
                    f"{localtime(item['since']).isoformat(timespec='seconds')}"
                ),
            )
            for item in report["quota_problems"]
        ]
        lines += [
            (_("Heartbeat %s") % name, localtime(at).isoformat(timespec="seconds"))
            for name, at in report["heartbeats"].items()
        ]
        for label, value in lines:
            self.stdout.write(f"{label}: {value}")
        verdict = {
            0: self.style.SUCCESS(_("Everything is in time.")),
            AT_RISK: self.style.WARNING(_("Evidence is near its deadline: run faceprint_doctor.")),
            LOST: self.style.ERROR(_("Evidence was not archived in time, and nobody has acknowledged it.")),
        }
        self.stdout.write(verdict[report["status"]])


def _iso(value: Any) -> str:
    return str(value.isoformat())
