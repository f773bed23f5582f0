"""What waits to be written: records of reads, aborted attempts, and the last transaction of a workflow that waits for its end.

Records of reads ride with whatever their run writes next, or are written by the tender some milliseconds later. Whoever takes those of
a run may rely on it that none of them is still on its way.

This module must not know what is written, nor how.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from retroact.trace.record import RunId

#: How long something waits at most for company (seconds).
TEND_SECONDS = 0.005
#: Ticks without work after which the tender goes to sleep.
_IDLE_TICKS = 20
#: Runs whose texts are written in one flight.
_BATCH = 64
#: Texts that nobody waits for are kept up to so many; then who brings more writes them itself.
_FULL = 2000


class Lingers(Protocol):
    """Something that is finished by whoever takes it first."""

    def tend(self) -> None:
        """Nobody else came: finish it. Raises nothing."""
        ...


class Outbox:
    """Texts to be written, by run, and what lingers; a tender looks after both."""

    def __init__(self, write: Callable[[list[str]], None]) -> None:
        """`write` makes texts durable, all of them or none. It may raise; then it is called again with the same texts."""
        self._write = write
        self._texts: dict[RunId, list[str]] = {}
        #: Runs whose texts are being written now.
        self._under_way: set[RunId] = set()
        self._changed = threading.Condition()
        self._lingering: dict[Any, int] = {}
        self._tick = 0
        self.trouble: Exception | None = None
        self._stop = threading.Event()
        self._call = threading.Event()
        self._tender = threading.Thread(target=self._tend, name="retroact-tender", daemon=True)
        self._tender.start()

    def post(self, run: RunId, text: str) -> None:
        """Have a text written soon."""
        with self._changed:
            self._texts.setdefault(run, []).append(text)
            full = len(self._texts) > _FULL
        if full:
            self.flush()
        elif not self._call.is_set():
            self._call.set()

    def take(self, run: RunId) -> list[str]:
        """The texts of a run that are not written yet: they are the caller's now."""
        if not self._texts and not self._under_way:
            return []
        with self._changed:
            while run in self._under_way:
                self._changed.wait()
            return self._texts.pop(run, [])

    def put_back(self, run: RunId, texts: list[str]) -> None:
        """Texts that were taken and have not been written."""
        if texts:
            with self._changed:
                self._texts[run] = texts + self._texts.get(run, [])
            self._call.set()

    def linger(self, job: Lingers) -> None:
        """Keep a job until somebody takes it, or the tender finishes it."""
        self._lingering[job] = self._tick
        if not self._call.is_set():
            self._call.set()

    def claim(self, job: Lingers) -> bool:
        """Take a job that lingers; False when somebody has taken it."""
        return self._lingering.pop(job, None) is not None

    def flush(self) -> None:
        """Write everything that waits, and wait for what is being written. Raises what writing raises."""
        for job in list(self._lingering):
            if self.claim(job):
                job.tend()
        while self._flush_some():
            pass
        with self._changed:
            while self._under_way:
                self._changed.wait()

    def close(self) -> None:
        """Write everything, and end the tender."""
        self._stop.set()
        self._call.set()
        if threading.current_thread() is not self._tender:
            self._tender.join()
        self.flush()

    def _flush_some(self) -> bool:
        with self._changed:
            runs = [run for run in self._texts if run not in self._under_way][:_BATCH]
            if not runs:
                return False
            texts = {run: self._texts.pop(run) for run in runs}
            self._under_way.update(runs)
        written = False
        try:
            self._write([text for run in runs for text in texts[run]])
            written = True
        finally:
            with self._changed:
                self._under_way.difference_update(runs)
                if not written:
                    for run in runs:
                        self._texts[run] = texts[run] + self._texts.get(run, [])
                self._changed.notify_all()
        return True

    def _tend(self) -> None:
        while not self._stop.is_set():
            self._call.wait()
            idle = 0
            while idle < _IDLE_TICKS and not self._stop.wait(TEND_SECONDS):
                idle = 0 if self._texts or self._lingering else idle + 1
                self._tend_once()
            self._call.clear()
            if self._texts or self._lingering:
                self._call.set()

    def _tend_once(self) -> None:
        self._tick += 1
        for job, since in list(self._lingering.items()):
            if since < self._tick - 1 and self.claim(job):
                job.tend()
        try:
            while self._texts and self._flush_some():
                pass
            self.trouble = None
        except Exception as error:  # noqa: BLE001 - it is kept and written later; `App.trouble` tells
            self.trouble = error
