"""What must hold in every state, checked along a branch.

This module must not know which code made the states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from retroact.engine.contract import Branch, Invocation
from retroact.function.declare import Function
from retroact.trace.record import ALONE, RunId, Version


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A transaction after which an invariant no longer held."""

    invariant: str
    run: RunId
    function: str
    #: Where in the original schedule it happened.
    version: Version
    #: What the invariant raised, if it raised.
    detail: str | None = None


class Watch:
    """Checks invariants state by state and notes who broke one that held before."""

    def __init__(self, invariants: Iterable[Function[..., Any]]) -> None:
        self._invariants = {f.name: Invocation(run=RunId("invariant"), step=ALONE, function=f, arguments=b"{}") for f in invariants}
        self._answers: dict[str, tuple[bool, str | None]] = {}
        self.violations: list[Violation] = []

    @property
    def names(self) -> tuple[str, ...]:
        """The invariants."""
        return tuple(self._invariants)

    def begin(self, branch: Branch) -> None:
        """Note what holds before the first transaction: what was broken already is nobody's here."""
        for name, invariant in self._invariants.items():
            self._answers[name] = branch.holds(invariant)

    def look(self, branch: Branch, run: RunId, function: str, version: Version, names: Iterable[str] | None = None) -> list[Violation]:
        """Check the state that a transaction left (all invariants, or those whose answer it can have changed); what it broke."""
        asked = self._invariants if names is None else names
        return self._note({name: branch.holds(self._invariants[name]) for name in asked}, run, function, version)

    def follow(self, other: Watch, run: RunId, function: str, version: Version, names: Iterable[str]) -> list[Violation]:
        """The same where another watch has looked at a state in which nothing differs for these invariants."""
        return self._note({name: other._answers[name] for name in names}, run, function, version)

    def _note(self, answers: dict[str, tuple[bool, str | None]], run: RunId, function: str, version: Version) -> list[Violation]:
        broken = [
            Violation(invariant=name, run=run, function=function, version=version, detail=detail)
            for name, (holds, detail) in answers.items()
            if not holds and self._answers.get(name, (True, None))[0]
        ]
        self._answers.update(answers)
        self.violations += broken
        return broken
