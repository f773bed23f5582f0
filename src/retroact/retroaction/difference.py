"""What retroaction changed: the answer to "what if", as values.

A difference is not an error. This module must not know how it was found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from retroact.engine.contract import Branch
from retroact.retroaction.invariant import Violation
from retroact.trace.record import Change, Outcome, Record, RunId, Verb, Version


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One transaction of the new schedule, beside the one of the record whose place it took."""

    run: RunId
    function: str
    arguments: str
    #: The place in the original schedule.
    version: Version
    record: Record | None
    #: None: the original call is not made any more.
    outcome: Outcome | None
    changes: tuple[Change, ...] = ()
    broke: tuple[str, ...] = ()

    @property
    def new(self) -> bool:
        """Whether the record knows no such call."""
        return self.record is None

    @property
    def removed(self) -> bool:
        """Whether the changed code no longer makes this call."""
        return self.outcome is None

    @property
    def differs(self) -> bool:
        """Whether anything about it is not as it was."""
        if self.record is None or self.outcome is None:
            return True
        return not same_outcome(self.outcome, self.record.outcome) or self.changes != self.record.changes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunDifference:
    """One run: what came of it then, and what would have come of it."""

    run: RunId
    function: str
    arguments: str
    then: Outcome | None
    now: Outcome | None
    #: Why it could not be told, if it could not.
    undecided: str | None = None

    @property
    def differs(self) -> bool:
        """Whether its outcome is another."""
        return not same_outcome(self.then, self.now)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowDifference:
    """One row that would be another in the end."""

    table: str
    key: str
    then: Mapping[str, Any] | None
    now: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Everything that changed code would have changed."""

    runs: tuple[RunDifference, ...]
    events: tuple[Event, ...]
    rows: tuple[RowDifference, ...]
    violations_before: tuple[Violation, ...]
    violations_after: tuple[Violation, ...]
    invariants: tuple[str, ...]
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether no invariant breaks and every run could be told."""
        return not self.violations_after and not any(run.undecided for run in self.runs)


def same_outcome(then: Outcome | None, now: Outcome | None) -> bool:
    """Whether two outcomes are the same to a caller. The changed code lives in another module, and so do its exceptions."""
    if then is None or now is None or then.failure is None or now.failure is None:
        return then == now
    return (_class(then), then.failure.message) == (_class(now), now.failure.message)


def _class(outcome: Outcome) -> str:
    return outcome.failure.error.rpartition(".")[2] if outcome.failure else ""


def rows_that_differ(then: Branch, now: Branch, touched: Mapping[str, set[int | None]]) -> tuple[RowDifference, ...]:
    """Compare the rows that either schedule touched (rowids by table; None: a table without them, compared whole)."""
    found: list[RowDifference] = []
    for table in sorted(touched):
        before, after = _rows(then, table, touched[table]), _rows(now, table, touched[table])
        for key in sorted(before.keys() | after.keys(), key=str):
            if before.get(key) != after.get(key):
                found.append(RowDifference(table=table, key=str(key), then=before.get(key), now=after.get(key)))
    return tuple(found)


def touched_by(changes: tuple[Change, ...], touched: dict[str, set[int | None]]) -> None:
    """Note the rows of some changes."""
    for change in changes:
        if change.verb not in (Verb.SCHEMA, Verb.DROPPED):
            touched.setdefault(change.table, set()).update({change.rowid, change.rowid_after})


def _rows(branch: Branch, table: str, rowids: set[int | None]) -> dict[str, dict[str, Any]]:
    """The touched rows by what names them: the primary key, else the rowid."""
    quoted = '"' + table.replace('"', '""') + '"'
    key = [row[0] for row in branch.query("select name from pragma_table_info(:table) where pk order by pk", {"table": table})[1]]
    found: dict[str, dict[str, Any]] = {}
    if None in rowids:
        columns, rows = branch.query(f"select * from {quoted}")  # noqa: S608 - the name is quoted
        for row in rows:
            cells = dict(zip(columns, row, strict=True))
            found[_key(cells, key)] = cells
        return found
    for rowid in rowids:
        columns, rows = branch.query(f"select * from {quoted} where rowid = :rowid", {"rowid": rowid})  # noqa: S608
        for row in rows:
            cells = dict(zip(columns, row, strict=True))
            found[_key(cells, key) if key else f"rowid {rowid}"] = cells
    return found


def _key(cells: Mapping[str, Any], columns: list[str]) -> str:
    return ", ".join(str(cells.get(column)) for column in columns)
