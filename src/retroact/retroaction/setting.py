"""What an exploration begins with: the chosen runs before anything of them happened, and the state of that time.

  * The state is that of the first version that a chosen run saw. Runs that were over by then because they made the schema keep their
    place: they are in it.
  * All others begin together, whether or not they met when they were recorded: what could have been is asked, not what was.
  * Runs that were not chosen take no part. The report says how many transactions of theirs are left out.
  * A transaction lives in the moment of its record; one that the record does not know, in that of its function or of its run. So its
    moment does not depend on the schedule.
  * A step is answered from the record by function and arguments, first come, first served within its run.

This module must not know schedules.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from retroact.engine.clock import SystemClock
from retroact.engine.contract import History, Invocation
from retroact.errors import LoadFailed, NoRecordedOutcome, SourceMissing
from retroact.function.declare import Function
from retroact.function.kind import Kind
from retroact.function.names import plain_name
from retroact.function.registry import Registry
from retroact.replay.replayer import chosen_records
from retroact.replay.shelf import Shelf
from retroact.retroaction.cast import Ended, Place, World
from retroact.retroaction.exploration import StepPolicy, Unrecorded
from retroact.retroaction.rehearsal import Answer, NoAnswer, Part
from retroact.trace.codec import encode_json
from retroact.trace.failure import revive
from retroact.trace.record import ALONE, Outcome, Record, Run, RunId, Version

_SCHEMA = ("create", "drop", "alter")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What an exploration begins with."""

    version: Version
    runs: tuple[Run, ...]
    places: tuple[Place, ...]
    invariants: tuple[Function[..., Any], ...]
    moments: Mapping[tuple[RunId, int, str], tuple[int, int]]
    #: Moments of functions in a run, and of runs, for calls that were not recorded.
    functions: Mapping[tuple[RunId, str], int]
    began_us: Mapping[RunId, int]
    left_out: int

    def moment(self, call: Invocation) -> tuple[int, int]:
        """The moment that an invocation lives in, and when it ended (0: not known)."""
        found = self.moments.get((call.run, int(call.step), call.function.name))
        if found is not None:
            return found
        root = next((run.run for run in self.runs if call.run == run.run or call.run.startswith(f"{run.run}.")), call.run)
        return self.functions.get((call.run, call.function.name)) or self.began_us.get(root, 0), 0


def prepare(history: History, shelf: Shelf, runs: Sequence[RunId], changed: Registry | None, steps: Mapping[str, StepPolicy]) -> Setting:
    """Bring the chosen runs to their beginning. Raises UnknownRun, UnknownFunction, SourceMissing, LoadFailed, DamagedTrace."""
    named = [history.trace.run(run) for run in dict.fromkeys(runs)]
    chosen = [run for run in named if not any(run.parent and run.run.startswith(f"{other.run}.") for other in named)]
    records = chosen_records(history, [run.run for run in chosen])
    version, playing = _beginning(history, chosen, records)
    last = max((r.version for r in records), default=version)
    history.trace.verify(version, last)
    theirs = {r.version for r in records}
    others = [r for r in history.trace.records_between(version, last) if r.kind == "transaction" and r.changes]
    sources = {run.run: (changed or shelf.registry(run)) for run in playing}
    answers = _Answers(records, sources, steps)
    moments = {(r.run, int(r.step), r.function): (r.began_us, r.began_us + r.elapsed_us) for r in records}
    unknown = (0, 0)
    world = World(answers.step, _Parts(records), lambda call: moments.get((call.run, int(call.step), call.function.name), unknown)[1])
    return Setting(
        version=version,
        runs=tuple(playing),
        places=tuple(_place(world, run, sources[run.run], shelf, changed) for run in playing),
        invariants=changed.invariants if changed is not None else _invariants(sources, shelf, playing),
        moments=moments,
        functions={(r.run, r.function): r.began_us for r in reversed(records)},
        began_us={run.run: run.began_us for run in chosen},
        left_out=sum(r.version not in theirs for r in others),
    )


def _beginning(history: History, chosen: Sequence[Run], records: Sequence[Record]) -> tuple[Version, list[Run]]:
    """The state in which all begin, and the runs that do: those that made the schema before are in it."""
    transactions = [r for r in records if r.kind == "transaction"]
    makers = {_root(r.run, chosen) for r in transactions if any(s.sql.lstrip().lower().startswith(_SCHEMA) for s in r.statements)}
    others = [r.snapshot for r in transactions if _root(r.run, chosen) not in makers]
    first = min(others, default=None)
    early = {m for m in makers if first is not None and all(r.version <= first for r in transactions if _root(r.run, chosen) == m)}
    playing = [run for run in chosen if run.run not in early]
    left = [r.snapshot for r in transactions if _root(r.run, chosen) not in early]
    return min(left, default=history.trace.last_version()), playing


def _root(run: RunId, chosen: Sequence[Run]) -> RunId:
    return next((c.run for c in chosen if run == c.run or run.startswith(f"{c.run}.")), run)


