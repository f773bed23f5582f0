"""Workflows run again with somebody else deciding when each of their transactions happens.

A `Player` is one workflow on a thread of its own. It runs until it needs the result of a transaction, and waits; the `Stage` that
holds the players sees which transactions are asked for, and whoever directs (replay, retroaction, exploration) has them executed in
the order that it wants. Only one thread is ever running: control is handed to and fro, so the same decisions give the same play.

Steps are answered by the director at once, since they do not touch the database; sleeps pass without waiting.

This module must not know what is decided, nor what a branch is.
"""

from __future__ import annotations

import concurrent.futures
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
    """The play is over: unwinds the body of a workflow that nobody goes on with."""


class Call:
    """A call that a player has made and that is waiting for its result."""

    def __init__(self, player: Player, invocation: Invocation) -> None:
        self.invocation = invocation
        self._player = player
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def result(self) -> Any:
        """The call's result; hands control over until there is one."""
        while not self.future.done():
            self._player.wait()
        return self.future.result()

    def __await__(self) -> Generator[Any, None, Any]:
        return awaited(self.future)

    def resolve(self, value: Any, ended_us: int = 0) -> None:
        """Give the call its result, and the time at which it ended."""
        scope = self._player.scope
        scope.committed[self.invocation.step] = self.invocation
        scope.last_us = max(scope.last_us, ended_us)
        self._player.answered(self)
        self.future.set_result(value)

    def fail(self, error: BaseException, ended_us: int = 0) -> None:
        """Give the call its failure, and the time at which it ended."""
        scope = self._player.scope
        scope.last_us = max(scope.last_us, ended_us)
        self._player.answered(self)
        self.future.set_exception(error)


Answer = Callable[[Call], object]


