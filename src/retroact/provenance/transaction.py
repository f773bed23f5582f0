"""One transaction, looked at whole: its statements with their results, its rows before and after, who wrote what it read, who read
what it wrote.

Results and rows are not in the record: they are found by executing the body again at the state that it saw. When it then does
something else than its record says, the view says so.

This module must not know how recorded code is loaded: it is told by a function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from retroact.engine.contract import Branch, History, Invocation, SchemaMoved, Watched
from retroact.errors import LoadFailed, SourceMissing
from retroact.function.declare import Function
from retroact.provenance.writers import KeyColumns, Row, last_writers, mentions, row_after, row_before
from retroact.trace.record import Cell, Record, Version

FunctionOf = Callable[[Record], Function[..., Any]]
#: No more later records than this are looked at for readers.
MOST_RECORDS = 5000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowChanged:
    """What became of one row."""

    row: Row
    #: The whole row; None when there was, or is, none.
    before: Mapping[str, Cell] | None
    after: Mapping[str, Cell] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A row that the transaction read, and who had written it."""

    row: Row
    #: The statements that read it, from 1.
    statements: tuple[int, ...]
    #: None: the trace does not have it, so it is older; or `itself`.
    writer: Record | None
    itself: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A later transaction that read what this one wrote."""

    record: Record
    #: The rows that it read as this one had left them.
    rows: tuple[Row, ...]
    #: Tables with such rows, of which only this is known: that it reads them.
    tables: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TransactionView:
    """One transaction, looked at whole."""

    record: Record
    #: Executed again: parameters, results, the rows that each changed. Empty when it cannot be executed again.
    statements: tuple[Watched, ...]
    rows: tuple[RowChanged, ...]
    read: tuple[Written, ...]
    #: Tables that it reads in a way that cannot be taken apart into rows.
    tables_read: tuple[str, ...]
    readers: tuple[Reader, ...]
    #: What keeps the view from being exact, in sentences.
    notes: tuple[str, ...]


class Looker:
    """Notes the statements of a body that is run again."""

    def __init__(self) -> None:
        self.touched = False
        self.statements: list[Watched] = []

    def asks(self) -> bool:
        """It asks nothing."""
        return False

    def before(self, statement: Watched, /) -> None:
        """Nothing is stopped."""

    def after(self, statement: Watched, /) -> None:
        """A statement has been executed."""
        self.statements.append(statement)


def look_at(history: History, record: Record, function_of: FunctionOf, *, most: int = MOST_RECORDS) -> TransactionView:
    """Look at one transaction. Raises BeyondHistory, DamagedPage, UnknownVersion."""
    notes: list[str] = []
    branch = history.at(record.snapshot)
    try:
        key_columns = branch.key_columns
        looker = _executed(branch, record, function_of, notes)
        statements = tuple(looker.statements) if looker is not None else ()
        if looker is not None:
            branch.undo()
        rows = _rows(branch, record, history, key_columns)
        read = rows_read(history, record, statements, key_columns)
    finally:
        branch.close()
    readers = Readers(history, record, function_of, notes).found(most)
    return TransactionView(
        record=record,
        statements=statements,
        rows=rows,
        read=read,
        tables_read=tuple(sorted({table for statement in statements for table in statement.reads.tables})),
        readers=readers,
        notes=tuple(notes),
    )


def _executed(branch: Branch, record: Record, function_of: FunctionOf, notes: list[str]) -> Looker | None:
    """Execute a transaction again; its effects are on the branch, in an open transaction."""
    try:
        function = function_of(record)
    except (SourceMissing, LoadFailed) as error:
        notes.append(f"It cannot be executed again, so its results are not known: {error}")
        return None
    looker = Looker()
    invocation = Invocation(run=record.run, step=record.step, function=function, arguments=record.arguments.encode())
    trial = branch.attempt(invocation, record.began_us, invocation.seed, watcher=looker)
    now, then = trial.statements, record.statements
    if now != then:
        number = next((i for i, (a, b) in enumerate(zip(now, then, strict=False), start=1) if a != b), min(len(now), len(then)) + 1)
        notes.append(
            f"Executed again it does not do what its record says, from statement {number} on: what is shown is what it does now. "
            f"`retroact replay {record.run}` tells where they part."
        )
    elif trial.changes != record.changes:
        notes.append(f"Executed again it changes other rows than its record says: `retroact replay {record.run}` tells which.")
    return looker


def _rows(branch: Branch, record: Record, history: History, key_columns: KeyColumns) -> tuple[RowChanged, ...]:
    """Every row that the record changed, once: whole, before the transaction and after it."""
    rows = dict.fromkeys(row for c in record.changes for row in (row_before(c, key_columns), row_after(c, key_columns)) if row)
    if not rows:
        return ()
    before = {row: branch.row(*row) for row in rows}
    later = history.at(record.version)
    try:
        after = {row: later.row(*row) for row in rows}
    finally:
        later.close()
    return tuple(RowChanged(row=row, before=before[row], after=after[row]) for row in rows if before[row] != after[row])


def rows_read(history: History, record: Record, statements: Sequence[Watched], key_columns: KeyColumns) -> tuple[Written, ...]:
    """The rows that were read, with who had written them. What it read of its own writing is told apart."""
    found = readings(statements, key_columns)
    others = [row for row, itself in found if not itself]
    writers = last_writers(history.trace, others, record.snapshot, key_columns)
    return tuple(
        Written(row=row, statements=tuple(numbers), writer=record if itself else writers[row], itself=itself)
        for (row, itself), numbers in found.items()
    )


def readings(statements: Sequence[Watched], key_columns: KeyColumns) -> dict[tuple[Row, bool], list[int]]:
    """The rows that were read, and whether as the transaction itself had written them, with the statements that read them."""
    found: dict[tuple[Row, bool], list[int]] = {}
    mine: set[Row | None] = set()
    for statement in statements:
        for row in statement.reads.rows:
            numbers = found.setdefault((row, row in mine), [])
            if statement.number not in numbers:
                numbers.append(statement.number)
        mine |= {row_after(change, key_columns) for change in statement.changes}
    return found


class Readers:
    """Finds who has read what a transaction wrote, until somebody wrote it anew."""

    def __init__(self, history: History, record: Record, function_of: FunctionOf, notes: list[str]) -> None:
        self._history = history
        self._record = record
        self._function_of = function_of
        self._notes = notes
        #: The rows as this transaction left them, with the version that changed them next.
        self._overwritten: dict[Row, Version | None] = {}
        self._names: set[str] = set()

    def found(self, most: int) -> tuple[Reader, ...]:
        """The readers, in commit order."""
        record, trace = self._record, self._history.trace
        if not record.changes:
            return ()
        last = trace.last_version()
        until = min(last, record.version + most)
        branch = self._history.at(record.version)
        readers: list[Reader] = []
        try:
            left = (row_after(change, branch.key_columns) for change in record.changes)
            self._overwritten = {row: None for row in left if row is not None and branch.row(*row) is not None}
            self._names = _names(branch, {table for table, _ in self._overwritten})
            for later in trace.records_between(record.version, until):
                if self._settled(later):
                    return tuple(readers)
                reader = self._reading(later, branch)
                if reader is not None:
                    readers.append(reader)
                self._note_overwritten(later, branch.key_columns)
                branch = self._moved(branch, later)
        finally:
            branch.close()
        if until < last:
            self._notes.append(f"Readers were looked for up to version {until:,} of {last:,}.")
        return tuple(readers)

    def _settled(self, later: Record) -> bool:
        """Whether neither this record nor any that comes can have seen a row as it was left."""
        return all(version is not None and version <= later.snapshot for version in self._overwritten.values())

    def _reading(self, later: Record, branch: Branch) -> Reader | None:
        live = {row for row, until in self._overwritten.items() if until is None or until > later.snapshot}
        mentioned = any(mentions(statement.sql, name) for statement in later.statements for name in self._names)
        if not live or not mentioned or later.kind != "transaction" or later.snapshot < self._record.version:
            return None
        tables = {table for table, _ in live}
        statements = self._statements(later, branch)
        if statements is None:
            return Reader(
                record=later, rows=(), tables=tuple(sorted(t for t in tables if any(mentions(s.sql, t) for s in later.statements)))
            )
        rows: dict[Row, None] = {}
        whole: set[str] = set()
        mine: set[Row | None] = set()
        for statement in statements:
            rows.update({row: None for row in statement.reads.rows if row in live and row not in mine})
            whole |= tables.intersection(statement.reads.tables)
            mine |= {row_after(change, branch.key_columns) for change in statement.changes}
        whole -= {table for table, _ in rows}
        return Reader(record=later, rows=tuple(rows), tables=tuple(sorted(whole))) if rows or whole else None

    def _statements(self, later: Record, branch: Branch) -> Sequence[Watched] | None:
        """What a later transaction did, executed again at the state that it saw."""
        own = branch if branch.version == later.snapshot else self._history.at(later.snapshot)
        try:
            looker = _executed(own, later, self._function_of, [])
            if looker is None:
                return None
            own.undo()
            return looker.statements
        finally:
            if own is not branch:
                own.close()

    def _note_overwritten(self, later: Record, key_columns: KeyColumns) -> None:
        for change in later.changes:
            for row in (row_before(change, key_columns), row_after(change, key_columns)):
                if row is not None and row in self._overwritten and self._overwritten[row] is None:
                    self._overwritten[row] = later.version

    def _moved(self, branch: Branch, later: Record) -> Branch:
        """The state after a later record."""
        try:
            branch.advance(later)
        except SchemaMoved:
            branch.close()
            return self._history.at(later.version)
        return branch


def _names(branch: Branch, tables: set[str]) -> set[str]:
    """The tables, and the views and the triggers' tables through which a statement may read them without naming them."""
    found = {table.lower() for table in tables}
    objects = branch.look("select type, name, tbl_name, sql from sqlite_schema where type in ('view', 'trigger') and sql is not null")[1]
    grown = True
    while grown:
        through: Iterable[str] = (
            (name if kind == "view" else table).lower()
            for kind, name, table, sql in objects
            if any(mentions(sql, known) for known in found)
        )
        more = set(through) - found
        found |= more
        grown = bool(more)
    return found
