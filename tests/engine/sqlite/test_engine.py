"""The engine as a whole: isolation, what a body may not do, and every bad thing that can happen to the file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.engine.sqlite import body

from retroact import App
from retroact.engine.sqlite.history import History
from retroact.errors import (
    BadStatement,
    CommitFailed,
    DatabaseBusy,
    ForbiddenEffect,
    NewerDatabase,
    NoProject,
    NotADatabase,
    ReadOnlyTransaction,
    RetroactError,
)
from retroact.trace.record import RunId

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with App(tmp_path / "test.db", body) as app:
        app.run(body.create)
        yield app


def in_threads(count: int, work: Callable[[int], Any]) -> None:
    problems: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            problems.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def rows(path: Path, sql: str) -> list[Any]:
    database = apsw.Connection(str(path))
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    try:
        return database.execute(sql).fetchall()
    finally:
        database.close()


def python(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60, **options
    )


# --- isolation -------------------------------------------------------------------------------------------------------------


def test_no_increment_is_lost(app: App) -> None:
    """Eight callers read a number, add one, and write it back."""
    results: list[int] = []
    in_threads(8, lambda _: results.extend(app.run(body.increment, "a") for _ in range(40)))
    assert sorted(results) == list(range(1, 321))
    assert app.run(body.total)[0] == 320


def test_write_skew_cannot_occur(app: App) -> None:
    """Each takes from one counter after looking at both. If two could look before either took, the sum would fall below zero."""
    for _ in range(20):
        app.run(body.increment, "a")
    taken: list[bool] = []
    in_threads(8, lambda n: taken.extend(app.run(body.take, "ab"[n % 2]) for _ in range(10)))
    assert taken.count(True) == 20
    assert sum(app.run(body.total)[:2]) == 0


def test_readers_see_only_what_a_commit_left(app: App) -> None:
    """Money moves between two rows; whoever reads both, in two statements, always finds the same sum, and never goes back in time."""
    stop = threading.Event()
    seen: list[list[list[int]]] = []

    def read(_: int) -> None:
        mine: list[list[int]] = []
        while not stop.is_set():
            mine.append(app.run(body.total))
        seen.append(mine)

    def act(number: int) -> None:
        if number < 3:
            read(number)
            return
        for _ in range(40):
            app.run(body.move, 1)
        if number == 3:
            stop.set()

    in_threads(6, act)
    for mine in seen:
        assert {a + b for a, b, _ in mine} == {0}
        assert [b for _, b, _ in mine] == sorted(b for _, b, _ in mine)


def test_what_a_workflow_saw_is_durable_before_it_goes_on(tmp_path: Path) -> None:
    """It read, then acted on the outside world, then was killed. Had the record of what it read been lost, it would read again,
    see something else, and act on that."""
    from retroact import step, workflow

    path = tmp_path / "test.db"

    @step
    def act() -> list[Any]:
        return rows(path, "select f.name from retroact_record r join retroact_function f on f.id = r.function where r.run = 'acts'")

    @workflow
    def acts() -> list[Any]:
        body.increment("a")
        body.total()
        return act()

    with App(path, body, [act, acts]) as app:
        app.run(body.create)
        assert app.run(acts, run="acts") == [["increment"], ["total"]]


# --- what a body may not do ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", sorted(body.REACHES))
def test_a_body_that_reaches_past_the_database_is_refused(app: App, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped before the effect, and what it had written is rolled back."""
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    threads = threading.active_count()
    with pytest.raises(ForbiddenEffect) as caught:
        app.run(body.reach_out, how, run="reaches")
    assert "reach_out is a transaction and may not" in str(caught.value)
    assert "@step" in str(caught.value)
    assert threading.active_count() == threads
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert app.run(body.total)[2] == 0
    (record,) = app.trace.records_of(RunId("reaches"))
    assert record.outcome.failure is not None
    assert record.outcome.failure.error == "retroact.errors.ForbiddenEffect"
    assert record.changes == ()
    assert Path("/etc/hostname").exists(), "outside of a body files are files again"


