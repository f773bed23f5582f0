"""A statement failed halfway, after triggers had written rows, and the body went on: the record must not tell of rows that are not.

It did once: SQLite's count of changes goes up by what triggers do and does not come down again when the statement is taken back, so
the recorder believed that the rows had stayed (as they do when a conflict is resolved by FAIL). Every replay that applied that record
then met its own phantoms: "UNIQUE constraint failed: log.rowid".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from retroact import App, transaction
from retroact.trace.record import RunId

TABLES = {
    "rowid": "create table item (k text primary key, n integer)",
    "without rowid": "create table item (k text primary key, n integer) without rowid",
}


@transaction
def create(conn: Any, table: str) -> None:
    conn.execute(TABLES[table])
    conn.execute("create table log (k, n)")
    conn.execute("create trigger watch after update on item begin insert into log values (new.k, new.n); end")
    conn.execute("insert into item values ('a', 1), ('b', 2), ('bx', 3)")


@transaction
def rename_all(conn: Any, how: str) -> int:
    """Fails at the second row, whose new key is there already; a trigger has told of the first by then."""
    try:
        conn.execute(f"update {how} item set k = k || 'x' where n < 3")
    except apsw.ConstraintError:
        conn.execute("insert into log values ('forgiven', 0)")
    return conn.value("select count(*) from log")


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("how", ["", "or fail", "or ignore", "or replace"])
def test_the_record_tells_what_is_there(tmp_path: Path, table: str, how: str) -> None:
    """What the record leads to is what the database holds."""
    path = tmp_path / "test.db"
    with App(path, [create, rename_all]) as app:
        app.run(create, table)
        app.run(rename_all, how, run="it")
        (record,) = app.trace.records_of(RunId("it"))
        reached = app.history.at(record.snapshot)
        reached.advance(record)
        database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        for query in ("select * from item order by k", "select rowid, * from log order by rowid"):
            assert reached.query(query)[1] == database.execute(query).fetchall()
        database.close()
        assert app.replay(["it"]).faithful
