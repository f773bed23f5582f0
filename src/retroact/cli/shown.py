"""Runs, records, outcomes and states as a person reads them in a terminal.

This module must not know where they come from.
"""

from __future__ import annotations

from collections.abc import Sequence

from retroact.cli.output import Cell, note, paint
from retroact.cli.times import duration, local, show
from retroact.diagram import phrase
from retroact.trace.record import Outcome, Run, RunState

STATE = {
    RunState.RUNNING: "cyan",
    RunState.COMMITTED: "green",
    RunState.ABORTED: "red",
    RunState.CANCELLED: "yellow",
    RunState.STOPPED: "yellow",
}


def state(of: RunState) -> Cell:
    """A state in its colour."""
    return Cell(of.value, STATE[of])


def outcome(of: Outcome | None) -> Cell:
    """An outcome; a failure is red."""
    text = phrase.outcome(of)
    return Cell(text, "red" if of is not None and not of.committed else "")


def ended(run: Run) -> Cell:
    """The outcome of a run, or why it has none."""
    return outcome(run.outcome) if run.outcome is not None else Cell(phrase.flat(run.reason or ""), "yellow")


def began(at_us: int, now_us: int) -> str:
    """`14:00:05.123` today, else with its day."""
    moment = local(at_us)
    clock = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"
    return clock if moment.date() == local(now_us).date() else f"{moment:%Y-%m-%d} {clock}"


def took(run: Run) -> str:
    """How long a run took."""
    return "" if run.ended_us is None else duration(run.ended_us - run.began_us)


def span(run: Run) -> str:
    """When it began and how long it took."""
    text = f"began {show(run.began_us)}"
    return f"{text}, took {took(run)}" if run.ended_us is not None else text


def result(of: Outcome | None) -> str:
    """`committed "shipped"` or `aborted OutOfStock: apple`, painted."""
    if of is None:
        return paint("no outcome", "yellow")
    word, style = ("committed", "green") if of.committed else ("aborted", "red")
    return f"{paint(word, style)} {phrase.shorten_middle(phrase.outcome(of), 60)}"


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 run`, `2 runs`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def interrupted(runs: Sequence[Run]) -> None:
    """Say that runs are waiting to be gone on with."""
    waiting = [run for run in runs if run.state is RunState.RUNNING and run.parent is None]
    if waiting:
        were, them = ("was", "it") if len(waiting) == 1 else ("were", "them")
        note(f"{count(len(waiting), 'run')} {were} interrupted: `retroact recover` goes on with {them}")


_KIB = 1024


def size(number: int) -> str:
    """A number of bytes, for people."""
    size, unit = float(number), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if size < _KIB:
            break
        size, unit = size / _KIB, larger
    return f"{number:,} bytes" if unit == "bytes" else f"{size:,.1f} {unit}"
