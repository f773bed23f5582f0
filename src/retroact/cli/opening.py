"""Opens what the verbs work on: the trace, the past, the App. Here, and only here, the command line names an engine.

This module must not know any verb.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retroact.app import App
    from retroact.engine.sqlite.history import History
    from retroact.engine.sqlite.trace_reader import TraceReader


@contextlib.contextmanager
def trace_of(database: Path) -> Generator[TraceReader]:
    """The records, read beside whoever writes. Raises NoProject, NotADatabase, NewerDatabase."""
    from retroact.engine.sqlite.trace_reader import TraceReader

    reader = TraceReader(database)
    try:
        yield reader
    finally:
        reader.close()


@contextlib.contextmanager
def history_of(database: Path) -> Generator[History]:
    """The past. Raises NoProject, NotADatabase, NewerDatabase, BeyondHistory."""
    from retroact.engine.sqlite.history import History

    history = History(database)
    try:
        yield history
    finally:
        history.close()


def ask(database: Path, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
    """Rows of the present state, read beside whoever writes."""
    from retroact.engine.sqlite.database import open_reader

    connection = open_reader(database)
    try:
        return connection.execute(sql, tuple(parameters)).fetchall()
    finally:
        connection.close()


@contextlib.contextmanager
def app_on(database: Path, *code: ModuleType) -> Generator[App]:
    """An App that does not go on with interrupted runs by itself. Raises DatabaseBusy, NotADatabase, NewerDatabase, NoProject."""
    from retroact.app import App

    with silenced(), App(database, *code, recover=False) as app:
        yield app


def functions_in(path: Path) -> ModuleType:
    """The module at a path, loaded. Raises LoadFailed."""
    from retroact.function.code import load_path

    with silenced():
        return load_path(path)


@contextlib.contextmanager
def silenced() -> Generator[None]:
    """What the user's functions print goes to standard error: standard output is for the answer."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def now_us() -> int:
    """What time it is."""
    from retroact.engine.clock import SystemClock

    return SystemClock().now_us()
