"""Explores the schedules of chosen runs on a branch of the past, and runs one schedule that was written down.

This module must not know where the past comes from, nor how what it found is shown.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Generator, Sequence

from retroact.engine.clock import monotonic
from retroact.engine.contract import Branch, History, Invocation, Nest
from retroact.errors import BadSchedule
from retroact.function.code import captured
from retroact.function.given import supply
from retroact.function.registry import Registry
from retroact.replay.shelf import Shelf
from retroact.retroaction.cast import Place
from retroact.retroaction.explanation import Explainer
from retroact.retroaction.exploration import NOT_SERIAL, Ending, Exploration, Options, Play, Schedule, Taken, Turn
from retroact.retroaction.ground import Around, Event, Ground, Path, Relearned, nobody
from retroact.retroaction.search import End, Found, Progress, Search, end_of
from retroact.retroaction.setting import Setting, prepare
from retroact.trace.record import ALONE, RunId

#: A schedule as it was walked: whose turn it was, which call, and what came of it.
_Walked = tuple[Schedule, Path, tuple[Place, ...]]
#: Is told each event of a schedule, with the invariants that it broke.
Told = Callable[[Event, tuple[str, ...]], None]


class Explorer:
    """Explores runs of one history, with the code that they ran with or with changed code."""

    def __init__(self, history: History, shelf: Shelf, changed: Registry | None = None, options: Options | None = None) -> None:
        self._history = history
        self._shelf = shelf
        self._changed = changed
        if changed is not None:
            supply((f.module for f in changed), captured(f.module for f in changed))
        self._options = options or Options()

    def explore(self, runs: Sequence[RunId], progress: Progress | None = None) -> Exploration:
        """Look at the schedules of some runs. Raises UnknownRun, UnknownFunction, SourceMissing, NotRepeatable, DamagedTrace."""
        began = monotonic()
        with self.beginning(runs) as session:
            found = Search(session.ground, session.setting.places, self._options, progress).run()
            return dataclasses.replace(session.told(found, self._options), seconds=monotonic() - began)

    def perform(self, runs: Sequence[RunId], text: str, around: Around | None = None) -> Play:
        """Run one schedule; runs that are not over when it ends go on one after the other.

        `around` is called for each transaction with its invocation and what executes it, and returns what that returned; a debugger
        stands there. Without `serial` each transaction is executed once, in the order of the schedule. Raises BadSchedule besides.
        """
        with self.beginning(runs, around) as beginning:
            return beginning.perform(text, self._options)

    @contextlib.contextmanager
    def beginning(self, runs: Sequence[RunId], around: Around | None = None) -> Generator[Beginning]:
        """Some runs at their beginning, for as long as this lasts. Raises what `explore` raises."""
        setting = prepare(self._history, self._shelf, runs, self._changed, self._options.steps)
        branch = self._history.at(setting.version)
        try:
            nest = branch.nest()
            invariants = [Invocation(run=RunId("invariant"), step=ALONE, function=f, arguments=b"{}") for f in setting.invariants]
            yield Beginning(setting, Ground(nest, setting.moment, invariants, around), branch, nest)
            nest.close()
        finally:
            branch.close()


class Beginning:
    """Runs at their beginning, and the branch on which they play."""

    def __init__(self, setting: Setting, ground: Ground, branch: Branch, nest: Nest) -> None:
        self.branch = branch
        self.nest = nest
        self.setting = setting
        self.ground = ground
        self._explainer = Explainer(ground, setting.runs, setting.version)

    # --- after a search --------------------------------------------------------------------------------------------------------

    def told(self, found: Found, options: Options) -> Exploration:
        """What a search found."""
        setting = self.setting
        return Exploration(
            runs=setting.runs,
            version=setting.version,
            options=options,
            invariants=tuple(f.name for f in setting.invariants),
            broken_before=tuple(self.ground.broken(())),
            explored=found.explored,
            skipped=found.skipped,
            violating=found.violating,
            by_name={name: found.by_name.get(name, 0) for name in found.smallest},
            undecided=found.undecided,
            undecided_because=found.undecided_because,
            given_up=found.given_up,
            serial_orders=found.serial_orders,
            all_serial=found.exhausted is None or found.past_serial,
            serial_violating=found.serial_violating,
            smallest={name: self.performed(self._retrace(path), "", None, about=name) for name, (_, _, path) in found.smallest.items()},
            exhausted=found.exhausted,
            bounded=found.bounded,
            executed=self.ground.executed,
            left_out=setting.left_out,
            seconds=0.0,
        )

    def _retrace(self, path: Path) -> Schedule:
        """The schedule that a path is, as it is written down."""
        places = self.setting.places
        turns: list[Turn] = []
        for event in path:
            several = len(places[event.root].pending) > 1
            turns.append(Turn(event.root + 1, self._name(event.root, event.call) if several else None))
            places = _moved(places, event)
        return Schedule(tuple(turns))

    # --- one schedule ----------------------------------------------------------------------------------------------------------

    def perform(self, text: str, options: Options) -> Play:
        """What comes of one schedule, as it is written down. Raises BadSchedule."""
        schedule = Schedule.read(text, len(self.setting.runs))
        serial_ends = None
        if options.serial:
            self.ground.forget()  # what somebody has looked on at was not learned from
            serial = dataclasses.replace(options, preemptions=0, reduce=True)
            found = Search(self.ground, self.setting.places, serial).run()
            serial_ends = found.serial_ends if found.exhausted is None else None
        self.ground.learning = options.serial
        return self.performed(schedule, text, serial_ends)

    def look_on(self, text: str, around: Around, told: Told) -> None:
        """Perform one schedule, every transaction of it executed anew, with somebody around each; what that raises goes through.
        Raises BadSchedule."""
        self.ground.forget()
        self.ground.around, self.ground.learning = around, False
        try:
            self._follow(Schedule.read(text, len(self.setting.runs)), text, told)
        finally:
            self.ground.around, self.ground.learning = nobody, True

    def performed(self, schedule: Schedule, text: str, serial_ends: Collection[End] | None, about: str | None = None) -> Play:
        """What comes of one schedule. `serial_ends`: what serial orders end in, if that is to be compared; `about`: what is to be
        explained, if several things go wrong. Raises BadSchedule."""
        while True:
            try:
                walked = self._follow(schedule, text)
            except Relearned:
                continue
            serial = None if serial_ends is None else end_of(self.ground, walked[1], walked[2]) in serial_ends
            return self._play(walked, min(len(schedule.turns), len(walked[1])), about=about, serial=serial)

    def _follow(self, schedule: Schedule, text: str, told: Told | None = None) -> _Walked:
        """Give everybody the turns that are written down, then let who is not over go on. Raises BadSchedule, Relearned."""
        path: Path = ()
        places = self.setting.places
        turns: list[Turn] = []
        before = self.ground.broken(())
        while True:
            written = len(turns) < len(schedule.turns)
            turn = schedule.turns[len(turns)] if written else self._next_turn(places, turns)
            if turn is None:
                return Schedule(tuple(turns)), path, places
            root = turn.run - 1
            calls = [c for c in places[root].pending if turn.call is None or self._name(root, c) == turn.call]
            if len(calls) != 1:
                raise BadSchedule(schedule=text, problem=self._why_not(places, turn, len(turns) + 1))
            event = self.ground.event(path, calls[0], root)
            path = (*path, event)
            turns.append(turn)
            now = self.ground.broken(path)  # while the branch is there
            if told is not None:
                told(event, tuple(sorted(now.keys() - before.keys())))
            before = now
            places = _moved(places, event)

    def _next_turn(self, places: Sequence[Place], turns: Sequence[Turn]) -> Turn | None:
        """Whose turn it is when nobody says: the last one's, then the others' in order."""
        last = [turns[-1].run - 1] if turns else []
        for root in [*last, *range(len(places))]:
            pending = places[root].pending
            if pending:
                return Turn(root + 1, self._name(root, pending[0]) if len(pending) > 1 else None)
        return None

    def _why_not(self, places: Sequence[Place], turn: Turn, number: int) -> str:
        run, pending = self.setting.runs[turn.run - 1].run, places[turn.run - 1].pending
        if not pending:
            return f"at turn {number} run {turn.run} ({run}) asks for no transaction"
        calls = ", ".join(f"{turn.run}:{self._name(turn.run - 1, call)} ({call.function.name})" for call in pending)
        return f"at turn {number} run {turn.run} ({run}) asks for {calls}"

    def _play(self, walked: _Walked, telling: int, *, about: str | None = None, serial: bool | None = None) -> Play:
        schedule, path, places = walked
        taken, broken, explanation = self._taken(path, about)
        if about == NOT_SERIAL or (serial is False and not explanation):
            explanation, serial = self._explainer.not_serial(path), False
        endings = (
            Ending(run=run, outcome=place.outcome, undecided=str(place.fault) if place.fault else None)
            for run, place in zip(self.setting.runs, places, strict=True)
        )
        return Play(
            schedule=schedule,
            telling=telling,
            preemptions=self._preemptions(path),
            taken=tuple(taken),
            endings=tuple(endings),
            broken=broken,
            explanation=tuple(explanation),
            serial=serial,
        )

    def _taken(self, path: Path, about: str | None) -> tuple[list[Taken], dict[str, str | None], list[str]]:
        """The transactions of a path, the invariants that they broke, and why."""
        taken: list[Taken] = []
        fallen: dict[str, str | None] = {}
        explanation: list[str] = []
        before = self.ground.broken(())
        for place, event in enumerate(path, start=1):
            now = self.ground.broken(path[:place])
            broke = tuple(sorted(now.keys() - before.keys()))
            for name in broke:
                if name not in fallen and not explanation and about in (None, name):
                    explanation = self._explainer.invariant(name, now[name], path[:place])
                fallen.setdefault(name, now[name])
            before = now
            taken.append(
                Taken(
                    place=place,
                    run=event.call.run,
                    root=self.setting.runs[event.root].run,
                    function=event.call.function.name,
                    arguments=event.call.arguments.decode(),
                    outcome=event.answer.outcome,
                    changes=event.changes,
                    broke=broke,
                )
            )
        return taken, fallen, explanation

    def _preemptions(self, path: Path) -> int:
        places, last, count = self.setting.places, -1, 0
        for event in path:
            count += last not in (event.root, -1) and bool(places[last].pending)
            places, last = _moved(places, event), event.root
        return count

    def _name(self, root: int, call: Invocation) -> str:
        """What a call is named within its run: its step, after those of the workflows that it is in."""
        return f"{call.run}.{call.step}".removeprefix(f"{self.setting.runs[root].run}.")


def _moved(places: tuple[Place, ...], event: Event) -> tuple[Place, ...]:
    place = places[event.root].after(event.call, event.outcome, event.answer)
    return (*places[: event.root], place, *places[event.root + 1 :])
