"""What a body read and wrote, from the notes of its connection: its read set and write set.

  * A simple statement (`predicate.py`) asked about the rows with certain values; any other about the whole of each table that SQLite's
    authorizer names for it, those that triggers and views reach included.
  * A row that was written asked whether its unique keys were free, and what foreign keys tie to it; a new row was given a number.
  * A statement that failed asked about everything that it could have touched.

This module must not know why it is asked, nor who depends on whom.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import apsw

from retroact.engine.access import EVERYTHING, Access, Read, Write
from retroact.engine.sqlite.connection import Note
from retroact.engine.sqlite.predicate import Parameter, Simple, one_value, shows_numbers, understood
from retroact.engine.sqlite.queries import fetch
from retroact.engine.sqlite.relation import RowNote
from retroact.engine.sqlite.shape import Shape
from retroact.trace.record import Cell

#: What stands where the digest of a result would, when the statement failed.
_FAILED = "!"


@dataclasses.dataclass(frozen=True, slots=True)
class _Link:
    """A foreign key, seen from one of its two tables: which rows of the other table a row is tied to."""

    other: str
    own_columns: tuple[str, ...]
    other_columns: tuple[str, ...]
    #: The row is the parent: it matters what it was, not what it became.
    parent: bool


@dataclasses.dataclass(slots=True)
class _Table:
    """What of a table decides who depends on whom."""

    name: str
    columns: tuple[str, ...]
    #: By lower-case name.
    by_name: dict[str, str]
    #: The column that is the number of the row; None: the number is hidden, or there is none.
    alias: str | None
    has_rowid: bool
    #: Columns of each key; an empty one is not understood (an expression, a partial index).
    keys: tuple[tuple[str, ...], ...]
    has_triggers: bool
    links: list[_Link] = dataclasses.field(default_factory=list[_Link])


class Reader:
    """Finds out read and write sets on one database."""

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database
        self._tables: dict[str, _Table] | None = None

    def forget(self) -> None:
        """The schema has changed."""
        self._tables = None

    def tables(self) -> list[str]:
        """The application's tables."""
        return sorted(table.name for table in self._known().values())

    def access(self, notes: Iterable[Note], row_notes: Iterable[RowNote], *, schema_changed: bool) -> Access:
        """What was read and written, told by notes."""
        known = self._known()
        reads: set[Read] = set()
        ordered: set[str] = set()
        given: dict[str, bool] = {}
        noted = [(shape, parameters, ordering == _FAILED) for shape, parameters, _, ordering, _ in notes]
        for shape, parameters, failed in noted:
            simple = None if failed else understood(shape.sql)
            about = known.get(simple.table) if simple is not None else None
            reads.update(self._asked(shape, parameters, about, simple, failed=failed))
            ordered.update(self._ordered(shape, parameters, about, simple))
            if about is not None and simple is not None and simple.verb == "insert":
                given[about.name] = given.get(about.name, True) and _numbers_given(about, simple, parameters)
        writes: set[Write] = set()
        for note in row_notes:
            write, table = self._written(note)
            writes.add(write)
            if table is not None:
                reads.update(_tied(table, write, numbered=not given.get(table.name, False)))
        if schema_changed:
            writes.update(self._unseen(shape for shape, _, _ in noted))
        # Where a write is not known in particular, neither is what it asked.
        reads.update(Read(write.table) for write in writes if write.unknown)
        if any("last_insert_rowid" in shape.sql.lower() for shape, _, _ in noted):
            ordered.update(w.table for w in writes)
        return Access(frozenset(reads), frozenset(writes), frozenset(ordered))

    # --- statements ----------------------------------------------------------------------------------------------------------

    def _asked(
        self, shape: Shape, parameters: Mapping[str, Cell], about: _Table | None, simple: Simple | None, *, failed: bool
    ) -> Iterator[Read]:
        """What a statement asked."""
        named = {name.rpartition(".")[0] for name in shape.tables_read}
        if about is None or simple is None or (simple.verb != "select" and about.has_triggers):
            yield from (Read(name) for name in {*named, *shape.tables_written})
            if failed:
                tables = [t for t in self._known().values() if t.name in shape.tables_written]
                yield from (Read(link.other) for table in tables for link in table.links)
            return
        yield from (Read(name) for name in named - {about.name})
        if simple.verb == "insert":
            if about.name in named:
                yield Read(about.name)
            return
        yield Read(about.name, _conditions(about, simple, parameters))

    def _ordered(self, shape: Shape, parameters: Mapping[str, Cell], about: _Table | None, simple: Simple | None) -> set[str]:
        """The tables whose rows a statement may have seen in an order that only hidden numbers tell."""
        known = self._known().values()
        read = {name.rpartition(".")[0] for name in shape.tables_read}
        if shows_numbers(shape.sql):
            return {t.name for t in known if t.name in read or t.name in shape.tables_written}
        fills = shape.writes and "select" in shape.sql.lower()
        if (shape.row is None and not fills) or one_value(shape.sql):
            return set()
        if about is not None and simple is not None:
            fixed = {column for column, value in _conditions(about, simple, parameters) if value is not None}
            if any(key and fixed.issuperset(key) for key in about.keys):
                return read - {about.name}
        return read

    # --- rows ----------------------------------------------------------------------------------------------------------------

    def _written(self, note: RowNote) -> tuple[Write, _Table | None]:
        name, _, rowid, rowid_after, before, after = note
        if name == "sqlite_sequence":
            row = after or before or ("",)
            return Write(str(row[0])), None
        table = self._known().get(name.lower())
        width = len(before or after or ())
        if table is None or len(table.columns) != width:
            return Write(name), None
        return Write(table.name, table.columns, before, after, moved=rowid != rowid_after), table

    def _unseen(self, shapes: Iterable[Shape]) -> Iterator[Write]:
        """Writes that no row tells of: the schema, rows of tables with columns that are computed."""
        for shape in shapes:
            if shape.schema_change:
                yield Write(EVERYTHING)
            yield from (Write(name) for name in shape.tables_written)

    # --- the schema ----------------------------------------------------------------------------------------------------------

    def _known(self) -> dict[str, _Table]:
        if self._tables is None:
            self._tables = {table.name.lower(): table for table in self._look()}
            self._link(self._tables)
        return self._tables

    def _look(self) -> Iterator[_Table]:
        query = "select name, wr from pragma_table_list where schema = 'main' and type in ('table', 'virtual')"
        triggered = {row[0].lower() for row in fetch(self._database, "select tbl_name from sqlite_schema where type = 'trigger'")}
        for name, without in fetch(self._database, query):
            if name.startswith(("sqlite_", "retroact_")):
                continue
            columns = fetch(self._database, "select name, pk from pragma_table_xinfo(?)", (name,))
            key = tuple(c for c, place in sorted(columns, key=lambda c: c[1]) if place)
            indices = fetch(self._database, 'select name, origin, partial from pragma_index_list(?) where "unique"', (name,))
            by_index = any(origin == "pk" for _, origin, _ in indices)
            alias = key[0] if len(key) == 1 and not without and not by_index else None
            keys = [self._key(index, partial=bool(partial)) for index, _, partial in indices]
            names = tuple(c for c, _ in columns)
            yield _Table(
                name=name,
                columns=names,
                by_name={c.lower(): c for c in names},
                alias=alias,
                has_rowid=not without,
                keys=tuple([*keys, key] if key else keys),
                has_triggers=name.lower() in triggered,
            )

    def _key(self, index: str, *, partial: bool) -> tuple[str, ...]:
        names = [row[0] for row in fetch(self._database, "select name from pragma_index_info(?)", (index,))]
        return () if partial or None in names else tuple(names)

    def _link(self, tables: dict[str, _Table]) -> None:
        query = 'select id, "table", "from", "to" from pragma_foreign_key_list(?) order by id, seq'
        for child in tables.values():
            found: dict[int, list[tuple[str, str, str | None]]] = {}
            for number, parent, own, other in fetch(self._database, query, (child.name,)):
                found.setdefault(number, []).append((parent, own, other))
            for pairs in found.values():
                parent = tables.get(pairs[0][0].lower())
                if parent is None:
                    continue
                own = tuple(child.by_name.get(o.lower(), o) for _, o, _ in pairs)
                key = parent.keys[-1] if parent.keys else ()
                named = [o for _, _, o in pairs if o is not None]
                other = tuple(parent.by_name.get(o.lower(), o) for o in named) if len(named) == len(pairs) else key
                child.links.append(_Link(parent.name, own, other, parent=False))
                parent.links.append(_Link(child.name, other, own, parent=True))


