"""The connection that a body is given: it runs SQL, and notes every statement and every row changed.

Live, in replay and in retroaction a body gets this same class, over different databases; what differs is who reads the notes.

This module must not know how a transaction begins or ends, nor where its record goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import apsw

from retroact.engine.sqlite.ambient import Moment, install
from retroact.engine.sqlite.queries import fetch
from retroact.engine.sqlite.shape import Shape, shape_of
from retroact.errors import BadStatement, ReadOnlyTransaction
from retroact.trace.codec import digest_rows
from retroact.trace.record import Cell

#: One statement as it is noted: shape, parameters, count, ordered and unordered digest.
Note = tuple[Shape, Mapping[str, Cell], int, str | None, str | None]
#: One row change as it is noted: table, verb, rowid before, rowid after, row before, row after.
RowNote = tuple[str, str, int, int, tuple[Cell, ...] | None, tuple[Cell, ...] | None]

_VERBS = {"INSERT": "i", "UPDATE": "u", "DELETE": "d"}


class StatementObserver(Protocol):
    """Is shown each statement before it takes effect; may raise to stop it."""

    def __call__(self, number: int, shape: Shape, parameters: Mapping[str, Cell], /) -> None: ...


class Shapes:
    """The SQL texts that a database has seen, numbered. New ones wait in `fresh` until they are stored."""

    def __init__(self, numbers: dict[str, int]) -> None:
        self.numbers = numbers
        self.known: dict[str, Shape] = {}
        self.fresh: list[Shape] = []
        self._next = max(numbers.values(), default=0) + 1

    def learn(self, database: apsw.Connection, sql: str, function: str, statement: int) -> Shape:
        """Understand a text that is not known yet."""
        number = self.numbers.get(sql)
        new = number is None
        shape = shape_of(database, sql, self._next if number is None else number, function, statement)
        if new:
            self._next += 1
            self.numbers[sql] = shape.number
            self.fresh.append(shape)
        if not shape.schema_change:
            self.known[sql] = shape
        return shape


class SqliteConnection:
    """See `retroact.Connection` for what a body may call. Not safe for use by two threads at once."""

    def __init__(self, database: apsw.Connection, shapes: Shapes) -> None:
        self.database = database
        self.shapes = shapes
        self.moment = Moment()
        self.notes: list[Note] = []
        self.row_notes: list[RowNote] = []
        self.schema_changed = False
        self.function = ""
        self.read_only = False
        self.observer: StatementObserver | None = None
        install(database, self.moment)
        database.preupdate_hook(self._note_row)

    def begin(self, function: str, now_us: int, seed: str, *, read_only: bool = False) -> None:
        """Start the notes of another invocation."""
        self.function = function
        self.read_only = read_only
        self.moment.begin(now_us, seed)
        self.notes = []
        self.row_notes = []
        self.schema_changed = False

    def execute(self, sql: str, parameters: Mapping[str, Cell] | None = None, /, **named: Cell) -> int:
        """Run one statement and return the number of rows it changed."""
        self._run(sql, named if parameters is None else dict(parameters))
        return self.notes[-1][2]

    def rows(self, sql: str, parameters: Mapping[str, Cell] | None = None, /, **named: Cell) -> list[Any]:
        """Run one statement and return all its rows."""
        shape, found = self._run(sql, named if parameters is None else dict(parameters))
        return list(map(shape.row, found)) if shape.row else []

    def row(self, sql: str, parameters: Mapping[str, Cell] | None = None, /, **named: Cell) -> Any:
        """Run one statement and return its first row, or None."""
        shape, found = self._run(sql, named if parameters is None else dict(parameters))
        return shape.row(found[0]) if found and shape.row else None

    def value(self, sql: str, parameters: Mapping[str, Cell] | None = None, /, **named: Cell) -> Any:
        """Run one statement and return the first column of its first row, or None."""
        found = self._run(sql, named if parameters is None else dict(parameters))[1]
        return found[0][0] if found else None

    def _run(self, sql: str, parameters: Mapping[str, Cell]) -> tuple[Shape, list[Any]]:
        shape = self.shapes.known.get(sql) or self._learn(sql)
        if self.read_only and shape.writes:
            raise ReadOnlyTransaction(function=self.function, sql=sql)
        if self.observer is not None:
            self.observer(len(self.notes) + 1, shape, parameters)
        database = self.database
        before = database.total_changes() if shape.writes else 0
        try:
            found = fetch(database, sql, parameters)
        except (apsw.Error, TypeError, KeyError, ValueError, OverflowError) as error:
            self.notes.append((shape, parameters, 0, "!", "!"))
            if isinstance(error, apsw.Error) and not isinstance(error, apsw.BindingsError):
                raise
            raise self._bad(sql, f"its parameters do not fit: {error}") from error
        if shape.row is None:
            self.notes.append((shape, parameters, database.total_changes() - before if shape.writes else 0, None, None))
        else:
            ordered, unordered = digest_rows(found)
            self.notes.append((shape, parameters, len(found), ordered, unordered))
        if shape.schema_change:
            self.schema_changed = True
            self.shapes.known.clear()
        return shape, found

    def _learn(self, sql: str) -> Shape:
        if not isinstance(sql, str):  # pyright: ignore[reportUnnecessaryIsInstance] - bodies are not type-checked for us
            raise self._bad(repr(sql), "SQL is given as text")
        try:
            return self.shapes.learn(self.database, sql, self.function, len(self.notes) + 1)
        except apsw.BindingsError:
            raise self._bad(sql, "parameters are named (:item) and given by keyword, not by position (?)") from None
        except apsw.SQLError as error:
            raise self._bad(sql, str(error)) from error

    def _bad(self, sql: str, problem: str) -> BadStatement:
        return BadStatement(function=self.function, statement=len(self.notes) + 1, problem=problem, sql=sql)

    def _note_row(self, change: apsw.PreUpdate) -> None:
        table = change.table_name
        if table.startswith("retroact_") or change.database_name != "main":
            return
        verb = change.op
        self.row_notes.append(
            (
                table,
                _VERBS[verb],
                change.rowid,
                change.rowid_new,
                None if verb == "INSERT" else cast("tuple[Cell, ...]", change.old),
                None if verb == "DELETE" else cast("tuple[Cell, ...]", change.new),
            )
        )
