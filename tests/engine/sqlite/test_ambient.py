"""SQL's own clock, chance and memory: wherever a statement meets them, a replay meets the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.kit import sql

from retroact import App, transaction
from retroact.testing import ManualClock

#: Everything in SQL that is not the same twice, each as an expression.
SOURCES = [
    "random()",
    "hex(randomblob(8))",
    "abs(random()) % 1000",
    "current_timestamp",
    "current_date",
    "current_time",
    "datetime('now')",
    "datetime()",
    "date('now', '+1 day')",
    "time('subsec')",
    "julianday('now')",
    "unixepoch('now', 'subsec')",
    "strftime('%Y-%m-%d %H:%M:%f', 'now')",
    "strftime('%s')",
    "timediff('now', '2020-01-01')",
]


@transaction
def create(conn: Any, schema: list[str]) -> None:
    for statement in schema:
        conn.execute(statement)


@transaction
def work(conn: Any, statements: list[str]) -> list[Any]:
    return [[list(row) for row in conn.rows(statement)] for statement in statements]


def identical(path: Path, schema: list[str], statements: list[str]) -> list[Any]:
    """What two runs left in the table `t`, each of which a replay has found to be identical."""
    with App(path, create, work, clock=ManualClock()) as app:
        app.run(create, ["create table t (id integer primary key, value)", *schema])
        for run in ("one", "two"):
            app.run(work, statements, run=run)
        report = app.replay(["one", "two"])
        assert [t.verdict.value for t in report.transactions] == ["identical"] * 2, report.transactions
        return sql(app, "select value from t order by id")


@pytest.mark.parametrize("source", SOURCES)
def test_in_a_statement(tmp_path: Path, source: str) -> None:
    statements = [f"insert into t (value) select {source}", f"update t set value = {source} where id = 1", f"select {source}"]
    identical(tmp_path / "test.db", [], [*statements, f"insert into t (value) values ({source}) returning value"])


@pytest.mark.parametrize("source", SOURCES)
def test_in_a_default_and_a_trigger_and_a_view(tmp_path: Path, source: str) -> None:
    schema = [
        f"create table d (id integer primary key, value default ({source}))",
        f"create trigger after_d after insert on d begin insert into t (value) values ({source}), (new.value); end",
        f"create view v as select {source} as value",
        f"create trigger into_v instead of insert on v begin insert into t (value) values ({source}); end",
    ]
    statements = ["insert into d default values", "insert into d (id) values (null) returning value", "select * from v"]
    found = identical(tmp_path / "test.db", schema, [*statements, "insert into v values (1)", "insert into t (value) select value from v"])
    assert len(found) == 12


def test_chance_differs_between_rows_and_runs(tmp_path: Path) -> None:
    found = identical(tmp_path / "test.db", [], ["insert into t (value) select random() from (values (1), (2), (3))"])
    assert len(set(found)) == 6


def test_an_order_by_chance_is_the_same_again(tmp_path: Path) -> None:
    rows = "with recursive n (i) as (values (1) union all select i + 1 from n where i < 40) select i from n order by random()"
    found = identical(tmp_path / "test.db", [], [f"insert into t (value) {rows}"])
    assert found[:40] != found[40:]
    assert sorted(found[:40]) == sorted(found[40:])


@pytest.mark.parametrize("memory", ["changes()", "total_changes()", "last_insert_rowid()"])
def test_a_body_sees_only_what_it_did_itself(tmp_path: Path, memory: str) -> None:
    """What a connection counts goes on from transaction to transaction, and other transactions have run on it than on a branch."""
    writes = ["insert into t (value) values (1), (2)", f"select {memory}", "update t set value = 3 where id = -1", f"select {memory}"]
    with App(tmp_path / "test.db", create, work) as app:
        app.run(create, ["create table t (id integer primary key, value)"])
        found = [app.run(work, [f"select {memory}", *writes], run=run) for run in ("one", "two")]
        assert app.replay(["one", "two"]).faithful
    assert [each[0] for each in found] == [[[0]], [[0]]]
    ids = [[2], [4]] if memory == "last_insert_rowid()" else [[2], [2]]
    assert [each[2][0] for each in found] == ids
    assert found[0][4][0] == [0 if memory == "changes()" else 2]
