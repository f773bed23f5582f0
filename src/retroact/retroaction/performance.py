"""One schedule, performed with somebody looking on: stopped in its transactions where a guide wants it, and taken back.

Going back within a transaction is executing it again upon those before it; going back by a transaction is performing the schedule from
its beginning up to there. Bodies of workflows are rehearsed on the way, and nobody is shown them: they run several times.

This module must not know how a guide shows what it sees, nor what it is asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from retroact.engine.contract import Branch, Invocation, Pushed, Trace, Watcher
from retroact.replay.session import GoTo, Leave, Unwound
from retroact.retroaction.exploration import Options, Play
from retroact.retroaction.explorer import Beginning, Explorer
from retroact.retroaction.ground import Event
from retroact.trace.record import RunId, Version


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A transaction that is about to be executed."""

    call: Invocation
    #: Its place in the schedule, from 0.
    place: int
    #: Go on silently until this statement is about to be executed; 1: stop at its first line.
    until: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A transaction that was executed, and the invariants that it broke."""

    event: Event
    broke: tuple[str, ...]


class Guide(Watcher, Protocol):
    """Looks on, and says where to go: it raises what `Performance.go` or `Performance.leave` gives it."""

    def thread_begins(self) -> None:
        """This thread is about to run a body: follow it."""
        ...

    def turn(self, turn: Turn) -> None:
        """A transaction is about to be executed, or executed again."""
        ...

    def done(self, done: Done) -> None:
        """A transaction has been executed."""
        ...


class Performance:
    """One schedule of some runs, guided."""

    def __init__(self, trace: Trace, explorer: Explorer, runs: Sequence[RunId], schedule: str, options: Options, guide: Guide) -> None:
        self.trace = trace
        self.schedule = schedule
        #: What was executed since the beginning, in order.
        self.done: list[Done] = []
        #: Whether the body of a transaction is under way.
        self.executing = False
        self.left = False
        self._explorer = explorer
        self._runs = runs
        self._options = options
        self._guide = guide
        self._beginning: Beginning
        self._target = GoTo(0)
        self._wish: GoTo | Leave | None = None

    # --- what a guide asks for -----------------------------------------------------------------------------------------------

    @property
    def place(self) -> int:
        """The place of the transaction that is being executed, or that comes next."""
        return len(self.done)

    @property
    def silent(self) -> bool:
        """Nothing is to be stopped: workflows are rehearsed, or the schedule is brought to where it was."""
        return not self.executing or self._wish is not None or self.place < self._target.transaction

    @property
    def version(self) -> Version:
        """The version in whose state all runs begin."""
        return self._beginning.setting.version

    def go(self, to: GoTo) -> Unwound:
        """Go on there: raise what this returns, on the thread of the body."""
        self._wish = to
        return Unwound()

    def leave(self) -> Unwound:
        """End the performance: raise what this returns, on the thread of the body."""
        self._wish = Leave()
        return Unwound()

    def state(self) -> Branch:
        """The state that the transaction under way sees, with its own writes."""
        return self._beginning.branch

    @contextlib.contextmanager
    def aside(self) -> Generator[None]:
        """While this lasts, what the connection of the transaction under way is asked is not the transaction's."""
        with self.state().aside():
            yield

    # --- the play ------------------------------------------------------------------------------------------------------------

    def play(self) -> Play | None:
        """Perform to the end; None when the guide leaves before. Raises what `Explorer.perform` raises."""
        with self._explorer.beginning(self._runs) as self._beginning:
            while True:
                self.done = []
                try:
                    self._beginning.look_on(self.schedule, self._around, self._told)
                except Unwound:
                    if not isinstance(self._wish, GoTo):
                        self.left = True
                        return None
                    self._target, self._wish = self._wish, None
                else:
                    return self._beginning.perform(self.schedule, self._options)

    def _around(self, call: Invocation, execute: Callable[[], Pushed]) -> Pushed:
        if self.place < self._target.transaction:
            return execute()
        until = self._target.statement if self.place == self._target.transaction else 1
        nest = self._beginning.nest
        depth = nest.depth
        while True:
            self._guide.turn(Turn(call=call, place=self.place, until=until))
            pushed = self._watched(execute)
            if self._wish is None and pushed is not None:
                return pushed
            # A body may have swallowed what was to unwind it: the wish counts.
            if not isinstance(self._wish, GoTo) or self._wish.transaction != self.place:
                raise Unwound
            nest.pop(depth)
            until, self._wish = self._wish.statement, None

    def _watched(self, execute: Callable[[], Pushed]) -> Pushed | None:
        self.executing = True
        try:
            self._guide.thread_begins()
            with self._beginning.branch.watching(self._beginning.nest, self._guide):
                return execute()
        except Unwound:
            return None
        finally:
            self.executing = False

    def _told(self, event: Event, broke: tuple[str, ...]) -> None:
        place = self.place
        done = Done(event=event, broke=broke)
        self.done.append(done)
        if place >= self._target.transaction:
            self._guide.done(done)
