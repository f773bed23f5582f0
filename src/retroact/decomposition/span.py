"""When each phase of one transaction began and ended, and which of the 75 orderings that was.

Spans say more than an ordering: locks may be held across two phases, and a diagram draws that. An ordering says what remains
when only "ended before the other began" counts: phases that overlap are concurrent. Not every set of spans is an ordering. When A
overlaps B and B overlaps C, but A has ended before C began, there is no honest answer, and `classify` says so.

This module must not know where the times come from: it takes them as numbers and asks no clock.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from retroact.decomposition.ordering import Ordering
from retroact.decomposition.phase import Phase
from retroact.errors import BadDeclaration


@dataclass(frozen=True)
class Span:
    """One phase of one transaction, from when to when. The zero of the clock does not matter, as long as it is the same."""

    phase: Phase
    began_us: int
    ended_us: int

    def __post_init__(self) -> None:
        if self.ended_us < self.began_us:
            raise _bad(f"{self.phase} ends at {self.ended_us} us, before it begins at {self.began_us} us")

    def before(self, other: Span) -> bool:
        """Whether this span has ended when the other begins. Two spans at one and the same instant are concurrent."""
        return self.ended_us <= other.began_us and not other.ended_us <= self.began_us


def classify(spans: Iterable[Span]) -> Ordering:
    """The ordering that the spans of one transaction show. A phase with several spans lasts from its first to its last."""
    whole = _one_for_each_phase(spans)
    for first, last in itertools.permutations(whole, 2):
        for between in whole:
            if first.before(last) and not _apart(first, between) and not _apart(between, last):
                raise _bad(
                    f"{first.phase} had ended before {last.phase} began, but {between.phase} overlaps both, so that they are "
                    "neither concurrent nor in sequence. End it earlier, or begin it later"
                )
    predecessors = {span.phase: sum(other.before(span) for other in whole) for span in whole}
    places = sorted(set(predecessors.values()))
    return Ordering(tuple(frozenset(p for p, count in predecessors.items() if count == place) for place in places))


def _one_for_each_phase(spans: Iterable[Span]) -> list[Span]:
    given = list(spans)
    missing = [str(phase) for phase in Phase if all(span.phase is not phase for span in given)]
    if missing:
        raise _bad(f"no span for {', '.join(missing)}. Each of the four phases needs one")
    return [_hull(phase, [span for span in given if span.phase is phase]) for phase in Phase]


def _hull(phase: Phase, spans: list[Span]) -> Span:
    return Span(phase, min(span.began_us for span in spans), max(span.ended_us for span in spans))


def _apart(first: Span, second: Span) -> bool:
    return first.before(second) or second.before(first)


def _bad(problem: str) -> BadDeclaration:
    return BadDeclaration(function="spans", problem=problem)
