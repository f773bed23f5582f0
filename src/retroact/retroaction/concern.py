"""Which invariants a change can concern: those that read its row, or its table, when they were answered last.

This module must not know what the answers are.
"""

from __future__ import annotations

from collections.abc import Iterable

from retroact.engine.contract import Branch
from retroact.engine.footprint import Reach
from retroact.trace.record import Change, Verb

#: A row by table and rowid (None: it has none).
Place = tuple[str, int | None]


class Concerns:
    """What each invariant read on one branch."""

    def __init__(self, names: Iterable[str]) -> None:
        #: By invariant: tables, each with the rows that were read; None instead of rows: any row; None instead of tables: anything.
        self._read: dict[str, dict[str, set[int] | None] | None] = dict.fromkeys(names)

    def learn(self, names: Iterable[str], branch: Branch) -> None:
        """Some invariants have just been answered on a branch."""
        for name in names:
            self._read[name] = _read(name, branch)

    def copy(self, other: Concerns, names: Iterable[str]) -> None:
        """Some invariants would be answered by the same statements as on another branch."""
        for name in names:
            self._read[name] = other._read[name]

    def of(self, places: Iterable[Place]) -> list[str]:
        """The invariants that changes of some rows may concern."""
        changed = list(places)
        return [name for name, read in self._read.items() if read is None or any(_in(read, place) for place in changed)]


def places_of(changes: Iterable[Change]) -> list[Place]:
    """The rows of some changes; of one that is not of rows, a table that nobody knows."""
    return [(c.table, rowid) for c in changes if c.verb is not Verb.SCHEMA for rowid in {c.rowid, c.rowid_after}]


def _in(read: dict[str, set[int] | None], place: Place) -> bool:
    table, rowid = place
    if table not in read:
        return False
    rows = read[table]
    return rows is None or rowid is None or rowid in rows


def _read(name: str, branch: Branch) -> dict[str, set[int] | None] | None:
    found: dict[str, set[int] | None] = {}
    for statement in branch.asked(name):
        footprint = branch.footprint(statement.sql)
        if footprint.opaque:
            return None
        for access in footprint.accesses:
            values = access.values(statement.parameters) if access.reach is Reach.ROW else None
            rows = found.setdefault(access.table, set())
            if values is None or rows is None:
                found[access.table] = None
            else:
                rows.add(values[0])
    return found
