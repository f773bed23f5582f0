"""What transactions do after one another, executed once for each past that matters to them.

A *path* is a schedule so far. An *event* is a transaction at its place in one, and its name is what it is and which events before it
it depends on, those named likewise. So two paths that differ only in the order of what is independent consist of the same events, and
an event whose past is known from another path need not be executed again: what it reads is as it was there. For the rest there is one
branch, brought from path to path by taking back what they do not share.

This module must not know runs, nor which paths are worth walking.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from retroact.engine.access import Access, Read, depend
from retroact.engine.contract import Invocation, Nest, Pushed
from retroact.errors import NotRepeatable
from retroact.retroaction.rehearsal import Answer
from retroact.trace.codec import encode_json
from retroact.trace.record import Change

#: Executes a transaction by calling what it is given, and hands on what that returns: where a debugger can stand.
Around = Callable[[Invocation, Callable[[], Pushed]], Pushed]
#: The moment that an invocation lives in, and when it ended (0: not known).
Moments = Callable[[Invocation], tuple[int, int]]


class Relearned(Exception):
    """A rule about who depends on whom was found to be too lax: what was concluded from it is to be found anew."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Event:
    """A transaction after those that it depends on."""

    number: int
    #: The place of its run among the chosen.
    root: int
    call: Invocation
    access: int
    writes: bool
    changes: tuple[Change, ...]
    answer: Answer
    #: Equal outcomes have equal numbers.
    outcome: int


Path = tuple[Event, ...]


def nobody(_call: Invocation, work: Callable[[], Pushed]) -> Pushed:
    """Nobody stands there."""
    return work()


