"""How much of the past is kept: by age and size, and for single tables shorter. And the horizon: where the kept past begins.

What is kept always: the outcome of every run, so that an old run id is still not run twice (unless `outcomes` says otherwise), and
everything of a run that has no outcome yet.

Values only. This module must not know where the past is kept, nor how it is dropped.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from retroact.errors import BadRetention, BeyondHistory
from retroact.trace.record import RunId

Age = datetime.timedelta | str
Size = int | str

_AGES: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SIZES: Final = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What of the past is kept. Ages are a timedelta or text such as "30d" (s, m, h, d, w), sizes bytes or text such as "1GB"."""

    #: How far back the past can be opened, replayed and asked; None: as far as `size` allows.
    age: Age | None = None
    #: How large the history (page log and details of the records) may grow.
    size: Size | None = None
    #: Tables whose rows are forgotten earlier than that, by name.
    tables: Mapping[str, Age] = dataclasses.field(default_factory=dict[str, Age])
    #: How long a run id is remembered, and with it that it must not run again; None: forever.
    outcomes: Age | None = None

    def __post_init__(self) -> None:
        """Raises BadRetention for what cannot be understood, or could not be kept."""
        age_us, outcomes_us = self.age_us, self.outcomes_us
        _ = self.size_bytes
        for table, table_us in self.table_ages_us().items():
            if age_us is not None and table_us > age_us:
                problem = (
                    f"rows of {table} cannot be kept for longer ({self.tables[table]}) than the past that they are part of ({self.age})"
                )
                raise BadRetention(problem=problem)
        if outcomes_us is not None and (age_us is None or outcomes_us < age_us):
            raise BadRetention(problem="outcomes are kept for at least as long as the past: give an age, and outcomes no shorter than that")

    @property
    def age_us(self) -> int | None:
        """The age in microseconds."""
        return None if self.age is None else age_us(self.age)

    @property
    def outcomes_us(self) -> int | None:
        """For how long run ids are remembered, in microseconds."""
        return None if self.outcomes is None else age_us(self.outcomes)

    @property
    def size_bytes(self) -> int | None:
        """The size in bytes."""
        return None if self.size is None else size_bytes(self.size)

    def table_ages_us(self) -> dict[str, int]:
        """The ages of tables that are forgotten earlier, in microseconds."""
        return {table: age_us(age) for table, age in self.tables.items()}


def age_us(age: Age) -> int:
    """An age in microseconds. Raises BadRetention."""
    if isinstance(age, datetime.timedelta):
        found = int(age.total_seconds() * 1e6)
    else:
        amount, unit = _parsed(age, "an age such as 30d, 12h or 2w")
        if unit.lower() not in _AGES:
            raise BadRetention(problem=f"{age!r} is not an age such as 30d, 12h or 2w")
        found = int(amount * _AGES[unit.lower()] * 1e6)
    if found < 0:
        raise BadRetention(problem=f"an age cannot be negative: {age}")
    return found


def size_bytes(size: Size) -> int:
    """A size in bytes. Raises BadRetention."""
    if isinstance(size, str):
        amount, unit = _parsed(size, "a size such as 500MB or 1GB")
        if unit.upper() not in _SIZES:
            raise BadRetention(problem=f"{size!r} is not a size such as 500MB or 1GB")
        size = int(amount * _SIZES[unit.upper()])
    if size <= 0:
        raise BadRetention(problem=f"a size is a positive number of bytes, not {size}")
    return size


def _parsed(text: str, what: str) -> tuple[float, str]:
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise BadRetention(problem=f"{text!r} is not {what}")
    return float(found[1]), found[2]


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A version, and when it began: everything up to it has been dropped."""

    version: int = 0
    began_us: int = 0
    #: Of a table: records up to this version have been cleared of it.
    cleared: int = 0

    def __str__(self) -> str:
        return f"{self.version} ({_shown(self.began_us)})" if self.began_us else str(self.version)


class Horizon(msgspec.Struct, frozen=True, kw_only=True):
    """Where the kept past begins: the state as of `version` is the first that can be opened, the next record the first with details."""

    version: int = 0
    began_us: int = 0
    #: The link of the record at the horizon: the next one continues it.
    chain: int = 0
    #: Tables that are forgotten up to a later version.
    tables: dict[str, Limit] = msgspec.field(default_factory=dict[str, Limit])
    #: Records up to this version are gone with their outcomes.
    outcomes: int = 0
    #: Records up to this version have been cleared of what the horizon drops.
    cleared: int = 0

    def __str__(self) -> str:
        return str(Limit(version=self.version, began_us=self.began_us))

    def forgotten(self, version: int) -> dict[str, Limit]:
        """The tables that cannot be asked for as of a version."""
        return {table: limit for table, limit in self.tables.items() if version < limit.version}


def begun_before(horizon: Horizon, run: RunId, version: int) -> BeyondHistory:
    """The refusal of a run of which a record has had its details dropped."""
    reason = f"Run {run} began before that; what came of it is kept, how it came about is not."
    return BeyondHistory(version=version - 1, database="the database", horizon=horizon, reason=reason)


def _shown(us: int) -> str:
    return datetime.datetime.fromtimestamp(us / 1e6, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