def _place(world: World, run: Run, registry: Registry, shelf: Shelf, changed: Registry | None) -> Place:
    function = changed.get(run.function) if changed is not None else shelf.function(run)
    part = Part(run=run.run, function=function, arguments=run.arguments.encode(), began_us=run.began_us, registry=registry)
    match function.kind:
        case Kind.WORKFLOW:
            return world.begin(part)
        case Kind.TRANSACTION:
            return Ended(None, (Invocation(run=run.run, step=ALONE, function=function, arguments=part.arguments),))
        case _:
            return Ended(run.outcome)  # the outside world is not asked again


def _invariants(sources: Mapping[RunId, Registry], shelf: Shelf, runs: Sequence[Run]) -> tuple[Function[..., Any], ...]:
    """Those of the code that the runs were made by; of several versions the newest counts."""
    found: dict[str, Function[..., Any]] = {}
    for run in sorted(runs, key=lambda run: run.began_us):
        try:
            found.update({f.name: f for f in sources.get(run.run, shelf.registry(run)).invariants})
        except (SourceMissing, LoadFailed):
            continue
    return tuple(found.values())


class _Parts:
    """Makes the part that a call of a workflow is."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._began: dict[RunId, int] = {}
        for record in records:
            self._began.setdefault(record.run, record.began_us)

    def __call__(self, call: Invocation, run: RunId, parent: Part) -> Part:
        began_us = self._began.get(run, parent.began_us)
        return Part(run=run, function=call.function, arguments=call.arguments, began_us=began_us, registry=parent.registry)


class _Answers:
    """Answers steps: from the record, else as the policy for the step says."""

    def __init__(self, records: Sequence[Record], sources: Mapping[RunId, Registry], policies: Mapping[str, StepPolicy]) -> None:
        self._policies = policies
        self._modules: dict[str, ModuleType] = {
            plain_name(f.module): sys.modules[f.module] for registry in sources.values() for f in registry if f.module in sys.modules
        }
        self._recorded: dict[tuple[RunId, str, str], list[Record]] = {}
        self._any: dict[str, Record] = {}
        self._policy_of = {Unrecorded.FAIL: self._fail, Unrecorded.MOCK: self._mock, Unrecorded.LIVE: self._carry_out}
        self._live: dict[tuple[RunId, str, bytes, int], Answer] = {}
        for record in records:
            if record.kind != "transaction":
                sleeping = record.function == "retroact.sleep"
                self._recorded.setdefault((record.run, record.function, "" if sleeping else record.arguments), []).append(record)
                if record.outcome.committed:
                    self._any.setdefault(record.function, record)

    def step(self, call: Invocation, before: int) -> Answer:
        """The answer to a step of which so many equal ones were made before. Raises NoAnswer."""
        name = call.function.name
        sleeping = name == "retroact.sleep"
        recorded = self._recorded.get((call.run, name, "" if sleeping else call.arguments.decode()), [])
        if before < len(recorded):
            return self._as_recorded(recorded[before], call.run)
        if sleeping:
            (until_us,), _ = call.function.schema.decode_arguments(call.arguments)
            return Answer(Outcome(value="null"), None, until_us)
        policy = self._policies.get(name, StepPolicy(Unrecorded.FAIL))
        return self._policy_of[policy.unrecorded](call, policy, before)

    def _as_recorded(self, record: Record, run: RunId) -> Answer:
        failure = record.outcome.failure
        error = None if failure is None else revive(failure, run, self._modules)
        return Answer(record.outcome, error, record.began_us + record.elapsed_us)

    def _fail(self, call: Invocation, _policy: StepPolicy, _before: int) -> Answer:
        raise NoAnswer(NoRecordedOutcome(function=call.function.name, run=call.run, step=call.step))

    def _mock(self, call: Invocation, policy: StepPolicy, before: int) -> Answer:
        if policy.has_result:
            return Answer(Outcome(value=encode_json(policy.result).decode()), None)
        record = self._any.get(call.function.name)
        if record is None:
            return self._fail(call, policy, before)
        return Answer(record.outcome, None)

    def _carry_out(self, call: Invocation, _policy: StepPolicy, before: int) -> Answer:
        """Once, however many schedules come by."""
        key = (call.run, call.function.name, call.arguments, before)
        found = self._live.get(key)
        if found is None:
            found = self._live[key] = _carried_out(call)
        return found


def _carried_out(call: Invocation) -> Answer:
    """Carry out a step for real."""
    import asyncio  # noqa: PLC0415 - few need it
    import threading  # noqa: PLC0415

    from retroact.workflow.step import StepRunner  # noqa: PLC0415

    runner = StepRunner(SystemClock(), lambda work, timeout: asyncio.run(asyncio.wait_for(work, timeout)))
    carried: list[Any] = []
    # In a thread of its own: the rehearsal may stand in an event loop, and in the scope of a workflow.
    thread = threading.Thread(target=lambda: carried.append(runner.carry_out(call, None, in_doubt=False, interrupt=threading.Event())))
    thread.start()
    thread.join()
    return Answer(carried[0].outcome, carried[0].error, carried[0].ended_us)
