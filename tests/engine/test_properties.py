"""The engine's invariants (docs/en/invariants.md) under anything that may happen, in any order.

The engine is the real one, Baidu is the sandbox behind a real socket, and the archive is a folder. Time is
frozen and moves by steps of the scenario; a worker dies at any statement or write, and whatever else happens
while a worker waits for an answer happens there, in another thread with a connection of its own. A longer
run: ``FACEPRINT_PROPERTY_EXAMPLES=2000 pytest tests/engine/test_properties.py``.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.files.storage import FileSystemStorage
from django.db import connection, connections
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_faceprint import signals
from django_faceprint.base import deadlines, lease
from django_faceprint.client import Identity, MatchImage
from django_faceprint.client import download as client_download
from django_faceprint.engine import polling, queue, refresh, runner
from django_faceprint.evidence import files as evidence_files
from django_faceprint.exceptions import FaceprintConfigurationError, FaceprintError
from django_faceprint.maintenance import retention
from django_faceprint.models import (
    AccessToken,
    MediaAsset,
    Plan,
    RateLimitBucket,
    UploadIntent,
    UpstreamAnswer,
    UpstreamCall,
    VerificationSession,
)
from django_faceprint.sandbox.clock import SandboxClock
from django_faceprint.sandbox.core import Sandbox
from django_faceprint.sandbox.message import Request, Response
from django_faceprint.sandbox.pages import PageRefused
from django_faceprint.sandbox.server import SandboxServer
from django_faceprint.upstream import clients, token_store
from django_faceprint.verification import StartRequest, record_return, start_session
from tests.clock import START
from tests.clock import clock as true_clock
from tests.factories import NAME, NUMBER, image_bytes

State = MediaAsset.State
Verdict = VerificationSession.Verdict
ArchiveState = VerificationSession.ArchiveState

EXAMPLES = int(os.environ.get("FACEPRINT_PROPERTY_EXAMPLES", "0"))
#: How far a worker's clock may be wrong.
SKEW = timedelta(seconds=5)
#: Long enough for every pause and backoff to end, and for every lease of a dead worker.
CALM = [timedelta(minutes=minutes) for minutes in (0, 1, 8, 8, 8, 8, 8, 9)]
MAX_SESSIONS = 3
MAX_OUTAGES = 2

PLAN_IDS = ("25001", "25002", "25003", "25004", "25005", "25006", "25007")

RESULT_ENDPOINTS = ("result_detail", "result_getall", "result_simple", "result_media_query", "result_stat")
FILE_ENDPOINTS = ("media", "simple_image")
START_ENDPOINTS = ("oauth_token", "verify_token_generate", "idcard_submit", "upload_match_image")
ANY_ANSWER: tuple[dict[str, Any], ...] = (
    {"kind": "http_500"},
    {"kind": "http_503"},
    {"kind": "http_404"},
    {"kind": "html"},
    {"kind": "malformed_json"},
    {"kind": "nan_json"},
    {"kind": "empty"},
    {"kind": "reset"},
    {"kind": "truncate"},
    {"kind": "wrong_content_type"},
    *({"kind": "gateway", "code": code} for code in (2, 4, 6, 17, 18, 19, 100, 110, 111)),
    *({"kind": "service", "code": code} for code in (283400, 283512)),
)
#: What upstream may say of a session without a decision meant by it: an unpublished code, and the text
#: that reads the same for used, expired, purged and foreign tokens.
REFUSALS: tuple[dict[str, Any], ...] = (
    {"kind": "service", "code": 987654, "message": "新的错误"},
    {"kind": "service", "code": 900001, "message": "Token无效或者已过期"},
)
OTHER_HOSTS: tuple[dict[str, Any], ...] = ({"kind": "foreign_url"}, {"kind": "internal_url"})
ANY_FILE: tuple[dict[str, Any], ...] = (
    {"kind": "http_500"},
    {"kind": "http_404"},
    {"kind": "reset"},
    {"kind": "reset", "after_bytes": 1000},
    {"kind": "truncate"},
    {"kind": "truncate", "after_bytes": 3000},
    {"kind": "expired_url"},
    {"kind": "not_image"},
    {"kind": "truncated_image"},
    {"kind": "wrong_range"},
    {"kind": "ignore_range"},
    {"kind": "wrong_content_type"},
    {"kind": "redirect"},
    {"kind": "empty"},
)
FAULTS = st.one_of(
    st.tuples(st.sampled_from((*RESULT_ENDPOINTS, *START_ENDPOINTS)), st.sampled_from(ANY_ANSWER)),
    st.tuples(
        st.sampled_from(("result_detail", "result_simple", "result_media_query", "result_stat")),
        st.sampled_from(REFUSALS),
    ),
    st.tuples(
        st.sampled_from(("result_simple", "result_media_query", "result_getall")),
        st.sampled_from(OTHER_HOSTS),
    ),
    st.tuples(st.sampled_from(FILE_ENDPOINTS), st.sampled_from(ANY_FILE)),
)


def worker_time() -> datetime:
    """The clock of our workers, which may be a little wrong; ``FACEPRINT["CLOCK"]`` names it."""
    return true_clock() + WORLD.skew


class Killed(BaseException):
    """``kill -9``: nothing that the worker would do after it is done."""


@dataclass
class World:
    """What surrounds the engine: who dies when, what happens meanwhile, and what the storage refuses."""

    skew: timedelta = timedelta(0)
    #: Statements and writes until the worker dies; None: it lives.
    life: int | None = None
    #: Waits of a worker until something happens meanwhile.
    countdown: int = 0
    meanwhile: Callable[[], None] | None = None
    refused_saves: int = 0
    refused_deletes: int = 0
    #: Mistakes that were found in other threads.
    errors: list[BaseException] = field(default_factory=list)

    def live(self) -> None:
        """The worker does something; it may be the last thing, and after that it does nothing."""
        if self.life is not None:
            self.life -= 1
            if self.life < 0:
                raise Killed

    def wait(self) -> None:
        """A worker waits for Baidu or for the storage. Whatever happens meanwhile happens now."""
        if self.meanwhile is None:
            return
        self.countdown -= 1
        if self.countdown < 0:
            happens, self.meanwhile = self.meanwhile, None
            try:
                happens()
            except BaseException as error:  # noqa: BLE001  (raised again in the scenario's own thread)
                self.errors.append(error)
            finally:
                connections.close_all()

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.skew, self.life, self.meanwhile = timedelta(0), None, None
        self.refused_saves = self.refused_deletes = 0


WORLD = World()


class Archive(FileSystemStorage):
    """A folder that refuses, breaks off, and at which workers die and wait."""

    def _save(self, name: str, content: Any) -> str:
        assert not connection.in_atomic_block, "11: storage is not used inside a transaction"
        WORLD.live()
        refused = WORLD.refused_saves > 0
        WORLD.refused_saves -= refused
        really_read = content.chunks

        def chunks(*arguments: Any) -> Iterator[bytes]:
            for chunk in really_read(*arguments):
                yield chunk[: len(chunk) // 2]
                WORLD.live()
                if refused:
                    raise OSError("no space left")
                yield chunk[len(chunk) // 2 :]

        content.chunks = chunks
        written = str(super()._save(name, content))
        WORLD.live()
        if WORLD.meanwhile is not None:
            with ThreadPoolExecutor(1) as elsewhere:
                elsewhere.submit(WORLD.wait).result()
        return written

    def delete(self, name: str) -> None:
        WORLD.live()
        if WORLD.refused_deletes > 0:
            WORLD.refused_deletes -= 1
            raise OSError("permission denied")
        super().delete(name)


class Baidu(Sandbox):
    """The sandbox, at which workers wait."""

    def handle(self, request: Request) -> Response:
        """Before the answer something else may happen: that is how two workers are at work at once."""
        if request.path.startswith(("/rpc/2.0/brain/solution/faceprint/result/", "/v1/", "/solution/")):
            WORLD.wait()
        return super().handle(request)


@dataclass
class Memory:
    """What was true of one session when it was last looked at."""

    started: bool = False
    epoch: int = 0
    verdict: str = Verdict.PENDING
    archive_state: str = ArchiveState.WAITING
    erased: bool = False
    #: Asset pk → (name, SHA-256) of what was stored, and → state of what was decided.
    stored: dict[int, tuple[str, str]] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)


class Scenario(RuleBasedStateMachine):
    """People, Baidu, workers and operators, in any order."""

    server: SandboxServer
    plans: dict[str, Plan]
    folder: Path
    #: Examples that came to their end, where the invariants of the end are checked.
    ended: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        WORLD.calm()
        WORLD.errors.clear()
        true_clock.set(START)
        polling.jitter.seed(1)
        self.baidu.reset()
        for model in (VerificationSession, UploadIntent, UpstreamCall, RateLimitBucket, AccessToken):
            model.objects.all().delete()
        restart_process()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.memories: dict[int, Memory] = {}
        self.tokens: dict[int, str] = {}
        self.outages = 0
        self.requests: list[StartRequest] = []
        self.announced: Counter[tuple[Any, ...]] = Counter()
        for signal, what in ANNOUNCED.items():
            signal.connect(self._hear(what), weak=False, dispatch_uid="properties")

    @property
    def baidu(self) -> Sandbox:
        return self.server.sandbox

    def teardown(self) -> None:
        """Everybody becomes well, and what must be true in the end is looked at."""
        try:
            if sys.exception() is None:
                self._end()
                type(self).ended += 1
        finally:
            WORLD.calm()
            for signal in ANNOUNCED:
                signal.disconnect(dispatch_uid="properties")

    def _hear(self, what: str) -> Callable[..., None]:
        def receive(**about: Any) -> None:
            asset = about.get("asset")
            self.announced[what, about["session"].pk, asset.pk if asset else None] += 1

        return receive

    # --- what happens -----------------------------------------------------------------------------

    @initialize(
        switches=st.fixed_dictionaries(
            {
                "error_envelope": st.sampled_from(["service", "documented", "mixed"]),
                "between_attempts": st.sampled_from(["failure", "not_started"]),
                "before_attempt": st.sampled_from(["not_started", "empty"]),
                "expired_unused": st.sampled_from(["not_started", "not_started", "gone"]),
                "both_video_fields": st.booleans(),
                "simple_image_seconds": st.sampled_from([7200.0, 259200.0]),
                "getall_ocr_place": st.sampled_from(["confirm", "sibling"]),
            }
        ),
        people=st.lists(
            st.tuples(st.sampled_from(PLAN_IDS), st.sampled_from(["pass", "pass", "pass", "fail", "giveup"])),
            min_size=1,
            max_size=MAX_SESSIONS - 1,
        ),
        faults=st.lists(FAULTS, max_size=2),
    )
    def baidu_has_its_ways_and_people_have_come(
        self,
        switches: dict[str, Any],
        people: list[tuple[str, str]],
        faults: list[tuple[str, dict[str, Any]]],
    ) -> None:
        """Where the documents are silent Baidu may do as it likes."""
        self.baidu.set_switches(**switches, qps=0.0)
        for number, (plan_id, outcome) in enumerate(people):
            self.a_host_starts_a_session(plan_id)
            self._finish(number, outcome)
        for fault in faults:
            self.baidu_is_unwell(fault, count=1, skip=0)

    @precondition(lambda self: len(self.requests) < MAX_SESSIONS)
    @rule(plan_id=st.sampled_from(PLAN_IDS))
    def a_host_starts_a_session(self, plan_id: str) -> None:
        plan = self.plans[plan_id]
        request = StartRequest(
            plan_id=plan_id,
            identity=Identity.checked(NAME, NUMBER, 0) if plan.needs_identity else None,
            match_image=MatchImage.checked(image_bytes()) if plan.needs_match_image else None,
            idempotency_key=f"key-{len(self.requests)}",
        )
        self.requests.append(request)
        self._start(request)

    @precondition(lambda self: self.requests)
    @rule(number=st.integers(0, MAX_SESSIONS - 1))
    def a_host_starts_the_same_again(self, number: int) -> None:
        self._start(self.requests[number % len(self.requests)])

    @precondition(lambda self: self.requests)
    @rule(number=st.integers(0, MAX_SESSIONS - 1), at=st.integers(0, 30))
    def a_web_process_dies_while_it_starts_a_session(self, number: int, at: int) -> None:
        self._die(lambda: self._start(self.requests[number % len(self.requests)]), at)

    def _start(self, request: StartRequest) -> None:
        # Whatever goes wrong is written on the session and said to the host, which may try again.
        with suppress(FaceprintError, FaceprintConfigurationError, evidence_files.StorageFailed):
            start_session(request)

    @precondition(lambda self: self.requests)
    @rule(
        number=st.integers(0, MAX_SESSIONS - 1),
        outcome=st.sampled_from(["pass", "pass", "pass", "fail", "giveup"]),
        code=st.sampled_from(["223120", "223114", "222351", "low_score"]),
        demote=st.booleans(),
        comes_back=st.booleans(),
    )
    def a_person_goes_through_the_page(
        self, number: int, outcome: str, code: str, *, demote: bool, comes_back: bool
    ) -> None:
        self._finish(number, outcome, code, demote=demote)
        if comes_back:
            self._come_back(number)

    def _finish(
        self, number: int, outcome: str = "pass", code: str = "223120", *, demote: bool = False
    ) -> None:
        session = self._session(number)
        if session is None or not session.verify_token:
            return
        with suppress(PageRefused):
            self.baidu.finish(session.verify_token, outcome, code, demote=demote)

    @rule(number=st.integers(0, MAX_SESSIONS - 1))
    def a_browser_comes_back(self, number: int) -> None:
        self._come_back(number)

    def _come_back(self, number: int) -> None:
        session = self._session(number)
        if session is not None:
            record_return(session)

    @rule(pace=st.sampled_from([0.0, 0.3, 10.0]), limit=st.sampled_from([None, None, 1]))
    def a_worker_works(self, pace: float, limit: int | None) -> None:
        self._work(pace, limit=limit)

    @rule(number=st.integers(0, MAX_SESSIONS - 1))
    def a_message_is_delivered_twice(self, number: int) -> None:
        session = self._session(number)
        for _ in range(2):
            self._work(hint=session.pk if session else 4711)

    @rule(number=st.integers(0, MAX_SESSIONS - 1), pace=st.sampled_from([0.0, 0.3]), at=st.integers(0, 80))
    def a_worker_dies(self, number: int, pace: float, at: int) -> None:
        self._come_back(number)
        self._die(lambda: self._work(pace), at)

    @rule(
        pace=st.sampled_from([0.0, 0.3]),
        at=st.integers(0, 9),
        number=st.integers(0, MAX_SESSIONS - 1),
        happens=st.lists(
            st.sampled_from(
                [
                    "another worker",
                    "lease over",
                    "erase",
                    "return",
                    "anew",
                    "sweep",
                    "an hour",
                    "a day",
                    "finish",
                ]
            ),
            min_size=1,
            max_size=3,
        ),
    )
    def things_happen_while_a_worker_waits(
        self, pace: float, at: int, number: int, happens: list[str]
    ) -> None:
        deeds: dict[str, Callable[[], object]] = {
            "another worker": self._work,
            "lease over": lambda: (true_clock.advance(lease.MAX_LEASE + SKEW), self._work()),
            "erase": lambda: self._erase(number),
            "return": lambda: self._come_back(number),
            "anew": lambda: self._collect_anew(number),
            "sweep": retention.retain,
            "an hour": lambda: true_clock.advance(hours=1),
            "a day": lambda: true_clock.advance(days=1),
            "finish": lambda: self._finish(number),
        }

        def meanwhile() -> None:
            for name in happens:
                deeds[name]()
            self.what_is_always_true()

        self._come_back(number)
        WORLD.countdown, WORLD.meanwhile = at, meanwhile
        self._work(pace)
        WORLD.meanwhile = None

    @rule(seconds=st.sampled_from([-SKEW.total_seconds(), SKEW.total_seconds()]))
    def a_worker_whose_clock_is_wrong_works(self, seconds: float) -> None:
        WORLD.skew = timedelta(seconds=seconds)
        self._work()
        WORLD.skew = timedelta(0)

    @rule()
    def a_worker_is_restarted(self) -> None:
        restart_process()

    @rule(
        fault=FAULTS,
        count=st.sampled_from([1, 1, 2, 4, None]),
        skip=st.sampled_from([0, 0, 0, 1, 3]),
    )
    def baidu_is_unwell(self, fault: tuple[str, dict[str, Any]], count: int | None, skip: int) -> None:
        endpoint, what = fault
        self.baidu.add_faults(
            {"endpoint": endpoint, "skip": skip, **what} | ({"count": count} if count else {})
        )

    @rule()
    def baidu_forgets_its_access_tokens(self) -> None:
        self.baidu.store.revoke_access_tokens()

    @rule(saves=st.integers(0, 3), deletes=st.integers(0, 3))
    def the_storage_refuses(self, saves: int, deletes: int) -> None:
        WORLD.refused_saves, WORLD.refused_deletes = saves, deletes

    @rule(seconds=st.sampled_from([1, 2, 31, 61, 300, 430, 900, 3600]))
    def time_goes_by(self, seconds: int) -> None:
        true_clock.advance(seconds=seconds)

    @precondition(lambda self: self.outages < MAX_OUTAGES)
    @rule(hours=st.sampled_from([2, 3, 12, 24]))
    def nobody_works_for_long(self, hours: int) -> None:
        self.outages += 1
        true_clock.advance(hours=hours)

    @rule(at=st.none() | st.integers(0, 30))
    def retention_sweeps(self, at: int | None) -> None:
        if at is None:
            retention.retain()
        else:
            self._die(retention.retain, at)

    @rule(number=st.integers(0, MAX_SESSIONS - 1))
    def a_session_is_erased(self, number: int) -> None:
        self._erase(number)

    def _erase(self, number: int) -> None:
        """What retention does when the time of a decided session is over."""
        session = self._session(number)
        if session is None:
            return
        over = VerificationSession.objects.filter(pk=session.pk, retain_until__isnull=False)
        over.update(retain_until=true_clock() - timedelta(minutes=1))
        retention.retain()
        session.refresh_from_db()
        self._memory(session).erased |= session.verdict != Verdict.PENDING

    @rule(number=st.integers(0, MAX_SESSIONS - 1))
    def an_operator_asks_for_everything_again(self, number: int) -> None:
        self._collect_anew(number)

    def _collect_anew(self, number: int) -> None:
        session = self._session(number)
        if session is not None and refresh.recollect(session):
            memory = self._memory(session)
            memory.archive_state = ArchiveState.COLLECTING
            memory.states = {pk: state for pk, state in memory.states.items() if state != State.LOST}
            self.announced = Counter(
                {key: count for key, count in self.announced.items() if key[:2] != ("lost", session.pk)}
            )

    @rule()
    def everybody_is_well_for_a_while(self) -> None:
        self._calm()

    # --- how it is done ---------------------------------------------------------------------------

    def _work(self, pace: float = 0.1, *, hint: int | None = None, limit: int | None = None) -> None:
        """One run of the engine; each look at its stopwatch finds *pace* seconds gone."""
        seconds = 0.0

        def monotonic() -> float:
            nonlocal seconds
            seconds += pace
            return seconds

        runner.collect_due(budget=timedelta(seconds=90), monotonic=monotonic, hint=hint, limit=limit)

    def _die(self, deed: Callable[[], object], at: int) -> None:
        """Do *deed* in a process that dies at its statement or write number *at*."""

        def statement(execute: Any, *arguments: Any) -> Any:
            WORLD.live()
            return execute(*arguments)

        WORLD.life = at
        try:
            with suppress(Killed), connection.execute_wrapper(statement):
                deed()
        finally:
            WORLD.life = None
            connection.close()
            restart_process()

    def _calm(self) -> None:
        """Nothing goes wrong for a while: then all that Baidu will keep beyond it is archived (10)."""
        WORLD.calm()
        self.baidu.faults.clear()
        for step in CALM:
            true_clock.advance(step)
            self._work()
        self.what_is_always_true()
        for session in VerificationSession.objects.select_related("plan"):
            if not self._memory(session).erased:
                self._check_nothing_is_missing(session, true_clock())

    def _check_nothing_is_missing(self, session: VerificationSession, moment: datetime) -> None:
        entry = self._ledger(session)
        if entry is None or not entry["attempts"] or moment >= when(entry["results_until"]):
            return
        passed = entry["attempts"][-1]["passed"]
        if passed or session.plan.closes_on_failure:
            assert session.verdict == (Verdict.PASSED if passed else Verdict.FAILED), (
                "10: the verdict is known"
            )
        if session.verdict == Verdict.PENDING:
            return
        obtainable = Counter(
            (item["kind"], item["sha256"])
            for item in entry["assets"]
            if item["available_from"] and when(item["available_until"]) > moment
        )
        stored = Counter((asset.kind, asset.sha256) for asset in session.assets.stored())
        assert not obtainable - stored, f"10: {[kind for kind, _ in obtainable - stored]} could still be had"

    def _end(self) -> None:
        """Everybody is well again, and then time is over."""
        self._calm()
        true_clock.advance(evidence_files.INTENT_LIFE + timedelta(seconds=1))
        retention.retain()
        self.what_is_always_true()
        assert not UploadIntent.objects.exists(), "7: nothing is left of uploads that were not committed"
        kept = set(MediaAsset.objects.stored().values_list("stored_name", flat=True))
        assert self._files() == kept, "7: every file is referred to, and the other way round"
        for memory in self.memories.values():
            memory.stored.clear()  # so that every file is read once more
        self.what_is_always_true()
        for wait in (timedelta(hours=4), deadlines.RESULTS_LIFE, polling.BACKOFF_MAX, polling.BACKOFF_MAX):
            true_clock.advance(wait)
            self._work()
        self.what_is_always_true()
        assert not VerificationSession.objects.outstanding().exists(), "2: every session comes to an end"
        assert not MediaAsset.objects.wanted().exists(), "2: and nothing is waited for any more"

    # --- what is always true ----------------------------------------------------------------------

    @invariant()
    def what_is_always_true(self) -> None:
        """Numbers as in docs/en/invariants.md."""
        errors = list(WORLD.errors)
        WORLD.errors.clear()
        for error in errors:
            raise error
        rows = list(VerificationSession.objects.select_related("plan").prefetch_related("assets"))
        for session in rows:
            memory = self._memory(session)
            assert session.error_class != "internal", f"0: {session.error_message}"
            assert session.lease_epoch >= memory.epoch, "1: an epoch never decreases"
            memory.epoch = session.lease_epoch
            self._check_schedule(session, memory)
            self._check_verdict(session, memory)
            self._check_assets(session, memory)
            if memory.erased:
                self._check_erased(session)
        self._check_storage()
        twice = [key for key, count in self.announced.items() if count > 1]
        assert not twice, f"12: announced twice: {twice}"

    def _check_schedule(self, session: VerificationSession, memory: Memory) -> None:
        assert session.wake_at is None or session.priority_at is None, "2: asleep or ready, never both"
        open_ = session.verdict == Verdict.PENDING or session.archive_state == ArchiveState.COLLECTING
        assert session.has_outstanding_work == (open_ and not memory.erased), (
            "2: due exactly while there is work"
        )
        if session.lease_until is not None and session.lease_until > true_clock() + SKEW:
            assert session.wake_at == session.lease_until, "2: a leased session wakes when its lease is over"
        rungs = [session.next_deadline, session.later_deadline, session.last_deadline]
        known = [rung for rung in rungs if rung is not None]
        assert rungs[: len(known)] == sorted(known), "3: deadlines stand in order"
        if not session.has_outstanding_work or session.token_answered_at is None:
            return
        assert known, "3: unfinished work has a deadline"
        if session.priority_at is not None:
            behind = session.results_give_up_at + queue.OVERDUE_PENALTY
            media = (session.media_deadline, session.media_give_up_at)
            doubtful = media[0] <= session.priority_at - queue.MEDIA_LIFE + queue.MIN_LEAD_TIME < media[1]
            assert session.priority_at in (*known, behind) or doubtful, (
                "3: ready work is ordered by one of its deadlines, or has recordings that may be there yet"
            )
        if session.lease_until is None and session.next_deadline > true_clock():
            dates = [
                deadlines.ordering_deadline(session, asset)
                for asset in session.assets.all()
                if asset.state == State.WANTED
            ]
            ahead = [date for date in dates if date is not None and date > true_clock()]
            assert not ahead or session.next_deadline <= min(ahead), "3: the first deadline comes first"

    def _check_verdict(self, session: VerificationSession, memory: Memory) -> None:
        if memory.verdict != Verdict.PENDING:
            assert session.verdict == memory.verdict, "4: a verdict is final"
        elif session.verdict != Verdict.PENDING:
            self._check_new_verdict(session)
        memory.verdict = session.verdict
        ended = (ArchiveState.COMPLETE, ArchiveState.PARTIAL, ArchiveState.LOST, ArchiveState.NOT_APPLICABLE)
        if memory.archive_state in ended:
            assert session.archive_state == memory.archive_state, "6: what is finished stays finished"
        memory.archive_state = session.archive_state

    def _check_new_verdict(self, session: VerificationSession) -> None:
        entry = self._ledger(session)
        attempts = entry["attempts"] if entry else []
        closed = entry is None or entry["closed_at"] or true_clock() >= when(entry["page_until"])
        if session.verdict == Verdict.UNKNOWN:
            assert true_clock() + SKEW >= session.results_give_up_at, (
                "4: unknown only when nothing can be learnt"
            )
        elif session.verdict == Verdict.PASSED:
            assert attempts[-1]["passed"], "4: passed means that the person passed"
        elif session.verdict == Verdict.FAILED:
            assert attempts, "4: failed means that the person tried"
            assert not any(attempt["passed"] for attempt in attempts), "4: and did not pass"
            assert closed, "4: and cannot try again"
        else:
            assert not attempts, "4: expired means that nobody tried"
            assert closed, "4: and nobody can"

    def _check_assets(self, session: VerificationSession, memory: Memory) -> None:
        entry = self._ledger(session)
        held = {(item["kind"], item["sha256"]): item for item in entry["assets"]} if entry else {}
        stored: Counter[tuple[str, str]] = Counter()
        for asset in session.assets.all():
            assert asset.error_class != "internal", f"0: {asset.error_detail}"
            before = memory.states.get(asset.pk)
            if before in (State.STORED, State.LOST, State.ERASED):
                allowed = {before, State.ERASED} if before == State.STORED else {before}
                assert asset.state in allowed, f"6: {before} became {asset.state}"
            memory.states[asset.pk] = asset.state
            if asset.state == State.LOST and before != State.LOST:
                self._check_loss(session, asset, held)
            if asset.state != State.STORED:
                assert not asset.stored_name, "5: nothing is referred to that is not archived"
                continue
            stored[asset.kind, asset.sha256] += 1
            if asset.pk in memory.stored:
                assert memory.stored[asset.pk] == (asset.stored_name, asset.sha256), "6: written once"
                continue
            memory.stored[asset.pk] = (asset.stored_name, asset.sha256)
            self._check_file(asset)
            if asset.source != MediaAsset.Source.UPLOAD:
                assert (asset.kind, asset.sha256) in held, "5: what is archived is what Baidu holds"
        uploads = {MediaAsset.Kind.MATCH_IMAGE}
        twice = [kind for (kind, _), count in stored.items() if count > 1 and kind not in uploads]
        assert not twice, f"5: archived twice: {twice}"

    def _check_loss(self, session: VerificationSession, asset: MediaAsset, held: dict[Any, Any]) -> None:
        assert asset.give_up_at is not None, "9: only what expires is lost"
        assert true_clock() + SKEW >= asset.give_up_at, "9: lost only after the latest deadline"
        still = [
            item
            for (kind, _), item in held.items()
            if kind == asset.kind
            and item["position"] == asset.position
            and item["attempt"] in (0, asset.attempt_order)
            and when(item["available_until"]) > true_clock()
        ]
        assert not still, "9: what could still be fetched is not lost"
        assert asset.error_class or session.error_class, "9: a loss says why"

    def _check_file(self, asset: MediaAsset) -> None:
        with evidence_files.open_stored(asset) as reader:
            content = reader.read()
        assert hashlib.sha256(content).hexdigest() == asset.sha256, "5: the hash is that of the file"
        assert len(content) == asset.size, "5: the size is that of the file"

    def _check_erased(self, session: VerificationSession) -> None:
        personal = (
            "verify_token",
            "identity_name",
            "identity_number",
            "ocr",
            "confirmed",
            "return_url",
        )
        assert [name for name in personal if getattr(session, name) is not None] == [], (
            "8: erased stays erased"
        )
        assert session.name_index + session.number_index == "", "8: erased cannot be searched for"
        assert not UpstreamAnswer.objects.filter(session=session).exists(), "8: no answer comes back"
        for asset in session.assets.all():
            assert asset.state not in (State.STORED, State.WANTED), "8: no face comes back"
            assert asset.wrapped_key is None, "8: no key comes back"
            assert not asset.stored_name, "8: no file comes back"

    def _check_storage(self) -> None:
        named = set(UploadIntent.objects.values_list("name", flat=True))
        referred = list(MediaAsset.objects.stored().values_list("stored_name", flat=True))
        assert len(set(referred)) == len(referred), "5: one file for each asset"
        files = self._files()
        assert set(referred) <= files, "5: what is archived is there"
        assert files <= named | set(referred), "7: a file that nothing refers to is known as such"

    # --- what is looked up ------------------------------------------------------------------------

    def _session(self, number: int) -> VerificationSession | None:
        rows = list(VerificationSession.objects.select_related("plan").order_by("pk"))
        return rows[number % len(rows)] if rows else None

    def _memory(self, session: VerificationSession) -> Memory:
        return self.memories.setdefault(session.pk, Memory())

    def _ledger(self, session: VerificationSession) -> dict[str, Any] | None:
        """What Baidu holds of *session*, remembered by its token beyond the erasure of that."""
        token = session.verify_token or self.tokens.get(session.pk)
        if not token:
            return None
        self.tokens[session.pk] = token
        (entry,) = self.baidu.ledger(token)["sessions"]
        return dict(entry)

    def _files(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}


ANNOUNCED = {
    signals.verification_passed: "verdict",
    signals.verification_failed: "verdict",
    signals.session_expired: "verdict",
    signals.asset_archived: "archived",
    signals.session_archived: "complete",
    signals.evidence_lost: "lost",
}


class Stopwatch:
    """What stands for the module ``time`` where a process waits for another: the scenario's own clock."""

    @staticmethod
    def monotonic() -> float:
        return true_clock().timestamp()

    @staticmethod
    def sleep(seconds: float) -> None:
        true_clock.advance(seconds=seconds)


