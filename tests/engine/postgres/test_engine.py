"""The Postgres engine: isolation, conflicts, connections that get lost, and what a body may not do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from tests.engine.postgres import body
from tests.engine.postgres.body import AFTERWARDS, HOOKS
from tests.engine.postgres.proxy import Proxy

from retroact import App
from retroact.engine.postgres import outbox
from retroact.errors import Contended, ReadOnlyTransaction, WrongFunction
from retroact.testing import ManualClock
from retroact.trace.record import RunId


@pytest.fixture
def app(postgres: str) -> Iterator[App]:
    HOOKS.reset()
    AFTERWARDS.reset()
    with App(postgres, body.FUNCTIONS, clock=ManualClock()) as app:
        app.run(body.create)
        yield app


@pytest.fixture
def outside(postgres: str) -> Iterator[psycopg.Connection[Any]]:
    """Somebody else, on a connection of their own."""
    with psycopg.connect(postgres, autocommit=True) as conn:
        yield conn


#: Has something done by another thread, and waits for it. The thread is there already: a body must not start one.
Beside = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def beside() -> Iterator[Beside]:
    with ThreadPoolExecutor(1) as other:
        other.submit(int).result()
        yield lambda work: other.submit(work).result()


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


def ask(conn: psycopg.Connection[Any], sql: str) -> list[Any]:
    return conn.execute(sql.encode()).fetchall()


def end_others(conn: psycopg.Connection[Any]) -> None:
    """Whoever else is connected is thrown out."""
    conn.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    )


# --- isolation -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [body.increment, body.increment_repeatable])
def test_no_increment_is_lost(app: App, outside: psycopg.Connection[Any], function: Any) -> None:
    """Eight callers read a number, add one, and write it back."""
    results: list[int] = []
    in_threads(8, lambda _: results.extend(app.run(function, "a") for _ in range(20)))
    assert sorted(results) == list(range(1, 161))
    assert app.run(body.report) == [160, 0]
    app.engine.settle()
    assert ask(outside, "select count(*) from retroact.attempts") == [(app.engine.retries,)]  # pyright: ignore


def test_write_skew_cannot_occur(app: App) -> None:
    """Each takes from one counter after looking at both. If two could look before either took, the sum would fall below zero."""
    for _ in range(10):
        app.run(body.increment, "a")
    taken: list[bool] = []
    in_threads(4, lambda n: taken.extend(app.run(body.take, "ab"[n % 2]) for _ in range(10)))
    assert taken.count(True) == 10
    assert sum(app.run(body.report)) == 0


@pytest.mark.parametrize(("function", "sum_left", "tried"), [(body.take, 0, 2), (body.take_repeatable, -1, 1)])
def test_what_repeatable_read_lets_through(app: App, beside: Beside, function: Any, sum_left: int, tried: int) -> None:
    """The same two, one inside the other: serializable finds it out and tries again, repeatable read does not."""
    app.run(body.increment, "a")
    HOOKS.reset(lambda: beside(lambda: app.run(function, "b")))
    app.run(function, "a", run="outer")
    assert sum(app.run(body.report)) == sum_left
    assert app.trace.records_of(RunId("outer"))[0].attempt == tried


def test_the_read_only_anomaly_cannot_occur(app: App, beside: Beside) -> None:
    """A withdrawal has looked; a deposit is made; a report shows the deposit and no withdrawal. After that the withdrawal must not go
    on as if there were no deposit, although neither of the two writers alone is in its way."""
    reports: list[list[int]] = []

    def meanwhile() -> None:
        beside(lambda: app.run(body.deposit, 20))
        reports.append(beside(lambda: app.run(body.report)))

    HOOKS.reset(meanwhile)
    assert app.run(body.withdraw, 10, run="w") == 10
    assert reports == [[0, 20]]
    assert app.trace.records_of(RunId("w"))[0].attempt == 2


def test_what_is_read_committed_is_labelled(app: App, outside: psycopg.Connection[Any]) -> None:
    assert app.run(body.add_committed, 5) == 5
    app.run(body.increment, "a")
    found = ask(
        outside, "select function, isolation, label from retroact.records where function like 'add%' or function like 'incr%' order by 1"
    )
    assert found == [("add_committed", "read committed", "recorded-results"), ("increment", "serializable", None)]


def test_a_read_takes_no_transaction_number_and_its_snapshot_is_recorded(app: App, outside: psycopg.Connection[Any]) -> None:
    app.run(body.report, run="r")
    app.engine.settle()
    [(snapshot, xid, seen)] = ask(outside, "select snapshot::text, xid, pg_snapshot_xmax(snapshot) from retroact.records where run = 'r'")
    assert (snapshot.count(":"), xid) == (2, None)
    assert app.trace.records_of(RunId("r"))[0].visible == snapshot
    app.run(body.increment, "a", run="w")
    [(writer,)] = ask(outside, "select xid::text::bigint from retroact.records where run = 'w'")
    assert int(seen) <= writer, "the reader saw nothing of who came later"


# --- conflicts -------------------------------------------------------------------------------------------------------------


def test_retries_are_bounded_and_each_is_recorded(app: App, outside: psycopg.Connection[Any]) -> None:
    """Somebody changes the row between the read and the write of every attempt."""
    HOOKS.reset(always=lambda: outside.execute("update counter set n = n + 1 where name = 'a'"))
    with pytest.raises(Contended, match=r"increment was tried 100 times.*could not serialize"):
        app.run(body.increment, "a", run="r")
    app.engine.settle()
    assert HOOKS.attempts == 100
    assert ask(outside, "select count(*), min(attempt), max(attempt), min(sqlstate), min(statement) from retroact.attempts") == [
        (100, 1, 100, "40001", 2)
    ]
    assert app.trace.find_run(RunId("r")) is None
    HOOKS.reset()
    assert app.run(body.increment, "a", run="r") == 101


def test_the_same_id_by_many_callers_is_one_transaction(app: App) -> None:
    results: list[int] = []
    in_threads(8, lambda _: results.append(app.run(body.increment, "a", run="once")))
    assert results == [1] * 8
    assert app.run(body.report) == [1, 0]
    with pytest.raises(WrongFunction):
        app.run(body.deposit, 1, run="once")


def test_a_run_of_a_workflow_is_no_transaction(app: App) -> None:
    app.run(body.counts, "a", run="w")
    with pytest.raises(WrongFunction, match="started as counts, not as increment"):
        app.run(body.increment, "a", run="w")
    assert app.run(body.report) == [1, 0]


# --- connections that get lost -----------------------------------------------------------------------------------------------


def test_a_connection_lost_in_a_body_is_no_failure(app: App, outside: psycopg.Connection[Any]) -> None:
    HOOKS.reset(lambda: end_others(outside))
    assert app.run(body.increment, "a", run="r") == 1
    assert HOOKS.attempts == 2
    assert app.run(body.report) == [1, 0]


@pytest.mark.parametrize(("when", "executed"), [("before", 2), ("after", 1)])
def test_a_connection_lost_during_commit_is_resolved_by_the_record(postgres: str, when: str, executed: int) -> None:
    """Cut off before COMMIT arrives, nothing has happened, and the body is run again. Cut off before its answer arrives, it has happened:
    the record says so, and the body is not run again."""
    HOOKS.reset()
    with Proxy(postgres) as proxy, App(proxy.url, body.FUNCTIONS) as app:
        app.run(body.create)
        proxy.cut = when
        assert app.run(body.increment, "a", run="r") == 1
        assert proxy.cut == "", "it was cut"
        assert HOOKS.attempts == executed
        assert app.run(body.report) == [1, 0]
        proxy.cut = when
        assert app.run(body.counts, "a", run="w") == 2
        assert app.run(body.report) == [2, 0]


@pytest.mark.parametrize("same", [True, False])
def test_the_last_transaction_of_a_workflow_is_lost_before_its_end_rides_with_it(
    postgres: str, outside: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """It is executed again. Only when that gives another result, the workflow's body is run again too, from the record."""
    monkeypatch.setattr(outbox, "TEND_SECONDS", 60)  # nobody but the workflow's end comes for it
    HOOKS.reset()
    AFTERWARDS.reset()
    with App(postgres, body.FUNCTIONS) as app:
        app.run(body.create)
        _lose_the_last(app, outside, same)


