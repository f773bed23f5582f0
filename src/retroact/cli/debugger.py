"""pdb on the past: the standard debugger, with commands that ask the state a transaction saw, and that step back.

It stops at the first line of each function, shows the recorded code, and steps through the project's own code only. Whatever is asked
at the prompt is aside: it is none of the replayed transaction's statements and leaves nothing behind.

This module must not know how a transaction is executed again.
"""

from __future__ import annotations

import contextlib
import inspect
import pdb
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Protocol, TextIO, TypeVar

from retroact.cli.desk import Desk
from retroact.cli.sights import Glance, Sights
from retroact.engine.contract import Branch, Watched
from retroact.errors import RetroactError
from retroact.function.declare import Function
from retroact.replay.places import Places, of_project
from retroact.replay.replayer import Replayed, Report, WorkflowReplayed
from retroact.replay.session import GoTo, Scene, Session, Unwound
from retroact.replay.stage import Call
from retroact.trace.record import Record, Run

T = TypeVar("T")
PROMPT = "(retroact) "
_OURS = """
Of this debugger (`help COMMAND` says more):
  sql SELECT ...     ask the state that the transaction sees, its own writes included
  statement          go on to the next SQL statement, and stop before it
  statements         the statements so far, with their results
  back               back by one statement
  back transaction   back to the first line of the transaction before
  who                who wrote the rows that it has read
  trace              where this is in the trace
  change SQL         change the state under the transaction, to see what it would do

`conn` may be asked at the prompt, too: conn.rows("select ...") is then none of the transaction's statements.
Of pdb, and as ever: n(ext), s(tep), r(eturn), c(ontinue), b(reak), l(ist), ll, w(here), u(p), d(own), p, pp, q(uit).
"""


class Guided(Protocol):
    """What is looked into: a replay, or one schedule that is performed."""

    @property
    def silent(self) -> bool: ...
    @property
    def executing(self) -> bool: ...
    @property
    def place(self) -> int: ...
    def go(self, to: GoTo, /) -> Unwound: ...
    def leave(self) -> Unwound: ...
    def state(self) -> Branch: ...
    def aside(self) -> contextlib.AbstractContextManager[None]: ...


S = TypeVar("S", bound=Guided)
G = TypeVar("G", bound=Glance)


