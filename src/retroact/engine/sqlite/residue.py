"""Did a statement that failed leave anything behind?

SQLite takes back what a failed statement had done, unless its conflict is to be resolved by FAIL (in the statement, in a constraint of
the table, or raised by a trigger). Its counters do not tell which: what triggers did stays counted. So the rows are asked.

This module must not know why it matters.
"""

from __future__ import annotations

from typing import Any

import apsw

from retroact.engine.sqlite.queries import fetch
from retroact.engine.sqlite.relation import RowNote
from retroact.trace.record import Cell

_Row = tuple[Cell, ...] | None


def left_behind(database: apsw.Connection, notes: list[RowNote]) -> bool | None:
    """Whether the row changes that a failed statement was seen to make are still in effect; None when the rows do not tell."""
    for (table, key), (before, after) in _net(notes).items():
        if before == after:
            continue
        columns = [row[0] for row in fetch(database, "select name from pragma_table_xinfo(?)", (table,))]
        if len(columns) != len(before or after or ()):
            return None
        if after is not None:
            return _is_there(database, table, columns, key, after)
        return not _is_there(database, table, columns, key, before or ())
    return False


def _net(notes: list[RowNote]) -> dict[tuple[str, Any], tuple[_Row, _Row]]:
    """Each row touched, by table and rowid (or, without rowid, by itself), as it was at first and in the end."""
    rows: dict[tuple[str, Any], tuple[_Row, _Row]] = {}
    for table, _, rowid, rowid_after, before, after in notes:
        if before is not None:
            place = (table, rowid or before)
            rows[place] = (rows[place][0] if place in rows else before, None)
        if after is not None:
            place = (table, rowid_after or after)
            rows[place] = (rows[place][0] if place in rows else None, after)
    return rows


def _is_there(database: apsw.Connection, table: str, columns: list[str], key: Any, row: tuple[Cell, ...]) -> bool:
    quoted = ['"' + name.replace('"', '""') + '"' for name in (table, *columns)]
    same = [f"{column} is ?" for column in quoted[1:]]
    if isinstance(key, int):
        same.append("rowid = ?")
        row = (*row, key)
    return bool(fetch(database, f"select 1 from {quoted[0]} where {' and '.join(same)}", row))  # noqa: S608 - names are quoted
