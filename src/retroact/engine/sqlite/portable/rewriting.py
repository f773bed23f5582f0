"""Records as rows once more, after something in them was replaced.

This module must not know what is replaced, nor why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retroact.engine.sqlite.relation import Relation
from retroact.trace.codec import decode_json, encode_cell, encode_json
from retroact.trace.record import Cell, Change, Statement, Verb

Rename = Callable[[str, str, Cell], Cell]


def replaced(changes: Sequence[Change], cell: Rename) -> tuple[Change, ...]:
    """Changes with every cell as `cell(table, column, value)` says."""

    def row(change: Change, cells: Mapping[str, Cell] | None) -> dict[str, Cell] | None:
        return None if cells is None else {column: cell(change.table, column, value) for column, value in cells.items()}

    return tuple(
        Change(
            table=c.table,
            verb=c.verb,
            rowid=c.rowid,
            rowid_after=c.rowid_after,
            before=row(c, c.before),
            after=row(c, c.after),
        )
        for c in changes
    )


def changes_row(changes: Sequence[Change], stored: str | None, relations: Mapping[int, Relation]) -> str | None:
    """Changes as the trace keeps them. `stored`: those of the record that they are for, of the same tables."""
    if not changes:
        return None
    numbers = {relations[entry[0]].name: entry[0] for entry in decode_json(stored or "[]") if entry[0]}
    return encode_json([_change(change, relations, numbers) for change in changes]).decode()


def _change(change: Change, relations: Mapping[int, Relation], numbers: Mapping[str, int]) -> list[Any]:
    if change.verb is Verb.SCHEMA:
        return [0, Verb.SCHEMA, None, None]
    relation = relations[numbers[change.table]]
    before, after = _cells(relation, change.before), _cells(relation, change.after)
    if not relation.has_rowid:
        return [relation.number, change.verb, None, [before, after]]
    if change.verb is Verb.INSERT:
        return [relation.number, change.verb, change.rowid_after, after]
    if change.verb is Verb.DELETE:
        return [relation.number, change.verb, change.rowid, before]
    then, now = change.before or {}, change.after or {}
    cells = {i: (encode_cell(then[c]), encode_cell(now[c])) for i, c in enumerate(relation.columns) if c in then}
    entry: list[Any] = [relation.number, change.verb, change.rowid, cells]
    return entry if change.rowid == change.rowid_after else [*entry, change.rowid_after]


def _cells(relation: Relation, row: Mapping[str, Cell] | None) -> list[Any] | None:
    return None if row is None else [encode_cell(row[column]) for column in relation.columns if column in row]


def statements_row(statements: Sequence[Statement], number: Callable[[str], int]) -> str | None:
    """Statements as the trace keeps them."""
    if not statements:
        return None
    return encode_json([_statement(statement, number(statement.sql)) for statement in statements]).decode()


def _statement(statement: Statement, number: int) -> list[Any]:
    parameters = {name: encode_cell(value) for name, value in statement.parameters.items()}
    entry: list[Any] = [number, parameters, statement.count]
    if statement.ordered is None:
        return entry
    return [*entry, statement.ordered] if statement.unordered == statement.ordered else [*entry, statement.ordered, statement.unordered]
