"""The one clock of all processes, and the rules by which it goes faster than the machine's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from django_faceprint.sandbox.clock import SandboxClock

#: Real seconds between two looks at the answers, and how many go by in a step that begins an idle time.
STEP = 0.2
FIRST_IDLE_STEP = 3.0


class PacedClock:
    """Moves the clock file that workers and sandbox read.

    It goes at least as fast as the machine's clock. Beyond that, ``per_answer`` seconds go by with each
    answer of the upstream: so many answers per minute are then all that anybody can get, on every machine.
    ``per_step`` seconds go by in each step whatever happens, where no deadline is near enough to matter.
    When nothing is due, up to ``when_idle`` seconds go by in each step instead of being waited for, fewer as
    long as answers come, and none beyond the moment at which something is due.
    """

    def __init__(
        self, file: Path, *, answers: Callable[[], int], until_due: Callable[[datetime], float]
    ) -> None:
        self._clock = SandboxClock(file)
        self._answers = answers
        self._until_due = until_due
        self.per_answer = 0.0
        self.per_step = 0.0
        self.when_idle = 0.0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: BaseException | None = None

    def now(self) -> datetime:
        """The present moment of the run."""
        return self._clock.now()

    def jump(self, seconds: float) -> None:
        """Let so much time have gone by."""
        self._clock.advance(seconds)

    def start(self) -> None:
        """Begin to follow the answers."""
        self._thread = threading.Thread(target=self._follow, name="clock", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Go as the machine's clock does from now on."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        try:
            seen = self._answers()
            step = FIRST_IDLE_STEP
            while not self._stopping.wait(STEP):
                answers = self._answers()
                fresh, seen = answers - seen, answers
                self.jump(fresh * self.per_answer + self.per_step)
                if not self.when_idle:
                    continue
                left = self._until_due(self.now())
                # Whoever is still being asked about holds a lease: time must not run away from its end.
                step = FIRST_IDLE_STEP if fresh or not left else min(2 * step, self.when_idle)
                self.jump(min(step, left))
        except Exception as error:  # noqa: BLE001  (raised again by the run)
            self.failure = error
