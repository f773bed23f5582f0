"""A connection that is looked upon: a body uses it like any other, and a watcher is shown each statement before and after.

What is asked *aside* (at a debugger's prompt, while the body waits) goes to the same database and sees the body's own writes, but it is
none of the body's statements: nothing of it is noted, it uses up none of the body's chance, and it only reads.

This module must not know who looks on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from retroact.engine.contract import Reads, Watched, Watcher
from retroact.engine.sqlite.ambient import Moment
from retroact.engine.sqlite.connection import SqliteConnection
from retroact.engine.sqlite.relation import RowNote
from retroact.engine.sqlite.shape import Shape
from retroact.errors import BadStatement
from retroact.trace.record import Cell, Change

ReadsOf = Callable[[Shape, Mapping[str, Cell], int, Sequence[Change]], Reads]
ChangesOf = Callable[[list[RowNote]], tuple[Change, ...]]


class WatchedConnection:
    """See `retroact.Connection` for what a body may call. Lives for one trial."""

    def __init__(self, inner: SqliteConnection, watcher: Watcher, reads_of: ReadsOf, changes_of: ChangesOf) -> None:
        self._inner = inner
        self._watcher = watcher
        self._reads_of = reads_of
        self._changes_of = changes_of
        self._is_aside = False

    # --- what a body calls ---------------------------------------------------------------------------------------------------

    def execute(self, sql: str, parameters: Mapping[str, Cell] | None = None, /, **named: Cell) -> int:
        """Run one statement and return the number of rows it changed."""
        found = self._run(sql, named if parameters is None else parameters)
        return self._inner.notes[-1][2] if self._is_aside or not self._watcher.asks() else len(found)

    def rows(self, sql: str, parameters: Mapping[str, Cell] | None = None, /, **named: Cell) -> list[Any]:
        """Run one statement and return all its rows."""
        return self._run(sql, named if parameters is None else parameters)

    def row(self, sql: str, parameters: Mapping[str, Cell] | None = None, /, **named: Cell) -> Any:
        """Run one statement and return its first row, or None."""
        found = self._run(sql, named if parameters is None else parameters)
        return found[0] if found else None

    def value(self, sql: str, parameters: Mapping[str, Cell] | None = None, /, **named: Cell) -> Any:
        """Run one statement and return the first column of its first row, or None."""
        found = self._run(sql, named if parameters is None else parameters)
        return found[0][0] if found else None

    # --- what the platform calls ---------------------------------------------------------------------------------------------

    @property
    def moment(self) -> Moment:
        """The clock and the chance of the body; for who asks aside, a copy that takes nothing from it."""
        moment = self._inner.moment
        if not self._is_aside and not self._watcher.asks():
            return moment
        copy = Moment()
        copy.begin(moment.now_us, moment.seed)
        copy.random().setstate(moment.random().getstate())
        return copy

    def finish(self) -> None:
        """The body has ended."""
        self._inner.finish()

    def end(self) -> None:
        """What is written from here on is not the body's."""
        self._inner.end()

    @contextlib.contextmanager
    def aside(self, *, writing: bool = False) -> Generator[None]:
        """While this lasts, what is asked is not the body's; without `writing` it must only read."""
        inner, was_aside = self._inner, self._is_aside
        kept = inner.notes, inner.row_notes, inner.schema_changed, inner.lost, inner.observer
        chance = inner.moment.random().getstate()
        inner.notes, inner.row_notes, self._is_aside = [], [], True
        inner.observer = None if writing else _reads_only
        try:
            yield
        finally:
            self._is_aside = was_aside
            inner.moment.random().setstate(chance)
            inner.notes, inner.row_notes, inner.schema_changed, inner.lost, inner.observer = kept

    # --- how -----------------------------------------------------------------------------------------------------------------

    def _run(self, sql: str, parameters: Mapping[str, Cell]) -> list[Any]:
        inner = self._inner
        if self._is_aside:
            return inner.rows(sql, parameters)
        if self._watcher.asks():
            with self.aside():
                return inner.rows(sql, parameters)
        statement = Watched(number=len(inner.notes) + 1, sql=sql, parameters=parameters, reads=Reads())
        self._watcher.before(statement)
        noted = len(inner.row_notes)
        try:
            found = inner.rows(sql, parameters)
        except Exception as error:
            statement.error = error
            self._watcher.after(statement)
            raise
        shape, bound, statement.count, ordered, _ = inner.notes[-1]
        statement.changes = self._changes_of(inner.row_notes[noted:])
        if ordered is not None:
            statement.rows = tuple(tuple(row) for row in found)
            statement.columns = tuple(found[0]._fields) if found else ()
        statement.reads = self._reads_of(shape, bound, statement.count, statement.changes)
        self._watcher.after(statement)
        return found


def _reads_only(_number: int, shape: Shape, _parameters: Mapping[str, Cell]) -> None:
    if shape.writes:
        problem = "what is asked beside the body only reads: a write would be none of the transaction's"
        raise BadStatement(function="the prompt", statement=1, problem=problem, sql=shape.sql)
