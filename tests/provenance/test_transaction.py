"""Who wrote what was read, and who read what was written: found from both sides, they agree."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.replay.random_app import live, module_of, sources

from retroact import App, transaction
from retroact.engine.sqlite.history import History
from retroact.errors import UnknownStep
from retroact.provenance.transaction import TransactionView, look_at
from retroact.provenance.writers import last_writers, row_after
from retroact.replay.shelf import Shelf
from retroact.trace.record import Record


@transaction
def create(conn: Any) -> None:
    conn.execute("create table account (id integer primary key, balance integer)")
    conn.execute("insert into account values (1, 100), (2, 100)")
    conn.execute("create view rich as select * from account where balance > 50")


@transaction
def pay(conn: Any, n: int) -> int:
    conn.execute("update account set balance = balance - :n where id = 1", n=n)
    return conn.value("select balance from account where id = 1")


@transaction
def see(conn: Any, account: int) -> int:
    return conn.value("select balance from account where id = :account", account=account)


@transaction
def count_rich(conn: Any) -> int:
    return conn.value("select count(*) from rich")


@transaction
def shuffle(conn: Any) -> None:
    conn.execute("delete from account where id = 2")
    conn.execute("insert into account values (3, 7)")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import tests.provenance.test_transaction as here

    with App(tmp_path_factory.mktemp("bank") / "bank.db", here) as app:
        app.run("create", run="create")  # 1
        app.run("see", 1, run="before")  # 2
        app.run("pay", 10, run="pay")  # 3
        app.run("see", 1, run="saw")  # 4
        app.run("see", 2, run="saw-other")  # 5
        app.run("count_rich", run="counted")  # 6
        app.run("pay", 20, run="again")  # 7
        app.run("see", 1, run="later")  # 8
        app.run("shuffle", run="shuffle")  # 9
        yield app


def test_results_and_rows_before_and_after(app: App) -> None:
    view = app.look_at("pay")
    assert [(s.sql[:6], s.count, s.rows) for s in view.statements] == [("update", 1, ()), ("select", 1, ((90,),))]
    assert [(r.row, r.before, r.after) for r in view.rows] == [(("account", (1,)), {"id": 1, "balance": 100}, {"id": 1, "balance": 90})]
    assert view.notes == ()
    rows = app.look_at("shuffle").rows
    assert [(r.row[1], r.before and r.before["balance"], r.after and r.after["balance"]) for r in rows] == [
        ((2,), 100, None),
        ((3,), None, 7),
    ]


def test_who_wrote_what_it_read(app: App) -> None:
    read = app.look_at("pay").read
    assert [(w.row, w.statements, w.itself, w.writer and w.writer.run) for w in read] == [
        (("account", (1,)), (1,), False, "create"),
        (("account", (1,)), (2,), True, "pay"),
    ]
    assert [w.writer and w.writer.run for w in app.look_at("later").read] == ["again"]


def test_who_read_what_it_wrote_until_it_was_written_anew(app: App) -> None:
    """By its row where that is known, by its table where a view stands between."""
    readers = app.look_at("pay").readers
    row = ("account", (1,))
    assert [(r.record.run, r.rows, r.tables) for r in readers] == [
        ("saw", (row,), ()),
        ("counted", (), ("account",)),
        ("again", (row,), ()),
    ]
    assert app.look_at("later").readers == ()


def test_a_step_that_is_not_there_is_said(app: App) -> None:
    with pytest.raises(UnknownStep, match="has no transaction that is its step 7"):
        app.look_at("pay", 7)


def views(path: Path) -> tuple[list[Record], dict[int, TransactionView]]:
    history = History(path)
    shelf = Shelf(history.trace)
    try:
        records = list(history.trace.records_between(0, history.trace.last_version()))
        branch = history.at(records[-1].version)
        for record in records:
            check_writers(history, records, record, branch.key_columns)
        branch.close()
        return records, {record.version: look_at(history, record, shelf.function) for record in records}
    finally:
        shelf.close()
        history.close()


def check_writers(history: History, records: list[Record], record: Record, key_columns: Any) -> None:
    """Going back in steps finds what going forward through everything finds."""
    naive: dict[Any, Record] = {}
    for earlier in records:
        if earlier.version <= record.snapshot:
            naive.update({row: earlier for change in earlier.changes if (row := row_after(change, key_columns)) is not None})
    assert last_writers(history.trace, naive, record.snapshot, key_columns) == naive


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), database=None, print_blob=True)
@given(sources, st.integers(0, 2**16))
def test_writers_and_readers_agree(source: str, seed: int) -> None:
    """R read a row that W had written, exactly when W has R among the readers of that row."""
    with tempfile.TemporaryDirectory() as name:
        with module_of(Path(name), source) as module, App(Path(name) / "test.db", module) as app:
            live(app, module, seed, callers=3, calls=4)
        records, found = views(Path(name) / "test.db")
    assert all(not view.notes for view in found.values())
    wrote = {
        (written.writer.version, version, written.row)
        for version, view in found.items()
        for written in view.read
        if written.writer is not None and not written.itself
    }
    read = {(version, reader.record.version, row) for version, view in found.items() for reader in view.readers for row in reader.rows}
    changed = {(version, r.row) for version, view in found.items() for r in view.rows}
    assert {entry for entry in wrote if (entry[0], entry[2]) in changed} == {entry for entry in read if (entry[0], entry[2]) in changed}
    assert len(records) == len(found)
