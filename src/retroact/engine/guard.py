"""Stops a transaction from reaching past the database: no files, no sockets, no processes, no threads.

What a transaction does must be undone by a rollback and be the same when it is run again; an audit hook sees to that while a body
runs in a thread. It costs nothing when nothing is audited. Reading Python source (an import inside a body) is let through.

This module must not know transactions: it is armed and disarmed by who runs a body.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any

from retroact.errors import ForbiddenEffect

_FORBIDDEN = {
    "open": "open {0!r}",
    "socket.connect": "open a network connection",
    "socket.bind": "open a network socket",
    "socket.__new__": "open a socket",
    "socket.getaddrinfo": "look up a host",
    "subprocess.Popen": "start the process {0!r}",
    "os.system": "start a process",
    "os.exec": "start a process",
    "os.fork": "fork the process",
    "os.posix_spawn": "start a process",
    "os.remove": "remove {0!r}",
    "os.rename": "rename {0!r}",
    "os.truncate": "truncate {0!r}",
    "os.link": "link {0!r}",
    "os.symlink": "link {0!r}",
    "os.chmod": "change {0!r}",
    "os.chown": "change {0!r}",
    "os.utime": "change {0!r}",
    "os.kill": "send a signal",
    "os.forkpty": "fork the process",
    "os.spawn": "start a process",
    "os.mkdir": "make the folder {0!r}",
    "os.rmdir": "remove the folder {0!r}",
    "sqlite3.connect": "open another database connection",
    "_thread.start_new_thread": "start a thread",
    "_thread.start_joinable_thread": "start a thread",
    "shutil.rmtree": "remove {0!r}",
}
_SOURCE_SUFFIXES = (".py", ".pyc", ".pyi", ".so", ".pyd", ".zip")
_COMPILED = re.compile(r"\.pyc(\.\d+)?$")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Guard:
    """Armed for the thread that runs a body. One guard serves a process: an audit hook cannot be taken away again."""

    def __init__(self) -> None:
        self._armed: dict[int, str] = {}
        self._let_through: Callable[[], bool] | None = None
        self._installed = False
        self._lock = threading.Lock()

    def install(self) -> None:
        """Start listening, once."""
        with self._lock:
            if self._installed:
                return
            self._installed = True
            sys.addaudithook(self._audit)
            if sys.version_info < (3, 12):
                threading.Thread.start = self._watched(threading.Thread.start)

    @contextlib.contextmanager
    def letting_through(self, asked: Callable[[], bool]) -> Generator[None]:
        """While this lasts, let through what `asked` says is none of the body's: a debugger does its work on the body's thread."""
        self._let_through = asked
        try:
            yield
        finally:
            self._let_through = None

    def arm(self, function: str) -> None:
        """This thread now runs the body of `function`."""
        self._armed[threading.get_ident()] = function

    def disarm(self) -> None:
        """This thread no longer runs a body."""
        self._armed.pop(threading.get_ident(), None)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed or event not in _FORBIDDEN:
            return
        function = self._armed.get(threading.get_ident())
        if function is None or _is_import(event, arguments) or (self._let_through is not None and self._let_through()):
            return
        raise ForbiddenEffect(function=function, action=_FORBIDDEN[event].format(*arguments or ("",)))

    def _watched(self, start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
        """Python 3.11 raises no audit event when a thread starts."""

        def watched(thread: threading.Thread) -> None:
            self._audit("_thread.start_new_thread", (thread,))
            start(thread)

        return watched


def _is_import(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether it is Python that reads a module, or keeps what it compiled."""
    if event not in ("open", "os.mkdir", "os.rename") or not isinstance(arguments[0], str | bytes):
        return event == "open" and isinstance(arguments[0], int)  # a descriptor that is open already
    path = os.fsdecode(arguments[0])
    if event == "open" and not _writes(arguments):
        return path.endswith(_SOURCE_SUFFIXES)
    return path.endswith("__pycache__") if event == "os.mkdir" else _COMPILED.search(path) is not None


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = (*arguments, None, None)[:3]
    return bool(isinstance(mode, str) and set(mode) & set("wax+")) or bool(isinstance(flags, int) and flags & _WRITING)


#: The process has one list of audit hooks, so it has one guard.
guard = Guard()
