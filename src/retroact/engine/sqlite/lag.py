"""Recorded changes that a branch has not been given yet: each row waits until something is about to touch it.

Changes to one row of a table that has no key besides its rowid are merged, for then the order between rows does not matter. All other
tables keep theirs in the order of the record.

This module must not know how changes are written into a database.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from retroact.engine.sqlite.relation import Relation, decode_change
from retroact.trace.codec import decode_cell, decode_json
from retroact.trace.record import Cell, Change

#: The table whose rows follow from those of others.
SEQUENCES = "sqlite_sequence"


@dataclasses.dataclass(slots=True)
class Waiting:
    """What is to become of one row: the cells to set (by position), a whole row, or nothing is left of it."""

    relation: Relation
    #: Stored cells by position; of a whole row all of them.
    cells: dict[int, Any]
    whole: bool = False
    gone: bool = False

    def values(self) -> dict[str, Cell]:
        """The cells by column."""
        return {self.relation.columns[i]: decode_cell(cell) for i, cell in self.cells.items()}


@dataclasses.dataclass(slots=True)
class Due:
    """What a branch is to be given now: merged rows by rowid, or changes in order."""

    table: str
    rows: dict[int, Waiting] = dataclasses.field(default_factory=dict[int, Waiting])
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

    def _look(self) -> None:
        if not self._stored:
            return
        for stored in self._stored:
            for entry in decode_json(stored):
                relation = self._relations[entry[0]]
                table = self._group(relation.name)
                due = self._due.get(table)
                if due is None:
                    due = self._due[table] = Due(table)
                if due.changes or not self._merges(relation.name) or not _merge(due.rows, relation, entry):
                    due.changes.append(decode_change(self._relations, entry))
        self._stored.clear()


def _merge(rows: dict[int, Waiting], relation: Relation, entry: list[Any]) -> bool:
    """Merge a change into what its row waits for; False when the row gets another rowid."""
    verb, rowid, cells = entry[1], entry[2], entry[3]
    if verb == "u":
        if len(entry) > 4:  # noqa: PLR2004 - see relation.py: the rowid has changed
            return False
        present = rows.get(rowid)
        after = {int(i): new for i, (_, new) in cells.items()}
        if present is None:
            rows[rowid] = Waiting(relation, after)
        else:
            present.cells.update(after)
    elif verb == "i":
        rows[rowid] = Waiting(relation, dict(enumerate(cells)), whole=True)
    else:
        rows[rowid] = Waiting(relation, {}, gone=True)
    return True
