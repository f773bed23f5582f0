"""Who depends on whom: reads that meet writes, and in doubt do."""

from __future__ import annotations

import pytest

from retroact.engine.access import EVERYTHING, Access, Read, Write, depend
from retroact.trace.record import Cell

COLUMNS = ("id", "k")


def row(*, before: tuple[Cell, ...] | None = None, after: tuple[Cell, ...] | None = None, moved: bool = False) -> Write:
    return Write("t", COLUMNS, before, after, moved)


@pytest.mark.parametrize(
    ("read", "write", "meets"),
    [
        (Read("t"), row(after=(1, "a")), True),
        (Read("u"), row(after=(1, "a")), False),
        (Read("t", (("k", "a"),)), row(before=(1, "a"), after=(1, "b")), True),  # it was there
        (Read("t", (("k", "b"),)), row(before=(1, "a"), after=(1, "b")), True),  # it is there now
        (Read("t", (("k", "c"),)), row(before=(1, "a"), after=(1, "b")), False),
        (Read("t", (("k", "A "),)), row(after=(1, "a")), True),  # under some collation
        (Read("t", (("k", 1),)), row(after=(1, "1")), True),  # under some affinity
        (Read("t", (("id", 2**53 + 1),)), row(after=(float(2**53), "a")), True),
        (Read("t", (("id", 1), ("k", "b"))), row(after=(1, "a")), False),
        (Read("t", (("k", None),)), row(after=(1, "a")), False),
        (Read("t", (("k", "a"),)), Write("t"), True),  # nobody knows what
        (Read("u", (("k", "a"),)), Write(EVERYTHING), True),
        (Read("t", numbering=True), row(after=(2, "b")), True),
        (Read("t", numbering=True), row(before=(2, "a"), after=(2, "b")), False),
        (Read("t", numbering=True), row(before=(2, "a"), after=(3, "a"), moved=True), True),
        (Read("t", numbering=True, shown=False), row(after=(2, "b")), False),
    ],
)
def test_a_read_meets_a_write(read: Read, write: Write, meets: bool) -> None:
    reader, writer = Access(reads=frozenset([read])), Access(writes=frozenset([write]))
    assert depend(reader, writer, ()) is depend(writer, reader, ()) is meets


def test_hidden_numbers_count_once_somebody_has_seen_them() -> None:
    reader, writer = Access(reads=frozenset([Read("t", numbering=True, shown=False)])), Access(writes=frozenset([row(after=(2, "b"))]))
    assert depend(reader, writer, {"t"})
