"""What a branch has not been given yet shows in nothing that is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.kit import Crash

from retroact import App, transaction
from retroact.engine.contract import Invocation
from retroact.engine.sqlite.history import History
from retroact.trace.record import ALONE, RunId


@transaction
def create(conn: Any) -> None:
    conn.execute("create table plain (id integer primary key, n integer, x blob)")
    conn.execute("create table keyed (k text primary key, n integer)")
    conn.execute("create table counted (id integer primary key autoincrement, n integer)")
    conn.execute("create table bare (k text primary key, n integer) without rowid")


@transaction
def act(conn: Any, i: int) -> None:
    conn.execute("insert into plain values (:i, :i, :x) on conflict (id) do update set n = n + 1", i=i % 5, x=bytes([i]))
    conn.execute("update plain set id = id + 10 where id = 3 and n > 4")
    conn.execute("delete from plain where id = :i", i=(i * 3) % 7)
    conn.execute("insert or replace into keyed values (:k, :i)", k=str(i % 4), i=i)
    conn.execute("update or ignore keyed set k = k || 'x' where n = :i", i=i - 3)
    conn.execute("insert into counted (n) values (:i)", i=i)
    conn.execute("delete from counted where id = :i", i=i)
    conn.execute("insert into bare values (:k, 1) on conflict do update set n = n + 1", k=str(i % 3))


@transaction
def look(conn: Any, i: int) -> list[Any]:
    found = [conn.value("select n from plain where id = :i", i=i), conn.value("select n from keyed where k = :k", k=str(i))]
    conn.execute("insert into counted (n) values (7)")
    return [*found, conn.value("select count(*) from bare"), conn.value("select last_insert_rowid()")]


@transaction
def crash(conn: Any) -> None:
    conn.rows("select * from plain")
    conn.rows("select * from keyed")
    raise Crash


TABLES = ("plain", "keyed", "counted", "bare", "sqlite_sequence")


@pytest.fixture
def past(tmp_path: Path) -> Any:
    with App(tmp_path / "test.db", [create, act, look, crash]) as app:
        app.run(create)
        for i in range(1, 30):
            app.run(act, i)
    history = History(tmp_path / "test.db")
    yield history
    history.close()


def content(branch: Any) -> dict[str, Any]:
    return {table: branch.query(f"select * from {table}")[1] for table in TABLES}


def lagging(past: Any, until: int) -> Any:
    branch = past.at(1)
    scan = past.trace.scan([e.run for e in past.trace.records_between(0, until)])
    for entry in scan.entries[1:until]:
        branch.defer(entry.changes, scan.relations)
    return branch


@pytest.mark.parametrize("version", [2, 9, 30])
def test_each_state_is_what_it_would_be(past: Any, version: int) -> None:
    assert content(lagging(past, version)) == content(past.at(version))


def test_rows_are_given_one_by_one_when_they_are_asked_for(past: Any) -> None:
    branch, whole = lagging(past, 30), past.at(30)
    for i in (4, 2, 13, 4):
        assert branch.row("plain", (i,)) == whole.row("plain", (i,))
    assert content(branch) == content(whole)


def test_a_trial_sees_what_waits_and_what_it_was_given_stays_when_it_is_taken_back(past: Any) -> None:
    branch, whole = lagging(past, 30), past.at(30)
    for i in (1, 4):
        invocation = Invocation(run=RunId("x"), step=ALONE, function=look, arguments=b'{"i":%d}' % i)
        assert branch.attempt(invocation, 0, "") == whole.attempt(invocation, 0, "")
        branch.undo()
        whole.undo()
    with pytest.raises(Crash):
        branch.attempt(Invocation(run=RunId("x"), step=ALONE, function=crash, arguments=b"{}"), 0, "")
    assert content(branch) == content(whole)
