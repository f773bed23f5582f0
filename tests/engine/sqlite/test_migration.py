"""Each migration runs once, in order, as a recorded transaction; one that fails leaves nothing and says where; all of them replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.engine.sqlite import body

from retroact import App, Retention, transaction
from retroact.engine.sqlite.migration import Piece, read_folder, statements
from retroact.errors import BadMigration, MigrationChanged, MigrationFailed
from retroact.replay.divergence import Verdict

CREATE = """-- the shop; a semicolon in a remark is none
create table inventory (
    item text primary key, -- its name; unique
    available integer not null
);
/* and who
   changed it; */
create table log (what text);
create trigger noted after update on inventory
begin
    insert into log values ('was ' || old.available || ';');
    insert into log values ('is ' || new.available);
end;

insert into inventory values ('a;b', 1), ('it''s', 2)
"""
FILL = """from __future__ import annotations

TIMES = 3


def migrate(conn) -> None:
    for _ in range(TIMES):
        conn.execute("update inventory set available = available + :n", n=conn.value("select count(*) from inventory"))
"""


@transaction
def any_count(conn: Any) -> int:
    return conn.execute("update inventory set available = 0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_create.sql").write_text(CREATE)
    (folder / "0002_fill.py").write_text(FILL)
    return folder


def test_they_run_once_and_in_order(tmp_path: Path, folder: Path) -> None:
    with App(tmp_path / "test.db", body) as app:
        assert [a.number for a in app.migrate(folder)] == [1, 2]
        (folder / "0003_more.sql").write_text("alter table inventory add column price integer default 7;")
        assert [a.number for a in app.migrate(folder)] == [3]
        assert app.migrate(folder) == ()
        query = app.history.at(3).query
        assert query("select * from inventory order by item")[1] == [("a;b", 7, 7), ("it's", 8, 7)]
        assert query("select count(*) from log")[1] == [(12,)]
        assert [(run.run, run.function) for run in reversed(app.runs())] == [
            ("migration-0001", "0001_create"), ("migration-0002", "0002_fill"), ("migration-0003", "0003_more"),
        ]  # fmt: skip


def test_the_past_before_and_after_is_open_and_replays_without_the_files(tmp_path: Path, folder: Path) -> None:
    with App(tmp_path / "test.db", body) as app:
        app.run(body.create)
        app.run(body.increment, "a")
        app.migrate(folder)
        app.run(body.increment, "a")
    for file in folder.iterdir():
        if file.is_file():
            file.unlink()
    with App(tmp_path / "test.db", body) as app:
        report = app.replay([run.run for run in app.runs()])
        assert {t.verdict for t in report.transactions} == {Verdict.IDENTICAL}
        assert len(report.transactions) == 5
        tables = "select count(*) from sqlite_schema where name = 'inventory'"
        assert [app.history.at(version).query(tables)[1][0][0] for version in (2, 3)] == [0, 1]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("0003_bad.sql", "create table t (a);\n\n-- remark\ninsert into t values (1);\ninsert into nowhere values (1);",
         r"0003_bad.sql, line 5, statement 3: no such table: nowhere. .*The SQL was: insert into nowhere values \(1\)"),
        ("0003_bad.sql", "create table t (a unique);\ninsert into t values (1);\ninsert into t\nvalues (1);",
         "line 3, statement 3: UNIQUE constraint failed: t.a"),
        ("0003_bad.sql", "create table t (a);\nbegin;\ncommit;", "line 2, statement 2: the platform begins and commits"),
        ("0003_bad.sql", "create table t (a);\ninsert into t values (:a);", "line 2, statement 2: .*parameters"),
        ("0003_bad.py", "def migrate(conn):\n    conn.execute('create table t (a)')\n    raise ValueError('no')",
         "0003_bad.py, line 3: ValueError: no"),
        ("0003_bad.py", "def migrate(conn):\n    conn.execute('create table t (a)')\n    conn.execute('insert into u values (1)')",
         "0003_bad.py, line 3, statement 2: no such table: u"),
    ],
)  # fmt: skip
def test_one_that_fails_leaves_nothing_and_says_where(tmp_path: Path, folder: Path, name: str, text: str, told: str) -> None:
    (folder / name).write_text(text)
    with App(tmp_path / "test.db", body) as app:
        for _ in range(2):
            with pytest.raises(MigrationFailed, match=told):
                app.migrate(folder)
        state = app.history.at(app.trace.last_version())
        assert state.query("select count(*) from sqlite_schema where name = 't'")[1] == [(0,)]
        assert state.query("select count(*) from inventory")[1] == [(2,)]
        (folder / name).unlink()
        (folder / "0003_good.sql").write_text("create table t (a);")
        assert [a.number for a in app.migrate(folder)] == [3]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"0004_late.sql": ""}, "number 3 is missing before it"),
        ({"0002_again.sql": ""}, "has the number 2 too"),
        ({"third.sql": ""}, "its name is not understood"),
        ({"0003_none.py": "x = 1"}, r"no plain function migrate\(conn\)"),
        ({"0003_broken.py": "def"}, "SyntaxError|syntax"),
        ({"0003_twice.py": "from retroact import transaction\n@transaction\ndef migrate(conn): pass"}, "no plain function"),
    ],
)
def test_what_is_not_in_order_is_refused(tmp_path: Path, folder: Path, files: dict[str, str], told: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    with App(tmp_path / "test.db", body) as app, pytest.raises(BadMigration, match=told):
        app.migrate(folder)


def test_one_that_was_changed_after_it_was_applied_is_refused(tmp_path: Path, folder: Path) -> None:
    with App(tmp_path / "test.db", body) as app:
        then = app.migrate(folder)[0].hash
        (folder / "0001_create.sql").write_text(CREATE + "-- more\n")
        now = read_folder(folder)[0].hash
        with pytest.raises(MigrationChanged, match=f"it is {now}, what was applied as version 1 is {then}"):
            app.migrate(folder)
        (folder / "0001_create.sql").unlink()
        with pytest.raises(BadMigration, match="number 1 is missing"):
            app.migrate(folder)


def test_a_script_is_taken_apart() -> None:
    found = statements(CREATE)
    assert [piece.line for piece in found] == [2, 8, 9, 15]
    assert found[2].sql.endswith("end")
    assert statements("") == statements("-- nothing\n") == statements(" ; ;\n") == []
    assert statements("select 1;;select ';'") == [Piece("select 1", 1), Piece("select ';'", 1)]


def test_very_many_rows(tmp_path: Path) -> None:
    """They are recorded by their number and a digest: the state after is opened, and replay compares the digest."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    rows = "with recursive c (i) as (select 1 union all select i + 1 from c where i < 30000)"
    (folder / "0001_many.sql").write_text(f"create table t (a, b); insert into t {rows} select i, 'x' from c; update t set b = a;")
    with App(tmp_path / "test.db", body) as app:
        app.migrate(folder)
        (change,) = app.trace.records_of("migration-0001")[0].changes  # pyright: ignore[reportArgumentType]
        assert (change.table, change.rowid) == ("", 60_000)
        assert app.history.at(1).query("select count(*), sum(b) from t")[1] == [(30_000, 450_015_000)]
        assert app.replay(["migration-0001"]).count(Verdict.IDENTICAL) == 1
        size = app.trace.ask(lambda d: d.execute("select length(changes) + length(statements) from retroact_record").get)
        assert size < 500


def test_compaction_does_not_forget_what_was_applied(tmp_path: Path, folder: Path) -> None:
    with App(tmp_path / "test.db", body, [any_count]) as app:
        app.migrate(folder)
        for _ in range(300):
            app.run(any_count)
        app.compact(Retention(age="0s", outcomes="0s"))
        assert app.trace.horizon().outcomes > 200
        assert app.migrate(folder) == ()
