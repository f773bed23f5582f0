"""Values in a trace: JSON in which every SQLite value survives, and digests that keep apart what JSON confuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retroact.trace.codec import chain, decode_cell, decode_json, digest, digest_rows, encode_cell, encode_cells, encode_json

CELLS = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.binary() | st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(CELLS))
def test_every_cell_survives(cells: list[Any]) -> None:
    back = [decode_cell(value) for value in decode_json(encode_json(encode_cells(cells)))]
    assert [(type(cell), repr(cell)) for cell in back] == [(type(cell), repr(cell)) for cell in cells]


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        (1, b"1"),
        (1.0, b"1.0"),
        ("ü", '"ü"'.encode()),
        (None, b"null"),
        (b"ab", b'{"b":"YWI="}'),
        (math.inf, b'{"f":"inf"}'),
        (-math.inf, b'{"f":"-inf"}'),
    ],
)
def test_how_a_cell_is_written(cell: Any, written: bytes) -> None:
    assert encode_json(encode_cell(cell)) == written


def test_digests_are_short_text() -> None:
    assert digest(b"") != digest(b"a")
    assert len(digest(b"a")) == 11


@given(st.lists(st.tuples(CELLS, CELLS)), st.randoms())
def test_the_unordered_digest_is_of_the_multiset(rows: list[Any], chance: Any) -> None:
    shuffled = rows[:]
    chance.shuffle(shuffled)
    assert digest_rows(rows)[1] == digest_rows(shuffled)[1]
    assert digest_rows(rows) == digest_rows(list(rows))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([(1,)], [(1.0,)]),
        ([("a",)], [(b"a",)]),
        ([(None,)], [("",)]),
        ([], [(None,)]),
        ([(1,)], [(1,), (1,)]),
        ([("ab", "c")], [("a", "bc")]),
        ([(1,), (2,)], [(1, 2)]),
    ],
)
def test_digests_keep_apart(one: Any, other: Any) -> None:
    assert digest_rows(one)[0] != digest_rows(other)[0]
    assert digest_rows(one)[1] != digest_rows(other)[1]


def test_the_ordered_digest_is_of_the_order() -> None:
    first, second = digest_rows([(1,), (2,)]), digest_rows([(2,), (1,)])
    assert first[0] != second[0]
    assert first[1] == second[1]


def test_a_chain_depends_on_all_before() -> None:
    assert chain(0, ("a",)) != chain(1, ("a",)) != chain(1, ("b",))
    assert -(2**63) <= chain(chain(0, ("a", 1, None)), ("b", 2.5, b"x")) < 2**63
