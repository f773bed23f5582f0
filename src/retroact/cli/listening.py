"""`retroact replay --listen`: the same stops in an editor, through debugpy.

The debugger does its work on the thread of the body that it has stopped: evaluates expressions there, and waits. So whoever asks the
connection is found out by looking down the stack, and the guard lets through what is not the body's.

This module must not know how a transaction is executed again, nor what an editor shows.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import threading
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from retroact.cli.desk import Desk
from retroact.cli.failure import BadRequest
from retroact.cli.output import note, out
from retroact.cli.sights import Sights
from retroact.engine.attempt import execute
from retroact.engine.contract import Watched
from retroact.engine.guard import guard
from retroact.errors import RetroactError
from retroact.replay.places import Places, of_project
from retroact.replay.replayer import Replayed, Report, WorkflowReplayed
from retroact.replay.session import GoTo, Scene, Session
from retroact.replay.stage import Call
from retroact.trace.record import Record, Run

#: Only this machine is listened to: whoever may connect may run anything.
_HERE = ("127.0.0.1", "localhost")
_PORTS = range(65536)
#: What the functions of a session are called in an editor's console.
CONSOLE = "debug"


def address(text: str) -> tuple[str, int]:
    """HOST:PORT, PORT or HOST. Raises BadRequest."""
    host, _, port = text.rpartition(":") if ":" in text else ("", "", text) if text.isdigit() else (text, "", "5678")
    host = host or _HERE[0]
    if host not in _HERE:
        problem = f"--listen {text}: whoever connects to a debugger may run anything, so only this machine is listened to"
        raise BadRequest(problem=problem, remedy="Use 127.0.0.1:PORT, and from another machine a tunnel (ssh -L)")
    if not port.isdigit() or int(port) not in _PORTS:
        raise BadRequest(problem=f"--listen {text}: {port!r} is no port", remedy="Give HOST:PORT, such as 127.0.0.1:5678")
    return _HERE[0], int(port)


class Listener:
    """Guides a session from an editor."""

    def __init__(self, at: tuple[str, int], places: Places) -> None:
        """Raises BadRequest when debugpy is missing."""
        self.touched = False
        self.session: Session
        self._debugpy = _debugpy()
        self._pydevd: Any = None
        self._folder = str(Path(self._debugpy.__file__ or "").parent)
        self._address = at
        self._places = places
        self._sights: Sights
        self._made: list[Watched] = []
        self._until = 1
        self._to_beginning = False

    def run_session(self, session: Session) -> Report:
        """Wait for an editor, and play a session; returns its report."""
        self.session = session
        self._sights = Sights(session, note)
        try:
            host, port = self._debugpy.listen(self._address)
        except RuntimeError as error:
            problem = f"cannot listen at {self._address[0]}:{self._address[1]}: {error}"
            raise BadRequest(problem=problem, remedy="Is another debugger there? Give another port: --listen 127.0.0.1:5679") from None
        self._pydevd = _pydevd()
        note(f"waiting for an editor at {host}:{port} (attach to it; Ctrl-C gives up)")
        self._debugpy.wait_for_client()
        note(f"an editor is there; in its console {CONSOLE}.help() says what can be asked")
        for module in list(sys.modules.values()):
            names = getattr(module, "__builtins__", None)
            if "@" in getattr(module, "__name__", "") and isinstance(names, dict):
                names[CONSOLE] = Console(self)
        before = threading.getprofile()
        threading.setprofile(self._entered)
        try:
            with guard.letting_through(self.asks):
                return Desk(_give_up).serve(session.play)
        finally:
            threading.setprofile(before)

    # --- what the session tells ----------------------------------------------------------------------------------------------

    def thread_begins(self) -> None:
        """Look out for the functions that this thread enters."""
        self._debugpy.debug_this_thread()
        sys.setprofile(self._entered)

    def workflow(self, run: Run) -> None:
        """A workflow begins."""
        if not self.session.silent:
            self._sights.workflow(run)

    def transaction(self, scene: Scene) -> None:
        """A transaction begins, or begins again."""
        self._made, self._until = [], scene.until
        self._sights.transaction(scene)

    def answered(self, call: Call, record: Record) -> None:
        """A call was answered from the record."""
        if not self.session.silent:
            self._sights.answered(call, record)

    def asks(self) -> bool:
        """Whether the debugger runs on this thread, above the body."""
        frame = inspect.currentframe()
        while frame is not None and frame.f_code is not execute.__code__:
            if frame.f_code.co_filename.startswith(self._folder):
                return True
            frame = frame.f_back
        return False

    def before(self, statement: Watched) -> None:
        """A statement is about to be executed."""
        if self.session.wished is not None:
            raise self.session.wished
        if self._until > 1 and statement.number >= self._until:
            self._until = 1
            frame = inspect.currentframe()
            while frame is not None and not of_project(frame):
                frame = frame.f_back
            self._stop(frame)

    def after(self, statement: Watched) -> None:
        """A statement has been executed."""
        self._made.append(statement)

    def replayed(self, replayed: Replayed) -> None:
        """A transaction has been replayed."""
        self._sights.replayed(replayed)

    def workflow_replayed(self, replayed: WorkflowReplayed) -> None:
        """A workflow has been replayed."""
        self._sights.workflow_replayed(replayed)

    # --- when to stop --------------------------------------------------------------------------------------------------------

    def _entered(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Hears of every function that is entered. Tracing is the debugger's; this does not get into its way."""
        if event != "call" or not of_project(frame) or self.session.silent or self._until > 1:
            return
        if self._places.begins(frame, every=self._to_beginning):
            self._to_beginning = False
            self._stop(frame)

    def _stop(self, frame: FrameType | None) -> None:
        """Have the debugger stop at the next line of a frame; nobody stops when the editor has gone."""
        if not self._debugpy.is_client_connected():
            return
        self._sights.stopped()
        self._pydevd.settrace(suspend=True, trace_only_current_thread=True, patch_multiprocessing=False, stop_at_frame=frame)

    # --- what the console asks for -------------------------------------------------------------------------------------------

    def go(self, to: GoTo) -> None:
        """Go back there when the body goes on."""
        self._to_beginning = to.statement == 1
        self.session.go(to)

    def made(self) -> list[Watched]:
        """The statements of the transaction so far."""
        return self._made

    @property
    def sights(self) -> Sights:
        """What shows things."""
        return self._sights


