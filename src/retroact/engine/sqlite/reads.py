"""Which rows a statement reads: found by asking the same FROM and WHERE for the keys instead of the columns.

It is exact for a SELECT over tables, joined or not, aggregated or not, and for the rows that an UPDATE or DELETE changes. Whatever
cannot be taken apart with certainty (a compound, a WITH, a view, a subquery, an upsert) is known by its tables only, and says so.

This module must not know who asks, nor which transaction the statement belongs to.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence

import apsw

from retroact.engine.contract import Key, Reads
from retroact.engine.sqlite.queries import fetch
from retroact.engine.sqlite.shape import Shape
from retroact.trace.record import Cell, Change, Verb

_TOKEN = re.compile(
    r"(?P<space>\s+|--[^\n]*|/\*.*?\*/)|(?P<text>'(?:[^']|'')*')|(?P<parameter>[:@$][A-Za-z_]\w*)"
    r'|(?P<name>"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|[^\W\d][\w$]*)|(?P<other>.)',
    re.DOTALL,
)
_CLAUSES = ("from", "where", "group", "having", "window", "order", "limit")
_COMPOUND = frozenset({"union", "intersect", "except"})
_JOINS = frozenset({"natural", "left", "right", "full", "outer", "inner", "cross", "join"})
_NOT_ALIAS = frozenset({"on", "using", "indexed", "not"})
_AGGREGATES = frozenset(
    {"count", "sum", "total", "avg", "min", "max", "group_concat", "string_agg", "json_group_array", "json_group_object", "over"}
)
#: What a table in a query inside the query comes after, perhaps among others.
_BEFORE_TABLES = frozenset({"from", "join", "in"})
_BETWEEN = frozenset({",", ".", "("})
_SYSTEM = ("sqlite_", "retroact_")
#: A statement that reads more rows than this is known by its tables: nobody would look at so many.
_MOST_ROWS = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class _Token:
    """A piece of SQL, with how many parentheses it stands in."""

    kind: str
    text: str
    depth: int
    #: What it says in small letters, if it is a bare word.
    word: str = ""

    @property
    def named(self) -> str:
        """The name that it is, without its quotes."""
        if self.kind != "name" or self.text[0] not in '"`[':
            return self.text
        return self.text[1:-1].replace('""', '"') if self.text[0] == '"' else self.text[1:-1]


@dataclasses.dataclass(frozen=True, slots=True)
class _Select:
    """A SELECT, taken apart."""

    distinct: bool
    #: Clause by its first word; what stands between SELECT and FROM is `select`.
    clauses: Mapping[str, Sequence[_Token]]

    def text(self, *names: str) -> str:
        """Some of its clauses, as they were written."""
        return " ".join("".join(token.text for token in self.clauses[name]) for name in names if name in self.clauses)

    @property
    def aggregates(self) -> bool:
        """Whether one row that it returns stands for several that it reads."""
        called = any(token.word in _AGGREGATES for token in self.clauses["select"])
        return called or self.distinct or "group" in self.clauses or "having" in self.clauses


class RowReads:
    """Finds out what statements on one database read."""

    def __init__(self, database: apsw.Connection, key_columns: Callable[[str], tuple[str, ...] | None]) -> None:
        """`key_columns` names the columns of a table's key: none for a rowid, None for what is not a table."""
        self._database = database
        self._key_columns = key_columns

    def of(self, shape: Shape, parameters: Mapping[str, Cell], count: int, changes: Sequence[Change]) -> Reads:
        """What a statement read that has just been executed, returned or changed `count` rows, and made these changes."""
        tables = {name for entry in shape.tables_read if not (name := entry.rpartition(".")[0]).startswith(_SYSTEM)}
        tables -= self._no_tables(tables)
        if not tables:
            return Reads()
        tokens = _tokens(shape.sql)
        if shape.schema_change and not any(token.word == "select" for token in tokens):
            return Reads()  # SQLite looks through what it makes or alters: nothing of that reaches the body
        nested = _nested_tables(tokens, tables)
        if shape.writes:
            return self._changed(tokens, tables, nested, changes)
        found = self._selected(tokens, parameters, count)
        if found is None:
            return Reads(tables=tuple(sorted(tables)))
        rows, covered = found
        return Reads(rows=rows, tables=tuple(sorted({name for name in tables if name.lower() not in covered} | nested)))

    def _no_tables(self, names: set[str]) -> set[str]:
        """Views, whose tables are named as well, and functions that are used as tables."""
        unknown = {name for name in names if self._key_columns(name) is None}
        stored = fetch(self._database, "select name from sqlite_schema where type = 'table'") if unknown else []
        return unknown - {str(name) for (name,) in stored}

    def _changed(self, tokens: Sequence[_Token], tables: set[str], nested: set[str], changes: Sequence[Change]) -> Reads:
        """An UPDATE or DELETE reads the rows that it changes."""
        words = [token.word for token in tokens if token.word]
        if words[:1] not in (["update"], ["delete"]):
            return Reads(tables=tuple(sorted(tables)))
        named = {token.named.lower() for token in tokens if token.kind == "name" and token.depth == 0}
        targets = {c.table for c in changes if c.verb in (Verb.UPDATE, Verb.DELETE) and c.table in tables and c.table.lower() in named}
        rows = tuple((c.table, key) for c in changes if c.table in targets and (key := self._key_before(c)) is not None)
        return Reads(rows=rows, tables=tuple(sorted((tables - targets - ({t for t in tables if t.lower() in named} - nested)) | nested)))

    def _key_before(self, change: Change) -> Key | None:
        if change.rowid is not None:
            return (change.rowid,) if change.verb is not Verb.INSERT else None
        columns = self._key_columns(change.table) or ()
        return tuple(change.before.get(c) for c in columns) if change.before and columns else None

    def _selected(
        self, tokens: Sequence[_Token], parameters: Mapping[str, Cell], count: int
    ) -> tuple[tuple[tuple[str, Key], ...], set[str]] | None:
        select = _taken_apart(tokens)
        if select is None:
            return None
        sources = [(table, alias, keys) for table, alias in _sources(select.clauses["from"]) if (keys := self._key(table, alias))]
        if not sources:
            return None
        asked = ", ".join(key for _, _, keys in sources for key in keys)
        body = f"select {asked} {select.text('from', 'where')}"
        tried = [body] if select.aggregates else [f"{body} {select.text('order', 'limit')}", *([] if "limit" in select.clauses else [body])]
        for sql in tried:
            found = self._fetch(sql, parameters)
            if found is not None and (select.aggregates or len(found) == count):
                return tuple(_keys(sources, found)), {table.lower() for table, _, _ in sources}
        return None

    def _fetch(self, sql: str, parameters: Mapping[str, Cell]) -> list[tuple[Cell, ...]] | None:
        cursor = self._database.cursor()
        try:
            found: list[tuple[Cell, ...]] = list(itertools.islice(cursor.execute(sql, parameters), _MOST_ROWS + 1))
        except apsw.Error:
            return None
        finally:
            cursor.close(True)
        return found if len(found) <= _MOST_ROWS else None

    def _key(self, table: str, alias: str) -> tuple[str, ...]:
        columns = self._key_columns(table)
        if columns is None:
            return ()
        quoted = '"' + alias.replace('"', '""') + '"'
        return tuple(f'{quoted}."{column}"' for column in columns) or (f"{quoted}.rowid",)


