"""The SQLite engine: one writer with group commit, readers on snapshots beside it, the record in the transaction of its effects.

Its decomposition is {Order, Validate} -> Execute -> Persist: taking the write lock puts a transaction after all others and keeps every
conflicting one out; then it executes; the shared fsync persists its group.

Invariants:
  * A recorded invocation is never executed again: the record's uniqueness refuses it, and its effects are rolled back with it.
  * A body that raises leaves nothing but its aborted record.
  * What `transact`, `note`, `begin_run` and `end_run` return from is durable (but see `linger` in `writer.py`).

This module must not know workflows, replay, nor who calls.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import apsw

from retroact.decomposition.ordering import Ordering
from retroact.engine.attempt import Executed, execute, transaction_scope
from retroact.engine.clock import Clock, monotonic
from retroact.engine.contract import Invocation, Ran, RunEnd, RunStart
from retroact.engine.guard import guard
from retroact.engine.sqlite.checkpointer import Checkpointer
from retroact.engine.sqlite.connection import Shapes, SqliteConnection
from retroact.engine.sqlite.database import check_file, create_trace, open_reader, open_writer
from retroact.engine.sqlite.historian import Historian
from retroact.engine.sqlite.lock import WriterLock
from retroact.engine.sqlite.queries import queries
from retroact.engine.sqlite.recorder import Performed, Recorder
from retroact.engine.sqlite.scribe import Note
from retroact.engine.sqlite.trace_reader import TraceReader
from retroact.engine.sqlite.vacuum import announce
from retroact.engine.sqlite.verified import keep
from retroact.engine.sqlite.writer import Job, Writer
from retroact.errors import CommitFailed, WrongFunction
from retroact.function.code import Code
from retroact.function.declare import Function
from retroact.function.given import given
from retroact.trace.record import Outcome, RunId, Version
from retroact.trace.verification import Verification, Verified

T = TypeVar("T")
DECOMPOSITION = Ordering.parse("{Order, Validate} -> Execute -> Persist")


class SqliteEngine:
    """Runs invocations as transactions on one SQLite file. One process has one engine on a file."""

    def __init__(self, path: Path, clock: Clock, *, recording: bool = True) -> None:
        """Open or create the database. Raises DatabaseBusy, NotADatabase, NewerDatabase, NoProject."""
        self.path = path
        self.clock = clock
        self._lock = WriterLock(path)
        check_file(path)
        self._lock.acquire()
        try:
            self._database = open_writer(path)
            self.historian = Historian(path, self._database, self._lock.descriptor) if recording else None
            self._checkpointer = Checkpointer(self._database, path, self._before_copy)
            create_trace(self._database)
            self._recorder = Recorder(self._database)
            self._connection = SqliteConnection(self._database, self._recorder.shapes)
            self.trace = TraceReader(path)
        except BaseException:
            self._lock.release()
            raise
        #: The commit to come changes more than rows.
        self._schema_moved = False
        #: What is to be done between two groups, each with where its result goes.
        self._chores: collections.deque[tuple[Callable[[], Any], concurrent.futures.Future[Any]]] = collections.deque()
        self._readers: collections.deque[SqliteConnection] = collections.deque()
        self._last_version = queries()["last_version"]
        self._writer = Writer(self._database, path=str(path), on_commit=self._committed, on_loss=self._lost, maintain=self._maintain)
        guard.install()
        given.install()

    @property
    def commits(self) -> int:
        """Database transactions committed since the engine was opened."""
        return self._writer.commits

    @property
    def trouble(self) -> Exception | None:
        """Why the page log or the WAL cannot be looked after, if so (a full disk, ...). Nothing is lost: the WAL is kept until it can."""
        return self._checkpointer.trouble or (self.historian.trouble if self.historian is not None else None)

    def know(self, functions: Sequence[Function[..., Any]], codes: Mapping[str, Code]) -> None:
        """Store the code of functions, by module, so that the past can always be run with it."""
        self._writer.submit(lambda: self._recorder.know(functions, codes), "know").result()

    def transact(self, invocation: Invocation, *, start: RunStart | None = None, linger: bool = False) -> tuple[Ran, Job[Any] | None]:
        """Run a transaction and record it with its effects; the recorded outcome when it was run before.

        With `linger` it may not be durable yet: the job says whether it was lost (see `writer.py`).
        """
        if invocation.function.options.read_only and start is None:
            return self._read(invocation), None
        job = self._writer.submit(lambda: self._attempt(invocation, start), invocation.function.name, linger=linger)
        return job.result() or self._recorded(invocation), job

    def note(
        self,
        invocation: Invocation,
        outcome: Outcome,
        began_us: int,
        elapsed_us: int,
        *,
        start: RunStart | None = None,
        linger: bool = False,
    ) -> Job[Any]:
        """Record the outcome of what is no transaction: a step, a sleep, a child workflow."""

        def work() -> None:
            if start is not None:
                self._recorder.start_run(start)
            self._recorder.insert(invocation, outcome, Performed(began_us, elapsed_us))

        job = self._writer.submit(work, invocation.function.name, linger=linger)
        job.result()
        return job

    def begin_run(self, start: RunStart) -> bool:
        """Record that a workflow begins; False when it had begun already."""
        return self._writer.submit(lambda: self._recorder.start_run(start), start.function.name).result()

    def end_run(self, end: RunEnd, start: RunStart | None = None, lingering: Job[Any] | None = None) -> None:
        """Record what became of a workflow. Raises CommitFailed when what it rests on was lost."""

        def work() -> None:
            if lingering is not None and lingering.error is not None:
                raise CommitFailed(function=lingering.name, problem=str(lingering.error))
            self._recorder.end_run(end, start)

        self._writer.submit(work, str(end.run)).result()

    def keep_verified(self, verified: Verified, found: Sequence[Verification]) -> None:
        """Store what verification has found, with the next group."""
        new = tuple(found)
        self._writer.post(lambda: keep(self._database, verified, new), "verification")

    def settle(self) -> None:
        """Make everything durable that was executed."""
        self._writer.settle()

    def between_groups(self, work: Callable[[], T]) -> T:
        """Do what cannot be done inside a transaction: on the writer's connection, between two groups. Raises what it raises."""
        done = cast("concurrent.futures.Future[T]", concurrent.futures.Future())
        self._chores.append((work, done))
        self._writer.submit(lambda: None, "maintenance").result()
        return done.result()

    def in_transaction(self, work: Callable[[Recorder], T], name: str) -> T:
        """Do some upkeep of the trace in the transaction of the next group, with its recorder. Raises what it raises, CommitFailed."""
        return self._writer.submit(lambda: work(self._recorder), name).result()

    def vacuum(self, run: RunId) -> None:
        """Write the database anew without its free pages, recorded as a run. Raises apsw.Error (a full disk); nothing is lost then."""
        self.between_groups(lambda: self._vacuum(run))

    def close(self) -> None:
        """Finish what is under way, store the page log, and let the file go."""
        with contextlib.ExitStack() as last_first:  # whatever fails on the way, the file is let go
            last_first.callback(self._lock.release)
            last_first.callback(self._database.close)
            if self.historian is not None:
                last_first.callback(self.historian.close)
            last_first.callback(self.trace.close)
            last_first.callback(self._close_readers)
            self._writer.close()

    def _close_readers(self) -> None:
        while self._readers:
            self._readers.pop().database.close()

    # --- inside the writer's transaction ---------------------------------------------------------------------------------

    def _attempt(self, invocation: Invocation, start: RunStart | None) -> Ran | None:
        """Execute, order, validate and record one transaction; None when the record shows that it was run before."""
        database, connection, recorder = self._database, self._connection, self._recorder
        began_us = self.clock.now_us()
        began = monotonic()
        database.execute("savepoint attempt")
        try:
            connection.begin(invocation.function.name, began_us, invocation.seed, read_only=invocation.function.options.read_only)
            executed = execute(invocation, connection, transaction_scope(invocation, connection), connection.describe)
            self._still_open()
            committed = executed.error is None
            if not committed:
                database.execute("rollback to attempt")
            if start is not None:
                recorder.start_run(start)
            elapsed_us = int((monotonic() - began) * 1e6)
            if connection.schema_changed:
                recorder.relations.forget()
                recorder.shapes.known.clear()
                self._schema_moved = True
                self._writer.cut()
            row_notes = connection.row_notes if committed else None
            schema = committed and connection.schema_changed
            recorder.insert(invocation, executed.outcome, Performed(began_us, elapsed_us, None, connection.notes, row_notes, schema))
            database.execute("release attempt")
        except apsw.ConstraintError:
            database.execute("rollback to attempt")
            database.execute("release attempt")
            return None
        except BaseException:
            if not database.get_autocommit():
                database.execute("rollback to attempt")
                database.execute("release attempt")
                self._lost()
            raise
        return Ran(outcome=executed.outcome, error=executed.error, ended_us=began_us + elapsed_us)

    def _still_open(self) -> None:
        """Raises the error by which SQLite has rolled back the whole group."""
        if self._database.get_autocommit():
            raise self._connection.lost or apsw.AbortError("a statement has rolled back the transaction")

    def _committed(self) -> None:
        if self.historian is not None:
            note = Note(self._checkpointer.frames, self._recorder.version, self.clock.now_us(), self._schema_moved)
            self.historian.committed(note)
        self._schema_moved = False

    def _maintain(self) -> None:
        while self._chores:
            work, done = self._chores.popleft()
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - whoever asked for it is told
                done.set_exception(error)
        self._checkpointer.maintain()

    def _vacuum(self, run: RunId) -> None:
        database = self._database
        database.execute("begin immediate")
        try:
            announce(self._recorder, run, self.clock.now_us())
            database.execute("commit")
        except BaseException:
            if not database.get_autocommit():
                database.execute("rollback")
            self._lost()
            raise
        # The page log hears of both at once: it must not offer the state between them as the one that the record left.
        try:
            database.execute("vacuum")
        finally:
            self._schema_moved = True
            self._committed()
            self._checkpointer.soon()  # only then does the file become shorter

    def _lost(self) -> None:
        self._recorder.reload()
        self._connection.shapes = self._recorder.shapes

    def _before_copy(self) -> None:
        if self.historian is not None:
            self.historian.store()

    # --- beside the writer -----------------------------------------------------------------------------------------------

    def _recorded(self, invocation: Invocation) -> Ran:
        found = self.trace.outcome(invocation.run, invocation.step)
        if found is None:
            workflow = self.trace.run(invocation.run).function
            raise WrongFunction(run=invocation.run, recorded=workflow, asked=invocation.function.name)
        name, outcome = found
        if name != invocation.function.name:
            raise WrongFunction(run=invocation.run, recorded=name, asked=invocation.function.name)
        return Ran(outcome=outcome)

    def _read(self, invocation: Invocation) -> Ran:
        """Run a read-only transaction on a snapshot of its own. Its record rides with the next group: whatever its workflow records
        later is in the same group or a later one, and before a workflow acts on the outside world it settles what it has read."""
        if not invocation.fresh and self.trace.outcome(invocation.run, invocation.step) is not None:
            return self._recorded(invocation)
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = self._open_reader()
        began_us = self.clock.now_us()
        began = monotonic()
        database = connection.database
        database.execute("begin")
        try:
            snapshot = Version(database.execute(self._last_version).get or 0)
            connection.begin(invocation.function.name, began_us, invocation.seed, read_only=True)
            executed = execute(invocation, connection, transaction_scope(invocation, connection), connection.describe)
        finally:
            if not database.get_autocommit():
                database.execute("rollback")
        elapsed_us = int((monotonic() - began) * 1e6)
        work = self._recording(invocation, executed, Performed(began_us, elapsed_us, snapshot, connection.notes))
        self._readers.append(connection)
        self._writer.post(work, invocation.function.name)
        return Ran(outcome=executed.outcome, error=executed.error, ended_us=began_us + elapsed_us)

    def _open_reader(self) -> SqliteConnection:
        return SqliteConnection(open_reader(self.path), Shapes({}))

    def _recording(self, invocation: Invocation, executed: Executed, performed: Performed) -> Callable[[], None]:
        def work() -> None:
            adopted = [(self._recorder.shapes.adopt(note[0]), *note[1:]) for note in performed.notes]
            try:
                self._recorder.insert(invocation, executed.outcome, performed._replace(notes=adopted))
            except apsw.ConstraintError:
                return  # two callers with one id: the first record stands

        return work
