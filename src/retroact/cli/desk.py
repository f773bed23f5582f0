"""Where a debugger's prompt stands: on the main thread, while the bodies that it looks into wait on threads of their own.

So Ctrl-C and line editing work as ever, and the guard, which watches the threads of bodies, lets the prompt read files and sockets
without letting a body.

This module must not know what is asked at the prompt.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import queue
import random
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any, NoReturn, TypeVar, cast

from retroact.errors import MisplacedCall
from retroact.function.context import Scope, current_scope, enter
from retroact.function.kind import Kind

T = TypeVar("T")
_LONGEST_WAIT_SECONDS = 0.1


@dataclasses.dataclass(slots=True)
class _Request:
    """Something that a body's thread has the main thread do."""

    work: Callable[[], object]
    context: contextvars.Context
    done: threading.Event = dataclasses.field(default_factory=threading.Event)
    error: BaseException | None = None


class Desk:
    """Runs a play on a thread, and on this one what the play asks for."""

    def __init__(self, interrupted: Callable[[], None]) -> None:
        """`interrupted` is called for a Ctrl-C while bodies run."""
        self._interrupted = interrupted
        self._asking = False
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()

    def serve(self, play: Callable[[], T]) -> T:
        """Run a play to its end and return its result; raises what it raises."""
        ended: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                ended.append(play())
            except BaseException as error:  # noqa: BLE001 - raised again on the main thread
                failed.append(error)
            finally:
                self._requests.put(None)

        thread = threading.Thread(target=run, name="retroact-play", daemon=True)
        with self._ctrl_c():
            thread.start()
            while (request := self._next()) is not None:
                self._fulfil(request)
            thread.join()
        if failed:
            raise failed[0]
        return ended[0]

    def ask(self, work: Callable[[], object]) -> None:
        """Have the main thread do something, as if it stood where this thread stands; raises what it raises."""
        request = _Request(work, contextvars.copy_context())
        self._requests.put(request)
        request.done.wait()
        if request.error is not None:
            raise request.error

    def _next(self) -> _Request | None:
        """A Ctrl-C that comes just before the wait begins does not end the wait: Python hears of it only when it has ended."""
        while True:
            try:
                return self._requests.get(timeout=_LONGEST_WAIT_SECONDS)
            except queue.Empty:
                continue

    @contextlib.contextmanager
    def _ctrl_c(self) -> Generator[None]:
        """At the prompt it raises, as ever; while bodies run it is passed on, and must not tear up what is between the two."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def pressed(_number: int, _frame: object) -> None:
            if self._asking:
                raise KeyboardInterrupt
            self._interrupted()

        before = signal.signal(signal.SIGINT, pressed)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _fulfil(self, request: _Request) -> None:
        def work() -> None:
            scope = current_scope()
            if scope is not None:
                enter(cast("Scope", PromptScope(scope)))
            self._asking = True
            try:
                request.work()
            finally:
                self._asking = False

        try:
            request.context.run(work)
        except KeyboardInterrupt:  # it came as the prompt was left
            self._interrupted()
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
            request.error = error
        finally:
            request.done.set()


class PromptScope:
    """What stands around an expression at the prompt: the clock and the ids of the body that waits, none of its chance, no calls."""

    def __init__(self, of: Scope) -> None:
        self.function = of.function
        self._of = of

    def now_us(self) -> int:
        """The time of the body."""
        return self._of.now_us()

    def random(self) -> random.Random:
        """What the body would be given now, without taking it from the body."""
        copy = random.Random(0)  # with a seed, so that it does not ask this scope for one
        copy.setstate(self._of.random().getstate())
        return copy

    def key(self) -> str:
        """The key of the body."""
        return self._of.key()

    def call(self, callee: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A transaction may be tried inside a transaction, where it only reads. Raises MisplacedCall for anything else."""
        if self.function.kind is Kind.WORKFLOW:
            self._refuse(callee)
        return self._of.call(callee, args, kwargs)

    def start(self, callee: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
        """Nothing is started. Raises MisplacedCall."""
        self._refuse(callee)

    def sleep(self, seconds: float) -> Any:
        """Nobody sleeps. Raises MisplacedCall."""
        raise MisplacedCall(
            inner=f"sleep({seconds})", inner_kind="durable sleep", outer="the prompt", outer_kind="debugger", remedy=_NOT_A_CALL
        )

    def _refuse(self, callee: Any) -> NoReturn:
        raise MisplacedCall(inner=callee.name, inner_kind=callee.kind.value, outer="the prompt", outer_kind="debugger", remedy=_NOT_A_CALL)


_NOT_A_CALL = "It would be a call that the record does not have. Go on to the line that makes it."
