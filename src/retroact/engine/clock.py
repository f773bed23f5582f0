"""The only place that knows what time it is, and that waits for a time to come.

This module must not know who asks.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

#: The machine's own clock, also when it is asked on behalf of a body, to which `time` gives the recorded time (`function/given.py`).
_time_ns = getattr(time.time_ns, "__wrapped__", time.time_ns)


class Clock(Protocol):
    """Time, as the platform sees it."""

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        ...

    def wait_until(self, deadline_us: int, interrupt: threading.Event) -> bool:
        """Wait for a time or an interrupt, whichever is first; whether it was the interrupt."""
        ...


class SystemClock:
    """The time of this machine."""

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return _time_ns() // 1000

    def wait_until(self, deadline_us: int, interrupt: threading.Event) -> bool:
        """Wait in slices, so that a clock that is set does not strand the waiter."""
        while not interrupt.is_set():
            left = (deadline_us - self.now_us()) / 1e6
            if left <= 0:
                return False
            interrupt.wait(min(left, 1.0))
        return True


#: Seconds on a clock that never goes back, for measuring.
monotonic = time.perf_counter
