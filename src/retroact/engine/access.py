"""What a transaction read and what it wrote, as values that can be compared: do two transactions depend on each other?

A read is a question: the whole of a table, the rows in which some columns have some values, or the numbering of its new rows. A write
is a row as it was and as it is. A read meets a write when the answer could be another with the row than without it, so rows that are
not there yet (phantoms) count like those that are. In doubt the answer is yes: a conflict too many costs time, one too few is wrong.

This module must not know SQL, nor how reads and writes are found out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from retroact.trace.record import Cell

#: The table of a write that changed the schema, which is a part of every answer.
EVERYTHING = ""


class Read(NamedTuple):
    """A question that was asked of one table."""

    table: str
    #: Only of the rows in which these columns have these values; empty: of all rows.
    where: tuple[tuple[str, Cell], ...] = ()
    #: Only which number the next row gets.
    numbering: bool = False
    #: The numbers are content: a column shows them. Otherwise they only show in the order of unordered results.
    shown: bool = True


class Write(NamedTuple):
    """One row as it was and as it is."""

    table: str
    columns: tuple[str, ...] = ()
    before: tuple[Cell, ...] | None = None
    after: tuple[Cell, ...] | None = None
    #: The row got another number.
    moved: bool = False

    @property
    def unknown(self) -> bool:
        """Whether anything in the table may be another."""
        return self.before is None and self.after is None


class Access(NamedTuple):
    """The read set and the write set of one transaction."""

    reads: frozenset[Read] = frozenset()
    writes: frozenset[Write] = frozenset()
    #: Tables whose rows it saw in the order of numbers that no column shows.
    ordered: frozenset[str] = frozenset()


def depend(first: Access, second: Access, ordered: Collection[str]) -> bool:
    """Whether the order of two transactions can make a difference. `ordered`: tables of which somebody sees the hidden numbers."""
    return reads_from(second, first, ordered) or reads_from(first, second, ordered)


def reads_from(reader: Access, writer: Access, ordered: Collection[str]) -> bool:
    """Whether what one transaction wrote is a part of what the other read."""
    return any(_meets(read, write, ordered) for write in writer.writes for read in reader.reads)


def _meets(read: Read, write: Write, ordered: Collection[str]) -> bool:
    if write.table == EVERYTHING:
        return True
    if read.table != write.table:
        return False
    if write.unknown:
        return True
    if read.numbering:
        counts = read.shown or read.table in ordered
        return counts and (write.before is None or write.after is None or write.moved)
    return not read.where or _may_match(read, write, write.before) or _may_match(read, write, write.after)


def _may_match(read: Read, write: Write, row: tuple[Cell, ...] | None) -> bool:
    return row is not None and all(_may_equal(value, row[write.columns.index(column)]) for column, value in read.where)


def _may_equal(one: Cell, other: Cell) -> bool:
    """Whether a database could find two values equal, under whatever affinity and collation a column has."""
    if one is None or other is None:
        return one is other
    if isinstance(one, str) and isinstance(other, str):
        return one == other or one.rstrip().casefold() == other.rstrip().casefold()
    if isinstance(one, int | float) and isinstance(other, int | float):
        return float(one) == float(other)  # a column of type REAL makes it of both
    return not (isinstance(one, bytes) and isinstance(other, bytes)) or one == other
