"""Which chosen workflows may sleep: as long as all of their transactions are as they were, so are they.

A sleeper may have to be woken later and given what it missed, so every call of it must be answerable from the record.

This module must not know when a workflow is woken.
"""

from __future__ import annotations

import builtins
from collections.abc import Container, Mapping, Sequence

from retroact.engine.contract import Entry, Scan
from retroact.function.kind import Kind
from retroact.retroaction.cutoff import Unchanged
from retroact.trace.record import Record, RunId


def sleepers(scan: Scan, calls: Mapping[RunId, Sequence[Entry]], unchanged: Unchanged, modules: Container[str]) -> list[RunId]:
    """The chosen workflows that may sleep, given the calls of each run and the modules of the changed code."""
    asleep = {run.run for run in scan.runs.values() if run.kind == Kind.WORKFLOW.value and unchanged.flow(run)}
    for run, entries in calls.items():
        root = scan.families[run]
        if root in asleep and not all(_answerable(entry, unchanged, modules) for entry in entries):
            asleep.discard(root)
    return [run for run in scan.runs if run in asleep]


def _answerable(entry: Entry, unchanged: Unchanged, modules: Container[str]) -> bool:
    if entry.kind == Kind.WORKFLOW.value:
        return not entry.aborted and unchanged.control_flow(entry.function_number)
    return unchanged.present(entry.function_number) and (not entry.aborted or revives(entry.record, modules))


def revives(record: Record, modules: Container[str]) -> bool:
    """Whether the failure of a record can be raised as the very class that the changed code would raise."""
    module = record.outcome.failure.error.rpartition(".")[0] if record.outcome.failure is not None else ""
    return module in modules or module in (builtins.__name__, "apsw")