def _lose_the_last(app: App, outside: psycopg.Connection[Any], same: bool) -> None:
    assert app.run(body.counts, "a", run="first") == 1, "from here on the end is foreseen"

    def meanwhile() -> None:
        end_others(outside)
        if not same:
            outside.execute("update counter set n = 10 where name = 'a'")

    AFTERWARDS.reset(meanwhile)
    assert app.run(body.counts, "a", run="second") == (2 if same else 11)
    assert app.run(body.report) == [2 if same else 11, 0]
    assert AFTERWARDS.attempts == (1 if same else 2)
    run = app.trace.run(RunId("second"))
    assert (run.state, run.outcome and run.outcome.value) == ("committed", "2" if same else "11")


# --- what a body does --------------------------------------------------------------------------------------------------------


def test_a_refused_statement_ends_the_transaction(app: App, outside: psycopg.Connection[Any]) -> None:
    for forgives in (True, False):
        for _ in range(2):  # the second time from the record
            with pytest.raises(psycopg.errors.UniqueViolation):
                app.run(body.collides, forgives, run=f"r{forgives}")
    assert ask(outside, "select count(*) from counter") == [(2,)]
    assert (
        ask(outside, "select failure::json ->> 'sqlstate', failure::json ->> 'statement' from retroact.records where outcome = 'aborted'")
        == [("23505", "2")] * 2
    )


