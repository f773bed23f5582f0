"""What a moment says of a transaction."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from retroact.diagram.moments import event_moments, label, lanes_of, recorded_moments
from retroact.diagram.phrase import call, change, flat, most_telling, outcome, shorten_end, shorten_middle
from retroact.trace.record import Change, Failure, Outcome, Record, RunId, StepNumber, Verb, Version

ONE_LESS = Change(table="inventory", verb=Verb.UPDATE, rowid=1, rowid_after=1, before={"available": 1}, after={"available": 0})
RENAMED = Change(table="inventory", verb=Verb.UPDATE, rowid=1, rowid_after=1, before={"item": "a"}, after={"item": "b"})
ORDERED = Change(table="orders", verb=Verb.INSERT, rowid=7, rowid_after=7, before=None, after={"id": 7, "item": "apple"})
GONE = Change(table="orders", verb=Verb.DELETE, rowid=7, rowid_after=None, before={"id": 7, "item": "apple"}, after=None)
SCHEMA = Change(table="", verb=Verb.SCHEMA, rowid=None, rowid_after=None, before=None, after=None)
WHOLE = Change(table="k", verb=Verb.UPDATE, rowid=None, rowid_after=None, before={"k": "a", "v": 1}, after={"k": "a", "v": 2})
FAILED = Outcome(failure=Failure(error="shop.OutOfStock", message="apple"))


def record(version: int, run: str, function: str, value: str, *changes: Change, kind: str = "transaction") -> Record:
    return Record(
        version=Version(version),
        run=RunId(run),
        step=StepNumber(1),
        attempt=1,
        function=function,
        kind=kind,
        fingerprint="",
        code=None,
        arguments="{}",
        snapshot=Version(version - 1),
        began_us=0,
        elapsed_us=0,
        outcome=Outcome(value=value),
        changes=changes,
    )


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (ONE_LESS, "inventory[1].available 1 -> 0"),
        (ORDERED, '+ orders(id=7, item="apple")'),
        (GONE, '- orders(id=7, item="apple")'),
        (WHOLE, "k.v 1 -> 2"),
        (SCHEMA, "the schema"),
    ],
)
def test_a_change_in_a_phrase(of: Change, expected: str) -> None:
    assert change(of) == expected


@pytest.mark.parametrize(
    ("changes", "expected", "short"),
    [
        ([ORDERED, RENAMED, ONE_LESS], "inventory.available 1 -> 0", "1 -> 0"),
        ([ORDERED, RENAMED], 'inventory.item "a" -> "b"', '"a" -> "b"'),
        ([ORDERED], "+ orders 7", "+ orders"),
        ([GONE], "- orders 7", "- orders"),
        ([ORDERED, SCHEMA], "changes the schema", "+ schema"),
        ([], None, None),
    ],
)
def test_the_most_telling_change(changes: list[Change], expected: str | None, short: str | None) -> None:
    assert most_telling(changes) == expected
    assert most_telling(changes, short=True) == short


def test_a_label_says_the_error_the_change_or_the_value() -> None:
    assert label("reserve", FAILED, []) == "reserve -> OutOfStock: apple"
    assert label("reserve", FAILED, [], short=True) == "reserve -> OutOfStock"
    assert label("reserve", Outcome(value="true"), [ONE_LESS]) == "reserve inventory.available 1 -> 0"
    assert label("check", Outcome(value="true"), []) == "check -> true"


def test_records_become_moments_in_their_order_and_steps_do_not() -> None:
    records = [record(2, "b", "check", "true"), record(1, "a", "update", "null", ONE_LESS), record(3, "a", "charge", "1", kind="step")]
    moments = recorded_moments(records, {Version(1): "never_oversold"})
    assert [(m.place, m.lane, m.label, m.note, m.alarm) for m in moments] == [
        (2, "b", "check -> true", None, False),
        (1, "a", "update inventory.available 1 -> 0", "never_oversold", True),
    ]
    assert lanes_of(moments) == ["b", "a"]


@dataclass(frozen=True)
class Event:
    run: str
    function: str
    version: int
    record: Record | None
    outcome: Outcome | None
    changes: tuple[Change, ...] = ()
    broke: tuple[str, ...] = ()


def test_events_become_moments_with_what_they_broke_and_whether_they_are_new() -> None:
    known = record(4, "a", "check", "true")
    events = [
        Event("a", "check", 4, known, Outcome(value="true")),
        Event("a", "reserve", 4, None, Outcome(value="null"), (ONE_LESS,)),
        Event("b", "update", 5, None, Outcome(value="null"), (ONE_LESS,), ("never_oversold", "other")),
        Event("b", "update", 6, known, None),
    ]
    assert [(m.label, m.note, m.alarm) for m in event_moments(events)] == [
        ("check -> true", None, False),
        ("reserve inventory.available 1 -> 0", "new", False),
        ("update inventory.available 1 -> 0", "never_oversold, other", True),
    ]


def test_calls_and_outcomes_in_a_phrase() -> None:
    assert call("reserve", '{"item": "apple", "n": [1, 2]}') == 'reserve(item="apple", n=[1, 2])'
    assert call("setup", "{}") == "setup()"
    assert outcome(FAILED) == "OutOfStock: apple"
    assert outcome(Outcome(failure=Failure(error="builtins.KeyError", message=""))) == "KeyError"
    assert outcome(Outcome(value='{"a":1}')) == '{"a":1}'
    assert outcome(None) == ""


def test_texts_are_cut_to_a_width() -> None:
    assert shorten_middle("abcdefghij", 5) == "ab…ij"
    assert shorten_middle("abc", 3) == "abc"
    assert shorten_middle("abc", 1) == "…"
    assert shorten_end("abcdef", 4) == "abc…"
    assert flat("a\n  b\x1b[31m") == "a b [31m"
