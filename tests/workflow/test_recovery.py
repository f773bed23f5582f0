"""Runs that were interrupted: cancelled, stopped, killed with their process; and one run id that is used by many."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.kit import Crash, OutOfStock, Post, database, entries, opened, refuse, sql, steps, write

import retroact
from retroact import App, RunCancelled, step, workflow
from retroact.engine.contract import RunStart
from retroact.errors import Closed, CodeChanged, DatabaseBusy, DuplicateFunction, NotFinished, UnknownFunction, UnknownRun, WrongFunction
from retroact.function.code import load_path, unload
from retroact.testing import ManualClock
from retroact.trace.record import RunId


class Gate:
    """A step that waits at a gate: the test knows when it has come there, and lets it through."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

        @step(name="pass_gate")
        def pass_gate() -> str:
            self.reached.set()
            assert self.open.wait(30)
            return "through"

        self.step: Any = pass_gate


# --- cancel and resume ---------------------------------------------------------------------------------------------------


def test_cancel_and_resume(tmp_path: Path) -> None:
    gate = Gate()

    @workflow
    def long() -> str:
        write("before")
        gate.step()
        write("after")
        return "done"

    with opened(tmp_path, [gate.step, long]) as app:
        handle = app.start(long, run="r")
        assert gate.reached.wait(30)
        handle.cancel()
        gate.open.set()
        with pytest.raises(RunCancelled, match=r"app.resume\('r'\) goes on from its last recorded step"):
            handle.result(30)
        assert app.trace.run("r").state == "cancelled"  # pyright: ignore
        assert (entries(app), steps(app, "r")) == (["before"], [(1, "write"), (2, "pass_gate")])
        with pytest.raises(RunCancelled):
            app.run(long, run="r")
        with pytest.raises(NotFinished, match="Run 'r' is cancelled; it has no outcome yet"):
            app.handle("r")
        assert app.recover() == []
    with opened(tmp_path, [gate.step, long]) as app:
        assert app.recovered == []
        assert app.resume("r").result(30) == "done"
        assert entries(app) == ["before", "after"]
        assert app.resume("r").result(30) == "done"
        app.cancel("r")
        assert app.handle("r").result() == "done"


def test_a_body_cannot_outlive_its_cancellation(tmp_path: Path) -> None:
    """A body that caught everything went on after it was cancelled, and its run was recorded as committed."""
    gate = Gate()

    @workflow
    def clings() -> str:
        gate.step()
        try:
            write("a")
        except BaseException:  # noqa: BLE001
            return "clung"
        return "done"

    with opened(tmp_path, [gate.step, clings]) as app:
        handle = app.start(clings, run="r")
        assert gate.reached.wait(30)
        handle.cancel()
        gate.open.set()
        with pytest.raises(RunCancelled):
            handle.result(30)
        assert app.trace.run("r").state == "cancelled"  # pyright: ignore
        assert app.resume("r").result(30) == "done"


def test_a_family_is_cancelled_together(tmp_path: Path) -> None:
    """A child went on, and slept for days, after its parent was cancelled."""
    clock = ManualClock(jumps=False)

    @workflow
    def child() -> str:
        write("before")
        retroact.sleep(86_400)
        write("after")
        return "grown"

    @workflow
    def parent() -> str:
        return child()

    with opened(tmp_path, [child, parent], clock=clock) as app:
        handle = app.start(parent, run="r")
        clock.until_waiting()
        handle.cancel()
        with pytest.raises(RunCancelled):
            handle.result(30)
        assert entries(app) == ["before"]
        clock.advance(86_400)
        assert app.resume("r").result(30) == "grown"
        assert entries(app) == ["before", "after"]


def test_cancelled_before_it_has_begun(tmp_path: Path) -> None:
    """A run that was cancelled between `start` and its first call ran all the same."""
    with opened(tmp_path, [two]) as app:
        app.engine.begin_run(_start_of("r"))
        app.cancel("r")
        with pytest.raises(RunCancelled):
            app.run(two, "a", run="r")
        assert entries(app) == []
        assert app.resume("r").result(30) == 2


