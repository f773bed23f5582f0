"""What a running body sees: its moment, its chance, its key; and what all of it says outside of a run."""

from __future__ import annotations

import contextlib
import datetime
import random
import uuid as uuids
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import retroact
from retroact import gather, invariant, step, transaction, workflow
from retroact.errors import BadArguments, MisplacedCall, OutsideRun
from retroact.function.context import current_scope, enter, leave

SCOPES = {"workflow": workflow, "step": step, "transaction": transaction, "invariant": invariant}


def nothing(conn: Any) -> None: ...


@contextlib.contextmanager
def entered(scope: Any) -> Iterator[None]:
    """The scope of the moment, for a while."""
    token = enter(scope)
    try:
        yield
    finally:
        leave(token)


class Fake:
    """A scope at a fixed moment."""

    def __init__(self, kind: str) -> None:
        self.function = SCOPES[kind](name="outer")(nothing)
        self.slept: list[float] = []
        self.call = self.start = lambda callee, args, kwargs: (callee.name, args, kwargs)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def now_us(self) -> int:
        return 1_700_000_000_000_001

    def random(self) -> random.Random:
        return random.Random("seed")

    def key(self) -> str:
        return "run.1"


@pytest.mark.parametrize(
    ("what", "value"),
    [
        (retroact.now, datetime.datetime(2023, 11, 14, 22, 13, 20, 1, tzinfo=datetime.UTC)),
        (lambda: retroact.rng().random(), random.Random("seed").random()),
        (retroact.uuid, uuids.UUID(int=random.Random("seed").getrandbits(128), version=4)),
        (retroact.key, "run.1"),
        (lambda: transaction(name="inner")(nothing)(1, b=2), ("inner", (1,), {"b": 2})),
        (lambda: transaction(name="inner")(nothing).start(1), ("inner", (1,), {})),
    ],
)
def test_a_body_asks_its_scope(what: Callable[[], Any], value: Any) -> None:
    with entered(Fake("workflow")):  # pyright: ignore
        assert what() == value
    assert current_scope() is None


@pytest.mark.parametrize("what", [retroact.now, retroact.rng, retroact.uuid, retroact.key, lambda: retroact.sleep(1)])
def test_outside_of_a_run(what: Callable[[], Any]) -> None:
    with pytest.raises(OutsideRun):
        what()


def test_only_a_workflow_sleeps() -> None:
    scope = Fake("workflow")
    with entered(scope):  # pyright: ignore
        retroact.sleep(2)
    assert scope.slept == [2]
    for kind in ("transaction", "step", "invariant"):
        with entered(Fake(kind)), pytest.raises(MisplacedCall, match="Only a workflow can sleep durably"):  # pyright: ignore
            retroact.sleep(1)


class Call:
    def __init__(self, result: Any) -> None:
        self._result = result
        self.waited = False

    def result(self) -> Any:
        self.waited = True
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result


def test_gather_gives_results_in_the_order_given() -> None:
    assert gather(Call(1), Call(2)) == gather([Call(1), Call(2)]) == gather(Call(n) for n in (1, 2)) == [1, 2]
    assert gather(Call(1)) == [1]
    assert gather([]) == []


def test_gather_waits_for_all_before_the_first_failure_is_raised() -> None:
    calls = [Call(1), Call(ValueError("first")), Call(KeyError("second")), Call(4)]
    with pytest.raises(ValueError, match="first"):
        gather(calls)
    assert all(call.waited for call in calls)


@pytest.mark.parametrize("calls", [(None,), (1, 2), (Call(1), 5), ([5],)])
def test_gather_says_what_it_takes(calls: Any) -> None:
    with pytest.raises(BadArguments, match=r"is not a started call. It takes calls: reserve.start\(...\)"):
        gather(*calls)
