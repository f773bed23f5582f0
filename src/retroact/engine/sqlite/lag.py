"""Recorded changes that a branch has not been given yet: each row waits until something is about to touch it.

Changes to one row of a table that has no key besides its rowid are merged, for then the order between rows does not matter. All other
tables keep theirs in the order of the record.

This module must not know how changes are written into a database.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
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

    def __bool__(self) -> bool:
        return bool(self.rows or self.changes)


class Lag:
    """Changes by table. What is taken from it is to be applied, or put back."""

    def __init__(self, relations: Mapping[int, Relation], merges: Callable[[str], bool], group: Callable[[str], str]) -> None:
        """`merges` says whether the rows of a table are independent; `group` names what a table must be kept in order with."""
        self._relations = dict(relations)
        self._merges = merges
        self._group = group
        #: Not looked at yet.
        self._stored: list[str] = []
        self._due: dict[str, Due] = {}

    def __bool__(self) -> bool:
        return bool(self._stored or self._due)

    def add(self, stored: str) -> None:
        """The changes of one record, as the trace keeps them; they come after all that were added before."""
        self._stored.append(stored)

    def take_row(self, table: str, rowid: int) -> Due | None:
        """What one row waits for."""
        due = self._of(table)
        if due is None or due.changes:
            return self.take_table(table)
        waiting = due.rows.pop(rowid, None)
        return None if waiting is None else Due(table, {rowid: waiting})

    def take_table(self, table: str) -> Due | None:
        """What a table waits for, and what is kept in order with it."""
        self._look()
        return self._due.pop(self._group(table), None)

    def take_all(self) -> list[Due]:
        """Everything."""
        self._look()
        taken = list(self._due.values())
        self._due = {}
        return taken

    def put_back(self, taken: Iterable[Due]) -> None:
        """What was taken last has been rolled back."""
        for due in taken:
            present = self._due.get(due.table)
            if present is None:
                self._due[due.table] = due
            else:
                present.rows.update(due.rows)
                present.changes[:0] = due.changes

    def _of(self, table: str) -> Due | None:
        self._look()
        return self._due.get(self._group(table))

    def waiting(self, row: Waiting | Stored) -> Waiting:
        """What a row waits for, of a merged row of what was taken."""
        return row if isinstance(row, Waiting) else Waiting.of(self._relations[row.relation], row)

    def _look(self) -> None:
        if not self._stored:
            return
        changes = _decode(f"[{','.join(self._stored)}]")
        self._stored.clear()
        #: By number of the table: the rows that can be merged.
        merged: dict[int, dict[int, Waiting | Stored] | None] = {}
        for change in (change for transaction in changes for change in transaction):
            number = change.relation
            if number not in merged:
                merged[number] = self._rows_of(number)
            rows, rowid = merged[number], change.rowid
            if rows is not None and rowid is not None and change.rowid_after is None:
                present = rows.get(rowid)
                rows[rowid] = change if present is None else self.waiting(present).then(self.waiting(change))
            else:
                entry = [number, change.verb, rowid, decode_json(change.cells)]
                entry += [] if change.rowid_after is None else [change.rowid_after]
                self._due_of(self._relations[number].name).changes.append(decode_change(self._relations, entry))
                merged[number] = None

    def _rows_of(self, number: int) -> dict[int, Waiting | Stored] | None:
        name = self._relations[number].name
        due = self._due_of(name)
        return due.rows if self._merges(name) and not due.changes else None

    def _due_of(self, table: str) -> Due:
        group = self._group(table)
        due = self._due.get(group)
        if due is None:
            due = self._due[group] = Due(group)
        return due
