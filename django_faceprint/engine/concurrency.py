"""How many sessions one process visits at once.

A visit mostly waits for the network, so many visits at once use the time. Where upstream answers at once, a
visit mostly computes, and threads of one interpreter slow each other down. The load of the last moment tells
which of the two it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: Visits at the start: not far from what a fast or a slow upstream needs.
FIRST = 4
#: Seconds over which the load is measured.
WINDOW = 0.1
#: Load of one core, 0 to 1: below the first there is time for more visits, above the second are too many.
IDLE_BELOW = 0.75
BUSY_ABOVE = 0.9


@dataclass
class AdaptiveConcurrency:
    """From 1 to *most* visits; :attr:`width` is the current number.

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
        """Measure the load once per window, and grow or shrink; may be called at any rate.

        *is_full*: as many visits are under way as :attr:`width` allows. A process that is idle for want of
        work does not grow.
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
