"""The records of a trace: what was asked, what was read and written, and what came of it.

Values only, all frozen. A *version* is a place in the commit order; the state *as of* a version is what that record left behind.

This module must not know where records are kept, nor any clock, driver or file.
"""

from __future__ import annotations

import enum
from typing import Any, NewType

import msgspec

RunId = NewType("RunId", str)
Version = NewType("Version", int)
StepNumber = NewType("StepNumber", int)
Cell = int | float | str | bytes | None

#: The step number of a transaction that was asked for by itself, outside of a workflow.
ALONE = StepNumber(0)


class Verb(enum.StrEnum):
    """What a change did to a row."""

    INSERT = "i"
    UPDATE = "u"
    DELETE = "d"
    #: Not a row: the transaction changed the schema, so the state after it is not reached row by row.
    SCHEMA = "s"
    #: Not a row: what the transaction did to this table has been forgotten (see retention.py).
    DROPPED = "x"


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One SQL statement of a body, as it was executed."""

    sql: str
    parameters: dict[str, Cell]
    #: Rows returned, or rows changed when the statement returns none.
    count: int
    #: Digest of the rows in the order they came, None when the statement returns none.
    ordered: str | None = None
    #: Digest of the rows as a multiset.
    unordered: str | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One row changed: its table, its key, and the row before and after."""

    table: str
    verb: Verb
    #: The rowid before and after; None for a table WITHOUT ROWID, whose key is in the row.
    rowid: int | None
    rowid_after: int | None
    #: Cells by column: the whole row, but of an update only what it changed (and the whole row where there is no rowid).
    before: dict[str, Cell] | None
    after: dict[str, Cell] | None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An exception, as it is recorded."""

    #: The class, as module.qualname.
    error: str
    message: str
    #: The exception's arguments, when they can be recorded.
    arguments: tuple[Any, ...] | None = None
    #: The database's own code for the error, when the database raised it.
    sqlstate: str | None = None
    #: Number of the statement that failed, from 1.
    statement: int | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an attempt: committed with a value (its JSON), or aborted with a failure."""

    value: str | None = None
    failure: Failure | None = None

    @property
    def committed(self) -> bool:
        """Whether its effects stand."""
        return self.failure is None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of one invocation, as it was recorded."""

    version: Version
    run: RunId
    step: StepNumber
    attempt: int
    function: str
    #: transaction, step, workflow (a child), sleep or clock.
    kind: str
    fingerprint: str
    #: Hash of the code that the function came from, None when its source was not at hand.
    code: str | None
    arguments: str
    #: The version that its reads saw.
    snapshot: Version
    began_us: int
    elapsed_us: int
    outcome: Outcome
    statements: tuple[Statement, ...] = ()
    changes: tuple[Change, ...] = ()
    #: Where transactions overlap, what its reads saw is a set of transactions and no version: `xmin:xmax:xip` on Postgres, whose
    #: `snapshot` is 0. None: it is not known, or a version says it.
    visible: str | None = None
    #: Its own transaction, as such a set names it; None when it wrote nothing.
    transaction: int | None = None


class Hashing(msgspec.Struct, frozen=True, kw_only=True):
    """How the process hashed that wrote a record: PYTHONHASHSEED, and a hash by which two such processes know one another."""

    #: None: Python chose one, and it cannot be read.
    seed: str | None
    probe: int


class RunState(enum.StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    COMMITTED = "committed"
    ABORTED = "aborted"
    CANCELLED = "cancelled"
    #: Its code no longer matches its record, or its function is not registered; it waits.
    STOPPED = "stopped"

    @property
    def terminal(self) -> bool:
        """Whether the run has its outcome."""
        return self in (RunState.COMMITTED, RunState.ABORTED)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One invocation from outside: a workflow with its steps, or a transaction alone."""

    run: RunId
    function: str
    kind: str
    fingerprint: str
    code: str | None
    arguments: str
    state: RunState
    outcome: Outcome | None
    began_us: int
    ended_us: int | None
    parent: RunId | None = None
    parent_step: StepNumber | None = None
    #: First and last version that it wrote, None when it wrote none.
    first: Version | None = None
    last: Version | None = None
    #: Why it is stopped.
    reason: str | None = None
