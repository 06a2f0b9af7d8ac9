"""What goes wrong around the workers, every few seconds, and the record of it."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from itertools import cycle

from .fleet import Fleet

#: Seconds between two kills.
EVERY = (3.0, 6.0)
#: One kill in so many takes the supervisor as well, whose start takes two seconds of a core.
WHOLE_WORKER = 4


@dataclass
class Kills:
    """How workers were killed."""

    children: int = 0
    whole: int = 0

    @property
    def total(self) -> int:
        return self.children + self.whole


@dataclass
class Mishaps:
    """Kills workers until it is told to stop."""

    fleet: Fleet
    chance: random.Random
    kills: Kills = field(default_factory=Kills)
    failure: BaseException | None = None
    _pause: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def begin(self) -> None:
        """Kill one worker after the other from now on."""
        self._pause.clear()
        self._thread = threading.Thread(target=self._go_on, name="mishaps", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Leave the workers alone."""
        self._pause.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _go_on(self) -> None:
        try:
            for number, worker in enumerate(cycle(self.fleet.workers), start=1):
                if self._pause.wait(self.chance.uniform(*EVERY)):
                    break
                if number % WHOLE_WORKER == 0:
                    worker.kill_all()
                    self.kills.whole += 1
                    worker.start()
                elif worker.kill_child():
                    self.kills.children += 1
        except Exception as error:  # noqa: BLE001  (raised again by the run)
            self.failure = error
