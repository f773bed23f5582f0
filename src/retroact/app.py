"""The composition root: functions, an engine and a clock, joined into something that runs.

An App owns what it needs and nothing is global: two Apps, with two versions of the code, may live in one process. This is the only
module that knows which engine stands behind a database URL.

It must not know the command line.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import sys
import threading
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, cast

from retroact.engine.clock import Clock, SystemClock
from retroact.engine.contract import Invocation, Ran, RunStart
from retroact.engine.sqlite.engine import SqliteEngine
from retroact.errors import (
    BadDeclaration,
    Closed,
    MisplacedCall,
    NoProject,
    NotFinished,
    RunCancelled,
    SourceMissing,
    WrongFunction,
)
from retroact.function.code import Code, capture, load_path
from retroact.function.context import awaited, current_scope
from retroact.function.declare import Function
from retroact.function.kind import Kind
from retroact.function.names import plain_name
from retroact.function.registry import Registry
from retroact.trace.failure import revive
from retroact.trace.record import ALONE, Outcome, Run, RunId, RunState
from retroact.workflow.executor import SLEEP, Executor

if TYPE_CHECKING:
    from retroact.engine.sqlite.history import History
    from retroact.replay.replayer import Report
    from retroact.retroaction.difference import Difference
    from retroact.retroaction.exploration import Exploration, Options, Play
    from retroact.retroaction.explorer import Explorer
    from retroact.retroaction.ground import Around

P = ParamSpec("P")
R = TypeVar("R")
AnyFunction = Function[..., Any]
#: Runs that may be under way at the same time in the background.
THREADS = 256


class Handle(Generic[R]):
    """A run: wait for its result with `result()`, or `await` it."""

    def __init__(self, run: RunId, future: concurrent.futures.Future[R], cancel: Callable[[RunId], None]) -> None:
        self.run = run
        self._future = future
        self._cancel = cancel

    def result(self, timeout: float | None = None) -> R:
        """Wait for the run's result, at most `timeout` seconds. Raises what the run raised, RunCancelled, TimeoutError."""
        return self._future.result(timeout)

    def done(self) -> bool:
        """Whether the run has ended."""
        return self._future.done()

    def cancel(self) -> None:
        """Stop the run at its next call; `app.resume` goes on from there."""
        self._cancel(self.run)

    def __await__(self) -> Generator[Any, None, R]:
        return awaited(self._future)

    def __repr__(self) -> str:
        return f"<run {self.run}>"


