"""The 75 ways to arrange the four phases, and the notation for them: `Execute -> {Order, Validate} -> Persist`.

`->` means "has ended before the next begins"; braces mean "at the same time". Such an arrangement is a weak order, and there
are exactly 75 of them over four phases. The notation is the value's name everywhere: in code, on the command line, in documents
and in test ids. One arrangement has one canonical form, in which the phases inside braces stand in the order of `Phase`.

This module must not know any system, any engine or any clock: an ordering is a value.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from retroact.decomposition.phase import Phase
from retroact.errors import BadDeclaration

_PHASES = {phase.value.lower(): phase for phase in Phase}
_EXAMPLE = "Execute -> {Order, Validate} -> Persist"


@dataclass(frozen=True)
class Ordering:
    """One arrangement of the four phases: groups in sequence, each a set of phases that happen at the same time."""

    groups: tuple[frozenset[Phase], ...]

    def __post_init__(self) -> None:
        arranged = [phase for group in self.groups for phase in group]
        for phase in Phase:
            if arranged.count(phase) != 1:
                raise _bad(f"{phase} must be there exactly once and is there {arranged.count(phase)} times")
        if not all(self.groups):
            raise _bad("a group of concurrent phases is empty")

    @classmethod
    def parse(cls, text: str) -> Ordering:
        """Read the notation. Case and spacing do not matter, nor does the order of phases inside braces."""
        return cls(tuple(_group(part.strip(), text) for part in text.split("->")))

    def __str__(self) -> str:
        return " -> ".join(_written(group) for group in self.groups)

    def before(self, first: Phase, second: Phase) -> bool:
        """Whether `first` has ended when `second` begins."""
        return self._place(first) < self._place(second)

    def concurrent(self, first: Phase, second: Phase) -> bool:
        """Whether the two phases happen at the same time."""
        return self._place(first) == self._place(second)

    def _place(self, phase: Phase) -> int:
        return next(place for place, group in enumerate(self.groups) if phase in group)


def all_orderings() -> tuple[Ordering, ...]:
    """Every ordering there is: 75, the strictly sequential ones first, the fully concurrent one last."""
    arrangements = (Ordering(groups) for groups in _arrange(frozenset(Phase)))
    return tuple(sorted(arrangements, key=lambda ordering: -len(ordering.groups)))


def _arrange(phases: frozenset[Phase]) -> Iterator[tuple[frozenset[Phase], ...]]:
    if not phases:
        yield ()
    for size in range(1, len(phases) + 1):
        for first in itertools.combinations(_in_order(phases), size):
            for rest in _arrange(phases.difference(first)):
                yield (frozenset(first), *rest)


def _group(part: str, text: str) -> frozenset[Phase]:
    braced = part.startswith("{") and part.endswith("}") and len(part) > 1
    names = [name.strip() for name in part[1:-1].split(",")] if braced else [part]
    phases = [_phase(name, text) for name in names]
    if len(set(phases)) != len(phases):
        raise _bad(f"{part!r} names a phase twice")
    return frozenset(phases)


def _phase(name: str, text: str) -> Phase:
    phase = _PHASES.get(name.lower())
    if phase is None:
        raise _bad(f"{name!r} in {text!r} is not a phase. The phases are {', '.join(map(str, Phase))}; write {_EXAMPLE!r}")
    return phase


def _written(group: frozenset[Phase]) -> str:
    names = ", ".join(map(str, _in_order(group)))
    return f"{{{names}}}" if len(group) > 1 else names


def _in_order(phases: frozenset[Phase]) -> list[Phase]:
    return [phase for phase in Phase if phase in phases]


def _bad(problem: str) -> BadDeclaration:
    return BadDeclaration(function="ordering", problem=problem)
