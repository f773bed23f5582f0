"""What is older than the horizon is dropped and refused; what is younger is as it was; and no run id is forgotten."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests import kit
from tests.engine.sqlite import body

from retroact import App, Retention, sleep, workflow
from retroact.engine.sqlite.history import History
from retroact.engine.sqlite.keeper import Keeper
from retroact.errors import BadRetention, BeyondHistory
from retroact.replay.divergence import Verdict
from retroact.testing import ManualClock
from retroact.trace.retention import age_us, size_bytes

DAY = 86_400


@workflow
def pausing() -> int:
    kit.write("pausing")
    sleep(3 * DAY)
    return 2


SESSIONS = "create table sessions (id integer primary key, token text)"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def app(tmp_path: Path, clock: ManualClock) -> Iterator[App]:
    with App(tmp_path / "test.db", body, clock=clock) as app:
        app.run(body.create, run="create")
        yield app


def days(app: App, clock: ManualClock, count: int, each: int = 10) -> None:
    """So many days pass, with some transactions on each."""
    for _ in range(count):
        for _ in range(each):
            app.run(body.increment, "a", run=f"r{app.trace.last_version()}")
        app._catch_up()
        clock.advance(DAY)


def counter(history: History, version: int) -> int:
    branch = history.at(version)
    try:
        return branch.query("select n from counter where name = 'a'")[1][0][0]
    finally:
        branch.close()


def test_what_is_older_is_refused_with_the_horizon(app: App, clock: ManualClock) -> None:
    days(app, clock, 10)
    states = {version: counter(app.history, version) for version in range(1, 102)}
    found = app.compact(Retention(age="5d"))
    horizon = found.after.version
    assert 40 < horizon < 62
    assert found.bytes_after < found.bytes_before
    for version, n in states.items():
        if version >= horizon:
            assert counter(app.history, version) == n
        else:
            with pytest.raises(BeyondHistory, match=rf"begins at version {horizon} \(20\d\d-"):
                app.history.at(version)
    assert not list(app.history.pages.verify())
    assert app.history.trace.verify() == 101


def test_a_run_id_is_never_forgotten(app: App, clock: ManualClock) -> None:
    """After compaction the outcome is still there, so the run is not run again."""
    assert app.run(body.increment, "a", run="once") == 1
    days(app, clock, 5)
    app.compact(Retention(age="1d"))
    assert app.run(body.increment, "a", run="once") == 1
    assert app.run(body.total)[0] == 51
    record = app.trace.records_of("once")[0]  # pyright: ignore[reportArgumentType]
    assert (record.statements, record.changes, record.arguments) == ((), (), "{}")


def test_a_run_id_is_forgotten_when_that_is_asked_for(app: App, clock: ManualClock) -> None:
    assert app.run(body.increment, "a", run="once") == 1
    days(app, clock, 9)
    app.compact(Retention(age="1d", outcomes="3d"))
    assert app.run(body.increment, "a", run="once") == 92
    assert app.trace.verify() == app.trace.last_version()
    assert app.replay(["once"]).faithful


def test_replay_and_retroaction_beyond_the_horizon_are_refused(app: App, clock: ManualClock) -> None:
    days(app, clock, 5)
    horizon = app.compact(Retention(age="2d")).after.version
    for ask in (app.replay, lambda runs: app.retroact(runs, app.registry), lambda runs: app.retroact(runs, app.registry, full=True)):
        with pytest.raises(BeyondHistory, match=f"version {horizon} "):
            ask(["r3"])
    report = app.replay([f"r{version}" for version in range(horizon, app.trace.last_version())])
    assert report.count(Verdict.IDENTICAL) == len(report.transactions) >= 10


def test_the_files_shrink(app: App, clock: ManualClock) -> None:
    def size_of_files() -> int:
        return sum(app.path.with_name(app.path.name + suffix).stat().st_size for suffix in ("-pages", "-pages-wal"))

    for _ in range(4):
        days(app, clock, 5, each=60)
        before = size_of_files()
        app.compact(Retention(age="1d"))
        assert size_of_files() < before * 0.8
    size = 64 * 1024
    days(app, clock, 5, each=100)
    found = app.compact(Retention(size=size))
    assert found.bytes_after <= size or found.after.version > app.trace.last_version() - 20
    assert counter(app.history, app.trace.last_version()) == 1700


def test_a_dry_run_says_and_does_nothing(app: App, clock: ManualClock) -> None:
    days(app, clock, 6, each=60)
    dry = app.compact(Retention(age="2d"), dry_run=True)
    assert counter(app.history, 1) == 0
    done = app.compact(Retention(age="2d"))
    assert (dry.after.version, dry.bytes_before) == (done.after.version, done.bytes_before)
    assert abs(dry.bytes_after - done.bytes_after) < 0.35 * done.bytes_before


def test_a_table_is_forgotten_earlier(tmp_path: Path, clock: ManualClock) -> None:
    """Its rows go from the records, and states in which they are no longer what they were refuse to be asked for them."""
    from tests.torture import body as any_sql

    with App(tmp_path / "test.db", any_sql, clock=clock) as app:
        app.run(any_sql.do, [(SESSIONS, {}), ("create table kept (n)", {})], run="schema")
        for n in range(20):
            secret = {"t": f"secret{n}"}
            app.run(
                any_sql.do, [("insert into sessions (token) values (:t)", secret), ("insert into kept values (:n)", {"n": n})], run=f"b{n}"
            )
            app.run(any_sql.do, [("insert into kept values (:n)", {"n": n})], run=f"k{n}")
            app._catch_up()
            clock.advance(DAY)
        found = app.compact(Retention(age="15d", tables={"sessions": "7d"}))
        horizon, limit = found.after.version, found.after.tables["sessions"].version
        assert horizon < limit
        branch = app.history.at(limit - 4)
        assert branch.query("select count(*) from kept")[1][0][0] > 0
        with pytest.raises(BeyondHistory, match=f"begins at version {limit} .*table sessions"):
            branch.query("select * from sessions")
        branch.close()
        assert app.history.at(limit).query("select count(*) from sessions")[1][0][0] > 0
        rows = app.trace.ask(
            lambda d: d.execute(
                "select coalesce(statements, '') || coalesce(changes, '') || arguments from retroact_record where version <= ?", (limit,)
            ).fetchall()
        )
        assert not [row for (row,) in rows if "secret" in row]
        assert app.trace.verify() == app.trace.last_version()
        report = app.replay([f"b{n}" for n in range(7, 20)] + [f"k{n}" for n in range(7, 20)])
        verdicts = {t.record.run: t for t in report.transactions}
        assert verdicts["b8"].verdict is Verdict.RECORDED_RESULTS
        assert "table sessions" in (verdicts["b8"].reason or "")
        assert {verdicts[run].verdict for run in ("k8", "b18", "k18")} == {Verdict.IDENTICAL}
        for full in (False, True):
            with pytest.raises(BeyondHistory, match="table sessions"):
                app.retroact(["b8"], app.registry, full=full)
            with pytest.raises(BeyondHistory, match="table sessions"):
                app.retroact(["k8", "k18"], app.registry, full=full)
            assert app.retroact(["b18"], app.registry, full=full).clean


def test_recorded_changes_of_a_table_that_is_refused_can_wait(tmp_path: Path, clock: ManualClock) -> None:
    """What is only passed over asks nothing of the table; what asks for it is refused."""
    from tests.torture import body as any_sql

    with App(tmp_path / "test.db", any_sql, clock=clock) as app:
        app.run(any_sql.do, [(SESSIONS, {}), ("create table kept (n)", {})], run="schema")
        for n in range(20):
            for run, sql in (("b", "insert into sessions (token) values ('x')"), ("k", "insert into kept values (1)")):
                app.run(any_sql.do, [(sql, {})], run=f"{run}{n}")
            app._catch_up()
            clock.advance(DAY)
        limit = app.compact(Retention(age="15d", tables={"sessions": "7d"})).after.tables["sessions"].version
        after = [r.run for r in app.trace.records_between(limit, limit + 3) if r.run.startswith("b")]
        branch, scan = app.history.at(limit - 1), app.trace.scan([after[0]])
        for entry in scan.entries:
            if entry.changes is not None:
                branch.defer(entry.changes, scan.relations)
        branch.settle()
        for question in (lambda: branch.query("select * from sessions"), lambda: branch.row("sessions", (1,))):
            with pytest.raises(BeyondHistory, match="table sessions"):
                question()
        assert branch.query("select count(*) from kept")[1][0][0] > 0
        branch.close()


def test_a_run_without_an_outcome_keeps_everything(tmp_path: Path) -> None:
    clock = ManualClock(jumps=False)
    with kit.opened(tmp_path, pausing, clock=clock) as app:
        app.start(pausing, run="waits")
        while len(app.trace.records_of("waits")) < 2:  # pyright: ignore[reportArgumentType]
            pass
        app.cancel("waits")
        for n in range(300):
            app.run(kit.write, f"{n}")
        app._catch_up()
        clock.advance(DAY)
        app.run(kit.write, "last")
        app._catch_up()
        clock.advance(DAY)
        found = app.compact(Retention(age="1d"))
        assert found.after.version > 290
        assert app.trace.records_of("waits")[0].changes  # pyright: ignore[reportArgumentType]
        clock.advance(DAY)
        assert app.resume("waits").result() == 2
        for n in range(300):
            app.run(kit.write, f"{n}")
        app._catch_up()
        clock.advance(2 * DAY)
        app.compact(Retention(age="1d"))
        assert not app.trace.records_of("waits")[0].changes  # pyright: ignore[reportArgumentType]


def test_without_a_page_log(tmp_path: Path, clock: ManualClock) -> None:
    with App(tmp_path / "test.db", body, clock=clock, recording=False) as app:
        app.run(body.create)
        for _ in range(250):
            app.run(body.increment, "a")
        clock.advance(2 * DAY)
        app.run(body.increment, "a")
        assert app.compact(Retention(age="1d")).after.version == 251
        assert app.trace.verify() == 252
        assert app.trace.ask(lambda d: d.execute("select count(*) from retroact_record where changes is not null").get) == 1


def test_a_page_log_that_begins_later_than_the_horizon(tmp_path: Path, clock: ManualClock) -> None:
    """Another program changed the database meanwhile, so the page log has begun anew; compaction goes on with the records."""
    path = tmp_path / "test.db"
    with App(path, body, clock=clock) as app:
        app.run(body.create)
        days(app, clock, 5)
    other = apsw.Connection(str(path))
    other.execute("vacuum")
    other.close()
    with App(path, body, clock=clock) as app:
        assert app.compact(Retention(age="2d")).after.version == 0
        days(app, clock, 5)
        horizon = app.compact(Retention(age="2d", size="100KB")).after.version
        assert horizon > 70
        assert counter(app.history, horizon) == horizon - 1
        assert not list(app.history.pages.verify())


def test_beside_traffic(  # noqa: C901 - a play of three parts
    app: App, clock: ManualClock
) -> None:
    """Writers write and a reader goes back while the horizon moves on: nothing is lost, nothing is wrong."""
    days(app, clock, 3, each=50)
    stop = threading.Event()
    problems: list[Any] = []

    def write() -> None:
        while not stop.is_set():
            app.run(body.increment, "b")

    def look() -> None:
        history = History(app.path)
        while not stop.is_set():
            for version in range(2, 150, 9):
                try:
                    if counter(history, version) != version - 1:
                        problems.append(version)
                except BeyondHistory:
                    pass
        history.close()

    threads = [threading.Thread(target=work) for work in (write, write, look)]
    for thread in threads:
        thread.start()
    for age in ("2d", "1d", "0d"):
        app.compact(Retention(age=age))
    stop.set()
    for thread in threads:
        thread.join()
    assert not problems
    app._catch_up()
    assert not list(app.history.pages.verify())
    last = app.trace.verify()
    assert app.history.at(last).query("select sum(n) from counter")[1][0][0] == last - 1


def test_a_state_that_is_open_is_refused_or_as_it_was(app: App, clock: ManualClock) -> None:
    days(app, clock, 5, each=40)
    history = History(app.path)
    branch = history.at(20)
    app.compact(Retention(age="0d"))
    with contextlib.suppress(BeyondHistory):
        assert branch.query("select n from counter where name = 'a'")[1] == [(19,)]
    history.close()


def test_it_compacts_by_itself(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    from retroact.engine.sqlite import keeper

    monkeypatch.setattr(keeper, "COMPACT_SECONDS", 0.0)
    monkeypatch.setattr(Keeper.__init__, "__kwdefaults__", {"look_seconds": 0.01})
    with App(tmp_path / "test.db", body, clock=clock, retention=Retention(age="2d")) as app:
        app.run(body.create)
        days(app, clock, 6)
        patience = threading.Event()
        while app.trace.horizon().version < 20:
            patience.wait(0.01)
        assert app.trouble is None


@pytest.mark.parametrize(("text", "us"), [("30d", 30 * DAY * 10**6), ("1.5h", 5400 * 10**6), ("2W", 14 * DAY * 10**6)])
def test_ages(text: str, us: int) -> None:
    assert age_us(text) == us


@pytest.mark.parametrize(("text", "size"), [("1GB", 10**9), ("512KiB", 2**19), (77, 77), ("90", 90)])
def test_sizes(text: str | int, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    "options",
    [{"age": "soon"}, {"age": "3y"}, {"size": "0"}, {"size": "1 elephant"}, {"age": "1d", "tables": {"t": "2d"}}, {"outcomes": "1d"},
     {"age": "2d", "outcomes": "1d"}],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(options: Any) -> None:
    with pytest.raises(BadRetention, match="An example"):
        Retention(**options)
