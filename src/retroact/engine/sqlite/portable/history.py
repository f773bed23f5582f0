"""The past as a portable trace keeps it, or as it will keep it: a History over the pages of a few states and some of the records.

Invariant: an answer is whole or there is none. Whatever a branch is asked, if a page that is not at hand was needed on the way then
NotExported is raised, also where a body caught it and went on.

This module must not know how the file came about.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from retroact.decomposition.span import Span
from retroact.engine.contract import Invocation, Key, Trial, Watcher
from retroact.engine.footprint import Footprint
from retroact.engine.sqlite import history as home
from retroact.engine.sqlite.branch import Branch
from retroact.engine.sqlite.connection import StatementObserver
from retroact.engine.sqlite.database import check_schema
from retroact.engine.sqlite.facts import Schemas
from retroact.engine.sqlite.portable import file
from retroact.engine.sqlite.portable.pages import Kept, KeptPages, State, States
from retroact.engine.sqlite.timetravel import TimeTravel
from retroact.engine.sqlite.trace_reader import TraceReader
from retroact.errors import NotExported, UnknownVersion
from retroact.trace.record import Cell, Change, Record, Version


class StateEntry(msgspec.Struct, frozen=True):
    """One state, as the section `states` tells it: which image each of its pages is, and the roots of its b-trees."""

    version: int
    pages: int
    images: dict[int, int]
    roots: dict[int, tuple[str, str]]


class Contents(msgspec.Struct, frozen=True):
    """The section `states`."""

    page_size: int
    #: The chain of the record before the first.
    link: int
    states: list[StateEntry]
    #: When versions were durable, in microseconds since the epoch: (up to this version, time).
    persisted: list[tuple[int, int]]
    #: The runs that were asked for.
    chosen: list[str]
    #: Columns whose values were replaced.
    redacted: list[str]


class PortableTrace(TraceReader):
    """The records of a span of versions."""

    def __init__(self, path: Path, database: apsw.Connection, base: int, link: int) -> None:
        super().__init__(path, database)
        self._base, self._link = base, link

    def last_version(self) -> Version:
        """The newest version, that of the state in which the span begins when nothing follows it."""
        return Version(super().last_version() or self._base)

    def checked_rows(self, after: int, until: int) -> Iterator[tuple[Any, ...]]:
        """The rows of the records with after < version <= until, each checked against its chain. Raises DamagedTrace."""
        return super().checked_rows(max(after, self._base), until)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Rows of the tables of the trace."""
        return self._database.execute(sql, tuple(parameters)).fetchall()

    def _links(self, version: int) -> list[Any]:
        return [(self._link,)] if version == self._base else super()._links(version)


