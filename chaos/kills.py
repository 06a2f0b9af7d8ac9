"""Kills workers every few seconds, and counts the kills."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from itertools import cycle

from .fleet import Fleet

#: Seconds between two kills, at least and at most.
INTERVAL = (3.0, 6.0)
#: Every n-th kill includes the supervisor, whose start takes two seconds of a core.
WHOLE_WORKER = 4


@dataclass
class Kills:
    """Numbers of kills: of children alone, and of whole workers."""

    children: int = 0
    whole: int = 0

    @property
    def total(self) -> int:
        return self.children + self.whole


@dataclass
class WorkerKiller:
    """Kills one worker after the other between :meth:`begin` and :meth:`end`."""

    fleet: Fleet
    chance: random.Random
    kills: Kills = field(default_factory=Kills)
    failure: BaseException | None = None
    _pause: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start to kill, in a thread."""
        self._pause.clear()
        self._thread = threading.Thread(target=self._go_on, name="worker-killer", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop killing. May be called twice."""
        self._pause.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _go_on(self) -> None:
        try:
            for number, worker in enumerate(cycle(self.fleet.workers), start=1):
                if self._pause.wait(self.chance.uniform(*INTERVAL)):
                    break
                if number % WHOLE_WORKER == 0:
                    worker.kill_all()
                    self.kills.whole += 1
                    worker.start()
                elif worker.kill_child():
                    self.kills.children += 1
        except Exception as error:  # noqa: BLE001  (raised again by the run)
            self.failure = error
