"""What on the branch is not as it was: row by row, with the row as it was then, so that a row that becomes the same again is clean.

Everything that is not named here is the same on the branch as in the recorded past at that version.

This module must not know why anything differs, nor how rows are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from retroact.engine.footprint import Access, Footprint, Parameter, Reach

#: A rowid, or the primary key of a table without them.
RowKey = int | tuple[Any, ...]
Row = Mapping[str, Any]
#: Says whether a statement with some parameters reaches something that differs.
Alarm = Callable[[Mapping[str, Any]], bool]


class DirtyTable:
    """The rows of one table that differ."""

    def __init__(self) -> None:
        #: Rows may differ that are not named.
        self.whole = False
        #: Each row as it was then, and as it is now.
        self.rows: dict[RowKey, tuple[Row | None, Row | None]] = {}
        #: How many rows are there only then or only now.
        self.moved = 0
        #: By columns that were asked for: how many rows have these values then or now.
        self._keys: dict[tuple[str, ...], dict[tuple[Any, ...], int]] = {}

    def __bool__(self) -> bool:
        return self.whole or bool(self.rows)

    def put(self, key: RowKey, then: Row | None, now: Row | None) -> None:
        """Note a row; one that is the same is clean."""
        present = self.rows.pop(key, None)
        if present is not None:
            self._count(present, -1)
        if not _same(then, now):
            self.rows[key] = then, now
            self._count((then, now), 1)

    def reached_by(self, access: Access, parameters: Mapping[str, Any]) -> bool:
        """Whether an access could find anything here that differs."""
        if self.whole:
            return True
        if access.reach is Reach.NEXT_ROWID:
            return self.moved > 0
        values = None if access.reach is Reach.TABLE else access.values(parameters)
        if values is None:
            return bool(self.rows)
        if access.reach is Reach.ROW:
            return values[0] in self.rows
        return values in (self._keys.get(access.columns) or self._index(access.columns))

    def alarm(self, access: Access) -> Alarm:
        """`reached_by` of one access, to be asked for many parameters. Good until a table becomes dirty, or clean, or unknown."""
        match access.reach, access.terms:
            case Reach.ROW, (Parameter(name),) if not self.whole:
                rows = self.rows

                def in_row(parameters: Mapping[str, Any]) -> bool:
                    rowid = parameters.get(name)
                    return rowid in rows if type(rowid) is int else bool(rows)

                return in_row
            case _:
                return lambda parameters: self.reached_by(access, parameters)

    def _index(self, columns: tuple[str, ...]) -> dict[tuple[Any, ...], int]:
        index: dict[tuple[Any, ...], int] = {}
        self._keys[columns] = index
        for pair in self.rows.values():
            _tally(index, columns, pair, 1)
        return index

    def _count(self, pair: tuple[Row | None, Row | None], by: int) -> None:
        if (pair[0] is None) != (pair[1] is None):
            self.moved += by
        for columns, index in self._keys.items():
            _tally(index, columns, pair, by)


class Dirty:
    """All that differs."""

    def __init__(self) -> None:
        #: Even the schema may differ: nothing is known to be the same any more.
        self.everything = False
        self.tables: dict[str, DirtyTable] = {}
        #: How often a table has become dirty or clean.
        self.turns = 0

    def __bool__(self) -> bool:
        return self.everything or bool(self.tables)

    def put(self, table: str, key: RowKey, then: Row | None, now: Row | None) -> None:
        """Note a row; one that is the same is clean."""
        found = self.tables.get(table)
        if found is None:
            if _same(then, now):
                return
            found = self._dirtied(table)
        found.put(key, then, now)
        if not found:
            del self.tables[table]
            self.turns += 1

    def spoil(self, table: str) -> None:
        """Any row of that table may differ."""
        found = self.tables.get(table) or self._dirtied(table)
        if not found.whole:
            found.whole = True
            self.turns += 1

    def _dirtied(self, table: str) -> DirtyTable:
        self.turns += 1
        found = self.tables[table] = DirtyTable()
        return found

    def reached_by(self, footprint: Footprint, parameters: Mapping[str, Any]) -> bool:
        """Whether a statement could find anything that differs."""
        if not self:
            return False
        if self.everything or footprint.opaque:
            return True
        return any(
            access.table in self.tables and self.tables[access.table].reached_by(access, parameters) for access in footprint.accesses
        )


def _tally(index: dict[tuple[Any, ...], int], columns: tuple[str, ...], pair: tuple[Row | None, Row | None], by: int) -> None:
    for row in pair:
        if row is not None:
            values = tuple(row.get(column) for column in columns)
            count = index.get(values, 0) + by
            if count:
                index[values] = count
            else:
                index.pop(values, None)


def _same(then: Row | None, now: Row | None) -> bool:
    """Whether two rows are the same to SQL, which tells 1 from 1.0."""
    if then is None or now is None:
        return then is now
    return then == now and all(type(value) is type(now[column]) for column, value in then.items())
