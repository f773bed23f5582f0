"""Compacts by itself: a thread that now and then drops what the retention no longer keeps, and that answers other processes' requests.

Its cost is bounded: it pauses after each small transaction for a multiple of the time that it took, so that it never takes more than a
fifth of a core, or of the writer's time; and it does nothing while less than a share of the kept past would go.

This module must not know how the past is dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import apsw

from retroact.engine.clock import Clock, monotonic
from retroact.engine.sqlite.compaction import Compacted, Compactor
from retroact.engine.sqlite.engine import SqliteEngine
from retroact.engine.sqlite.mailbox import Mailbox
from retroact.errors import Closed, RetroactError
from retroact.trace.record import RunId
from retroact.trace.retention import Horizon, Limit, Retention

#: How often it looks for requests, and whether something is to be dropped (seconds).
LOOK_SECONDS = 1.0
COMPACT_SECONDS = 60.0
#: What share of the kept past has to go for it to be worth the work.
WORTH = 0.1
#: Pauses are this many times as long as the work before them.
_PAUSE = 4
_LONGEST_PAUSE = 0.5


class Keeper:
    """Looks after the history of one App."""

    def __init__(
        self,
        engine: SqliteEngine,
        clock: Clock,
        retention: Retention | None,
        new_run: Callable[[], RunId],
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._retention = retention
        self._new_run = new_run
        self._look_seconds = look_seconds
        self._mailbox = Mailbox(engine.path)
        self._stop = threading.Event()
        #: One compaction at a time.
        self._lock = threading.Lock()
        self._since = monotonic()
        #: Why the last compaction by itself failed, if it did.
        self.trouble: Exception | None = None
        self._thread = threading.Thread(target=self._keep, name="retroact-keeper", daemon=True)
        self._thread.start()

    def compact(self, retention: Retention | None, *, dry: bool = False, gently: bool = False) -> Compacted:
        """Compact now. `gently`: with pauses. Raises BadRetention by way of the retention, CommitFailed, apsw.Error."""
        with self._lock:
            self._since = monotonic()
            pace = self._pause if gently else self._check
            compactor = Compactor(self._engine, pace)
            chosen = retention or self._retention or Retention()
            return compactor.compact(chosen, self._clock.now_us(), dry=dry, at_least=WORTH if gently else 0.0)

    def close(self) -> None:
        """Break off what is under way."""
        self._stop.set()
        self._thread.join()

    def _check(self) -> None:
        if self._stop.is_set():
            raise Closed(path=self._engine.path)

    def _pause(self) -> None:
        worked = monotonic() - self._since
        if self._stop.wait(min(worked * _PAUSE, _LONGEST_PAUSE)):
            raise Closed(path=self._engine.path)
        self._since = monotonic()

    def _keep(self) -> None:
        due = monotonic() + COMPACT_SECONDS
        while not self._stop.wait(self._look_seconds):
            try:
                request = self._mailbox.take()
                if request is not None:
                    self._mailbox.answer(request, self._carried_out(request))
                if self._retention is not None and monotonic() >= due:
                    self.compact(None, gently=True)
                    due = monotonic() + COMPACT_SECONDS
                    self.trouble = None
            except Closed:
                return
            except (apsw.Error, OSError, RetroactError) as error:
                self.trouble = error
                due = monotonic() + COMPACT_SECONDS

    def _carried_out(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            retention = Retention(**request["retention"]) if request.get("retention") is not None else None
            found = self.compact(retention, dry=bool(request.get("dry")))
            if request.get("vacuum"):
                self._engine.vacuum(self._new_run())
            return {"done": as_json(found)}
        except (apsw.Error, OSError, RetroactError, TypeError, KeyError) as error:
            return {"error": type(error).__name__, "message": str(error)}


def as_json(found: Compacted) -> dict[str, Any]:
    """What was compacted, for who asked from another process."""
    return {
        "before": _horizon(found.before), "after": _horizon(found.after), "bytes_before": found.bytes_before,
        "bytes_after": found.bytes_after, "dry": found.dry,
    }  # fmt: skip


def from_json(found: dict[str, Any]) -> Compacted:
    """The same, back."""
    return Compacted(
        before=_back(found["before"]),
        after=_back(found["after"]),
        bytes_before=found["bytes_before"],
        bytes_after=found["bytes_after"],
        dry=found["dry"],
    )


def _horizon(of: Horizon) -> dict[str, Any]:
    tables = {table: [limit.version, limit.began_us] for table, limit in of.tables.items()}
    return {"version": of.version, "began_us": of.began_us, "outcomes": of.outcomes, "tables": tables}


def _back(of: dict[str, Any]) -> Horizon:
    tables = {table: Limit(version=version, began_us=us) for table, (version, us) in of["tables"].items()}
    return Horizon(version=of["version"], began_us=of["began_us"], outcomes=of["outcomes"], tables=tables)
