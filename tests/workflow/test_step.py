"""Steps: the outside world, tried again with back-off, cut off by a timeout, asked when in doubt; and durable sleep."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kit import Crash, Post, entries, opened, sql, steps, write

import retroact
from retroact import RunCancelled, step, workflow
from retroact.errors import StepTimeout
from retroact.testing import ManualClock


class Failing:
    """Fails so often, then answers."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        self.left -= 1
        if self.left >= 0:
            raise ConnectionError(f"{self.left} more")
        return "answered"


@pytest.mark.parametrize(
    ("options", "failures", "waits"),
    [
        ({}, 0, []),
        ({"retries": 3}, 3, [0.1, 0.2, 0.4]),
        ({"retries": 5, "backoff": 1, "backoff_factor": 3, "backoff_max": 10}, 5, [1, 3, 9, 10, 10]),
        ({"retries": 2, "backoff": 0}, 2, [0, 0]),
        ({"retries": 2, "backoff": 90, "backoff_max": 60}, 2, [60, 60]),
        ({"retries": 1, "backoff": 5, "backoff_factor": 1}, 1, [5]),
    ],
)
@pytest.mark.parametrize("last", ["answers", "fails"])
def test_retries_wait_longer_and_longer(tmp_path: Path, options: Any, failures: int, waits: list[float], last: str) -> None:
    clock = ManualClock()
    world = Failing(failures if last == "answers" else failures + 1)

    @step(**options)
    def call() -> str:
        return world()

    @workflow
    def calls() -> str:
        return call()

    with opened(tmp_path, [call, calls], clock=clock) as app:
        if last == "answers":
            assert app.run(calls, run="r") == "answered"
        else:
            for _ in range(2):
                with pytest.raises(ConnectionError, match="0 more"):
                    app.run(calls, run="r")
        assert clock.waits == pytest.approx(waits)
        assert world.calls == failures + 1
        assert steps(app, "r") == [(1, "call")]


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Lets steps go that did not answer in time."""
    event = threading.Event()
    yield event
    event.set()


def test_a_step_that_does_not_answer_times_out(tmp_path: Path, released: threading.Event) -> None:
    @step(timeout=0.02)
    def silent() -> None:
        released.wait(60)

    @step(timeout=0.02)
    async def silent_async() -> None:
        await asyncio.Event().wait()

    @step(timeout=30)
    def fails() -> None:
        raise TimeoutError("the other side said so")

    @workflow
    def calls(which: int) -> str:
        try:
            (silent, silent_async)[which]()
        except StepTimeout as error:
            return str(error)
        return "answered"

    with opened(tmp_path, [silent, silent_async, fails, calls]) as app:
        for which, name in enumerate(("silent", "silent_async")):
            said = app.run(calls, which, run=name)
            assert said == f"{name} did not answer within 0.02 s. It may have been carried out: '{name}.1' is its idempotency key."
        with pytest.raises(TimeoutError, match="the other side said so"):
            app.run(fails)


@pytest.mark.parametrize("asked_later", [False, True])
def test_a_timeout_is_caught_from_the_record_too(tmp_path: Path, released: threading.Event, asked_later: bool) -> None:
    """The recorded StepTimeout came back as RunFailed: a workflow that had caught it failed when it was resumed."""
    armed = [True]

    @step(timeout=0.02)
    def silent() -> None:
        released.wait(60)

    @workflow
    def calls() -> str:
        try:
            silent()
        except StepTimeout:
            write("caught")
        if armed.pop():
            raise Crash
        return "went on"

    armed[:] = [False, True]
    with opened(tmp_path, [silent, calls]) as app:
        with pytest.raises(Crash):
            app.run(calls, run="r")
        assert app.resume("r").result() == "went on"
        assert entries(app) == ["caught"]


@pytest.mark.parametrize("inquiry", [True, False])
def test_after_a_timeout_an_inquiry_decides(tmp_path: Path, released: threading.Event, inquiry: bool) -> None:
    post = Post()
    silent = [True]

    @step(timeout=0.2, retries=2)
    def send(text: str) -> str:
        receipt = post.send(retroact.key(), text)
        if silent.pop():
            released.wait(60)
        return receipt

    @send.inquiry
    def find(idempotency_key: str) -> str | None:
        return post.find(idempotency_key)

    silent[:] = [False, True]
    functions = [send, find] if inquiry else [send]

    @workflow
    def sends() -> str:
        return send("hello")

    # Without the inquiry among its functions, the App must not know of it from the module of the step either.
    with opened(tmp_path, [*functions, sends]) as app:
        assert app.run(sends, run="r") == "receipt for hello"
    assert post.sent == [("r.1", "hello")] * (1 if inquiry else 2)


@pytest.mark.parametrize(
    ("after", "inquiry", "sent"),
    [
        (False, True, 1),  # it never went out: asked, and sent
        (True, True, 1),  # it went out: asked, and not sent again
        (False, False, 1),
        (True, False, 2),  # at least once, under the same key
    ],
)
@pytest.mark.parametrize("how", ["workflow", "child", "alone"])
def test_after_a_crash_an_inquiry_decides(tmp_path: Path, after: bool, inquiry: bool, sent: int, how: str) -> None:
    """A step alone, and the first step of a workflow, were sent again without asking: nothing was recorded before they were sent."""
    post = Post()
    send, *rest = post.step(inquiry=inquiry)

    @workflow
    def sends() -> str:
        return send("hello")

    @workflow
    def parent() -> str:
        return sends()

    function, args = {"workflow": (sends, ()), "child": (parent, ()), "alone": (send, ("hello",))}[how]
    (post.troubles_after if after else post.troubles).append(Crash())
    with opened(tmp_path, [send, *rest, sends, parent]) as app:
        with pytest.raises(Crash):
            app.run(function, *args, run="r")
        assert app.run(function, *args, run="r") == "receipt for hello"
        assert app.run(function, *args, run="r") == "receipt for hello"
    assert [text for _, text in post.sent] == ["hello"] * sent
    assert len({key for key, _ in post.sent}) == 1
    # Of a step alone nothing is known before it has answered: its inquiry is asked whenever the caller has chosen the run id.
    assert len(post.asked) == (0 if not inquiry else 2 if how == "alone" else 1)


def test_an_inquiry_that_fails_does_not_let_the_step_be_sent_blindly(tmp_path: Path) -> None:
    post = Post()
    asked = Failing(2)

    @step(retries=5)
    def send(text: str) -> str:
        return post.send(retroact.key(), text)

    @send.inquiry
    async def find(idempotency_key: str) -> str | None:
        asked()
        return post.find(idempotency_key)

    @workflow
    def sends() -> str:
        return send("hello")

    post.troubles_after.append(Crash())
    with opened(tmp_path, [send, find, sends]) as app:
        with pytest.raises(Crash):
            app.run(sends, run="r")
        assert app.resume("r").result() == "receipt for hello"
    assert (len(post.sent), asked.calls) == (1, 3)


def test_a_recorded_step_is_not_sent_again(tmp_path: Path) -> None:
    post = Post()
    armed = [True]
    functions = post.step()

    @workflow
    def sends() -> list[str]:
        receipts = [functions[0](text) for text in "ab"]
        if armed[0]:
            raise Crash
        return [*receipts, functions[0]("c")]

    with opened(tmp_path, [*functions, sends]) as app:
        with pytest.raises(Crash):
            app.run(sends, run="r")
        armed[0] = False
        app.resume("r").result()
    assert post.sent == [("r.1", "a"), ("r.2", "b"), ("r.3", "c")]


def test_cancelling_during_back_off_is_no_failure_of_the_step(tmp_path: Path) -> None:
    """Cancelling a run, or closing the App, while a step waited to be tried again recorded the step as failed for good."""
    clock = ManualClock(jumps=False)
    world = Failing(1)

    @step(retries=3, backoff=10)
    def call() -> str:
        return world()

    @workflow
    def calls() -> str:
        return call()

    with opened(tmp_path, [call, calls], clock=clock) as app:
        handle = app.start(calls, run="r")
        clock.until_waiting()
        handle.cancel()
        with pytest.raises(RunCancelled):
            handle.result(30)
        assert steps(app, "r") == []
        assert app.resume("r").result(30) == "answered"
        world.left = 1
        closed = app.start(calls, run="s")
        clock.until_waiting()
    with pytest.raises(RunCancelled):
        closed.result(30)
    with opened(tmp_path, [call, calls], clock=clock) as app:
        assert [handle.result(30) for handle in app.recovered] == ["answered"]


# --- sleep ---------------------------------------------------------------------------------------------------------------


@workflow
def sleeps(seconds: float) -> str:
    write("before")
    retroact.sleep(seconds)
    write("after")
    return "rested"


@workflow
async def sleeps_async(seconds: float) -> str:
    await write("before")  # pyright: ignore
    await retroact.sleep(seconds)
    await write("after")  # pyright: ignore
    return "rested"


@workflow
def parent(seconds: float) -> str:
    return sleeps(seconds)


@pytest.mark.parametrize("function", [sleeps, sleeps_async, parent])
def test_a_sleep_lasts_as_long_as_it_says(tmp_path: Path, function: Any) -> None:
    clock = ManualClock(jumps=False)
    with opened(tmp_path, [sleeps, sleeps_async, parent], clock=clock) as app:
        handle = app.start(function, 3600)
        clock.until_waiting()
        clock.advance(3599)
        assert not handle.done()
        assert entries(app) == ["before"]
        clock.advance(1)
        assert handle.result(30) == "rested"


@pytest.mark.parametrize("function", [sleeps, sleeps_async, parent])
def test_a_restart_does_not_start_a_sleep_anew(tmp_path: Path, function: Any) -> None:
    clock = ManualClock(jumps=False)
    functions = [sleeps, sleeps_async, parent]
    with opened(tmp_path, functions, clock=clock) as app:
        closed = app.start(function, 3600, run="r")
        clock.until_waiting()
    with pytest.raises(RunCancelled):
        closed.result(30)
    clock.advance(3000)
    with opened(tmp_path, functions, clock=clock) as app:
        clock.until_waiting()
        assert clock.waits == [3600, 600]
        clock.advance(600)
        assert app.handle("r").result(30) == "rested"
        assert entries(app) == ["before", "after"]


def test_a_sleep_that_is_over_at_the_restart_takes_no_time(tmp_path: Path) -> None:
    clock = ManualClock(jumps=False)
    with opened(tmp_path, [sleeps], clock=clock) as app:
        app.start(sleeps, 3600, run="r")
        clock.until_waiting()
    clock.advance(86_400)
    with opened(tmp_path, [sleeps], clock=clock) as app:
        assert app.recovered[0].result(30) == "rested"
        assert sql(app, "select function, kind from retroact_records where run = 'r' and step = 2") == [("retroact.sleep", "step")]
