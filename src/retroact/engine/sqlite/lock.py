"""One process writes a SQLite database: a lock beside the file says which.

This module must not know what is written.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from retroact.errors import DatabaseBusy

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None


class WriterLock:
    """Held while a process writes; the system takes it away when the process dies, however it dies."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self.path = database.with_name(database.name + "-lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises DatabaseBusy with the process that has it."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                raise DatabaseBusy(path=self._database, pid=holder) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another process write."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None
