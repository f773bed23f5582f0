"""A clock that a test moves, so that nobody waits: durable sleeps and back-off pass at once, or when the test says so.

This module must not know who asks for the time, nor what a test tests.
"""

from __future__ import annotations

import threading

from retroact.engine.clock import monotonic

#: 2023-11-14 22:13:20 UTC.
EPOCH_US = 1_700_000_000_000_000
#: How long a waiter looks away from the clock at most, in seconds.
_GLANCE = 0.002


class ManualClock:
    """Time that stands still until it is moved. Safe for use by several threads.

    clock = ManualClock()
    app = App("shop.db", shop, clock=clock)        # a sleep of a week takes no time, and clock.waits says [604800.0]
    clock = ManualClock(jumps=False)               # here a sleep lasts until clock.advance(604800)
    """

    def __init__(self, now_us: int = EPOCH_US, *, jumps: bool = True) -> None:
        """With `jumps`, whoever waits moves the clock to the end of the wait."""
        self._now_us = now_us
        self._jumps = jumps
        self._changed = threading.Condition()
        self._waiting = 0
        #: Each wait that was begun, in seconds.
        self.waits: list[float] = []

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return self._now_us

    def advance(self, seconds: float) -> None:
        """Move on; whoever waited for a time that is now past goes on."""
        with self._changed:
            self._now_us += int(seconds * 1e6)
            self._changed.notify_all()

    def wait_until(self, deadline_us: int, interrupt: threading.Event) -> bool:
        """Wait for a time or an interrupt, whichever is first; whether it was the interrupt."""
        with self._changed:
            self.waits.append((deadline_us - self._now_us) / 1e6)
            if self._jumps and not interrupt.is_set():
                self._now_us = max(self._now_us, deadline_us)
            self._waiting += 1
            self._changed.notify_all()
            try:
                while self._now_us < deadline_us and not interrupt.is_set():
                    self._changed.wait(_GLANCE)
            finally:
                self._waiting -= 1
        return interrupt.is_set()

    def until_waiting(self, waiters: int = 1, *, seconds: float = 30.0) -> None:
        """Return when so many wait for the clock. Raises TimeoutError when they do not come."""
        deadline = monotonic() + seconds
        with self._changed:
            while self._waiting < waiters:
                if monotonic() > deadline:
                    raise TimeoutError(f"{self._waiting} of {waiters} are waiting for the clock")
                self._changed.wait(_GLANCE)
