"""What a statement can touch, told from its text alone: which rows, by which keys, of which tables.

A footprint errs on one side only: it may name more than a statement reads or writes, never less. Parameters stay open in it, so one
footprint serves every execution of the same text.

This module must not know any database; an engine finds the footprints of its own dialect.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any


class Reach(enum.StrEnum):
    """How far an access goes."""

    #: The row with that rowid, or its absence.
    ROW = "row"
    #: The rows with those values in those columns, or their absence.
    KEY = "key"
    #: Which rowid the next new row gets: changes when rows come or go, not when they are edited.
    NEXT_ROWID = "next rowid"
    #: Anything in the table.
    TABLE = "table"


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """A value that is known when the statement is executed."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Constant:
    """A value that stands in the text."""

    value: Any


Term = Parameter | Constant


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """One way in which a statement reaches into a table."""

    table: str
    reach: Reach
    #: KEY: the columns that are compared.
    columns: tuple[str, ...] = ()
    #: ROW: the rowid. KEY: a value for each column.
    terms: tuple[Term, ...] = ()
    #: KEY: whether each column holds text (True) or numbers (False). A parameter of another kind is not to be compared.
    texts: tuple[bool, ...] = ()

    def values(self, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The rowid or the key for some parameters; None when it cannot be told, and then the access is to the whole table."""
        found: list[Any] = []
        for number, term in enumerate(self.terms):
            value = parameters.get(term.name) if isinstance(term, Parameter) else term.value
            wanted = str if self.texts and self.texts[number] else int
            if type(value) is not wanted:
                return None
            found.append(value)
        return tuple(found)


@dataclasses.dataclass(frozen=True, slots=True)
class Footprint:
    """All that one statement can touch."""

    accesses: tuple[Access, ...]
    #: It touches what cannot be told: assume everything.
    opaque: bool = False
    #: Tables that it can change, those changed by triggers and cascades included.
    writes: frozenset[str] = frozenset()

    @property
    def tables(self) -> frozenset[str]:
        """The tables that it touches in any way."""
        return frozenset(access.table for access in self.accesses)


#: Of a statement of which nothing is known.
OPAQUE = Footprint((), opaque=True)
