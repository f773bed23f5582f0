"""Runs the body of a workflow from its beginning with the answers that its calls have so far, up to where it needs another one.

A body is a function of its answers: run again with the same ones it makes the same calls, so nothing has to be kept of it between two
answers but those. It is left by an exception that is no Exception when it waits for a call that has no answer yet; what it calls while
it is being left is not made.

Steps are answered here and now by whoever rehearses, since they do not touch the database; sleeps pass without waiting.

This module must not know transactions, schedules or branches.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import random
import threading
import types
from collections.abc import Callable, Generator
from typing import Any, cast

from retroact.engine.contract import Invocation
from retroact.errors import BadDeclaration
from retroact.function.context import awaited, enter, leave
from retroact.function.declare import Function
from retroact.function.kind import Kind
from retroact.function.registry import Registry
from retroact.trace.failure import describe
from retroact.trace.record import Outcome, RunId, StepNumber
from retroact.workflow.compensation import compensate
from retroact.workflow.executor import SLEEP

AnyFunction = Function[..., Any]
#: Cycles of an event loop without a new call after which a workflow is taken to wait for results.
_IDLE_CYCLES = 50


class Left(BaseException):
    """The body needs an answer that is not there yet."""


class NoAnswer(Exception):
    """There is no answer to a step: the run cannot be told. Holds the error to report."""

    def __init__(self, fault: Exception) -> None:
        super().__init__(str(fault))
        self.fault = fault


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What came of a call: its outcome, what it raised if it did, and when it ended (0: not known)."""

    outcome: Outcome
    error: BaseException | None
    ended_us: int = 0


#: Answers a step: the invocation, and how many calls of the same function with the same arguments were made before. Raises NoAnswer.
Stepped = Callable[[Invocation, int], Answer]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A workflow to rehearse."""

    run: RunId
    function: AnyFunction
    arguments: bytes
    began_us: int
    registry: Registry


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rehearsed:
    """How far a workflow came: the calls that wait for an answer, or its outcome."""

    pending: tuple[Invocation, ...] = ()
    outcome: Outcome | None = None
    error: BaseException | None = None
    #: Why it cannot be told what becomes of it.
    fault: Exception | None = None


def rehearse(part: Part, answers: tuple[tuple[int, Answer], ...], stepped: Stepped) -> Rehearsed:
    """Run the body with the answers, in the order in which they came."""
    scope = _Scope(part, answers, stepped)
    try:
        try:
            value = _body(part, scope)
            scope.settle()
            result = Rehearsed(outcome=Outcome(value=part.function.schema.encode_result(value).decode()))
        except Exception as error:  # noqa: BLE001 - whatever a workflow raises is its outcome
            scope.settle()
            if scope.fault is None:
                compensate(cast("Any", scope), part.registry)
            result = Rehearsed(outcome=Outcome(failure=describe(error)), error=error)
    except Left:
        result = Rehearsed()
    except Exception:  # a fault of the rehearsal itself, which a compensation met
        if scope.fault is None:
            raise
        result = Rehearsed()
    if scope.fault is not None:
        return Rehearsed(fault=scope.fault)
    return Rehearsed(pending=scope.pending()) if scope.left else result


class _Call:
    """A call that the body has made."""

    def __init__(self, scope: _Scope, invocation: Invocation) -> None:
        self._scope = scope
        self._invocation = invocation
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def result(self) -> Any:
        """The call's result; leaves the body when there is none yet."""
        return self._scope.given(self._invocation)

    def __await__(self) -> Generator[Any, None, Any]:
        yield from awaited(self.future)
        return self._scope.given(self._invocation)