class App:
    """Functions on a database.

        app = App("shop.db", shop)                 # a module of functions, or a list of them
        app.run(checkout, order)                   # runs to completion, exactly once
        app.start(checkout, order, run="order-7")  # in the background; the id makes it idempotent

    Opening an App goes on with every run that was interrupted. Close it, or use it in a `with` statement.
    """

    def __init__(
        self,
        database: str | Path,
        *functions: ModuleType | AnyFunction | Iterable[AnyFunction],
        clock: Clock | None = None,
        recover: bool = True,
        recording: bool = True,
    ) -> None:
        """Open or create the database. `recording=False` keeps no page log: exactly-once holds, the past cannot be opened.

        Raises DatabaseBusy, NotADatabase, NewerDatabase, NoProject, DuplicateFunction, BadDeclaration.
        """
        self.registry = Registry.of(_with_companions(functions))
        self.path = database_path(database)
        self._clock = clock or SystemClock()
        self._modules = {plain_name(f.module): sys.modules[f.module] for f in self.registry if f.module in sys.modules}
        for function in self.registry:
            _ = function.schema  # a declaration that cannot be recorded is refused now, not when it is first called
        self.engine = SqliteEngine(self.path, self._clock, recording=recording)
        self.trace = self.engine.trace
        self.engine.know([*self.registry, SLEEP], _captured(self.registry))
        self._executor = Executor(self.engine, self.trace, self._clock, self.registry, self._modules)
        self._pool = concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix="retroact-run")
        #: What is under way: each run's function, and where its result will be.
        self._active: dict[RunId, tuple[str, concurrent.futures.Future[Any]]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self.recovered: list[Handle[Any]] = self.recover() if recover else []

    # --- running ---------------------------------------------------------------------------------------------------------

    def run(self, function: Function[P, R] | str, *args: Any, run: str | None = None, **kwargs: Any) -> R:
        """Run a function to completion and return its result; raises what it raised.

        `run` is the id of the run: a second call with the same id does not run it again, it returns the same result.
        """
        found, start, fresh = self._prepare(function, args, kwargs, run)
        if found.kind is Kind.TRANSACTION:
            return self._transact(start, fresh=fresh)
        future, mine = self._claim(start.run, found.name)
        if mine:
            self._fulfil(future, start.run, lambda: self._once(found, start, fresh=fresh))
        return future.result()

    def start(self, function: Function[P, R] | str, *args: Any, run: str | None = None, **kwargs: Any) -> Handle[R]:
        """Start a function in the background. When this returns for a workflow, the run is durable: a crash does not lose it."""
        found, start, fresh = self._prepare(function, args, kwargs, run)
        future, mine = self._claim(start.run, found.name)
        if mine:
            with self._told(future, start.run):
                if found.kind is Kind.WORKFLOW and (fresh or self.trace.find_run(start.run) is None):
                    self.engine.begin_run(start)
                    self._submit(future, start.run, lambda: self._value(found, start.run, self._executor.run(start, begun=True)))
                elif found.kind is Kind.TRANSACTION:
                    self._submit(future, start.run, lambda: self._transact(start, fresh=fresh))
                else:
                    self._submit(future, start.run, lambda: self._once(found, start, fresh=fresh))
        return Handle(start.run, future, self.cancel)

    def handle(self, run: str) -> Handle[Any]:
        """The handle of a run that was started earlier. Raises UnknownRun, NotFinished."""
        run_id = RunId(run)
        future = self._under_way(run_id)
        if future is None:
            found = self.trace.run(run_id)
            if found.outcome is None:
                raise _not_finished(found)
            self.registry.get(found.function)
            future = cast("concurrent.futures.Future[Any]", concurrent.futures.Future())
            self._fulfil(future, run_id, lambda: self._recorded_result(found))
        return Handle(run_id, future, self.cancel)

    def cancel(self, run: str) -> None:
        """Stop a run at its next call. Nothing is undone and nothing lost: `resume` goes on. Raises UnknownRun."""
        run_id = RunId(run)
        self._executor.cancel(run_id if self._executor.is_running(run_id) else self.trace.run(run_id).run)

    def resume(self, run: str) -> Handle[Any]:
        """Go on with a run that was cancelled or stopped, from its last recorded step. Raises UnknownRun, UnknownFunction."""
        found = self.trace.run(RunId(run))
        if found.state is not RunState.RUNNING:
            self._wait_for_the_last(found.run)
        return self._resume(self.trace.run(found.run))

    def recover(self) -> list[Handle[Any]]:
        """Go on with every run that has no outcome and is not under way. Called when the App is opened."""
        handles: list[Handle[Any]] = []
        for run in self.trace.open_runs():
            if run.parent is not None or run.state is RunState.CANCELLED or run.run in self._active:
                continue
            if run.function in self.registry:
                handles.append(self._resume(run))
            else:
                reason = f"no function named {run.function!r} is registered; the run waits until one is"
                self._executor.put_aside(run.run, reason)
        return handles

    def close(self) -> None:
        """Stop background runs at their next call (they go on when the database is opened again) and close the database."""
        if self._closed:
            return
        self._closed = True
        self._executor.interrupt()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._executor.close()
        if "history" in self.__dict__:
            self.history.close()
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def trouble(self) -> Exception | None:
        """Why the past is not kept up to date at the moment, if so: a full disk, a file that cannot be written. None: all is well."""
        return self.engine.trouble

    # --- reading ---------------------------------------------------------------------------------------------------------

    def runs(self, *, most: int = 100) -> list[Run]:
        """The newest runs."""
        return self.trace.runs(most=most)

    @functools.cached_property
    def history(self) -> History:
        """The past of the database: `app.history.at(version).query("select ...")`. Raises BeyondHistory."""
        from retroact.engine.sqlite.history import History

        return History(self.path)

    def replay(self, runs: Iterable[str]) -> Report:
        """Run the past again, and compare: each transaction of the runs at the state that it saw. Raises UnknownRun."""
        from retroact.replay.workflows import replay_runs

        self._catch_up()
        return replay_runs(self.history, [RunId(run) for run in runs], fallback=self.registry)

    def retroact(self, runs: Iterable[str], changed: str | Path | Registry, answers: Mapping[str, Any] | None = None) -> Difference:
        """Run changed code (a file, a folder or a registry) over the past of the runs. Raises UnknownRun, UnknownFunction."""
        from retroact.replay.shelf import Shelf
        from retroact.retroaction.retroactor import Retroactor

        self._catch_up()
        registry = changed if isinstance(changed, Registry) else Registry.of(load_path(Path(changed)))
        shelf = Shelf(self.history.trace, self.registry)
        try:
            return Retroactor(self.history, shelf, registry, answers).run([RunId(run) for run in runs])
        finally:
            shelf.close()

    def explore(self, runs: Iterable[str], changed: str | Path | Registry | None = None, options: Options | None = None) -> Exploration:
        """Look at what would have come of the runs in other schedules, with the code that they ran with or with changed code.

        Raises UnknownRun, UnknownFunction, SourceMissing, NotRepeatable.
        """
        with self._explorer(changed, options) as explorer:
            return explorer.explore([RunId(run) for run in runs])

    def perform(
        self,
        runs: Iterable[str],
        schedule: str,
        changed: str | Path | Registry | None = None,
        options: Options | None = None,
        around: Around | None = None,
    ) -> Play:
        """Run the runs in one schedule, as an exploration writes it down. `around` stands around each transaction, as a debugger
        does: it is given the invocation and what executes it, and returns what that returned. Raises BadSchedule besides."""
        with self._explorer(changed, options) as explorer:
            return explorer.perform([RunId(run) for run in runs], schedule, around)

    @contextlib.contextmanager
    def _explorer(self, changed: str | Path | Registry | None, options: Options | None) -> Generator[Explorer]:
        from retroact.replay.shelf import Shelf
        from retroact.retroaction.explorer import Explorer

        self._catch_up()
        registry = Registry.of(load_path(Path(changed))) if isinstance(changed, str | Path) else changed
        shelf = Shelf(self.history.trace, self.registry)
        try:
            yield Explorer(self.history, shelf, registry, options)
        finally:
            shelf.close()

    def _catch_up(self) -> None:
        """Bring the page log up to this moment."""
        self.engine.settle()
        if self.engine.historian is not None:
            self.engine.historian.store()

    # --- how -------------------------------------------------------------------------------------------------------------

    def _prepare(
        self, function: AnyFunction | str, args: tuple[Any, ...], kwargs: dict[str, Any], run: str | None
    ) -> tuple[AnyFunction, RunStart, bool]:
        if self._closed:
            raise Closed(path=self.path)
        found = function if isinstance(function, Function) else self.registry.get(str(function))
        self.registry.must_have(found)
        scope = current_scope()
        if scope is not None:
            raise MisplacedCall(
                inner=found.name,
                inner_kind=f"a run of its own of a {found.kind.value}",
                outer=scope.function.name,
                outer_kind=scope.function.kind.value,
                remedy=f"A workflow calls it directly: {found.name}(...).",
            )
        if found.kind is Kind.INVARIANT:
            raise BadDeclaration(function=found.name, problem="an invariant is checked, not run")
        arguments = found.schema.encode_arguments(args, kwargs)
        bound = found.schema.decode_arguments(arguments)
        run_id = RunId(run or new_run_id(self._clock))
        return found, RunStart(run=run_id, function=found, arguments=arguments, began_us=self._clock.now_us(), bound=bound), run is None

    def _transact(self, start: RunStart, *, fresh: bool) -> Any:
        function, arguments, bound = start.function, start.arguments, start.bound
        invocation = Invocation(run=start.run, step=ALONE, function=function, arguments=arguments, fresh=fresh, bound=bound)
        ran, _ = self.engine.transact(invocation)
        return self._value(start.function, start.run, ran)

    def _once(self, function: AnyFunction, start: RunStart, *, fresh: bool) -> Any:
        """Run under an id that, unless it is fresh, the caller chose: perhaps it has been run, or begun, before."""
        present = None if fresh else self.trace.find_run(start.run)
        if present is None:
            if function.kind is Kind.STEP:
                return self._value(function, start.run, self._executor.step_alone(start, in_doubt=not fresh))
            return self._value(function, start.run, self._executor.run(start))
        _must_be(present, function)
        if present.state.terminal:
            return self._recorded_result(present)
        if present.state is RunState.CANCELLED:
            raise RunCancelled(run=start.run)
        if present.state is RunState.STOPPED:
            self._executor.put_back(start.run)
        return self._value(function, start.run, self._again(present))

    def _again(self, run: Run) -> Ran:
        function = self.registry.get(run.function)
        start = RunStart(run=run.run, function=function, arguments=run.arguments.encode(), began_us=run.began_us)
        return self._executor.run(start, recorded=self.trace.records_of(run.run), begun=True)

    def _resume(self, run: Run) -> Handle[Any]:
        function = self.registry.get(run.function)
        future, mine = self._claim(run.run, run.function)
        if mine and run.state.terminal:
            self._fulfil(future, run.run, lambda: self._recorded_result(run))
        elif mine:
            with self._told(future, run.run):
                if run.state is not RunState.RUNNING:
                    self._executor.put_back(run.run)
                self._submit(future, run.run, lambda: self._value(function, run.run, self._again(run)))
        return Handle(run.run, future, self.cancel)

    def _claim(self, run: RunId, function: str) -> tuple[concurrent.futures.Future[Any], bool]:
        """The future of a run, and whether the caller is to fulfil it: a run id is under way once. Raises WrongFunction."""
        with self._lock:
            present = self._active.get(run)
            if present is None:
                future: concurrent.futures.Future[Any] = concurrent.futures.Future()
                self._active[run] = (function, future)
                return future, True
        if present[0] != function:
            raise WrongFunction(run=run, recorded=present[0], asked=function)
        return present[1], False

    def _under_way(self, run: RunId) -> concurrent.futures.Future[Any] | None:
        with self._lock:
            return self._active.get(run, (None, None))[1]

    def _submit(self, future: concurrent.futures.Future[Any], run: RunId, work: Callable[[], Any]) -> None:
        """Have a claimed run fulfilled in the background, or told that it was not when the App is closed before its turn."""

        def ended(job: concurrent.futures.Future[None]) -> None:
            if job.cancelled():
                self._release(run)
                future.set_exception(RunCancelled(run=run))

        self._pool.submit(self._fulfil, future, run, work).add_done_callback(ended)

    @contextlib.contextmanager
    def _told(self, future: concurrent.futures.Future[Any], run: RunId) -> Generator[None]:
        """Whoever waits for a claimed run is told when it cannot be begun."""
        try:
            yield
        except BaseException as error:
            self._release(run)
            future.set_exception(error)
            raise

    def _fulfil(self, future: concurrent.futures.Future[Any], run: RunId, work: Callable[[], Any]) -> None:
        try:
            value = work()
        except BaseException as error:  # whoever waits for the run is told
            self._release(run)
            future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._release(run)
            future.set_result(value)

    def _release(self, run: RunId) -> None:
        with self._lock:
            self._active.pop(run, None)

    def _wait_for_the_last(self, run: RunId) -> None:
        """A run that was cancelled may still be on its way to its next call."""
        future = self._under_way(run)
        if future is not None:
            with contextlib.suppress(Exception):
                future.result()

    def _value(self, function: AnyFunction, run: RunId, ran: Ran) -> Any:
        if ran.error is not None:
            raise ran.error
        return self._decoded(function, run, ran.outcome)

    def _recorded_result(self, run: Run) -> Any:
        if run.outcome is None:
            raise _not_finished(run)
        return self._decoded(self.registry.get(run.function), run.run, run.outcome)

    def _decoded(self, function: AnyFunction, run: RunId, outcome: Outcome) -> Any:
        if outcome.failure is not None:
            raise revive(outcome.failure, run, self._modules)
        return function.schema.decode_result(outcome.value or "null")


def _must_be(present: Run, function: AnyFunction) -> None:
    if present.function != function.name:
        raise WrongFunction(run=present.run, recorded=present.function, asked=function.name)


def _not_finished(run: Run) -> NotFinished:
    return NotFinished(run=run.run, state=run.state.value, remedy=run.reason or "Wait for it, or go on with it: `retroact resume`.")


def new_run_id(clock: Clock) -> RunId:
    """An id that sorts by time, so that what is written together lies together: 9 characters of time, 8 of chance."""
    stamp = _base32(clock.now_us() // 1000, 9)
    return RunId(stamp + _base32(uuid.uuid4().int & (2**40 - 1), 8))  # noqa: TID251 - ids of runs come from outside of any run


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def _base32(number: int, width: int) -> str:
    return "".join(_ALPHABET[(number >> (5 * i)) & 31] for i in reversed(range(width)))


def database_path(database: str | Path) -> Path:
    """The file behind a database URL or path. Raises NoProject for an engine that is not there."""
    text = str(database)
    for prefix in ("sqlite:///", "sqlite://"):
        if text.startswith(prefix):
            return Path(text[len(prefix) :])
    if "://" in text:
        raise NoProject(problem=f"no engine for {text}", remedy="Use sqlite:///path/to/file.db, or a plain path.")
    return Path(text)


def _with_companions(given: tuple[Any, ...]) -> list[AnyFunction]:
    """The functions given, and from their modules what compensates and what inquires them, and the invariants."""
    chosen = list(Registry.of(*given))
    present = set(chosen)
    for module in {f.module for f in chosen}:
        for value in vars(sys.modules.get(module, ModuleType(module))).values():
            if isinstance(value, Function) and value not in present:
                function = cast("AnyFunction", value)
                if function.undoes in present or function.inquires in present or function.kind is Kind.INVARIANT:
                    chosen.append(function)
    return chosen


def _captured(registry: Registry) -> dict[str, Code]:
    """The code of every module of functions whose source is at hand, by module name."""
    codes: dict[str, Code] = {}
    for name in {f.module for f in registry}:
        module = sys.modules.get(name)
        if module is not None:
            with contextlib.suppress(SourceMissing):
                codes[name] = capture(module)
    return codes
