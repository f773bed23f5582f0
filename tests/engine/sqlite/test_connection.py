"""What a body may ask of its connection, what it is told when it may not, and that the record says what happened."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from retroact.engine.sqlite.connection import Shapes, SqliteConnection
from retroact.errors import BadStatement, ReadOnlyTransaction

MOMENT_US = 1_700_000_000_123_456


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[SqliteConnection]:
    database = apsw.Connection(str(tmp_path / "test.db"))
    database.execute("pragma foreign_keys = on").fetchall()
    database.execute(
        """
        create table account (id integer primary key, name text unique, balance integer default 0);
        create table numbered (id integer primary key autoincrement, name text unique);
        create table child (account integer references account deferrable initially deferred);
        create table retroact_record (version integer primary key);
        insert into account values (1, 'ada', 10), (2, 'bob', 20);
        """
    )
    connection = SqliteConnection(database, Shapes({}))
    database.execute("begin")
    connection.begin("test", MOMENT_US, "seed")
    yield connection
    database.close(force=True)


def begin_again(conn: SqliteConnection, **options: Any) -> None:
    conn.begin("test", MOMENT_US, "seed", **options)


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("begin", "the platform begins and commits"),
        ("commit", "the platform begins and commits"),
        ("rollback", "the platform begins and commits"),
        ("savepoint mine", "instead of SAVEPOINT"),
        ("release mine", "instead of SAVEPOINT"),
        ("attach ':memory:' as other", "ATTACH is not allowed"),
        ("detach other", "DETACH is not allowed"),
        ("pragma foreign_keys = off", "a PRAGMA changes the connection"),
        ("pragma journal_mode = delete", "a PRAGMA changes the connection"),
        ("pragma user_version = 3", "a PRAGMA changes the connection"),
        ("vacuum", "VACUUM"),
        ("  VACUUM", "VACUUM"),
        ("select 1; select 2", "one call runs one statement"),
        ("select 1; drop table account", "one call runs one statement"),
        ("select * from account where id = ?", "named (:item)"),
        ("select * from account where id = ?1", "named (:item)"),
        ("insert into retroact_record values (9)", "belongs to the trace"),
        ("delete from retroact_record", "belongs to the trace"),
        ("drop table retroact_record", "belongs to the trace"),
        ("alter table retroact_record add column mine", "belongs to the trace"),
        ("create table retroact_mine (a)", "belongs to the trace"),
        ("create index mine on retroact_record (version)", "belongs to the trace"),
        ("create trigger mine after insert on retroact_record begin select 1; end", "belongs to the trace"),
        ("create temp table scratch (a)", "TEMP"),
        ("create temp view scratch as select 1", "TEMP"),
        ("insert or rollback into account (id) values (1)", "ROLLBACK"),
        ("update or/* hidden */rollback account set id = 1", "ROLLBACK"),
        ("create table strict (a unique on conflict rollback)", "ROLLBACK"),
        ("create trigger t after insert on account begin select raise(rollback, 'no'); end", "ROLLBACK"),
        ("selec 1", "syntax error"),
        ("select * from missing", "no such table"),
    ],
)
def test_what_a_body_may_not_run(conn: SqliteConnection, sql: str, problem: str) -> None:
    with pytest.raises(BadStatement) as caught:
        conn.rows(sql)
    assert problem in str(caught.value)
    assert sql in str(caught.value)
    assert conn.value("select count(*) from account") == 2, "the transaction goes on"
    assert conn.notes[-1][0].sql == "select count(*) from account"


@pytest.mark.parametrize(
    "sql",
    [
        "select 1;",
        "select 1; -- and a comment",
        "/* first */ select 1 /* last */ ;;",
        "pragma table_info(account)",
        "pragma user_version",
        "select 'begin; rollback' as text",
        "with t as (select 1 as a) select a from t",
        "",
    ],
)
def test_what_a_body_may_run(conn: SqliteConnection, sql: str) -> None:
    conn.rows(sql)


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        (True, 1),
        (Colour.RED, "red"),
        (bytearray(b"\x00\xff"), b"\x00\xff"),
        (memoryview(b"ab"), b"ab"),
        (float("nan"), None),
        (float("inf"), float("inf")),
        (-0.0, -0.0),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        ("\x00zero", "\x00zero"),
        (None, None),
    ],
)
def test_what_is_bound_is_what_is_noted(conn: SqliteConnection, given: Any, bound: Any) -> None:
    assert conn.value("select :v", v=given) == bound
    noted = conn.notes[-1][1]["v"]
    assert (noted, type(noted) in (int, float, str, bytes, bool, type(None))) == (bound, True)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({}, "item"),
        ({"item": object()}, "item is a object; give a number, text, bytes or None"),
        ({"item": [1]}, "item is a list"),
        ({"item": 2**63}, "too big"),
        ({"item": "\ud800"}, "surrogates"),
    ],
)
def test_parameters_that_do_not_fit(conn: SqliteConnection, parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadStatement) as caught:
        conn.execute("select :item", parameters)
    assert "parameters do not fit" in str(caught.value)
    assert problem in str(caught.value)


def test_a_statement_that_failed_and_was_forgiven_leaves_no_changes(conn: SqliteConnection) -> None:
    """Two rows were inserted when the third was refused: SQLite takes all three back, so the record must not tell of them."""
    with pytest.raises(apsw.ConstraintError):
        conn.execute("insert into account (name) select 'new' || value from json_each('[1, 2]') union all select 'ada'")
    conn.execute("insert into account (name) values ('eve')")
    assert [(table, verb) for table, verb, *_ in conn.row_notes] == [("account", "i")]
    assert [note[2:] for note in conn.notes] == [(0, "!", "!"), (1, None, None)]


def test_what_or_fail_leaves_is_noted(conn: SqliteConnection) -> None:
    with pytest.raises(apsw.ConstraintError):
        conn.execute('insert or fail into account (name) select value from json_each(\'["new", "ada", "never"]\')')
    assert [note[5][1] for note in conn.row_notes if note[5]] == ["new"]
    assert conn.value("select count(*) from account") == 3


def test_a_deferred_constraint_is_checked_when_the_body_ends(conn: SqliteConnection) -> None:
    """At COMMIT it would take the whole group with it."""
    conn.execute("insert into child values (99)")
    with pytest.raises(apsw.ConstraintError):
        conn.finish()
    conn.execute("insert into account (id) values (99)")
    conn.finish()


def test_after_the_transaction_is_gone_nothing_more_is_run(conn: SqliteConnection) -> None:
    """A full disk rolls back everything. A body that catches that and goes on would write outside of any transaction."""
    conn.database.pragma("max_page_count", conn.database.pragma("page_count"))
    with pytest.raises(apsw.FullError):
        conn.execute("update account set name = zeroblob(1000000) where id = 1")
    assert conn.database.get_autocommit()
    for attempt in (lambda: conn.execute("update account set balance = 0"), lambda: conn.rows("select 1"), conn.finish):
        with pytest.raises(apsw.FullError):
            attempt()
    begin_again(conn)
    assert conn.value("select balance from account where id = 1") == 10


@pytest.mark.parametrize(
    ("sql", "left"),
    [
        ("insert or ignore into numbered (name) values ('ada')", [("u", 2)]),
        ("insert into numbered (name) values ('ada') on conflict do update set name = 'eve'", [("u", 2)]),
        ("insert into numbered (name) values ('eve')", []),
        ("insert into numbered (id, name) values (50, 'eve')", []),
        ("delete from numbered", []),
        ("insert or ignore into numbered (name) values ('x'), ('ada'), ('ada')", [("u", 4)]),
    ],
)
def test_a_number_that_was_used_up_without_a_row_is_noted(conn: SqliteConnection, sql: str, left: list[tuple[str, int]]) -> None:
    """AUTOINCREMENT counts rows that were ignored; applying only the rows would give the next one another id."""
    conn.execute("insert into numbered (name) values ('ada')")
    begin_again(conn)
    conn.execute(sql)
    noted = [(note[1], note[5][1]) for note in conn.row_notes if note[0] == "sqlite_sequence" and note[5]]
    assert noted == left


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("datetime('now')", "2023-11-14 22:13:20"),
        ("datetime()", "2023-11-14 22:13:20"),
        ("current_timestamp", "2023-11-14 22:13:20"),
        ("current_date", "2023-11-14"),
        ("current_time", "22:13:20"),
        ("date('now', '+1 day')", "2023-11-15"),
        ("strftime('%s')", "1700000000"),
        ("strftime('%Y', 'now')", "2023"),
        ("unixepoch()", 1_700_000_000),
        ("unixepoch('subsec')", 1_700_000_000.123),
        ("datetime('subsec')", "2023-11-14 22:13:20.123"),
        ("datetime('2020-01-01')", "2020-01-01 00:00:00"),
        ("timediff('now', '2023-11-13 22:13:20.123')", "+0000-00-01 00:00:00.000"),
        ("date(null)", None),
    ],
)
def test_sql_lives_in_the_moment_of_the_invocation(conn: SqliteConnection, expression: str, value: Any) -> None:
    assert conn.value(f"select {expression}") == value


def test_chance_is_the_invocations(conn: SqliteConnection) -> None:
    draws = []
    for _ in range(2):
        begin_again(conn)
        draws.append([conn.value("select random()"), conn.value("select hex(randomblob(4))"), conn.moment.random().random()])
    assert draws[0] == draws[1]


def test_generated_columns_and_indices_may_use_dates(conn: SqliteConnection) -> None:
    """As they may in any SQLite: a schema from before must still open."""
    conn.execute("create table event (at text, day text generated always as (date(at)) stored)")
    conn.execute("create index by_day on event (date(at))")
    conn.execute("insert into event (at) values ('2020-02-03 04:05:06')")
    assert conn.row("select * from event").day == "2020-02-03"


def test_a_table_whose_rows_sqlite_does_not_show_counts_as_more_than_rows(conn: SqliteConnection) -> None:
    """VIRTUAL generated columns are hidden from the hook that sees row changes."""
    conn.execute("create table odd (a, twice as (a * 2))")
    for sql in ("insert into odd values (1)", "update odd set a = 2", "delete from odd"):
        begin_again(conn)
        conn.execute(sql)
        assert conn.schema_changed


def test_a_read_only_body_does_not_write(conn: SqliteConnection) -> None:
    begin_again(conn, read_only=True)
    with pytest.raises(ReadOnlyTransaction):
        conn.execute("update account set balance = 0")
    assert conn.value("select sum(balance) from account") == 30


def test_rows_have_names(conn: SqliteConnection) -> None:
    row = conn.row("select id, name, balance * 2 from account where name = :name", name="bob")
    assert (row.id, row[1], row[2], len(row)) == (2, "bob", 40, 3)
    assert conn.row("select * from account where id = 9") is None
    assert conn.value("select name from account where id = 9") is None
    assert conn.execute("update account set balance = 1") == 2
    assert conn.rows("update account set balance = 2 returning id") == [(1,), (2,)]
