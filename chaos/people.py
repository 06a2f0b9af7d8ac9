"""Thousands of people with different fates, who start sessions as those of a real host do."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connection

from django_faceprint.client import Identity, MatchImage
from django_faceprint.evidence.files import StorageFailed
from django_faceprint.exceptions import FaceprintConfigurationError, FaceprintError
from django_faceprint.models import VerificationSession
from django_faceprint.tasks import notify_worker
from django_faceprint.verification import Consent, StartRequest, record_return, start_session
from example_project.demo.people import MATCH_PLANS, RETRY_PLANS, SPECIFIED_PLANS, Person, match_image

from .upstream import Sandbox

T = TypeVar("T")

#: People at the same time, the seconds for which one retries a step, and the people between two lines of log.
CONCURRENCY = 12
RETRY_SECONDS = 120.0
LOG_EVERY = 250

#: Weights of the plans. Videos and frames live for a day, all other evidence for three.
ALL_PLANS = {"25001": 3, "25002": 2, "25003": 1, "25004": 3, "25005": 4, "25006": 2, "25007": 2}
LONG_LIVED = {"25005": 1}
RECORDED = {"25001": 5, "25002": 2, "25003": 1, "25004": 3, "25006": 3, "25007": 2}

#: Given long before any run.
CONSENT = Consent(
    "chaos",
    notice_version="1",
    given_at=datetime(2026, 1, 1, tzinfo=UTC),
    channel="chaos",
    separate=True,
    names_recipient=True,
    alternative_offered=True,
)
_FAILURES = ("223120", "223114", "222351", "223131")


def crowd(name: str, count: int, plans: dict[str, int], chance: random.Random) -> list[Person]:
    """*count* people with plans by weight: most pass, some fail, give up, never come or never come back."""
    chosen = chance.choices(list(plans), list(plans.values()), k=count)
    return [_person(f"{name}-{number:05}", plan, chance) for number, plan in enumerate(chosen, start=1)]


def _person(reference: str, plan: str, chance: random.Random) -> Person:
    returns = chance.random() < 0.8
    fate = chance.random()
    failure = chance.choice(_FAILURES)
    if fate < 0.03:
        return Person(reference, plan, (), "expired", opens=False, returns=False)
    if fate < 0.06:
        return Person(reference, plan, ("giveup",), "expired", returns=False)
    if fate < 0.15:
        return Person(reference, plan, (failure,), "failed", returns=returns)
    if fate < 0.25 and plan in RETRY_PLANS:
        return Person(reference, plan, (failure, "pass"), "passed", returns=returns)
    if fate < 0.40 and plan == "25006":
        return Person(reference, plan, ("demote",), "passed", returns=returns)
    return Person(reference, plan, ("pass",), "passed", returns=returns)


class Reception:
    """Sends people through: a session of the host, the page of the sandbox, the return to the host."""

    def __init__(self, sandbox_url: str, log: Callable[[str], None]) -> None:
        self._sandbox_url = sandbox_url
        self._log = log
        self._lock = threading.Lock()
        self._closing = threading.Event()
        #: Number of people who are through, and of steps that failed and were repeated.
        self.done = 0
        self.repeated = 0

    def receive(self, people: Sequence[Person]) -> None:
        """Send all *people* through, some at the same time. Raises when one cannot start."""
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="people") as pool:
            try:
                list(pool.map(self._receive_some, [people[part::CONCURRENCY] for part in range(CONCURRENCY)]))
            finally:
                # After a failure or Ctrl-C, nobody else starts.
                self._closing.set()
        self._closing.clear()

    def _receive_some(self, people: Sequence[Person]) -> None:
        sandbox = Sandbox(self._sandbox_url)
        try:
            for person in people:
                if self._closing.is_set():
                    return
                self._receive(person, sandbox)
                with self._lock:
                    self.done += 1
                    if self.done % LOG_EVERY == 0:
                        self._log(f"{self.done} people are through")
        finally:
            connection.close()

    def _receive(self, person: Person, sandbox: Sandbox) -> None:
        request = _request(person)
        session = self._retry(lambda: start_session(request))
        if not person.opens:
            return
        for outcome in person.tries:
            sandbox.finish(session.verify_token or "", outcome)
        if person.returns:
            self._retry(lambda: _return(session))

    def _retry(self, step: Callable[[], T]) -> T:
        """Repeat *step* until it succeeds, as a host would."""
        until = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                return step()
            except (
                FaceprintError,
                FaceprintConfigurationError,
                StorageFailed,
                OperationalError,
                InterfaceError,
            ):
                if time.monotonic() > until or self._closing.is_set():
                    raise
            with self._lock:
                self.repeated += 1
            connection.close_if_unusable_or_obsolete()
            time.sleep(0.05)


def _return(session: VerificationSession) -> None:
    """The same as the view of the return URL."""
    record_return(session)
    notify_worker(session)


def _request(person: Person) -> StartRequest:
    name, number, kind = person.identity
    return StartRequest(
        plan_id=person.plan,
        reference=person.reference,
        purpose="chaos",
        consent=CONSENT,
        identity=Identity.checked(name, number, kind) if person.plan in SPECIFIED_PLANS else None,
        match_image=_match_image(sum(person.reference.encode()) % 8) if person.plan in MATCH_PLANS else None,
        # A repeated call gets the same session.
        idempotency_key=person.reference,
    )


@cache
def _match_image(number: int) -> MatchImage:
    return MatchImage.checked(match_image(str(number)))
