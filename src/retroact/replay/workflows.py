"""Replays the bodies of workflows: their control flow, with every call answered from the record.

A workflow that makes the calls that its record has, in that order and with those arguments, and ends as it ended, is identical.

This module must not know states or statements: no transaction is executed here.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Sequence

from retroact.engine.contract import History, Trace
from retroact.engine.hashing import present_hashing
from retroact.errors import LoadFailed, SourceMissing
from retroact.function.kind import Kind
from retroact.function.names import plain_name
from retroact.function.registry import Registry
from retroact.replay.divergence import Verdict, show_outcome
from retroact.replay.replayer import Progress, Replayer, Report, WorkflowReplayed, chosen_records
from retroact.replay.shelf import Shelf
from retroact.replay.stage import Call, Stage
from retroact.replay.suspicion import suspicion
from retroact.trace.failure import revive
from retroact.trace.record import Record, Run, RunId


def replay_workflows(trace: Trace, shelf: Shelf, runs: Iterable[RunId]) -> tuple[WorkflowReplayed, ...]:
    """Run the bodies of those of the runs that are workflows. Raises UnknownRun."""
    found = (trace.run(run) for run in runs)
    return tuple(_replay(trace, shelf, run) for run in found if run.kind == Kind.WORKFLOW.value)


def _replay(trace: Trace, shelf: Shelf, run: Run) -> WorkflowReplayed:
    try:
        registry = shelf.registry(run)
        function = shelf.function(run)
    except (SourceMissing, LoadFailed) as error:
        return WorkflowReplayed(run=run, verdict=Verdict.RECORDED_RESULTS, reason=str(error))
    director = _Director(trace, {plain_name(f.module): sys.modules[f.module] for f in registry})
    stage = Stage(director.answer, lambda _: run.began_us)
    player = stage.enter(run.run, function, run.arguments.encode(), registry)
    try:
        stage.settle()
        while director.problem is None and any(director.answer(call) for call in stage.pending()):
            stage.settle()
        problem = director.problem
        if problem is None and run.outcome is not None:
            if player.outcome is None:
                problem = "it waits for a call that the record does not have"
            elif not _same(player.outcome, run.outcome):
                problem = f"the record says it {show_outcome(run.outcome)}, the replay {show_outcome(player.outcome)}"
    finally:
        stage.close()
    if problem is None:
        return WorkflowReplayed(run=run, verdict=Verdict.IDENTICAL)
    hint = suspicion(trace.hashing(run.last or 0), present_hashing())
    return WorkflowReplayed(run=run, verdict=Verdict.DIVERGED, reason=f"{problem}. {hint}" if hint else problem)


def _same(now: object, then: object) -> bool:
    return show_outcome(now) == show_outcome(then)  # pyright: ignore[reportArgumentType]


class _Director:
    """Answers every call from the record of its run, by its number."""

    def __init__(self, trace: Trace, modules: dict[str, object]) -> None:
        self.problem: str | None = None
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
        if record.outcome.failure is not None:
            call.fail(revive(record.outcome.failure, invocation.run, self._modules))  # pyright: ignore[reportArgumentType]
        else:
            value = invocation.function.schema.decode_result(record.outcome.value or "null")
            call.resolve(value, record.began_us + record.elapsed_us)
        return True

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
