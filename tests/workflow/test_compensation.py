"""Compensation: what a failed workflow had committed is undone, last first, each undoing a durable call of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.kit import Crash, OutOfStock, Post, entries, opened, refuse, steps, write

from retroact import gather, step, transaction, workflow


@transaction
def reserve(conn: Any, item: str, quantity: int = 1, *, note: str = "") -> int:
    conn.execute("insert into ledger values (:e)", e=f"reserve {item} {quantity} {note}")
    return quantity


@reserve.compensation
def release(conn: Any, what: str, how_many: int, *, note: str) -> None:
    conn.execute("insert into ledger values (:e)", e=f"release {what} {how_many} {note}")


@workflow
def orders() -> None:
    reserve("lamp")
    reserve(quantity=2, item="desk", note="fragile")
    refuse("broken")


def test_the_last_is_undone_first_with_the_arguments_by_position(tmp_path: Path) -> None:
    with opened(tmp_path, [reserve, release, orders]) as app:
        with pytest.raises(OutOfStock, match="broken"):
            app.run(orders, run="r")
        assert entries(app) == ["reserve lamp 1 ", "reserve desk 2 fragile", "release desk 2 fragile", "release lamp 1 "]
        assert steps(app, "r") == [(1, "reserve"), (2, "reserve"), (3, "refuse"), (4, "release"), (5, "release")]
        run = app.trace.run("r")  # pyright: ignore
        assert (run.state, run.reason) == ("aborted", None)
        with pytest.raises(OutOfStock, match="broken"):
            app.run(orders, run="r")


@workflow
def catches() -> str:
    write("a")
    try:
        refuse("b")
    except OutOfStock:
        return "went on"
    return "not refused"


def test_a_failure_that_is_caught_undoes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, catches) as app:
        assert app.run(catches) == "went on"
        assert entries(app) == ["a"]


@transaction
def stubborn(conn: Any, entry: str) -> None:
    conn.execute("insert into ledger values (:entry)", entry=entry)


@stubborn.compensation
def keep(conn: Any, entry: str) -> None:
    conn.execute("insert into ledger values ('never')")
    raise ValueError(f"{entry} stays")


@transaction
def narrow(conn: Any, one: str, other: str) -> None: ...


@narrow.compensation
def takes_too_little(conn: Any, one: str) -> None: ...


@workflow
def hard_to_undo() -> None:
    write("a")
    stubborn("b")
    narrow("x", "y")
    write("c")
    raise OutOfStock("all")


def test_a_compensation_that_fails_is_reported_and_the_others_still_run(tmp_path: Path) -> None:
    with opened(tmp_path, [stubborn, keep, narrow, takes_too_little, hard_to_undo]) as app:
        with pytest.raises(OutOfStock, match="all"):
            app.run(hard_to_undo, run="r")
        assert entries(app) == ["a", "b", "c", "-c", "-a"]
        reason = app.trace.run("r").reason or ""  # pyright: ignore
        assert "compensation takes_too_little of step 3 failed: takes_too_little: too many arguments" in reason
        assert "compensation keep of step 2 failed: b stays" in reason


def test_steps_and_children_are_compensated_too(tmp_path: Path) -> None:
    post = Post()
    send, find_letter = post.step()

    @send.compensation(retries=1)
    def send_back(letter: str) -> None:
        post.send("back", f"sorry for {letter}")

    @workflow
    def child(entry: str) -> None:
        write(entry)

    @child.compensation
    def undo_child(entry: str) -> None:
        write(f"undo {entry}")

    @workflow
    def parent() -> None:
        child("a")
        send("hello")
        raise OutOfStock

    with opened(tmp_path, [send, find_letter, send_back, child, undo_child, parent]) as app:
        post.troubles[:] = [None, ConnectionError()]
        with pytest.raises(OutOfStock):
            app.run(parent, run="r")
        assert post.texts == ["hello", "sorry for hello"]
        assert entries(app) == ["a", "undo a"]
        assert steps(app, "r") == [(1, "child"), (2, "send"), (3, "send_back"), (4, "undo_child")]


def test_parallel_calls_are_undone_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    @workflow
    def beside() -> None:
        gather(write.start(entry) for entry in "abcd")
        raise OutOfStock

    with opened(tmp_path, beside) as app:
        with pytest.raises(OutOfStock):
            app.run(beside)
        assert entries(app)[4:] == ["-d", "-c", "-b", "-a"]


@pytest.mark.parametrize("crash_at", [0, 1, 2])
def test_undoing_goes_on_where_a_crash_stopped_it(tmp_path: Path, crash_at: int) -> None:
    undone: list[str] = []
    armed = [True]

    @step
    def act(name: str) -> None: ...

    @act.compensation
    def undo(name: str) -> None:
        if armed[0] and len(undone) == crash_at:
            raise Crash
        undone.append(name)

    @workflow
    def acts() -> None:
        for name in "abc":
            act(name)
        raise OutOfStock

    with opened(tmp_path, [act, undo, acts]) as app:
        with pytest.raises(Crash):
            app.run(acts, run="r")
        armed[0] = False
        with pytest.raises(OutOfStock):
            app.resume("r").result()
        assert undone == ["c", "b", "a"]