class Prompt(pdb.Pdb, Generic[S, G]):
    """Stops where it is wanted in what is guided, and asks there."""

    session: S
    _sights: G
    #: What `help` tells.
    _ours = _OURS

    def __init__(self, places: Places, *, stdin: TextIO | None = None, stdout: TextIO | None = None, readrc: bool = True) -> None:
        super().__init__(stdin=stdin, stdout=stdout, nosigint=True, readrc=readrc)
        self.prompt = PROMPT
        self.touched = False
        self.desk = Desk(self._interrupt)
        self._places = places
        self._wish: Unwound | None = None
        self._made: list[Watched] = []
        self._to_statement = False
        #: Stop at the first line of the next function, whether or not it is one of the places.
        self._to_beginning = False
        self._until = 1
        self._interrupted = False
        self._at: Watched | None = None
        self.reset()
        self.botframe: FrameType | None = inspect.currentframe()  # no body's frame, so that nothing ever stops there
        self.set_continue()

    def _serve(self, play: Callable[[], T]) -> T:
        """Play, and ask; returns what the play comes to."""
        before = threading.gettrace()
        threading.settrace(self.trace_dispatch)
        try:
            return self.desk.serve(play)
        finally:
            threading.settrace(before)

    # --- what the session tells ----------------------------------------------------------------------------------------------

    def thread_begins(self) -> None:
        """Follow the bodies that this thread runs."""
        sys.settrace(self.trace_dispatch)

    def _begin(self, until: int) -> None:
        """A transaction begins, or begins again, up to a statement."""
        self._made, self._at, self._until = [], None, until
        self._to_statement = False

    def asks(self) -> bool:
        """The prompt says so by itself."""
        return False

    def before(self, statement: Watched) -> None:
        """A statement is about to be executed."""
        reached = self._until > 1 and statement.number >= self._until
        if self.session.silent or not (reached or (self._to_statement and self._until == 1)):
            return
        self._until, self._to_statement = 1, False
        frame = inspect.currentframe()
        while frame is not None and not of_project(frame):
            frame = frame.f_back
        if frame is not None:
            self._at = statement
            self._sights.stopped()
            self._sights.before(statement)
            self.interaction(frame, None)

    def after(self, statement: Watched) -> None:
        """A statement has been executed."""
        self._made.append(statement)
        self._at = None

    def _end(self) -> None:
        """A transaction has ended."""
        if self._until > 1:
            self.message(f"statement {self._until} was not reached: the body did something else this time")
            self._until = 1

    # --- when to stop --------------------------------------------------------------------------------------------------------

    @property
    def _hushed(self) -> bool:
        return self.session.silent or self._until > 1

    def dispatch_call(self, frame: FrameType, arg: Any) -> Any:
        """Follow the project's frames; stop at the first line of those that were asked for."""
        if not of_project(frame):
            return None
        if not self._hushed:
            if self._places.begins(frame, every=self._to_beginning):
                self._to_beginning = False
                self.set_step()
            elif self.stop_here(frame) and not frame.f_code.co_flags & inspect.CO_COROUTINE:
                self.user_call(frame, arg)
        return self.trace_dispatch

    def dispatch_line(self, frame: FrameType) -> Any:
        """Stop where it was asked for, or where Ctrl-C came."""
        if self._interrupted and of_project(frame) and not self._hushed:
            self._interrupted = False
            self.set_step()
        return super().dispatch_line(frame)

    def stop_here(self, frame: FrameType) -> bool:
        """Never in the platform, never while the play is brought to where it was."""
        return of_project(frame) and not self._hushed and super().stop_here(frame)

    def break_here(self, frame: FrameType) -> bool:
        """The user's own breakpoints."""
        return not self._hushed and super().break_here(frame)

    def user_return(self, frame: FrameType, return_value: Any) -> None:
        """A function returns."""
        if not self._hushed:
            super().user_return(frame, return_value)

    def user_exception(self, frame: FrameType, exc_info: Any) -> None:
        """Something was raised; what unwinds a body is none of its own."""
        if not issubclass(exc_info[0], Unwound):
            super().user_exception(frame, exc_info)

    def set_continue(self) -> None:
        """Go on to what is to be stopped at. Tracing stays on: the next function is to be seen."""
        self._set_stopinfo(self.botframe, None, -1)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def interaction(self, frame: FrameType | None, traceback: Any) -> None:
        """Ask at the prompt, on the main thread, and do what was wished."""
        if self._hushed:
            return
        self._to_statement = False
        self._sights.stopped()
        ask = super().interaction

        def prompt() -> None:
            with self.session.aside():
                ask(frame, traceback)

        self.desk.ask(prompt)
        wish, self._wish = self._wish, None
        if wish is not None:
            raise wish

    def _interrupt(self) -> None:
        self._interrupted = True

    # --- what is shown -------------------------------------------------------------------------------------------------------

    def get_stack(self, f: FrameType | None, t: Any) -> tuple[list[tuple[FrameType, int]], int]:
        """The frames of the project: the transaction below the line of the workflow that called it."""
        stack, _ = super().get_stack(f, t)
        stack = [entry for entry in stack if of_project(entry[0])] or stack[-1:]
        return stack, len(stack) - 1

    def format_stack_entry(self, frame_lineno: tuple[FrameType, int], lprefix: str = ": ") -> str:
        """Files as seen from here."""
        return super().format_stack_entry(frame_lineno, lprefix).replace(f"{Path.cwd()}/", "", 1)

    # --- commands ------------------------------------------------------------------------------------------------------------

    def do_sql(self, arg: str) -> None:
        """sql SELECT ...

        Ask the state that the transaction sees, with what it has written so far; in a workflow, the state that
        the last transaction left. It only reads, and is not one of the transaction's statements.
        """
        if not arg:
            self.error("give a query: sql select * from ...")
            return
        try:
            self._sights.rows(*self.session.state().look(arg))
        except RetroactError as error:
            self.error(str(error.details.get("problem", error)))

    def do_statement(self, _arg: str) -> bool | None:
        """st(atement)

        Go on to the next SQL statement of a transaction, and stop before it is executed. `sql` then shows the
        state as the statement will find it; `statement` again executes it.
        """
        self._to_statement = True
        self.set_continue()
        return True

    do_st = do_statement

    def do_statements(self, _arg: str) -> None:
        """statements

        What the transaction has done so far: each statement with its parameters and its result.
        """
        if not self._in_transaction():
            return
        self._sights.statements(self._made, self._at)

    def do_back(self, arg: str) -> bool | None:
        """back
        back transaction

        Go back by one statement: the transaction is taken back and executed again from the state that it saw, up
        to before the statement that it has just executed. With `transaction`: to the first line of the transaction
        before this one.
        """
        place, made = self.session.place, len(self._made)
        if arg and not "transaction".startswith(arg):
            self.error("it is `back` or `back transaction`")
            return None
        if not arg and self.session.executing:
            to = GoTo(place, made) if made else GoTo(place)
            if not made and self._is_first_line():
                self.error("this is the beginning of the transaction; `back transaction` goes to the one before")
                return None
        elif place == 0:
            self.error("there is no transaction before this")
            return None
        else:
            to = GoTo(place - 1)
        self._wish = self.session.go(to)
        self._to_beginning = to.statement == 1
        self.set_continue()
        return True

    def do_trace(self, _arg: str) -> None:
        """trace

        Where this is: the transactions in the order in which they are executed, with what came of them.
        """
        self._sights.trace()

    def do_where(self, arg: str) -> None:
        """w(here)
        where in the trace

        The functions that are under way, the innermost last. `where in the trace` is `trace`.
        """
        if arg.strip() == "in the trace":
            self.do_trace("")
        elif arg:
            self.error("it is `where` or `where in the trace`")
        else:
            self.print_stack_trace()

    do_w = do_bt = do_where

    def do_quit(self, arg: str) -> bool | None:  # noqa: ARG002 - what pdb passes
        """q(uit)

        Leave. What has been replayed by now is reported.
        """
        self._wish = self.session.leave()
        return True

    do_q = do_exit = do_quit

    def do_EOF(self, arg: str) -> bool | None:  # noqa: N802 - the name that pdb gives it
        """EOF

        Ctrl-D leaves, as `quit` does.
        """
        self.message("")
        return self.do_quit(arg)

    def do_jump(self, arg: str) -> None:  # noqa: ARG002 - what pdb passes
        """j(ump)

        Not here: a body that jumps does what it did not do. `back` goes back.
        """
        self.error("a replayed body does not jump: it would do what it did not do. `back` goes back by a statement")

    do_j = do_jump

    def do_run(self, arg: str) -> None:  # noqa: ARG002 - what pdb passes
        """restart

        Not here: `back transaction` goes back.
        """
        self.error("`back transaction` goes back by a transaction; leave and call the command again to begin anew")

    do_restart = do_run

    def do_break(self, arg: str, temporary: Any = 0) -> Any:
        """b(reak) [ ([filename:]lineno | function) [, condition] ]

        Stop there, too. A function is named as in the code.
        """
        name, comma, condition = arg.partition(",")
        found = self.curframe.f_globals.get(name.strip()) if self.curframe else None
        if isinstance(found, Function):
            arg = f"{name.strip()}.body{comma}{condition}"
        return super().do_break(arg, temporary)

    do_b = do_break

    def do_help(self, arg: str) -> Any:
        """h(elp) [COMMAND]

        What can be done here.
        """
        command = getattr(self, f"do_{arg.strip()}", None) if arg else None
        if arg and command is None:
            return super().do_help(arg)
        self.message(inspect.getdoc(command) or "" if command else self._ours.strip("\n"))
        return None

    do_h = do_help

    # --- how -----------------------------------------------------------------------------------------------------------------

    def _in_transaction(self) -> bool:
        if not self.session.executing:
            self.error("no transaction is under way here: this is the body of a workflow")
        return self.session.executing

    def _is_first_line(self) -> bool:
        frame = self.curframe
        if frame is None:
            return False
        first = next((line for _, _, line in frame.f_code.co_lines() if line and line > frame.f_code.co_firstlineno), None)
        return frame.f_lineno == first and frame.f_code in self._places.functions