def _start_of(run: str) -> RunStart:
    return RunStart(run=RunId(run), function=two, arguments=two.schema.encode_arguments(("a",), {}), began_us=1)


@workflow
def two(entry: str) -> int:
    write(entry)
    return write(f"{entry}!")


def test_unknown_runs(tmp_path: Path) -> None:
    with opened(tmp_path, two) as app:
        for ask in (app.cancel, app.resume, app.handle):
            with pytest.raises(UnknownRun, match="There is no run 'nothing'"):
                ask("nothing")


def test_a_handle_of_a_run_that_failed(tmp_path: Path) -> None:
    with opened(tmp_path, [two]) as app:
        with pytest.raises(OutOfStock):
            app.run(refuse, "a", run="r")
        with pytest.raises(OutOfStock):
            app.handle("r").result()
    with pytest.raises(Closed):
        app.run(two, "a")


# --- one id, many callers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["workflow", "transaction", "step"])
def test_the_same_run_id_by_many_callers_runs_once(tmp_path: Path, kind: str) -> None:
    post = Post()
    send = post.step(inquiry=False)[0]

    @workflow
    def whole(text: str) -> str:
        write(text)
        return send(text)

    function: Any = {"workflow": whole, "transaction": write, "step": send}[kind]
    together = threading.Barrier(16)
    results: list[Any] = []

    def call(number: int) -> None:
        together.wait(30)
        results.append(app.start(function, "a", run="r").result(30) if number % 2 else app.run(function, "a", run="r"))

    with opened(tmp_path, [send, whole]) as app:
        threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert results == [1 if kind == "transaction" else "receipt for a"] * 16
        assert entries(app) == ([] if kind == "step" else ["a"])
        assert len(post.sent) == (0 if kind == "transaction" else 1)


def test_a_run_id_names_one_invocation(tmp_path: Path) -> None:
    """The id of a workflow could be used again for a transaction, and while a run was under way for anything: it gave that run's result."""
    gate = Gate()

    @workflow
    def waits() -> str:
        return gate.step()

    with opened(tmp_path, [two, waits, gate.step]) as app:
        app.run(two, "a", run="workflow")
        app.run(write, "b", run="transaction")
        handle = app.start(waits, run="under way")
        assert gate.reached.wait(30)
        for run, asked in (("workflow", write), ("transaction", two), ("transaction", refuse), ("under way", two), ("create", write)):
            for call in (app.run, lambda *args, run: app.start(*args, run=run).result(30)):
                with pytest.raises(WrongFunction, match=f"Run '{run}' was started as .*, not as {asked.name}. A run id names one"):
                    call(asked, "a", run=run)
        gate.open.set()
        assert handle.result(30) == "through"


def test_recovering_leaves_alone_what_is_under_way(tmp_path: Path) -> None:
    """`recover()` on an open App ran every run that `app.run` had begun a second time beside the first."""
    gate = Gate()
    runs: list[str] = []

    @workflow
    def whole() -> str:
        write("a")
        return gate.step()

    with opened(tmp_path, [whole, gate.step]) as app:
        thread = threading.Thread(target=lambda: runs.append(app.run(whole)))
        thread.start()
        assert gate.reached.wait(30)
        app.recover()
        gate.open.set()
        thread.join(30)
        assert (runs, entries(app)) == (["through"], ["a"])


def test_who_waits_is_told_when_a_run_cannot_begin(tmp_path: Path) -> None:
    """A run that could not be begun kept its id for ever: the next caller with that id waited without end."""
    with opened(tmp_path, two) as app:
        app._pool.shutdown()
        for _ in range(2):
            with pytest.raises(RuntimeError):
                app.start(two, "a", run="r")
        assert app.run(two, "a", run="r") == 2


