"""Calls to the outside world: tried again with back-off, cut off by a timeout, and never repeated blindly when one can ask.

A step is carried out at least once. After a crash, or when an attempt did not answer in time, its outcome is unknown: if the step has
an inquiry, that decides whether it is carried out again; if not, it is, with the same idempotency key.

This module must not know the record, nor any database.
"""

from __future__ import annotations

import contextvars
import dataclasses
import random
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from retroact.engine.clock import Clock
from retroact.engine.contract import Invocation
from retroact.errors import MisplacedCall, StepTimeout
from retroact.function.context import enter, leave
from retroact.function.declare import Function
from retroact.trace.failure import describe
from retroact.trace.record import Outcome
from retroact.workflow.scope import Cancelled

AnyFunction = Function[..., Any]
RunAsync = Callable[[Coroutine[Any, Any, Any], float | None], Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What came of a step."""

    outcome: Outcome
    error: Exception | None
    ended_us: int


class StepScope:
    """What stands around the body of a step: its idempotency key and the clock of the real world."""

    def __init__(self, invocation: Invocation, clock: Clock) -> None:
        self.function = invocation.function
        self._invocation = invocation
        self._clock = clock
        self._random: random.Random | None = None

    def call(self, callee: AnyFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ARG002 - as every scope takes
        """A step calls no function of the platform. Raises MisplacedCall."""
        raise MisplacedCall(
            inner=callee.name,
            inner_kind=callee.kind.value,
            outer=self.function.name,
            outer_kind="step",
            remedy="A step only talks to the outside world: let the @workflow call both, and pass results on as arguments.",
        )

    start = call

    def sleep(self, seconds: float) -> Any:
        """`retroact.sleep` has refused it already."""
        raise NotImplementedError(seconds)

    def now_us(self) -> int:
        """The time of the real world, in microseconds since the epoch."""
        return self._clock.now_us()

    def random(self) -> random.Random:
        """A generator seeded from the invocation, made when first asked for."""
        if self._random is None:
            self._random = random.Random(self._invocation.seed)
        return self._random

    def key(self) -> str:
        """The same at every attempt of this call, different for every other."""
        return key_of(self._invocation)


def key_of(invocation: Invocation) -> str:
    """The idempotency key of a step."""
    return f"{invocation.run}.{invocation.step}"


class StepRunner:
    """Carries out steps."""

    def __init__(self, clock: Clock, run_async: RunAsync) -> None:
        self._clock = clock
        self._run_async = run_async

    def carry_out(self, invocation: Invocation, inquiry: AnyFunction | None, *, in_doubt: bool, interrupt: threading.Event) -> Carried:
        """Try the step until it answers or its retries are used up. `in_doubt`: an earlier attempt may have been carried out.

        Raises Cancelled when it is interrupted between two attempts: then it has no outcome.
        """
        options = invocation.function.options
        wait = options.backoff
        attempt = 0
        while True:
            attempt += 1
            error: Exception
            try:
                if in_doubt and inquiry is not None:
                    found = self._ask(invocation, inquiry)
                    if found is not None:
                        return self._answered(found)
                return self._answered(self._once(invocation))
            except Exception as raised:  # noqa: BLE001 - whatever a step raises is a failed attempt
                error = raised
            in_doubt = in_doubt or isinstance(error, StepTimeout)
            if attempt > options.retries:
                return self._given_up(invocation, inquiry, error, in_doubt=in_doubt)
            if self._clock.wait_until(self._clock.now_us() + int(min(wait, options.backoff_max) * 1e6), interrupt):
                raise Cancelled
            wait = min(wait * options.backoff_factor, options.backoff_max)

    def _given_up(self, invocation: Invocation, inquiry: AnyFunction | None, error: Exception, *, in_doubt: bool) -> Carried:
        """The last attempt has failed; if it may have been carried out all the same, ask once more."""
        if in_doubt and inquiry is not None:
            try:
                found = self._ask(invocation, inquiry)
            except Exception as raised:  # noqa: BLE001 - an inquiry that fails leaves the failure as it is
                found, error = None, raised
            if found is not None:
                return self._answered(found)
        return Carried(outcome=Outcome(failure=describe(error)), error=error, ended_us=self._clock.now_us())

    def _answered(self, encoded: bytes) -> Carried:
        return Carried(outcome=Outcome(value=encoded.decode()), error=None, ended_us=self._clock.now_us())

    def _once(self, invocation: Invocation) -> bytes:
        function = invocation.function
        args, kwargs = function.schema.decode_arguments(invocation.arguments)
        value = self._call(function, StepScope(invocation, self._clock), args, kwargs, function.options.timeout, key_of(invocation))
        return function.schema.encode_result(value)

    def _ask(self, invocation: Invocation, inquiry: AnyFunction) -> bytes | None:
        """What the inquiry knows of an earlier attempt, encoded as the step's own result."""
        key = key_of(invocation)
        found = self._call(inquiry, StepScope(invocation, self._clock), (key,), {}, invocation.function.options.timeout, key)
        return None if found is None else invocation.function.schema.encode_result(found)

    def _call(
        self, function: AnyFunction, scope: StepScope, args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float | None, key: str
    ) -> Any:
        try:
            if function.is_async:
                return self._run_async(_scoped(function, scope, args, kwargs), timeout)
            if timeout is None:
                return _inside(scope, function.body, args, kwargs)
            return _within(timeout, lambda: _inside(scope, function.body, args, kwargs))
        except TimeoutError as error:
            if timeout is None or error.args:
                raise
            raise StepTimeout(function=function.name, seconds=timeout, key=key) from None


def _inside(scope: StepScope, body: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    token = enter(scope)
    try:
        return body(*args, **kwargs)
    finally:
        leave(token)


async def _scoped(function: AnyFunction, scope: StepScope, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    enter(scope)
    return await function.body(*args, **kwargs)


def _within(seconds: float, work: Callable[[], Any]) -> Any:
    """Do `work` in a thread of its own and wait for it so long; a thread that does not answer is left behind. Raises TimeoutError."""
    result: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            failure.append(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), daemon=True, name="retroact-step")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError
    if failure:
        raise failure[0]
    return result[0]