class PlayScope:
    """What stands around the body of a workflow on a stage."""

    def __init__(self, player: Player, began_us: int) -> None:
        self.function = player.function
        self.fault: Exception | None = None
        self.committed: dict[int, Invocation] = {}
        self.last_us = began_us
        self._player = player
        self._random = random.Random(f"{player.run}/workflow")
        self.calls = 0

    def call(self, callee: AnyFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call in the body."""
        call = self.start(callee, args, kwargs)
        return call if self.function.is_async else call.result()

    def start(self, callee: AnyFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Number a call and let it wait for its turn."""
        return self._player.ask(self.invocation(callee, args, kwargs))

    def invocation(self, callee: AnyFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Invocation:
        """Number a call. Raises BadArguments."""
        arguments = callee.schema.encode_arguments(args, kwargs)
        callee.schema.decode_arguments(arguments)
        self.calls += 1
        return Invocation(run=self._player.run, step=StepNumber(self.calls), function=callee, arguments=arguments)

    def perform(self, invocation: Invocation) -> Any:
        """A call by the platform itself: a compensation."""
        return self._player.ask(invocation).result()

    def sleep(self, seconds: float) -> Any:
        """Time passes without waiting."""
        self.calls += 1
        until_us = self.last_us + int(seconds * 1e6)
        arguments = SLEEP.schema.encode_arguments((until_us,), {})
        call = self._player.ask(Invocation(run=self._player.run, step=StepNumber(self.calls), function=SLEEP, arguments=arguments))
        return call if self.function.is_async else call.result()

    def now_us(self) -> int:
        """When the last call ended."""
        return self.last_us

    def random(self) -> random.Random:
        """The run's generator."""
        return self._random

    def key(self) -> str:
        """A key that names the run."""
        return self._player.run


class Player:
    """One workflow, being run again."""

    def __init__(self, stage: Stage, run: RunId, function: AnyFunction, arguments: bytes, began_us: int, registry: Registry) -> None:
        self.run = run
        self.function = function
        self.arguments = arguments
        self.registry = registry
        self.scope = PlayScope(self, began_us)
        self.pending: list[Call] = []
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self.runnable = True
        #: The call of the parent that this workflow is, if it has one.
        self.parent: Call | None = None
        self._stage = stage
        self._mine = threading.Semaphore(0)
        self._theirs = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._errand: Callable[[], object] | None = None
        self._left = False

    # --- on the director's side ----------------------------------------------------------------------------------------------

    def proceed(self) -> None:
        """Let the workflow run until it waits or ends."""
        self.runnable = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._play, name=f"retroact-{self.run}", daemon=True)
            self._thread.start()
        else:
            self._mine.release()
        self._theirs.acquire()

    def have_done(self, errand: Callable[[], object]) -> None:
        """Have the thread of a workflow that waits do something, as if the call that it waits for did it. It must not raise."""
        self._errand = errand
        self.proceed()

    def answered(self, call: Call) -> None:
        """A call has its result: the workflow can go on."""
        self.pending.remove(call)
        self.runnable = True

    def leave(self) -> None:
        """Unwind the workflow where it stands."""
        if self._thread is not None and self.outcome is None:
            self._left = True
            self.proceed()
            self._thread.join()

    # --- on the workflow's side ----------------------------------------------------------------------------------------------

    def ask(self, invocation: Invocation) -> Call:
        """Make a call: it waits for its turn, or is answered at once."""
        call = Call(self, invocation)
        self.pending.append(call)
        self._stage.asked(self, call)
        return call

    def wait(self) -> None:
        """Hand control over until somebody has answered."""
        while True:
            self._theirs.release()
            self._mine.acquire()
            if self._left:
                raise Left
            errand, self._errand = self._errand, None
            if errand is None:
                return
            errand()

    def _play(self) -> None:
        try:
            self._perform()
        except Left:
            pass
        except BaseException as error:  # noqa: BLE001 - the director decides what becomes of it
            self.error = error
        finally:
            self.outcome = self.outcome or Outcome(failure=describe(self.error or Left()))
            self._theirs.release()

    def _perform(self) -> None:
        try:
            value = self._body()
            while self.pending:
                self.wait()
            self.outcome = Outcome(value=self.function.schema.encode_result(value).decode())
        except Exception as error:  # noqa: BLE001 - whatever a workflow raises is its outcome
            self.error = error
            if self.scope.fault is None:
                compensate(cast("Any", self.scope), self.registry)
            self.outcome = Outcome(failure=describe(error))

    def _body(self) -> Any:
        args, kwargs = self.function.schema.decode_arguments(self.arguments)
        token = enter(cast("Any", self.scope))
        try:
            if self.function.is_async:
                import asyncio  # noqa: PLC0415 - see workflow/loop.py

                return asyncio.run(self._async_body(args, kwargs))
            return self.function.body(*args, **kwargs)
        finally:
            leave(token)

    async def _async_body(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import asyncio  # noqa: PLC0415 - see workflow/loop.py

        body = asyncio.ensure_future(self.function.body(*args, **kwargs))
        while not body.done():
            made = self.scope.calls
            for _ in range(_IDLE_CYCLES):
                await _cycle()
            if not body.done() and made == self.scope.calls and self.pending:
                self.wait()
        return body.result()


@types.coroutine
def _cycle() -> Generator[None, None, None]:
    """Let the event loop do what is ready, once."""
    yield


class Stage:
    """All players of a play."""

    def __init__(self, answer: Answer, began_us: Callable[[RunId], int], ended_us: Callable[[Invocation], int] = lambda _: 0) -> None:
        """`answer` is shown each call of a step and resolves or fails it at once; `began_us` says when a run began, `ended_us` when
        the call of a workflow ended (0: not known; then, when the last call ended that it made)."""
        self.players: dict[RunId, Player] = {}
        self._ended_us = ended_us
        self._answer = answer
        self._began_us = began_us

    def enter(self, run: RunId, function: AnyFunction, arguments: bytes, registry: Registry) -> Player:
        """Bring a workflow on, without letting it begin."""
        player = Player(self, run, function, arguments, self._began_us(run), registry)
        self.players[run] = player
        return player

    def asked(self, player: Player, call: Call) -> None:
        """A player has made a call."""
        kind = call.invocation.function.kind
        if kind is Kind.STEP:
            self._answer(call)
        elif kind is Kind.INVARIANT:
            call.fail(BadDeclaration(function=call.invocation.function.name, problem="an invariant is checked, not called by a workflow"))
        elif kind is Kind.WORKFLOW:
            run = RunId(f"{call.invocation.run}.{call.invocation.step}")
            child = self.enter(run, call.invocation.function, call.invocation.arguments, player.registry)
            child.parent = call

    def settle(self) -> None:
        """Let every player run that can, until all wait for transactions or have ended."""
        while True:
            player = next((p for p in self.players.values() if p.runnable and p.outcome is None), None)
            if player is None:
                return
            player.proceed()
            if player.outcome is not None and player.parent is not None:
                self._end_child(player, player.parent)

    def pending(self) -> list[Call]:
        """The transactions that are asked for now."""
        return [c for p in self.players.values() for c in p.pending if c.invocation.function.kind is Kind.TRANSACTION]

    def close(self) -> None:
        """End the play."""
        for player in self.players.values():
            player.leave()

    def _end_child(self, child: Player, call: Call) -> None:
        child.parent = None
        ended_us = self._ended_us(call.invocation) or child.scope.last_us
        if child.error is not None:
            call.fail(child.error, ended_us)
        else:
            assert child.outcome is not None, "a player without error has an outcome"
            call.resolve(child.function.schema.decode_result(child.outcome.value or "null"), ended_us)