# --- the process dies ----------------------------------------------------------------------------------------------------

SHOP = """
import os
from retroact import App, gather, key, step, transaction, workflow

@transaction
def create(conn) -> None:
    conn.execute("create table ledger (entry text)")

@transaction
def write(conn, entry: str) -> int:
    conn.execute("insert into ledger values (:entry)", entry=entry)
    return conn.value("select count(*) from ledger")

@write.compensation
def erase(conn, entry: str) -> None:
    conn.execute("insert into ledger values (:entry)", entry="-" + entry)

@step
def send(text: str) -> str:
    with open(os.environ["OUTSIDE"], "a") as outside:
        outside.write(key() + " " + text + "\\n")
    die(f"sent {text}")
    return "receipt for " + text

@send.inquiry
def find_letter(idempotency_key: str) -> str | None:
    with open(os.environ["OUTSIDE"]) as outside:
        found = [line.split()[1] for line in outside if line.split()[0] == idempotency_key]
    return "receipt for " + found[0] if found else None

@workflow
def child(entry: str) -> int:
    die("in child")
    return write(entry)

def die(point):
    if os.environ.get("DIE") == point:
        os._exit(9)

@workflow
def whole(fails: bool) -> str:
    write("a")
    die("after 1")
    receipt = send("x")
    die("after 2")
    child("b")
    die("after 3")
    gather(write.start("c"), write.start("d"))
    die("after 5")
    if fails:
        raise ValueError("sold out")
    write("e")
    die("at the end")
    return receipt
"""


def in_a_process(folder: Path, body: str, die: str) -> None:
    """Run something of the shop in a process of its own that dies at a point."""
    script = f"import sys; sys.path.insert(0, {str(folder)!r})\nfrom shop import *\n{textwrap.dedent(body)}"
    environment = {"PYTHONPATH": ":".join(sys.path), "OUTSIDE": str(folder / "outside"), "DIE": die}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, cwd=folder, timeout=60, capture_output=True, check=False)
    assert ended.returncode == 9, ended.stderr.decode()


POINTS = ["after 1", "sent x", "after 2", "in child", "after 3", "after 5", "at the end"]
#: Those of the points that a run that fails comes by, and that differ from those of one that does not.
POINTS_OF_A_FAILURE = ["after 1", "sent x", "in child", "after 5"]


@pytest.mark.parametrize(("point", "fails"), [*((point, False) for point in POINTS), *((point, True) for point in POINTS_OF_A_FAILURE)])
def test_a_killed_process_loses_nothing_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, fails: bool
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "outside").touch()
    in_a_process(
        tmp_path,
        f"""
        app = App({str(database(tmp_path))!r}, [create, write, erase, send, find_letter, child, whole])
        app.run(create)
        app.start(whole, {fails}, run="r").result()
        """,
        point,
    )
    monkeypatch.setenv("OUTSIDE", str(tmp_path / "outside"))
    shop = load_path(tmp_path / "shop.py")
    with App(database(tmp_path), shop) as app:
        [handle] = app.recovered
        if fails:
            with pytest.raises(ValueError, match="sold out"):
                handle.result(30)
        else:
            assert handle.result(30) == "receipt for x"
        written = entries(app)
        assert sorted(written[:4]) == ["a", "b", "c", "d"]
        assert written[4:] == (["-d", "-c", "-a"] if fails else ["e"])
        assert (tmp_path / "outside").read_text() == "r.2 x\n"
        assert app.trace.run("r").state == ("aborted" if fails else "committed")  # pyright: ignore
        app.trace.verify()
    unload(shop)


def test_a_database_with_nothing_to_recover_is_opened_and_closed(tmp_path: Path) -> None:
    with opened(tmp_path, two) as app:
        app.run(two, "a")
    for _ in range(2):
        with App(database(tmp_path), two, write) as app:
            assert app.recovered == []
            assert entries(app) == ["a", "a!"]


