"""Row changes as the trace keeps them, and back: compact JSON by the columns of their table.

An update keeps only the cells that it changed, so a long text beside a counter is not copied each time that the counter moves.

This module must not know transactions, nor where the trace is kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import apsw
import msgspec

from retroact.trace.codec import decode_cell, decode_json, encode_cell, encode_cells, encode_json
from retroact.trace.record import Cell, Change, Verb

_pack = msgspec.msgpack.Encoder().encode
#: One row change as it is noted: table, verb, rowid before, rowid after, row before, row after.
RowNote = tuple[str, str, int, int, tuple[Cell, ...] | None, tuple[Cell, ...] | None]


#: A transaction that changes more rows than this is not recorded row by row: their number and a digest of them all are.
MOST_ROWS = 20_000


class Bulk:
    """Very many row changes, of which only the number and a digest are kept. Mutable: it takes them as they come."""

    def __init__(self) -> None:
        self._count = 0
        self._digest = hashlib.blake2b(digest_size=8)

    def take(self, notes: list[RowNote]) -> None:
        """Take the notes out of a list."""
        self._count += len(notes)
        self._digest.update(_pack(notes))
        notes.clear()

    def note(self) -> RowNote:
        """What stands for all of them: a change of no table."""
        return ("", Verb.SCHEMA, self._count, self._count, None, (self._digest.hexdigest(),))


@dataclasses.dataclass(frozen=True, slots=True)
class Relation:
    """A table and its columns, as they were when it was changed."""

    number: int
    name: str
    columns: tuple[str, ...]
    has_rowid: bool

    def stored_columns(self) -> str:
        """The columns as the trace keeps them."""
        return encode_json(self.columns if self.has_rowid else (None, *self.columns)).decode()

    @classmethod
    def stored(cls, number: int, name: str, columns: str) -> Relation:
        """The relation that `stored_columns` came from."""
        names: list[Any] = decode_json(columns)
        has_rowid = not names or names[0] is not None
        return cls(number, name, tuple(names if has_rowid else names[1:]), has_rowid)


class Relations:
    """The tables that were changed so far, numbered. New ones wait in `fresh` until they are stored."""

    def __init__(self, stored: list[Relation]) -> None:
        self.by_number = {r.number: r for r in stored}
        self._numbers = {(r.name, r.stored_columns()): r.number for r in stored}
        #: Tables as they are now, as far as they were looked at.
        self.known: dict[str, Relation] = {}
        self.fresh: list[Relation] = []

    def forget(self) -> None:
        """The schema has changed: look at each table again."""
        self.known.clear()

    def current(self, database: apsw.Connection, name: str) -> Relation:
        """The table as it is now."""
        return self.known.get(name) or self._look(database, name)

    def unnamed(self, name: str, width: int) -> Relation:
        """A table of that width whose columns are no longer known by name."""
        return self._numbered(Relation(0, name, tuple(f"column{i}" for i in range(width)), has_rowid=True))

    def _look(self, database: apsw.Connection, name: str) -> Relation:
        columns = tuple(row[0] for row in database.execute("select name from pragma_table_xinfo(?)", (name,)))
        without = database.execute("select wr from pragma_table_list where schema = 'main' and name = ?", (name,)).get
        relation = self.known[name] = self._numbered(Relation(0, name, columns, not without))
        return relation

    def _numbered(self, relation: Relation) -> Relation:
        key = (relation.name, relation.stored_columns())
        number = self._numbers.get(key)
        relation = dataclasses.replace(relation, number=number or max(self.by_number, default=0) + 1)
        if number is None:
            self._numbers[key] = relation.number
            self.by_number[relation.number] = relation
            self.fresh.append(relation)
        return relation


#: Types whose values JSON does not have as they are.
_CODED = frozenset({bytes, float})


def encode_changes(database: apsw.Connection, relations: Relations, notes: list[RowNote], *, schema: bool = False) -> str | None:
    """The changes of one transaction as JSON, None when there are none. `schema`: it changed more than rows."""
    if not notes and not schema:
        return None
    current = relations.known
    entries: list[Any] = []
    head: list[Any] = [0, Verb.SCHEMA, None, None]
    for note in notes:
        if schema and note[0].startswith("sqlite_stat"):
            continue  # what ANALYZE counted is nobody's data, and it counts the trace's own tables too
        if not note[0]:
            head = [0, Verb.SCHEMA, note[2], (note[5] or ("",))[0]]
            continue
        relation = current.get(note[0])
        if relation is None or len(relation.columns) != len(note[4] or note[5] or ()):
            relation = _relation(database, relations, note)
        entries.append(_encode(relation, note))
    return encode_json([head, *entries] if schema else entries).decode()


def _relation(database: apsw.Connection, relations: Relations, note: RowNote) -> Relation:
    """The table of a change, which a later statement of the same transaction may have dropped or altered."""
    relation = relations.current(database, note[0])
    width = len(note[4] or note[5] or ())
    return relation if len(relation.columns) == width else relations.unnamed(note[0], width)


def _encode(relation: Relation, note: RowNote) -> list[Any]:
    _, verb, rowid, rowid_after, before, after = note
    if not relation.has_rowid:
        cells = [before and encode_cells(before), after and encode_cells(after)]
        return [relation.number, verb, None, cells]
    if verb == "i":
        return [relation.number, verb, rowid_after, encode_cells(after or ())]
    if verb == "d" or before is None or after is None:
        return [relation.number, verb, rowid, encode_cells(before or ())]
    changed: dict[int, Any] = {}
    for column, old in enumerate(before):
        new = after[column]
        if old != new or type(old) is not type(new):
            changed[column] = (encode_cell(old), encode_cell(new)) if {type(old), type(new)} & _CODED else (old, new)
    entry: list[Any] = [relation.number, verb, rowid, changed]
    return entry if rowid == rowid_after else [*entry, rowid_after]


def decode_changes(relations: Mapping[int, Relation], stored: str | None) -> tuple[Change, ...]:
    """The changes that were encoded."""
    if not stored:
        return ()
    return tuple(decode_change(relations, entry) for entry in decode_json(stored))


def decode_change(relations: Mapping[int, Relation], entry: list[Any]) -> Change:
    """One change, as it stands in the JSON of its transaction."""
    return _whole(entry) if entry[0] == 0 else _decode(relations[entry[0]], entry)


#: What an entry has when its rowid changed; one item less when it did not.
_MOVED = ("relation", "verb", "rowid", "cells", "rowid after")
_SCHEMA = Change(table="", verb=Verb.SCHEMA, rowid=None, rowid_after=None, before=None, after=None)


def _whole(entry: list[Any]) -> Change:
    """A change of more than rows, or of so many that only their number and digest are known."""
    if entry[2] is None:
        return _SCHEMA
    return Change(table="", verb=Verb.SCHEMA, rowid=entry[2], rowid_after=entry[2], before=None, after={"digest": entry[3]})


def _decode(relation: Relation, entry: list[Any]) -> Change:
    verb, rowid, cells = Verb(entry[1]), entry[2], entry[3]
    if verb is Verb.DROPPED:
        return Change(table=relation.name, verb=verb, rowid=None, rowid_after=None, before=None, after=None)
    after_id = entry[4] if len(entry) == len(_MOVED) else rowid
    before: dict[str, Cell] | None
    after: dict[str, Cell] | None
    if not relation.has_rowid:
        before, after = (row and _named(relation, row) for row in cells)
    elif verb is Verb.UPDATE:
        changed = {relation.columns[int(i)]: (decode_cell(o), decode_cell(n)) for i, (o, n) in cells.items()}
        before = {column: old for column, (old, _) in changed.items()}
        after = {column: new for column, (_, new) in changed.items()}
    else:
        row = _named(relation, cells)
        before, after = (None, row) if verb is Verb.INSERT else (row, None)
    return Change(table=relation.name, verb=verb, rowid=rowid, rowid_after=after_id, before=before, after=after)


def _named(relation: Relation, cells: list[Any]) -> dict[str, Cell]:
    return {column: decode_cell(cell) for column, cell in zip(relation.columns, cells, strict=False)}
