"""The Celery tasks.

A message only wakes a worker; the work is in the database. A lost message costs nothing but the time to the
next tick. No task takes or returns personal data.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.db import transaction

from django_faceprint.audit import chain
from django_faceprint.base import lease
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.engine import queue
from django_faceprint.engine import runner as collecting
from django_faceprint.jobs import jobs as working
from django_faceprint.maintenance import retention
from django_faceprint.models import VerificationSession
from django_faceprint.records import rollups, statistics

logger = logging.getLogger(__name__)

TICK_SECONDS = 5
JOBS_SECONDS = 10
#: Well below the soft limit, so that a long download can finish.
RUN_BUDGET = timedelta(seconds=90)

FACEPRINT_BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "faceprint.tick": {
        "task": "faceprint.tick",
        "schedule": TICK_SECONDS,
        "options": {"expires": TICK_SECONDS},
    },
    "faceprint.alerts": {"task": "faceprint.alerts", "schedule": 60, "options": {"expires": 60}},
    "faceprint.seal": {"task": "faceprint.seal", "schedule": 60, "options": {"expires": 60}},
    "faceprint.jobs": {
        "task": "faceprint.jobs",
        "schedule": JOBS_SECONDS,
        "options": {"expires": JOBS_SECONDS},
    },
    "faceprint.rollup": {
        "task": "faceprint.rollup",
        "schedule": rollups.PERIOD.total_seconds(),
        "options": {"expires": rollups.PERIOD.total_seconds()},
    },
    "faceprint.retain": {"task": "faceprint.retain", "schedule": 600, "options": {"expires": 600}},
}

_limits: dict[str, Any] = {
    "ignore_result": True,
    "soft_time_limit": lease.SOFT_TIME_LIMIT,
    "time_limit": lease.HARD_TIME_LIMIT,
}


@shared_task(name="faceprint.tick", **_limits)
def tick() -> None:
    """Promote sessions that became due, and work on due sessions if there are any."""
    statistics.record_heartbeat("tick")
    if queue.promote(now()) or queue.is_anything_ready():
        _work()


@shared_task(name="faceprint.collect", **_limits)
def collect(session_pk: int | None = None) -> None:
    """Work on due sessions, on *session_pk* first if it is due."""
    _work(hint=session_pk)


def _work(*, hint: int | None = None) -> None:
    started = time.monotonic()
    collecting.collect_due(
        budget=RUN_BUDGET,
        hint=hint,
        monotonic=time.monotonic,
        concurrency=conf.concurrency,
        interrupts=(SoftTimeLimitExceeded,),
    )
    if time.monotonic() - started >= RUN_BUDGET.total_seconds():
        # There is more work than fits into one run: do not let a worker idle until the next tick.
        _send()


@shared_task(name="faceprint.retain", **_limits)
def retain() -> None:
    """Delete everything whose retention has ended."""
    retention.retain()


@shared_task(name="faceprint.jobs", **_limits)
def jobs() -> None:
    """Work on exports, bundles and actions on many records."""
    working.work_on_jobs(budget=RUN_BUDGET, monotonic=time.monotonic)


@shared_task(name="faceprint.rollup", **_limits)
def rollup() -> None:
    """Update the counts of the dashboard."""
    rollups.roll_up()


@shared_task(name="faceprint.seal", **_limits)
def seal() -> None:
    """Seal new entries of the access log."""
    chain.add_links()


@shared_task(name="faceprint.alerts", **_limits)
def alerts() -> None:
    """Open, resolve and mail alerts; send the daily mail when it is time."""
    from django_faceprint.alerts.daily import send_daily_mail
    from django_faceprint.alerts.evaluation import evaluate

    evaluate()
    send_daily_mail()


def notify_worker(session: VerificationSession) -> None:
    """Wake a worker for *session* after commit. Without a broker the next tick finds it."""
    transaction.on_commit(lambda: _send(session.pk))


def notify_job_worker() -> None:
    """Wake a worker for a job after commit. Without a broker the next ``faceprint.jobs`` finds it."""
    transaction.on_commit(lambda: _hint(jobs))


def _send(session_pk: int | None = None) -> None:
    _hint(collect, session_pk)


def _hint(task: Any, *arguments: Any) -> None:
    problem = ""
    try:
        task.apply_async(args=arguments, expires=60, retry=False)
    except Exception as error:  # noqa: BLE001
        # Brokers raise anything; a lost message is harmless by design, but must be logged.
        problem = type(error).__name__
    if problem:
        logger.warning("faceprint: no broker to wake a worker (%s); the next tick will do it", problem)
