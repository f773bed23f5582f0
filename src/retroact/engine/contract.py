"""What an engine is to the rest: it runs invocations as transactions, keeps the trace, and opens the past.

This module must not know any database. Whoever needs an engine is written against these protocols and values.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from retroact.function.declare import Function
from retroact.trace.record import Outcome, RunId, RunState, StepNumber


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One call of one function, numbered: what is asked for, before anything is known of what comes of it."""

    run: RunId
    step: StepNumber
    function: Function[..., Any]
    #: JSON object, already checked by the function's schema.
    arguments: bytes
    attempt: int = 1
    #: The platform made the run id just now, so that nothing can be recorded under it.
    fresh: bool = False

    @property
    def seed(self) -> str:
        """What the invocation's randomness starts from: the same whenever it is run again."""
        return f"{self.run}/{self.step}/{self.function.name}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """The row of a workflow that begins. It is written with the first thing that the workflow does."""

    run: RunId
    function: Function[..., Any]
    arguments: bytes
    began_us: int
    parent: RunId | None = None
    parent_step: StepNumber | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """What became of a workflow: its outcome, or why it was put aside."""

    run: RunId
    state: RunState
    ended_us: int | None
    outcome: Outcome | None = None
    reason: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """An invocation after it was run, or found in the record: exactly one of value and error counts."""

    outcome: Outcome
    #: The exception itself when it was raised just now; None when the outcome comes from the record.
    error: Exception | None = None
    #: When it was executed, in microseconds since the epoch.
    ended_us: int = 0
