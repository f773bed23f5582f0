"""What stands around the body of a workflow: it numbers each call, answers from the record what was done, and has the rest done.

Invariants:
  * Calls are numbered from 1 in the order in which the body makes them, at the moment it makes them, also those that run beside
    one another. The same body with the same answers makes the same calls under the same numbers.
  * A recorded call is never carried out again. If the record says another function or other arguments, the run stops.
  * After a fault of the platform nothing more is done: every further call raises the same fault, whatever the body catches.
  * The time that a body sees moves on when it is given the outcome of a call, never by itself while a call runs beside it.

This module must not know how a call is carried out (`executor.py`), nor any database.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import random
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

from retroact.engine.contract import Invocation
from retroact.errors import CodeChanged, MisplacedCall, UnknownFunction
from retroact.function.context import awaited
from retroact.function.declare import Function
from retroact.trace.record import Outcome, Record, RunId, StepNumber

AnyFunction = Function[..., Any]
#: What a durable sleep is recorded as.
SLEEP_NAME = "retroact.sleep"


class Cancelled(BaseException):
    """The run was cancelled: its body is unwound. Not an Exception, so that a body does not catch it by accident."""


class Answer(Protocol):
    """What came of a call: its outcome, the exception itself if it was raised just now, and when it ended."""

    @property
    def outcome(self) -> Outcome: ...
    @property
    def error(self) -> Exception | None: ...
    @property
    def ended_us(self) -> int: ...


class Carrier(Protocol):
    """Carries out the calls of a workflow."""

    def carry_out(self, scope: WorkflowScope, invocation: Invocation) -> Answer:
        """Do what was called and record it."""
        ...

    def revive(self, outcome: Outcome, run: RunId) -> Exception:
        """The exception that a recorded failure stands for."""
        ...

    def wait_out(self, scope: WorkflowScope, until_us: int, /) -> object:
        """Wait until the time that a recorded sleep ends."""
        ...

    def sleep_invocation(self, scope: WorkflowScope, step: StepNumber, seconds: float) -> Invocation:
        """The invocation of a durable sleep."""
        ...


class Started:
    """A call that was started: see `retroact.gather`."""

    def __init__(self, work: Callable[[], Any], name: str, given: Callable[[], None]) -> None:
        """`given` is called when the body is given the outcome."""
        self._name = name
        self._given = given
        self._future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._future.set_running_or_notify_cancel()  # a task that gives up waiting does not undo what is under way
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run, work), name=name, daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever waits for the call is told
            self._future.set_exception(error)

    def result(self) -> Any:
        """Wait for the call and return its result; raises what it raised, and MisplacedCall inside an event loop."""
        if not self._future.done() and _in_event_loop():
            raise MisplacedCall(
                inner=self._name,
                inner_kind="waiting for a call",
                outer="an event loop",
                outer_kind="async def",
                remedy="Waiting here would hold up every other call: `await` the call, or `await gather_async(...)`.",
            )
        self.wait()
        self._given()
        return self._future.result()

    def wait(self) -> None:
        """Wait until the call has ended, one way or the other."""
        concurrent.futures.wait([self._future])

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from awaited(self._future))
        finally:
            self._given()


class WorkflowScope:
    """One workflow being executed, or executed again from its record."""

    def __init__(self, run: RunId, function: AnyFunction, carrier: Carrier, recorded: Mapping[int, Record], began_us: int) -> None:
        self.run = run
        self.function = function
        self.recorded = recorded
        self.cancelled = threading.Event()
        #: A call ended in what is no Exception (Cancelled, an interrupt): the run has no outcome, whatever the body makes of that.
        self.unwound: BaseException | None = None
        self.fault: Exception | None = None
        #: Calls that committed, by number, for the compensations.
        self.committed: dict[int, Invocation] = {}
        self.resumed = bool(recorded)
        self._carrier = carrier
        self._lock = threading.Lock()
        self._calls = 0
        self._started: list[Started] = []
        self._last_us = began_us
        self._random: random.Random | None = None

    @property
    def calls(self) -> int:
        """How many calls were made."""
        return self._calls

    def call(self, callee: AnyFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call in the body: waits for its result, or in an `async def` workflow returns what to await."""
        if self.function.is_async:
            return self.start(callee, args, kwargs)
        return self.perform(self.invocation(callee, args, kwargs))

    def start(self, callee: AnyFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Started:
        """Number a call and begin it beside the body."""
        invocation = self.invocation(callee, args, kwargs)
        return self._begin(invocation)

    def sleep(self, seconds: float) -> Any:
        """Sleep until a recorded time."""
        invocation = self._carrier.sleep_invocation(self, self._number(), seconds)
        if self.function.is_async:
            return self._begin(invocation)
        return self.perform(invocation)

    def now_us(self) -> int:
        """When the last call that the body knows the outcome of ended: it moves on, and is the same from the record."""
        return self._last_us

    def random(self) -> random.Random:
        """The run's generator, made when first asked for."""
        if self._random is None:
            self._random = random.Random(f"{self.run}/workflow")
        return self._random

    def key(self) -> str:
        """A key that names this run."""
        return self.run

    def invocation(self, callee: AnyFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Invocation:
        """Number a call. Raises BadArguments."""
        arguments = callee.schema.encode_arguments(args, kwargs)
        bound = callee.schema.decode_arguments(arguments)
        return Invocation(run=self.run, step=self._number(), function=callee, arguments=arguments, bound=bound)

    def perform(self, invocation: Invocation) -> Any:
        """The result of a numbered call, from the record or by carrying it out; raises its failure."""
        answer = self._answer(invocation)
        self._learn(answer.ended_us)
        return self._result(invocation, answer)

    def _answer(self, invocation: Invocation) -> Answer:
        """What came of a numbered call. Raises Cancelled, and faults of the platform."""
        if self.fault is not None:
            raise self.fault
        try:
            answer = self._from_record(invocation)
            if answer is None:
                answer = self._carry_out(invocation)
            elif invocation.function.name == SLEEP_NAME:
                self._carrier.wait_out(self, answer.ended_us)
            return answer
        except (CodeChanged, UnknownFunction) as fault:
            self.fault = fault
            raise
        except BaseException as error:
            if not isinstance(error, Exception):
                self.unwound = error
            raise

    def _carry_out(self, invocation: Invocation) -> Answer:
        if self.cancelled.is_set():
            raise Cancelled
        return self._carrier.carry_out(self, invocation)

    def _learn(self, ended_us: int) -> None:
        with self._lock:
            self._last_us = max(self._last_us, ended_us)

    def _result(self, invocation: Invocation, answer: Answer) -> Any:
        if answer.error is not None:
            raise answer.error
        if not answer.outcome.committed:
            raise self._carrier.revive(answer.outcome, self.run)
        self.committed[invocation.step] = invocation
        return invocation.function.schema.decode_result(answer.outcome.value or "null")

    def settle(self) -> None:
        """Wait for every call that was started: none outlives its workflow."""
        for started in self._started:
            started.wait()

    def check_complete(self) -> None:
        """The body has ended: the record must not know of more calls than it made. Raises CodeChanged."""
        more = min((record for step, record in self.recorded.items() if step > self._calls), key=lambda record: record.step, default=None)
        if more is not None:
            self.fault = self._changed(StepNumber(more.step), more, "nothing more: it ends")
            raise self.fault

    def _number(self) -> StepNumber:
        with self._lock:
            self._calls += 1
            return StepNumber(self._calls)

    def _begin(self, invocation: Invocation) -> Started:
        ended: list[int] = []

        def work() -> Any:
            answer = self._answer(invocation)
            ended.append(answer.ended_us)
            return self._result(invocation, answer)

        started = Started(work, invocation.function.name, lambda: self._learn(max(ended, default=0)))
        self._started.append(started)
        return started

    def _from_record(self, invocation: Invocation) -> Answer | None:
        record = self.recorded.get(invocation.step)
        if record is None:
            return None
        if record.function != invocation.function.name:
            raise self._changed(invocation.step, record, _shown(invocation.function.name, invocation.arguments.decode()))
        if record.arguments != invocation.arguments.decode():
            raise self._changed(invocation.step, record, _shown(invocation.function.name, invocation.arguments.decode()))
        return Recorded(record)

    def _changed(self, step: StepNumber, record: Record, called: str) -> CodeChanged:
        recorded = _shown(record.function, record.arguments)
        return CodeChanged(run=self.run, workflow=self.function.name, step=step, recorded=recorded, called=called)


class Recorded:
    """An answer from the record."""

    error = None

    def __init__(self, record: Record) -> None:
        self.outcome = record.outcome
        self.ended_us = record.began_us + record.elapsed_us


def _in_event_loop() -> bool:
    """Whether this thread is running an event loop: asks asyncio only if somebody has loaded it."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001 - a documented name


def _shown(function: str, arguments: str) -> str:
    return f"{function} {arguments}"