def _conditions(table: _Table, simple: Simple, parameters: Mapping[str, Cell]) -> tuple[tuple[str, Cell], ...]:
    """The columns that must have certain values, as far as they are columns of the table."""
    found: dict[str, Cell] = {}
    for name, value in simple.where:
        column = table.by_name.get(name)
        if column is not None and (not isinstance(value, Parameter) or value in parameters):
            found.setdefault(column, parameters[value] if isinstance(value, Parameter) else value)
    return tuple(sorted(found.items()))


def _numbers_given(table: _Table, simple: Simple, parameters: Mapping[str, Cell]) -> bool:
    """Whether an INSERT says itself which number its row gets."""
    if table.alias is None or simple.given is None:
        return False
    values = {table.by_name.get(column): value for column, value in simple.given}
    value = values.get(table.alias)
    return (parameters.get(value) if isinstance(value, Parameter) else value) is not None


def _tied(table: _Table, write: Write, *, numbered: bool) -> Iterator[Read]:
    """What a row that was written asked: whether its keys were free, what hangs on it, which number it gets."""
    if write.after is not None:
        after = dict(zip(write.columns, write.after, strict=True))
        before = None if write.before is None else dict(zip(write.columns, write.before, strict=True))
        for key in table.keys:
            if not key:
                yield Read(table.name)
            elif before is None or any(before[c] != after[c] for c in key):
                yield Read(table.name, tuple((c, after[c]) for c in sorted(key)))
        if write.before is None and table.has_rowid and numbered:
            yield Read(table.name, numbering=True, shown=table.alias is not None)
    for link in table.links:
        row = write.before if link.parent else write.after
        if row is None:
            continue
        cells = dict(zip(write.columns, row, strict=True))
        if not link.other_columns or any(column not in cells for column in link.own_columns):
            yield Read(link.other)
        elif all(cells[column] is not None for column in link.own_columns):
            pairs = zip(link.other_columns, (cells[c] for c in link.own_columns), strict=False)
            yield Read(link.other, tuple(sorted(pairs)))
