"""What differs: rows, keys, and which rowid comes next."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from retroact.engine.footprint import OPAQUE, Access, Footprint, Parameter, Reach
from retroact.retroaction.dirty import Dirty

ROW = Access("t", Reach.ROW, terms=(Parameter("i"),))
KEY = Access("t", Reach.KEY, ("k",), (Parameter("k"),), (True,))
NEXT = Access("t", Reach.NEXT_ROWID)
WHOLE = Access("t", Reach.TABLE)
Rows = dict[int, dict[str, Any]]


def reached(dirty: Dirty, **parameters: Any) -> list[str]:
    accesses = {"row": ROW, "key": KEY, "next": NEXT, "table": WHOLE}
    return [name for name, access in accesses.items() if dirty.reached_by(Footprint((access,)), parameters)]


def test_nothing_reaches_what_is_clean() -> None:
    dirty = Dirty()
    assert reached(dirty, i=1, k="a") == []
    assert not dirty.reached_by(OPAQUE, {})


def test_a_row_is_reached_by_its_rowid_and_by_its_key_then_and_now() -> None:
    dirty = Dirty()
    dirty.put("t", 1, {"id": 1, "k": "a"}, {"id": 1, "k": "b"})
    assert reached(dirty, i=1, k="a") == ["row", "key", "table"]
    assert reached(dirty, i=2, k="b") == ["key", "table"]
    assert reached(dirty, i=2, k="c") == ["table"]
    assert reached(dirty, i="1", k=7) == ["row", "key", "table"], "a value that SQLite would convert may be any"
    assert dirty.reached_by(OPAQUE, {})


def test_a_row_that_came_or_went_changes_the_next_rowid() -> None:
    dirty = Dirty()
    dirty.put("t", 1, None, {"id": 1, "k": "a"})
    assert "next" in reached(dirty, i=2, k="c")
    dirty.put("t", 1, {"id": 1, "k": "b"}, {"id": 1, "k": "a"})
    assert "next" not in reached(dirty, i=2, k="c")


def test_a_row_that_is_the_same_again_is_clean_but_1_is_not_1_point_0() -> None:
    dirty = Dirty()
    dirty.put("t", 1, {"k": 1}, {"k": 1.0})
    assert dirty
    dirty.put("t", 1, {"k": 1}, {"k": 1})
    assert not dirty


def test_of_a_spoilt_table_nothing_is_known() -> None:
    dirty = Dirty()
    dirty.spoil("t")
    dirty.put("t", 1, None, None)
    assert reached(dirty, i=5, k="z") == ["row", "key", "next", "table"]


@given(st.lists(st.tuples(st.integers(1, 4), st.none() | st.sampled_from("abc"), st.none() | st.sampled_from("abc"))))
def test_what_is_reached_is_what_differs(steps: list[tuple[int, str | None, str | None]]) -> None:
    """Whatever becomes of rows, then and now: an index kept up to date says what comparing the two states says."""
    dirty = Dirty()
    then: Rows = {}
    now: Rows = {}
    for rowid, before, after in steps:
        for state, k in ((then, before), (now, after)):
            state.pop(rowid, None)
            if k is not None:
                state[rowid] = {"k": k}
        dirty.put("t", rowid, then.get(rowid), now.get(rowid))
        differing = {r for r in then.keys() | now.keys() if then.get(r) != now.get(r)}
        for i in range(1, 5):
            assert ("row" in reached(dirty, i=i)) == (i in differing)
        for k in "abc":
            assert ("key" in reached(dirty, k=k, i=0)) == any(k == s[r]["k"] for r in differing for s in (then, now) if r in s)
        assert ("next" in reached(dirty, i=0, k="")) == (then.keys() != now.keys())
