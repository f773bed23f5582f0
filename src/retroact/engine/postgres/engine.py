"""The Postgres engine: each invocation a transaction of its own, the record in it, conflicts retried, lost connections resolved.

Its decomposition is Execute -> {Order, Validate} -> Persist: bodies run beside one another on their snapshots; SERIALIZABLE finds out at
a statement or at COMMIT whether there is an order that explains them, and one that cannot be is tried again.

Invariants:
  * A recorded invocation is never executed to an effect again: the record's key refuses it, and its effects are rolled back with it.
  * A connection lost during COMMIT is an unknown outcome: the record is asked, and only when it is not there the body is run again,
    whose record then keeps a commit that is still on its way from taking effect beside it.
  * Retries are bounded, and each aborted attempt is in retroact.attempt.
  * What `transact`, `note`, `begin_run` and `end_run` return from is durable, but for what lingers (see `outbox.py`).

This module must not know workflows, replay, nor who calls.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from retroact.decomposition.ordering import Ordering
from retroact.engine.clock import Clock
from retroact.engine.contract import Invocation, Ran, RunEnd, RunStart
from retroact.engine.guard import guard
from retroact.engine.postgres import address
from retroact.engine.postgres.attempts import Attempts, Finished, Lingering, said
from retroact.engine.postgres.lease import Lease
from retroact.engine.postgres.literal import text
from retroact.engine.postgres.outbox import Outbox
from retroact.engine.postgres.patience import Patience
from retroact.engine.postgres.pool import Pool
from retroact.engine.postgres.recorder import Performed, Recorder
from retroact.engine.postgres.session import Session
from retroact.engine.postgres.trace_reader import TraceReader
from retroact.errors import BadArguments, Closed, CommitFailed
from retroact.function.code import Code
from retroact.function.declare import Function
from retroact.trace.record import Outcome, RunId

DECOMPOSITION = Ordering.parse("Execute -> {Order, Validate} -> Persist")


class PostgresEngine:
    """Runs invocations as transactions on one Postgres database. Any number of connections, in one process."""

    def __init__(self, url: str, clock: Clock) -> None:
        """Connect, and set the trace up where it is missing. Raises Unreachable, NoProject, NewerDatabase."""
        self.path = address.shown(url)
        self.clock = clock
        #: The past is not kept on Postgres: there is nobody who would.
        self.historian = None
        self._pool = Pool(url)
        #: Connections for what is none of a transaction's: they are there also when all others are taken.
        self._own = Pool(url, most=2)
        session = address.connect(url)
        try:
            address.set_up(session, url)
            self._lease = Lease(session, url)
        except BaseException:
            session.close()
            raise
        try:
            own = Patience(self._own, clock)
            self._patience = Patience(self._pool, clock)
            self._recorder = Recorder(own, self._lease.number)
            self.trace = TraceReader(self._pool, clock)
            self.trace.process = self._lease.number
            self._pool.on_change = self._lease.renew
            self._outbox = Outbox(lambda texts: own.run(lambda session: _write(session, texts)))
            self._attempts = Attempts(self._pool, clock, self._recorder, self.trace, self._outbox)
        except BaseException:
            self._pool.close()
            self._own.close()
            self._lease.close()
            raise
        self._closed = False
        #: Runs whose beginning rides in a transaction that is under way.
        self._beginning: set[RunId] = set()
        self._lock = threading.Lock()
        guard.install()

    @property
    def commits(self) -> int:
        """Transactions of functions, notes, beginnings and ends committed since the engine was opened."""
        return self._attempts.commits

    @property
    def retries(self) -> int:
        """Attempts that the database aborted, and that were made again."""
        return self._attempts.retries

    @property
    def trouble(self) -> Exception | None:
        """Why records of reads and of aborted attempts cannot be written at the moment, if so. They are kept until they can."""
        return self._outbox.trouble

    def know(self, functions: Sequence[Function[..., Any]], codes: Mapping[str, Code]) -> None:
        """Store the code of functions, by module, so that the past can always be run with it."""
        self._recorder.know(functions, codes)

    def transact(self, invocation: Invocation, *, start: RunStart | None = None, linger: bool = False) -> tuple[Ran, Any]:
        """Run a transaction and record it with its effects; the recorded outcome when it was run before.

        With `linger` it may not be durable yet: the job says whether it was lost.
        """
        self._open(invocation.run)
        if start is None:
            return self._attempts.run(invocation, [], linger=linger)
        with self._lock:
            first = start.run not in self._beginning
            self._beginning.add(start.run)
        if not first:  # two calls of a run that were started beside one another: one brings the beginning along
            self.begin_run(start)
            return self._attempts.run(invocation, [], linger=linger)
        try:
            return self._attempts.run(invocation, [self._recorder.begin(start)], linger=linger)
        finally:
            self._beginning.discard(start.run)

    def note(
        self,
        invocation: Invocation,
        outcome: Outcome,
        began_us: int,
        elapsed_us: int,
        *,
        start: RunStart | None = None,
        linger: bool = False,
    ) -> Any:
        """Record the outcome of what is no transaction: a step, a sleep, a child workflow."""
        self._open()
        begin = [] if start is None else [self._recorder.begin(start)]
        text = self._recorder.record(invocation, outcome, Performed(began_us, elapsed_us), how="retroact_result")
        if linger:
            return self._attempts.linger(Lingering(self._attempts, invocation.run, invocation, [*begin, text]))
        if not self._attempts.write(invocation.run, [*begin, text], invocation.function.name):
            self._must_be(invocation, outcome)
        return Finished()

    def _must_be(self, invocation: Invocation, outcome: Outcome) -> None:
        """A note is there already: ours, whose acknowledgement was lost, or somebody else's. Raises CommitFailed."""
        found = self.trace.outcome(invocation.run, invocation.step)
        if found is None or found[:2] != (invocation.function.name, outcome):
            problem = (
                f"step {invocation.step} of run {invocation.run} is recorded with another outcome: another process works on the same run"
            )
            raise CommitFailed(function=invocation.function.name, problem=problem)

    def begin_run(self, start: RunStart) -> bool:
        """Record that a workflow begins; False when it had begun already. What its run has executed before is durable then."""
        self._open()
        self._attempts.finish_lingering(start.run)
        return self._attempts.write(start.run, [self._recorder.begin(start)], start.function.name) > 0

    def end_run(self, end: RunEnd, start: RunStart | None = None, lingering: Any = None) -> None:
        """Record what became of a workflow. Raises CommitFailed, Superseded when what it rests on was lost."""
        self._open()
        texts = [self._recorder.end(end)] if start is None else [self._recorder.begin(start), self._recorder.end(end)]
        if lingering is None:
            self._attempts.write(end.run, texts, str(end.run), ending=True)
        elif self._outbox.claim(lingering):
            lingering.finish(texts)
        else:
            lingering.wait()
            self._attempts.write(end.run, texts, str(end.run), ending=True)

    def settle(self) -> None:
        """Make everything durable that was executed. Raises CommitFailed."""
        try:
            self._outbox.flush()
        except psycopg.Error as error:
            raise CommitFailed(function="the record of a read", problem=said(error)) from error

    def close(self) -> None:
        """Finish what is under way, and let the connections go."""
        self._closed = True
        with contextlib.ExitStack() as last_first:  # whatever fails on the way, the connections are let go
            last_first.callback(self._lease.close)
            last_first.callback(self._own.close)
            last_first.callback(self._pool.close)
            last_first.callback(self._outbox.close)

    def _open(self, run: RunId | None = None) -> None:
        """Raises Closed, and BadArguments for a run id that Postgres cannot hold."""
        if self._closed:
            raise Closed(path=self.path)
        if run is not None and ("\x00" in run or not run.isascii()):
            try:
                text(run).encode()
            except ValueError as error:
                raise BadArguments(function=f"the run id {run!r}", problem=str(error), signature="text") from None


def _write(session: Session, texts: list[str]) -> None:
    """Several texts in one transaction. When one of them cannot be written, the others are not held up by it."""
    try:
        session.flight(";".join(texts).encode())
    except psycopg.Error:
        if session.broken or len(texts) == 1:
            raise
        for text in texts:
            session.flight(text.encode())
