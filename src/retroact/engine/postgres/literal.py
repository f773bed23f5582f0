"""Values as literals of Postgres, and as what the record keeps of them.

A literal means the same whatever standard_conforming_strings says: where a backslash occurs, the form with escapes is used.

This module must not know the statement that a literal stands in.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast

from retroact.trace.record import Cell

_INT4, _INT8 = 2**31, 2**63
#: The numbers by which Postgres knows the types of parameters; 0: it finds out itself.
_BOOL, _BYTEA, _INT8_OID, _INT4_OID, _FLOAT8, _NUMERIC = 16, 17, 20, 23, 701, 1700


def text(value: str) -> str:
    """A text. Raises ValueError for what Postgres cannot hold."""
    if "\x00" in value:
        raise ValueError("Postgres holds no text with the character NUL in it; give bytes")
    if "\\" in value:
        return " E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + value.replace("'", "''") + "'" if "'" in value else f"'{value}'"


def optional(value: str | None) -> str:
    """A text or null."""
    return "null" if value is None else text(value)


def _float(value: float) -> str:
    return f"'{value!r}'"


def _bytes(value: bytes) -> str:
    return f" E'\\\\x{value.hex()}'"


def _integer(value: int) -> str:
    return str(value) if -_INT8 <= value < _INT8 else f"'{value}'"


_LITERALS: dict[type, Callable[[Any], str]] = {
    int: _integer,
    str: text,
    float: _float,
    bytes: _bytes,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
}


def literal(value: Cell) -> str:
    """A value. Raises ValueError."""
    return _LITERALS[type(value)](value)


def _integer_type(value: int) -> int:
    return _INT4_OID if -_INT4 <= value < _INT4 else _INT8_OID if -_INT8 <= value < _INT8 else _NUMERIC


_TYPES: dict[type, Callable[[Any], int]] = {
    int: _integer_type,
    str: lambda _: 0,
    float: lambda _: _FLOAT8,
    bytes: lambda _: _BYTEA,
    bool: lambda _: _BOOL,
    type(None): lambda _: 0,
}


def type_number(value: Cell) -> int:
    """The type that a parameter is declared with; of texts and null Postgres finds out by where they stand."""
    return _TYPES[type(value)](value)


#: Types of parameters that are bound and recorded as they are.
PLAIN = frozenset(_LITERALS)


def plain(value: object) -> Cell:  # noqa: PLR0911 - one line for each kind of value
    """A parameter as it is bound and recorded: subclasses as what they are made from; dates, times, decimals and ids as text.

    Raises TypeError."""
    match value:
        case None | bool():
            return value
        case int():
            return int.__int__(value)
        case float():
            return float.__float__(value)
        case str():
            return str.__str__(value)
        case bytes() | bytearray() | memoryview():
            return bytes(cast("bytes", value))
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal() | uuid.UUID():
            return str(value)
        case _:
            raise TypeError(f"is a {type(value).__name__}; give a number, text, bytes, a date or time, a UUID or None")


def all_plain(parameters: Mapping[str, Any]) -> dict[str, Cell]:
    """Every parameter of a statement. Raises TypeError."""
    found: dict[str, Cell] = {}
    for name, value in parameters.items():
        try:
            found[name] = plain(value)
        except TypeError as error:
            raise TypeError(f"{name} {error}") from None
    return found
