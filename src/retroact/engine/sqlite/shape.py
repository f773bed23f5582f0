"""What a SQL text is, found out once by preparing it: its columns, what it reads and writes, and whether a body may run it.

This module must not know when, or how often, a statement is run.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable
from typing import Any

import apsw

from retroact.engine.sqlite.queries import fetch
from retroact.errors import BadStatement

#: Authorizer actions that a body may not take, with the reason.
_FORBIDDEN = {
    apsw.SQLITE_TRANSACTION: "the platform begins and commits the transaction; leave BEGIN, COMMIT and ROLLBACK out and raise to roll back",
    apsw.SQLITE_SAVEPOINT: "a transaction is one unit; call another @transaction instead of SAVEPOINT",
    apsw.SQLITE_ATTACH: "a transaction sees one database; ATTACH is not allowed",
    apsw.SQLITE_DETACH: "a transaction sees one database; DETACH is not allowed",
    apsw.SQLITE_PRAGMA: "a PRAGMA changes the connection, not the data; only reading ones (table_info, ...) are allowed",
}
_TEMPORARY = {getattr(apsw, f"SQLITE_CREATE_TEMP_{what}") for what in ("INDEX", "TABLE", "TRIGGER", "VIEW")}
_WRITES = {apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE}
_DDL = {
    getattr(apsw, f"SQLITE_{verb}_{what}")
    for verb in ("CREATE", "DROP")
    for what in ("INDEX", "TABLE", "TRIGGER", "VIEW", "TEMP_INDEX", "TEMP_TABLE", "TEMP_TRIGGER", "TEMP_VIEW", "VTABLE")
} | {apsw.SQLITE_ALTER_TABLE, apsw.SQLITE_REINDEX, apsw.SQLITE_ANALYZE}
#: They visit every table when none is named, and change the content of none.
_TIDYING = {apsw.SQLITE_REINDEX, apsw.SQLITE_ANALYZE}
_READING_PRAGMAS = {
    "table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list", "foreign_key_check",
    "integrity_check", "quick_check", "function_list", "collation_list", "compile_options", "user_version", "schema_version", "page_count",
}  # fmt: skip
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_ROLLBACK = re.compile(r"\b(?:or|on\s+conflict)\s+rollback\b|\braise\s*\(\s*rollback\b", re.IGNORECASE)
_SYSTEM = ("sqlite_", "retroact_")


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """One SQL text, understood."""

    number: int
    sql: str
    #: Makes a row from a tuple; None when the statement returns no rows.
    row: Callable[[Any], Any] | None
    writes: bool
    #: It changes more than rows of tables: the schema, or SQLite's own tables.
    schema_change: bool
    tables_read: tuple[str, ...]
    tables_written: tuple[str, ...]
    #: Tables with AUTOINCREMENT that it inserts into.
    sequences: tuple[str, ...] = ()
    #: It writes a virtual table, which may write its own tables later.
    virtual: bool = False


def shape_of(database: apsw.Connection, sql: str, number: int, function: str, statement: int) -> Shape:
    """Prepare `sql` without running it. Raises BadStatement when a body may not run it, apsw.Error when SQLite cannot."""

    def bad(problem: str) -> BadStatement:
        return BadStatement(function=function, statement=statement, problem=problem, sql=sql)

    prepared = _prepare(database, sql)
    if prepared.more:
        raise bad("one call runs one statement; give the others calls of their own")
    if sql.lstrip()[:6].lower() == "vacuum":
        raise bad("VACUUM cannot run inside a transaction")
    for action, first, second in prepared.actions:
        if action in _FORBIDDEN and not (action == apsw.SQLITE_PRAGMA and _reads_only(first, second)):
            raise bad(_FORBIDDEN[action])
    written = tuple(sorted({first for action, first, _ in prepared.actions if action in _WRITES and first}))
    owned = next((t for t in written if t.startswith("retroact_")), None)
    if owned is None:
        changed = (name for action, *names in prepared.actions if action in _DDL - _TIDYING for name in names)
        owned = next((name for name in changed if name and name.startswith("retroact_")), None)
    if owned:
        raise bad(f"{owned} belongs to the trace, which nobody edits")
    if any(action in _TEMPORARY for action, _, _ in prepared.actions):
        raise bad("what is TEMP outlives the transaction on its connection and is in no record; use a table, or a common table expression")
    if _ROLLBACK.search(_COMMENT.sub(" ", sql)):
        raise bad("ROLLBACK would take other transactions of the same commit with it; let the statement fail (ABORT) and the body raise")
    return Shape(
        number=number,
        sql=sql,
        row=_row_maker(prepared.columns) if prepared.columns else None,
        writes=not prepared.reads_only,
        schema_change=any(action in _DDL for action, _, _ in prepared.actions) or any(t.startswith("sqlite_") for t in written),
        tables_read=tuple(sorted({f"{first}.{second}" for action, first, second in prepared.actions if action == apsw.SQLITE_READ})),
        tables_written=tuple(t for t in written if not t.startswith(_SYSTEM)),
        sequences=_sequences(database, {first for action, first, _ in prepared.actions if action == apsw.SQLITE_INSERT}),
        virtual=_is_virtual(database, written),
    )


def _sequences(database: apsw.Connection, inserted: set[str | None]) -> tuple[str, ...]:
    """Those of the tables that have AUTOINCREMENT."""
    if not inserted:
        return ()
    found = fetch(database, "select name from sqlite_schema where type = 'table' and sql like '%autoincrement%'")
    return tuple(sorted(str(name) for (name,) in found if name in inserted))


def _is_virtual(database: apsw.Connection, written: tuple[str, ...]) -> bool:
    """Whether one of the tables is virtual."""
    if not written:
        return False
    found = fetch(database, "select name from sqlite_schema where type = 'table' and sql like 'create virtual%'")
    return any(name in written for (name,) in found)


class _Anything(dict[str, None]):
    """Stands in for the parameters while a statement is only prepared."""

    def __missing__(self, name: str) -> None:
        if name.isdecimal():  # ?1
            raise apsw.BindingsError(name)


@dataclasses.dataclass(slots=True)
class _Prepared:
    """What SQLite says of a statement when it prepares it."""

    actions: list[tuple[int, str | None, str | None]] = dataclasses.field(default_factory=list[tuple[int, str | None, str | None]])
    columns: list[str] = dataclasses.field(default_factory=list[str])
    reads_only: bool = True
    more: bool = False


def _prepare(database: apsw.Connection, sql: str) -> _Prepared:
    prepared = _Prepared()

    def authorize(action: int, first: str | None, second: str | None, _schema: str | None, _trigger: str | None) -> int:
        prepared.actions.append((action, first, second))
        return apsw.SQLITE_OK

    def look(cursor: apsw.Cursor, first: str, _parameters: Any) -> bool:
        prepared.columns = [column[0] for column in cursor.get_description()]
        prepared.reads_only = cursor.is_readonly
        prepared.more = bool(_COMMENT.sub("", sql.strip()[len(first.strip()) :]).strip(" \t\r\n;"))
        return False

    cursor = database.cursor()
    cursor.exec_trace = look
    outer = database.authorizer
    database.authorizer = authorize
    try:
        cursor.execute(sql, _Anything(), can_cache=False)
    except apsw.ExecTraceAbort:
        pass
    finally:
        database.authorizer = outer
        cursor.close()
    return prepared


def _reads_only(name: str | None, value: str | None) -> bool:
    pragma = (name or "").lower()
    return pragma in _READING_PRAGMAS and (value is None or pragma not in ("user_version", "schema_version"))


def _row_maker(columns: list[str]) -> Callable[[Any], Any]:
    row = collections.namedtuple("Row", columns, rename=True)  # pyright: ignore[reportUntypedNamedTuple] - the fields are not known before
    return row._make
