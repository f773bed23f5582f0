"""Executes a sample of the committed transactions a second time, after the fact, each on a branch of the state that it saw.

A transaction that is not deterministic shows here, long before somebody needs its replay. Callers are not concerned: nothing is done in
their way, a thread follows the trace, rests far longer than it works, and what goes wrong in it is told to nobody but the log.

Which runs are sampled follows from their ids, so that every process samples the same. The recorded code is loaded beside the present
one, so what a second execution does to the globals of its module, the application does not see.

This module must not know where records come from and findings go, nor who switched it on.
"""

from __future__ import annotations

import collections
import logging
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence

import msgspec

from retroact.engine.clock import Clock, monotonic
from retroact.engine.contract import History
from retroact.engine.hashing import present_hashing
from retroact.errors import LoadFailed, RetroactError, SourceMissing
from retroact.function.lint.linter import grave, lint
from retroact.replay.divergence import compare
from retroact.replay.replayer import invocation_of
from retroact.replay.shelf import Shelf
from retroact.replay.suspicion import suspicion
from retroact.trace.record import Record, RunId, Version
from retroact.trace.verification import Verification, Verified

#: How often it looks for new transactions (seconds).
LOOK_SECONDS = 0.5
#: For every second of work so many seconds of rest, unless somebody waits.
REST = 49
#: More than this waiting are left out, the oldest first: under load a smaller share is verified.
MOST_WAITING = 1000
#: The longest that closing waits for what is still to be verified (seconds). The next process goes on from there.
LAST_SECONDS = 1.0
_NEWEST = 1000

_log = logging.getLogger("retroact.verification")
Keep = Callable[[Verified, Sequence[Verification]], None]


def sampled(run: RunId, rate: float) -> bool:
    """Whether a run is among those that are verified."""
    return zlib.crc32(run.encode()) < rate * 2**32


class Verifier:
    """Verifies the transactions of one database, as long as it is open."""

    def __init__(self, history: Callable[[], History], keep: Keep, *, rate: float, clock: Clock, so_far: Verified) -> None:
        """`history` opens the past when it is first needed; `keep` stores what was found; what was committed up to `so_far` is done."""
        self._open = history
        self._keep = keep
        self._rate = rate
        self._clock = clock
        self._verified = so_far
        self._seen = so_far.until
        self._waiting: collections.deque[Version] = collections.deque()
        self._found: list[Verification] = []
        self._history: History | None = None
        self._shelf: Shelf | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._trouble: str | None = None
        #: The functions that the log was told of: once each.
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._follow, name="retroact-verifier", daemon=True)

    def start(self) -> None:
        """Begin to follow the trace."""
        self._thread.start()

    @property
    def verified(self) -> Verified:
        """What has been found so far."""
        return self._verified

    def verify(self, seconds: float | None = None) -> Verified:
        """Verify everything that is sampled and waits, without rest, for so many seconds at most."""
        deadline = None if seconds is None else monotonic() + seconds
        with self._lock:
            self._look()
            while self._waiting and (deadline is None or monotonic() < deadline):
                self._verify_next()
            self._store()
        return self._verified

    def close(self) -> None:
        """Verify what still waits, as long as that takes no time to speak of, and let the past go. Raises nothing."""
        self._stop.set()
        self._thread.join(LAST_SECONDS)
        if self._thread.is_alive():
            return  # a body that does not come back; the thread ends with the process
        try:
            self.verify(LAST_SECONDS)
        except Exception as error:  # noqa: BLE001 - it never stands in the way of the application
            self._tell(error)
        if self._shelf is not None:
            self._shelf.close()
        if self._history is not None:
            self._history.close()

    def _follow(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                with self._lock:
                    self._look()
                while self._waiting and not self._stop.is_set():
                    began = monotonic()
                    with self._lock:
                        self._verify_next()
                    self._stop.wait(REST * (monotonic() - began))
                    with self._lock:
                        self._look()
                with self._lock:
                    self._store()
            except BaseException as error:  # noqa: BLE001 - it never stands in the way of the application
                self._tell(error)

    def _past(self) -> tuple[History, Shelf]:
        if self._history is None or self._shelf is None:
            self._history = self._open()
            self._shelf = Shelf(self._history.trace)
        return self._history, self._shelf

    def _look(self) -> None:
        """Find what was sampled since the last look."""
        history, _ = self._past()
        last = history.trace.last_version()
        if last == self._seen:
            return
        for version, run in history.trace.runs_between(self._seen, last):
            if sampled(run, self._rate):
                self._waiting.append(version)
        self._seen = last
        over = len(self._waiting) - MOST_WAITING
        for _ in range(over):
            self._waiting.popleft()
        if over > 0:
            self._count(left_out=over)

    def _verify_next(self) -> None:
        history, shelf = self._past()
        version = self._waiting[0]
        try:
            for record in history.trace.records_between(version - 1, version):
                if record.kind == "transaction":
                    self._verify(history, shelf, record)
        except (SourceMissing, LoadFailed):
            self._count(left_out=1)
        except RetroactError as error:
            self._count(left_out=1)
            self._tell(error)
        finally:
            self._waiting.popleft()

    def _verify(self, history: History, shelf: Shelf, record: Record) -> None:
        invocation = invocation_of(record, shelf.function(record))
        branch = history.at(record.snapshot)
        divergence = None
        try:
            # Twice: a counter in the module, which was loaded for this, may happen to stand where it stood then, but not twice.
            for _ in range(2):
                trial = branch.attempt(invocation, record.began_us, invocation.seed)
                branch.undo()
                divergence = divergence or compare(record, trial)[1]
        finally:
            branch.close()
        if divergence is not None and suspicion(history.trace.hashing(record.version), present_hashing()) is not None:
            self._count(left_out=1)  # another process wrote it, whose sets have another order: a replay gives it that, we cannot
            return
        self._count(checked=1)
        if divergence is None:
            return
        found = Verification(
            version=record.version,
            run=record.run,
            function=record.function,
            statement=divergence.statement,
            explanation="\n".join([divergence.explain(record), *_causes(history, record)]),
            verified_us=self._clock.now_us(),
        )
        self._found.append(found)
        self._verified = msgspec.structs.replace(self._verified, diverged=(found, *self._verified.diverged[: _NEWEST - 1]))
        if record.function not in self._told:
            self._told.add(record.function)
            _log.warning("%s is not deterministic: executed again, it did something else.\n%s", record.function, found.explanation)

    def _count(self, *, checked: int = 0, left_out: int = 0) -> None:
        now = self._verified
        self._verified = msgspec.structs.replace(now, checked=now.checked + checked, left_out=now.left_out + left_out)

    def _store(self) -> None:
        until = Version(self._waiting[0] - 1) if self._waiting else self._seen
        if until == self._verified.until and not self._found:
            return
        self._verified = msgspec.structs.replace(self._verified, until=until)
        if self._verified.checked or self._verified.left_out:
            self._keep(self._verified, self._found)
            self._found = []

    def _tell(self, error: BaseException) -> None:
        text = f"{type(error).__name__}: {error}"
        if text != self._trouble:
            self._trouble = text
            _log.warning("transactions are not being verified: %s", text)


def _causes(history: History, record: Record) -> Iterator[str]:
    """What in the code of a record's function may be the cause, as far as reading it tells."""
    code = history.trace.code(record.code) if record.code is not None else None
    for finding in lint((code,), record.function) if code is not None else ():
        if grave(finding):
            yield f"{finding.file}:{finding.line}: {finding.rule} {finding.message}. {finding.remedy}"
