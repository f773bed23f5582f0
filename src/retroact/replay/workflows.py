"""Replays the bodies of workflows: their control flow, with every call answered from the record.

A workflow that makes the calls that its record has, in that order and with those arguments, and ends as it ended, is identical.

This module must not know states or statements: no transaction is executed here.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence

from retroact.engine.contract import History, Invocation, Trace
from retroact.engine.hashing import present_hashing
from retroact.errors import LoadFailed, SourceMissing
from retroact.function.kind import Kind
from retroact.function.names import plain_name
from retroact.function.registry import Registry
from retroact.replay.divergence import Verdict, show_outcome
from retroact.replay.replayer import Progress, Replayer, Report, WorkflowReplayed, chosen_records
from retroact.replay.shelf import Shelf
from retroact.replay.stage import Call, Player, Stage
from retroact.replay.suspicion import suspicion
from retroact.trace.failure import revive
from retroact.trace.record import Record, Run, RunId

#: Hears of a call that was answered from the record.
Told = Callable[[Call, Record], None]


def replay_workflows(trace: Trace, shelf: Shelf, runs: Iterable[RunId]) -> tuple[WorkflowReplayed, ...]:
    """Run the bodies of those of the runs that are workflows. Raises UnknownRun."""
    found = (trace.run(run) for run in runs)
    return tuple(_replay(trace, shelf, run) for run in found if run.kind == Kind.WORKFLOW.value)


def _replay(trace: Trace, shelf: Shelf, run: Run) -> WorkflowReplayed:
    try:
        rehearsal = Rehearsal(trace, shelf, run)
    except (SourceMissing, LoadFailed) as error:
        return WorkflowReplayed(run=run, verdict=Verdict.RECORDED_RESULTS, reason=str(error))
    try:
        rehearsal.settle()
        while any(rehearsal.answer(call) for call in rehearsal.pending()):
            rehearsal.settle()
        return rehearsal.verdict()
    finally:
        rehearsal.close()


class Rehearsal:
    """One workflow with its children, on a stage: it runs until it waits for transactions, and goes on when they are answered."""

    def __init__(self, trace: Trace, shelf: Shelf, run: Run, told: Told | None = None) -> None:
        """`told` hears of each call that was answered from the record. Raises SourceMissing, LoadFailed."""
        registry = shelf.registry(run)
        function = shelf.function(run)
        self.run = run
        self._trace = trace
        self._director = _Director(trace, {plain_name(f.module): sys.modules[f.module] for f in registry}, told)
        self._stage = Stage(self._director.answer, lambda one: (trace.find_run(one) or run).began_us, self._director.ended_us)
        self._player = self._stage.enter(run.run, function, run.arguments.encode(), registry)

    def settle(self) -> None:
        """Let it run until it waits for transactions, or has ended."""
        self._stage.settle()

    def pending(self) -> list[Call]:
        """The transactions that it waits for; none when it has parted from its record."""
        return self._stage.pending() if self._director.problem is None else []

    def answer(self, call: Call) -> bool:
        """Give a call what the record has for it; False when it has nothing, or something else."""
        return self._director.answer(call)

    def player(self, run: RunId) -> Player:
        """The workflow, or the child of it, that a run is."""
        return self._stage.players[run]

    def verdict(self) -> WorkflowReplayed:
        """Whether it did, to its end, what the record says."""
        problem = self._director.problem
        if problem is None and self.run.outcome is not None:
            now, then = self._player.outcome, self.run.outcome
            if now is None:
                problem = "it waits for a call that the record does not have"
            elif show_outcome(now) != show_outcome(then):
                problem = f"the record says it {show_outcome(then)}, the replay {show_outcome(now)}"
        if problem is None:
            return WorkflowReplayed(run=self.run, verdict=Verdict.IDENTICAL)
        hint = suspicion(self._trace.hashing(self.run.last or 0), present_hashing())
        return WorkflowReplayed(run=self.run, verdict=Verdict.DIVERGED, reason=f"{problem}. {hint}" if hint else problem)

    def close(self) -> None:
        """Let it go, wherever it stands."""
        self._stage.close()


class _Director:
    """Answers every call from the record of its run, by its number."""

    def __init__(self, trace: Trace, modules: dict[str, object], told: Told | None) -> None:
        self.problem: str | None = None
        self._told = told
        self._trace = trace
        self._modules = modules
        self._records: dict[RunId, dict[int, Record]] = {}

    def answer(self, call: Call) -> bool:
        """Give a call what the record has for it; False when it has nothing, or something else."""
        invocation = call.invocation
        record = self._of(invocation.run).get(invocation.step)
        if record is None or self.problem is not None:
            return False
        recorded, called = f"{record.function} {record.arguments}", f"{invocation.function.name} {invocation.arguments.decode()}"
        if recorded != called and record.function != "retroact.sleep":
            self.problem = f"at step {invocation.step} the record says {recorded}, the replay called {called}"
            return False
        if self._told is not None:
            self._told(call, record)
        ended_us = record.began_us + record.elapsed_us
        if record.outcome.failure is not None:
            call.fail(revive(record.outcome.failure, invocation.run, self._modules), ended_us)  # pyright: ignore[reportArgumentType]
        else:
            call.resolve(invocation.function.schema.decode_result(record.outcome.value or "null"), ended_us)
        return True

    def ended_us(self, invocation: Invocation) -> int:
        """When a recorded call ended; 0 when it is not recorded."""
        record = self._of(invocation.run).get(invocation.step)
        return 0 if record is None else record.began_us + record.elapsed_us

    def _of(self, run: RunId) -> dict[int, Record]:
        if run not in self._records:
            self._records[run] = {int(record.step): record for record in self._trace.records_of(run)}
        return self._records[run]


def replay_runs(history: History, runs: Sequence[RunId], *, fallback: Registry | None = None, progress: Progress | None = None) -> Report:
    """Replay runs: each of their transactions at the state that it saw, and the bodies of those that are workflows.

    `fallback` has the functions whose source was not recorded. Raises UnknownRun, DamagedTrace, DamagedPage, BeyondHistory.
    """
    return replay_chosen(history, chosen_records(history, runs), runs, fallback=fallback, progress=progress)


def replay_chosen(
    history: History,
    records: Sequence[Record],
    runs: Sequence[RunId],
    *,
    fallback: Registry | None = None,
    progress: Progress | None = None,
) -> Report:
    """Replay records, in the order given, and the bodies of those of the runs that are workflows."""
    shelf = Shelf(history.trace, fallback)
    try:
        report = Replayer(history, shelf).replay(records, progress)
        return dataclasses.replace(report, workflows=replay_workflows(history.trace, shelf, runs))
    finally:
        shelf.close()
