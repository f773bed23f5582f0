"""The body of a workflow, run again, is given the moments that it was given: after every kind of call, also one that failed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

import retroact
from retroact import App, step, transaction, workflow
from retroact.replay.divergence import Verdict


@transaction
def create(conn: Any) -> None:
    conn.execute("create table seen (at text)")


@transaction
def write(conn: Any, at: str) -> None:
    conn.execute("insert into seen values (:at)", at=at)


@transaction
def refuse(conn: Any) -> None:
    conn.execute("insert into seen values ('never')")
    raise ValueError("refused")


@step
def fail() -> None:
    raise ValueError("failed")


@workflow
def child(how: str) -> str:
    write(f"child of {how} at {retroact.now()}")
    if how == "failing":
        raise ValueError("the child failed")
    return str(retroact.now())


@workflow
def parent(how: str) -> str:
    with contextlib.suppress(ValueError):
        {"child": child, "failing": child, "refused": lambda _: refuse(), "failed": lambda _: fail()}[how](how)
    write(f"parent at {retroact.now()}")
    return str(retroact.now())


@workflow
async def waiting(how: str) -> str:
    await child(how)
    await write(f"parent at {retroact.now()}")
    return str(retroact.now())


CASES = [(parent, "child"), (parent, "failing"), (parent, "refused"), (parent, "failed"), (waiting, "child")]


@pytest.mark.parametrize(("function", "how"), CASES)
def test_now_is_what_it_was(tmp_path: Path, function: Any, how: str) -> None:
    with App(tmp_path / "test.db", [create, write, refuse, fail, child, parent, waiting]) as app:
        app.run(create)
        app.run(function, how, run="r")
        report = app.replay(["r"])
        assert [w.verdict for w in report.workflows] == [Verdict.IDENTICAL]
        assert report.faithful
