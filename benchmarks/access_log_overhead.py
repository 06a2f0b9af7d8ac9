"""``access_log_overhead``: requests per second with the access log and without it.

Fifty viewers at once read records in full through the API's own view, in this process: permission, entry of
the access log, record, answer. Runs with the log and without it alternate.
"""

from __future__ import annotations

import argparse
import threading
import time
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from . import sessions
from .project import Project, use_database
from .report import Goal, Report, Spread
from .servers import postgresql, sqlite
from .workspace import folder

VIEWERS = 50
RECORDS = 500
REQUESTS = 1_500
ROUNDS = 7
GOAL = 0.9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("--viewers", type=int, default=VIEWERS, help=f"at once (default: {VIEWERS})")
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"of each run (default: {REQUESTS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")


def run(options: argparse.Namespace) -> Report:
    """Measure on both databases."""
    report = Report(f"Access-log overhead: {options.viewers} viewers at once")
    rows = []
    with ExitStack() as stack:
        home = stack.enter_context(folder())
        server = stack.enter_context(postgresql({}))
        report.versions = {server.version: ""}
        databases = {"PostgreSQL": server.create(), "SQLite": sqlite(home / "database.sqlite3")}
        Project(database=databases["SQLite"], archive=str(home / "archive")).set_up()
        for name, database in databases.items():
            use_database(database)
            sessions.migrate()
            speeds = _compare(options)
            rows += [
                [name, "on" if logged else "off", str(Spread.of(speeds[logged]))] for logged in (True, False)
            ]
            ratios = [on / off for on, off in zip(speeds[True], speeds[False], strict=True)]
            report.goals.append(Goal(f"{name}, with the log / without", Spread.of(ratios), at_least=GOAL))
            report.figures[name] = {"with": speeds[True], "without": speeds[False]}
    report.table(
        f"Medians of {options.rounds} rounds of {options.requests} requests (least–most)",
        ["database", "access log", "requests/s"],
        rows,
    )
    return report


def _compare(options: argparse.Namespace) -> dict[bool, list[float]]:
    """Requests per second with the log and without it, round by round."""
    from django.contrib.auth import get_user_model

    from django_faceprint.models import AccessLog, VerificationSession

    viewer = get_user_model().objects.create_superuser("viewer")
    sessions.start(RECORDS)
    ids = [str(public_id) for public_id in VerificationSession.objects.values_list("public_id", flat=True)]
    speeds: dict[bool, list[float]] = {True: [], False: []}
    _requests_per_second(viewer, ids, options.viewers, options.requests // 3, logged=True)
    for number in range(options.rounds):
        for logged in (True, False) if number % 2 else (False, True):
            before = AccessLog.objects.count()
            speed = _requests_per_second(viewer, ids, options.viewers, options.requests, logged=logged)
            speeds[logged].append(speed)
            written = AccessLog.objects.count() - before
            if written != (options.requests if logged else 0):
                raise AssertionError(f"{written} entries were written.")
    return speeds


def _requests_per_second(viewer: Any, ids: list[str], viewers: int, requests: int, *, logged: bool) -> float:
    """Let all viewers together send *requests* requests."""
    numbers = iter(range(requests))
    guard = threading.Lock()
    problems: list[BaseException] = []
    ready = threading.Barrier(viewers + 1)

    def view_records() -> None:
        from django.db import connection
        from rest_framework.test import APIRequestFactory, force_authenticate

        from django_faceprint.api.views import ResultView

        view, factory = ResultView.as_view(), APIRequestFactory()
        connection.ensure_connection()
        ready.wait()
        try:
            while True:
                with guard:
                    number = next(numbers, None)
                if number is None:
                    return
                request = factory.get("/")
                force_authenticate(request, viewer)
                answer = view(request, id=ids[number % len(ids)])
                answer.render()
                if answer.status_code != 200:
                    raise AssertionError(f"The view answered {answer.status_code}.")
        except BaseException as error:  # noqa: BLE001  (raised again in the benchmark's own thread)
            problems.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=view_records) for _ in range(viewers)]
    with ExitStack() as stack:
        if not logged:
            stack.enter_context(patch("django_faceprint.api.views.record_access"))
        for thread in threads:
            thread.start()
        ready.wait()
        began = time.perf_counter()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
    if problems:
        raise problems[0]
    return requests / took
