"""Runs changed code over a trace in the original schedule, on a branch of the past.

The schedule is a list of *slots*, one for each recorded transaction, in the order of what they saw. The chosen runs are brought on a
stage with the changed code; whenever one of their slots comes, its run has a transaction executed there:

  * the one of the same function, if it asks for it;
  * if it asks for a function that a later slot of the run is for, this slot's call is no longer made: the slot passes;
  * a function that no slot of the run is for runs at once after its predecessor, or, when the next slot is for a function that the
    changed code no longer has, in that slot's place.

So a fix that merges two transactions runs where the first was; one that splits a transaction runs both parts where it was. The other
runs of that time execute their recorded code in their own slots, on whatever state they now find.

A transaction that `cutoff.py` finds to be as it was is passed over: its recorded changes and outcome are taken. A workflow of which
nothing but such transactions has come sleeps; it is brought on, and given the outcomes that it missed, when one comes that is not.

This module must not know where the past comes from, nor how a difference is shown.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from retroact.engine.clock import monotonic
from retroact.engine.contract import Branch, Entangled, Entry, History, Invocation, Scan, SchemaMoved, Trial
from retroact.errors import LoadFailed, NoRecordedOutcome, SourceMissing
from retroact.function.code import captured
from retroact.function.given import supply
from retroact.function.kind import Kind
from retroact.function.names import plain_name
from retroact.function.registry import Registry
from retroact.replay.replayer import invocation_of, moment, partly_forgotten
from retroact.replay.shelf import Shelf
from retroact.replay.stage import Call, Player, Stage
from retroact.retroaction.concern import Concerns, Place, places_of
from retroact.retroaction.cutoff import Cutoff, Unchanged, is_schema, moves_schema, touched_by_stored
from retroact.retroaction.difference import (
    Answers,
    Difference,
    Effort,
    Event,
    RunDifference,
    as_it_was,
    decided,
    removed,
    rows_that_differ,
    touched_by,
)
from retroact.retroaction.invariant import Watch
from retroact.retroaction.sleepers import revives, sleepers
from retroact.trace.codec import encode_json
from retroact.trace.failure import revive
from retroact.trace.record import ALONE, Change, Outcome, Record, Run, RunId, Statement, Version

Progress = Callable[[int, int], None]


class _Astray(Exception):
    """A sleeping workflow does not make the calls that it made: it has to be watched from its beginning."""


@dataclasses.dataclass(slots=True)
class _Slots:
    """The recorded transactions of one run that have not had their turn."""

    waiting: collections.deque[Entry]

    def knows(self, function: str) -> bool:
        """Whether a slot still to come is for that function."""
        return any(entry.function == function for entry in self.waiting)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What is run instead of what ran."""

    changed: Registry
    #: The recorded code.
    shelf: Shelf
    #: Results for steps that the record has none for, by function name.
    answers: Mapping[str, Any]
    modules: Mapping[str, Any]


class Retroactor:
    """Runs changed code over chosen runs of one history."""

    def __init__(
        self,
        history: History,
        shelf: Shelf,
        changed: Registry,
        answers: Mapping[str, Any] | None = None,
        *,
        full: bool = False,
    ) -> None:
        """`answers` gives results for steps that the record has none for, by function name. `full` executes everything."""
        self._history = history
        modules = {plain_name(f.module): sys.modules[f.module] for f in changed}
        self._code = Code(changed=changed, shelf=shelf, answers=dict(answers or {}), modules=modules)
        self._full = full
        supply((f.module for f in changed), captured(f.module for f in changed))

    def run(self, runs: Sequence[RunId], progress: Progress | None = None) -> Difference:
        """What the changed code would have changed. Raises UnknownRun, UnknownFunction, DamagedTrace, BeyondHistory."""
        began = monotonic()
        scan = self._history.trace.scan(runs)
        if scan.forgotten is not None:
            raise partly_forgotten(self._history, scan.forgotten.record)
        alone = {entry.function_number for entry in scan.alone.values()}
        for function in {*(run.function for run in scan.runs.values()), *(scan.functions[number][0] for number in alone)}:
            self._code.changed.get(function)
        try:
            return self._play(scan, progress, began, full=self._full)
        except (_Astray, Entangled):
            return self._play(scan, progress, began, full=True)

    def _play(self, scan: Scan, progress: Progress | None, began: float, *, full: bool) -> Difference:
        play = _Play(self._history, self._code, scan, full=full)
        try:
            play.perform(progress)
            return play.difference(monotonic() - began)
        finally:
            play.close()


