"""Writes commits from the WAL into the page log: the work of the historian, in whichever process it is done.

This module must not know when it is called, nor who waits for it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from retroact.engine.sqlite import wal
from retroact.engine.sqlite.pagelog import LoggedCommit, PageLog, PageLogWriter
from retroact.engine.sqlite.queries import queries
from retroact.engine.sqlite.timetravel import TimeTravel

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


class Scribe(Protocol):
    """Has the page log to itself, and writes it."""

    def take_over(self, notes: Sequence[Note]) -> None:
        """Log the commits of the WAL up to the last that is noted; when this returns they are durable."""
        ...

    def note_closed(self) -> None:
        """Everything is logged and in the main file, which nobody will change until the database is opened again."""
        ...

    def close(self) -> None:
        """Let the page log go."""
        ...


class LocalScribe:
    """A scribe in this process."""

    def __init__(self, path: Path) -> None:
        """Open or make the page log. Raises NotADatabase, NewerDatabase."""
        self._path = path
        self._wal_path = path.with_name(path.name + "-wal")
        self.log = PageLogWriter(path)

    def catch_up(self) -> None:
        """Take over what an earlier process left in the WAL. Before anything is written."""
        versions = _Versions(self._path)
        try:
            self.log.catch_up(self._wal_path, versions.at)
        finally:
            versions.close()

    def take_over(self, notes: Sequence[Note]) -> None:
        """See Scribe."""
        descriptor = os.open(self._wal_path, os.O_RDONLY)
        try:
            header = wal.read_header(descriptor)
            assert header is not None, "a commit was noted and there is no WAL"
            first = self.log.next_frame(header)
            if first < notes[-1].frames:
                found = wal.read_commits(descriptor, header, first, notes[-1].frames)
                self.log.append(list(_joined(found, notes, self.log.last_commit.version)))
        finally:
            os.close(descriptor)

    def note_closed(self) -> None:
        """See Scribe."""
        self.log.note_closed()

    def close(self) -> None:
        """See Scribe."""
        self.log.close()


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


def _joined(found: Iterable[wal.WalCommit], notes: Sequence[Note], version: int) -> Iterator[LoggedCommit]:
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
