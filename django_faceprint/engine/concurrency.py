"""How many sessions one process visits at once.

A visit mostly waits for the network, and then many at once are what fills the time. Where answers come at
once it mostly computes, and then threads that take turns at one interpreter get in each other's way. Which of
both it is follows from how busy the process was a moment ago.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: Begun with, so that neither a fast nor a slow upstream is far from what it needs.
FIRST = 4
#: Seconds over which the load is measured.
WINDOW = 0.1
#: Parts of one core: below the first there is time for more visits, above the second there are too many.
IDLE_BELOW = 0.75
BUSY_ABOVE = 0.9


@dataclass
class AdaptiveConcurrency:
    """From 1 to *most* visits; :attr:`width` is how many it is now.

    *monotonic* tells the time and *cpu* the CPU time of this process, both in seconds.
    """

    most: int
    monotonic: Callable[[], float] = time.monotonic
    cpu: Callable[[], float] = time.process_time
    width: int = field(init=False)
    _at: float = field(init=False)
    _used: float = field(init=False)

    def __post_init__(self) -> None:
        self.width = min(FIRST, self.most)
        self._at, self._used = self.monotonic(), self.cpu()

    def adapt(self, *, is_full: bool) -> None:
        """Measure, if it is time, and grow or shrink; called often.

        *is_full*: as many visits are under way as there may be. A process that is idle for want of work
        learns nothing about how many it could do at once.
        """
        moment = self.monotonic()
        took = moment - self._at
        if took < WINDOW:
            return
        used = self.cpu()
        load = (used - self._used) / took
        self._at, self._used = moment, used
        if load > BUSY_ABOVE:
            self.width = max(1, self.width - 1)
        elif load < IDLE_BELOW and is_full:
            self.width = min(self.most, 2 * self.width)