class Debugger(Prompt[Session, Sights]):
    """Guides a session from a prompt."""

    def run_session(self, session: Session) -> Report:
        """Play a session; returns its report."""
        self.session = session
        self._sights = Sights(session, self.message)
        return self._serve(session.play)

    # --- what the session tells ----------------------------------------------------------------------------------------------

    def workflow(self, run: Run) -> None:
        """A workflow begins."""
        if not self.session.silent:
            self._sights.workflow(run)

    def transaction(self, scene: Scene) -> None:
        """A transaction begins, or begins again."""
        self._begin(scene.until)
        self._sights.transaction(scene)

    def answered(self, call: Call, record: Record) -> None:
        """A call was answered from the record."""
        if not self.session.silent:
            self._sights.answered(call, record)

    def replayed(self, replayed: Replayed) -> None:
        """A transaction has been replayed."""
        self._end()
        self._sights.replayed(replayed)

    def workflow_replayed(self, replayed: WorkflowReplayed) -> None:
        """A workflow has been replayed."""
        self._sights.workflow_replayed(replayed)

    # --- commands ------------------------------------------------------------------------------------------------------------

    def do_who(self, _arg: str) -> None:
        """who

        Who wrote the rows that the transaction has read so far: the run, the function and the version that last
        changed each of them.
        """
        if self._in_transaction():
            self._sights.who(self._made, self.session.records[self.session.place])

    def do_change(self, arg: str) -> None:
        """change SQL

        Change the state under the transaction that is under way, to see what it would do then. The transaction is no
        longer compared, and what it recorded is taken for what follows. `back` takes the change back.
        """
        if not self._in_transaction():
            return
        try:
            count = self.session.state().touch(arg)
        except RetroactError as error:
            self.error(str(error.details.get("problem", error)))
            return
        self.touched = True
        self.message(f"{count} {'row' if count == 1 else 'rows'} changed by hand; this transaction is no longer compared")
