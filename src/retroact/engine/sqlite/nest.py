"""Transactions tried one upon the other on a branch, and taken back in reverse: a savepoint for each.

So the state after many different beginnings is reached without a copy: schedules that begin alike share what they share. Nothing of it
is ever committed.

This module must not know which transactions are tried, nor in which order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import apsw

from retroact.engine.access import Access
from retroact.engine.attempt import execute, transaction_scope
from retroact.engine.contract import Invocation, Pushed
from retroact.engine.sqlite.connection import SqliteConnection
from retroact.engine.sqlite.reading import Reader
from retroact.engine.sqlite.relation import Relations, decode_changes, encode_changes
from retroact.trace.codec import digest_rows
from retroact.trace.record import Change

Sound = Callable[[], contextlib.AbstractContextManager[None]]


class Nest:
    """A branch on which transactions are pushed and popped. While it is open, the branch itself is not to be used."""

    def __init__(self, database: apsw.Connection, connection: SqliteConnection, relations: Relations, sound: Sound) -> None:
        """`sound` raises, when it is left, what tells that an answer rests on rows or pages that are not there."""
        self._database = database
        self._sound = sound
        self._connection = connection
        #: What bodies are given instead of the connection, while somebody looks on.
        self.supplied: Any = None
        self._relations = relations
        self._reader = Reader(database)
        #: Whether each transaction on the pile changed the schema.
        self._pile: list[bool] = []
        database.execute("begin")

    @property
    def depth(self) -> int:
        """How many transactions are on the pile."""
        return len(self._pile)

    def push(self, invocation: Invocation, now_us: int, seed: str, *, look: bool = True) -> Pushed:
        """Execute a transaction upon those that are there. One that raised leaves no effect, and its place on the pile. `look`: what
        it read, wrote and changed is wanted, not only its outcome."""
        connection = self._connection
        self._database.execute("savepoint retroact_nest")
        connection.begin(invocation.function.name, now_us, seed, read_only=invocation.function.options.read_only)
        try:
            supplied = self.supplied or connection
            with self._sound():
                executed = execute(invocation, supplied, transaction_scope(invocation, supplied), connection.describe)
        except BaseException:
            self._take_back()
            raise
        schema = connection.schema_changed
        access = self._reader.access(connection.notes, connection.row_notes, schema_changed=schema) if look else Access()
        changes: tuple[Change, ...] = ()
        if executed.error is not None:
            self._database.execute("rollback to retroact_nest")
            access = Access(access.reads, frozenset(), access.ordered)
        elif look and (connection.row_notes or schema):
            changes = self._changes(schema=schema)
        if schema:
            self._forget()
        self._pile.append(schema)
        return Pushed(outcome=executed.outcome, error=executed.error, access=access, changes=changes)

    def pop(self, depth: int) -> None:
        """Take transactions back until so many are left."""
        while len(self._pile) > depth:
            self._take_back()
            if self._pile.pop():
                self._forget()

    def holds(self, invariant: Invocation) -> tuple[bool, str | None, Access]:
        """Whether an invariant holds here, what it raised if it did, and what it read."""
        pushed = self.push(invariant, 0, "")
        self.pop(self.depth - 1)
        if pushed.error is not None:
            return False, f"{type(pushed.error).__name__}: {pushed.error}", pushed.access
        return pushed.outcome.value == "true", None, pushed.access

    def tables(self) -> list[str]:
        """The application's tables, as they are now."""
        return self._reader.tables()

    def content(self, table: str) -> str:
        """A digest of a table's rows, in whatever order; numbers of rows count only where a column shows them."""
        quoted = '"' + table.replace('"', '""') + '"'
        with self._sound():
            rows: list[Any] = self._database.execute(f"select * from {quoted}").fetchall()  # noqa: S608 - the name is quoted
        return digest_rows(rows)[1]

    def close(self) -> None:
        """Take everything back: the branch is as it was."""
        self.pop(0)
        self._database.execute("rollback")

    def _changes(self, *, schema: bool) -> tuple[Change, ...]:
        if schema:
            self._relations.forget()
        return decode_changes(
            self._relations.by_number, encode_changes(self._database, self._relations, self._connection.row_notes, schema=schema) or ""
        )

    def _take_back(self) -> None:
        self._database.execute("rollback to retroact_nest")
        self._database.execute("release retroact_nest")

    def _forget(self) -> None:
        self._reader.forget()
        self._relations.forget()
        self._connection.shapes.known.clear()
