"""Enumerates the schedules of whole transactions of some runs, leaving out those that are equivalent to one that was explored.

Two schedules are equivalent when they differ only in the order of transactions that do not depend on each other: then every run is
told the same and the state in the end is the same. What is walked is not schedules but what can be reached: a *node* is a set of events
(`ground.py` names an event by its past, so equivalent beginnings are the same set), with the run whose turn it was. A node that was
reached before is not gone on from. This is sound, with a bound on preemptions too, because

  * the same events leave the same state and the same places of all runs, so the same schedules follow;
  * what follows costs the same preemptions, the run whose turn it was being the same;
  * nodes are walked in the order of the preemptions that they cost and the runs that have begun in them, and neither becomes less on
    the way: so of those that are the same the first to come had the most preemptions left.

Every state that can be reached within the bound is some node's, and the invariants are asked in each: there is no need to treat
transactions as dependent because an invariant reads what they write.

A *preemption* takes the turn from a run that has not ended. With none, the runs are run one after the other: the serial orders. That
few runs with few preemptions come first also means that what takes two runs is found soon among many.

This module must not know how transactions are executed, nor where the runs come from.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator

from retroact.engine.clock import monotonic
from retroact.engine.contract import Invocation
from retroact.retroaction.cast import Place
from retroact.retroaction.exploration import NOT_SERIAL, Options
from retroact.retroaction.ground import Ground, Path, Relearned
from retroact.trace.codec import encode_json

Progress = Callable[[int, int], None]
#: The state in the end and what came of each run.
End = tuple[object, ...]
#: Looks at the clock once in so many nodes.
_CLOCK_EVERY = 64


@dataclasses.dataclass(slots=True, eq=False)
class Node:
    """What a beginning of a schedule leads to."""

    path: Path
    events: frozenset[int]
    places: tuple[Place, ...]
    #: Whose turn it was.
    last: int
    preemptions: int
    #: The runs that have begun: a bit for each.
    begun: int
    #: Invariants that do not hold here.
    broken: frozenset[str]
    #: Invariants that some transaction on the way broke.
    fallen: tuple[str, ...] = ()

    @property
    def over(self) -> bool:
        """Whether no run asks for a transaction."""
        return not any(place.pending for place in self.places)


@dataclasses.dataclass(slots=True)
class Found:
    """What was found so far."""

    explored: int = 0
    skipped: int = 0
    violating: int = 0
    undecided: int = 0
    undecided_because: str | None = None
    given_up: int = 0
    serial_orders: int = 0
    serial_violating: int = 0
    bounded: bool = False
    exhausted: str | None = None
    #: Whether the search went past the serial orders: those have no preemption, and at most all runs have begun.
    past_serial: bool = False
    by_name: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    #: The smallest beginning of a schedule for each name: preemptions, transactions until it shows, its path.
    smallest: dict[str, tuple[int, int, Path]] = dataclasses.field(default_factory=dict[str, tuple[int, int, Path]])
    #: The ends of all serial orders.
    serial_ends: set[End] = dataclasses.field(default_factory=set[End])
    #: The ends of all schedules, when they are compared.
    ends: set[End] = dataclasses.field(default_factory=set[End])


class Search:
    """One walk over all schedules of some runs."""

    def __init__(self, ground: Ground, places: tuple[Place, ...], options: Options, progress: Progress | None = None) -> None:
        self.found = Found()
        self._ground = ground
        self._places = places
        self._options = options
        self._progress = progress
        self._began = monotonic()

    def run(self) -> Found:
        """Walk, and say what was found. Raises NotRepeatable."""
        while True:
            self.found = Found()
            try:
                self._walk()
            except Relearned:
                continue
            return self.found

    def _walk(self) -> None:
        self._visited: set[object] = set()
        self._complete: set[object] = set()
        self._looked = 0
        order = list(range(len(self._places)))
        random.Random(self._options.seed).shuffle(order)
        self._order = order
        for root, place in enumerate(self._places):
            if place.is_async:
                self._ground.async_root(root)
        first = Node((), frozenset(), self._places, -1, 0, 0, frozenset(self._ground.broken(())))
        self._levels: list[list[tuple[Node, int, Invocation]]] = [[]]
        self._arrive(first)
        level = 0
        while level < len(self._levels):
            todo = self._levels[level]
            while todo:
                if self._spent():
                    return
                self._step(*todo.pop())
            level += 1
            self.found.past_serial = level >= (len(self._places) if self._options.reduce else 1)

    def _spent(self) -> bool:
        options, found = self._options, self.found
        if found.explored >= options.schedules:
            found.exhausted = f"{options.schedules:,} schedules"
        self._looked += 1
        if self._looked % _CLOCK_EVERY == 0:
            if monotonic() - self._began > options.seconds:
                found.exhausted = f"{options.seconds:g} s"
            if self._progress is not None:
                self._progress(found.explored, options.schedules)
        return found.exhausted is not None

    # --- one transaction further -----------------------------------------------------------------------------------------------

    def _step(self, node: Node, root: int, call: Invocation) -> None:
        event = self._ground.event(node.path, call, root)
        events = node.events | {event.number}
        preemptions = node.preemptions + self._cost(node, root)
        if self._options.reduce:
            # Without a bound it does not matter whose turn it was; with one, it decides what the next turn costs.
            key = events if self._options.preemptions is None else (events, root)
            if key in self._visited:
                self.found.skipped += 1
                return
            self._visited.add(key)
        place = node.places[root].after(call, event.outcome, event.answer)
        if place.is_async:
            self._ground.async_root(root)
        path = (*node.path, event)
        broken, fallen = node.broken, node.fallen
        if event.writes:
            broken = frozenset(self._ground.broken(path))
            fallen += tuple(sorted(broken - node.broken))
            for name in broken - node.broken:
                self._remember(name, preemptions, path)
        places = (*node.places[:root], place, *node.places[root + 1 :])
        self._arrive(Node(path, events, places, root, preemptions, node.begun | 1 << root, broken, fallen))

    def _cost(self, node: Node, root: int) -> int:
        return int(node.last not in (root, -1) and bool(node.places[node.last].pending))

    def _arrive(self, node: Node) -> None:
        if node.over:
            self._end(node)
            return
        if len(node.path) >= self._options.longest:
            self.found.given_up += 1
            return
        bound = self._options.preemptions
        for root, call in self._choices(node):
            preemptions = node.preemptions + self._cost(node, root)
            if bound is not None and preemptions > bound:
                self.found.bounded = True
                continue
            level = preemptions
            if self._options.reduce:
                level += (node.begun | 1 << root).bit_count() - 1
            while level >= len(self._levels):
                self._levels.append([])
            self._levels[level].append((node, root, call))

    def _choices(self, node: Node) -> Iterator[tuple[int, Invocation]]:
        """Who may be next, the last to be tried first: what is taken is taken from the end."""
        for root in reversed(self._order):
            if root != node.last:
                for call in reversed(node.places[root].pending):
                    yield root, call
        if node.last >= 0:
            for call in reversed(node.places[node.last].pending):
                yield node.last, call

    # --- at the end of a schedule ----------------------------------------------------------------------------------------------

    def _end(self, node: Node) -> None:
        found = self.found
        if self._options.reduce:
            if node.events in self._complete:
                found.skipped += 1
                return
            self._complete.add(node.events)
        found.explored += 1
        fault = next((place.fault for place in node.places if place.fault is not None), None)
        if fault is not None:
            found.undecided += 1
            found.undecided_because = found.undecided_because or str(fault)
        wrong = set(node.fallen)
        if self._options.serial and fault is None and not self._serial(node):
            wrong.add(NOT_SERIAL)
            self._remember(NOT_SERIAL, node.preemptions, node.path)
        found.serial_orders += node.preemptions == 0
        found.serial_violating += bool(wrong) and node.preemptions == 0
        found.violating += bool(wrong)
        for name in sorted(wrong):
            found.by_name[name] = found.by_name.get(name, 0) + 1

    def _remember(self, name: str, preemptions: int, path: Path) -> None:
        """A schedule goes wrong when it has come so far."""
        present = self.found.smallest.get(name)
        if present is None or (preemptions, len(path)) < present[:2]:
            self.found.smallest[name] = (preemptions, len(path), path)

    def _serial(self, node: Node) -> bool:
        """Whether a schedule ends as some serial order does. Serial orders are walked first."""
        end = end_of(self._ground, node.path, node.places)
        self.found.ends.add(end)
        if node.preemptions == 0:
            self.found.serial_ends.add(end)
        return end in self.found.serial_ends


def end_of(ground: Ground, path: Path, places: tuple[Place, ...]) -> End:
    """The content of all tables, and what came of each run."""
    return (ground.contents(path), tuple(_told(place) for place in places))


def _told(place: Place) -> bytes:
    """An outcome as its caller is told it: of a failure the class and the message."""
    outcome = place.outcome
    if outcome is None or outcome.failure is None:
        return encode_json(outcome)
    return encode_json((outcome.failure.error, outcome.failure.message))
