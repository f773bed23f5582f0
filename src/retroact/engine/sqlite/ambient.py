"""The moment that a transaction lives in: its clock, its randomness and its counters, for Python and for SQL alike.

SQL's own sources of time and chance (datetime('now'), CURRENT_TIMESTAMP, random(), ...) are replaced on every connection that runs
bodies, column defaults included, so that the same body at the same moment does the same again. So are the functions that tell what
the connection did before (changes(), total_changes(), last_insert_rowid()): a body sees only what it did itself.

This module must not know whether a body runs live or in replay.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from typing import Any

import apsw

#: SQLite's date functions that read the clock when an argument is 'now' or missing; position of the time value in their arguments.
_DATE_FUNCTIONS = {"date": 0, "time": 0, "datetime": 0, "julianday": 0, "unixepoch": 0, "strftime": 1}
_NOW = ("now", "subsec", "subsecond")
_KEYWORDS = {"current_timestamp": "%Y-%m-%d %H:%M:%S", "current_date": "%Y-%m-%d", "current_time": "%H:%M:%S"}


class Moment:
    """Clock and randomness of the invocation that runs on a connection; set anew for each."""

    __slots__ = ("_random", "changes_before", "now_us", "seed")

    def __init__(self) -> None:
        self.now_us = 0
        #: How many changes the connection had counted when the invocation began.
        self.changes_before = 0
        self.seed = ""
        self._random: random.Random | None = None

    def begin(self, now_us: int, seed: str, changes_before: int = 0) -> None:
        """Enter the moment of another invocation."""
        self.changes_before = changes_before
        self.now_us = now_us
        self.seed = seed
        self._random = None

    def random(self) -> random.Random:
        """The invocation's generator, made when first asked for."""
        if self._random is None:
            self._random = random.Random(self.seed)
        return self._random

    def time(self) -> datetime.datetime:
        """The invocation's time, in UTC."""
        return datetime.datetime.fromtimestamp(self.now_us / 1e6, datetime.UTC)


def install(database: apsw.Connection, moment: Moment) -> None:
    """Replace the sources of time and chance of a connection by those of `moment`."""
    calendar = apsw.Connection(":memory:")
    for name, position in _DATE_FUNCTIONS.items():
        # Deterministic within a statement, which has one moment; so SQLite lets generated columns and indices use them, as ever.
        database.create_scalar_function(name, _dated(calendar, name, (position,), moment), -1, deterministic=True)
    database.create_scalar_function("timediff", _dated(calendar, "timediff", (0, 1), moment), 2, deterministic=True)
    for name, form in _KEYWORDS.items():
        database.create_scalar_function(name, _keyword(form, moment), 0)
    database.create_scalar_function("random", _random(moment), 0)
    database.create_scalar_function("randomblob", _random_bytes(moment), 1)
    database.create_scalar_function("total_changes", _all_changes(database, moment), 0)
    database.create_scalar_function("changes", _last_changes(database, moment), 0)


def _dated(calendar: apsw.Connection, name: str, positions: tuple[int, ...], moment: Moment) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        given = list(arguments)
        for position in positions:
            if len(given) == position:
                given.append("now")
            if len(given) > position and isinstance(given[position], str) and (word := given[position].lower()) in _NOW:
                given[position] = moment.time().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
                if word != "now":
                    given.insert(position + 1, word)  # `datetime('subsec')` is short for `datetime('now', 'subsec')`
        marks = ", ".join("?" * len(given))
        return calendar.execute(f"select {name}({marks})", given).get

    return call


def _keyword(form: str, moment: Moment) -> Callable[..., Any]:
    return lambda: moment.time().strftime(form)


def _all_changes(database: apsw.Connection, moment: Moment) -> Callable[..., Any]:
    return lambda: database.total_changes() - moment.changes_before


def _last_changes(database: apsw.Connection, moment: Moment) -> Callable[..., Any]:
    return lambda: database.changes() if database.total_changes() != moment.changes_before else 0


def _random(moment: Moment) -> Callable[..., Any]:
    return lambda: moment.random().getrandbits(64) - 2**63


def _random_bytes(moment: Moment) -> Callable[..., Any]:
    def call(size: Any) -> bytes:
        return moment.random().randbytes(max(1, int(size)))

    return call
