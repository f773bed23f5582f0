"""Runs workflows to completion: new ones, and from their record those that were interrupted.

Invariants:
  * The start of a workflow is written with the first thing it does, its end with the last when that can be foreseen: a workflow of
    three transactions costs three commits.
  * A run that stops short of an outcome (a crash, a fault of the platform, a cancellation) keeps its record and can go on from it.
  * When a workflow fails, what it had committed is compensated in reverse, each compensation a recorded call like any other.

This module must not know which engine it works on, nor the command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Coroutine, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from retroact.engine.clock import Clock
from retroact.engine.contract import Invocation, Ran, RunEnd, RunStart, Superseded
from retroact.errors import CodeChanged, EngineFault, MisplacedCall, RunCancelled, UnknownFunction
from retroact.function.context import enter, leave
from retroact.function.declare import Function, Options
from retroact.function.kind import Kind
from retroact.function.registry import Registry
from retroact.trace.failure import describe, revive
from retroact.trace.record import ALONE, Outcome, Record, Run, RunId, RunState, StepNumber
from retroact.workflow.compensation import compensate
from retroact.workflow.scope import SLEEP_NAME, Answer, Cancelled, WorkflowScope
from retroact.workflow.step import StepRunner

if TYPE_CHECKING:
    from retroact.workflow.loop import Loop

AnyFunction = Function[..., Any]


def _sleep(until_us: int) -> None:
    """Durable sleep: the record says when it ends."""
    raise NotImplementedError(until_us)


#: The function that a durable sleep is recorded as. Its argument is how long; its result, until when.
SLEEP: AnyFunction = Function(_sleep, Kind.STEP, Options(), name=SLEEP_NAME)


class Engine(Protocol):
    """What the executor needs of an engine."""

    def transact(self, invocation: Invocation, *, start: RunStart | None = None, linger: bool = False) -> tuple[Ran, Any]: ...
    def note(
        self,
        invocation: Invocation,
        outcome: Outcome,
        began_us: int,
        elapsed_us: int,
        *,
        start: RunStart | None = None,
        linger: bool = False,
    ) -> Any: ...
    def begin_run(self, start: RunStart) -> bool: ...
    def end_run(self, end: RunEnd, start: RunStart | None = None, lingering: Any = None) -> None: ...
    def settle(self) -> None: ...


class Trace(Protocol):
    """What the executor needs of the trace."""

    def find_run(self, run: RunId) -> Run | None: ...
    def records_of(self, run: RunId) -> list[Record]: ...


@dataclasses.dataclass(slots=True)
class _Progress:
    """What is still to be written of one run."""

    run: RunStart
    #: The run's start has been written. Until that is known it rides with whatever is written: a job may be lost, with its start.
    begun: bool
    #: Read-only transactions so far, and up to which of them the records are durable: they ride with what is written next.
    reads: int = 0
    settled: int = 0
    #: The job of the last call, when it was left open for the run's end to ride with.
    lingering: Any = None
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    @property
    def start(self) -> RunStart | None:
        """The start, as long as it is to be written."""
        return None if self.begun else self.run

    def wrote(self, reads: int) -> None:
        """Something was made durable that was written after so many reads."""
        with self.lock:
            self.begun, self.settled = True, max(self.settled, reads)

    def read(self) -> None:
        """The record of a read-only transaction waits for something to ride with."""
        with self.lock:
            self.reads += 1

    @property
    def loose(self) -> bool:
        """Whether a crash would forget something that the body knows."""
        return not self.begun or self.settled < self.reads


class Executor:
    """Carries out workflows on an engine, with the functions of a registry."""

    def __init__(self, engine: Engine, trace: Trace, clock: Clock, registry: Registry, modules: Mapping[str, ModuleType]) -> None:
        self._engine = engine
        self._trace = trace
        self._clock = clock
        self._registry = registry
        self._modules = modules
        self._loop: Loop | None = None
        self._loop_lock = threading.Lock()
        self._steps = StepRunner(clock, self._run_async)
        self._scopes: dict[RunId, tuple[WorkflowScope, _Progress]] = {}
        #: Runs that are to stop at their next call, also those that are yet to begin.
        self._cancelled: set[RunId] = set()
        self._interrupted = False
        #: How many calls the last run of a workflow made, by fingerprint: its end is foreseen after so many.
        self._lengths: dict[AnyFunction, int] = {}
        self._carriers: dict[Kind, Callable[[WorkflowScope, _Progress, Invocation], Answer]] = {
            Kind.TRANSACTION: self._transact,
            Kind.STEP: self._step,
            Kind.WORKFLOW: self._child,
            Kind.INVARIANT: self._refuse,
        }

    def run(
        self, start: RunStart, *, recorded: list[Record] | None = None, begun: bool = False, cancelled: threading.Event | None = None
    ) -> Ran:
        """Execute a workflow to its outcome and record it. `cancelled` is its parent's: they stop together.

        Raises CodeChanged when it does not agree with its record, UnknownFunction when it calls what is not registered, RunCancelled,
        and EngineFault when the database failed.
        """
        while True:
            try:
                return self._run(start, recorded, begun=begun, cancelled=cancelled)
            except Superseded:
                recorded, begun = self._trace.records_of(start.run), self._trace.find_run(start.run) is not None

    def _run(self, start: RunStart, recorded: list[Record] | None, *, begun: bool, cancelled: threading.Event | None) -> Ran:
        records = {int(record.step): record for record in recorded or ()}
        scope = WorkflowScope(start.run, start.function, self, records, start.began_us)
        scope.resumed = recorded is not None
        scope.cancelled = cancelled or scope.cancelled
        progress = _Progress(run=start, begun=begun)
        self._scopes[start.run] = (scope, progress)
        if self._interrupted or start.run in self._cancelled:
            scope.cancelled.set()
        try:
            return self._outcome(scope, progress, start)
        except Cancelled:
            if start.run in self._cancelled and not progress.begun:
                self._put_aside(progress, RunState.CANCELLED, "cancelled")
            self._rest(progress)
            raise RunCancelled(run=start.run) from None
        except (CodeChanged, UnknownFunction) as fault:
            self._put_aside(progress, RunState.STOPPED, str(fault))
            raise
        except BaseException:
            self._rest(progress)
            raise
        finally:
            del self._scopes[start.run]
            self._cancelled.discard(start.run)

    def is_running(self, run: RunId) -> bool:
        """Whether a run is being executed now."""
        return run in self._scopes

    def cancel(self, run: RunId) -> None:
        """Record that a run is cancelled; if it is running, or about to, it stops at its next call."""
        self._cancelled.add(run)
        self._engine.end_run(RunEnd(run=run, state=RunState.CANCELLED, ended_us=self._clock.now_us(), reason="cancelled"))
        running = self._scopes.get(run)
        if running is not None:
            running[0].cancelled.set()

    def put_aside(self, run: RunId, reason: str) -> None:
        """Record that a run cannot go on, and why."""
        self._engine.end_run(RunEnd(run=run, state=RunState.STOPPED, ended_us=None, reason=reason))

    def put_back(self, run: RunId) -> None:
        """Record that a run that was cancelled or stopped goes on."""
        self._cancelled.discard(run)
        self._engine.end_run(RunEnd(run=run, state=RunState.RUNNING, ended_us=None))

    def step_alone(self, start: RunStart, *, in_doubt: bool) -> Ran:
        """Carry out a step that was asked for outside of a workflow: at least once, recorded when it has answered. `in_doubt`: it
        may have been carried out before, under the same run id."""
        invocation = Invocation(run=start.run, step=ALONE, function=start.function, arguments=start.arguments)
        inquiry = self._registry.inquiry_of(start.function)
        carried = self._steps.carry_out(invocation, inquiry, in_doubt=in_doubt, interrupt=threading.Event())
        self._engine.note(invocation, carried.outcome, start.began_us, carried.ended_us - start.began_us)
        return Ran(outcome=carried.outcome, error=carried.error, ended_us=carried.ended_us)

    def interrupt(self) -> None:
        """Stop all runs at their next call, without recording anything: they go on when the database is opened again."""
        self._interrupted = True
        for scope, _ in list(self._scopes.values()):
            scope.cancelled.set()

    def close(self) -> None:
        """Let the event loop go."""
        if self._loop is not None:
            self._loop.close()

    # --- the Carrier that scopes ask ---------------------------------------------------------------------------------------

    def carry_out(self, scope: WorkflowScope, invocation: Invocation) -> Answer:
        """Do what was called and record it. Raises UnknownFunction."""
        if invocation.function is not SLEEP:
            self._registry.must_have(invocation.function)
        _, progress = self._scopes[scope.run]
        try:
            self._catch_up(progress)
            return self._carriers[invocation.function.kind](scope, progress, invocation)
        except MisplacedCall:
            raise
        except Exception as fault:  # what a body raises comes back as an outcome; this was the platform
            scope.fault = fault
            raise

    def _catch_up(self, progress: _Progress) -> None:
        """A call was foreseen to be the last and was not: make it durable before the next. Raises CommitFailed."""
        lingering, progress.lingering = progress.lingering, None
        if lingering is not None:
            self._engine.begin_run(progress.run)  # its commit holds all that was executed before
            lingering.result()

    def revive(self, outcome: Outcome, run: RunId) -> Exception:
        """The exception that a recorded failure stands for."""
        assert outcome.failure is not None, "only a failure is revived"
        return revive(outcome.failure, run, self._modules)

    def sleep_invocation(self, scope: WorkflowScope, step: StepNumber, seconds: float) -> Invocation:
        """A sleep is recorded when it begins, with the time at which it ends; so a crash does not start it anew."""
        recorded = scope.recorded.get(step)
        known = recorded.arguments.encode() if recorded is not None and recorded.function == SLEEP_NAME else None
        until = known or SLEEP.schema.encode_arguments((self._clock.now_us() + int(seconds * 1e6),), {})
        return Invocation(run=scope.run, step=step, function=SLEEP, arguments=until)

    def _run_async(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        """Run a coroutine to its end. Raises TimeoutError after `timeout` seconds."""
        from retroact.workflow.loop import Loop  # noqa: PLC0415 - programs without `async def` do not pay for asyncio

        with self._loop_lock:
            if self._loop is None:
                self._loop = Loop()
        return self._loop.run(coroutine, timeout)

    # --- one run -------------------------------------------------------------------------------------------------------------

    def _outcome(self, scope: WorkflowScope, progress: _Progress, start: RunStart) -> Ran:
        error: Exception | None = None
        try:
            try:
                value = self._body(scope, start)
            finally:
                scope.settle()
            outcome = Outcome(value=start.function.schema.encode_result(value).decode())
        except Exception as raised:  # noqa: BLE001 - whatever a workflow raises is its outcome, but a fault of the platform
            error = raised
            outcome = Outcome(failure=describe(raised))
        if scope.fault is not None:
            raise scope.fault
        if scope.unwound is not None:
            raise scope.unwound
        reason = compensate(scope, self._registry) if error is not None else None
        scope.check_complete()
        self._lengths[start.function] = scope.calls
        state = RunState.COMMITTED if outcome.committed else RunState.ABORTED
        ended_us = self._clock.now_us()
        end = RunEnd(run=start.run, state=state, outcome=outcome, reason=reason, ended_us=ended_us)
        self._engine.end_run(end, progress.start, progress.lingering)
        return Ran(outcome=outcome, error=error, ended_us=ended_us)

    def _body(self, scope: WorkflowScope, start: RunStart) -> Any:
        args, kwargs = start.function.schema.decode_arguments(start.arguments)
        if start.function.is_async:
            return self._run_async(_entered(scope, start.function, args, kwargs))
        token = enter(scope)
        try:
            return start.function.body(*args, **kwargs)
        finally:
            leave(token)

    def _rest(self, progress: _Progress) -> None:
        """A run stops without an outcome: make durable what it did, so that whoever goes on with it at once finds all of it."""
        if progress.begun:
            with contextlib.suppress(EngineFault):
                self._engine.begin_run(progress.run)

    def _put_aside(self, progress: _Progress, state: RunState, reason: str) -> None:
        if not progress.begun:
            self._begin(progress)
        self._engine.end_run(RunEnd(run=progress.run.run, state=state, ended_us=None, reason=reason))

    # --- one call ------------------------------------------------------------------------------------------------------------

    def _foreseen(self, scope: WorkflowScope, invocation: Invocation) -> bool:
        """Whether this call is expected to be the last of its run."""
        return self._lengths.get(scope.function) == invocation.step == scope.calls

    def _transact(self, scope: WorkflowScope, progress: _Progress, invocation: Invocation) -> Answer:
        linger = self._foreseen(scope, invocation)
        reads = progress.reads
        ran, job = self._engine.transact(invocation, start=progress.start, linger=linger)
        if job is None:
            progress.read()
            return ran
        progress.wrote(reads)
        if linger:
            progress.lingering = job
        return ran

    def _step(self, scope: WorkflowScope, progress: _Progress, invocation: Invocation) -> Answer:
        began_us = self._clock.now_us()
        if invocation.function is SLEEP:
            return self._sleep(scope, progress, invocation, began_us)
        if progress.loose:
            self._begin(progress)  # before the outside world hears of it, so that nobody asks it twice without knowing
        inquiry = self._registry.inquiry_of(invocation.function)
        carried = self._steps.carry_out(invocation, inquiry, in_doubt=scope.resumed, interrupt=scope.cancelled)
        linger = self._foreseen(scope, invocation)
        job = self._engine.note(invocation, carried.outcome, began_us, carried.ended_us - began_us, linger=linger)
        if linger:
            progress.lingering = job
        return carried

    def _begin(self, progress: _Progress) -> None:
        """Make durable that the run has begun, and all that it has read."""
        reads = progress.reads
        self._engine.begin_run(progress.run)
        progress.wrote(reads)

    def _sleep(self, scope: WorkflowScope, progress: _Progress, invocation: Invocation, began_us: int) -> Answer:
        (until_us,), _ = SLEEP.schema.decode_arguments(invocation.arguments)
        reads = progress.reads
        self._engine.note(invocation, Outcome(value="null"), began_us, until_us - began_us, start=progress.start)
        progress.wrote(reads)
        return self.wait_out(scope, until_us)

    def wait_out(self, scope: WorkflowScope, until_us: int) -> Ran:
        """Wait until the time that a sleep is recorded to end at."""
        if self._clock.wait_until(until_us, scope.cancelled):
            raise Cancelled
        return Ran(outcome=Outcome(value="null"), ended_us=until_us)

    def _child(self, scope: WorkflowScope, progress: _Progress, invocation: Invocation) -> Answer:
        """A workflow called by a workflow: a run of its own, named after the call, whose outcome is the call's."""
        if not progress.begun:
            self._begin(progress)
        began_us = self._clock.now_us()
        child = RunId(f"{scope.run}.{invocation.step}")
        present = self._trace.find_run(child) if scope.resumed else None
        if present is not None and present.state.terminal and present.outcome is not None:
            ran = Ran(outcome=present.outcome, ended_us=present.ended_us or began_us)
        else:
            own = RunStart(
                run=child,
                function=invocation.function,
                arguments=invocation.arguments,
                began_us=present.began_us if present else began_us,
                parent=scope.run,
                parent_step=invocation.step,
            )
            records = self._trace.records_of(child) if present else None
            ran = self._run_child(scope, own, records)
        self._engine.note(invocation, ran.outcome, began_us, ran.ended_us - began_us)
        return ran

    def _run_child(self, scope: WorkflowScope, start: RunStart, records: list[Record] | None) -> Ran:
        try:
            return self.run(start, recorded=records, begun=records is not None, cancelled=scope.cancelled)
        except RunCancelled:
            raise Cancelled from None
        except (CodeChanged, UnknownFunction) as fault:
            scope.fault = fault
            raise

    def _refuse(self, scope: WorkflowScope, _progress: _Progress, invocation: Invocation) -> Answer:
        raise MisplacedCall(
            inner=invocation.function.name,
            inner_kind=invocation.function.kind.value,
            outer=scope.function.name,
            outer_kind="workflow",
            remedy="An invariant is checked by the platform; read what you need in a @transaction.",
        )


async def _entered(scope: WorkflowScope, function: AnyFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    enter(scope)
    return await function.body(*args, **kwargs)
