"""What an engine is to the rest: it runs invocations as transactions, keeps the trace, and opens the past.

This module must not know any database. Whoever needs an engine is written against these protocols and values.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from retroact.engine.access import Access
from retroact.engine.footprint import Footprint
from retroact.function.code import Code
from retroact.function.declare import Function
from retroact.trace.record import Change, Hashing, Outcome, Record, Run, RunId, RunState, Statement, StepNumber, Version
from retroact.trace.retention import Horizon

#: Arguments by position and by name.
Bound = tuple[tuple[Any, ...], dict[str, Any]]


class Invocation(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One call of one function, numbered: what is asked for, before anything is known of what comes of it."""

    run: RunId
    step: StepNumber
    function: Function[..., Any]
    #: JSON object, already checked by the function's schema.
    arguments: bytes
    attempt: int = 1
    #: The platform made the run id just now, so that nothing can be recorded under it.
    fresh: bool = False
    #: The arguments as the body is to be given them, when they have been decoded already.
    bound: Bound | None = None

    @property
    def seed(self) -> str:
        """What the invocation's randomness starts from: the same whenever it is run again."""
        return f"{self.run}/{self.step}/{self.function.name}"


class RunStart(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The row of a workflow that begins. It is written with the first thing that the workflow does."""

    run: RunId
    function: Function[..., Any]
    arguments: bytes
    began_us: int
    bound: Bound | None = None
    parent: RunId | None = None
    parent_step: StepNumber | None = None


class RunEnd(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What became of a workflow: its outcome, or why it was put aside."""

    run: RunId
    state: RunState
    ended_us: int | None
    outcome: Outcome | None = None
    reason: str | None = None


class Ran(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An invocation after it was run, or found in the record: exactly one of value and error counts."""

    outcome: Outcome
    #: The exception itself when it was raised just now; None when the outcome comes from the record.
    error: Exception | None = None
    #: When it was executed, in microseconds since the epoch.
    ended_us: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a body did on a branch."""

    outcome: Outcome
    error: Exception | None
    statements: tuple[Statement, ...]
    changes: tuple[Change, ...]


class Watcher(Protocol):
    """Looks on while a body is run on a branch, statement by statement."""

    #: Somebody has changed the state under way: what the body does is no longer what it did.
    touched: bool

    def asks(self) -> bool:
        """Whether it is the watcher that asks the connection now, and not the body."""
        ...

    def before(self, statement: Watched, /) -> None:
        """A statement is about to be executed. What is raised here ends the trial."""
        ...

    def after(self, statement: Watched, /) -> None:
        """A statement has been executed, or has failed."""
        ...


@dataclasses.dataclass(slots=True, kw_only=True)
class Watched:
    """One statement, while somebody looks on."""

    #: From 1.
    number: int
    sql: str
    parameters: Mapping[str, Any]
    #: Which rows it reads of the state before it.
    reads: Reads
    #: The columns and rows that it returned; None when it returns none.
    columns: tuple[str, ...] | None = None
    rows: tuple[tuple[Any, ...], ...] = ()
    #: How many rows it returned or changed.
    count: int = 0
    #: The rows that it changed.
    changes: tuple[Change, ...] = ()
    error: BaseException | None = None


#: What tells a row from the others of its table: its rowid, or its primary key where there is no rowid.
Key = tuple[Any, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """What one statement reads: rows where they can be told exactly, else whole tables."""

    #: Table and key.
    rows: tuple[tuple[str, Key], ...] = ()
    #: Tables of which only this is known: that the statement reads them.
    tables: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a body did on a nest, and what it read and wrote."""

    outcome: Outcome
    error: Exception | None
    access: Access
    changes: tuple[Change, ...]


class SchemaMoved(Exception):
    """A record changed the schema: the state after it is to be opened, not reached row by row."""

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self.version = version


class Superseded(Exception):
    """The last call of a run had to be executed again before it could be committed, and came to another outcome than its workflow was
    told. Nothing that rests on it is durable: the workflow's body is to be run again, from the record."""

    def __init__(self, run: RunId) -> None:
        super().__init__(run)
        self.run = run


class Entangled(BaseException):
    """Deferred changes cannot be applied beside what was done on the branch. Not an Exception: no body is to catch it."""


class Nest(Protocol):
    """A branch on which transactions are tried one upon the other, and taken back in reverse. For one thread at a time."""

    @property
    def depth(self) -> int:
        """How many transactions are on the pile."""
        ...

    def push(self, invocation: Invocation, now_us: int, seed: str, *, look: bool = True) -> Pushed:
        """Execute a transaction upon those that are there. One that raised leaves no effect. `look`: what it read, wrote and changed
        is wanted, not only its outcome."""
        ...

    def pop(self, depth: int) -> None:
        """Take transactions back until so many are left."""
        ...

    def holds(self, invariant: Invocation) -> tuple[bool, str | None, Access]:
        """Whether an invariant holds here, what it raised if it did, and what it read."""
        ...

    def tables(self) -> list[str]:
        """The application's tables."""
        ...

    def content(self, table: str) -> str:
        """A digest of a table's rows, in whatever order."""
        ...

    def close(self) -> None:
        """Take everything back: the branch is as it was."""
        ...


class Branch(Protocol):
    """A past state that can be read, run upon and changed; the database never knows. For one thread at a time."""

    version: Version

    def attempt(
        self, invocation: Invocation, now_us: int, seed: str, observer: Callable[..., None] | None = None, watcher: Watcher | None = None
    ) -> Trial:
        """Run the body of a transaction in its own moment. Its effects stay until `keep` or `undo`."""
        ...

    def look(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The same as `query`, but nothing can be changed by it, also not the moment of a body that is under way. Raises BadStatement."""
        ...

    def aside(self) -> contextlib.AbstractContextManager[None]:
        """While this lasts, what the connection is asked is not the body's: it is not recorded, and must only read."""
        ...

    def touch(self, sql: str) -> int:
        """Change the state under a body that is under way, and return how many rows were changed. Raises BadStatement."""
        ...

    def row(self, table: str, key: Key) -> dict[str, Any] | None:
        """One row by its key, None when there is none."""
        ...

    def key_columns(self, table: str) -> tuple[str, ...]:
        """The columns that a row of a table is told by; none where it is told by its rowid."""
        ...

    def keep(self) -> None:
        """Let the effects of the last trial stand."""
        ...

    def undo(self) -> None:
        """Take the effects of the last trial back."""
        ...

    def holds(self, invariant: Invocation) -> tuple[bool, str | None]:
        """Whether an invariant holds here, and what it raised if it did."""
        ...

    def advance(self, record: Record) -> None:
        """Apply what a record changed. Raises SchemaMoved."""
        ...

    def nest(self) -> Nest:
        """Try transactions upon one another here, until the nest is closed."""
        ...

    def watching(self, nest: Any, watcher: Watcher) -> contextlib.AbstractContextManager[None]:
        """While this lasts, `watcher` is shown the statements of what is pushed on a nest of this branch."""
        ...

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Read the state: column names and rows."""
        ...

    def retrace(self, record: Record) -> tuple[Change, ...] | None:
        """Run the recorded statements without the body: what they changed, until `keep` or `undo`; None when anything differs."""
        ...

    def defer(self, stored: str, relations: Mapping[int, Any]) -> None:
        """Recorded changes of rows, as the trace keeps them, which are applied when something is about to touch these rows."""
        ...

    def settle(self) -> None:
        """Apply all that was deferred."""
        ...

    def footprint(self, sql: str) -> Footprint:
        """What a text can touch here."""
        ...

    def asked(self, invariant: str) -> tuple[Statement, ...]:
        """The statements by which an invariant was answered last."""
        ...

    def close(self) -> None:
        """Let the branch go."""
        ...


class Entry(Protocol):
    """One record of a scan, which may not have been decoded yet."""

    version: Version
    run: RunId
    step: StepNumber
    #: The number of its function's row.
    function_number: int
    #: As the trace keeps them.
    statements: str | None
    changes: str | None

    @property
    def snapshot(self) -> int: ...
    @property
    def aborted(self) -> bool: ...
    @property
    def function(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def record(self) -> Record: ...


class Scan(Protocol):
    """All records from the first to the last of some runs and their children, checked, and decoded when they are asked for."""

    chosen: tuple[RunId, ...]
    #: The version before the first record, and the last.
    first: Version
    last: Version
    #: The chosen runs and their children, each with the chosen run that it belongs to.
    families: dict[RunId, RunId]
    #: Those of the chosen runs that are more than one transaction.
    runs: dict[RunId, Run]
    #: Whether every transaction saw the state that the record before it left: the order of versions is the schedule.
    in_order: bool

    @property
    def entries(self) -> Sequence[Entry]: ...
    @property
    def forgotten(self) -> Entry | None:
        """The first record that a table has been dropped from."""
        ...

    @property
    def alone(self) -> Mapping[RunId, Entry]:
        """The chosen runs that are one transaction."""
        ...

    def run_of(self, entry: Any) -> Run:
        """A transaction that was run alone, as a run."""
        ...

    @property
    def functions(self) -> Mapping[int, tuple[str, str, str, str | None]]:
        """Name, kind, fingerprint and code of each function, by number."""
        ...

    @property
    def texts(self) -> Mapping[int, str]:
        """SQL texts by number."""
        ...

    @property
    def relations(self) -> Mapping[int, Any]:
        """Tables as they were when they were changed, by number."""
        ...


class Trace(Protocol):
    """The records of one database, read."""

    def run(self, run: RunId) -> Run: ...
    def find_run(self, run: RunId) -> Run | None: ...
    def runs(self, *, since_us: int = 0, until_us: int = 2**62, most: int = -1) -> list[Run]: ...
    def records_of(self, run: RunId) -> list[Record]: ...
    def records_between(self, after: int, until: int) -> Iterator[Record]: ...
    def code(self, digest: str) -> Code | None: ...
    def last_version(self) -> Version: ...
    def hashing(self, version: int) -> Hashing | None: ...
    def runs_between(self, after: int, until: int) -> list[tuple[Version, RunId]]: ...
    def horizon(self) -> Horizon: ...
    def verify(self, after: int = 0, until: int = 2**62) -> Version: ...
    def scan(self, runs: Sequence[RunId]) -> Scan: ...


class History(Protocol):
    """The past of one database."""

    @property
    def trace(self) -> Trace:
        """Its records."""
        ...

    def at(self, version: int) -> Branch:
        """The state as of a version, as a branch of its own. Raises UnknownVersion, BeyondHistory, DamagedPage."""
        ...

    def close(self) -> None:
        """Let the files go, and all branches."""
        ...
