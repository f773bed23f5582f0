"""A replay with somebody looking on: stopped where a guide wants it, and taken back by a statement or by a transaction.

The transactions are replayed as ever, in the order in which their snapshots were taken; the bodies of their workflows run beside
them, so that a transaction is executed below the very line of the workflow that called it. Going back is running again: a transaction
is taken back and executed anew from its snapshot up to the statement asked for, and workflows are brought to where they were with
every call answered from the record. Both are exact, because a replay does the same again.

Bodies run on threads of this module's, one at a time; whoever guides may stop any of them for as long as it likes.

This module must not know how a guide shows what it sees, nor what it is asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Protocol

from retroact.engine.clock import monotonic
from retroact.engine.contract import Branch, History, Watcher
from retroact.errors import LoadFailed, SourceMissing
from retroact.function.kind import Kind
from retroact.replay.divergence import Verdict
from retroact.replay.replayer import Replayed, Replayer, Report, WorkflowReplayed, chosen_records, report_on
from retroact.replay.shelf import Shelf
from retroact.replay.stage import Call
from retroact.replay.workflows import Rehearsal
from retroact.trace.record import Record, Run, RunId


class Unwound(BaseException):
    """Unwinds the bodies that are under way: the play goes on elsewhere, or not at all."""


@dataclasses.dataclass(frozen=True, slots=True)
class GoTo:
    """Where a guide wants the play to go on: before a statement of a transaction (1: its first line)."""

    transaction: int
    statement: int = 1


class Leave:
    """The guide has seen enough."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A transaction that is about to be executed."""

    record: Record
    #: Its place among the transactions of the play, from 0, and how many they are.
    place: int
    total: int
    #: Go on silently until this statement is about to be executed; 1: stop at its first line.
    until: int


class Guide(Watcher, Protocol):
    """Looks on, and says where to go: it raises what `Session.go` or `Session.leave` gives it."""

    def thread_begins(self) -> None:
        """This thread is about to run a body: follow it."""
        ...

    def workflow(self, run: Run) -> None:
        """The body of a workflow is about to begin, or to begin again."""
        ...

    def transaction(self, scene: Scene) -> None:
        """A transaction is about to be executed, or executed again."""
        ...

    def answered(self, call: Call, record: Record) -> None:
        """A step, or another call that is no transaction, was answered from the record."""
        ...

    def replayed(self, replayed: Replayed) -> None:
        """A transaction has been replayed."""
        ...

    def workflow_replayed(self, replayed: WorkflowReplayed) -> None:
        """A workflow has been replayed."""
        ...


