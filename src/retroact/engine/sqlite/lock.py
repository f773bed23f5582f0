"""One process writes a SQLite database: a lock beside the file says which.

A process that writes the page log for the writer holds the lock with it. When the writer dies it finishes what it is at, which takes
milliseconds; whoever comes next waits for that.

This module must not know what is written.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from retroact.engine.clock import monotonic
from retroact.errors import DatabaseBusy

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None

#: How long to wait for what a dead writer has left at work (seconds, and how often to look).
_PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.002


class WriterLock:
    """Held while a process writes; the system takes it away when the process dies, however it dies."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self.path = database.with_name(database.name + "-lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises DatabaseBusy with the process that has it."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        deadline, patience = monotonic() + _PATIENCE_SECONDS, threading.Event()
        while not _take(descriptor):
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            if _is_alive(holder) or monotonic() > deadline:
                os.close(descriptor)
                raise DatabaseBusy(path=self._database, pid=holder or "unknown")
            patience.wait(_LOOK_SECONDS)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    @property
    def descriptor(self) -> int | None:
        """What a process that is to hold the lock with this one inherits."""
        return self._descriptor

    def release(self) -> None:
        """Let another process write."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def _take(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_alive(holder: str) -> bool:
    """Whether the process that wrote its number into the lock may still run. One that has not written it yet has just begun."""
    if not holder.isdecimal():
        return True
    try:
        os.kill(int(holder), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        # A process that was killed has a number until its parent has asked what became of it.
        return Path(f"/proc/{holder}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return True
