"""Short phrases for what a trace holds: a call, an outcome, a changed row, a cell; and cutting a text to a width.

Pure: values in, text out. This module must not know terminals, nor who reads the phrase.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from retroact.trace.record import Cell, Change, Outcome, Verb

_ELLIPSIS = "…"


def shorten_middle(text: str, width: int) -> str:
    """At most `width` characters: the beginning and the end, which tell most, with … for what is left out."""
    if len(text) <= width:
        return text
    if width <= 1:
        return _ELLIPSIS[:width]
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + _ELLIPSIS + text[len(text) - tail :]


def shorten_end(text: str, width: int) -> str:
    """At most `width` characters from the beginning."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + _ELLIPSIS[:width]


def flat(text: str) -> str:
    """On one line, with nothing that moves a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def cell(value: Cell) -> str:
    """One value of a row."""
    match value:
        case None:
            return "null"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case bytes():
            return f"x'{shorten_end(value.hex(), 16)}'"
        case _:
            return str(value)


def call(function: str, arguments: str) -> str:
    """A call, from the JSON object of its arguments: `reserve(item="apple", quantity=1)`."""
    given = json.loads(arguments or "{}")
    named = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    return f"{function}({', '.join(f'{name}={_json(value)}' for name, value in named.items())})"


def outcome(result: Outcome | None) -> str:
    """What came of it: the value as JSON, or the error with its message."""
    if result is None:
        return ""
    if result.failure is not None:
        error = result.failure.error.rpartition(".")[2]
        return flat(f"{error}: {result.failure.message}" if result.failure.message else error)
    return flat(result.value or "null")


def change(of: Change) -> str:
    """One changed row, with what tells it from others: `inventory[1].available 1 -> 0`, `+ orders(id="7")`."""
    if of.verb is Verb.SCHEMA:
        return "the schema" if of.rowid is None else f"{of.rowid:,} rows, of which only a digest is recorded"
    if of.verb is Verb.DROPPED:
        return f"{of.table}: forgotten"
    if of.verb is Verb.INSERT:
        return f"+ {of.table}({_cells(of.after)})"
    if of.verb is Verb.DELETE:
        return f"- {of.table}({_cells(of.before)})"
    return _update(of, f"{of.table}[{of.rowid}]" if of.rowid is not None else of.table)


def most_telling(changes: Iterable[Change], *, short: bool = False) -> str | None:
    """The one changed row that says most about a transaction: a number that moved, else an update, else a row more or less.
    `inventory.available 1 -> 0`, in short `1 -> 0`."""
    ranked = sorted(changes, key=_rank)
    if not ranked:
        return None
    first = ranked[0]
    if first.verb is Verb.SCHEMA:
        return "+ schema" if short else "changes the schema"
    if first.verb is Verb.DROPPED:
        return change(first)
    if first.verb is Verb.UPDATE:
        moved = _update(first, first.table, most=1)
        return moved.partition(" ")[2] if short else moved
    if short:
        return f"{'+' if first.verb is Verb.INSERT else '-'} {first.table}"
    sign, row = ("+", first.after) if first.verb is Verb.INSERT else ("-", first.before)
    return f"{sign} {first.table} {_identity(row)}".rstrip()


def _update(of: Change, name: str, most: int | None = None) -> str:
    before, after = of.before or {}, of.after or {}
    moved = [column for column in after if before.get(column) != after[column] or column not in before]
    moved.sort(key=lambda column: not _number(after[column]))
    parts = [f"{column} {cell(before.get(column))} -> {cell(after[column])}" for column in moved]
    return f"{name}.{', '.join(parts[:most])}" if parts else f"{name} (nothing)"


def _rank(of: Change) -> int:
    if of.verb is Verb.SCHEMA:
        return 0
    if of.verb is Verb.UPDATE:
        return 1 if any(_number(value) for value in (of.after or {}).values()) else 2
    if of.verb is Verb.DROPPED:
        return 5
    return 3 if of.verb is Verb.DELETE else 4


def _number(value: Cell) -> bool:
    return isinstance(value, int | float)


def _identity(row: Mapping[str, Cell] | None) -> str:
    """The first cell, which is the key in most tables."""
    return cell(next(iter(row.values()))) if row else ""


def _cells(row: Mapping[str, Cell] | None) -> str:
    return ", ".join(f"{column}={cell(value)}" for column, value in (row or {}).items())


def _json(value: Any) -> str:
    return flat(json.dumps(value, ensure_ascii=False))
