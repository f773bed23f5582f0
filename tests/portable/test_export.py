"""What is in the file is what was at home: read, replayed and retroacted without the database and without the code base."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from retroact import App, step, transaction, workflow
from retroact.engine.sqlite.relation import Relation
from retroact.errors import AlreadyThere, BeyondHistory, NoProject, NotExported, OnlyForReading, UnknownRun, UnknownTable, UnknownVersion
from retroact.function.code import load_path
from retroact.function.registry import Registry
from retroact.portable import Exported, ExportOptions, export, open_portable
from retroact.replay.divergence import Verdict
from retroact.replay.shelf import Shelf
from retroact.retroaction.explorer import Explorer
from retroact.trace.record import RunId, Statement

ROOT = Path(__file__).resolve().parents[2]
#: Rows of a table that is far too large to be taken whole.
MANY = 20_000

SHOP = """
from retroact import invariant, step, transaction, workflow


@transaction
def setup(conn, many: int) -> None:
    conn.execute("create table customers (id integer primary key, email text unique, note text)")
    conn.execute("create table stock (item text primary key, available integer) without rowid")
    conn.execute("create table orders (id integer primary key, customer integer references customers (id), item text)")
    conn.execute("create index orders_of on orders (customer)")
    conn.execute("insert into stock values ('apple', 3), ('pear', 100)")
    conn.execute(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < :many)"
        " insert into customers select i, 'c' || i || '@example.com', hex(randomblob(30)) from n", many=many)


@transaction
def find(conn, email: str) -> int:
    return conn.value("select id from customers where email = :email", email=email)


@transaction
def available(conn, item: str) -> int:
    return conn.value("select available from stock where item = :item", item=item)


@transaction
def order(conn, customer: int, item: str) -> int:
    conn.execute("insert into orders (customer, item) values (:customer, :item)", customer=customer, item=item)
    conn.execute("update stock set available = available - 1 where item = :item", item=item)
    return conn.value("select max(id) from orders")


@transaction
def migrate(conn) -> None:
    conn.execute("alter table orders add column price integer default 5")


@transaction(read_only=True)
def count(conn) -> int:
    return conn.value("select count(*) from orders")


@step
def mail(email: str) -> str:
    return "sent to " + email


@workflow
def buy(email: str, item: str) -> int:
    customer = find(email)
    if available(item) < 1:
        raise ValueError("no " + item)
    number = order(customer, item)
    mail(email)
    return number


@workflow
def buy_two(email: str) -> list[int]:
    return [buy(email, "apple"), buy(email, "pear")]


@invariant
def never_oversold(conn) -> bool:
    return conn.value("select min(available) from stock") >= 0
"""
FIXED = SHOP.replace("if available(item) < 1", "if available(item) < 2")
GREEDY = SHOP.replace("select max(id) from orders", "select count(*) from customers where note like '%00%'")
FORGIVING = SHOP.replace(
    '    return conn.value("select max(id) from orders")',
    """    try:
        return conn.value("select count(*) from customers where note like '%00%'")
    except Exception:
        return 7""",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with many customers, a history before the runs that are exported, and one after. Not to be changed."""
    folder = tmp_path_factory.mktemp("home")
    for name, text in (("shop", SHOP), ("fixed", FIXED), ("greedy", GREEDY), ("forgiving", FORGIVING)):
        (folder / f"{name}.py").write_text(text)
    (folder / "retroact.toml").write_text('code = "shop.py"\ndatabase = "shop.db"\n')
    with App(folder / "shop.db", load_path(folder / "shop.py")) as app:
        app.run("setup", MANY, run="setup")
        for number in range(20):
            app.run("order", number + 1, "pear", run=f"before-{number}")
        app.run("buy", "c77@example.com", "apple", run="one")
        app.run("count", run="counted")
        app.run("migrate", run="migrate")
        app.run("order", 5, "apple", run="bystander")
        app.run("buy_two", "c1234@example.com", run="two")
        with pytest.raises(ValueError, match="no apple"):
            app.run("buy", "c9@example.com", "apple", run="none left")
        for number in range(20):
            app.run("order", number + 1, "pear", run=f"after-{number}")
    return folder


@pytest.fixture(scope="module")
def away(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the file."""
    folder = tmp_path_factory.mktemp("away")
    export(home / "shop.db", ["one", "two", "none left"], folder / "bug.retro")
    return folder


def command(folder: Path, *words: str) -> tuple[int, Any]:
    """A command line in a process of its own, which finds nothing but what is in the folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    line = [sys.executable, "-m", "retroact.cli", *words, "--json"]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout)


