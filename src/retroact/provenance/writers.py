"""Who wrote a row: the last record before a version that changed it.

This module must not know how a state is opened, nor how records are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from retroact.engine.contract import Key, Trace
from retroact.trace.record import Change, Record, Verb

#: A row: its table and its key.
Row = tuple[str, Key]
KeyColumns = Callable[[str], tuple[str, ...]]
#: How many records are looked at together, going back: few at first, since most rows were written lately.
_FIRST, _MOST = 64, 4096
_SHAPING = re.compile(r"\s*(?:create|drop|alter)\b", re.IGNORECASE)


def row_after(change: Change, key_columns: KeyColumns) -> Row | None:
    """The row that a change left behind; None when it deleted it."""
    if change.verb in (Verb.DELETE, Verb.SCHEMA):
        return None
    if change.rowid_after is not None:
        return change.table, (change.rowid_after,)
    return _by_key(change.table, change.after, key_columns)


def row_before(change: Change, key_columns: KeyColumns) -> Row | None:
    """The row that a change found; None when it inserted it."""
    if change.verb in (Verb.INSERT, Verb.SCHEMA):
        return None
    if change.rowid is not None:
        return change.table, (change.rowid,)
    return _by_key(change.table, change.before, key_columns)


def last_writers(trace: Trace, rows: Iterable[Row], version: int, key_columns: KeyColumns) -> dict[Row, Record | None]:
    """For each row, the last record up to `version` that changed it; None when the trace has none, so that it is older."""
    found: dict[Row, Record | None] = dict.fromkeys(rows)
    wanted = set(found)
    until, size = version, _FIRST
    while wanted and until > 0:
        after = max(until - size, 0)
        for record in reversed(list(trace.records_between(after, until))):
            for row in _written(record, wanted, key_columns):
                found[row] = record
                wanted.discard(row)
        until, size = after, min(size * 2, _MOST)
    return found


def _written(record: Record, wanted: set[Row], key_columns: KeyColumns) -> set[Row]:
    after = (row_after(change, key_columns) for change in record.changes)
    written = {row for row in after if row is not None and row in wanted}
    if any(change.verb is Verb.SCHEMA for change in record.changes):
        # What becomes of rows when their table is made or altered is in no list of rows: then this is as far as anybody knows.
        shaping = [s.sql for s in record.statements if _SHAPING.match(s.sql)]
        written |= {row for row in wanted if any(mentions(sql, row[0]) for sql in shaping)}
    return written


def mentions(sql: str, name: str) -> bool:
    """Whether a text names a table."""
    return re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", sql, re.IGNORECASE) is not None


def _by_key(table: str, cells: Mapping[str, object] | None, key_columns: KeyColumns) -> Row | None:
    columns = key_columns(table)
    return (table, tuple(cells.get(column) for column in columns)) if cells is not None and columns else None
