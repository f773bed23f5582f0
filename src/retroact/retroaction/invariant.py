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
        self._invariants = [Invocation(run=RunId("invariant"), step=ALONE, function=f, arguments=b"{}") for f in invariants]
        self._holds: dict[str, bool] = {}
        self.violations: list[Violation] = []

    def begin(self, branch: Branch) -> None:
        """Note what holds before the first transaction: what was broken already is nobody's here."""
        for invariant in self._invariants:
            self._holds[invariant.function.name] = branch.holds(invariant)[0]

    def look(self, branch: Branch, run: RunId, function: str, version: Version) -> list[Violation]:
        """Check the state that a transaction left, and return what it broke."""
        broken: list[Violation] = []
        for invariant in self._invariants:
            name = invariant.function.name
            holds, detail = branch.holds(invariant)
            if not holds and self._holds.get(name, True):
                broken.append(Violation(invariant=name, run=run, function=function, version=version, detail=detail))
            self._holds[name] = holds
        self.violations += broken
        return broken
