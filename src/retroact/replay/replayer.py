"""Replays transactions: each is executed again at the state that it saw, in the original order, in its own recorded moment.

Between two chosen transactions the branch is moved on by what the others changed, so their effects appear exactly when they did. A
faithful transaction leaves its own effects; one that is not is taken back and its recorded effects are applied instead, so that one
divergence does not spoil what follows.

This module must not know where records and past states come from: it is handed a History.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from retroact.engine.clock import monotonic
from retroact.engine.contract import Branch, History, Invocation, SchemaMoved, Watcher
from retroact.engine.hashing import present_hashing
from retroact.errors import BeyondHistory, LoadFailed, SourceMissing
from retroact.replay.divergence import Divergence, Verdict, compare
from retroact.replay.shelf import Shelf
from retroact.replay.suspicion import suspicion
from retroact.trace.record import Record, Run, RunId, Verb
from retroact.trace.retention import begun_before

#: More records than this between two transactions are not applied one by one: the later state is opened.
FAR = 64
#: Why a transaction that somebody changed under way is not compared.
TOUCHED = "it was changed by hand while it was replayed"
Progress = Callable[[int, int], None]


class Moment(Protocol):
    """What has a place in the schedule."""

    @property
    def version(self) -> int: ...
    @property
    def snapshot(self) -> int: ...
    @property
    def changes(self) -> object: ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One transaction, replayed."""

    record: Record
    verdict: Verdict
    divergence: Divergence | None = None
    #: Why it could not be executed again; what else may have made it diverge.
    reason: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowReplayed:
    """One workflow, its body run again."""

    run: Run
    verdict: Verdict
    #: Where it parted from its record, or why it could not be run again.
    reason: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A replay."""

    transactions: tuple[Replayed, ...]
    #: Calls of steps, sleeps and the like: what came of them is taken from the record.
    answered: int
    seconds: float
    #: How long the same transactions took when they happened.
    original_seconds: float
    #: The bodies of workflows, run again with every call answered from the record.
    workflows: tuple[WorkflowReplayed, ...] = ()

    def count(self, verdict: Verdict) -> int:
        """Transactions with that verdict."""
        return sum(t.verdict is verdict for t in self.transactions)

    @property
    def faithful(self) -> bool:
        """Whether nothing diverged."""
        return not self.count(Verdict.DIVERGED) and not any(w.verdict is Verdict.DIVERGED for w in self.workflows)


def report_on(done: Sequence[Replayed], *, answered: int, seconds: float) -> Report:
    """The report on transactions that were replayed in so many seconds."""
    records = [replayed.record for replayed in done]
    original_us = max(r.began_us + r.elapsed_us for r in records) - min(r.began_us for r in records) if records else 0
    return Report(transactions=tuple(done), answered=answered, seconds=seconds, original_seconds=original_us / 1e6)


def invocation_of(record: Record, function: object) -> Invocation:
    """The invocation that a record is of, with the function that is to be run for it."""
    return Invocation(run=record.run, step=record.step, function=function, arguments=record.arguments.encode())  # pyright: ignore[reportArgumentType]


def chosen_records(history: History, runs: Iterable[RunId]) -> list[Record]:
    """The records of runs and of their children, in the order in which their snapshots were taken. Raises UnknownRun, BeyondHistory."""
    records: dict[int, Record] = {}
    waiting = list(dict.fromkeys(runs))
    while waiting:
        run = waiting.pop()
        found = history.trace.records_of(run)
        if not found:
            history.trace.run(run)
        records.update({record.version: record for record in found})
        waiting.extend(RunId(f"{run}.{record.step}") for record in found if record.kind == "workflow")
    within_horizon(history, records.values())
    return sorted(records.values(), key=moment)


def partly_forgotten(history: History, record: Record) -> BeyondHistory:
    """Why a record cannot be run again of which a table has been dropped."""
    horizon = history.trace.horizon()
    table = next(change.table for change in record.changes if change.verb is Verb.DROPPED)
    found = next((name for name in horizon.tables if table == name or table.startswith(f"{name}_")), table)
    reason = f"That is so for the table {found}, which this transaction read or wrote: its rows are forgotten earlier than the rest."
    return BeyondHistory(version=record.snapshot, database="the database", horizon=horizon.tables.get(found, horizon), reason=reason)


def within_horizon(history: History, records: Iterable[Record]) -> None:
    """Raises BeyondHistory if one of the records has had its details dropped."""
    horizon = history.trace.horizon()
    gone = next((record for record in records if record.version <= horizon.version), None)
    if gone is not None:
        raise begun_before(horizon, gone.run, gone.version)


def moment(record: Moment) -> tuple[int, bool, int]:
    """Readers come before the writer that followed the state they saw."""
    return record.snapshot, bool(record.changes), record.version


class Replayer:
    """Replays chosen records of one history."""

    def __init__(self, history: History, shelf: Shelf) -> None:
        self._history = history
        self._shelf = shelf
        self._branch: Branch | None = None
        #: Where the branch was opened, and the versions from which on tables that are forgotten before can be asked again.
        self._opened = 0
        self._limits: tuple[int, ...] = ()

    def replay(self, records: Sequence[Record], progress: Progress | None = None) -> Report:
        """Replay records in the order given. Raises DamagedTrace, DamagedPage, BeyondHistory."""
        if records:
            self._history.trace.verify(min(r.version for r in records) - 1, max(r.version for r in records))
        self._limits = tuple(limit.version for limit in self._history.trace.horizon().tables.values())
        began = monotonic()
        done: list[Replayed] = []
        transactions = [record for record in records if record.kind == "transaction"]
        try:
            for record in transactions:
                done.append(self.transaction(record))
                if progress is not None:
                    progress(len(done), len(transactions))
        finally:
            self.close()
        return report_on(done, answered=len(records) - len(transactions), seconds=monotonic() - began)

    def close(self) -> None:
        """Let the state that it stands on go."""
        if self._branch is not None:
            self._branch.close()
            self._branch = None

    def transaction(self, record: Record, watcher: Watcher | None = None) -> Replayed:
        """Replay one transaction, shown to a watcher statement by statement if there is one."""
        try:
            function = self._shelf.function(record)
        except (SourceMissing, LoadFailed) as error:
            return Replayed(record=record, verdict=Verdict.RECORDED_RESULTS, reason=str(error))
        if any(change.verb is Verb.DROPPED for change in record.changes):
            return Replayed(record=record, verdict=Verdict.RECORDED_RESULTS, reason=str(partly_forgotten(self._history, record)))
        invocation = invocation_of(record, function)
        branch = self.at(record.snapshot)
        trial = branch.attempt(invocation, record.began_us, invocation.seed, watcher=watcher)
        if watcher is not None and watcher.touched:
            branch.undo()
            return Replayed(record=record, verdict=Verdict.RECORDED_RESULTS, reason=TOUCHED)
        verdict, divergence = compare(record, trial)
        if verdict is not Verdict.DIVERGED and record.snapshot == record.version - 1:
            branch.keep()
            branch.version = record.version
        else:
            branch.undo()
        hint = suspicion(self._history.trace.hashing(record.version), present_hashing()) if divergence is not None else None
        return Replayed(record=record, verdict=verdict, divergence=divergence, reason=hint)

    def at(self, version: int) -> Branch:
        """The state as of a version: the one that it stands on, moved on, or opened anew."""
        branch = self._branch
        whole = not any(self._opened < limit <= version for limit in self._limits)
        if branch is not None and whole and branch.version <= version <= branch.version + FAR:
            try:
                for between in self._history.trace.records_between(branch.version, version):
                    branch.advance(between)
            except SchemaMoved:
                pass
            else:
                return branch
        if branch is not None:
            branch.close()
        self._branch, self._opened = self._history.at(version), version
        return self._branch