class _Scope:
    """What stands around the body."""

    def __init__(self, part: Part, answers: tuple[tuple[int, Answer], ...], stepped: Stepped) -> None:
        self.function = part.function
        self.fault: Exception | None = None
        self.committed: dict[int, Invocation] = {}
        self.left = False
        self.calls = 0
        self.asked: dict[int, _Call] = {}
        self._part = part
        self._order = answers
        self._answers = dict(answers)
        self._stepped = stepped
        self._steps: dict[int, Answer] = {}
        self._made: dict[tuple[str, bytes], int] = {}
        self._invocations: dict[int, Invocation] = {}
        self._last_us = part.began_us
        self._random = random.Random(f"{part.run}/workflow")

    # --- on the side of the rehearsal -------------------------------------------------------------------------------------------

    def pending(self) -> tuple[Invocation, ...]:
        """The calls that wait for an answer."""
        return tuple(call for step, call in self._invocations.items() if step not in self._answers and step not in self._steps)

    def settle(self) -> None:
        """The body has ended: every call that it made must have, before anything else is done."""
        self._check()
        if self.pending():
            self.leave()
        for step, invocation in self._invocations.items():
            answer = self._steps.get(step) or self._answers[step]
            if answer.error is None:
                self.committed[step] = invocation

    def leave(self) -> None:
        """Leave the body. Raises Left."""
        self.left = True
        raise Left

    def deliver(self) -> Generator[None, None, None]:
        """Give an `async def` body its answers, one at a time."""
        for step, _ in self._order:
            call = self.asked.get(step)
            if call is not None:
                call.future.set_result(None)
            yield

    # --- on the side of the body ------------------------------------------------------------------------------------------------

    def call(self, callee: AnyFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call in the body."""
        call = self.start(callee, args, kwargs)
        return call if self.function.is_async else call.result()

    def start(self, callee: AnyFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
        """Number a call and let it wait for its turn."""
        return self._ask(self.invocation(callee, args, kwargs))

    def invocation(self, callee: AnyFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Invocation:
        """Number a call. Raises BadArguments."""
        self._check()
        arguments = callee.schema.encode_arguments(args, kwargs)
        callee.schema.decode_arguments(arguments)
        self.calls += 1
        return Invocation(run=self._part.run, step=StepNumber(self.calls), function=callee, arguments=arguments)

    def perform(self, invocation: Invocation) -> Any:
        """A call by the platform itself: a compensation."""
        return self._ask(invocation).result()

    def sleep(self, seconds: float) -> Any:
        """Time passes without waiting."""
        self._check()
        self.calls += 1
        arguments = SLEEP.schema.encode_arguments((self._last_us + int(seconds * 1e6),), {})
        call = self._ask(Invocation(run=self._part.run, step=StepNumber(self.calls), function=SLEEP, arguments=arguments))
        return call if self.function.is_async else call.result()

    def now_us(self) -> int:
        """When the last call whose result the body was given ended."""
        return self._last_us

    def random(self) -> random.Random:
        """The run's generator."""
        return self._random

    def key(self) -> str:
        """A key that names the run."""
        return self._part.run

    def given(self, invocation: Invocation) -> Any:
        """The result of a call, or what it raised."""
        self._check()
        answer = self._steps.get(invocation.step) or self._answers.get(invocation.step)
        if answer is None:
            self.leave()
            raise AssertionError
        self._last_us = max(self._last_us, answer.ended_us)
        if answer.error is not None:
            raise answer.error.with_traceback(None)
        return invocation.function.schema.decode_result(answer.outcome.value or "null")

    def _check(self) -> None:
        """Once the body is being left, or its run cannot be told, nothing more is done."""
        if self.left:
            raise Left
        if self.fault is not None:
            raise self.fault

    def _ask(self, invocation: Invocation) -> _Call:
        self._check()
        call = _Call(self, invocation)
        self._invocations[invocation.step] = invocation
        self.asked[invocation.step] = call
        kind = invocation.function.kind
        if kind is Kind.STEP:
            self._step(invocation, call)
        elif kind is Kind.INVARIANT:
            problem = "an invariant is checked, not called by a workflow"
            error = BadDeclaration(function=invocation.function.name, problem=problem)
            self._at_once(invocation, call, Answer(Outcome(failure=describe(error)), error))
        return call

    def _step(self, invocation: Invocation, call: _Call) -> None:
        name = invocation.function.name
        same = (name, b"" if name == SLEEP.name else invocation.arguments)
        before = self._made[same] = self._made.get(same, -1) + 1
        try:
            self._at_once(invocation, call, self._stepped(invocation, before))
        except NoAnswer as no_answer:
            self.fault = no_answer.fault
            raise self.fault from None

    def _at_once(self, invocation: Invocation, call: _Call, answer: Answer) -> None:
        self._steps[invocation.step] = answer
        call.future.set_result(None)


def _body(part: Part, scope: _Scope) -> Any:
    args, kwargs = part.function.schema.decode_arguments(part.arguments)
    if part.function.is_async:
        return _in_loop(part.function, scope, args, kwargs)
    token = enter(cast("Any", scope))
    try:
        return part.function.body(*args, **kwargs)
    finally:
        leave(token)


def _in_loop(function: AnyFunction, scope: _Scope, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an `async def` body on an event loop of its own, in a thread of its own: the caller may be in a loop itself."""
    import asyncio  # noqa: PLC0415 - see workflow/loop.py

    result: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        token = enter(cast("Any", scope))
        try:
            result.append(asyncio.run(_until_idle(function, scope, args, kwargs)))
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            failure.append(error)
        finally:
            leave(token)

    thread = threading.Thread(target=run, name=f"retroact-{function.name}", daemon=True)
    thread.start()
    thread.join()
    if scope.left:
        raise Left
    if failure:
        raise failure[0]
    return result[0]


async def _until_idle(function: AnyFunction, scope: _Scope, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    import asyncio  # noqa: PLC0415 - see workflow/loop.py

    # What is left behind in tasks of the body when it is left is nobody's trouble.
    asyncio.get_running_loop().set_exception_handler(_ignore)
    body = asyncio.ensure_future(function.body(*args, **kwargs))
    answers = scope.deliver()
    while not body.done():
        made = scope.calls
        for _ in range(_IDLE_CYCLES):
            await _cycle()
        if body.done() or made != scope.calls:
            continue
        if next(answers, answers) is answers:
            scope.left = True
            body.cancel()
            await asyncio.wait([body])
    if scope.left:
        return None
    return body.result()


def _ignore(_loop: object, _context: object) -> None:
    pass


@types.coroutine
def _cycle() -> Generator[None, None, None]:
    """Let the event loop do what is ready, once."""
    yield