class Ground:
    """A branch, and what is known of transactions on it."""

    def __init__(self, nest: Nest, moments: Moments, invariants: Sequence[Invocation], around: Around | None = None) -> None:
        self.executed = 0
        #: Off while one path is walked, once: then nothing is concluded from who depends on whom.
        self.learning = True
        self._nest = nest
        self._moments = moments
        self._invariants = invariants
        self.around: Around = around or nobody
        self._pile: list[Event] = []
        self._accesses: list[Access] = []
        self._access_numbers: dict[Access, int] = {}
        self._outcomes: dict[bytes, int] = {}
        #: Tables whose hidden numbers show in a result that somebody saw.
        self._ordered: set[str] = set()
        #: Runs in which an event loop decides in which order results are seen.
        self._async_roots: set[int] = set()
        self._begin_knowing()

    def _begin_knowing(self) -> None:
        self._numbers = 0
        self._known: dict[tuple[object, ...], dict[int, dict[frozenset[int], Event]]] = {}
        self._depends: dict[tuple[int, int], bool] = {}
        self._held: list[dict[int, dict[frozenset[int], tuple[bool, str | None]]]] = [{} for _ in self._invariants]
        self._contents: dict[tuple[str, frozenset[int]], str] = {}
        self._tables: dict[frozenset[int], list[str]] = {}

    # --- events --------------------------------------------------------------------------------------------------------------

    def event(self, path: Path, call: Invocation, root: int) -> Event:
        """The transaction that is called after a path. Raises Relearned, NotRepeatable."""
        key = (call.run, call.step, call.function.name, call.arguments)
        known = self._known.setdefault(key, {})
        for access, events in known.items():
            found = events.get(self._past(path, access, root))
            if found is not None:
                return found
        pushed = self._execute(path, call)
        access = self._number_of(pushed.access)
        self._numbers += 1
        ended_us = self._moments(call)[1]
        event = Event(
            number=self._numbers,
            root=root,
            call=call,
            access=access,
            writes=bool(pushed.access.writes),
            changes=pushed.changes,
            answer=Answer(pushed.outcome, pushed.error, ended_us),
            outcome=self._outcomes.setdefault(encode_json(pushed.outcome), len(self._outcomes)),
        )
        self._pile.append(event)
        if self.learning and not pushed.access.ordered <= self._ordered:
            self._ordered |= pushed.access.ordered
            self._relearn()
        known.setdefault(access, {})[self._past(path, access, root)] = event
        return event

    def async_root(self, root: int) -> None:
        """A run sees the order of its results. Raises Relearned when that is new."""
        if root not in self._async_roots:
            self._async_roots.add(root)
            self._relearn()

    def depend(self, first: Event, second: Event) -> bool:
        """Whether the order of two events can make a difference."""
        return self._depend(first.access, second.access) or (first.root == second.root and first.root in self._async_roots)

    def access_of(self, event: Event) -> Access:
        """What an event read and wrote."""
        return self._accesses[event.access]

    # --- states --------------------------------------------------------------------------------------------------------------

    def broken(self, path: Path) -> dict[str, str | None]:
        """The invariants that do not hold after a path, each with what it raised if it raised."""
        found: dict[str, str | None] = {}
        for number, invariant in enumerate(self._invariants):
            holds, detail = self._holds(path, number, invariant)
            if not holds:
                found[invariant.function.name] = detail
        return found

    def contents(self, path: Path) -> tuple[tuple[str, str], ...]:
        """The tables after a path, each with a digest of its rows."""
        schema = self._past(path, self._number_of(Access(frozenset({Read("sqlite_schema")}))), -1)
        if schema not in self._tables:
            self._go_to(path)
            self._tables[schema] = self._nest.tables()
        return tuple((table, self._content(path, table)) for table in self._tables[schema])

    def forget(self) -> None:
        """Take everything back and know nothing of it: what comes is executed again."""
        self._nest.pop(0)
        self._pile.clear()
        self._begin_knowing()

    def close(self) -> None:
        """Let the branch be as it was."""
        self._nest.close()

    # --- how -----------------------------------------------------------------------------------------------------------------

    def _holds(self, path: Path, number: int, invariant: Invocation) -> tuple[bool, str | None]:
        known = self._held[number]
        for access, answers in known.items():
            found = answers.get(self._past(path, access, -1))
            if found is not None:
                return found
        self._go_to(path)
        holds, detail, read = self._nest.holds(invariant)
        access = self._number_of(Access(read.reads))
        answer = known.setdefault(access, {})[self._past(path, access, -1)] = (holds, detail)
        return answer

    def _content(self, path: Path, table: str) -> str:
        key = (table, self._past(path, self._number_of(Access(frozenset({Read(table)}))), -1))
        found = self._contents.get(key)
        if found is None:
            self._go_to(path)
            found = self._contents[key] = self._nest.content(table)
        return found

    def _past(self, path: Path, access: int, root: int) -> frozenset[int]:
        """The events of a path that somebody with that access depends on."""
        depends = self._depend
        if root in self._async_roots:
            return frozenset([e.number for e in path if e.root == root or depends(e.access, access)])
        return frozenset([e.number for e in path if depends(e.access, access)])

    def _depend(self, first: int, second: int) -> bool:
        found = self._depends.get((first, second))
        if found is None:
            found = self._depends[first, second] = depend(self._accesses[first], self._accesses[second], self._ordered)
        return found

    def _number_of(self, access: Access) -> int:
        number = self._access_numbers.get(access)
        if number is None:
            number = self._access_numbers[access] = len(self._accesses)
            self._accesses.append(access)
        return number

    def _relearn(self) -> None:
        self.forget()
        raise Relearned

    def _execute(self, path: Path, call: Invocation) -> Pushed:
        self._go_to(path)
        return self.around(call, lambda: self._push(call))

    def _push(self, call: Invocation, *, look: bool = True) -> Pushed:
        self.executed += 1
        return self._nest.push(call, self._moments(call)[0], call.seed, look=look)

    def _go_to(self, path: Path) -> None:
        """Bring the branch to the end of a path: what the last one shares with it stays."""
        pile = self._pile
        shared = 0
        for there, wanted in zip(pile, path, strict=False):
            if there is not wanted:
                break
            shared += 1
        if shared < len(pile):
            self._nest.pop(shared)
            del pile[shared:]
        for event in path[shared:]:
            self._repeat(event)

    def _repeat(self, event: Event) -> None:
        pushed = self._push(event.call, look=False)
        self._pile.append(event)
        if self._outcomes.get(encode_json(pushed.outcome)) != event.outcome:
            then, now = (o.value if o.failure is None else o.failure.error for o in (event.answer.outcome, pushed.outcome))
            raise NotRepeatable(function=event.call.function.name, run=event.call.run, then=then, now=now)


def dependences(ground: Ground, path: Iterable[Event]) -> list[tuple[Event, Event]]:
    """The pairs of events of different runs, first and second, whose order matters."""
    events = list(path)
    return [
        (first, second)
        for place, second in enumerate(events)
        for first in events[:place]
        if first.root != second.root and ground.depend(first, second)
    ]
