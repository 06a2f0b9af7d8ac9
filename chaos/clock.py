"""The clock that all processes of a run share, and the rules by which it goes faster than the machine's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from django_faceprint.sandbox.clock import SandboxClock

#: Real seconds between two steps, and the first jump, in seconds of the run, of an idle time.
STEP = 0.2
FIRST_IDLE_STEP = 3.0


class PacedClock:
    """Moves the clock file that workers and sandbox read.

    It goes at least as fast as the machine's clock. In addition, ``per_answer`` seconds go by with each
    answer of the sandbox: that limits the answers per minute, equally on every machine. ``per_step`` seconds
    go by in each step, for times in which no deadline is near. When nothing is due, up to ``when_idle``
    seconds go by in each step, fewer as long as answers come, and never beyond the time at which something
    is due.

    ``answers`` returns the number of answers so far; ``until_due`` the seconds from a moment until work is
    due.
    """

    def __init__(
        self, file: Path, *, answers: Callable[[], int], until_due: Callable[[datetime], float]
    ) -> None:
        self._clock = SandboxClock(file)
        self._answers = answers
        self._until_due = until_due
        self._seen: int | None = None
        self._idle_step = FIRST_IDLE_STEP
        self.per_answer = 0.0
        self.per_step = 0.0
        self.when_idle = 0.0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: BaseException | None = None

    def now(self) -> datetime:
        """The present time of the run."""
        return self._clock.now()

    def jump(self, seconds: float) -> None:
        """Move the clock ahead."""
        self._clock.advance(seconds)

    def start(self) -> None:
        """Begin to follow the answers."""
        self._thread = threading.Thread(target=self._follow, name="clock", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Go at the speed of the machine's clock from now on."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def step(self) -> None:
        """Let time go by for the answers since the step before. The first step only counts them."""
        answers = self._answers()
        seen, self._seen = self._seen, answers
        if seen is None:
            return
        fresh = answers - seen
        self.jump(fresh * self.per_answer + self.per_step)
        if not self.when_idle:
            return
        left = self._until_due(self.now())
        # A session in work holds a lease, and the clock must not run to its end while answers come.
        is_busy = fresh or not left
        self._idle_step = FIRST_IDLE_STEP if is_busy else min(2 * self._idle_step, self.when_idle)
        self.jump(min(self._idle_step, left))

    def _follow(self) -> None:
        try:
            self.step()
            while not self._stopping.wait(STEP):
                self.step()
        except Exception as error:  # noqa: BLE001  (raised again by the run)
            self.failure = error
