"""One run: an ordinary day with faults, an outage of nearly a day, the rescue, the aftermath, the verdict."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import InterfaceError, OperationalError, connection
from django.db.models import Min

from django_faceprint.devtools.sandbox_plans import copy_sandbox_plans
from django_faceprint.evidence.files import INTENT_LIFE
from django_faceprint.maintenance.retention import retain
from django_faceprint.models import UploadIntent, VerificationSession
from example_project.demo.people import RETRY_PLANS, Person

from . import storage
from .clock import PacedClock
from .evidence import names_on_disk, read_everything, work_history
from .fleet import Fleet
from .kills import WorkerKiller
from .people import ALL_PLANS, LONG_LIVED, RECORDED, Reception, crowd
from .servers import Broker, Postgres
from .upstream import Sandbox, fault_rules
from .verdict import UPLOADED, Findings, judge

FAULT_SHARE = 0.2
STORAGE_FAULT_SHARE = 0.05
#: Shares of all people: those of the ordinary day, and those of the outage whose evidence lives for three
#: days. The recordings of all others live for one.
DAY_PART = 0.25
LONG_LIVED_PART = 0.50
#: Waves of people with recordings during the outage, the minutes between two of them, and the minutes that
#: the first wave has left when the workers are back. The last wave has less than half an hour.
WAVES = 4
WAVE_MINUTES = 3.0
MINUTES_LEFT = 17.5
URGENT = timedelta(minutes=30)
RECORDINGS_LIFE = timedelta(hours=24)
#: Fetching all urgent files, and nothing else, takes this share of the time that is left for them. The files
#: of longer life came first and take more time: an engine that begins with them is late for all others.
TIGHTNESS = 0.75
#: Seconds of the run's clock that go by with each answer on the ordinary day, and in a step without work.
DAY_PER_ANSWER = 0.05
IDLE_STEP = 30.0
#: Seconds per step while only retries and leases are waited for.
WAITING_PER_STEP = 8.0
#: Past the end of every verify_token and the grace after it; past the last query for recordings.
PAST_THE_WINDOW = timedelta(hours=3, minutes=5)
PAST_THE_RECORDINGS = timedelta(hours=4)
#: Number of sessions with losses whose work history is printed.
WORK_HISTORIES = 5
#: Real seconds after which an unfinished phase has failed.
PHASE_SECONDS = 600.0


class RunFailed(Exception):
    """The run did not go as planned; that says nothing about the engine."""


@dataclass
class Figures:
    """The measurements of a run, from which the verdict is made."""

    order: str
    people: int
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    answers: int = 0
    faults: int = 0
    faults_by_kind: dict[str, int] = field(default_factory=dict)
    throttled_by_us: int = 0
    storage_faults: dict[str, int] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    kills_at_work: int = 0
    urgent_kills_at_work: int = 0
    engine_bugs: list[str] = field(default_factory=list)
    broker_wipes: int = 0
    messages_wiped: int = 0
    database_restarts: int = 0
    start_repeats: int = 0
    left_after_outage: int = 0
    urgent_after_outage: int = 0
    urgent_minutes: float = 0.0
    seconds_per_answer: float = 0.0
    minutes_to_spare: float = 0.0
    uploads_swept: int = 0
    findings: dict[str, Any] = field(default_factory=dict)
    work_histories: list[str] = field(default_factory=list)


class Run:
    """One run, from the start of the fleet to the verdict. *log* receives lines about its progress."""

    def __init__(self, people: int, order: str, seed: int, folder: Path, log: Callable[[str], None]) -> None:
        self.figures = Figures(order, people)
        self._archive, self._storage_faults = folder / "archive", folder / "storage-faults"
        self._clock_file = folder / "clock"
        self._log = log
        self._chance = random.Random(seed)
        self._started = time.monotonic()
        self._phase_started = self._started
        self._everybody: list[Person] = []

    def go(self, postgres: Postgres, broker: Broker, fleet: Fleet) -> Figures:
        """Make the run on started servers; starts the fleet."""
        self._postgres, self._broker, self._fleet = postgres, broker, fleet
        call_command("migrate", verbosity=0)
        fleet.start_sandbox()
        self._sandbox = Sandbox(fleet.url)
        copy_sandbox_plans()
        self._reception = Reception(fleet.url, self._log)
        self._killer = WorkerKiller(fleet, self._chance)
        watching = Sandbox(fleet.url)
        self._clock = PacedClock(
            self._clock_file,
            answers=lambda: _total(watching.calls()),
            until_due=_seconds_until_due,
        )
        self._sandbox.add_faults(fault_rules(FAULT_SHARE))
        storage.set_share(self._storage_faults, STORAGE_FAULT_SHARE)
        self._clock.start()
        fleet.start_beat()
        try:
            self._end_phase("start")
            self._ordinary_day()
            self._outage()
            self._rescue()
            self._aftermath()
        finally:
            self._killer.end()
            self._clock.stop()
        self._judge()
        self.figures.seconds = time.monotonic() - self._started
        return self.figures

    # --- phases -------------------------------------------------------------------------------------

    def _ordinary_day(self) -> None:
        """People of all plans come; workers are killed, the broker is wiped, the database restarted."""
        people = self._crowd("day", DAY_PART, ALL_PLANS)
        self._fleet.start_workers()
        self._killer.begin()
        self._clock.per_answer, self._clock.when_idle = DAY_PER_ANSWER, IDLE_STEP
        half = len(people) // 2
        self._reception.receive(people[:half])
        self._broker.wipe()
        self._postgres.restart("fast")
        self._reception.receive(people[half:])
        # Archive all of it now: the recordings of this day expire before the end of the outage.
        self._clock.per_step = WAITING_PER_STEP
        soon = [person.reference for person in people if not _waits_for_window(person)]
        self._until(lambda: not _outstanding(soon), "day: archiving", lambda: f"{_outstanding(soon)} open")
        self._clock.jump(PAST_THE_WINDOW.total_seconds())
        everybody = [person.reference for person in people]
        self._until(
            lambda: not _outstanding(everybody), "day: closing", lambda: f"{_outstanding(everybody)} open"
        )
        self._end_phase("day")

    def _outage(self) -> None:
        """All workers are dead; people keep coming."""
        self._killer.end()
        self._clock.when_idle = self._clock.per_step = 0.0
        self._fleet.kill_workers()
        self._log("all workers are dead; people keep coming")
        self._reception.receive(self._crowd("long", LONG_LIVED_PART, LONG_LIVED))
        self._clock.jump(3600)
        part = (1 - DAY_PART - LONG_LIVED_PART) / WAVES
        first_wave = self._clock.now()
        for wave in range(1, WAVES + 1):
            began = self._clock.now()
            self._reception.receive(self._crowd(f"wave{wave}", part, RECORDED))
            took = (self._clock.now() - began).total_seconds()
            self._log(f"wave {wave} of {WAVES} has finished")
            if wave < WAVES:
                self._clock.jump(max(WAVE_MINUTES * 60 - took, 0))
        # Files of the day that were archived in pieces also count as left: leave them out.
        over_from, over_until = first_wave + RECORDINGS_LIFE, self._clock.now() + timedelta(hours=30)
        first = min(until for until in self._left() if over_from <= until < over_until)
        self._clock.jump((first - self._clock.now()).total_seconds() - MINUTES_LEFT * 60)
        self._clock.per_answer = 0.0
        self._end_phase("outage")

    def _rescue(self) -> None:
        """The workers are back and go on dying; many files have less than half an hour left."""
        entries = self._sandbox.ledger(hashes=False)["sessions"]
        left = self._left(entries)
        moment = self._clock.now()
        urgent = [until for until in left if until - moment < URGENT]
        self.figures.left_after_outage, self.figures.urgent_after_outage = len(left), len(urgent)
        window = max(urgent) - moment
        self.figures.urgent_minutes = window.total_seconds() / 60
        per_answer = TIGHTNESS * window.total_seconds() / _answers_needed(entries, moment)
        self.figures.seconds_per_answer = per_answer
        self._log(
            f"{len(urgent)} of {len(left)} files to be fetched have less than {URGENT} left; "
            f"each answer takes {per_answer:.3f} s"
        )
        self._clock.per_answer, self._clock.when_idle = per_answer, IDLE_STEP
        killed_at_work = self._fleet.children_killed_at_work()
        self._fleet.start_workers()
        self._killer.begin()
        last = max(urgent)
        disruptions: deque[tuple[float, Callable[[], None]]] = deque(
            [
                (0.25, lambda: self._postgres.restart("immediate")),
                (0.4, self._broker.wipe),
                (0.6, lambda: self._postgres.restart("fast")),
            ]
        )

        def over() -> bool:
            open_ones = self._urgent_left(last)
            while disruptions and open_ones <= len(urgent) * (1 - disruptions[0][0]):
                disruptions.popleft()[1]()
            return not open_ones or self._clock.now() >= last

        self._until(over, "rescue", lambda: f"{self._urgent_left(last)} urgent files left")
        self.figures.urgent_kills_at_work = self._fleet.children_killed_at_work() - killed_at_work
        self.figures.minutes_to_spare = (last - self._clock.now()).total_seconds() / 60
        self._end_phase("rescue")

    def _aftermath(self) -> None:
        """Archive the files that have time left, and close the sessions that have none."""
        self._clock.jump(PAST_THE_RECORDINGS.total_seconds())
        self._clock.per_answer, self._clock.per_step = DAY_PER_ANSWER, WAITING_PER_STEP
        everybody = [person.reference for person in self._everybody]
        self._until(
            lambda: not _outstanding(everybody), "aftermath", lambda: f"{_outstanding(everybody)} open"
        )
        self._killer.end()
        self._note_upstream()
        self._sandbox.clear_faults()
        storage.set_share(self._storage_faults, 0)
        self._fleet.kill_workers()
        # Intents name the uploads that killed workers did not commit; retain() deletes these.
        while UploadIntent.objects.exists():
            self._clock.jump(INTENT_LIFE.total_seconds() + 60)
            self.figures.uploads_swept += retain().uncommitted_files
        self._end_phase("aftermath")

    def _judge(self) -> None:
        ledger = self._sandbox.ledger()
        expected = {person.reference: person.verdict for person in self._everybody}
        findings = judge(ledger, read_everything(), names_on_disk(self._archive), expected)
        self.figures.findings = _findings(findings)
        losers = findings.losers[:WORK_HISTORIES]
        self.figures.work_histories = [work_history(reference) for reference in losers]
        self._end_phase("verdict")

    # --- what the phases use ------------------------------------------------------------------------

    def _crowd(self, name: str, part: float, plans: dict[str, int]) -> list[Person]:
        people = crowd(name, round(self.figures.people * part), plans, self._chance)
        self._everybody += people
        return people

    def _left(self, entries: list[dict[str, Any]] | None = None) -> list[datetime]:
        """The deadlines of all files that the sandbox has and never delivered completely."""
        if entries is None:
            entries = self._sandbox.ledger(hashes=False)["sessions"]
        now = self._clock.now()
        return [
            until
            for entry in entries
            for item in entry["assets"]
            if item["kind"] != UPLOADED
            and not item["served"]
            and (until := datetime.fromisoformat(item["available_until"])) > now
        ]

    def _urgent_left(self, last: datetime) -> int:
        return sum(until <= last for until in self._left())

    def _until(self, over: Callable[[], bool], what: str, progress: Callable[[], str]) -> None:
        """Wait until *over* is true. Raises when that takes too long or a process has ended."""
        began = logged = time.monotonic()
        while True:
            self._fleet.require_alive()
            for failure in (self._clock.failure, self._killer.failure):
                if failure is not None:
                    raise failure
            try:
                if over():
                    return
                moment = time.monotonic()
                if moment - logged > 5:
                    logged = moment
                    self._log(f"{what}: {progress()}, {self._killer.kills.total} kills")
            except (OperationalError, InterfaceError):
                connection.close()
            if time.monotonic() - began > PHASE_SECONDS:
                raise RunFailed(f"{what} was not over after {PHASE_SECONDS:.0f} s: {progress()}.")
            time.sleep(0.5)

    def _end_phase(self, name: str) -> None:
        moment = time.monotonic()
        self.figures.phases[name] = round(moment - self._phase_started, 1)
        self._phase_started = moment
        self._log(f"{name}: over after {self.figures.phases[name]:.0f} s")

    def _note_upstream(self) -> None:
        calls = self._sandbox.calls()
        figures = self.figures
        figures.answers = _total(calls)
        figures.faults = sum(
            count
            for outcomes in calls.values()
            for name, count in outcomes.items()
            if name.startswith("fault:")
        )
        figures.faults_by_kind = dict(sorted(self._sandbox.faults_by_kind().items()))
        # Code 18 without a fault: the engine exceeded the limit.
        figures.throttled_by_us = sum(outcomes.get("18", 0) for outcomes in calls.values())
        figures.storage_faults = dict(storage.failures(self._storage_faults))
        figures.kills = asdict(self._killer.kills)
        figures.kills_at_work = self._fleet.children_killed_at_work()
        figures.engine_bugs = self._fleet.engine_bugs()
        figures.broker_wipes, figures.messages_wiped = self._broker.wipes, self._broker.messages_wiped
        figures.database_restarts = self._postgres.restarts
        figures.start_repeats = self._reception.repeated


def _findings(findings: Findings) -> dict[str, Any]:
    values = {name: value for name, value in vars(findings).items() if not name.startswith("_")}
    return {**values, "broken": findings.broken}


def _total(calls: dict[str, dict[str, int]]) -> int:
    return sum(count for outcomes in calls.values() for count in outcomes.values())


def _answers_needed(entries: list[dict[str, Any]], moment: datetime) -> float:
    """Answers needed for all urgent files: at least five per session and one per file."""
    needed = 0
    for entry in entries:
        files = [item for item in entry["assets"] if item["kind"] != UPLOADED]
        if any(datetime.fromisoformat(item["available_until"]) - moment < URGENT for item in files):
            needed += 5 + len(files)
    return needed / (1 - FAULT_SHARE)


def _waits_for_window(person: Person) -> bool:
    """Whether the session is decided only after the end of its verify_token."""
    return person.verdict == "expired" or (person.verdict == "failed" and person.plan in RETRY_PLANS)


def _seconds_until_due(moment: datetime) -> float:
    """Seconds until the engine has work; 0 if it has some now, or while the database does not answer."""
    sessions = VerificationSession.objects
    try:
        if sessions.ready().exists():
            return 0.0
        wakes_at = sessions.outstanding().aggregate(first=Min("wake_at"))["first"]
    except (OperationalError, InterfaceError):
        connection.close()
        return 0.0
    return max((wakes_at - moment).total_seconds(), 0.0) if wakes_at else 0.0


def _outstanding(references: list[str]) -> int:
    return VerificationSession.objects.outstanding().filter(reference__in=references).count()
