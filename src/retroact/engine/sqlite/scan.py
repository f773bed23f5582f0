"""A stretch of a trace, read in one go: every record checked against its chain, and decoded only if somebody asks for it.

This module must not know why the stretch is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from retroact.engine.sqlite.horizon import beyond, is_marked
from retroact.engine.sqlite.relation import Relation
from retroact.errors import DamagedTrace, UnknownRun
from retroact.trace.codec import decode_json, encode_json
from retroact.trace.record import ALONE, Record, Run, RunId, RunState, StepNumber, Version
from retroact.trace.retention import Horizon, begun_before

#: Columns of a row, as `queries.sql` lists them.
VERSION, SNAPSHOT, FAILURE, CHANGES = 0, 6, 10, 12


class Reader(Protocol):
    """What reads the rows of a trace, and understands them."""

    path: Path

    def horizon(self) -> Horizon: ...
    def checked_rows(self, after: int, until: int) -> Iterator[tuple[Any, ...]]: ...
    def runs_between(self, after: int, until: int) -> list[tuple[Version, RunId]]: ...
    def understand(self, row: tuple[Any, ...]) -> Record: ...
    def understand_run(self, row: tuple[Any, ...]) -> Run: ...


class _Reading:
    """What it takes to understand a row. Entries know this and not their scan, so that they are no part of a circle."""

    __slots__ = ("functions", "reader")

    def __init__(self, reader: Reader, functions: Mapping[int, tuple[str, str, str, str | None]]) -> None:
        self.reader = reader
        self.functions = functions

    def understand(self, row: tuple[Any, ...]) -> Record:
        """Decode a row."""
        snapshot = row[VERSION] - 1 if row[SNAPSHOT] is None else row[SNAPSHOT]
        return self.reader.understand((*row[:SNAPSHOT], snapshot, *row[SNAPSHOT + 1 : CHANGES + 1]))


class Entry(msgspec.Struct, gc=False, eq=False):
    """One record that may not have been decoded yet. There are very many: the garbage collector is spared them."""

    version: Version
    run: RunId
    step: StepNumber
    function_number: int
    #: Statements and changes as they are stored (see schema.sql).
    statements: str | None
    changes: str | None
    _record: Record | tuple[Any, ...]
    _reading: _Reading

    @property
    def snapshot(self) -> int:
        """The version that its reads saw."""
        if isinstance(self._record, Record):
            return self._record.snapshot
        snapshot = self._record[SNAPSHOT]
        return self.version - 1 if snapshot is None else snapshot

    @property
    def aborted(self) -> bool:
        """Whether its body raised."""
        return not self._record.outcome.committed if isinstance(self._record, Record) else self._record[FAILURE] is not None

    @property
    def function(self) -> str:
        """The name of its function."""
        return self._reading.functions[self.function_number][0]

    @property
    def kind(self) -> str:
        """The kind of its function."""
        return self._reading.functions[self.function_number][1]

    @property
    def record(self) -> Record:
        """The record, decoded when it is first asked for."""
        if not isinstance(self._record, Record):
            self._record = self._reading.understand(self._record)
        return self._record


class Scan:
    """The records of some runs, of their children, and of all that happened meanwhile."""

    def __init__(self, reader: Reader, runs: Sequence[RunId], ask: Callable[..., list[Any]]) -> None:
        """Raises UnknownRun, BeyondHistory, DamagedTrace."""
        self.chosen = tuple(runs)
        self.functions: Mapping[int, tuple[str, str, str, str | None]] = {row[0]: row[1:] for row in ask("all_functions")}
        self.texts: Mapping[int, str] = {number: text for text, number in ask("all_sql")}
        self.relations: Mapping[int, Relation] = {row[0]: Relation.stored(*row) for row in ask("all_relations")}
        #: The workflows among the chosen runs and their children, each with the chosen run that it belongs to.
        self.families: dict[RunId, RunId] = dict(zip(runs, runs, strict=True))
        first, last, oldest = _reach(ask, self.families)
        horizon = _kept(reader, first, oldest) if last else reader.horizon()
        self.first, self.last = Version(first), Version(last)
        self.entries: list[Entry] = []
        #: Whether every transaction saw the state that the record before it left: the order of versions is the schedule.
        self.in_order = True
        #: The first record that a table has been dropped from.
        self.forgotten: Entry | None = None
        until = max((limit.version for limit in horizon.tables.values()), default=0)
        reading = _Reading(reader, self.functions)
        for row in _undropped(reader, first, last, oldest):
            entry = Entry(row[VERSION], row[1], row[2], row[4], row[11], row[CHANGES], row, reading)
            self.entries.append(entry)
            if entry.version <= until and self.forgotten is None and is_marked(entry.changes):
                self.forgotten = entry
            if row[SNAPSHOT] is not None:
                self.in_order = False
        listed = encode_json(list(runs)).decode()
        #: Those of the chosen runs that are more than one transaction.
        self.runs: dict[RunId, Run] = {row[0]: reader.understand_run(row) for row in ask("these_runs", (listed,))}
        #: The others, as their one record.
        self.alone: dict[RunId, Entry] = {
            e.run: e for e in self.entries if e.step == ALONE and e.run in self.families and e.run not in self.runs
        }
        for run in runs:
            if run not in self.alone and run not in self.runs:
                raise UnknownRun(run=run, database=reader.path)

    def run_of(self, entry: Entry) -> Run:
        """A transaction that was run alone, as a run."""
        record = entry.record
        return Run(
            run=record.run,
            function=record.function,
            kind=record.kind,
            fingerprint=record.fingerprint,
            code=record.code,
            arguments=record.arguments,
            state=RunState.COMMITTED if record.outcome.committed else RunState.ABORTED,
            outcome=record.outcome,
            began_us=record.began_us,
            ended_us=record.began_us + record.elapsed_us,
        )


def _kept(reader: Reader, first: int, oldest: int) -> Horizon:
    """The horizon. Raises BeyondHistory if the oldest record, or the state that was seen first, lies beyond it."""
    horizon = reader.horizon()
    if oldest <= horizon.version:
        raise begun_before(horizon, reader.runs_between(oldest - 1, oldest)[0][1], oldest)
    if first < horizon.version:
        raise beyond(horizon, first, reader.path)
    return horizon


def _undropped(reader: Reader, first: int, last: int, oldest: int) -> Iterator[tuple[Any, ...]]:
    """The rows of a stretch, checked. What no longer fits its chain may have been dropped a moment before."""
    try:
        yield from reader.checked_rows(first, last)
    except DamagedTrace:
        _kept(reader, first, oldest)
        raise


def _reach(ask: Callable[..., list[Any]], families: dict[RunId, RunId]) -> tuple[int, int, int]:
    """The version before all that some runs and their children saw, their last and their first. The children are added to the
    families."""
    first, last, oldest = 2**62, 0, 2**62
    waiting: list[RunId] = list(families)
    while waiting:
        listed = encode_json(waiting).decode()
        low, high, lowest, children = ask("reach_of_these", (listed,))[0]
        first, last = min(first, 2**62 if low is None else low), max(last, high or 0)
        oldest = min(oldest, 2**62 if lowest is None else lowest)
        waiting = []
        for run, step in decode_json(children):
            child = RunId(f"{run}.{step}")
            if child not in families:
                families[child] = families[run]
                waiting.append(child)
    return (first, last, oldest) if last else (0, 0, 0)
