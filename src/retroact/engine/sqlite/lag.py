"""Recorded changes that a branch has not been given yet: each row waits until something is about to touch it.

Changes to one row of a table that has no key besides its rowid are merged, for then the order between rows does not matter. All other
tables keep theirs in the order of the record.

This module must not know how changes are written into a database.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from retroact.engine.sqlite.relation import Relation, decode_change
from retroact.trace.codec import decode_cell, decode_json
from retroact.trace.record import Cell, Change

#: The table whose rows follow from those of others.
SEQUENCES = "sqlite_sequence"


class Stored(msgspec.Struct, array_like=True, gc=False):
    """One change as the trace keeps it, its cells not decoded yet. There are very many, and of most nobody asks."""

    relation: int
    verb: str
    rowid: int | None
    cells: msgspec.Raw
    rowid_after: int | None = None


_decode = msgspec.json.Decoder(list[list[Stored]]).decode


@dataclasses.dataclass(slots=True)
class Waiting:
    """What is to become of one row: the cells to set (by position), a whole row, or nothing is left of it."""

    relation: Relation
    #: Stored cells by position; of a whole row all of them.
    cells: dict[int, Any]
    whole: bool = False
    gone: bool = False

    @classmethod
    def of(cls, relation: Relation, stored: Stored) -> Waiting:
        """What one change makes of its row."""
        if stored.verb == "d":
            return cls(relation, {}, gone=True)
        cells: Any = decode_json(stored.cells)
        if stored.verb == "u":
            return cls(relation, {int(position): new for position, (_, new) in cells.items()})
        return cls(relation, dict(enumerate(cast("list[Any]", cells))), whole=True)

    def then(self, later: Waiting) -> Waiting:
        """Both, one after the other."""
        if later.whole or later.gone:
            return later
        return dataclasses.replace(self, cells={**self.cells, **later.cells})

    def values(self) -> dict[str, Cell]:
        """The cells by column."""
        return {self.relation.columns[i]: decode_cell(cell) for i, cell in self.cells.items()}


@dataclasses.dataclass(slots=True)
class Due:
    """What a branch is to be given now: merged rows by rowid, and after them changes in order."""

    table: str
    #: A row that was changed only once waits as its change is stored.
    rows: dict[int, Waiting | Stored] = dataclasses.field(default_factory=dict[int, "Waiting | Stored"])
    changes: list[Change] = dataclasses.field(default_factory=list[Change])


class Lag:
    """Changes by table. What is taken from it is to be applied."""

    def __init__(self, relations: Mapping[int, Relation], merges: Callable[[str], bool], group: Callable[[str], str]) -> None:
        """`merges` says whether the rows of a table are independent; `group` names what a table must be kept in order with."""
        self._relations = dict(relations)
        self._merges = merges
        self._group = group
        #: Not looked at yet.
        self._stored: list[str] = []
        self._due: dict[str, Due] = {}
        #: By number of the relation: where its changes wait, and whether they can be merged.
        self._places: dict[int, tuple[Due, bool]] = {}
        self._by_table: dict[str, Due] = {}

    def add(self, stored: str) -> None:
        """The changes of one record, as the trace keeps them; they come after all that were added before."""
        self._stored.append(stored)

    def take_row(self, table: str, rowid: int) -> Due | None:
        """What one row waits for."""
        if self._stored:
            self._look()
        due = self._by_table.get(table) or self._due_of(table)
        if due.changes:
            return self.take_table(table)
        waiting = due.rows.pop(rowid, None)
        return None if waiting is None else Due(due.table, {rowid: waiting})

    def take_table(self, table: str) -> Due | None:
        """What a table waits for, and what is kept in order with it."""
        if self._stored:
            self._look()
        due = self._by_table.get(table) or self._due_of(table)
        return _emptied(due) if due.rows or due.changes else None

    def take_all(self) -> list[Due]:
        """Everything."""
        self._look()
        return [_emptied(due) for due in self._due.values() if due.rows or due.changes]

    def waiting(self, row: Waiting | Stored) -> Waiting:
        """What a row waits for, of a merged row of what was taken."""
        return row if isinstance(row, Waiting) else Waiting.of(self._relations[row.relation], row)

    def forget(self) -> None:
        """The schema may be another: look at each table again."""
        self._places.clear()
        self._by_table.clear()

    def _look(self) -> None:
        changes = _decode(f"[{','.join(self._stored)}]")
        self._stored.clear()
        places = self._places
        for change in (change for transaction in changes for change in transaction):
            number = change.relation
            if number not in places:
                name = self._relations[number].name
                places[number] = self._due_of(name), self._merges(name)
            due, merges = places[number]
            rowid = change.rowid
            if merges and rowid is not None and change.rowid_after is None and not due.changes:
                present = due.rows.get(rowid)
                due.rows[rowid] = change if present is None else self.waiting(present).then(self.waiting(change))
            else:
                entry = [number, change.verb, rowid, decode_json(change.cells)]
                entry += [] if change.rowid_after is None else [change.rowid_after]
                due.changes.append(decode_change(self._relations, entry))

    def _due_of(self, table: str) -> Due:
        due = self._by_table.get(table)
        if due is None:
            due = self._by_table[table] = self._due.setdefault(self._group(table), Due(self._group(table)))
        return due


def _emptied(due: Due) -> Due:
    """What was due; nothing is any more."""
    taken = Due(due.table, due.rows, due.changes)
    due.rows, due.changes = {}, []
    return taken
