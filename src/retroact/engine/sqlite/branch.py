"""A past state to run upon: recorded changes are applied to it, bodies are tried on it, invariants checked; the database never knows.

A branch is in no transaction between calls. A trial leaves one open until it is kept or undone.

This module must not know why a body is run again, nor what its results are compared with.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Iterable, Mapping
from typing import Any

import apsw

from retroact.engine.attempt import execute, transaction_scope
from retroact.engine.contract import Entangled, Invocation, Key, SchemaMoved, Trial, Watcher
from retroact.engine.footprint import Footprint, Reach
from retroact.engine.guard import guard
from retroact.engine.sqlite.connection import Shapes, SqliteConnection, StatementObserver
from retroact.engine.sqlite.facts import Facts, Schemas, TableFacts
from retroact.engine.sqlite.footprint import Footprints
from retroact.engine.sqlite.lag import SEQUENCES, Due, Lag, Waiting
from retroact.engine.sqlite.nest import Nest
from retroact.engine.sqlite.queries import fetch
from retroact.engine.sqlite.reads import RowReads, key_columns
from retroact.engine.sqlite.relation import Relation, Relations, RowNote, decode_changes, encode_changes
from retroact.engine.sqlite.shape import Shape
from retroact.engine.sqlite.watched import WatchedConnection
from retroact.errors import BadStatement, BeyondHistory, ReadOnlyTransaction
from retroact.function.given import given
from retroact.trace.record import Cell, Change, Record, Statement, Verb, Version


class Branch:
    """A writable past state. For use by one thread at a time."""

    def __init__(self, database: apsw.Connection, version: Version, schemas: Schemas | None = None) -> None:
        self.version = version
        self._database = database
        database.pragma("foreign_keys", True)
        database.pragma("recursive_triggers", False)
        self._relations = Relations([])
        self._watched: WatchedConnection | None = None
        self._keys: dict[str, tuple[str, ...] | None] = {}
        self._facts = schemas.of(database) if schemas is not None else Facts()
        self._footprints = Footprints(database)
        #: Recorded changes that nothing has needed yet, and what the trial under way has taken from them.
        self._lag: Lag | None = None
        self._taken: list[Due] = []
        #: How a row of each table is read, and its columns.
        self._row_reads: dict[str, tuple[str, list[str]]] = {}
        #: The statements by which each invariant was answered last.
        self._asked: dict[str, tuple[Statement, ...]] = {}
        #: Why tables cannot be asked, by name; and the refusal that was met last.
        self._refusals: Mapping[str, BeyondHistory] = {}
        self._refused: BeyondHistory | None = None
        guard.install()
        given.install()

    @functools.cached_property
    def _connection(self) -> SqliteConnection:
        return SqliteConnection(self._database, Shapes({}))

    # --- bodies ------------------------------------------------------------------------------------------------------------

    def attempt(
        self,
        invocation: Invocation,
        now_us: int,
        seed: str,
        observer: StatementObserver | None = None,
        watcher: Watcher | None = None,
    ) -> Trial:
        """Run the body of a transaction in its own moment. Its effects stay until `keep` or `undo`; those of a body that raised
        are undone already. `observer` is shown each statement before it is executed, `watcher` also what came of it."""
        database, connection = self._database, self._connection
        if watcher is not None:
            self.settle()  # who looks on may ask for anything
        supplied = connection if watcher is None else self._watched_by(watcher)
        database.execute("begin")
        connection.begin(invocation.function.name, now_us, seed, read_only=invocation.function.options.read_only)
        connection.observer = self._before_each(observer)
        try:
            executed = execute(invocation, supplied, transaction_scope(invocation, supplied), connection.describe)
        except BaseException:
            self.undo()
            raise
        finally:
            connection.observer = None
            self._watched = None
        if self._refused is not None:
            self.undo()
            raise self._refused
        statements = tuple(_statement(note) for note in connection.notes)
        changes: tuple[Change, ...] = ()
        if executed.error is not None:
            self._rollback()
        else:
            changes = self._changes()
        if connection.schema_changed:
            self._forget()
        if executed.error is not None:
            self._catch_up_again()
            database.execute("begin")
        return Trial(outcome=executed.outcome, error=executed.error, statements=statements, changes=changes)

    def refuse(self, tables: Mapping[str, BeyondHistory]) -> None:
        """Let nobody read or write these tables, whose rows here are not what they were."""
        self._refusals = tables
        self._database.authorizer = self._authorize

    def _authorize(self, _action: int, table: str | None, *_: str | None) -> int:
        refusal = self._refusals.get(table or "")
        if refusal is None:
            return apsw.SQLITE_OK
        self._refused = refusal
        return apsw.SQLITE_DENY

    def keep(self) -> None:
        """Let the effects of the last trial stand."""
        self._database.execute("commit")
        self._taken.clear()

    def undo(self) -> None:
        """Take the effects of the last trial back."""
        self._rollback()
        if self._connection.schema_changed:
            self._forget()
        self._catch_up_again()

    def retrace(self, record: Record) -> tuple[Change, ...] | None:
        """Run the recorded statements in their moment, without the body. What they changed if all was as recorded; it stands until
        `keep` or `undo`. None when something differs, or a failed statement does not let it be told; then nothing stands."""
        connection = self._connection
        failed = next((n for n, s in enumerate(record.statements, start=1) if s.ordered == "!"), None)
        if failed is not None and (record.outcome.failure is None or record.outcome.failure.statement != failed):
            return None
        self._database.execute("begin")
        seed = f"{record.run}/{record.step}/{record.function}"
        connection.begin(record.function, record.began_us, seed)
        connection.observer = self._before_each(None)
        changes: tuple[Change, ...] | None = None
        try:
            if all(self._same_again(statement, record) for statement in record.statements):
                if record.outcome.committed:
                    connection.finish()
                changes = self._changes() if record.outcome.committed else ()
        except apsw.Error:
            changes = None
        finally:
            connection.observer = None
            connection.end()
        if self._refused is not None:
            self.undo()
            raise self._refused
        if changes is None or changes != record.changes:
            self.undo()
            return None
        if not record.outcome.committed:
            self.undo()
            self._database.execute("begin")
        elif connection.schema_changed:
            self._forget()
        return changes

    def _same_again(self, then: Statement, record: Record) -> bool:
        connection = self._connection
        error: Exception | None = None
        try:
            connection.execute(then.sql, then.parameters)
        except (apsw.Error, BadStatement, ReadOnlyTransaction) as problem:
            error = problem
        if not connection.notes:
            return False
        now = _statement(connection.notes[-1])
        if (now.sql, now.count, now.ordered, now.unordered) != (then.sql, then.count, then.ordered, then.unordered):
            return False
        failure = record.outcome.failure
        return error is None or (failure is not None and failure.sqlstate == type(error).__name__ and failure.message == str(error))

    def holds(self, invariant: Invocation) -> tuple[bool, str | None]:
        """Whether an invariant holds here, and what it raised if it did."""
        if self._lag:
            for statement in self._asked.get(invariant.function.name, ()):
                self._settle(statement.sql, statement.parameters)
        trial = self.attempt(invariant, 0, "")
        self.undo()
        self._asked[invariant.function.name] = trial.statements
        if trial.error is not None:
            return False, f"{type(trial.error).__name__}: {trial.error}"
        return trial.outcome.value == "true", None

    def asked(self, invariant: str) -> tuple[Statement, ...]:
        """The statements by which an invariant was answered last."""
        return self._asked.get(invariant, ())

    def nest(self) -> Nest:
        """Try transactions upon one another here, until the nest is closed."""
        self.settle()
        return Nest(self._database, self._connection, self._relations, self.sound)

    @contextlib.contextmanager
    def sound(self) -> Generator[None]:
        """Raises BeyondHistory at its end when a table was asked that is forgotten, whatever the body made of that."""
        try:
            yield
        finally:
            refused, self._refused = self._refused, None
            if refused is not None:
                raise refused

    @contextlib.contextmanager
    def watching(self, nest: Nest, watcher: Watcher) -> Generator[None]:
        """While this lasts, `watcher` is shown the statements of what is pushed on a nest of this branch."""
        self._keys.clear()  # what was taken back may have had another schema
        nest.supplied = self._watched_by(watcher)
        try:
            yield
        finally:
            nest.supplied = self._watched = None

    # --- recorded changes --------------------------------------------------------------------------------------------------

    def defer(self, stored: str, relations: Mapping[int, Relation]) -> None:
        """Recorded changes of rows, as the trace keeps them, which are applied when something is about to touch these rows."""
        if self._lag is None:
            self._lag = Lag(relations, self._merges, self._group)
        self._lag.add(stored)

    def settle(self) -> None:
        """Apply all that was deferred."""
        if self._lag:
            self._give(self._lag.take_all())

    def footprint(self, sql: str) -> Footprint:
        """What a text can touch here."""
        return self._footprints.of(sql)

    def advance(self, record: Record) -> None:
        """Apply what a record changed, row by row, as it was then: no trigger fires, no rule is checked. Raises SchemaMoved when
        it changed more than rows, or what it changed has been forgotten in part: what follows may be whole again elsewhere."""
        if any(change.verb is Verb.DROPPED for change in record.changes):
            raise SchemaMoved(record.version)
        self.advance_by([record])

    def advance_by(self, records: Iterable[Record]) -> None:
        """The same for several, in commit order, where whoever opened the branch sees to it that what is forgotten is not asked for.
        Raises SchemaMoved; the branch is then where it was."""
        changes: list[Change] = []
        version = self.version
        for record in records:
            if any(change.verb is Verb.SCHEMA for change in record.changes):
                raise SchemaMoved(record.version)
            changes += (change for change in record.changes if change.verb is not Verb.DROPPED)
            version = record.version
        if changes:
            self._rules(enabled=False)
            self._database.authorizer = None
            self._database.execute("begin")
            try:
                for change in changes:
                    self._apply(change)
            except BaseException:
                self._database.execute("rollback")
                raise
            finally:
                self._rules(enabled=True)
                self._database.authorizer = self._authorize if self._refusals else None
            self._database.execute("commit")
        self.version = version

    def _apply(self, change: Change) -> None:
        table = self._table(change.table)
        where, key = self._address(table, change)
        name = _quoted(change.table)
        after = {c: v for c, v in (change.after or {}).items() if c in table.columns}
        if change.verb is Verb.DELETE:
            self._database.execute(f"delete from {name} where {where}", key)  # noqa: S608 - names are quoted
        elif change.verb is Verb.INSERT:
            if table.rowid is not None:
                after = {table.rowid: change.rowid_after, **after}
            columns = ", ".join(_name(c, table) for c in after)
            marks = ", ".join("?" * len(after))
            self._database.execute(f"insert into {name} ({columns}) values ({marks})", tuple(after.values()))  # noqa: S608
        else:
            if table.rowid is not None and change.rowid_after != change.rowid:
                after = {table.rowid: change.rowid_after, **after}
            if after:
                sets = ", ".join(f"{_name(c, table)} = ?" for c in after)
                self._database.execute(f"update {name} set {sets} where {where}", (*after.values(), *key))  # noqa: S608

    def _address(self, table: TableFacts, change: Change) -> tuple[str, tuple[Cell, ...]]:
        if table.rowid is not None:
            return f"{table.rowid} = ?", (change.rowid,)
        before: Mapping[str, Cell] = change.before or {}
        return " and ".join(f"{_quoted(c)} is ?" for c in table.key), tuple(before.get(c) for c in table.key)

    def _table(self, name: str) -> TableFacts:
        table = self._facts.tables.get(name)
        if table is None:
            rows = fetch(self._database, "select name, type, pk, hidden from pragma_table_xinfo(?)", (name,))
            without = self._database.execute("select wr from pragma_table_list where schema = 'main' and name = ?", (name,)).get
            key = tuple(n for n, _, pk, _ in sorted(rows, key=lambda r: r[2]) if pk)
            # A primary key that needs no index of its own is another name of the rowid.
            indexed = self._database.execute("select 1 from pragma_index_list(?) where origin = 'pk'", (name,)).get
            alias = key[0] if len(key) == 1 and not without and not indexed else None
            columns = tuple(n for n, _, _, hidden in rows if hidden == 0 and n != alias)
            taken = {n.lower() for n, _, _, _ in rows}
            rowid = None if without else next(r for r in ("rowid", "_rowid_", "oid") if r not in taken)
            unique = self._database.execute('select 1 from pragma_index_list(?) where "unique"', (name,)).get
            counted = "select 1 from sqlite_schema where name = ? and sql like '%autoincrement%'"
            numbered = name == SEQUENCES or bool(self._database.execute(counted, (name,)).get)
            table = self._facts.tables[name] = TableFacts(columns, key, rowid, not (without or unique or numbered), numbered)
        return table

    def _rules(self, *, enabled: bool) -> None:
        """Switch triggers and foreign keys, if there are any: switching makes SQLite forget its prepared statements."""
        if self._facts.has_rules is None:
            rules = "select 1 from sqlite_schema where type = 'trigger' or sql like '%references%' limit 1"
            self._facts.has_rules = self._database.execute(rules).get is not None
        if self._facts.has_rules:
            self._database.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, int(enabled))
            self._database.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, int(enabled))

    # --- deferred changes --------------------------------------------------------------------------------------------------

    def _merges(self, table: str) -> bool:
        return self._table(table).independent

    def _group(self, table: str) -> str:
        return SEQUENCES if table == SEQUENCES or self._table(table).numbered else table

    def _before_each(self, observer: StatementObserver | None) -> StatementObserver | None:
        """Before a statement touches rows, they are given what was deferred."""
        if not self._lag:
            return observer

        def before(number: int, shape: Shape, parameters: Mapping[str, Cell]) -> None:
            if self._lag:
                self._settle(shape.sql, parameters)
            if observer is not None:
                observer(number, shape, parameters)

        return before

    def _settle(self, sql: str, parameters: Mapping[str, Cell]) -> None:
        """Apply what a statement is about to touch."""
        lag = self._lag
        assert lag is not None, "asked only when something may wait"
        footprint = self._footprints.of(sql)
        if footprint.opaque:
            self._give(lag.take_all())
            return
        taken: list[Due] = []
        for access in footprint.accesses:
            values = access.values(parameters) if access.reach is Reach.ROW else None
            due = lag.take_table(access.table) if values is None else lag.take_row(access.table, values[0])
            if due is not None:
                taken.append(due)
        if taken:
            self._give(taken)

    def _give(self, dues: list[Due]) -> None:
        """Apply what waited, in the transaction of a trial if there is one. It is not the trial's own. Raises Entangled."""
        database = self._database
        if database.get_autocommit():
            self._rules(enabled=False)
            database.execute("begin")
            try:
                self._write(dues)
            except BaseException:
                database.execute("rollback")
                raise
            finally:
                self._rules(enabled=True)
            database.execute("commit")
            return
        go_on, last = self._connection.pause(), database.last_insert_rowid()
        self._rules(enabled=False)
        try:
            self._write(dues)
        finally:
            self._rules(enabled=True)
            database.set_last_insert_rowid(last)
            go_on()
        self._taken += dues

    def _write(self, dues: list[Due]) -> None:
        if self._refusals:
            self._database.authorizer = None
        try:
            for due in dues:
                self._write_rows(due)
                for change in due.changes:
                    self._apply(change)
        except apsw.ConstraintError as error:
            raise Entangled(str(error)) from error
        finally:
            if self._refusals:
                self._database.authorizer = self._authorize

    def _catch_up_again(self) -> None:
        """A trial was taken back, and with it what had been applied in its transaction."""
        if self._taken:
            taken, self._taken = self._taken, []
            self._give(taken)

    def _write_rows(self, due: Due) -> None:
        """Write merged rows, all of one form at once."""
        if not due.rows:
            return
        table = self._table(due.table)
        assert table.rowid is not None, "only rows with rowids are merged"
        forms: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
        assert self._lag is not None, "what is due was taken from it"
        for rowid, row in due.rows.items():
            form, values = _form(self._lag.waiting(row), table)
            forms.setdefault(form, []).append((*values, rowid))
        name = _quoted(due.table)
        for (whole, *columns), rows in forms.items():
            if whole is None:
                sql = f"delete from {name} where {table.rowid} = ?"  # noqa: S608 - names are quoted, here and below
            elif whole:
                listed = ", ".join([*(_quoted(c) for c in columns), table.rowid])
                sql = f"insert or replace into {name} ({listed}) values ({', '.join('?' * (len(columns) + 1))})"  # noqa: S608
            elif columns:
                sql = f"update {name} set {', '.join(f'{_quoted(c)} = ?' for c in columns)} where {table.rowid} = ?"  # noqa: S608
            else:
                continue
            self._database.executemany(sql, rows)

    # --- reading -----------------------------------------------------------------------------------------------------------

    def query(self, sql: str, parameters: Mapping[str, Cell] | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Read the state: column names and rows. Raises BadStatement."""
        columns: list[str] = []

        def look(cursor: apsw.Cursor, _sql: str, _parameters: Any) -> bool:
            if cursor.has_vdbe:  # a remark behind the statement has nothing to run
                columns[:] = [column[0] for column in cursor.get_description()]
            return True

        return columns, self._fetched(sql, parameters, look)

    def _fetched(self, sql: str, parameters: Mapping[str, Cell] | None, look: apsw.ExecTracer | None = None) -> list[tuple[Any, ...]]:
        """Rows of the state with what was deferred of them. Raises BadStatement, BeyondHistory."""
        if self._lag:
            self._settle(sql, parameters or {})
        cursor = self._database.cursor()
        cursor.exec_trace = look
        try:
            rows: list[Any] = cursor.execute(sql, parameters).fetchall()
            return rows
        except apsw.AuthError:
            if self._refused is not None:
                raise self._refused from None
            raise
        except apsw.SQLError as error:
            raise BadStatement(function="asof", statement=1, problem=error, sql=sql) from None

    @contextlib.contextmanager
    def aside(self) -> Generator[None]:
        """While this lasts, what the connection of a watched trial is asked is not the body's."""
        with self._watched.aside() if self._watched is not None else contextlib.nullcontext():
            yield

    def look(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Read the state, also while a watched trial is under way: nothing is noted, nothing can be changed. Raises BadStatement."""
        if self._watched is None:
            self.settle()
        with self.aside():
            self._database.pragma("query_only", True)
            try:
                return self.query(sql)
            except apsw.Error as error:
                problem = "this only reads" if isinstance(error, apsw.ReadOnlyError) else error
                raise BadStatement(function="the prompt", statement=1, problem=problem, sql=sql) from None
            finally:
                self._database.pragma("query_only", False)

    def touch(self, sql: str) -> int:
        """Change the state under the body of a watched trial; returns how many rows were changed. Raises BadStatement."""
        if self._watched is None:
            raise BadStatement(function="the prompt", statement=1, problem="no transaction is under way that could be changed", sql=sql)
        with self._watched.aside(writing=True):
            try:
                return self._watched.execute(sql)
            except apsw.Error as error:
                raise BadStatement(function="the prompt", statement=1, problem=error, sql=sql) from None

    def row(self, table: str, key: Key) -> dict[str, Any] | None:
        """One row by its key, None when there is none."""
        if not self._database.table_exists("main", table):
            return None
        parameters = {f"k{i}": part for i, part in enumerate(key)}
        known = self._row_reads.get(table)
        if known is None:
            rowid = self._table(table).rowid or "rowid"
            where = " and ".join(f"{_quoted(c)} is :k{i}" for i, c in enumerate(self.key_columns(table))) or f"{rowid} = :k0"
            sql = f"select * from {_quoted(table)} where {where}"  # noqa: S608 - names are quoted
            columns, rows = self.query(sql, parameters)
            self._row_reads[table] = sql, columns
        else:
            sql, columns = known
            rows = self._fetched(sql, parameters)
        return dict(zip(columns, rows[0], strict=True)) if rows else None

    def key_columns(self, table: str) -> tuple[str, ...]:
        """The columns that a row of a table is told by; none where it is told by its rowid."""
        return self._key(table) or ()

    def close(self) -> None:
        """Let the branch go."""
        self._database.close()

    # --- how ---------------------------------------------------------------------------------------------------------------

    def _watched_by(self, watcher: Watcher) -> WatchedConnection:
        reads = RowReads(self._database, self._key)
        self._watched = WatchedConnection(self._connection, watcher, reads.of, self._changes_of)
        return self._watched

    def _key(self, table: str) -> tuple[str, ...] | None:
        if table not in self._keys:
            self._keys[table] = key_columns(self._database, table)
        return self._keys[table]

    def _changes_of(self, notes: list[RowNote]) -> tuple[Change, ...]:
        if self._connection.schema_changed:
            self._keys.clear()
            self._relations.forget()
        return decode_changes(self._relations.by_number, encode_changes(self._database, self._relations, notes))

    def _changes(self) -> tuple[Change, ...]:
        if self._connection.schema_changed:
            self._relations.forget()
        encoded = encode_changes(self._database, self._relations, self._connection.row_notes, schema=self._connection.schema_changed)
        return decode_changes(self._relations.by_number, encoded)

    def _rollback(self) -> None:
        if not self._database.get_autocommit():
            self._database.execute("rollback")

    def _forget(self) -> None:
        self._facts = Facts()
        self._keys.clear()
        self._relations.forget()
        self._footprints.forget()
        self._row_reads.clear()
        if self._lag is not None:
            self._lag.forget()
        self._connection.shapes.known.clear()


def _statement(note: Any) -> Statement:
    shape, parameters, count, ordered, unordered = note
    return Statement(sql=shape.sql, parameters=dict(parameters), count=count, ordered=ordered, unordered=unordered)


def _form(waiting: Waiting, table: TableFacts) -> tuple[tuple[Any, ...], tuple[Cell, ...]]:
    """What is to be done to a row (None: delete it, else whether to write all of it, and the columns), and the values."""
    if waiting.gone:
        return (None,), ()
    values = {column: value for column, value in waiting.values().items() if column in table.columns}
    return (waiting.whole, *values), tuple(values.values())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _name(column: str, table: TableFacts) -> str:
    return column if column == table.rowid else _quoted(column)
