"""Which rows a simple statement is about, read from its text: those in which some columns equal some values.

Only a statement of one table whose WHERE is a conjunction is understood, with a tokenizer and no grammar. Whatever is not certain is
not understood, and then the statement is taken to be about all rows.

This module must not know a database: what a name means, and whether such a column is there, is for others to say.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|--[^\n]*|/\*.*?\*/)
    | (?P<text>'(?:[^']|'')*')
    | (?P<name>"(?:[^"]|"")*"|\[[^\]]*\]|`[^`]*`|[^\W\d]\w*)
    | (?P<number>\d+\.\d+|\d+)
    | (?P<parameter>[:@$]\w+)
    | (?P<sign>==|<>|!=|<=|>=|\|\||->>?|.)
    """,
    re.VERBOSE | re.DOTALL,
)
#: A statement with one of these is not simple.
_COMPOUND = {"join", "union", "intersect", "except", "with", "between", "case", "exists", "indexed"}
_AFTER_WHERE = {"group", "order", "limit", "returning", "window", "having"}
_ONE_VALUE = re.compile(r"\s*select\s+(?:count|min|max)\s*\(\s*(?:\*|[\w.]+)\s*\)(?:\s+as\s+\w+)?\s+from\b(?!.*\bgroup\b)", re.I | re.S)
_NUMBERS = re.compile(r"\b(?:rowid|_rowid_|oid|last_insert_rowid)\b", re.I)


class Parameter(str):
    """The name of a parameter, where a value could stand."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Simple:
    """A statement about one table."""

    verb: str
    table: str
    #: Column and value (or parameter) that must be equal in every row that the statement is about.
    where: tuple[tuple[str, Any], ...] = ()
    #: Of an INSERT of one row: its columns with their values, None when they are not listed.
    given: tuple[tuple[str, Any], ...] | None = None


def one_value(sql: str) -> bool:
    """Whether a query counts rows or takes the least or greatest value: then their order does not show."""
    return _ONE_VALUE.match(sql) is not None


def shows_numbers(sql: str) -> bool:
    """Whether a statement may name the numbers of rows."""
    return _NUMBERS.search(sql) is not None


@functools.lru_cache(maxsize=4096)
def understood(sql: str) -> Simple | None:
    """What a statement is about, None when it is not simple."""
    tokens = _tokens(sql)
    words = [word for kind, word in tokens if kind == "word"]
    if not tokens or _COMPOUND.intersection(words) or words.count("select") > (words[:1] == ["select"]):
        return None
    return _READERS.get(tokens[0][1], _nothing)(tokens)


def _nothing(_tokens: list[tuple[str, Any]]) -> Simple | None:
    return None


def _tokens(sql: str) -> list[tuple[str, Any]]:
    """Kind and content: a word is a bare name in lower case, a name one as it is meant."""
    found: list[tuple[str, Any]] = []
    for match in _TOKEN.finditer(sql):
        kind, text = str(match.lastgroup), match.group()
        match kind:
            case "space":
                continue
            case "name":
                found.append(("name", text[1:-1].lower()) if text[0] in '"[`' else ("word", text.lower()))
            case "text":
                found.append(("value", text[1:-1].replace("''", "'")))
            case "number":
                found.append(("value", float(text) if "." in text else int(text)))
            case "parameter":
                found.append(("value", Parameter(text[1:])))
            case _:
                found.append(("sign", text))
    while found and found[-1] == ("sign", ";"):
        found.pop()
    return found


def _select(tokens: list[tuple[str, Any]]) -> Simple | None:
    source = _at_top(tokens, {"from"})
    where = _at_top(tokens, {"where"})
    if source is None or where is None or where < source:
        return None
    named = [t for t in tokens[source + 1 : where] if t != ("word", "as")]
    if not 1 <= len(named) <= 2 or any(kind not in ("word", "name") for kind, _ in named):  # noqa: PLR2004 - a table, an alias
        return None
    return _with_where("select", named[0][1], tokens[where + 1 :])


def _update(tokens: list[tuple[str, Any]]) -> Simple | None:
    if len(tokens) < 3 or tokens[2] != ("word", "set") or ("word", "from") in tokens:  # noqa: PLR2004 - update TABLE set
        return None
    where = _at_top(tokens, {"where"})
    return None if where is None else _with_where("update", tokens[1][1], tokens[where + 1 :])


def _delete(tokens: list[tuple[str, Any]]) -> Simple | None:
    if len(tokens) < 4 or tokens[1] != ("word", "from") or tokens[3] != ("word", "where"):  # noqa: PLR2004 - delete from TABLE where
        return None
    return _with_where("delete", tokens[2][1], tokens[4:])


def _insert(tokens: list[tuple[str, Any]]) -> Simple | None:
    words = [word for kind, word in tokens if kind == "word"]
    values = _at_top(tokens, {"values"})
    if len(tokens) < 3 or tokens[1] != ("word", "into") or values is None or "conflict" in words:  # noqa: PLR2004 - insert into TABLE
        return None
    columns = [text for kind, text in tokens[3:values] if kind in ("word", "name")]
    row = tokens[values + 1 :]
    plain = len(row) == 2 * len(columns) + 1 and all(kind == "value" for kind, _ in row[1::2])
    given = tuple(zip(columns, (text for _, text in row[1::2]), strict=True)) if columns and plain else None
    return Simple("insert", tokens[2][1], given=given)


def _with_where(verb: str, table: str, tokens: list[tuple[str, Any]]) -> Simple | None:
    end = _at_top(tokens, _AFTER_WHERE)
    terms: list[list[tuple[str, Any]]] = [[]]
    depth = 0
    for token in tokens[:end]:
        depth += {("sign", "("): 1, ("sign", ")"): -1}.get(token, 0)
        if depth == 0 and token == ("word", "or"):
            return None
        if depth == 0 and token == ("word", "and"):
            terms.append([])
        else:
            terms[-1].append(token)
    return Simple(verb, table, tuple(equal for equal in map(_equality, terms) if equal is not None))


def _equality(term: list[tuple[str, Any]]) -> tuple[str, Any] | None:
    """The column and the value of `column = value`, either way round."""
    if term and term[0][0] == "value":
        term = [*term[2:], *term[1:2], term[0]]
    if len(term) == 5 and term[1] == ("sign", "."):  # noqa: PLR2004 - table . column = value
        term = term[2:]
    if len(term) != 3 or term[0][0] not in ("word", "name") or term[2][0] != "value":  # noqa: PLR2004 - column = value
        return None
    return (term[0][1], term[2][1]) if term[1] in (("sign", "="), ("sign", "=="), ("word", "is")) else None


def _at_top(tokens: list[tuple[str, Any]], words: set[str]) -> int | None:
    """Where one of the words stands outside of all parentheses."""
    depth = 0
    for place, (kind, text) in enumerate(tokens):
        if kind == "sign":
            depth += {"(": 1, ")": -1}.get(text, 0)
        elif kind == "word" and depth == 0 and text in words:
            return place
    return None


_READERS = {"select": _select, "update": _update, "delete": _delete, "insert": _insert}
