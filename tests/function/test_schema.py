"""Type hints as the schema: what a body is given is what is recorded, and what cannot be recorded is refused."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retroact import transaction
from retroact.errors import BadArguments, BadDeclaration, UnencodableResult
from retroact.function.schema import Schema

if TYPE_CHECKING:
    from nowhere import OnlyForTyping  # pyright: ignore


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Line:
    item: str
    quantity: int = 1


class Order(msgspec.Struct):
    lines: list[Line]
    due: datetime.datetime | None = None


def typed(  # noqa: PLR0917
    line: Line, order: Order, colour: Colour, when: datetime.datetime, data: bytes, price: decimal.Decimal, ident: uuid.UUID
) -> Order:
    return order


def defaults(a: int, b: str = "b", c: float | None = None, *, d: bool = False, e: int) -> None: ...


def mutable(rows: list[list[int]] = [[1]], seen: set[int] = {2}, order: Order = Order([Line("lamp")])) -> None: ...  # noqa: B006, B008


def only_names(*, item: str) -> None: ...


def only_places(item: str, /, other: int) -> None: ...


def untyped(a, b=None):
    return a


def limited(quantity: Annotated[int, msgspec.Meta(gt=0)]) -> None: ...


def cyclic() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


LINE = Line("lamp", 2)
MOMENT = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=datetime.UTC)


def round_trip(body: Any, *args: Any, **kwargs: Any) -> Any:
    schema = Schema.of(body, body.__name__)
    return schema.decode_arguments(schema.encode_arguments(args, kwargs))


@pytest.mark.parametrize(
    ("body", "args", "kwargs", "given"),
    [
        (
            typed,
            (LINE, Order([LINE], MOMENT), Colour.RED, MOMENT, b"\0\xff", decimal.Decimal("0.10"), uuid.UUID(int=7)),
            {},
            ((LINE, Order([LINE], MOMENT), Colour.RED, MOMENT, b"\0\xff", decimal.Decimal("0.10"), uuid.UUID(int=7)), {}),
        ),
        (defaults, (1,), {"e": 5}, ((1, "b", None), {"d": False, "e": 5})),
        (defaults, (), {"e": 5, "a": 1, "c": 2}, ((1, "b", 2.0), {"d": False, "e": 5})),
        (defaults, (1, "x", 2.5), {"d": True, "e": 0}, ((1, "x", 2.5), {"d": True, "e": 0})),
        (only_names, (), {"item": "ü\N{SNOWMAN}"}, ((), {"item": "ü\N{SNOWMAN}"})),
        (only_places, ("a", 2**80), {}, (("a", 2**80), {})),
        (only_places, ("a",), {"other": 1}, (("a", 1), {})),
        (untyped, ((1, 2),), {}, (([1, 2], None), {})),
        (untyped, ({1: "a"},), {"b": None}, (({"1": "a"}, None), {})),
    ],
)
def test_a_body_is_given_what_the_record_says(body: Any, args: Any, kwargs: Any, given: Any) -> None:
    assert round_trip(body, *args, **kwargs) == given


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.integers(-(2**63), 2**63 - 1), TEXT, st.none() | FINITE)
def test_numbers_and_text_survive(a: int, b: str, c: float | None) -> None:
    assert round_trip(defaults, a, b, c, e=0)[0] == (a, b, c)


def test_a_default_is_not_shared_by_two_calls() -> None:
    """A body that changed the list in its default changed it for every later call, and a replay saw another argument."""
    schema = Schema.of(mutable, "mutable")
    (rows, seen, order), _ = schema.decode_arguments(b"{}")
    rows[0].append(9)
    seen.add(9)
    order.lines[0].quantity = 9
    assert schema.decode_arguments(b"{}") == (([[1]], {2}, Order([Line("lamp")])), {})
    assert mutable.__defaults__ == ([[1]], {2}, Order([Line("lamp")]))


@pytest.mark.parametrize(
    ("body", "args", "kwargs", "problem"),
    [
        (defaults, (), {}, "defaults: missing a, e. It takes defaults(a: int, b: str = 'b', c: float | None = None, d: bool = False"),
        (defaults, (1, "b", 1.0, True), {"e": 1}, "too many arguments, or one given twice"),
        (defaults, (1,), {"a": 1, "e": 1}, "too many arguments, or one given twice"),
        (defaults, (1,), {"e": 1, "f": 1}, "unknown field `f`"),
        (defaults, ("1",), {"e": 1}, "Expected `int`, got `str` - at `$.a`"),
        (defaults, (1,), {"e": 1, "c": math.inf}, "JSON has no infinity and no NaN"),
        (untyped, ([{"a": math.nan}, None],), {}, "JSON has no infinity and no NaN"),
        (defaults, (1, "\ud800"), {"e": 1}, "cannot be recorded"),
        (untyped, (object(),), {}, "cannot be recorded"),
        (untyped, (cyclic(),), {}, "cannot be recorded"),
        (limited, (0,), {}, "Expected `int` >= 1"),
    ],
)
def test_bad_arguments(body: Any, args: Any, kwargs: Any, problem: str) -> None:
    with pytest.raises(BadArguments) as refused:
        round_trip(body, *args, **kwargs)
    assert problem in str(refused.value)


def returning(hint: Any) -> Schema:
    def body() -> Any: ...

    body.__annotations__["return"] = hint
    return Schema.of(body, "body")


@pytest.mark.parametrize(
    ("hint", "value", "recorded"),
    [
        (int, 1, b"1"),
        (float, 1, b"1"),
        (None, None, b"null"),
        (Any, [None, {"a": 1.5}], b'[null,{"a":1.5}]'),
        (Line, LINE, b'{"item":"lamp","quantity":2}'),
        (list[Colour], [Colour.RED], b'["red"]'),
        (bytes, b"ab", b'"YWI="'),
        (float | None, None, b"null"),
    ],
)
def test_a_result_is_recorded(hint: Any, value: Any, recorded: bytes) -> None:
    schema = returning(hint)
    assert schema.encode_result(value) == recorded
    assert schema.decode_result(recorded) == value
    assert type(schema.decode_result(recorded)) is (float if hint is float else type(value))


@pytest.mark.parametrize(
    ("hint", "value", "problem"),
    [
        (int, "1", "body returned '1', which cannot be recorded as int: Expected `int`, got `str`"),
        (int, True, "Expected `int`, got `bool`"),
        (None, 5, "Expected `null`, got `int`"),
        (Any, object, "cannot be recorded as Any"),
        (Any, math.inf, "JSON has no infinity and no NaN"),
        (float, math.nan, "JSON has no infinity and no NaN"),
        (Line, {"item": 1}, "Expected `str`, got `int`"),
        (str, "\ud800", "cannot be recorded"),
        (list[Any], cyclic(), "cannot be recorded"),
        (Any, "x" * 200 + "\ud800", "x..., which cannot"),
    ],
)
def test_a_result_that_cannot_be_recorded(hint: Any, value: Any, problem: str) -> None:
    with pytest.raises(UnencodableResult) as refused:
        returning(hint).encode_result(value)
    assert problem in str(refused.value)


def of_kind(*items: str) -> None: ...
def of_names(**items: str) -> None: ...
def lost(item: Nowhere) -> None: ...  # noqa: F821  # pyright: ignore
def two_dataclasses(item: Line | Order) -> None: ...
def no_connection() -> None: ...


@pytest.mark.parametrize(
    ("body", "skip", "problem"),
    [
        (of_kind, 0, "parameter *items cannot be recorded by name; name each one"),
        (of_names, 0, "parameter *items cannot be recorded by name"),
        (lost, 0, "its type hints cannot be resolved: name 'Nowhere' is not defined"),
        (two_dataclasses, 0, "its type hints cannot be encoded"),
        (no_connection, 1, "its first parameter must be the connection"),
    ],
)
def test_a_signature_that_cannot_be_a_schema(body: Any, skip: int, problem: str) -> None:
    with pytest.raises(BadDeclaration) as refused:
        Schema.of(body, "body", skip=skip)
    assert problem in str(refused.value)


def connected(conn: OnlyForTyping, item: str) -> None: ...


def test_the_connection_may_be_hinted_for_typing_only() -> None:
    """`from retroact import Connection` under TYPE_CHECKING made every transaction of a module a bad declaration."""
    assert transaction(connected).schema.decode_arguments(b'{"item":"a"}') == (("a",), {})


@pytest.mark.parametrize("arguments", [b"", b"[]", b"{", b"null", '{"item":5}', '{"item":"a","more":1}'])
def test_a_record_that_does_not_fit_is_bad_arguments(arguments: Any) -> None:
    with pytest.raises(BadArguments):
        Schema.of(only_names, "only_names").decode_arguments(arguments)


def test_a_name_need_not_be_an_identifier() -> None:
    assert Schema.of(only_names, "stock.add one").decode_arguments(b'{"item":"a"}') == ((), {"item": "a"})