@pytest.mark.sqlite
def test_one_process_writes(tmp_path: Path) -> None:
    with opened(tmp_path, two), pytest.raises(DatabaseBusy):
        App(database(tmp_path), two)


# --- the code changes ----------------------------------------------------------------------------------------------------

VERSION = """
from retroact import step, transaction, workflow

class Sold(Exception): ...

@transaction
def write(conn, entry: str) -> int:
    conn.execute("insert into ledger values (:entry)", entry=entry)
    return conn.value("select count(*) from ledger")

@transaction
def other(conn, entry: str) -> int:
    return 0

@step
def interrupt() -> None:
    raise INTERRUPT[0]

@workflow
def whole() -> str:
    {body}
"""


def version(folder: Path, name: str, body: str) -> Any:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "shop.py").write_text(VERSION.format(body=body.replace("\n", "\n    ")))
    return load_path(folder / name / "shop.py")


OLD = 'write("a")\nwrite("b")\ninterrupt()\nreturn "old"'


@pytest.mark.parametrize(
    ("body", "step_number", "recorded", "called"),
    [
        ('other("a")\nwrite("b")\ninterrupt()\nreturn "new"', 1, 'write {"entry":"a"}', 'other {"entry":"a"}'),
        ('write("a")\ninterrupt()\nreturn "new"', 2, 'write {"entry":"b"}', "interrupt {}"),
        ('write("a")\nother("x")\nwrite("b")\nreturn "new"', 2, 'write {"entry":"b"}', 'other {"entry":"x"}'),
        ('write("a")\nwrite("B")\nreturn "new"', 2, 'write {"entry":"b"}', 'write {"entry":"B"}'),
        ('write("a")\nreturn "new"', 2, 'write {"entry":"b"}', "nothing more: it ends"),
        ('return "new"', 1, 'write {"entry":"a"}', "nothing more: it ends"),
        ('write("a")\nraise Sold("new")', 2, 'write {"entry":"b"}', "nothing more: it ends"),
        ('try:\n  other("a")\nexcept Exception:\n  pass\nreturn "new"', 1, 'write {"entry":"a"}', 'other {"entry":"a"}'),
        ('import retroact\nretroact.sleep(1)\nreturn "new"', 1, 'write {"entry":"a"}', "retroact.sleep"),
    ],
)
def test_code_that_no_longer_matches_its_record(tmp_path: Path, body: str, step_number: int, recorded: str, called: str) -> None:
    old = version(tmp_path, "old", OLD)
    old.INTERRUPT = [Crash()]
    with opened(tmp_path, clock=ManualClock()) as app:
        pass
    with App(database(tmp_path), old, clock=ManualClock()) as app, pytest.raises(Crash):
        app.run(old.whole, run="r")
    new = version(tmp_path, "new", body)
    new.INTERRUPT = [Crash()]
    for _ in range(2):
        with App(database(tmp_path), new, clock=ManualClock()) as app:
            [handle] = app.recovered
            with pytest.raises(CodeChanged) as changed:
                handle.result(30)
            message = str(changed.value)
            assert f"Run 'r' of whole stopped at step {step_number}: its record says {recorded}, the code now calls {called}" in message
            run = app.trace.run("r")  # pyright: ignore
            assert (run.state, run.reason) == ("stopped", message)
            assert (steps(app, "r"), entries(app)) == ([(1, "write"), (2, "write")], ["a", "b"])
            with pytest.raises(NotFinished, match="stopped at step"):
                app.handle("r")
    old.interrupt.body.__globals__["INTERRUPT"][:] = [None]
    again = version(tmp_path, "again", OLD.replace("interrupt()\n", ""))
    with App(database(tmp_path), again, clock=ManualClock()) as app:
        assert [handle.result(30) for handle in app.recovered] == ["old"]
        assert entries(app) == ["a", "b"]


