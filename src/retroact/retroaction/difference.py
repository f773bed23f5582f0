"""What retroaction changed: the answer to "what if", as values.

A difference is not an error. This module must not know how it was found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast, overload

from retroact.engine.contract import Branch, Entry
from retroact.retroaction.invariant import Violation
from retroact.trace.record import Change, Outcome, Record, Run, RunId, Verb, Version

T = TypeVar("T")
#: A row that differs: its rowid or key, as it was, as it is now.
Pair = tuple[Any, Mapping[str, Any] | None, Mapping[str, Any] | None]


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


class Answers(Sequence[T]):
    """Answers in order. One of which nothing differs is worked out from what was recorded when somebody looks at it."""

    def __init__(self, items: Iterable[Any], kind: type[T], make: Callable[[Any], T]) -> None:
        """Each item is an answer, of that kind, or something recorded of which `make` makes one."""
        self._items = list(items)
        self._kind = kind
        self._make = make

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return Answers(self._items[index], self._kind, self._make)
        item = self._items[index]
        if not isinstance(item, self._kind):
            item = self._items[index] = self._make(item)
        return item

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(cast("Sequence[T]", other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def telling(self) -> Iterator[T]:
        """Those of which something may differ."""
        return (item for item in self._items if isinstance(item, self._kind))

    def runs(self) -> Iterator[RunId]:
        """The run of each."""
        return (item.run for item in self._items)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What was done to each transaction of the schedule."""

    #: Its body was run.
    executed: int = 0
    #: Its recorded statements were run, found what they had found, and so its body was not.
    checked: int = 0
    #: Nothing that it could have read differs: its recorded changes were taken.
    untouched: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Everything that changed code would have changed."""

    runs: Answers[RunDifference]
    events: Answers[Event]
    rows: tuple[RowDifference, ...]
    violations_before: tuple[Violation, ...]
    violations_after: tuple[Violation, ...]
    invariants: tuple[str, ...]
    seconds: float
    effort: Effort = Effort()

    @property
    def clean(self) -> bool:
        """Whether no invariant breaks and every run could be told."""
        return not self.violations_after and not any(run.undecided for run in self.runs.telling())


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
        found += _differing(table, _rows(then, table, touched[table]), _rows(now, table, touched[table]))
    return tuple(found)


def rows_known_to_differ(rows: Mapping[str, Iterable[Pair]], now: Branch) -> tuple[RowDifference, ...]:
    """The same where it is known already which rows differ: by table, each with its rowid (if it has one), as it was and as it is."""
    found: list[RowDifference] = []
    for table in sorted(rows):
        key = _key_columns(now, table)
        before: dict[str, Mapping[str, Any]] = {}
        after: dict[str, Mapping[str, Any]] = {}
        for rowid, then_row, now_row in rows[table]:
            for side, row in ((before, then_row), (after, now_row)):
                if row is not None:
                    side[_name(row, key, rowid)] = row
        found += _differing(table, before, after)
    return tuple(found)


def _differing(table: str, before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> Iterator[RowDifference]:
    for key in sorted(before.keys() | after.keys(), key=str):
        if before.get(key) != after.get(key):
            yield RowDifference(table=table, key=str(key), then=before.get(key), now=after.get(key))


def touched_by(changes: tuple[Change, ...], touched: dict[str, set[int | None]]) -> None:
    """Note the rows of some changes."""
    for change in changes:
        if change.verb not in (Verb.SCHEMA, Verb.DROPPED):
            touched.setdefault(change.table, set()).update({change.rowid, change.rowid_after})


def _rows(branch: Branch, table: str, rowids: set[int | None]) -> dict[str, dict[str, Any]]:
    """The touched rows by what names them: the primary key, else the rowid."""
    quoted = '"' + table.replace('"', '""') + '"'
    key = _key_columns(branch, table)
    found: dict[str, dict[str, Any]] = {}
    if None in rowids:
        columns, rows = branch.query(f"select * from {quoted}")  # noqa: S608 - the name is quoted
        for row in rows:
            cells = dict(zip(columns, row, strict=True))
            found[_name(cells, key, None)] = cells
        return found
    for rowid in rowids:
        columns, rows = branch.query(f"select * from {quoted} where rowid = :rowid", {"rowid": rowid})  # noqa: S608
        for row in rows:
            cells = dict(zip(columns, row, strict=True))
            found[_name(cells, key, rowid)] = cells
    return found


def _key_columns(branch: Branch, table: str) -> list[str]:
    return [row[0] for row in branch.query("select name from pragma_table_info(:table) where pk order by pk", {"table": table})[1]]


def _name(cells: Mapping[str, Any], key: list[str], rowid: Any) -> str:
    """What names a row. SQLite lets a primary key be null, and then it names nothing."""
    named = [cells.get(column) for column in key]
    return ", ".join(map(str, named)) if named and None not in named else f"rowid {rowid}"


def decided(run: Run, now: Outcome | None, fault: Exception | None) -> RunDifference:
    """What came of a run; `fault` says why it cannot be told."""
    return RunDifference(
        run=run.run,
        function=run.function,
        arguments=run.arguments,
        then=run.outcome,
        now=None if fault else now,
        undecided=str(fault) if fault else None,
    )


def as_it_was(entry: Entry) -> Event:
    """A transaction of which nothing differs."""
    record = entry.record
    return Event(
        run=record.run,
        function=record.function,
        arguments=record.arguments,
        version=record.version,
        record=record,
        outcome=record.outcome,
        changes=record.changes,
    )


def removed(record: Record) -> Event:
    """A transaction that the changed code does not make."""
    return Event(run=record.run, function=record.function, arguments=record.arguments, version=record.version, record=record, outcome=None)
