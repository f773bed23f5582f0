"""What the developer writes: decorators that turn plain Python functions into `Function` values.

Importing a module of functions has no side effect: a decorator returns a value and registers it nowhere. Links point backwards (a
compensation names what it undoes, an inquiry names what it asks about) and the registry joins them, so a `Function` never changes.

This module must not know how a function is run, nor by whom; it asks the scope of the moment (`context.py`).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from retroact.errors import BadDeclaration, OutsideRun
from retroact.function.context import Pending, current_scope
from retroact.function.fingerprint import fingerprint
from retroact.function.kind import CONNECTED, Isolation, Kind
from retroact.function.schema import Schema

P = ParamSpec("P")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How a function is to be run. Every option has the value that is right when nothing is said."""

    #: The transaction only reads: it runs beside the writer, on a snapshot.
    read_only: bool = False
    #: What the transaction is kept apart from, where the engine leaves a choice.
    isolation: Isolation = Isolation.SERIALIZABLE
    #: How often a failing step is tried again.
    retries: int = 0
    #: Seconds before the first retry of a step.
    backoff: float = 0.1
    #: By what each further wait is multiplied.
    backoff_factor: float = 2.0
    #: The longest wait between two attempts, in seconds.
    backoff_max: float = 60.0
    #: Seconds after which an attempt of a step counts as unanswered.
    timeout: float | None = None


#: The options that a function of each kind takes.
_TAKES: dict[Kind, tuple[str, ...]] = {
    Kind.TRANSACTION: ("read_only", "isolation"),
    Kind.STEP: ("retries", "backoff", "backoff_factor", "backoff_max", "timeout"),
    Kind.WORKFLOW: (),
    Kind.INVARIANT: (),
}


