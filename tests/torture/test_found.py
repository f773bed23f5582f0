"""What torture has found, each as its own small story: versions that share a logged commit are reached from the recorded changes, so
whatever the record missed was missing from the past, and whatever a replay sees otherwise made it diverge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.torture import body, witness

from retroact import App, transaction
from retroact.engine.sqlite.database import open_reader
from retroact.errors import BeyondHistory
from retroact.replay.divergence import Verdict

COUNTERS = "select last_insert_rowid(), changes(), total_changes()"


@transaction
def counters(conn: Any) -> list[int]:
    return list(conn.row(COUNTERS))


@pytest.mark.parametrize(
    ("schema", "statements"),
    [
        # A full-text index writes its tables at the commit, when nobody noted rows any more.
        (["create virtual table t using fts5(a)"], ["insert into t values ('apple')", "delete from t"]),
        # Its writes come with the savepoint of a later statement, and were taken for that statement's when it failed.
        (
            ["create virtual table t using fts5(a)", "create table u (n unique, check (n < 3))"],
            [["insert into t values ('apple')", "insert into u values (1), (2), (3)"]],
        ),
        # What OR FAIL leaves behind is numbered, but AUTOINCREMENT has not noted how far it got.
        (
            ["create table t (id integer primary key autoincrement, a unique)", "insert into t (a) values (1)"],
            ["insert or fail into t (a) values (2), (3), (1)", "insert into t (a) values (4)"],
        ),
        (
            ["create table t (id integer primary key autoincrement, a unique)"],
            ["insert or fail into t (a) values (2), (3), (2)", "insert into t (a) values (4)"],
        ),
        # TEXT that is no text cannot be read by Python: its row was in the database and not in the record.
        (["create table t (a)", "insert into t values ('a')"], ["update t set a = a || x'ff00'", "insert into t values (1)"]),
        # ANALYZE counts the trace's own tables; what it counted is nobody's data.
        (["create table t (a unique)"], ["insert into t values (1)", "analyze", "insert into t values (2)"]),
        (["create table t (a unique)"], ["reindex", "insert into t values (2)"]),
        # The connection's counters told of what was run on it before.
        (["create table t (a)"], ["insert into t values (1), (2)", COUNTERS, ["insert into t values (3)", COUNTERS], COUNTERS]),
    ],
)
def test_once_found(tmp_path: Path, schema: list[str], statements: list[Any]) -> None:
    seen: dict[int, Any] = {}
    with App(tmp_path / "test.db", body) as app:
        reader = open_reader(app.path)
        app.run(body.do, [(sql, {}) for sql in schema])
        for each in statements:
            app.run(body.do, [(sql, {}) for sql in ([each] if isinstance(each, str) else each)])
            seen[app.trace.last_version()] = witness.content(lambda sql: reader.execute(sql).fetchall())
        reader.close()
        report = app.replay([run.run for run in app.runs()])
        assert {t.verdict for t in report.transactions} == {Verdict.IDENTICAL}
        for version, content in seen.items():
            branch = app.history.at(version)
            assert not witness.differences(content, witness.content(lambda sql, branch=branch: branch.query(sql)[1]))
            branch.close()


def test_counters_begin_with_the_transaction(tmp_path: Path) -> None:
    with App(tmp_path / "test.db", body, [counters]) as app:
        app.run(body.do, [("create table t (a)", {}), ("insert into t values (1), (2)", {})])
        assert app.run(counters) == [0, 0, 0]


def test_a_vacuum_keeps_the_past_and_is_part_of_it(tmp_path: Path) -> None:
    """It gives rows without an integer key other rowids: the states before have the old ones, those after the new."""
    with App(tmp_path / "test.db", body) as app:
        for sql in ("create table t (a)", "insert into t values (1), (2), (3)", "delete from t where a < 3"):
            app.run(body.do, [(sql, {})])
        run = app.vacuum()
        app.run(body.do, [("update t set a = a + 1", {})])
        states = [app.history.at(version).query("select rowid, a from t")[1] for version in range(2, 6)]
        assert states == [[(1, 1), (2, 2), (3, 3)], [(3, 3)], [(1, 3)], [(1, 4)]]
        assert app.trace.run(run).function == "retroact.vacuum"
        assert app.replay([run.run for run in app.runs()]).faithful


def test_a_vacuum_by_another_program_begins_the_past_anew(tmp_path: Path) -> None:
    """It writes the file while nobody logs: what was before is refused with the reason, what is after is as it should be."""
    path = tmp_path / "test.db"
    with App(path, body) as app:
        for sql in ("create table t (a)", "insert into t values (1), (2), (3)", "delete from t where a < 3"):
            app.run(body.do, [(sql, {})])
    other = apsw.Connection(str(path))
    other.execute("vacuum")
    other.close()
    with App(path, body) as app:
        app.run(body.do, [("update t set a = a + 1", {})])
        states = [app.history.at(version).query("select rowid, a from t")[1] for version in (3, 4)]
        assert states == [[(1, 3)], [(1, 4)]]
        with pytest.raises(BeyondHistory, match=r"begins at version 3.* another program (changed|emptied)"):
            app.history.at(2)
        assert app.trace.verify() == 4


def test_a_vacuum_by_another_program_beside_the_app(tmp_path: Path) -> None:
    """It goes through the write-ahead log, so it is logged like any commit, and every state stays open."""
    path = tmp_path / "test.db"
    with App(path, body) as app:
        for sql in ("create table t (a)", "insert into t values (1), (2), (3)", "delete from t where a < 3"):
            app.run(body.do, [(sql, {})])
        other = apsw.Connection(str(path))
        other.execute("vacuum")
        other.close()
        app.run(body.do, [("update t set a = a + 1", {})])
        app._catch_up()
        states = [app.history.at(version).query("select rowid, a from t")[1] for version in (2, 4)]
        assert states == [[(1, 1), (2, 2), (3, 3)], [(1, 4)]]
        assert not list(app.history.pages.verify())


def test_what_visits_every_table_may_visit_those_of_the_trace(tmp_path: Path) -> None:
    with App(tmp_path / "test.db", body) as app:
        assert app.run(body.do, [("create table t (a unique)", {}), ("analyze", {}), ("reindex", {})]) == ["0", "0", "0"]
        assert app.run(body.do, [("drop table retroact_record", {})]) == ["BadStatement"]
