"""Everything that a database is, in one digest: schema, every table with rowids, every value with its type."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

Ask = Callable[[str], list[Any]]

_SCHEMA = (
    "select type, name, tbl_name, sql from sqlite_schema where tbl_name not like 'retroact_%' and tbl_name not like 'sqlite_stat%'"
    " order by type, name"
)


def content(ask: Ask) -> dict[str, Any]:
    """The schema, and each table of the application as its rows, in the order in which they lie."""
    found: dict[str, Any] = {"schema": ask(_SCHEMA)}
    for name, without_rowid in _tables(ask):
        quoted = '"' + name.replace('"', '""') + '"'
        columns = ask(f"select name from pragma_table_xinfo('{name.replace(chr(39), chr(39) * 2)}')")
        taken = {column.lower() for (column,) in columns}
        rowid = next(r for r in ("rowid", "_rowid_", "oid") if r not in taken)
        cells = [_exactly(column) for (column,) in columns]
        found[name] = ask(f"select {', '.join(cells if without_rowid else [rowid, *cells])} from {quoted}")
    return found


def _exactly(column: str) -> str:
    """Text as its bytes: it may hold what is no text."""
    quoted = '"' + column.replace('"', '""') + '"'
    return f"iif(typeof({quoted}) = 'text', 't' || hex({quoted}), {quoted})"


def _tables(ask: Ask) -> Iterable[tuple[str, int]]:
    rows = ask("select name, wr, type from pragma_table_list where schema = 'main' and type in ('table', 'shadow') order by name")
    return [(name, wr) for name, wr, _ in rows if not name.startswith(("retroact_", "sqlite_schema", "sqlite_stat"))]


def digest(ask: Ask) -> bytes:
    """The same in 12 bytes."""
    return hashlib.blake2b(repr(content(ask)).encode("utf-8", "surrogatepass"), digest_size=12).digest()


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Where two contents differ, in a few lines."""
    told: list[str] = []
    for name in sorted({*one, *other}):
        a, b = one.get(name), other.get(name)
        if a != b or repr(a) != repr(b):
            gone = [row for row in a or () if row not in (b or ())][:3]
            come = [row for row in b or () if row not in (a or ())][:3]
            told.append(f"{name}: {str(gone)[:300]} | {str(come)[:300]}")
    return told
