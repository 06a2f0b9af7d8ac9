"""``manage.py faceprint_run``: the engine in one process, without Celery."""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from threading import Event
from time import monotonic
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections
from django.db.utils import Error as AnyDatabaseError
from django.utils.translation import gettext as _

from django_faceprint.alerts.daily import send_daily_mail
from django_faceprint.alerts.evaluation import evaluate
from django_faceprint.audit import chain
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.engine.runner import WorkReport, collect_due
from django_faceprint.jobs import jobs
from django_faceprint.maintenance import retention
from django_faceprint.management.progress import ProgressLine
from django_faceprint.management.stopping import stop_signals
from django_faceprint.models import VerificationSession
from django_faceprint.records import rollups, statistics
from django_faceprint.tasks import FACEPRINT_BEAT_SCHEDULE, RUN_BUDGET, TICK_SECONDS
from django_faceprint.upstream import clients

logger = logging.getLogger(__name__)

LOST, BAIDU_DOWN = 3, 4
#: Seconds that ``--once`` waits while Baidu does not answer.
OUTAGE_PATIENCE = 60.0
#: Charts may be a little late; due sessions may not.
ROLLUP_BUDGET = timedelta(seconds=10)
#: Seconds. The doctor reports an engine without a heartbeat for five minutes.
MAX_INTERVAL = 120


class Command(BaseCommand):
    """Exit status 0; with ``--once`` 3 when evidence was lost in this run, 4 when Baidu does not answer."""

    help = "Work on due sessions in this process: until nothing is due (--once) or until stopped (--forever)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See ``--help``."""
        how_long = parser.add_mutually_exclusive_group(required=True)
        how_long.add_argument("--once", action="store_true", help="end when nothing is due any more")
        how_long.add_argument(
            "--forever", action="store_true", help="until SIGTERM or Ctrl-C; alerts and retention included"
        )
        parser.add_argument(
            "--interval",
            type=float,
            default=TICK_SECONDS,
            metavar="S",
            help=f"seconds between two looks when nothing is due (default: {TICK_SECONDS})",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Work, then print what was done."""
        if not 0 < options["interval"] <= MAX_INTERVAL:
            raise CommandError(_("--interval must be more than 0 and at most %s seconds.") % MAX_INTERVAL)
        total = WorkReport()
        self._line = ProgressLine(self.stdout)
        with stop_signals() as stop:
            if options["forever"]:
                self._run_forever(total, stop, options["interval"])
            else:
                self._run_once(total, stop)
        if options["once"] and not stop.is_set():
            _work_on_jobs()
        self._line.clear()
        self.stdout.write(self._progress_text(total))
        if options["once"] and total.lost:
            sys.exit(LOST)
        if options["once"] and total.baidu_down:
            self.stderr.write(_("Baidu does not answer: what is due stays due."))
            sys.exit(BAIDU_DOWN)

    def _run_once(self, total: WorkReport, stop: Event) -> None:
        give_up_at = monotonic() + OUTAGE_PATIENCE
        self._work(total, stop)
        while total.baidu_down and not stop.is_set() and monotonic() < give_up_at:
            stop.wait(clients.upstream.api_retry_after() or 0.0)
            self._work(total, stop)

    def _work(self, total: WorkReport, stop: Event) -> None:
        """Work until nothing is due or Baidu does not answer. A signal stops it between two sessions."""
        while not stop.is_set():
            bar = self._new_bar(total)
            run = collect_due(
                budget=RUN_BUDGET,
                monotonic=monotonic,
                concurrency=conf.concurrency,
                progress=bar,
                stop=stop.is_set,
            )
            total.add(run)
            if not run.sessions or run.baidu_down:
                return

    def _run_forever(self, total: WorkReport, stop: Event, interval: float) -> None:
        chores = [
            _Chore("faceprint.alerts", evaluate),
            _Chore("faceprint.alerts", send_daily_mail),
            _Chore("faceprint.jobs", _work_on_jobs),
            _Chore("faceprint.seal", chain.add_links),
            _Chore("faceprint.rollup", partial(rollups.roll_up, budget=ROLLUP_BUDGET)),
            _Chore("faceprint.retain", retention.retain),
        ]
        while not stop.is_set():
            problem = ""
            try:
                statistics.record_heartbeat("tick")
                self._work(total, stop)
                for chore in chores:
                    if not stop.is_set():
                        chore.run_if_due()
            except AnyDatabaseError as error:
                problem = type(error).__name__
            if problem:
                # A database that restarts must not end the engine; a new connection is tried next time.
                logger.error("faceprint: the database failed (%s); trying again", problem)
            close_old_connections()
            stop.wait(interval)

    def _new_bar(self, before: WorkReport) -> Callable[[WorkReport], None] | None:
        """A callback that shows the progress of a run; None without a terminal."""
        if not self._line.is_shown:
            return None
        due = VerificationSession.objects.due(now()).count()

        def show(run: WorkReport) -> None:
            total = replace(before)
            total.add(run)
            # More may have become due meanwhile.
            self._line.show_part(run.sessions, due, self._progress_text(total))

        return show

    def _progress_text(self, total: WorkReport) -> str:
        return _(
            "%(sessions)s sessions looked at, %(archived)s files archived, %(failures)s to be tried again, "
            "%(lost)s not archived in time"
        ) % {
            "sessions": total.sessions,
            "archived": total.archived,
            "failures": total.failures,
            "lost": total.lost,
        }


def _work_on_jobs() -> None:
    jobs.work_on_jobs(budget=RUN_BUDGET, monotonic=monotonic)


class _Chore:
    """A periodic task that beat would send."""

    def __init__(self, task: str, run: Callable[[], object]) -> None:
        self._period = timedelta(seconds=FACEPRINT_BEAT_SCHEDULE[task]["schedule"]).total_seconds()
        self._run = run
        self._due_at = monotonic()

    def run_if_due(self) -> None:
        if monotonic() >= self._due_at:
            self._due_at = monotonic() + self._period
            self._run()