class Session:
    """One replay of some runs, guided."""

    def __init__(self, history: History, shelf: Shelf, runs: Sequence[RunId], guide: Guide) -> None:
        """Raises UnknownRun."""
        self.history = history
        self._shelf = shelf
        self._guide = guide
        self._runs = [history.trace.run(run) for run in runs]
        records = chosen_records(history, runs)
        self.records = [record for record in records if record.kind == Kind.TRANSACTION.value]
        self._answered = len(records) - len(self.records)
        self._replayer = Replayer(history, shelf)
        self._rehearsals: dict[RunId, Rehearsal] = {}
        self._done: dict[int, Replayed] = {}
        self._workflows: dict[RunId, WorkflowReplayed] = {}
        self._wish: GoTo | Leave | None = None
        #: What was handed out to be raised, while it has not been.
        self.wished: Unwound | None = None
        #: The transaction that is being executed, or that comes next.
        self.place = 0
        #: Whether its body is under way.
        self.executing = False
        #: Bodies are brought to where they were, or taken away: nothing is to be stopped.
        self.silent = False
        self.left = False

    # --- what a guide asks for -----------------------------------------------------------------------------------------------

    def go(self, to: GoTo) -> Unwound:
        """Go on there: raise what this returns, on the thread of the body."""
        self._wish, self.silent, self.wished = to, True, Unwound()
        return self.wished

    def leave(self) -> Unwound:
        """End the play: raise what this returns, on the thread of the body."""
        self._wish, self.silent, self.wished = Leave(), True, Unwound()
        return self.wished

    def state(self) -> Branch:
        """The state that the transaction under way sees, with its own writes; outside of one, what the last one left."""
        if self.executing:
            return self._replayer.at(self.records[self.place].snapshot)
        if self.place:
            last = self.records[self.place - 1]
            return self._replayer.at(max(last.snapshot, last.version) if last.changes else last.snapshot)
        if self.records:
            return self._replayer.at(self.records[0].snapshot)
        return self._replayer.at(self.history.trace.last_version())

    @contextlib.contextmanager
    def aside(self) -> Generator[None]:
        """While this lasts, what the connection of the transaction under way is asked is not the transaction's."""
        with self.state().aside() if self.executing else contextlib.nullcontext():
            yield

    # --- the play ------------------------------------------------------------------------------------------------------------

    def play(self) -> Report:
        """Replay to the end, or until the guide leaves. Raises DamagedTrace, DamagedPage, BeyondHistory."""
        began = monotonic()
        if self.records:
            versions = [record.version for record in self.records]
            self.history.trace.verify(min(versions) - 1, max(versions))
        to: GoTo | None = None
        try:
            while True:
                try:
                    self._pass(to)
                except Unwound:
                    if not isinstance(self._wish, GoTo):
                        self.left = True
                        break
                    to = self._granted(self._wish)
                else:
                    break
                finally:
                    self._close_rehearsals()
        finally:
            self._replayer.close()
        done = [self._done[place] for place in sorted(self._done)]
        report = report_on(done, answered=self._answered, seconds=monotonic() - began)
        return dataclasses.replace(report, workflows=tuple(self._workflows[run.run] for run in self._runs if run.run in self._workflows))

    def _pass(self, to: GoTo | None) -> None:
        """From the beginning to the end; silently up to where the guide wants to go."""
        first = to.transaction if to is not None else 0
        self._done = {place: replayed for place, replayed in self._done.items() if place < first}
        self._workflows = {}
        self.silent = to is not None
        for place, record in enumerate(self.records):
            self.place = place
            rehearsal = self._brought_on(record)
            if place >= first:
                self.silent = False
                self._execute(place, record, rehearsal, to.statement if to is not None and place == first else 1)
            self.place = place + 1
            self._answer(record, rehearsal)
        self.silent = False
        for run in self._runs:
            self._begin(run)
        self._end_rehearsals()

    def _brought_on(self, record: Record) -> Rehearsal | None:
        """The workflow of a transaction, come to where it waits for it."""
        run = next((run for run in self._runs if record.run == run.run or record.run.startswith(f"{run.run}.")), None)
        return self._begin(run) if run is not None else None

    def _begin(self, run: Run) -> Rehearsal | None:
        if run.kind != Kind.WORKFLOW.value or run.run in self._workflows:
            return None
        if run.run not in self._rehearsals:
            try:
                rehearsal = Rehearsal(self.history.trace, self._shelf, run, self._told)
            except (SourceMissing, LoadFailed) as error:
                self._workflows[run.run] = WorkflowReplayed(run=run, verdict=Verdict.RECORDED_RESULTS, reason=str(error))
                return None
            self._rehearsals[run.run] = rehearsal
            self._guide.workflow(run)
            rehearsal.settle()
            self._unless_unwound()
        return self._rehearsals[run.run]

    def _told(self, call: Call, record: Record) -> None:
        if call.invocation.function.kind is not Kind.TRANSACTION:
            self._guide.answered(call, record)

    def _answer(self, record: Record, rehearsal: Rehearsal | None) -> None:
        call = _call_for(record, rehearsal)
        if rehearsal is not None and call is not None:
            rehearsal.answer(call)
            rehearsal.settle()
            self._unless_unwound()

    def _execute(self, place: int, record: Record, rehearsal: Rehearsal | None, until: int) -> None:
        call = _call_for(record, rehearsal)
        while True:
            self._guide.transaction(Scene(record=record, place=place, total=len(self.records), until=until))
            replayed = self._carried_out(record, rehearsal if call is not None else None)
            if isinstance(self._wish, GoTo) and self._wish.transaction == place:
                until = self._granted(self._wish).statement
                self.silent = False
                continue
            self._unless_unwound()
            assert replayed is not None, "what was not unwound has a verdict"
            self._done[place] = replayed
            self._guide.replayed(replayed)
            return

    def _carried_out(self, record: Record, rehearsal: Rehearsal | None) -> Replayed | None:
        """Replay a transaction: on the thread of the workflow that waits for it, else on one of its own."""
        outcome: list[Replayed | BaseException] = []

        def carry_out() -> None:
            self._guide.touched = False
            self.executing = True
            try:
                self._guide.thread_begins()
                outcome.append(self._replayer.transaction(record, self._guide))
            except BaseException as error:  # noqa: BLE001 - raised again on the thread that directs
                outcome.append(error)
            finally:
                self.executing = False

        if rehearsal is not None:
            rehearsal.player(record.run).have_done(carry_out)
        else:
            _on_a_thread(carry_out, f"retroact-{record.run}")
        (done,) = outcome
        if isinstance(done, Replayed):
            return done
        if not isinstance(done, Unwound):
            raise done
        return None

    def meanwhile(self, place: int) -> tuple[Record, ...]:
        """What others had changed since the transaction before a transaction of the same run."""
        record = self.records[place]
        before = next((r for r in reversed(self.records[:place]) if r.run == record.run), None)
        if before is None:
            return ()
        between = self.history.trace.records_between(before.version, record.snapshot)
        return tuple(r for r in between if r.run != record.run and r.changes)

    def _granted(self, wish: GoTo) -> GoTo:
        self._wish = self.wished = None
        return wish

    def _unless_unwound(self) -> None:
        if self._wish is not None:
            raise Unwound

    def _end_rehearsals(self) -> None:
        for run, rehearsal in self._rehearsals.items():
            if run not in self._workflows:
                self._workflows[run] = rehearsal.verdict()
                self._guide.workflow_replayed(self._workflows[run])

    def _close_rehearsals(self) -> None:
        self.silent = True
        for rehearsal in self._rehearsals.values():
            rehearsal.close()
        self._rehearsals.clear()


def _call_for(record: Record, rehearsal: Rehearsal | None) -> Call | None:
    """The call of a workflow that a record is of, if the workflow waits for it."""
    pending: Iterable[Call] = rehearsal.pending() if rehearsal is not None else ()
    return next((c for c in pending if (c.invocation.run, c.invocation.step) == (record.run, record.step)), None)


def _on_a_thread(work: Callable[[], None], name: str) -> None:
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    thread.join()