class _Play:
    """One retroaction, under way."""

    def __init__(self, history: History, code: Code, scan: Scan, *, full: bool) -> None:
        self._history = history
        self._scan = scan
        self._code = code
        self._chosen = scan.runs
        transactions = {number for number, function in scan.functions.items() if function[1] == Kind.TRANSACTION.value}
        self._own: dict[RunId, list[Entry]] = collections.defaultdict(list)
        for entry in scan.entries:
            if entry.step != ALONE and entry.run in scan.families:
                self._own[entry.run].append(entry)
        self._slots = {
            run: _Slots(collections.deque(e for e in entries if e.function_number in transactions)) for run, entries in self._own.items()
        }
        self._steps_taken: set[int] = set()
        self._schedule = [e for e in scan.entries if e.function_number in transactions]
        if not scan.in_order:
            # A reader of another run may have been recorded later than it read: before all of this.
            self._schedule = sorted((e for e in self._schedule if e.snapshot >= scan.first), key=moment)
        self._then, self._now = history.at(scan.first), history.at(scan.first)
        invariants = code.changed.invariants or self._recorded_invariants()
        self._before, self._after = Watch(invariants), Watch(invariants)
        self._concerns_then, self._concerns_now = Concerns(self._before.names), Concerns(self._after.names)
        self._stage = Stage(self._answer_step, self._began_us)
        #: What differs, or may, and records of which nothing does.
        self._events: list[Event | Entry] = []
        self._touched: dict[str, set[int | None]] = {}
        self._alone: dict[RunId, Outcome] = {}
        unchanged = Unchanged(scan, code.changed, code.shelf)
        self._cutoff = None if full else Cutoff(scan, unchanged)
        #: Chosen workflows that have not been brought on, with what they missed.
        self._asleep: dict[RunId, list[Entry]] = {} if full else {run: [] for run in sleepers(scan, self._own, unchanged, code.modules)}
        self._effort = collections.Counter[str]()

    def perform(self, progress: Progress | None) -> None:
        """Go through the schedule."""
        self._before.begin(self._then)
        self._after.begin(self._now)
        self._concerns_then.learn(self._before.names, self._then)
        self._concerns_now.learn(self._after.names, self._now)
        beside = self._cutoff is None or bool(self._before.names)
        passes = self._passes if beside or self._cutoff is None else self._passes_alone(self._cutoff)
        for number, entry in enumerate(self._schedule, start=1):
            if beside:
                self._original(entry)
            if not passes(entry):
                self._turn(entry)
            if progress is not None:
                progress(number, len(self._schedule))
        for run in self._chosen.values():
            if run.kind == Kind.WORKFLOW.value and run.run not in self._asleep:
                self._enter(run.run)
        self._run_out()

    def _turn(self, entry: Entry) -> None:
        """A slot whose transaction may not be as it was."""
        if entry.run not in self._scan.families:
            self._bystander(entry)
        elif entry.step == ALONE:
            self._alone_again(entry)
        else:
            self._enter(entry.run)
            self._serve(entry, self._slots[entry.run])

    def difference(self, seconds: float) -> Difference:
        """What was found."""
        if self._cutoff is not None:
            rows = self._cutoff.rows(self._now, self._last_then)
        else:
            rows = rows_that_differ(self._then, self._now, self._touched)
        return Difference(
            runs=Answers(self._run_differences(), RunDifference, self._as_recorded),
            events=Answers(self._events, Event, as_it_was),
            rows=rows,
            violations_before=tuple(self._before.violations),
            violations_after=tuple(self._after.violations),
            invariants=self._before.names,
            seconds=seconds,
            effort=Effort(**self._effort),
        )

    def _last_then(self) -> Branch:
        """The state as it was in the end. Nobody went there when no invariant was to be asked on the way."""
        if not self._before.names:
            self._then.close()
            self._then = self._history.at(self._scan.last)
        return self._then

    def close(self) -> None:
        """Let players and branches go."""
        self._stage.close()
        self._then.close()
        self._now.close()

    # --- the original beside it ----------------------------------------------------------------------------------------------

    def _original(self, entry: Entry) -> None:
        """Move the state as it was on by one record, and see what it broke."""
        if entry.changes is None or entry.snapshot != entry.version - 1:
            return
        if self._cutoff is None:
            self._advance_then(entry.record)
            touched_by(entry.record.changes, self._touched)
            self._before.look(self._then, entry.run, entry.function, entry.version)
        elif self._before.names:
            if moves_schema(entry):
                self._advance_then(entry.record)
                names = list(self._before.names)
            else:
                self._then.defer(entry.changes, self._scan.relations)
                names = self._concerns_then.of(self._places(entry))
            if names:
                self._before.look(self._then, entry.run, entry.function, entry.version, names)
                self._concerns_then.learn(names, self._then)

    def _advance_then(self, record: Record) -> None:
        try:
            self._then.advance(record)
        except SchemaMoved:
            self._then.close()
            self._then = self._history.at(record.version)

    def _places(self, entry: Entry) -> list[Place]:
        assert entry.changes is not None, "asked only of what changed something"
        found = touched_by_stored((entry.changes,), self._scan.relations, lambda _: True)
        return [(table, rowid) for table, rowids in found.items() for rowid in rowids]

    # --- what need not be run again ------------------------------------------------------------------------------------------

    def _passes(self, entry: Entry) -> bool:
        """Pass over a transaction that is as it was, if nobody has to be told its outcome."""
        cutoff = self._cutoff
        if cutoff is None:
            return False
        root = self._scan.families.get(entry.run)
        if root is None:
            unchanged = cutoff.code.bystander(entry)
        else:
            unchanged = (entry.step == ALONE or root in self._asleep) and cutoff.code.chosen(entry.function_number)
        if not unchanged or not self._is_as_it_was(entry, cutoff):
            return False
        if root is not None and entry.step != ALONE:
            self._slots[entry.run].waiting.popleft()
            self._asleep[root].append(entry)
        return True

    def _passes_alone(self, cutoff: Cutoff) -> Callable[[Entry], bool]:
        """`_passes`, made quick for the many transactions that no workflow and no invariant waits for."""
        families, reaches, defer, relations = self._scan.families, cutoff.reaches, self._now.defer, self._scan.relations
        chosen, others = cutoff.code.chosen, cutoff.code.bystander
        events, effort, now, general = self._events, self._effort, self._now, self._passes

        def passes(entry: Entry) -> bool:
            told = entry.run in families
            if entry.step != ALONE and told:
                return general(entry)
            changes = entry.changes
            if (changes is not None and moves_schema(entry)) or not (chosen(entry.function_number) if told else others(entry)):
                return False
            if reaches(entry, now):
                return general(entry)
            if changes is not None:
                defer(changes, relations)
            if told:
                events.append(entry)
            effort["untouched"] += 1
            return True

        return passes

    def _is_as_it_was(self, entry: Entry, cutoff: Cutoff) -> bool:
        """Whether a transaction with unchanged code does the same on the branch; then its changes are taken, and it is told so."""
        if moves_schema(entry):
            return False
        places: list[Place] = []
        if not cutoff.reaches(entry, self._now):
            self._effort["untouched"] += 1
            if entry.changes is not None:
                self._now.defer(entry.changes, self._scan.relations)
                places = self._places(entry) if self._after.names else []
        else:
            changes = None if cutoff.dirty.everything else self._now.retrace(entry.record)
            if changes is None:
                return False
            self._now.keep()
            self._effort["checked"] += 1
            self._differ(entry.record, changes, entry.record.statements)
            places = places_of(changes)
        broke = self._look(entry.run, entry.function, entry.version, places, beside=True) if places else ()
        if entry.run in self._scan.families:
            self._events.append(dataclasses.replace(as_it_was(entry), broke=broke) if broke else entry)
        return True

    def _differ(self, record: Record | None, changes: tuple[Change, ...], statements: Sequence[Statement]) -> None:
        """Note what the branch changed in the place of a record."""
        if self._cutoff is None:
            touched_by(changes, self._touched)
        else:
            self._cutoff.note(record, changes, statements, self._now)

    def _look(self, run: RunId, function: str, version: Version, places: list[Place], *, beside: bool = False) -> tuple[str, ...]:
        """See which invariants a transaction broke on the branch. `beside`: the state as it was is at the same place."""
        names = list(self._after.names) if self._cutoff is None else self._concerns_now.of(places)
        followed: list[str] = []
        if beside and self._cutoff is not None:
            followed = [name for name in names if self._cutoff.answers_alike(self._then.asked(name), self._now)]
        looked = [name for name in names if name not in followed]
        broken = self._after.follow(self._before, run, function, version, followed)
        broken += self._after.look(self._now, run, function, version, looked)
        if self._cutoff is not None:
            self._concerns_now.copy(self._concerns_then, followed)
            self._concerns_now.learn(looked, self._now)
        return tuple(v.invariant for v in broken)

    def _bystander(self, entry: Entry) -> None:
        """A transaction of a run that was not chosen: its recorded code, on the state as it is now."""
        record = entry.record
        try:
            function = self._code.shelf.function(record)
        except (SourceMissing, LoadFailed):
            self._now.settle()
            self._now.advance(record)
            self._differ(record, record.changes, record.statements)
            return
        invocation = invocation_of(record, function)
        trial = self._execute(invocation, record, record)
        self._note(invocation, record, record, trial, told=trial.outcome != record.outcome or trial.changes != record.changes)

    def _alone_again(self, entry: Entry) -> None:
        """A transaction that was chosen by itself."""
        record = entry.record
        invocation = invocation_of(record, self._code.changed.get(record.function))
        trial = self._execute(invocation, record, record)
        self._alone[record.run] = trial.outcome
        self._note(invocation, record, record, trial)

    # --- the chosen workflows --------------------------------------------------------------------------------------------------

    def _enter(self, run: RunId) -> None:
        """Bring a chosen workflow on when its first turn comes; a child is brought on by its parent."""
        root = self._scan.families[run]
        if root not in self._stage.players:
            info = self._chosen[root]
            changed = self._code.changed
            self._stage.enter(root, changed.get(info.function), info.arguments.encode(), changed)
            self._stage.settle()
            for entry in self._asleep.pop(root, ()):
                self._catch_up(entry)
        self._stage.settle()

    def _catch_up(self, entry: Entry) -> None:
        """Give a workflow the outcome of a transaction that was passed over while it slept. Raises _Astray."""
        record = entry.record
        for call in self._stage.pending():
            asked = call.invocation
            if (asked.run, asked.step, asked.function.name, asked.arguments.decode()) == (
                record.run,
                record.step,
                record.function,
                record.arguments,
            ):
                self._answer_as(call, record.outcome, record.began_us + record.elapsed_us)
                self._stage.settle()
                return
        raise _Astray

    def _serve(self, entry: Entry, slots: _Slots) -> None:
        """A slot has come: let its run have its turn."""
        record = entry.record
        slots.waiting.popleft()
        used = kept = False
        while True:
            call = self._next_call(record, slots, used=used)
            if call is None:
                break
            matched = not used and call.invocation.function.name == record.function
            replaces = not used and not matched and record.function not in self._code.changed
            used = used or matched or replaces
            kept = kept or matched
            if not (matched and self._answered(call, entry)):
                self._grant(call, record, record if matched else None)
        if not kept:
            self._differ(record, (), ())
            self._events.append(removed(record))

    def _answered(self, call: Call, entry: Entry) -> bool:
        """Answer a call from its record, if it is the same call of the same code and finds what it found."""
        cutoff, asked, record = self._cutoff, call.invocation, entry.record
        if (
            cutoff is None
            or (asked.step, asked.arguments.decode()) != (record.step, record.arguments)
            or not cutoff.code.chosen(entry.function_number)
            or not (record.outcome.committed or revives(record, self._code.modules))
            or not self._is_as_it_was(entry, cutoff)
        ):
            return False
        self._answer_as(call, record.outcome, record.began_us + record.elapsed_us)
        self._stage.settle()
        return True

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
        if used and following is not None and following not in self._code.changed:
            return None  # it takes the place of the next recorded call, which the changed code no longer has
        return unknown[0]

    def _run_out(self) -> None:
        """The schedule is over: what is still asked for runs now, one after the other, first the run whose first turn was first."""
        self._stage.settle()
        turns = {
            run: number
            for number, run in enumerate(dict.fromkeys([*(self._scan.families.get(e.run) for e in self._schedule), *self._chosen]))
        }
        last = self._schedule[-1].record if self._schedule else None
        while True:
            calls = self._stage.pending()
            if not calls:
                return
            self._grant(min(calls, key=lambda call: turns[self._root_of(call.invocation.run)]), last, None)

    def _root_of(self, run: RunId) -> RunId:
        while run not in self._chosen:
            run = RunId(run.rpartition(".")[0])
        return run

    def _grant(self, call: Call, slot: Record | None, record: Record | None) -> None:
        """Execute a call on the branch and give the player its result."""
        trial = self._execute(call.invocation, record or slot, record)
        self._note(call.invocation, slot, record, trial)
        ended_us = (record or slot).began_us + (record or slot).elapsed_us if (record or slot) else 0  # pyright: ignore[reportOptionalMemberAccess]
        if trial.error is not None:
            call.fail(trial.error, ended_us)
        else:
            call.resolve(call.invocation.function.schema.decode_result(trial.outcome.value or "null"), ended_us)
        self._stage.settle()

    def _answer_step(self, call: Call) -> None:
        """A step is answered from the record: by the same function with the same arguments, in the order of the record."""
        name, arguments = call.invocation.function.name, call.invocation.arguments.decode()
        sleeping = name == "retroact.sleep"
        for entry in self._own.get(call.invocation.run, ()):
            if entry.function != name or entry.version in self._steps_taken:
                continue
            record = entry.record
            if sleeping or record.arguments == arguments:
                self._steps_taken.add(record.version)
                self._answer_as(call, record.outcome, record.began_us + record.elapsed_us)
                return
        if sleeping:
            call.resolve(None, 0)
        elif name in self._code.answers:
            self._answer_as(call, Outcome(value=encode_json(self._code.answers[name]).decode()), 0)
        else:
            fault = NoRecordedOutcome(function=name, run=call.invocation.run, step=call.invocation.step)
            self._stage.players[call.invocation.run].scope.fault = fault
            call.fail(fault)

    def _answer_as(self, call: Call, outcome: Outcome, ended_us: int) -> None:
        if outcome.failure is not None:
            call.fail(revive(outcome.failure, call.invocation.run, self._code.modules), ended_us)
        else:
            call.resolve(call.invocation.function.schema.decode_result(outcome.value or "null"), ended_us)

    # --- executing -------------------------------------------------------------------------------------------------------------

    def _execute(self, invocation: Invocation, place: Record | None, record: Record | None) -> Trial:
        """Run a body on the branch, in the moment of the record whose place it has; `record` is the same call as it was recorded."""
        self._effort["executed"] += 1
        now_us = place.began_us if place is not None else 0
        seed = (
            invocation.seed
            if record is None
            else Invocation(run=record.run, step=record.step, function=invocation.function, arguments=b"").seed
        )
        trial = self._now.attempt(invocation, now_us, seed)
        if trial.error is None:
            self._now.keep()
        else:
            self._now.undo()
        self._differ(record, trial.changes, trial.statements)
        return trial

    def _note(self, invocation: Invocation, slot: Record | None, record: Record | None, trial: Trial, *, told: bool = True) -> None:
        version = slot.version if slot is not None else self._scan.last
        broken: tuple[str, ...] = ()
        if trial.changes and self._after.names:
            if is_schema(trial.changes):
                self._concerns_now = Concerns(self._after.names)
            broken = self._look(invocation.run, invocation.function.name, version, places_of(trial.changes))
        if not told:
            return
        self._events.append(
            Event(
                run=invocation.run,
                function=invocation.function.name,
                arguments=invocation.arguments.decode(),
                version=version,
                record=record,
                outcome=trial.outcome,
                changes=trial.changes,
                broke=broken,
            )
        )

    def _run_differences(self) -> Iterator[RunDifference | Run | Entry]:
        """What came of each run; the run itself when it is as it was."""
        for run in dict.fromkeys(self._scan.chosen):
            info = self._chosen.get(run)
            if info is None:
                entry = self._scan.alone[run]
                yield entry if run not in self._alone else decided(self._scan.run_of(entry), self._alone[run], None)
                continue
            player: Player | None = self._stage.players.get(run)
            if player is None and (run in self._asleep or info.kind != Kind.WORKFLOW.value):
                yield info  # the outside world is not asked again either
            else:
                fault = player.scope.fault if player is not None else None
                yield decided(info, None if player is None else player.outcome, fault)

    def _as_recorded(self, run: Any) -> RunDifference:
        info = run if isinstance(run, Run) else self._scan.run_of(run)
        return decided(info, info.outcome, None)

    def _began_us(self, run: RunId) -> int:
        info = self._chosen.get(run)
        if info is not None:
            return info.began_us
        entries = self._own.get(run)
        return entries[0].record.began_us if entries else 0

    def _recorded_invariants(self) -> tuple[Any, ...]:
        seen: set[int] = set()
        for entry in self._scan.entries:
            if entry.function_number in seen or entry.run not in self._scan.families:
                continue
            seen.add(entry.function_number)
            try:
                found = self._code.shelf.registry(entry.record).invariants
            except (SourceMissing, LoadFailed):
                continue
            if found:
                return found
        return ()
