"""Opens any past version of a SQLite database as a branch: the nearest commit from the page log, then the records up to the version.

A group commit holds many versions and the page log holds commits, so a version inside a group is reached from the commit before it by
applying the recorded changes; a transaction that changes the schema always ends its group, so such a version is a commit.

This module must not know who wants to go back, nor why.
"""

from __future__ import annotations

import threading
from pathlib import Path

import apsw

from retroact.decomposition.phase import Phase
from retroact.decomposition.span import Span
from retroact.engine.contract import SchemaMoved
from retroact.engine.sqlite.branch import Branch
from retroact.engine.sqlite.database import open_reader, open_writer
from retroact.engine.sqlite.facts import Schemas
from retroact.engine.sqlite.historian import Historian
from retroact.engine.sqlite.horizon import beyond, forgotten
from retroact.engine.sqlite.lock import WriterLock
from retroact.engine.sqlite.pagelog import Commit, PageLog
from retroact.engine.sqlite.timetravel import TimeTravel
from retroact.engine.sqlite.trace_reader import TraceReader
from retroact.errors import BeyondHistory, DatabaseBusy, UnknownVersion
from retroact.trace.record import Record, Version

#: How long to wait for a living writer's page log (seconds, and how often to look).
_PATIENCE_SECONDS = 2.0
_LOOK_SECONDS = 0.01


class History:
    """The past of one database. Works beside the process that writes it, and after one that was killed."""

    def __init__(self, path: Path) -> None:
        """Raises NoProject, NotADatabase, NewerDatabase, BeyondHistory when no page log was kept."""
        self.path = path
        take_over(path)
        self.trace = TraceReader(path)
        try:
            self.pages = PageLog(path)
        except apsw.CantOpenError:
            self.trace.close()
            version = Version(0)
            reason = "No page log was kept (recording=False)."
            raise BeyondHistory(version=version, database=path, horizon=version, reason=reason) from None
        self._travel = TimeTravel(path, self.pages)
        self._schemas = Schemas()

    def at(self, version: int) -> Branch:
        """The state as of a version, as a branch of its own. Raises UnknownVersion, BeyondHistory, DamagedPage, DamagedTrace."""
        last = self.trace.last_version()
        if not 0 <= version <= last:
            raise UnknownVersion(version=version, database=self.path, first=0, last=last)
        horizon = self.trace.horizon()
        if version < horizon.version:
            raise beyond(horizon, version, self.path)
        branch = self._open(self.pages.commit_of(version))
        try:
            branch.advance_by(self.trace.records_between(branch.version, version))
        except SchemaMoved as moved:
            branch.close()
            self._wait_for(moved.version)
            return self.at(version)
        except BeyondHistory:
            branch.close()
            raise
        branch.version = Version(version)
        tables = self.trace.horizon().forgotten(version)
        if tables:
            branch.refuse({table: forgotten(table, limit, version, self.path) for table, limit in tables.items()})
        return branch

    def persisted_us(self, version: int) -> int | None:
        """When a version was durable at the latest, in microseconds since the epoch; None while the page log does not know it yet.

        Commits that follow one another closely are logged as one, with the time of the last.
        """
        commit = self.pages.commit_of(version)
        if commit.version < version:
            try:
                commit = self.pages.commit(commit.number + 1)
            except ValueError:
                return None
        return commit.persisted_us

    def spans(self, record: Record) -> tuple[Span, ...]:
        """The phases of a transaction that wrote, as `spans` tells them."""
        return spans(record, self.persisted_us(record.version))

    def close(self) -> None:
        """Let the files go, and all branches."""
        self._travel.close()
        self.pages.close()
        self.trace.close()

    def _open(self, commit: Commit) -> Branch:
        return Branch(self._travel.open(commit.number), Version(commit.version), self._schemas)

    def _wait_for(self, version: int) -> None:
        """Wait until the page log of a living writer has reached a version. Raises BeyondHistory."""
        patience = threading.Event()
        for _ in range(int(_PATIENCE_SECONDS / _LOOK_SECONDS)):
            if self.pages.last_commit.version >= version:
                return
            patience.wait(_LOOK_SECONDS)
        reason = "The process that writes the database has not logged it yet; try again."
        raise BeyondHistory(version=version, database=self.path, horizon=self.pages.last_commit.version, reason=reason)


def spans(record: Record, known_us: int | None) -> tuple[Span, ...]:
    """The phases of a transaction that wrote, in microseconds since the epoch: the engine's decomposition, as it happened.

    Taking the write lock both orders and validates; persisting ends with the fsync of the group, when that is known.
    """
    executed_us = record.began_us + max(record.elapsed_us, 1)
    persisted_us = known_us or executed_us + 1
    return (
        Span(Phase.ORDER, record.began_us, record.began_us),
        Span(Phase.VALIDATE, record.began_us, record.began_us),
        Span(Phase.EXECUTE, record.began_us, executed_us),
        Span(Phase.PERSIST, executed_us, max(persisted_us, executed_us + 1)),
    )


def take_over(path: Path) -> None:
    """After a writer that was killed: bring the page log up to what stands in the WAL. Does nothing beside a living writer."""
    if not path.with_name(path.name + "-pages").exists() or not _unlogged(path):
        return
    open_reader(path).close()
    lock = WriterLock(path)
    try:
        lock.acquire()
    except DatabaseBusy:
        return
    try:
        database = open_writer(path)
        Historian(path, database).close()
        database.close()
    finally:
        lock.release()


def _unlogged(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0
