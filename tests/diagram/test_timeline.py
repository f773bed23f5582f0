"""Timelines, word for word."""

from __future__ import annotations

import pytest

from retroact.diagram.timeline import Moment, timeline

RACE = [
    Moment(place=12, lane="order-1", label="check -> true"),
    Moment(place=13, lane="order-2", label="check -> true"),
    Moment(place=14, lane="order-1", label="update inventory.available 1 -> 0", short="update 1 -> 0"),
    Moment(place=15, lane="order-2", label="update inventory.available 0 -> -1", short="update 0 -> -1", note="never_oversold", alarm=True),
]


def check(moments: list[Moment], expected: str, *, width: int = 100, lanes: tuple[str, ...] = ("order-1", "order-2")) -> None:
    drawn = timeline(lanes, moments, width=width)
    assert drawn == expected.strip("\n")
    assert max(map(len, drawn.splitlines())) <= width


def test_an_interleaving_is_drawn_with_a_column_for_each_run() -> None:
    check(
        RACE,
        """
version  order-1                               order-2
     12  ● check -> true
     13  │                                     ● check -> true
     14  ● update inventory.available 1 -> 0   │
     15                                        ● update inventory.available 0 -> -1   ✗ never_oversold
""",
        width=110,
    )


def test_where_it_is_narrow_the_short_labels_are_written() -> None:
    check(
        RACE,
        """
version  order-1           order-2
     12  ● check -> true
     13  │                 ● check -> true
     14  ● update 1 -> 0   │
     15                    ● update 0 -> -1   ✗ never_oversold
""",
        width=85,
    )


def test_where_it_is_too_narrow_each_line_names_its_run() -> None:
    check(
        RACE,
        """
version  run
     12  order-1  ● check -> true
     13  order-2  ● check -> true
     14  order-1  ● update 1 -> 0
     15  order-2  ● update 0 -> -1   ✗ never_oversold
""",
        width=55,
    )


def test_a_long_label_loses_its_middle() -> None:
    long = [Moment(place=1, lane="a", label="begins_like_this" + "x" * 100 + "ends_like_that")]
    check(
        long,
        """
version  a
      1  ● begins_like_thisxx…xxxxends_like_that
""",
        width=48,
        lanes=(),
    )


def test_a_note_that_is_no_alarm_has_no_cross() -> None:
    check([Moment(place=3, lane="a", label="x", note="new")], "version  a\n      3  ● x   new", lanes=("a",))


def test_lanes_stand_in_the_order_asked_for_and_unknown_ones_follow() -> None:
    moments = [Moment(place=1, lane="c", label="x"), Moment(place=2, lane="b", label="y")]
    assert timeline(["b"], moments).splitlines()[0].split() == ["version", "b", "c"]


def test_nothing_is_drawn_of_nothing() -> None:
    assert timeline(["a"], []) == ""


@pytest.mark.parametrize("width", range(40, 200, 7))
@pytest.mark.parametrize("lanes", [1, 2, 5, 12])
def test_no_line_is_wider_than_asked_for(width: int, lanes: int) -> None:
    moments = [
        Moment(place=10**n, lane=f"run-{n % lanes}", label="update " * (n + 1), note="broken " * n or None, alarm=n % 2 == 0)
        for n in range(9)
    ]
    lines = timeline([f"run-{n}" for n in range(lanes)], moments, width=width).splitlines()
    assert len(lines) == len(moments) + 1
    assert max(map(len, lines)) <= width
    assert not any(line.endswith(" ") for line in lines)
