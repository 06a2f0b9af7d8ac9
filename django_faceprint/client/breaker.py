"""Circuit breakers: after some failures in a row, a host receives only a probe now and then.

Without them, each of many threads waits for a time-out for each of many sessions, and a host that comes back
receives all their requests at once.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..exceptions import HostDown

logger = logging.getLogger(__name__)

#: Failures in a row, over all threads, after which a host counts as down.
FAILURES_IN_A_ROW = 5
#: Seconds until the first probe after that, doubled each time. The maximum is short enough for an outage to
#: show in the number of failed calls: one worker alone makes more than 20 in five minutes.
FIRST_PAUSE = 1.0
MAX_PAUSE = 10.0
#: Seconds to wait for the outcome of a probe that is under way.
PROBE_SECONDS = 1.0
_MAX_HOSTS = 256

# Jitter needs no cryptographic strength; a generator of our own is not reseeded by host projects.
_random = random.Random()  # noqa: S311


@dataclass
class Attempt:
    """One request; its caller reports the outcome, unless it says nothing about the host."""

    #: The number of outages when the request began, and whether it is a probe.
    outage: int
    is_probe: bool
    up: bool | None = None

    def answered(self, status: int) -> None:
        """The host has answered: a server that reports a fault of its own is as good as down."""
        self.up = status < 500

    def failed(self) -> None:
        """No answer: refused, timed out, broken off."""
        self.up = False


class Breaker:
    """The state of one host as this process knows it. Safe to share between threads.

    *jitter* gives a number between 0 and 1, *monotonic* seconds.
    """

    def __init__(
        self,
        host: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = _random.random,
    ) -> None:
        self._host = host
        self._monotonic = monotonic
        self._jitter = jitter
        self._guard = threading.Lock()
        self._failures = 0
        self._outages = 0
        self._pause = 0.0
        self._next_probe: float | None = None
        self._probing = False

    def retry_after(self) -> float | None:
        """None while the host is up; else seconds until a probe may be sent, 0 if that is now."""
        with self._guard:
            return self._seconds_to_probe()

    @contextmanager
    def attempt(self) -> Iterator[Attempt]:
        """Make one request within the block. Raises :class:`HostDown` while the host is down."""
        attempt = self._begin()
        try:
            yield attempt
        finally:
            self._end(attempt)

    def _seconds_to_probe(self) -> float | None:
        if self._next_probe is None:
            return None
        left = max(self._next_probe - self._monotonic(), 0.0)
        return max(left, PROBE_SECONDS) if self._probing else left

    def _begin(self) -> Attempt:
        with self._guard:
            retry_after = self._seconds_to_probe()
            if retry_after:
                raise HostDown("The host does not answer; it is tried again soon.", retry_after=retry_after)
            self._probing = retry_after is not None
            return Attempt(self._outages, is_probe=self._probing)

    def _end(self, attempt: Attempt) -> None:
        with self._guard:
            if attempt.is_probe:
                self._probing = False
            if attempt.up:
                self._is_up()
            elif attempt.up is False:
                self._has_failed(attempt)

    def _is_up(self) -> None:
        if self._next_probe is not None:
            logger.warning("faceprint: %s answers again", self._host)
        self._failures, self._pause, self._next_probe = 0, 0.0, None

    def _has_failed(self, attempt: Attempt) -> None:
        if attempt.outage != self._outages:
            # Sent before the host was known to be down: no new information.
            return
        if self._next_probe is None:
            self._failures += 1
            if self._failures < FAILURES_IN_A_ROW:
                return
            logger.error("faceprint: %s does not answer; only probes are sent", self._host)
        self._failures = 0
        self._outages += 1
        self._pause = min(max(self._pause * 2, FIRST_PAUSE), MAX_PAUSE)
        self._next_probe = self._monotonic() + self._pause * (0.5 + self._jitter() / 2)


class Breakers:
    """The breakers of all hosts, by host and port."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._breakers: dict[tuple[str, int], Breaker] = {}

    def of(self, host: str, port: int) -> Breaker:
        """The breaker of a host."""
        with self._guard:
            breaker = self._breakers.get((host, port))
            if breaker is None:
                if len(self._breakers) >= _MAX_HOSTS:
                    # Those in use live on; the others learn the state of their hosts again.
                    self._breakers.clear()
                breaker = self._breakers[host, port] = Breaker(host, monotonic=self._monotonic)
            return breaker

    def of_url(self, url: str) -> Breaker:
        """The breaker of the host of an http or https URL."""
        parts = urlsplit(url)
        return self.of(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))

    def forget(self) -> None:
        """Treat every host as up again."""
        with self._guard:
            self._breakers.clear()
