"""Run a body: decode its arguments, put its scope around it, encode its result, describe its failure.

The same few lines serve live execution, replay and retroaction, on every engine.

This module must not know transactions, records or databases.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec

from retroact.engine.contract import Invocation
from retroact.engine.guard import guard
from retroact.errors import MisplacedCall
from retroact.function.context import Scope, enter, leave
from retroact.trace.record import Failure, Outcome


class Executed(msgspec.Struct, frozen=True, eq=False):
    """What a body did: its outcome, and the exception itself when it raised one."""

    outcome: Outcome
    error: Exception | None


def execute(invocation: Invocation, connection: Any, scope: Scope, describe: Callable[[Exception], Failure]) -> Executed:
    """Run the body of a transaction on `connection`. An Exception is an outcome; anything else goes through."""
    function = invocation.function
    schema = function.schema
    token = enter(scope)
    guard.arm(function.name)
    try:
        args, kwargs = invocation.bound or schema.decode_arguments(invocation.arguments)
        value = function.body(connection, *args, **kwargs)
        if function.is_async:
            value = finish_at_once(value, function.name)
        connection.finish()
        return Executed(Outcome(value=schema.encode_result(value).decode()), None)
    except Exception as error:  # noqa: BLE001 - whatever a body raises is its outcome
        return Executed(Outcome(failure=describe(error)), error)
    finally:
        connection.end()
        guard.disarm()
        leave(token)


def finish_at_once(coroutine: Coroutine[Any, Any, Any], function: str) -> Any:
    """The result of an `async def` transaction. It has nothing to wait for: its connection answers at once."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise MisplacedCall(
        inner="await",
        inner_kind="waiting",
        outer=function,
        outer_kind="transaction",
        remedy="A transaction must not wait while it holds the database; wait in a @step and pass the result on.",
    )


class TransactionScope:
    """What stands around the body of a transaction: its moment, and calls that join it."""

    __slots__ = ("_connection", "function", "invocation")

    def __init__(self, invocation: Invocation, connection: Any) -> None:
        self.invocation = invocation
        self.function = invocation.function
        self._connection = connection

    def call(self, callee: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A transaction called inside a transaction joins it. Raises MisplacedCall for anything else."""
        if callee.kind.value not in ("transaction", "invariant"):
            raise MisplacedCall(
                inner=callee.name,
                inner_kind=callee.kind.value,
                outer=self.function.name,
                outer_kind="transaction",
                remedy="A transaction has no effect outside of the database: call both from a @workflow, one after the other.",
            )
        schema = callee.schema
        bound, named = schema.decode_arguments(schema.encode_arguments(args, kwargs))
        value = callee.body(self._connection, *bound, **named)
        return finish_at_once(value, callee.name) if callee.is_async and not self.function.is_async else value

    def start(self, callee: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
        """Nothing runs beside a transaction inside it. Raises MisplacedCall."""
        raise MisplacedCall(
            inner=callee.name,
            inner_kind=callee.kind.value,
            outer=self.function.name,
            outer_kind="transaction",
            remedy="Inside a transaction call it directly; only a workflow starts calls beside one another.",
        )

    def sleep(self, seconds: float) -> Any:
        """A transaction does not sleep; `retroact.sleep` has refused it already."""
        raise NotImplementedError(seconds)

    def now_us(self) -> int:
        """The time of the invocation, in microseconds since the epoch."""
        return cast("int", self._connection.moment.now_us)

    def random(self) -> Any:
        """The invocation's generator."""
        return self._connection.moment.random()

    def key(self) -> str:
        """A key that names this invocation."""
        return f"{self.invocation.run}.{self.invocation.step}"


def transaction_scope(invocation: Invocation, connection: Any) -> Scope:
    """The scope of a transaction's body."""
    return cast("Scope", TransactionScope(invocation, connection))
