"""Which columns are redacted, and the state in which they are: on a branch of the past, by SQL, so that every index fits.

A column that refers to a redacted one, or that one refers to, is redacted with it. Old values leave no trace on the branch (secure_delete),
and what was left on its pages before is taken away when they are exported.

This module must not know records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import apsw

from retroact.engine.sqlite.queries import fetch
from retroact.errors import CannotRedact
from retroact.trace.codec import decode_cell, decode_json, encode_cell, encode_json
from retroact.trace.record import Cell

_RULES = (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, apsw.SQLITE_DBCONFIG_ENABLE_FKEY)
_MARK = b"\xffretroact"


class Column(NamedTuple):
    """A column of a table, as they are written in the schema."""

    table: str
    name: str

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"


def resolve(states: Sequence[apsw.Connection], asked: Sequence[str]) -> list[Column]:
    """The columns meant by TABLE.COLUMN in some states, and those tied to them by foreign keys. Raises CannotRedact."""
    found: dict[Column, None] = {}
    meant: set[str] = set()
    known: list[Column] = []
    for database in states:
        known = _columns(database)
        here = {text: c for text in asked for c in known if text.lower() == str(c).lower()}
        meant |= here.keys()
        for column in _tied(here.values(), _ties(database)):
            _must_be_redactable(database, column)
            found[column] = None
    for text in asked:
        if text not in meant:
            table = text.rpartition(".")[0].lower()
            near = ", ".join(str(c) for c in known if table in ("", c.table.lower()))
            remedy = f"They are named TABLE.COLUMN: {near}." if near else "There is no such table."
            raise CannotRedact(column=text, problem="there is no such column", remedy=remedy)
    return list(found)


def _tied(columns: Iterable[Column], ties: Sequence[tuple[Column, Column]]) -> list[Column]:
    """Columns, and all that refer to one of them or that one of them refers to."""
    found = list(columns)
    for column in found:  # which grows
        for one, other in ties:
            found += [there for here, there in ((one, other), (other, one)) if here == column and there not in found]
    return found


def redact(database: apsw.Connection, columns: Sequence[Column], hide: Callable[[Cell], Cell]) -> None:
    """Replace all values of those of some columns that are there. Raises CannotRedact."""
    present = set(_columns(database))
    columns = [column for column in columns if column in present]
    database.pragma("secure_delete", True)
    database.pragma("ignore_check_constraints", True)
    for rule in _RULES:
        database.config(rule, 0)
    functions: dict[str, Callable[..., Cell]] = {
        "retroact_hide": hide,
        "retroact_mark": lambda *given: _marked(hide(*given)),
        "retroact_unmark": _unmarked,
    }
    for name, function in functions.items():
        database.create_scalar_function(name, function, 1)
    for table in dict.fromkeys(column.table for column in columns):
        names = [column.name for column in columns if column.table == table]
        database.execute("begin")
        try:
            _update(database, table, names, "retroact_hide")
        except apsw.ConstraintError:
            # On the way a new value may meet an old one that has not had its turn: all are made something else first.
            database.execute("rollback")
            database.execute("begin")
            try:
                _update(database, table, names, "retroact_mark")
                _update(database, table, names, "retroact_unmark")
            except apsw.ConstraintError as error:
                database.execute("rollback")
                told = "Leave the column out, or make the table anew without that rule."
                raise CannotRedact(column=f"{table}.{names[0]}", problem=f"its table refuses other values ({error})", remedy=told) from None
        database.execute("commit")
    if database.table_exists("main", "sqlite_stat4"):
        database.execute("delete from sqlite_stat4")  # it has samples of values
    for name in functions:
        database.create_scalar_function(name, None, 1)
    database.pragma("ignore_check_constraints", False)
    for rule in _RULES:
        database.config(rule, 1)


def _update(database: apsw.Connection, table: str, names: Sequence[str], function: str) -> None:
    sets = ", ".join(f"{_quoted(name)} = {function}({_quoted(name)})" for name in names)
    database.execute(f"update {_quoted(table)} set {sets}")  # noqa: S608 - names are quoted


def _marked(value: Cell) -> Cell:
    return None if value is None else _MARK + encode_json(encode_cell(value))


def _unmarked(value: Any) -> Cell:
    return decode_cell(decode_json(value[len(_MARK) :])) if isinstance(value, bytes) else value


def _columns(database: apsw.Connection) -> list[Column]:
    listed = fetch(
        database,
        "select t.name, c.name from pragma_table_list t, pragma_table_xinfo(t.name) c where t.schema = 'main' and t.type = 'table'"
        " and t.name not like 'sqlite\\_%' escape '\\' and t.name not like 'retroact\\_%' escape '\\' order by 1, c.cid",
    )
    return [Column(table, name) for table, name in listed]


def _ties(database: apsw.Connection) -> list[tuple[Column, Column]]:
    """Pairs of columns, the first of which refers to the second."""
    by_name = {(c.table.lower(), c.name.lower()): c for c in _columns(database)}
    ties: list[tuple[Column, Column]] = []
    for table in dict.fromkeys(c.table for c in by_name.values()):
        listed: list[tuple[int, str, str, str | None]] = fetch(
            database, 'select seq, "table", "from", "to" from pragma_foreign_key_list(?)', (table,)
        )
        for seq, parent, child_name, parent_name in listed:
            child = by_name.get((table.lower(), child_name.lower()))
            named = parent_name or _primary_key(database, parent)[seq]
            referred = by_name.get((parent.lower(), named.lower()))
            if child is not None and referred is not None:
                ties.append((child, referred))
    return ties


def _primary_key(database: apsw.Connection, table: str) -> list[str]:
    """The columns of a primary key, in its order."""
    return [name for (name,) in fetch(database, "select name from pragma_table_info(?) where pk order by pk", (table,))]


def _must_be_redactable(database: apsw.Connection, column: Column) -> None:
    hidden = fetch(database, "select hidden from pragma_table_xinfo(?) where name = ?", tuple(column))[0][0]
    if hidden:
        raise CannotRedact(column=column, problem="it is computed from others", remedy="Redact the columns that it is computed from.")
    keys = _primary_key(database, column.table)
    indexed = fetch(database, "select 1 from pragma_index_list(?) where origin = 'pk'", (column.table,))
    without = fetch(database, "select 1 from pragma_table_list where schema = 'main' and wr and name = ?", (column.table,))
    if keys == [column.name] and not indexed and not without:
        remedy = "Redact the columns that say whose row it is; a number that only counts rows tells little."
        raise CannotRedact(column=column, problem="its values are the rowids by which rows are found", remedy=remedy)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
