"""Values are replaced by others that look like them, one for one."""

from __future__ import annotations

import math
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from retroact.engine.sqlite.portable.disguise import Disguise

DISGUISE = Disguise(b"a key for tests")
integers = st.integers(-(2**63), 2**63 - 1)


def shape(text: str) -> str:
    return "".join("a" if c.islower() else "A" if c.isupper() else "0" if c.isdigit() else c for c in text if c.isascii())


@given(st.lists(st.text(max_size=120), unique=True))
@settings(deadline=None)
def test_different_texts_stay_different_and_keep_their_shape(texts: list[str]) -> None:
    found = [DISGUISE.text(text) for text in texts]
    assert len(set(found)) == len(texts)
    for before, after in zip(texts, found, strict=True):
        assert len(after) == len(before)
        assert len(after.encode()) == len(before.encode())
        assert shape(after) == shape(before)
        assert DISGUISE.text(before) == after


def test_all_short_texts_and_numbers_have_one_of_their_own() -> None:
    """Where values are so short that chance would make them collide."""
    letters = [f"{a}{b}" for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghijklmnopqrstuvwxyz"]
    assert {DISGUISE.text(text) for text in letters} == set(letters)
    assert {DISGUISE.cell(number) for number in range(10, 100)} == set(range(10, 100))
    assert {DISGUISE.cell(number) for number in range(-9, 10)} == set(range(-9, 10))


@given(integers)
def test_integers_keep_sign_and_length(number: int) -> None:
    found = DISGUISE.cell(number)
    assert type(found) is int
    assert len(str(found)) == len(str(number))
    assert -(2**63) <= found < 2**63
    assert (found < 0) == (number < 0)


@given(st.lists(integers, unique=True))
def test_different_integers_stay_different(numbers: list[int]) -> None:
    assert len({DISGUISE.cell(number) for number in numbers}) == len(numbers)


@given(st.floats())
def test_floats_stay_floats(number: float) -> None:
    found = DISGUISE.cell(number)
    assert type(found) is float
    assert math.isfinite(found) == math.isfinite(number)


@given(st.lists(st.binary(max_size=100), unique=True))
@settings(deadline=None)
def test_blobs_keep_their_length(values: list[bytes]) -> None:
    found = [DISGUISE.cell(value) for value in values]
    assert len(set(found)) == len(values)
    assert [len(value) for value in found] == [len(value) for value in values]  # pyright: ignore[reportArgumentType]


@given(st.text(alphabet=st.characters(max_codepoint=127)))
@settings(deadline=None)
def test_texts_that_differ_only_in_capitals_still_do(text: str) -> None:
    assert DISGUISE.text(text.lower()) == DISGUISE.text(text).lower()


def test_another_key_gives_other_values() -> None:
    text = "alice@example.com"
    assert DISGUISE.text(text) != text != Disguise(b"another").text(text) != DISGUISE.text(text)


def test_null_is_null_and_long_texts_take_no_time() -> None:
    assert DISGUISE.cell(None) is None
    began = time.monotonic()
    long = "a long text, " * 20_000
    assert len(DISGUISE.text(long)) == len(long)
    assert time.monotonic() - began < 20
