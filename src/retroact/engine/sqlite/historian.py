"""Keeps the page log up with the database: a thread that has each commit taken over from the WAL, some milliseconds behind the writer.

While there is little to do a scribe in this process does it. When the writer is busy the work moves to a process of its own, because
here it would take turns with the writer for Python's lock; when nothing was written for a while that process is let go.

Invariants:
  * Nothing is checkpointed before it is in the page log: whoever copies the WAL into the database calls `store` first.
  * What is not stored when the process dies stands in the WAL, and is taken over when the database is opened again.
  * One scribe at a time has the page log open for writing.

This module must not know what a record is: to it a version is a number that the writer says after each commit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import apsw

from retroact.engine.sqlite.pagelog_writer import PageLogWriter
from retroact.engine.sqlite.scribe import LocalScribe, Note, Scribe
from retroact.engine.sqlite.scribe_process import Gone, ScribeProcess, possible
from retroact.errors import RetroactError

T = TypeVar("T")
#: How far the page log may lag behind (seconds, frames).
LAG_SECONDS = 0.5
LAG_FRAMES = 2500
#: The writer is busy when the thread was called in haste, or after many frames, so many times in a row.
BUSY_FRAMES = 500
_BUSY_TURNS = 2
#: Where the count of these begins again when somebody needed the page log here: compaction does so many times, one after the other.
_COMPANY_TURNS = -20
#: The process is let go when nothing was written for so long (seconds).
IDLE_SECONDS = 60.0


class Historian:
    """The page log of a database that this process writes."""

    def __init__(self, path: Path, database: apsw.Connection, lock: int | None = None) -> None:
        """Take over what stands in the WAL. `database` is the writer's connection, in WAL mode, before it has written anything;
        `lock` the descriptor by which this process holds the database."""
        self.path = path
        #: The last problem of the page log, if it has one: then the WAL is kept until it is gone.
        self.trouble: Exception | None = None
        self._database = database
        self._writer_lock = lock
        scribe = LocalScribe(path)
        scribe.catch_up()
        self._scribe: Scribe = scribe
        self._may_move = possible()
        self._busy_turns = 0
        self._stored = 0
        self._notes: list[Note] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._behind = threading.Event()
        self._far_behind = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="retroact-historian", daemon=True)
        self._thread.start()

    @property
    def elsewhere(self) -> bool:
        """Whether the work is done in a process of its own now."""
        return isinstance(self._scribe, ScribeProcess)

    def committed(self, note: Note) -> None:
        """The writer has committed. Cheap: the work is done elsewhere."""
        frames = note.frames
        if frames == 0:
            return  # the commit wrote nothing, and the WAL has not been begun again
        if frames < self._stored:
            self._stored = 0
        self._notes.append(note)
        if not self._behind.is_set():
            self._behind.set()
        # A state that no row changes lead to can only be opened from the log: whoever asks for it waits.
        if (note.whole or frames - self._stored > LAG_FRAMES) and not self._far_behind.is_set():
            self._far_behind.set()

    def store(self) -> None:
        """Take over every commit noted so far; when this returns it is durable in the page log."""
        with self._lock:
            notes, self._notes = self._notes, []
            if not notes:
                return
            try:
                self._take_over(notes)
                self._stored = notes[-1].frames
            except BaseException:
                self._notes = [*notes, *self._notes]
                raise
            self.trouble = None

    def move_out(self) -> None:
        """Do the work in a process of its own from here on, if that is possible."""
        if self.elsewhere or not self._may_move:
            return
        try:
            process = ScribeProcess(self.path, self._writer_lock)
        except (OSError, Gone):
            self._may_move = False
            return
        with self._lock:
            if self.elsewhere or self._stop.is_set():
                process.close()
                return
            self._scribe.close()
            self._scribe = process
            try:
                process.open()
            except Gone:
                self._may_move = False
                self._return()

    def exclusively(self, work: Callable[[PageLogWriter], T]) -> T:
        """Do something with the page log while nothing is stored in it."""
        with self._lock:
            self._return()
            self._busy_turns = _COMPANY_TURNS
            assert isinstance(self._scribe, LocalScribe), "it has come back"
            return work(self._scribe.log)

    def weight(self) -> int:
        """Bytes of the page log in use."""
        return self.exclusively(lambda log: log.weight())

    def close(self) -> None:
        """Store everything and copy it into the database, so that both files stand by themselves. The database is closed next."""
        self._stop.set()
        self._behind.set()
        self._far_behind.set()
        self._thread.join()
        self.store()
        self._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        with self._lock:
            self._return()
            self._scribe.note_closed()
            self._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._scribe.close()

    def _take_over(self, notes: list[Note]) -> None:
        try:
            self._scribe.take_over(notes)
        except Gone:
            self._may_move = False
            self._return()
            self._scribe.take_over(notes)

    def _return(self) -> None:
        """Do the work in this process again. With the lock."""
        if self.elsewhere:
            self._scribe.close()
            self._scribe = LocalScribe(self.path)

    def _follow(self) -> None:
        while not self._stop.is_set():
            if not self._behind.wait(IDLE_SECONDS):
                with self._lock:
                    self._return()
                continue
            hasty = self._far_behind.wait(LAG_SECONDS)
            self._behind.clear()
            self._far_behind.clear()
            busy = hasty or len(self._notes) > BUSY_FRAMES
            try:
                self.store()
            except (apsw.Error, OSError, RetroactError, ValueError, AssertionError) as error:
                self.trouble = error
            self._busy_turns = self._busy_turns + 1 if busy else min(self._busy_turns, 0)
            if self._busy_turns >= _BUSY_TURNS and not self._stop.is_set():
                self.move_out()
