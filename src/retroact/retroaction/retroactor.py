"""Runs changed code over a trace in the original schedule, on a branch of the past.

The schedule is a list of *slots*, one for each recorded transaction, in the order of what they saw. The chosen runs are brought on a
stage with the changed code; whenever one of their slots comes, its run has a transaction executed there:

  * the one of the same function, if it asks for it;
  * if it asks for a function that a later slot of the run is for, this slot's call is no longer made: the slot passes;
  * a function that no slot of the run is for runs at once after its predecessor, or, when the next slot is for a function that the
    changed code no longer has, in that slot's place.

So a fix that merges two transactions runs where the first was; one that splits a transaction runs both parts where it was. The other
runs of that time execute their recorded code in their own slots, on whatever state they now find.

This module must not know where the past comes from, nor how a difference is shown.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retroact.engine.clock import monotonic
from retroact.engine.contract import History, Invocation, SchemaMoved, Trial
from retroact.errors import LoadFailed, NoRecordedOutcome, SourceMissing
from retroact.function.code import captured
from retroact.function.given import supply
from retroact.function.kind import Kind
from retroact.function.names import plain_name
from retroact.function.registry import Registry
from retroact.replay.replayer import chosen_records, invocation_of, partly_forgotten
from retroact.replay.shelf import Shelf
from retroact.replay.stage import Call, Player, Stage
from retroact.retroaction.difference import Difference, Event, RunDifference, rows_that_differ, touched_by
from retroact.retroaction.invariant import Watch
from retroact.trace.codec import encode_json
from retroact.trace.failure import revive
from retroact.trace.record import ALONE, Outcome, Record, Run, RunId, Verb, Version

Progress = Callable[[int, int], None]


@dataclasses.dataclass(slots=True)
class _Slots:
    """The recorded transactions of one run that have not had their turn."""

    waiting: collections.deque[Record]

    def knows(self, function: str) -> bool:
        """Whether a slot still to come is for that function."""
        return any(record.function == function for record in self.waiting)


class Retroactor:
    """Runs changed code over chosen runs of one history."""

    def __init__(self, history: History, shelf: Shelf, changed: Registry, answers: Mapping[str, Any] | None = None) -> None:
        """`answers` gives results for steps that the record has none for, by function name."""
        self._history = history
        self._shelf = shelf
        self._changed = changed
        self._answers = dict(answers or {})
        self._modules = {plain_name(f.module): sys.modules[f.module] for f in changed}
        supply((f.module for f in changed), captured(f.module for f in changed))

    def run(self, runs: Sequence[RunId], progress: Progress | None = None) -> Difference:
        """What the changed code would have changed. Raises UnknownRun, UnknownFunction, DamagedTrace, BeyondHistory."""
        began = monotonic()
        chosen = {run: self._history.trace.run(run) for run in runs}
        for run in chosen.values():
            self._changed.get(run.function)
        play = _Play(self._history, self._shelf, self._changed, self._modules, self._answers, chosen)
        try:
            play.perform(progress)
            return play.difference(monotonic() - began)
        finally:
            play.close()


class _Play:
    """One retroaction, under way."""

    def __init__(
        self,
        history: History,
        shelf: Shelf,
        changed: Registry,
        modules: Mapping[str, Any],
        answers: Mapping[str, Any],
        chosen: Mapping[RunId, Run],
    ) -> None:
        self._history = history
        self._shelf = shelf
        self._changed = changed
        self._modules = modules
        self._answers = answers
        self._chosen = chosen
        self._own = chosen_records(history, chosen)
        self._recorded: dict[RunId, list[Record]] = collections.defaultdict(list)
        self._slots: dict[RunId, _Slots] = {}
        for record in self._own:
            self._recorded[record.run].append(record)
        for run, records in self._recorded.items():
            self._slots[run] = _Slots(collections.deque(r for r in records if r.kind == "transaction"))
        self._steps_taken: set[int] = set()
        first = min((r.snapshot for r in self._own), default=Version(0))
        self._last = max((r.version for r in self._own), default=Version(0))
        self._history.trace.verify(first, self._last)
        schedule = (r for r in history.trace.records_between(first, self._last) if r.kind == "transaction")
        self._schedule = sorted(schedule, key=lambda r: (r.snapshot, r.version))
        for record in self._schedule:
            if any(change.verb is Verb.DROPPED for change in record.changes):
                raise partly_forgotten(history, record)
        self._then, self._now = history.at(first), history.at(first)
        invariants = changed.invariants or self._recorded_invariants()
        self._before, self._after = Watch(invariants), Watch(invariants)
        self._invariants = tuple(f.name for f in invariants)
        self._stage = Stage(self._answer_step, self._began_us)
        self._events: list[Event] = []
        self._touched: dict[str, set[int | None]] = {}
        self._alone: dict[RunId, Outcome] = {}

    def perform(self, progress: Progress | None) -> None:
        """Go through the schedule."""
        self._before.begin(self._then)
        self._after.begin(self._now)
        for number, record in enumerate(self._schedule, start=1):
            self._original(record)
            slots = self._slots.get(record.run)
            if slots is None:
                self._bystander(record)
            elif record.step == ALONE:
                slots.waiting.popleft()
                self._alone_again(record)
            else:
                self._enter(record.run)
                self._serve(record, slots)
            if progress is not None:
                progress(number, len(self._schedule))
        for run in self._chosen.values():
            if run.kind == Kind.WORKFLOW.value:
                self._enter(run.run)
        self._run_out()

    def difference(self, seconds: float) -> Difference:
        """What was found."""
        return Difference(
            runs=tuple(self._run_difference(run) for run in self._chosen.values()),
            events=tuple(self._events),
            rows=rows_that_differ(self._then, self._now, self._touched),
            violations_before=tuple(self._before.violations),
            violations_after=tuple(self._after.violations),
            invariants=self._invariants,
            seconds=seconds,
        )

    def close(self) -> None:
        """Let players and branches go."""
        self._stage.close()
        self._then.close()
        self._now.close()

    # --- the original beside it ----------------------------------------------------------------------------------------------

    def _original(self, record: Record) -> None:
        """Move the state as it was on by one record, and see what it broke."""
        if record.snapshot != record.version - 1:
            return
        try:
            self._then.advance(record)
        except SchemaMoved:
            self._then.close()
            self._then = self._history.at(record.version)
        touched_by(record.changes, self._touched)
        if record.changes:
            self._before.look(self._then, record.run, record.function, record.version)

    def _bystander(self, record: Record) -> None:
        """A transaction of a run that was not chosen: its recorded code, on the state as it is now."""
        try:
            function = self._shelf.function(record)
        except (SourceMissing, LoadFailed):
            self._now.advance(record)
            return
        trial = self._execute(invocation_of(record, function), record)
        if trial.outcome != record.outcome or trial.changes != record.changes:
            self._note(invocation_of(record, function), record, record, trial)

    def _alone_again(self, record: Record) -> None:
        """A transaction that was chosen by itself."""
        invocation = invocation_of(record, self._changed.get(record.function))
        trial = self._execute(invocation, record)
        self._alone[record.run] = trial.outcome
        self._note(invocation, record, record, trial)

    # --- the chosen workflows --------------------------------------------------------------------------------------------------

    def _enter(self, run: RunId) -> None:
        """Bring a chosen workflow on when its first turn comes; a child is brought on by its parent."""
        if run in self._chosen and run not in self._stage.players:
            info = self._chosen[run]
            self._stage.enter(run, self._changed.get(info.function), info.arguments.encode(), self._changed)
        elif run not in self._stage.players:
            root = next((r for r in self._chosen if run.startswith(f"{r}.")), None)
            if root is not None:
                self._enter(root)
        self._stage.settle()

    def _serve(self, record: Record, slots: _Slots) -> None:
        """A slot has come: let its run have its turn."""
        slots.waiting.popleft()
        used = kept = False
        while True:
            call = self._next_call(record, slots, used=used)
            if call is None:
                break
            matched = not used and call.invocation.function.name == record.function
            replaces = not used and not matched and record.function not in self._changed
            used = used or matched or replaces
            kept = kept or matched
            self._grant(call, record, record if matched else None)
        if not kept:
            self._events.append(_removed(record))

    def _next_call(self, record: Record, slots: _Slots, *, used: bool) -> Call | None:
        """The call that is to run now in this slot, if one is."""
        calls = [c for c in self._stage.pending() if c.invocation.run == record.run]
        if not used:
            same = [c for c in calls if c.invocation.function.name == record.function]
            exact = [c for c in same if c.invocation.arguments.decode() == record.arguments]
            if exact or same:
                return (exact or same)[0]
        unknown = [c for c in calls if not slots.knows(c.invocation.function.name)]
        if not unknown:
            return None
        following = slots.waiting[0].function if slots.waiting else None
        if used and following is not None and following not in self._changed:
            return None  # it takes the place of the next recorded call, which the changed code no longer has
        return unknown[0]

    def _run_out(self) -> None:
        """The schedule is over: what is still asked for runs now, one after the other."""
        self._stage.settle()
        while True:
            calls = self._stage.pending()
            if not calls:
                return
            last = self._schedule[-1] if self._schedule else None
            self._grant(calls[0], last, None)

    def _grant(self, call: Call, slot: Record | None, record: Record | None) -> None:
        """Execute a call on the branch and give the player its result."""
        trial = self._execute(call.invocation, record or slot, same=record is not None)
        self._note(call.invocation, slot, record, trial)
        ended_us = (record or slot).began_us + (record or slot).elapsed_us if (record or slot) else 0  # pyright: ignore[reportOptionalMemberAccess]
        if trial.error is not None:
            call.fail(trial.error)
        else:
            call.resolve(call.invocation.function.schema.decode_result(trial.outcome.value or "null"), ended_us)
        self._stage.settle()

    def _answer_step(self, call: Call) -> None:
        """A step is answered from the record: by the same function with the same arguments, in the order of the record."""
        name, arguments = call.invocation.function.name, call.invocation.arguments.decode()
        sleeping = name == "retroact.sleep"
        for record in self._recorded.get(call.invocation.run, ()):
            if record.function == name and (sleeping or record.arguments == arguments) and record.version not in self._steps_taken:
                self._steps_taken.add(record.version)
                self._answer_as(call, record.outcome, record.began_us + record.elapsed_us)
                return
        if sleeping:
            call.resolve(None, 0)
        elif name in self._answers:
            self._answer_as(call, Outcome(value=encode_json(self._answers[name]).decode()), 0)
        else:
            fault = NoRecordedOutcome(function=name, run=call.invocation.run, step=call.invocation.step)
            self._stage.players[call.invocation.run].scope.fault = fault
            call.fail(fault)

    def _answer_as(self, call: Call, outcome: Outcome, ended_us: int) -> None:
        if outcome.failure is not None:
            call.fail(revive(outcome.failure, call.invocation.run, self._modules))
        else:
            call.resolve(call.invocation.function.schema.decode_result(outcome.value or "null"), ended_us)

    # --- executing -------------------------------------------------------------------------------------------------------------

    def _execute(self, invocation: Invocation, moment: Record | None, *, same: bool = True) -> Trial:
        """Run a body on the branch, in the moment of the record whose place it has."""
        now_us = moment.began_us if moment is not None else 0
        seed = (
            Invocation(run=moment.run, step=moment.step, function=invocation.function, arguments=b"").seed
            if moment and same
            else invocation.seed
        )
        trial = self._now.attempt(invocation, now_us, seed)
        if trial.error is None:
            self._now.keep()
        else:
            self._now.undo()
        return trial

    def _note(self, invocation: Invocation, slot: Record | None, record: Record | None, trial: Trial) -> None:
        version = slot.version if slot is not None else self._last
        touched_by(trial.changes, self._touched)
        broken = self._after.look(self._now, invocation.run, invocation.function.name, version) if trial.changes else []
        self._events.append(
            Event(
                run=invocation.run,
                function=invocation.function.name,
                arguments=invocation.arguments.decode(),
                version=version,
                record=record,
                outcome=trial.outcome,
                changes=trial.changes,
                broke=tuple(v.invariant for v in broken),
            )
        )

    def _run_difference(self, run: Run) -> RunDifference:
        player: Player | None = self._stage.players.get(run.run)
        now = self._alone.get(run.run) if player is None else player.outcome
        if run.kind == Kind.STEP.value:
            now = run.outcome  # the outside world is not asked again
        fault = player.scope.fault if player is not None else None
        return RunDifference(
            run=run.run,
            function=run.function,
            arguments=run.arguments,
            then=run.outcome,
            now=None if fault else now,
            undecided=str(fault) if fault else None,
        )

    def _began_us(self, run: RunId) -> int:
        records = self._recorded.get(run)
        info = self._chosen.get(run)
        return info.began_us if info is not None else records[0].began_us if records else 0

    def _recorded_invariants(self) -> tuple[Any, ...]:
        for record in self._own:
            try:
                found = self._shelf.registry(record).invariants
            except (SourceMissing, LoadFailed):
                continue
            if found:
                return found
        return ()


def _removed(record: Record) -> Event:
    return Event(run=record.run, function=record.function, arguments=record.arguments, version=record.version, record=record, outcome=None)
