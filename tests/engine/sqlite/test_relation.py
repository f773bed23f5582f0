"""Row changes survive being written down: every value, every kind of change, and nothing that did not change."""

from __future__ import annotations

from typing import Any

import apsw
import pytest

from retroact.engine.sqlite.connection import Shapes, SqliteConnection
from retroact.engine.sqlite.relation import Relations, decode_changes, encode_changes
from retroact.trace.record import Verb

FLOATS = [0.5, 1.0, -0.0, 1e300, float("inf"), float("-inf")]
VALUES = [None, 0, -1, 2**63 - 1, -(2**63), *FLOATS, "", "1", "é\x00\U0001f600", b"", b"\x00\xff"]


def changes(*statements: str, **parameters: Any) -> Any:
    """What is read back from the record of these statements."""
    database = apsw.Connection(":memory:")
    database.execute("create table t (id integer primary key, a, b); create table w (k text primary key, v) without rowid")
    database.execute("insert into t values (1, 'one', 1), (2, 'two', 2); insert into w values ('x', 1)")
    connection = SqliteConnection(database, Shapes({}))
    connection.begin("test", 0, "")
    for statement in statements:
        connection.execute(statement, parameters)
    relations = Relations([])
    return decode_changes(relations.by_number, encode_changes(database, relations, connection.row_notes))


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_every_value_survives(value: Any) -> None:
    (change,) = changes("insert into t values (3, :v, null)", v=value)
    found = change.after["a"]
    assert (found, type(found), str(found)) == (value, type(value), str(value))


def test_an_update_keeps_only_what_it_changed() -> None:
    (change,) = changes("update t set b = b + 1 where id = 1")
    assert (change.table, change.verb, change.rowid, change.before, change.after) == ("t", Verb.UPDATE, 1, {"b": 1}, {"b": 2})


def test_one_and_one_point_zero_are_not_the_same() -> None:
    (change,) = changes("update t set b = 1.0 where id = 1")
    assert (type(change.before["b"]), type(change.after["b"])) == (int, float)


def test_a_row_that_moves_keeps_both_places() -> None:
    (change,) = changes("update t set id = 7 where id = 1")
    assert (change.rowid, change.rowid_after) == (1, 7)


def test_a_delete_keeps_the_row() -> None:
    (change,) = changes("delete from t where id = 2")
    assert (change.verb, change.before, change.after) == (Verb.DELETE, {"id": 2, "a": "two", "b": 2}, None)


def test_without_a_rowid_both_rows_are_kept() -> None:
    (change,) = changes("update w set v = 2")
    assert (change.rowid, change.before, change.after) == (None, {"k": "x", "v": 1}, {"k": "x", "v": 2})


def test_a_replaced_row_is_deleted_and_inserted() -> None:
    assert [change.verb for change in changes("insert or replace into t values (1, 'new', 9)")] == [Verb.DELETE, Verb.INSERT]


def test_a_table_that_was_altered_or_dropped_afterwards_can_still_be_read() -> None:
    altered = changes("update t set b = 9 where id = 1", "alter table t add column c")
    assert altered[0].verb is Verb.UPDATE
    dropped = changes("update t set b = 9 where id = 1", "drop table t")
    assert all(change.table == "t" for change in dropped)