def test_a_body_may_import(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import inside a body reads source and may write what it compiled; that is no effect of the body."""
    from retroact import transaction

    (tmp_path / "imported_by_a_body.py").write_text("ANSWER = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    @transaction
    def imports(conn: Any) -> int:
        import imported_by_a_body  # pyright: ignore[reportMissingImports]

        return imported_by_a_body.ANSWER

    with App(tmp_path / "imports.db", [imports]) as other:
        assert other.run(imports) == 42


def test_a_read_only_function_does_not_write_wherever_it_runs(app: App) -> None:
    """As the first call of a workflow it runs on the connection that writes."""
    for function in (body.sneak, body.sneak_first):
        with pytest.raises(ReadOnlyTransaction):
            app.run(function)


def test_what_the_database_refuses_is_recorded_with_its_statement(app: App) -> None:
    with pytest.raises(apsw.ConstraintError):
        app.run(body.breaks, "x", run="broken")
    (record,) = app.trace.records_of(RunId("broken"))
    failure = record.outcome.failure
    assert failure is not None
    assert (failure.sqlstate, failure.statement) == ("ConstraintError", 2)
    assert [(s.count, s.ordered) for s in record.statements] == [(1, None), (0, "!")]
    assert app.run(body.total)[2] == 0


def test_a_constraint_that_is_deferred_fails_its_own_body_only(app: App) -> None:
    """SQLite looks at it at COMMIT, and a commit is shared: one bad body must not fail its neighbours."""
    done: list[int] = []

    def act(number: int) -> None:
        for _ in range(10):
            if number:
                done.append(app.run(body.increment, "a"))
            else:
                with pytest.raises(apsw.ConstraintError):
                    app.run(body.orphan)

    in_threads(4, act)
    assert len(done) == 30


# --- what can happen to the file -------------------------------------------------------------------------------------------


def test_a_full_disk_fails_what_does_not_fit_and_nothing_else(app: App) -> None:
    """When there is room again, the same App goes on, and its past is whole."""
    database = app.engine._database
    database.pragma("max_page_count", database.pragma("page_count") + 30)
    for function, size in ((body.grow, 10_000_000), (body.grow_and_forgive, 10_000_000)):
        with pytest.raises(CommitFailed) as caught:
            app.run(function, size, run=f"full-{function.name}")
        assert "full" in str(caught.value)
        assert "nothing of it happened" in str(caught.value)
    database.pragma("max_page_count", 1_000_000)
    assert rows(app.path, "select * from entry") == []
    assert app.run(body.grow_and_forgive, 10, run="full-grow_and_forgive") == "went on"
    assert app.trace.verify() == app.trace.last_version()


FULL_DISK = """
import resource, signal, sys
from tests.engine.sqlite import body
from retroact import App
from retroact.errors import CommitFailed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
app = App(sys.argv[1], body)
app.run(body.create)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
done = failed = 0
for i in range(60):
    try:
        app.run(body.grow, 20_000, run=f"grow-{i}")
        done += 1
    except CommitFailed:
        failed += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
app.run(body.grow, 20_000, run="after")
app.close()
print(done, failed)
"""


def test_a_full_disk_for_real(tmp_path: Path) -> None:
    """The system refuses to let any file grow: the database, its log, the page log alike. Then it allows it again."""
    ended = python(FULL_DISK, str(tmp_path / "full.db"))
    assert ended.returncode == 0, ended.stderr
    done, failed = map(int, ended.stdout.split())
    assert done + failed == 60
    assert failed > 5
    with App(tmp_path / "full.db", body) as app:
        assert app.run(body.total)[2] == done + 1
        assert app.trace.verify() == app.trace.last_version()
    history = History(tmp_path / "full.db")
    assert not list(history.pages.verify())
    branch = history.at(history.trace.last_version() - 1)
    assert branch.query("select count(*) from entry")[1] == [(done + 1,)]
    history.close()


def test_a_second_process_is_told_who_has_the_file(app: App) -> None:
    """Two writers would spoil each other's record. Reading goes on beside the one that writes."""
    code = f"""
import sys
from pathlib import Path
from tests.engine.sqlite import body
from retroact import App
from retroact.engine.sqlite.history import History
from retroact.errors import DatabaseBusy
try:
    App({str(app.path)!r}, body)
except DatabaseBusy as error:
    print(error)
history = History(Path({str(app.path)!r}))
print(history.at(history.trace.last_version()).query("select count(*) from counter")[1])
history.close()
"""
    ended = python(code)
    assert ended.returncode == 0, ended.stderr
    assert f"(process {os.getpid()})" in ended.stdout
    assert "work beside it" in ended.stdout
    assert ended.stdout.endswith("[(2,)]\n")
    assert app.run(body.increment, "a") == 1
    with pytest.raises(DatabaseBusy):
        App(app.path, body)


def garbage(path: Path) -> None:
    path.write_bytes(b"this is a letter, not a database\n" * 200)


def newer(path: Path) -> None:
    with App(path, body) as app:
        app.run(body.create)
    rows(path, "update retroact_meta set value = '999' where key = 'schema'")


def torn(path: Path) -> None:
    with App(path, body) as app:
        app.run(body.create)
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 4000 + content[4100:])


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (garbage, NotADatabase, "is not a SQLite database"),
        (Path.mkdir, NotADatabase, "it is a folder"),
        (newer, NewerDatabase, "Upgrade retroact"),
        (torn, NotADatabase, "damaged"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, make: Callable[[Path], None], error: type[RetroactError], says: str) -> None:
    path = tmp_path / "strange.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    for _ in range(2):
        with pytest.raises(error) as caught:
            App(path, body)
        assert says in str(caught.value)
        assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.is_file() else None) == before, "nothing is changed"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NoProject) as caught:
        App(tmp_path / "missing" / "x.db", body)
    assert "does not exist" in str(caught.value)
    with pytest.raises(NoProject):
        History(tmp_path / "missing.db")


def test_a_statement_that_is_not_allowed_rolls_its_body_back(app: App, tmp_path: Path) -> None:
    from retroact import transaction

    @transaction
    def commits_itself(conn: Any) -> None:
        conn.execute("insert into entry values ('a', 'b')")
        conn.execute("commit")

    with App(tmp_path / "other.db", body, [commits_itself]) as other:
        other.run(body.create)
        with pytest.raises(BadStatement):
            other.run(commits_itself)
        assert other.run(body.total)[2] == 0


def test_closing_lets_the_file_go_even_when_the_disk_is_full(tmp_path: Path) -> None:
    """The page log cannot be stored: that is said, and the next App takes it over from the write-ahead log."""
    path = tmp_path / "test.db"
    app = App(path, body)
    app.run(body.create)
    app.run(body.increment, "a")
    assert app.engine.historian is not None

    def full() -> None:
        raise apsw.FullError("database or disk is full")

    app.engine.historian.store = full
    with pytest.raises(apsw.FullError):
        app.close()
    with App(path, body) as again:
        assert again.run(body.increment, "a") == 2
    history = History(path)
    for version, n in ((2, 1), (3, 2)):
        assert history.at(version).query("select n from counter where name = 'a'")[1] == [(n,)]
    history.close()
