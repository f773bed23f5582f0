"""The grammar of decompositions: the list that it comes from is parsed whole, and every way to get it wrong has its message."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retroact.decomposition import Ordering, Phase, Span, all_orderings, classify
from retroact.errors import BadDeclaration

EXECUTE, ORDER, VALIDATE, PERSIST = Phase

# "A Big List of Every Possible Ordering", word for word from the essay "Decomposing Transactional Systems".
BIG_LIST = """
Execute -> Order -> Persist -> Validate
Execute -> Order -> Validate -> Persist
Execute -> Persist -> Order -> Validate
Execute -> Persist -> Validate -> Order
Execute -> Validate -> Order -> Persist
Execute -> Validate -> Persist -> Order
Order -> Execute -> Persist -> Validate
Order -> Execute -> Validate -> Persist
Order -> Persist -> Execute -> Validate
Order -> Persist -> Validate -> Execute
Order -> Validate -> Execute -> Persist
Order -> Validate -> Persist -> Execute
Persist -> Execute -> Order -> Validate
Persist -> Execute -> Validate -> Order
Persist -> Order -> Execute -> Validate
Persist -> Order -> Validate -> Execute
Persist -> Validate -> Execute -> Order
Persist -> Validate -> Order -> Execute
Validate -> Execute -> Order -> Persist
Validate -> Execute -> Persist -> Order
Validate -> Order -> Execute -> Persist
Validate -> Order -> Persist -> Execute
Validate -> Persist -> Execute -> Order
Validate -> Persist -> Order -> Execute

{Execute, Order} -> Persist -> Validate
Execute -> {Persist, Order} -> Validate
Execute -> Order -> {Persist, Validate}
{Execute, Order} -> Validate -> Persist
Execute -> {Order, Validate} -> Persist
{Persist, Execute} -> Order -> Validate
Execute -> Persist -> {Order, Validate}
{Persist, Execute} -> Validate -> Order
Execute -> {Persist, Validate} -> Order
{Execute, Validate} -> Order -> Persist
Execute -> Validate -> {Persist, Order}
{Execute, Validate} -> Persist -> Order
Order -> {Persist, Execute} -> Validate
Order -> Execute -> {Persist, Validate}
Order -> {Execute, Validate} -> Persist
{Persist, Order} -> Execute -> Validate
Order -> Persist -> {Execute, Validate}
{Persist, Order} -> Validate -> Execute
Order -> {Persist, Validate} -> Execute
{Order, Validate} -> Execute -> Persist
Order -> Validate -> {Persist, Execute}
{Order, Validate} -> Persist -> Execute
Persist -> {Execute, Order} -> Validate
Persist -> Execute -> {Order, Validate}
Persist -> {Execute, Validate} -> Order
Persist -> Order -> {Execute, Validate}
Persist -> {Order, Validate} -> Execute
{Persist, Validate} -> Execute -> Order
Persist -> Validate -> {Execute, Order}
{Persist, Validate} -> Order -> Execute
Validate -> {Execute, Order} -> Persist
Validate -> Execute -> {Persist, Order}
Validate -> {Persist, Execute} -> Order
Validate -> Order -> {Persist, Execute}
Validate -> {Persist, Order} -> Execute
Validate -> Persist -> {Execute, Order}

{Execute, Order} -> {Persist, Validate}
{Execute, Validate} -> {Persist, Order}
{Persist, Execute} -> {Order, Validate}
{Persist, Order} -> {Execute, Validate}
{Order, Validate} -> {Persist, Execute}
{Persist, Validate} -> {Execute, Order}

Execute -> {Order, Persist, Validate}
{Order, Persist, Validate} -> Execute
Order -> {Execute, Persist, Validate}
{Execute, Persist, Validate} -> Order
Persist -> {Execute, Order, Validate}
{Execute, Order, Validate} -> Persist
Validate -> {Execute, Order, Persist}
{Execute, Order, Persist} -> Validate

