"""A run in an exploration: its workflow and the workflows that this one calls, as a value that moves on with each answer.

Where a run stands depends on nothing but the answers that its calls were given, so each place is made once and remembered: a schedule
that brings a run to a place where it has been costs a look into a dictionary.

This module must not know other runs, schedules or branches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from retroact.engine.contract import Invocation
from retroact.function.kind import Kind
from retroact.retroaction.rehearsal import Answer, Part, Rehearsed, Stepped, rehearse
from retroact.trace.record import Outcome, RunId, StepNumber

#: The part that a call of a workflow is: as it was recorded, or new.
MakePart = Callable[[Invocation, RunId, Part], Part]


@dataclasses.dataclass(frozen=True, slots=True)
class _Player:
    """One workflow of the run: what it is, its answers so far, how far it came with them."""

    part: Part
    answers: tuple[tuple[int, Answer], ...]
    rehearsed: Rehearsed


class Place:
    """Where a run stands: the transactions that it asks for now, or its outcome."""

    def __init__(self, world: World, players: dict[RunId, _Player]) -> None:
        self._world = world
        self._players = players
        self._next: dict[tuple[RunId, StepNumber, int], Place] = {}
        root = next(iter(players.values())).rehearsed
        faults = [p.rehearsed.fault for p in players.values() if p.rehearsed.fault is not None]
        #: Why it cannot be told what becomes of the run.
        self.fault: Exception | None = faults[0] if faults else None
        self.outcome: Outcome | None = None if faults else root.outcome
        self.pending: tuple[Invocation, ...] = ()
        if self.fault is None and self.outcome is None:
            asked = (call for player in players.values() for call in player.rehearsed.pending)
            self.pending = tuple(call for call in asked if call.function.kind is Kind.TRANSACTION)
        #: Whether an event loop decides in which order answers are seen.
        self.is_async = any(p.part.function.is_async for p in players.values())

    def after(self, call: Invocation, outcome: int, answer: Answer) -> Place:
        """Where the run stands when a transaction was given an answer. Equal outcomes have equal numbers."""
        key = (call.run, call.step, outcome)
        found = self._next.get(key)
        if found is None:
            found = self._next[key] = self._world.moved(self._players, call, answer)
        return found


class Ended(Place):
    """A run that is one transaction, called by itself, or one whose outcome is taken from the record."""

    def __init__(self, outcome: Outcome | None, pending: tuple[Invocation, ...] = ()) -> None:
        self.fault = None
        self.outcome = outcome
        self.pending = pending
        self.is_async = False

    def after(self, call: Invocation, outcome: int, answer: Answer) -> Place:  # noqa: ARG002 - as every place takes
        """The transaction was the run."""
        return Ended(answer.outcome)


class World:
    """What all places of a run have in common: how its steps are answered, and what its children are."""

    def __init__(self, stepped: Stepped, make_part: MakePart, ended: Callable[[Invocation], int]) -> None:
        """`ended` says when a call ended that the record knows, else 0."""
        self._stepped = stepped
        self._make_part = make_part
        self._ended = ended

    def begin(self, part: Part) -> Place:
        """Where a workflow stands before anything was answered."""
        return self._settled({part.run: _Player(part, (), rehearse(part, (), self._stepped))})

    def moved(self, players: dict[RunId, _Player], call: Invocation, answer: Answer) -> Place:
        """The place that an answer leads to."""
        return self._settled({**players, call.run: self._answered(players[call.run], call.step, answer)})

    def _answered(self, player: _Player, step: StepNumber, answer: Answer) -> _Player:
        answers = (*player.answers, (int(step), answer))
        return _Player(player.part, answers, rehearse(player.part, answers, self._stepped))

    def _settled(self, players: dict[RunId, _Player]) -> Place:
        """Let workflows that are called begin, and those that have ended answer who called them, until all wait for transactions."""
        while True:
            found = self._one_more(players)
            if found is None:
                return Place(self, players)
            players = {**players, **found}

    def _one_more(self, players: dict[RunId, _Player]) -> dict[RunId, _Player] | None:
        for player in players.values():
            for call in player.rehearsed.pending:
                if call.function.kind is not Kind.WORKFLOW:
                    continue
                run = RunId(f"{call.run}.{call.step}")
                child = players.get(run)
                if child is None:
                    part = self._make_part(call, run, player.part)
                    return {run: _Player(part, (), rehearse(part, (), self._stepped))}
                if child.rehearsed.outcome is not None:
                    ended_us = self._ended(call) or max((a.ended_us for _, a in child.answers), default=0)
                    answer = Answer(child.rehearsed.outcome, child.rehearsed.error, ended_us)
                    return {call.run: self._answered(player, call.step, answer)}
        return None