def test_a_call_that_is_left_out_is_noticed_behind_one_that_was_not_recorded(tmp_path: Path) -> None:
    """Of calls beside one another the first may be missing from the record, and what followed it was overlooked."""
    quick = threading.Event()
    long = [True]

    @step
    def marks() -> None:
        quick.set()

    @workflow
    def whole() -> str:
        if not long[0]:
            return "short"
        first, second = pause.start(), marks.start()
        second.result()
        return first.result() or "long"

    @step
    def pause() -> None:
        assert quick.wait(30)
        raise Crash

    with opened(tmp_path, [pause, marks, whole]) as app:
        with pytest.raises(Crash):
            app.run(whole, run="r")
        assert steps(app, "r") == [(2, "marks")]
        long[0] = False
        with pytest.raises(CodeChanged, match=r"stopped at step 2: its record says marks \{\}, the code now calls nothing more"):
            app.resume("r").result(30)


def test_a_child_that_changed_stops_its_parent(tmp_path: Path) -> None:
    said = ["a"]
    armed = [True]

    @step
    def pause() -> None:
        if armed[0]:
            raise Crash

    @workflow
    def child() -> None:
        write(said[0])
        pause()

    @workflow
    def parent() -> str:
        try:
            child()
        except Exception:  # noqa: BLE001
            return "caught"
        return "done"

    with opened(tmp_path, [pause, child, parent]) as app:
        with pytest.raises(Crash):
            app.run(parent, run="r")
        said[0], armed[0] = "b", False
        with pytest.raises(CodeChanged, match=r"Run 'r.1' of child stopped at step 1"):
            app.resume("r").result(30)
        assert {(r.run, r.state.value) for r in app.runs() if r.run != "create"} == {("r", "stopped"), ("r.1", "stopped")}
        said[0] = "a"
        assert app.resume("r").result(30) == "done"
        assert entries(app) == ["a"]


def test_a_run_of_a_function_that_is_gone_waits_until_it_is_back(tmp_path: Path) -> None:
    armed = [Crash()]

    @step
    def pause() -> None:
        if armed:
            raise armed.pop()

    @workflow
    def whole() -> str:
        write("a")
        pause()
        return "done"

    with opened(tmp_path, [whole, pause]) as app, pytest.raises(Crash):
        app.run(whole, run="r")
    with opened(tmp_path) as app:
        assert app.recovered == []
        run = app.trace.run("r")  # pyright: ignore
        assert (run.state, run.reason) == ("stopped", "no function named 'whole' is registered; the run waits until one is")
        with pytest.raises(NotFinished, match="no function named 'whole' is registered"):
            app.handle("r")
        with pytest.raises(UnknownFunction):
            app.resume("r")
    with opened(tmp_path, [whole, pause]) as app:
        assert [handle.result(30) for handle in app.recovered] == ["done"]
        assert entries(app) == ["a"]


def test_two_versions_side_by_side(tmp_path: Path) -> None:
    """Two Apps, two versions of one module, two databases, one process."""
    first = version(tmp_path, "one", 'write("one")\nraise Sold("one")')
    second = version(tmp_path, "two", 'write("two")\nwrite("two")\nreturn "two"')
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        with opened(tmp_path / folder):
            pass
    with App(database(tmp_path / "x"), first) as x, App(database(tmp_path / "y"), second) as y:
        for _ in range(2):
            with pytest.raises(first.Sold, match="one"):
                x.run(first.whole, run="r")
            assert y.run("whole", run="r") == "two"
        with pytest.raises(UnknownFunction, match=r"whole \(another version\)"):
            x.run(second.whole)
        with pytest.raises(DuplicateFunction):
            App(tmp_path / "z.db", first, second)
        assert (entries(x), entries(y)) == (["one"], ["two", "two"])
        fingerprints = [sql(app, "select fingerprint from retroact_function where name = 'whole'") for app in (x, y)]
        assert fingerprints[0] != fingerprints[1]
