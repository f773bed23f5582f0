"""Times as people write them. The zone is whatever this machine has."""

from __future__ import annotations

import datetime

import pytest

from retroact.cli.failure import BadRequest
from retroact.cli.times import duration, parse, show

NOW = round(datetime.datetime(2026, 3, 1, 14, 0, 5).astimezone().timestamp() * 1e6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5s", "2026-03-01 14:00:00"),
        ("10m", "2026-03-01 13:50:05"),
        ("2h", "2026-03-01 12:00:05"),
        ("1.5h", "2026-03-01 12:30:05"),
        ("1d", "2026-02-28 14:00:05"),
        ("9:30", "2026-03-01 09:30:00"),
        ("09:30:15", "2026-03-01 09:30:15"),
        ("2026-02-01", "2026-02-01 00:00:00"),
        ("2026-02-01T10:20:30", "2026-02-01 10:20:30"),
        ("2026-02-01 10:20", "2026-02-01 10:20:00"),
    ],
)
def test_a_time(text: str, expected: str) -> None:
    assert show(parse(text, NOW)) == expected


def test_a_day_as_an_end_is_all_of_it() -> None:
    assert show(parse("2026-02-01", NOW, end=True)) == "2026-02-01 23:59:59"


def test_a_zone_may_be_given() -> None:
    assert parse("2026-02-01T10:00:00Z", NOW) == parse("2026-02-01T12:00:00+02:00", NOW)


@pytest.mark.parametrize("text", ["", "soon", "25:00", "10 parsecs", "2026-13-01", "14", "99999-01-01"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(BadRequest, match="is not a time"):
        parse(text, NOW)


@pytest.mark.parametrize(
    ("us", "expected"),
    [(350, "0.35 ms"), (12_300, "12 ms"), (1_250_000, "1.25 s"), (125_000_000, "2 m 05 s"), (3_725_000_000, "1 h 02 m")],
)
def test_a_duration(us: int, expected: str) -> None:
    assert duration(us) == expected
