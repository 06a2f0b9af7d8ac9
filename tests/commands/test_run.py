"""The engine in one process, without Celery, against the sandbox."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import translation

from django_faceprint.client import Breakers
from django_faceprint.clock import now
from django_faceprint.engine import steps
from django_faceprint.maintenance import retention
from django_faceprint.management.commands import faceprint_run
from django_faceprint.models import Alert, Heartbeat, MediaAsset
from django_faceprint.records import statistics
from django_faceprint.upstream import clients
from django_faceprint.verification import record_return
from tests.commands.conftest import Run
from tests.factories import make_asset, make_passed_session

pytestmark = pytest.mark.django_db(transaction=True)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class TestOnce:
    def test_works_until_nothing_is_due(self, scenario: Any, run: Run, assert_archived: Any) -> None:
        made = [scenario.start() for _ in range(3)]
        for session in made:
            scenario.finish(session)
            record_return(session)
        done = run("faceprint_run", "--once")
        assert done.status == 0
        assert done.out.startswith("3 sessions looked at, ")
        assert done.out.rstrip().endswith("0 not archived in time")
        for session in made:
            fresh = scenario.fresh(session)
            assert (fresh.verdict, fresh.archive_state) == ("passed", "complete")
            assert_archived(fresh)
        assert run("faceprint_run", "--once").out.startswith("0 sessions looked at, ")

    def test_does_not_pass_itself_off_as_beat(self, scenario: Any, run: Run) -> None:
        run("faceprint_run", "--once")
        assert statistics.last_heartbeat("tick") is None

    def test_says_when_something_was_lost_in_this_run(self, scenario: Any, run: Run, clock: Any) -> None:
        session = scenario.start()
        scenario.finish(session)
        scenario.fault("media", "http", status=503)
        record_return(session)
        assert run("faceprint_run", "--once").status == 0
        clock.set(scenario.fresh(session).results_give_up_at + timedelta(hours=1))
        done = run("faceprint_run", "--once")
        assert done.status == 3
        assert scenario.fresh(session).archive_state in ("lost", "partial")
        assert run("faceprint_run", "--once").status == 0, "an old loss is not one of this run"

    def test_a_terminal_sees_progress(self, scenario: Any) -> None:
        for _ in range(3):
            session = scenario.start()
            scenario.finish(session)
            record_return(session)
        out = Terminal()
        with translation.override("en"):
            call_command("faceprint_run", "--once", stdout=out, no_color=True)
        *shown, last = out.getvalue().split("\r")
        assert shown[-1].startswith(f"[{'#' * 30}] 3/3  3 sessions looked at, ")
        assert last.endswith("0 not archived in time\n")

    def test_several_sessions_are_visited_at_once(
        self, scenario: Any, run: Run, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each download waits until another one is under way, which never comes to one alone."""
        settings.FACEPRINT = {**settings.FACEPRINT, "CONCURRENCY": 2}
        made = [scenario.start() for _ in range(2)]
        for session in made:
            scenario.finish(session)
            record_return(session)
        together = threading.Barrier(2, timeout=20)
        really_work = steps.work_through

        def meet(visit: Any) -> None:
            together.wait()
            really_work(visit)

        monkeypatch.setattr(steps, "work_through", meet)
        assert run("faceprint_run", "--once").status == 0
        assert {scenario.fresh(session).archive_state for session in made} == {"complete"}

    @pytest.fixture
    def passing(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """A time for outages that passes while the command waits; how long it has waited."""
        waits: list[float] = []

        class Waiting(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                waits.append(timeout or 0.0)
                return False

        @contextmanager
        def no_signals() -> Iterator[threading.Event]:
            yield Waiting()

        passing_time = Breakers(monotonic=lambda: sum(waits))
        monkeypatch.setattr(clients, "upstream", clients.Upstream(api_breakers=passing_time))
        monkeypatch.setattr(faceprint_run, "stop_signals", no_signals)
        monkeypatch.setattr(faceprint_run, "monotonic", lambda: sum(waits))
        return waits

    def test_waits_for_a_baidu_that_comes_back(
        self, scenario: Any, run: Run, clock: Any, passing: list[float]
    ) -> None:
        made = [scenario.start() for _ in range(6)]
        for session in made:
            scenario.finish(session)
            record_return(session)
        scenario.fault("*", "http_503", count=8)
        assert run("faceprint_run", "--once").status == 0
        assert 0 < sum(passing) < 60
        for _ in range(2):
            # Retries are due by the project's clock, which stands still.
            clock.advance(minutes=1)
            run("faceprint_run", "--once")
        assert {scenario.fresh(session).archive_state for session in made} == {"complete"}

    def test_gives_up_on_a_baidu_that_stays_away(self, scenario: Any, run: Run, passing: list[float]) -> None:
        for _ in range(30):
            session = scenario.start()
            scenario.finish(session)
            record_return(session)
        scenario.fault("*", "http_503")
        done = run("faceprint_run", "--once")
        assert done.status == 4
        assert "Baidu does not answer: what is due stays due." in done.out
        assert 60 <= sum(passing) < 75


class TestForever:
    """The command in this thread, as it runs for an operator; a watcher sends the signal."""

    @pytest.fixture
    def until(self) -> Callable[..., str]:
        def run(condition: Callable[[], bool], number: int = signal.SIGTERM) -> str:
            """Run the command until *condition* holds, then send the signal; what it printed."""
            ended = threading.Event()

            def watch() -> None:
                try:
                    while not ended.wait(0.02):
                        if condition():
                            os.kill(os.getpid(), number)
                            return
                finally:
                    connection.close()

            out = io.StringIO()
            watcher = threading.Thread(target=watch)
            before = [signal.getsignal(item) for item in (signal.SIGTERM, signal.SIGINT)]
            watcher.start()
            try:
                with translation.override("en"):
                    call_command(
                        "faceprint_run", "--forever", "--interval", "0.05", stdout=out, no_color=True
                    )
            finally:
                ended.set()
                watcher.join(20)
            assert [signal.getsignal(item) for item in (signal.SIGTERM, signal.SIGINT)] == before
            return out.getvalue()

        return run

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_works_watches_and_cleans_up_until_a_signal(
        self, scenario: Any, until: Callable[..., str], number: int
    ) -> None:
        session = scenario.start()
        scenario.finish(session)
        record_return(session)
        overdue = make_passed_session(age=timedelta(days=9))
        make_asset(overdue, MediaAsset.Kind.VIDEO, state=MediaAsset.State.LOST)
        out = until(lambda: Heartbeat.objects.count() == 5, number)
        assert scenario.fresh(session).archive_state == "complete"
        assert set(statistics.heartbeats()) == {"alerts", "daily_mail", "retain", "rollup", "tick"}
        assert Alert.objects.get().rule.condition == "evidence_lost"
        assert out.count("\n") == 1
        assert out.startswith("1 sessions looked at, ")

    def test_survives_a_database_that_fails_for_a_moment(
        self, scenario: Any, until: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failures = iter([OperationalError("server closed the connection"), None])
        really_beat = statistics.record_heartbeat
        beaten = threading.Event()

        def record_heartbeat(name: str) -> None:
            failure = next(failures, None)
            if failure is not None:
                raise failure
            really_beat(name)
            beaten.set()

        monkeypatch.setattr(statistics, "record_heartbeat", record_heartbeat)
        until(beaten.is_set)
        assert statistics.last_heartbeat("tick") == now()

    def test_alerts_and_retention_keep_their_periods(
        self, scenario: Any, until: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ticks: list[str] = []
        runs: list[str] = []
        really_beat = statistics.record_heartbeat

        def record_heartbeat(name: str) -> None:
            ticks.append(name)
            really_beat(name)

        monkeypatch.setattr(statistics, "record_heartbeat", record_heartbeat)
        monkeypatch.setattr(faceprint_run, "evaluate", lambda: runs.append("alerts"))
        monkeypatch.setattr(retention, "retain", lambda: runs.append("retain"))
        until(lambda: ticks.count("tick") >= 4)
        assert runs == ["alerts", "retain"]


def test_one_of_the_two_must_be_chosen() -> None:
    with pytest.raises(CommandError, match="--once"):
        call_command("faceprint_run")
    with pytest.raises(CommandError, match="not allowed with"):
        call_command("faceprint_run", "--once", "--forever")


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "3600"])
def test_an_interval_that_makes_no_sense(interval: str) -> None:
    with pytest.raises(CommandError, match="--interval"):
        call_command("faceprint_run", "--forever", "--interval", interval)
