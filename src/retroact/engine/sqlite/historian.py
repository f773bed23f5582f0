"""Keeps the page log up with the database: a thread that takes over each commit from the WAL, some milliseconds behind the writer.

Invariants:
  * Nothing is checkpointed before it is in the page log: whoever copies the WAL into the database calls `store` first.
  * What the thread has not stored when the process dies stands in the WAL, and is taken over when the database is opened again.

This module must not know what a record is: to it a version is a number that the writer says after each commit.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import apsw

from retroact.engine.sqlite import wal
from retroact.engine.sqlite.pagelog import LoggedCommit, PageLog, PageLogWriter
from retroact.engine.sqlite.queries import queries
from retroact.engine.sqlite.timetravel import TimeTravel
from retroact.errors import RetroactError

T = TypeVar("T")
#: How far the page log may lag behind (seconds, frames).
LAG_SECONDS = 0.5
LAG_FRAMES = 2500
#: Commits are logged as one while they hold no more versions than this: those between are reached from the recorded row changes.
SPAN_VERSIONS = 8


class Note(NamedTuple):
    """A commit, as the writer tells of it."""

    #: Frames that the WAL has with it.
    frames: int
    #: The newest version that it holds.
    version: int
    now_us: int
    #: It changed more than rows: the state before it and the one after it are logged as they are.
    whole: bool


class Historian:
    """The page log of a database that this process writes."""

    def __init__(self, path: Path, database: apsw.Connection) -> None:
        """Take over what stands in the WAL. `database` is the writer's connection, in WAL mode, before it has written anything."""
        self.path = path
        #: The last problem of the page log, if it has one: then the WAL is kept until it is gone.
        self.trouble: Exception | None = None
        self._database = database
        self._wal_path = path.with_name(path.name + "-wal")
        self._log = PageLogWriter(path)
        versions = _Versions(path)
        try:
            self._log.catch_up(self._wal_path, versions.at)
        finally:
            versions.close()
        self._stored = 0
        self._notes: list[Note] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._behind = threading.Event()
        self._far_behind = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="retroact-historian", daemon=True)
        self._thread.start()

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

    def exclusively(self, work: Callable[[PageLogWriter], T]) -> T:
        """Do something with the page log while nothing is stored in it."""
        with self._lock:
            return work(self._log)

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
        self._log.note_closed()
        self._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._log.close()

    def _take_over(self, notes: list[Note]) -> None:
        descriptor = os.open(self._wal_path, os.O_RDONLY)
        try:
            header = wal.read_header(descriptor)
            assert header is not None, "a commit was noted and there is no WAL"
            found = wal.read_commits(descriptor, header, self._log.next_frame(header), notes[-1].frames)
            self._log.append(list(_joined(found, notes, self._log.last_commit.version)))
        finally:
            os.close(descriptor)

    def _follow(self) -> None:
        while not self._stop.is_set():
            self._behind.wait()
            self._far_behind.wait(LAG_SECONDS)
            self._behind.clear()
            self._far_behind.clear()
            try:
                self.store()
            except (apsw.Error, OSError, RetroactError, ValueError, AssertionError) as error:
                self.trouble = error


class _Versions:
    """The newest version as of each commit that was found in the WAL: asked of the states themselves."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log: PageLog | None = None
        self._travel: TimeTravel | None = None

    def at(self, commit_number: int) -> int:
        """The newest version that a commit held."""
        if self._travel is None or self._log is None:
            self._log = PageLog(self._path)
            self._travel = TimeTravel(self._path, self._log)
        database = self._travel.open(commit_number)
        try:
            if not database.table_exists("main", "retroact_record"):
                return 0
            return database.execute(queries()["last_version"]).get or 0
        finally:
            database.close()

    def close(self) -> None:
        """Let the files go."""
        if self._travel is not None and self._log is not None:
            self._travel.close()
            self._log.close()


def _joined(found: Iterable[wal.WalCommit], notes: list[Note], version: int) -> Iterator[LoggedCommit]:
    """The commits found in the WAL, those between which only rows changed joined into one. `version` is what the log holds so far."""
    known = {note.frames: note for note in notes}
    joined: list[wal.WalCommit] = []
    base = upto = version
    now_us = notes[0].now_us
    for commit in found:
        note = known.get(commit.end_frame)
        # A commit that nobody noted was made by another program: it brought no version, and no record tells what it changed.
        alone = note is None or note.whole
        newest = upto if note is None else note.version
        if joined and (alone or newest - base > SPAN_VERSIONS or commit.database_pages < joined[-1].database_pages):
            yield LoggedCommit(_join(joined), upto, now_us)
            base, joined = upto, []
        joined.append(commit)
        upto, now_us = newest, now_us if note is None else note.now_us
        if alone:
            yield LoggedCommit(_join(joined), upto, now_us)
            base, joined = upto, []
    if joined:
        yield LoggedCommit(_join(joined), upto, now_us)


def _join(commits: list[wal.WalCommit]) -> wal.WalCommit:
    """One commit that leaves what several left."""
    if len(commits) == 1:
        return commits[0]
    pages: dict[int, bytes] = {}
    for commit in commits:
        pages.update(commit.frames)
    return dataclasses.replace(commits[-1], frames=tuple(pages.items()), first_frame=commits[0].first_frame)
