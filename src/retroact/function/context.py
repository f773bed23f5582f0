"""What a running function may see: its connection, its clock, its randomness, its ids, and the functions it calls.

A `Scope` is what the platform puts around a body while it runs; the functions of this module ask the scope of the moment. There is
no other way from a body to the platform, so a body runs unchanged live, in replay, in retroaction and in a unit test.

This module must not know who implements a scope, nor any engine; it holds no state but the context variable that names the scope.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import datetime
import random
import uuid as uuids
from collections.abc import Awaitable, Generator, Iterable, Mapping
from typing import Any, Protocol, TypeVar, cast

from retroact.errors import BadArguments, MisplacedCall, OutsideRun
from retroact.function.kind import Kind

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Value = int | float | str | bytes | None


class Connection(Protocol):
    """The connection that the platform supplies to a transaction: it has begun, and the platform commits it.

    Parameters are named (`:item`) and given by keyword, or as one mapping. Every statement is recorded.
    """

    def execute(self, sql: str, parameters: Mapping[str, Value] | None = None, /, **named: Value) -> int:
        """Run one statement and return the number of rows it changed."""
        ...

    def rows(self, sql: str, parameters: Mapping[str, Value] | None = None, /, **named: Value) -> list[Any]:
        """Run one statement and return all its rows."""
        ...

    def row(self, sql: str, parameters: Mapping[str, Value] | None = None, /, **named: Value) -> Any:
        """Run one statement and return its first row, or None."""
        ...

    def value(self, sql: str, parameters: Mapping[str, Value] | None = None, /, **named: Value) -> Any:
        """Run one statement and return the first column of its first row, or None."""
        ...


class Pending(Protocol[T_co]):
    """A call that has been started inside a workflow, and numbered; `result()` waits for its outcome."""

    def result(self) -> T_co: ...
    def __await__(self) -> Any: ...


class Callee(Protocol):
    """A function, as far as a scope needs to know it."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...


class Scope(Protocol):
    """What stands around a body while it runs."""

    @property
    def function(self) -> Callee: ...
    def call(self, callee: Any, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any: ...
    def start(self, callee: Any, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Pending[Any]: ...
    def sleep(self, seconds: float) -> Any: ...
    def now_us(self) -> int: ...
    def random(self) -> random.Random: ...
    def key(self) -> str: ...


_scope: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("retroact_scope", default=None)


#: The scope of the function that is running in this context, if one is.
current_scope = _scope.get
#: Make a scope that of the moment, and go back to the one before: `leave` takes what `enter` gave.
enter = _scope.set
leave = _scope.reset


def _required(what: str) -> Scope:
    scope = _scope.get()
    if scope is None:
        raise OutsideRun(function=f"retroact.{what}", kind="function")
    return scope


def now() -> datetime.datetime:
    """The recorded time, in UTC. It is the same whenever this invocation is run again. Raises OutsideRun."""
    return datetime.datetime.fromtimestamp(_required("now").now_us() / 1e6, datetime.UTC)


def rng() -> random.Random:
    """A random generator seeded from the invocation, so that it gives the same again. Raises OutsideRun."""
    return _required("rng").random()


def uuid() -> uuids.UUID:
    """A unique id drawn from the invocation's randomness (version 4). Raises OutsideRun."""
    return uuids.UUID(int=_required("uuid").random().getrandbits(128), version=4)


def key() -> str:
    """The idempotency key of the step that is running: the same at every attempt, different for every call. Raises OutsideRun."""
    return _required("key").key()


def sleep(seconds: float) -> Any:
    """Sleep durably inside a workflow: a crash does not start the time anew. In an `async def` workflow, await it."""
    scope = _required("sleep")
    if scope.function.kind is not Kind.WORKFLOW:
        raise MisplacedCall(
            inner="sleep",
            inner_kind="durable sleep",
            outer=scope.function.name,
            outer_kind=scope.function.kind.value,
            remedy="Only a workflow can sleep durably.",
        )
    return scope.sleep(seconds)


def gather(calls: Iterable[Pending[T]] | Pending[T], *more: Pending[T]) -> list[T]:
    """Wait for started calls (`reserve.start(...)`) and return their results in the order given; the first failure is raised
    after all have ended, so that no call is left running."""
    one = bool(more) or not isinstance(calls, Iterable)
    pending: list[Any] = [calls, *more] if one else list(cast("Iterable[Any]", calls))
    for call in pending:
        if not hasattr(call, "result"):
            raise BadArguments(function="gather", problem=f"{call!r} is not a started call", signature="calls: reserve.start(...), ...")
    results: list[T] = []
    failure: Exception | None = None
    for call in pending:
        try:
            results.append(call.result())
        except Exception as error:  # noqa: BLE001 - every call is waited for before the first failure goes on
            failure = failure or error
    if failure is not None:
        raise failure
    return results


def awaited(future: concurrent.futures.Future[T]) -> Generator[Any, None, T]:
    """Await a future of another thread in the event loop of this one."""
    import asyncio  # noqa: PLC0415 - only async programs pay for it

    return (yield from asyncio.wrap_future(future).__await__())


async def gather_async(*calls: Awaitable[T]) -> list[T]:
    """`gather` for an `async def` workflow."""
    import asyncio  # noqa: PLC0415 - only async programs pay for it

    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return cast("list[T]", outcomes)
