"""A scribe in a process of its own, so that a busy writer does not share Python's lock with it.

The two talk over a pipe: one message, one answer, each a length and MessagePack. The process inherits the writer's lock on the
database, so that nobody takes the page log over while it is still at work after the writer died; it ends when the pipe does.

Whatever goes wrong in the process ends it: `Gone` is raised, and the caller goes on with a scribe of its own, which meets the same
trouble, if it is still there, where it can be told.

This module must not know what a note says.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

from retroact.engine.sqlite.scribe import LocalScribe, Note

_LENGTH = 4
#: Frames that the process takes over, more or less, between two looks at whether the writer is still there.
_SLICE_FRAMES = 2500
#: What a message asks for, besides taking over notes.
_OPEN, _CLOSED = "open", "closed"
_DONE = "done"
#: How long a process that was told to end may take (seconds).
_PATIENCE = 10.0


class Gone(Exception):
    """The process has ended."""


class ScribeProcess:
    """A scribe that works elsewhere."""

    def __init__(self, path: Path, lock: int | None) -> None:
        """Start the process, which waits to be told to open the page log. `lock`: the descriptor that it is to hold with us."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = [sys.executable, "-S", "-c", "from retroact.engine.sqlite.scribe_process import main; main()", os.fspath(path.absolute())]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=() if lock is None else (lock,),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asking, self._answering = self._process.stdin, self._process.stdout
        self._receive()

    def open(self) -> None:
        """Open the page log, which nobody else may have open for writing. Raises Gone."""
        self._ask(_OPEN)

    def take_over(self, notes: Sequence[Note]) -> None:
        """See Scribe. Raises Gone."""
        begin, first = 0, 0
        for end, note in enumerate(notes, 1):
            if end == len(notes) or note.frames - first > _SLICE_FRAMES or notes[end].frames < note.frames:
                self._ask(notes[begin:end])
                begin, first = end, note.frames

    def note_closed(self) -> None:
        """See Scribe. Raises Gone."""
        self._ask(_CLOSED)

    def close(self) -> None:
        """End the process, and wait until it has."""
        with contextlib.suppress(OSError):
            self._asking.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answering.close()

    def _ask(self, message: object) -> None:
        try:
            _send(self._asking, message)
        except (OSError, ValueError) as error:
            raise Gone(error) from None
        self._receive()

    def _receive(self) -> None:
        try:
            answer = _read(self._answering)
        except (OSError, ValueError) as error:
            raise Gone(error) from None
        if answer is None:
            raise Gone("the page log's process has ended")


def possible() -> bool:
    """Whether this program can start Python again: one that embeds it may not know how."""
    return os.name == "posix" and bool(sys.executable) and not getattr(sys, "frozen", False)


def main() -> None:
    """The process: do what the messages ask for until there are no more."""
    # Ctrl-C is for the program that started this one; when that ends, the pipe does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    path = Path(sys.argv[1])
    source, target = sys.stdin.buffer, sys.stdout.buffer
    _send(target, _DONE)
    scribe: LocalScribe | None = None
    while (message := _read(source)) is not None:
        if message == _OPEN:
            scribe = LocalScribe(path)
        elif scribe is not None and message == _CLOSED:
            scribe.note_closed()
        elif scribe is not None:
            scribe.take_over(msgspec.convert(message, list[Note]))
        try:
            _send(target, _DONE)
        except BrokenPipeError:
            break
    if scribe is not None:
        scribe.close()


def _send(stream: IO[bytes], message: object) -> None:
    data = msgspec.msgpack.encode(message)
    stream.write(len(data).to_bytes(_LENGTH, "little") + data)
    stream.flush()


def _read(stream: IO[bytes]) -> object | None:
    """The next message; None at the end."""
    length = stream.read(_LENGTH)
    if len(length) < _LENGTH:
        return None
    data = stream.read(int.from_bytes(length, "little"))
    return msgspec.msgpack.decode(data)
