"""The connection that a body is given: it runs SQL, and notes every statement and every row changed.

Live, in replay and in retroaction a body gets this same class, over different databases; what differs is who reads the notes.

This module must not know how a transaction begins or ends, nor where its record goes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import apsw

from retroact.engine.sqlite.ambient import Moment, install
from retroact.engine.sqlite.queries import fetch
from retroact.engine.sqlite.relation import MOST_ROWS, Bulk, RowNote
from retroact.engine.sqlite.residue import left_behind
from retroact.engine.sqlite.shape import Shape, shape_of
from retroact.errors import BadStatement, ReadOnlyTransaction
from retroact.trace.codec import digest_rows
from retroact.trace.failure import describe
from retroact.trace.record import Cell, Failure

#: One statement as it is noted: shape, parameters, count, ordered and unordered digest.
Note = tuple[Shape, Mapping[str, Cell], int, str | None, str | None]

#: Types of parameters that are bound and recorded as they are.
_CELLS = frozenset({int, str, bytes, bool, type(None)})
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

    def adopt(self, shape: Shape) -> Shape:
        """A text that another connection has understood, under its number here."""
        number = self.numbers.get(shape.sql)
        if number is not None:
            return dataclasses.replace(shape, number=number)
        adopted = dataclasses.replace(shape, number=self._next)
        self._next += 1
        self.numbers[shape.sql] = adopted.number
        self.fresh.append(adopted)
        return adopted

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
        #: A virtual table was written.
        self._virtual = False
        #: More rows were changed than are noted one by one.
        self._bulk: Bulk | None = None
        self.observer: StatementObserver | None = None
        #: The error by which SQLite rolled the whole transaction back, if it did.
        self.lost: apsw.Error | None = None
        install(database, self.moment)

    def begin(self, function: str, now_us: int, seed: str, *, read_only: bool = False) -> None:
        """Start the notes of another invocation."""
        self.function = function
        self.read_only = read_only
        self.moment.begin(now_us, seed, self.database.total_changes())
        self.database.set_last_insert_rowid(0)
        self.notes = []
        self.row_notes = []
        self.schema_changed = False
        self.lost = None
        self._virtual = False
        self._bulk = None
        database = self.database
        database.preupdate_hook(self._note_row)

    def finish(self) -> None:
        """The body has ended. Raises apsw.ConstraintError for what would keep the transaction from being committed, and the error
        that has rolled it back if the body went on after that."""
        if self.lost is not None:
            raise self.lost
        if self._virtual:
            self._flush(again=False)
        if self._bulk is not None:
            self._bulk.take(self.row_notes)
            self.row_notes.append(self._bulk.note())
        if self.row_notes and self.database.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
            raise apsw.ConstraintError("FOREIGN KEY constraint failed")

    def end(self) -> None:
        """What is written from here on is not the body's."""
        self.database.preupdate_hook(None)

    def pause(self) -> Callable[[], None]:
        """What is written until the returned function is called is not the body's."""
        self.database.preupdate_hook(None)
        return lambda: self.database.preupdate_hook(self._note_row)

    def describe(self, error: Exception) -> Failure:
        """The failure of the body, with the statement that the database refused if it was that."""
        if not isinstance(error, apsw.Error):
            return describe(error)
        return describe(error, statement=len(self.notes), sqlstate=type(error).__name__)

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
        if not _CELLS.issuperset(map(type, parameters.values())):
            parameters = self._plain(sql, parameters)
        if self.lost is not None:
            raise self.lost
        if self.read_only and shape.writes:
            raise ReadOnlyTransaction(function=self.function, sql=sql)
        if self.observer is not None:
            self.observer(len(self.notes) + 1, shape, parameters)
        database = self.database
        writes = shape.writes
        if writes and (self._virtual or shape.virtual):
            self._flush(again=shape.virtual)
        before = database.total_changes() if writes else 0
        noted = len(self.row_notes)
        sequences = self._sequences() if shape.sequences else None
        try:
            found: list[Any] = database.execute(sql, parameters).fetchall()
        except (apsw.Error, TypeError, KeyError, ValueError, OverflowError) as error:
            unfit = self._bad(sql, f"its parameters do not fit: {error}")
            self._failed(shape, parameters, noted, error, sequences)
            if isinstance(error, apsw.Error) and not isinstance(error, apsw.BindingsError):
                raise
            raise unfit from error
        if sequences is not None:
            self._note_sequences(shape, sequences, noted)
        ordered, unordered = (None, None) if shape.row is None else digest_rows(found)
        count = len(found) if shape.row is not None else database.total_changes() - before if writes else 0
        self.notes.append((shape, parameters, count, ordered, unordered))
        if shape.schema_change:
            self.schema_changed = True
            self.shapes.known.clear()
        return shape, found

    def _failed(
        self, shape: Shape, parameters: Mapping[str, Cell], noted: int, error: Exception, sequences: dict[str, tuple[int, int]] | None
    ) -> None:
        """Note a statement that failed. Rows that it had changed by then have been taken back, unless it is OR FAIL."""
        if not isinstance(error, apsw.Error):
            parameters = {name: _shown(value) for name, value in parameters.items()}
        elif self.database.get_autocommit():
            self.lost = error  # disk full, I/O error: SQLite has rolled back everything
        self.notes.append((shape, parameters, 0, "!", "!"))
        if len(self.row_notes) > noted and self.lost is None:
            # What a full-text index wrote may be of an earlier statement.
            left = None if self._virtual else left_behind(self.database, self.row_notes[noted:])
            self.schema_changed = self.schema_changed or left is None  # then the state after is opened, not reached row by row
            if not left:
                del self.row_notes[noted:]
            elif sequences is not None:
                self._note_sequences(shape, sequences, noted)

    def _plain(self, sql: str, parameters: Mapping[str, Any]) -> dict[str, Cell]:
        """Parameters as SQLite takes them: subclasses as what they are made from, no NaN (which is null)."""
        plain: dict[str, Cell] = {}
        for name, value in parameters.items():
            match value:
                case None | bool():
                    plain[name] = value
                case int():
                    plain[name] = int.__int__(value)
                case float():
                    plain[name] = None if math.isnan(value) else float.__float__(value)
                case str():
                    plain[name] = str.__str__(value)
                case bytes() | bytearray() | memoryview():
                    plain[name] = bytes(cast("bytes", value))
                case _:
                    kind = type(cast("object", value)).__name__
                    raise self._bad(sql, f"its parameters do not fit: {name} is a {kind}; give a number, text, bytes or None")
        return plain

    def _flush(self, *, again: bool) -> None:
        """Have full-text indexes write their own tables: they do when a savepoint comes, else only when nobody notes rows any more.
        `again`: the next statement writes to one, so this can wait."""
        if not again:
            self.database.execute("savepoint written")
            self.database.execute("release written")
        self._virtual = again

    def _sequences(self) -> dict[str, tuple[int, int]]:
        """Where AUTOINCREMENT stands: table -> rowid in sqlite_sequence, number."""
        return {name: (rowid, number) for name, rowid, number in fetch(self.database, "select name, rowid, seq from sqlite_sequence")}

    def _note_sequences(self, shape: Shape, before: dict[str, tuple[int, int]], noted: int) -> None:
        """A row that was numbered and then ignored or merged uses up a number, and nothing but sqlite_sequence shows it."""
        after = self._sequences()
        for table in shape.sequences:
            if table in after:
                rowid, number = after[table]
                inserted = [note[3] for note in self.row_notes[noted:] if note[0] == table and note[1] == "i"]
                shown = max(before[table][1] if table in before else 0, 0, *inserted)
                if table not in before and not inserted:
                    self.row_notes.append(("sqlite_sequence", "i", rowid, rowid, None, (table, number)))
                elif number != shown:
                    self.row_notes.append(("sqlite_sequence", "u", rowid, rowid, (table, shown), (table, number)))
            elif any(note[0] == table and note[1] == "i" for note in self.row_notes[noted:]):
                self.schema_changed = True  # rows that were numbered by a statement that failed before it noted how far it got

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
        if change.database_name != "main":
            return
        verb = change.op
        try:
            before = None if verb == "INSERT" else cast("tuple[Cell, ...]", change.old)
            after = None if verb == "DELETE" else cast("tuple[Cell, ...]", change.new)
        except (apsw.RangeError, UnicodeDecodeError):
            # A table with VIRTUAL generated columns, whose rows SQLite does not show here, or TEXT that is no text (made by joining
            # blobs), which no parameter could bring back. The state after is opened, not rebuilt.
            self.schema_changed = True
            return
        self.row_notes.append((change.table_name, _VERBS[verb], change.rowid, change.rowid_new, before, after))
        if len(self.row_notes) > MOST_ROWS:
            self._bulk = self._bulk or Bulk()
            self._bulk.take(self.row_notes)
            self.schema_changed = True  # the state after is opened, not rebuilt


def _shown(value: Cell) -> Cell:
    """A parameter that could not be bound, such that it can be recorded."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return repr(value) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value