class Function(Generic[P, R]):
    """A registered Python function: its name, what it is, its body and its options. A value; it never changes.

    Calling it asks the scope of the moment to run it, so it works only inside a run; `body` is the plain Python function.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        kind: Kind,
        options: Options,
        *,
        name: str | None = None,
        undoes: Function[..., Any] | None = None,
        inquires: Function[..., Any] | None = None,
    ) -> None:
        functools.update_wrapper(self, body)  # first: what a body carries must not hide what follows
        self.body = body
        self.kind = kind
        self.options = options
        self.name = name or body.__name__
        self.undoes = undoes
        self.inquires = inquires
        self.is_async = inspect.iscoroutinefunction(body)
        self.module = body.__module__

    @functools.cached_property
    def schema(self) -> Schema:
        """How its arguments and its result are checked and encoded. Raises BadDeclaration."""
        return Schema.of(self.body, self.name, skip=1 if self.kind in CONNECTED else 0)

    @functools.cached_property
    def fingerprint(self) -> str:
        """What "the same code" means for this function: 16 hexadecimal digits."""
        return fingerprint(self.body)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        scope = current_scope()
        if scope is None:
            raise OutsideRun(function=self.name, kind=self.kind.value)
        return cast("R", scope.call(self, args, kwargs))

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Pending[R]:
        """Start this call inside a workflow without waiting: it is numbered now, `gather` waits for several."""
        scope = current_scope()
        if scope is None:
            raise OutsideRun(function=self.name, kind=self.kind.value)
        return cast("Pending[R]", scope.start(self, args, kwargs))

    @overload
    def compensation(self, body: Callable[..., Any], /) -> Function[..., Any]: ...
    @overload
    def compensation(self, /, *, name: str | None = None, **options: Any) -> Callable[[Callable[..., Any]], Function[..., Any]]: ...
    def compensation(self, body: Callable[..., Any] | None = None, /, *, name: str | None = None, **options: Any) -> Any:
        """Declare what undoes a committed call of this function when its workflow fails later. It takes the same arguments and
        is itself a durable call of the same kind."""

        if self.kind is Kind.INVARIANT:
            raise BadDeclaration(function=self.name, problem="an invariant only reads, so there is nothing to compensate")
        return _declare(self.kind, body, name, options, undoes=self)

    def inquiry(self, body: Callable[..., Any], /) -> Function[..., Any]:
        """Declare how to find out what came of an earlier call of this step: it is given the idempotency key and returns the
        result that the call had, or None when it was never carried out. Raises BadDeclaration."""
        if self.kind is not Kind.STEP:
            raise BadDeclaration(function=self.name, problem="only a step has an inquiry; what became of a transaction is in its record")
        return cast("Function[..., Any]", _declare(Kind.STEP, body, None, {}, inquires=self))

    def __repr__(self) -> str:
        return f"<{self.kind.value} {self.name}>"


def _options(kind: Kind, function: str, given: dict[str, Any]) -> Options:
    known = _TAKES[kind]
    if not given.keys() <= set(known):
        unknown, options = ", ".join(sorted(given.keys() - set(known))), ", ".join(known) or "none"
        raise BadDeclaration(function=function, problem=f"a {kind.value} has no option {unknown}; its options are: {options}")
    if "isolation" in given:
        if given["isolation"] not in list(Isolation):
            raise BadDeclaration(function=function, problem=f"isolation is one of: {', '.join(Isolation)}")
        given = {**given, "isolation": Isolation(given["isolation"])}
    numbers = [value for name, value in given.items() if name != "isolation" and (value is not None or name != "timeout")]
    if not all(isinstance(number, int | float) and number >= 0 for number in numbers) or given.get("timeout") == 0:
        raise BadDeclaration(function=function, problem="retries and back-off are numbers from 0, timeout is a positive number")
    return Options(**given)


def _declare(kind: Kind, body: Callable[..., Any] | None, name: str | None, options: dict[str, Any], **links: Function[..., Any]) -> Any:
    def declare(function: Callable[..., Any]) -> Function[..., Any]:
        if isinstance(function, Function):
            raise BadDeclaration(function=function.name, problem=f"it is a {function.kind.value} already; declare a function once")
        if not callable(function) or inspect.isclass(function) or not hasattr(function, "__name__"):
            raise BadDeclaration(function=repr(function), problem=f"@{kind.value} decorates a def")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise BadDeclaration(function=function.__name__, problem="it yields; return a list instead")
        return Function(function, kind, _options(kind, name or function.__name__, options), name=name, **links)

    return declare(body) if body is not None else declare


@overload
def transaction(body: Callable[Concatenate[Any, P], Awaitable[R]], /) -> Function[P, Awaitable[R]]: ...
@overload
def transaction(body: Callable[Concatenate[Any, P], R], /) -> Function[P, R]: ...
@overload
def transaction(
    *, name: str | None = None, read_only: bool = False, isolation: str = "serializable"
) -> Callable[[Callable[Concatenate[Any, P], R]], Function[P, R]]: ...
def transaction(body: Callable[..., Any] | None = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Declare a function that touches the database: it runs as one ACID transaction, on a connection that it is given first.

    It must be deterministic and have no effect outside of the database. `read_only=True` lets it run beside the writer.
    On Postgres `isolation` may be weakened: "repeatable read", or "read committed" (which replay can only take from the record).
    """
    return _declare(Kind.TRANSACTION, body, name, options)


@overload
def step(body: Callable[P, R], /) -> Function[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    backoff: float = 0.1,
    backoff_factor: float = 2.0,
    backoff_max: float = 60.0,
    timeout: float | None = None,
) -> Callable[[Callable[P, R]], Function[P, R]]: ...
def step(body: Callable[..., Any] | None = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Declare a call to the outside world: at least once, with an idempotency key (`retroact.key()`), its result recorded."""
    return _declare(Kind.STEP, body, name, options)


@overload
def workflow(body: Callable[P, R], /) -> Function[P, R]: ...
@overload
def workflow(*, name: str | None = None) -> Callable[[Callable[P, R]], Function[P, R]]: ...
def workflow(body: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Declare functions that run to completion: plain control flow in which each call of a function is a durable step."""
    return _declare(Kind.WORKFLOW, body, name, {})


@overload
def invariant(body: Callable[[Any], bool], /) -> Function[[], bool]: ...
@overload
def invariant(*, name: str | None = None) -> Callable[[Callable[[Any], bool]], Function[[], bool]]: ...
def invariant(body: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Declare what must hold in every state that a transaction leaves behind: it only reads, and returns whether it holds."""
    return _declare(Kind.INVARIANT, body, name, {})
