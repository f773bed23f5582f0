"""What is asked of an exploration, and what it found, as values.

A schedule is written down as the runs whose turn it is, by their place among the chosen, with `x` for several turns in a row:
`1x2,2,1` is twice the first run, once the second, once the first. Where a run asks for several transactions at once, the call that is
meant follows its run: `1:2` is its second call, `1:2.1` the first call of the workflow that its second call is.

This module must not know how schedules are found or run.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import re
from collections.abc import Mapping
from typing import Any

from retroact.errors import BadSchedule
from retroact.trace.record import Change, Outcome, Run, Version

#: How a schedule that no serial order explains is named among violations.
NOT_SERIAL = "not serial"
_TURN = re.compile(r"(\d+)(?::([\d.]+))?(?:x(\d+))?")


class Unrecorded(enum.StrEnum):
    """What is done about a step that the record has no outcome for."""

    #: The run cannot be told.
    FAIL = "fail"
    #: It is given a result.
    MOCK = "mock"
    #: It is carried out, once.
    LIVE = "live"


@dataclasses.dataclass(frozen=True, slots=True)
class StepPolicy:
    """What is done about one step."""

    unrecorded: Unrecorded
    #: The result of MOCK; without one, any result that the step has in the record.
    result: Any = None
    has_result: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an exploration is to be done."""

    #: Switches away from a run that could have gone on; None: as many as there may be.
    preemptions: int | None = 2
    #: What may be spent.
    schedules: int = 100_000
    seconds: float = 30.0
    #: Which of equally good orders is tried first.
    seed: int = 0
    #: Compare each end with those of the serial orders of the runs.
    serial: bool = False
    #: Leave out schedules that are equivalent to one that was explored. False: brute force.
    reduce: bool = True
    #: Transactions after which a schedule is given up.
    longest: int = 1000
    #: By name of the step; FAIL for those that are not named.
    steps: Mapping[str, StepPolicy] = dataclasses.field(default_factory=dict[str, StepPolicy])


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """One transaction of a schedule: whose it is, and which call, where the run asks for several at once."""

    #: From 1, in the order in which the runs were chosen.
    run: int
    call: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Schedule:
    """The order in which whole transactions are run."""

    turns: tuple[Turn, ...]

    def __str__(self) -> str:
        parts: list[str] = []
        for turn, same in itertools.groupby(self.turns):
            count = len(list(same))
            parts.append(f"{turn.run}{f':{turn.call}' if turn.call else ''}{f'x{count}' if count > 1 else ''}")
        return ",".join(parts)

    @classmethod
    def read(cls, text: str, runs: int) -> Schedule:
        """The schedule that was written down. Raises BadSchedule."""
        turns: list[Turn] = []
        for part in text.replace(" ", "").split(","):
            match = _TURN.fullmatch(part)
            if match is None:
                raise BadSchedule(schedule=text, problem=f"{part!r} is no turn; turns are such as 1, 2x3 or 1:2")
            number, call, times = int(match[1]), match[2], int(match[3] or 1)
            if not 1 <= number <= runs:
                raise BadSchedule(schedule=text, problem=f"it names run {number}, and {runs} are chosen")
            turns += [Turn(number, call)] * times
        return cls(tuple(turns))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One transaction of a schedule that was run."""

    #: From 1.
    place: int
    run: str
    root: str
    function: str
    arguments: str
    outcome: Outcome
    changes: tuple[Change, ...]
    #: Invariants that held before it and not after it.
    broke: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What became of one run."""

    run: Run
    #: None: it could not be told.
    outcome: Outcome | None
    undecided: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """A schedule, run from its beginning to its end."""

    schedule: Schedule
    #: How many of the turns it takes to see what is shown; the rest is what follows.
    telling: int
    preemptions: int
    taken: tuple[Taken, ...]
    endings: tuple[Ending, ...]
    #: Invariants that were broken by some transaction, with what they raised if they raised.
    broken: Mapping[str, str | None]
    #: Let, then, because.
    explanation: tuple[str, ...] = ()
    #: Whether it equals some serial order; None: it was not asked, or could not be told.
    serial: bool | None = None

    @property
    def clean(self) -> bool:
        """Whether no invariant breaks, every run could be told, and it equals a serial order if that was asked."""
        return not self.broken and self.serial is not False and not any(ending.undecided for ending in self.endings)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """What was found among the schedules of some runs."""

    runs: tuple[Run, ...]
    #: The state in which all of them begin.
    version: Version
    options: Options
    invariants: tuple[str, ...]
    #: Invariants that do not hold before any of the runs.
    broken_before: tuple[str, ...]
    #: Schedules that were run to their end, no two of them equivalent.
    explored: int
    #: Beginnings that were not gone on with, because an equivalent one was.
    skipped: int
    #: Schedules of `explored` in which something went wrong.
    violating: int
    #: The same for each invariant that breaks, and for NOT_SERIAL. When the budget ran out, what went wrong at the beginning of a
    #: schedule may not have been followed to an end: then it counts as 0.
    by_name: Mapping[str, int]
    #: Schedules in which some run could not be told, and why the first could not.
    undecided: int
    undecided_because: str | None
    #: Schedules that were given up, having become too long.
    given_up: int
    #: Serial orders that were run, no two of them equivalent; whether those were all; and how many went wrong.
    serial_orders: int
    all_serial: bool
    serial_violating: int
    #: The smallest schedule for each name of `by_name`.
    smallest: Mapping[str, Play]
    #: What ran out, if something did: then there are schedules within the bound that were not looked at.
    exhausted: str | None
    #: Whether the bound on preemptions left schedules out.
    bounded: bool
    #: Transactions that were executed for all this.
    executed: int
    #: Transactions of other runs in that time, which take no part.
    left_out: int
    seconds: float

    @property
    def violated(self) -> bool:
        """Whether something went wrong in some schedule."""
        return bool(self.smallest)

    @property
    def clean(self) -> bool:
        """Whether all schedules within the bound were looked at, all runs could be told, and nothing went wrong."""
        return not (self.violated or self.undecided or self.given_up or self.exhausted)

    @property
    def worst(self) -> Play | None:
        """The smallest of all schedules in which something went wrong."""
        return min(self.smallest.values(), key=lambda play: play.telling, default=None)
