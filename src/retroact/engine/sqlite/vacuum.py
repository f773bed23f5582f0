"""VACUUM as a recorded event: it may give rows without an INTEGER PRIMARY KEY other rowids, so the past must know when it happened.

Invariants:
  * The record comes first, and says that more than rows changed. So no state after it is reached row by row from one before it, also
    when the process dies between the two: then the record tells of a VACUUM that left everything as it was, which is harmless.
  * No other transaction comes between the record and the VACUUM: both happen while the writer is led, between two groups.

This module must not know who asks for it, nor how the freed pages are given back to the file system.
"""

from __future__ import annotations

from typing import Any

from retroact.engine.contract import Invocation
from retroact.engine.sqlite.recorder import Performed, Recorder
from retroact.function.declare import Function, Options
from retroact.function.kind import Kind
from retroact.trace.record import ALONE, Outcome, RunId

#: As a step, because it is no transaction of anybody's and is not run again: what it left is opened.
NAME = "retroact.vacuum"


def _vacuum() -> None:
    """The database is written anew, without the pages that are free."""
    raise NotImplementedError


VACUUM: Function[..., Any] = Function(_vacuum, Kind.STEP, Options(), name=NAME)


def announce(recorder: Recorder, run: RunId, now_us: int) -> None:
    """Write the record that a VACUUM follows. Inside a transaction."""
    invocation = Invocation(run=run, step=ALONE, function=VACUUM, arguments=b"{}", fresh=True)
    recorder.insert(invocation, Outcome(value="null"), Performed(now_us, 0, schema_changed=True))