def without_times(value: Any) -> Any:
    """The same without how long it took."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("seconds", "original_seconds")}
    return [without_times(v) for v in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    "words",
    [
        ["trace", "two", "--statements"],
        ["trace", "none left"],
        ["replay", "one", "two", "none left"],
        ["replay", "counted", "migrate", "bystander"],
        ["asof", "30", "select * from orders join stock using (item) where customer > 3 order by id"],
        ["asof", "26", "select * from pragma_table_info('orders')"],
        ["asof", "25", "select email from customers where id = 77"],
    ],
)
def test_a_fresh_process_elsewhere_says_what_home_says(home: Path, away: Path, words: list[str]) -> None:
    at_home = command(home, *words)
    elsewhere = command(away, words[0], "bug.retro", *words[1:])
    assert without_times(elsewhere) == without_times(at_home)
    assert elsewhere[0] == 0, elsewhere


@pytest.mark.parametrize("changed", ["fixed", "shop"])
def test_changed_code_makes_the_same_difference_elsewhere(home: Path, away: Path, changed: str) -> None:
    shutil.copy(home / f"{changed}.py", away / f"{changed}.py")
    words = ["one", "two", "none left", "--with", f"{changed}.py"]
    at_home, elsewhere = command(home, "retro", *words), command(away, "retro", "bug.retro", *words)
    assert without_times(elsewhere) == without_times(at_home)


def test_the_runs_are_those_that_lie_in_the_span(home: Path, away: Path) -> None:
    _, elsewhere = command(away, "runs", "bug.retro")
    _, at_home = command(home, "runs")
    names = ["none left", "two.2", "two.1", "two", "bystander", "migrate", "counted", "one"]
    found = {run["run"]: run for run in elsewhere}
    assert set(names) <= set(found)
    assert not any(name.startswith("after") for name in found)
    assert [run for run in at_home if run["run"] in found] == elsewhere


def test_a_workflow_that_is_only_in_part_there_cannot_be_asked_for(tmp_path: Path) -> None:
    """Something is run in the middle of a workflow. Only that is exported: the workflow's effects until then are there, but nobody
    replays half of it."""

    @transaction
    def put(conn: Any, text: str) -> None:
        conn.execute("create table if not exists t (text text)")
        conn.execute("insert into t values (:text)", text=text)

    @step
    def meanwhile() -> None:
        other = threading.Thread(target=lambda: app.run(put, "middle", run="middle"))
        other.start()
        other.join()

    @workflow
    def outer() -> None:
        put("a")
        meanwhile()
        put("b")

    with App(tmp_path / "t.db", [put, outer, meanwhile]) as app:
        app.run(outer, run="outer")
        app.export(["middle"], tmp_path / "one.retro", ExportOptions(tables=("t",)))
    with open_portable(tmp_path / "one.retro") as past:
        assert [run.run for run in past.runs()] == ["middle"]
        assert past.history.at(2).query("select text from t")[1] == [("a",), ("middle",)]
        with pytest.raises(UnknownRun):
            past.replay(["outer"])


def test_the_file_is_small_and_the_database_is_not(home: Path, away: Path) -> None:
    assert (home / "shop.db").stat().st_size > 2_000_000
    assert (away / "bug.retro").stat().st_size < 60_000


def test_the_same_export_gives_the_same_bytes(home: Path, tmp_path: Path) -> None:
    for name in "ab":
        export(home / "shop.db", ["one", "two"], tmp_path / f"{name}.retro")
    assert (tmp_path / "a.retro").read_bytes() == (tmp_path / "b.retro").read_bytes()


# --- what is not in the file ------------------------------------------------------------------------------------------------


def test_changed_code_that_reads_more_is_told_so(home: Path, away: Path, tmp_path: Path) -> None:
    with open_portable(away / "bug.retro") as past, pytest.raises(NotExported, match=r"--tables customers or --whole"):
        past.retroact(home / "greedy.py", ["one"])


def test_a_body_that_catches_everything_gets_no_wrong_answer(home: Path, away: Path) -> None:
    """A body may go on after any error; what it then does must not pass for what would have happened."""
    with open_portable(away / "bug.retro") as past, pytest.raises(NotExported, match="customers"):
        past.retroact(home / "forgiving.py", ["one"])


@pytest.mark.parametrize("code", ["greedy", "forgiving"])
def test_exploration_makes_nothing_up_either(home: Path, away: Path, code: str) -> None:
    changed = Registry.of(load_path(home / f"{code}.py"))
    with open_portable(away / "bug.retro") as past, pytest.raises(NotExported, match="customers"):
        Explorer(past.history, Shelf(past.history.trace), changed).explore([RunId("one"), RunId("two")])


def test_what_waits_for_a_page_that_is_missing_is_not_passed_over(home: Path, away: Path) -> None:
    """Deferred changes, recorded statements and single rows ask for pages too."""
    with open_portable(away / "bug.retro") as past:
        scan = past.history.trace.scan(past.chosen)
        customers = {99: Relation(99, "customers", ("id", "email", "note"), has_rowid=True)}
        text = "select count(*) from customers where note like '%00%'"
        record = scan.entries[0].record
        asking = Statement(sql=text, parameters={}, count=1, ordered=None, unordered=None)

        def deferred(branch: Any) -> Any:
            branch.defer(f'[[99,"u",{MANY // 2},{{"2":["a","b"]}}]]', customers)
            return branch

        for ask in (
            lambda branch: deferred(branch).settle(),
            lambda branch: deferred(branch).query("select * from customers where id = :i", {"i": MANY // 2}),
            lambda branch: branch.row("customers", (MANY // 2,)),
            lambda branch: branch.retrace(msgspec.structs.replace(record, statements=(asking,))),
        ):
            branch = past.history.at(scan.first)
            with pytest.raises(NotExported, match="customers"):
                ask(branch)
            assert branch.query("select count(*) from stock")[1] == [(2,)], "it can be asked for what it has"
            branch.close()


@pytest.mark.parametrize("options", [ExportOptions(tables=("customers",)), ExportOptions(whole=True)])
def test_more_is_taken_when_asked_for(home: Path, tmp_path: Path, options: ExportOptions) -> None:
    exported = export(home / "shop.db", ["one", "two"], tmp_path / "bug.retro", options)
    with open_portable(tmp_path / "bug.retro") as past:
        assert past.retroact(home / "greedy.py", ["one"]).runs[0].differs
        question = "select count(*), count(distinct email) from customers"
        assert past.history.at(exported.last).query(question)[1] == [(MANY, MANY)]
        if options.whole:
            rows = past.history.at(exported.base).query("pragma integrity_check")[1]
            assert rows == [("ok",)]


def test_what_cannot_be_is_refused(home: Path, away: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownTable, match=r"no table nothing .* it has customers, orders, stock"):
        export(home / "shop.db", ["one"], tmp_path / "x.retro", ExportOptions(tables=("nothing",)))
    with pytest.raises(UnknownRun):
        export(home / "shop.db", ["nobody"], tmp_path / "x.retro")
    with pytest.raises(NoProject):
        export(home / "shop.db", ["one"], tmp_path / "no folder" / "x.retro")
    with pytest.raises(NoProject):
        open_portable(tmp_path / "x.retro")
    with open_portable(away / "bug.retro") as past:
        with pytest.raises(UnknownVersion):
            past.history.at(0)
        with pytest.raises(BeyondHistory):
            past.history.pages.commit_of(0)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "bug.retro"
    path.write_text("mine")
    with pytest.raises(AlreadyThere):
        export(home / "shop.db", ["one"], path)
    assert path.read_text() == "mine"
    export(home / "shop.db", ["one"], path, ExportOptions(overwrite=True))
    with open_portable(path) as past:
        assert past.chosen == ("one",)


def test_only_reading_verbs_take_the_file(home: Path, away: Path) -> None:
    for words in (["export", "--all", "-o", "x.retro"], ["run", "count", "--code", str(home / "shop.py")]):
        code, answer = command(away, *words, "--db", "bug.retro")
        assert (code, answer["error"]) == (2, OnlyForReading.__name__)
    assert not list(away.glob("*-lock"))


# --- where it is made -------------------------------------------------------------------------------------------------------


def test_a_living_app_exports_what_it_has_just_done(home: Path, tmp_path: Path) -> None:
    with App(tmp_path / "shop.db", load_path(home / "shop.py")) as app:
        app.run("setup", 10, run="setup")
        app.run("buy", "c7@example.com", "apple", run="one")
        exported = app.export(["setup", "one"], tmp_path / "bug.retro")
        app.run("buy", "c8@example.com", "apple", run="later")
    assert_identical(exported)
    with open_portable(tmp_path / "bug.retro") as past:
        assert [run.run for run in past.runs()] == ["one", "setup"]
        assert past.history.at(0).query("select count(*) from sqlite_schema where name = 'stock'")[1] == [(0,)]


def test_a_change_of_the_schema_in_the_span_brings_a_state_of_its_own(home: Path, away: Path) -> None:
    with open_portable(away / "bug.retro") as past:
        assert len(past.history.pages.states) == 2
        migrated = past.history.trace.run("migrate").last  # pyright: ignore[reportArgumentType]
        before, after = past.history.at(migrated - 1), past.history.at(migrated)
        assert "price" not in before.query("select * from orders limit 0")[0]
        assert "price" in after.query("select * from orders limit 0")[0]


def test_functions_without_source_are_told(tmp_path: Path) -> None:
    made = eval("lambda conn: conn.execute('create table t (a)')")  # it has no source that could be recorded
    made.__name__ = "made"
    with App(tmp_path / "t.db", [transaction(made)]) as app:
        app.run("made", run="one")
        exported = app.export(["one"], tmp_path / "t.retro")
    if exported.report.count(Verdict.RECORDED_RESULTS):
        assert "recorded-results" in exported.told[0]


def test_the_records_in_the_file_answer_plain_sql(away: Path) -> None:
    with open_portable(away / "bug.retro") as past:
        runs = past.history.trace.rows("select run, state from retroact_runs where function = 'buy' order by run")
        assert ("none left", "aborted") in runs
        with pytest.raises(apsw.ReadOnlyError):
            past.history.trace.rows("delete from retroact_record")


def assert_identical(exported: Exported) -> None:
    assert exported.faithful
    assert exported.told == ()
    assert exported.report.count(Verdict.IDENTICAL) == len(exported.report.transactions)