class Console:
    """What can be asked in an editor's console while a body is stopped: answers are printed where the command was called, too."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the state that the transaction sees, its own writes included."""
        try:
            columns, rows = self._listener.session.state().look(query)
        except RetroactError as error:
            raise ValueError(str(error.details.get("problem", error))) from None
        self._listener.sights.rows(columns, rows)
        return rows

    def statements(self) -> None:
        """The statements so far, with their results."""
        self._listener.sights.statements(self._listener.made(), None)

    def who(self) -> None:
        """Who wrote the rows that were read."""
        session = self._listener.session
        if session.executing:
            self._listener.sights.who(self._listener.made(), session.records[session.place])

    def trace(self) -> None:
        """Where this is in the trace."""
        self._listener.sights.trace()

    def back(self) -> str:
        """Back by one statement."""
        session, made = self._listener.session, len(self._listener.made())
        if not session.executing:
            return self.back_transaction()
        self._listener.go(GoTo(session.place, max(made, 1)))
        return "go on (continue): the transaction is executed again up to before that statement"

    def back_transaction(self) -> str:
        """Back to the first line of the transaction before."""
        session = self._listener.session
        if session.place == 0:
            return "there is no transaction before this"
        self._listener.go(GoTo(session.place - 1))
        return "go on (continue): the play goes on at the first line of the transaction before"

    def help(self) -> None:
        """What can be asked."""
        for name, value in vars(type(self)).items():
            if not name.startswith("_"):
                out(f"{CONSOLE}.{name}{inspect.signature(value)}".replace("self, ", "").replace("self", "").ljust(36) + str(value.__doc__))


def _give_up() -> None:
    raise KeyboardInterrupt


def _debugpy() -> ModuleType:
    # It would warn that Python's own frozen modules cannot be stepped through, which nobody wants here.
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    try:
        import debugpy
    except ImportError:
        problem = "--listen talks to an editor through debugpy, which is not installed"
        raise BadRequest(problem=problem, remedy="pip install 'retroact[debug]', or use --debug in a terminal") from None
    return debugpy


def _pydevd() -> ModuleType:
    """The debugger below debugpy, which brings it along and shows it when it listens: it can be told in which frame to stop."""
    return importlib.import_module("pydevd")