def when(text: str) -> datetime:
    """A moment of the ledger."""
    return datetime.fromisoformat(text)


def restart_process() -> None:
    """A new process knows nothing of what the one before remembered."""
    clients.upstream = clients.Upstream()


@contextmanager
def _served(settings: Any, folder: Path) -> Iterator[SandboxServer]:
    baidu = Baidu(clock=SandboxClock(base=true_clock), video_size=5_000, image_size=3_000)
    with SandboxServer(sandbox=baidu) as server:
        settings.FACEPRINT = {
            **settings.FACEPRINT,
            "API_URL": server.url,
            "H5_URL": server.h5_url,
            "MEDIA_HOSTS": [server.url.removeprefix("http://")],
            "PUBLIC_URL": "http://testserver",
            "CLOCK": f"{__name__}.worker_time",
        }
        settings.STORAGES = {
            **settings.STORAGES,
            "faceprint": {"BACKEND": f"{__name__}.Archive", "OPTIONS": {"location": str(folder)}},
        }
        yield server


def test_the_invariants_hold_whatever_happens(
    transactional_db: None, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django_faceprint.devtools.sandbox_plans import copy_sandbox_plans

    # No test waits in real time, and none depends on luck.
    monkeypatch.setattr(client_download, "RESUME_PAUSES", (0.0,))
    monkeypatch.setattr(polling, "jitter", random.Random(1))
    monkeypatch.setattr(token_store, "time", Stopwatch)
    with _served(settings, tmp_path / "archive") as server:
        Scenario.server = server
        Scenario.ended = 0
        Scenario.folder = tmp_path / "archive"
        Scenario.plans = {plan.plan_id: plan for plan in copy_sandbox_plans()}
        run_state_machine_as_test(
            Scenario,
            settings=hypothesis_settings(
                max_examples=EXAMPLES or 25,
                stateful_step_count=30 if EXAMPLES else 12,
                derandomize=not EXAMPLES,
                deadline=None,
                database=None,
                report_multiple_bugs=False,
                # Not "explain": tracing every line of the engine takes longer than it helps.
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert Scenario.ended >= (EXAMPLES or 25)