class PortableBranch(Branch):
    """A branch that notices when its answers rest on what is not there."""

    def __init__(self, database: apsw.Connection, version: Version, schemas: Schemas, pages: States) -> None:
        self._pages = pages
        with self._whole():
            super().__init__(database, version, schemas)

    def attempt(
        self,
        invocation: Invocation,
        now_us: int,
        seed: str,
        observer: StatementObserver | None = None,
        watcher: Watcher | None = None,
    ) -> Trial:
        """Run the body of a transaction in its own moment. Raises NotExported."""
        try:
            with self._whole():
                return super().attempt(invocation, now_us, seed, observer, watcher)
        except NotExported:
            self.undo()
            raise

    def keep(self) -> None:
        """Let the effects of the last trial stand. Raises NotExported."""
        with self._whole():
            super().keep()

    def undo(self) -> None:
        """Take the effects of the last trial back. Raises NotExported."""
        with self._whole():
            super().undo()

    def retrace(self, record: Record) -> tuple[Change, ...] | None:
        """Run the recorded statements without the body. Raises NotExported."""
        try:
            with self._whole():
                return super().retrace(record)
        except NotExported:
            self.undo()
            raise

    def holds(self, invariant: Invocation) -> tuple[bool, str | None]:
        """Whether an invariant holds here, and what it raised if it did. Raises NotExported."""
        with self._whole():
            return super().holds(invariant)

    def settle(self) -> None:
        """Apply all that was deferred. Raises NotExported."""
        with self._whole():
            super().settle()

    def footprint(self, sql: str) -> Footprint:
        """What a text can touch here. Raises NotExported."""
        with self._whole():
            return super().footprint(sql)

    def advance_by(self, records: Iterable[Record]) -> None:
        """Apply what records changed, in commit order. Raises SchemaMoved, NotExported."""
        with self._whole():
            super().advance_by(records)

    def query(self, sql: str, parameters: Mapping[str, Cell] | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Read the state: column names and rows. Raises BadStatement, NotExported."""
        with self._whole():
            return super().query(sql, parameters)

    @contextlib.contextmanager
    def sound(self) -> Generator[None]:
        """Raises NotExported besides."""
        with self._whole(), super().sound():
            yield

    def row(self, table: str, key: Key) -> dict[str, Any] | None:
        """One row by its key. Raises NotExported."""
        with self._whole():
            return super().row(table, key)

    @contextlib.contextmanager
    def _whole(self) -> Generator[None]:
        before = self._pages.begin()
        try:
            yield
        finally:
            self._pages.end(before)  # instead of whatever else came of it


class PortableHistory:
    """The past of a portable trace."""

    def __init__(self, path: Path, pages: States, trace: TraceReader, persisted: list[tuple[int, int]]) -> None:
        self.path = path
        self.pages = pages
        self.trace = trace
        #: What the file says of itself, when it came from one.
        self.contents: Contents | None = None
        self._persisted = persisted
        self._travel = TimeTravel(None, pages)
        self._schemas = Schemas()
        #: The state that was asked for last: who goes on from there need not begin at the beginning.
        self._reached: tuple[int, apsw.Connection, Version] | None = None
        self._lock = threading.Lock()

    def at(self, version: int) -> PortableBranch:
        """The state as of a version, as a branch of its own. Raises UnknownVersion, NotExported."""
        first, last = self.pages.horizon.version, self.trace.last_version()
        if not first <= version <= last:
            raise UnknownVersion(version=version, database=self.path, first=first, last=last)
        with self._lock:
            state = self.pages.commit_of(version).number
            connection = self._reach(state, Version(version))
            return PortableBranch(self._travel.fork(connection), Version(version), self._schemas, self.pages)

    def _reach(self, state: int, version: Version) -> apsw.Connection:
        """A connection at a version, going on from what was reached before where that is possible. Raises NotExported."""
        reached, self._reached = self._reached, None
        if reached is not None and (reached[0] != state or reached[2] > version):
            reached[1].close()
            reached = None
        _, connection, at = reached or (state, self.connect(state), Version(self.pages.commit(state).version))
        branch = PortableBranch(connection, at, self._schemas, self.pages)
        branch.advance_by(self.trace.records_between(at, version))
        self._reached = (state, connection, version)
        return connection

    def connect(self, state: int) -> apsw.Connection:
        """A state as a connection, without what is known of versions."""
        return self._travel.open(state)

    def persisted_us(self, version: int) -> int | None:
        """When a version was durable at the latest, in microseconds since the epoch, None when that was not known."""
        return next((us for upto, us in self._persisted if upto >= version), None)

    def spans(self, record: Record) -> tuple[Span, ...]:
        """The phases of a transaction that wrote, in microseconds since the epoch."""
        return home.spans(record, self.persisted_us(record.version))

    def close(self) -> None:
        """Let everything go, all branches included."""
        self._travel.close()
        self.trace.close()


def open_portable(path: Path) -> PortableHistory:
    """The past in the file at `path`. Raises NoProject, DamagedFile, NewerDatabase."""
    return opened(path, file.read(path))


def trace_in(path: Path) -> PortableTrace:
    """The records in the file at `path`. Raises what `open_portable` raises."""
    sections = file.read(path, ("states", "trace"))
    contents = msgspec.json.decode(sections["states"], type=Contents)
    return _trace(path, sections["trace"], contents)


def opened(path: Path, sections: Mapping[str, bytes]) -> PortableHistory:
    """The past in some sections."""
    contents = msgspec.json.decode(sections["states"], type=Contents)
    images = sections["images"]
    size = contents.page_size
    kept = [
        Kept(
            state=State(version=state.version, pages=state.pages),
            images={page: images[number * size : (number + 1) * size] for page, number in state.images.items()},
            roots=state.roots,
        )
        for state in contents.states
    ]
    trace = _trace(path, sections["trace"], contents)
    history = PortableHistory(path, KeptPages(size, kept, path), trace, contents.persisted)
    history.contents = contents
    return history


def _trace(path: Path, image: bytes, contents: Contents) -> PortableTrace:
    return PortableTrace(path, records_database(path, image), contents.states[0].version, contents.link)


def records_database(path: Path, image: bytes) -> apsw.Connection:
    """The tables of the trace, in memory. Raises NewerDatabase."""
    database = apsw.Connection(":memory:")
    database.deserialize("main", image)
    database.pragma("query_only", True)
    check_schema(database, path)
    return database
