"""One transaction at a time: run the body, record it, commit; again when another was in the way or the connection was lost.

A transaction is three round trips for a body of two statements: BEGIN with the first, the second, the record with COMMIT. A body that
raises is rolled back and its record written in the same round trip. `Lingering` is one whose last flight waits for a workflow's end.

This module must not know runs, workflows, nor who waits for an outcome.
"""

from __future__ import annotations

import collections
import contextlib
import random
import threading
from collections.abc import Generator
from typing import Any, NamedTuple

import psycopg

from retroact.engine.attempt import Executed, execute, transaction_scope
from retroact.engine.clock import Clock, monotonic
from retroact.engine.contract import Invocation, Ran, Superseded
from retroact.engine.postgres.connection import Moment, PostgresConnection
from retroact.engine.postgres.outbox import Outbox
from retroact.engine.postgres.patience import Patience, Waiting
from retroact.engine.postgres.pool import Pool
from retroact.engine.postgres.recorder import Performed, Recorder
from retroact.engine.postgres.session import STALE, Session
from retroact.engine.postgres.trace_reader import TraceReader
from retroact.errors import CommitFailed, Contended, OutcomeUnknown, Unreachable, WrongFunction
from retroact.function.declare import Function
from retroact.function.kind import Isolation
from retroact.trace.record import ALONE, Outcome, RunId

#: Serialization failures and deadlocks: another transaction was in the way, and nothing happened.
CONFLICTS = frozenset({"40001", "40P01"})
#: Attempts at one transaction. From the third on, those of one function queue up instead of getting in one another's way.
MOST_ATTEMPTS = 100
_QUEUE_FROM = 3
#: The longest wait before another attempt, in microseconds.
_LONGEST_US = 20_000
_BEGIN = {
    Isolation.SERIALIZABLE: b"begin isolation level serializable;",
    Isolation.REPEATABLE_READ: b"begin isolation level repeatable read;",
    Isolation.READ_COMMITTED: b"begin isolation level read committed;",
}
_BEGIN_READING = {isolation: begin.replace(b";", b" read only;") for isolation, begin in _BEGIN.items()}
#: COMMIT answers nothing else, so what a read saw is kept in a setting until after it.
_READ = b"select set_config('retroact.seen', pg_current_snapshot()::text, false);commit;select current_setting('retroact.seen')"
#: What waits to be written and belongs to no run.
_NOBODY = RunId("")


class Finished:
    """A job that is done."""

    error: None = None

    def result(self) -> None:
        """Nothing went wrong."""

    def wait(self) -> None:
        """There is nothing to wait for."""


class _Conflict(Exception):
    """Another transaction was in the way."""

    def __init__(self, error: psycopg.Error, performed: Performed) -> None:
        super().__init__(str(error))
        self.error = error
        self.performed = performed


class _Stale(Exception):
    """What a connection had prepared no longer fits the schema. Nothing happened."""


