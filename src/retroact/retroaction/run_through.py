"""Runs the past of some runs again in every way in which it can be asked for elsewhere: replay, and retroaction of the code that ran.

What comes of it is the replay's report; what it reads on the way is noted by whoever handed over the history.

This module must not know where the past comes from, nor that somebody looks on.
"""

from __future__ import annotations

from collections.abc import Sequence

from retroact.engine.contract import History
from retroact.errors import LoadFailed, SourceMissing
from retroact.function.kind import Kind
from retroact.function.registry import Registry
from retroact.replay.replayer import Progress, Report
from retroact.replay.shelf import Shelf
from retroact.replay.workflows import replay_runs
from retroact.retroaction.retroactor import Retroactor
from retroact.trace.record import RunId


def run_through(history: History, runs: Sequence[RunId], *, fallback: Registry | None = None, progress: Progress | None = None) -> Report:
    """Replay runs, and run their own code over their past. Raises what these raise."""
    report = replay_runs(history, runs, fallback=fallback, progress=progress)
    shelf = Shelf(history.trace, fallback)
    try:
        for registry, group in _by_code(history, shelf, runs):
            Retroactor(history, shelf, registry, full=True).run(group)  # reading all that changed code might read
    finally:
        shelf.close()
    return report


def _by_code(history: History, shelf: Shelf, runs: Sequence[RunId]) -> list[tuple[Registry, list[RunId]]]:
    """The runs that retroaction can be asked for, with the code that they ran with."""
    groups: dict[str | None, tuple[Registry, list[RunId]]] = {}
    for run in map(history.trace.run, runs):
        if run.kind == Kind.STEP.value or run.outcome is None:
            continue
        try:
            registry = shelf.registry(run)
        except (SourceMissing, LoadFailed):
            continue
        if run.function in registry:
            groups.setdefault(run.code, (registry, []))[1].append(run.run)
    return list(groups.values())