def test_a_deferred_constraint_that_fails_at_commit_is_the_bodys_outcome(app: App, outside: psycopg.Connection[Any]) -> None:
    for _ in range(2):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            app.run(body.orphan, run="r")
    assert ask(outside, "select outcome from retroact.records where run = 'r'") == [("aborted",)]


def test_a_read_only_body_does_not_write(app: App) -> None:
    with pytest.raises(ReadOnlyTransaction, match="sneak is declared read_only"):
        app.run(body.sneak)
    assert app.run(body.report) == [0, 0]


def test_a_changed_schema_is_no_failure_of_what_was_prepared(app: App) -> None:
    assert app.run(body.everything) == ["a", "b", 2]
    app.run(body.widen)
    assert app.run(body.everything) == ["a", "b", 3]


def test_the_record_is_no_reason_for_a_conflict(app: App, outside: psycopg.Connection[Any]) -> None:
    """Serializable transactions that read what nobody writes cannot be in one another's way. Then nothing is tried twice, whatever the
    trace does in them and beside them: beginnings and ends ride along, reads are recorded later, ids are looked up."""
    outside.execute("create table entry (who text)")
    outside.execute("create table constant (n integer)")
    outside.execute("insert into constant values (7)")

    def work(number: int) -> None:
        for i in range(15):
            app.run(body.notes_down, f"{number}", run=f"{number}-{i}")
            app.run(body.note_down, f"{number}", run=f"alone-{number}-{i}")
            app.run(body.note_down, f"{number}")

    in_threads(8, work)
    assert app.engine.retries == 0  # pyright: ignore
    assert ask(outside, "select count(*) from entry") == [(8 * 15 * 4,)]


def test_the_trace_is_readable_with_plain_sql(app: App, outside: psycopg.Connection[Any]) -> None:
    app.run(body.counts, "a", run="w")
    assert ask(outside, "select function, kind, state, value from retroact.runs where run = 'w'") == [
        ("counts", "workflow", "committed", "1")
    ]
    assert ask(outside, "select statement, sql, parameters, count from retroact.statements where run = 'w'") == [
        (1, "select n from counter where name = :name", '{"name":"a"}', 1),
        (2, "update counter set n = :n where name = :name", '{"n":1,"name":"a"}', 1),
    ]
    app.trace.verify()
    outside.execute("update retroact.record set value = '7' where run = 'w' and step = 1")
    with pytest.raises(Exception, match="its digest does not fit its content"):
        app.trace.verify()
