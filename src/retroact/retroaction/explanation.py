"""Why a schedule goes wrong, as a proof in sentences: let these runs be, then this does not hold, because of that.

What explains a broken invariant is an answer that was no longer true: the run that broke it had read something that another run changed
before it went by it. What explains an end that no serial order has is a circle: each run read or wrote something before the next did.

This module must not know how schedules are found.
"""

from __future__ import annotations

from collections.abc import Sequence

from retroact.diagram import phrase
from retroact.engine.access import EVERYTHING, reads_from
from retroact.retroaction.ground import Event, Ground, dependences
from retroact.trace.record import Run, Version

_WIDE = 60


class Explainer:
    """Explains schedules of some runs."""

    def __init__(self, ground: Ground, runs: Sequence[Run], version: Version) -> None:
        self._ground = ground
        self._runs = runs
        self._version = version

    def invariant(self, name: str, detail: str | None, path: Sequence[Event]) -> list[str]:
        """Why an invariant does not hold after the last event of a path."""
        last = path[-1]
        stale = self._stale(path)
        told = f" ({phrase.shorten_middle(detail, _WIDE)})" if detail else ""
        lines = self._let({last.root, *(other.root for _, other in stale)})
        lines.append(f"Then {name} does not hold after turn {len(path)}, {self._deed(last)}{told},")
        if not stale:
            lines.append("because of that transaction alone: nothing that its run had read was changed by another run meanwhile.")
            return lines
        for read, changed in stale:
            lines.append(f"because {self._place(read, path)} read what {self._place(changed, path)} then changed{self._told(changed)},")
        lines[-1] = lines[-1][:-1] + f", and {self._name(last)} went by what it had read."
        return lines

    def not_serial(self, path: Sequence[Event]) -> list[str]:
        """Why a schedule is equivalent to no serial order."""
        circle = self._circle(path)
        lines = self._let({first.root for first, _ in circle} or {event.root for event in path})
        lines.append("Then it ends as no serial order of the runs does,")
        for first, second in circle:
            lines.append(
                f"because {self._name(first)} comes before {self._name(second)}: "
                f"{self._place(first, path)} {self._verb(first, second)} {self._place(second, path)}{self._told(second, first)},"
            )
        lines[-1] = lines[-1][:-1] + "."
        return lines

    def _let(self, roots: set[int]) -> list[str]:
        runs = [self._runs[root] for root in sorted(roots)]
        calls = [f"Let {run.run} = {phrase.shorten_middle(phrase.call(run.function, run.arguments), _WIDE)}," for run in runs]
        return [*calls[:-1], f"{calls[-1]} begun in the state of version {self._version}."]

    def _stale(self, path: Sequence[Event]) -> list[tuple[Event, Event]]:
        """For each other run the last answer of the breaking run that it made untrue."""
        found: dict[int, tuple[Event, Event]] = {}
        last = path[-1]
        for place, read in enumerate(path[:-1]):
            if read.root != last.root:
                continue
            for changed in path[place + 1 : -1]:
                if changed.root != last.root and reads_from(self._ground.access_of(read), self._ground.access_of(changed), ()):
                    found[changed.root] = (read, changed)
        return list(found.values())

    def _circle(self, path: Sequence[Event]) -> list[tuple[Event, Event]]:
        """The shortest circle of dependences between runs."""
        edges: dict[tuple[int, int], tuple[Event, Event]] = {}
        for first, second in dependences(self._ground, path):
            edges.setdefault((first.root, second.root), (first, second))
        best: list[tuple[int, int]] = []
        for start in {a for a, _ in edges}:
            ways: list[list[tuple[int, int]]] = [[edge] for edge in edges if edge[0] == start]
            seen = {start}
            while ways and (not best or len(ways[0]) < len(best)):
                way = ways.pop(0)
                if way[-1][1] == start:
                    best = way
                    break
                if way[-1][1] not in seen:
                    seen.add(way[-1][1])
                    ways += [[*way, edge] for edge in edges if edge[0] == way[-1][1]]
        return [edges[edge] for edge in best]

    def _verb(self, first: Event, second: Event) -> str:
        if reads_from(self._ground.access_of(second), self._ground.access_of(first), ()):
            return (
                "wrote what was then read by"
                if not reads_from(self._ground.access_of(first), self._ground.access_of(second), ())
                else ("was there first, on what was then changed by")
            )
        return "read what was then changed by"

    def _name(self, event: Event) -> str:
        return self._runs[event.root].run

    def _deed(self, event: Event) -> str:
        return f"{event.call.function.name} of {self._name(event)}{self._told(event)}"

    def _place(self, event: Event, path: Sequence[Event]) -> str:
        return f"{event.call.function.name} of {self._name(event)} (turn {list(path).index(event) + 1})"

    def _told(self, event: Event, reader: Event | None = None) -> str:
        """The change of an event that says most."""
        changes = event.changes
        if reader is not None:
            tables = {read.table for read in self._ground.access_of(reader).reads} | {EVERYTHING}
            changes = tuple(change for change in changes if change.table in tables)
        telling = phrase.most_telling(changes)
        return f" ({phrase.shorten_middle(phrase.flat(telling), _WIDE)})" if telling else ""
