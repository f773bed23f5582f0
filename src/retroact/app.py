"""The composition root: functions, an engine and a clock, joined into something that runs.

An App owns what it needs and nothing is global: two Apps, with two versions of the code, may live in one process.

It must not know the command line.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import sys
import threading
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, cast

from retroact.engine.clock import Clock, SystemClock
from retroact.engine.contract import Bound, Invocation, Ran, RunStart
from retroact.engine.sqlite.engine import SqliteEngine
from retroact.engine.sqlite.keeper import Keeper
from retroact.engines import database_path, file_of, open_engine
from retroact.errors import (
    BadDeclaration,
    Closed,
    MisplacedCall,
    NotFinished,
    PastNotKept,
    RunCancelled,
    WrongFunction,
)
from retroact.function.code import captured
from retroact.function.context import awaited, current_scope
from retroact.function.declare import Function
from retroact.function.given import supply
from retroact.function.kind import Kind
from retroact.function.names import plain_name
from retroact.function.registry import Registry
from retroact.going_back import GoingBack
from retroact.trace.failure import revive
from retroact.trace.record import ALONE, Outcome, Run, RunId, RunState
from retroact.trace.retention import Retention
from retroact.trace.verification import Verified
from retroact.workflow.executor import SLEEP, Executor

if TYPE_CHECKING:
    from retroact.engine.postgres.trace_reader import TraceReader as ServerTrace
    from retroact.engine.sqlite.compaction import Compacted
    from retroact.engine.sqlite.history import History
    from retroact.engine.sqlite.migration import Applied, Migration
    from retroact.engine.sqlite.trace_reader import TraceReader
    from retroact.function.code import Code
    from retroact.portable import Exported, ExportOptions
    from retroact.replay.verifier import Verifier

P = ParamSpec("P")
R = TypeVar("R")
AnyFunction = Function[..., Any]
Future = concurrent.futures.Future[Any]
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


class _UnderWay:
    """A run that somebody is carrying out."""

    __slots__ = ("function", "future", "told")

    def __init__(self, function: str) -> None:
        self.function = function
        #: Where its result will be, when somebody else waits for it.
        self.future: Future | None = None
        #: Tells a future what came of it, once that is known.
        self.told: Callable[[Future], None] | None = None


class App(GoingBack):
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
        verify_rate: float = 0.0,
        retention: Retention | None = None,
    ) -> None:
        """Open or create the database: a file, or `postgresql://...`. `recording=False` keeps no page log: exactly-once holds, the
        past cannot be opened. `retention` says how much of the past is kept, and has the rest dropped now and then; None keeps all.

        `verify_rate` is the share of runs (0.01: one in a hundred) whose transactions are executed a second time in the background,
        on a branch, to find functions that are not deterministic: see `verifications`.

        Raises DatabaseBusy, NotADatabase, NewerDatabase, Unreachable, NoProject, PastNotKept, DuplicateFunction, BadDeclaration.
        """
        _must_be_a_rate(verify_rate, recording=recording)
        self.path = database_path(database)
        if verify_rate or retention is not None:
            file_of(self.path, "verify_rate" if verify_rate else "retention")
        self.registry = Registry.of(_with_companions(functions))
        self._clock = clock or SystemClock()
        self._modules = {plain_name(f.module): sys.modules[f.module] for f in self.registry if f.module in sys.modules}
        for function in self.registry:
            _ = function.schema  # a declaration that cannot be recorded is refused now, not when it is first called
        self.engine = open_engine(self.path, self._clock, recording=recording)
        self.path = self.engine.path
        self.trace = self.engine.trace
        codes = captured(f.module for f in self.registry)
        supply((f.module for f in self.registry), codes)
        try:
            _warn_of_new(codes, self.registry, self.trace)
        except BaseException:  # where warnings are errors, the database is let go
            self.engine.close()
            raise
        self.engine.know([*self.registry, SLEEP], codes)
        self._executor = Executor(self.engine, self.trace, self._clock, self.registry, self._modules)
        self._pool = concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix="retroact-run")
        self._active: dict[RunId, _UnderWay] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._verifier = self._verifying(verify_rate) if verify_rate else None
        self._keeper = self._keeping(retention)
        self.recovered: list[Handle[Any]] = self.recover() if recover else []

    # --- running ---------------------------------------------------------------------------------------------------------

    def run(self, function: Function[P, R] | str, *args: Any, run: str | None = None, **kwargs: Any) -> R:
        """Run a function to completion and return its result; raises what it raised.

        `run` is the id of the run: a second call with the same id does not run it again, it returns the same result.
        """
        found, arguments, bound = self._prepare(function, args, kwargs)
        fresh = run is None
        run_id = new_run_id(self._clock) if run is None else RunId(run)
        if found.kind is Kind.TRANSACTION:
            return self._transact(run_id, found, arguments, bound, fresh=fresh)
        under_way, mine = self._claim(run_id, found.name)
        if not mine:
            return self._future_of(under_way).result()
        start = RunStart(run=run_id, function=found, arguments=arguments, began_us=self._clock.now_us(), bound=bound)
        return self._fulfil(under_way, run_id, lambda: self._once(found, start, fresh=fresh))

    def start(self, function: Function[P, R] | str, *args: Any, run: str | None = None, **kwargs: Any) -> Handle[R]:
        """Start a function in the background. When this returns for a workflow, the run is durable: a crash does not lose it."""
        found, arguments, bound = self._prepare(function, args, kwargs)
        fresh = run is None
        run_id = new_run_id(self._clock) if run is None else RunId(run)
        under_way, mine = self._claim(run_id, found.name)
        future = self._future_of(under_way)
        if mine:
            start = RunStart(run=run_id, function=found, arguments=arguments, began_us=self._clock.now_us(), bound=bound)
            with self._told(under_way, run_id):
                if found.kind is Kind.WORKFLOW and (fresh or self.trace.find_run(run_id) is None):
                    self.engine.begin_run(start)
                    self._submit(under_way, run_id, lambda: self._value(found, run_id, self._executor.run(start, begun=True)))
                elif found.kind is Kind.TRANSACTION:
                    self._submit(under_way, run_id, lambda: self._transact(run_id, found, arguments, bound, fresh=fresh))
                else:
                    self._submit(under_way, run_id, lambda: self._once(found, start, fresh=fresh))
        return Handle(run_id, future, self.cancel)

    def handle(self, run: str) -> Handle[Any]:
        """The handle of a run that was started earlier. Raises UnknownRun, NotFinished."""
        run_id = RunId(run)
        future = self._under_way(run_id)
        if future is None:
            found = self.trace.run(run_id)
            if found.outcome is None:
                raise _not_finished(found)
            self.registry.get(found.function)
            future = cast("Future", concurrent.futures.Future())
            self._tell(future, found)
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

    def vacuum(self) -> str:
        """Write the database anew without its free pages, so that its file shrinks; the past stays open. It takes the writer for as
        long as copying the database takes, and the page log grows by the copy. Returns the id of the run that records it."""
        run = new_run_id(self._clock)
        self._on_sqlite("vacuum").vacuum(run)
        return run

    def migrate(self, migrations: str | Path | Sequence[Migration]) -> tuple[Applied, ...]:
        """Run the migrations of a folder that were not run yet, each as one recorded transaction, and return them.

        Raises BadMigration, MigrationChanged, MigrationFailed; those before the one that failed stand."""
        from retroact.engine.sqlite.migration import migrate, read_folder

        engine = self._on_sqlite("migrate")
        chosen = read_folder(Path(migrations)) if isinstance(migrations, str | Path) else migrations
        return migrate(engine, chosen)

    def compact(self, retention: Retention | None = None, *, dry_run: bool = False) -> Compacted:
        """Drop what `retention` (or else the App's own) does not keep of the past, beside traffic; with `dry_run` only say what that
        would be. A crash meanwhile loses nothing that is kept. The ids of runs stay known: none is run twice."""
        if self._keeper is None:
            raise PastNotKept(what="compact", database=self.path)
        return self._keeper.compact(retention, dry=dry_run)

    def close(self) -> None:
        """Stop background runs at their next call (they go on when the database is opened again) and close the database."""
        if self._closed:
            return
        self._closed = True
        if self._keeper is not None:
            self._keeper.close()
        self._executor.interrupt()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._executor.close()
        if self._verifier is not None:
            with contextlib.suppress(Exception):  # a full disk: the App is closed all the same
                self._catch_up()
            self._verifier.close()
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
        return self.engine.trouble or (None if self._keeper is None else self._keeper.trouble)

    # --- reading ---------------------------------------------------------------------------------------------------------

    def runs(self, *, most: int = 100) -> list[Run]:
        """The newest runs."""
        return self.trace.runs(most=most)

    @functools.cached_property
    def history(self) -> History:
        """The past of the database: `app.history.at(version).query("select ...")`. Raises BeyondHistory."""
        from retroact.engine.sqlite.history import History

        return History(file_of(self.path))

    @property
    def verifications(self) -> Verified:
        """What executing a sample of the transactions a second time has found: see `verify_rate`."""
        if self._verifier is not None:
            return self._verifier.verified
        return self._on_sqlite("verifications").trace.verified() or Verified()

    def verify(self) -> Verified:
        """Execute now what is sampled and waits, and return what was found. Raises BadDeclaration when `verify_rate` is 0."""
        self._on_sqlite("verify")
        if self._verifier is None:
            raise BadDeclaration(function="App", problem="nothing is verified: it was opened without verify_rate")
        self._catch_up()
        return self._verifier.verify()

    def _verifying(self, rate: float) -> Verifier:
        """Verifies what is committed from now on, and what an earlier process left to be verified."""
        from retroact.engine.sqlite.history import History
        from retroact.replay.verifier import Verifier

        engine = self._on_sqlite("verify_rate")
        so_far = engine.trace.verified() or Verified(until=engine.trace.last_version())
        verifier = Verifier(lambda: History(engine.path), engine.keep_verified, rate=rate, clock=self._clock, so_far=so_far)
        verifier.start()
        return verifier

    def export(self, runs: Iterable[str], to: str | Path, options: ExportOptions | None = None) -> Exported:
        """Write runs into one file that can be run again elsewhere. Raises UnknownRun, AlreadyThere, BeyondHistory."""
        from retroact.portable import export

        path = file_of(self.path, "export")
        self._catch_up()
        return export(path, runs, to, options, fallback=self.registry)

    def _keeping(self, retention: Retention | None) -> Keeper | None:
        """Who looks after the past, where it is kept."""
        if not isinstance(self.engine, SqliteEngine):
            return None
        return Keeper(self.engine, self._clock, retention, lambda: new_run_id(self._clock))

    def _on_sqlite(self, what: str) -> SqliteEngine:
        """The engine, for what only one that keeps the past can do. Raises PastNotKept."""
        if not isinstance(self.engine, SqliteEngine):
            raise PastNotKept(what=what, database=self.path)
        return self.engine

    def _past(self) -> History:
        self._catch_up()
        return self.history

    def _catch_up(self) -> None:
        # The page log is some milliseconds behind the writer.
        self.engine.settle()
        if self.engine.historian is not None:
            self.engine.historian.store()

    # --- how -------------------------------------------------------------------------------------------------------------

    def _prepare(self, function: AnyFunction | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[AnyFunction, bytes, Bound]:
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
        return found, arguments, found.schema.decode_arguments(arguments)

    def _transact(self, run: RunId, function: AnyFunction, arguments: bytes, bound: Bound, *, fresh: bool) -> Any:
        invocation = Invocation(run=run, step=ALONE, function=function, arguments=arguments, fresh=fresh, bound=bound)
        ran, _ = self.engine.transact(invocation)
        return self._value(function, run, ran)

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
        under_way, mine = self._claim(run.run, run.function)
        future = self._future_of(under_way)
        if mine and run.state.terminal:
            self._release(under_way, run.run, lambda future: self._tell(future, run))
        elif mine:
            with self._told(under_way, run.run):
                if run.state is not RunState.RUNNING:
                    self._executor.put_back(run.run)
                self._submit(under_way, run.run, lambda: self._value(function, run.run, self._again(run)))
        return Handle(run.run, future, self.cancel)

    def _claim(self, run: RunId, function: str) -> tuple[_UnderWay, bool]:
        """A run that is under way, and whether the caller is to fulfil it: a run id is under way once. Raises WrongFunction."""
        with self._lock:
            present = self._active.get(run)
            if present is None:
                mine = self._active[run] = _UnderWay(function)
                return mine, True
        if present.function != function:
            raise WrongFunction(run=run, recorded=present.function, asked=function)
        return present, False

    def _under_way(self, run: RunId) -> Future | None:
        present = self._active.get(run)
        return None if present is None else self._future_of(present)

    def _future_of(self, under_way: _UnderWay) -> Future:
        """Where the result of a run will be: made when somebody wants to wait for it."""
        with self._lock:
            if under_way.future is None:
                under_way.future = concurrent.futures.Future()
                if under_way.told is not None:
                    under_way.told(under_way.future)
            return under_way.future

    def _tell(self, future: Future, run: Run) -> None:
        """Have a future tell what came of a run that has ended."""
        try:
            future.set_result(self._recorded_result(run))
        except Exception as error:  # noqa: BLE001 - what a run raised is raised again where its result is asked for
            future.set_exception(error)

    def _submit(self, under_way: _UnderWay, run: RunId, work: Callable[[], Any]) -> None:
        """Have a claimed run fulfilled in the background, or told that it was not when the App is closed before its turn."""

        def ended(job: Future) -> None:
            if job.cancelled():
                self._release(under_way, run, lambda future: future.set_exception(RunCancelled(run=run)))

        self._pool.submit(self._fulfil, under_way, run, work).add_done_callback(ended)

    @contextlib.contextmanager
    def _told(self, under_way: _UnderWay, run: RunId) -> Generator[None]:
        """Whoever waits for a claimed run is told when it cannot be begun."""
        try:
            yield
        except BaseException as error:
            raised = error
            self._release(under_way, run, lambda future: future.set_exception(raised))
            raise

    def _fulfil(self, under_way: _UnderWay, run: RunId, work: Callable[[], Any]) -> Any:
        """Do the work of a claimed run, and tell whoever waits for it."""
        try:
            value = work()
        except BaseException as error:
            raised = error
            self._release(under_way, run, lambda future: future.set_exception(raised))
            raise
        self._release(under_way, run, lambda future: future.set_result(value))
        return value

    def _release(self, under_way: _UnderWay, run: RunId, tell: Callable[[Future], None]) -> None:
        with self._lock:
            self._active.pop(run, None)
            under_way.told = tell
            future = under_way.future
        if future is not None:
            tell(future)

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


def _warn_of_new(codes: Mapping[str, Code], registry: Registry, trace: TraceReader | ServerTrace) -> None:
    """Say what lint finds in code that this database does not know yet: reading it takes milliseconds, and once is enough."""
    new = {name: code for name, code in codes.items() if not trace.knows_code(code.hash)}
    if new:
        from retroact.function.lint.warn import warn

        warn(new, registry)


def _must_be_a_rate(rate: float, *, recording: bool) -> None:
    if not 0 <= rate <= 1:
        raise BadDeclaration(function="App", problem=f"verify_rate is a share between 0 and 1, not {rate!r}")
    if rate and not recording:
        raise BadDeclaration(function="App", problem="verify_rate needs the past, and recording=False keeps none")


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
