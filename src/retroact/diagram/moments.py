"""What happened, as moments of a timeline: from the records of a trace, and from the events of a retroaction.

Pure: values in, values out. This module must not know how a past is run again; it reads the shape of what comes of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from retroact.diagram import phrase
from retroact.diagram.timeline import Moment
from retroact.trace.record import Change, Outcome, Record, Version


class Event(Protocol):
    """One transaction of another schedule, beside the record whose place it took."""

    @property
    def run(self) -> str: ...
    @property
    def function(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def record(self) -> Record | None: ...
    @property
    def outcome(self) -> Outcome | None: ...
    @property
    def changes(self) -> Sequence[Change]: ...
    @property
    def broke(self) -> Sequence[str]: ...


class Taken(Protocol):
    """One transaction of a schedule that was run."""

    @property
    def place(self) -> int: ...
    @property
    def run(self) -> str: ...
    @property
    def function(self) -> str: ...
    @property
    def outcome(self) -> Outcome: ...
    @property
    def changes(self) -> Sequence[Change]: ...
    @property
    def broke(self) -> Sequence[str]: ...


def recorded_moments(records: Iterable[Record], alarms: Mapping[Version, str] | None = None) -> list[Moment]:
    """The transactions among records, in the order given; `alarms` tells of something bad at a version."""
    bad = alarms or {}
    return [
        Moment(
            place=record.version,
            lane=record.run,
            label=label(record.function, record.outcome, record.changes),
            short=label(record.function, record.outcome, record.changes, short=True),
            note=bad.get(record.version),
            alarm=record.version in bad,
        )
        for record in records
        if record.kind == "transaction"
    ]


def event_moments(events: Iterable[Event]) -> list[Moment]:
    """The transactions of a retroaction. What it no longer calls has no moment."""
    return [
        Moment(
            place=event.version,
            lane=event.run,
            label=label(event.function, event.outcome, event.changes),
            short=label(event.function, event.outcome, event.changes, short=True),
            note=", ".join(event.broke) or ("new" if event.record is None else None),
            alarm=bool(event.broke),
        )
        for event in events
        if event.outcome is not None
    ]


def taken_moments(taken: Iterable[Taken]) -> list[Moment]:
    """The transactions of a schedule, at their turns."""
    return [
        Moment(
            place=one.place,
            lane=one.run,
            label=label(one.function, one.outcome, one.changes),
            short=label(one.function, one.outcome, one.changes, short=True),
            note=", ".join(one.broke) or None,
            alarm=bool(one.broke),
        )
        for one in taken
    ]


def lanes_of(moments: Iterable[Moment]) -> list[str]:
    """The runs, in the order in which they appear."""
    return list(dict.fromkeys(moment.lane for moment in moments))


def label(function: str, outcome: Outcome, changes: Sequence[Change], *, short: bool = False) -> str:
    """The function and the one thing that says most: its error, the row that it changed, or its value."""
    if outcome.failure is not None and short:
        return f"{function} -> {outcome.failure.error.rpartition('.')[2]}"
    telling = phrase.most_telling(changes, short=short) if outcome.committed else None
    if telling is not None:
        return f"{function} {phrase.flat(telling)}"
    return f"{function} -> {phrase.outcome(outcome)}"