def key_columns(database: apsw.Connection, table: str) -> tuple[str, ...] | None:
    """The columns that a row is told by; none where it is told by its rowid, None for what is not a table with either."""
    kind = fetch(database, "select type, wr from pragma_table_list where schema = 'main' and name = ? collate nocase", (table,))
    if not kind or kind[0][0] != "table":
        return None
    columns = fetch(database, "select name, pk from pragma_table_xinfo(?)", (table,))
    if not kind[0][1]:
        return None if any(name.lower() == "rowid" for name, _ in columns) else ()
    return tuple(name for name, pk in sorted(columns, key=lambda column: column[1]) if pk)


@functools.lru_cache(maxsize=256)
def _tokens(sql: str) -> tuple[_Token, ...]:
    tokens: list[_Token] = []
    depth = 0
    for match in _TOKEN.finditer(sql.strip().rstrip(";")):
        text = match[0]
        depth -= text == ")"
        kind = str(match.lastgroup)
        word = text.lower() if kind == "name" and text[0] not in '"`[' else ""
        tokens.append(_Token(kind, " " if kind == "space" else text, depth, word))
        depth += text == "("
    return tuple(tokens)


def _nested_tables(tokens: Sequence[_Token], tables: set[str]) -> set[str]:
    """Tables that are, or may be, read by a query inside the query."""
    if not any(token.word == "select" and token.depth for token in tokens):
        return set()
    said = [token for token in tokens if token.kind != "space"]
    pairs = itertools.pairwise(said)
    inside = {b.named.lower() for a, b in pairs if b.depth and b.kind == "name" and (a.word in _BEFORE_TABLES or a.text in _BETWEEN)}
    return {table for table in tables if table.lower() in inside}


def _taken_apart(tokens: Sequence[_Token]) -> _Select | None:
    said = [token for token in tokens if token.kind != "space"]
    if not said or said[0].word != "select" or any(token.word in _COMPOUND and not token.depth for token in said):
        return None
    clauses: dict[str, list[_Token]] = {"select": []}
    current = "select"
    for token in tokens:
        if token.depth == 0 and token.word in _CLAUSES and token.word not in clauses:
            current = token.word
            clauses[current] = []
        clauses[current].append(token)
    if "from" not in clauses:
        return None
    return _Select(distinct=len(said) > 1 and said[1].word == "distinct", clauses=clauses)


def _sources(tokens: Sequence[_Token]) -> list[tuple[str, str]]:
    """The tables of a FROM, each with the name it goes by; what is not simply named is left out."""
    sources: list[list[_Token]] = [[]]
    for token in tokens[1:]:
        if token.depth == 0 and (token.text == "," or token.word in _JOINS):
            sources.append([])
        elif token.kind != "space":
            sources[-1].append(token)
    return [source for part in sources if (source := _source(part)) is not None]


def _source(tokens: Sequence[_Token]) -> tuple[str, str] | None:
    if tokens[1:2] and tokens[1].text == "." and tokens[0].named.lower() == "main":
        tokens = tokens[2:]
    if not tokens or tokens[0].kind != "name" or (tokens[1:2] and tokens[1].text in ("(", ".")):
        return None
    rest = tokens[2:] if tokens[1:2] and tokens[1].word == "as" else tokens[1:]
    named = bool(rest) and rest[0].kind == "name" and rest[0].word not in _NOT_ALIAS
    return tokens[0].named, rest[0].named if named else tokens[0].named


def _keys(sources: Sequence[tuple[str, str, tuple[str, ...]]], found: Sequence[tuple[Cell, ...]]) -> list[tuple[str, Key]]:
    seen: dict[tuple[str, Key], None] = {}
    for row in found:
        at = 0
        for table, _, keys in sources:
            key = row[at : at + len(keys)]
            at += len(keys)
            if not all(part is None for part in key):  # what an outer join did not find
                seen[table, key] = None
    return list(seen)