class _Lost(Exception):
    """The connection is gone. `sent`: COMMIT was on its way."""

    def __init__(self, error: Exception, *, sent: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.sent = sent


class _Recorded(Exception):
    """The record is there already."""


class _Executed(NamedTuple):
    """A body that was executed, and what is still to be sent."""

    ran: Ran
    #: Before the record's text, and after it.
    before: bytes
    after: bytes
    record: str
    performed: Performed
    committed: bool


class Attempts:
    """Transactions on the connections of a pool."""

    def __init__(self, pool: Pool, clock: Clock, recorder: Recorder, trace: TraceReader, outbox: Outbox) -> None:
        self.pool = pool
        self.clock = clock
        self.recorder = recorder
        self.outbox = outbox
        self.commits = 0
        self.retries = 0
        self._trace = trace
        self._patience = Patience(pool, clock)
        self._chance = random.Random(0)
        self._queues: dict[Function[..., Any], threading.Lock] = collections.defaultdict(threading.Lock)
        self._lingering: dict[RunId, Lingering] = {}

    # --- transactions --------------------------------------------------------------------------------------------------------

    def run(self, invocation: Invocation, begin: list[str], *, linger: bool) -> tuple[Ran, Any]:
        """Run a transaction to its outcome; with `begin`, the beginning of its run rides along."""
        function = invocation.function
        reads = function.options.read_only
        if reads and not invocation.fresh and self._trace.outcome(invocation.run, invocation.step) is not None:
            return self.recorded(invocation), (Finished() if begin else None)
        waiting = Waiting(self.clock)
        unknown = stale = False
        attempt = 1
        with contextlib.ExitStack() as queued:
            while True:
                try:
                    return self._once(invocation, begin, attempt, linger=linger, stale=stale)
                except _Conflict as conflict:
                    self._told(invocation, conflict)
                    attempt += 1
                    if attempt > MOST_ATTEMPTS:
                        raise Contended(function=function.name, attempts=MOST_ATTEMPTS, problem=said(conflict.error)) from conflict.error
                    if attempt == _QUEUE_FROM:
                        queued.enter_context(self._queues[function])
                    self._wait(attempt)
                except _Recorded:
                    return self.recorded(invocation), (Finished() if begin or not reads else None)
                except _Stale:
                    stale = True
                except (_Lost, Unreachable) as lost:
                    unknown = unknown or (isinstance(lost, _Lost) and lost.sent)
                    found = self._after_loss(invocation, lost, waiting, unknown=unknown)
                    if found is not None:
                        return found, (Finished() if begin or not reads else None)
                    unknown = False

    def _once(self, invocation: Invocation, begin: list[str], attempt: int, *, linger: bool, stale: bool) -> tuple[Ran, Any]:
        session = self.pool.take()
        kept = False
        try:
            executed = self._execute(session, invocation, attempt, stale=stale)
            if invocation.function.options.read_only:
                return self._finish_read(session, invocation, executed, begin)
            if linger and executed.committed:
                kept = True
                job = Lingering(self, invocation.run, invocation, [*begin, executed.record], session=session, executed=executed)
                return executed.ran, self.linger(job)
            try:
                self._commit(session, invocation.run, [*begin, executed.record], executed)
            except psycopg.Error as error:
                executed = self._refused(session, invocation, error, executed.performed)
                self._commit(session, invocation.run, [*begin, executed.record], executed)
            return executed.ran, Finished()
        except psycopg.Error as error:
            raise CommitFailed(function=invocation.function.name, problem=said(error)) from error
        finally:
            if not kept:
                self.pool.give_back(session)

    def _execute(self, session: Session, invocation: Invocation, attempt: int, *, stale: bool) -> _Executed:
        """Run the body. Raises _Conflict, _Lost, and _Stale unless it has done so before."""
        function = invocation.function
        options = function.options
        began_us = self.clock.now_us()
        began = monotonic()
        begins = (_BEGIN_READING if options.read_only else _BEGIN)[options.isolation]
        connection = PostgresConnection(session, function.name, begins, Moment(began_us, invocation.seed), self.recorder.shape_of)
        executed = execute(invocation, connection, transaction_scope(invocation, connection), connection.describe)
        elapsed_us = int((monotonic() - began) * 1e6)
        performed = Performed(began_us, elapsed_us, attempt, connection.notes, _seen(session, executed))
        if connection.fault is not None:
            raise connection.fault
        error = connection.lost or executed.error
        if session.broken:
            raise _Lost(error or psycopg.OperationalError("the connection is gone"), sent=False)
        if isinstance(error, psycopg.Error):
            if error.sqlstate in CONFLICTS:
                raise _Conflict(error, performed)
            if error.sqlstate in STALE and not stale and _forget(session):
                raise _Stale
        return self._said(invocation, executed, performed, begun=connection.begun and not session.idle, failed=session.failed)

    def _said(self, invocation: Invocation, executed: Executed, performed: Performed, *, begun: bool, failed: bool) -> _Executed:
        """What is to be sent for a body that was executed."""
        committed = executed.error is None
        ran = Ran(outcome=executed.outcome, error=executed.error, ended_us=performed.began_us + performed.elapsed_us)
        if committed and not failed:
            record = "" if invocation.function.options.read_only else self.recorder.record(invocation, executed.outcome, performed)
            return _Executed(ran, b"", b";commit" if begun else b"", record, performed, committed=True)
        record = self.recorder.record(invocation, executed.outcome, performed, how="retroact_result")
        return _Executed(ran, b"rollback;" if begun else b"", b"", record, performed, committed=False)

    def _commit(self, session: Session, run: RunId, texts: list[str], executed: _Executed) -> None:
        """Send the last flight. Raises _Conflict, _Recorded, _Lost, psycopg.Error."""
        reads = self.outbox.take(run)
        try:
            session.flight(executed.before + ";".join([*reads, *texts]).encode() + executed.after)
            reads = []
            self.commits += 1
        except psycopg.Error as error:
            if session.broken:
                raise _Lost(error, sent=True) from error
            session.rollback()
            if error.sqlstate in CONFLICTS:
                raise _Conflict(error, executed.performed) from error
            if is_guard(error):
                raise _Recorded from error
            raise
        finally:
            self.outbox.put_back(run, reads)

    def _refused(self, session: Session, invocation: Invocation, error: psycopg.Error, performed: Performed) -> _Executed:
        """What was deferred until COMMIT (a constraint, a trigger) has failed there: that is the body's outcome. Raises the error when it
        is none of the body's."""
        if session.broken or error.sqlstate is None or error.sqlstate[:2] not in ("23", "P0"):
            raise error
        connection = PostgresConnection(session, invocation.function.name, b"", Moment(0, ""), self.recorder.shape_of)
        executed = Executed(Outcome(failure=connection.describe(error)), error)
        return self._said(invocation, executed, performed, begun=False, failed=True)

    def _finish_read(self, session: Session, invocation: Invocation, executed: _Executed, begin: list[str]) -> tuple[Ran, Any]:
        """End a read. Its record comes later, unless the beginning of its run waits for something to ride with."""
        seen: str | None = None
        if executed.committed and executed.after:
            try:
                seen = session.loaded(session.flight(_READ), tuple)[0][0]
            except psycopg.Error as error:
                if session.broken:
                    raise _Lost(error, sent=False) from error
                session.rollback()
                if error.sqlstate in CONFLICTS:
                    raise _Conflict(error, executed.performed) from error
                raise
        else:
            session.rollback()
        performed = executed.performed._replace(snapshot=seen)
        record = self.recorder.record(invocation, executed.ran.outcome, performed, how="retroact_read")
        if not begin:
            self.outbox.post(invocation.run, record)
            return executed.ran, None
        self.write(invocation.run, [*begin, record], invocation.function.name)
        return executed.ran, Finished()

    # --- when it does not go well ----------------------------------------------------------------------------------------------

    def recorded(self, invocation: Invocation) -> Ran:
        """The recorded outcome of an invocation. Raises WrongFunction."""
        found = self._trace.outcome(invocation.run, invocation.step)
        if found is None:
            found = self._trace.outcome(invocation.run, ALONE)
            recorded = found[0] if found else "another function"
            raise WrongFunction(run=invocation.run, recorded=recorded, asked=invocation.function.name)
        name, outcome, opens = found
        if opens or name != invocation.function.name:
            raise WrongFunction(run=invocation.run, recorded=name, asked=invocation.function.name)
        return Ran(outcome=outcome)

    def _told(self, invocation: Invocation, conflict: _Conflict) -> None:
        """Record an attempt that was aborted: it is written beside everything else."""
        self.retries += 1
        text = self.recorder.attempt(invocation, conflict.performed, conflict.error, conflict.error.sqlstate)
        self.outbox.post(_NOBODY, text)

    def _wait(self, attempt: int) -> None:
        """Let the other be done: not at all at first, then longer and longer, and never all for the same time."""
        if attempt >= _QUEUE_FROM:
            longest = min(500 * 2 ** min(attempt - _QUEUE_FROM, 10), _LONGEST_US)
            self.clock.wait_until(self.clock.now_us() + int(self._chance.random() * longest), threading.Event())

    def _after_loss(self, invocation: Invocation, lost: Exception, waiting: Waiting, *, unknown: bool) -> Ran | None:
        """The connection is gone: wait for the server, and when a COMMIT was on its way look whether it arrived. None: run it again.

        Raises OutcomeUnknown, Unreachable."""
        self.pool.drop_free()
        problem = said(lost.error if isinstance(lost, _Lost) else lost)
        if not waiting.once():
            if unknown:
                raise OutcomeUnknown(function=invocation.function.name, run=invocation.run, problem=problem) from lost
            raise lost if isinstance(lost, Unreachable) else CommitFailed(function=invocation.function.name, problem=problem)
        if not unknown:
            return None
        try:
            found = self._trace.outcome(invocation.run, invocation.step)
        except Unreachable as error:
            raise OutcomeUnknown(function=invocation.function.name, run=invocation.run, problem=problem) from error
        return None if found is None else self.recorded(invocation)

    # --- what is no transaction of a function ------------------------------------------------------------------------------------

    def write(self, run: RunId, texts: list[str], name: str, *, ending: bool = False) -> int:
        """Write texts of the trace in a transaction of their own, and what its run has read before; how many rows the last one wrote.

        What is there already is left as it is. Raises CommitFailed."""
        reads = self.outbox.take(run)

        def work(session: Session) -> int:
            return session.flight(";".join([*reads, *texts]).encode()).command_tuples or 0

        try:
            written = self._patience.run(work)
            reads = []
            self.commits += 1
            return written
        except psycopg.Error as error:
            if is_guard(error):
                return self._rest(texts) if ending or len(texts) > 1 else 0
            raise CommitFailed(function=name, problem=said(error)) from error
        finally:
            self.outbox.put_back(run, reads)

    def _rest(self, texts: list[str]) -> int:
        """One of several texts is written already: each by itself, then."""
        written = 0
        for text in texts:
            try:
                written = self._patience.run(lambda session, text=text: session.flight(text.encode()).command_tuples or 0)
            except psycopg.Error as error:
                if not is_guard(error):
                    raise CommitFailed(function="the trace", problem=said(error)) from error
                written = 0
        return written

    def linger(self, job: Lingering) -> Lingering:
        """Keep a job open for the end of its run to ride with."""
        self._lingering[job.run] = job
        self.outbox.linger(job)
        return job

    def finish_lingering(self, run: RunId) -> None:
        """Commit what a run has left open, and wait until it is."""
        job = self._lingering.get(run)
        if job is None:
            return
        if self.outbox.claim(job):
            job.tend()
        with contextlib.suppress(Exception):  # whoever asks the job is told
            job.wait()

    def let_go(self, job: Lingering) -> None:
        """A job that lingered is done."""
        if self._lingering.get(job.run) is job:
            del self._lingering[job.run]

    def send(self, session: Session, run: RunId, texts: list[str], executed: _Executed) -> None:
        """The last flight of a job that lingered. Raises _Conflict, _Recorded, _Lost, psycopg.Error."""
        self._commit(session, run, texts, executed)


class Lingering:
    """The last call of a workflow, executed and not committed: the workflow's end rides with it, or the tender commits it.

    When it cannot be committed because another transaction was in the way, it is executed again; only if that gives another result must
    the workflow's body be run again from its record (`Superseded`).
    """

    def __init__(
        self,
        attempts: Attempts,
        run: RunId,
        invocation: Invocation,
        texts: list[str],
        *,
        session: Session | None = None,
        executed: _Executed | None = None,
    ) -> None:
        self.run = run
        self.error: BaseException | None = None
        self._attempts = attempts
        self._invocation = invocation
        self._texts = texts
        #: The transaction that is open; None for a step's result, which needs none until it is written.
        self._session = session
        self._executed = executed
        self._done = threading.Event()

    def result(self) -> None:
        """Raises why it was lost, if it was."""
        if self.error is not None:
            raise self.error

    def wait(self) -> None:
        """Wait until it is committed. Raises why it was lost, if it was."""
        self._done.wait()
        self.result()

    def tend(self) -> None:
        """Nobody brought the end: commit without it. Raises nothing; `error` tells."""
        with contextlib.suppress(Exception):
            self.finish([])

    def finish(self, more: list[str]) -> None:
        """Commit, with more texts in the same transaction. Called once, by whoever has claimed the job. Raises why it was lost."""
        try:
            self._finish(more)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self._attempts.let_go(self)
            self._done.set()

    def _finish(self, more: list[str]) -> None:
        if self._session is None or self._executed is None:
            self._attempts.write(self.run, [*self._texts, *more], self._invocation.function.name, ending=bool(more))
            return
        session, executed = self._session, self._executed
        try:
            with self._giving_back(session):
                self._attempts.send(session, self.run, [*self._texts, *more], executed)
            return
        except (_Conflict, _Lost, _Recorded):
            again, job = self._attempts.run(self._invocation, self._texts[:-1], linger=bool(more))
        except psycopg.Error as error:
            raise CommitFailed(function=self._invocation.function.name, problem=said(error)) from error
        if again.outcome != executed.ran.outcome:
            if isinstance(job, Lingering) and self._attempts.outbox.claim(job):
                job.tend()
            raise Superseded(self.run)
        if not more:
            return
        if isinstance(job, Lingering) and self._attempts.outbox.claim(job):
            job.finish(more)
        else:
            self._attempts.write(self.run, more, self._invocation.function.name, ending=True)

    @contextlib.contextmanager
    def _giving_back(self, session: Session) -> Generator[None]:
        try:
            yield
        finally:
            self._attempts.pool.give_back(session)


def is_guard(error: psycopg.Error) -> bool:
    """Whether it is the trace's own key that refused a row: what it stands for has happened."""
    return error.sqlstate == "23505" and error.diag.schema_name == "retroact"


def said(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _seen(session: Session, executed: Executed) -> str | None:
    """What a body saw that raised while its transaction could still be asked. When it commits, its record says so itself."""
    if executed.error is None or session.broken or session.idle or session.failed:
        return None
    try:
        return session.rows("select pg_current_snapshot()::text")[0][0]
    except psycopg.Error:
        return None


def _forget(session: Session) -> bool:
    """Drop what is prepared, so that it is prepared anew; whether that went well."""
    session.rollback()
    try:
        session.forget()
    except psycopg.Error:
        return False
    return True
