"""Looks after the WAL file: lets it grow ahead of the writer, and copies it into the database when it is long enough.

A commit that makes the WAL longer costs about twice as much as one that writes over what is there (the file system has to make the new
length durable too), so the file is filled with zeros ahead of the writer, twice as far each time, and after a checkpoint begun again
from its start. SQLite takes zeros for the end of the WAL, as it takes the remains of an older one.

Invariant: nothing is copied into the database before `before_copy` has returned; that is where the page log takes it over.

This module must not know the page log, nor what is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import apsw

from retroact.errors import RetroactError

#: Frames in the WAL after which it is copied into the database and begun again.
CHECKPOINT_FRAMES = 4000
#: The WAL is filled ahead from this many frames on, up to what a checkpoint leaves of it and some more.
_FIRST_FRAMES = 256
_MOST_FRAMES = CHECKPOINT_FRAMES + 1000
_FRAME_HEADER = 24
_WAL_HEADER = 32


class Checkpointer:
    """The WAL of a database that this process writes. Used by who holds the writer's lead."""

    def __init__(self, database: apsw.Connection, path: Path, before_copy: Callable[[], None]) -> None:
        self._database = database
        self._wal_path = path.with_name(path.name + "-wal")
        self._before_copy = before_copy
        self._frame_size = _FRAME_HEADER + int(database.pragma("page_size"))
        #: Frames that the WAL holds now.
        self.frames = 0
        #: Frames after which the next checkpoint is due.
        self._due = CHECKPOINT_FRAMES
        #: Frames that the file has room for.
        self._room = 0
        #: Why the last checkpoint was not made, if it was not: the WAL is kept until it can be.
        self.trouble: Exception | None = None
        database.set_wal_hook(self._grown)

    def maintain(self) -> None:
        """Between two groups. Never raises: a WAL that cannot be looked after only grows."""
        try:
            if self.frames >= self._due:
                self._before_copy()
                there, copied = self._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                # A reader that is still at work keeps the WAL from being begun again; trying at every commit would not help.
                self._due = CHECKPOINT_FRAMES if copied >= there else there + CHECKPOINT_FRAMES // 4
                self.frames = 0
                self.trouble = None
            elif 2 * self.frames > self._room and self._room < _MOST_FRAMES:
                self._fill()
        except (apsw.Error, OSError, RetroactError, ValueError) as error:
            self.trouble = error

    def soon(self) -> None:
        """Copy the WAL at the next occasion."""
        self._due = 1

    def _grown(self, _database: apsw.Connection, _name: str, frames: int) -> int:
        self.frames = frames
        return apsw.SQLITE_OK

    def _fill(self) -> None:
        """Make room for twice as many frames as there are, behind what is there."""
        room = min(max(_FIRST_FRAMES, 4 * self.frames), _MOST_FRAMES)
        # Under the lock of a writer: else what another program appends at this moment would be filled over.
        self._database.execute("begin immediate")
        descriptor = os.open(self._wal_path, os.O_WRONLY)
        try:
            present = os.fstat(descriptor).st_size
            missing = _WAL_HEADER + room * self._frame_size - present
            if missing > 0:
                os.pwrite(descriptor, bytes(missing), present)
        finally:
            os.close(descriptor)
            self._database.execute("rollback")
        self._room = room
