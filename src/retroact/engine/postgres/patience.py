"""Connections that get lost: work that may be done again is done again on another one, for as long as a server takes to come back.

This module must not know what the work is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import psycopg

from retroact.engine.clock import Clock
from retroact.engine.postgres.pool import Pool
from retroact.engine.postgres.session import Session
from retroact.errors import Unreachable

T = TypeVar("T")
#: Seconds between one try to reach the server and the next. The first comes at once: often only the old connection is gone.
WAITS = (0.0, 0.05, 0.1, 0.2, 0.4, *[0.8] * 30)


class Waiting:
    """How often a lost connection was waited for, by one piece of work."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = list(reversed(WAITS))

    def once(self) -> bool:
        """Wait until it is time to try again; False when it has been tried often enough."""
        if not self._left:
            return False
        seconds = self._left.pop()
        if seconds:
            self._clock.wait_until(self._clock.now_us() + int(seconds * 1e6), threading.Event())
        return True


class Patience:
    """Does work on connections of a pool, again when a connection is lost on the way."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    def run(self, work: Callable[[Session], T]) -> T:
        """The result of work that may be done twice. Raises psycopg.Error, Unreachable, Closed."""
        waiting = Waiting(self._clock)
        while True:
            try:
                session = self._pool.take()
            except Unreachable:
                if not waiting.once():
                    raise
                continue
            try:
                return work(session)
            except psycopg.Error:
                if not session.broken or not waiting.once():
                    raise
                self._pool.drop_free()
            finally:
                self._pool.give_back(session)
