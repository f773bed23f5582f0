"""Any version can be opened: also one inside a commit that many share, also beside the writer, and never one that is not there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.engine.sqlite import body

from retroact import App
from retroact.decomposition.span import classify
from retroact.engine.contract import Invocation
from retroact.engine.sqlite.engine import DECOMPOSITION
from retroact.engine.sqlite.history import History
from retroact.errors import BadStatement, BeyondHistory, ForbiddenEffect, UnknownVersion
from retroact.trace.record import ALONE, RunId

COUNTERS = "select name, n from counter order by name"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with App(tmp_path / "test.db", body) as app:
        app.run(body.create)
        yield app


def in_one_commit(app: App, *calls: Any) -> None:
    """Run calls such that they share a commit: a leader that waits until all are in line."""
    writer = app.engine._writer
    free = threading.Event()
    inside = threading.Event()

    def wait() -> None:
        inside.set()
        free.wait(20)

    threads = [threading.Thread(target=lambda: writer.submit(wait, "wait"))]
    threads[0].start()
    assert inside.wait(20)
    for call in calls:
        waiting = len(writer._queue)
        threads.append(threading.Thread(target=call))
        threads[-1].start()
        while len(writer._queue) == waiting:
            pass
    free.set()
    for thread in threads:
        thread.join()


def counters(history: History, version: int) -> list[Any]:
    branch = history.at(version)
    try:
        return branch.query(COUNTERS)[1]
    finally:
        branch.close()


def test_versions_inside_a_group_are_states_too(app: App) -> None:
    """Ten callers share one commit; the page log has the state after it, the records have the nine before."""
    commits = app.engine.commits
    in_one_commit(app, *(lambda: app.run(body.increment, "a") for _ in range(10)))
    assert app.engine.commits - commits <= 3
    history = History(app.path)
    for version in range(1, 12):
        assert counters(history, version) == [("a", version - 1), ("b", 0)]
    history.close()


def test_a_change_of_the_schema_ends_its_group(app: App, tmp_path: Path) -> None:
    """A state with another schema is not reached row by row, so such a version is always one that a commit left."""
    from retroact import transaction

    @transaction
    def alter(conn: Any) -> None:
        conn.execute("alter table counter add column more default 7")

    with App(tmp_path / "other.db", body, [alter]) as other:
        other.run(body.create)
        calls = [lambda: other.run(body.increment, "a")] * 3
        in_one_commit(other, *calls, lambda: other.run(alter), *calls)
        history = History(other.path)
        for version in range(1, 9):
            branch = history.at(version)
            columns, found = branch.query("select * from counter where name = 'a'")
            n = version - 1 if version < 5 else version - 2
            assert (len(columns), found[0][1]) == (2 if version < 5 else 3, n)
            branch.close()
        history.close()


@pytest.mark.parametrize("version", [-1, 3, 10**9])
def test_a_version_that_is_not_there(app: App, version: int) -> None:
    app.run(body.increment, "a")
    history = History(app.path)
    with pytest.raises(UnknownVersion) as caught:
        history.at(version)
    assert "versions 0 to 2" in str(caught.value)
    history.close()


def test_version_0_is_before_everything(app: App) -> None:
    history = History(app.path)
    branch = history.at(0)
    with pytest.raises(BadStatement) as caught:
        branch.query("select * from counter")
    assert "no such table: counter" in str(caught.value)
    history.close()


def test_without_a_page_log_there_is_no_past(tmp_path: Path) -> None:
    with App(tmp_path / "test.db", body, recording=False) as app:
        app.run(body.create)
    with pytest.raises(BeyondHistory) as caught:
        History(tmp_path / "test.db")
    assert "recording=False" in str(caught.value)


def test_what_was_written_without_a_page_log_is_taken_over_from_the_write_ahead_log(tmp_path: Path) -> None:
    """It is a gap only when it has been copied into the database meanwhile: then states before it are refused, not guessed."""
    path = tmp_path / "test.db"
    for recording in (True, False, True):
        with App(path, body, recording=recording) as app:
            app.run(body.create, run="create")
            app.run(body.increment, "a")
    history = History(path)
    assert [counters(history, version)[0][1] for version in (2, 3, 4)] == [1, 2, 3]
    history.close()
    with App(path, body, recording=False) as app:
        app.run(body.increment, "a")
        app.engine._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    with App(path, body) as app:
        app.run(body.increment, "a")
    history = History(path)
    assert [counters(history, version)[0][1] for version in (5, 6)] == [4, 5]
    with pytest.raises(BeyondHistory):
        history.at(3)
    history.close()


def test_branches_are_independent_of_each_other_and_of_the_database(app: App) -> None:
    app.run(body.increment, "a")
    history = History(app.path)
    one, two = history.at(2), history.at(2)
    one.query("update counter set n = 99")
    app.run(body.increment, "a")
    assert one.query(COUNTERS)[1] == [("a", 99), ("b", 99)]
    assert two.query(COUNTERS)[1] == [("a", 1), ("b", 0)]
    assert app.run(body.total)[0] == 2
    history.close()


def test_when_a_version_was_durable(app: App) -> None:
    began = app._clock.now_us()
    app.run(body.increment, "a")
    app.close()
    history = History(app.path)
    assert began <= (history.persisted_us(2) or 0) <= app._clock.now_us()
    history.close()


# --- what is done on a branch ----------------------------------------------------------------------------------------------


def invocation(function: Any, *arguments: Any) -> Invocation:
    return Invocation(run=RunId("r"), step=ALONE, function=function, arguments=function.schema.encode_arguments(arguments, {}))


def test_a_trial_is_kept_or_undone(app: App) -> None:
    history = History(app.path)
    branch = history.at(1)
    for keep, before in ((False, 0), (True, 0), (False, 1), (True, 1)):
        trial = branch.attempt(invocation(body.increment, "a"), 0, "seed")
        assert trial.outcome.value == str(before + 1)
        (branch.keep if keep else branch.undo)()
        assert branch.query(COUNTERS)[1][0] == ("a", before + keep)
    history.close()


def test_a_trial_that_fails_leaves_nothing(app: App) -> None:
    history = History(app.path)
    branch = history.at(1)
    trial = branch.attempt(invocation(body.breaks, "x"), 0, "seed")
    assert isinstance(trial.error, apsw.ConstraintError)
    assert trial.outcome.failure is not None
    assert (trial.outcome.failure.statement, trial.changes) == (2, ())
    branch.keep()
    assert branch.query("select count(*) from entry")[1] == [(0,)]
    history.close()


def test_a_branch_has_no_outside_world(app: App) -> None:
    history = History(app.path)
    branch = history.at(1)
    for how in ("socket", "write", "thread"):
        trial = branch.attempt(invocation(body.reach_out, how), 0, "seed")
        assert isinstance(trial.error, ForbiddenEffect)
        branch.undo()
    history.close()


def test_a_page_log_that_cannot_be_written_keeps_the_write_ahead_log(app: App) -> None:
    """Its trouble is known, nothing is checkpointed meanwhile, and it catches up when the trouble is over."""
    historian = app.engine.historian
    assert historian is not None
    append, called = historian._scribe.log.append, threading.Event()

    def full(commits: Any) -> None:
        called.set()
        raise apsw.FullError("database or disk is full")

    historian._scribe.log.append = full
    app.run(body.increment, "a")
    assert called.wait(20)
    checkpointer = app.engine._checkpointer
    checkpointer._due = 1
    checkpointer.maintain()
    assert isinstance(app.trouble, apsw.FullError)
    assert checkpointer.frames > 0
    historian._scribe.log.append = append
    assert app.run(body.increment, "a") == 2
    historian.store()
    assert historian.trouble is None
    history = History(app.path)
    assert [counters(history, version)[0][1] for version in (1, 2, 3)] == [0, 1, 2]
    history.close()


def test_the_past_stays_whole_while_the_log_is_emptied_under_load(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints every few commits, with writers at work and a reader that goes back all the time."""
    from retroact.engine.sqlite import checkpointer

    monkeypatch.setattr(checkpointer, "CHECKPOINT_FRAMES", 20)
    app.engine._checkpointer._due = 20
    stop = threading.Event()
    problems: list[Any] = []

    def look() -> None:
        history = History(app.path)
        while not stop.is_set():
            version = history.trace.last_version() // 2 + 1
            if counters(history, version) != [("a", version - 1), ("b", 0)]:
                problems.append(version)
        history.close()

    def write() -> None:
        for _ in range(60):
            app.run(body.increment, "a")

    reader = threading.Thread(target=look)
    writers = [threading.Thread(target=write) for _ in range(3)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert not problems
    app.close()
    history = History(app.path)
    assert not list(history.pages.verify())
    assert counters(history, 100) == [("a", 99), ("b", 0)]
    history.close()


def test_what_happened_is_what_the_engine_says_that_it_does(app: App) -> None:
    """The measured phases of its transactions classify to its declared decomposition."""
    for _ in range(5):
        app.run(body.move, 1)
    records = list(app.trace.records_between(0, app.trace.last_version()))
    assert {classify(app.history.spans(record)) for record in records if record.changes} == {DECOMPOSITION}