{Execute, Order, Persist, Validate}
"""
LISTED = [line for line in BIG_LIST.splitlines() if line]


def test_the_big_list_is_exactly_what_can_be_built() -> None:
    assert len(LISTED) == 75
    assert {Ordering.parse(line) for line in LISTED} == set(all_orderings())


def test_there_are_75_orderings_and_each_reads_back_as_itself() -> None:
    orderings = all_orderings()
    assert len(orderings) == len(set(orderings)) == len(set(map(str, orderings))) == 75
    for ordering in orderings:
        assert Ordering.parse(str(ordering)) == ordering


def test_all_orderings_come_from_sequential_to_concurrent() -> None:
    assert str(all_orderings()[0]) == "Execute -> Order -> Validate -> Persist"
    assert str(all_orderings()[-1]) == "{Execute, Order, Validate, Persist}"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("{Persist, Execute} -> Validate -> Order", "{Execute, Persist} -> Validate -> Order"),
        ("execute->{order,VALIDATE}->persist", "Execute -> {Order, Validate} -> Persist"),
        ("  {Execute} -> Order\n-> Validate -> { Persist } ", "Execute -> Order -> Validate -> Persist"),
    ],
)
def test_one_arrangement_has_one_canonical_form(text: str, canonical: str) -> None:
    assert str(Ordering.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' in '' is not a phase. The phases are Execute, Order, Validate, Persist"),
        ("Execute -> Order -> Commit -> Persist", "'Commit' in 'Execute -> Order -> Commit -> Persist' is not a phase"),
        ("Execute -> Order -> Validate", "Persist must be there exactly once and is there 0 times"),
        ("Execute -> Order -> Validate -> {Persist, Order}", "Order must be there exactly once and is there 2 times"),
        ("Execute -> {Order, Order} -> Validate -> Persist", "'{Order, Order}' names a phase twice"),
        ("Execute -> {} -> Order -> Validate -> Persist", "'' in"),
        ("Execute -> {Order, Validate -> Persist", "'{Order, Validate' in"),
        ("{{Execute, Order}, Validate} -> Persist", "'{Execute' in"),
        ("Execute, Order -> Validate -> Persist", "'Execute, Order' in"),
        ("Execute -> Order -> Validate -> Persist ->", "'' in"),
        ("{", "'{' in '{' is not a phase"),
    ],
)
def test_bad_text_is_told_what_is_wrong_with_it(text: str, problem: str) -> None:
    with pytest.raises(BadDeclaration) as caught:
        Ordering.parse(text)
    assert str(caught.value).startswith("ordering: ")
    assert problem in str(caught.value)


@given(st.text(alphabet="{}->, EOVPexcutordvalips"))
def test_any_text_is_an_ordering_or_a_bad_declaration(text: str) -> None:
    with contextlib.suppress(BadDeclaration):
        ordering = Ordering.parse(text)
        assert Ordering.parse(str(ordering)) == ordering


def test_an_empty_group_is_refused() -> None:
    with pytest.raises(BadDeclaration, match="is empty"):
        Ordering((frozenset(Phase), frozenset()))


def test_before_and_concurrent() -> None:
    ordering = Ordering.parse("Execute -> {Order, Validate} -> Persist")
    assert ordering.before(EXECUTE, ORDER)
    assert ordering.concurrent(ORDER, VALIDATE)
    assert not ordering.before(ORDER, VALIDATE)
    assert not ordering.before(PERSIST, EXECUTE)


@pytest.mark.parametrize("ordering", all_orderings(), ids=str)
def test_spans_drawn_from_an_ordering_classify_to_it(ordering: Ordering) -> None:
    spans = [Span(p, 10 * place, 10 * place + 10) for place, group in enumerate(ordering.groups) for p in group]
    assert classify(spans) == ordering
    assert classify(reversed(spans)) == ordering


@pytest.mark.parametrize(
    ("spans", "ordering"),
    [
        pytest.param(
            [Span(EXECUTE, 0, 8), Span(VALIDATE, 2, 6), Span(ORDER, 8, 9), Span(PERSIST, 9, 20)],
            "{Execute, Validate} -> Order -> Persist",
            id="a span inside another is concurrent with it",
        ),
        pytest.param(
            [Span(EXECUTE, 0, 5), Span(ORDER, 5, 5), Span(VALIDATE, 5, 5), Span(PERSIST, 5, 9)],
            "Execute -> {Order, Validate} -> Persist",
            id="two instants at one time are concurrent, and stand between what ends and what begins there",
        ),
        pytest.param(
            [Span(EXECUTE, 0, 5), Span(ORDER, 3, 3), Span(VALIDATE, 5, 7), Span(PERSIST, 7, 9)],
            "{Execute, Order} -> Validate -> Persist",
            id="an instant within a span is concurrent with it",
        ),
        pytest.param(
            [Span(EXECUTE, 0, 5), Span(ORDER, 5, 6), Span(VALIDATE, 6, 7), Span(PERSIST, 7, 8), Span(PERSIST, 9, 12)],
            "Execute -> Order -> Validate -> Persist",
            id="a phase on several replicas lasts from its first span to its last",
        ),
    ],
)
def test_what_overlaps_is_concurrent(spans: list[Span], ordering: str) -> None:
    assert str(classify(spans)) == ordering


def test_spans_that_are_no_ordering_are_refused_by_name() -> None:
    spans = [Span(EXECUTE, 0, 4), Span(ORDER, 6, 8), Span(VALIDATE, 3, 7), Span(PERSIST, 9, 10)]
    with pytest.raises(BadDeclaration, match="Execute had ended before Order began, but Validate overlaps both"):
        classify(spans)


def test_a_missing_phase_is_named() -> None:
    with pytest.raises(BadDeclaration, match="no span for Order, Persist"):
        classify([Span(EXECUTE, 0, 1), Span(VALIDATE, 1, 2)])


def test_a_span_ends_after_it_begins() -> None:
    with pytest.raises(BadDeclaration, match="Order ends at 3 us, before it begins at 4 us"):
        Span(ORDER, 4, 3)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=4, max_size=4))
def test_a_classification_says_before_exactly_where_the_spans_do(times: list[tuple[int, int]]) -> None:
    spans = [Span(phase, began, began + length) for phase, (began, length) in zip(Phase, times, strict=True)]
    try:
        ordering = classify(spans)
    except BadDeclaration:
        return
    for first in spans:
        for second in spans:
            assert ordering.before(first.phase, second.phase) == first.before(second)
