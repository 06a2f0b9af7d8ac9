"""Many sessions at once: threads that wait for the network, one thread that writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from django_faceprint import signals
from django_faceprint.base import lease as leases
from django_faceprint.base.db_thread import NoDatabaseHere
from django_faceprint.engine import claims, commit, queue, retry, steps, writer
from django_faceprint.engine.queue import request_recheck
from django_faceprint.engine.retry import DatabaseRetry
from django_faceprint.engine.runner import WorkReport, collect_due
from django_faceprint.engine.visit import Visit
from django_faceprint.evidence import files as evidence_files
from django_faceprint.evidence.media_types import NotMedia
from django_faceprint.models import UploadIntent, UpstreamCall, VerificationSession
from django_faceprint.upstream.clients import Upstream
from django_faceprint.verification import record_return
from tests.scenario import Scenario, store_in, stored_files

Archived = Callable[[VerificationSession], None]


def together(**more: Any) -> WorkReport:
    """One run with eight sessions at once, if not otherwise said."""
    options = {"monotonic": time.monotonic, "concurrency": 8, "interrupts": (SoftTimeLimitExceeded,), **more}
    return collect_due(budget=timedelta(seconds=60), **options)


def visited_once(before: VerificationSession, scenario: Scenario) -> VerificationSession:
    """*before* as it is now: archived whole under the one lease that was taken since."""
    fresh = scenario.fresh(before)
    assert (fresh.archive_state, fresh.lease_epoch) == ("complete", before.lease_epoch + 1)
    return fresh


def returned(scenario: Scenario, count: int, plan_id: str = "25001") -> list[VerificationSession]:
    """So many people who have passed and come back."""
    made = [scenario.start(plan_id) for _ in range(count)]
    for session in made:
        scenario.finish(session)
        record_return(session)
    return made


def test_all_of_them_are_archived_whole(scenario: Scenario, assert_archived: Archived) -> None:
    made = [*returned(scenario, 12), *returned(scenario, 6, "25003")]
    report = together()
    assert (report.sessions, report.lost, report.failures) == (18, 0, 0)
    for session in made:
        fresh = scenario.fresh(session)
        assert (fresh.verdict, fresh.archive_state, fresh.lease_until) == ("passed", "complete", None)
        assert_archived(fresh)
    assert report.archived == sum(session.assets.stored().count() for session in made)
    assert UploadIntent.objects.count() == 0
    assert set(UpstreamCall.objects.values_list("session", flat=True)) >= {session.pk for session in made}


def test_names_of_sessions_claimed_together_are_reserved_together(scenario: Scenario) -> None:
    made = returned(scenario, 3)
    with CaptureQueriesContext(connection) as queries:
        assert together().sessions == 3
    inserts = [query["sql"] for query in queries if query["sql"].startswith("INSERT INTO")]
    assert sum("uploadintent" in sql for sql in inserts) == 1
    assert all(scenario.fresh(session).archive_state == "complete" for session in made)
    assert UploadIntent.objects.count() == 0


def test_names_of_sessions_that_are_given_back_are_free_again(scenario: Scenario) -> None:
    returned(scenario, 3)
    asked = iter([False])
    assert together(stop=lambda: next(asked, True)).sessions == 1
    assert UploadIntent.objects.count() == 0
    assert together().sessions == 2
    assert UploadIntent.objects.count() == 0


class MeetingStorage(FileSystemStorage):
    """A storage in which writers wait for each other."""

    meeting: threading.Barrier

    def _save(self, name: str, content: Any) -> str:
        self.meeting.wait(timeout=30)
        return str(super()._save(name, content))


def test_they_really_are_looked_at_at_once_and_only_one_thread_has_a_connection(
    scenario: Scenario, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All eight: that is more than a run begins with.
    made = returned(scenario, 8, "25005")
    MeetingStorage.meeting = threading.Barrier(8)
    store_in(settings, tmp_path, MeetingStorage)
    connected: list[int] = []
    original = type(connection._connections["default"]).connect

    def connect(self: Any) -> None:
        connected.append(threading.get_ident())
        original(self)

    monkeypatch.setattr(type(connection._connections["default"]), "connect", connect)
    together()
    assert {scenario.fresh(session).archive_state for session in made} == {"complete"}
    assert set(connected) <= {threading.get_ident()}


def test_a_limit_and_a_stop_are_heeded(scenario: Scenario) -> None:
    returned(scenario, 6)
    assert together(limit=2).sessions == 2
    asked = iter([False, True])
    assert together(stop=lambda: next(asked, True)).sessions == 1
    assert VerificationSession.objects.filter(lease_until__isnull=False).count() == 0
    assert together().sessions == 3


def test_what_a_run_has_no_time_for_is_given_back(scenario: Scenario) -> None:
    returned(scenario, 6)
    seconds = [0.0]

    def monotonic() -> float:
        # The budget of a minute is over after the first claim.
        seconds[0] += 25.0
        return seconds[0]

    report = collect_due(budget=timedelta(seconds=60), monotonic=monotonic)
    assert report.sessions < 6
    assert VerificationSession.objects.ready().count() == 6 - report.sessions
    assert VerificationSession.objects.filter(lease_until__isnull=False).count() == 0


def test_one_lost_lease_spoils_nothing_for_the_others(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, assert_archived: Archived
) -> None:
    made = returned(scenario, 5)
    victim = made[2]
    really_write = commit.write_batch

    def write(batch: Any) -> Any:
        if any(changes.session.pk == victim.pk for changes in batch):
            VerificationSession.objects.filter(pk=victim.pk, verdict="pending").update(lease_epoch=99)
        return really_write(batch)

    monkeypatch.setattr(commit, "write_batch", write)
    together()
    others = [scenario.fresh(session) for session in made if session.pk != victim.pk]
    assert {session.archive_state for session in others} == {"complete"}
    for session in others:
        assert_archived(session)
    lost = scenario.fresh(victim)
    assert (lost.verdict, lost.lease_epoch, lost.assets.count(), lost.answers.count()) == (
        "pending",
        99,
        0,
        0,
    )
    assert UploadIntent.objects.count() == 0, "its files are removed again"


@contextmanager
def failing_statements(
    strikes: Callable[[str], bool], *, times: int = 1, disconnects: bool = True
) -> Iterator[list[str]]:
    """The first *times* statements of this thread that *strikes* chooses fail, as while a server restarts.

    Without *disconnects* the connection stays usable, as after a deadlock. Yields the statements that failed.
    """
    struck: list[str] = []

    def execute_or_fail(execute: Any, sql: str, *arguments: Any) -> Any:
        if len(struck) < times and strikes(sql):
            struck.append(sql)
            raise OperationalError("the server closed the connection")
        return execute(sql, *arguments)

    with connection.execute_wrapper(execute_or_fail), pytest.MonkeyPatch.context() as patch:
        for module in (commit, retry):
            patch.setattr(module, "is_connected", lambda: not disconnects)
        yield struck


def writes_a_visit(sql: str) -> bool:
    """The statement that a commit begins with."""
    return sql.startswith("UPDATE") and "poll_count" in sql


def waiting(waits: list[float]) -> DatabaseRetry:
    """Retries whose pauses are noted instead of slept."""
    return DatabaseRetry(sleep=waits.append)


def test_a_database_that_restarts_costs_nothing(scenario: Scenario, assert_archived: Archived) -> None:
    made = returned(scenario, 3)
    waits: list[float] = []
    with failing_statements(writes_a_visit, times=2):
        together(retry=waiting(waits))
    assert waits == list(DatabaseRetry().pauses[:2])
    for session in made:
        assert_archived(scenario.fresh(session))


#: Where the database can fail a run, and how the statement is recognised.
PLACES = {
    "promote": lambda sql: sql.startswith("SELECT") and '"wake_at" <=' in sql.replace("`", '"'),
    "claim": lambda sql: sql.startswith("SELECT") and '"priority_at" IS NOT NULL' in sql.replace("`", '"'),
    "prefetch": lambda sql: sql.startswith("SELECT") and "faceprint_mediaasset" in sql,
    "reserve": lambda sql: sql.startswith("INSERT") and "faceprint_uploadintent" in sql,
    "slot": lambda sql: sql.startswith("SELECT") and "faceprint_ratelimitbucket" in sql,
    "token": lambda sql: sql.startswith("SELECT") and "faceprint_accesstoken" in sql,
}


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("where", [*PLACES, "name"])
def test_a_database_that_restarts_costs_no_visit(
    scenario: Scenario,
    monkeypatch: pytest.MonkeyPatch,
    assert_archived: Archived,
    where: str,
    concurrency: int,
) -> None:
    """Wherever it strikes: nothing is requested or fetched a second time for it."""
    made = returned(scenario, 3)
    if where == "name":
        # No name is reserved with the claim, so that each visit reserves its own.
        monkeypatch.setattr(claims, "LIKELY_FILES", 0)
    with failing_statements(PLACES["reserve" if where == "name" else where]) as struck:
        report = together(concurrency=concurrency, retry=waiting([]), upstream=Upstream())
    assert len(struck) == 1
    assert report.failures == 0
    for session in made:
        fresh = scenario.fresh(session)
        assert (fresh.archive_state, fresh.poll_count) == ("complete", 1)
        assert_archived(fresh)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_deadlocks_in_a_row_cost_nothing(
    scenario: Scenario, assert_archived: Archived, concurrency: int
) -> None:
    made = returned(scenario, 3)
    waits: list[float] = []
    with failing_statements(writes_a_visit, times=3, disconnects=False):
        together(concurrency=concurrency, retry=waiting(waits))
    assert waits
    for session in made:
        fresh = scenario.fresh(session)
        assert (fresh.archive_state, fresh.poll_count) == ("complete", 1)
        assert_archived(fresh)


def test_a_database_that_stays_away_ends_the_run_and_loses_no_file(
    scenario: Scenario, clock: Any, assert_archived: Archived
) -> None:
    made = returned(scenario, 3)
    with failing_statements(writes_a_visit, times=1000), pytest.raises(OperationalError):
        together(retry=waiting([]))
    assert UploadIntent.objects.exists(), "what was uploaded can be found and removed"
    clock.advance(leases.MAX_LEASE)
    together()
    for session in made:
        assert_archived(scenario.fresh(session))


def test_a_mistake_of_ours_in_one_thread_is_said_on_its_session_alone(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = returned(scenario, 4)
    really_ask = steps.ask_verdict

    def ask(visit: Any) -> None:
        if visit.session.pk == made[0].pk:
            raise ZeroDivisionError("never seen before")
        really_ask(visit)

    monkeypatch.setattr(steps, "ask_verdict", ask)
    together()
    broken = scenario.fresh(made[0])
    assert (broken.error_class, broken.error_message) == ("internal", "ZeroDivisionError")
    assert broken.has_outstanding_work
    assert {scenario.fresh(session).archive_state for session in made[1:]} == {"complete"}


class SlowStorage(FileSystemStorage):
    """A storage that takes a second for every file."""

    seconds = 0.0

    def _save(self, name: str, content: Any) -> str:
        written = str(super()._save(name, content))
        type(self).seconds += 1.0
        return written


@pytest.mark.parametrize("concurrency", [1, 8])
def test_what_is_known_is_written_before_all_files_are_there(
    scenario: Scenario, settings: Any, tmp_path: Path, concurrency: int
) -> None:
    """The page that waits for the result must not wait for the video."""
    (session,) = returned(scenario, 1)
    seen: list[tuple[str, str]] = []
    store_in(settings, tmp_path, SlowStorage)

    def note(**about: Any) -> None:
        row = VerificationSession.objects.get(pk=session.pk)
        seen.append((row.verdict, row.archive_state))

    signals.asset_archived.connect(note, weak=False, dispatch_uid="t")
    try:
        together(monotonic=lambda: SlowStorage.seconds, concurrency=concurrency)
    finally:
        signals.asset_archived.disconnect(dispatch_uid="t")
    assert seen[0] == ("passed", "collecting")
    assert scenario.fresh(session).archive_state == "complete"


class LingeringStorage(FileSystemStorage):
    """A storage in which something happens before each file is written."""

    before: ClassVar[Callable[[], None]]

    def _save(self, name: str, content: Any) -> str:
        type(self).before()
        return str(super()._save(name, content))


@pytest.fixture
def linger(settings: Any, tmp_path: Path) -> Callable[[Callable[[], None]], None]:
    """Sets what happens before each file is written."""
    store_in(settings, tmp_path, LingeringStorage)

    def set_before(action: Callable[[], None]) -> None:
        LingeringStorage.before = action

    return set_before


def test_sessions_stay_with_a_worker_that_is_slow(
    scenario: Scenario, clock: Any, linger: Any, monkeypatch: pytest.MonkeyPatch, assert_archived: Archived
) -> None:
    made = [scenario.fresh(session) for session in returned(scenario, 3)]
    renewed = threading.Semaphore(0)
    really_renew = queue.renew
    turns = iter(range(6))
    waiting = threading.Lock()

    def renew(*about: Any) -> set[int]:
        ours = really_renew(*about)
        # Other workers look for work.
        assert (queue.promote(clock()), queue.claim(clock())) == (0, [])
        renewed.release()
        return ours

    def wait() -> None:
        with waiting:
            for _ in turns:
                clock.advance(queue.RENEW_AFTER)
                assert renewed.acquire(timeout=60)

    monkeypatch.setattr(queue, "renew", renew)
    linger(wait)
    began = clock()
    together()
    assert clock() - began > queue.LEASE_TTL
    for session in made:
        assert_archived(visited_once(session, scenario))


def test_a_session_stays_with_a_worker_that_visits_one_at_once(
    scenario: Scenario, clock: Any, linger: Any, assert_archived: Archived
) -> None:
    session = scenario.fresh(returned(scenario, 1, "25003")[0])
    files: list[int] = []

    def wait() -> None:
        assert (queue.promote(clock()), queue.claim(clock())) == (0, [])
        files.append(1)
        if len(files) < 4:
            # As long as a download may take.
            clock.advance(queue.MAX_VISIT)

    linger(wait)
    together(monotonic=lambda: float(len(files)), concurrency=1)
    assert len(files) >= 4
    assert_archived(visited_once(session, scenario))


def test_the_sessions_of_a_dead_worker_are_free_when_its_term_is_over(
    scenario: Scenario, clock: Any, linger: Any, assert_archived: Archived
) -> None:
    made = returned(scenario, 4)

    def die() -> None:
        raise SystemExit

    linger(die)
    with pytest.raises(SystemExit):
        together()
    assert VerificationSession.objects.filter(lease_until__isnull=False).exists()
    linger(lambda: None)
    clock.advance(queue.LEASE_TTL)
    together()
    for session in made:
        fresh = scenario.fresh(session)
        assert fresh.archive_state == "complete"
        assert_archived(fresh)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_lease_that_could_not_be_renewed_is_tried_again(
    scenario: Scenario, clock: Any, linger: Any, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    session = scenario.fresh(returned(scenario, 1, "25003")[0])
    failures = iter([True])
    really_renew = queue.renew
    files: list[int] = []

    def renew(*about: Any) -> set[int]:
        if next(failures, False):
            raise OperationalError("terminating connection due to administrator command")
        return really_renew(*about)

    def wait() -> None:
        files.append(1)
        if len(files) <= 2:
            clock.advance(queue.MAX_VISIT if concurrency == 1 else queue.RENEW_AFTER)

    monkeypatch.setattr(queue, "renew", renew)
    linger(wait)
    together(monotonic=lambda: float(len(files)), concurrency=concurrency, retry=waiting([]))
    assert next(failures, None) is None
    visited_once(session, scenario)


def test_a_receiver_that_takes_long_costs_no_visit(scenario: Scenario, clock: Any, linger: Any) -> None:
    """Leases that ran out while the run's thread stood still are its own until others have taken them."""
    made = [scenario.fresh(session) for session in returned(scenario, 2)]
    released = threading.Event()
    waiting: set[int] = set()
    guard = threading.Lock()

    def wait() -> None:
        with guard:
            waiting.add(threading.get_ident())
            waits = next(iter(waiting)) == threading.get_ident() and len(waiting) == 1
        if waits:
            assert released.wait(timeout=60)

    def take_long(**about: Any) -> None:
        if not released.is_set():
            clock.advance(queue.LEASE_TTL)
            released.set()

    linger(wait)
    signals.session_archived.connect(take_long, weak=False, dispatch_uid="t")
    try:
        together()
    finally:
        signals.session_archived.disconnect(dispatch_uid="t")
    for session in made:
        visited_once(session, scenario)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_what_others_have_taken_is_not_begun(
    scenario: Scenario, clock: Any, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    returned(scenario, 12)
    taken: dict[int, int] = {}
    begun: list[int] = []
    really_visit = steps.perform_visit

    def stand_still(**about: Any) -> None:
        if not taken:
            clock.advance(queue.SERIAL_LEASE_TTL)
            queue.promote(clock())
            taken.update((lease.session_pk, lease.epoch) for lease in queue.claim(clock(), limit=50))

    def note(visit: Visit) -> None:
        if visit.lease.epoch < taken.get(visit.lease.session_pk, 0):
            begun.append(visit.lease.session_pk)
        really_visit(visit)

    monkeypatch.setattr(writer, "COMMIT_WITHIN", 0.0)
    monkeypatch.setattr(steps, "perform_visit", note)
    signals.session_archived.connect(stand_still, weak=False, dispatch_uid="t")
    try:
        together(concurrency=concurrency)
    finally:
        signals.session_archived.disconnect(dispatch_uid="t")
    assert taken
    assert not begun


class ThreadedStorage(FileSystemStorage):
    """A storage that reads what it stores in a thread of its own, as that of S3 does."""

    def _save(self, name: str, content: Any) -> str:
        with ThreadPoolExecutor(1) as pool:
            data = pool.submit(lambda: b"".join(content.chunks())).result()
        return str(super()._save(name, ContentFile(data)))


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("threaded", [False, True])
def test_a_url_that_expires_in_the_middle_of_a_file(
    scenario: Scenario,
    clock: Any,
    settings: Any,
    tmp_path: Path,
    assert_archived: Archived,
    threaded: bool,
    concurrency: int,
) -> None:
    """Asked for anew at once, or, where a storage reads in its own thread, at the next visit."""
    if threaded:
        store_in(settings, tmp_path, ThreadedStorage)
    (session,) = returned(scenario, 1)
    scenario.fault("media", "reset", after_bytes=5000, count=1)
    scenario.fault("media", "expired_url", count=1)

    together(concurrency=concurrency)
    assert scenario.fresh(session).archive_state == ("collecting" if threaded else "complete")
    clock.advance(minutes=1)
    together(concurrency=concurrency)
    fresh = scenario.fresh(session)
    assert (fresh.archive_state, fresh.poll_count) == ("complete", 2 if threaded else 1)
    assert_archived(fresh)
    # Each question is recorded, with its turn.
    assert UpstreamCall.objects.filter(endpoint="result_media_query").count() == 2


def test_a_lease_that_is_lost_in_the_middle_of_a_file_ends_the_visit(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    (session,) = returned(scenario, 1)
    scenario.fault("media", "reset", after_bytes=5000, count=1)
    scenario.fault("media", "expired_url", count=1)
    fetched: list[str] = []
    really_save = evidence_files.write_checked

    def lose(*about: Any) -> None:
        fetched.clear()
        raise leases.LeaseLost

    def note(asset: Any, *about: Any, **more: Any) -> Any:
        fetched.append(asset.kind)
        return really_save(asset, *about, **more)

    monkeypatch.setattr(steps, "renewed_url", lose)
    monkeypatch.setattr(evidence_files, "write_checked", note)
    together()
    assert fetched == []
    assert not scenario.fresh(session).assets.stored().exists()
    assert UploadIntent.objects.count() == 0


class AlteringStorage(FileSystemStorage):
    """A storage that gives files names of its own."""

    def save(self, name: str, content: Any, max_length: int | None = None) -> str:
        return super().save(f"{name}.x", content, max_length)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_storage_that_alters_names_leaves_no_file_behind(
    scenario: Scenario,
    settings: Any,
    tmp_path: Path,
    assert_archived: Archived,
    concurrency: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store_in(settings, tmp_path, AlteringStorage)
    (session,) = returned(scenario, 1)
    really_describe = evidence_files.VideoInspector.facts

    def refuse(inspector: Any) -> Any:
        raise NotMedia("broken_at_its_end")

    monkeypatch.setattr(evidence_files.VideoInspector, "facts", refuse)
    together(concurrency=concurrency)
    names = set(scenario.fresh(session).assets.stored().values_list("stored_name", flat=True))
    assert names
    assert all(name.endswith(".x") for name in names)
    assert set(stored_files()) == names, "the broken video is gone"
    assert UploadIntent.objects.count() == 0
    monkeypatch.setattr(evidence_files.VideoInspector, "facts", really_describe)
    request_recheck(session.pk)
    together(concurrency=concurrency)
    assert_archived(scenario.fresh(session))


def test_a_time_out_of_database_work_reaches_the_visit(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for that of waiting for the work."""
    (session,) = returned(scenario, 1)

    def time_out(*about: Any) -> list[str]:
        raise TimeoutError

    monkeypatch.setattr(claims, "LIKELY_FILES", 0)
    monkeypatch.setattr(evidence_files, "reserve_names", time_out)
    together(concurrency=2)
    assert scenario.fresh(session).error_message == "TimeoutError"


def test_a_visits_thread_cannot_open_a_connection(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    (session,) = returned(scenario, 1)
    really_ask = steps.ask_verdict
    refusals: list[str] = []

    def ask(visit: Any) -> None:
        with pytest.raises(NoDatabaseHere) as refusal:
            VerificationSession.objects.count()
        refusals.append(str(refusal.value))
        really_ask(visit)

    monkeypatch.setattr(steps, "ask_verdict", ask)
    together()
    assert len(refusals) == 1
    assert "run's thread" in refusals[0]
    assert scenario.fresh(session).archive_state == "complete"


@pytest.mark.parametrize("concurrency", [1, 2])
def test_what_was_finished_is_written_when_a_run_is_broken_off(
    scenario: Scenario, clock: Any, assert_archived: Archived, concurrency: int
) -> None:
    made = returned(scenario, 4, "25005")
    asked = iter([False] * concurrency)

    def stop() -> bool:
        for answer in asked:
            return answer
        raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        # Time stands still, so that nothing is written merely because it is due.
        together(monotonic=lambda: 0.0, concurrency=concurrency, stop=stop)
    done = [session for session in made if scenario.fresh(session).archive_state == "complete"]
    assert done
    for session in done:
        assert_archived(session)
    clock.advance(leases.MAX_LEASE)
    together()
    assert {scenario.fresh(session).archive_state for session in made} == {"complete"}
